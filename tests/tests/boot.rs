//! Boot: kernel, drivers, CPUs, power-off, and what the program says when it cannot.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use e2e::{Run, Session, engine, guest, seconds, stock_kernel};

/// The kernel's own words for each part that it must find.
#[test]
fn kernel_finds_every_device_and_powers_off() {
    // With KVM the counter is the host's.
    let timer = if engine() == "kvm" {
        "arch_timer: cp15 timer(s) running at "
    } else {
        "arch_timer: cp15 timer(s) running at 62.50MHz (virt)"
    };
    let run = Run::verbose_job("/bin/true").finish().expect_status(0).expect_console("warp: exit status 0");
    run.expect_console("psci: PSCIv1.")
        .expect_console("GICv3: 256 SPIs implemented")
        .expect_console("ITS@0x0000000008080000")
        .expect_console(timer)
        .expect_console("arm-smmu-v3 9050000.iommu: ias 48-bit, oas 48-bit")
        .expect_console("9000000.pl011: ttyAMA0")
        .expect_console("rtc-pl031 9010000.pl031: registered as rtc0")
        .expect_console_without("CMD_SYNC timeout")
        .expect_console_without("ITS queue timeout")
        .expect_console_without("BUG:")
        .expect_console_without("WARNING:");
}

#[test]
fn accelerator_probes_with_sva_and_passes_the_kernels_self_tests() {
    Run::job("cat /sys/class/uacce/hisi_zip-0/api")
        .finish()
        .expect_status(0)
        .expect_console("hisi_qm_v3")
        .expect_console("warp: kernel driver hisi-deflate-acomp, selftest passed")
        .expect_console("warp: uacce device hisi_zip-0: zlib gzip deflate")
        .expect_console("warp: exit status 0")
        .expect_console_without("alg: acomp: ")
        .expect_console_without("fail to alloc uacce");
}

/// The kernel sets its clock from the board's at boot, to whole seconds.
#[test]
fn date_in_the_guest_is_the_hosts() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let before = now();
    let finished = Run::job("echo epoch=$(date +%s)").finish().expect_status(0);
    let after = now();
    let epoch = finished.stdout.lines().find_map(|line| line.trim().strip_prefix("epoch="));
    let epoch: u64 = epoch.and_then(|digits| digits.parse().ok()).expect("the guest tells its time");
    assert!((before - 1..=after + 1).contains(&epoch), "{before} <= {epoch} <= {after}");
}

/// The default kernel serves no page requests, and says so when the accelerator's driver asks.
#[test]
fn what_the_kernel_lacks_for_its_accelerator_is_told_at_the_end() {
    let lacking =
        Run::verbose_job("test ! -e /sys/class/uacce/hisi_zip-0").args(&["--accel", "zip:pri"]).finish();
    let lacking = lacking.expect_status(0).expect_console("warp: exit status 0");
    let lacking =
        lacking.expect_stderr("warpvmm: hint: the guest's kernel gives its processes no accelerator");
    let _ = lacking.expect_stderr("use --accel zip or zip:ats");
    let content = Run::verbose_job("true").finish().expect_status(0);
    assert!(!content.stderr.contains("hint"), "{}", content.stderr);
}

#[test]
fn two_and_four_cpus_come_online() {
    for cpus in ["2", "4"] {
        Run::verbose_job("nproc")
            .args(&["--cpus", cpus])
            .finish()
            .expect_status(0)
            .expect_console(&format!("smp: Brought up 1 node, {cpus} CPUs"));
    }
}

/// More vCPUs than a 64-bit word has bits, and far more than the host has processors: those that wait must let those run
/// that they wait for.
#[test]
fn sixty_six_cpus_come_online_and_each_of_them_works() {
    let on_each = "taskset -c $c sh -c 'sha256sum /bin/zip-test; cut -d\\  -f39 /proc/self/stat'";
    let job = format!(
        "for c in $(seq 0 65); do {on_each} & done > /tmp/all; wait; \
         echo on=$(grep -v / /tmp/all | sort -n | tr '\\n' +) sums=$(grep / /tmp/all | sort | uniq -c | cut -c-8)"
    );
    let all: String = (0..66).map(|cpu| format!("{cpu}+")).collect();
    Run::verbose_job(&job)
        .args(&["--cpus", "66", "--memory", "512M"])
        .finish()
        .expect_status(0)
        .expect_console("smp: Brought up 1 node, 66 CPUs")
        .expect_console(&format!("on={all} sums= 66"))
        .expect_console("warp: exit status 0")
        .expect_content_kernel();
}

#[test]
fn fifty_boots_in_a_row_end_without_a_hang() {
    for _ in 0..50 {
        Run::job("/bin/true").args(&["--timeout", "60"]).finish().expect_status(0);
    }
}

/// The distribution's kernel was built for real machines: that it boots is a proof that the board is one.
#[test]
fn stock_kernel_of_the_distribution_boots_to_our_init() {
    let Some(kernel) = stock_kernel() else {
        eprintln!("skipped: this distribution has no arm64 kernel package");
        return;
    };
    Run::new(&[
        "run",
        "--timeout",
        &seconds(240),
        "--append",
        "console=ttyAMA0 panic=-1 warp.run=\"uname -r\"",
    ])
    .args(&["--kernel".as_ref(), kernel.as_os_str()])
    .args(&["--initrd".as_ref(), guest("initramfs.cpio").as_os_str()])
    .finish()
    .expect_status(0)
    .expect_console("arm-smmu-v3 9050000.iommu: ias 48-bit")
    .expect_console("-arm64")
    .expect_console("warp: exit status 0");
}

/// The distribution's kernel serves debuggers with hardware breakpoints and watchpoints; ours is built without.
#[test]
fn stock_kernel_of_the_distribution_stops_debuggers_at_breakpoints_and_watchpoints() {
    let Some(kernel) = stock_kernel() else {
        eprintln!("skipped: this distribution has no arm64 kernel package");
        return;
    };
    Run::new(&[
        "run",
        "--cpus",
        "2",
        "--timeout",
        &seconds(240),
        "--append",
        "console=ttyAMA0 panic=-1 warp.run=debug-test",
    ])
    .args(&["--kernel".as_ref(), kernel.as_os_str()])
    .args(&["--initrd".as_ref(), guest("initramfs.cpio").as_os_str()])
    .finish()
    .expect_status(0)
    .expect_console("hw-breakpoint: found 4 breakpoint and 4 watchpoint registers.")
    .expect_console_without("not ok")
    .expect_console("warp: exit status 0");
}

#[test]
fn guest_panic_ends_with_status_3_and_shows_the_last_lines() {
    // A kernel that resets at once, and one that waits first.
    for panic in ["panic=-1", "panic=1"] {
        Run::guest(&format!("{panic} rdinit=/nothing root=/dev/none"))
            .finish()
            .expect_status(3)
            .expect_stderr("the guest panicked")
            .expect_stderr("Kernel panic - not syncing");
    }
}

/// What stands still may be a kernel, or somebody who has written the same words: only the user's limit ends it.
#[test]
fn guest_that_stands_still_after_its_panic_is_told_of_and_ended_by_the_time_limit() {
    Run::guest("panic=0 rdinit=/nothing root=/dev/none")
        .args(&["--timeout", &seconds(10)])
        .finish()
        .expect_status(124)
        .expect_stderr("says that it has panicked and stands still")
        .expect_stderr("its console, the guest's kernel had panicked");
}

#[test]
fn guest_reset_ends_with_status_3() {
    Run::job("reboot -f").finish().expect_status(3).expect_stderr("reset itself");
}

#[test]
fn time_limit_ends_with_status_124() {
    let started = Instant::now();
    Run::job("sleep 1000").args(&["--timeout", "3"]).finish().expect_status(124).expect_stderr("time limit");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn shell_on_the_console_answers_what_is_typed() {
    let mut session = Session::start(Run::guest(""));
    session.expect("/ # ");
    session.send("echo $((6 * 7))-answer\n");
    session.expect("42-answer");
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

/// A paste of 100 KB passes the UART's 32-byte FIFO without losing a byte.
#[test]
fn long_paste_arrives_whole() {
    let mut session = Session::start(Run::guest(""));
    session.expect("/ # ");
    session.send("stty -echo; echo re''ady; head -n 1600 | md5sum; stty echo\n");
    session.expect("ready");
    session.send(&"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n".repeat(1600));
    session.expect(LONG_PASTE_MD5);
    session.send("poweroff -f\n");
    assert_eq!(session.finish(), Some(0));
}

/// `yes 0123…cde | head -n 1600 | md5sum`
const LONG_PASTE_MD5: &str = "fd7b8c1b739a4b5a9cbff22101a107dd";

#[test]
fn kernels_that_cannot_boot_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let mut bzimage = vec![0; 4096];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    let image = std::fs::read(guest("Image")).expect("the kernel");
    let cases = [
        ("/nonexistent".to_string(), "cannot read kernel"),
        (file("bz", &bzimage), "x86 bzImage"),
        (file("half", &image[..image.len() / 2]), "truncated"),
        (file("short", b"hello"), "only 5 bytes"),
        (file("text", &[b'x'; 5000]), "not an arm64 kernel"),
    ];
    for (kernel, message) in cases {
        Run::new(&["run", "--kernel", &kernel]).finish().expect_status(1).expect_stderr(message);
    }
}

#[test]
fn gzipped_kernel_boots() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("Image.gz");
    let mut gz = flate2::write::GzEncoder::new(
        std::fs::File::create(&path).expect("a file"),
        flate2::Compression::fast(),
    );
    gz.write_all(&std::fs::read(guest("Image")).expect("the kernel")).expect("room");
    gz.finish().expect("room");
    Run::new(&["run", "--timeout", &seconds(120), "--append", "panic=-1 warp.run=/bin/true"])
        .args(&[
            "--kernel".as_ref(),
            path.as_os_str(),
            "--initrd".as_ref(),
            guest("initramfs.cpio").as_os_str(),
        ])
        .finish()
        .expect_status(0);
}

#[test]
fn initrd_larger_than_ram_is_refused_with_the_memory_that_would_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("huge");
    std::fs::File::create(&path).and_then(|f| f.set_len(8 << 30)).expect("a sparse file");
    Run::new(&["run", "--memory", "256M"])
        .args(&["--kernel".as_ref(), guest("Image").as_os_str(), "--initrd".as_ref(), path.as_os_str()])
        .finish()
        .expect_status(1)
        .expect_stderr("the initrd needs")
        .expect_stderr("try --memory");
}

#[test]
fn report_that_cannot_be_written_is_refused_before_the_boot() {
    Run::guest("warp.run=/bin/true")
        .args(&["--report-json", "/no/such/folder/report.json"])
        .finish()
        .expect_status(1)
        .expect_stderr("cannot write the report \"/no/such/folder/report.json\"")
        .expect_console_without("Booting Linux");
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    for args in [&["run"][..], &["frobnicate"], &["run", "--kernel", "x", "--cpus", "1000"]] {
        Run::new(args).finish().expect_status(2);
    }
}

/// The line for people who did not say which engine they want.
#[test]
fn choice_of_the_engine_is_told_with_its_reason() {
    let kvm = cfg!(target_arch = "aarch64") && std::fs::File::open("/dev/kvm").is_ok();
    let line = if kvm { "warpvmm: engine: kvm; not soft, " } else { "warpvmm: engine: soft; not kvm, for" };
    Run::job("/bin/true").args(&["--engine", "auto"]).finish().expect_status(0).expect_stderr(line);
}

#[test]
fn kvm_on_another_architecture_is_refused_in_one_line() {
    if cfg!(target_arch = "aarch64") {
        return;
    }
    let refused = Run::job("/bin/true").args(&["--engine", "kvm"]).finish().expect_status(1);
    let refused = refused.expect_stderr("KVM runs arm64 guests only on arm64 hosts");
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
}

/// The vendor's other functions have a driver; it must not take this one.
#[test]
fn linux_sees_the_dma_test_device_and_leaves_it_alone() {
    Run::verbose_job("test -e /sys/bus/pci/devices/0000:00:02.0/iommu_group -a ! -e /sys/bus/pci/devices/0000:00:02.0/driver")
        .args(&["--device", "dma-test"])
        .finish()
        .expect_status(0)
        .expect_console("pci 0000:00:02.0: [1af4:10f0] type 00 class 0xff0000")
        .expect_console("warp: exit status 0")
        .expect_console_without("WARNING:");
}
