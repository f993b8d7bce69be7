//! Guest speed, integers and floating point: the same bare-metal programs in this engine and in `qemu-system-aarch64`, side by side.
//!
//! Needs `aarch64-linux-gnu-gcc` (and QEMU for the comparison). Reports CPU seconds, the minimum of a few runs, with
//! start-up in both. `cargo bench -p cpu --bench guest [-- NAME]`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::sync::{Arc, Mutex};
use std::{env, fs};

use cpu::{Bus, Cluster, ClusterConfig, Exit, Features, VcpuSignals};
use hw::schedule::Threads;
use hw::{AlarmTarget, Alarms, BusError, ManualClock, Pa, Ram, SysReg, SysRegDevice, UnconnectedLine};

const KERNELS: [&str; 7] = ["sort", "sieve", "copy", "crc", "bytecode", "bodies", "matrix"];
/// Those of the kernels that use floating point, and those whose loops are made vectors.
const FLOAT: [&str; 2] = ["bodies", "matrix"];
const VECTORS: [&str; 1] = ["matrix"];
const RUNS: usize = 3;
const RAM_BASE: Pa = Pa(0x4000_0000);
const LOAD_BASE: Pa = Pa(0x4020_0000);
const UART: Pa = Pa(0x0900_0000);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, image] = &arguments[..]
        && flag == "--run"
    {
        print!("{}", run_here(Path::new(image)));
        return;
    }
    let chosen: Vec<&str> =
        KERNELS.into_iter().filter(|k| arguments.is_empty() || arguments.iter().any(|a| a == k)).collect();
    let with_qemu =
        Command::new("qemu-system-aarch64").arg("--version").stdout(Stdio::null()).status().is_ok();
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    println!("{:10} {:>9} {:>9} {:>7}  result", "kernel", "engine s", "QEMU s", "ratio");
    let mut ratios = Vec::new();
    for kernel in chosen {
        let (elf, image) = match compile(kernel, &out) {
            Ok(paths) => paths,
            Err(message) => {
                eprintln!("{message}");
                exit(1);
            }
        };
        let this = env::current_exe().expect("the bench has a path");
        let (seconds, result) = fastest(|| {
            let mut command = Command::new(&this);
            command.arg("--run").arg(&image);
            command
        });
        if !with_qemu {
            println!("{kernel:10} {seconds:9.3} {:>9} {:>7}  {result}", "-", "-");
            continue;
        }
        let (qemu_seconds, qemu_result) = fastest(|| {
            let mut command = Command::new("qemu-system-aarch64");
            command.args([
                "-M",
                "virt",
                "-cpu",
                "cortex-a57",
                "-display",
                "none",
                "-monitor",
                "none",
                "-nic",
                "none",
            ]);
            command.args(["-serial", "stdio", "-kernel"]).arg(&elf);
            command
        });
        let ratio = qemu_seconds / seconds;
        ratios.push(ratio);
        let verdict = if result == qemu_result { "" } else { " DIFFERS" };
        println!("{kernel:10} {seconds:9.3} {qemu_seconds:9.3} {ratio:7.3}  {result}{verdict}");
    }
    if !ratios.is_empty() {
        let mean = (ratios.iter().map(|r: &f64| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        println!("geometric mean of speed relative to QEMU: {mean:.3}");
    }
}

/// Builds a kernel; the paths of its ELF file and of its flat image.
fn compile(kernel: &str, out: &Path) -> Result<(PathBuf, PathBuf), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest");
    let (elf, image) = (out.join(format!("{kernel}.elf")), out.join(format!("{kernel}.bin")));
    let mut gcc = Command::new("aarch64-linux-gnu-gcc");
    gcc.args(["-O2", "-ffreestanding", "-fno-builtin", "-fno-pic", "-fno-stack-protector"]);
    gcc.arg("-fno-tree-loop-distribute-patterns");
    if !FLOAT.contains(&kernel) {
        gcc.arg("-mgeneral-regs-only");
    }
    gcc.arg(if VECTORS.contains(&kernel) { "-O3" } else { "-fno-tree-vectorize" });
    gcc.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wl,-T"]);
    gcc.arg(source.join("link.ld")).arg(source.join("start.S")).arg(source.join(format!("{kernel}.c")));
    gcc.arg("-o").arg(&elf);
    let mut objcopy = Command::new("aarch64-linux-gnu-objcopy");
    objcopy.args(["-O", "binary"]).arg(&elf).arg(&image);
    for mut command in [gcc, objcopy] {
        let status = command.status().map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
        if !status.success() {
            return Err(format!("{:?} failed on {kernel}", command.get_program()));
        }
    }
    Ok((elf, image))
}

/// CPU seconds of the fastest of a few runs, and what the program printed.
fn fastest(command: impl Fn() -> Command) -> (f64, String) {
    let mut best = f64::INFINITY;
    let mut result = String::new();
    for _ in 0..RUNS {
        let before = children_seconds();
        let output = command().stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        match output {
            Ok(output) => result = String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Err(error) => {
                eprintln!("cannot run: {error}");
                exit(1);
            }
        }
        best = best.min(children_seconds() - before);
    }
    (best, result)
}

/// CPU seconds of all children that have ended, from /proc/self/stat (cutime and cstime, in hundredths).
fn children_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    fields.iter().skip(13).take(2).sum::<f64>() / 100.0
}

/// The console: what is written to the UART.
#[derive(Default)]
struct Console(Mutex<String>);

impl Bus for Console {
    fn read(&self, pa: Pa, _data: &mut [u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(pa.0))
    }

    fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError> {
        if pa != UART {
            return Err(BusError::NoRegister(pa.0));
        }
        self.0.lock().expect("one writer").push(char::from(data[0]));
        Ok(())
    }
}

struct NoGic;

impl SysRegDevice for NoGic {
    fn sysreg_read(&self, _cpu: usize, _reg: SysReg) -> Option<u64> {
        None
    }
    fn sysreg_write(&self, _cpu: usize, _reg: SysReg, _value: u64) -> Option<()> {
        None
    }

    fn sysreg_reset(&self, _cpu: usize) {}
}

struct NoAlarms;

impl Alarms for NoAlarms {
    fn register(&self, _target: Arc<dyn AlarmTarget>) -> usize {
        0
    }
    fn set(&self, _slot: usize, _deadline_ns: Option<u64>) {}
}

/// Runs an image in the engine until it powers off; what it printed.
fn run_here(image: &Path) -> String {
    let image = fs::read(image).expect("the image has just been written");
    let ram = Arc::new(Ram::new(&[(RAM_BASE, 128 << 20)]).expect("128 MiB of address space"));
    ram.write(LOAD_BASE, &image).expect("the image fits");
    let console = Arc::new(Console::default());
    let cluster = Cluster::new(ClusterConfig {
        signals: VcpuSignals::new(1, &Threads),
        features: Features::default(),
        tier: cpu::Tier::default(),
        observation: cpu::Observation::default(),
        ram,
        bus: Arc::clone(&console) as Arc<dyn Bus>,
        gic: Arc::new(NoGic),
        clock: Arc::new(ManualClock::default()),
        entropy: Arc::new(hw::SeededEntropy::new(0)),
        alarms: Arc::new(NoAlarms),
        scheduler: Arc::new(Threads),
        virtual_timer: vec![Arc::new(UnconnectedLine)],
        physical_timer: vec![Arc::new(UnconnectedLine)],
    });
    let mut cpu = cluster.vcpu(0);
    cpu.set_boot_state(LOAD_BASE.0, 0);
    assert_eq!(cpu.run(None), Exit::SystemOff);
    console.0.lock().expect("one writer").clone()
}
