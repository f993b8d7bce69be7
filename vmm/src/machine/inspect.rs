//! What a running machine tells of itself, as JSON: by path, and its counters. `docs/control.md` has both.
//!
//! Addresses and register values are strings of hexadecimal digits: a number of JSON that has passed through JavaScript has
//! 53 bits.

use hw::saved::hex::value as hex;
use serde_json::{Map, Value, json};

use crate::board::Board;
use crate::engine::Registers;
use crate::machine::{Answer, Refused};
use crate::report::Report;

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

/// The numbers of a run so far: most of what `--report-json` writes at the end, with fewer firings of fault rules if there are very many.
pub(super) fn counters(board: &Board) -> Answer {
    let mut value = Value::Null;
    for most_firings in [MOST_FIRINGS, 0] {
        value = json!(Report::so_far(board).with_firings(most_firings));
        if value.to_string().len() <= MOST_BYTES {
            return Ok(value);
        }
    }
    descend("counters", value, [].into_iter())
}

/// Most firings of fault rules that counters tell of.
const MOST_FIRINGS: usize = 500;
/// Most bytes of an answer: less than what the control socket keeps for a client that does not read.
const MOST_BYTES: usize = 256 << 10;
/// Most names in a message.
const MOST_NAMES: usize = 40;

/// What the board has at the top, beside vCPUs.
pub(super) fn names(board: &Board) -> Vec<String> {
    let others = ["gic", "clock", "faults"].map(str::to_owned);
    board.model_names().map(str::to_owned).chain(others).collect()
}

/// All of one of those.
pub(super) fn of_board(board: &Board, name: &str) -> Option<Value> {
    match name {
        "clock" => Some(json!({ "guest_ns": board.now_ns() })),
        "faults" => Some(json!(board.fault_report())),
        "gic" => {
            Some(bare(board.engine().save()).get_mut("gic").map(|gic| bare(gic.take())).unwrap_or_default())
        }
        _ => {
            let state = bare(board.save_model(name)?);
            let counters = match board.accelerator_report(name) {
                Some(report) => Some(json!(report)),
                None => (name == "smmu").then(|| json!(Report::so_far(board).smmu)),
            };
            Some(counters.map_or(state.clone(), |counters| with(state, "counters", counters)))
        }
    }
}

/// A state with one more part. One that is not whole has that part alone.
pub(super) fn with(state: Value, name: &str, part: Value) -> Value {
    let mut all = if let Value::Object(all) = state { all } else { Map::new() };
    all.insert(name.to_owned(), part);
    Value::Object(all)
}

/// A model's state without its version, in which nobody is interested who looks inside. The state that is within one too.
pub(super) fn bare(value: Value) -> Value {
    match value {
        Value::Object(mut fields)
            if fields.len() == 2 && fields.contains_key("version") && fields.contains_key("state") =>
        {
            bare(fields.remove("state").unwrap_or_default())
        }
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, bare(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

/// What is at the rest of a path, below `value`, which is at `path`.
pub(super) fn descend<'a>(path: &str, mut value: Value, rest: impl Iterator<Item = &'a str>) -> Answer {
    let mut at = path.to_owned();
    for step in rest {
        let part = match &mut value {
            Value::Object(fields) => fields.get_mut(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        match part.map(Value::take) {
            Some(part) => value = part,
            None => {
                return Err(Refused::NoSuchPath { path: format!("{at}/{step}"), at, there: parts(&value) });
            }
        }
        at = format!("{at}/{step}");
    }
    let bytes = value.to_string().len();
    if bytes > MOST_BYTES {
        return Err(Refused::TooMuch { path: at, bytes, there: parts(&value) });
    }
    Ok(value)
}

/// The names of what is in a value.
fn parts(value: &Value) -> Vec<String> {
    let mut parts: Vec<String> = match value {
        Value::Object(fields) => fields.keys().take(MOST_NAMES + 1).cloned().collect(),
        Value::Array(items) if !items.is_empty() => vec![format!("0 to {}", items.len() - 1)],
        _ => Vec::new(),
    };
    if parts.len() > MOST_NAMES {
        parts[MOST_NAMES] = "more".to_owned();
    }
    if parts.is_empty() {
        parts.push("nothing below".to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Answer {
        let state = json!({ "version": 3, "state": { "cr0": "0x1", "queues": [{ "version": 1, "state": { "tail": 7 } }] } });
        descend("smmu", bare(state), path.split('/').filter(|step| !step.is_empty()))
    }

    #[test]
    fn path_goes_by_names_and_numbers_and_past_versions() {
        assert_eq!(at("").unwrap(), json!({ "cr0": "0x1", "queues": [{ "tail": 7 }] }));
        assert_eq!(at("cr0").unwrap(), json!("0x1"));
        assert_eq!(at("queues/0/tail").unwrap(), json!(7));
    }

    #[test]
    fn path_that_leads_nowhere_lists_what_there_is_at_its_deepest_part() {
        let refused = |path: &str| at(path).unwrap_err().to_string();
        assert_eq!(refused("cr1/x"), "nothing is at \"smmu/cr1\"; at smmu there is cr0, queues");
        assert_eq!(refused("queues/1"), "nothing is at \"smmu/queues/1\"; at smmu/queues there is 0 to 0");
        assert_eq!(refused("queues/-1"), "nothing is at \"smmu/queues/-1\"; at smmu/queues there is 0 to 0");
        assert_eq!(refused("cr0/bit"), "nothing is at \"smmu/cr0/bit\"; at smmu/cr0 there is nothing below");
    }

    #[test]
    fn answer_that_is_too_long_is_refused_with_its_parts() {
        let long = json!({ "lpis": vec![1_234_567_890_u64; 50_000], "cr": 1 });
        let refused = descend("gic", long.clone(), [].into_iter()).unwrap_err().to_string();
        assert!(refused.contains("ask for a part") && refused.contains("cr, lpis"), "{refused}");
        assert_eq!(descend("gic", long, ["cr"].into_iter()).unwrap(), json!(1));
        let many: Map<String, Value> = (0..100).map(|n| (format!("{n:03}"), json!(n))).collect();
        let refused = descend("x", many.into(), ["y"].into_iter()).unwrap_err().to_string();
        assert!(refused.ends_with("039, more"), "{refused}");
    }
}
