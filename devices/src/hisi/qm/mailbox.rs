//! The mailbox: sixteen bytes that start a command when the last of them is written.
//!
//! Software may deliver them as one 16-byte store, two of 8 or four of 4 bytes. Bit 13 of the first word is busy: set
//! by software, cleared when the command is done.

use bitfield_struct::bitfield;
use hw::{Iova, RestoreError};
use serde::{Deserialize, Serialize};

/// The first word.
#[bitfield(u16)]
pub struct MailboxW0 {
    pub command: u8,
    pub event: bool,
    /// 0: success.
    #[bits(4)]
    pub status: u8,
    pub busy: bool,
    /// 0 set or execute, 1 get.
    pub op_get: bool,
    _reserved: bool,
}

/// Command codes.
pub mod command {
    /// Load or dump a submission queue context.
    pub const SQC: u8 = 0x0;
    /// Load or dump a completion queue context.
    pub const CQC: u8 = 0x1;
    /// Load or dump the event queue context.
    pub const EQC: u8 = 0x2;
    /// Load or dump the asynchronous event queue context.
    pub const AEQC: u8 = 0x3;
    /// Base of the table of submission queue contexts.
    pub const SQC_BT: u8 = 0x4;
    /// Base of the table of completion queue contexts.
    pub const CQC_BT: u8 = 0x5;
    /// The caller's entry in the table of virtual functions.
    pub const SQC_VFT: u8 = 0x6;
    /// Finish a queue's tasks, then reject it.
    pub const STOP_QP: u8 = 0x8;
    /// Finish all tasks of the function.
    pub const FLUSH_QM: u8 = 0x9;
}

/// Status of a command that the device refused.
pub const STATUS_REFUSED: u8 = 1;

/// A context's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Sqc(u16),
    Cqc(u16),
    Eqc,
    Aeqc,
}

impl Context {
    /// The queue whose context it is.
    pub(super) const fn queue(self) -> Option<u16> {
        match self {
            Self::Sqc(qn) | Self::Cqc(qn) => Some(qn),
            Self::Eqc | Self::Aeqc => None,
        }
    }
}

/// What a command does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// A context comes from there.
    Load(Context, Iova),
    /// It goes there.
    Dump(Context, Iova),
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Transfer(Transfer),
    SetSqcTable(Iova),
    GetSqcTable,
    SetCqcTable(Iova),
    GetCqcTable,
    GetVft,
    StopQueue(u16),
    Flush,
    /// Nothing that this device knows.
    Unknown,
}

/// The mailbox as it is saved.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedMailbox {
    #[serde(with = "hw::saved::hex_bytes")]
    bytes: [u8; 16],
    /// A command is under way.
    is_started: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    bytes: [u8; 16],
    /// A command is under way. Busy alone may also mean that the rest of its bytes has not come yet.
    is_started: bool,
    /// Which command; tells it from those before a reset.
    pub(super) life: u64,
}

impl Mailbox {
    pub(super) const fn at_reset() -> Self {
        Self { bytes: [0; 16], is_started: false, life: 0 }
    }

    /// Forgets everything; the command under way, if any, no longer counts.
    pub(super) fn reset(&mut self) {
        *self = Self { bytes: [0; 16], is_started: false, life: self.life + 1 };
    }

    /// The command under way.
    pub(super) fn under_way(&self) -> Option<Command> {
        self.is_started.then(|| self.decode())
    }

    pub(super) const fn save(&self) -> SavedMailbox {
        SavedMailbox { bytes: self.bytes, is_started: self.is_started }
    }

    /// Of commands, only those with DMA or a wait are ever under way.
    pub(super) fn restore(&mut self, saved: &SavedMailbox) -> Result<(), RestoreError> {
        let mailbox = Self { bytes: saved.bytes, is_started: saved.is_started, life: self.life };
        let takes_time =
            || matches!(mailbox.decode(), Command::Transfer(_) | Command::StopQueue(_) | Command::Flush);
        if saved.is_started && !(mailbox.is_busy() && takes_time()) {
            return Err(RestoreError::value("mailbox", "no command that takes time is in its bytes"));
        }
        *self = mailbox;
        Ok(())
    }

    fn half(&self, at: usize) -> u16 {
        match self.bytes.get(at..at + 2) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => 0,
        }
    }

    fn w0(&self) -> MailboxW0 {
        MailboxW0::from(self.half(0))
    }

    fn is_busy(&self) -> bool {
        self.w0().busy()
    }

    /// A command is under way.
    pub(super) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// The 32-bit word `index`.
    pub(super) fn word(&self, index: u64) -> u32 {
        let at = (index as usize % 4) * 4;
        u32::from(self.half(at)) | u32::from(self.half(at + 2)) << 16
    }

    /// Bytes arrive at `offset` from the start. Returns the command if they start one. While one is under way
    /// nothing can be written.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> Option<Command> {
        let end = offset.checked_add(data.len())?;
        if self.is_started {
            return None;
        }
        self.bytes.get_mut(offset..end)?.copy_from_slice(data);
        (end == self.bytes.len() && self.is_busy()).then(|| {
            self.life += 1;
            self.is_started = true;
            self.decode()
        })
    }

    fn decode(&self) -> Command {
        let qn = self.half(2);
        let at = Iova(u64::from(self.word(1)) | u64::from(self.word(2)) << 32);
        let w0 = self.w0();
        let context = |context| {
            let transfer =
                if w0.op_get() { Transfer::Dump(context, at) } else { Transfer::Load(context, at) };
            Command::Transfer(transfer)
        };
        match (w0.command(), w0.op_get()) {
            (command::SQC, _) => context(Context::Sqc(qn)),
            (command::CQC, _) => context(Context::Cqc(qn)),
            (command::EQC, _) => context(Context::Eqc),
            (command::AEQC, _) => context(Context::Aeqc),
            (command::SQC_BT, false) => Command::SetSqcTable(at),
            (command::SQC_BT, true) => Command::GetSqcTable,
            (command::CQC_BT, false) => Command::SetCqcTable(at),
            (command::CQC_BT, true) => Command::GetCqcTable,
            (command::SQC_VFT, true) => Command::GetVft,
            (command::STOP_QP, false) => Command::StopQueue(qn),
            (command::FLUSH_QM, false) => Command::Flush,
            _ => Command::Unknown,
        }
    }

    /// The command is done: busy drops, and with it data appear, if it was one that reads.
    pub(super) fn finish(&mut self, status: u8, data: Option<u64>) {
        let w0 = self.w0().with_busy(false).with_status(status);
        self.bytes[..2].copy_from_slice(&u16::from(w0).to_le_bytes());
        if let Some(data) = data {
            self.bytes[4..12].copy_from_slice(&data.to_le_bytes());
        }
        self.is_started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(w0: u16, qn: u16, base: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&w0.to_le_bytes());
        bytes[2..4].copy_from_slice(&qn.to_le_bytes());
        bytes[4..12].copy_from_slice(&base.to_le_bytes());
        bytes
    }

    #[test]
    fn command_starts_with_the_write_of_the_last_byte_whatever_the_split() {
        let bytes = message(0x2000, 5, 0x1_2345_6780);
        for split in [16, 8, 4] {
            let mut mailbox = Mailbox::at_reset();
            let mut started = Vec::new();
            for (i, chunk) in bytes.chunks(split).enumerate() {
                started.push(mailbox.write(i * split, chunk));
            }
            let last = started.pop().unwrap();
            let load = Transfer::Load(Context::Sqc(5), Iova(0x1_2345_6780));
            assert_eq!(last, Some(Command::Transfer(load)));
            assert!(started.iter().all(Option::is_none), "split {split}");
            assert!(mailbox.is_started());
        }
    }

    #[test]
    fn message_without_busy_starts_nothing() {
        assert_eq!(Mailbox::at_reset().write(0, &message(0x0000, 0, 0)), None);
    }

    #[test]
    fn write_while_a_command_is_under_way_is_lost() {
        let mut mailbox = Mailbox::at_reset();
        assert_eq!(mailbox.write(0, &message(0x2008, 5, 0)), Some(Command::StopQueue(5)));
        assert_eq!(mailbox.write(0, &message(0x2009, 0, 0)), None);
        assert_eq!(mailbox.word(0), 0x0005_2008);
        mailbox.finish(0, None);
        assert_eq!(mailbox.write(0, &message(0x2009, 0, 0)), Some(Command::Flush));
    }

    #[test]
    fn data_of_a_get_command_appear_in_the_base_words() {
        let mut mailbox = Mailbox::at_reset();
        assert_eq!(mailbox.write(0, &message(0x6006, 0, 0)), Some(Command::GetVft));
        mailbox.finish(0, Some(0x07e0_1000_0000_0000));
        assert_eq!((mailbox.word(0), mailbox.word(1), mailbox.word(2)), (0x4006, 0, 0x07e0_1000));
        assert!(!mailbox.is_started());
    }

    #[test]
    fn status_of_a_refused_command_is_not_zero() {
        let mut mailbox = Mailbox::at_reset();
        assert_eq!(mailbox.write(0, &message(0x20ff, 0, 0)), Some(Command::Unknown));
        mailbox.finish(STATUS_REFUSED, None);
        assert_eq!(mailbox.word(0) >> 9 & 0xf, 1);
    }
}
