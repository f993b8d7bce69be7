//! Writes `docs/registers`, one document for each model with registers, or checks that the documents are current.
//!
//! What is declared comes from the models' `register_map!`s; reset values from the models themselves, as they are after
//! power-on; how far a register goes and which tests show it from the sources ([`sources`]). So nothing in the
//! documents is written by hand, and `cargo xtask check` fails when they don't say what the sources say.

#![forbid(unsafe_code)]

mod maps;
mod sources;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    documents::run("register-tables", |root| {
        let in_folder = |(name, text)| (format!("docs/registers/{name}"), text);
        Ok(table::documents(root)?.into_iter().map(in_folder).collect())
    })
}
