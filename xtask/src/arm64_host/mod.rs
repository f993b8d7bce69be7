//! Tests on an arm64 host, wherever there is none: an emulated one.
//!
//! The program and its end-to-end tests are compiled for arm64 and put, with the guest that they boot, into the initramfs
//! of an outer guest: Debian's own kernel in `qemu-system-aarch64`, whose emulated processor has EL2, so that `/dev/kvm`
//! is real. Everything is in memory; there is no disk and no network. On an arm64 host none of this is needed: the
//! end-to-end tests run there as they are, with both engines.

mod toolchain;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::arm64_host::toolchain::{TARGET, Toolchain};
use crate::cpio;
use crate::packages;
use crate::process;
use crate::progress::Progress;
use crate::project::{Project, write_whole};
use crate::test_programs::{self, TestProgram};

/// Where the outer guest has what the tests use.
const FOLDER: &str = "/tests";
/// Longer than this, and the outer guest hangs. Two processors that have nothing else to do need a part of it.
const SECONDS: u32 = 1200;
/// The same with the slow tests.
const SECONDS_SLOW: u32 = 3600;

/// Rounds of what the guest's programs repeat. One takes each of their roads.
const ROUNDS: u32 = 1;

/// What of a test program runs there, with which engine.
struct Suite {
    program: &'static str,
    engine: &'static str,
    /// Tests whose names contain one of these; all if there is none.
    only: &'static [&'static str],
    /// But not these: they boot dozens of guests, or one with dozens of vCPUs, move a gigabyte, or need programs or kernels
    /// that the outer guest does not have.
    skip: &'static [&'static str],
    /// And not these, unless the slow ones are wanted: they are long there, and another one takes the same road through the
    /// engine, or it is the program's handling of files and options that they test.
    slow: &'static [&'static str],
}

impl Suite {
    /// The program's arguments: names to run, and names to skip. Who names a program wants all of it that can run there.
    fn words(&self, selection: Selection<'_>) -> String {
        let slow_too = match selection.name {
            Some(name) if !self.program.contains(name) => {
                return format!("'{}'", name.replace('\'', r"'\''"));
            }
            Some(_) => true,
            None => selection.slow,
        };
        let skip = self.skip.iter().chain(self.slow.iter().filter(|_| !slow_too));
        let skip = skip.map(|name| format!("--skip {name}"));
        self.only.iter().map(|name| (*name).to_owned()).chain(skip).collect::<Vec<_>>().join(" ")
    }
}

/// An emulated processor is some ten times slower than a real one, and each exit from the inner guest costs it half a
/// millisecond. What brings in thousands of pages through the SMMU, at ten exits each, is slow, and so is every boot.
const SUITES: &[Suite] = &[
    Suite { program: "engine", engine: "kvm", only: &[], skip: &[], slow: &[] },
    Suite { program: "engine", engine: "soft", only: &[], skip: &[], slow: &[] },
    Suite {
        program: "boot",
        engine: "kvm",
        only: &[],
        skip: &["fifty_boots_in_a_row", "sixty_six_cpus", "stock_kernel_of_the_distribution"],
        slow: &[
            "date_in_the_guest",
            "gzipped_kernel_boots",
            "guest_that_stands_still",
            "linux_sees_the_dma_test_device",
            "long_paste",
            "what_the_kernel_lacks",
        ],
    },
    // The rules of processors are the host's to keep, and its kernel's for the GIC. With 66 vCPUs on two emulated processors
    // that takes longer than all else.
    Suite { program: "firmware", engine: "kvm", only: &[], skip: &["processors"], slow: &[] },
    Suite {
        program: "compress",
        engine: "kvm",
        only: &[],
        skip: &["one_gibibyte", "full_disk"],
        slow: &[
            "corrupt_input",
            "every_format_and_size",
            "file_whose_length",
            "gzip_files_of_others",
            "input_that_changes",
            "interrupt_leaves",
            "padding_and_long_names",
            "pipes_and_standard_streams",
            "wrong_checksum",
        ],
    },
    Suite { program: "smmu", engine: "kvm", only: &[], skip: &[], slow: &["patched_kernel_serves_stalls"] },
    // Each case has a test of its own.
    Suite {
        program: "accelerator",
        engine: "kvm",
        only: &[],
        skip: &[],
        slow: &["all_cases_pass_twice", "accelerator_with_a_translation_cache"],
    },
    Suite { program: "sandbox", engine: "kvm", only: &[], skip: &[], slow: &[] },
    // The filters alone, on this architecture; there is no vCPU.
    Suite { program: "sandbox_threads", engine: "any", only: &[], skip: &[], slow: &[] },
    Suite {
        program: "boot",
        engine: "soft",
        only: &["accelerator_probes_with_sva", "guest_reset_ends"],
        skip: &[],
        slow: &[],
    },
];

/// What runs only if the slow tests are wanted: minutes of page faults, and the time limits of drivers that wait in vain.
const SLOW_SUITES: &[Suite] = &[
    Suite { program: "churn", engine: "kvm", only: &[], skip: &[], slow: &[] },
    Suite { program: "faults", engine: "kvm", only: &[], skip: &[], slow: &[] },
];

/// Which of the end-to-end tests run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selection<'a> {
    /// With KVM all whose names, or whose program's, contain this, the slow ones too.
    pub(crate) name: Option<&'a str>,
    /// The slow ones too.
    pub(crate) slow: bool,
}

impl Selection<'_> {
    fn suites(self) -> impl Iterator<Item = &'static Suite> {
        let slow = SLOW_SUITES.iter().filter(move |_| self.slow || self.name.is_some());
        SUITES.iter().filter(move |suite| self.name.is_none() || suite.engine != "soft").chain(slow)
    }
}

/// Sees to it that the tests can run, or says why not.
pub(crate) fn prepare(may_install: bool) -> Result<()> {
    if cfg!(target_arch = "aarch64") {
        fs::File::options().read(true).write(true).open("/dev/kvm").context("/dev/kvm cannot be opened")?;
        return Ok(());
    }
    packages::require(&[packages::ARM64_HOST], may_install)
}

/// The programs for arm64.
struct Programs {
    emulator: PathBuf,
    tests: Vec<TestProgram>,
}

/// Compiles the program and its end-to-end tests for arm64.
fn compile(project: &Project) -> Result<Programs> {
    let toolchain = Toolchain::set_up(project)?;
    process::visible(toolchain.cargo(project).args(["build", "--release", "-p", "vmm", "--target", TARGET]))?;
    let mut tests = toolchain.cargo(project);
    tests.args(["test", "--no-run", "--release", "-p", "e2e", "-p", "vmm", "--test", "*"]);
    tests.args(["--target", TARGET, "--message-format=json"]);
    let _progress = Progress::new("compiling the end-to-end tests for arm64", 0);
    let tests = test_programs::build(&mut tests)?;
    let emulator = project.cargo_target().join("arm64").join(TARGET).join("release/warpvmm");
    Ok(Programs { emulator, tests })
}

/// Tests of the CPU engine that need what `qemu-aarch64` on a host of another architecture does not give. It runs a
/// load-acquire before the store-release in front of it has become visible, which the architecture forbids: a C program
/// that has nothing but the two instructions shows it too.
const NOT_IN_QEMU: &[&str] = &["release_and_acquire_forbid_the_outcome_of_store_buffering"];

/// Runs the CPU engine's own tests as an arm64 program.
pub(crate) fn test_cpu(project: &Project) -> Result<()> {
    let mut command = Toolchain::set_up(project)?.cargo(project);
    command.args(["test", "--release", "-p", "cpu", "--lib", "--target", TARGET, "--"]);
    process::visible(command.args(NOT_IN_QEMU.iter().flat_map(|name| ["--skip", name])))
}

/// Runs the end-to-end tests on an emulated arm64 host with KVM. The guest, Debian's kernel and the bare-metal programs
/// have been built.
pub(crate) fn test(project: &Project, selection: Selection<'_>) -> Result<()> {
    let programs = compile(project)?;
    let folder = project.arm64_host();
    let initrd = folder.join("initramfs.cpio");
    write_whole(&initrd, &initramfs(project, &programs, &script(selection), selection.slow)?)?;
    let log = folder.join("console.log");

    let seconds = if selection.slow { SECONDS_SLOW } else { SECONDS };
    let mut qemu = Command::new("timeout");
    qemu.args(["--kill-after=10", &seconds.to_string(), "qemu-system-aarch64"]);
    qemu.args(["-M", "virt,virtualization=on,gic-version=3", "-cpu", "max,pauth=off", "-smp", "2"]);
    qemu.args(["-m", "2048", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(project.guest().join("stock/vmlinuz")).arg("-initrd").arg(&initrd);
    qemu.args(["-append", &format!("console=ttyAMA0 quiet panic=-1 warp.run=\"sh {FOLDER}/run\"")]);
    let mut verdict = None;
    let start = Instant::now();
    process::logged(&mut qemu, &log, |line| {
        println!("{:5} s  {line}", start.elapsed().as_secs());
        if let Some(status) = line.strip_prefix("warp: exit status ") {
            verdict = Some(status.to_owned());
        }
    })?;
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(_) => bail!("tests have failed on the emulated host; its console is {}", project.shown(&log)),
        None => bail!("the emulated host ended before its tests did; its console is {}", project.shown(&log)),
    }
}

/// The outer guest's root file system: that of the inner one, and behind it an archive with the tests.
fn initramfs(project: &Project, programs: &Programs, script: &str, slow: bool) -> Result<Vec<u8>> {
    let mut files = Files { archive: cpio::Archive::new(Vec::new()), folders: BTreeSet::new() };
    files.add_file(&format!("{FOLDER}/warpvmm"), &programs.emulator)?;
    for program in &programs.tests {
        files.add_file(&format!("{FOLDER}/{}", program.name), &program.path)?;
    }
    let page_sizes = ["16k/Image", "64k/Image"].into_iter().filter(|_| slow);
    for name in ["Image", "initramfs.cpio", "pri/Image"].into_iter().chain(page_sizes) {
        files.add_file(&format!("{FOLDER}/guest/{name}"), &project.guest().join(name))?;
    }
    let images = fs::read_dir(project.firmware()).context("cannot read the bare-metal programs")?;
    for image in images.filter_map(|entry| Some(entry.ok()?.path())) {
        if image.extension().is_some_and(|extension| extension == "img") {
            let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.add_file(&format!("{FOLDER}/images/{name}"), &image)?;
        }
    }
    // What the tests read of the repository.
    for part in ["firmware/tests", "docs"] {
        let folder = project.root().join(part);
        for file in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let file = file.with_context(|| format!("cannot read {}", folder.display()))?;
            if file.path().is_file() {
                let name = file.file_name().to_string_lossy().into_owned();
                files.add_file(&format!("{FOLDER}/repository/{part}/{name}"), &file.path())?;
            }
        }
    }
    files.add(&format!("{FOLDER}/run"), script.as_bytes())?;

    let inner = project.guest().join("initramfs.cpio");
    let mut bytes = fs::read(&inner).with_context(|| format!("cannot read {}", inner.display()))?;
    bytes.extend(files.archive.finish()?);
    Ok(bytes)
}

/// What the outer guest runs: every suite, whatever became of those before.
fn script(selection: Selection<'_>) -> String {
    let mut text = format!(
        "cd {FOLDER}\n\
         export WARPVMM_BIN={FOLDER}/warpvmm WARPVMM_GUEST={FOLDER}/guest WARPVMM_FIRMWARE={FOLDER}/images\n\
         export WARPVMM_REPOSITORY={FOLDER}/repository\n\
         export WARPVMM_APPEND=loglevel=5 WARPVMM_PATIENCE=4 WARPVMM_ROUNDS={ROUNDS}\n\
         failed=0\n"
    );
    for suite in selection.suites() {
        let mut words = suite.words(selection);
        if selection.slow {
            words.push_str(" --include-ignored");
        }
        let Suite { program, engine, .. } = suite;
        text.push_str(&format!(
            "echo; echo '==== {program}, engine {engine}'\n\
             WARPVMM_ENGINE={engine} ./{program} --test-threads 2 {words} || failed=1\n"
        ));
    }
    text.push_str("exit $failed\n");
    text
}

/// An archive whose folders are made as they are needed.
struct Files {
    archive: cpio::Archive<Vec<u8>>,
    folders: BTreeSet<PathBuf>,
}

impl Files {
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let mut missing: Vec<&Path> = folder
            .ancestors()
            .filter(|path| path.parent().is_some() && !self.folders.contains(*path))
            .collect();
        while let Some(path) = missing.pop() {
            self.archive.directory(&path.display().to_string(), 0o755)?;
            self.folders.insert(path.to_owned());
        }
        Ok(())
    }

    fn add(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.add_folder(Path::new(path).parent().context("a file in the root folder")?)?;
        Ok(self.archive.file(path, 0o755, content)?)
    }

    fn add_file(&mut self, path: &str, source: &Path) -> Result<()> {
        let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.add(path, &content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_tests_run_only_when_they_are_wanted() {
        let usual = script(Selection::default());
        let slow = script(Selection { slow: true, ..Selection::default() });
        assert!(usual.contains("--skip long_paste") && !slow.contains("long_paste"));
        assert!(slow.contains("./churn ") && !usual.contains("./churn "));
    }

    #[test]
    fn named_tests_run_with_kvm_alone_and_none_is_skipped() {
        let script = script(Selection { name: Some("long_paste"), slow: false });
        assert!(script.contains("./boot --test-threads 2 'long_paste' "));
        assert!(!script.contains("--skip") && !script.contains("engine soft"));
    }

    #[test]
    fn named_program_runs_whole_but_for_what_cannot_run_there() {
        let script = script(Selection { name: Some("comp"), slow: false });
        assert!(script.contains("./compress --test-threads 2 --skip one_gibibyte --skip full_disk "));
        assert!(script.contains("./boot --test-threads 2 'comp' "));
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut files = Files { archive: cpio::Archive::new(Vec::new()), folders: BTreeSet::new() };

        files.add("/a/b/c", b"1").unwrap();
        files.add("/a/d", b"2").unwrap();
        let bytes = String::from_utf8(files.archive.finish().unwrap()).unwrap();

        let places: Vec<_> =
            ["a\0", "a/b\0", "a/b/c\0", "a/d\0"].iter().map(|name| bytes.find(name).unwrap()).collect();
        assert!(places.is_sorted());
        assert_eq!(bytes.matches("a/b\0").count(), 1);
    }
}
