//! The registers as GDB numbers them: those of its features org.gnu.gdb.aarch64.core and .fpu, which the packets `g` and
//! `G` carry, and behind them the engine's system registers by the architecture's names.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use gdbstub::arch::{Arch, RegId, Registers};

use crate::engine::debug::CoreRegisters;

/// An AArch64 vCPU. The crate `gdbstub_arch` has one too, whose description has the system registers of EL2 and EL3,
/// which are not there, and whose `g` packet has FPSR and FPCR in the other order.
#[derive(Debug)]
pub enum Aarch64 {}

impl Arch for Aarch64 {
    type Usize = u64;
    type Registers = CoreRegisters;
    type BreakpointKind = usize;
    type RegId = Register;
}

/// A register by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// X0 to X30.
    X(usize),
    /// SP.
    Sp,
    /// PC.
    Pc,
    /// PSTATE.
    Cpsr,
    /// V0 to V31.
    V(usize),
    /// FPSR.
    Fpsr,
    /// FPCR.
    Fpcr,
    /// A system register, by its place among the engine's.
    System(usize),
}

const SP: usize = 31;
const PC: usize = 32;
const CPSR: usize = 33;
const V0: usize = 34;
const FPSR: usize = 66;
const FPCR: usize = 67;
const SYSTEM: usize = 68;

impl Register {
    const fn bytes(self) -> usize {
        match self {
            Self::X(_) | Self::Sp | Self::Pc | Self::System(_) => 8,
            Self::V(_) => 16,
            Self::Cpsr | Self::Fpsr | Self::Fpcr => 4,
        }
    }
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = match id {
            0..SP => Self::X(id),
            SP => Self::Sp,
            PC => Self::Pc,
            CPSR => Self::Cpsr,
            V0..FPSR => Self::V(id - V0),
            FPSR => Self::Fpsr,
            FPCR => Self::Fpcr,
            _ if id - SYSTEM < cpu::debug_registers().count() => Self::System(id - SYSTEM),
            _ => return None,
        };
        Some((register, NonZeroUsize::new(register.bytes())))
    }
}

/// A number of a register's bytes, lowest first.
fn number(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

impl CoreRegisters {
    /// One of these, but for system registers.
    #[must_use]
    pub fn get(&self, register: Register) -> Option<u128> {
        Some(match register {
            Register::X(n) => (*self.general.x.get(n)?).into(),
            Register::Sp => self.general.sp.into(),
            Register::Pc => self.general.pc.into(),
            Register::Cpsr => u128::from(self.general.pstate as u32),
            Register::V(n) => *self.v.get(n)?,
            Register::Fpsr => self.fpsr.into(),
            Register::Fpcr => self.fpcr.into(),
            Register::System(_) => return None,
        })
    }

    /// Sets one of these, but for system registers.
    pub fn set(&mut self, register: Register, value: u128) {
        let word = value as u64;
        match register {
            Register::X(n) => self.general.x.iter_mut().skip(n).take(1).for_each(|x| *x = word),
            Register::Sp => self.general.sp = word,
            Register::Pc => self.general.pc = word,
            Register::Cpsr => self.general.pstate = u64::from(value as u32),
            Register::V(n) => self.v.iter_mut().skip(n).take(1).for_each(|v| *v = value),
            Register::Fpsr => self.fpsr = value as u32,
            Register::Fpcr => self.fpcr = value as u32,
            Register::System(_) => {}
        }
    }
}

fn core() -> impl Iterator<Item = Register> {
    (0..SYSTEM).filter_map(|id| Some(Register::from_raw_id(id)?.0))
}

impl Registers for CoreRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.general.pc
    }

    fn gdb_serialize(&self, mut write: impl FnMut(Option<u8>)) {
        for register in core() {
            let bytes = self.get(register).unwrap_or(0).to_le_bytes();
            bytes.iter().take(register.bytes()).for_each(|byte| write(Some(*byte)));
        }
    }

    fn gdb_deserialize(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        for register in core() {
            let (value, rest) = bytes.split_at_checked(register.bytes()).ok_or(())?;
            self.set(register, number(value));
            bytes = rest;
        }
        Ok(())
    }
}

/// A register's value from a packet, if it has the register's length.
pub(super) fn value_of(register: Register, bytes: &[u8]) -> Option<u128> {
    (bytes.len() == register.bytes()).then(|| number(bytes))
}

/// The first of a register's bytes.
pub(super) fn put(register: Register, value: u128, out: &mut [u8]) -> usize {
    let bytes = value.to_le_bytes();
    let len = register.bytes().min(out.len());
    out[..len].copy_from_slice(&bytes[..len]);
    len
}

/// What GDB is told of the registers: target.xml.
pub static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::from(concat!(
        r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">"#,
        r#"<target version="1.0"><architecture>aarch64</architecture>"#,
        r#"<feature name="org.gnu.gdb.aarch64.core">"#,
    ));
    // Writing to a string does not fail.
    let register = |xml: &mut String, name: &str, bits: usize, more: &str| {
        let _ = write!(xml, r#"<reg name="{name}" bitsize="{bits}" {more}/>"#);
    };
    for n in 0..SP {
        register(&mut xml, &format!("x{n}"), 64, r#"type="int""#);
    }
    register(&mut xml, "sp", 64, r#"type="data_ptr""#);
    register(&mut xml, "pc", 64, r#"type="code_ptr""#);
    xml.push_str(r#"<flags id="pstate" size="4">"#);
    for (name, first, last) in [
        ("SP", 0, 0),
        ("EL", 2, 3),
        ("F", 6, 6),
        ("I", 7, 7),
        ("A", 8, 8),
        ("D", 9, 9),
        ("IL", 20, 20),
        ("SS", 21, 21),
        ("PAN", 22, 22),
        ("V", 28, 28),
        ("C", 29, 29),
        ("Z", 30, 30),
        ("N", 31, 31),
    ] {
        let _ = write!(xml, r#"<field name="{name}" start="{first}" end="{last}"/>"#);
    }
    xml.push_str("</flags>");
    register(&mut xml, "cpsr", 32, r#"type="pstate""#);
    // The unions are those by which GDB's own scripts name a vector's parts: $v0.d.u[0].
    xml.push_str(concat!(
        r#"</feature><feature name="org.gnu.gdb.aarch64.fpu">"#,
        r#"<vector id="v2d" type="ieee_double" count="2"/><vector id="v2u" type="uint64" count="2"/>"#,
        r#"<vector id="v2i" type="int64" count="2"/><vector id="v4f" type="ieee_single" count="4"/>"#,
        r#"<vector id="v4u" type="uint32" count="4"/><vector id="v4i" type="int32" count="4"/>"#,
        r#"<vector id="v8u" type="uint16" count="8"/><vector id="v8i" type="int16" count="8"/>"#,
        r#"<vector id="v16u" type="uint8" count="16"/><vector id="v16i" type="int8" count="16"/>"#,
        r#"<union id="vnd"><field name="f" type="v2d"/><field name="u" type="v2u"/>"#,
        r#"<field name="s" type="v2i"/></union><union id="vns"><field name="f" type="v4f"/>"#,
        r#"<field name="u" type="v4u"/><field name="s" type="v4i"/></union>"#,
        r#"<union id="vnh"><field name="u" type="v8u"/><field name="s" type="v8i"/></union>"#,
        r#"<union id="vnb"><field name="u" type="v16u"/><field name="s" type="v16i"/></union>"#,
        r#"<union id="vnq"><field name="u" type="uint128"/><field name="s" type="int128"/></union>"#,
        r#"<union id="aarch64v"><field name="d" type="vnd"/><field name="s" type="vns"/>"#,
        r#"<field name="h" type="vnh"/><field name="b" type="vnb"/><field name="q" type="vnq"/></union>"#,
    ));
    for n in 0..32 {
        register(&mut xml, &format!("v{n}"), 128, r#"type="aarch64v""#);
    }
    register(&mut xml, "fpsr", 32, r#"type="int""#);
    register(&mut xml, "fpcr", 32, r#"type="int""#);
    xml.push_str(r#"</feature><feature name="org.warpvmm.aarch64.system">"#);
    for (n, name) in cpu::debug_registers().enumerate() {
        let more = format!(r#"regnum="{}" type="uint64" group="system" save-restore="no""#, SYSTEM + n);
        register(&mut xml, name, 64, &more);
    }
    xml.push_str("</feature></target>");
    xml
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_a_g_packet_come_back_as_they_were_and_in_gdbs_order() {
        let mut registers = CoreRegisters::default();
        for (n, register) in core().enumerate() {
            registers.set(register, u128::MAX / 3 + n as u128);
        }
        let mut bytes = Vec::new();
        registers.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        assert_eq!(bytes.len(), 33 * 8 + 4 + 32 * 16 + 2 * 4);
        let mut read = CoreRegisters::default();
        read.gdb_deserialize(&bytes).unwrap();
        assert_eq!(read, registers);
        assert!(read.gdb_deserialize(&bytes[1..]).is_err());
        registers.set(Register::Fpsr, 0x1122_3344);
        bytes.clear();
        registers.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        assert_eq!(bytes[bytes.len() - 8..][..4], [0x44, 0x33, 0x22, 0x11], "FPSR before FPCR");
    }

    #[test]
    fn every_number_in_the_description_is_a_register_of_its_length() {
        let mut next = 0;
        for part in DESCRIPTION.split("<reg ").skip(1) {
            let field = |name: &str| {
                let after = part.split_once(&format!("{name}=\""))?.1;
                Some(after.split_once('"')?.0)
            };
            let number = field("regnum").map_or(next, |number| number.parse().unwrap());
            assert_eq!(number, next, "{part}");
            let bits: usize = field("bitsize").unwrap().parse().unwrap();
            let (register, bytes) = Register::from_raw_id(number).unwrap();
            assert_eq!((register.bytes(), bytes.unwrap().get()), (bits / 8, bits / 8));
            next += 1;
        }
        assert_eq!(next, SYSTEM + cpu::debug_registers().count());
        assert!(Register::from_raw_id(next).is_none() && Register::from_raw_id(usize::MAX).is_none());
        assert!(DESCRIPTION.contains(r#"name="TTBR1_EL1""#));
    }
}
