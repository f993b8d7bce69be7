//! The bare-metal programs of `firmware/`: each file in `firmware/tests` becomes a kernel image of that name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest::programs::COMPILER;
use crate::packages;
use crate::process;
use crate::project::{Project, unfinished};

const OBJCOPY: &str = "aarch64-linux-gnu-objcopy";
/// No library, no floating-point registers, and no unaligned accesses: memory is Device memory while the MMU is off.
/// The order of functions is the order of checks.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-toplevel-reorder",
    "-fno-asynchronous-unwind-tables",
    "-mgeneral-regs-only",
    "-mstrict-align",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Ilib",
    "-Wl,--build-id=none,-z,noexecstack,-n",
    "-Wl,-T,lib/link.ld",
];

/// Compiles all programs, which takes a second; returns their images.
pub(crate) fn build(project: &Project, may_install: bool) -> Result<Vec<PathBuf>> {
    packages::require(&[packages::FIRMWARE], may_install)?;
    let sources = project.root().join("firmware");
    let folder = project.firmware();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let library = files(&sources.join("lib"), &["c", "S"])?;
    let mut images = Vec::new();
    for program in files(&sources.join("tests"), &["c"])? {
        let name = program.file_stem().unwrap_or_default();
        let image = folder.join(name).with_extension("img");
        compile(&sources, &library, &program, &image)
            .with_context(|| format!("cannot build {}", image.display()))?;
        images.push(image);
    }
    Ok(images)
}

fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let wanted =
        |path: &PathBuf| path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted));
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(wanted).collect();
    files.sort();
    Ok(files)
}

fn compile(sources: &Path, library: &[PathBuf], program: &Path, image: &Path) -> Result<()> {
    // Paths as a reader of a failed check's message knows them.
    let relative = |path: &Path| path.strip_prefix(sources).unwrap_or(path).to_path_buf();
    let elf = image.with_extension("elf");
    let mut compiler = Command::new(COMPILER);
    compiler.args(FLAGS).arg("-o").arg(&elf).args(library.iter().map(|file| relative(file)));
    process::visible(compiler.arg(relative(program)).current_dir(sources))?;
    let unfinished = unfinished(image);
    process::visible(Command::new(OBJCOPY).args(["-O", "binary"]).arg(&elf).arg(&unfinished))?;
    fs::rename(&unfinished, image).with_context(|| format!("cannot write {}", image.display()))
}
