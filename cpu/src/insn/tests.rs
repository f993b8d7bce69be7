//! The decoder against the table it was made from.

use super::*;

/// Every feature at once.
fn all() -> Features {
    Features(u32::MAX)
}

#[test]
fn every_row_decodes_to_itself() {
    for row in &ROWS {
        // Fields as zeros, ones and a few patterns: some of them are neither UNDEFINED nor a special case.
        let found = [0u32, !0, 0x5555_5555, 0xaaaa_aaaa, 0x1248_1248, 0x0841_0842, 0x0010_8421, 0x0063_18c6]
            .iter()
            .any(|&bits| op_of(bits & !row.mask | row.value, all()) == row.op);
        assert!(found, "{} is never decoded", row.name);
    }
}

#[test]
fn any_word_decodes_and_prints_without_panic() {
    let mut word = 1u32;
    for _ in 0..200_000 {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let insn = decode(word, 0x1000, all(), false);
        assert_eq!(insn.op == Op::Undefined, op_of(word, all()) == Op::Undefined);
        assert!(insn.rd < 34 && insn.rn < 34 && insn.rm < 34 && insn.ra < 34);
        assert!(!disassemble(word, 0x1000, all()).is_empty());
    }
}

#[test]
fn insn_is_small() {
    assert!(size_of::<Insn>() <= 32);
}
