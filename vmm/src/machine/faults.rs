//! Fault rules of a running machine: listed, armed, disarmed, triggered. `docs/faults.md`

use serde_json::json;

use crate::board::Board;
use crate::faults::{Rule, Trigger};
use crate::machine::{Answer, FaultOrder, Refused};

/// Most rules of one list: it has less than an answer may have.
const MOST_LISTED: usize = 200;

/// Does what is asked of the fault rules.
pub(super) fn perform(board: &Board, order: &FaultOrder) -> Answer {
    match order {
        FaultOrder::List(from) => {
            let (rules, next) = board.fault_rules(*from, MOST_LISTED);
            Ok(json!({ "rules": rules, "next": next }))
        }
        FaultOrder::Arm(text) => {
            let rule = Rule::parse(text).map_err(Refused::NoRule)?;
            let text = rule.to_string();
            let id = board.arm_fault(rule, false)?;
            Ok(json!({ "id": id, "rule": text }))
        }
        FaultOrder::Disarm(id) => {
            board.disarm_fault(*id)?;
            Ok(json!({}))
        }
        FaultOrder::Trigger(text) => match Trigger::parse(text).map_err(Refused::NoRule)? {
            Trigger::Next(rule) => {
                let text = rule.to_string();
                let id = board.arm_fault(rule, true)?;
                Ok(json!({ "when": "next", "id": id, "rule": text }))
            }
            Trigger::Now(event) => {
                board.go_wrong(event)?;
                Ok(json!({ "when": "now", "id": null, "rule": event.to_string() }))
            }
        },
    }
}
