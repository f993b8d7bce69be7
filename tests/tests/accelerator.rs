//! User processes on the accelerator: the guest's `zip-test`, one case per test, on two vCPUs.
//!
//! What each case does is in `guest/programs`; here is what must be true around it.

use e2e::{Finished, Run, zip_test};

fn case(name: &str) -> Finished {
    Run::job(&zip_test(name))
        .args(&["--cpus", "2"])
        .finish()
        .expect_status(0)
        .expect_console("warp: exit status 0")
        .expect_console(&format!("ok {name}"))
        .expect_content_kernel()
}

macro_rules! cases {
    ($($test:ident: $name:literal)*) => {
        $(
            #[test]
            fn $test() {
                case($name);
            }
        )*
    };
}

cases! {
    every_format_round_trips_from_malloc_memory: "formats"
    sizes_and_odd_addresses_round_trip: "sizes"
    mapped_files_that_nobody_touched_are_faulted_in_by_the_device: "file"
    stateful_streams_in_odd_pieces_round_trip: "stream"
    full_and_wrapping_rings_lose_nothing: "ring"
    unmapped_source_is_an_error_of_that_command: "unmapped-source"
    unmapped_destination_is_an_error_of_that_command: "unmapped-destination"
    readonly_destination_is_not_written: "readonly-destination"
    unknown_sqe_type_is_an_error_of_that_command: "bad-type"
    unknown_request_format_is_an_error_of_that_command: "bad-format"
    small_destination_is_reported: "small-destination"
    damaged_input_is_reported: "damaged-input"
    malformed_scatter_lists_end_with_an_error: "bad-sgl"
    each_process_has_one_pasid_and_it_is_not_0: "pasid"
    processes_at_the_same_address_see_their_own_data: "isolation"
    killed_processes_leave_a_working_device: "killed"
    processes_that_leave_while_busy_leave_a_working_device: "exit-while-busy"
    thirty_two_processes_work_at_once: "many"
    fork_while_commands_run_keeps_data_apart: "fork"
    munmap_while_commands_run_aborts_only_them: "munmap"
    mprotect_while_commands_run_is_obeyed: "mprotect"
    discarded_memory_is_faulted_in_again: "dontneed"
    swapped_memory_is_brought_back: "pageout"
    moved_memory_is_followed: "mremap"
    huge_pages_work_whole_and_split: "huge"
}

/// All cases in one guest, twice: nothing leaks from one process to the next.
#[test]
fn all_cases_pass_twice_in_one_guest() {
    let all = zip_test("all");
    Run::job(&format!("{all} && {all} && cat /sys/class/uacce/hisi_zip-0/available_instances"))
        .args(&["--cpus", "2"])
        .finish()
        .expect_status(0)
        .expect_console("warp: exit status 0");
}

/// Linux enables ATS by itself, and all cases pass with translations that the accelerator caches.
#[test]
fn accelerator_with_a_translation_cache_passes_all_cases() {
    // ATS Control, behind the PASID capability at 0x100.
    let control = "dd if=/sys/bus/pci/devices/0000:00:01.0/config bs=1 skip=270 count=2 | od -b";
    Run::job(&format!("{control}; {}", zip_test("all")))
        .args(&["--cpus", "2", "--accel", "zip:ats"])
        .finish()
        .expect_status(0)
        .expect_console("warp: exit status 0")
        .expect_console("000 200")
        .expect_content_kernel();
}
