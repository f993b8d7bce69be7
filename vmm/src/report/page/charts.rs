//! The page's drawings, as SVG. Each has a title that says the same in words; bars say their numbers when they are pointed at.

use std::fmt::Display;

use super::markup::Markup;
use super::words::{bytes_class, share, time};
use crate::report::{LatencyReport, SeriesReport};

/// Width of a drawing, of what is left of its plot, and of what is right of it.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 170.0;
const PLOT: f64 = WIDTH - LEFT - RIGHT;

impl Markup {
    fn open_drawing(&mut self, height: f64, title: impl Display) {
        self.raw("<svg role=\"img\" viewBox=\"0 0 ").length(WIDTH).raw(" ").length(height).raw("\"><title>");
        self.text(title).raw("</title>\n");
    }

    fn close_drawing(&mut self) {
        self.raw("</svg>\n");
    }

    fn bar(&mut self, class: &'static str, [x, y, width, height]: [f64; 4], title: impl Display) {
        self.raw("<rect class=\"").raw(class).raw("\" x=\"").length(x).raw("\" y=\"").length(y);
        self.raw("\" width=\"").length(width).raw("\" height=\"").length(height).raw("\"><title>");
        self.text(title).raw("</title></rect>\n");
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4]) {
        self.raw("<line x1=\"").length(x1).raw("\" y1=\"").length(y1);
        self.raw("\" x2=\"").length(x2).raw("\" y2=\"").length(y2).raw("\"/>\n");
    }

    fn label(&mut self, class: &'static str, [x, y]: [f64; 2], text: impl Display) {
        self.raw("<text class=\"").raw(class).raw("\" x=\"").length(x).raw("\" y=\"").length(y).raw("\">");
        self.text(text).raw("</text>\n");
    }
}

/// Where a time is on an axis of powers.
struct LogAxis {
    first: f64,
    last: f64,
}

impl LogAxis {
    /// From the power of ten before all times to that behind them.
    fn of(classes: &[LatencyReport]) -> Self {
        let buckets = || classes.iter().flat_map(|class| &class.buckets);
        let least = buckets().map(|bucket| bucket.from_ns).min().unwrap_or(1).max(1);
        let most = buckets().map(|bucket| bucket.to_ns).max().unwrap_or(1).max(1);
        let first = (least as f64).log10().floor();
        let last = (most as f64).log10().ceil();
        Self { first, last: last.max(first + 1.0) }
    }

    fn x(&self, ns: u64) -> f64 {
        let log = (ns.max(1) as f64).log10().clamp(self.first, self.last);
        LEFT + PLOT * (log - self.first) / (self.last - self.first)
    }

    /// The powers of ten.
    fn ticks(&self) -> impl Iterator<Item = u64> {
        (self.first as u32..=self.last as u32).map(|power| 10_u64.saturating_pow(power))
    }
}

/// One row of bars for each class of size, all on the same axis of times.
pub(super) fn latencies(out: &mut Markup, name: &str, classes: &[LatencyReport]) {
    const ROW: f64 = 46.0;
    const BARS: f64 = 36.0;
    const TOP: f64 = 6.0;
    let axis = LogAxis::of(classes);
    let bottom = TOP + ROW * classes.len() as f64;
    out.open_drawing(bottom + 22.0, format_args!("Commands of {name} by size of their input and time"));
    for ns in axis.ticks() {
        let x = axis.x(ns);
        out.line([x, TOP, x, bottom]);
        out.label("quiet middle", [x, bottom + 16.0], time(ns));
    }
    for (row, class) in classes.iter().enumerate() {
        let base = TOP + ROW * (row + 1) as f64;
        out.line([LEFT, base, LEFT + PLOT, base]);
        let size = bytes_class(class.from_bytes, class.to_bytes);
        out.label("end", [LEFT - 10.0, base - 12.0], &size);
        let (median, commands) = (time(class.p50_ns), class.commands);
        out.label("quiet", [LEFT + PLOT + 10.0, base - 12.0], format_args!("{commands}, median {median}"));
        let most = class.buckets.iter().map(|bucket| bucket.commands).max().unwrap_or(1);
        for bucket in &class.buckets {
            let (from, to) = (axis.x(bucket.from_ns), axis.x(bucket.to_ns.saturating_add(1)));
            // What is rare is still seen.
            let height = (BARS * bucket.commands as f64 / most as f64).max(1.0);
            let (shortest, longest, count) = (time(bucket.from_ns), time(bucket.to_ns), bucket.commands);
            let said = format_args!("{size}, {shortest} to {longest}: {count}");
            out.bar("first", [from, base - height, (to - from - 0.5).max(0.5), height], said);
        }
    }
    out.close_drawing();
}

/// Counts by guest time.
pub(super) fn over_time(out: &mut Markup, series: &SeriesReport) {
    const TOP: f64 = 10.0;
    const HEIGHT: f64 = 140.0;
    let bottom = TOP + HEIGHT;
    let most = series.counts.iter().copied().max().unwrap_or(0).max(1);
    let width = (WIDTH - LEFT - 20.0) / series.counts.len().max(1) as f64;
    out.open_drawing(bottom + 24.0, "Page faults by guest time");
    out.line([LEFT, bottom, WIDTH - 20.0, bottom]);
    out.line([LEFT, TOP, WIDTH - 20.0, TOP]);
    out.label("quiet end", [LEFT - 10.0, TOP + 4.0], most);
    out.label("quiet end", [LEFT - 10.0, bottom + 4.0], 0);
    for (index, &count) in series.counts.iter().enumerate().filter(|(_, count)| **count != 0) {
        let from = (index as u64).saturating_mul(series.bucket_ns);
        let to = from.saturating_add(series.bucket_ns);
        let height = (HEIGHT * count as f64 / most as f64).max(1.0);
        let place = [LEFT + width * index as f64, bottom - height, (width - 0.5).max(0.5), height];
        out.bar("first", place, format_args!("{} to {}: {count}", time(from), time(to)));
    }
    let end = (series.counts.len() as u64).saturating_mul(series.bucket_ns);
    out.label("quiet middle", [LEFT, bottom + 18.0], time(0));
    out.label("quiet end", [WIDTH - 20.0, bottom + 18.0], time(end));
    out.close_drawing();
}

/// A part of a whole: what was found, and what was not.
pub(super) fn hits(out: &mut Markup, name: &str, hits: u64, misses: u64, what_misses_do: &str) {
    const HEIGHT: f64 = 34.0;
    let all = hits.saturating_add(misses).max(1);
    let width = WIDTH - LEFT - 20.0;
    let part = width * hits as f64 / all as f64;
    let percent = share(hits, all);
    out.open_drawing(HEIGHT, format_args!("{name}: {percent} of {all} look-ups were hits"));
    out.label("end", [LEFT - 10.0, 21.0], name);
    out.bar("first", [LEFT, 6.0, part, 22.0], format_args!("{hits} hits ({percent})"));
    out.bar("second", [LEFT + part, 6.0, width - part, 22.0], format_args!("{misses} {what_misses_do}"));
    out.close_drawing();
}
