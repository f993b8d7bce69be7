//! The accelerator at work while its memory is forked, unmapped, moved, swapped, split and protected: the guest's
//! `zip-churn`, with page faults served on each of the three roads.
//!
//! The guest compares every byte. Here the run's own numbers must show that the faults took the road of the profile,
//! and that nothing is left over.

use e2e::{Finished, Run, rounds, zip_test};

const PHASES: [&str; 10] =
    ["discard", "fork", "exit", "munmap", "remap", "mremap", "swap", "split", "mprotect", "userfault"];

/// Which interrupt tells the kernel of a missing page.
#[derive(Clone, Copy)]
enum Road {
    EventQueue,
    PageRequestQueue,
}

/// How much goes on at once, and how often.
struct Load {
    cpus: u32,
    processes: u32,
    rounds: u32,
}

/// All phases.
fn churn(accel: &str, load: &Load) -> Run {
    let words = format!("zip-churn -n {} -p {} all", rounds(load.rounds), load.processes);
    Run::job(&words).args(&["--accel", accel, "--cpus", &load.cpus.to_string()]).report()
}

/// The number behind `word` in a line of `zip-churn`.
fn number(line: &str, word: &str) -> u64 {
    let rest = line.split_once(word).expect("zip-churn's words").1.trim_start();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Every phase had faults, all on one road; some refused commands, but only where memory was taken away.
fn expect_phases(finished: Finished, phases: &[&str], road: Road) -> Finished {
    let mut finished = finished
        .expect_status(0)
        .expect_console("warp: exit status 0")
        .expect_content_kernel()
        .expect_count("smmu/unanswered_stalls", |n| n == 0)
        .expect_count("atc/unanswered_groups", |n| n == 0)
        .expect_count("smmu/events_lost", |n| n == 0)
        .expect_count("smmu/page_requests_lost", |n| n == 0)
        .expect_count("smmu/illegal_commands", |n| n == 0);
    for phase in phases {
        finished = finished.expect_console(&format!("ok {phase}: "));
        let line = finished.stdout.lines().find(|line| line.contains(&format!("ok {phase}: ")));
        let line = line.expect("it is there").to_owned();
        let (stalls, requests) = (number(&line, "evtq"), number(&line, "priq"));
        match road {
            Road::EventQueue => assert!(stalls > 0 && requests == 0, "{line}"),
            Road::PageRequestQueue => assert!(stalls == 0 && requests > 0, "{line}"),
        }
        let refuses = ["munmap", "mprotect"].contains(phase);
        let may_refuse = refuses || *phase == "mremap";
        let refused = number(&line, "commands right,");
        assert!((refused == 0 || may_refuse) && (refused > 0 || !refuses), "{line}");
    }
    finished
}

fn stalls_serve(load: &Load) {
    expect_phases(churn("zip", load).finish(), &PHASES, Road::EventQueue)
        .expect_count("smmu/events/F_TRANSLATION", |n| n > 0)
        // Copies on write, and memory that is protected.
        .expect_count("smmu/events/F_PERMISSION", |n| n > 0)
        .expect_count("smmu/retries", |n| n > 0)
        .expect_count("smmu/aborts", |n| n > 0)
        .expect_count("smmu/translation_requests", |n| n == 0)
        .expect_count("smmu/page_requests", |n| n == 0);
}

fn stalls_serve_behind_a_translation_cache(load: &Load) {
    expect_phases(churn("zip:ats", load).finish(), &PHASES, Road::EventQueue)
        .expect_count("atc/hits", |n| n > 0)
        .expect_count("atc/invalidations", |n| n > 0)
        .expect_count("smmu/translation_requests", |n| n > 0)
        .expect_count("smmu/retries", |n| n > 0)
        .expect_count("smmu/page_requests", |n| n == 0);
}

fn page_requests_serve(load: &Load) {
    expect_phases(churn("zip:pri", load).flavour("pri").finish(), &PHASES, Road::PageRequestQueue)
        .expect_count("atc/hits", |n| n > 0)
        .expect_count("atc/invalidations", |n| n > 0)
        .expect_count("atc/page_responses", |n| n > 0)
        .expect_count("atc/unexpected_responses", |n| n == 0)
        .expect_count("smmu/page_requests", |n| n > 0)
        .expect_count("smmu/stalls", |n| n == 0);
}

#[test]
fn stalls_serve_page_faults_under_churn_on_one_cpu() {
    stalls_serve(&Load { cpus: 1, processes: 1, rounds: 4 });
}

#[test]
fn stalls_serve_page_faults_of_three_processes_under_churn_on_two_cpus() {
    stalls_serve(&Load { cpus: 2, processes: 3, rounds: 3 });
}

#[test]
fn translation_cache_follows_churn_on_one_cpu() {
    stalls_serve_behind_a_translation_cache(&Load { cpus: 1, processes: 1, rounds: 4 });
}

#[test]
fn translation_cache_follows_churn_of_two_processes_on_two_cpus() {
    stalls_serve_behind_a_translation_cache(&Load { cpus: 2, processes: 2, rounds: 3 });
}

#[test]
fn page_requests_serve_page_faults_under_churn_on_one_cpu() {
    page_requests_serve(&Load { cpus: 1, processes: 1, rounds: 4 });
}

#[test]
fn page_requests_serve_page_faults_of_two_processes_under_churn_on_four_cpus() {
    page_requests_serve(&Load { cpus: 4, processes: 2, rounds: 3 });
}

/// Cases of `zip-test` too, among them commands with bad addresses, and processes that are killed: their groups are
/// left behind, and answered all the same.
#[test]
fn accelerator_that_requests_its_pages_passes_the_other_cases() {
    let cases = "formats file ring unmapped-source unmapped-destination readonly-destination bad-sgl isolation \
                 killed exit-while-busy many munmap";
    Run::job(&zip_test(cases))
        .flavour("pri")
        .args(&["--cpus", "2", "--accel", "zip:pri"])
        .report()
        .finish()
        .expect_status(0)
        .expect_console("warp: exit status 0")
        .expect_content_kernel()
        .expect_count("smmu/page_requests", |n| n > 0)
        .expect_count("atc/unanswered_groups", |n| n == 0)
        .expect_count("smmu/stalls", |n| n == 0);
}

/// An unpatched kernel leaves page requests off, so what is not there is an error of the command.
#[test]
fn unpatched_kernel_serves_no_page_requests_and_is_asked_for_none() {
    Run::job("zip-test touch")
        .args(&["--accel", "zip:pri"])
        .report()
        .finish()
        .expect_status(0)
        .expect_console("FAILED touch")
        .expect_console("warp: exit status 1")
        .expect_console_without("unexpected PRI request")
        .expect_count("smmu/page_requests", |n| n == 0)
        .expect_count("smmu/stalls", |n| n == 0);
}

/// The same with pages of 16 and 64 KiB, which the SMMU walks with these granules. A huge page of theirs has 32 or
/// 512 MiB: too large for this.
fn page_size_serves(flavour: &str) {
    let phases: Vec<&str> = PHASES.into_iter().filter(|phase| *phase != "split").collect();
    let cases = zip_test("formats sizes file ring many pageout touch");
    let run = Run::job(&format!("{cases} && zip-churn -n {} all", rounds(3)))
        .flavour(flavour)
        .args(&["--cpus", "2"])
        .report();
    expect_phases(run.finish(), &phases, Road::EventQueue)
        .expect_console("skipped split")
        .expect_count("smmu/retries", |n| n > 0);
}

#[test]
#[ignore = "boots a kernel of its own, which is built for slow tests alone"]
fn stalls_serve_page_faults_with_16_kib_pages() {
    page_size_serves("16k");
}

#[test]
#[ignore = "boots a kernel of its own, which is built for slow tests alone"]
fn stalls_serve_page_faults_with_64_kib_pages() {
    page_size_serves("64k");
}
