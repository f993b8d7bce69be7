//! Pages and JSON about runs: what they say is counted, in the sandbox and by name.

use std::fs;
use std::path::Path;

use e2e::Run;
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("it exists")).expect("JSON")
}

#[test]
fn job_has_latencies_by_size_and_page_faults_over_time_and_linux_makes_no_mistake() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("pages")).expect("room");
    fs::write(place("in"), e2e::test_data(1_000_000, 8)).expect("room");
    Run::new(&["compress", "--timeout", "240", "-q"])
        .args(&[place("in").as_os_str(), "-o".as_ref(), place("out.gz").as_os_str()])
        .args(&["--report-json".as_ref(), place("report.json").as_os_str()])
        .args(&["--report-html".as_ref(), place("pages/page.html").as_os_str()])
        .finish()
        .expect_status(0);
    let report = json(&place("report.json"));
    let accelerator = &report["accelerators"][0];
    let by_size = accelerator["latency"].as_array().expect("commands were timed");
    let timed: u64 = by_size.iter().filter_map(|class| class["commands"].as_u64()).sum();
    assert_eq!(Some(timed), accelerator["commands"].as_u64(), "{report}");
    assert!(by_size.iter().all(|class| class["p50_ns"].as_u64() > Some(0)), "{report}");
    let faults = report["page_faults_over_time"]["counts"].as_array().expect("a series");
    assert!(faults.iter().filter_map(Value::as_u64).sum::<u64>() >= 1, "{report}");
    assert_eq!(report["guest_errors"], serde_json::json!({}), "{report}");

    let page = fs::read_to_string(place("pages/page.html")).expect("it exists");
    for text in
        ["Exit status 0", "Nothing that was noticed.", "Latency of zip0", "Page faults over time", "SMMU TLB"]
    {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
    assert_eq!(fs::read_dir(place("pages")).expect("ours").count(), 1);
}

#[test]
fn page_of_a_panic_has_the_consoles_last_lines_and_no_markup_of_the_guests() {
    let dir = tempfile::tempdir().expect("a folder");
    let (page, report) = (dir.path().join("page.html"), dir.path().join("report.json"));
    Run::guest("rdinit=/nothing root=/dev/none <script>alert(1)</script>")
        .args(&["--report-html".as_ref(), page.as_os_str(), "--report-json".as_ref(), report.as_os_str()])
        .finish()
        .expect_status(3);
    let page = fs::read_to_string(page).expect("it exists");
    for text in ["Exit status 3", "Kernel panic - not syncing", "&lt;script&gt;alert(1)&lt;/script&gt;"] {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(json(&report)["accelerators"][0]["name"], "zip0");
}

#[test]
fn page_that_cannot_be_written_is_refused_before_the_boot() {
    Run::guest("warp.run=/bin/true")
        .args(&["--report-html", "/no/such/folder/page.html"])
        .finish()
        .expect_status(1)
        .expect_stderr("cannot write the report \"/no/such/folder/page.html\"")
        .expect_console_without("Booting Linux");
}
