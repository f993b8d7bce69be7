//! Fault plans: for each point what Linux and the model do when something goes wrong there, as `docs/faults.md` promises.
//!
//! The guest's `zip-fault` gives one command after the other and says what came of each. A rule means one of them by
//! its place in the queue; the process's PASID is 1, the first that Linux gives. The kernel's own tests of its
//! compression are off, so that all events and messages are the process's.

use std::fs;
use std::path::Path;

use e2e::{Finished, Run, Session, ctl, guest, test_data};
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

/// How long `zip-fault` waits for a command: long, where each of them ends by itself; and short, where one does not.
const PATIENT: &str = "-p 60000";
const HASTY: &str = "-p 1500";

/// The kernel's messages are a part of what is tested: they are on, whatever is usual.
fn zip_fault(patience: &str, commands: usize) -> String {
    format!("loglevel=7 cryptomgr.notests warp.run=\"zip-fault {patience} {commands}\"")
}

/// So many commands and one more on an accelerator; each rule of the plan must fire.
fn faulty(accel: &str, patience: &str, commands: usize, plan: &str) -> Faulty {
    let append = zip_fault(patience, commands);
    run_with(plan, |file| Run::guest(&append).args(&["--accel", accel, "--strict", "--faults"]).args(&[file]))
}

/// The same with the kernel that serves page requests.
fn faulty_pri(patience: &str, commands: usize, plan: &str) -> Faulty {
    let append = zip_fault(patience, commands);
    run_with(plan, |file| {
        Run::guest(&append)
            .args(&["--kernel".as_ref(), guest("pri/Image").as_os_str()])
            .args(&["--accel", "zip:pri", "--strict", "--faults"])
            .args(&[file])
    })
}

impl Faulty {
    /// What came of the first commands, in this order.
    #[track_caller]
    fn commands(self, outcomes: &[&str]) -> Self {
        (0..)
            .zip(outcomes)
            .fold(self, |faulty, (number, outcome)| faulty.console(&format!("command {number}: {outcome} (")))
    }

    /// As [`Self::commands`]; then all is well again, and the kernel has not complained of itself.
    #[track_caller]
    fn recovers(self, outcomes: &[&str]) -> Self {
        let Self { finished, report } = self.commands(outcomes);
        let finished = finished
            .expect_status(0)
            .expect_console("warp: exit status 0")
            .expect_console_without("BUG:")
            .expect_console_without("WARNING:");
        Self { finished, report }
    }

    #[track_caller]
    fn console(self, text: &str) -> Self {
        Self { finished: self.finished.expect_console(text), ..self }
    }

    /// How long a command took, in guest time.
    fn milliseconds(&self, command: usize) -> u64 {
        let line = self.finished.stdout.lines().find(|line| line.starts_with(&format!("command {command}:")));
        let number = line.and_then(|line| line.split('(').nth(1)?.split(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no time of command {command}:\n{}", self.finished.stdout))
    }

    /// The firings of rule `index`.
    fn firings(&self, index: usize) -> &[Value] {
        self.report["faults"]["rules"][index]["firings"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// A rule for the first occasion during the process's command in this place of its queue.
fn at(index: u32, rest: &str) -> String {
    format!("[[rule]]\npasid = 1\nindex = {index}\nnth = 1\n{rest}\n")
}

/// A rule for the nth occasion, whatever the command.
fn nth(nth: u32, rest: &str) -> String {
    format!("[[rule]]\nnth = {nth}\n{rest}\n")
}

// ---- translation

#[test]
fn faults_of_a_walk_are_served_by_linux_and_the_commands_succeed() {
    let plan: String = ["translation", "permission", "access-flag", "address-size"]
        .iter()
        .zip(0..)
        .map(|(action, index)| at(index, &format!("point = 'smmu.walk'\nlevel = 3\naction = '{action}'")))
        .collect();
    let faulty = faulty("zip", PATIENT, 4, &plan).recovers(&["ok"; 4]);
    for rule in 0..4 {
        let firing = &faulty.firings(rule)[0];
        assert_eq!((&firing["level"], &firing["pasid"]), (&3.into(), &1.into()), "{}", faulty.report);
        assert_eq!((&firing["device"], &firing["index"]), (&"00:01.0".into(), &rule.into()));
    }
}

#[test]
fn faults_of_a_lookup_are_served_by_linux_and_forgotten_translations_are_walked_again() {
    let lookup = |index, action| at(index, &format!("point = 'smmu.lookup'\naction = '{action}'"));
    let plan = [lookup(0, "miss"), lookup(1, "translation"), lookup(2, "permission")].concat();
    faulty("zip", PATIENT, 3, &plan).recovers(&["ok"; 3]);
}

#[test]
fn external_aborts_of_walks_fail_their_commands_and_linux_tells_of_lost_records() {
    let abort = |index| at(index, "point = 'smmu.walk'\nlevel = 2\naction = 'external-abort'");
    let plan = [
        abort(0),
        abort(1),
        abort(2),
        nth(1, "point = 'smmu.event'\naction = 'overflow'"),
        // The overflow's rule comes first: its occasion does not count here.
        nth(2, "point = 'smmu.event'\naction = 'external-abort'"),
    ];
    faulty("zip", PATIENT, 3, &plan.concat())
        .recovers(&["status 0x4"; 3])
        .console("EVTQ overflow detected -- events lost")
        .console("event 0x0b received")
        .console("EVTQ write aborted");
}

// ---- stalls and their answers

#[test]
fn late_stalls_and_answers_cost_time_and_aborts_fail_their_command() {
    let delay = "action = 'delay'\ndelay = '100ms'";
    let plan = [
        at(0, &format!("point = 'smmu.stall'\n{delay}")),
        at(1, &format!("point = 'smmu.resume'\n{delay}")),
        at(2, "point = 'smmu.resume'\naction = 'abort'"),
        at(3, "point = 'smmu.resume'\naction = 'drop'"),
    ];
    let faulty =
        faulty("zip", HASTY, 4, &plan.concat()).recovers(&["ok", "ok", "status 0x5", "no completion"]);
    assert!(faulty.milliseconds(0) >= 100 && faulty.milliseconds(1) >= 100, "{}", faulty.finished.stdout);
}

#[test]
fn answer_to_a_stall_after_the_unbind_harms_nobody() {
    faulty("zip", HASTY, 2, &at(0, "point = 'smmu.resume'\naction = 'after-unbind'"))
        .recovers(&["no completion", "ok"]);
}

// ---- data

#[test]
fn spoiled_data_and_aborts_are_seen_by_the_process() {
    let plan = [
        at(0, "point = 'dma.read'\naction = 'bit-flip'\nbyte = 5000\nbit = 3"),
        at(1, "point = 'dma.write'\naction = 'bit-flip'\nbyte = 1000"),
        at(2, "point = 'dma.read'\naction = 'abort'\nbyte = 5000"),
        at(3, "point = 'dma.write'\naction = 'abort'\nbyte = 1000"),
        at(4, "point = 'dma.read'\naction = 'delay'\ndelay = '100ms'"),
        at(5, "point = 'dma.write'\naction = 'delay'\ndelay = '100ms'"),
    ];
    let faulty = faulty("zip", PATIENT, 6, &plan.concat()).recovers(&[
        "wrong data",
        "wrong data",
        "status 0x4",
        "status 0x5",
        "ok",
        "ok",
    ]);
    assert!(faulty.milliseconds(4) >= 100 && faulty.milliseconds(5) >= 100, "{}", faulty.finished.stdout);
}

// ---- commands and completions

#[test]
fn spoiled_commands_are_seen_by_the_process_and_lost_completions_by_its_patience() {
    let plan = [
        at(0, "point = 'qm.sqe'\naction = 'delay'\ndelay = '100ms'"),
        at(1, "point = 'qm.sqe-writeback'\naction = 'drop'"),
        at(2, "point = 'qm.sqe-writeback'\naction = 'wrong-status'\nstatus = 0x0e"),
        at(3, "point = 'qm.sqe-writeback'\naction = 'bit-flip'\nbyte = 104"),
        at(4, "point = 'qm.sqe-writeback'\naction = 'delay'\ndelay = '100ms'"),
        at(5, "point = 'qm.cqe'\naction = 'delay'\ndelay = '100ms'"),
        at(6, "point = 'qm.cqe'\naction = 'drop'"),
    ];
    let outcomes = ["ok", "wrong data", "status 0xe", "wrong tag", "ok", "ok", "no completion", "ok"];
    let faulty = faulty("zip", HASTY, 7, &plan.concat()).recovers(&outcomes);
    for slow in [0, 4, 5] {
        assert!(faulty.milliseconds(slow) >= 100, "{}", faulty.finished.stdout);
    }
}

#[test]
fn hung_queue_is_stopped_by_the_driver_and_the_next_one_works() {
    faulty("zip", HASTY, 2, &at(0, "point = 'qm.sqe'\naction = 'hang'")).recovers(&["no completion", "ok"]);
}

#[test]
fn cqe_that_cannot_be_written_stops_that_queue_only() {
    faulty("zip", HASTY, 2, &at(0, "point = 'qm.cqe'\naction = 'abort'")).recovers(&["queue stopped", "ok"]);
}

#[test]
fn sqe_that_cannot_be_written_back_makes_the_driver_reset_the_controller() {
    faulty("zip", HASTY, 2, &at(0, "point = 'qm.sqe-writeback'\naction = 'abort'"))
        .commands(&["queue stopped"])
        .console("qm_axi_bresp [error status=0x2] found")
        .console("Controller resetting")
        // On device-tree boots there is no method for that, and the driver gives the device up.
        .console("controller reset failed")
        .console("warp: exit status 1");
}

// ---- events and messages

#[test]
fn late_and_doubled_messages_and_late_events_only_cost_time() {
    let plan = [
        nth(2, "point = 'msi'\nvector = 0\naction = 'duplicate'"),
        nth(3, "point = 'msi'\nvector = 0\naction = 'delay'\ndelay = '100ms'"),
        nth(6, "point = 'qm.eqe'\naction = 'delay'\ndelay = '100ms'"),
    ];
    faulty("zip", PATIENT, 4, &plan.concat()).recovers(&["ok"; 4]);
}

/// Every command of the process takes so long that the process sleeps before it is done, whatever else the host does.
fn unhurried(then: &str) -> String {
    format!("{then}[[rule]]\npasid = 1\nevery = 1\npoint = 'qm.sqe'\naction = 'delay'\ndelay = '300ms'\n")
}

#[test]
fn lost_message_leaves_the_function_without_interrupts_and_processes_to_their_patience() {
    let plan = unhurried(&nth(2, "point = 'msi'\nvector = 0\naction = 'drop'"));
    let faulty = faulty("zip", HASTY, 1, &plan).recovers(&["ok"; 2]);
    // That of the first decompression. The queue manager sends no other before software has rung for it.
    assert_patience_ran_out(&faulty);
    assert_eq!(faulty.report["faults"]["rules"][0]["occasions"], 2);
}

#[test]
fn lost_event_leaves_a_hole_that_linux_waits_at() {
    let plan = unhurried(&nth(2, "point = 'qm.eqe'\naction = 'drop'"));
    assert_patience_ran_out(&faulty("zip", HASTY, 1, &plan).recovers(&["ok"; 2]));
}

/// The first decompression and all after it ended when the process looked by itself.
#[track_caller]
fn assert_patience_ran_out(faulty: &Faulty) {
    assert!(faulty.milliseconds(0) >= 1500, "{}", faulty.finished.stdout);
    assert!(faulty.milliseconds(1) >= 3000, "{}", faulty.finished.stdout);
}

#[test]
fn event_that_cannot_be_written_makes_the_driver_reset_the_controller() {
    // Nobody wakes a process that waits for the event.
    faulty("zip", HASTY, 1, &nth(2, "point = 'qm.eqe'\naction = 'abort'"))
        .console("qm_axi_bresp [error status=0x2] found")
        .console("controller reset failed")
        .console("warp: exit status 1");
}

// ---- address translation services

#[test]
fn translation_requests_that_fail_fall_back_to_accesses_that_stall() {
    let request = |index, rest: &str| at(index, &format!("point = 'atc.request'\naction = {rest}"));
    let plan = [
        at(0, "point = 'atc.lookup'\naction = 'miss'"),
        request(1, "'not-granted'"),
        request(2, "'completer-abort'"),
        request(3, "'delay'\ndelay = '100ms'"),
        request(4, "'unsupported-request'"),
    ];
    let faulty =
        faulty("zip:ats", PATIENT, 5, &plan.concat()).recovers(&["ok", "ok", "status 0x4", "ok", "ok", "ok"]);
    assert!(faulty.milliseconds(3) >= 100, "{}", faulty.finished.stdout);
}

#[test]
fn invalidation_without_an_answer_is_told_to_linux_which_goes_on() {
    let plan = [
        nth(1, "point = 'atc.invalidate'\npasid = 1\naction = 'drop'"),
        nth(2, "point = 'atc.invalidate'\npasid = 1\naction = 'delay'\ndelay = '20ms'"),
    ];
    faulty("zip:ats", PATIENT, 4, &plan.concat()).recovers(&["ok"; 4]).console("ATC invalidate timeout");
}

// ---- page requests

#[test]
fn page_requests_can_go_twice_late_or_in_another_order_and_a_lost_one_costs_the_queue() {
    let request = |index, rest: &str| at(index, &format!("point = 'atc.page-request'\naction = {rest}"));
    let plan = [
        request(0, "'duplicate'"),
        request(1, "'reorder'"),
        request(2, "'delay'\ndelay = '100ms'"),
        request(3, "'drop'"),
    ];
    let faulty = faulty_pri(HASTY, 4, &plan.concat()).recovers(&["ok", "ok", "ok", "no completion", "ok"]);
    assert!(faulty.milliseconds(2) >= 100, "{}", faulty.finished.stdout);
}

#[test]
fn page_responses_can_come_twice_or_late() {
    let plan = [
        nth(1, "point = 'smmu.page-response'\naction = 'duplicate'"),
        nth(2, "point = 'smmu.page-response'\naction = 'delay'\ndelay = '100ms'"),
    ];
    faulty_pri(PATIENT, 2, &plan.concat()).recovers(&["ok"; 3]);
}

#[test]
fn invalid_page_response_fails_one_access() {
    faulty_pri(PATIENT, 1, &nth(1, "point = 'smmu.page-response'\naction = 'invalid'"))
        .recovers(&["status 0x5", "ok"]);
}

#[test]
fn lost_page_response_costs_the_queue() {
    faulty_pri(HASTY, 1, &nth(1, "point = 'smmu.page-response'\naction = 'drop'"))
        .recovers(&["no completion", "ok"]);
}

#[test]
fn page_response_after_the_unbind_harms_nobody() {
    let plan = nth(1, "point = 'smmu.page-response'\naction = 'after-unbind'");
    faulty_pri(HASTY, 2, &plan).recovers(&["no completion", "ok", "ok"]);
}

#[test]
fn response_failure_ends_the_page_requests_of_the_function() {
    faulty_pri(PATIENT, 1, &nth(1, "point = 'smmu.page-response'\naction = 'failure'"))
        .commands(&["status 0x5", "status 0x5"])
        // Nothing stalls in this profile: what is not there is a fault that Linux reports.
        .console("event 0x10 received");
}

#[test]
fn overflow_of_the_page_request_queue_is_told_to_linux_and_costs_the_accelerator_time_alone() {
    faulty_pri(PATIENT, 2, &nth(1, "point = 'smmu.page-request'\naction = 'overflow'"))
        // The queue answers by itself until Linux has come for it; the accelerator asks again until then.
        .recovers(&["ok"; 2])
        .console("PRIQ overflow detected -- requests lost");
}

#[test]
fn abort_of_a_write_to_the_page_request_queue_is_told_to_linux_and_ends_the_requests_of_the_function() {
    faulty_pri(PATIENT, 1, &nth(1, "point = 'smmu.page-request'\naction = 'external-abort'"))
        .commands(&["status 0x5"])
        .console("PRIQ write aborted");
}

// ---- what goes wrong by itself

/// Triggered by `warpvmm ctl`, while Linux does nothing.
#[test]
fn spurious_messages_harm_nobody_and_errors_of_the_bus_are_reported_by_the_driver() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let run = Run::guest("loglevel=7 cryptomgr.notests").args(&["--accel", "zip,zip"]);
    let mut session = Session::start(run.args(&["--control".as_ref(), socket.as_os_str()]));
    session.expect("/ # ");
    // The driver has no interrupts before its first user.
    session.send("zip-fault 1; B=$(grep hisi /proc/interrupts); echo noted-$((40 + 2))\n");
    session.expect("noted-42");
    ctl(&socket, &["fault", "trigger", "msi.spurious,vector=0"]);
    session
        .send("while [ \"$B\" = \"$(grep hisi /proc/interrupts)\" ]; do :; done; echo moved-$((40 + 2))\n");
    session.expect("moved-42");
    session.send("zip-fault -p 60000 1; echo did-$((40 + 2))\n");
    session.expect("command 0: ok (");
    session.expect("did-42");
    ctl(&socket, &["fault", "trigger", "qm.axi-read-error,device=00:01.0"]);
    session.expect("qm_axi_rresp [error status=0x1] found");
    ctl(&socket, &["fault", "trigger", "qm.axi-write-error,device=00:02.0"]);
    session.expect("qm_axi_bresp [error status=0x2] found");
    let report = ctl(&socket, &["inspect", "faults"]);
    assert_eq!(report["events"].as_array().map(Vec::len), Some(3), "{report}");
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

// ---- the program

#[test]
fn rule_that_never_fires_is_a_warning_and_with_strict_an_error() {
    let plan = nth(1_000_000, "point = 'qm.sqe'\naction = 'hang'");
    let run = |strict: &[&str]| {
        run_with(&plan, |file| Run::job("true").args(&["--faults"]).args(&[file]).args(strict))
    };
    let message = "plan.toml: nothing came of the rules on line 1: they never fired";
    run(&[]).finished.expect_status(0).expect_stderr("warning").expect_stderr(message);
    let strict = run(&["--strict"]);
    assert_eq!(strict.report["faults"]["rules"][0]["fired"], 0);
    strict.finished.expect_status(1).expect_stderr(message);
}

#[test]
fn plan_that_is_wrong_is_refused_before_the_boot_with_line_key_and_what_is_allowed() {
    let plan = "[[rule]]\npoint = 'msi'\naction = 'hang'\n";
    let message = "plan.toml:3: `action`: \"hang\" is not one of `drop`, `duplicate`, `delay` (at msi)";
    let faulty = run_with(plan, |file| Run::job("true").args(&["--faults"]).args(&[file]));
    let finished = faulty.finished.expect_status(1).expect_stderr(message);
    assert_eq!((finished.stdout.as_str(), finished.stderr.lines().count()), ("", 1));
}

#[test]
fn list_names_every_point_in_the_documentation_and_here() {
    let list = Run::new(&["faults", "list", "--json"]).finish().expect_status(0).stdout;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let documentation = include_str!("../../docs/faults.md");
    for entry in list.as_array().expect("a list") {
        let point = entry["point"].as_str().expect("a name");
        let section = documentation
            .split(&format!("### `{point}`"))
            .nth(1)
            .map(|rest| rest.split("\n##").next().expect("at least one part"));
        let section = section.unwrap_or_else(|| panic!("docs/faults.md says nothing of {point}"));
        for action in entry["actions"].as_array().expect("a list") {
            let action = action["action"].as_str().expect("a name");
            assert!(section.contains(&format!("`{action}`")), "docs/faults.md has no {action} at {point}");
        }
        let quoted = [format!("'{point}'"), format!("\"{point}")];
        let has_test = quoted.iter().any(|name| include_str!("faults.rs").contains(name));
        assert!(has_test, "no test of {point}");
    }
    let text = Run::new(&["faults", "list"]).finish().expect_status(0);
    assert!(
        text.stdout.contains("smmu.walk") && text.stdout.lines().all(|line| line.len() <= 120),
        "{}",
        text.stdout
    );
}

#[test]
fn compress_takes_a_plan_too_and_never_keeps_what_came_out_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, plan) = (folder.path().join("in"), folder.path().join("plan.toml"));
    fs::write(&input, test_data(300_000, 1)).expect("room");
    let compress = |output: &str, text: &str| {
        fs::write(&plan, text).expect("room");
        let output = folder.path().join(output);
        let arguments =
            [input.as_os_str(), "-o".as_ref(), output.as_os_str(), "--faults".as_ref(), plan.as_os_str()];
        (Run::new(&["compress", "--json", "--timeout", "280", "--strict"]).args(&arguments).finish(), output)
    };

    let (finished, output) = compress("good.gz", &at(0, "point = 'smmu.walk'\naction = 'translation'"));
    let report: Value = serde_json::from_str(&finished.expect_status(0).stdout).expect("JSON");
    assert_eq!((&report["verified"], &report["faults"]["rules"][0]["fired"]), (&true.into(), &1.into()));
    assert!(output.exists());

    let flip = "point = 'dma.read'\naction = 'bit-flip'\nbyte = 5000";
    let (finished, output) = compress("bad.gz", &at(0, flip));
    finished.expect_status(1).expect_stderr("is wrong, and was not kept");
    assert!(!output.exists());
}
