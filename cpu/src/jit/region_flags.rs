//! Condition flags between the blocks of a region: what must be stored at the end of each, known the ways that lead on.
//!
//! A region is emitted twice. The first time tells which blocks find the flags of those before them in the host's
//! ([`HostFlags`]), whatever has been stored. With that, this file says where flags must be at each block's end, and the second
//! time stores no others. Ways out of the region store them out of the way, from the host's.

use super::flags::{HostFlags, Kept, LiveOut, kept, kept_before};
use super::translator::Part;

/// Where flags must be after each of `parts`, given what the host's flags hold at the start of each.
pub(super) fn live_out(parts: &[Part<'_>], arrivals: &[HostFlags]) -> Vec<LiveOut> {
    let mut needs = vec![LiveOut::same(Kept::Nowhere); parts.len()];
    loop {
        let mut is_stable = true;
        // Against the order of most ways, which takes few rounds.
        for at in (0..parts.len()).rev() {
            let need = need_after(&parts[at], parts, arrivals, &needs);
            is_stable &= need == needs[at];
            needs[at] = need;
        }
        if is_stable {
            return needs;
        }
    }
}

fn need_after(part: &Part<'_>, parts: &[Part<'_>], arrivals: &[HostFlags], needs: &[LiveOut]) -> LiveOut {
    let Some(successors) = part.successors else { return LiveOut::same(Kept::Whole) };
    let mut need = LiveOut::same(Kept::Nowhere);
    for (target, outside) in successors.into_iter().flatten() {
        let (host, memory) = match parts.iter().position(|other| other.pc == target) {
            // The way out stores them.
            None => (Kept::Nowhere, outside),
            Some(next) => {
                let memory = kept_before(parts[next].insns, needs[next].memory);
                let is_brought = arrivals[next].can_be_stored();
                (if is_brought { kept(parts[next].insns, needs[next]) } else { memory }, memory)
            }
        };
        need = LiveOut { host: need.host.max(host), memory: need.memory.max(memory) };
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::{Features, Insn, decode};

    const CMP: u32 = 0xeb02_003f;
    const LDR: u32 = 0xf940_0020;
    const ADD: u32 = 0x8b02_0020;

    fn b_cond(pc: u64, target: u64, cond: u32) -> u32 {
        0x5400_0000 | ((target.wrapping_sub(pc) >> 2) as u32 & 0x7_ffff) << 5 | cond
    }

    fn insns(pc: u64, words: &[u32]) -> Vec<Insn> {
        let at = |n: usize| pc + 4 * n as u64;
        words.iter().enumerate().map(|(n, &word)| decode(word, at(n), Features::default(), false)).collect()
    }

    fn part(pc: u64, insns: &[Insn], successors: [(u64, Kept); 2]) -> Part<'_> {
        Part {
            pc,
            insns,
            live_out: LiveOut::same(Kept::Whole),
            successors: Some(successors.map(Some)),
            counter: 0,
        }
    }

    /// At 0x1000: CMP, B.EQ 0x3000; at 0x1008: `second`, B.LS 0x1000.
    fn needs_of(second: &[u32], outside: Kept, arrival: HostFlags) -> Vec<LiveOut> {
        let first = insns(0x1000, &[CMP, b_cond(0x1004, 0x3000, 0)]);
        let end = 0x1008 + 4 * second.len() as u64;
        let second = insns(0x1008, &[second, &[b_cond(end, 0x1000, 9)]].concat());
        let parts = [
            part(0x1000, &first, [(0x3000, outside), (0x1008, Kept::Whole)]),
            part(0x1008, &second, [(0x1000, Kept::Whole), (end + 4, outside)]),
        ];
        live_out(&parts, &[HostFlags::Unknown, arrival])
    }

    #[test]
    fn flags_that_the_next_block_finds_in_the_hosts_and_ways_out_store_are_not_stored() {
        let needs = needs_of(&[], Kept::Whole, HostFlags::Borrow);
        assert_eq!(needs[0].host, Kept::Nowhere);
        assert_eq!(needs[1], LiveOut { host: Kept::Nowhere, memory: Kept::Whole });
    }

    #[test]
    fn flags_that_the_next_block_tests_after_it_has_lost_the_hosts_are_stored() {
        assert_eq!(needs_of(&[ADD], Kept::Nowhere, HostFlags::Borrow)[0].host, Kept::Whole);
        assert_eq!(needs_of(&[], Kept::Nowhere, HostFlags::Unknown)[0].host, Kept::Whole);
    }

    #[test]
    fn flags_that_an_access_of_the_next_block_can_show_are_stored_for_that() {
        assert_eq!(needs_of(&[LDR, CMP], Kept::Whole, HostFlags::Unknown)[0].host, Kept::Shown);
        assert_eq!(needs_of(&[CMP], Kept::Nowhere, HostFlags::Unknown)[0].host, Kept::Nowhere);
    }

    #[test]
    fn flags_that_a_way_out_needs_are_stored_where_the_hosts_do_not_reach_its_branch() {
        let needs = needs_of(&[CMP, ADD], Kept::Shown, HostFlags::Unknown);
        assert_eq!(needs[1].memory, Kept::Shown);
    }
}
