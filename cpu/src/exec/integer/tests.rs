//! Known values of data processing, through decoder and handler.

use crate::state::Flags;
use crate::testbed::{Bench, RAM};

/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

/// word, text, x1, x2, NZCV before, x3 (before: 0x0123456789abcdef), NZCV after.
type Case = (u32, &'static str, u64, u64, u32, u64, u32);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (0xab020023, "adds x3, x1, x2", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0000000000000000, 0x7),
    (0xeb020023, "subs x3, x1, x2", 0xffffffffffffffff, 0x1, 0x2, 0xfffffffffffffffe, 0xa),
    (0x2b020023, "adds w3, w1, w2", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x000000005566777d, 0x2),
    (0x6b020023, "subs w3, w1, w2", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000080000001, 0x8),
    (0xba020023, "adcs x3, x1, x2", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0000000000000000, 0x7),
    (0xfa020023, "sbcs x3, x1, x2", 0xffffffffffffffff, 0x1, 0x2, 0xfffffffffffffffe, 0xa),
    (0xea020023, "ands x3, x1, x2", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x1122334455667780, 0x0),
    (0x6a621023, "bics w3, w1, w2, lsr #4", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000080000000, 0x8),
    (0x8b228823, "add x3, x1, w2, sxtb #2", 0x8000000000000000, 0x8000000000000000, 0x0, 0x8000000000000000, 0x0),
    (0xcb820423, "sub x3, x1, x2, asr #1", 0xffffffffffffffff, 0x1, 0x2, 0xffffffffffffffff, 0x2),
    (0x92009c23, "and x3, x1, #0xff00ff00ff00ff", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x0022004400660088, 0x4),
    (0x32010423, "orr w3, w1, #0x80000001", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000080000001, 0x8),
    (0xd3485c23, "ubfx x3, x1, #8, #16", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0000000000000000, 0x0),
    (0x93483c23, "sbfx x3, x1, #8, #8", 0xffffffffffffffff, 0x1, 0x2, 0xffffffffffffffff, 0x2),
    (0xb3701c23, "bfi x3, x1, #16, #8", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x012345678988cdef, 0x4),
    (0x33041c23, "bfxil w3, w1, #4, #4", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000089abcde0, 0x8),
    (0x93c13023, "ror x3, x1, #12", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0008000000000000, 0x0),
    (0x13822023, "extr w3, w1, w2, #8", 0xffffffffffffffff, 0x1, 0x2, 0x00000000ff000000, 0x2),
    (0x9a823423, "csinc x3, x1, x2, lo", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x1122334455667788, 0x4),
    (0x5a824423, "csneg w3, w1, w2, mi", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000080000000, 0x8),
    (0xfa42002b, "ccmp x1, x2, #0xb, eq", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0123456789abcdef, 0xb),
    (0x3a451824, "ccmn w1, #5, #4, ne", 0xffffffffffffffff, 0x1, 0x2, 0x0123456789abcdef, 0x2),
    (0x9ac20823, "udiv x3, x1, x2", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x0000000000000000, 0x4),
    (0x9ac20c23, "sdiv x3, x1, x2", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000080000000, 0x8),
    (0x1ac20c23, "sdiv w3, w1, w2", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0000000000000000, 0x0),
    (0x1ac22023, "lsl w3, w1, w2", 0xffffffffffffffff, 0x1, 0x2, 0x00000000fffffffe, 0x2),
    (0x9ac22823, "asr x3, x1, x2", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x0000000000000089, 0x4),
    (0x5ac00023, "rbit w3, w1", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000000000001, 0x8),
    (0xdac00423, "rev16 x3, x1", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0080000000000000, 0x0),
    (0xdac00823, "rev32 x3, x1", 0xffffffffffffffff, 0x1, 0x2, 0xffffffffffffffff, 0x2),
    (0x5ac00823, "rev w3, w1", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x0000000088776655, 0x4),
    (0x5ac01023, "clz w3, w1", 0x7fffffff80000000, 0xffffffff, 0x8, 0x0000000000000000, 0x8),
    (0xdac01423, "cls x3, x1", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0000000000000000, 0x0),
    (0x9b028423, "msub x3, x1, x2, x1", 0xffffffffffffffff, 0x1, 0x2, 0x0000000000000000, 0x2),
    (0x9b220423, "smaddl x3, w1, w2, x1", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x11223340a9ff54b0, 0x4),
    (0x9bc27c23, "umulh x3, x1, x2", 0x7fffffff80000000, 0xffffffff, 0x8, 0x000000007fffffff, 0x8),
    (0x9b427c23, "smulh x3, x1, x2", 0x8000000000000000, 0x8000000000000000, 0x0, 0x4000000000000000, 0x0),
    (0x9ac24c23, "crc32x w3, w1, x2", 0xffffffffffffffff, 0x1, 0x2, 0x0000000056772008, 0x2),
    (0x1ac25023, "crc32cb w3, w1, w2", 0x1122334455667788, 0xfffffffffffffff5, 0x4, 0x00000000cee57ea9, 0x4),
    (0x92a24683, "movn x3, #0x1234, lsl #16", 0x7fffffff80000000, 0xffffffff, 0x8, 0xffffffffedcbffff, 0x8),
    (0xf2d579a3, "movk x3, #0xabcd, lsl #32", 0x8000000000000000, 0x8000000000000000, 0x0, 0x0123abcd89abcdef, 0x0),
    (0x12800003, "movn w3, #0", 0xffffffffffffffff, 0x1, 0x2, 0x00000000ffffffff, 0x2),
];

#[test]
fn results_and_flags_are_the_architectures() {
    for &(word, text, x1, x2, nzcv, x3, nzcv_after) in CASES {
        let bench = Bench::new(1);
        bench.code(RAM, &[word]);
        bench.code(RAM + 4, &OFF);
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        (cpu.state.x[1], cpu.state.x[2], cpu.state.x[3]) = (x1, x2, 0x0123_4567_89ab_cdef);
        cpu.state.flags = Flags::from_nzcv(nzcv << 28);

        assert_eq!(cpu.run(None), crate::Exit::SystemOff);

        assert_eq!(
            (cpu.state.x[3], cpu.state.flags.nibble()),
            (x3, nzcv_after),
            "{text} x1={x1:#x} x2={x2:#x}"
        );
        assert_eq!(cpu.state.x[usize::from(crate::state::ZERO)], 0);
    }
}

#[test]
fn writes_to_the_zero_register_are_dropped_and_reads_of_it_are_zero() {
    let bench = Bench::new(1);
    // mov xzr, #1 (as movz); add x3, xzr, x1; subs xzr, x1, x1
    bench.code(RAM, &[0xd280_003f, 0x8b01_03e3, 0xeb01_003f]);
    bench.code(RAM + 12, &OFF);
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu.state.x[1] = 77;

    cpu.run(None);

    assert_eq!(cpu.state.x[3], 77);
    assert_eq!(cpu.state.flags.nibble(), 0b0110);
    assert_eq!(cpu.state.x[usize::from(crate::state::SP)], 0);
}
