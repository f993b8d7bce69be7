//! The sandbox of a running machine, seen from outside. What it forbids is tried out in `vmm/tests/sandbox_threads.rs`; that it
//! forbids nothing that a machine does, all other tests show, because it is on in them.

use std::fs;

use e2e::{Run, Session};

/// Of each thread: its name, and how many filters of system calls it is under.
fn filters(pid: u32) -> Vec<(String, u32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks
        .filter_map(|task| {
            // A worker may have ended meanwhile.
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            Some((field("Name:")?.to_string(), field("Seccomp_filters:")?.parse().ok()?))
        })
        .collect()
}

fn session(args: &[&str]) -> Session {
    let drive = tempfile::NamedTempFile::new().expect("room");
    drive.as_file().set_len(1 << 20).expect("room");
    let drive = drive.path().display().to_string();
    let mut session = Session::start(Run::guest("").args(&["--cpus", "2", "--drive", &drive]).args(args));
    session.expect("/ # ");
    session
}

#[test]
fn every_thread_of_a_running_machine_is_under_filters() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket").display().to_string();
    let mut session = session(&["--control", &socket]);
    let filters = filters(session.pid());
    let devices = ["spawner", "accel", "disk"];
    for name in
        ["warpvmm", "vcpu0", "vcpu1", "alarms", "console", "lifecycle", "control"].iter().chain(&devices)
    {
        assert!(filters.iter().any(|(other, _)| other == name), "{name}: {filters:?}");
    }
    assert!(filters.iter().all(|(_, count)| *count >= 1), "{filters:?}");
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

#[test]
fn without_the_sandbox_no_thread_has_a_filter_of_ours() {
    let ours = filters(std::process::id());
    let mut session = session(&["--sandbox", "off"]);
    assert!(filters(session.pid()).iter().all(|(_, count)| *count == ours[0].1));
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

/// What is put in place at the end are two files, in folders of their own.
#[test]
fn output_and_report_appear_in_the_folders_that_were_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("reports")).expect("room");
    fs::write(place("in"), e2e::test_data(300_000, 8)).expect("room");
    Run::new(&["compress", "--timeout", "240", "-q"])
        .args(&[place("in").as_os_str(), "-o".as_ref(), place("out.gz").as_os_str()])
        .args(&["--report-json".as_ref(), place("reports/report.json").as_os_str()])
        .finish()
        .expect_status(0);
    assert!(place("out.gz").is_file());
    let report = fs::read_to_string(place("reports/report.json")).expect("it exists");
    assert!(report.contains("\"verified\": true"), "{report}");
    assert_eq!(fs::read_dir(place("reports")).expect("ours").count(), 1);
}
