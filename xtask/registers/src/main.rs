//! Writes `docs/registers`, one document for each model with registers, or checks that the documents are current.
//!
//! What is declared comes from the models' `register_map!`s; reset values from the models themselves, as they are after
//! power-on; how far a register goes and which tests show it from the sources ([`sources`]). So nothing in the
//! documents is written by hand, and `cargo xtask check` fails when they don't say what the sources say.

#![forbid(unsafe_code)]

mod maps;
mod sources;
mod table;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", root] => perform(Path::new(root), true),
        ["check", root] => perform(Path::new(root), false),
        _ => Err(anyhow::anyhow!("usage: register-tables write|check CHECKOUT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(root: &Path, write: bool) -> Result<()> {
    let folder = root.join("docs/registers");
    let documents = table::documents(root)?;
    if write {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (name, text) in &documents {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        return Ok(());
    }
    let stale: Vec<&str> = documents
        .iter()
        .filter(|(name, text)| fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name.as_str())
        .collect();
    if !stale.is_empty() {
        bail!("not current in docs/registers: {}; run: cargo xtask docs", stale.join(", "));
    }
    Ok(())
}
