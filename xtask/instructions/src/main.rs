//! Writes `docs/instructions.md`, or checks that it is current: every row of the CPU engine's instruction table, what
//! executes it in each tier, and which class of the comparison with `qemu-aarch64` covers it.
//!
//! Nothing in the document is written by hand: the table is `cpu::insn::ROWS`, and `cpu-diff` says what it compares.

#![forbid(unsafe_code)]

mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    documents::run("instruction-table", |_| Ok(vec![("docs/instructions.md".to_owned(), table::document())]))
}
