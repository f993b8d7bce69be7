//! Loads and stores of a CPU that is not ours, made on the bus: for KVM, where the hardware does not describe them.
//!
//! For an access outside RAM the CPU tells a hypervisor register, size and direction only if the instruction transfers
//! one general register without writing its base back (Arm ARM DDI 0487, ESR_EL2.ISS.ISV). Here are the others that
//! software uses on device memory: pairs, writeback, SIMD&FP registers. What an instruction moves, and where, is what
//! the instruction table says ([`Row::access`](crate::insn::Row::access)). Deliberately absent, so that the guest gets an
//! external abort: exclusives, atomics and ordered accesses, which no device of this machine takes, literals,
//! structures (LD1 and its kin), SVE, and accesses that leave a page.

use std::convert::Infallible;

use hw::{BusError, Pa};

use crate::insn::{Access, Addressing, Extend, Memory, Slot, decode};
use crate::state::SP;
use crate::{Bus, Features};

/// What an instruction transfers. Register numbers are those of the decoder: the zero register has none below 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    load: bool,
    access: Access,
    /// Of SIMD&FP registers.
    vector: bool,
    rt: u8,
    /// The second register of a pair.
    rt2: Option<u8>,
    rn: u8,
    /// The index register and by how much it is shifted.
    rm: u8,
    shift: u8,
    imm: u64,
}

/// The registers of the vCPU that executes the instruction.
pub trait RegisterFile {
    /// What reading and writing may fail with.
    type Error;

    /// Xn, for n up to 30.
    fn x(&self, n: u8) -> Result<u64, Self::Error>;

    /// Sets Xn, for n up to 30.
    fn set_x(&mut self, n: u8, value: u64) -> Result<(), Self::Error>;

    /// The stack pointer in use.
    fn sp(&self) -> Result<u64, Self::Error>;

    /// Sets the stack pointer in use.
    fn set_sp(&mut self, value: u64) -> Result<(), Self::Error>;

    /// Vn.
    fn v(&self, n: u8) -> Result<u128, Self::Error>;

    /// Sets Vn.
    fn set_v(&mut self, n: u8, value: u128) -> Result<(), Self::Error>;
}

/// Registers that are all at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// V0 to V31.
    pub v: [u128; 32],
}

impl RegisterFile for Registers {
    type Error = Infallible;

    fn x(&self, n: u8) -> Result<u64, Infallible> {
        Ok(self.x[usize::from(n)])
    }

    fn set_x(&mut self, n: u8, value: u64) -> Result<(), Infallible> {
        self.x[usize::from(n)] = value;
        Ok(())
    }

    fn sp(&self) -> Result<u64, Infallible> {
        Ok(self.sp)
    }

    fn set_sp(&mut self, value: u64) -> Result<(), Infallible> {
        self.sp = value;
        Ok(())
    }

    fn v(&self, n: u8) -> Result<u128, Infallible> {
        Ok(self.v[usize::from(n)])
    }

    fn set_v(&mut self, n: u8, value: u128) -> Result<(), Infallible> {
        self.v[usize::from(n)] = value;
        Ok(())
    }
}

impl Transfer {
    /// The transfer that `word` asks for, if it is one of those that are made here.
    #[must_use]
    pub fn decode(word: u32) -> Option<Self> {
        // No address depends on that of the instruction: literals are not made here.
        let insn = decode(word, 0, Features::BASE, false);
        let row = insn.op.row()?;
        let access = row.access.filter(|access| access.addressing != Addressing::Literal)?;
        let rt = row.register(Slot::Rd)?;
        Some(Self {
            load: row.memory == Memory::Load,
            access,
            vector: rt.role.is_vector(),
            rt: insn.rd,
            rt2: row.register(Slot::Ra).map(|_| insn.ra),
            rn: insn.rn,
            rm: insn.rm,
            shift: insn.a,
            imm: insn.imm,
        })
    }

    /// Makes the transfer at physical address `pa`, and tells if it could be made. If not, no register has changed.
    ///
    /// # Errors
    /// Those of the registers.
    pub fn perform<R: RegisterFile>(
        &self,
        pa: Pa,
        registers: &mut R,
        bus: &dyn Bus,
    ) -> Result<bool, R::Error> {
        let bytes = usize::from(self.access.bytes);
        let len = bytes * if self.rt2.is_some() { 2 } else { 1 };
        let in_page = (pa.0 & 0xfff) as usize;
        let base = if self.rn == SP { registers.sp()? } else { registers.x(self.rn)? };
        let moved = base.wrapping_add(self.offset(registers)?);
        let va = if self.access.addressing == Addressing::Post { base } else { moved };
        // The hardware tells where the fault is: with the start of the access in RAM, that is not its start.
        if va & 0xfff != pa.0 & 0xfff || in_page + len > 0x1000 {
            return Ok(false);
        }
        let mut data = [0; 32];
        let data = &mut data[..len];
        let made = if self.load {
            let made = on_bus(pa, data.chunks_mut(16), |pa, part| bus.read(pa, part));
            if made {
                self.put(self.rt, &data[..bytes], registers)?;
                if let Some(rt2) = self.rt2 {
                    self.put(rt2, &data[bytes..], registers)?;
                }
            }
            made
        } else {
            self.get(self.rt, &mut data[..bytes], registers)?;
            if let Some(rt2) = self.rt2 {
                self.get(rt2, &mut data[bytes..], registers)?;
            }
            on_bus(pa, data.chunks(16), |pa, part| bus.write(pa, part))
        };
        if made && matches!(self.access.addressing, Addressing::Pre | Addressing::Post) {
            if self.rn == SP {
                registers.set_sp(moved)?;
            } else {
                registers.set_x(self.rn, moved)?;
            }
        }
        Ok(made)
    }

    /// What is added to the base, before or after the access.
    fn offset<R: RegisterFile>(&self, registers: &R) -> Result<u64, R::Error> {
        let index = || general(self.rm, registers);
        let extended = match self.access.addressing {
            Addressing::Reg => index()?,
            Addressing::Uxtw => u64::from(index()? as u32),
            Addressing::Sxtw => i64::from(index()? as i32) as u64,
            _ => return Ok(self.imm),
        };
        Ok(extended << self.shift)
    }

    fn get<R: RegisterFile>(&self, rt: u8, data: &mut [u8], registers: &R) -> Result<(), R::Error> {
        let value = if self.vector { registers.v(rt)? } else { u128::from(general(rt, registers)?) };
        let len = data.len();
        data.copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    }

    fn put<R: RegisterFile>(&self, rt: u8, data: &[u8], registers: &mut R) -> Result<(), R::Error> {
        let mut bytes = [0; 16];
        bytes[..data.len()].copy_from_slice(data);
        let value = u128::from_le_bytes(bytes);
        if self.vector {
            return registers.set_v(rt, value);
        }
        let signed = || {
            let unused = 64 - 8 * data.len() as u32;
            ((value as u64) << unused) as i64 >> unused
        };
        let extended = match self.access.extend {
            Extend::Zero => value as u64,
            Extend::Sign32 => u64::from(signed() as u32),
            Extend::Sign64 => signed() as u64,
        };
        // The zero register drops it.
        if rt < SP { registers.set_x(rt, extended) } else { Ok(()) }
    }
}

/// A general register that is no base: one without a number below 31 is zero.
fn general<R: RegisterFile>(n: u8, registers: &R) -> Result<u64, R::Error> {
    if n < SP { registers.x(n) } else { Ok(0) }
}

/// Gives the bus one part after the other; false at the first that it does not take.
fn on_bus<P: AsRef<[u8]>>(
    pa: Pa,
    parts: impl Iterator<Item = P>,
    mut access: impl FnMut(Pa, P) -> Result<(), BusError>,
) -> bool {
    let mut at = pa;
    for part in parts {
        let len = part.as_ref().len() as u64;
        if access(at, part).is_err() {
            return false;
        }
        at = Pa(at.0 + len);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::insn::{ROWS, op_of};
    use crate::testbed::{Bench, DEVICE, RAM};

    const REGISTERS: u64 = 0x1000_0300;

    /// Registers whose bytes are 0x80, 0x81 and so on, and what was written to them.
    #[derive(Default)]
    struct Device(Mutex<Vec<(u64, Vec<u8>)>>);

    impl Bus for Device {
        fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError> {
            for (byte, at) in data.iter_mut().zip(pa.0..) {
                *byte = 0x80 + (at - REGISTERS) as u8;
            }
            Ok(())
        }
        fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError> {
            if pa.0 < REGISTERS {
                return Err(BusError::NoRegister(pa.0));
            }
            self.0.lock().unwrap().push((pa.0, data.to_vec()));
            Ok(())
        }
    }

    /// x1 is the base, at the device's first register; x2 is 2, x3 and x4 are to be stored.
    fn file() -> Registers {
        let mut file = Registers { x: [0; 31], sp: 0, v: [0; 32] };
        file.x[1] = 0xffff_8000_1234_5300;
        file.x[2] = 2;
        file.x[3] = 0x1716_1514_1312_1110;
        file.x[4] = 0x2726_2524_2322_2120;
        file.v[3] = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110;
        file
    }

    /// Executes an instruction whose access starts `offset` bytes behind the device's first register.
    fn execute(word: u32, offset: u64) -> (Registers, Vec<(u64, Vec<u8>)>) {
        let (mut file, device) = (file(), Device::default());
        let transfer = Transfer::decode(word).expect("a transfer");
        assert_eq!(transfer.perform(Pa(REGISTERS + offset), &mut file, &device), Ok(true));
        (file, device.0.into_inner().unwrap())
    }

    fn bytes(first: u8, count: u8) -> Vec<u8> {
        (first..first + count).collect()
    }

    #[test]
    fn store_pair_reaches_the_device_in_one_piece() {
        let both = [bytes(0x10, 8), bytes(0x20, 8)].concat();
        // stp x3, x4, [x1]; stp x3, x4, [x1, #16]; stnp x3, x4, [x1]
        assert_eq!(execute(0xa900_1023, 0).1, [(REGISTERS, both.clone())]);
        assert_eq!(execute(0xa901_1023, 16).1, [(REGISTERS + 16, both.clone())]);
        assert_eq!(execute(0xa800_1023, 0).1, [(REGISTERS, both)]);
        // stp w3, wzr, [x1]
        assert_eq!(execute(0x2900_7c23, 0).1, [(REGISTERS, vec![0x10, 0x11, 0x12, 0x13, 0, 0, 0, 0])]);
    }

    #[test]
    fn load_pair_fills_both_registers() {
        // ldp x5, x6, [x1]
        let (file, _) = execute(0xa940_1825, 0);
        assert_eq!((file.x[5], file.x[6]), (0x8786_8584_8382_8180, 0x8f8e_8d8c_8b8a_8988));
        // ldpsw x5, x6, [x1]
        let (file, _) = execute(0x6940_1825, 0);
        assert_eq!((file.x[5], file.x[6]), (0xffff_ffff_8382_8180, 0xffff_ffff_8786_8584));
        // ldp q5, q6, [x1]
        let (file, _) = execute(0xad40_1825, 0);
        assert_eq!(file.v[5], 0x8f8e_8d8c_8b8a_8988_8786_8584_8382_8180);
        assert_eq!(file.v[6] as u64, 0x9796_9594_9392_9190);
    }

    #[test]
    fn writeback_moves_the_base_after_or_before_the_access() {
        let base = file().x[1];
        // str w3, [x1], #4
        let (after, written) = execute(0xb800_4423, 0);
        assert_eq!((after.x[1], written[0].0), (base + 4, REGISTERS));
        // str w3, [x1, #8]!
        let (after, written) = execute(0xb800_8c23, 8);
        assert_eq!((after.x[1], written[0].0), (base + 8, REGISTERS + 8));
        // ldp x5, x6, [x1, #-16]!
        let transfer = Transfer::decode(0xa9ff_1825).unwrap();
        let mut file = file();
        file.x[1] += 32;
        assert_eq!(transfer.perform(Pa(REGISTERS + 16), &mut file, &Device::default()), Ok(true));
        assert_eq!((file.x[1], file.x[5] as u8), (base + 16, 0x90));
    }

    #[test]
    fn stack_pointer_is_a_base_and_not_a_source() {
        let mut file = file();
        file.sp = 0x5300;
        // str wzr, [sp], #4
        let transfer = Transfer::decode(0xb800_47ff).unwrap();
        let device = Device::default();
        assert_eq!(transfer.perform(Pa(REGISTERS), &mut file, &device), Ok(true));
        assert_eq!(file.sp, 0x5304);
        assert_eq!(*device.0.lock().unwrap(), [(REGISTERS, vec![0; 4])]);
    }

    #[test]
    fn vector_registers_transfer_every_size() {
        // str b3; str h3; str s3; str d3; str q3: [x1]
        for (word, len) in
            [(0x3d00_0023, 1), (0x7d00_0023, 2), (0xbd00_0023, 4), (0xfd00_0023, 8), (0x3d80_0023, 16)]
        {
            assert_eq!(execute(word, 0).1, [(REGISTERS, bytes(0x10, len))]);
        }
        // ldr s3, [x1, x2, lsl #2]: the rest of the register becomes zero.
        assert_eq!(execute(0xbc62_7823, 8).0.v[3], 0x8b8a_8988);
    }

    #[test]
    fn narrow_loads_extend_as_they_say() {
        // ldrb w5; ldrsb x5; ldrsb w5; ldrsw x5, all [x1], post-index by 1
        for (word, value) in [
            (0x3840_1425, 0x80),
            (0x3880_1425, 0xffff_ffff_ffff_ff80),
            (0x38c0_1425, 0xffff_ff80),
            (0xb880_1425, 0xffff_ffff_8382_8180),
        ] {
            assert_eq!(execute(word, 0).0.x[5], value);
        }
    }

    #[test]
    fn other_instructions_are_no_transfers() {
        // ldxr, ldadd, ld1, ldr literal, prfm, dc zva, nop, stgp, unallocated option
        for word in [
            0x885f_7c20,
            0xb820_0020,
            0x4c40_7020,
            0x5800_0000,
            0xf980_0020,
            0xd50b_7420,
            0xd503_201f,
            0x6900_0020,
            0xb822_0823,
        ] {
            assert_eq!(Transfer::decode(word), None, "{word:#x}");
        }
    }

    #[test]
    fn rows_that_move_registers_are_transfers_unless_literal() {
        for row in ROWS.iter().filter(|row| row.feature == crate::insn::Feature::Base) {
            let is_ours = row.access.is_some_and(|access| access.addressing != Addressing::Literal);
            // Fields of zeros: no UNDEFINED word and no special case of another row.
            if op_of(row.value, Features::BASE) == row.op {
                assert_eq!(Transfer::decode(row.value).is_some(), is_ours, "{}", row.name);
            } else {
                assert!(!is_ours, "{}", row.name);
            }
        }
    }

    #[test]
    fn access_that_cannot_be_made_changes_no_register() {
        // stp x3, x4, [x1], #16
        let transfer = Transfer::decode(0xa881_1023).unwrap();
        let device = Device::default();
        // It started before the address that faulted; it leaves the page; nothing answers there.
        for pa in [REGISTERS + 8, REGISTERS | 0xff8, REGISTERS - 0x1000] {
            let mut file = file();
            if pa & 0xfff == 0xff8 {
                file.x[1] |= 0xff8;
            }
            let base = file.x[1];
            assert_eq!(transfer.perform(Pa(pa), &mut file, &device), Ok(false), "{pa:#x}");
            assert_eq!(file.x[1], base);
        }
        assert!(device.0.lock().unwrap().is_empty());
    }

    #[test]
    fn every_word_decodes_or_not_without_a_panic() {
        let mut word = 0x1234_5678u32;
        let mut file = file();
        for _ in 0..200_000 {
            word = word.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            if let Some(transfer) = Transfer::decode(word) {
                let pa = REGISTERS + u64::from(word >> 20);
                let _ = transfer.perform(Pa(pa), &mut file, &Device::default());
            }
        }
    }

    /// Some thousand words against the engine, which executes the same instructions by its own handlers.
    #[test]
    fn every_transfer_does_what_the_engine_does() {
        const VA: u64 = DEVICE + 0x200;
        let bench = Bench::new(1);
        let mut cpu = bench.cpu(0);
        cpu.state.sys.cpacr = 3 << 20; // FPEN: no trap
        let (mut random, mut at, mut compared) = (0x1234_5678_9abc_def0u64, RAM, 0);
        let mut next = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            random >> 16
        };
        while compared < 4000 {
            // Bits [29:27] and [25] of a load or store, of a pair or not.
            let word = next() as u32 & !0x3a00_0000 | if next() & 1 == 0 { 0x2800_0000 } else { 0x3800_0000 };
            let Some(transfer) = Transfer::decode(word) else { continue };
            let op = op_of(word, Features::default());
            let Some(row) = op.row() else { panic!("{word:#010x} is no instruction of the engine's") };
            let rm = row.register(Slot::Rm).map(|_| transfer.rm);
            // x0 is lost below; a stack pointer must be aligned; other bases than the one computed here.
            let registers = [Some(transfer.rt), transfer.rt2, Some(transfer.rn), rm];
            let is_general = |n: &Option<u8>| *n == Some(0);
            if row.unpredictable(word) || registers.iter().any(is_general) || rm == Some(transfer.rn) {
                continue;
            }
            for n in 1..31 {
                cpu.state.x[n] = next() | next() << 32;
            }
            for vector in &mut cpu.state.v {
                *vector = u128::from(next()) << 80 | u128::from(next());
            }
            if let Some(rm) = rm.filter(|&rm| rm < 31) {
                cpu.state.x[usize::from(rm)] = next() & 0x70;
            }
            let mut file = Registers { x: [0; 31], sp: 0, v: cpu.state.v };
            file.x.copy_from_slice(&cpu.state.x[..31]);
            let offset = transfer.offset(&file).unwrap_or_else(|never| match never {});
            let base =
                if transfer.access.addressing == Addressing::Post { VA } else { VA.wrapping_sub(offset) };
            if transfer.rn == 31 && base & 15 != 0 {
                continue;
            }
            cpu.state.x[usize::from(transfer.rn)] = base;
            if transfer.rn == 31 {
                file.sp = base;
            } else {
                cpu.state.x[31] = 0x1230;
                file.sp = 0x1230;
                file.x[usize::from(transfer.rn)] = base;
            }
            let made = transfer.perform(Pa(VA), &mut file, &*bench.bus);
            assert_eq!(made, Ok(true), "{word:#010x}");
            let ours = std::mem::take(&mut *bench.bus.0.lock().unwrap());
            // Fresh memory for each, so that no block is decoded twice. Then power-off, by which x0 is lost.
            bench.code(at, &[word, 0x5280_0100, 0x72b0_8000, 0xd400_0002]);
            cpu.state.pc = at;
            at += 16;
            assert_eq!(cpu.run(), crate::Exit::SystemOff, "{word:#010x}");
            cpu.cluster.resume();
            let engines = std::mem::take(&mut *bench.bus.0.lock().unwrap());
            assert_eq!(ours, engines, "{word:#010x}");
            assert_eq!(file.x[1..], cpu.state.x[1..31], "{word:#010x}");
            assert_eq!((file.sp, file.v), (cpu.state.x[31], cpu.state.v), "{word:#010x}");
            compared += 1;
        }
    }
}
