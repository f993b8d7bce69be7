//! Linux and the SMMU, as far as the system and its users see: what the driver finds, what sysfs shows, and one process's
//! faults and mistakes, counted. Load is in `churn.rs`, the accelerator's own cases in `accelerator.rs`.

use e2e::{Finished, Run, rounds, zip_test};

/// `features` of the Linux driver (`arm-smmu-v3.h`), by the bits of the ID registers that it has found.
const FEATURES: [(u32, &str); 17] = [
    (0, "2-level stream table"),
    (1, "2-level context descriptor table"),
    (2, "little endian tables"),
    (4, "PRI"),
    (5, "ATS"),
    (7, "MSI"),
    (8, "coherent"),
    (9, "stage 1"),
    (10, "stage 2"),
    (11, "stalls"),
    (12, "EL2"),
    (15, "range invalidation"),
    (17, "SVA"),
    (19, "nesting"),
    (20, "hardware access flag"),
    (21, "hardware dirty state"),
    (22, "S2FWB"),
];

fn case(name: &str) -> Finished {
    Run::job(&zip_test(name))
        .report()
        .finish()
        .expect_status(0)
        .expect_console(&format!("ok {name}"))
        .expect_content_kernel()
        .expect_count("smmu/unanswered_stalls", |n| n == 0)
        .expect_count("smmu/events_lost", |n| n == 0)
        .expect_count("smmu/illegal_commands", |n| n == 0)
}

#[test]
fn driver_finds_the_features_of_the_id_registers() {
    let features = FEATURES.iter().fold(0u32, |sum, (bit, _)| sum | 1 << bit);
    Run::verbose_job("/bin/true")
        .finish()
        .expect_status(0)
        .expect_console(&format!(
            "arm-smmu-v3 9050000.iommu: ias 48-bit, oas 48-bit (features {features:#010x})"
        ))
        .expect_console("iommu: DMA domain TLB invalidation policy: strict mode")
        .expect_content_kernel();
}

/// A page larger than 4 KiB changes nothing about the SMMU.
#[test]
#[ignore = "boots a kernel of its own, which is built for slow tests alone"]
fn driver_finds_the_same_with_64_kib_pages() {
    Run::verbose_job("grep KernelPageSize /proc/self/smaps")
        .flavour("64k")
        .finish()
        .expect_status(0)
        .expect_console("KernelPageSize:       64 kB")
        .expect_console("arm-smmu-v3 9050000.iommu: ias 48-bit, oas 48-bit (features ")
        .expect_content_kernel();
}

#[test]
fn sysfs_lists_the_functions_and_a_disk_works_behind_the_smmu() {
    let disk = tempfile::NamedTempFile::new().expect("room");
    std::fs::write(disk.path(), e2e::test_data(4 << 20, 9)).expect("room");
    let drive = format!("{},ro", disk.path().display());
    let sum = std::process::Command::new("md5sum").arg(disk.path()).output().expect("md5sum is installed");
    let sum = String::from_utf8_lossy(&sum.stdout)[..32].to_owned();
    let devices = "/sys/class/iommu/smmu3.0x0000000009050000/devices";
    Run::job(&format!("ls {devices}; cat {devices}/*/iommu_group/type; md5sum /dev/vda"))
        .args(&["--drive", &drive])
        .report()
        .finish()
        .expect_status(0)
        .expect_console("0000:00:01.0")
        .expect_console("0000:00:02.0")
        // Translated, and unmapped before a buffer is used again.
        .expect_console("DMA")
        .expect_console_without("DMA-FQ")
        .expect_console(&sum)
        .expect_content_kernel()
        .expect_count("smmu/commands/CMD_TLBI_NH_VA", |n| n > 0)
        .expect_count("smmu/stalls", |n| n == 0);
}

/// 64 pages that nobody has touched: the device waits for each of them once, and for nothing else.
#[test]
fn untouched_page_stalls_exactly_once() {
    case("touch")
        .expect_count("smmu/stalls", |n| n == 64)
        .expect_count("smmu/retries", |n| n == 64)
        .expect_count("smmu/events/F_TRANSLATION", |n| n == 64)
        .expect_count("smmu/commands/CMD_RESUME", |n| n == 64)
        .expect_count("smmu/aborts", |n| n == 0);
}

#[test]
fn untouched_page_is_requested_exactly_once() {
    Run::job("zip-test touch")
        .flavour("pri")
        .args(&["--accel", "zip:pri"])
        .report()
        .finish()
        .expect_status(0)
        .expect_console("ok touch")
        .expect_content_kernel()
        .expect_count("smmu/page_requests", |n| n == 64)
        .expect_count("smmu/stalls", |n| n == 0);
}

/// The kernel that serves page requests serves stalls as before.
#[test]
fn patched_kernel_serves_stalls_too() {
    for accel in ["zip", "zip:ats"] {
        Run::job(&zip_test("touch fork"))
            .flavour("pri")
            .args(&["--accel", accel])
            .report()
            .finish()
            .expect_status(0)
            .expect_console("warp: exit status 0")
            .expect_content_kernel()
            .expect_count("smmu/retries", |n| n >= 64)
            .expect_count("smmu/unanswered_stalls", |n| n == 0)
            .expect_count("smmu/page_requests", |n| n == 0);
    }
}

/// The kernel answers with an abort, the device with an error, and the process goes on.
#[test]
fn address_without_memory_is_aborted_and_the_process_goes_on() {
    case("unmapped-source").expect_count("smmu/aborts", |n| n > 0);
}

/// What was mapped and is not any more is as good as never mapped: nothing is written through an old translation.
#[test]
fn unmapped_memory_is_aborted_and_protected_memory_is_not_written() {
    let rounds = rounds(8);
    Run::job(&format!("zip-churn -n {rounds} munmap mprotect"))
        .args(&["--cpus", "2"])
        .report()
        .finish()
        .expect_status(0)
        .expect_console("ok munmap")
        .expect_console("ok mprotect")
        .expect_content_kernel()
        // Each round waits for commands that are refused: one of the first phase, two of the second.
        .expect_count("smmu/aborts", |n| n >= 3 * u64::from(rounds))
        .expect_count("smmu/unanswered_stalls", |n| n == 0);
}

/// Killed in the middle of DMA, again and again: no event but the stalls that were served, nobody hangs.
#[test]
fn killed_process_leaves_no_events_and_no_stalls_behind() {
    case("killed");
}

#[test]
fn fork_after_the_bind_leaves_the_device_with_the_parents_pages() {
    case("fork").expect_count("smmu/events/F_PERMISSION", |n| n > 0);
}
