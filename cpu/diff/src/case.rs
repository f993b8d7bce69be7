//! A case: a few instructions and the registers and memory they start from. The layout of its blocks in memory.

use crate::machine_code::EPILOGUE;

/// Bytes of an input or output block.
pub(crate) const BLOCK: usize = 800;
/// Bytes of memory that a case's loads and stores reach.
pub(crate) const SCRATCH: usize = 512;
/// Where in a block things are.
pub(crate) const CODE_ADDRESS_AT: usize = 240;
const NZCV_AT: usize = 248;
const FPCR_AT: usize = 256;
const FPSR_AT: usize = 264;
const SP_AT: usize = 272;
const V_AT: usize = 288;

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Neighbours of the same group have the same instructions, which are in memory once.
    pub(crate) group: usize,
    /// The instructions; a branch to the epilogue follows them.
    pub(crate) words: Vec<u32>,
    /// x0 to x29.
    pub(crate) x: [u64; 30],
    /// Bits \[31:28\].
    pub(crate) nzcv: u64,
    pub(crate) fpcr: u64,
    pub(crate) fpsr: u64,
    pub(crate) sp: u64,
    pub(crate) v: [u128; 32],
    /// Its part of the scratch memory.
    pub(crate) scratch: Vec<u8>,
}

impl Case {
    /// The input block, without the address of the code.
    pub(crate) fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        for (i, x) in self.x.iter().enumerate() {
            block[8 * i..8 * i + 8].copy_from_slice(&x.to_le_bytes());
        }
        for (at, value) in
            [(NZCV_AT, self.nzcv), (FPCR_AT, self.fpcr), (FPSR_AT, self.fpsr), (SP_AT, self.sp)]
        {
            block[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (i, v) in self.v.iter().enumerate() {
            block[V_AT + 16 * i..V_AT + 16 * i + 16].copy_from_slice(&v.to_le_bytes());
        }
        block
    }
}

/// The branch that ends a case, for code at `address`.
pub(crate) fn branch_to_epilogue(address: u64) -> u32 {
    let words = (EPILOGUE.wrapping_sub(address) as i64 >> 2) as u32;
    0x1400_0000 | words & 0x03ff_ffff
}

/// The name of the register or byte at an offset of an output block followed by scratch memory.
pub(crate) fn name_of(offset: usize) -> String {
    match offset {
        0..CODE_ADDRESS_AT => format!("x{}", offset / 8),
        NZCV_AT..FPCR_AT => "nzcv".into(),
        FPCR_AT..FPSR_AT => "fpcr".into(),
        FPSR_AT..SP_AT => "fpsr".into(),
        SP_AT..V_AT => "sp".into(),
        V_AT..BLOCK => format!("v{}", (offset - V_AT) / 16),
        _ => format!("memory+{:#x}", offset - BLOCK),
    }
}

/// Offset and length of what [`name_of`] names.
pub(crate) fn span_of(offset: usize) -> (usize, usize) {
    match offset {
        0..SP_AT => (offset & !7, 8),
        SP_AT..V_AT => (SP_AT, 8),
        V_AT..BLOCK => (V_AT + (offset - V_AT) / 16 * 16, 16),
        _ => (BLOCK + (offset - BLOCK) / 8 * 8, 8),
    }
}
