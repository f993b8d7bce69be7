//! The control socket: bytes of a client, in pieces, as lines and requests, and what requests do to the fault rules.

use std::sync::Arc;

use hw::ManualClock;
use vmm::control::lines::{LINE_BYTES, Lines};
use vmm::control::protocol::{self, Call};
use vmm::faults::{Rule, Rules, Running, Trigger};
use vmm::machine::{FaultOrder, Operation};

use crate::input::Input;

/// Cut into whatever pieces, the same lines come out; what is kept is bounded; each line is a request or has an error of one
/// line, and what is answered is JSON. Rules that are armed are those that were written, and come back from a save as they were.
pub fn control(data: &[u8]) {
    let mut input = Input::new(data);
    let size = usize::from(input.u8()) + 1;
    let bytes = input.bytes(usize::MAX);
    let cut = lines(bytes, size);
    assert_eq!(cut, lines(bytes, 4096));
    let rules = running();
    for line in cut {
        let request = protocol::parse(&line);
        let result = request.call.map(|call| {
            let text = format!("{call:?}");
            serve(call, &rules);
            text.into()
        });
        let answer = protocol::answer(&request.id.unwrap_or_default(), result);
        assert_eq!(answer.iter().position(|byte| *byte == b'\n'), Some(answer.len() - 1));
        assert!(serde_json::from_slice::<serde_json::Value>(&answer).is_ok());
    }
    if let Some(saved) = rules.save() {
        let restored = running();
        restored.restore(&saved).expect("what was saved is taken up");
        assert_eq!(restored.save(), Some(saved));
        assert_eq!(restored.list(0, usize::MAX), rules.list(0, usize::MAX));
    }
}

fn running() -> Arc<Running> {
    Running::with(Rules { change: true, ..Rules::default() }, Arc::new(ManualClock::default()))
}

/// What the machine does with a request, as far as it needs no machine.
fn serve(call: Call, rules: &Running) {
    match call {
        Call::Input(bytes) => assert!(bytes.len() <= LINE_BYTES, "no more than a line has"),
        Call::Machine(Operation::Fault(order)) => match order {
            FaultOrder::List(from) => {
                let (listed, next) = rules.list(from, 3);
                assert!(listed.len() <= 3 && listed.iter().all(|rule| rule.id >= from));
                assert!(next.is_none_or(|next| listed.iter().all(|rule| rule.id < next)));
            }
            FaultOrder::Arm(text) => {
                if let Ok(rule) = Rule::parse(&text) {
                    arm(rules, rule, false);
                }
            }
            FaultOrder::Disarm(id) => {
                let is_there = rules.list(id, 1).0.first().is_some_and(|rule| rule.id == id);
                assert_eq!(rules.disarm(id).is_ok(), is_there);
            }
            FaultOrder::Trigger(text) => match Trigger::parse(&text) {
                Ok(Trigger::Next(rule)) => arm(rules, rule, true),
                Ok(Trigger::Now(event)) => {
                    assert_eq!(Trigger::parse(&event.to_string()), Ok(Trigger::Now(event)));
                    rules.happened(event);
                }
                Err(_) => {}
            },
        },
        _ => {}
    }
}

fn arm(rules: &Running, rule: Rule, is_urgent: bool) {
    let written = rule.to_string();
    assert_eq!(Rule::parse(&written), Ok(rule.clone()), "{written}");
    if let Ok(id) = rules.arm(rule, is_urgent) {
        assert_eq!(rules.list(id, 1).0[0].rule, written);
    }
}

fn lines(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(size) {
        lines.put(piece);
        assert!(lines.kept() <= LINE_BYTES + 4096);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}
