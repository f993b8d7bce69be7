//! Sizes and times as people type them.

use std::time::Duration;

/// Parses a size in bytes: a number with an optional K, M, G or T (powers of 1024); `default_unit` applies to a
/// bare number.
///
/// # Errors
/// A line for the user.
pub fn parse_size(text: &str, default_unit: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" if digits.len() == text.len() => default_unit,
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        other => return Err(format!("unknown unit {other:?}: use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size such as 512M or 2G"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

/// RAM: a bare number is MiB, as in QEMU.
///
/// # Errors
/// A line for the user.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    const MIB: u64 = 1 << 20;
    let bytes = parse_size(text, MIB)?;
    check_memory(bytes).map_err(|why| format!("{text:?} {why}"))?;
    Ok(bytes)
}

/// Whether a machine can have so much RAM.
///
/// # Errors
/// What follows the size in a line for the user.
pub fn check_memory(bytes: u64) -> Result<(), String> {
    const MIB: u64 = 1 << 20;
    let limit = crate::board::map::RAM_LIMIT - crate::board::map::RAM_BASE;
    if !(32 * MIB..=limit).contains(&bytes) {
        return Err(format!("is out of range: 32M to {}G", limit >> 30));
    }
    if !bytes.is_multiple_of(2 * MIB) {
        return Err("is not a multiple of 2M".to_owned());
    }
    Ok(())
}

/// A time limit: seconds, or with a unit s, m, h.
///
/// # Errors
/// A line for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {other:?}: use s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a time such as 60 or 5m"))?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("{text:?} is not a time limit")),
    }
}

/// Bytes for people: three digits and a binary unit.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_units_and_bare_mebibytes_and_names_its_range() {
        assert_eq!(parse_memory("1G"), Ok(1 << 30));
        assert_eq!(parse_memory("512"), Ok(512 << 20));
        assert_eq!(parse_memory("256MiB"), Ok(256 << 20));
        for bad in ["", "1X", "x", "16M", "1T", "-1", "33554433", "99999999999999999999G", "33M1"] {
            assert!(parse_memory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_take_units_and_must_be_positive() {
        assert_eq!(parse_duration("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-3", "5d", "1e300h", "nan"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_are_shown_with_binary_units() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
    }
}
