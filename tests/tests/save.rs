//! Machines that are saved and go on in other processes, while Linux and its accelerator are at work.
//!
//! With the built-in engine: KVM's machines are not saved.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Finished, Run, Session, WALL_LIMIT, ctl, engine, patience, seconds, wait, zip_test};
use tempfile::TempDir;

const SHELL: &str = "/ # ";

fn is_kvm() -> bool {
    let is_kvm = engine() == "kvm";
    if is_kvm {
        eprintln!("skipped: not with KVM");
    }
    is_kvm
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("room"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn controlled(run: Run, place: &Place) -> (Run, PathBuf) {
    let socket = place.at("socket");
    (run.args(&["--control".as_ref(), socket.as_os_str()]), socket)
}

fn save(socket: &Path, to: &str) {
    ctl(socket, &["save", to]);
}

fn restored(file: &Path) -> Run {
    Run::new(&["restore".as_ref(), file.as_os_str()]).args(&["--timeout", &seconds(540)])
}

/// A guest at its shell is saved in both forms, and ends.
fn saved_at_the_shell(place: &Place) -> [PathBuf; 2] {
    let (run, socket) = controlled(Run::guest("").args(&["--cpus", "2", "--accel", "zip,zip:ats"]), place);
    let mut session = Session::start(run);
    session.expect(SHELL);
    session.send("export SAVED=forty-two\n");
    session.expect(SHELL);
    let files = [place.at("compressed"), place.at("plain")];
    save(&socket, files[0].to_str().expect("a name"));
    save(&socket, &format!("{},ram=plain", files[1].display()));
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0), "the machine goes on after it has been saved");
    files
}

/// It knows what it knew, its accelerator works, and nothing is amiss.
fn goes_on(mut session: Session) {
    session.send(&format!("echo it-is-$SAVED; {} && echo did-$((40 + 2))\n", zip_test("formats")));
    session.expect("it-is-forty-two");
    session.expect("did-42");
    session.send(
        "dmesg | grep -cE 'BUG:|WARNING:|Oops|lockup|stalls|blocked for more|CMD_SYNC timeout|event 0x'\n",
    );
    session.expect("\n0");
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

#[test]
fn guest_at_its_shell_goes_on_in_other_processes_as_often_as_one_likes() {
    if is_kvm() {
        return;
    }
    let place = Place::new();
    for file in saved_at_the_shell(&place) {
        for _ in 0..2 {
            goes_on(Session::start(restored(&file)));
        }
    }
}

#[test]
fn ten_machines_go_on_from_one_file_at_once() {
    if is_kvm() {
        return;
    }
    let place = Place::new();
    let [_, plain] = saved_at_the_shell(&place);
    let sessions: Vec<_> = (0..10).map(|_| Session::start(restored(&plain))).collect();
    sessions.into_iter().for_each(goes_on);
}

/// Saves a machine whose accelerator is at work at `count` moments, and has each of them go on to its end.
fn saved_at_moments(cases: &str, accel: &str, count: usize, between: Duration) {
    if is_kvm() {
        return;
    }
    let place = Place::new();
    let run = Run::job(&zip_test(cases)).args(&["--cpus", "2", "--accel", accel]);
    let (run, socket) = controlled(run, &place);
    let start = Instant::now();
    let mut child = run.spawn(Stdio::null());
    let mut files = Vec::new();
    while child.try_wait().expect("our child").is_none() && files.len() < count {
        thread::sleep(between);
        let file = place.at(&format!("moment-{}", files.len()));
        let mut save = std::process::Command::new(e2e::program());
        save.arg("ctl").arg(&socket).arg("save").arg(&file);
        // One that comes when the guest has just ended makes no file.
        if save.output().expect("the program starts").status.success() {
            files.push(file);
        }
    }
    let well =
        |run: Finished| run.expect_status(0).expect_console("warp: exit status 0").expect_content_kernel();
    well(wait(child, start, WALL_LIMIT * patience(), None));
    assert!(files.len() * 2 > count.min(4), "saved at {} moments", files.len());
    for file in files {
        well(restored(&file).finish());
        std::fs::remove_file(file).expect("our file");
    }
}

#[test]
fn machine_that_is_saved_while_its_accelerator_works_goes_on_to_its_end() {
    saved_at_moments("formats stream touch killed", "zip", 5, Duration::from_millis(400));
}

#[test]
#[ignore = "200 runs to their end: half an hour"]
fn machine_that_is_saved_at_any_of_many_moments_goes_on_to_its_end() {
    saved_at_moments("all", "zip", 100, Duration::from_millis(170));
    saved_at_moments("all", "zip:ats", 100, Duration::from_millis(170));
}
