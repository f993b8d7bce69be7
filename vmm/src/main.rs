//! The `warpvmm` program.

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use vmm::cli::{Cli, Command, FaultsCommand};
use vmm::exit::{self, Status};

fn main() -> ExitCode {
    vmm::crash::take_panics();
    // A panic has been reported when it happened; what unwinding has left is not looked at again.
    let status = panic::catch_unwind(run).unwrap_or(Status::Failure);
    ExitCode::from(status as u8)
}

fn run() -> Status {
    let cli = Cli::parse();
    if let Err(message) = vmm::host::logger::start(cli.log.as_deref()) {
        eprintln!("warpvmm: {message}");
        return Status::Usage;
    }
    if let Err(error) = vmm::host::signals::report_file_size_limit() {
        eprintln!("warpvmm: cannot ignore the signal SIGXFSZ: {error}");
        return Status::Failure;
    }
    let result = match &cli.command {
        Command::Run(args) => vmm::run::run(args),
        Command::Restore(args) => vmm::restore::restore(args),
        Command::Compress(args) => vmm::compress::compress(args),
        Command::Ctl(args) => vmm::control::client::ctl(args),
        Command::Faults(args) => match &args.command {
            FaultsCommand::List { json } => vmm::faults::list(*json),
            FaultsCommand::Check { plan } => vmm::faults::check(plan),
        },
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("warpvmm: {}", exit::line(&error));
            exit::status(&error)
        }
    }
}
