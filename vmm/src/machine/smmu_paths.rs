//! Paths into what the SMMU reads in guest memory: stream table entries, context descriptors, and walks.
//!
//! `smmu/streams/SID`, `smmu/streams/SID/cd/SSID` (without SSID: what is used for accesses without one), and `walk/ADDRESS` behind
//! either. What the SMMU keeps itself is at the other paths below `smmu`.

use hw::saved::hex;
use iommu::Smmu;

use crate::machine::{Answer, Refused};

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    sid: u32,
    /// The context descriptor that is meant, if one is, or else the stream.
    cd: Option<Option<u32>>,
    /// The address that is walked to.
    walk: Option<u64>,
}

/// A number of decimal digits, or as the answers have it.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    hex::parse(text)?.try_into().ok()
}

fn small(text: &str) -> Option<u32> {
    number(text)?.try_into().ok()
}

/// The place that the steps behind `smmu/streams` name.
fn place(steps: &[&str]) -> Option<Place> {
    let [sid, rest @ ..] = steps else { return None };
    let (cd, rest) = match rest {
        ["cd", rest @ ..] if matches!(rest, [] | ["walk", ..]) => (Some(None), rest),
        ["cd", ssid, rest @ ..] => (Some(Some(small(ssid)?)), rest),
        rest => (None, rest),
    };
    let walk = match rest {
        [] => None,
        ["walk", address] => Some(number(address)?),
        _ => return None,
    };
    Some(Place { sid: small(sid)?, cd, walk })
}

/// What is at `path`, if that leads below `smmu/streams`.
pub(super) fn look(smmu: &Smmu, path: &str) -> Option<Answer> {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let ["smmu", "streams", rest @ ..] = &steps[..] else { return None };
    let Some(Place { sid, cd, walk }) = place(rest) else {
        return Some(Err(Refused::NoSuchPath {
            path: path.to_owned(),
            at: "smmu/streams".to_owned(),
            there: ["SID", "SID/cd/SSID", "SID/walk/ADDRESS", "SID/cd/SSID/walk/ADDRESS"]
                .map(str::to_owned)
                .into(),
        }));
    };
    let answer = match (cd, walk) {
        (_, Some(address)) => smmu.inspect_walk(sid, cd.flatten(), address),
        (Some(ssid), None) => smmu.inspect_cd(sid, ssid),
        (None, None) => smmu.inspect_stream(sid),
    };
    Some(answer.map_err(|why| Refused::Nothing { path: path.to_owned(), why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<Place> {
        place(&path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn streams_contexts_and_walks_have_paths() {
        let at = |sid, cd, walk| Some(Place { sid, cd, walk });
        assert_eq!(of("0x8"), at(8, None, None));
        assert_eq!(of("8/cd"), at(8, Some(None), None));
        assert_eq!(of("0x8/cd/1"), at(8, Some(Some(1)), None));
        assert_eq!(of("0x8/walk/0xffff000000000000"), at(8, None, Some(0xffff_0000_0000_0000)));
        assert_eq!(of("0x8/cd/walk/4096"), at(8, Some(None), Some(4096)));
        assert_eq!(of("0x8/cd/0x1/walk/0x1000"), at(8, Some(Some(1)), Some(4096)));
    }

    #[test]
    fn other_paths_and_numbers_that_are_none_lead_nowhere() {
        for path in ["", "x", "+8", "0x", "0x+8", "0x100000000", "8/cd/1/2", "8/walk", "8/walk/1/2", "8/ste"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
