//! A debugger of a Linux guest, from its first instruction on: by a small client of our own, and by GDB itself.
//!
//! With the built-in engine alone: the others have no `--gdb`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::rsp::Rsp;
use e2e::{Run, Session, ctl, engine, guest};
use object::{Object, ObjectSymbol};
use tempfile::TempDir;

const SHELL: &str = "/ # ";

struct Guest {
    session: Session,
    folder: TempDir,
    symbols: Vec<u8>,
}

impl Guest {
    fn start(more: &[&str]) -> Option<Self> {
        if engine() == "kvm" {
            eprintln!("skipped: not with KVM");
            return None;
        }
        let folder = tempfile::tempdir().expect("room");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let run = Run::rebooting_guest("").args(&["--cpus", "2"]).args(more);
        let session = Session::start(run.args(&["--gdb", &path("gdb"), "--control", &path("control")]));
        let symbols = fs::read(guest("vmlinux")).expect("the kernel's symbols");
        Some(Self { session, folder, symbols })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn status(&self) -> (String, String) {
        let status = ctl(&self.path("control"), &["status"]);
        let text = |name: &str| status[name].as_str().unwrap_or("nobody").to_owned();
        (text("phase"), text("stopped_by"))
    }

    fn symbol(&self, name: &str) -> u64 {
        let file = object::File::parse(&*self.symbols).expect("an ELF file");
        file.symbol_by_name(name).unwrap_or_else(|| panic!("no symbol {name}")).address()
    }

    fn power_off(mut self) {
        self.session.send("poweroff -f\n");
        assert_eq!(self.session.finish(), Some(0));
    }
}

fn paused(by: &str) -> (String, String) {
    ("paused".to_owned(), by.to_owned())
}

fn running() -> (String, String) {
    ("running".to_owned(), "nobody".to_owned())
}

#[test]
fn kernel_is_stopped_stepped_watched_and_read_and_goes_on_when_the_debugger_has_gone() {
    let Some(mut guest) = Guest::start(&["--paused"]) else { return };
    let mut gdb = Rsp::connect(&guest.path("gdb"));
    assert!(gdb.ask("qSupported:swbreak+;hwbreak+").contains("qXfer:features:read+"));
    assert!(gdb.ask("?").starts_with("T05thread:01"), "all vCPUs stand");
    assert_eq!(gdb.ask("qfThreadInfo"), "m01,02");
    assert_eq!(guest.status(), paused("start"));

    // A breakpoint by the address that the kernel will have when its MMU is on.
    let start_kernel = guest.symbol("start_kernel");
    assert_eq!(gdb.ask(&format!("Z0,{start_kernel:x},4")), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with("T05thread:01;swbreak"), "{stop}");
    assert_eq!((gdb.pc(), guest.status()), (start_kernel, paused("gdb")));
    let stop = gdb.ask("vCont;s:1");
    assert!(stop.starts_with("T05thread:01"), "{stop}");
    assert_eq!(gdb.pc(), start_kernel + 4);
    assert_eq!(gdb.ask(&format!("z0,{start_kernel:x},4")), "OK");

    // SYSTEM_SCHEDULING is the first thing that is stored there.
    let state = guest.symbol("system_state");
    assert_eq!(gdb.ask(&format!("Z2,{state:x},4")), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains(&format!("watch:{state:x};")), "{stop}");
    assert_eq!(gdb.memory(state, 4), [0; 4], "before it is made");
    let thread = stop.split("thread:").nth(1).and_then(|rest| rest.split(';').next()).expect("a thread");
    gdb.ask(&format!("vCont;s:{thread}"));
    assert_eq!(gdb.memory(state, 4), [1, 0, 0, 0]);
    assert_eq!(gdb.ask(&format!("z2,{state:x},4")), "OK");

    // The linear map ends with RAM, 1 GiB of it.
    let memstart = guest.symbol("memstart_addr");
    let start = u64::from_le_bytes(gdb.memory(memstart, 8).try_into().expect("8 bytes"));
    let end = 0xffff_0000_0000_0000 + (0x8000_0000 - start);
    assert_eq!(gdb.memory(end - 8, 16).len(), 8, "up to the page that is not mapped");
    assert!(gdb.ask(&format!("m{end:x},10")).starts_with('E'));
    assert!(gdb.ask(&format!("M{:x},2:0000", end - 1)).starts_with('E'));
    assert!(gdb.ask("m9000000,4").starts_with('E'), "a device's address is none of the kernel's");

    assert_eq!(gdb.ask("D"), "OK");
    guest.session.expect(SHELL);
    assert_eq!(guest.status(), running());

    // Another comes, stops what runs, lets it go on, and interrupts it.
    let mut gdb = Rsp::connect(&guest.path("gdb"));
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!(guest.status(), paused("gdb"));
    gdb.send("vCont;c");
    gdb.interrupt();
    assert!(gdb.read().starts_with("T02"), "SIGINT");
    // The control socket's pause is a stop, too, and its resume lets the machine go on under the debugger.
    gdb.send("vCont;c");
    while guest.status() != running() {}
    ctl(&guest.path("control"), &["pause"]);
    assert!(gdb.read().starts_with("T02"));
    assert_eq!(guest.status(), paused("control"));
    ctl(&guest.path("control"), &["resume"]);
    assert_eq!(guest.status(), running());
    // What is asked for meanwhile, the machine stops for a moment for.
    assert!(gdb.pc() != 0);
    assert_eq!(guest.status(), running());
    drop(gdb);
    guest.power_off();
}

#[test]
fn kill_ends_the_run_and_a_debugger_that_is_lost_leaves_the_machine_as_it_was() {
    let Some(guest) = Guest::start(&["--paused"]) else { return };
    let mut gdb = Rsp::connect(&guest.path("gdb"));
    assert!(gdb.ask("?").starts_with("T05"));
    drop(gdb);
    // The next is served when the last one has been seen to be gone.
    let mut gdb = Rsp::connect(&guest.path("gdb"));
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!((guest.status(), gdb.pc()), (paused("start"), 0x4020_0000), "it has not run");
    gdb.send("k");
    assert_eq!(guest.session.finish(), Some(0));
}

/// What GDB says to these commands.
fn gdb_says(socket: &Path, commands: &[&str]) -> String {
    let mut command = Command::new("gdb-multiarch");
    command.args(["-nx", "-batch", "-ex", "set pagination off", "-ex", "set architecture aarch64"]);
    command.arg("-ex").arg(format!("target remote {}", socket.display()));
    for line in commands {
        command.args(["-ex", line]);
    }
    let output =
        command.arg(guest("vmlinux")).output().expect("gdb-multiarch, which `cargo xtask test` installs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn gdb_stops_in_the_accelerators_driver_and_sees_threads_registers_and_calls() {
    let Some(mut guest) = Guest::start(&["--paused"]) else { return };
    let socket = guest.path("gdb");
    while !socket.exists() {
        std::thread::yield_now();
    }
    let said = gdb_says(
        &socket,
        &[
            "info threads",
            "break start_kernel",
            "continue",
            "p $SCTLR_EL1 & 1",
            "p $cpsr",
            "stepi",
            "x/i $pc",
            "delete",
            "hbreak hisi_zip_probe",
            "continue",
            "bt 3",
            "delete",
            "watch *(int*)&system_state",
            "continue",
            "p/x $v0.d.u[0] = 0x123456789",
            "p/x $v0.q.u",
            "p/x $FAR_EL1 = 0x77",
            "p/x $FAR_EL1",
            "x/x 0",
            "monitor inspect clock",
            "monitor memory physical",
            "x/2xw 0x40200000",
            "monitor memory virtual",
            "delete",
            "detach",
        ],
    );
    for expected in [
        "Thread 1.2 (vCPU 1)",
        "hit Breakpoint 1, ",
        "in start_kernel ()",
        "$1 = 1",
        "EL=1",
        "<start_kernel+4>:",
        "in hisi_zip_probe ()",
        "in local_pci_probe ()",
        "hit Hardware watchpoint 3: *(int*)&system_state",
        "Old value = 1",
        "New value = 2",
        "= 0x123456789",
        "= 0x77",
        "Cannot access memory at address 0x0",
        "guest_ns",
        "0x40200000:",
        "detached]",
    ] {
        assert!(said.contains(expected), "expected of GDB: {expected:?}\n{said}");
    }
    assert!(!said.contains("target description"), "{said}");
    guest.session.expect(SHELL);
    guest.power_off();
}
