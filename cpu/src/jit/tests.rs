//! Translations against the interpreter.

mod faults;
mod interrupts;
mod litmus;
mod rewriting;
