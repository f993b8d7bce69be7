//! AES rounds, SHA-1 and SHA-256 rounds, and polynomial multiplication of doublewords, by the host's instructions for them.

use super::constants;
use super::lanes::*;
use crate::insn::{Insn, Op};
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{HostFeatures, Xmm};

/// An emitter that needs a feature of the host; without it the handler is called.
macro_rules! needing {
    ($($feature:ident: $($name:ident)*;)*) => {$($(
        pub(crate) fn $name(t: &mut Translator<'_>, i: &Insn) {
            if HostFeatures::get().$feature {
                host::$name(t, i);
            } else {
                t.call_handler(i);
            }
        }
    )*)*};
}

needing! {
    aes: aese aesd aesmc aesimc;
    pclmulqdq: pmull_64;
    sha: sha1c sha1p sha1m sha256h sha256h2 sha256su0 sha256su1;
}

/// The destination and the sources.
fn three(t: &mut Translator<'_>, i: &Insn) -> (Xmm, Xmm, Xmm) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    t.read_vector(i.rd);
    (t.write_vector(i.rd), x, y)
}

pub(crate) fn sha1h(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    rotate_left(t, T0, x, 30);
    let d = t.write_vector(i.rd);
    t.lanes_with(PAND, d, T0, constants::FIRST.plus(2));
}

/// `d` = the words of `a` rotated. Changes [`T2`]; `d` is not `a`.
fn rotate_left(t: &mut Translator<'_>, d: Xmm, a: Xmm, count: u8) {
    t.lanes_shift(PSLLD_IMM, d, a, count);
    t.lanes_shift(PSRLD_IMM, T2, a, 32 - count);
    t.lanes(POR, d, d, T2);
}

pub(crate) fn sha1su0(t: &mut Translator<'_>, i: &Insn) {
    let (d, n, m) = three(t, i);
    t.lanes_imm(SHUFPD, T0, d, n, 1);
    t.lanes(PXOR, T0, T0, m);
    t.lanes(PXOR, d, d, T0);
}

pub(crate) fn sha1su1(t: &mut Translator<'_>, i: &Insn) {
    let n = t.read_vector(i.rn);
    t.read_vector(i.rd);
    t.lanes_shift(PSRLDQ, T0, n, 4);
    let d = t.write_vector(i.rd);
    t.lanes(PXOR, T0, T0, d);
    rotate_left(t, d, T0, 1);
    // The last word depends on the first result of these: its rotation by one more.
    t.lanes_shift(PSLLDQ, T0, T0, 12);
    rotate_left(t, T1, T0, 2);
    t.lanes(PXOR, d, d, T1);
}

mod host {
    use super::*;

    /// PSHUFD: words in reverse order, as the host has its state.
    const REVERSE: u8 = 0x1b;

    /// The host's last rounds do the same in another order: they add the key at the end. Its other rounds do what the
    /// guest does with a second instruction, `mix`, if that follows.
    fn round(t: &mut Translator<'_>, i: &Insn, last: Binary, inner: Binary, mix: Op) {
        let n = t.read_vector(i.rn);
        t.read_vector(i.rd);
        let d = t.write_vector(i.rd);
        t.lanes(PXOR, d, d, n);
        t.clear(T0);
        let mixes = t.next().is_some_and(|next| next.op == mix && next.rd == i.rd && next.rn == i.rd);
        if mixes {
            t.skip_next();
        }
        t.lanes(if mixes { inner } else { last }, d, d, T0);
    }

    pub(super) fn aese(t: &mut Translator<'_>, i: &Insn) {
        round(t, i, AESENCLAST, AESENC, Op::Aesmc);
    }

    pub(super) fn aesd(t: &mut Translator<'_>, i: &Insn) {
        round(t, i, AESDECLAST, AESDEC, Op::Aesimc);
    }

    /// A whole round after the inverse of its other parts.
    pub(super) fn aesmc(t: &mut Translator<'_>, i: &Insn) {
        let n = t.read_vector(i.rn);
        t.clear(T0);
        let d = t.write_vector(i.rd);
        t.lanes(AESDECLAST, d, n, T0);
        t.lanes(AESENC, d, d, T0);
    }

    pub(super) fn aesimc(t: &mut Translator<'_>, i: &Insn) {
        let n = t.read_vector(i.rn);
        let d = t.write_vector(i.rd);
        t.lanes_unary(AESIMC, d, n);
    }

    pub(super) fn pmull_64(t: &mut Translator<'_>, i: &Insn) {
        let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
        let d = t.write_vector(i.rd);
        t.lanes_imm(PCLMULQDQ, d, x, y, if i.b == 1 { 0x11 } else { 0 });
    }

    /// Four rounds. The host adds the round constant that the guest has added already, and the fifth word of the state
    /// to the first word of the schedule.
    fn sha1_rounds(t: &mut Translator<'_>, i: &Insn, function: u8) {
        let (d, n, m) = three(t, i);
        t.lanes_with(PSUBD, T1, m, constants::SHA1_K.plus(function));
        t.lanes_with(PAND, T0, n, constants::FIRST.plus(2));
        t.lanes(PADDD, T1, T1, T0);
        t.lanes_unary_imm(PSHUFD, T1, T1, REVERSE);
        t.lanes_unary_imm(PSHUFD, d, d, REVERSE);
        t.asm.sse_imm(SHA1RNDS4, d, T1, function);
        t.lanes_unary_imm(PSHUFD, d, d, REVERSE);
    }

    pub(super) fn sha1c(t: &mut Translator<'_>, i: &Insn) {
        sha1_rounds(t, i, 0);
    }

    pub(super) fn sha1p(t: &mut Translator<'_>, i: &Insn) {
        sha1_rounds(t, i, 1);
    }

    pub(super) fn sha1m(t: &mut Translator<'_>, i: &Insn) {
        sha1_rounds(t, i, 2);
    }

    /// SHUFPS: what the host calls ABEF of the state's two vectors, and back from the two of these.
    const ABEF: u8 = 0x11;
    /// CDGH.
    const CDGH: u8 = 0xbb;

    /// Four rounds on the state `x` (a to d) and `y` (e to h): ABEF to [`T2`] and CDGH to [`T1`].
    fn sha256_rounds(t: &mut Translator<'_>, i: &Insn, x: Xmm, y: Xmm) {
        let m = t.read_vector(i.rm);
        t.lanes_imm(SHUFPS, T1, y, x, CDGH);
        t.lanes_imm(SHUFPS, T2, y, x, ABEF);
        // The two words of the schedule are taken from XMM0.
        t.copy(T0, m);
        t.asm.sse(SHA256RNDS2, T1, T2);
        t.lanes_unary_imm(PSHUFD, T0, m, UPPER_HALF);
        // What was ABEF before the last two rounds is CDGH after them.
        t.asm.sse(SHA256RNDS2, T2, T1);
    }

    /// Writes half of the state to `n`: the words a to d are where c, d, g, h were taken from.
    fn write_state(t: &mut Translator<'_>, n: u8, words: u8) {
        let d = t.write_vector(n);
        t.lanes_imm(SHUFPS, d, T2, T1, words);
    }

    /// The other half of the state is what the next instruction computes, if that is SHA256H2 on a copy of the state as it
    /// was. Both are at hand then.
    pub(super) fn sha256h(t: &mut Translator<'_>, i: &Insn) {
        let (x, y) = (t.read_vector(i.rd), t.read_vector(i.rn));
        sha256_rounds(t, i, x, y);
        let other = t.next().filter(|next| {
            next.op == Op::Sha256h2
                && (next.rd, next.rm) == (i.rn, i.rm)
                && ![i.rd, i.rn].contains(&i.rm)
                && ![i.rn, next.rn].contains(&i.rd)
        });
        write_state(t, i.rd, CDGH);
        if let Some(other) = other.filter(|next| t.is_copy(next.rn, i.rd)) {
            write_state(t, other.rd, ABEF);
            t.skip_next();
        }
    }

    pub(super) fn sha256h2(t: &mut Translator<'_>, i: &Insn) {
        let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rd));
        sha256_rounds(t, i, x, y);
        write_state(t, i.rd, ABEF);
    }

    pub(super) fn sha256su0(t: &mut Translator<'_>, i: &Insn) {
        let n = t.read_vector(i.rn);
        t.read_vector(i.rd);
        let d = t.write_vector(i.rd);
        t.asm.sse(SHA256MSG1, d, n);
    }

    pub(super) fn sha256su1(t: &mut Translator<'_>, i: &Insn) {
        let (d, n, m) = three(t, i);
        t.lanes_imm(PALIGNR, T0, m, n, 4);
        t.lanes(PADDD, T0, T0, d);
        t.asm.sse(SHA256MSG2, T0, m);
        t.copy(d, T0);
    }
}
