//! `cargo xtask test`: every test, and a summary at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::arm64_host::{self, Selection};
use crate::check;
use crate::firmware;
use crate::guest::{self, GuestOptions};
use crate::packages;
use crate::process;
use crate::project::Project;
use crate::test_programs;

#[derive(Args)]
pub(crate) struct TestOptions {
    /// Only steps whose name contains this: unit, documents, interleaving, fuzz, end-to-end, differential, arm64. With
    /// --kvm, only the end-to-end tests whose name, or whose file's, contains it, also of those that are left out otherwise
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Only the tests on an arm64 host: the CPU engine as an arm64 program, and the end-to-end tests with KVM. On other
    /// hosts an emulated one serves (qemu-system-aarch64)
    #[arg(long)]
    kvm: bool,
    /// Also what takes long and rarely fails: guests with pages of 16 and 64 KiB (two more kernels to compile), and on an
    /// emulated arm64 host the tests that take it long
    #[arg(long)]
    slow: bool,
    /// Seconds for each instruction class of the comparison with qemu-aarch64
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    differential_seconds: u64,
}

struct Step<'a> {
    name: &'static str,
    run: Box<dyn FnOnce() -> Result<()> + 'a>,
}

/// What the names of the steps on an arm64 host have in common.
const ARM64_HOST: &str = "arm64 host";
/// And of those among them that run end-to-end tests.
const WITH_KVM: &str = "end-to-end tests with KVM";

pub(crate) fn test(project: &Project, setup: &GuestOptions, options: &TestOptions) -> Result<()> {
    let only = match (options.kvm, &options.only) {
        (true, None) => Some(ARM64_HOST),
        (true, Some(_)) => Some(WITH_KVM),
        (false, only) => only.as_deref(),
    };
    let name = options.only.as_deref().filter(|_| options.kvm);
    let on_arm64_host = Selection { name, slow: options.slow };
    packages::require(&[packages::GUEST, packages::TESTS], !setup.no_install)?;
    let on_arm64 = arm64_host::prepare(!setup.no_install);
    if let Err(why) = &on_arm64 {
        if options.kvm {
            bail!("no tests on an arm64 host: {why:#}");
        }
        eprintln!("no tests on an arm64 host: {why:#}");
    }
    guest::build(project, setup)?;
    let slow = guest::Flavour::TESTED_SLOWLY.iter().filter(|_| options.slow);
    for flavour in guest::Flavour::TESTED.iter().chain(slow) {
        guest::flavour(project, setup, *flavour)?;
    }
    guest::stock_kernel(project, setup).context("the tests also boot Debian's own kernel")?;

    firmware::build(project, !setup.no_install)?;

    let environment = [
        ("WARPVMM_BIN", project.cargo_target().join("release/warpvmm")),
        ("WARPVMM_GUEST", project.guest()),
        ("WARPVMM_FIRMWARE", project.firmware()),
    ];

    let mut results = Vec::new();
    let mut steps = steps(project, options, &environment);
    if on_arm64.is_ok() {
        steps.extend(arm64_steps(project, on_arm64_host, &environment));
    }
    for step in steps {
        if only.is_some_and(|word| !step.name.contains(word)) {
            continue;
        }
        eprintln!("\n==== {} ====", step.name);
        let start = Instant::now();
        let result = (step.run)();
        results.push((step.name, result.err(), start.elapsed()));
    }
    summary(&results)
}

/// Cheap and telling tests first. End-to-end tests and the comparison are built with optimisation: they run a
/// processor.
fn steps<'a>(
    project: &'a Project,
    options: &TestOptions,
    environment: &'a [(&str, PathBuf)],
) -> Vec<Step<'a>> {
    let cargo = |name, words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(words).current_dir(project.root()).envs(environment.iter().cloned());
        Step { name, run: Box::new(move || process::visible(&mut command)) }
    };
    let seconds = options.differential_seconds.to_string();
    let end_to_end: &[&str] = if options.slow {
        &["test", "--release", "-p", "e2e", "--", "--include-ignored"]
    } else {
        &["test", "--release", "-p", "e2e"]
    };
    vec![
        cargo("unit and property tests", &[&["test"][..], UNIT_TESTS].concat()),
        // The same build. The step above interprets what it runs only a few times.
        tests_of_translated_code(project, "unit tests of the CPU, all code translated", "translated"),
        tests_of_translated_code(project, "unit tests of the CPU, in lockstep", "lockstep"),
        Step { name: "generated documents", run: Box::new(|| check::generated_documents(project)) },
        Step {
            name: "invalidation, every interleaving",
            run: Box::new(move || process::visible(&mut model(project))),
        },
        // Built as unit tests are, so arithmetic that overflows is a failure. A short look for what is plainly broken: the
        // long runs are in fuzz/README.md.
        Step {
            name: "fuzz targets, for a moment",
            run: Box::new(|| process::visible(check::tool(project, "fuzz")?.args(["--seconds", "3"]))),
        },
        Step { name: "guest programs, unit tests", run: Box::new(|| guest::programs::test(project)) },
        // The tests run the emulator as users do, so its program has to be there.
        cargo("emulator for the end-to-end tests", &["build", "--release", "-p", "vmm"]),
        cargo("end-to-end tests", end_to_end),
        cargo(
            "differential tests against qemu-aarch64",
            &["run", "--release", "-p", "cpu-diff", "--", "--seconds", &seconds],
        ),
    ]
}

/// The tests on an arm64 host: this one, or an emulated one.
fn arm64_steps<'a>(
    project: &'a Project,
    selection: Selection<'a>,
    environment: &'a [(&str, PathBuf)],
) -> Vec<Step<'a>> {
    if cfg!(target_arch = "aarch64") {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--release", "-p", "e2e"]).current_dir(project.root());
        if let Some(name) = selection.name {
            command.arg(name);
        }
        command.envs(environment.iter().cloned()).env("WARPVMM_ENGINE", "kvm");
        let run = move || process::visible(&mut command);
        return vec![Step { name: "end-to-end tests with KVM, arm64 host", run: Box::new(run) }];
    }
    vec![
        Step {
            name: "CPU engine on an emulated arm64 host",
            run: Box::new(|| arm64_host::test_cpu(project)),
        },
        Step {
            name: "end-to-end tests with KVM on an emulated arm64 host",
            run: Box::new(move || arm64_host::test(project, selection)),
        },
    ]
}

/// The packages whose unit tests run: all but one, which needs the emulator's program and a guest.
const UNIT_TESTS: &[&str] = &["--workspace", "--exclude", "e2e"];

/// The CPU's unit tests with another tier than usual; see `cpu::Tier`. The program is that of the workspace's unit tests:
/// the package alone would be compiled anew, with its own choice of features.
fn tests_of_translated_code<'a>(project: &'a Project, name: &'static str, tier: &'static str) -> Step<'a> {
    let run = move || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--no-run", "--message-format=json"]).args(UNIT_TESTS);
        let programs = test_programs::build(cargo.current_dir(project.root()))?;
        let program = programs.into_iter().find(|program| program.name == "cpu" && program.is_library);
        let mut tests = Command::new(program.context("the workspace has no unit tests of the CPU")?.path);
        process::visible(tests.current_dir(project.root().join("cpu")).env("CPU_TEST_TIER", tier))
    };
    Step { name, run: Box::new(run) }
}

/// The caches' protocol under a model checker: a build of its own, beside the others so that it replaces none.
fn model(project: &Project) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["test", "--release", "-p", "tcache", "--lib"])
        .current_dir(project.root())
        .env("CARGO_TARGET_DIR", project.cargo_target().join("loom"))
        .env("RUSTFLAGS", "--cfg loom");
    command
}

fn summary(results: &[(&str, Option<anyhow::Error>, Duration)]) -> Result<()> {
    println!();
    for (name, error, took) in results {
        let verdict = if error.is_none() { "ok    " } else { "FAILED" };
        println!("{verdict} {name} ({:.0} s)", took.as_secs_f64());
    }
    let failed: Vec<&str> =
        results.iter().filter(|(_, error, _)| error.is_some()).map(|(name, _, _)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if results.is_empty() {
        bail!("no step has this name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_passed_steps_is_no_error() {
        assert!(summary(&[("one", None, Duration::ZERO)]).is_ok());
    }

    #[test]
    fn summary_names_what_failed() {
        let results = [("one", None, Duration::ZERO), ("two", Some(anyhow::anyhow!("no")), Duration::ZERO)];

        assert_eq!(summary(&results).unwrap_err().to_string(), "failed: two");
    }

    #[test]
    fn running_nothing_is_an_error() {
        assert!(summary(&[]).is_err());
    }
}
