//! Writes `docs/control-reference.md`, or checks that it is current: the methods of the control socket with their parameters,
//! results and errors.
//!
//! Nothing in the document is written by hand: the tables are those by which the program reads requests.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use vmm::control::reference;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", root] => write(Path::new(root)),
        ["check", root] => check(Path::new(root)),
        _ => Err(anyhow::anyhow!("usage: control-reference write|check CHECKOUT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const DOCUMENT: &str = "docs/control-reference.md";

fn write(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, reference::document()).with_context(|| format!("cannot write {}", path.display()))
}

fn check(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    let present = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if present != reference::document() {
        bail!("{DOCUMENT} is not current; run: cargo xtask docs");
    }
    Ok(())
}
