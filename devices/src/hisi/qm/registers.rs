//! What software sees at each register: reads and writes of 32-bit words.

use hw::BusError;
use hw::mmio::write_words;
use hw::regmap::{Located, RegisterMap};

use super::context::Doorbell;
use super::counters;
use super::device::{DEVICE_QUEUES, FUNCTION_QUEUES};
use super::engine::Engine;
use super::events::Ring;
use super::front::Front;
use super::regs::{QmReg, is_of_function};

/// The doorbell in a queue's page: for SQ and CQ.
const DOORBELL_IN_PAGE: u64 = 0x1000;
const DOORBELL_IN_PAGE_HIGH: u64 = 0x1004;

/// Capability words that all engines have in the same way; those of the engine follow.
mod capability {
    /// Version 1 of the capability registers, STOP_QP and FLUSH_QM. What is not built is not offered: the shaper,
    /// messages between functions, runtime power management, prefetching.
    pub(super) const BASE: u32 = 1 | 1 << 9 | 1 << 10;
    /// Depths of EQ (2048) and AEQ (1024).
    pub(super) const EVENT_DEPTHS: u32 = 0x0400_0800;
    /// Depths of SQ and CQ (1024).
    pub(super) const QUEUE_DEPTHS: u32 = 0x0400_0400;
    /// Interrupt type in the upper half (1: there is one), vector in the lower.
    pub(super) const EQ_IRQ: u32 = 0x0001_0000;
    pub(super) const AEQ_IRQ: u32 = 0x0001_0001;
    pub(super) const ABNORMAL_IRQ: u32 = 0x0001_0003;
    pub(super) const COMMUNICATION_IRQ: u32 = 0x0000_0002;
    /// MSI vectors of PF (4) and VF (3).
    pub(super) const VECTORS: u32 = 0x0004_0003;
}

/// The capability word at this offset.
pub(super) fn capability<E: Engine>(offset: u64) -> u32 {
    match offset {
        0x3100 => capability::BASE,
        0x3104 => capability::EVENT_DEPTHS,
        0x3108 => capability::QUEUE_DEPTHS,
        0x310c => capability::EQ_IRQ,
        0x3110 => capability::AEQ_IRQ,
        0x3114 => capability::ABNORMAL_IRQ,
        0x3118 => capability::COMMUNICATION_IRQ,
        0x311c => capability::VECTORS,
        0x3124 => E::QM_ERRORS.not_fatal,
        0x3128 => E::QM_ERRORS.reset,
        0x312c => E::QM_ERRORS.corrected,
        0x3130 => E::ERRORS.not_fatal,
        0x3134 => E::ERRORS.reset,
        0x3138 => E::ERRORS.corrected,
        _ => E::capability(offset),
    }
}

impl Front {
    /// A read of the aligned word at `offset`. Nothing is at offsets that the map does not know: zero.
    pub(super) fn read_word(&mut self, offset: u64) -> u32 {
        let Some(at) = QmReg::locate(offset) else { return 0 };
        let clears = self.device.regs.word(QmReg::DFX_CNT_CLR_CE) & 1 != 0;
        match at.reg {
            QmReg::MAILBOX => self.function.mailbox.word(at.index),
            QmReg::DOORBELL_SQ_CQ | QmReg::DOORBELL_EQ_AEQ => 0,
            QmReg::EQ_INT_SOURCE => u32::from(self.function.events.eq.has_entries()),
            QmReg::AEQ_INT_SOURCE => u32::from(self.function.events.aeq.has_entries()),
            QmReg::QUEUE_NUMBERS => u32::from(DEVICE_QUEUES) | u32::from(FUNCTION_QUEUES) << 11,
            QmReg::ABNORMAL_INT_STATUS => self.device.regs.word(QmReg::ABNORMAL_INT_SOURCE),
            QmReg::AM_CURR_TRANS_RETURN => {
                if self.is_quiet() && !self.function.has_parked() {
                    3
                } else {
                    0
                }
            }
            QmReg::DFX_IN_IDLE_ST => u32::from(self.is_idle()),
            QmReg::DFX_MB_CNT if self.selects_pf(QmReg::DFX_MB_CNT_VF) => {
                counters::read(&mut self.device.counters.mailboxes, clears)
            }
            QmReg::DFX_DB_CNT if self.selects_pf(QmReg::DFX_DB_CNT_VF) => {
                counters::read(&mut self.device.counters.doorbells, clears)
            }
            QmReg::DFX_SQE_CNT if self.selects_pf(QmReg::DFX_SQE_CNT_VF_SQN) => {
                let queue = self.device.regs.word(QmReg::DFX_SQE_CNT_VF_SQN) >> 16;
                self.function
                    .place_of(queue as usize)
                    .map_or(0, |queue| counters::read(&mut queue.sqes, clears))
            }
            QmReg::DFX_CQE_CNT if self.selects_pf(QmReg::DFX_CQE_CNT_VF_CQN) => {
                let queue = self.device.regs.word(QmReg::DFX_CQE_CNT_VF_CQN) >> 16;
                self.function
                    .place_of(queue as usize)
                    .map_or(0, |queue| counters::read(&mut queue.cqes, clears))
            }
            QmReg::DFX_SEND_SQE_TO_ACC_CNT => counters::read(&mut self.device.counters.sent, clears),
            QmReg::DFX_WB_SQE_FROM_ACC_CNT => counters::read(&mut self.device.counters.written_back, clears),
            QmReg::DFX_ACC_FINISH_CNT => counters::read(&mut self.device.counters.finished, clears),
            QmReg::DFX_CQE_ERR_CNT => counters::read(&mut self.device.counters.completion_errors, clears),
            QmReg::DFX_CQE_OUT => self.device.counters.cqe_out,
            QmReg::DFX_EQE_OUT => self.device.counters.eqe_out,
            QmReg::DFX_AEQE_OUT => self.device.counters.aeqe_out,
            QmReg::DFX_DB_INFO => (self.device.counters.last_doorbell >> (32 * (at.index & 1))) as u32,
            reg if is_of_function(reg) => self.function.regs.read_word(at),
            _ => self.device.regs.read_word(at),
        }
    }

    /// The counter selector names the PF, the only function that there is.
    fn selects_pf(&self, selector: QmReg) -> bool {
        self.device.regs.word(selector) & 0x3f == 0
    }

    /// A write of the aligned word at `offset`; lost at offsets that the map does not know. The mailbox does not
    /// come here.
    pub(super) fn write_word(&mut self, offset: u64, word: u32) {
        let Some(at) = QmReg::locate(offset) else { return };
        match at.reg {
            QmReg::MAILBOX => {}
            QmReg::DOORBELL_SQ_CQ => {
                if let Some(bell) = self.whole_bell(0, at, word) {
                    self.ring_queue(bell);
                }
            }
            QmReg::DOORBELL_EQ_AEQ => {
                if let Some(bell) = self.whole_bell(1, at, word) {
                    self.ring_events(bell);
                }
            }
            QmReg::EQ_INT_MASK | QmReg::AEQ_INT_MASK => {
                self.function.regs.write_word(at, word);
                let ring = if at.reg == QmReg::EQ_INT_MASK { Ring::Eq } else { Ring::Aeq };
                self.wake.control |= self.function.events.set_mask(ring, word & 1 != 0);
            }
            QmReg::CACHE_WB_START => {
                if word & 1 != 0 {
                    self.start_write_back();
                }
            }
            QmReg::ABNORMAL_INT_MASK => {
                if self.device.set_error_mask(word) {
                    self.post_abnormal();
                }
            }
            QmReg::ABNORMAL_INT_SET => self.raise_error(word & 0x7fff),
            QmReg::MEM_START_INIT => {
                if word & 1 != 0 {
                    self.initialise_memory();
                }
            }
            QmReg::VFT_CFG_OP_ENABLE => {
                if word & 1 != 0 && self.device.access_table() {
                    self.table_changed();
                }
            }
            QmReg::AM_CTRL_GLOBAL => {
                self.device.regs.set_word(QmReg::AM_CTRL_GLOBAL, word & 1);
                if word & 1 != 0 {
                    self.shut_master();
                } else {
                    self.device.is_shut = false;
                }
            }
            reg if is_of_function(reg) => self.function.regs.write_word(at, word),
            _ => self.device.regs.write_word(at, word),
        }
    }

    /// A doorbell as two words: the upper one makes it whole.
    fn whole_bell(&mut self, which: usize, at: Located<QmReg>, word: u32) -> Option<Doorbell> {
        let low = self.function.bell_low.get_mut(which)?;
        if at.byte < 4 {
            *low = word;
            return None;
        }
        Some(Doorbell::from(u64::from(*low) | u64::from(word) << 32))
    }

    /// A write to a queue's own doorbell page: the page says whose doorbell it is, whatever the data say.
    pub(super) fn ring_page(&mut self, qn: u16, offset: u64, data: &[u8]) -> Result<(), BusError> {
        write_words(offset, data, |at, word| {
            if let Some(queue) = self.function.place_of(usize::from(qn)) {
                match at {
                    DOORBELL_IN_PAGE => queue.bell_low = word,
                    DOORBELL_IN_PAGE_HIGH => {
                        let bell = u64::from(queue.bell_low) | u64::from(word) << 32;
                        self.ring_queue(Doorbell::from(bell).with_qn(qn));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}
