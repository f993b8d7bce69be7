//! `warpvmm compress`, as a user calls it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Finished, Run, seconds, test_data, wait};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, data).expect("room");
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .expect("our folder")
            .map(|entry| entry.expect("our folder").file_name().into_string().expect("our names"))
            .collect();
        names.sort();
        names
    }
}

fn compress(input: &Path, output: &Path, args: &[&str]) -> Run {
    Run::new(&["compress", "--timeout", &seconds(280)])
        .args(&[input.as_os_str(), "-o".as_ref(), output.as_os_str()])
        .args(args)
}

fn run(input: &Path, output: &Path, args: &[&str]) -> Finished {
    let log = output.with_extension("console");
    let finished = compress(input, output, args).console_log(&log).finish();
    // Absent if the run was refused before the boot.
    let _ = fs::remove_file(log);
    finished
}

#[test]
fn gzip_output_is_accepted_by_gzip_and_the_report_tells_what_happened() {
    let folder = Folder::new();
    let input = folder.write("in", &test_data(3_000_000, 1));
    let output = folder.path("out.gz");

    let finished = run(&input, &output, &["--json"]).expect_status(0);

    let status = Command::new("gzip").arg("-t").arg(&output).status().expect("gzip is installed");
    assert!(status.success());
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["bytes_in"], 3_000_000);
    assert_eq!(report["bytes_out"], fs::metadata(&output).expect("it exists").len());
    assert_eq!(report["verified"], true);
    assert!(report["commands"].as_u64() >= Some(3), "{report}");
    assert!(report["page_faults"].as_u64() >= Some(1), "{report}");
    assert!(report["tlb_hits"].as_u64() >= Some(1) && report["table_walks"].as_u64() >= Some(1), "{report}");
    assert!(report["device_seconds"].as_f64() > Some(0.0), "{report}");
    assert!(report["guest_kernel"].as_str().is_some_and(|k| k.starts_with("6.")), "{report}");
}

#[test]
fn translation_cache_of_the_accelerator_serves_a_file() {
    let folder = Folder::new();
    let data = test_data(3_000_000, 5);
    let (input, output) = (folder.write("in", &data), folder.path("out.gz"));

    let finished = run(&input, &output, &["--json", "--accel", "zip:ats"]).expect_status(0);

    let report: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["verified"], true);
    for counter in ["atc_hits", "translation_requests", "atc_invalidations"] {
        assert!(report[counter].as_u64() >= Some(1), "{report}");
    }
}

#[test]
fn page_requests_of_the_accelerator_serve_a_file() {
    let folder = Folder::new();
    let data = test_data(3_000_000, 5);
    let (input, output) = (folder.write("in", &data), folder.path("out.gz"));
    let kernel = e2e::guest("pri/Image");

    let args = ["--json", "--accel", "zip:pri", "--kernel", kernel.to_str().expect("UTF-8")];
    let finished = run(&input, &output, &args).expect_status(0);

    let report: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["verified"], true);
    assert_eq!(report["page_faults"], 0, "{report}");
    for counter in ["atc_hits", "page_requests", "page_responses"] {
        assert!(report[counter].as_u64() >= Some(1), "{report}");
    }
}

#[test]
#[ignore = "boots a kernel of its own, which is built for slow tests alone"]
fn guests_with_pages_of_16_and_64_kib_compress_and_decompress_a_file() {
    let folder = Folder::new();
    let data = test_data(3_000_000, 8);
    let input = folder.write("in", &data);
    for flavour in ["16k", "64k"] {
        let (packed, back) = (folder.path("packed.gz"), folder.path("back"));
        let kernel = e2e::guest(&format!("{flavour}/Image"));
        let args = ["--json", "--force", "--cpus", "2", "--kernel", kernel.to_str().expect("UTF-8")];
        let finished = run(&input, &packed, &args).expect_status(0);
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
        assert_eq!(report["verified"], true);
        assert!(report["page_faults"].as_u64() >= Some(1), "{report}");
        assert!(report["guest_kernel"].as_str().is_some_and(|k| k.contains(flavour)), "{report}");
        run(&packed, &back, &[&args[1..], &["-d"]].concat()).expect_status(0);
        assert!(fs::read(&back).expect("it exists") == data, "{flavour}");
    }
}

#[test]
fn every_format_and_size_round_trips() {
    let folder = Folder::new();
    for format in ["gzip", "zlib", "deflate"] {
        for size in [0, 1, 511, 512, 4096, 1 << 20, (1 << 20) + 1, 5_000_001] {
            let data = test_data(size, size as u64);
            let input = folder.write("in", &data);
            let (packed, back) = (folder.path("packed"), folder.path("back"));
            run(&input, &packed, &["--format", format, "--force"]).expect_status(0);
            run(&packed, &back, &["--format", format, "-d", "--force"]).expect_status(0);
            assert!(fs::read(&back).expect("it exists") == data, "{format}, {size} bytes");
        }
    }
}

#[test]
fn gzip_files_of_others_are_decompressed_with_names_and_several_members() {
    let folder = Folder::new();
    let (first, second) = (test_data(700_000, 2), test_data(1_300_000, 3));
    let mut packed = Vec::new();
    for (name, data) in [("a", &first), ("b", &second)] {
        let path = folder.write(name, data);
        let gzip = Command::new("gzip").arg("-9c").arg(path).output().expect("gzip is installed");
        packed.extend(gzip.stdout);
    }
    let packed = folder.write("packed.gz", &packed);
    run(&packed, &folder.path("back"), &["-d"]).expect_status(0);
    assert!(fs::read(folder.path("back")).expect("it exists") == [first, second].concat());
}

#[test]
fn corrupt_input_is_reported_with_its_place_and_leaves_no_output() {
    let folder = Folder::new();
    let input = folder.write("in", &test_data(2_000_000, 4));
    let packed = folder.path("packed.gz");
    run(&input, &packed, &[]).expect_status(0);
    let mut bytes = fs::read(&packed).expect("it exists");
    let before = folder.names();

    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    let damaged = folder.write("packed.gz", &bytes);
    run(&damaged, &folder.path("back"), &["-d"]).expect_status(1).expect_stderr("corrupt at byte");
    bytes[middle] ^= 0x55;
    let cut = folder.write("packed.gz", &bytes[..bytes.len() - 9]);
    run(&cut, &folder.path("back"), &["-d"]).expect_status(1).expect_stderr("corrupt at byte");
    let text = folder.write("packed.gz", b"this is no gzip file at all");
    run(&text, &folder.path("back"), &["-d"]).expect_status(1).expect_stderr("corrupt at byte 0");

    assert_eq!(folder.names(), before);
}

/// What tar and others put around their members: zeros to a block's end, names of any length.
#[test]
fn padding_and_long_names_of_gzip_files_are_no_damage() {
    let folder = Folder::new();
    let data = test_data(300_000, 9);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &data).expect("room");
    let gzip = gzip.finish().expect("room");
    let name = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", &[b'n'; 70_000][..], b"\0", &gzip[10..]].concat();
    let padded = |zeros: usize| [&gzip[..], &vec![0; zeros]].concat();
    let files =
        [padded(1), padded(512), padded(10_240), name.clone(), [&name[..], &gzip, &[0; 512]].concat()];
    for (number, file) in files.iter().enumerate() {
        let packed = folder.write("packed.gz", file);
        run(&packed, &folder.path("back"), &["-d", "-f"]).expect_status(0);
        let times = if number == 4 { 2 } else { 1 };
        assert!(fs::read(folder.path("back")).expect("it exists") == data.repeat(times), "file {number}");
    }
}

#[test]
fn wrong_checksum_is_told_with_the_place_of_its_trailer() {
    let folder = Folder::new();
    let input = folder.write("in", &test_data(2_000_000, 4));
    for (format, trailer) in [("gzip", 8), ("zlib", 4)] {
        let packed = folder.path("packed");
        run(&input, &packed, &["--format", format, "-f"]).expect_status(0);
        let mut bytes = fs::read(&packed).expect("it exists");
        let at = bytes.len() - trailer;
        bytes[at] ^= 1;
        let wrong = folder.write("packed", &bytes);
        run(&wrong, &folder.path("back"), &["-d", "--format", format])
            .expect_status(1)
            .expect_stderr(&format!("corrupt at byte {at}: the trailer there has the checksum"));
    }
}

/// Standard input and output, as in a pipeline of a shell.
fn pipeline(script: &str) -> Finished {
    let started = Instant::now();
    let child = Command::new("sh")
        .args(["-c", script])
        .env("WARPVMM", e2e::program())
        .env("ENGINE", e2e::engine())
        .env(e2e::GUEST, e2e::guest("Image").parent().expect("a folder"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    wait(child, started, e2e::WALL_LIMIT * e2e::patience(), None)
}

#[test]
fn pipes_and_standard_streams_take_data_and_reports_go_to_standard_error() {
    let folder = Folder::new();
    let data = test_data(3_000_000, 10);
    let input = folder.write("in", &data).display().to_string();
    let back = folder.path("back");
    for forms in [
        ("compress", "compress -d"),
        ("compress -", "compress - -d -o -"),
        ("compress - -c --json", "compress -dc"),
    ] {
        let script = format!(
            "cat {input} | \"$WARPVMM\" {} --engine $ENGINE | \"$WARPVMM\" {} --engine $ENGINE >{}",
            forms.0,
            forms.1,
            back.display()
        );
        let finished = pipeline(&script).expect_status(0).expect_stderr("SMMU");
        assert_eq!(finished.stdout, "");
        assert!(fs::read(&back).expect("it exists") == data, "{forms:?}");
    }
    let finished =
        pipeline(&format!("\"$WARPVMM\" compress -qc {input} --engine $ENGINE | gzip -dc | md5sum"));
    let expected =
        Command::new("md5sum").stdin(fs::File::open(&input).expect("it exists")).output().expect("md5sum");
    assert_eq!((finished.stdout.as_bytes(), finished.stderr.as_str()), (&expected.stdout[..], ""));
    assert_eq!(folder.names(), ["back", "in"]);
}

#[test]
fn file_whose_length_is_not_what_stat_says_is_compressed_whole() {
    let folder = Folder::new();
    let output = folder.path("version.gz");
    run(Path::new("/proc/version"), &output, &[]).expect_status(0);
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(fs::File::open(&output).expect("it exists"));
    decoder.read_to_end(&mut inflated).expect("valid gzip");
    assert_eq!(inflated, fs::read("/proc/version").expect("it exists"));
}

#[test]
fn input_that_never_ends_is_left_at_the_time_limit_and_at_a_signal() {
    let folder = Folder::new();
    let output = folder.path("out");
    let args = ["--timeout", "1", "-c"];
    let finished = Run::new(&["compress", "/dev/zero"]).args(&args).finish().expect_status(124);
    let _ = finished.expect_stderr("while the input was read");

    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is installed").success());
    let started = Instant::now();
    let child = compress(&pipe, &output, &[]).spawn(Stdio::null());
    thread::sleep(Duration::from_millis(300));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill is installed").success());
    let _ = wait(child, started, Duration::from_secs(60), None).expect_status(143);
    assert_eq!(folder.names(), ["pipe"]);
}

/// A log that somebody appends to, a file that is being replaced: nobody else gets the blame.
#[test]
fn input_that_changes_while_it_is_read_is_said_to_have_changed() {
    let folder = Folder::new();
    let change = |alter: fn(&fs::File)| {
        let input = folder.write("in", &test_data(40_000_000, 11));
        let started = Instant::now();
        let output = folder.path("out");
        let args = ["--force", "--console-log"];
        let console = folder.path("console");
        let child = compress(&input, &output, &args).args(&[&console]).spawn(Stdio::null());
        // The guest has its kernel's first words on the console after the input was opened, and before it is read.
        while fs::metadata(&console).map_or(0, |log| log.len()) == 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "the guest boots");
            thread::sleep(Duration::from_millis(5));
        }
        alter(&fs::File::options().write(true).open(&input).expect("it exists"));
        let finished = wait(child, started, Duration::from_secs(280) * e2e::patience(), None);
        let _ = fs::remove_file(&console);
        finished
    };
    let shorter = change(|file| file.set_len(10_000_000).expect("it exists"));
    let _ = shorter.expect_status(1).expect_stderr("changed: it became shorter while it was read");
    assert_eq!(folder.names(), ["in"]);
    let longer = change(|file| file.set_len(50_000_000).expect("room"));
    let _ = longer.expect_status(0).expect_stderr("became longer while it was read");
    assert_eq!(folder.names(), ["in", "out"]);
}

#[test]
fn output_without_a_place_is_a_usage_error() {
    let folder = Folder::new();
    let input = folder.write("in", b"data");
    Run::new(&["compress"]).args(&[&input]).finish().expect_status(2).expect_stderr("-c for standard output");
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_boot() {
    let folder = Folder::new();
    let input = folder.write("in", b"data");
    let existing = folder.write("existing", b"keep me");
    let started = Instant::now();
    let missing = folder.path("no/such/folder");
    let cases = [(&missing, "cannot write to"), (&existing, "--force"), (&input, "same file")];
    for (output, message) in cases {
        compress(&input, output, &[]).finish().expect_status(1).expect_stderr(message);
    }
    compress(&folder.path("nothing"), &folder.path("out"), &[])
        .finish()
        .expect_status(1)
        .expect_stderr("cannot read");
    assert_eq!(fs::read(&existing).expect("it exists"), b"keep me");
    assert!(started.elapsed() < Duration::from_secs(30), "no guest was booted");
}

#[test]
fn interrupt_leaves_neither_output_nor_temporary_files() {
    let folder = Folder::new();
    let input = folder.write("in", &test_data(200_000_000, 5));
    // Once while the guest boots, once while it works.
    for delay in [Duration::from_millis(150), Duration::from_secs(3)] {
        let started = Instant::now();
        let child = compress(&input, &folder.path("out"), &[]).spawn(Stdio::null());
        thread::sleep(delay);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is installed").success());
        let _ = wait(child, started, Duration::from_secs(60), None).expect_status(130);
        assert_eq!(folder.names(), ["in"]);
    }
}

#[test]
fn one_gibibyte_streams_through_a_guest_with_half_of_that() {
    let folder = Folder::new();
    let block = test_data(64 << 20, 6);
    let input = folder.path("in");
    let mut file = fs::File::create(&input).expect("room");
    for _ in 0..16 {
        std::io::Write::write_all(&mut file, &block).expect("room");
    }
    drop(file);
    let output = folder.path("out.gz");
    run(&input, &output, &["--memory", "512M", "--cpus", "2", "-q"]).expect_status(0);
    let mut inflated = flate2::read::MultiGzDecoder::new(fs::File::open(&output).expect("it exists"));
    let mut part = vec![0; block.len()];
    for _ in 0..16 {
        inflated.read_exact(&mut part).expect("valid gzip");
        assert!(part == block);
    }
    assert_eq!(inflated.read(&mut part).expect("valid gzip"), 0);
}

#[test]
fn full_disk_is_reported_and_leaves_no_output() {
    // A small tmpfs of our own in a user namespace: no root, nothing to clean up.
    let folder = Folder::new();
    let input = folder.write("in", &test_data(60_000_000, 7));
    let script = format!(
        "mount -t tmpfs -o size=4m none {dir} && {program} compress {input} -o {dir}/out --timeout 120; \
         status=$?; ls -A {dir}; exit $status",
        dir = folder.path("small").display(),
        program = e2e::program().display(),
        input = input.display(),
    );
    fs::create_dir(folder.path("small")).expect("room");
    let started = Instant::now();
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .env(e2e::GUEST, e2e::guest("Image").parent().expect("a folder"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare is installed");
    let finished = wait(child, started, Duration::from_secs(200), None);
    if finished.stderr.contains("unshare:") {
        eprintln!("skipped: this host allows no user namespaces");
        return;
    }
    let finished = finished.expect_status(1).expect_stderr("No space left on device");
    assert_eq!(finished.stdout, "", "nothing is left in the folder");
}
