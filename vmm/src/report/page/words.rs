//! Numbers as people read them.

use crate::size::human_bytes;

/// A time in the unit that fits.
pub(super) fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0 => return "0".to_owned(),
        1..=999 => return format!("{ns} ns"),
        1_000..=999_999 => (ns as f64 / 1e3, "µs"),
        1_000_000..=999_999_999 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// Bytes, with their exact number if the short one is not.
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 { human_bytes(bytes) } else { format!("{} ({bytes})", human_bytes(bytes)) }
}

/// A class of sizes, of which the last has no end.
pub(super) fn bytes_class(from: u64, to: u64) -> String {
    let short = |bytes: u64| match bytes {
        0..1024 => format!("{bytes} B"),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    };
    match (from, to) {
        (_, u64::MAX) => format!("from {}", short(from)),
        _ if from == to => short(from),
        _ if to < 1024 => format!("{from} to {to} B"),
        _ => format!("{} up to {}", short(from), short(to.saturating_add(1))),
    }
}

/// A part of a whole in percent.
pub(super) fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_their_unit() {
        let times = [0, 7, 1000, 1536, 10_000, 123_456, 1_000_000, 59_940_000_000, u64::MAX];
        let texts = ["0", "7 ns", "1 µs", "1.54 µs", "10 µs", "123 µs", "1 ms", "59.9 s", "18446744074 s"];
        assert_eq!(times.map(time), texts);
    }

    #[test]
    fn classes_of_size_are_named_by_their_powers() {
        let classes = [
            (0, 0),
            (1, 1),
            (2, 3),
            (512, 1023),
            (4096, 8191),
            (1 << 20, (2 << 20) - 1),
            (1 << 31, u64::MAX),
        ];
        let texts = [
            "0 B",
            "1 B",
            "2 to 3 B",
            "512 to 1023 B",
            "4 KiB up to 8 KiB",
            "1 MiB up to 2 MiB",
            "from 2048 MiB",
        ];
        assert_eq!(classes.map(|(from, to)| bytes_class(from, to)), texts);
    }

    #[test]
    fn share_of_nothing_is_none() {
        assert_eq!((share(0, 0), share(1, 3)), ("0.0 %".to_owned(), "33.3 %".to_owned()));
    }
}
