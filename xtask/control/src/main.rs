//! Writes `docs/control-reference.md`, or checks that it is current: the methods of the control socket with their parameters,
//! results and errors.
//!
//! Nothing in the document is written by hand: the tables are those by which the program reads requests.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use vmm::control::reference;

fn main() -> ExitCode {
    documents::run("control-reference", |_| {
        Ok(vec![("docs/control-reference.md".to_owned(), reference::document())])
    })
}
