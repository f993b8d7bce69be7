//! Which thread may make which system call: the tables.
//!
//! A call that is in no table of a thread ends the process. `docs/sandbox.md` says how to find out what a change needs,
//! and what to think of before it is added here. Numbers differ between architectures and some calls exist only on the
//! older one, so that each is named by its constant, once.
//!
//! A call that works with a descriptor is permitted for those descriptors that its thread works with ([`Descriptors`]),
//! and a signal for threads of this process: what only the running process knows is added to the tables in `permits`.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::process;

use libc::{c_int, c_long};

use super::Thread;

/// A system call, perhaps only with certain arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: c_long,
    /// What must hold of its arguments, all of it.
    pub only: &'static [Arg],
}

/// A condition: argument `index`, as a 32-bit number, has `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Which argument, from 0.
    pub index: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

impl Call {
    /// The call, whatever its arguments.
    #[must_use]
    pub const fn any(number: c_long) -> Self {
        Self { number, only: &[] }
    }

    /// The call with these arguments only. The same call may be in a table several times: one of them has to fit.
    #[must_use]
    pub const fn only(number: c_long, only: &'static [Arg]) -> Self {
        Self { number, only }
    }
}

impl Arg {
    /// The argument is this number.
    #[must_use]
    pub const fn is(index: u8, value: u32) -> Self {
        Self { index, mask: u32::MAX, value }
    }

    /// The argument has none of these bits.
    #[must_use]
    pub const fn without(index: u8, bits: u32) -> Self {
        Self { index, mask: bits, value: 0 }
    }
}

/// What an engine needs beyond the tables of this file: `ioctl` requests on its own descriptors, say.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineCalls {
    /// Calls of the threads that run vCPUs.
    pub vcpu: &'static [Call],
    /// Calls of every thread: what happens when a device raises an interrupt, or when the machine is stopped.
    pub every: &'static [Call],
}

/// What the threads work with, by its number, which is what a filter can see of it. All of it is opened before the first
/// thread enters the sandbox and closed when its work is done; nothing else gets its number meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// Events that wake the main thread, which reads them. Every thread may write to them.
    pub events: Vec<RawFd>,
    /// What the main thread reads besides: signals, standard input.
    pub inputs: Vec<RawFd>,
    /// What the main thread writes to, reads back and cuts when the machine has ended.
    pub results: Vec<RawFd>,
    /// Where the console's thread writes to besides standard output.
    pub logs: Vec<RawFd>,
    /// Where vCPU threads tell of generated code.
    pub maps: Vec<RawFd>,
    /// The drives, each for its own thread: [`Thread::Disk`] has its index.
    pub drives: Vec<RawFd>,
    /// What the guest boots from, which is read again at a reset.
    pub boot: Vec<RawFd>,
    /// The timeline, for its own thread.
    pub traces: Vec<RawFd>,
    /// The control socket, from which its thread accepts connections.
    pub control: Vec<RawFd>,
    /// The socket from which the debugger's thread accepts connections.
    pub gdb: Vec<RawFd>,
    /// Of the events: by which the control socket's thread learns of the guest's console. It reads them.
    pub console: Vec<RawFd>,
    /// By which the main thread and the one of the machine's life cycle wake these two.
    pub wakes: Vec<RawFd>,
    /// Numbers of descriptors that come later: files for saves, which the thread of the machine's life cycle makes or has been given.
    /// First and last of each range; [`unused_descriptors`] has those of this process.
    pub saves: Vec<(RawFd, RawFd)>,
}

/// The numbers that no descriptor of this process has now, whether we know of it or have inherited it, as ranges: first and last.
///
/// # Errors
/// If the host does not tell which are open.
pub fn unused_descriptors() -> io::Result<Vec<(RawFd, RawFd)>> {
    let mut open = Vec::new();
    {
        let folder = std::fs::read_dir("/proc/self/fd")?;
        for entry in folder {
            open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
        }
    }
    // The listing's own has been closed.
    open.retain(|fd| Path::new(&format!("/proc/self/fd/{fd}")).symlink_metadata().is_ok());
    open.sort_unstable();
    Ok(gaps(&open))
}

/// What is between sorted numbers, and after them.
fn gaps(taken: &[RawFd]) -> Vec<(RawFd, RawFd)> {
    let starts = std::iter::once(Some(0)).chain(taken.iter().map(|fd| fd.checked_add(1)));
    let ends = taken.iter().map(|fd| fd - 1).chain([RawFd::MAX]);
    starts
        .zip(ends)
        .filter_map(|(first, last)| Some((first?, last)))
        .filter(|(first, last)| first <= last)
        .collect()
}

/// A call of a table, with one more condition that only the running process knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    pub(super) call: Call,
    also: Option<Arg>,
    /// The first argument is a number from here to there.
    pub(super) within: Option<(u32, u32)>,
}

impl Permit {
    /// What must hold of the arguments.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &Arg> {
        self.call.only.iter().chain(&self.also)
    }

    /// Whether anything must hold of them.
    pub(super) fn is_free(&self) -> bool {
        self.conditions().next().is_none() && self.within.is_none()
    }
}

const fn number(flag: c_int) -> u32 {
    flag as u32
}

/// Memory that the allocator asks for: its own, never a descriptor's and never executable. (mremap moves and resizes what
/// is mapped, and leaves its protection as it is.)
const MEMORY: &[Call] = &[
    Call::only(
        libc::SYS_mmap,
        &[
            Arg::without(2, number(libc::PROT_EXEC)),
            Arg {
                index: 3,
                mask: number(libc::MAP_TYPE | libc::MAP_ANONYMOUS),
                value: number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
            },
        ],
    ),
    Call::only(libc::SYS_mprotect, &[Arg::without(2, number(libc::PROT_EXEC))]),
    Call::any(libc::SYS_munmap),
    Call::any(libc::SYS_mremap),
    Call::any(libc::SYS_madvise),
    Call::any(libc::SYS_brk),
    // Asks for the number of processors when it thinks of one more heap.
    Call::any(libc::SYS_sched_getaffinity),
];

/// Waiting, and the time where it is not read without a system call.
const WAITING: &[Call] = &[
    Call::any(libc::SYS_futex),
    Call::any(libc::SYS_sched_yield),
    Call::any(libc::SYS_clock_gettime),
    Call::any(libc::SYS_clock_nanosleep),
    // Goes on with an interrupted wait.
    Call::any(libc::SYS_restart_syscall),
    // Hash maps are keyed by a random number.
    Call::any(libc::SYS_getrandom),
];

/// To descriptors that are written from one end to the other: log lines, events, console and report.
const WRITES: &[Call] = &[Call::any(libc::SYS_write), Call::any(libc::SYS_writev)];

/// The end of descriptors that were opened before, and the terminal.
const DESCRIPTORS: &[Call] = &[
    Call::any(libc::SYS_close),
    // Is it still open, before it is closed: in builds with debug assertions.
    Call::only(libc::SYS_fcntl, &[Arg::is(1, number(libc::F_GETFD))]),
    // Whoever ends the process gives the terminal its modes back, if it is in the foreground; some C libraries look at the
    // modes first.
    Call::only(libc::SYS_ioctl, &[Arg::is(0, 0), Arg::is(1, libc::TIOCGPGRP as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(0, 0), Arg::is(1, libc::TCGETS as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(0, 0), Arg::is(1, libc::TCGETS2 as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(0, 0), Arg::is(1, libc::TCSETS as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(0, 0), Arg::is(1, libc::TCSETS2 as u32)]),
];

/// The end of a thread and of the process, orderly or by a panic, a stack overflow or an abort. Signals reach threads of
/// this process only: [`permits`].
const ENDING: &[Call] = &[
    Call::any(libc::SYS_exit),
    Call::any(libc::SYS_exit_group),
    Call::any(libc::SYS_sigaltstack),
    Call::any(libc::SYS_rt_sigreturn),
    Call::any(libc::SYS_rt_sigprocmask),
    Call::any(libc::SYS_gettid),
    Call::any(libc::SYS_getpid),
    // Only back to the default that ends the process. SIGSYS stays with the sandbox.
    Call::only(libc::SYS_rt_sigaction, &[Arg::is(0, number(libc::SIGSEGV))]),
    Call::only(libc::SYS_rt_sigaction, &[Arg::is(0, number(libc::SIGBUS))]),
    Call::only(libc::SYS_rt_sigaction, &[Arg::is(0, number(libc::SIGABRT))]),
    Call::only(libc::SYS_tgkill, &[Arg::is(2, number(libc::SIGABRT))]),
];

/// From events, signals and standard input.
const READS: &[Call] = &[Call::any(libc::SYS_read)];

/// What the supervisor waits on: descriptors of its own making.
const SUPERVISING: &[Call] = &[
    Call::any(libc::SYS_epoll_create1),
    Call::any(libc::SYS_epoll_ctl),
    Call::any(libc::SYS_epoll_pwait),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_epoll_wait),
    Call::any(libc::SYS_timerfd_create),
    Call::any(libc::SYS_timerfd_settime),
    // Is it a terminal, and how wide.
    Call::only(libc::SYS_ioctl, &[Arg::is(1, libc::TCGETS as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(1, libc::TCGETS2 as u32)]),
    Call::only(libc::SYS_ioctl, &[Arg::is(1, libc::TIOCGWINSZ as u32)]),
];

/// When a drive was last written to, which a save tells.
const LOOKS: &[Call] = &[
    Call::any(libc::SYS_fstat),
    Call::only(
        libc::SYS_statx,
        &[Arg { index: 2, mask: number(libc::AT_EMPTY_PATH), value: number(libc::AT_EMPTY_PATH) }],
    ),
];

/// What the guest boots from: its length and its contents.
const BOOT: &[Call] = &[
    Call::any(libc::SYS_fstat),
    Call::only(
        libc::SYS_statx,
        &[Arg { index: 2, mask: number(libc::AT_EMPTY_PATH), value: number(libc::AT_EMPTY_PATH) }],
    ),
    Call::any(libc::SYS_pread64),
];

/// What a run leaves behind: read back, cut to its length. And what it was made from, which may have changed.
const RESULTS: &[Call] = &[
    Call::any(libc::SYS_fstat),
    // Of the descriptor itself, by an empty name.
    Call::only(
        libc::SYS_statx,
        &[Arg { index: 2, mask: number(libc::AT_EMPTY_PATH), value: number(libc::AT_EMPTY_PATH) }],
    ),
    Call::any(libc::SYS_pread64),
    Call::any(libc::SYS_pwrite64),
    Call::any(libc::SYS_lseek),
    Call::any(libc::SYS_ftruncate),
    Call::any(libc::SYS_fsync),
    Call::any(libc::SYS_fchmod),
];

/// A job's outputs are put in place under their names. Which names, Landlock decides.
const NAMES: &[Call] = &[
    Call::any(libc::SYS_umask),
    Call::any(libc::SYS_renameat),
    Call::any(libc::SYS_renameat2),
    Call::any(libc::SYS_linkat),
    Call::any(libc::SYS_unlinkat),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_link),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_unlink),
];

/// A save: what is written to its file. Reading is for nobody.
const SAVES: &[Call] = &[
    Call::any(libc::SYS_fstat),
    Call::only(
        libc::SYS_statx,
        &[Arg { index: 2, mask: number(libc::AT_EMPTY_PATH), value: number(libc::AT_EMPTY_PATH) }],
    ),
    Call::any(libc::SYS_pwrite64),
    Call::any(libc::SYS_ftruncate),
    Call::any(libc::SYS_fdatasync),
];

/// The flags of an opening that say what is opened, and how.
const OPENING: u32 = number(libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_TMPFILE);
/// A file without a name in a folder.
const NAMELESS: u32 = number(libc::O_RDWR | libc::O_TMPFILE);
/// A file with a name that nobody has.
const NEW: u32 = number(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL);

/// Files for saves are made, each by an opening that makes one and opens none that is there already. In which folder, Landlock
/// decides.
const NEW_FILES: &[Call] = &[
    Call::only(libc::SYS_openat, &[Arg { index: 2, mask: OPENING, value: NAMELESS }]),
    Call::only(libc::SYS_openat, &[Arg { index: 2, mask: OPENING, value: NEW }]),
    #[cfg(target_arch = "x86_64")]
    Call::only(libc::SYS_open, &[Arg { index: 1, mask: OPENING, value: NAMELESS }]),
    #[cfg(target_arch = "x86_64")]
    Call::only(libc::SYS_open, &[Arg { index: 1, mask: OPENING, value: NEW }]),
];

/// A socket's name is removed. Which names, Landlock decides.
const REMOVAL: &[Call] = &[
    Call::any(libc::SYS_unlinkat),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_unlink),
];

/// Connections of the control socket, or of a debugger.
const ACCEPTING: &[Call] = &[Call::only(libc::SYS_accept4, &[Arg::is(3, number(libc::SOCK_CLOEXEC))])];

/// What is said there. Which descriptors they will have is not known before, and these two calls work with sockets alone.
const SERVING: &[Call] = &[
    Call::only(libc::SYS_recvfrom, &[Arg::is(4, 0), Arg::is(5, 0)]),
    Call::any(libc::SYS_ppoll),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll),
];

/// What a client of the control socket passes: the file that it wants a save in.
const PASSED: &[Call] = &[Call::any(libc::SYS_recvmsg)];

/// To the other end of a connection, and to no address.
const SENDING: &[Call] = &[Call::only(libc::SYS_sendto, &[Arg::is(4, 0), Arg::is(5, 0)])];

/// A drive's sectors: read, written, made durable, and given back or made zero where they are.
const DISK: &[Call] = &[
    Call::any(libc::SYS_pread64),
    Call::any(libc::SYS_pwrite64),
    Call::any(libc::SYS_fdatasync),
    Call::only(
        libc::SYS_fallocate,
        &[Arg::is(1, number(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE))],
    ),
    Call::only(
        libc::SYS_fallocate,
        &[Arg::is(1, number(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE))],
    ),
];

/// `clone` as the C library calls it for a thread. musl sets a bit that means nothing today.
const THREAD_FLAGS: u32 = number(
    libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID,
);

/// Starts threads, which then narrow what they have inherited.
const SPAWNING: &[Call] = &[
    Call::only(
        libc::SYS_clone,
        &[Arg { index: 0, mask: !number(libc::CLONE_DETACHED), value: THREAD_FLAGS }],
    ),
    Call::any(libc::SYS_set_robust_list),
    Call::any(libc::SYS_rseq),
    Call::only(libc::SYS_prctl, &[Arg::is(0, number(libc::PR_SET_NAME))]),
    Call::only(libc::SYS_prctl, &[Arg::is(0, number(libc::PR_SET_NO_NEW_PRIVS))]),
    Call::only(libc::SYS_seccomp, &[Arg::is(0, libc::SECCOMP_SET_MODE_FILTER), Arg::is(1, 0)]),
    Call::any(libc::SYS_landlock_create_ruleset),
    Call::any(libc::SYS_landlock_restrict_self),
];

/// Calls that get an error instead of an end, because somebody asks by the way and takes no for an answer.
///
/// Opening a file to read: the allocator looks at a file of `/proc` before it gives memory back, and the printer of a
/// backtrace reads the program. Opening for anything else is not in here.
pub(super) const NO_SUCH_ACCESS: &[Call] = &[
    Call::only(libc::SYS_openat, &[Arg::without(2, WRITING)]),
    Call::any(libc::SYS_readlinkat),
    Call::any(libc::SYS_getcwd),
    #[cfg(target_arch = "x86_64")]
    Call::only(libc::SYS_open, &[Arg::without(1, WRITING)]),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_readlink),
];

const WRITING: u32 = number(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);

/// As if the kernel were older. The C library then takes `clone`, whose flags a filter can see.
pub(super) const NO_SUCH_CALL: &[Call] = &[Call::any(libc::SYS_clone3)];

const COMMON: [&[Call]; 5] = [MEMORY, WAITING, DESCRIPTORS, ENDING, NO_SUCH_ACCESS];

/// What the main thread does with names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// There are outputs to put in place, by which names are removed too.
    pub(super) puts: bool,
    /// There is a name to remove.
    pub(super) removes: bool,
    /// There is a name for saves.
    pub(super) saves: bool,
}

/// What a thread may do.
pub(super) fn permits(
    thread: Thread,
    names: Names,
    descriptors: &Descriptors,
    engine: EngineCalls,
) -> Vec<Permit> {
    let Descriptors {
        events,
        inputs,
        results,
        logs,
        maps,
        drives,
        boot,
        traces,
        control,
        gdb,
        console,
        wakes,
        saves,
    } = descriptors;
    let mut permits = Permits::default();
    COMMON.into_iter().for_each(|table| permits.add(table));
    permits.add(engine.every);
    permits.add_on(WRITES, &[libc::STDERR_FILENO]);
    permits.add_on(WRITES, events);
    match thread {
        Thread::Main => {
            permits.add(SUPERVISING);
            permits.add_on(READS, events);
            permits.add_on(READS, inputs);
            permits.add_on(WRITES, &[libc::STDOUT_FILENO]);
            permits.add_on(WRITES, results);
            permits.add_on(RESULTS, results);
            if names.puts {
                permits.add(NAMES);
            } else if names.removes {
                permits.add(REMOVAL);
            }
            // The control socket's thread and the debugger's are woken for their ends.
            permits.add_on(SENDING, wakes);
        }
        Thread::Vcpu => {
            permits.add(engine.vcpu);
            permits.add_on(WRITES, maps);
        }
        Thread::Console => {
            permits.add_on(WRITES, &[libc::STDOUT_FILENO]);
            permits.add_on(WRITES, logs);
        }
        // It wakes the control socket's thread for answers, and the debugger's for stops.
        Thread::LifeCycle => {
            permits.add_on(BOOT, boot);
            permits.add_on(SENDING, wakes);
            permits.add_on(LOOKS, drives);
            permits.add_within(SAVES, saves);
            if names.saves {
                permits.add(NEW_FILES);
                permits.add(NAMES);
            }
        }
        Thread::Control => {
            permits.add_on(ACCEPTING, control);
            permits.add_on(READS, console);
            permits.add(SERVING);
            permits.add(PASSED);
            permits.add(SENDING);
        }
        Thread::Gdb => {
            permits.add_on(ACCEPTING, gdb);
            permits.add(SERVING);
            permits.add(SENDING);
        }
        Thread::Disk(index) => permits.add_on(DISK, drives.get(index).map_or(&[], std::slice::from_ref)),
        Thread::Spawner => {
            permits.add(SPAWNING);
            permits.add(NO_SUCH_CALL);
        }
        Thread::Trace => permits.add_on(WRITES, traces),
        Thread::Alarms | Thread::Accel => {}
    }
    permits.0
}

#[derive(Default)]
struct Permits(Vec<Permit>);

impl Permits {
    /// The calls of a table. A signal may go to threads of this process and to no others, whoever sends it.
    fn add(&mut self, table: &[Call]) {
        let own = |call: &Call| (call.number == libc::SYS_tgkill).then(|| Arg::is(0, process::id()));
        self.0.extend(table.iter().map(|call| Permit { call: *call, also: own(call), within: None }));
    }

    /// The calls of a table on these descriptors: their first argument.
    fn add_on(&mut self, table: &[Call], descriptors: &[RawFd]) {
        for descriptor in descriptors {
            let also = Some(Arg::is(0, number(*descriptor)));
            self.0.extend(table.iter().map(|call| Permit { call: *call, also, within: None }));
        }
    }

    /// The calls of a table on descriptors of these ranges: their first argument.
    fn add_within(&mut self, table: &[Call], ranges: &[(RawFd, RawFd)]) {
        for &(first, last) in ranges {
            let within = Some((number(first), number(last)));
            self.0.extend(table.iter().map(|call| Permit { call: *call, also: None, within }));
        }
    }
}

/// Those of a table that is the same in every process.
pub(super) fn fixed(table: &[Call]) -> Vec<Permit> {
    table.iter().map(|call| Permit { call: *call, also: None, within: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_numbers_are_the_numbers_that_are_not_there() {
        assert_eq!(gaps(&[]), [(0, RawFd::MAX)]);
        assert_eq!(gaps(&[0, 1, 2, 5, 9]), [(3, 4), (6, 8), (10, RawFd::MAX)]);
        assert_eq!(gaps(&[3, RawFd::MAX]), [(0, 2), (4, RawFd::MAX - 1)]);
    }

    #[test]
    fn descriptor_that_is_opened_later_has_a_number_that_was_not_used() {
        let before = std::fs::File::open("/dev/null").unwrap();
        let unused = unused_descriptors().unwrap();
        let has = |fd: RawFd| unused.iter().any(|&(first, last)| (first..=last).contains(&fd));
        use std::os::fd::AsRawFd;
        assert!(!has(before.as_raw_fd()));
        assert!(has(RawFd::MAX - 1));
    }
}
