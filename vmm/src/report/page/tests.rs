//! What a page says, and that it says it in text alone.

use super::*;
use crate::faults::{EventReport, RuleReport, State};
use crate::report::accelerators::BucketReport;
use crate::report::{AtcReport, LatencyReport, SeriesReport};
use std::collections::BTreeMap;

const HOSTILE: &str = "<script>alert(1)</script>\" onload='x' \u{202e}";

fn smmu() -> SmmuReport {
    let mut smmu = SmmuReport::from(&iommu::Snapshot::default());
    smmu.tlb_hits = 750;
    smmu.walks = 250;
    smmu.events = [("F_TRANSLATION", 42)].into();
    smmu.page_faults_over_time = Some(SeriesReport { bucket_ns: 1_000_000, counts: vec![0, 40, 2] });
    smmu
}

fn accelerator(name: &str) -> AcceleratorReport {
    let bucket = BucketReport { from_ns: 1024, to_ns: 1279, commands: 9 };
    AcceleratorReport {
        name: name.to_owned(),
        commands: 9,
        errors: 1,
        bytes_in: 9 * 5000,
        bytes_out: 4096,
        busy_ns: 1_500_000,
        unmeasured: 0,
        atc: AtcReport { hits: 3, translation_requests: 1, ..AtcReport::default() },
        latency: vec![LatencyReport {
            from_bytes: 4096,
            to_bytes: 8191,
            commands: 9,
            min_ns: 1100,
            mean_ns: 1150,
            p50_ns: 1200,
            p90_ns: 1200,
            p99_ns: 1200,
            max_ns: 1200,
            buckets: vec![bucket],
        }],
    }
}

fn faults(text: &str) -> FaultReport {
    let rule = RuleReport {
        id: 3,
        line: None,
        rule: text.to_owned(),
        state: State::Armed,
        name: Some(text.to_owned()),
        point: "smmu.walk",
        action: text.to_owned(),
        occasions: 7,
        fired: 2,
        firings: Vec::new(),
    };
    let event = EventReport { seconds: 1.5, event: text.to_owned() };
    FaultReport { plan: Some(text.to_owned()), seed: 1, rules: vec![rule], forgotten: 0, events: vec![event] }
}

/// A page on which everything that comes from outside has this text.
fn page_with(text: &str) -> Page {
    Page {
        command: "run",
        arguments: vec!["--append".to_owned(), text.to_owned()],
        status: Status::Timeout,
        reason: Some(text.to_owned()),
        error: Some(text.to_owned()),
        job: vec![("Input", text.to_owned())],
        machine: vec![("Kernel", text.to_owned())],
        time: vec![("Guest time at the end", "1 s".to_owned())],
        accelerators: vec![accelerator("zip0")],
        smmu: Some(smmu()),
        engine: Some(text.to_owned()),
        guest_errors: [(text.to_owned(), BTreeMap::from([("doorbells to nowhere", 3)]))].into(),
        faults: Some(faults(text)),
        console: Some(text.to_owned()),
    }
}

/// The elements of a page must be closed in the order in which they were opened. Gives the names of all.
fn elements(html: &str) -> Vec<&str> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
            None if name == "!DOCTYPE" || name == "meta" || tag.ends_with('/') => all.push(name),
            None => {
                open.push(name);
                all.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

#[test]
fn text_from_outside_is_text_wherever_it_is_shown() {
    let (hostile, plain) = (page_with(HOSTILE).to_html(), page_with("x").to_html());
    // Not one element more than with a harmless text.
    assert_eq!(elements(&hostile), elements(&plain));
    assert!(!hostile.contains("<script") && !hostile.contains('\u{202e}'));
    let shown = hostile.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x").count();
    // Reason, error, model, plan, name, rule, event, a job's lines, its input, kernel, console; the command line is quoted besides.
    assert_eq!(shown, 11, "{hostile}");
}

#[test]
fn page_needs_nothing_but_itself() {
    let html = page_with("x").to_html();
    for word in ["http:", "https:", "url(", "@import", "src=", "href=", "<link", "<script", "<img", "<iframe"]
    {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'"));
    for media in ["prefers-color-scheme: dark", "@media print"] {
        assert!(html.contains(media), "{media}");
    }
}

#[test]
fn page_has_the_figures_and_what_went_wrong() {
    let html = page_with("x").to_html();
    for text in [
        "Exit status 124",
        "doorbells to nowhere",
        "F_TRANSLATION",
        "750 hits (75.0 %)",
        "250 walks",
        "4 KiB up to 8 KiB",
        "4 KiB up to 8 KiB, 1.02 µs to 1.28 µs: 9",
        "1 ms to 2 ms: 40",
        "In all: 42",
        "<td class=\"words\">armed</td>",
        "Last lines of the guest&#39;s console",
        "cache of zip0",
    ] {
        assert!(html.contains(text), "{text:?} is not in {html}");
    }
}

#[test]
fn run_without_work_has_a_page_too() {
    let page = Page {
        status: Status::Success,
        reason: Some("The guest powered itself off".to_owned()),
        error: None,
        job: Vec::new(),
        accelerators: Vec::new(),
        smmu: Some((&iommu::Snapshot::default()).into()),
        engine: None,
        guest_errors: ErrorsReport::new(),
        faults: None,
        console: None,
        ..page_with("x")
    };
    let html = page.to_html();
    elements(&html);
    assert!(html.contains("Nothing that was noticed.") && html.contains("<p>None.</p>"), "{html}");
    assert!(!html.contains("NaN") && !html.contains("console"));
}

#[test]
fn machine_that_broke_has_a_page_with_the_error() {
    let error = Err(crate::exit::Failed::new("thread 'accel' panicked").into());
    let html = Page::new("compress", None, &error, Vec::new()).to_html();
    elements(&html);
    assert!(html.contains("Exit status 1") && html.contains("thread &#39;accel&#39; panicked"), "{html}");
}

#[test]
fn extreme_numbers_stay_within_the_drawing() {
    let mut page = page_with("x");
    let class = &mut page.accelerators[0].latency[0];
    class.buckets = [(0, 0), (1, 1), (7 << 61, u64::MAX)]
        .map(|(from_ns, to_ns)| BucketReport { from_ns, to_ns, commands: u64::MAX })
        .into();
    let counts = vec![u64::MAX / 2, 1];
    let smmu = page.smmu.as_mut().unwrap();
    smmu.page_faults_over_time = Some(SeriesReport { bucket_ns: u64::MAX / 2, counts });
    (smmu.tlb_hits, smmu.walks) = (u64::MAX, u64::MAX);
    let html = page.to_html();
    elements(&html);
    let number = |rest: &str| rest.split('"').next().unwrap().parse::<f64>().unwrap();
    for name in [" x=\"", " width=\"", " height=\"", " y=\""] {
        for value in html.split("<svg").skip(1).flat_map(|svg| svg.split(name).skip(1)).map(number) {
            assert!((0.0..=900.0).contains(&value), "{name}{value}");
        }
    }
}

#[test]
fn page_replaces_an_older_one_when_it_is_complete_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    std::fs::write(&path, "old").unwrap();
    let signals = Signals::block().unwrap();
    drop(PageFile::prepare(&path, None).unwrap());
    let file = PageFile::prepare(&path, None).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    let outcome = tell(Some(file), &signals, "run", None, Err(anyhow::anyhow!("why")), Vec::new());
    assert_eq!(outcome.unwrap_err().to_string(), "why");
    assert!(std::fs::read_to_string(&path).unwrap().contains("<pre>why</pre>"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let identity = Some(Identity::of(&path.metadata().unwrap()));
    let refused = exit::line(&PageFile::prepare(&path, identity).unwrap_err());
    assert!(refused.contains("same file"), "{refused}");
    let refused = PageFile::prepare(Path::new("/no/such/folder/page.html"), None).unwrap_err();
    assert!(exit::line(&refused).starts_with("cannot write the report \"/no/such/folder/page.html\""));
}
