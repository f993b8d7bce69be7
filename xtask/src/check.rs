//! `cargo xtask check`: what can be said about the code without running it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::licences;
use crate::process;
use crate::project::{Project, write_whole};

pub(crate) fn check(project: &Project, fix: bool) -> Result<()> {
    let cargo = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(words).current_dir(project.root());
        command
    };
    let mut format = cargo(&["fmt", "--all"]);
    if !fix {
        format.args(["--", "--check"]);
    }
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let steps: Vec<(&str, Result<()>)> = vec![
        ("format", process::visible(&mut format)),
        (
            "lints",
            process::visible(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ),
        ("documentation", process::visible(&mut documentation)),
        ("licences", generated_licences(project, fix)),
    ];

    println!();
    for (name, result) in &steps {
        match result {
            Ok(()) => println!("ok     {name}"),
            Err(error) => println!("FAILED {name}: {error:#}"),
        }
    }
    let failed: Vec<&str> =
        steps.iter().filter(|(_, result)| result.is_err()).map(|(name, _)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Checks that every dependency's licence is acceptable, and that the document that lists them is current.
fn generated_licences(project: &Project, fix: bool) -> Result<()> {
    let metadata = process::output(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--quiet"])
            .current_dir(project.root()),
    )?;
    let document = licences::document(&metadata)?;
    let path = project.root().join("docs/licences.md");
    if fix {
        return write_whole(&path, document.as_bytes());
    }
    let present = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if present != document {
        bail!("{} is not current; run: cargo xtask check --fix", project.shown(&path));
    }
    Ok(())
}
