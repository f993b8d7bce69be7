//! General-purpose instructions.

use proptest::prelude::*;

use super::super::bmi::{ANDN, LZCNT, POPCNT, TZCNT};
use super::super::bmi::{BEXTR, BZHI, MULX, PDEP, PEXT, SARX, SHLX, SHRX};
use super::super::{Alu, Asm, BitTest, Cond, Gpr, GprRm, Mem, Scale, Shift, Size, Unary};
use super::{DISPLACEMENTS, SCALES, Want, all_memory, check, code, some_memory};

const SIZES: [Size; 4] = [Size::Byte, Size::Word, Size::Dword, Size::Qword];
const NOT_BYTE: [Size; 3] = [Size::Word, Size::Dword, Size::Qword];
const WIDE: [Size; 2] = [Size::Dword, Size::Qword];
const ALUS: [(&str, Alu); 8] = [
    ("add", Alu::Add),
    ("or", Alu::Or),
    ("adc", Alu::Adc),
    ("sbb", Alu::Sbb),
    ("and", Alu::And),
    ("sub", Alu::Sub),
    ("xor", Alu::Xor),
    ("cmp", Alu::Cmp),
];
const CONSTANTS: [i32; 10] = [0, 1, -1, 127, -128, 128, -129, 0x7fff, i32::MAX, i32::MIN];

/// `$body` for each register of `$size` as the operand `$rm`, and for some memory of that size.
macro_rules! for_rm {
    ($size:expr, $rm:ident, $want:ident, $body:block) => {
        for $rm in Gpr::ALL {
            let $want = Want::Gpr($rm, $size);
            $body
        }
        for $rm in some_memory() {
            let $want = Want::Mem($rm, $size.bytes());
            $body
        }
    };
}

/// `value` as a constant of `size`.
fn imm(value: i32, size: Size) -> Want {
    Want::Imm(value.into(), size)
}

/// A register and the same as it should be decoded.
fn registers(size: Size) -> impl Iterator<Item = (Gpr, Want)> {
    Gpr::ALL.into_iter().map(move |register| (register, Want::Gpr(register, size)))
}

#[test]
fn memory_operands_of_all_registers_scales_and_displacements_decode_as_given() {
    for (n, mem) in all_memory().into_iter().enumerate() {
        let reg = Gpr::ALL[n % 16];
        check("mov", &[Want::Gpr(reg, Size::Qword), Want::Mem(mem, 8)], |asm| asm.mov(Size::Qword, reg, mem));
        check("mov", &[Want::Mem(mem, 1), Want::Gpr(reg, Size::Byte)], |asm| {
            asm.mov_store(Size::Byte, mem, reg);
        });
    }
}

#[test]
fn near_memory_accounts_for_the_immediate_behind_it() {
    // `some_memory` has such operands; this is the one whose immediate is longest.
    let mem = Mem::Near(super::ORIGIN + 0x1000);
    check("cmp", &[Want::Mem(mem, 8), imm(0x1234_5678, Size::Qword)], |asm| {
        asm.alu_imm(Alu::Cmp, Size::Qword, mem, 0x1234_5678);
    });
}

#[test]
fn mov_forms_decode_as_given() {
    for size in SIZES {
        for (reg, want_reg) in registers(size) {
            for_rm!(size, rm, want, {
                check("mov", &[want_reg, want], |asm| asm.mov(size, reg, rm));
            });
            for mem in some_memory() {
                check("mov", &[Want::Mem(mem, size.bytes()), want_reg], |asm| asm.mov_store(size, mem, reg));
            }
        }
        for mem in some_memory() {
            for value in CONSTANTS {
                check("mov", &[Want::Mem(mem, size.bytes()), imm(value, size)], |asm| {
                    asm.mov_store_imm(size, mem, value);
                });
            }
        }
    }
}

#[test]
fn mov_of_a_constant_takes_the_shortest_form() {
    for register in Gpr::ALL {
        let rex = usize::from(register.number() >= 8);
        for (value, size, bytes) in [
            (0, Size::Dword, 5 + rex),
            (0x8000_0000, Size::Dword, 5 + rex),
            (0xffff_ffff, Size::Dword, 5 + rex),
            (0xffff_ffff_8000_0000, Size::Qword, 7),
            (u64::MAX, Size::Qword, 7),
            (0xffff_ffff_7fff_ffff, Size::Qword, 10),
            (0x1_0000_0000, Size::Qword, 10),
        ] {
            let want = [Want::Gpr(register, size), Want::Imm(value as i64, size)];
            let instruction = check("mov", &want, |asm| asm.mov_imm(register, value));
            assert_eq!(instruction.len(), bytes);
        }
        let want = [Want::Gpr(register, Size::Qword), Want::Imm(5, Size::Qword)];
        assert_eq!(check("mov", &want, |asm| asm.mov_imm64(register, 5)).len(), 10);
    }
}

#[test]
fn widening_moves_decode_as_given() {
    for (reg, _) in registers(Size::Dword) {
        for from in SIZES {
            for_rm!(from, rm, want, {
                let to = if from == Size::Qword { Size::Qword } else { Size::Dword };
                let name = if from >= Size::Dword { "mov" } else { "movzx" };
                check(name, &[Want::Gpr(reg, to), want], |asm| asm.movzx(reg, rm, from));
                for to in NOT_BYTE.into_iter().filter(|&to| to > from) {
                    let name = if from == Size::Dword { "movsxd" } else { "movsx" };
                    check(name, &[Want::Gpr(reg, to), want], |asm| asm.movsx(to, reg, rm, from));
                }
            });
        }
    }
}

#[test]
fn lea_decodes_as_given() {
    for mem in some_memory() {
        for size in WIDE {
            for (reg, want) in registers(size) {
                check("lea", &[want, Want::Mem(mem, 0)], |asm| asm.lea(size, reg, mem));
            }
        }
    }
}

#[test]
fn alu_forms_decode_as_given() {
    for (name, op) in ALUS {
        for size in SIZES {
            for (reg, want_reg) in registers(size) {
                for_rm!(size, rm, want, {
                    check(name, &[want_reg, want], |asm| asm.alu(op, size, reg, rm));
                });
                for mem in some_memory() {
                    let wants = [Want::Mem(mem, size.bytes()), want_reg];
                    check(name, &wants, |asm| asm.alu_store(op, size, mem, reg));
                }
            }
            for value in CONSTANTS {
                for_rm!(size, rm, want, {
                    check(name, &[want, imm(value, size)], |asm| asm.alu_imm(op, size, rm, value));
                });
            }
        }
    }
}

#[test]
fn alu_constant_takes_one_byte_where_it_fits() {
    for size in SIZES {
        for value in [-128, -1, 0, 127] {
            let bytes = code(|asm| asm.alu_imm(Alu::Add, size, Gpr::Rcx, value));
            assert_eq!(bytes.last(), Some(&(value as u8)));
            assert_eq!(bytes.len(), 3 + usize::from(size == Size::Word || size == Size::Qword));
        }
    }
    // 0xffff is -1 in 16 bits.
    assert_eq!(code(|asm| asm.alu_imm(Alu::And, Size::Word, Gpr::Rcx, 0xffff)).len(), 4);
}

#[test]
fn test_forms_decode_as_given() {
    for size in SIZES {
        for_rm!(size, rm, want, {
            for (reg, want_reg) in registers(size) {
                check("test", &[want, want_reg], |asm| asm.test(size, rm, reg));
            }
            for value in CONSTANTS {
                check("test", &[want, imm(value, size)], |asm| asm.test_imm(size, rm, value));
            }
        });
    }
}

#[test]
fn one_operand_arithmetic_decodes_as_given() {
    for size in SIZES {
        for_rm!(size, rm, want, {
            for (name, op) in [
                ("not", Unary::Not),
                ("neg", Unary::Neg),
                ("mul", Unary::Mul),
                ("imul", Unary::Imul),
                ("div", Unary::Div),
                ("idiv", Unary::Idiv),
            ] {
                check(name, &[want], |asm| asm.unary(op, size, rm));
            }
            check("inc", &[want], |asm| asm.inc(size, rm));
            check("dec", &[want], |asm| asm.dec(size, rm));
        });
    }
}

#[test]
fn multiplications_with_a_destination_decode_as_given() {
    for size in NOT_BYTE {
        for (reg, want_reg) in registers(size) {
            for_rm!(size, rm, want, {
                check("imul", &[want_reg, want], |asm| asm.imul(size, reg, rm));
                for value in CONSTANTS {
                    let wants = [want_reg, want, imm(value, size)];
                    check("imul", &wants, |asm| asm.imul_imm(size, reg, rm, value));
                }
            });
        }
    }
}

#[test]
fn shifts_decode_as_given() {
    let cl = Want::Gpr(Gpr::Rcx, Size::Byte);
    for (name, op) in [
        ("rol", Shift::Rol),
        ("ror", Shift::Ror),
        ("rcl", Shift::Rcl),
        ("rcr", Shift::Rcr),
        ("shl", Shift::Shl),
        ("shr", Shift::Shr),
        ("sar", Shift::Sar),
    ] {
        for size in SIZES {
            for_rm!(size, rm, want, {
                for count in [0, 1, 2, 31, 63] {
                    let wants = [want, Want::Imm(count.into(), Size::Byte)];
                    check(name, &wants, |asm| asm.shift(op, size, rm, count));
                }
                check(name, &[want, cl], |asm| asm.shift_cl(op, size, rm));
            });
        }
    }
}

#[test]
fn double_shifts_decode_as_given() {
    let (cl, five) = (Want::Gpr(Gpr::Rcx, Size::Byte), Want::Imm(5, Size::Byte));
    for size in NOT_BYTE {
        for (reg, want_reg) in registers(size) {
            for_rm!(size, rm, want, {
                check("shld", &[want, want_reg, five], |asm| asm.shld(size, rm, reg, 5));
                check("shrd", &[want, want_reg, five], |asm| asm.shrd(size, rm, reg, 5));
                check("shld", &[want, want_reg, cl], |asm| asm.shld_cl(size, rm, reg));
                check("shrd", &[want, want_reg, cl], |asm| asm.shrd_cl(size, rm, reg));
            });
        }
    }
}

#[test]
fn bit_instructions_decode_as_given() {
    for size in NOT_BYTE {
        for (reg, want_reg) in registers(size) {
            for_rm!(size, rm, want, {
                check("bsf", &[want_reg, want], |asm| asm.bsf(size, reg, rm));
                check("bsr", &[want_reg, want], |asm| asm.bsr(size, reg, rm));
                for (name, op) in [("popcnt", POPCNT), ("tzcnt", TZCNT), ("lzcnt", LZCNT)] {
                    check(name, &[want_reg, want], |asm| asm.count(op, size, reg, rm));
                }
            });
            for (name, op) in
                [("bt", BitTest::Bt), ("bts", BitTest::Bts), ("btr", BitTest::Btr), ("btc", BitTest::Btc)]
            {
                for (other, want) in registers(size) {
                    check(name, &[want, want_reg], |asm| asm.bit_test(op, size, other, reg));
                }
                let rm = reg;
                check(name, &[want_reg, Want::Imm(63, Size::Byte)], |asm| {
                    asm.bit_test_imm(op, size, rm, 63);
                });
            }
            for mem in some_memory() {
                let want = Want::Mem(mem, size.bytes());
                check("movbe", &[want_reg, want], |asm| asm.movbe(size, reg, mem));
                check("movbe", &[want, want_reg], |asm| asm.movbe_store(size, mem, reg));
                check("btr", &[want, Want::Imm(7, Size::Byte)], |asm| {
                    asm.bit_test_imm(BitTest::Btr, size, mem, 7);
                });
            }
        }
    }
}

#[test]
fn vex_forms_of_general_purpose_instructions_decode_as_given() {
    for size in WIDE {
        for (dst, want_dst) in registers(size) {
            for_rm!(size, rm, want, {
                for (other, want_other) in registers(size) {
                    for (name, op) in
                        [("shlx", SHLX), ("sarx", SARX), ("shrx", SHRX), ("bextr", BEXTR), ("bzhi", BZHI)]
                    {
                        let wants = [want_dst, want, want_other];
                        check(name, &wants, |asm| asm.shiftx(op, size, dst, rm, other));
                    }
                    for (name, op) in [("andn", ANDN), ("mulx", MULX), ("pdep", PDEP), ("pext", PEXT)] {
                        let wants = [want_dst, want_other, want];
                        check(name, &wants, |asm| asm.combine(op, size, dst, other, rm));
                    }
                }
                let wants = [want_dst, want, Want::Imm(33, Size::Byte)];
                check("rorx", &wants, |asm| asm.rorx(size, dst, rm, 33));
            });
        }
    }
}

#[test]
fn crc32_decodes_as_given() {
    for size in SIZES {
        // The register form of 64 bits names the whole register, of which it uses half.
        let crc_size = if size == Size::Qword { Size::Qword } else { Size::Dword };
        for (crc, want_crc) in registers(crc_size) {
            for_rm!(size, rm, want, {
                check("crc32", &[want_crc, want], |asm| asm.crc32(size, crc, rm));
            });
        }
    }
}

#[test]
fn bswap_and_sign_extension_decode_as_given() {
    for size in WIDE {
        for (reg, want) in registers(size) {
            check("bswap", &[want], |asm| asm.bswap(size, reg));
        }
    }
    check("cdq", &[], |asm| asm.sign_to_rdx(Size::Dword));
    check("cqo", &[], |asm| asm.sign_to_rdx(Size::Qword));
}

#[test]
fn conditional_instructions_decode_as_given() {
    for cond in Cond::ALL {
        let name = format!("{cond:?}");
        for_rm!(Size::Byte, rm, want, {
            check(&format!("set{name}"), &[want], |asm| asm.setcc(cond, rm));
        });
        for size in NOT_BYTE {
            for (reg, want_reg) in registers(size) {
                for_rm!(size, rm, want, {
                    check(&format!("cmov{name}"), &[want_reg, want], |asm| asm.cmovcc(cond, size, reg, rm));
                });
            }
        }
        let target = super::ORIGIN + 0x1234_5678;
        check(&format!("j{name}"), &[Want::Target(target)], |asm| asm.jcc_to(cond, target));
    }
}

#[test]
fn inverted_condition_differs_in_the_lowest_bit() {
    for cond in Cond::ALL {
        assert_eq!(cond.not() as u8, cond as u8 ^ 1);
        assert_eq!(cond.not().not(), cond);
    }
}

#[test]
fn stack_instructions_decode_as_given() {
    for (reg, want) in registers(Size::Qword) {
        check("push", &[want], |asm| asm.push(reg));
        check("pop", &[want], |asm| asm.pop(reg));
    }
    for mem in some_memory() {
        check("push", &[Want::Mem(mem, 8)], |asm| asm.push_mem(mem));
        // POP counts RSP before it computes the address, which does not show in the encoding.
        check("pop", &[Want::Mem(mem, 8)], |asm| asm.pop_mem(mem));
    }
    check("push", &[Want::Imm(-2, Size::Qword)], |asm| asm.push_imm(-2));
}

#[test]
fn indirect_jumps_and_calls_decode_as_given() {
    for_rm!(Size::Qword, rm, want, {
        check("jmp", &[want], |asm| asm.jmp_rm(rm));
        check("call", &[want], |asm| asm.call_rm(rm));
    });
    check("ret", &[], Asm::ret);
}

#[test]
fn atomic_instructions_decode_as_given_and_locked() {
    for size in SIZES {
        for (reg, want_reg) in registers(size) {
            for_rm!(size, rm, want, {
                check("xchg", &[want, want_reg], |asm| asm.xchg(size, rm, reg));
                check("xadd", &[want, want_reg], |asm| asm.xadd(size, rm, reg));
                check("cmpxchg", &[want, want_reg], |asm| asm.cmpxchg(size, rm, reg));
            });
            for mem in some_memory() {
                let wants = [Want::Mem(mem, size.bytes()), want_reg];
                let locked = [
                    check("xadd", &wants, |asm| asm.lock().xadd(size, mem, reg)),
                    check("cmpxchg", &wants, |asm| asm.lock().cmpxchg(size, mem, reg)),
                    check("and", &wants, |asm| asm.lock().alu_store(Alu::And, size, mem, reg)),
                    check("inc", &wants[..1], |asm| asm.lock().inc(size, mem)),
                ];
                assert!(locked.iter().all(|instruction| instruction.has_lock_prefix()));
            }
        }
    }
    for mem in some_memory() {
        let instruction = check("cmpxchg16b", &[Want::Mem(mem, 16)], |asm| asm.lock().cmpxchg16b(mem));
        assert!(instruction.has_lock_prefix());
    }
    let top = Want::Mem(Mem::base(Gpr::Rsp, 0), 4);
    assert!(check("or", &[top, Want::Imm(0, Size::Dword)], Asm::full_barrier).has_lock_prefix());
}

#[test]
fn instructions_without_operands_decode_as_named() {
    type Emit = fn(&mut Asm);
    let all: [(&str, Emit); 12] = [
        ("mfence", Asm::mfence),
        ("lfence", Asm::lfence),
        ("sfence", Asm::sfence),
        ("lahf", Asm::lahf),
        ("sahf", Asm::sahf),
        ("cmc", Asm::cmc),
        ("clc", Asm::clc),
        ("stc", Asm::stc),
        ("rdtsc", Asm::rdtsc),
        ("pause", Asm::pause),
        ("ud2", Asm::ud2),
        ("int3", Asm::int3),
    ];
    for (name, emit) in all {
        check(name, &[], emit);
    }
}

fn any_gpr() -> impl Strategy<Value = Gpr> {
    proptest::sample::select(&Gpr::ALL[..])
}

fn any_memory() -> impl Strategy<Value = Mem> {
    let disp = || {
        prop_oneof![
            any::<i32>(),
            any::<i8>().prop_map(i32::from),
            proptest::sample::select(&DISPLACEMENTS[..])
        ]
    };
    let index = || any_gpr().prop_filter("RSP is no index", |&register| register != Gpr::Rsp);
    let scale = || proptest::sample::select(&SCALES[..]);
    prop_oneof![
        (any_gpr(), disp()).prop_map(|(base, disp)| Mem::base(base, disp)),
        (any_gpr(), index(), scale(), disp())
            .prop_map(|(base, index, scale, disp): (_, _, Scale, _)| Mem::indexed(base, index, scale, disp)),
        (index(), scale(), disp()).prop_map(|(index, scale, disp)| Mem::scaled(index, scale, disp)),
        disp().prop_map(Mem::Absolute),
        disp().prop_map(|disp| Mem::Near(super::ORIGIN.wrapping_add((disp / 2) as u64))),
    ]
}

/// One instruction of each shape: register and r/m, r/m and register, r/m and constant.
fn check_shapes(op: usize, size: Size, reg: Gpr, rm: impl GprRm, want: Want, value: i32) {
    let (name, op) = ALUS[op];
    let want_reg = Want::Gpr(reg, size);
    check(name, &[want_reg, want], |asm| asm.alu(op, size, reg, rm));
    check("xchg", &[want, want_reg], |asm| asm.xchg(size, rm, reg));
    check(name, &[want, imm(value, size)], |asm| asm.alu_imm(op, size, rm, value));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_operands_decode_as_given(
        op in 0..8usize, size in proptest::sample::select(&SIZES[..]), reg in any_gpr(), rm in any_gpr(),
        mem in any_memory(), value in any::<i32>(), constant in any::<u64>(),
    ) {
        check_shapes(op, size, reg, rm, Want::Gpr(rm, size), value);
        check_shapes(op, size, reg, mem, Want::Mem(mem, size.bytes()), value);
        let to = if constant <= u64::from(u32::MAX) { Size::Dword } else { Size::Qword };
        check("mov", &[Want::Gpr(reg, to), Want::Imm(constant as i64, to)], |asm| asm.mov_imm(reg, constant));
    }
}
