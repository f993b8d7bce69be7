//! `cargo xtask check`: what can be said about the code without running it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::licences;
use crate::process;
use crate::project::{Project, write_whole};

#[derive(Args)]
pub(crate) struct CheckOptions {
    /// Write the generated documents and format the code instead of complaining
    #[arg(long)]
    fix: bool,
    /// Only this check: format, lints, documentation, licences, registers, instructions, control
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Packages whose programs use the emulator's crates.
const TOOLS: &[&str] = &["register-tables", "instruction-table", "control-reference", "fuzz"];

type Check = fn(&Project, bool) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("format", format),
    ("lints", lints),
    ("documentation", documentation),
    ("licences", licences_document),
    ("registers", register_documents),
    ("instructions", instruction_document),
    ("control", control_document),
];

pub(crate) fn check(project: &Project, options: &CheckOptions) -> Result<()> {
    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for (name, check) in CHECKS {
        if options.only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        match check(project, options.fix) {
            Ok(()) => lines.push(format!("ok     {name}")),
            Err(error) => {
                lines.push(format!("FAILED {name}: {error:#}"));
                failed.push(*name);
            }
        }
    }
    if lines.is_empty() {
        bail!("no check has this name");
    }
    println!("\n{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo(project: &Project, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(words).current_dir(project.root());
    command
}

fn format(project: &Project, fix: bool) -> Result<()> {
    let words: &[&str] = if fix { &["fmt", "--all"] } else { &["fmt", "--all", "--", "--check"] };
    process::visible(&mut cargo(project, words))
}

fn lints(project: &Project, _fix: bool) -> Result<()> {
    process::visible(&mut cargo(project, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn documentation(project: &Project, _fix: bool) -> Result<()> {
    let words = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    process::visible(cargo(project, &words).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks that `docs/registers` says what the sources say.
fn register_documents(project: &Project, fix: bool) -> Result<()> {
    documents_of(project, "register-tables", fix)
}

/// Checks that `docs/instructions.md` says what the instruction table says.
fn instruction_document(project: &Project, fix: bool) -> Result<()> {
    documents_of(project, "instruction-table", fix)
}

/// Checks that `docs/control-reference.md` says what the control socket's tables say.
fn control_document(project: &Project, fix: bool) -> Result<()> {
    documents_of(project, "control-reference", fix)
}

/// Writes or checks what this package generates. It depends on the emulator's crates, so it is a program of its own.
fn documents_of(project: &Project, package: &str, write: bool) -> Result<()> {
    let what = if write { "write" } else { "check" };
    process::visible(tool(project, package)?.arg(what).arg(project.root()))
}

/// A program of this package, which depends on the emulator's crates. All such packages are built together: each alone
/// would have the crates below compiled anew, with its own choice of their features.
pub(crate) fn tool(project: &Project, package: &str) -> Result<Command> {
    let mut words = vec!["build", "--quiet"];
    words.extend(TOOLS.iter().flat_map(|tool| ["--package", *tool]));
    process::visible(&mut cargo(project, &words))?;
    let mut command = Command::new(project.cargo_target().join("debug").join(package));
    command.current_dir(project.root());
    Ok(command)
}

/// Writes every generated document.
pub(crate) fn docs(project: &Project) -> Result<()> {
    register_documents(project, true)?;
    instruction_document(project, true)?;
    control_document(project, true)?;
    licences_document(project, true)
}

/// Checks every generated document.
pub(crate) fn generated_documents(project: &Project) -> Result<()> {
    register_documents(project, false)?;
    instruction_document(project, false)?;
    control_document(project, false)?;
    licences_document(project, false)
}

/// Checks that every dependency's licence is acceptable, and that the document that lists them is current.
fn licences_document(project: &Project, fix: bool) -> Result<()> {
    let words = ["metadata", "--format-version", "1", "--locked", "--quiet"];
    let document = licences::document(&process::output(&mut cargo(project, &words))?)?;
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
