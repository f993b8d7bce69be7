//! What `monitor` does in GDB.

use super::target::{Debuggee, Machine};
use crate::control::client::{lines_of, tree_of};
use crate::engine::debug::Space;
use crate::machine::Operation;

const HELP: &str = "\
help                      this list
inspect PATH              what `warpvmm ctl inspect` shows: cpu0/regs, smmu, clock, ...
counters                  what accelerators, SMMU and fault plan have counted so far
reset                     power-on; the machine then stands before its first instruction
memory physical|virtual   which addresses GDB's memory commands mean
";

/// Carries out one command and gives the text to be shown.
pub(super) fn run<D: Debuggee>(machine: &mut Machine<D>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let operation = match words[..] {
        [] | ["help"] => return HELP.to_owned(),
        ["memory", which] => {
            machine.space = match which {
                "physical" => Space::Physical,
                "virtual" => Space::Virtual,
                _ => return "memory is physical or virtual\n".to_owned(),
            };
            return format!("memory: {which} addresses\n");
        }
        ["inspect", path] => Operation::Inspect(path.to_owned()),
        ["counters"] => Operation::Counters,
        ["reset"] => Operation::Reset,
        _ => return format!("no such command; there are\n{HELP}"),
    };
    let is_reset = operation == Operation::Reset;
    let is_tree = matches!(operation, Operation::Inspect(_));
    match machine.debuggee().ask(operation) {
        Ok(_) if is_reset => {
            "the machine is at power-on; `maintenance flush register-cache` makes GDB look again\n".to_owned()
        }
        Ok(answer) if is_tree => tree_of(&answer),
        Ok(answer) => lines_of(&answer),
        Err(refused) => format!("{refused}\n"),
    }
}
