//! What each kind of thread can do in the sandbox and what it cannot, tried out by copies of this program: the filters
//! are the real ones, and most of the attempts end a process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::ErrorKind::PermissionDenied;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use hw::Scheduler;
use libc::{c_int, c_long, c_void, siginfo_t};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::pty::openpty;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use seccompiler::{SeccompAction, SeccompFilter};
use vmm::host::terminal::Terminal;
use vmm::sandbox::calls::{Arg, Call, Descriptors, EngineCalls};
use vmm::sandbox::{Folders, Sandbox, Thread};
use vmm::workers::WorkerPool;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

/// Tells a copy of this program what to try, and as which thread.
const ATTEMPT: &str = "WARPVMM_TEST_ATTEMPT";
const THREAD: &str = "WARPVMM_TEST_THREAD";
/// The folder that a copy may put files in place in.
const FOLDER: &str = "WARPVMM_TEST_FOLDER";
/// A copy changes the modes of its terminal first.
const RAW: &str = "WARPVMM_TEST_RAW";
/// The version of this kernel's Landlock, which cannot be asked from inside.
const LANDLOCK: &str = "WARPVMM_TEST_LANDLOCK";
/// The name of an abstract socket, of another process.
const SOCKET: &str = "WARPVMM_TEST_SOCKET";
/// What a copy says when its attempt has not ended it.
const SURVIVED: &str = "the attempt has not ended the process";

type Attempt = fn();

/// What the sandbox ends the process for, and the name of the call that it then says.
const FORBIDDEN: &[(&str, &str, Attempt)] = &[
    ("start a program", "execve", || call(libc::SYS_execve, [0; 3])),
    ("open a connection", "socket", || drop(std::net::TcpStream::connect("127.0.0.1:9"))),
    ("trace a process", "ptrace", || call(libc::SYS_ptrace, [0; 3])),
    ("read the memory of a process", "process_vm_readv", || call(libc::SYS_process_vm_readv, [0; 3])),
    ("signal a process", "kill", || call(libc::SYS_kill, [0; 3])),
    ("write to a new file", "openat", || drop(File::create("/nonexistent/file"))),
    ("open a file by another call", "openat2", || call(libc::SYS_openat2, [0; 3])),
    ("make memory executable", "mprotect", || call(libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as usize])),
    ("get executable memory", "mmap", || call(libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as usize])),
    ("type at the terminal", "ioctl", || call(libc::SYS_ioctl, [0, libc::TIOCSTI as usize, 0])),
    ("take the sandbox's signal", "rt_sigaction", || register_signal_handler(libc::SIGSYS, ignore).unwrap()),
    ("make a name space", "unshare", || call(libc::SYS_unshare, [0; 3])),
    ("go round the filter", "io_uring_setup", || call(libc::SYS_io_uring_setup, [0; 3])),
    ("make a process", "clone", || call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0])),
    ("abort another process", "tgkill", || {
        let nobody = libc::pid_t::MAX as usize;
        call(libc::SYS_tgkill, [nobody, nobody, libc::SIGABRT as usize]);
    }),
    ("signal a process by its descriptor", "pidfd_send_signal", || {
        call(libc::SYS_pidfd_send_signal, [usize::MAX, 0, 0])
    }),
    ("map a drive", "mmap", || map(&open().drives[0], WRITABLE, libc::MAP_SHARED)),
    ("map a copy of a drive", "mmap", || map(&open().drives[0], libc::PROT_READ, libc::MAP_PRIVATE)),
    ("map what nobody gave", "mmap", || map(&open().other, libc::PROT_READ, libc::MAP_SHARED)),
    ("map generated code once more", "mmap", || map(&open().code.file, EXECUTABLE, libc::MAP_SHARED)),
    ("make generated code writable where it runs", "mprotect", || {
        open().code.protect_run(WRITABLE | EXECUTABLE)
    }),
    ("make generated code executable where it is written", "mprotect", || {
        open().code.protect_written(EXECUTABLE)
    }),
    ("make memory executable by another call", "pkey_mprotect", || {
        call(libc::SYS_pkey_mprotect, [0, 0, libc::PROT_EXEC as usize])
    }),
    ("make all memory that can be read executable", "personality", || {
        call(libc::SYS_personality, [0x0040_0000, 0, 0])
    }),
    ("write to what nobody gave", "write", || (&open().other).write_all(b"x").unwrap()),
    ("write pieces to what nobody gave", "writev", || {
        drop((&open().other).write_vectored(&[std::io::IoSlice::new(b"x")]));
    }),
    ("write to what the guest boots from", "pwrite64", || drop(open().boot.write_at(&[0], 0))),
    ("write to a drive from its beginning", "write", || (&open().drives[0]).write_all(b"x").unwrap()),
    ("read what nobody gave", "read", || drop((&open().other).read(&mut [0]))),
    ("read a drive from its beginning", "read", || drop((&open().drives[0]).read(&mut [0]))),
    ("read another thread's drive", "pread64", || drop(open().drives[1].read_at(&mut [0], 0))),
    ("write to another thread's drive", "pwrite64", || drop(open().drives[1].write_at(&[0], 0))),
    ("make a drive longer", "fallocate", || {
        let _ = fallocate(&open().drives[0], FallocateFlags::empty(), 0, 1 << 20);
    }),
    ("cut a drive", "ftruncate", || drop(open().drives[0].set_len(0))),
    ("copy a drive", "sendfile", || {
        call(libc::SYS_sendfile, [fd(&open().other), fd(&open().drives[0]), 0]);
    }),
    ("give a descriptor another number", "dup", || call(libc::SYS_dup, [fd(&open().drives[0]), 0, 0])),
];

const WRITABLE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const EXECUTABLE: c_int = libc::PROT_READ | libc::PROT_EXEC;

fn fd(file: &impl AsRawFd) -> usize {
    file.as_raw_fd() as usize
}

/// What a copy has opened before the sandbox, as a machine does.
struct Open {
    event: EventFd,
    console_event: EventFd,
    result: File,
    log: File,
    map: File,
    drives: [File; 2],
    boot: File,
    /// Has a number that was not used before.
    save: File,
    control: UnixListener,
    gdb: UnixListener,
    control_wake: (UnixStream, UnixStream),
    /// The sandbox does not know of it: it may have been inherited.
    other: File,
    code: Code,
}

/// A control socket that does not wait, at which somebody waits.
fn listener() -> UnixListener {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    listener.set_nonblocking(true).unwrap();
    // Its other end stays, as another process's would.
    std::mem::forget(UnixStream::connect(folder.path().join("socket")).unwrap());
    listener
}

static OPEN: OnceLock<Open> = OnceLock::new();

fn open() -> &'static Open {
    OPEN.get_or_init(|| {
        let file = || {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[1; 8192], 0).unwrap();
            file
        };
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        Open {
            event,
            console_event: EventFd::new(EFD_NONBLOCK).unwrap(),
            result: file(),
            log: file(),
            map: file(),
            drives: [file(), file()],
            boot: file(),
            save: file(),
            control: listener(),
            gdb: listener(),
            control_wake: UnixStream::pair().unwrap(),
            other: file(),
            code: Code::new(),
        }
    })
}

impl Open {
    fn descriptors(&self) -> Descriptors {
        Descriptors {
            traces: Vec::new(),
            events: vec![self.event.as_raw_fd(), self.console_event.as_raw_fd()],
            inputs: vec![0],
            results: vec![self.result.as_raw_fd()],
            logs: vec![self.log.as_raw_fd()],
            maps: vec![self.map.as_raw_fd()],
            drives: self.drives.iter().map(AsRawFd::as_raw_fd).collect(),
            boot: vec![self.boot.as_raw_fd()],
            control: vec![self.control.as_raw_fd()],
            gdb: vec![self.gdb.as_raw_fd()],
            console: vec![self.console_event.as_raw_fd()],
            wakes: vec![self.control_wake.0.as_raw_fd()],
            saves: vec![(self.save.as_raw_fd(), self.save.as_raw_fd())],
        }
    }
}

/// What some threads may do with descriptors and others not, and the call that ends the others.
const OWN_WORK: &[(&str, &str, &[Thread], Attempt)] = &[
    ("wake the main thread", "write", &Thread::ALL, || open().event.write(1).unwrap()),
    ("log a line", "write", &Thread::ALL, || std::io::stderr().write_all(b"a line\n").unwrap()),
    ("print", "write", &[Thread::Main, Thread::Console], || {
        std::io::stdout().write_all(b"a line\n").unwrap();
    }),
    ("write to the console's log", "write", &[Thread::Console], || (&open().log).write_all(b"x").unwrap()),
    ("tell of generated code", "write", &[Thread::Vcpu], || (&open().map).write_all(b"x").unwrap()),
    ("be woken", "read", &[Thread::Main], || drop(open().event.read())),
    ("learn of the guest's console", "read", &[Thread::Main, Thread::Control], || {
        drop(open().console_event.read());
    }),
    ("write to a result", "write", &[Thread::Main], || (&open().result).write_all(b"x").unwrap()),
    ("read a result back", "pread64", &[Thread::Main], || {
        open().result.read_exact_at(&mut [0; 512], 512).unwrap();
    }),
    ("cut a result", "ftruncate", &[Thread::Main], || open().result.set_len(100).unwrap()),
    ("read what the guest boots from", "pread64", &[Thread::LifeCycle], || {
        open().boot.read_exact_at(&mut [0; 512], 512).unwrap();
    }),
    ("ask for the length of what the guest boots from", "statx", &[Thread::LifeCycle], || {
        assert_eq!(open().boot.metadata().unwrap().len(), 8192);
    }),
    ("write a save", "pwrite64", &[Thread::LifeCycle], || {
        open().save.write_all_at(&[0; 512], 512).unwrap();
    }),
    ("make a save the length that it has", "ftruncate", &[Thread::LifeCycle], || {
        open().save.set_len(100).unwrap()
    }),
    ("ask when a drive was written to", "statx", &[Thread::LifeCycle], || {
        open().drives[0].metadata().unwrap();
    }),
    ("receive what a client passes", "recvmsg", &[Thread::Control], || {
        let fd = open().control_wake.1.as_raw_fd();
        // SAFETY: a header of zeros describes no memory; the kernel then receives nothing.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { libc::recvmsg(fd, &mut header, libc::MSG_DONTWAIT) };
    }),
    ("accept a connection", "accept4", &[Thread::Control], || drop(open().control.accept().unwrap())),
    ("accept a debugger", "accept4", &[Thread::Gdb], || drop(open().gdb.accept().unwrap())),
    (
        "wake the control socket's thread",
        "sendto",
        &[Thread::Main, Thread::LifeCycle, Thread::Control, Thread::Gdb],
        || {
            assert_eq!(send(open().control_wake.0.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT), Ok(1));
        },
    ),
    ("talk at a connection", "sendto", &[Thread::Control, Thread::Gdb], || {
        assert_eq!(send(open().control_wake.1.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT), Ok(1));
    }),
    ("listen at a connection", "recvfrom", &[Thread::Control, Thread::Gdb], || {
        let _ = recv(open().control_wake.1.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
    }),
    ("read a drive", "pread64", &[Thread::Disk(0)], || {
        open().drives[0].read_exact_at(&mut [0; 512], 512).unwrap();
    }),
    ("write to a drive", "pwrite64", &[Thread::Disk(0)], || {
        open().drives[0].write_all_at(&[2; 512], 512).unwrap();
    }),
    ("give a drive's sectors back", "fallocate", &[Thread::Disk(0)], || {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Not every file system can, and says so.
        let _ = fallocate(&open().drives[0], hole, 0, 4096);
    }),
    ("make a drive's sectors zero", "fallocate", &[Thread::Disk(0)], || {
        let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let _ = fallocate(&open().drives[0], zero, 0, 4096);
    }),
    ("make a drive durable", "fdatasync", &[Thread::Disk(0)], || open().drives[0].sync_data().unwrap()),
];

/// Memory for generated code: mapped to be written, and once more to be run.
struct Code {
    file: File,
    written: *mut c_void,
    run: *mut c_void,
}

// SAFETY: the mappings stay for the rest of the process, and only `run_generated_code` uses what is in them.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

const CODE_BYTES: usize = 4096;

impl Code {
    fn new() -> Self {
        // SAFETY: the name ends with NUL; the descriptor, if it is one, is owned by nobody else.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(CODE_BYTES as u64).unwrap();
        let view = |protection| {
            let null = std::ptr::null_mut();
            // SAFETY: a new mapping, which takes no other's place.
            let at =
                unsafe { libc::mmap(null, CODE_BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
            assert_ne!(at, libc::MAP_FAILED);
            at
        };
        let (written, run) = (view(WRITABLE), view(EXECUTABLE));
        Self { file, written, run }
    }

    fn protect_run(&self, protection: c_int) {
        // SAFETY: the mapping is ours and as long; nobody holds a reference into it.
        unsafe { libc::mprotect(self.run, CODE_BYTES, protection) };
    }

    fn protect_written(&self, protection: c_int) {
        // SAFETY: the mapping is ours and as long; nobody holds a reference into it.
        unsafe { libc::mprotect(self.written, CODE_BYTES, protection) };
    }
}

/// Code that was generated in the sandbox, in memory that was made before.
fn run_generated_code() {
    /// A function that returns 42.
    #[cfg(target_arch = "x86_64")]
    const FUNCTION: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3]; // mov eax, 42; ret
    #[cfg(target_arch = "aarch64")]
    const FUNCTION: [u8; 8] = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]; // mov w0, #42; ret
    let code = &open().code;
    // SAFETY: the mapping is longer than the function, writable, and nobody else uses it.
    unsafe { code.written.cast::<u8>().copy_from(FUNCTION.as_ptr(), FUNCTION.len()) };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: cache maintenance by address of mapped memory, which changes no data.
    unsafe {
        std::arch::asm!("dc cvau, {w}", "dsb ish", "ic ivau, {r}", "dsb ish", "isb", w = in(reg) code.written, r = in(reg) code.run);
    }
    // SAFETY: there is a function of this type now.
    let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(code.run) };
    assert_eq!(function(), 42);
}

/// What only the spawner may do.
const START_A_THREAD: (&str, Attempt) = ("start a thread", || thread::spawn(|| ()).join().unwrap());

/// What each thread does now and then without being written to do it, and has to survive.
const EVERYDAY: &[(&str, Attempt)] = &[
    ("give memory back", || {
        // Small enough to come from the allocator's own heap, enough for it to shrink the heap afterwards.
        for _ in 0..4 {
            let many: Vec<_> = (0..400).map(|i| vec![i as u8; 60_000]).collect();
            drop(black_box(many));
        }
        let mut grown = black_box(vec![1_u8; 1 << 20]);
        grown.resize(64 << 20, 2);
        drop(black_box(grown));
    }),
    ("wait, and wait for some time", || {
        let (mutex, condition) = (Mutex::new(()), Condvar::new());
        drop(condition.wait_timeout(mutex.lock().unwrap(), Duration::from_millis(1)));
        thread::sleep(Duration::from_millis(1));
        thread::yield_now();
    }),
    ("make a hash map", || drop(black_box(HashMap::from([(1, 2)])))),
    ("be refused a file to read", || {
        assert_eq!(File::open("/proc/self/status").unwrap_err().kind(), PermissionDenied);
    }),
    ("panic, with a backtrace, and be caught", || {
        assert!(std::panic::catch_unwind(|| panic!("a panic in the sandbox")).is_err());
    }),
    ("run generated code", run_generated_code),
];

/// Makes a system call.
fn call(number: c_long, args: [usize; 3]) {
    // SAFETY: none of the calls above does anything with these arguments: they are null pointers, numbers that no object
    // has, and pages that nobody uses.
    unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
}

/// Maps the first page of a file.
fn map(file: &File, protection: c_int, flags: c_int) {
    let null = std::ptr::null_mut();
    // SAFETY: a new mapping, if there is one, takes no other's place.
    unsafe { libc::mmap(null, 4096, protection, flags, file.as_raw_fd(), 0) };
}

extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Not a test of its own, but what the copies do.
#[test]
fn copy_of_this_program() {
    let (Ok(name), Ok(kind)) = (std::env::var(ATTEMPT), std::env::var(THREAD)) else { return };
    let kind = Thread::ALL.into_iter().find(|k| k.name() == kind).expect("a kind of thread");
    let attempt = own_attempt(&name).expect("an attempt");
    let folders: Vec<_> = std::env::var_os(FOLDER).map(PathBuf::from).into_iter().collect();
    let is_removal = name == REMOVE_A_NAME.0;
    let folders =
        if is_removal { Folders { removals: folders, ..Folders::default() } } else { folders.into() };
    let descriptors = open().descriptors();
    // Left raw: only the end of the process gives the modes back.
    let mut terminal = Terminal::at_stdin().unwrap().filter(|_| std::env::var_os(RAW).is_some());
    assert!(terminal.as_mut().is_none_or(|terminal| terminal.take().unwrap()));
    let sandbox = Sandbox::new(folders, &descriptors, ENGINE).unwrap();
    sandbox.spawn(kind, kind.name(), attempt).unwrap().join().unwrap();
    println!("{SURVIVED}");
}

fn own_attempt(name: &str) -> Option<Attempt> {
    let forbidden = FORBIDDEN.iter().map(|(name, _, attempt)| (*name, *attempt));
    let others: [(&str, Attempt); 6] = [
        REMOVE_A_NAME,
        START_A_THREAD,
        ("overflow the stack", || println!("{}", overflow(1))),
        ("put files in place", put_files_in_place),
        ("read the host's name", || call(libc::SYS_uname, [0; 3])),
        ("read the host's limits", || call(libc::SYS_prlimit64, [0, 7, 0])),
    ];
    let own_work = OWN_WORK.iter().map(|(name, _, _, attempt)| (*name, *attempt));
    let all = forbidden.chain(EVERYDAY.iter().copied()).chain(own_work).chain(others);
    all.filter(|(other, _)| *other == name).map(|(_, attempt)| attempt).next()
}

/// As an engine would name what it needs.
const ENGINE: EngineCalls = EngineCalls {
    vcpu: &[Call::only(libc::SYS_prlimit64, &[Arg::is(1, 7)])],
    every: &[Call::any(libc::SYS_uname)],
};

/// A copy of this program that is to try something.
fn copy(kind: Thread, name: &str) -> Command {
    let mut copy = Command::new(std::env::current_exe().expect("this program"));
    copy.args(["copy_of_this_program", "--exact", "--nocapture", "--test-threads=1"]);
    copy.env(ATTEMPT, name).env(THREAD, kind.name()).env("RUST_BACKTRACE", "full");
    copy.env(LANDLOCK, landlock().to_string());
    copy
}

/// Runs it to its end.
fn attempt(kind: Thread, name: &str, folder: Option<&Path>) -> Output {
    copy(kind, name).envs(folder.map(|folder| (FOLDER, folder))).output().expect("this program runs")
}

#[track_caller]
fn expect_end(kind: Thread, name: &str, call: &str) {
    let output = attempt(kind, name, None);
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().find(|line| line.starts_with("warpvmm: thread")).unwrap_or_default();
    assert!(
        output.status.code() == Some(1)
            && line.starts_with(&format!("warpvmm: thread '{}' made system call ", kind.name()))
            && line.contains(&format!("({call}), which the sandbox forbids"))
            && line.contains("--sandbox off"),
        "{kind:?}, {name}: {output:?}"
    );
}

#[track_caller]
fn expect_survival(kind: Thread, name: &str, folder: Option<&Path>) -> Output {
    let output = attempt(kind, name, folder);
    let survived = String::from_utf8_lossy(&output.stdout).contains(SURVIVED);
    assert!(output.status.success() && survived, "{kind:?}, {name}: {output:?}");
    output
}

#[test]
fn forbidden_calls_end_the_process_with_a_line_that_names_thread_and_call() {
    for kind in Thread::ALL {
        for (name, call, _) in FORBIDDEN {
            expect_end(kind, name, call);
        }
    }
}

#[test]
fn descriptors_are_for_the_threads_that_work_with_them() {
    for (name, call, kinds, _) in OWN_WORK {
        for kind in Thread::ALL {
            if kinds.contains(&kind) {
                expect_survival(kind, name, None);
            } else {
                expect_end(kind, name, call);
            }
        }
    }
}

#[test]
fn only_the_spawner_starts_threads() {
    for kind in Thread::ALL {
        match kind {
            Thread::Spawner => drop(expect_survival(kind, START_A_THREAD.0, None)),
            // The C library blocks every signal meanwhile: the kernel ends the process, and nobody can write a line.
            _ => assert_eq!(attempt(kind, START_A_THREAD.0, None).status.signal(), Some(libc::SIGSYS)),
        }
    }
}

#[test]
fn what_the_language_and_the_c_library_do_by_themselves_is_allowed() {
    for kind in Thread::ALL {
        for (name, _) in EVERYDAY {
            expect_survival(kind, name, None);
        }
    }
}

#[test]
fn message_of_a_panic_appears() {
    let output = expect_survival(Thread::Vcpu, "panic, with a backtrace, and be caught", None);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("thread 'vcpu'") && error.contains("a panic in the sandbox"), "{error}");
    assert!(error.contains("stack backtrace"), "{error}");
}

#[test]
fn terminal_has_its_modes_back_when_a_forbidden_call_has_ended_the_process() {
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    for kind in Thread::ALL {
        let terminal = pty.slave.try_clone().unwrap();
        let ended = copy(kind, "start a program").env(RAW, "1").stdin(terminal).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags);
        assert!(before.local_flags.contains(LocalFlags::ECHO));
    }
}

#[test]
fn overflow_of_a_stack_is_reported_as_one() {
    for kind in Thread::ALL {
        let output = attempt(kind, "overflow the stack", None);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("has overflowed its stack"), "{output:?}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    black_box([depth; 64])[0] + overflow(black_box(depth + 1))
}

#[test]
fn calls_of_an_engine_are_allowed_with_its_arguments_and_to_its_threads() {
    for kind in Thread::ALL {
        expect_survival(kind, "read the host's name", None);
        match kind {
            Thread::Vcpu => drop(expect_survival(kind, "read the host's limits", None)),
            _ => expect_end(kind, "read the host's limits", "prlimit64"),
        }
    }
}

/// The attempt of a main thread that has outputs.
fn put_files_in_place() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("given"));
    let outside = folder.with_extension("outside");
    fs::rename(folder.join("temporary"), folder.join("output")).unwrap();
    fs::hard_link(folder.join("output"), folder.join("second")).unwrap();
    fs::remove_file(folder.join("second")).unwrap();
    if landlock_outside() >= 1 {
        assert_eq!(fs::remove_file(outside.join("file")).unwrap_err().kind(), PermissionDenied);
        assert!(fs::rename(outside.join("file"), outside.join("other")).is_err());
        assert!(fs::rename(outside.join("file"), folder.join("stolen")).is_err());
        assert!(fs::rename(folder.join("output"), outside.join("planted")).is_err());
    }
}

/// The attempt of a main thread that has a socket's name to remove.
const REMOVE_A_NAME: (&str, Attempt) = ("remove a name", || {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("given"));
    fs::remove_file(folder.join("socket")).unwrap();
    if landlock_outside() >= 1 {
        let other = folder.with_extension("outside").join("file");
        assert_eq!(fs::remove_file(other).unwrap_err().kind(), PermissionDenied);
    }
});

#[test]
fn name_is_removed_in_its_folder_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, outside) = (dir.path().join("folder"), dir.path().join("folder.outside"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&outside).unwrap();
    drop(UnixListener::bind(folder.join("socket")).unwrap());
    fs::write(outside.join("file"), "not ours").unwrap();
    expect_survival(Thread::Main, REMOVE_A_NAME.0, Some(&folder));
    assert!(!folder.join("socket").exists() && outside.join("file").exists());
}

/// The version of this kernel's Landlock, or less than 1.
fn landlock() -> c_long {
    // SAFETY: with this flag the call only returns a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) }
}

/// The same, as a copy has been told.
fn landlock_outside() -> c_long {
    std::env::var(LANDLOCK).expect("given").parse().expect("a number")
}

#[test]
fn outputs_are_put_in_place_in_their_folder_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, outside) = (dir.path().join("folder"), dir.path().join("folder.outside"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(folder.join("temporary"), "output").unwrap();
    fs::write(outside.join("file"), "not ours").unwrap();

    expect_survival(Thread::Main, "put files in place", Some(&folder));

    assert_eq!(fs::read(folder.join("output")).unwrap(), b"output");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"not ours");
    if landlock() < 1 {
        eprintln!("skipped in part: this kernel has no Landlock");
    }
}

/// Not a test of its own, but what a copy does before any of its threads is under a filter.
#[test]
fn reach_of_a_copy_of_this_program() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let address = SocketAddr::from_abstract_name(socket).unwrap();
    let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(other.id().try_into().unwrap());
    let is_refused = |expected: bool| {
        let refusals = [
            kill(pid, None) == Err(nix::errno::Errno::EPERM),
            UnixStream::connect_addr(&address).is_err_and(|e| e.kind() == PermissionDenied),
        ];
        assert_eq!(refusals, [expected; 2]);
    };
    is_refused(false);

    let sandbox = Sandbox::new(Vec::new(), &Descriptors::default(), EngineCalls::default()).unwrap();

    // LANDLOCK_SCOPE_SIGNAL and LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET came with version 6.
    is_refused(landlock_outside() >= 6);
    let (end, ended) = mpsc::channel::<()>();
    let vcpu = sandbox.spawn(Thread::Vcpu, "vcpu0", move || assert!(ended.recv().is_err())).unwrap();
    register_signal_handler(libc::SIGUSR1, ignore).unwrap();
    pthread_kill(vcpu.as_pthread_t(), Signal::SIGUSR1).unwrap();
    drop(end);
    vcpu.join().unwrap();
    // It ends with its input.
    drop(other.stdin.take());
    other.wait().unwrap();
    println!("{SURVIVED}");
}

#[test]
fn landlock_leaves_no_signal_and_no_socket_to_other_processes_and_signals_between_our_threads() {
    let socket = format!("warpvmm-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).unwrap()).unwrap();
    let mut copy = Command::new(std::env::current_exe().expect("this program"));
    copy.args(["reach_of_a_copy_of_this_program", "--exact", "--nocapture", "--test-threads=1"]);
    let output = copy.env(SOCKET, socket).env(LANDLOCK, landlock().to_string()).output().unwrap();
    let survived = String::from_utf8_lossy(&output.stdout).contains(SURVIVED);
    assert!(output.status.success() && survived, "{output:?}");
    if landlock() < 6 {
        eprintln!("skipped in part: this kernel's Landlock has no scopes");
    }
}

const WORKERS: usize = 40;

#[test]
fn devices_get_threads_from_inside_the_sandbox_and_those_are_in_it() {
    let sandbox = Sandbox::new(Vec::new(), &Descriptors::default(), EngineCalls::default()).unwrap();
    let pool = WorkerPool::start(&sandbox).unwrap();
    let (tell, told) = mpsc::channel();
    let asks = std::sync::Arc::clone(&pool);
    let vcpu = sandbox.spawn(Thread::Vcpu, "vcpu0", move || {
        // More than the allocator has heaps for without a second thought.
        for _ in 0..WORKERS {
            let tell = tell.clone();
            let started = asks.spawn(
                "accel",
                Box::new(move || {
                    drop(black_box(vec![1_u8; 100_000]));
                    let refused = File::open("/proc/self/status").unwrap_err().kind() == PermissionDenied;
                    tell.send(refused).unwrap();
                }),
            );
            started.unwrap();
        }
    });
    vcpu.unwrap().join().unwrap();
    pool.join();
    assert_eq!(told.iter().collect::<Vec<_>>(), [true; WORKERS]);
}

#[test]
fn threads_have_a_filter_and_no_way_to_new_privileges() {
    let sandbox = Sandbox::new(Vec::new(), &Descriptors::default(), EngineCalls::default()).unwrap();
    for kind in Thread::ALL {
        let (end, ended) = mpsc::channel::<()>();
        let thread = sandbox.spawn(kind, kind.name(), move || assert!(ended.recv().is_err())).unwrap();
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let status = tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
            .find(|status| status.lines().next() == Some(&format!("Name:\t{}", kind.name())))
            .unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        drop(end);
        thread.join().unwrap();
    }
}

#[test]
fn kernel_without_filters_is_an_error_that_says_what_to_do() {
    // As on a kernel without seccomp, or in a container that forbids it.
    let rules = [(libc::SYS_seccomp, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let old_kernel: seccompiler::BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap();
    let error = thread::spawn(move || {
        seccompiler::apply_filter(&old_kernel).unwrap();
        let sandbox = Sandbox::new(Vec::new(), &Descriptors::default(), EngineCalls::default()).unwrap();
        sandbox.spawn(Thread::Disk(0), "disk", || panic!("outside the sandbox")).unwrap_err()
    });
    let error = error.join().unwrap().to_string();
    assert!(error.contains("filter of system calls") && error.contains("--sandbox off"), "{error}");
}
