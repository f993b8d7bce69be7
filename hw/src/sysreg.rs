//! AArch64 system registers by their encoding, and the seam to those that live outside the CPU (the GICv3 CPU
//! interface).

use core::fmt;

/// A system register's encoding, op0 to op2 packed as in the MRS instruction: op0\[15:14\] op1\[13:11\] CRn\[10:7\]
/// CRm\[6:3\] op2\[2:0\].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysReg(pub u16);

impl SysReg {
    /// The register of these fields; only the bits that each field has are used.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self(
            ((op0 & 3) as u16) << 14
                | ((op1 & 7) as u16) << 11
                | ((crn & 15) as u16) << 7
                | ((crm & 15) as u16) << 3
                | (op2 & 7) as u16,
        )
    }

    /// The register of these fields as a place for [`register_map!`](crate::register_map): the space of encodings is one of
    /// registers of eight bytes.
    #[must_use]
    pub const fn place(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> u64 {
        (Self::new(op0, op1, crn, crm, op2).0 as u64) << 3
    }

    /// The register at such a place.
    #[must_use]
    pub const fn at(place: u64) -> Self {
        Self((place >> 3) as u16)
    }

    /// op0, op1, CRn, CRm, op2.
    #[must_use]
    pub const fn fields(self) -> (u8, u8, u8, u8, u8) {
        let s = self.0;
        ((s >> 14) as u8 & 3, (s >> 11) as u8 & 7, (s >> 7) as u8 & 15, (s >> 3) as u8 & 15, s as u8 & 7)
    }
}

impl fmt::Debug for SysReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op0, op1, crn, crm, op2) = self.fields();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

/// System registers that a device keeps for each PE: here, the ICC_* registers of the GICv3 CPU interface.
pub trait SysRegDevice: Send + Sync {
    /// MRS by PE `cpu` at EL1, or `None` if there is no such register to read: UNDEFINED.
    fn sysreg_read(&self, cpu: usize, reg: SysReg) -> Option<u64>;

    /// MSR by PE `cpu` at EL1, or `None` if there is no such register to write: UNDEFINED.
    fn sysreg_write(&self, cpu: usize, reg: SysReg, value: u64) -> Option<()>;

    /// PE `cpu` is reset, by itself: its registers take their reset values.
    fn sysreg_reset(&self, cpu: usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_round_trips_and_reads_like_the_generic_name() {
        let icc_iar1_el1 = SysReg::new(3, 0, 12, 12, 0);
        assert_eq!(icc_iar1_el1.fields(), (3, 0, 12, 12, 0));
        assert_eq!(format!("{icc_iar1_el1:?}"), "S3_0_C12_C12_0");
        assert_eq!(SysReg::at(SysReg::place(3, 0, 12, 12, 0)), icc_iar1_el1);
    }
}
