//! Scalar floating point: arithmetic, comparison, selection, conversion, moves.
//!
//! Arm ARM C3.6, C7.2. The arithmetic itself is [`crate::softfloat`]; a scalar result clears the rest of its vector
//! register. Deliberately absent: the access trap, which is decided when an instruction is decoded.

use crate::Cpu;
use crate::insn::Insn;
use crate::softfloat::{self as sf, Env, Format, Host, Int, Rounding};
use crate::state::Flags;

impl Cpu {
    /// Runs a floating-point computation with the guest's FPCR, and keeps the flags that it raises.
    #[inline(always)]
    pub(super) fn fp_env<R>(&mut self, compute: impl FnOnce(&mut Env) -> R) -> R {
        let mut env = Env { fpcr: self.state.fpcr, fpsr: self.state.fpsr };
        let result = compute(&mut env);
        self.state.fpsr = env.fpsr;
        result
    }

    /// The scalar of format `F` in vector register `n`.
    #[inline(always)]
    fn scalar<F: Format>(&self, n: u8) -> u64 {
        self.v(n) as u64 & (u64::MAX >> (64 - F::WIDTH))
    }

    /// Writes a scalar; the rest of the register becomes zero.
    #[inline(always)]
    fn set_scalar(&mut self, n: u8, bits: u64) {
        self.set_v(n, u128::from(bits));
    }
}

macro_rules! two_sources {
    ($($(#[$doc:meta])* $name:ident = $compute:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<F: Host>(cpu: &mut Cpu, i: &Insn) {
            let (x, y) = (cpu.scalar::<F>(i.rn), cpu.scalar::<F>(i.rm));
            let result = cpu.fp_env(|env| ($compute)(x, y, env));
            cpu.set_scalar(i.rd, result);
        }
    )*};
}

two_sources! {
    /// FADD (scalar).
    #[inline(always)]
    fadd = sf::add::<F>;
    /// FSUB (scalar).
    #[inline(always)]
    fsub = sf::sub::<F>;
    /// FMUL (scalar).
    #[inline(always)]
    fmul = sf::mul::<F>;
    /// FDIV (scalar).
    #[inline(always)]
    fdiv = sf::div::<F>;
    /// FMAX (scalar).
    #[inline(never)]
    fmax = sf::max::<F>;
    /// FMIN (scalar).
    #[inline(never)]
    fmin = sf::min::<F>;
    /// FMAXNM (scalar).
    #[inline(never)]
    fmaxnm = sf::max_num::<F>;
    /// FMINNM (scalar).
    #[inline(never)]
    fminnm = sf::min_num::<F>;
    /// FNMUL (scalar): the product's sign flips even if it is a NaN.
    #[inline(always)]
    fnmul = |x, y, env: &mut Env| sf::neg::<F>(sf::mul::<F>(x, y, env));
}

macro_rules! three_sources {
    ($($(#[$doc:meta])* $name:ident = $compute:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<F: Host>(cpu: &mut Cpu, i: &Insn) {
            let (addend, x, y) = (cpu.scalar::<F>(i.ra), cpu.scalar::<F>(i.rn), cpu.scalar::<F>(i.rm));
            let result = cpu.fp_env(|env| ($compute)(addend, x, y, env));
            cpu.set_scalar(i.rd, result);
        }
    )*};
}

three_sources! {
    /// FMADD: `ra + rn * rm`.
    #[inline(always)]
    fmadd = sf::mul_add::<F>;
    /// FMSUB: `ra - rn * rm`.
    #[inline(always)]
    fmsub = |c, x, y, env: &mut Env| sf::mul_add::<F>(c, sf::neg::<F>(x), y, env);
    /// FNMADD: `-ra - rn * rm`.
    #[inline(always)]
    fnmadd = |c, x, y, env: &mut Env| sf::mul_add::<F>(sf::neg::<F>(c), sf::neg::<F>(x), y, env);
    /// FNMSUB: `-ra + rn * rm`.
    #[inline(always)]
    fnmsub = |c, x, y, env: &mut Env| sf::mul_add::<F>(sf::neg::<F>(c), x, y, env);
}

/// FMOV (register).
#[inline(always)]
pub(crate) fn fmov<F: Format>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_scalar(i.rd, cpu.scalar::<F>(i.rn));
}

/// FABS (scalar).
#[inline(always)]
pub(crate) fn fabs<F: Format>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_scalar(i.rd, sf::abs::<F>(cpu.scalar::<F>(i.rn)));
}

/// FNEG (scalar).
#[inline(always)]
pub(crate) fn fneg<F: Format>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_scalar(i.rd, sf::neg::<F>(cpu.scalar::<F>(i.rn)));
}

/// FSQRT (scalar).
#[inline(never)]
pub(crate) fn fsqrt<F: Host>(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.scalar::<F>(i.rn);
    let result = cpu.fp_env(|env| sf::sqrt::<F>(x, env));
    cpu.set_scalar(i.rd, result);
}

/// FRINTN, FRINTP, FRINTM, FRINTZ: `a` is the mode.
#[inline(never)]
pub(crate) fn frint<F: Format>(cpu: &mut Cpu, i: &Insn) {
    round_to_integral::<F>(cpu, i, false, |_| Rounding::from_rmode(i.a.into()));
}

/// FRINTA.
#[inline(never)]
pub(crate) fn frinta<F: Format>(cpu: &mut Cpu, i: &Insn) {
    round_to_integral::<F>(cpu, i, false, |_| Rounding::TieAway);
}

/// FRINTX: FPCR's mode, and IXC if the value changed.
#[inline(never)]
pub(crate) fn frintx<F: Format>(cpu: &mut Cpu, i: &Insn) {
    round_to_integral::<F>(cpu, i, true, Env::rounding);
}

/// FRINTI: FPCR's mode.
#[inline(never)]
pub(crate) fn frinti<F: Format>(cpu: &mut Cpu, i: &Insn) {
    round_to_integral::<F>(cpu, i, false, Env::rounding);
}

fn round_to_integral<F: Format>(cpu: &mut Cpu, i: &Insn, exact: bool, mode: impl Fn(&Env) -> Rounding) {
    let x = cpu.scalar::<F>(i.rn);
    let result = cpu.fp_env(|env| sf::round_to_integral::<F>(x, mode(env), exact, env));
    cpu.set_scalar(i.rd, result);
}

/// FCMP, FCMPE (`a` = 1): two registers.
#[inline(always)]
pub(crate) fn fcmp<F: Host>(cpu: &mut Cpu, i: &Insn) {
    compare::<F>(cpu, i, cpu.scalar::<F>(i.rm));
}

/// FCMP, FCMPE (`a` = 1) with zero.
#[inline(always)]
pub(crate) fn fcmp_zero<F: Host>(cpu: &mut Cpu, i: &Insn) {
    compare::<F>(cpu, i, 0);
}

/// FCCMP, FCCMPE (`a` = 1): compares if condition `b` holds, otherwise the flags are `imm`.
#[inline(never)]
pub(crate) fn fccmp<F: Host>(cpu: &mut Cpu, i: &Insn) {
    if cpu.state.flags.holds(i.b) {
        compare::<F>(cpu, i, cpu.scalar::<F>(i.rm));
    } else {
        cpu.state.flags = Flags::from_nzcv((i.imm as u32) << 28);
    }
}

#[inline(always)]
fn compare<F: Host>(cpu: &mut Cpu, i: &Insn, y: u64) {
    let x = cpu.scalar::<F>(i.rn);
    let relation = cpu.fp_env(|env| sf::compare::<F>(x, y, i.a != 0, env));
    cpu.state.flags = Flags::from_nzcv(relation.nzcv() << 28);
}

/// FCSEL.
#[inline(always)]
pub(crate) fn fcsel<F: Format>(cpu: &mut Cpu, i: &Insn) {
    let source = if cpu.state.flags.holds(i.a) { i.rn } else { i.rm };
    cpu.set_scalar(i.rd, cpu.scalar::<F>(source));
}

/// FMOV (scalar, immediate): the constant is expanded when it is decoded.
#[inline(always)]
pub(crate) fn fmov_imm(cpu: &mut Cpu, i: &Insn) {
    cpu.set_scalar(i.rd, i.imm);
}

/// The general register of a conversion: bit 0 of slot `b` says 64 bits, bit 1 unsigned.
fn integer_type(i: &Insn) -> Int {
    Int { bits: 32 << (i.b & 1), is_signed: i.b & 2 == 0 }
}

/// FCVT{N,P,M,Z}{S,U} to a general register.
#[inline(never)]
pub(crate) fn fcvt_int<F: Host>(cpu: &mut Cpu, i: &Insn) {
    to_general::<F>(cpu, i, 0, Rounding::from_rmode(i.a.into()));
}

/// FCVTA{S,U} to a general register.
#[inline(never)]
pub(crate) fn fcvta_int<F: Host>(cpu: &mut Cpu, i: &Insn) {
    to_general::<F>(cpu, i, 0, Rounding::TieAway);
}

/// FCVTZ{S,U} to fixed point: `a` fraction bits.
#[inline(never)]
pub(crate) fn fcvt_fixed<F: Host>(cpu: &mut Cpu, i: &Insn) {
    to_general::<F>(cpu, i, i.a.into(), Rounding::Zero);
}

#[inline(always)]
fn to_general<F: Host>(cpu: &mut Cpu, i: &Insn, fraction_bits: u32, rounding: Rounding) {
    let x = cpu.scalar::<F>(i.rn);
    let result = cpu.fp_env(|env| sf::to_int::<F>(x, integer_type(i), fraction_bits, rounding, env));
    cpu.set_x(i.rd, result);
}

/// SCVTF, UCVTF from a general register: `a` fraction bits.
#[inline(never)]
pub(crate) fn cvtf<F: Host>(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.x(i.rn);
    let result = cpu.fp_env(|env| sf::from_int::<F>(x, integer_type(i), i.a.into(), env));
    cpu.set_scalar(i.rd, result);
}

/// FCVT between precisions.
#[inline(never)]
pub(crate) fn fcvt<F: Format, T: Format>(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.scalar::<F>(i.rn);
    let result = cpu.fp_env(|env| sf::convert::<F, T>(x, env.rounding(), env));
    cpu.set_scalar(i.rd, result);
}

/// FMOV from a general register of `BITS` bits to a scalar.
#[inline(always)]
pub(crate) fn fmov_from_general<const BITS: u32>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_scalar(i.rd, cpu.x(i.rn) & (u64::MAX >> (64 - BITS)));
}

/// FMOV of `BITS` bits from bit `LSB` of a vector register to a general one.
#[inline(always)]
pub(crate) fn fmov_to_general<const BITS: u32, const LSB: u32>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, (cpu.v(i.rn) >> LSB) as u64 & (u64::MAX >> (64 - BITS)));
}

/// FMOV from a general register to the upper half of a vector register.
#[inline(always)]
pub(crate) fn fmov_top_from_general(cpu: &mut Cpu, i: &Insn) {
    let low = cpu.v(i.rd) as u64;
    cpu.set_v(i.rd, u128::from(cpu.x(i.rn)) << 64 | u128::from(low));
}
