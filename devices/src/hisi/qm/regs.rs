//! Registers of the queue manager, offsets in BAR2.
//!
//! There is no public manual: names, offsets and behaviour are those that the Linux driver (`drivers/crypto/hisilicon`,
//! 6.12) relies on. The third column of each row names the group: "function" registers exist in the PF and in each VF,
//! "device" registers in the PF only, "counters" are the PF's debug counters, "master" the AXI master.
//! Deliberately absent, because not advertised: inter-function messages beyond their summary registers, the shaper,
//! live migration.

use hw::regmap::RegisterMap;

hw::register_map! {
    /// Queue manager registers.
    pub enum QmReg {
        AEQ_INT_SOURCE       @ 0x0000: 4 Special(0) = 0, "function" {
            PENDING[0] "the asynchronous event queue has entries that software has not read";
        };
        AEQ_INT_MASK         @ 0x0004: 4 Special(1) = 1, "function" {
            MASK[0] "the asynchronous event queue does not interrupt";
        };
        /// Bit 0: the event queue has entries that software has not read. Without it the driver of Linux 6.1 takes an
        /// interrupt for somebody else's.
        EQ_INT_SOURCE        @ 0x0008: 4 Special(0) = 0, "function";
        EQ_INT_MASK          @ 0x000c: 4 Special(1) = 1, "function" {
            MASK[0] "the event queue does not interrupt";
        };
        IFC_INT_SOURCE_V     @ 0x0020: 4 W1c(1) = 0, "function" {
            PENDING[0] "a message of the PF has come; never";
        };
        IFC_INT_MASK         @ 0x0024: 4 Rw(1) = 1, "function" {
            MASK[0] "messages of the PF do not interrupt";
        };
        /// Messages of the PF that interrupt: there are none.
        IFC_INT_STATUS       @ 0x0028: 4 Ro(0) = 0, "function";
        /// Sends a message to the PF: there is none to take it.
        IFC_INT_SET_V        @ 0x002c: 4 Ro(0) = 0, "function";
        /// Bit 0: each queue has a doorbell page of its own in BAR4.
        QUE_ISO_CFG          @ 0x0030: 4 Ro(0) = 1, "function";
        PAGE_SIZE            @ 0x0034: 4 Rw(3) = 0, "function" {
            SIZE[1:0] "of the driver's pages: 4, 16 or 64 KiB";
        };
        /// Functions that are active: none is shown.
        DFX_FUNS_ACTIVE_ST   @ 0x0200: 4 Ro(0) = 0, "function";
        CACHE_WB_START       @ 0x0204: 4 Special(1) = 0, "function" {
            START[0] "writes back what is cached of queues";
        };
        CACHE_WB_DONE        @ 0x0208: 4 Special(0) = 0, "function" {
            DONE[0] "all has been written back";
        };
        /// The version behind PCI revision 0x30, which the driver of Linux 7.3 reads; 0: that of the revision.
        SUB_VERSION_ID       @ 0x0210: 4 Ro(0) = 0, "function";
        /// Sixteen bytes that start a command when written as a whole.
        MAILBOX[4; 4]        @ 0x0300: 4 Special(0xffff_ffff) = 0, "function";
        /// New tail of a submission queue, or new head of a completion queue; the upper half rings.
        DOORBELL_SQ_CQ       @ 0x1000: 8 Special(u64::MAX) = 0, "function";
        /// New head of the event queue or the asynchronous one; the upper half rings.
        DOORBELL_EQ_AEQ      @ 0x2000: 8 Special(u64::MAX) = 0, "function";

        /// What this function offers; the values come from the engine's `Capabilities`.
        CAPABILITY[32; 4]    @ 0x3100: 4 Special(0) = 0, "capabilities";

        /// A bit for each error of the queue manager that has happened.
        ABNORMAL_INT_SOURCE  @ 0x10_0000: 4 W1c(0x7fff) = 0, "device";
        /// Errors that do not interrupt.
        ABNORMAL_INT_MASK    @ 0x10_0004: 4 Special(0x7fff) = 0x7fff, "device";
        /// Errors that have happened, as in ABNORMAL_INT_SOURCE.
        ABNORMAL_INT_STATUS  @ 0x10_0008: 4 Special(0) = 0, "device";
        /// Ones make errors happen.
        ABNORMAL_INT_SET     @ 0x10_000c: 4 Special(0x7fff) = 0, "device";
        /// Of the last overflow: never one.
        ABNORMAL_INF00       @ 0x10_0010: 4 Ro(0) = 0, "device";
        /// Of the last overflow: never one.
        ABNORMAL_INF01       @ 0x10_0014: 4 Ro(0) = 0, "device";
        /// Of the last overflow: never one.
        ABNORMAL_INF02       @ 0x10_0018: 4 Ro(0) = 0, "device";
        MEM_START_INIT       @ 0x10_0040: 4 Special(1) = 0, "device" {
            START[0] "initialises the memory of queues and tables";
        };
        MEM_INIT_DONE        @ 0x10_0044: 4 Ro(0) = 1, "device" {
            DONE[0] "the memory is initialised";
        };
        /// Caching of rings and contexts.
        CACHE_CTL            @ 0x10_0050: 4 Rw(0x3_ffff) = 0, "device";
        VFT_CFG_OP_ENABLE    @ 0x10_0054: 4 Special(1) = 0, "device" {
            START[0] "carries out the access to a table that the next registers describe";
        };
        VFT_CFG_OP_WR        @ 0x10_0058: 4 Rw(1) = 0, "device" {
            READ[0] "the access reads; 0: it writes";
        };
        VFT_CFG_TYPE         @ 0x10_005c: 4 Rw(3) = 0, "device" {
            TABLE[1:0] "of submission queues, of completion queues or of the shaper";
        };
        /// 5:0 the function whose entry it is.
        VFT_CFG              @ 0x10_0060: 4 Rw(0x7f) = 0, "device";
        /// Lower half of the entry.
        VFT_CFG_DATA_L       @ 0x10_0064: 4 Rw(0xffff_ffff) = 0, "device";
        /// Upper half of the entry.
        VFT_CFG_DATA_H       @ 0x10_0068: 4 Rw(0xffff_ffff) = 0, "device";
        VFT_CFG_RDY          @ 0x10_006c: 4 Rw(1) = 1, "device" {
            IDLE[0] "software writes 0 and starts an access, which sets it again";
        };
        /// Time that a command may take.
        TIMEOUT_CFG          @ 0x10_0070: 4 Rw(0xffff_ffff) = 0, "device";
        /// Time that a doorbell may take.
        DB_TIMEOUT_CFG       @ 0x10_0074: 4 Rw(0xffff_ffff) = 0, "device";
        /// Time that a function-level reset waits for.
        FLR_PENDING_TIME_CFG @ 0x10_0078: 4 Rw(0xffff_ffff) = 0, "device";
        /// Attributes of reads.
        ARUSER_M_CFG_1       @ 0x10_0088: 4 Rw(0xffff_ffff) = 0, "device";
        /// Which of them count.
        ARUSER_M_CFG_ENABLE  @ 0x10_0090: 4 Rw(0xffff_ffff) = 0, "device";
        /// Attributes of writes.
        AWUSER_M_CFG_1       @ 0x10_0098: 4 Rw(0xffff_ffff) = 0, "device";
        /// Which of them count.
        AWUSER_M_CFG_ENABLE  @ 0x10_00a0: 4 Rw(0xffff_ffff) = 0, "device";
        /// Which attributes of written data count.
        WUSER_M_CFG_ENABLE   @ 0x10_00a8: 4 Rw(0xffff_ffff) = 0, "device";
        /// Outstanding accesses of the master.
        AXI_M_CFG            @ 0x10_00ac: 4 Rw(0xffff_ffff) = 0, "device";
        /// Which of its ports are on.
        AXI_M_CFG_ENABLE     @ 0x10_00b0: 4 Rw(0xffff_ffff) = 0, "device";
        /// Attributes of messages and errors at the host interface.
        PEH_AXUSER_CFG       @ 0x10_00cc: 4 Rw(0xffff_ffff) = 0, "device";
        /// Which of them count.
        PEH_AXUSER_CFG_ENABLE @ 0x10_00d0: 4 Rw(0xffff_ffff) = 0, "device";
        /// The vendor, as the host interface shows it.
        PEH_VENDOR_ID        @ 0x10_00d8: 4 Rw(0xffff_ffff) = 0x19e5, "device";
        /// Errors that are reported as corrected.
        RAS_CE_ENABLE        @ 0x10_00ec: 4 Rw(0xffff_ffff) = 0, "device";
        /// Errors that are reported as fatal.
        RAS_FE_ENABLE        @ 0x10_00f0: 4 Rw(0xffff_ffff) = 0, "device";
        /// Errors that are reported as not fatal.
        RAS_NFE_ENABLE       @ 0x10_00f4: 4 Rw(0xffff_ffff) = 0, "device";
        /// Corrected errors before one is reported.
        RAS_CE_THRESHOLD     @ 0x10_00f8: 4 Rw(0xffff_ffff) = 0, "device";
        /// State of the host interface: nothing waits.
        PEH_DFX_INFO0        @ 0x10_00fc: 4 Ro(0) = 0, "device";
        /// State of the host interface: nothing waits.
        PEH_DFX_INFO1        @ 0x10_0100: 4 Ro(0) = 0, "device";
        DFX_CNT_CLR_CE       @ 0x10_0118: 4 Rw(1) = 0, "device" {
            CLEAR[0] "counters clear when read";
        };
        /// Time that an access may take.
        AXI_TIMEOUT_CFG      @ 0x10_0120: 4 Rw(0xffff_ffff) = 0, "device";
        /// Accesses that took longer: none.
        AXI_TIMEOUT_STATUS   @ 0x10_0124: 4 Ro(0) = 0, "device";
        /// Functions that take a message: none.
        IFC_READY_STATUS     @ 0x10_0128: 8 Ro(0) = 0, "device";
        IFC_INT_SET_P        @ 0x10_0130: 4 Wo(1) = 0, "device" {
            SET[0] "sends a message to functions: there is none to take it";
        };
        /// 5:0 which function a message is for.
        IFC_INT_CFG          @ 0x10_0134: 4 Rw(0x7f) = 0, "device";
        /// Functions that have sent a message: none.
        IFC_INT_SOURCE_P     @ 0x10_0138: 8 W1c(u64::MAX) = 0, "device";
        /// Time that completions may be collected.
        CQE_AGGREGATION_TIMEOUT @ 0x10_0144: 4 Rw(0xffff_ffff) = 0, "device";
        /// Power management.
        PM_CTRL              @ 0x10_0148: 4 Rw(0xffff_ffff) = 0, "device";
        QUEUE_NUMBERS        @ 0x10_0158: 4 Special(0) = 0, "device" {
            MOST[21:11] "most queues of one function";
            QUEUES[10:0] "queues of the device";
        };
        /// The shaper, which is not built.
        SHAPER_CFG           @ 0x10_0164: 4 Rw(0xffff_ffff) = 0, "device";

        /// Corrected errors of memory: none.
        DFX_ECC_1BIT_CNT     @ 0x10_4000: 4 Ro(0) = 0, "counters";
        /// Of the last one.
        DFX_ECC_1BIT_INF     @ 0x10_4004: 4 Ro(0) = 0, "counters";
        /// Uncorrected errors of memory: none.
        DFX_ECC_MBIT_CNT     @ 0x10_4008: 4 Ro(0) = 0, "counters";
        /// Of the last one.
        DFX_ECC_MBIT_INF     @ 0x10_400c: 4 Ro(0) = 0, "counters";
        /// Selects the function whose mailbox commands the next register counts.
        DFX_MB_CNT_VF        @ 0x10_4010: 4 Rw(0x3f) = 0, "counters";
        /// Mailbox commands.
        DFX_MB_CNT           @ 0x10_4018: 4 Special(0) = 0, "counters";
        /// Selects the function whose doorbells the next register counts.
        DFX_DB_CNT_VF        @ 0x10_4020: 4 Rw(0x3f) = 0, "counters";
        /// Doorbells.
        DFX_DB_CNT           @ 0x10_4028: 4 Special(0) = 0, "counters";
        DFX_SQE_CNT_VF_SQN   @ 0x10_4030: 4 Rw(0xffff_003f) = 0, "counters" {
            QUEUE[31:16] "of the next register";
            FUNCTION[5:0] "of the next register";
        };
        /// Commands taken out of the queue.
        DFX_SQE_CNT          @ 0x10_4038: 4 Special(0) = 0, "counters";
        DFX_CQE_CNT_VF_CQN   @ 0x10_4040: 4 Rw(0xffff_003f) = 0, "counters" {
            QUEUE[31:16] "of the next register";
            FUNCTION[5:0] "of the next register";
        };
        /// Completions put into the queue.
        DFX_CQE_CNT          @ 0x10_4048: 4 Special(0) = 0, "counters";
        /// Commands given to the engine.
        DFX_SEND_SQE_TO_ACC_CNT @ 0x10_4050: 4 Special(0) = 0, "counters";
        /// Commands that the engine has given back.
        DFX_WB_SQE_FROM_ACC_CNT @ 0x10_4058: 4 Special(0) = 0, "counters";
        /// Commands that the engine has ended.
        DFX_ACC_FINISH_CNT   @ 0x10_4060: 4 Special(0) = 0, "counters";
        /// Handshakes with the engine: none is open.
        DFX_ACC_RDY_VLD[2; 4] @ 0x10_40a0: 4 Ro(0) = 0, "counters";
        /// Handshakes of the master: none is open.
        DFX_AXI_RDY_VLD      @ 0x10_40a8: 4 Ro(0) = 0, "counters";
        /// Completions of commands that failed.
        DFX_CQE_ERR_CNT      @ 0x10_40b4: 4 Special(0) = 0, "counters";
        /// How full FIFOs are: empty.
        DFX_FF_ST[7; 4]      @ 0x10_40c8: 4 Ro(0) = 0, "counters";
        DFX_IN_IDLE_ST       @ 0x10_40e4: 4 Special(0) = 1, "counters" {
            IDLE[0] "no task in the device";
        };
        /// Errors that shut the master.
        OOO_SHUTDOWN_SEL     @ 0x10_40f8: 4 Rw(0xffff_ffff) = 0, "device";
        /// Errors that interrupt by message.
        RAS_MSI_INT_SEL      @ 0x10_40fc: 4 Rw(0xffff_ffff) = 0, "device";
        /// Completions written.
        DFX_CQE_OUT          @ 0x10_4100: 4 Special(0) = 0, "counters";
        /// Events written.
        DFX_EQE_OUT          @ 0x10_4104: 4 Special(0) = 0, "counters";
        /// Asynchronous events written.
        DFX_AEQE_OUT         @ 0x10_4108: 4 Special(0) = 0, "counters";
        /// The last doorbell, in two halves.
        DFX_DB_INFO[2; 4]    @ 0x10_4180: 4 Special(0) = 0, "counters";

        AM_CTRL_GLOBAL       @ 0x30_0000: 4 Special(1) = 0, "master" {
            SHUTDOWN[0] "no new DMA";
        };
        /// Most accesses of a port that are under way. The driver of SEC writes it.
        AM_CFG_SINGLE_PORT_MAX_TRANS @ 0x30_0014: 4 Rw(0xffff_ffff) = 0, "master";
        /// Ports that may write.
        AM_CFG_PORT_WR_EN    @ 0x30_001c: 4 Rw(0xffff_ffff) = 0, "master";
        /// Ports that are at work: none.
        AM_CURR_PORT_STS     @ 0x30_0100: 4 Ro(0) = 0, "master";
        /// Errors of the reorder buffer: none.
        AM_ROB_ECC_INT_STS   @ 0x30_0104: 4 W1c(0xffff_ffff) = 0, "master";
        AM_CURR_TRANS_RETURN @ 0x30_0150: 4 Special(0) = 0, "master" {
            WRITES[1] "all writes have returned";
            READS[0] "all reads have returned";
        };
        /// Reads that are under way, by identity: none.
        AM_CURR_RD_TXID_STS[2; 4] @ 0x30_0154: 4 Ro(0) = 0, "master";
        /// Writes that are under way, by identity: none.
        AM_CURR_WR_TXID_STS[2; 4] @ 0x30_0180: 4 Ro(0) = 0, "master";
    }
}

/// Whether each function has this register for itself.
pub(super) fn is_of_function(reg: QmReg) -> bool {
    matches!(reg.info().section, "function" | "capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::regmap::check_map;

    #[test]
    fn map_is_consistent() {
        check_map::<QmReg>();
        assert_eq!(QmReg::locate(0x10_0158).map(|at| at.reg), Some(QmReg::QUEUE_NUMBERS));
        assert_eq!(QmReg::locate(0x4000), None);
    }
}
