//! The page's parts, in the order in which they are read: what came of the run, what went wrong, then the figures.

use std::fmt::Display;

use super::charts;
use super::markup::Markup;
use super::words::{bytes, bytes_class, share, time};
use super::{Page, Row};
use crate::exit::Status;
use crate::faults::FaultReport;
use crate::report::{AcceleratorReport, AtcReport, LatencyReport, SmmuReport};

/// Firings of a rule that are shown.
const MOST_FIRINGS: usize = 20;

/// Nothing is loaded and nothing is run, even if something of the page were not what it seems.
const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width\">
<style>
";

impl Page {
    /// The page.
    pub(super) fn to_html(&self) -> String {
        let mut out = Markup::default();
        out.raw(HEAD).raw(include_str!("style.css")).raw("</style>\n<title>warpvmm ").text(self.command);
        out.raw("</title>\n</head>\n<body>\n");
        self.heading(&mut out);
        self.mistakes(&mut out);
        rows(&mut out, "Job", &self.job);
        self.figures(&mut out);
        rows(&mut out, "Machine", &self.machine);
        rows(&mut out, "Time", &self.time);
        if let Some(engine) = &self.engine {
            out.raw("<h2>Engine</h2>\n<pre>").text(engine.trim_end()).raw("</pre>\n");
        }
        out.raw("</body>\n</html>\n");
        out.finish()
    }

    fn heading(&self, out: &mut Markup) {
        out.raw("<h1>warpvmm ").text(self.command).raw("</h1>\n<p><code>warpvmm");
        for argument in &self.arguments {
            out.raw(" ").text(shell(argument));
        }
        out.raw("</code></p>\n<p><span class=\"");
        let is_well = self.status == Status::Success && self.error.is_none();
        out.raw(if is_well { "good" } else { "bad" }).raw("\">Exit status ").text(self.status as u8);
        out.raw("</span>");
        if let Some(reason) = &self.reason {
            out.raw(": ").text(reason);
        }
        out.raw("</p>\n<p class=\"quiet\">By warpvmm ").text(env!("CARGO_PKG_VERSION")).raw("</p>\n");
    }

    /// What went wrong, on purpose or not.
    fn mistakes(&self, out: &mut Markup) {
        out.raw("<h2>What went wrong</h2>\n");
        if self.status == Status::Success && self.error.is_none() && self.guest_errors.is_empty() {
            out.raw("<p>Nothing that was noticed.</p>\n");
        }
        if let Some(error) = &self.error {
            out.raw("<pre>").text(error).raw("</pre>\n");
        }
        if !self.guest_errors.is_empty() {
            out.raw("<h3>What the guest did wrong</h3>\n");
            table(out, &["Model", "What", "How often"], 2);
            for (model, kinds) in &self.guest_errors {
                for (kind, count) in kinds {
                    out.raw("<tr>");
                    word(out, model);
                    word(out, kind);
                    number(out, count);
                    out.raw("</tr>\n");
                }
            }
            out.raw(END);
        }
        if let Some(faults) = &self.faults {
            rules(out, faults);
        }
        if let Some(console) = &self.console {
            out.raw("<h3>Last lines of the guest&#39;s console</h3>\n<pre>").text(console).raw("</pre>\n");
        }
    }

    fn figures(&self, out: &mut Markup) {
        if !self.accelerators.is_empty() {
            out.raw("<h2>Accelerators</h2>\n");
            accelerators(out, &self.accelerators);
            self.accelerators.iter().for_each(|accelerator| latencies(out, accelerator));
        }
        let Some(smmu) = &self.smmu else { return };
        out.raw("<h2>Translation</h2>\n");
        self.hits(out, smmu);
        faults_over_time(out, smmu);
        smmu_counts(out, smmu);
        caches(out, &self.accelerators);
    }

    fn hits(&self, out: &mut Markup, smmu: &SmmuReport) {
        out.raw("<figure>\n");
        charts::hits(out, "SMMU TLB", smmu.tlb_hits, smmu.walks, "walks of translation tables");
        for AcceleratorReport { name, atc, .. } in &self.accelerators {
            let AtcReport { hits, translation_requests, .. } = *atc;
            if hits != 0 || translation_requests != 0 {
                charts::hits(
                    out,
                    &format!("cache of {name}"),
                    hits,
                    translation_requests,
                    "Translation Requests",
                );
            }
        }
        out.raw("<figcaption>Translations that were found in a cache (left), and that were not (right). The SMMU&#39;s TLB: ");
        let all = smmu.tlb_hits.saturating_add(smmu.walks);
        out.text(smmu.tlb_hits).raw(" hits (").text(share(smmu.tlb_hits, all)).raw("), ");
        out.text(smmu.walks).raw(" walks.</figcaption>\n</figure>\n");
    }
}

const END: &str = "</tbody></table></div>\n";

/// Begins a table, whose columns from this one on have numbers.
fn table(out: &mut Markup, columns: &[&'static str], numbers: usize) {
    out.raw("<div class=\"wide\"><table><thead><tr>");
    for (index, column) in columns.iter().enumerate() {
        out.raw(if index >= numbers { "<th class=\"number\">" } else { "<th>" }).text(column).raw("</th>");
    }
    out.raw("</tr></thead><tbody>\n");
}

fn word(out: &mut Markup, text: impl Display) {
    out.raw("<td class=\"words\">").text(text).raw("</td>");
}

fn number(out: &mut Markup, number: impl Display) {
    out.raw("<td class=\"number\">").text(number).raw("</td>");
}

/// A part that is a table of names and values.
fn rows(out: &mut Markup, title: &'static str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    out.raw("<h2>").raw(title).raw("</h2>\n<div class=\"wide\"><table><tbody>\n");
    for (name, value) in rows {
        out.raw("<tr><th>").raw(name).raw("</th>");
        word(out, value);
        out.raw("</tr>\n");
    }
    out.raw(END);
}

/// Names and counts, side by side with what is not there left out.
fn counts<'a>(out: &mut Markup, caption: &'static str, rows: impl Iterator<Item = (&'a str, u64)>) {
    out.raw("<div class=\"wide\"><table><caption>").raw(caption).raw("</caption><tbody>\n");
    for (name, count) in rows {
        out.raw("<tr><th>").text(name).raw("</th>");
        number(out, count);
        out.raw("</tr>\n");
    }
    out.raw(END);
}

/// An argument as a shell would take it, if it is not plain.
fn shell(argument: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+./:,@%".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// What came of the fault rules.
fn rules(out: &mut Markup, faults: &FaultReport) {
    out.raw("<h3>Faults on purpose</h3>\n");
    if let Some(plan) = &faults.plan {
        out.raw("<p>By <code>").text(plan).raw("</code>, seed ").text(faults.seed).raw("</p>\n");
    }
    table(out, &["Number", "Name", "Rule", "State", "Occasions", "Fired"], 4);
    for rule in &faults.rules {
        out.raw("<tr>");
        word(out, rule.id);
        word(out, rule.name.as_deref().unwrap_or_default());
        word(out, &rule.rule);
        word(out, rule.state.name());
        number(out, rule.occasions);
        number(out, rule.fired);
        out.raw("</tr>\n");
    }
    out.raw(END);
    for rule in faults.rules.iter().filter(|rule| !rule.firings.is_empty()) {
        out.raw("<h3>Firings of rule ").text(rule.id).raw("</h3>\n<pre>");
        for firing in rule.firings.iter().take(MOST_FIRINGS) {
            out.text(firing).raw("\n");
        }
        let shown = rule.firings.len().min(MOST_FIRINGS) as u64;
        if rule.fired > shown {
            out.raw("and ").text(rule.fired - shown).raw(" more\n");
        }
        out.raw("</pre>\n");
    }
    if !faults.events.is_empty() {
        out.raw("<h3>Events that were triggered</h3>\n<pre>");
        for happened in faults.events.iter().take(MOST_FIRINGS) {
            out.text(format_args!("{:.6} s: {}", happened.seconds, happened.event)).raw("\n");
        }
        out.raw("</pre>\n");
    }
}

fn accelerators(out: &mut Markup, all: &[AcceleratorReport]) {
    table(out, &["Accelerator", "Commands", "With an error", "Input", "Output", "Busy", "Not timed"], 1);
    for one in all {
        out.raw("<tr>");
        word(out, &one.name);
        number(out, one.commands);
        number(out, one.errors);
        number(out, bytes(one.bytes_in));
        number(out, bytes(one.bytes_out));
        number(out, time(one.busy_ns));
        number(out, one.unmeasured);
        out.raw("</tr>\n");
    }
    out.raw(END);
}

/// How long the commands of an accelerator took.
fn latencies(out: &mut Markup, accelerator: &AcceleratorReport) {
    let AcceleratorReport { name, latency, .. } = accelerator;
    if latency.is_empty() {
        return;
    }
    out.raw("<h3>Latency of ").text(name).raw("</h3>\n<figure>\n");
    charts::latencies(out, name, latency);
    out.raw("<figcaption>Guest time from the doorbell until the completion is in memory. Each row has commands with ");
    out.raw(
        "an input of that size, and its highest bar is the most frequent time.</figcaption>\n</figure>\n",
    );
    table(out, &["Input", "Commands", "Shortest", "Mean", "50 %", "90 %", "99 %", "Longest"], 1);
    for class in latency {
        let &LatencyReport { min_ns, mean_ns, p50_ns, p90_ns, p99_ns, max_ns, .. } = class;
        out.raw("<tr>");
        word(out, bytes_class(class.from_bytes, class.to_bytes));
        number(out, class.commands);
        [min_ns, mean_ns, p50_ns, p90_ns, p99_ns, max_ns].into_iter().for_each(|ns| number(out, time(ns)));
        out.raw("</tr>\n");
    }
    out.raw(END);
}

fn faults_over_time(out: &mut Markup, smmu: &SmmuReport) {
    out.raw("<h3>Page faults over time</h3>\n");
    let series = smmu.page_faults_over_time.as_ref();
    let Some(series) = series.filter(|series| !series.counts.is_empty()) else {
        out.raw("<p>None.</p>\n");
        return;
    };
    out.raw("<figure>\n");
    charts::over_time(out, series);
    out.raw("<figcaption>Stalls and groups of page requests by guest time; a bar is ");
    out.text(time(series.bucket_ns)).raw(" wide. In all: ");
    out.text(series.counts.iter().sum::<u64>()).raw(".</figcaption>\n</figure>\n");
}

fn smmu_counts(out: &mut Markup, smmu: &SmmuReport) {
    out.raw("<h3>SMMU</h3>\n");
    let figures = [
        ("TLB hits", smmu.tlb_hits),
        ("TLB misses (walks)", smmu.walks),
        ("Configurations fetched", smmu.config_fetches),
        ("Stalls", smmu.stalls),
        ("Stalls that were retried", smmu.retries),
        ("Stalls without an answer", smmu.unanswered_stalls),
        ("Accesses aborted", smmu.aborts),
        ("Translation Requests", smmu.translation_requests),
        ("Page Requests", smmu.page_requests),
        ("Page Requests lost", smmu.page_requests_lost),
        ("Event records lost", smmu.events_lost),
        ("Commands refused (CERROR_ILL)", smmu.illegal_commands),
    ];
    counts(out, "Accesses and faults", figures.into_iter());
    if !smmu.events.is_empty() {
        counts(out, "Event records", smmu.events.iter().map(|(name, count)| (*name, *count)));
    }
    if !smmu.commands.is_empty() {
        counts(out, "Commands", smmu.commands.iter().map(|(name, count)| (*name, *count)));
    }
}

/// Accelerators that have a translation cache of their own.
fn caches(out: &mut Markup, accelerators: &[AcceleratorReport]) {
    let with_cache = || accelerators.iter().filter(|one| one.atc.translation_requests != 0);
    if with_cache().next().is_none() {
        return;
    }
    out.raw("<h3>Translation caches of accelerators</h3>\n");
    let columns = [
        "Accelerator",
        "Hits",
        "Translation Requests",
        "Invalidations",
        "Page Requests",
        "Waits for credits",
        "Responses",
        "Unexpected",
        "Without an answer",
    ];
    table(out, &columns, 1);
    for AcceleratorReport { name, atc, .. } in with_cache() {
        let counts = [
            atc.hits,
            atc.translation_requests,
            atc.invalidations,
            atc.page_requests,
            atc.credit_waits,
            atc.page_responses,
            atc.unexpected_responses,
            atc.unanswered_groups,
        ];
        out.raw("<tr>");
        word(out, name);
        counts.into_iter().for_each(|count| number(out, count));
        out.raw("</tr>\n");
    }
    out.raw(END);
}
