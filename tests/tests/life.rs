//! A machine's life beyond one boot: reboots, resets and pauses while Linux and its accelerator are at work.
//!
//! With the built-in engine: KVM's machines are not reset, and their time goes on in a pause.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use e2e::{Run, Session, ctl, engine, zip_test};
use tempfile::TempDir;

const SHELL: &str = "/ # ";

/// A guest with a shell, two vCPUs, an accelerator of each kind that stalls, and a control socket.
struct Guest {
    session: Session,
    folder: TempDir,
}

impl Guest {
    fn start(append: &str) -> Option<Self> {
        if engine() == "kvm" {
            eprintln!("skipped: not with KVM");
            return None;
        }
        let folder = tempfile::tempdir().expect("room");
        let socket = folder.path().join("socket").display().to_string();
        let run = Run::rebooting_guest(append).args(&["--cpus", "2", "--accel", "zip,zip:ats"]);
        let mut session = Session::start(run.args(&["--control", &socket]));
        session.expect(SHELL);
        Some(Self { session, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Has the shell do something, and waits until it has succeeded.
    fn job(&mut self, words: &str) {
        self.session.send(&format!("{words} && echo did-$((40 + 2))\n"));
        self.session.expect("did-42");
        self.session.expect(SHELL);
    }

    fn power_off(mut self) {
        self.job("! dmesg | grep -E 'BUG:|WARNING:|Oops|soft lockup|stalls|blocked for more|CMD_SYNC timeout|event 0x'");
        self.session.send("poweroff -f\n");
        assert_eq!(self.session.finish(), Some(0));
    }

    /// Threads and descriptors of the process.
    fn resources(&self) -> (usize, usize) {
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{}/{what}", self.session.pid())).expect("our child").count()
        };
        (count("task"), count("fd"))
    }
}

#[test]
fn guest_reboots_again_and_again_in_one_process_and_its_accelerator_works_each_time() {
    let Some(mut guest) = Guest::start("") else { return };
    let mut before = None;
    for reboot in 1..=3 {
        guest.job(&zip_test("formats"));
        guest.session.send("reboot -f\n");
        guest.session.expect("reboot: Restarting system");
        guest.session.expect(SHELL);
        assert_eq!(ctl(&guest.socket(), &["status"])["resets"], reboot);
        let resources = guest.resources();
        assert!(*before.get_or_insert(resources) >= resources, "more after {reboot} reboots: {resources:?}");
    }
    guest.job(&zip_test("formats"));
    guest.power_off();
}

/// Commands are under way, pages are being faulted in, a timer is armed on each vCPU.
#[test]
fn reset_in_the_middle_of_work_leaves_nothing_of_it_to_the_next_boot() {
    let Some(mut guest) = Guest::start("") else { return };
    for wait_ms in [200, 700, 1500] {
        guest.session.send("zip-churn -n 50 -p 4 all\n");
        guest.session.expect("zip-churn");
        thread::sleep(Duration::from_millis(wait_ms));
        ctl(&guest.socket(), &["reset"]);
        guest.session.expect(SHELL);
    }
    guest.job(&zip_test("formats"));
    guest.power_off();
}

#[test]
fn kernel_that_panics_reboots_as_it_has_announced() {
    let Some(mut guest) = Guest::start("") else { return };
    guest.session.send("echo c > /proc/sysrq-trigger\n");
    guest.session.expect("Kernel panic - not syncing");
    guest.session.expect(SHELL);
    assert_eq!(ctl(&guest.socket(), &["status"])["resets"], 1);
    guest.power_off();
}

/// A kernel that saw the time of the pause would report soft lockups and stalls, of which [`Guest::power_off`] looks for the words.
#[test]
fn guest_does_not_notice_a_pause_though_it_is_at_work() {
    let Some(mut guest) = Guest::start("watchdog_thresh=1") else { return };
    let pause = Duration::from_secs(4);
    guest.job("cut -d. -f1 /proc/uptime > /tmp/before");
    guest.session.send("zip-churn -n 8 -p 4 discard fork; echo churned=$?\n");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(50));
        ctl(&guest.socket(), &["pause"]);
        let clock = ctl(&guest.socket(), &["inspect", "clock"]);
        thread::sleep(pause / 10);
        assert_eq!(ctl(&guest.socket(), &["inspect", "clock"]), clock);
        ctl(&guest.socket(), &["resume"]);
    }
    ctl(&guest.socket(), &["pause"]);
    thread::sleep(pause);
    ctl(&guest.socket(), &["resume"]);
    guest.session.expect("churned=0");
    guest.session.expect(SHELL);
    guest.power_off();
}
