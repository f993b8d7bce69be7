//! The guest's own C programs: static, so that the initramfs needs no libraries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::key::{Key, is_current, set_current};
use crate::process;
use crate::project::{Project, unfinished};

/// What compiles for the guest, with and without an operating system.
pub(crate) const COMPILER: &str = "aarch64-linux-gnu-gcc";
const FLAGS: &[&str] =
    &["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wconversion", "-static", "-s"];
const LIBRARIES: &[&str] = &["-lm"];

/// Each program with its sources below `guest/programs`.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("init", &["init.c"]),
    (
        "zip-test",
        &[
            "zip-test.c",
            "zip_test_common.c",
            "zip_test_basic.c",
            "zip_test_bad.c",
            "zip_test_process.c",
            "zip_test_memory.c",
            "memory.c",
            "checksum.c",
            "wd_queue.c",
            "zip_sqe.c",
        ],
    ),
    (
        "zip-churn",
        &[
            "zip-churn.c",
            "churn.c",
            "churn_phases.c",
            "zip_test_common.c",
            "memory.c",
            "checksum.c",
            "wd_queue.c",
            "zip_sqe.c",
        ],
    ),
    ("zip-fault", &["zip-fault.c", "zip_test_common.c", "checksum.c", "wd_queue.c", "zip_sqe.c"]),
    ("zip-bench", &["zip-bench.c", "wd_queue.c", "zip_sqe.c"]),
    ("compute-bench", &["compute-bench.c", "bench.c"]),
    ("float-bench", &["float-bench.c", "bench.c"]),
    ("simd-bench", &["simd-bench.c", "bench.c"]),
    ("process-bench", &["process-bench.c", "bench.c", "deflate.c"]),
    ("debug-test", &["debug-test.c"]),
    (
        "zip-stream",
        &["zip-stream.c", "disks.c", "record.c", "framing.c", "checksum.c", "wd_queue.c", "zip_sqe.c"],
    ),
];

/// Compiles what changed; returns the programs by name.
pub(super) fn build(project: &Project) -> Result<BTreeMap<&'static str, PathBuf>> {
    let sources = project.guest_sources().join("programs");
    let folder = project.guest().join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let version = process::output(Command::new(COMPILER).arg("--version"))?;
    let headers = headers(&sources)?;

    let mut programs = BTreeMap::new();
    for (name, files) in PROGRAMS {
        let mut key = Key::new(name);
        key.add(version.as_bytes());
        FLAGS.iter().chain(LIBRARIES).for_each(|flag| key.add(flag.as_bytes()));
        for file in files.iter().map(|file| sources.join(file)).chain(headers.iter().cloned()) {
            key.add_file(&file)?;
        }
        let key = key.finish();
        let stamp = folder.join(format!("{name}.key"));
        let program = folder.join(name);
        if !(program.exists() && is_current(&stamp, &key)) {
            compile(&sources, files, &program)?;
            set_current(&stamp, &key)?;
        }
        programs.insert(*name, program);
    }
    Ok(programs)
}

/// Tests of what the programs share and that needs no guest: compiled for the host, with the sanitizers, and run.
pub(crate) fn test(project: &Project) -> Result<()> {
    let sources = project.guest_sources().join("programs");
    let program = project.guest().join("bin/framing_test");
    process::visible(
        Command::new("gcc")
            .args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-o"])
            .arg(&program)
            .args(["tests/framing_test.c", "framing.c", "checksum.c"])
            .current_dir(sources),
    )?;
    process::visible(&mut Command::new(program))
}

fn headers(sources: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let mut headers: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "h"))
        .collect();
    headers.sort();
    Ok(headers)
}

fn compile(sources: &Path, files: &[&str], program: &Path) -> Result<()> {
    let unfinished = unfinished(program);
    // Visible, so that warnings are.
    process::visible(
        Command::new(COMPILER)
            .args(FLAGS)
            .arg("-o")
            .arg(&unfinished)
            .args(files)
            .args(LIBRARIES)
            .current_dir(sources),
    )
    .with_context(|| format!("cannot compile {}", program.display()))?;
    fs::rename(&unfinished, program).with_context(|| format!("cannot write {}", program.display()))
}
