//! Interrupts and translations: taken at block borders, and at no other place, with registers and flags as they are there.

use hw::Pa;

use crate::state::Flags;
use crate::testbed::{Bench, RAM, mmu_on_flat};
use crate::{Cpu, Exit, Tier};

const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

/// Runs the guest to its end while its IRQ line goes up and down all the time. Gives its general registers.
fn run_interrupted(bench: &Bench, mut cpu: Cpu) -> [u64; 34] {
    let guest = std::thread::spawn(move || {
        assert_eq!(cpu.run(None), Exit::SystemOff);
        cpu.state.x
    });
    let line = bench.signals.irq_line(0);
    while !guest.is_finished() {
        line.set(true);
        std::thread::yield_now();
        line.set(false);
        std::thread::yield_now();
    }
    guest.join().unwrap()
}

#[test]
fn interrupts_come_between_blocks_with_all_registers_in_place() {
    for tier in [Tier::Auto, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        bench.code(
            RAM,
            &[
                0xd503_42ff, // msr daifclr, #2
                0x9100_0421, // loop: add x1, x1, #1
                0x9100_0c42, // add x2, x2, #3
                0x1400_0001, // b next
                0x9100_04c6, // add x6, x6, #1
                0xb500_0021, // cbnz x1, next
                0xeb13_029f, // cmp x20, x19
                0x54ff_ff43, // b.lo loop
            ],
        );
        bench.code(RAM + 0x20, &OFF);
        bench.code(
            RAM + 0x1280,
            &[
                0x9100_0694, // add x20, x20, #1
                0xd538_4035, // mrs x21, elr_el1
                0xcb16_02b5, // sub x21, x21, x22
                0xf835_7af4, // str x20, [x23, x21, lsl #3]
                0x8b01_0439, // add x25, x1, x1, lsl #1
                0xeb02_033f, // cmp x25, x2
                0x9a9a_075a, // csinc x26, x26, x26, eq
                0xd69f_03e0, // eret
            ],
        );
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        mmu_on_flat(&mut cpu);
        cpu.state.sys.vbar = RAM + 0x1000;
        (cpu.state.x[19], cpu.state.x[22], cpu.state.x[23]) = (300, RAM, RAM + 0x4000);
        let x = run_interrupted(&bench, cpu);
        // The handler has never seen x2 differ from three times x1.
        assert_eq!((x[2], x[26]), (3 * x[1], 0), "{tier:?}");
        for place in (0..0x40).step_by(4) {
            let taken = bench.ram.load_u64(Pa(RAM + 0x4000 + 8 * place)).unwrap() != 0;
            // 0x1c: behind the comparison, if the flags had not been stored before it.
            assert!(!taken || matches!(place, 4 | 0x10 | 0x18 | 0x1c | 0x20), "{tier:?} at {place:#x}");
        }
    }
}

#[test]
fn interrupt_before_flags_are_overwritten_shows_those_that_were_set_last() {
    for tier in [Tier::Auto, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        // Nothing reads the flags, in the loop and after it, before they are overwritten.
        bench.code(
            RAM,
            &[
                0xd503_42ff, // msr daifclr, #2
                0x9100_0421, // loop: add x1, x1, #1
                0xf240_003f, // tst x1, #1
                0xb5ff_ffc5, // cbnz x5, loop
                0xf240_003f, // tst x1, #1
            ],
        );
        bench.code(RAM + 0x14, &OFF);
        bench.code(
            RAM + 0x1280,
            &[
                0xd538_4015, // mrs x21, spsr_el1
                0xd35e_feb5, // lsr x21, x21, #30
                0xca01_02b5, // eor x21, x21, x1
                0xd240_02b5, // eor x21, x21, #1
                0x9240_02b5, // and x21, x21, #1: Z is set, and x1 odd, or neither
                0x8b15_035a, // add x26, x26, x21
                0x9100_0694, // add x20, x20, #1
                0xeb13_029f, // cmp x20, x19
                0x9a9f_30a5, // csel x5, x5, xzr, lo
                0xd69f_03e0, // eret
            ],
        );
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        mmu_on_flat(&mut cpu);
        cpu.state.sys.vbar = RAM + 0x1000;
        cpu.state.flags = Flags::from_nzcv(0x4000_0000);
        (cpu.state.x[5], cpu.state.x[19]) = (1, 300);
        assert_eq!(run_interrupted(&bench, cpu)[26], 0, "{tier:?}");
    }
}
