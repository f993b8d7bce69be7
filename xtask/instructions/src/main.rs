//! Writes `docs/instructions.md`, or checks that it is current: every row of the CPU engine's instruction table, what
//! executes it in each tier, and which class of the comparison with `qemu-aarch64` covers it.
//!
//! Nothing in the document is written by hand: the table is `cpu::insn::ROWS`, and `cpu-diff` says what it compares.

#![forbid(unsafe_code)]

mod table;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", root] => write(Path::new(root)),
        ["check", root] => check(Path::new(root)),
        _ => Err(anyhow::anyhow!("usage: instruction-table write|check CHECKOUT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const DOCUMENT: &str = "docs/instructions.md";

fn write(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, table::document()).with_context(|| format!("cannot write {}", path.display()))
}

fn check(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    let present = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if present != table::document() {
        bail!("{DOCUMENT} is not current; run: cargo xtask docs");
    }
    Ok(())
}
