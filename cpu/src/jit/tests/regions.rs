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

/// A random start of a loop of 40 rounds that compares words at X2 with X3: values at the edges of what flags tell.
fn start_of_comparisons(twins: &mut Twins) -> Start {
    const VALUES: [u32; 6] = [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff, 5];
    let mut start = Start::random(&mut twins.random);
    start.data =
        (0..DATA_BYTES / 4).flat_map(|_| VALUES[twins.random.below(6) as usize].to_le_bytes()).collect();
    start.x[2] = DATA;
    start.x[3] = VALUES[twins.random.below(6) as usize].into();
    start.x[5] = 40;
    start
}

#[test]
fn flags_reach_the_blocks_of_a_region_that_read_them() {
    let mut twins = Twins::new(0xf1a6);
    // CMP, CMN, TST.
    for setter in [0x6b03_003f, 0x2b03_003f, 0x6a03_003f] {
        for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second))) {
            let at = RAM + CASE_BYTES * twins.cases;
            twins.cases += 1;
            let start = start_of_comparisons(&mut twins);
            twins.compare_from(at, &words(setter, first, second), &start);
        }
    }
    assert!(twins.translated.cpu.jit.as_ref().unwrap().has_regions());
}

/// A loop that tests flags of its last round, and of this one after an access.
fn words_around_an_access(setter: u32, second: u32) -> [u32; 8] {
    [
        0x9a89_0529 | second << 12, // loop: csinc x9, x9, x9, second
        0xb865_7841,                // ldr w1, [x2, x5, lsl #2]
        0x6b03_003f,                // cmp w1, w3
        setter,                     // of w1 and w3
        0xb940_0041,                // ldr w1, [x2]
        0x9a89_0529 | second << 12, // csinc x9, x9, x9, second
        0xd100_04a5,                // sub x5, x5, #1
        0xb5ff_ff25,                // cbnz x5, loop
    ]
}

#[test]
fn flags_that_an_access_comes_after_reach_those_that_test_them() {
    let mut twins = Twins::new(0xacce);
    for second in 0..14 {
        // CMP, CMN, TST.
        let mut setters = vec![0x6b03_003f, 0x2b03_003f, 0x6a03_003f];
        for first in [0, 2, 8, 13] {
            // CCMP and CCMN w1, w3, #nzcv, first.
            let compares = [0x7a43_0020, 0x3a43_0020];
            setters.extend((0..16).flat_map(|nzcv| compares.map(|compare| compare | first << 12 | nzcv)));
        }
        for setter in setters {
            let at = RAM + CASE_BYTES * twins.cases;
            twins.cases += 1;
            let start = start_of_comparisons(&mut twins);
            twins.compare_from(at, &words_around_an_access(setter, second), &start);
        }
    }
    assert!(twins.translated.cpu.jit.as_ref().unwrap().has_regions());
}

const CONDITIONS: u64 = 14;

/// Instructions that set, read, lose or show the flags, on X7 to X15. X2 leads to data, and X3 beyond it when X5 is 1.
fn word(twins: &mut Twins) -> u32 {
    let mut below = |bound: u64| twins.random.below(bound) as u32;
    let [d, n, m] = [(); 3].map(|()| 7 + below(9));
    let (wide, cond) = (below(2) << 31, below(CONDITIONS) << 12);
    let three = m << 16 | n << 5 | d | wide;
    let compared = three & !0x1f;
    match below(18) {
        0 | 1 => 0x6b00_001f | compared,                      // cmp n, m
        2 => 0x2b00_001f | compared,                          // cmn n, m
        3 => 0x6a00_001f | compared,                          // tst n, m
        4 => 0x6b00_0000 | three,                             // subs d, n, m
        5 => 0x2b00_0000 | three,                             // adds d, n, m
        6 => 0x7a40_0000 | compared | cond | below(16),       // ccmp n, m, #nzcv, cond
        7 => 0x3a40_0800 | compared | cond | below(16),       // ccmn n, #m, #nzcv, cond
        8 | 9 => 0x1a80_0000 | three | cond | below(2) << 10, // csel, csinc d, n, m, cond
        10 => 0x1a00_0000 | three,                            // adc d, n, m
        11 => 0x7a00_0000 | three,                            // sbcs d, n, m
        12 => 0x0b00_0000 | three,                            // add d, n, m
        13 => 0xf940_0040 | below(16) << 10 | d & 0x1f,       // ldr d, [x2, #]
        14 => 0xf900_0040 | below(16) << 10 | d & 0x1f,       // str d, [x2, #]
        15 => 0x1e21_2000,                                    // fcmp s0, s1
        16 => 0xcb05_1083,                                    // sub x3, x4, x5, lsl #4
        _ => 0xf940_0060 | d & 0x1f,                          // ldr d, [x3]
    }
}

/// A loop of blocks within which branches lead on, inner loops back, and others out when X5 is small: each block a few words
/// and a branch, and behind the loop readers of all flags.
fn program(twins: &mut Twins) -> Vec<u32> {
    let blocks = 3 + twins.random.below(5) as usize;
    let mut bodies: Vec<Vec<u32>> = Vec::new();
    for _ in 0..blocks {
        let len = twins.random.below(4);
        bodies.push((0..len).map(|_| word(twins)).collect());
    }
    // Each block ends with two words; the first says what the branch tests.
    let start_of = |block: usize| bodies[..block].iter().map(|body| body.len() + 2).sum::<usize>();
    let out = start_of(blocks);
    let mut words = Vec::new();
    for (at, body) in bodies.iter().enumerate() {
        words.extend(body);
        let here = words.len() + 1;
        let distance = |to: usize| (to.wrapping_sub(here) as u32 & 0x7_ffff) << 5;
        let ahead = at + 1 + twins.random.below((blocks - at) as u64) as usize;
        let ahead = if ahead >= blocks { blocks - 1 } else { ahead };
        let cond = twins.random.below(CONDITIONS) as u32;
        let pair = match twins.random.below(7) {
            _ if at == blocks - 1 => [0xf100_04a5, 0x5400_0001 | distance(0)], // subs x5, x5, #1; b.ne
            0 => [0xf100_04c6, 0x5400_000c | distance(start_of(at))], // subs x6, x6, #1; b.gt: itself
            1 => [0xf100_0cbf, 0x5400_0009 | distance(out)],          // cmp x5, #3; b.ls: out
            2 => [0xd342_fca1, 0xb400_0001 | distance(out)],          // lsr x1, x5, #2; cbz x1, out
            3 => [word(twins), 0x1400_0001],                          // b to the next
            _ => [word(twins), 0x5400_0000 | cond | distance(start_of(ahead))],
        };
        words.extend(pair);
    }
    for cond in [0, 2, 4, 6, 8, 10, 12] {
        words.push(0x9a9f_07e0 | cond << 12 | (16 + cond / 2)); // csinc x16.., xzr, xzr, cond
    }
    words
}

#[test]
fn loops_of_any_shape_have_the_interpreters_flags_wherever_they_are_read_shown_or_left() {
    const VALUES: [u64; 6] = [0, 1, u64::MAX, 0x8000_0000_0000_0000, 0x8000_0000, 0x7fff_ffff];
    let mut twins = Twins::new(0x100b);
    for _ in 0..1500 {
        let words = program(&mut twins);
        let at = RAM + CASE_BYTES * twins.cases;
        twins.cases += (words.len() as u64 + 4).div_ceil(CASE_BYTES / 4);
        let mut start = Start::random(&mut twins.random);
        for x in &mut start.x[7..16] {
            *x = VALUES[twins.random.below(6) as usize];
        }
        start.x[2] = DATA + 0x800;
        start.x[3] = DATA;
        // Half of the programs that use X3 fault in their last rounds.
        start.x[4] = DATA + DATA_BYTES + [0, 0x10, 0x20][twins.random.below(3) as usize];
        start.x[5] = 48;
        start.x[6] = 30;
        twins.compare_from(at, &words, &start);
    }
    assert!(twins.translated.cpu.jit.as_ref().unwrap().has_regions());
}
