//! The `warpvmm` program.

use std::process::ExitCode;

use clap::Parser;
use vmm::cli::{Cli, Command};
use vmm::exit::{Failed, Status};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(message) = vmm::host::logger::start(cli.log.as_deref()) {
        eprintln!("warpvmm: {message}");
        return ExitCode::from(Status::Usage as u8);
    }
    let result = match &cli.command {
        Command::Run(args) => vmm::run::run(args),
        Command::Compress(args) => vmm::compress::compress(args),
    };
    let status = match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("warpvmm: {error:#}");
            error.downcast_ref::<Failed>().map_or(Status::Failure, |failed| failed.status)
        }
    };
    ExitCode::from(status as u8)
}
