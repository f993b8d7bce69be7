//! Fault plans, as users write them.

use std::sync::Arc;

use hw::fault::{Command, FaultPlan, FaultPoint, Occasion};
use hw::{Iova, ManualClock, Pasid, StreamId};
use vmm::faults::{Plan, Rule, Running};

/// The file; and what a plan that is right decides, which must be one of the point's actions, and the same again.
pub fn fault_plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let plan = match Plan::parse(text, "plan") {
        Ok(plan) => plan,
        Err(error) => {
            assert!((1..=text.lines().count().max(1)).contains(&error.line), "a line of the file: {error}");
            assert!(
                !error.message.chars().any(|c| c.is_control()),
                "one line that steers no terminal: {error}"
            );
            return;
        }
    };
    let run = |plan: Plan| {
        let running = Running::new(plan, Arc::new(ManualClock::default()));
        let decisions: Vec<_> =
            FaultPoint::ALL.iter().flat_map(|point| decisions(&running, *point)).collect();
        (decisions, running.report().map(|report| report.to_string()))
    };
    assert_eq!(run(plan.clone()), run(plan.clone()));
    for rule in plan.rules {
        let rule = Rule { line: None, ..rule };
        let line = rule.to_string();
        assert_eq!(Rule::parse(&line), Ok(rule), "{line}");
    }
}

fn decisions(running: &Running, point: FaultPoint) -> Vec<Option<hw::fault::FaultAction>> {
    let occasions = (0..8_u16).map(|n| Occasion {
        level: Some(3),
        vector: Some(n % 4),
        ..Occasion::new(point, StreamId(8), Pasid::new(n.into()))
            .at(Iova(u64::from(n) << 12), 0x1000)
            .during(Some(Command { queue: n, index: Some(n) }))
    });
    let mut decisions = Vec::new();
    for occasion in occasions {
        let action = running.decide(&occasion);
        if let Some(action) = action {
            assert!(
                running.mentions(point) && point.actions().contains(&action.kind()),
                "{action:?} at {point}"
            );
        }
        decisions.push(action);
    }
    decisions
}
