//! The harness of the end-to-end tests: runs the program as a user would, with a bound on wall time, and shows the
//! guest's console when an expectation fails.
//!
//! `cargo xtask test` builds program and guest and passes their places in [`PROGRAM`] and [`GUEST`].

pub mod rsp;

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Environment variable with the path of the built program.
pub const PROGRAM: &str = "WARPVMM_BIN";
/// Environment variable with the folder of the built guest.
pub const GUEST: &str = "WARPVMM_GUEST";
/// Environment variable with the folder of the built bare-metal programs.
pub const FIRMWARE: &str = "WARPVMM_FIRMWARE";
/// Environment variable with the folder of the repository's files, where the tests do not run where they were compiled.
pub const REPOSITORY: &str = "WARPVMM_REPOSITORY";
/// Environment variable with the path of the distribution's own kernel, or `none`.
pub const STOCK_KERNEL: &str = "WARPVMM_STOCK_KERNEL";
/// Environment variable with the name of the engine that runs the guests, as `--engine` has it; `soft` if it is not set.
pub const ENGINE: &str = "WARPVMM_ENGINE";
/// Environment variable with words for the guest kernel's command line, before those of a test: where each character on
/// the console is dear, `loglevel=5`.
pub const APPEND: &str = "WARPVMM_APPEND";
/// Environment variable with a factor for all time limits, for hosts that are slow by nature: emulated ones.
pub const PATIENCE: &str = "WARPVMM_PATIENCE";

/// Environment variable with the most rounds of what the guest's programs repeat, for the same hosts.
pub const ROUNDS: &str = "WARPVMM_ROUNDS";

/// Wall time that no single run may need, however loaded the machine is; to be multiplied by [`patience`].
pub const WALL_LIMIT: Duration = Duration::from_secs(600);

/// The factor for all time limits.
#[must_use]
pub fn patience() -> u32 {
    std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// How often a guest's program repeats what it tests: as often as usual, or as [`ROUNDS`] lets it.
#[must_use]
pub fn rounds(usual: u32) -> u32 {
    std::env::var(ROUNDS)
        .ok()
        .and_then(|most| most.parse().ok())
        .map_or(usual, |most: u32| usual.min(most.max(1)))
}

/// The words that run cases of the guest's `zip-test`.
#[must_use]
pub fn zip_test(cases: &str) -> String {
    format!("zip-test -n {} {cases}", rounds(5))
}

/// A time limit in seconds, as the program takes it.
#[must_use]
pub fn seconds(usual: u32) -> String {
    usual.saturating_mul(patience()).to_string()
}

/// A file or folder of the repository.
#[must_use]
pub fn repository(part: &str) -> PathBuf {
    let root = std::env::var_os(REPOSITORY).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned(),
        PathBuf::from,
    );
    root.join(part)
}

fn from_env(variable: &str, default: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| repository("target").join(default), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run the tests by `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// The program.
#[must_use]
pub fn program() -> PathBuf {
    from_env(PROGRAM, "release/warpvmm")
}

/// A file of the guest: `Image`, `initramfs.cpio`.
#[must_use]
pub fn guest(file: &str) -> PathBuf {
    let path = from_env(GUEST, "guest").join(file);
    assert!(
        path.exists(),
        "{} is missing: run the tests by `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// A bare-metal program, as a kernel image.
#[must_use]
pub fn firmware(program: &str) -> PathBuf {
    let path = from_env(FIRMWARE, "firmware").join(program).with_extension("img");
    assert!(
        path.exists(),
        "{} is missing: run the tests by `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// The distribution's own kernel, or `None` where the distribution has none: [`STOCK_KERNEL`] is then `none`.
#[must_use]
pub fn stock_kernel() -> Option<PathBuf> {
    let none = std::env::var_os(STOCK_KERNEL).is_some_and(|value| value == "none");
    (!none).then(|| from_env(STOCK_KERNEL, "guest/stock/vmlinuz"))
}

/// The engine that runs the guests.
#[must_use]
pub fn engine() -> String {
    std::env::var(ENGINE).unwrap_or_else(|_| "soft".to_owned())
}

/// What no kernel says that is well: of the SMMU's driver, of page faults, of itself.
const COMPLAINTS: [&str; 14] = [
    "CMD_SYNC timeout",
    "CMDQ error",
    "event 0x",
    "unexpected PRI request",
    "unexpected global error",
    "overflow detected",
    "write aborted",
    "iopf with pasid",
    "ITS queue timeout",
    "blocked for more than",
    "rcu_sched detected stalls",
    "BUG:",
    "WARNING:",
    "Oops",
];

/// How a run of the program ended.
pub struct Finished {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output: for `warpvmm run` the console.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The guest's console, if it went to a file.
    pub console: String,
    /// What accelerators and SMMU counted, if [`Run::report`] asked for it.
    pub report: serde_json::Value,
    /// Wall time.
    pub took: Duration,
}

impl Finished {
    fn show(&self, what: &str) -> ! {
        let mut text = format!("{what}\nstatus {:?} after {:?}\n", self.status, self.took);
        for (name, content) in
            [("stdout", &self.stdout), ("stderr", &self.stderr), ("console", &self.console)]
        {
            let _ = writeln!(text, "----- {name}\n{content}");
        }
        panic!("{text}");
    }

    /// Expects an exit status.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Self {
        if self.status != Some(status) {
            self.show(&format!("expected exit status {status}"));
        }
        self
    }

    /// Expects a text on the guest's console.
    #[track_caller]
    pub fn expect_console(self, text: &str) -> Self {
        if !self.stdout.contains(text) && !self.console.contains(text) {
            self.show(&format!("expected on the console: {text:?}"));
        }
        self
    }

    /// Expects that a text is not on the guest's console.
    #[track_caller]
    pub fn expect_console_without(self, text: &str) -> Self {
        if self.stdout.contains(text) || self.console.contains(text) {
            self.show(&format!("not expected on the console: {text:?}"));
        }
        self
    }

    /// Expects a kernel that has nothing to complain about.
    #[track_caller]
    pub fn expect_content_kernel(mut self) -> Self {
        for complaint in COMPLAINTS {
            self = self.expect_console_without(complaint);
        }
        self
    }

    /// Expects something of a number of the report; `path` names it, as in `smmu/stalls`. An absent one is 0.
    #[track_caller]
    pub fn expect_count(self, path: &str, expected: impl Fn(u64) -> bool) -> Self {
        let count = self.count(path);
        if !expected(count) {
            self.show(&format!("not expected: {path} is {count} in {}", self.report));
        }
        self
    }

    /// A number of the report.
    #[must_use]
    pub fn count(&self, path: &str) -> u64 {
        self.report.pointer(&format!("/{path}")).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// Expects a text on standard error.
    #[track_caller]
    pub fn expect_stderr(self, text: &str) -> Self {
        if !self.stderr.contains(text) {
            self.show(&format!("expected on standard error: {text:?}"));
        }
        self
    }
}

/// A run of the program in the making.
pub struct Run {
    command: Command,
    console: Option<PathBuf>,
    report: Option<tempfile::NamedTempFile>,
    wall_limit: Duration,
}

impl Run {
    /// The program with these arguments, of which the first is the subcommand. A guest that resets itself ends.
    #[must_use]
    pub fn new<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Self {
        let is = |name: &str| args.first().is_some_and(|word| word.as_ref() == name);
        let run = Self::rebooting(args);
        if is("run") { run.args(&["--no-reboot"]) } else { run }
    }

    /// The same, with guests that reboot.
    #[must_use]
    pub fn rebooting<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Self {
        let mut command = Command::new(program());
        command.args(args);
        if args.first().is_some_and(|word| word.as_ref() == "run" || word.as_ref() == "compress") {
            command.args(["--engine", &engine()]);
        }
        command.env(GUEST, from_env(GUEST, "guest")).stdin(Stdio::null());
        Self { command, console: None, report: None, wall_limit: WALL_LIMIT * patience() }
    }

    /// `warpvmm run` of our guest, with this kernel command line appended to the usual one.
    #[must_use]
    pub fn guest(append: &str) -> Self {
        Self::new(&["run"]).with_guest(append)
    }

    /// The same, which boots again when it resets itself.
    #[must_use]
    pub fn rebooting_guest(append: &str) -> Self {
        Self::rebooting(&["run"]).with_guest(append)
    }

    fn with_guest(mut self, append: &str) -> Self {
        let run = &mut self;
        run.command.arg("--kernel").arg(guest("Image")).arg("--initrd").arg(guest("initramfs.cpio"));
        let more = std::env::var(APPEND).unwrap_or_default();
        let usual = "console=ttyAMA0 panic=-1 hisi_zip.uacce_mode=1";
        run.command.arg("--append").arg(format!("{usual} {more} {append}"));
        run.command.args(["--timeout", &seconds(540)]);
        self
    }

    /// `warpvmm run` of our guest with one job: the words of a program of the initramfs.
    #[must_use]
    pub fn job(words: &str) -> Self {
        Self::guest(&format!("warp.run=\"{words}\""))
    }

    /// The same for tests that look for what the kernel says while it boots.
    #[must_use]
    pub fn verbose_job(words: &str) -> Self {
        Self::guest(&format!("loglevel=8 warp.run=\"{words}\""))
    }

    /// With another kernel: a flavour that `cargo xtask guest --flavour` builds.
    #[must_use]
    pub fn flavour(self, name: &str) -> Self {
        let kernel = guest(&format!("{name}/Image"));
        self.args(&["--kernel".as_ref(), kernel.as_os_str()])
    }

    /// Asks for what accelerators and SMMU counted. For `warpvmm run`.
    ///
    /// # Panics
    /// If there is no room for a temporary file.
    #[must_use]
    pub fn report(mut self) -> Self {
        let file = tempfile::NamedTempFile::new().expect("room");
        self.command.arg("--report-json").arg(file.path());
        self.report = Some(file);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: &[S]) -> Self {
        self.command.args(args);
        self
    }

    /// Sends the console to a file, to be shown when an expectation fails.
    #[must_use]
    pub fn console_log(mut self, path: &Path) -> Self {
        self.command.arg("--console-log").arg(path);
        self.console = Some(path.into());
        self
    }

    /// Starts it and leaves it running.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut self, stdin: Stdio) -> Child {
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().expect("the program starts")
    }

    /// Runs it to its end, or kills it when the wall time is over.
    ///
    /// # Panics
    /// If it cannot be started or does not end in time.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let start = Instant::now();
        let console = self.console.clone();
        let report = self.report.take();
        let limit = self.wall_limit;
        let child = self.spawn(Stdio::null());
        let mut finished = wait(child, start, limit, console.as_deref());
        if let Some(file) = report {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            finished.report = serde_json::from_str(&text).unwrap_or_default();
        }
        finished
    }
}

/// What `warpvmm ctl --json` says of the machine at this socket.
///
/// # Panics
/// If the machine refuses.
#[track_caller]
pub fn ctl(socket: &Path, words: &[&str]) -> serde_json::Value {
    let output = Command::new(program()).arg("ctl").arg(socket).arg("--json").args(words).output();
    let output = output.expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A running guest whose console is typed at.
pub struct Session {
    child: Child,
    stdin: Option<std::process::ChildStdin>,
    output: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: String,
    /// What has come after what was last expected.
    unread: String,
    started: Instant,
    limit: Duration,
}

impl Session {
    /// Starts a run with pipes in place of the terminal.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(run: Run) -> Self {
        let limit = run.wall_limit;
        let mut child = run.spawn(Stdio::piped());
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().expect("piped");
        let (sender, output) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count) = stdout.read(&mut part) {
                if count == 0 || sender.send(part[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            output,
            seen: String::new(),
            unread: String::new(),
            started: Instant::now(),
            limit,
        }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a text appears on the console, after everything that an earlier call has found.
    ///
    /// # Panics
    /// If it does not appear in time.
    pub fn expect(&mut self, text: &str) {
        let end = loop {
            if let Some(at) = self.unread.find(text) {
                break at + text.len();
            }
            let left = self.limit.saturating_sub(self.started.elapsed());
            match self.output.recv_timeout(left) {
                Ok(part) => self.unread.push_str(&String::from_utf8_lossy(&part)),
                Err(_) => {
                    let _ = self.child.kill();
                    panic!("expected on the console: {text:?}\n{}{}", self.seen, self.unread);
                }
            }
        };
        self.seen.extend(self.unread.drain(..end));
    }

    /// Types.
    ///
    /// # Panics
    /// If the program takes no more input.
    pub fn send(&mut self, text: &str) {
        use std::io::Write;
        let stdin = self.stdin.as_mut().expect("taken only at the end");
        stdin.write_all(text.as_bytes()).expect("the program reads its input");
    }

    /// Waits for the end and returns the exit status.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn finish(mut self) -> Option<i32> {
        while self.started.elapsed() < self.limit {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        panic!("did not end within its wall time\n{}", self.seen);
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child that [`Run::spawn`] started.
///
/// # Panics
/// If it does not end within `limit`.
#[must_use]
pub fn wait(mut child: Child, start: Instant, limit: Duration, console: Option<&Path>) -> Finished {
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let mut in_time = true;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if start.elapsed() > limit {
            in_time = false;
            child.kill().expect("our child");
            break child.wait().expect("our child");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let finished = Finished {
        status: status.code(),
        stdout: stdout.join().expect("the reader"),
        stderr: stderr.join().expect("the reader"),
        console: console
            .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned())
            .unwrap_or_default(),
        report: serde_json::Value::Null,
        took: start.elapsed(),
    };
    if !in_time {
        finished.show("did not end within its wall time");
    }
    finished
}

/// Bytes that compress like text and differ from place to place; the same for the same seed.
#[must_use]
pub fn test_data(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&[u8]; 16] = [
        b"queue ",
        b"doorbell ",
        b"page ",
        b"fault ",
        b"stall ",
        b"resume ",
        b"stream ",
        b"table ",
        b"walk ",
        b"command ",
        b"address ",
        b"space ",
        b"process ",
        b"device ",
        b"retry ",
        b"abort\n",
    ];
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut data = Vec::with_capacity(len + 16);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(WORDS[(state >> 60) as usize]);
        if state & 7 == 0 {
            data.extend_from_slice(&(state as u32).to_le_bytes());
        }
    }
    data.truncate(len);
    data
}
