//! The CPU interface: the ICC_* system registers at EL1 (IHI 0069, chapter 4 and 12.2).
//!
//! With five priority bits only ICC_AP0R0_EL1 and ICC_AP1R0_EL1 exist; the other active priorities registers
//! are UNDEFINED, as are the NMI registers.

use hw::saved::{RestoreError, hex};
use hw::{SysReg, SysRegDevice};
use serde::{Deserialize, Serialize};

use super::bank::PRIORITY_MASK;
use super::delivery::{Candidate, Core, CpuInterface, Group, Pe};
use super::lpi::{INTID_BITS, Lpi};
use super::regs::CpuInterfaceReg;
use super::{Gic, lock};
use bitfield_struct::bitfield;

const ICC_PMR_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_PMR_EL1.offset());
const ICC_IAR0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_IAR0_EL1.offset());
const ICC_EOIR0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_EOIR0_EL1.offset());
const ICC_HPPIR0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_HPPIR0_EL1.offset());
const ICC_BPR0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_BPR0_EL1.offset());
const ICC_AP0R0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_AP0R0_EL1.offset());
const ICC_AP1R0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_AP1R0_EL1.offset());
const ICC_DIR_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_DIR_EL1.offset());
const ICC_RPR_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_RPR_EL1.offset());
const ICC_SGI1R_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_SGI1R_EL1.offset());
const ICC_ASGI1R_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_ASGI1R_EL1.offset());
const ICC_SGI0R_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_SGI0R_EL1.offset());
const ICC_IAR1_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_IAR1_EL1.offset());
const ICC_EOIR1_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_EOIR1_EL1.offset());
const ICC_HPPIR1_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_HPPIR1_EL1.offset());
const ICC_BPR1_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_BPR1_EL1.offset());
const ICC_CTLR_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_CTLR_EL1.offset());
const ICC_SRE_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_SRE_EL1.offset());
const ICC_IGRPEN0_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_IGRPEN0_EL1.offset());
const ICC_IGRPEN1_EL1: SysReg = SysReg::at(CpuInterfaceReg::ICC_IGRPEN1_EL1.offset());

/// No interrupt to take.
const SPURIOUS: u32 = 1023;
/// The first of the special INTIDs.
const FIRST_SPECIAL: u32 = 1020;
/// The running priority of a PE that runs no interrupt.
const IDLE: u8 = 0xff;
/// SRE, DFB and DIB: the system registers are always on, and there is no bypass.
const SRE: u64 = 0b111;

/// The least binary points with five priority bits: of group 0, and of group 1.
const LEAST_BPR0: u8 = 2;
const LEAST_BPR1: u8 = 3;

/// ICC_CTLR_EL1.
#[bitfield(u64)]
struct IccCtlr {
    /// One binary point for both groups.
    cbpr: bool,
    /// An end of interrupt only drops the priority.
    eoimode: bool,
    #[bits(4)]
    _res0: u64,
    /// Priority mask hint: held, without effect, as 1-of-N routing is absent.
    pmhe: bool,
    _res0b: bool,
    /// Priority bits, less one.
    #[bits(3)]
    pribits: u64,
    /// 0: INTIDs of 16 bits.
    #[bits(3)]
    idbits: u64,
    _seis: bool,
    a3v: bool,
    #[bits(2)]
    _res0c: u64,
    rss: bool,
    #[bits(45)]
    _rest: u64,
}

const _: () = assert!(INTID_BITS == 16, "ICC_CTLR_EL1.IDbits");

/// ICC_SGI0R_EL1, ICC_SGI1R_EL1 and ICC_ASGI1R_EL1.
#[bitfield(u64)]
struct IccSgir {
    #[bits(16)]
    target_list: u32,
    #[bits(8)]
    aff1: u32,
    #[bits(4)]
    intid: u32,
    #[bits(4)]
    _res0: u32,
    #[bits(8)]
    aff2: u32,
    /// All PEs but the sender.
    irm: bool,
    #[bits(3)]
    _res0b: u32,
    /// Aff0 of the list's first target, in units of 16.
    #[bits(4)]
    rs: u32,
    #[bits(8)]
    aff3: u32,
    #[bits(8)]
    _res0c: u32,
}

impl CpuInterface {
    pub(super) const fn new() -> Self {
        Self {
            pmr: 0,
            bpr0: LEAST_BPR0,
            bpr1: LEAST_BPR1,
            cbpr: false,
            eoi_mode: false,
            pmhe: false,
            igrpen0: false,
            igrpen1: false,
            ap0r: 0,
            ap1r: 0,
        }
    }

    const fn ctlr(&self) -> IccCtlr {
        IccCtlr::new()
            .with_cbpr(self.cbpr)
            .with_eoimode(self.eoi_mode)
            .with_pmhe(self.pmhe)
            .with_pribits(PRIORITY_MASK.count_ones() as u64 - 1)
            .with_idbits(0)
            .with_a3v(true)
            .with_rss(true)
    }

    const fn bpr1(&self) -> u8 {
        if !self.cbpr {
            self.bpr1
        } else if self.bpr0 < 7 {
            self.bpr0 + 1
        } else {
            7
        }
    }

    /// The part of a priority that decides on preemption.
    const fn group_priority(&self, group: Group, priority: u8) -> u8 {
        let lowest = match group {
            Group::One if !self.cbpr => self.bpr1,
            Group::Zero | Group::One => self.bpr0 + 1,
        };
        // `lowest` may be 8: then all of the priority is subpriority.
        priority & (0xff_u16 << lowest) as u8
    }

    /// The priority of what the PE is running.
    const fn running_priority(&self) -> u8 {
        match (self.ap0r | self.ap1r).trailing_zeros() {
            32 => IDLE,
            level => (level as u8) << PRIORITY_MASK.trailing_zeros(),
        }
    }

    /// Whether the candidate preempts what the PE is running.
    const fn admits(&self, candidate: Candidate) -> bool {
        if candidate.priority >= self.pmr {
            return false;
        }
        // The binary point may have changed since the running one was taken: the present one counts for both.
        self.ap0r | self.ap1r == 0
            || self.group_priority(candidate.group, candidate.priority)
                < self.group_priority(candidate.group, self.running_priority())
    }

    const fn active_priorities(&mut self, group: Group) -> &mut u32 {
        match group {
            Group::Zero => &mut self.ap0r,
            Group::One => &mut self.ap1r,
        }
    }

    fn raise_priority(&mut self, candidate: Candidate) {
        let level =
            self.group_priority(candidate.group, candidate.priority) >> PRIORITY_MASK.trailing_zeros();
        *self.active_priorities(candidate.group) |= 1 << level;
    }

    /// Ends the highest active priority, if it is of this group. Returns whether it was.
    fn drop_priority(&mut self, group: Group) -> bool {
        let all = self.ap0r | self.ap1r;
        let highest = all & all.wrapping_neg();
        let active = self.active_priorities(group);
        let is_ours = *active & highest != 0;
        *active &= !highest;
        is_ours
    }
}

/// A PE's CPU interface as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InterfaceState {
    #[serde(rename = "ICC_PMR_EL1", with = "hex")]
    pmr: u8,
    #[serde(rename = "ICC_BPR0_EL1", with = "hex")]
    bpr0: u8,
    /// As it was last written, whatever ICC_CTLR_EL1.CBPR says.
    #[serde(rename = "ICC_BPR1_EL1", with = "hex")]
    bpr1: u8,
    #[serde(rename = "ICC_CTLR_EL1", with = "hex")]
    ctlr: u64,
    #[serde(rename = "ICC_IGRPEN0_EL1", with = "hex")]
    igrpen0: u8,
    #[serde(rename = "ICC_IGRPEN1_EL1", with = "hex")]
    igrpen1: u8,
    #[serde(rename = "ICC_AP0R0_EL1", with = "hex")]
    ap0r: u32,
    #[serde(rename = "ICC_AP1R0_EL1", with = "hex")]
    ap1r: u32,
}

impl CpuInterface {
    pub(super) fn save(&self) -> InterfaceState {
        let &Self { pmr, bpr0, bpr1, cbpr: _, eoi_mode: _, pmhe: _, igrpen0, igrpen1, ap0r, ap1r } = self;
        InterfaceState {
            pmr,
            bpr0,
            bpr1,
            ctlr: self.ctlr().into_bits(),
            igrpen0: igrpen0.into(),
            igrpen1: igrpen1.into(),
            ap0r,
            ap1r,
        }
    }

    pub(super) fn restore(&mut self, state: InterfaceState) -> Result<(), RestoreError> {
        let InterfaceState { pmr, bpr0, bpr1, ctlr, igrpen0, igrpen1, ap0r, ap1r } = state;
        let fields = IccCtlr::from(ctlr);
        *self = Self {
            pmr,
            bpr0,
            bpr1,
            cbpr: fields.cbpr(),
            eoi_mode: fields.eoimode(),
            pmhe: fields.pmhe(),
            igrpen0: igrpen0 != 0,
            igrpen1: igrpen1 != 0,
            ap0r,
            ap1r,
        };
        for (name, is_possible) in [
            ("ICC_PMR_EL1", pmr & !PRIORITY_MASK == 0),
            ("ICC_BPR0_EL1", (LEAST_BPR0..8).contains(&bpr0)),
            ("ICC_BPR1_EL1", (LEAST_BPR1..8).contains(&bpr1)),
            ("ICC_CTLR_EL1", self.ctlr().into_bits() == ctlr),
            ("ICC_IGRPEN0_EL1", igrpen0 <= 1),
            ("ICC_IGRPEN1_EL1", igrpen1 <= 1),
        ] {
            if !is_possible {
                return Err(RestoreError::value(name, "no write leaves this value"));
            }
        }
        Ok(())
    }
}

impl Pe {
    /// The interrupt that the PE is being told of.
    pub(super) fn signalled(&self) -> Option<Candidate> {
        self.best.filter(|&candidate| !self.is_asleep && self.icc.admits(candidate))
    }

    /// ICC_HPPIRn_EL1: the best pending one, whether or not it would be signalled now.
    fn highest_pending(&self, group: Group) -> u32 {
        match self.best {
            Some(best) if best.group == group && !self.is_asleep => best.intid,
            _ => SPURIOUS,
        }
    }
}

impl Core {
    /// ICC_IARn_EL1.
    fn acknowledge(&mut self, cpu: usize, group: Group) -> Option<u32> {
        let pe = self.pes.get_mut(cpu)?;
        let Some(candidate) = pe.signalled().filter(|candidate| candidate.group == group) else {
            self.counters.spurious += 1;
            return Some(SPURIOUS);
        };
        pe.icc.raise_priority(candidate);
        self.activate(cpu, candidate.intid);
        self.update(cpu);
        Some(candidate.intid)
    }

    /// ICC_EOIRn_EL1.
    fn end(&mut self, cpu: usize, group: Group, intid: u32) -> Option<()> {
        let is_interrupt = self.has_state(intid) || Lpi::new(intid).is_some();
        let pe = self.pes.get_mut(cpu)?;
        if is_interrupt && pe.icc.drop_priority(group) {
            if !pe.icc.eoi_mode {
                self.deactivate(cpu, intid);
            }
            self.update(cpu);
        }
        Some(())
    }

    /// ICC_DIR_EL1: means something only if an end of interrupt does not deactivate.
    fn deactivate_by_software(&mut self, cpu: usize, intid: u32) -> Option<()> {
        if self.pes.get(cpu)?.icc.eoi_mode && self.has_state(intid) {
            self.deactivate(cpu, intid);
            self.update(cpu);
        }
        Some(())
    }

    /// Whether there is an SGI, PPI or SPI of this INTID.
    fn has_state(&self, intid: u32) -> bool {
        intid < FIRST_SPECIAL && (intid as usize) < 32 + self.spis()
    }

    /// ICC_SGI0R_EL1 and its like: goes to targets that have the SGI in this group.
    fn send_sgi(&mut self, from: usize, group: Group, value: u64) {
        let sgi = IccSgir::from(value);
        if sgi.irm() {
            for cpu in (0..self.pes.len()).filter(|&cpu| cpu != from) {
                self.raise_sgi(cpu, group, sgi.intid());
            }
            return;
        }
        let cluster = sgi.aff3() << 24 | sgi.aff2() << 16 | sgi.aff1() << 8 | sgi.rs() << 4;
        for n in super::bank::bits(sgi.target_list()) {
            if let Some(cpu) = self.cpu_of(cluster | n) {
                self.raise_sgi(cpu, group, sgi.intid());
            }
        }
    }

    fn raise_sgi(&mut self, cpu: usize, group: Group, intid: u32) {
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        let mask = 1 << intid;
        if (pe.bank.group1 & mask != 0) == (group == Group::One) {
            pe.bank.set_pending(mask);
            self.update(cpu);
        }
    }
}

impl SysRegDevice for Gic {
    fn sysreg_read(&self, cpu: usize, reg: SysReg) -> Option<u64> {
        let mut core = lock(&self.core);
        match reg {
            ICC_IAR1_EL1 => return core.acknowledge(cpu, Group::One).map(u64::from),
            ICC_IAR0_EL1 => return core.acknowledge(cpu, Group::Zero).map(u64::from),
            _ => {}
        }
        let pe = core.pes.get(cpu)?;
        let icc = &pe.icc;
        Some(match reg {
            ICC_PMR_EL1 => icc.pmr.into(),
            ICC_HPPIR0_EL1 => pe.highest_pending(Group::Zero).into(),
            ICC_HPPIR1_EL1 => pe.highest_pending(Group::One).into(),
            ICC_BPR0_EL1 => icc.bpr0.into(),
            ICC_BPR1_EL1 => icc.bpr1().into(),
            ICC_AP0R0_EL1 => icc.ap0r.into(),
            ICC_AP1R0_EL1 => icc.ap1r.into(),
            ICC_RPR_EL1 => icc.running_priority().into(),
            ICC_CTLR_EL1 => icc.ctlr().into_bits(),
            ICC_SRE_EL1 => SRE,
            ICC_IGRPEN0_EL1 => icc.igrpen0.into(),
            ICC_IGRPEN1_EL1 => icc.igrpen1.into(),
            _ => return None,
        })
    }

    fn sysreg_write(&self, cpu: usize, reg: SysReg, value: u64) -> Option<()> {
        let mut core = lock(&self.core);
        // INTIDs have 24 bits in these registers; what does not fit here is no interrupt.
        let intid = (value & 0xff_ffff) as u32;
        match reg {
            ICC_EOIR1_EL1 => return core.end(cpu, Group::One, intid),
            ICC_EOIR0_EL1 => return core.end(cpu, Group::Zero, intid),
            ICC_DIR_EL1 => return core.deactivate_by_software(cpu, intid),
            ICC_SGI1R_EL1 => {
                core.send_sgi(cpu, Group::One, value);
                return Some(());
            }
            // With one Security state, the other state's group 1 is group 0.
            ICC_SGI0R_EL1 | ICC_ASGI1R_EL1 => {
                core.send_sgi(cpu, Group::Zero, value);
                return Some(());
            }
            _ => {}
        }
        let icc = &mut core.pes.get_mut(cpu)?.icc;
        let binary_point = (value & 7) as u8;
        match reg {
            ICC_PMR_EL1 => icc.pmr = value as u8 & PRIORITY_MASK,
            ICC_BPR0_EL1 => icc.bpr0 = binary_point.max(LEAST_BPR0),
            ICC_BPR1_EL1 if icc.cbpr => {}
            ICC_BPR1_EL1 => icc.bpr1 = binary_point.max(LEAST_BPR1),
            ICC_AP0R0_EL1 => icc.ap0r = value as u32,
            ICC_AP1R0_EL1 => icc.ap1r = value as u32,
            ICC_CTLR_EL1 => {
                let ctlr = IccCtlr::from(value);
                (icc.cbpr, icc.eoi_mode, icc.pmhe) = (ctlr.cbpr(), ctlr.eoimode(), ctlr.pmhe());
            }
            ICC_SRE_EL1 => return Some(()),
            ICC_IGRPEN0_EL1 => icc.igrpen0 = value & 1 != 0,
            ICC_IGRPEN1_EL1 => icc.igrpen1 = value & 1 != 0,
            _ => return None,
        }
        core.update(cpu);
        Some(())
    }

    fn sysreg_reset(&self, cpu: usize) {
        lock(&self.core).reset_cpu_interface(cpu);
    }
}
