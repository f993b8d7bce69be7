//! The control socket while Linux is at work: its console from outside, and faults that are made to happen while it runs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::{Run, Session, ctl, program, seconds};
use serde_json::Value;
use tempfile::TempDir;

const SHELL: &str = "/ # ";

/// A guest at its shell, with a control socket. The kernel's own tests of its compression are off, so that all commands are
/// processes'.
struct Guest {
    session: Session,
    folder: TempDir,
}

impl Guest {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("room");
        let socket = folder.path().join("socket").display().to_string();
        let run = Run::guest("loglevel=7 cryptomgr.notests").args(&["--control", &socket]).args(more);
        let mut session = Session::start(run);
        session.expect(SHELL);
        Self { session, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn ctl(&self, words: &[&str]) -> Value {
        ctl(&self.socket(), words)
    }

    /// Gives so many commands and one more, and waits for what comes of the first ones.
    fn commands(&mut self, count: usize, outcomes: &[&str]) {
        self.session.send(&format!("zip-fault -p 60000 {count}; echo did-$((40 + 2))\n"));
        for (number, outcome) in (0..).zip(outcomes) {
            self.session.expect(&format!("command {number}: {outcome} ("));
        }
        self.session.expect("did-42");
        self.session.expect(SHELL);
    }

    fn power_off(mut self) {
        self.session.send("poweroff -f\n");
        assert_eq!(self.session.finish(), Some(0));
    }
}

/// Types at a console by `ctl` and waits for a text.
fn console(socket: &Path, words: &[&str], typed: &str) -> Output {
    let mut command = Command::new(program());
    command.arg("ctl").arg(socket).arg("console").args(words).args(["--timeout", &seconds(240)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("it reads");
    child.wait_with_output().expect("our child")
}

#[test]
fn console_from_outside_is_the_guests_shell_beside_the_one_at_the_terminal() {
    let mut guest = Guest::start(&[]);
    let socket = guest.socket();
    let said = console(&socket, &["--backlog", "0", "--until", "typed-42"], "echo typed-$((40 + 2))\n");
    assert!(said.status.success(), "{said:?}");
    // The terminal of the run has seen the same, and is still typed at.
    guest.session.expect("typed-42");
    guest.session.expect(SHELL);
    guest.session.send("echo here-$((40 + 2))\n");
    guest.session.expect("here-42");
    // What has been said is there for whoever comes later.
    let later = console(&socket, &["--until", "typed-42"], "");
    assert!(later.status.success(), "{later:?}");

    // A script is typed whole, much faster than the guest reads.
    let script = guest.folder.path().join("script");
    let lines: String = (0..200).map(|n| format!("echo {n} >> /tmp/lines\n")).collect();
    std::fs::write(&script, lines + "md5sum < /tmp/lines; echo sum-$((40 + 2))\n").expect("room");
    let mut command = Command::new(program());
    command.arg("ctl").arg(&socket).args(["console", "--backlog", "0", "--eof", "--timeout", &seconds(240)]);
    let status = command.stdin(File::open(script).expect("it is there")).stdout(Stdio::null()).status();
    assert!(status.expect("the program starts").success());
    guest.session.expect("sum-42");
    guest.session.send("test $(wc -l < /tmp/lines) = 200 && echo all-$((40 + 2))\n");
    guest.session.expect("all-42");
    guest.power_off();
}

#[test]
fn rules_that_are_armed_while_linux_runs_are_seen_by_it_and_those_that_are_disarmed_are_not() {
    let mut guest = Guest::start(&[]);
    // What threads remember of translations is no way past a rule that comes later.
    guest.commands(2, &["ok", "ok"]);
    let armed = guest.ctl(&["fault", "arm", "qm.sqe-writeback,wrong-status,status=0x0e,index=0,times=1"]);
    let walks = guest.ctl(&["fault", "arm", "smmu.walk,translation,level=3,pasid=2,times=1,name=walk"]);
    let lookups = guest.ctl(&["fault", "arm", "smmu.lookup,miss"]);
    assert_eq!([&armed["id"], &walks["id"], &lookups["id"]], [1, 2, 3]);
    let rules = |guest: &Guest| guest.ctl(&["fault", "list"])["rules"].clone();
    guest.commands(2, &["status 0xe", "ok"]);
    let seen = rules(&guest);
    assert_eq!((&seen[0]["fired"], &seen[0]["state"]), (&1.into(), &"over".into()), "{seen}");
    assert!(seen[2]["fired"].as_u64().is_some_and(|fired| fired > 0), "{seen}");
    guest.ctl(&["fault", "disarm", "3"]);
    let before = rules(&guest);

    // Before those that are armed, and once.
    guest.ctl(&["fault", "arm", "qm.sqe-writeback,wrong-status,status=0x0e,nth=1"]);
    let next = guest.ctl(&["fault", "trigger", "qm.sqe-writeback,wrong-status,status=0x0c"]);
    assert_eq!(next["when"], "next");
    guest.commands(2, &["status 0xc", "status 0xe"]);
    guest.commands(1, &["ok"]);
    let after = rules(&guest);
    assert_eq!(after[2], before[2], "a rule that is disarmed counts no more");
    assert_eq!(guest.ctl(&["counters"])["faults"]["rules"][4]["state"], "over");
    guest.power_off();
}
