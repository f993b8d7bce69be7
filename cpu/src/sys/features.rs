//! What the identification registers say: computed from the set of instructions that the decoder knows, so that
//! nothing is advertised that does not run.
//!
//! Arm ARM (DDI 0487) D17.2. Not advertised, hence zero: EL2, EL3, AArch32, SVE, SME, MTE, pointer authentication,
//! BTI, RAS, PMU, hardware access flag and dirty state, 52-bit addresses, ECV, WFxT, FGT.

use hw::SysReg;

use crate::insn::Feature;
pub use crate::insn::Features;
use crate::sizes::{BREAKPOINTS, CONTEXT_AWARE, PA_BITS, WATCHPOINTS};

/// Bytes of a cache line: CTR_EL0.DminLine and IminLine = 4.
pub(super) const CACHE_LINE: u64 = 64;

/// DCZID_EL0: log2 of the words of a block.
pub(super) const DCZID: u64 = 4;

/// MIDR_EL1: no implementer, architecture by ID registers, so that no erratum table matches.
pub(super) const MIDR: u64 = 0x000f_0510;

/// CTR_EL0: 64-byte lines everywhere, PIPT, IDC and DIC: stores are seen by instruction fetch without cache
/// maintenance, because a store to decoded code drops it.
pub(super) const CTR: u64 = 0xb444_c004;

/// CLIDR_EL1: separate L1, unified L2, LoC 2; LoUU and LoUIS are 0 as IDC asks.
pub(super) const CLIDR: u64 = 0x0200_0023;

/// CCSIDR_EL1 of the cache that CSSELR_EL1 selects: 32 KiB, 8 ways, for both L1s; 512 KiB, 8 ways, for L2.
pub(super) const fn ccsidr(csselr: u64) -> u64 {
    match csselr & 0xf {
        0 | 1 => (64 - 1) << 13 | (8 - 1) << 3 | 2,
        2 => (1024 - 1) << 13 | (8 - 1) << 3 | 2,
        _ => 0, // UNKNOWN: there is no such cache
    }
}

/// MPIDR_EL1: 16 vCPUs to a cluster, as many as an SGI's target list has.
pub(crate) const fn mpidr(cpu: usize) -> u64 {
    1 << 31 | (cpu as u64 / 16) << 8 | (cpu as u64 % 16)
}

/// The vCPU of an affinity value (MPIDR without its flags).
pub(crate) fn cpu_of_affinity(affinity: u64, cpus: usize) -> Option<usize> {
    (0..cpus).find(|&cpu| mpidr(cpu) & 0xff_00ff_ffff == affinity)
}

/// A field of an ID register.
const fn field(lsb: u32, value: u64) -> u64 {
    value << lsb
}

/// Whether `reg` is in the identification space, all of which can be read at EL1: op0 = 3, op1 = 0, CRn = 0, CRm = 0
/// to 7. The few at CRm = 0 have rows of their own.
pub(super) const fn is_id(reg: SysReg) -> bool {
    let (op0, op1, crn, crm, _) = reg.fields();
    op0 == 3 && op1 == 0 && crn == 0 && crm <= 7
}

/// The value of a register of the identification space; zero where nothing is allocated or nothing promised.
pub(super) fn id_value(features: Features, reg: SysReg) -> u64 {
    let has = |feature| u64::from(features.has(feature));
    let (_, _, _, crm, op2) = reg.fields();
    match (crm, op2) {
        // ID_AA64PFR0_EL1
        (4, 0) => {
            field(0, 1) // EL0: AArch64
                | field(4, 1) // EL1: AArch64
                | field(16, has(Feature::Fp16)) // FP
                | field(20, has(Feature::Fp16)) // AdvSIMD
                | field(24, 1) // GIC system registers
                | field(56, 1) // CSV2
                | field(60, 1) // CSV3
        }
        // ID_AA64DFR0_EL1: v8 debug, BRPs, WRPs and CTX_CMPs, each less one.
        (5, 0) => {
            field(0, 6)
                | field(12, BREAKPOINTS as u64 - 1)
                | field(20, WATCHPOINTS as u64 - 1)
                | field(28, CONTEXT_AWARE as u64 - 1)
        }
        // ID_AA64ISAR0_EL1
        (6, 0) => {
            let aes = has(Feature::Aes) * (1 + has(Feature::Pmull));
            let sha2 = has(Feature::Sha256) * (1 + has(Feature::Sha512));
            field(4, aes)
                | field(8, has(Feature::Sha1))
                | field(12, sha2)
                | field(16, has(Feature::Crc32))
                | field(20, 2 * has(Feature::Lse))
                | field(28, has(Feature::Rdm))
                | field(32, has(Feature::Sha3))
                | field(44, has(Feature::Dotprod))
                | field(48, has(Feature::Fhm))
                | field(52, has(Feature::Flagm) * (1 + has(Feature::Flagm2)))
                | field(56, 2) // TLB range maintenance
                | field(60, 1) // RNDR
        }
        // ID_AA64ISAR1_EL1
        (6, 1) => {
            field(0, 1) // DPB: DC CVAP
                | field(12, has(Feature::Jscvt))
                | field(16, has(Feature::Fcma))
                | field(20, has(Feature::Lrcpc) * (1 + has(Feature::Lrcpc2)))
        }
        // ID_AA64MMFR0_EL1
        (7, 0) => {
            let pa_range = match PA_BITS {
                48 => 5,
                _ => 0,
            };
            field(0, pa_range)
                | field(4, 2) // 16-bit ASIDs
                | field(20, 1) // 16 KiB granule; 4 and 64 KiB are there with 0
        }
        // ID_AA64MMFR1_EL1: PAN, with AT S1E1RP and WP.
        (7, 1) => field(20, 2),
        // ID_AA64MMFR2_EL1
        (7, 2) => field(32, has(Feature::Lse2)), // AT
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(crm: u8, op2: u8) -> u64 {
        id_value(Features::default(), SysReg::new(3, 0, 0, crm, op2))
    }

    #[test]
    fn id_registers_promise_el0_and_el1_in_aarch64_and_no_more() {
        assert_eq!(id(4, 0) & 0xffff, 0x0011, "EL3 to EL0");
        assert_eq!(id(4, 0) >> 24 & 0xf, 1, "GIC");
        assert_eq!(id(7, 0) & 0xf, 5, "PARange: 48 bits");
        assert_eq!(id(7, 0) >> 4 & 0xf, 2, "16-bit ASIDs");
        assert_eq!(id(7, 1) & 0xf, 0, "HAFDBS");
        assert_eq!(
            id(5, 0),
            0x1030_3006,
            "four breakpoints, two of them context-aware, four watchpoints, no PMU"
        );
        for (crm, op2) in [(1, 0), (2, 7), (3, 3), (4, 1), (4, 4), (4, 5), (6, 2), (7, 7)] {
            assert_eq!(id(crm, op2), 0, "S3_0_C0_C{crm}_{op2}");
        }
    }

    #[test]
    fn instruction_fields_follow_the_decoders_set() {
        let isar0 = |features| id_value(features, SysReg::new(3, 0, 0, 6, 0));
        assert_eq!(isar0(Features::BASE) >> 16 & 0xff, 0);
        let lse = Features::BASE.with(Feature::Lse).with(Feature::Crc32);
        assert_eq!(isar0(lse) >> 16 & 0xff, 0x21);
    }

    #[test]
    fn affinity_values_name_vcpus_without_the_flags_of_mpidr() {
        assert_eq!(mpidr(17), 0x8000_0101);
        assert_eq!(cpu_of_affinity(0x101, 18), Some(17));
        assert_eq!(cpu_of_affinity(0x101, 17), None);
        assert_eq!(cpu_of_affinity(0x8000_0000, 4), None);
    }
}
