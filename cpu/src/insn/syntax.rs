//! What the table's syntax templates print: registers, hexadecimal numbers, conditions.

use std::fmt;

macro_rules! register {
    ($($name:ident: $prefix:literal, $last:literal;)*) => {$(
        pub(super) struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0 == 31 { f.write_str($last) } else { write!(f, concat!($prefix, "{}"), self.0) }
            }
        }
    )*};
}

register! {
    X: "x", "xzr";
    W: "w", "wzr";
    Xsp: "x", "sp";
    Wsp: "w", "wsp";
    V: "v", "v31";
    B: "b", "b31";
    H: "h", "h31";
    S: "s", "s31";
    D: "d", "d31";
    Q: "q", "q31";
}

/// A number in hexadecimal.
pub(super) struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A condition's name.
pub(super) struct Cond(pub u32);

impl fmt::Display for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 16] =
            ["eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv"];
        f.write_str(NAMES[self.0 as usize & 15])
    }
}

/// A general register of 64 bits if the second number is not zero, else of 32.
pub(super) struct Xw(pub u32, pub u32);

impl fmt::Display for Xw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1 != 0 { X(self.0).fmt(f) } else { W(self.0).fmt(f) }
    }
}

/// The letter of a 2-bit rounding mode.
pub(super) struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["n", "p", "m", "z"][self.0 as usize & 3])
    }
}

/// The letter of a signed (0) or unsigned (1) operation.
pub(super) struct Su(pub u32);

impl fmt::Display for Su {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == 0 { "s" } else { "u" })
    }
}

/// The `e` of comparisons that signal on quiet NaNs.
pub(super) struct E(pub u32);

impl fmt::Display for E {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == 0 { "" } else { "e" })
    }
}

/// The extended register of an addition: `w3, uxtb`.
pub(super) struct Extended(pub u32, pub u32, pub u32);

impl fmt::Display for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SIZES: [&str; 4] = ["b", "h", "w", "x"];
        let sign = if self.0 == 0 { 'u' } else { 's' };
        let size = SIZES[self.1 as usize & 3];
        if self.1 == 3 {
            write!(f, "{}, {sign}xt{size}", X(self.2))
        } else {
            write!(f, "{}, {sign}xt{size}", W(self.2))
        }
    }
}

/// A shift amount that is left out when zero.
pub(super) struct Amount(pub u32);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " #{}", self.0) }
    }
}

/// A bitmask immediate at the instruction's width.
pub(super) fn mask_text<const WIDTH: u32>(n: u32, imms: u32, immr: u32) -> u64 {
    super::bitmask_or_zero(n, imms, immr) >> (64 - WIDTH)
}

/// A signed offset in decimal.
pub(super) struct Signed(pub u64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cast_signed().fmt(f)
    }
}

/// A system register by its generic name.
pub(super) struct Sys(pub u32, pub u32, pub u32, pub u32, pub u32);

impl fmt::Display for Sys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(op0, op1, crn, crm, op2) = self;
        write!(f, "s{op0}_{op1}_c{crn}_c{crm}_{op2}")
    }
}

/// The arrangement of a vector of bytes: 8 or, if the number is not zero, 16.
pub(super) struct Bytes(pub u32);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T(0, self.0).fmt(f)
    }
}

/// The arrangement of a vector: element size (log2 of bytes), and whether it has 128 bits.
pub(super) struct T(pub u32, pub u32);

impl fmt::Display for T {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = 8u32 << (self.1 & 1) >> (self.0 & 3);
        write!(f, "{lanes}{}", ["b", "h", "s", "d"][self.0 as usize & 3])
    }
}

/// A scalar in a vector register: its number and size (log2 of bytes).
pub(super) struct Sc(pub u32, pub u32);

impl fmt::Display for Sc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", ["b", "h", "s", "d"][self.1 as usize & 3], self.0)
    }
}
