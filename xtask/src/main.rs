//! `cargo xtask`: the one door for people and for CI.
//!
//! Each command does its own set-up first: missing system packages, the kernel's source, the guest. What was made before
//! and is still current is not made again. This program doesn't depend on the emulator's crates: it must build in
//! seconds, also while they don't.

mod archive;
mod arm64_host;
mod bench;
mod check;
mod cpio;
mod firmware;
mod guest;
mod key;
mod licences;
mod packages;
mod process;
mod progress;
mod project;
mod run;
mod test;
mod test_programs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::guest::GuestOptions;
use crate::project::Project;

/// Builds, runs, tests and checks warpvmm.
///
/// `cargo xtask run` is the place to start: on a fresh Debian system with a Rust toolchain it installs what is missing
/// (as root or with sudo), builds the guest's Linux kernel and programs once (some minutes), boots them on the emulator,
/// and compresses a file on the emulated accelerator.
///
/// Everything is kept below target/: the guest in target/guest, results in target/run and target/bench, downloads and
/// object files in target/cache. Deleting any of it costs only time.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Task,
    #[command(flatten)]
    guest: GuestOptions,
}

#[derive(Subcommand)]
enum Task {
    /// Set up everything, build the guest, boot it, compress FILE in it, verify and report
    ///
    /// Leaves the output, the guest's console log and a JSON report in target/run and prints their paths last.
    Run(run::RunOptions),
    /// Set up everything, build the guest and run every test
    ///
    /// In this order: unit and property tests, end-to-end tests that boot the guest, and the comparison of the
    /// processor with qemu-aarch64. Stops at nothing; ends with a summary, and fails if anything failed.
    Test(test::TestOptions),
    /// Set up and build the guest only, and print where its parts are
    Guest {
        /// Also fetch Debian's own arm64 kernel, unmodified
        #[arg(long)]
        stock: bool,
        /// Also build this kernel, into a folder of its name; repeat for more
        #[arg(long, value_name = "NAME", value_enum)]
        flavour: Vec<guest::Flavour>,
    },
    /// Build the bare-metal programs of firmware/, which test the hardware models without an operating system
    Firmware,
    /// Measure: boot and guest's speed beside qemu-system-aarch64, the accelerator beside the same library on the host
    Bench(bench::BenchOptions),
    /// Check what needs no guest: format, lints, documentation, licences of dependencies, generated documents
    Check(check::CheckOptions),
    /// Write the generated documents: docs/registers, docs/instructions.md, docs/control-reference.md, docs/licences.md
    Docs,
    /// The host's side of the accelerator's benchmark
    #[command(hide = true)]
    Direct { file: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let project = Project::find();
    match perform(&project, &cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(project: &Project, cli: &Cli) -> Result<()> {
    match &cli.command {
        Task::Run(options) => run::run(project, &cli.guest, options),
        Task::Test(options) => test::test(project, &cli.guest, options),
        Task::Guest { stock, flavour } => {
            let guest = guest::build(project, &cli.guest)?;
            println!("kernel  {}", project.shown(&guest.kernel));
            println!("initrd  {}", project.shown(&guest.initrd));
            println!("symbols {}", project.shown(&guest.sample));
            for flavour in flavour {
                let image = guest::flavour(project, &cli.guest, *flavour)?;
                println!("{:<7} {}", flavour.name(), project.shown(&image));
            }
            if *stock {
                println!("stock   {}", project.shown(&guest::stock_kernel(project, &cli.guest)?));
            }
            Ok(())
        }
        Task::Firmware => {
            for image in firmware::build(project, !cli.guest.no_install)? {
                println!("{}", project.shown(&image));
            }
            Ok(())
        }
        Task::Bench(options) => bench::bench(project, &cli.guest, options),
        Task::Direct { file } => bench::direct(file),
        Task::Check(options) => check::check(project, options),
        Task::Docs => check::docs(project),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
