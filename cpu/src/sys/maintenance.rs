//! SYS instructions: TLB and cache maintenance, address translation, DC ZVA.
//!
//! Arm ARM (DDI 0487) C5.3 to C5.5. The machine is coherent, so cache maintenance does nothing but fault where the
//! architecture says so; decoded code is dropped by the stores themselves. Broadcast TLBIs go to the other vCPUs'
//! mailboxes and are complete at the next DSB. Not advertised, hence UNDEFINED: TLBI nXS, AT with FEAT_ATS1A.

use hw::SysReg;
use vmsa::AccessKind;

use super::features::CACHE_LINE;
use super::regs::sctlr;
use crate::exception::FaultStatus;
use crate::mem::{Invalidation, untagged};
use crate::state::Pstate;
use crate::{Cpu, Exception};

impl Cpu {
    /// SYS: IC, DC, AT, TLBI and unallocated ones. op0 of `reg` is 1.
    ///
    /// # Errors
    /// UNDEFINED, trapped from EL0, or the fault of an instruction that takes an address.
    pub(crate) fn system_instruction(&mut self, reg: SysReg, rt: u8, value: u64) -> Result<(), Exception> {
        let el0 = self.at_el0();
        let (_, op1, crn, crm, op2) = reg.fields();
        let trapped = Exception::trapped_system(reg, rt, false);
        match (op1, crn, crm, op2) {
            // IC IVAU; DC CVAC, CVAU, CVAP, CIVAC.
            (3, 7, 5 | 10 | 11 | 12 | 14, 1) => {
                if el0 && self.state.sys.sctlr & sctlr::UCI == 0 {
                    return Err(trapped);
                }
                self.maintain(value, AccessKind::Read)
            }
            // DC ZVA.
            (3, 7, 4, 1) => {
                if el0 && self.state.sys.sctlr & sctlr::DZE == 0 {
                    return Err(trapped);
                }
                self.zero_block(value)
            }
            _ if el0 => Err(Exception::undefined()),
            // DC IVAC needs write permission (C5.3.14), and watchpoints match it as a store to its line.
            (0, 7, 6, 1) => {
                self.maintain(value, AccessKind::Write)?;
                match self.watchpoint_hit(value & !(CACHE_LINE - 1), CACHE_LINE, true, false) {
                    Some(at) => Err(Exception::maintenance_watchpoint(at)),
                    None => Ok(()),
                }
            }
            // IC IALLUIS, IALLU; DC ISW, CSW, CISW.
            (0, 7, 1 | 5, 0) | (0, 7, 6 | 10 | 14, 2) => Ok(()),
            // AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP.
            (0, 7, 8, 0..=3) => self.translate_address(value, op2 & 1 != 0, op2 & 2 != 0, false),
            (0, 7, 9, 0 | 1) => self.translate_address(value, op2 & 1 != 0, false, true),
            (0, 8, _, _) => self.tlbi(crm, op2, value),
            _ => Err(Exception::undefined()),
        }
    }

    /// Cache maintenance by address: only the fault.
    fn maintain(&mut self, va: u64, kind: AccessKind) -> Result<(), Exception> {
        let el0 = self.at_el0();
        self.check_maintenance(va, kind, el0).map_err(|status| Exception::maintenance_abort(va, status))
    }

    /// AT: what the translation of `va` would be, in PAR_EL1 (D17.2.113).
    fn translate_address(
        &mut self,
        va: u64,
        write: bool,
        el0: bool,
        with_pan: bool,
    ) -> Result<(), Exception> {
        const RES1: u64 = 1 << 11;
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let pan = with_pan && self.state.pstate.has(Pstate::PAN);
        self.state.sys.par = match self.probe_translation(va, kind, el0, pan) {
            Ok(page) => {
                let shareability = u64::from(page.shareability) << 7;
                u64::from(page.attributes) << 56 | page.pa | RES1 | shareability
            }
            // An external abort on the walk is taken, not reported (D8.12.1).
            Err(status) if status.is_external_abort() => {
                return Err(Exception::maintenance_abort(va, status));
            }
            Err(FaultStatus(status)) => u64::from(status) << 1 | RES1 | 1,
        };
        Ok(())
    }

    /// TLBI of the EL1&0 regime.
    fn tlbi(&mut self, crm: u8, op2: u8, value: u64) -> Result<(), Exception> {
        // CRm: this PE, inner shareable, outer shareable; by address and by range.
        let (broadcast, range) = match crm {
            7 => (false, false),
            3 | 1 => (true, false),
            6 => (false, true),
            2 | 5 => (true, true),
            _ => return Err(Exception::undefined()),
        };
        let asid = self.state.sys.asid_of(value);
        let va = untagged(value << 12); // VA[55:12]
        let what = match (range, op2) {
            (false, 0) => Invalidation::All,
            (false, 2) => Invalidation::Asid(asid),
            (false, 1 | 5) => Invalidation::Pages { va, pages: 1, asid: Some(asid) },
            (false, 3 | 7) => Invalidation::Pages { va, pages: 1, asid: None },
            (true, 1 | 5) => range_of(value, Some(asid)),
            (true, 3 | 7) => range_of(value, None),
            _ => return Err(Exception::undefined()),
        };
        self.invalidate(what);
        if broadcast {
            self.broadcast(what);
        }
        Ok(())
    }
}

/// The operand of a range TLBI (C5.5): BaseADDR\[36:0\], NUM\[43:39\], SCALE\[45:44\], TG\[47:46\].
fn range_of(value: u64, asid: Option<u16>) -> Invalidation {
    let granule_shift = match value >> 46 & 3 {
        2 => 14,
        3 => 16,
        _ => 12, // 0 is reserved
    };
    let granules = ((value >> 39 & 31) + 1) << (5 * (value >> 44 & 3) + 1);
    // The address is as wide as a sign-extended 37-bit number of granules.
    let base = ((value << 27) as i64 >> 27) as u64;
    Invalidation::Pages { va: base << granule_shift, pages: granules << (granule_shift - 12), asid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_operand_names_base_and_number_of_pages() {
        let operand = 7 << 48 | 1 << 46 | 1 << 44 | 3 << 39 | 0x12345;
        assert_eq!(
            range_of(operand, Some(7)),
            Invalidation::Pages { va: 0x1234_5000, pages: 4 << 6, asid: Some(7) }
        );
        let kernel = 1 << 46 | 0x1f_ffff_0000;
        assert_eq!(
            range_of(kernel, None),
            Invalidation::Pages { va: 0xffff_ffff_f000_0000, pages: 2, asid: None }
        );
    }
}
