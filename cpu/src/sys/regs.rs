//! The system registers: one table that says for each who may access it, where its value is, and what depends on it. Encodings and
//! masks are those of the declarations (`declared`). What is not in the table, and not in the identification space, is UNDEFINED.
//!
//! Arm ARM (DDI 0487) D17 and D19. The GIC's registers (ICC_*) belong to a device behind a seam. Deliberately absent: every register of a feature that the
//! identification registers do not advertise.

use hw::SysReg;

use super::debug::BREAKPOINT_BAS;
use super::declared::SystemReg;
use super::features::{self, id_value, is_id, mpidr};
use super::timer::{Timer, count_at};
use crate::exception::Exception;
use crate::state::{Flags, Pstate, SP, SysRegs, pending};
use crate::{Cpu, State};

/// SCTLR_EL1.
pub(crate) mod sctlr {
    /// EL0 may read and write the interrupt masks.
    pub(super) const UMA: u64 = 1 << 9;
    /// EL0 may execute DC ZVA.
    pub(crate) const DZE: u64 = 1 << 14;
    /// EL0 may read CTR_EL0.
    pub(super) const UCT: u64 = 1 << 15;
    /// EL0 may maintain caches by address.
    pub(crate) const UCI: u64 = 1 << 26;
    pub(super) const SPAN: u64 = 1 << 23;
    /// RES1.
    pub(super) const RES1: u64 = crate::state::SCTLR_RESET & !SPAN;
}

/// CNTKCTL_EL1: what EL0 may reach of the timers.
mod cntkctl {
    pub(super) const EL0PCTEN: u64 = 1 << 0;
    pub(super) const EL0VCTEN: u64 = 1 << 1;
    pub(super) const EL0VTEN: u64 = 1 << 8;
    pub(super) const EL0PTEN: u64 = 1 << 9;
}

impl SysRegs {
    /// The present ASID: of the TTBR that TCR_EL1.A1 selects, 8 or 16 bits by TCR_EL1.AS.
    #[must_use]
    pub const fn asid(&self) -> u16 {
        let ttbr = if self.tcr >> 22 & 1 != 0 { self.ttbr1 } else { self.ttbr0 };
        self.asid_of(ttbr)
    }

    /// The ASID in bits \[63:48\] of a register or TLBI operand.
    #[must_use]
    pub const fn asid_of(&self, value: u64) -> u16 {
        let asid = (value >> 48) as u16;
        if self.tcr >> 36 & 1 != 0 { asid } else { asid & 0xff }
    }

    /// Whether exceptions to EL1 leave PSTATE.PAN alone.
    #[must_use]
    pub const fn span(&self) -> bool {
        self.sctlr & sctlr::SPAN != 0
    }
}

/// What EL0 may do with a register.
#[derive(Clone, Copy)]
enum User {
    /// Nothing: UNDEFINED.
    Nothing,
    Read,
    ReadWrite,
    /// What a control register says; otherwise the access is trapped to EL1.
    If(fn(&SysRegs) -> bool),
    /// Likewise, but only to read; a write is UNDEFINED.
    ReadIf(fn(&SysRegs) -> bool),
}

/// What depends on a register that has been written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    /// Address translation.
    Translation,
    /// What blocks are made for: traps, and the process that breakpoints are for.
    Context,
    /// Step, breakpoints and watchpoints.
    Debug,
}

/// How a register is read and written at EL1.
#[derive(Clone, Copy)]
enum Kind {
    /// Always the value after reset; not writable.
    Constant,
    /// A word of [`SysRegs`], and bits that are always one.
    Stored(fn(&mut SysRegs) -> &mut u64, u64, Effect),
    /// Computed; not writable.
    ReadOnly(fn(&mut Cpu) -> u64),
    /// Not readable.
    WriteOnly(fn(&mut Cpu, u64)),
    ReadWrite(fn(&mut Cpu) -> u64, fn(&mut Cpu, u64)),
    /// SP_EL0, whose existence depends on PSTATE.SP.
    SpEl0,
}

struct Row {
    reg: SysReg,
    name: &'static str,
    /// Bits that software can change.
    writable: u64,
    reset: u64,
    user: User,
    kind: Kind,
}

/// Whether the GIC's CPU interface has the register: ICC_PMR_EL1, and CRn 12 from CRm 8.
const fn is_gic(reg: SysReg) -> bool {
    matches!(reg.fields(), (3, 0, 4, 6, 0) | (3, 0, 12, 8..=12, _))
}

macro_rules! rows {
    ($( $name:ident $user:expr, $kind:expr; )*) => {
        const ROWS: &[Row] = &[
            $( Row {
                reg: SystemReg::$name.encoding(),
                name: SystemReg::$name.name(),
                writable: SystemReg::$name.writable(),
                reset: SystemReg::$name.reset(),
                user: $user,
                kind: $kind,
            }, )*
        ];
    };
}

use Effect::{Context, Debug, None as Nowhere, Translation};
use Kind::{Constant, ReadOnly, ReadWrite, SpEl0, Stored, WriteOnly};
use User::{If, Nothing, Read, ReadIf};

rows! {
    // Identification; ID_* are apart: see `is_id`.
    MIDR_EL1 Nothing, Constant;
    MPIDR_EL1 Nothing, ReadOnly(|cpu| mpidr(cpu.index));
    REVIDR_EL1 Nothing, Constant;
    AIDR_EL1 Nothing, Constant;
    CCSIDR_EL1 Nothing, ReadOnly(|cpu| features::ccsidr(cpu.state.sys.csselr));
    CLIDR_EL1 Nothing, Constant;
    CSSELR_EL1 Nothing, Stored(|r| &mut r.csselr, 0, Nowhere);
    CTR_EL0 ReadIf(|r| r.sctlr & sctlr::UCT != 0), Constant;
    DCZID_EL0 Read, ReadOnly(dczid);

    // PSTATE.
    SPSel Nothing, ReadWrite(|cpu| u64::from(cpu.state.pstate.0 & Pstate::SP), |cpu, v| cpu.select_sp(v & 1 != 0));
    CurrentEL Nothing, ReadOnly(|cpu| u64::from(cpu.state.pstate.el()) << 2);
    PAN Nothing, ReadWrite(|cpu| u64::from(cpu.state.pstate.0 & Pstate::PAN), |cpu, v| cpu.set_pan(v >> 22 & 1 != 0));
    NZCV User::ReadWrite, ReadWrite(|cpu| u64::from(cpu.state.flags.nzcv()), |cpu, v| cpu.state.flags = Flags::from_nzcv(v as u32));
    DAIF If(|r| r.sctlr & sctlr::UMA != 0), ReadWrite(|cpu| u64::from(cpu.state.pstate.0 & Pstate::DAIF), |cpu, v| cpu.set_daif(v as u32 & Pstate::DAIF));

    // Exceptions.
    SPSR_EL1 Nothing, Stored(|r| &mut r.spsr, 0, Nowhere);
    ELR_EL1 Nothing, Stored(|r| &mut r.elr, 0, Nowhere);
    SP_EL0 Nothing, SpEl0;
    AFSR0_EL1 Nothing, Stored(|r| &mut r.afsr0, 0, Nowhere);
    AFSR1_EL1 Nothing, Stored(|r| &mut r.afsr1, 0, Nowhere);
    ESR_EL1 Nothing, Stored(|r| &mut r.esr, 0, Nowhere);
    FAR_EL1 Nothing, Stored(|r| &mut r.far, 0, Nowhere);
    VBAR_EL1 Nothing, Stored(|r| &mut r.vbar, 0, Nowhere);
    RVBAR_EL1 Nothing, Constant;
    ISR_EL1 Nothing, ReadOnly(pending_interrupts);

    // Control and translation.
    SCTLR_EL1 Nothing, Stored(|r| &mut r.sctlr, sctlr::RES1, Translation);
    ACTLR_EL1 Nothing, ReadWrite(zero, ignore);
    CPACR_EL1 Nothing, Stored(|r| &mut r.cpacr, 0, Context);
    TTBR0_EL1 Nothing, Stored(|r| &mut r.ttbr0, 0, Translation);
    TTBR1_EL1 Nothing, Stored(|r| &mut r.ttbr1, 0, Translation);
    TCR_EL1 Nothing, Stored(|r| &mut r.tcr, 0, Translation);
    PAR_EL1 Nothing, Stored(|r| &mut r.par, 0, Nowhere);
    MAIR_EL1 Nothing, Stored(|r| &mut r.mair, 0, Translation);
    AMAIR_EL1 Nothing, ReadWrite(zero, ignore);
    CONTEXTIDR_EL1 Nothing, Stored(|r| &mut r.contextidr, 0, Context);
    TPIDR_EL1 Nothing, Stored(|r| &mut r.tpidr_el1, 0, Nowhere);
    TPIDR_EL0 User::ReadWrite, Stored(|r| &mut r.tpidr_el0, 0, Nowhere);
    TPIDRRO_EL0 Read, Stored(|r| &mut r.tpidrro_el0, 0, Nowhere);

    // Random numbers.
    RNDR Read, ReadOnly(random);
    RNDRRS Read, ReadOnly(random);

    // Timers. EL1 is the highest exception level, so it may write the frequency.
    CNTKCTL_EL1 Nothing, Stored(|r| &mut r.cntkctl, 0, Nowhere);
    CNTFRQ_EL0 ReadIf(|r| r.cntkctl & (cntkctl::EL0PCTEN | cntkctl::EL0VCTEN) != 0), Stored(|r| &mut r.cntfrq, 0, Nowhere);
    CNTPCT_EL0 ReadIf(|r| r.cntkctl & cntkctl::EL0PCTEN != 0), ReadOnly(Cpu::read_count);
    CNTVCT_EL0 ReadIf(|r| r.cntkctl & cntkctl::EL0VCTEN != 0), ReadOnly(Cpu::read_count);
    CNTP_TVAL_EL0 If(|r| r.cntkctl & cntkctl::EL0PTEN != 0), ReadWrite(|cpu| cpu.physical_timer().tval(), |cpu, v| cpu.physical_timer().set_tval(v));
    CNTP_CTL_EL0 If(|r| r.cntkctl & cntkctl::EL0PTEN != 0), ReadWrite(|cpu| cpu.physical_timer().ctl(), |cpu, v| cpu.physical_timer().set_ctl(v));
    CNTP_CVAL_EL0 If(|r| r.cntkctl & cntkctl::EL0PTEN != 0), ReadWrite(|cpu| cpu.physical_timer().cval(), |cpu, v| cpu.physical_timer().set_cval(v));
    CNTV_TVAL_EL0 If(|r| r.cntkctl & cntkctl::EL0VTEN != 0), ReadWrite(|cpu| cpu.virtual_timer().tval(), |cpu, v| cpu.virtual_timer().set_tval(v));
    CNTV_CTL_EL0 If(|r| r.cntkctl & cntkctl::EL0VTEN != 0), ReadWrite(|cpu| cpu.virtual_timer().ctl(), |cpu, v| cpu.virtual_timer().set_ctl(v));
    CNTV_CVAL_EL0 If(|r| r.cntkctl & cntkctl::EL0VTEN != 0), ReadWrite(|cpu| cpu.virtual_timer().cval(), |cpu, v| cpu.virtual_timer().set_cval(v));

    // Debug.
    OSDTRRX_EL1 Nothing, ReadWrite(zero, ignore);
    MDCCINT_EL1 Nothing, Stored(|r| &mut r.mdccint, 0, Nowhere);
    MDSCR_EL1 Nothing, Stored(|r| &mut r.mdscr, 0, Debug);
    OSDTRTX_EL1 Nothing, ReadWrite(zero, ignore);
    OSECCR_EL1 Nothing, ReadWrite(zero, ignore);
    DBGBVR0_EL1 Nothing, Stored(|r| &mut r.dbgbvr[0], 0, Debug);
    DBGBCR0_EL1 Nothing, Stored(|r| &mut r.dbgbcr[0], BREAKPOINT_BAS, Debug);
    DBGWVR0_EL1 Nothing, Stored(|r| &mut r.dbgwvr[0], 0, Debug);
    DBGWCR0_EL1 Nothing, Stored(|r| &mut r.dbgwcr[0], 0, Debug);
    DBGBVR1_EL1 Nothing, Stored(|r| &mut r.dbgbvr[1], 0, Debug);
    DBGBCR1_EL1 Nothing, Stored(|r| &mut r.dbgbcr[1], BREAKPOINT_BAS, Debug);
    DBGWVR1_EL1 Nothing, Stored(|r| &mut r.dbgwvr[1], 0, Debug);
    DBGWCR1_EL1 Nothing, Stored(|r| &mut r.dbgwcr[1], 0, Debug);
    DBGBVR2_EL1 Nothing, Stored(|r| &mut r.dbgbvr[2], 0, Debug);
    DBGBCR2_EL1 Nothing, Stored(|r| &mut r.dbgbcr[2], BREAKPOINT_BAS, Debug);
    DBGWVR2_EL1 Nothing, Stored(|r| &mut r.dbgwvr[2], 0, Debug);
    DBGWCR2_EL1 Nothing, Stored(|r| &mut r.dbgwcr[2], 0, Debug);
    DBGBVR3_EL1 Nothing, Stored(|r| &mut r.dbgbvr[3], 0, Debug);
    DBGBCR3_EL1 Nothing, Stored(|r| &mut r.dbgbcr[3], BREAKPOINT_BAS, Debug);
    DBGWVR3_EL1 Nothing, Stored(|r| &mut r.dbgwvr[3], 0, Debug);
    DBGWCR3_EL1 Nothing, Stored(|r| &mut r.dbgwcr[3], 0, Debug);
    MDRAR_EL1 Nothing, Constant;
    OSLAR_EL1 Nothing, WriteOnly(|cpu, v| { cpu.state.sys.os_lock = v & 1; cpu.debug_registers_changed(); });
    // OSLM = 0b10: the lock is implemented.
    OSLSR_EL1 Nothing, ReadOnly(|cpu| 1 << 3 | cpu.state.sys.os_lock << 1);
    OSDLR_EL1 Nothing, Stored(|r| &mut r.osdlr, 0, Debug);
    DBGPRCR_EL1 Nothing, Stored(|r| &mut r.dbgprcr, 0, Debug);
    DBGCLAIMSET_EL1 Nothing, ReadWrite(|_| 0xff, |cpu, v| cpu.state.sys.dbgclaim |= v & 0xff);
    DBGCLAIMCLR_EL1 Nothing, ReadWrite(|cpu| cpu.state.sys.dbgclaim, |cpu, v| cpu.state.sys.dbgclaim &= !(v & 0xff));
    DBGAUTHSTATUS_EL1 Nothing, Constant;
    MDCCSR_EL0 ReadIf(dcc_open), Constant;
    DBGDTR_EL0 If(dcc_open), ReadWrite(zero, ignore);
    DBGDTRRX_EL0 If(dcc_open), ReadWrite(zero, ignore);
}

fn zero(_: &mut Cpu) -> u64 {
    0
}

fn ignore(_: &mut Cpu, _: u64) {}

/// MDSCR_EL1.TDCC traps EL0's accesses to the debug communication channel, in which nobody listens.
fn dcc_open(regs: &SysRegs) -> bool {
    regs.mdscr >> 12 & 1 == 0
}

/// DCZID_EL0: DZP tells whether DC ZVA is forbidden at this exception level.
fn dczid(cpu: &mut Cpu) -> u64 {
    features::DCZID | u64::from(cpu.at_el0() && cpu.state.sys.sctlr & sctlr::DZE == 0) << 4
}

/// ISR_EL1: physical interrupts that are pending, masked or not.
fn pending_interrupts(cpu: &mut Cpu) -> u64 {
    let word = cpu.state.pending();
    u64::from(word & pending::IRQ != 0) << 7 | u64::from(word & pending::FIQ != 0) << 6
}

/// RNDR and RNDRRS: a number from the host's generator. PSTATE.NZCV = 0 says that it is one.
fn random(cpu: &mut Cpu) -> u64 {
    cpu.state.flags = Flags::from_nzcv(0);
    cpu.cluster.entropy.next()
}

/// Position in [`ROWS`] plus one, by encoding without bit 15, which op0 = 2 and 3 share.
static INDEX: [u8; 1 << 15] = {
    let mut index = [0; 1 << 15];
    let mut row = 0;
    while row < ROWS.len() {
        index[(ROWS[row].reg.0 & 0x7fff) as usize] = row as u8 + 1;
        row += 1;
    }
    index
};

fn row(reg: SysReg) -> Option<&'static Row> {
    if reg.0 >> 15 == 0 {
        return None; // op0 = 0 and 1 are instructions
    }
    let index = INDEX[usize::from(reg.0 & 0x7fff)];
    ROWS.get(usize::from(index).wrapping_sub(1))
}

#[cfg(target_arch = "x86_64")]
const DAIF: SysReg = SystemReg::DAIF.encoding();

/// A register that is as simple as to be read or written without its handler.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// At this offset in [`SysRegs`]; the bits that software can change.
    Stored {
        offset: usize,
        writable: u64,
    },
    /// SP_EL0, in the state, if PSTATE.SP is 1.
    SpEl0,
    /// PSTATE.{D,A,I,F}, where PSTATE has them.
    Daif,
    Constant(u64),
}

/// How MRS of the register with encoding `reg` reads it, if that is simple and certainly allowed at the exception level.
#[cfg(target_arch = "x86_64")]
pub(crate) fn plain_to_read(reg: u64, el0: bool) -> Option<Plain> {
    const CURRENT_EL: SysReg = SystemReg::CurrentEL.encoding();
    let row = row(SysReg(reg as u16))?;
    if el0 && !matches!(row.user, User::Read | User::ReadWrite) {
        return None;
    }
    match row.kind {
        Kind::Constant => Some(Plain::Constant(row.reset)),
        Kind::Stored(at, 0, _) => Some(Plain::Stored { offset: offset_of(at), writable: row.writable }),
        Kind::SpEl0 => Some(Plain::SpEl0),
        _ if row.reg == DAIF => Some(Plain::Daif),
        _ if row.reg == CURRENT_EL => Some(Plain::Constant(1 << 2)),
        _ => None,
    }
}

/// How MSR of the register with encoding `reg` writes it, if that is simple, certainly allowed at the exception level, and
/// changes nothing else.
#[cfg(target_arch = "x86_64")]
pub(crate) fn plain_to_write(reg: u64, el0: bool) -> Option<Plain> {
    let row = row(SysReg(reg as u16))?;
    if el0 && !matches!(row.user, User::ReadWrite) {
        return None;
    }
    match row.kind {
        Kind::Stored(at, _, Effect::None) => {
            Some(Plain::Stored { offset: offset_of(at), writable: row.writable })
        }
        Kind::SpEl0 => Some(Plain::SpEl0),
        _ if row.reg == DAIF => Some(Plain::Daif),
        _ => None,
    }
}

/// Where [`SysRegs`] has what `at` gives.
#[cfg(target_arch = "x86_64")]
fn offset_of(at: fn(&mut SysRegs) -> &mut u64) -> usize {
    let mut regs = SysRegs::default();
    let start = std::ptr::from_ref(&regs).addr();
    std::ptr::from_ref(at(&mut regs)).addr() - start
}

/// A register that is a word of [`SysRegs`], for saving.
pub(crate) struct StoredRegister {
    pub(crate) name: &'static str,
    pub(crate) at: fn(&mut SysRegs) -> &mut u64,
    /// Bits that software can change.
    pub(crate) writable: u64,
    /// Bits that always read as one.
    pub(crate) ones: u64,
}

/// All registers that are words of [`SysRegs`], with those whose writes have other forms left out.
pub(crate) fn stored() -> impl Iterator<Item = StoredRegister> {
    ROWS.iter().filter_map(|row| match row.kind {
        Kind::Stored(at, ones, _) => {
            Some(StoredRegister { name: row.name, at, writable: row.writable, ones })
        }
        _ => None,
    })
}

/// The register's name in the architecture, for traces and debuggers.
#[must_use]
pub fn name(reg: SysReg) -> Option<&'static str> {
    row(reg).map(|row| row.name)
}

/// A register as a debugger sees it.
#[derive(Clone, Copy)]
enum Seen {
    Row(&'static Row),
    /// A stack pointer by its exception level, whether or not it is in use.
    Sp(usize),
}

/// What a debugger sees: what reads without a side effect. Identification that depends on an instruction before it, and
/// what other registers of a debugger have, is left out.
fn seen() -> impl Iterator<Item = (&'static str, Seen)> {
    let is_plain = |row: &&Row| match row.kind {
        Kind::Constant | Kind::Stored(..) => true,
        Kind::ReadOnly(_) | Kind::ReadWrite(..) => matches!(
            row.name,
            "MPIDR_EL1"
                | "CurrentEL"
                | "SPSel"
                | "DAIF"
                | "PAN"
                | "ISR_EL1"
                | "OSLSR_EL1"
                | "CNTV_CTL_EL0"
                | "CNTV_CVAL_EL0"
                | "CNTP_CTL_EL0"
                | "CNTP_CVAL_EL0"
        ),
        Kind::WriteOnly(_) | Kind::SpEl0 => false,
    };
    let stacks = [("SP_EL0", Seen::Sp(0)), ("SP_EL1", Seen::Sp(1))];
    ROWS.iter().filter(is_plain).map(|row| (row.name, Seen::Row(row))).chain(stacks)
}

/// Their names.
pub(super) fn debug_names() -> impl Iterator<Item = &'static str> {
    seen().map(|(name, _)| name)
}

/// One of them, by its place.
pub(super) fn debug_read(cpu: &mut Cpu, index: usize) -> Option<u64> {
    match seen().nth(index)?.1 {
        Seen::Sp(el) if el == cpu.stack_in_use() => Some(cpu.state.x[usize::from(SP)]),
        Seen::Sp(el) => cpu.state.sp_bank.get(el).copied(),
        Seen::Row(row) => match row.kind {
            Kind::Constant => Some(row.reset),
            Kind::Stored(at, res1, _) => Some(*at(&mut cpu.state.sys) | res1),
            Kind::ReadOnly(read) | Kind::ReadWrite(read, _) => Some(read(cpu)),
            Kind::WriteOnly(_) | Kind::SpEl0 => None,
        },
    }
}

/// Writes one of them, with what hangs on it. Tells whether it can be written.
pub(super) fn debug_write(cpu: &mut Cpu, index: usize, value: u64) -> bool {
    match seen().nth(index) {
        Some((_, Seen::Sp(el))) if el == cpu.stack_in_use() => cpu.state.x[usize::from(SP)] = value,
        Some((_, Seen::Sp(el))) => cpu.state.sp_bank[el] = value,
        Some((_, Seen::Row(row))) => match row.kind {
            Kind::Stored(at, _, effect) => {
                *at(&mut cpu.state.sys) = value & row.writable;
                cpu.after_write(effect);
            }
            Kind::ReadWrite(_, write) => write(cpu, value),
            _ => return false,
        },
        None => return false,
    }
    true
}

impl Cpu {
    /// Whose stack pointer is in use: SP_EL0's or SP_EL1's.
    fn stack_in_use(&self) -> usize {
        usize::from(self.state.pstate.el() != 0 && self.state.pstate.has(Pstate::SP))
    }

    /// MRS.
    ///
    /// # Errors
    /// UNDEFINED, or trapped from EL0.
    pub(crate) fn read_sysreg(&mut self, reg: SysReg, rt: u8) -> Result<u64, Exception> {
        let Some(row) = row(reg) else { return self.read_other(reg) };
        if self.at_el0() {
            self.check_user(row.user, reg, rt, true)?;
        }
        match row.kind {
            Kind::Constant => Ok(row.reset),
            Kind::Stored(at, res1, _) => Ok(*at(&mut self.state.sys) | res1),
            Kind::ReadOnly(read) | Kind::ReadWrite(read, _) => Ok(read(self)),
            Kind::WriteOnly(_) => Err(Exception::undefined()),
            Kind::SpEl0 => {
                self.check_sp_el0()?;
                Ok(self.state.sp_bank[0])
            }
        }
    }

    /// MSR (register). `rt` is the transfer register's number (0 to 31), for the syndrome of a trap.
    ///
    /// # Errors
    /// UNDEFINED, or trapped from EL0.
    pub(crate) fn write_sysreg(&mut self, reg: SysReg, rt: u8, value: u64) -> Result<(), Exception> {
        let Some(row) = row(reg) else { return self.write_other(reg, value) };
        if self.at_el0() {
            self.check_user(row.user, reg, rt, false)?;
        }
        match row.kind {
            Kind::Constant | Kind::ReadOnly(_) => return Err(Exception::undefined()),
            Kind::Stored(at, _, effect) => {
                *at(&mut self.state.sys) = value & row.writable;
                self.after_write(effect);
            }
            Kind::WriteOnly(write) | Kind::ReadWrite(_, write) => write(self, value),
            Kind::SpEl0 => {
                self.check_sp_el0()?;
                self.state.sp_bank[0] = value;
            }
        }
        Ok(())
    }

    /// SP_EL0 has no other name than SP while it is in use.
    fn check_sp_el0(&self) -> Result<(), Exception> {
        if self.state.pstate.has(Pstate::SP) { Ok(()) } else { Err(Exception::undefined()) }
    }

    fn after_write(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Translation => {
                self.memory_regime_changed();
            }
            Effect::Context => self.debug_changed(),
            Effect::Debug => self.debug_registers_changed(),
        }
    }

    fn check_user(&self, user: User, reg: SysReg, rt: u8, read: bool) -> Result<(), Exception> {
        let open = match user {
            User::Nothing => return Err(Exception::undefined()),
            User::Read | User::ReadIf(_) if !read => return Err(Exception::undefined()),
            User::Read | User::ReadWrite => true,
            User::If(open) | User::ReadIf(open) => open(&self.state.sys),
        };
        if open { Ok(()) } else { Err(Exception::trapped_system(reg, rt, read)) }
    }

    /// Registers that have no row: identification space and the GIC's.
    fn read_other(&mut self, reg: SysReg) -> Result<u64, Exception> {
        if self.at_el0() {
            return Err(Exception::undefined());
        }
        if is_id(reg) {
            return Ok(id_value(self.cluster.features, reg));
        }
        let value = if is_gic(reg) { self.cluster.gic.sysreg_read(self.index, reg) } else { None };
        value.ok_or_else(|| self.unknown(reg, "read"))
    }

    fn write_other(&mut self, reg: SysReg, value: u64) -> Result<(), Exception> {
        if self.at_el0() {
            return Err(Exception::undefined());
        }
        let done = if is_gic(reg) { self.cluster.gic.sysreg_write(self.index, reg, value) } else { None };
        done.ok_or_else(|| self.unknown(reg, "write"))
    }

    #[cold]
    fn unknown(&self, reg: SysReg, what: &str) -> Exception {
        let (index, pc) = (self.index, self.state.pc);
        let what = format_args!("vCPU {index}: {what} of {reg:?} at {pc:#x} is undefined");
        self.cluster.observation.errors.report("accesses to system registers that do not exist", what);
        Exception::undefined()
    }

    /// CNTPCT_EL0 and CNTVCT_EL0, which are the same: there is no offset. Each tells of both timers' conditions.
    fn read_count(&mut self) -> u64 {
        let count = count_at(self.cluster.clock.now_ns());
        self.virtual_timer().seen(count);
        self.physical_timer().seen(count);
        count
    }

    fn virtual_timer(&self) -> &Timer {
        &self.cluster.virtual_timers[self.index]
    }

    fn physical_timer(&self) -> &Timer {
        &self.cluster.physical_timers[self.index]
    }

    /// The reset state of registers, caches of translation, timers and the GIC's CPU interface, which is part of the PE.
    pub(crate) fn reset(&mut self) {
        self.cluster.gic.sysreg_reset(self.index);
        self.take_state(State::new(self.cluster.signal(self.index).word()));
        self.virtual_timer().reset();
        self.physical_timer().reset();
    }

    /// Takes up registers, at EL1 as after reset, with empty caches of translation.
    fn take_state(&mut self, state: State) {
        self.state = state;
        self.mem = crate::mem::Context::new(&self.state.sys);
        self.debug_registers_changed();
        self.mapping_changed(false);
    }

    /// [`Self::take_state`] of a vCPU of which nothing else is to stay: neither code nor what others have asked of it.
    pub(crate) fn begin_anew(&mut self, state: State) {
        self.take_state(state);
        self.forget_everything();
    }
}

#[cfg(test)]
mod tests {
    use hw::regmap::{RegisterMap, check_map};

    use super::*;

    #[test]
    fn declared_registers_are_sound_and_each_but_those_for_identification_has_a_row() {
        check_map::<SystemReg>();
        for (reg, info) in SystemReg::ALL {
            let has_row = row(reg.encoding()).is_some_and(|row| row.name == info.name);
            assert_eq!(has_row, !info.name.starts_with("ID_"), "{}", info.name);
        }
    }

    #[test]
    fn stored_registers_have_their_declared_values_after_reset() {
        let mut regs = SysRegs::default();
        for entry in ROWS {
            if let Kind::Stored(at, ones, _) = entry.kind {
                assert_eq!(*at(&mut regs) | ones, entry.reset, "{}", entry.name);
                assert_eq!(entry.writable & ones, 0, "{}", entry.name);
            }
        }
    }

    #[test]
    fn table_has_each_encoding_once_and_finds_each_by_it() {
        for (position, entry) in ROWS.iter().enumerate() {
            let (op0, ..) = entry.reg.fields();
            assert!(op0 >= 2, "{}", entry.name);
            assert_eq!(row(entry.reg).map(|found| found.name), Some(entry.name));
            assert!(!is_gic(entry.reg), "{}", entry.name);
            assert!(ROWS[..position].iter().all(|other| other.reg != entry.reg), "{}", entry.name);
        }
        assert!(row(SysReg::new(1, 0, 7, 5, 0)).is_none());
        assert!(row(SysReg::new(3, 0, 1, 2, 0)).is_none(), "ZCR_EL1");
        assert_eq!(name(SysReg::new(3, 0, 1, 0, 0)), Some("SCTLR_EL1"));
    }
}
