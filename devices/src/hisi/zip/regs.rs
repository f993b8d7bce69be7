//! Registers of the ZIP engine, offsets in BAR2, PF only. As the Linux driver (`hisi_zip`, 6.12) uses them.

hw::register_map! {
    /// ZIP engine registers.
    pub enum ZipReg {
        /// Bit 0: counters clear when read; bit 2: so do those that are read-only.
        SOFT_CTRL_CNT_CLR_CE @ 0x30_1000: 4 Rw(0xffff_ffff) = 0, "control";
        CLOCK_GATE_CTRL      @ 0x30_1004: 4 Rw(0xffff_ffff) = 0, "control";
        FSM_MAX_CNT          @ 0x30_1008: 4 Rw(0xffff_ffff) = 0, "control";
        SOFT_CTRL_ZIP_CONTROL @ 0x30_100c: 4 Rw(0xffff_ffff) = 0, "control";
        PORT_ARCA_CHE[2; 4]  @ 0x30_1040: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        PORT_AWCA_CHE[2; 4]  @ 0x30_1060: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        CORE_INT_SOURCE      @ 0x30_10a0: 4 W1c(0x1fff) = 0, "errors";
        CORE_INT_MASK        @ 0x30_10a4: 4 Special(0x1fff) = 0x1fff, "errors";
        CORE_INT_SET         @ 0x30_10a8: 4 Special(0x1fff) = 0, "errors";
        CORE_INT_STATUS      @ 0x30_10ac: 4 Special(0) = 0, "errors";
        BD_RUSER_32_63       @ 0x30_1110: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        SGL_RUSER_32_63      @ 0x30_111c: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        DATA_RUSER_32_63     @ 0x30_1128: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        DATA_WUSER_32_63     @ 0x30_1134: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        BD_WUSER_32_63       @ 0x30_1140: 4 Rw(0xffff_ffff) = 0, "bus attributes";
        CORE_SRAM_ECC_ERR_INFO @ 0x30_1148: 4 Ro(0) = 0, "errors";
        RAS_CE_ENB           @ 0x30_1160: 4 Rw(0xffff_ffff) = 0, "errors";
        RAS_NFE_ENB          @ 0x30_1164: 4 Rw(0xffff_ffff) = 0, "errors";
        RAS_FE_ENB           @ 0x30_1168: 4 Rw(0xffff_ffff) = 0, "errors";
        UNCOM_ERR_RAS_CTRL   @ 0x30_116c: 4 Rw(0xffff_ffff) = 0, "errors";
        PEH_CFG_AUTO_GATE    @ 0x30_11a8: 4 Rw(0xffff_ffff) = 0, "control";
        PREFETCH_CFG         @ 0x30_11b0: 4 Rw(0xffff_ffff) = 0x0402_0001, "control";
        SVA_TRANS            @ 0x30_11c4: 4 Ro(0) = 0, "control";
        LIT_LEN_EN           @ 0x30_1204: 4 Rw(0xffff_ffff) = 0, "control";
        /// Bit 0: speed before ratio.
        HIGH_PERF            @ 0x30_1208: 4 Rw(0xffff_ffff) = 0, "control";
        OOO_SHUTDOWN_SEL     @ 0x30_120c: 4 Rw(0xffff_ffff) = 0, "errors";

        /// Counters of the cores: 2 that compress, then 3 that decompress.
        GET_BD_NUM[5; 0x1000] @ 0x30_2000: 4 Special(0) = 0, "cores";
        GET_RIGHT_BD[5; 0x1000] @ 0x30_2004: 4 Special(0) = 0, "cores";
        GET_ERROR_BD[5; 0x1000] @ 0x30_2008: 4 Special(0) = 0, "cores";
        DONE_BD_NUM[5; 0x1000] @ 0x30_200c: 4 Special(0) = 0, "cores";
        MAX_DELAY[5; 0x1000] @ 0x30_2024: 4 Special(0) = 0, "cores";
        CONSUMED_BYTE[5; 0x1000] @ 0x30_2038: 8 Special(0) = 0, "cores";
        PRODUCED_BYTE[5; 0x1000] @ 0x30_2040: 8 Special(0) = 0, "cores";
    }
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
