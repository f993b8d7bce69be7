//! Loads and stores of general and vector registers: one function per addressing form, generic over what moves.
//!
//! Arm ARM C3.2. The base register is written back after the access, so an access that faults changes nothing.

use crate::insn::Insn;
use crate::mem::Scalar;
use crate::state::SP;
use crate::{Cpu, Exception};

/// What is transferred between memory and a general register.
pub(crate) trait Element {
    /// Its type in memory.
    type Mem: Scalar;
    /// The register's value after a load.
    fn extend(value: Self::Mem) -> u64;
    /// What a store puts into memory.
    fn cut(register: u64) -> Self::Mem;
}

macro_rules! elements {
    ($($name:ident: $mem:ty, $extend:expr;)*) => {$(
        #[doc = concat!("As the name says, from `", stringify!($mem), "`.")]
        pub(crate) struct $name;
        impl Element for $name {
            type Mem = $mem;
            #[inline(always)]
            fn extend(value: $mem) -> u64 {
                let f: fn($mem) -> u64 = $extend;
                f(value)
            }
            #[inline(always)]
            fn cut(register: u64) -> $mem {
                register as $mem
            }
        }
    )*};
}

elements! {
    U8: u8, u64::from;
    U16: u16, u64::from;
    U32: u32, u64::from;
    U64: u64, |v| v;
    S8: u8, |v| i64::from(v.cast_signed()).cast_unsigned();
    S16: u16, |v| i64::from(v.cast_signed()).cast_unsigned();
    S32: u32, |v| i64::from(v.cast_signed()).cast_unsigned();
    S8w: u8, |v| i32::from(v.cast_signed()).cast_unsigned().into();
    S16w: u16, |v| i32::from(v.cast_signed()).cast_unsigned().into();
}

/// The base register's value, after CheckSPAlignment if it is SP.
#[inline(always)]
pub(crate) fn base(cpu: &mut Cpu, i: &Insn) -> Result<u64, Exception> {
    if i.rn == SP {
        cpu.check_stack_pointer()?;
    }
    Ok(cpu.x(i.rn))
}

/// Index register, zero-extended from 32 bits and shifted.
#[inline(always)]
fn uxtw(cpu: &Cpu, i: &Insn) -> u64 {
    u64::from(cpu.w(i.rm)) << (i.a & 7)
}

/// Index register, sign-extended from 32 bits and shifted.
#[inline(always)]
fn sxtw(cpu: &Cpu, i: &Insn) -> u64 {
    i64::from(cpu.w(i.rm).cast_signed()).cast_unsigned() << (i.a & 7)
}

/// Index register, shifted: LSL and SXTX.
#[inline(always)]
fn index(cpu: &Cpu, i: &Insn) -> u64 {
    cpu.x(i.rm) << (i.a & 7)
}

/// Writes an addressing form for loads and for stores, of general and of vector registers.
macro_rules! form {
    ($load:ident $store:ident $vload:ident $vstore:ident, |$cpu:ident, $i:ident, $base:ident| $va:expr $(, writeback $wb:expr)?) => {
        #[inline(always)]
        pub(crate) fn $load<E: Element>($cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base($cpu, $i)?;
            let value = $cpu.load::<E::Mem>($va)?;
            $($cpu.set_x($i.rn, $wb);)?
            $cpu.set_x($i.rd, E::extend(value));
            Ok(())
        }

        #[inline(always)]
        pub(crate) fn $store<E: Element>($cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base($cpu, $i)?;
            $cpu.store::<E::Mem>($va, E::cut($cpu.x($i.rd)))?;
            $($cpu.set_x($i.rn, $wb);)?
            Ok(())
        }

        pub(crate) fn $vload<T: Scalar>($cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base($cpu, $i)?;
            let value = $cpu.load::<T>($va)?;
            $($cpu.set_x($i.rn, $wb);)?
            $cpu.set_v($i.rd, value.to_u128());
            Ok(())
        }

        pub(crate) fn $vstore<T: Scalar>($cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base($cpu, $i)?;
            $cpu.store::<T>($va, T::from_u128($cpu.v($i.rd)))?;
            $($cpu.set_x($i.rn, $wb);)?
            Ok(())
        }
    };
}

form!(load_offset store_offset vector_load_offset vector_store_offset, |cpu, i, base| base.wrapping_add(i.imm));
form!(load_post store_post vector_load_post vector_store_post, |cpu, i, base| base, writeback base.wrapping_add(i.imm));
form!(load_pre store_pre vector_load_pre vector_store_pre, |cpu, i, base| base.wrapping_add(i.imm),
    writeback base.wrapping_add(i.imm));
form!(load_reg store_reg vector_load_reg vector_store_reg, |cpu, i, base| base.wrapping_add(index(cpu, i)));
form!(load_uxtw store_uxtw vector_load_uxtw vector_store_uxtw, |cpu, i, base| base.wrapping_add(uxtw(cpu, i)));
form!(load_sxtw store_sxtw vector_load_sxtw vector_store_sxtw, |cpu, i, base| base.wrapping_add(sxtw(cpu, i)));

/// LDR (literal): the address is known when the instruction is decoded.
#[inline(always)]
pub(crate) fn load_literal<E: Element>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let value = cpu.load::<E::Mem>(i.imm)?;
    cpu.set_x(i.rd, E::extend(value));
    Ok(())
}

pub(crate) fn vector_load_literal<T: Scalar>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let value = cpu.load::<T>(i.imm)?;
    cpu.set_v(i.rd, value.to_u128());
    Ok(())
}

/// LDTR and its kin.
#[inline(always)]
pub(crate) fn load_unprivileged<E: Element>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?.wrapping_add(i.imm);
    let value = cpu.load_unprivileged::<E::Mem>(va)?;
    cpu.set_x(i.rd, E::extend(value));
    Ok(())
}

/// STTR and its kin.
#[inline(always)]
pub(crate) fn store_unprivileged<E: Element>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?.wrapping_add(i.imm);
    cpu.store_unprivileged::<E::Mem>(va, E::cut(cpu.x(i.rd)))
}

/// Writes an addressing form for pairs.
macro_rules! pair_form {
    ($load:ident $store:ident $vload:ident $vstore:ident, |$i:ident, $base:ident| $va:expr $(, writeback $wb:expr)?) => {
        #[inline(always)]
        pub(crate) fn $load<E: Element>(cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base(cpu, $i)?;
            let (first, second) = cpu.load_pair::<E::Mem>($va)?;
            $(cpu.set_x($i.rn, $wb);)?
            cpu.set_x($i.rd, E::extend(first));
            cpu.set_x($i.ra, E::extend(second));
            Ok(())
        }

        #[inline(always)]
        pub(crate) fn $store<E: Element>(cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base(cpu, $i)?;
            cpu.store_pair::<E::Mem>($va, E::cut(cpu.x($i.rd)), E::cut(cpu.x($i.ra)))?;
            $(cpu.set_x($i.rn, $wb);)?
            Ok(())
        }

        pub(crate) fn $vload<T: Scalar>(cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base(cpu, $i)?;
            let (first, second) = cpu.load_pair::<T>($va)?;
            $(cpu.set_x($i.rn, $wb);)?
            cpu.set_v($i.rd, first.to_u128());
            cpu.set_v($i.ra, second.to_u128());
            Ok(())
        }

        pub(crate) fn $vstore<T: Scalar>(cpu: &mut Cpu, $i: &Insn) -> Result<(), Exception> {
            let $base = base(cpu, $i)?;
            cpu.store_pair::<T>($va, T::from_u128(cpu.v($i.rd)), T::from_u128(cpu.v($i.ra)))?;
            $(cpu.set_x($i.rn, $wb);)?
            Ok(())
        }
    };
}

pair_form!(load_pair store_pair vector_load_pair vector_store_pair, |i, base| base.wrapping_add(i.imm));
pair_form!(load_pair_post store_pair_post vector_load_pair_post vector_store_pair_post, |i, base| base,
    writeback base.wrapping_add(i.imm));
pair_form!(load_pair_pre store_pair_pre vector_load_pair_pre vector_store_pair_pre, |i, base| base.wrapping_add(i.imm),
    writeback base.wrapping_add(i.imm));

/// PRFM: a hint that we don't take. It never faults, not even for a misaligned SP.
#[inline(always)]
pub(crate) fn prefetch(_cpu: &mut Cpu, _i: &Insn) {}
