//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::accelerator::{self, Accelerator, Accelerators};
use crate::faults::Rule;
use crate::gdb::address::Address;
use crate::size::{parse_duration, parse_memory, parse_size};
use crate::trace::LEAST_LIMIT;

/// Boots an arm64 Linux with an accelerator that shares the address space of its processes.
#[derive(Debug, Parser)]
#[command(name = "warpvmm", version, after_help = EXIT_HELP, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log to standard error: error, warn, info, debug, trace; or per part of the machine, as in `smmu=debug,mmio=trace`
    #[arg(long, global = true, value_name = "FILTER", env = "WARPVMM_LOG")]
    pub log: Option<String>,
}

const EXIT_HELP: &str = "\
Exit status:
  0    the guest powered itself off; the job is done
  1    an error of ours or of the host: the message says what to do
  2    wrong command line
  3    the guest reset itself, because its kernel panicked or otherwise, and does not boot again: --no-reboot, or
       the machine cannot be reset
  124  the time limit passed
  130  interrupted (Ctrl-C)
  143  ended by SIGTERM or SIGHUP";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel; the serial console is this terminal (Ctrl-A X leaves)
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Let a saved machine go on; the serial console is this terminal
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Compress or decompress a file on the accelerator, in a guest booted for the job
    #[command(after_help = COMPRESS_EXAMPLES)]
    Compress(CompressArgs),
    /// Ask and tell a machine that runs with --control: pause, resume, reset, look inside
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(CtlArgs),
    /// Faults that a plan can make happen: list them, or check a plan
    #[command(after_help = FAULTS_EXAMPLES)]
    Faults(FaultsArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  warpvmm run --kernel Image --initrd initramfs.cpio
  warpvmm run --kernel Image --initrd i.gz --append 'console=ttyAMA0 hisi_zip.uacce_mode=1' --cpus 4
  warpvmm run --kernel Image --initrd i.gz --accel zip:ats,zip
  warpvmm run --kernel Image --initrd i.gz --gdb 1234 --paused      then: gdb-multiarch vmlinux -ex 'target remote :1234'
  warpvmm run --kernel Image --drive root.img --append 'root=/dev/vda' --memory 2G --timeout 5m

Keys: Ctrl-A X leaves, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A H lists them. What is typed reaches the guest while the program is in
the terminal's foreground; timeout(1) puts it into the background, unless it is told --foreground.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  warpvmm run --kernel Image --initrd i.gz --save vm.save,ram=plain        saved when you leave by Ctrl-A X
  warpvmm restore vm.save
  warpvmm restore vm.save --drive 0=copy-of-disk.img --control /tmp/vm.sock --paused

A machine that runs with --control is also saved by `warpvmm ctl PATH save FILE`. docs/save-files.md has what is saved.";

const COMPRESS_EXAMPLES: &str = "\
Examples:
  warpvmm compress data.bin -o data.bin.gz
  warpvmm compress data.bin -o data.z --format zlib --json
  warpvmm compress -d data.bin.gz -o data.bin
  tar c folder | warpvmm compress | ssh host 'cat > folder.tar.gz'
  warpvmm compress -dc data.bin.gz | sha256sum";

const CTL_EXAMPLES: &str = "\
Examples:
  warpvmm run --kernel Image --initrd i.gz --control /tmp/vm.sock      in one terminal; then in another
  warpvmm ctl /tmp/vm.sock status
  warpvmm ctl /tmp/vm.sock pause
  warpvmm ctl /tmp/vm.sock inspect cpu0/regs
  warpvmm ctl /tmp/vm.sock resume
  warpvmm ctl /tmp/vm.sock counters --every 1s
  warpvmm ctl /tmp/vm.sock --json counters | jq .smmu.walks
  warpvmm ctl /tmp/vm.sock console                                     Ctrl-A X leaves
  warpvmm ctl /tmp/vm.sock console --eof < script
  warpvmm ctl /tmp/vm.sock console --until 'login: ' --timeout 60 < /dev/null
  warpvmm ctl /tmp/vm.sock fault arm smmu.walk,translation,level=3,times=1
  warpvmm ctl /tmp/vm.sock fault trigger msi.spurious,vector=0

The exit status is 0 if the machine has done it, 1 if it refuses or cannot be reached: the message says why.
docs/control.md has the protocol, for programs that talk to the socket themselves.";

const FAULTS_EXAMPLES: &str = "\
Examples:
  warpvmm faults list
  warpvmm faults check plan.toml
  warpvmm run --kernel Image --initrd initramfs.cpio --faults plan.toml --strict
  warpvmm run --kernel Image --initrd initramfs.cpio --fault smmu.walk,translation,level=3,nth=1
  warpvmm ctl /tmp/vm.sock fault arm msi,drop,vector=0,times=1

docs/faults.md has the format of plans, and for each point what the guest sees.";

/// What runs the vCPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    /// The fastest that works here
    #[default]
    Auto,
    /// The built-in CPU engine
    Soft,
    /// The host's KVM; arm64 hosts only
    Kvm,
}

/// How the built-in engine runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TierChoice {
    /// Interpreted first, translated to the host's code when it is run often; only interpreted where the host allows no
    /// translation
    #[default]
    Auto,
    /// Interpreted only
    Interp,
    /// Translated at once
    Jit,
    /// The same, with each block compared with the interpreter; for the engine's own tests
    #[value(hide = true)]
    Lockstep,
}

/// Whether the process gives up what it no longer needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SandboxChoice {
    /// After set-up, each thread can make the system calls of its work and no others
    #[default]
    On,
    /// For debugging: traces, profilers and backtraces with names
    Off,
}

/// A further device to put into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// Makes DMA as software asks, for tests of the SMMU; see docs/dma-test.md
    DmaTest,
}

/// The machine's size.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Number of vCPUs
    #[arg(long, short = 'c', value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::board::map::MAX_CPUS)))]
    pub cpus: u32,
    /// RAM, with K, M or G; a bare number is MiB
    #[arg(long, short = 'm', value_name = "SIZE", default_value = "1G", value_parser = parse_memory)]
    pub memory: u64,
    /// NUMA nodes, over which RAM, vCPUs and accelerators are spread; without it, there are none
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::board::numa::MAX_NODES)))]
    pub numa: Option<u32>,
    /// What runs the vCPUs
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub engine: EngineChoice,
    /// How the built-in engine runs guest code; see docs/engines.md
    #[arg(long, value_name = "TIER", default_value = "auto")]
    pub tier: TierChoice,
    /// Tell perf on the host which guest code translations are: /tmp/perf-PID.map
    #[arg(long)]
    pub perf_map: bool,
    /// Name guest code in the map for perf by this kernel's symbols
    #[arg(long, value_name = "VMLINUX", requires = "perf_map")]
    pub symbols: Option<PathBuf>,
    /// What belongs to the process.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Make faults happen by this plan; see `warpvmm faults list` and docs/faults.md
    #[arg(long, value_name = "PLAN", group = "rules")]
    pub faults: Option<PathBuf>,
    /// Make a fault happen by this rule, POINT,ACTION[,KEY=VALUE]..., as in msi,drop,vector=0,nth=3. Repeat for more
    #[arg(long, value_name = "RULE", value_parser = Rule::parse, group = "rules")]
    pub fault: Vec<Rule>,
    /// Fail if a rule never fired
    #[arg(long, requires = "rules")]
    pub strict: bool,
}

/// What a process does with a machine, whether that begins anew or goes on.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct ProcessArgs {
    /// At the end, say what the built-in engine has translated and where its time went
    #[arg(long)]
    pub stats: bool,
    /// End with status 124 after this long: seconds, or with s, m, h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Whether the process gives up what it no longer needs; see docs/sandbox.md
    #[arg(long, value_name = "WHETHER", default_value = "on")]
    pub sandbox: SandboxChoice,
    /// Also write the guest's console to this file
    #[arg(long, value_name = "FILE")]
    pub console_log: Option<PathBuf>,
}

/// How a running machine is reached from outside.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct RemoteArgs {
    /// Listen at this Unix socket for `warpvmm ctl` and other programs; see docs/control.md
    #[arg(long, value_name = "PATH", group = "way_in")]
    pub control: Option<PathBuf>,
    /// Listen here for GDB: `[HOST:]PORT` of this host, the path of a Unix socket with a / in it, or none; see
    /// docs/debugging.md
    #[arg(long, value_name = "ADDR", group = "way_in")]
    pub gdb: Option<Address>,
    /// Start paused, before the first instruction; a control socket or GDB lets it go on
    #[arg(long, requires = "way_in")]
    pub paused: bool,
}

/// Parts of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TracePart {
    /// Commands of accelerators, with their stalls and page requests
    Zip,
    /// The SMMU's commands and events
    Smmu,
    /// Where vCPUs execute guest code, and where they are idle
    Vcpu,
    /// Messages of accelerators, and interrupts that vCPUs take
    Irq,
    /// All other exceptions that vCPUs take to EL1
    Exceptions,
    /// Counters
    Counters,
}

/// A timeline.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Write a timeline of the run to this file, for ui.perfetto.dev; see docs/timeline.md
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// What the timeline has, comma-separated
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        requires = "trace",
        default_value = "zip,smmu,vcpu,irq,counters"
    )]
    pub trace_filter: Vec<TracePart>,
    /// The timeline ends when its file has this size, with K, M or G; a bare number is MiB
    #[arg(long, value_name = "SIZE", requires = "trace", default_value = "256M", value_parser = parse_trace_limit)]
    pub trace_limit: u64,
}

/// At least what the first and last words need. No multiple of a page, and no machine's RAM.
fn parse_trace_limit(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text, 1 << 20)?;
    if bytes < LEAST_LIMIT {
        return Err(format!("{text:?} is too small: at least {}K", LEAST_LIMIT >> 10));
    }
    Ok(bytes)
}

/// `warpvmm run`.
#[derive(Debug, Args)]
#[command(args_override_self = true, group = ArgGroup::new("way_in").multiple(true))]
#[command(group = ArgGroup::new("rules").multiple(true))]
pub struct RunArgs {
    /// arm64 kernel: Image, the same compressed (gz, zst, xz, lzma, lz4, bz2), or EFI zboot
    #[arg(long, short = 'k', value_name = "FILE")]
    pub kernel: PathBuf,
    /// Initramfs
    #[arg(long, short = 'i', value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, short = 'a', value_name = "STRING", default_value = "", hide_default_value = true)]
    pub append: String,
    /// Disk image for a virtio block device, raw; FILE,ro for read-only. Images that look like another format are refused,
    /// unless they are called raw by FILE,format=raw. Repeat for more
    #[arg(long, value_name = "FILE[,ro][,format=raw]")]
    pub drive: Vec<String>,
    /// Accelerators, comma-separated: KIND, KIND,translation=T or KIND:T; none for none
    #[arg(long, value_name = "LIST", default_value = accelerator::KINDS[0].name, long_help = accelerator::HELP.as_str())]
    pub accel: Vec<Accelerators>,
    /// Further devices, comma-separated or repeated
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub device: Vec<Device>,
    /// What belongs to a run.
    #[command(flatten)]
    pub session: SessionArgs,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl RunArgs {
    /// The accelerators, in PCI order.
    #[must_use]
    pub fn accelerators(&self) -> Vec<Accelerator> {
        self.accel.iter().flat_map(|list| list.0.iter().copied()).collect()
    }
}

/// What belongs to a run and not to its machine.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Write what accelerators, SMMU and fault plan counted as JSON to this file, at the end
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<PathBuf>,
    /// Write a page with figures, latencies, page faults and what went wrong to this file, at the end. See docs/reports.md
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<PathBuf>,
    /// End with status 3 when the guest resets itself, instead of booting it again
    #[arg(long)]
    pub no_reboot: bool,
    /// How it is reached from outside.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Save the machine to this file when it ends by time limit, signal, key or control socket, and at SIGUSR1, after which it
    /// goes on. RAM is compressed, or plain: larger, and restored at once. See docs/save-files.md
    #[arg(long, value_name = "FILE[,ram=compressed|plain]")]
    pub save: Option<String>,
    /// A timeline.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// `warpvmm restore`.
#[derive(Debug, Args)]
#[command(args_override_self = true, group = ArgGroup::new("way_in").multiple(true))]
pub struct RestoreArgs {
    /// The save file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take this file for drive N of the machine (from 0), whatever has been written to it since the save. Repeat for more
    #[arg(long, value_name = "N=FILE[,format=raw]")]
    pub drive: Vec<String>,
    /// What belongs to a run.
    #[command(flatten)]
    pub session: SessionArgs,
    /// What belongs to the process.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Fail if a rule of the machine's faults never fired
    #[arg(long)]
    pub strict: bool,
}

/// Format of compressed data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 1952
    #[default]
    Gzip,
    /// RFC 1950
    Zlib,
    /// RFC 1951, without header and checksum
    Deflate,
}

/// `warpvmm ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The socket that `warpvmm run --control` has made
    #[arg(value_name = "PATH")]
    pub socket: PathBuf,
    /// Print the machine's answer as JSON, a line each
    #[arg(long, global = true)]
    pub json: bool,
    /// What to ask or tell.
    #[command(subcommand)]
    pub method: CtlMethod,
}

/// The methods of `warpvmm ctl`.
#[derive(Debug, Subcommand)]
pub enum CtlMethod {
    /// Where the machine is in its life: starting, running, paused, resetting, ended; and what it is
    Status,
    /// Make everything stand still, guest time too; the guest does not notice
    Pause,
    /// Let a paused machine go on
    Resume,
    /// Power-on: the guest boots again from the same files, with empty memory
    Reset,
    /// End the machine; `warpvmm run` ends with status 0
    Quit,
    /// Save the machine to a file, which appears when it is complete; the machine then goes on
    Save {
        /// The file; one that is no save file is not overwritten
        #[arg(value_name = "FILE[,ram=compressed|plain]")]
        file: String,
    },
    /// The guest's serial console at this terminal, or for a script: what it prints on standard output, what comes on standard
    /// input is typed. On a terminal, Ctrl-A X leaves, and the machine goes on
    Console(ConsoleArgs),
    /// Fault rules: listed, armed, disarmed, triggered; see docs/faults.md
    Fault {
        /// What to do.
        #[command(subcommand)]
        command: CtlFault,
    },
    /// What accelerators, SMMU and fault plan have counted so far
    Counters {
        /// Again and again, at this interval: seconds, or with ms, s, m, h; until the machine ends or you do
        #[arg(long, value_name = "TIME", value_parser = parse_interval)]
        every: Option<Duration>,
    },
    /// Look inside: cpu0/regs, smmu, gic, zip0/counters, clock, faults and so on, by names and numbers with / between them; a path
    /// that leads nowhere is refused with a list of what there is
    Inspect {
        /// What to look at
        #[arg(value_name = "WHAT")]
        path: String,
    },
    /// The SMMU's way from an address of a device to memory: each descriptor, and where it leads or which fault it is
    Walk {
        /// The device: its StreamID; the first accelerator's if it is not given
        #[arg(long, value_name = "SID", default_value = "0x8")]
        stream: String,
        /// The process: its PASID (SubstreamID); an access without one if it is not given
        #[arg(long, value_name = "SSID")]
        pasid: Option<String>,
        /// The address that the device uses
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
}

/// `warpvmm ctl PATH console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Begin with so many bytes of what was printed before, as far as they are kept; 0 for none
    #[arg(long, value_name = "BYTES", default_value_t = crate::control::methods::USUAL_BACKLOG)]
    pub backlog: u64,
    /// End when standard input has ended and the guest's UART has taken all of it; without it, go on with what the guest prints
    #[arg(long)]
    pub eof: bool,
    /// End when this has been printed, in the backlog too; status 1 if the machine ends before
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub until: Option<String>,
    /// End with status 124 after this long: seconds, or with s, m, h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// `warpvmm ctl PATH fault`.
#[derive(Debug, Subcommand)]
pub enum CtlFault {
    /// The rules of the plan, of the command line, and those armed: number, state, occasions, how often it fired, rule
    List,
    /// Arm one more rule, which is asked after all others, and print its number
    Arm {
        /// POINT,ACTION[,KEY=VALUE]..., as for `warpvmm run --fault`
        #[arg(value_name = "RULE")]
        rule: String,
    },
    /// Disarm a rule: it counts and fires no more
    Disarm {
        /// Its number
        #[arg(value_name = "ID")]
        id: u32,
    },
    /// Make something go wrong once: an event at once, anything else on the next occasion
    Trigger {
        /// EVENT[,KEY=VALUE]..., or POINT,ACTION[,KEY=VALUE]... without a word of when
        #[arg(value_name = "RULE")]
        rule: String,
    },
}

/// A duration that may be less than a second.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms") {
        Some(number) => match number.parse() {
            Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
            _ => Err(format!("{text:?} is no number of milliseconds above 0")),
        },
        None => parse_duration(text),
    }
}

/// `warpvmm faults`.
#[derive(Debug, Args)]
pub struct FaultsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FaultsCommand,
}

/// The subcommands of `warpvmm faults`.
#[derive(Debug, Subcommand)]
pub enum FaultsCommand {
    /// List the fault points with what can be done at each
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a plan without running anything
    Check {
        /// The plan
        #[arg(value_name = "PLAN")]
        plan: PathBuf,
    },
}

/// `warpvmm compress`.
#[derive(Debug, Args)]
// -c is what it is in gzip.
#[command(args_override_self = true, mut_arg("cpus", |cpus| cpus.short(None)))]
#[command(group = ArgGroup::new("rules").multiple(true))]
pub struct CompressArgs {
    /// The input; `-`, as without it, is standard input
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub input: PathBuf,
    /// The output; it appears under this name only when it is complete. `-` is standard output, as without it if the
    /// input is standard input
    #[arg(long, short = 'o', value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Write to standard output, as `-o -` does; progress and reports then go to standard error
    #[arg(long, short = 'c', conflicts_with = "output")]
    pub stdout: bool,
    /// Decompress
    #[arg(long, short = 'd')]
    pub decompress: bool,
    /// Format of the compressed side
    #[arg(long, value_name = "FORMAT", default_value = "gzip")]
    pub format: Format,
    /// The accelerator, as for `warpvmm run`
    #[arg(long, value_name = "KIND", default_value = "zip", value_parser = accelerator::parse_one)]
    pub accel: Accelerator,
    /// Replace OUT if it exists; write compressed data to a terminal
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Guest kernel; by default the one that `cargo xtask guest` built
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Guest initramfs; by default the one that `cargo xtask guest` built
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<PathBuf>,
    /// Write a page with figures, latencies, page faults and what went wrong to this file, whatever comes of the job. See
    /// docs/reports.md
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<PathBuf>,
    /// No progress, no report
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// A timeline.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn compress_takes_what_gzip_takes_for_standard_streams() {
        let parse = |words: &[&str]| {
            let words = ["warpvmm", "compress"].iter().chain(words);
            let Command::Compress(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("compress")
            };
            (args.input, args.output, args.stdout)
        };
        assert_eq!(parse(&[]), ("-".into(), None, false));
        assert_eq!(parse(&["-"]), ("-".into(), None, false));
        assert_eq!(parse(&["-dc", "x.gz"]), ("x.gz".into(), None, true));
        assert_eq!(parse(&["x", "-o", "-"]), ("x".into(), Some("-".into()), false));
        let both = Cli::try_parse_from(["warpvmm", "compress", "x", "-c", "-o", "y"]);
        assert_eq!(both.unwrap_err().exit_code(), 2);
    }

    #[test]
    fn last_of_a_repeated_option_counts() {
        let args = ["warpvmm", "run", "--kernel", "Image", "--timeout", "240", "--timeout", "3"];
        let Command::Run(run) = Cli::try_parse_from(args).unwrap().command else { panic!("run") };
        assert_eq!(run.machine.process.timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn paused_start_needs_a_way_to_go_on() {
        for command in [&["run", "--kernel", "Image"][..], &["restore", "file"]] {
            let parse = |words: &[&str]| {
                let words = ["warpvmm"].iter().chain(command).chain(words);
                Cli::try_parse_from(words).map_err(|error| error.exit_code()).map(drop)
            };
            assert_eq!(parse(&["--paused"]), Err(2));
            assert_eq!(parse(&["--paused", "--gdb", "1234"]), Ok(()));
            assert_eq!(parse(&["--paused", "--control", "socket"]), Ok(()));
            assert_eq!(parse(&["--paused", "--gdb", "1234", "--control", "socket"]), Ok(()));
            assert_eq!(parse(&["--gdb", "0.0.0.0:1"]), Err(2));
        }
    }

    #[test]
    fn interval_is_a_duration_or_milliseconds() {
        assert_eq!(parse_interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_interval("2"), Ok(Duration::from_secs(2)));
        assert!(parse_interval("0ms").is_err() && parse_interval("ms").is_err());
    }

    #[test]
    fn job_without_an_accelerator_is_a_usage_error() {
        let with = |accel| Cli::try_parse_from(["warpvmm", "compress", "a", "-o", "b", "--accel", accel]);
        assert!(with("zip:stall").is_ok() && with("zip:pri").is_ok());
        let error = with("none").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("has to be an accelerator"), "{error}");
    }

    #[test]
    fn sizes_out_of_range_are_usage_errors() {
        for bad in [
            &["--memory", "1M"][..],
            &["--cpus", "0"],
            &["--cpus", "124"],
            &["--timeout", "0"],
            &["--numa", "9"],
        ] {
            let args = ["warpvmm", "run", "--kernel", "Image"].iter().chain(bad);
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2);
        }
    }
}
