//! Fault plans: for each point what Linux and the model do when something goes wrong there (`docs/faults.md`).
//!
//! The guest's `zip-fault` gives one command after the other and says what came of each. A plan's rule means one of
//! them by its place in the queue. The process's PASID is 1, the first that Linux gives.

use std::fs;
use std::path::Path;

use e2e::{Finished, Run, guest};
use serde_json::Value;

/// A run with a plan, and its report.
struct Faulty {
    finished: Finished,
    report: Value,
}

fn run_with(plan: &str, run: impl FnOnce(&Path) -> Run) -> Faulty {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan_file, report) = (folder.path().join("plan.toml"), folder.path().join("report.json"));
    fs::write(&plan_file, plan).expect("room");
    let finished = run(&plan_file).args(&["--report-json".as_ref(), report.as_os_str()]).finish();
    let report = fs::read_to_string(report).unwrap_or_default();
    let report = serde_json::from_str(&report).unwrap_or(Value::Null);
    Faulty { finished, report }
}

/// `zip-fault` with these arguments, every rule of the plan firing.
fn faulty(accel: &str, arguments: &str, plan: &str) -> Faulty {
    let job = format!("zip-fault {arguments}");
    run_with(plan, |file| Run::job(&job).args(&["--accel", accel, "--strict", "--faults"]).args(&[file]))
}

impl Faulty {
    /// Expects that the guest ended well, and what came of the first commands; those after them are `ok`.
    #[track_caller]
    fn expect(self, outcomes: &[&str]) -> Self {
        let mut finished = self
            .finished
            .expect_status(0)
            .expect_console("warp: exit status 0")
            .expect_console_without("BUG:")
            .expect_console_without("WARNING:")
            .expect_console_without("CMD_SYNC timeout");
        for (number, outcome) in outcomes.iter().enumerate() {
            finished = finished.expect_console(&format!("command {number}: {outcome} ("));
        }
        Self { finished, ..self }
    }

    #[track_caller]
    fn console(self, text: &str) -> Self {
        Self { finished: self.finished.expect_console(text), ..self }
    }

    /// The firings of rule `index`.
    fn firings(&self, index: usize) -> &[Value] {
        self.report["faults"]["rules"][index]["firings"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// A rule for the process's command in this place of its queue.
fn at(index: u32, rest: &str) -> String {
    format!("[[rule]]\npasid = 1\nindex = {index}\nnth = 1\n{rest}\n")
}

#[test]
fn faults_of_translation_are_served_by_linux_and_the_command_succeeds() {
    let plan: String = ["translation", "permission", "access-flag", "address-size"]
        .iter()
        .zip(0..)
        .map(|(action, index)| at(index, &format!("point = 'smmu.walk'\nlevel = 3\naction = '{action}'")))
        .collect();
    let faulty = faulty("zip", "4", &plan).expect(&["ok"; 4]);
    for rule in 0..4 {
        let firing = &faulty.firings(rule)[0];
        assert_eq!((&firing["level"], &firing["pasid"]), (&3.into(), &1.into()), "{}", faulty.report);
        assert_eq!((&firing["device"], &firing["index"]), (&"00:01.0".into(), &rule.into()));
    }
}

#[test]
fn external_abort_of_a_walk_is_reported_by_linux_and_fails_that_command() {
    faulty("zip", "2", &at(0, "point = 'smmu.walk'\nlevel = 2\naction = 'external-abort'"))
        .expect(&["status 0x4", "ok"])
        .console("event 0x0b received");
}
