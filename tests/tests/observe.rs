//! What can be seen of a run: `--stats` and `--perf-map` of the built-in engine, and the timeline, of guests in the sandbox.

use std::collections::BTreeMap;
use std::fs;

use e2e::{Run, Session, engine, guest, zip_test};
use serde_json::Value;

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

/// The slices of a timeline's rows nest; every arrow, as the names of the slices that it touches.
fn arrows(trace: &Value) -> Vec<Vec<String>> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_string();
    let mut open: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    let mut arrows: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for event in trace["traceEvents"].as_array().expect("events") {
        let row = (event["pid"].as_u64().expect("a process"), event["tid"].as_u64().expect("a row"));
        let open = open.entry(row).or_default();
        match word(event, "ph").as_str() {
            "B" => open.push(word(event, "name")),
            "E" => assert!(open.pop().is_some(), "nothing is open: {event}"),
            "s" | "t" | "f" => {
                let slice = open.last().expect("an arrow touches a slice");
                arrows.entry(event["id"].as_u64().expect("a number")).or_default().push(slice.clone());
            }
            _ => {}
        }
    }
    assert!(open.values().all(Vec::is_empty), "left open: {open:?}");
    arrows.into_values().collect()
}

#[test]
fn timeline_leads_from_doorbells_to_commands_and_from_faults_to_their_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flavour, accelerator, way) in [
        (None, "zip", &["stall", "F_TRANSLATION", "CMD_RESUME"][..]),
        (Some("pri"), "zip:pri", &["Page Request", "CMD_PRI_RESP"]),
    ] {
        let file = folder.path().join("trace.json");
        let mut run = Run::job(&zip_test("formats touch"));
        if let Some(name) = flavour {
            run = run.flavour(name);
        }
        run.args(&["--accel".as_ref(), accelerator.as_ref(), "--trace".as_ref(), file.as_os_str()])
            .finish()
            .expect_status(0)
            .expect_stderr(" 0 were dropped");
        let trace = fs::read(&file).expect("a trace");
        let trace: Value = serde_json::from_slice(&trace).expect("JSON");
        assert_eq!(trace["otherData"]["ended by"], "end of the run");
        let arrows = arrows(&trace);
        let count = |names: &[&str]| arrows.iter().filter(|arrow| arrow.iter().eq(names)).count();
        assert!(count(way) > 10, "{accelerator}: {} arrows {way:?}", count(way));
        let commands =
            arrows.iter().filter(|arrow| arrow.starts_with(&["doorbell".into(), "command".into()]));
        assert!(commands.count() > 10, "{accelerator}");
        assert_eq!(count(&["doorbell"]), 0, "{accelerator}: every command was begun");
    }
}
