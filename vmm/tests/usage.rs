//! What the program refuses before anything boots: by its exit status and one line on standard error.

use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_warpvmm");
/// Exit statuses: something of this run is wrong, and the command line is.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;

/// Runs the program in a folder that it also looks for a guest in.
#[track_caller]
fn assert_refused(folder: &Path, words: &[&str], status: i32, line: &str) {
    let mut command = Command::new(PROGRAM);
    let output = command.args(words).current_dir(folder).env("WARPVMM_GUEST", folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(line), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn command_line_that_the_kernel_would_cut_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = |append: &str| ["run", "--kernel", "no-kernel", "--append", append].map(str::to_owned).to_vec();
    let refused = |len: usize, status, line| {
        let words = run(&"x".repeat(len));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_refused(folder.path(), &words, status, line);
    };
    refused(2048, USAGE, "--append has 2048 bytes, and an arm64 kernel takes 2047");
    refused(2047, FAILURE, "no-kernel");
}

#[test]
fn job_whose_accelerator_the_guest_cannot_serve_is_refused_before_the_boot() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Image", "initramfs.cpio", "in"] {
        fs::write(folder.path().join(file), "no kernel").unwrap();
    }
    let job = |accel, status, line| {
        let words = ["compress", "in", "-o", "out", "--accel", accel];
        assert_refused(folder.path(), &words, status, line);
    };
    job("none", USAGE, "has to be an accelerator");
    job("zip:pri", FAILURE, "--flavour pri");
    // With a kernel that serves it there is nothing to say until that is read.
    fs::create_dir(folder.path().join("pri")).unwrap();
    fs::write(folder.path().join("pri/Image"), "no kernel").unwrap();
    job("zip:pri", FAILURE, "pri/Image\" has only 9 bytes");
    job("zip", FAILURE, "Image\" has only 9 bytes");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn compressed_kernel_is_unpacked_and_one_in_an_unknown_way_named() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = |bytes: &[u8], line| {
        fs::write(folder.path().join("kernel"), bytes).unwrap();
        assert_refused(folder.path(), &["run", "--kernel", "kernel"], FAILURE, line);
    };
    let mut lzo = vec![0; 64];
    lzo[..5].copy_from_slice(b"\x89LZO\0");
    kernel(&lzo, "is compressed with lzo");
    let mut bzip2 = vec![0; 64];
    bzip2[..4].copy_from_slice(b"BZh9");
    kernel(&bzip2, "is compressed with bzip2, but unpacking fails");
}

#[test]
fn log_filter_takes_the_example_of_the_help_and_no_unknown_part() {
    let folder = tempfile::tempdir().unwrap();
    let log = |filter, status, line| {
        let words = ["run", "--kernel", "no-kernel", "--log", filter];
        assert_refused(folder.path(), &words, status, line);
    };
    let help = Command::new(PROGRAM).args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("smmu=debug"));
    log("smmu=debug", FAILURE, "cannot read kernel");
    log("smu=debug", USAGE, "\"smu\" is no part that logs");
}
