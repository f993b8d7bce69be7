//! Registers of the ZIP engine, offsets in BAR2, PF only. As the Linux driver (`hisi_zip`, 6.12) uses them.

use crate::hisi::registers::{EngineMap, ErrorRegisters, MaskSays};

hw::register_map! {
    /// ZIP engine registers.
    pub enum ZipReg {
        SOFT_CTRL_CNT_CLR_CE @ 0x30_1000: 4 Rw(0xffff_ffff) = 0, "control", Modelled {
            OTHER[31:3] "kept";
            READ_ONLY[2] "so do those that are read-only";
            KEPT[1] "kept";
            CLEAR[0] "counters clear when read";
        };
        /// Clocks that are on.
        CLOCK_GATE_CTRL      @ 0x30_1004: 4 Rw(0xffff_ffff) = 0, "control";
        /// Time that a state may take.
        FSM_MAX_CNT          @ 0x30_1008: 4 Rw(0xffff_ffff) = 0, "control";
        /// Switches of the cores.
        SOFT_CTRL_ZIP_CONTROL @ 0x30_100c: 4 Rw(0xffff_ffff) = 0, "control";
        /// Cache attributes of reads, by port.
        PORT_ARCA_CHE[2; 4]  @ 0x30_1040: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Cache attributes of writes, by port.
        PORT_AWCA_CHE[2; 4]  @ 0x30_1060: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// A bit for each error of the cores that has happened.
        CORE_INT_SOURCE      @ 0x30_10a0: 4 W1c(0x1fff) = 0, "errors", Modelled;
        /// Errors that do not interrupt.
        CORE_INT_MASK        @ 0x30_10a4: 4 Special(0x1fff) = 0x1fff, "errors";
        /// Ones make errors happen.
        CORE_INT_SET         @ 0x30_10a8: 4 Special(0x1fff) = 0, "errors";
        /// Errors that have happened, as in CORE_INT_SOURCE.
        CORE_INT_STATUS      @ 0x30_10ac: 4 Special(0) = 0, "errors";
        /// Attributes of reads of commands.
        BD_RUSER_32_63       @ 0x30_1110: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Attributes of reads of scatter lists.
        SGL_RUSER_32_63      @ 0x30_111c: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Attributes of reads of data.
        DATA_RUSER_32_63     @ 0x30_1128: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Attributes of writes of data.
        DATA_WUSER_32_63     @ 0x30_1134: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Attributes of writes of commands.
        BD_WUSER_32_63       @ 0x30_1140: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        /// Of the last error of a core's memory: none.
        CORE_SRAM_ECC_ERR_INFO @ 0x30_1148: 4 Ro(0) = 0, "errors";
        /// Errors that are reported as corrected.
        RAS_CE_ENB           @ 0x30_1160: 4 Rw(0xffff_ffff) = 0, "errors";
        /// Errors that are reported as not fatal.
        RAS_NFE_ENB          @ 0x30_1164: 4 Rw(0xffff_ffff) = 0, "errors";
        /// Errors that are reported as fatal.
        RAS_FE_ENB           @ 0x30_1168: 4 Rw(0xffff_ffff) = 0, "errors";
        /// Reporting of other errors.
        UNCOM_ERR_RAS_CTRL   @ 0x30_116c: 4 Rw(0xffff_ffff) = 0, "errors";
        /// Clock gating at the host interface.
        PEH_CFG_AUTO_GATE    @ 0x30_11a8: 4 Rw(0xffff_ffff) = 0, "control";
        /// Prefetching of translations, which is not built.
        PREFETCH_CFG         @ 0x30_11b0: 4 Rw(0xffff_ffff) = 0x0402_0001, "control";
        /// Translations that are under way: none.
        SVA_TRANS            @ 0x30_11c4: 4 Ro(0) = 0, "control";
        /// Encoding of literals and lengths.
        LIT_LEN_EN           @ 0x30_1204: 4 Rw(0xffff_ffff) = 0, "control";
        HIGH_PERF            @ 0x30_1208: 4 Rw(0xffff_ffff) = 0, "control" {
            OTHER[31:1] "kept";
            SPEED[0] "speed before ratio";
        };
        /// Errors that shut the master.
        OOO_SHUTDOWN_SEL     @ 0x30_120c: 4 Rw(0xffff_ffff) = 0, "errors";

        /// Counters of the cores: 2 that compress, then 3 that decompress.
        GET_BD_NUM[5; 0x1000] @ 0x30_2000: 4 Special(0) = 0, "cores";
        /// Requests of the core that were well formed.
        GET_RIGHT_BD[5; 0x1000] @ 0x30_2004: 4 Special(0) = 0, "cores";
        /// Requests of the core that were not.
        GET_ERROR_BD[5; 0x1000] @ 0x30_2008: 4 Special(0) = 0, "cores";
        /// Requests that the core has ended.
        DONE_BD_NUM[5; 0x1000] @ 0x30_200c: 4 Special(0) = 0, "cores";
        /// The longest time of one, in nanoseconds.
        MAX_DELAY[5; 0x1000] @ 0x30_2024: 4 Special(0) = 0, "cores";
        /// Bytes that the core has read.
        CONSUMED_BYTE[5; 0x1000] @ 0x30_2038: 8 Special(0) = 0, "cores";
        /// Bytes that the core has written.
        PRODUCED_BYTE[5; 0x1000] @ 0x30_2040: 8 Special(0) = 0, "cores";
    }
}

impl EngineMap for ZipReg {
    const ERRORS: ErrorRegisters<Self> = ErrorRegisters {
        source: Self::CORE_INT_SOURCE,
        status: Self::CORE_INT_STATUS,
        mask: Self::CORE_INT_MASK,
        mask_says: MaskSays::Masked,
        set: Some(Self::CORE_INT_SET),
    };
    const COUNTERS_CLEAR: Self = Self::SOFT_CTRL_CNT_CLR_CE;
}

/// Cores that compress; the others decompress.
pub const COMPRESSION_CORES: usize = 2;
/// Cores.
pub const CORES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use hw::regmap::check_map;

    #[test]
    fn map_is_consistent() {
        check_map::<ZipReg>();
    }
}
