//! `cargo xtask run`: from a clean checkout to a compressed file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::guest::{self, Flavour, GuestOptions};
use crate::process;
use crate::project::Project;

#[derive(Args)]
pub(crate) struct RunOptions {
    /// File to compress; without, one that the guest build has produced
    file: Option<PathBuf>,
    /// Format of the output
    #[arg(long, value_enum, default_value_t = Format::Gzip)]
    format: Format,
    /// Decompress FILE instead
    #[arg(short, long, requires = "file")]
    decompress: bool,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Guest memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Guest kernel
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Flavour::Default)]
    flavour: Flavour,
    /// Accelerator, as for `warpvmm compress`; zip:pri needs the flavour pri
    #[arg(long, value_name = "KIND")]
    accel: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Gzip,
    Zlib,
    Deflate,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zlib => "zz",
            Self::Deflate => "deflate",
        }
    }
}

pub(crate) fn run(project: &Project, setup: &GuestOptions, options: &RunOptions) -> Result<()> {
    // What the user can still correct comes before the long steps.
    if let Some(file) = &options.file {
        let file = fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            bail!("FILE is a folder; give a file, such as an archive of it");
        }
    }
    let guest = guest::build(project, setup)?;
    let kernel = match options.flavour {
        Flavour::Default => guest.kernel,
        other => guest::flavour(project, setup, other)?,
    };
    let emulator = emulator(project)?;

    let input = options.file.as_ref().unwrap_or(&guest.sample);
    let folder = project.run();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let output = folder.join(output_name(input, options));
    let console = folder.join("console.log");
    let report = folder.join("report.json");

    let mut command = Command::new(&emulator);
    command.arg("compress").arg(input).arg("-o").arg(&output).args(["--format", options.format.name()]);
    command.arg("--kernel").arg(&kernel).arg("--initrd").arg(&guest.initrd);
    command.arg("--console-log").arg(&console).arg("--report-json").arg(&report);
    // The folder is ours: results of an earlier run are there to be replaced.
    command.arg("--force");
    if options.decompress {
        command.arg("-d");
    }
    if let Some(accel) = &options.accel {
        command.args(["--accel", accel]);
    }
    if let Some(cpus) = options.cpus {
        command.args(["--cpus", &cpus.to_string()]);
    }
    if let Some(memory) = &options.memory {
        command.args(["--memory", memory]);
    }
    process::visible(&mut command)
        .with_context(|| format!("the job did not succeed (guest's console: {})", project.shown(&console)))?;

    println!("output   {}", project.shown(&output));
    println!("console  {}", project.shown(&console));
    println!("report   {}", project.shown(&report));
    Ok(())
}

/// The emulator, built.
pub(crate) fn emulator(project: &Project) -> Result<PathBuf> {
    eprintln!("building warpvmm ...");
    process::visible(
        Command::new(env!("CARGO")).args(["build", "--release", "-p", "vmm"]).current_dir(project.root()),
    )
    .context("cannot build warpvmm")?;
    Ok(project.cargo_target().join("release/warpvmm"))
}

fn output_name(input: &Path, options: &RunOptions) -> String {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let extension = options.format.extension();
    if !options.decompress {
        return format!("{name}.{extension}");
    }
    match name.strip_suffix(&format!(".{extension}")) {
        Some(name) => name.to_owned(),
        None => format!("{name}.out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(format: Format, decompress: bool) -> RunOptions {
        RunOptions {
            file: None,
            format,
            decompress,
            cpus: None,
            memory: None,
            flavour: Flavour::Default,
            accel: None,
        }
    }

    #[test]
    fn output_is_named_after_the_input() {
        assert_eq!(output_name(Path::new("/a/b.txt"), &options(Format::Gzip, false)), "b.txt.gz");
        assert_eq!(output_name(Path::new("b.txt.gz"), &options(Format::Gzip, true)), "b.txt");
        assert_eq!(output_name(Path::new("b.txt"), &options(Format::Zlib, true)), "b.txt.out");
    }
}
