//! What a running machine tells of itself, as JSON: by path, and its counters. `docs/control.md` has both.
//!
//! Addresses and register values are strings of hexadecimal digits: a number of JSON that has passed through JavaScript has
//! 53 bits.

use serde_json::{Map, Value, json};

use crate::board::Board;
use crate::engine::Registers;
use crate::report::{AtcReport, Report};

fn hex(value: u64) -> Value {
    Value::String(format!("{value:#x}"))
}

/// The general registers, and system registers by name.
pub(super) fn registers(general: &Registers, system: &[(&'static str, u64)]) -> Value {
    let mut all = Map::new();
    for (n, value) in general.x.iter().enumerate() {
        all.insert(format!("x{n}"), hex(*value));
    }
    all.insert("sp".to_owned(), hex(general.sp));
    all.insert("pc".to_owned(), hex(general.pc));
    all.insert("pstate".to_owned(), hex(general.pstate));
    all.extend(system.iter().map(|(name, value)| ((*name).to_owned(), hex(*value))));
    Value::Object(all)
}

/// The numbers of a run so far: what `--report-json` writes at the end.
pub(super) fn counters(board: &Board) -> Value {
    json!(Report::of(board))
}

/// The paths below the board.
pub(super) fn paths(board: &Board) -> Vec<String> {
    let zips = (0..board.accelerators()).map(|n| format!("zip{n}"));
    ["smmu", "clock", "faults"].map(str::to_owned).into_iter().chain(zips).collect()
}

/// What is at one of them.
pub(super) fn of_board(board: &Board, path: &str) -> Option<Value> {
    match path {
        "smmu" => Some(json!(Report::of(board).smmu)),
        "clock" => Some(json!({ "guest_ns": board.now_ns() })),
        "faults" => Some(json!(board.fault_report())),
        _ => {
            let index = (0..board.accelerators()).find(|n| path == format!("zip{n}"))?;
            let (totals, atc) = board.accelerator(index)?;
            Some(
                json!({ "commands": totals.commands, "busy_ns": totals.busy_ns, "atc": AtcReport::from(&atc) }),
            )
        }
    }
}
