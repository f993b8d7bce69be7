//! Vector instructions: every row of every table, in the legacy and in the VEX format.

use super::super::simd_ops::*;
use super::super::{Asm, Gpr, Mem, Size, Xmm};
use super::{Want, check, some_memory};

const IMM: u8 = 0x5a;
const WANT_IMM: Want = Want::Imm(0x5a, Size::Byte);
const WIDE: [Size; 2] = [Size::Dword, Size::Qword];

fn xmms() -> impl Iterator<Item = (Xmm, Want)> {
    (0..16).map(|number| (Xmm::new(number), Want::Xmm(Xmm::new(number))))
}

/// A second source that is another one in each case, and takes all values of the bits that VEX has for it.
fn other(n: usize) -> (Xmm, Want) {
    let register = Xmm::new(((n * 7 + 3) % 16) as u8);
    (register, Want::Xmm(register))
}

/// `$body` for each vector register as `$rm`, and for some memory.
macro_rules! for_xmm_rm {
    ($rm:ident, $want:ident, $body:block) => {
        for ($rm, $want) in xmms() {
            $body
        }
        for_memory!($rm, $want, $body);
    };
}

/// `$body` for each general-purpose register as `$rm`, and for some memory.
macro_rules! for_gpr_rm {
    ($size:expr, $rm:ident, $want:ident, $body:block) => {
        for $rm in Gpr::ALL {
            let $want = Want::Gpr($rm, $size);
            $body
        }
        for_memory!($rm, $want, $body);
    };
}

macro_rules! for_memory {
    ($rm:ident, $want:ident, $body:block) => {
        for $rm in some_memory() {
            let $want = Want::Mem($rm, 0);
            $body
        }
    };
}

/// The mnemonic of a row: without what tells forms of one mnemonic apart.
fn mnemonic(name: &str) -> &str {
    name.trim_end_matches("_STORE").trim_end_matches("_MERGE").trim_end_matches("_IMM")
}

fn vex(name: &str) -> String {
    format!("v{}", mnemonic(name))
}

#[test]
fn operations_of_two_sources_decode_as_named() {
    for &(name, op) in BINARY {
        for (n, (dst, want_dst)) in xmms().enumerate() {
            let (a, want_a) = other(n);
            for_xmm_rm!(rm, want, {
                check(name, &[want_dst, want], |asm| asm.sse(op, dst, rm));
                check(&vex(name), &[want_dst, want_a, want], |asm| asm.avx(op, dst, a, rm));
            });
        }
    }
    for &(name, op) in LEGACY_BINARY {
        for (dst, want_dst) in xmms() {
            for_xmm_rm!(rm, want, {
                check(name, &[want_dst, want], |asm| asm.sse(op, dst, rm));
            });
        }
    }
    for &(name, op) in VEX_BINARY {
        for (dst, want_dst) in xmms() {
            for (a, want_a) in xmms() {
                for_xmm_rm!(rm, want, {
                    check(name, &[want_dst, want_a, want], |asm| asm.avx(op, dst, a, rm));
                });
            }
        }
    }
}

#[test]
fn operations_of_two_sources_and_a_constant_decode_as_named() {
    for &(name, op) in BINARY_IMM {
        for (n, (dst, want_dst)) in xmms().enumerate() {
            let (a, want_a) = other(n);
            for_xmm_rm!(rm, want, {
                check(name, &[want_dst, want, WANT_IMM], |asm| asm.sse_imm(op, dst, rm, IMM));
                check(&vex(name), &[want_dst, want_a, want, WANT_IMM], |asm| {
                    asm.avx_imm(op, dst, a, rm, IMM);
                });
            });
        }
    }
    for &(name, op) in LEGACY_BINARY_IMM {
        for (dst, want_dst) in xmms() {
            for_xmm_rm!(rm, want, {
                check(name, &[want_dst, want, WANT_IMM], |asm| asm.sse_imm(op, dst, rm, IMM));
            });
        }
    }
}

#[test]
fn operations_of_one_source_decode_as_named() {
    for (dst, want_dst) in xmms() {
        for_xmm_rm!(rm, want, {
            for &(name, op) in UNARY {
                check(name, &[want_dst, want], |asm| asm.sse(op, dst, rm));
                check(&vex(name), &[want_dst, want], |asm| asm.avx_unary(op, dst, rm));
            }
            for &(name, op) in UNARY_IMM {
                check(name, &[want_dst, want, WANT_IMM], |asm| asm.sse_imm(op, dst, rm, IMM));
                check(&vex(name), &[want_dst, want, WANT_IMM], |asm| asm.avx_unary_imm(op, dst, rm, IMM));
            }
            for &(name, op) in VEX_UNARY {
                check(name, &[want_dst, want], |asm| asm.avx_unary(op, dst, rm));
            }
            check("vcvtps2ph", &[want, want_dst, WANT_IMM], |asm| asm.vcvtps2ph(rm, dst, IMM));
        });
    }
}

#[test]
fn operations_on_registers_or_memory_alone_decode_as_named() {
    for (n, (dst, want_dst)) in xmms().enumerate() {
        let (a, want_a) = other(n);
        for (src, want) in xmms() {
            for &(name, op) in BINARY_REGISTERS {
                check(mnemonic(name), &[want_dst, want], |asm| asm.sse_registers(op, dst, src));
                check(&vex(name), &[want_dst, want_a, want], |asm| asm.avx_registers(op, dst, a, src));
            }
        }
        for_memory!(mem, want, {
            for &(name, op) in BINARY_MEMORY {
                check(name, &[want_dst, want], |asm| asm.sse_memory(op, dst, mem));
                check(&vex(name), &[want_dst, want_a, want], |asm| asm.avx_memory(op, dst, a, mem));
            }
            for &(name, op) in LOAD {
                check(name, &[want_dst, want], |asm| asm.sse_load(op, dst, mem));
                check(&vex(name), &[want_dst, want], |asm| asm.avx_load(op, dst, mem));
            }
            for &(name, op) in STORE {
                check(mnemonic(name), &[want, want_dst], |asm| asm.sse_store(op, mem, dst));
                check(&vex(name), &[want, want_dst], |asm| asm.avx_store(op, mem, dst));
            }
        });
    }
}

#[test]
fn shifts_by_a_constant_decode_as_named() {
    for &(name, op) in SHIFT_IMM {
        for (dst, want_dst) in xmms() {
            check(mnemonic(name), &[want_dst, WANT_IMM], |asm| asm.sse_shift(op, dst, IMM));
            for (src, want) in xmms() {
                check(&vex(name), &[want_dst, want, WANT_IMM], |asm| asm.avx_shift(op, dst, src, IMM));
            }
        }
    }
}

#[test]
fn blends_by_a_register_decode_as_named() {
    for &(name, op) in VEX_BLEND {
        for (n, (dst, want_dst)) in xmms().enumerate() {
            let (a, want_a) = other(n);
            for (mask, want_mask) in xmms() {
                for_xmm_rm!(rm, want, {
                    check(name, &[want_dst, want_a, want, want_mask], |asm| {
                        asm.avx_blend(op, dst, a, rm, mask)
                    });
                });
            }
        }
    }
}

#[test]
fn moves_between_the_kinds_of_registers_decode_as_named() {
    for (size, name) in [(Size::Dword, "movd"), (Size::Qword, "movq")] {
        for (xmm, want_xmm) in xmms() {
            for_gpr_rm!(size, rm, want, {
                check(name, &[want_xmm, want], |asm| asm.sse_movd(size, xmm, rm));
                check(&vex(name), &[want_xmm, want], |asm| asm.avx_movd(size, xmm, rm));
                check(name, &[want, want_xmm], |asm| asm.sse_movd_store(size, rm, xmm));
                check(&vex(name), &[want, want_xmm], |asm| asm.avx_movd_store(size, rm, xmm));
            });
        }
    }
    for &(name, op) in MASK_TO_GPR {
        for (xmm, want_xmm) in xmms() {
            for reg in Gpr::ALL {
                let want = Want::Gpr(reg, Size::Dword);
                check(name, &[want, want_xmm], |asm| asm.sse_mask(op, reg, xmm));
                check(&vex(name), &[want, want_xmm], |asm| asm.avx_mask(op, reg, xmm));
            }
        }
    }
}

#[test]
fn conversions_with_integer_registers_decode_as_named() {
    for size in WIDE {
        for (n, (xmm, want_xmm)) in xmms().enumerate() {
            let (a, want_a) = other(n);
            for &(name, op) in FROM_GPR {
                for_gpr_rm!(size, rm, want, {
                    check(name, &[want_xmm, want], |asm| asm.sse_from_gpr(op, size, xmm, rm));
                    check(&vex(name), &[want_xmm, want_a, want], |asm| {
                        asm.avx_from_gpr(op, size, xmm, a, rm)
                    });
                });
                for mem in some_memory() {
                    let want = Want::Mem(mem, size.bytes());
                    check(name, &[want_xmm, want], |asm| asm.sse_from_gpr(op, size, xmm, mem));
                }
            }
        }
        for &(name, op) in TO_GPR {
            for reg in Gpr::ALL {
                let want_reg = Want::Gpr(reg, size);
                for_xmm_rm!(rm, want, {
                    check(name, &[want_reg, want], |asm| asm.sse_to_gpr(op, size, reg, rm));
                    check(&vex(name), &[want_reg, want], |asm| asm.avx_to_gpr(op, size, reg, rm));
                });
            }
        }
    }
}

#[test]
fn lanes_to_and_from_integer_registers_decode_as_named() {
    let size_of = |name: &str| if name.ends_with('Q') { Size::Qword } else { Size::Dword };
    for (n, (xmm, want_xmm)) in xmms().enumerate() {
        let (a, want_a) = other(n);
        for &(name, op) in INSERT {
            for_gpr_rm!(size_of(name), rm, want, {
                check(name, &[want_xmm, want, WANT_IMM], |asm| asm.sse_insert(op, xmm, rm, IMM));
                check(&vex(name), &[want_xmm, want_a, want, WANT_IMM], |asm| {
                    asm.avx_insert(op, xmm, a, rm, IMM);
                });
            });
        }
        for &(name, op) in EXTRACT {
            for_gpr_rm!(size_of(name), rm, want, {
                check(name, &[want, want_xmm, WANT_IMM], |asm| asm.sse_extract(op, rm, xmm, IMM));
                check(&vex(name), &[want, want_xmm, WANT_IMM], |asm| asm.avx_extract(op, rm, xmm, IMM));
            });
        }
    }
}

#[test]
fn fused_multiply_adds_decode_as_named() {
    use FmaKind::*;
    use FmaOrder::*;
    for (kind, kind_name) in [(Madd, "vfmadd"), (Msub, "vfmsub"), (Nmadd, "vfnmadd"), (Nmsub, "vfnmsub")] {
        for (order, order_name) in [(O132, "132"), (O213, "213"), (O231, "231")] {
            for lanes in [FpLanes::Ps, FpLanes::Pd, FpLanes::Ss, FpLanes::Sd] {
                let name = format!("{kind_name}{order_name}{lanes:?}");
                for (n, (dst, want_dst)) in xmms().enumerate() {
                    let (a, want_a) = other(n);
                    for_xmm_rm!(rm, want, {
                        check(&name, &[want_dst, want_a, want], |asm| {
                            asm.avx(fma(kind, order, lanes), dst, a, rm);
                        });
                    });
                }
            }
        }
    }
}

#[test]
fn control_instructions_decode_as_named() {
    for mem in some_memory() {
        check("ldmxcsr", &[Want::Mem(mem, 4)], |asm| asm.ldmxcsr(mem));
        check("stmxcsr", &[Want::Mem(mem, 4)], |asm| asm.stmxcsr(mem));
    }
    check("vzeroupper", &[], Asm::vzeroupper);
}

#[test]
fn scalar_memory_operands_have_the_size_of_a_lane() {
    let mem = Mem::base(Gpr::Rbp, 8);
    let dst = Xmm::new(1);
    for (name, op, bytes) in [("addss", ADDSS, 4), ("addsd", ADDSD, 8), ("paddd", PADDD, 16)] {
        check(name, &[Want::Xmm(dst), Want::Mem(mem, bytes)], |asm| asm.sse(op, dst, mem));
    }
    check("movss", &[Want::Xmm(dst), Want::Mem(mem, 4)], |asm| asm.sse_load(MOVSS, dst, mem));
    check("movq", &[Want::Mem(mem, 8), Want::Xmm(dst)], |asm| asm.sse_store(MOVQ_STORE, mem, dst));
}
