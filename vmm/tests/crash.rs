//! What a panic of each kind of thread does to the process, tried out by copies of this program. `src/crash.rs`

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use vmm::cli::{Cli, Command as Subcommand};
use vmm::console::{LineWatch, Outputs};
use vmm::crash;
use vmm::host::signals::Signals;
use vmm::host::terminal::Terminal;
use vmm::machine::{Machine, Setup};
use vmm::sandbox::calls::{Descriptors, EngineCalls};
use vmm::sandbox::{Sandbox, Thread};
use vmm::supervise::{Inputs, Reason, StopSwitch, supervise};

/// Tells a copy of this program what to do.
const PART: &str = "WARPVMM_TEST_PART";
/// Which thread is to panic.
const THREAD: &str = "WARPVMM_TEST_THREAD";
/// The image of a guest.
const IMAGE: &str = "WARPVMM_TEST_IMAGE";
/// Said by whoever gets a lock whose owner has panicked.
const ENTERED: &str = "entered over a panic";
/// Said by what runs when the main thread comes back.
const TIDY: &str = "results are in order";

fn inputs(signals: &Signals) -> Inputs<'_> {
    Inputs { signals, timeout: None, console: None, terminal: None, tick: None }
}

fn kind() -> Thread {
    let name = std::env::var(THREAD).unwrap();
    Thread::ALL.into_iter().find(|kind| kind.name() == name).expect("a kind of thread")
}

/// A thread of the kind that panics with a lock held, and another that waits for this lock.
fn panic_with_a_lock_held(switch: &Arc<StopSwitch>, lock: &Arc<Mutex<()>>) {
    let descriptors = Descriptors { events: vec![switch.as_raw_fd()], ..Default::default() };
    let sandbox = Sandbox::new(Vec::new(), &descriptors, EngineCalls::default()).unwrap().pressing(switch);
    let (locked, is_locked) = mpsc::channel();
    let held = Arc::clone(lock);
    let panics = move || {
        let _guard = held.lock().unwrap();
        locked.send(()).unwrap();
        panic!("a fault\nof ours");
    };
    sandbox.spawn(kind(), kind().name(), panics).unwrap();
    is_locked.recv().unwrap();
    let wanted = Arc::clone(lock);
    let waits = move || {
        drop(wanted.lock().unwrap_or_else(PoisonError::into_inner));
        eprintln!("{ENTERED}");
    };
    sandbox.spawn(Thread::Vcpu, "vcpu7", waits).unwrap();
}

/// The guest prints a line for ever.
struct PanicsAtALine;

impl LineWatch for PanicsAtALine {
    fn line(&mut self, _: &str) {
        panic!("a line");
    }
}

fn run_a_machine(panics_at_a_line: bool) -> ! {
    let image = std::env::var(IMAGE).unwrap();
    let words = ["warpvmm", "run", "--kernel", &image, "--engine", "soft", "--memory", "64M", "--cpus", "2"];
    let Subcommand::Run(args) = Cli::try_parse_from(words).unwrap().command else { unreachable!() };
    let accels = args.accelerators();
    let signals = Signals::block().unwrap();
    let watch = panics_at_a_line.then(|| Box::new(PanicsAtALine) as Box<dyn LineWatch>);
    let setup = Setup {
        kernel: args.kernel,
        initrd: None,
        append: String::new(),
        machine: args.machine,
        reboots: false,
        starts_paused: false,
        control: None,
        gdb: None,
        accels,
        devices: Vec::new(),
        drives: Vec::new(),
        saves: None,
        restored: None,
        trace: None,
        outputs: Outputs { stdout: false, log: None, watch },
        inputs: vec![signals.as_raw_fd()],
        results: Vec::new(),
        result_folders: Vec::new(),
    };
    let mut inputs = inputs(&signals);
    if !panics_at_a_line {
        inputs.tick = Some(Box::new(|| panic!("a tick")));
    }
    let failed = Machine::build(setup).unwrap().run(inputs).err().expect("a panic is no orderly end");
    eprintln!("warpvmm: {failed}");
    eprintln!("{TIDY}");
    std::process::exit(1);
}

/// Not a test of its own, but what the copies do.
#[test]
fn copy_of_this_program() {
    let Ok(part) = std::env::var(PART) else { return };
    crash::take_panics();
    let lock = Arc::<Mutex<()>>::default();
    match part.as_str() {
        "machine" => run_a_machine(true),
        "main panics" => run_a_machine(false),
        "supervised" => {
            let signals = Signals::block().unwrap();
            let switch = StopSwitch::new().unwrap();
            panic_with_a_lock_held(&switch, &lock);
            let Reason::Crashed(line) = supervise(&switch, inputs(&signals), &|| {}).unwrap() else {
                unreachable!()
            };
            eprintln!("warpvmm: {line}\n{TIDY}");
            std::process::exit(1);
        }
        "main waits for the lock" => {
            let mut terminal = Terminal::at_stdin().unwrap();
            assert!(terminal.as_mut().is_none_or(|terminal| terminal.take().unwrap()));
            panic_with_a_lock_held(&StopSwitch::new().unwrap(), &lock);
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
            eprintln!("{ENTERED}");
        }
        _ => panic!("no part for {part}"),
    }
}

fn copy(part: &str) -> Command {
    let mut copy = Command::new(std::env::current_exe().expect("this program"));
    copy.args(["copy_of_this_program", "--exact", "--nocapture", "--test-threads=1"]);
    copy.env(PART, part).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    copy
}

#[track_caller]
fn expect_one_line(output: &Output, thread: &str, what: &str) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let lines: Vec<_> =
        error.lines().filter(|line| line.contains("panicked") || line.starts_with("warpvmm:")).collect();
    let [line] = lines[..] else { panic!("not one line: {error}") };
    assert!(line.starts_with(&format!("warpvmm: internal error in thread '{thread}' at vmm/")), "{error}");
    assert!(line.ends_with(&format!("{what}; please report it")), "{error}");
    assert!(!error.contains(ENTERED), "{error}");
    error
}

#[test]
fn panic_of_any_thread_ends_the_process_with_one_line_and_its_locks_stay_locked() {
    for kind in Thread::ALL {
        let output = copy("supervised").env(THREAD, kind.name()).output().unwrap();
        let error = expect_one_line(&output, kind.name(), "a fault of ours");
        assert!(error.contains(TIDY), "{error}");
    }
}

#[test]
fn panic_ends_the_process_though_the_main_thread_waits_for_the_lock() {
    let started = Instant::now();
    let copies = Thread::ALL.map(|kind| {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut copy = copy("main waits for the lock");
        copy.env(THREAD, kind.name()).stdin(pty.slave.try_clone().unwrap());
        let child = copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        (kind, pty, before, child)
    });
    for (kind, pty, before, child) in copies {
        let output = child.wait_with_output().unwrap();
        expect_one_line(&output, kind.name(), "a fault of ours");
        assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags);
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// A folder with the image of a guest that prints empty lines for ever.
fn guest() -> (tempfile::TempDir, PathBuf) {
    // mov x19, #0x9000000; mov w0, #10; str w0, [x19]; b .-4
    const PRINT: [u32; 4] = [0xd2a1_2013, 0x5280_0140, 0xb900_0260, 0x17ff_ffff];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, common::image(&PRINT)).unwrap();
    (folder, path)
}

#[test]
fn panic_inside_a_running_machine_ends_it_with_an_error_and_joins_nobody() {
    let (_folder, image) = guest();
    let output = copy("machine").env(IMAGE, image).output().unwrap();
    let error = expect_one_line(&output, "console", "a line");
    assert!(error.contains(TIDY), "{error}");
}

#[test]
fn panic_of_the_main_thread_ends_a_running_machine_at_once() {
    let (_folder, image) = guest();
    let output = copy("main panics").env(IMAGE, image).output().unwrap();
    let error = expect_one_line(&output, "copy_of_this_program", "a tick");
    assert!(!error.contains(TIDY), "{error}");
}
