//! Regions: what holds from one of their blocks to the next.

use super::{CASE_BYTES, DATA, DATA_BYTES, RAM, Start, Twins};

/// The loop has a comparison with three ways out, a reader of flags that are set in the block before, and one of flags that are
/// set in the last round.
fn words(setter: u32, first: u32, second: u32) -> [u32; 12] {
    [
        0x9a89_0529 | second << 12, // loop: csinc x9, x9, x9, second
        0xb865_7841,                // ldr w1, [x2, x5, lsl #2]
        setter,                     // of w1 and w3
        0x5400_0080 | first,        // b.first one
        0x5400_00a0 | second,       // b.second two
        0x9100_04c6,                // add x6, x6, #1
        0x1400_0004,                // b end
        0x9a87_04e7 | second << 12, // one: csinc x7, x7, x7, second
        0x1400_0002,                // b end
        0x9100_0508,                // two: add x8, x8, #1
        0xf100_04a5,                // end: subs x5, x5, #1
        0x54ff_fea1,                // b.ne loop
    ]
}

#[test]
fn flags_reach_the_blocks_of_a_region_that_read_them() {
    const VALUES: [u32; 6] = [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff, 5];
    let mut twins = Twins::new(0xf1a6);
    // CMP, CMN, TST.
    for setter in [0x6b03_003f, 0x2b03_003f, 0x6a03_003f] {
        for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second))) {
            let at = RAM + CASE_BYTES * twins.cases;
            twins.cases += 1;
            let mut start = Start::random(&mut twins.random);
            start.data = (0..DATA_BYTES / 4)
                .flat_map(|_| VALUES[twins.random.below(6) as usize].to_le_bytes())
                .collect();
            start.x[2] = DATA;
            start.x[3] = VALUES[twins.random.below(6) as usize].into();
            start.x[5] = 40;
            twins.compare_from(at, &words(setter, first, second), &start);
        }
    }
    assert!(twins.translated.cpu.jit.as_ref().unwrap().has_regions());
}
