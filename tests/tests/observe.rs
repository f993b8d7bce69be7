//! What the built-in engine tells of itself: `--stats` and `--perf-map`, of guests in the sandbox.

use std::fs;

use e2e::{Run, Session, engine, guest};

fn is_soft() -> bool {
    let soft = engine() != "kvm";
    if !soft {
        eprintln!("skipped: only the built-in engine tells this");
    }
    soft
}

#[test]
fn counts_are_those_of_the_tier_and_in_text_and_report() {
    if !is_soft() {
        return;
    }
    Run::job("true")
        .args(&["--tier", "interp", "--stats", "--cpus", "2"])
        .report()
        .finish()
        .expect_status(0)
        .expect_stderr("engine: 2 vCPUs")
        .expect_count("engine/vcpus", |vcpus| vcpus == 2)
        .expect_count("engine/blocks", |blocks| blocks > 1000)
        .expect_count("engine/translations", |translations| translations == 0)
        .expect_count("engine/times_ns/interpreter", |time| time > 0);
    if cfg!(target_arch = "x86_64") {
        Run::job("true")
            .args(&["--tier", "jit", "--stats"])
            .report()
            .finish()
            .expect_status(0)
            .expect_count("engine/translations", |translations| translations > 1000)
            .expect_count("engine/times_ns/translated", |time| time > 0);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn map_for_perf_names_guest_code_by_symbol_and_address() {
    if !is_soft() {
        return;
    }
    let symbols = guest("vmlinux");
    let run = Run::guest("").args(&["--perf-map".as_ref(), "--symbols".as_ref(), symbols.as_os_str()]);
    let mut session = Session::start(run);
    session.expect("/ # ");
    let path = format!("/tmp/perf-{}.map", session.pid());
    let map = fs::read_to_string(&path).expect("a map");
    fs::remove_file(&path).expect("it was there");

    for line in map.lines() {
        let mut words = line.splitn(3, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        assert!(number().is_some() && number().is_some_and(|len| len > 0), "{line:?}");
        assert!(words.next().is_some_and(|name| !name.is_empty()), "{line:?}");
    }
    // Of the kernel, by symbol and address, and of a process.
    assert!(map.lines().any(|line| line.contains(" schedule+0x") && line.ends_with(" T1")));
    assert!(map.lines().any(|line| line.contains(" guest 0x") && line.ends_with(" T1")));

    session.send("poweroff\n");
    assert_eq!(session.finish(), Some(0));
}
