//! Registers of the DMA test device, in BAR0.

use bitfield_struct::bitfield;

/// Channels.
pub const CHANNELS: usize = 8;
/// Bytes of BAR0.
pub const BAR0_BYTES: u64 = 0x2000;

hw::register_map! {
    /// BAR0 of the DMA test device. The sections are those of `docs/dma-test.md`.
    pub enum DmaTestReg {
        /// The text `TDMA`.
        DT_ID @ 0x0000: 4 Ro(0) = 0x414d_4454, "Identification";
        /// Of these registers.
        DT_VERSION @ 0x0004: 4 Ro(0) = 1, "Identification";
        DT_FEATURES @ 0x0008: 4 Ro(0) = 8, "Identification" {
            PRI[9] "page requests";
            ATS[8] "address translation services";
            CHANNELS[7:0] "channels";
        };
        DT_CTRL @ 0x000c: 4 Special(0x3) = 0, "Control" {
            HOLD[1] "Invalidate Requests are not answered";
            RESET[0] "as a function-level reset, without the configuration space; reads as zero";
        };
        /// Invalidate Requests received.
        DT_INV_COUNT @ 0x0010: 4 Ro(0) = 0, "Invalidations";
        /// Invalidate Requests that wait for their answer.
        DT_INV_HELD @ 0x0014: 4 Ro(0) = 0, "Invalidations";
        /// The last one's address.
        DT_INV_ADDRESS @ 0x0018: 8 Ro(0) = 0, "Invalidations";
        /// The last one.
        DT_INV_INFO @ 0x0020: 4 Ro(0) = 0, "Invalidations" {
            SIZE[31:24] "log2 of the bytes";
            GLOBAL[21] "of all PASIDs";
            HAS_PASID[20] "with PASID";
            PASID[19:0] "the PASID";
        };
        DT_INV_ANSWER @ 0x0024: 4 Wo(0x1) = 0, "Invalidations" {
            ANSWER[0] "answers all that wait";
        };
        /// Page Request Group responses received.
        DT_PRG_COUNT @ 0x0028: 4 Ro(0) = 0, "Page requests";
        /// The last one.
        DT_PRG_INFO @ 0x002c: 4 Ro(0) = 0, "Page requests" {
            CODE[15:12] "response code";
            GROUP[8:0] "group";
        };
        /// The last one.
        DT_PRG_PASID @ 0x0030: 4 Ro(0) = 0, "Page requests" {
            HAS_PASID[31] "with PASID";
            PASID[19:0] "the PASID";
        };

        /// Starts a command.
        CH_COMMAND[8; 0x100] @ 0x1000: 4 Special(0x7_03ff) = 0, "Commands" {
            LAST[18] "of a Page Request: the last of its group";
            WRITE[17] "of a Page Request: for writing";
            READ[16] "of a Page Request: for reading";
            NO_WRITE[9] "of a Translation Request: not for writing";
            MESSAGE[8] "message on completion";
            OPCODE[7:0] "what to do";
        };
        CH_STATUS[8; 0x100] @ 0x1004: 4 Ro(0) = 0, "Commands" {
            DROPPED[6] "a command came while another was at work";
            MISMATCH[5] "memory does not hold what was expected";
            BAD_COMMAND[4] "there is no such command";
            GIVEN_UP[3] "by CH_GIVE_UP or a reset";
            ABORTED[2] "an access was aborted";
            DONE[1] "at its end";
            BUSY[0] "at work";
        };
        CH_TAG[8; 0x100] @ 0x1008: 4 Rw(0xe00f_ffff) = 0, "Commands" {
            HAS_PASID[31] "with PASID";
            PRIVILEGED[30] "privileged access";
            EXECUTE[29] "instruction fetch";
            PASID[19:0] "the PASID";
        };
        /// Bytes, below 1 MiB.
        CH_LENGTH[8; 0x100] @ 0x100c: 4 Rw(0xf_ffff) = 0, "Commands";
        /// Where the command reads or writes.
        CH_ADDRESS[8; 0x100] @ 0x1010: 8 Rw(u64::MAX) = 0, "Commands";
        /// Where a copy goes.
        CH_TARGET[8; 0x100] @ 0x1018: 8 Rw(u64::MAX) = 0, "Commands";
        /// What is written, or was read.
        CH_DATA[8; 0x100] @ 0x1020: 8 Special(u64::MAX) = 0, "Commands";
        /// Where the access was aborted, or the first byte that does not match.
        CH_FAULT[8; 0x100] @ 0x1028: 8 Ro(0) = 0, "Commands";
        /// Bytes before that.
        CH_BYTES[8; 0x100] @ 0x1030: 4 Ro(0) = 0, "Commands";
        CH_GROUP[8; 0x100] @ 0x1034: 4 Rw(0x1ff) = 0, "Page requests" {
            GROUP[8:0] "of a Page Request";
        };
        /// The translated address.
        CH_ATS_ADDRESS[8; 0x100] @ 0x1038: 8 Ro(0) = 0, "Translations";
        CH_ATS_INFO[8; 0x100] @ 0x1040: 4 Ro(0) = 0, "Translations" {
            COMPLETION[17:16] "0 success, 1 Unsupported Request, 2 Completer Abort";
            SIZE[15:8] "log2 of the bytes";
            UNTRANSLATED[5] "accesses have to go untranslated";
            GLOBAL[4] "of all PASIDs";
            PRIVILEGED[3] "for privileged accesses";
            EXECUTE[2] "may be executed";
            WRITE[1] "may be written";
            READ[0] "may be read";
        };
        /// Commands completed.
        CH_COUNT[8; 0x100] @ 0x1044: 4 Ro(0) = 0, "Commands";
        CH_GIVE_UP[8; 0x100] @ 0x1048: 4 Wo(0x1) = 0, "Commands" {
            GIVE_UP[0] "gives the present command up";
        };
    }
}

/// CH_COMMAND.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Command {
    pub opcode: u8,
    pub message: bool,
    pub no_write: bool,
    #[bits(6)]
    _res0_10: u8,
    pub read: bool,
    pub write: bool,
    pub last: bool,
    #[bits(13)]
    _res0_19: u16,
}

/// CH_COMMAND.opcode.
pub mod opcode {
    /// Up to 8 bytes at CH_ADDRESS into CH_DATA, in one access.
    pub const READ: u8 = 1;
    /// Up to 8 bytes of CH_DATA to CH_ADDRESS, in one access.
    pub const WRITE: u8 = 2;
    /// CH_DATA over and over, from CH_ADDRESS.
    pub const FILL: u8 = 3;
    /// From CH_ADDRESS to CH_TARGET.
    pub const COPY: u8 = 4;
    /// Whether CH_DATA stands over and over from CH_ADDRESS.
    pub const CHECK: u8 = 5;
    /// Translation Request for CH_ADDRESS.
    pub const TRANSLATE: u8 = 6;
    /// As READ, at the translated address CH_ADDRESS.
    pub const READ_TRANSLATED: u8 = 7;
    /// As WRITE, at the translated address CH_ADDRESS.
    pub const WRITE_TRANSLATED: u8 = 8;
    /// Page Request for CH_ADDRESS.
    pub const PAGE_REQUEST: u8 = 9;
    /// Stop marker for the PASID in CH_TAG.
    pub const STOP_MARKER: u8 = 10;
}

/// CH_STATUS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Status {
    pub busy: bool,
    pub done: bool,
    pub aborted: bool,
    pub given_up: bool,
    pub bad_command: bool,
    pub mismatch: bool,
    pub dropped: bool,
    #[bits(25)]
    _res0: u32,
}

/// CH_TAG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Tag {
    #[bits(20)]
    pub pasid: u32,
    #[bits(9)]
    _res0: u16,
    pub execute: bool,
    pub privileged: bool,
    pub has_pasid: bool,
}

/// CH_ATS_INFO.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AtsInfo {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub privileged: bool,
    pub global: bool,
    pub untranslated_only: bool,
    #[bits(2)]
    _res0_6: u8,
    pub size_log2: u8,
    #[bits(2)]
    pub completion: u8,
    #[bits(14)]
    _res0_18: u16,
}

/// CH_ATS_INFO.completion.
pub mod completion {
    /// With a translation.
    pub const SUCCESS: u8 = 0;
    /// Unsupported Request.
    pub const UNSUPPORTED_REQUEST: u8 = 1;
    /// Completer Abort.
    pub const COMPLETER_ABORT: u8 = 2;
}

/// DT_CTRL.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctrl {
    pub reset: bool,
    pub hold: bool,
    #[bits(30)]
    _res0: u32,
}

/// DT_INV_INFO.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InvInfo {
    #[bits(20)]
    pub pasid: u32,
    pub has_pasid: bool,
    pub global: bool,
    #[bits(2)]
    _res0: u8,
    pub size_log2: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::regmap::{RegisterMap, check_map};

    #[test]
    fn map_is_consistent_and_fits_the_bar() {
        check_map::<DmaTestReg>();
        let end = |info: &hw::regmap::RegisterInfo| info.offset + (info.count - 1) * info.stride + info.bytes;
        assert!(DmaTestReg::ALL.iter().all(|(_, info)| end(info) <= BAR0_BYTES));
        let channels = DmaTestReg::ALL.iter().filter(|(_, info)| info.offset >= 0x1000);
        assert!(channels.clone().all(|(_, info)| info.count == CHANNELS as u64));
        assert_eq!(DmaTestReg::DT_FEATURES.info().reset, CHANNELS as u64);
    }
}
