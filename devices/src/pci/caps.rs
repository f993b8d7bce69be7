//! Registers of the configuration header and of each capability, declared once: name, offset, width, what software can change,
//! and their fields. PCI Express Base 7.5 to 7.9. Offsets of capability registers count from the capability.
//!
//! Where it depends on the function what a register says, or which bits software can change, the builder gives it.

use bitfield_struct::bitfield;

/// Type 0 header (7.5.1).
pub mod header {
    pub use self::HeaderReg::*;

    hw::register_map! {
        /// The header of a function (7.5.1).
        pub enum HeaderReg {
            /// Who has made the function.
            VENDOR_ID "Vendor ID" @ 0x00: 2 Ro(0) = 0, "7.5.1.1.1";
            /// Which function it is.
            DEVICE_ID "Device ID" @ 0x02: 2 Ro(0) = 0, "7.5.1.1.2";
            COMMAND "Command" @ 0x04: 2 Rw(0x0547) = 0, "7.5.1.1.3" {
                INTERRUPT_DISABLE[10] "no INTx, which there is not";
                SERR_ENABLE[8] "errors are reported";
                PARITY_ERROR_RESPONSE[6] "poisoned data are an error";
                BUS_MASTER_ENABLE[2] "requests may be made";
                MEMORY_SPACE_ENABLE[1] "memory BARs answer";
                IO_SPACE_ENABLE[0] "I/O BARs answer";
            };
            /// Errors are cleared by writing ones.
            STATUS "Status" @ 0x06: 2 W1c(0xf900) = 0x10, "7.5.1.1.4" {
                DETECTED_PARITY_ERROR[15] "poisoned data have come; never";
                SIGNALED_SYSTEM_ERROR[14] "an error was reported; never";
                RECEIVED_MASTER_ABORT[13] "a request had no completer; never";
                RECEIVED_TARGET_ABORT[12] "a request was aborted; never";
                SIGNALED_TARGET_ABORT[11] "a request of others was aborted; never";
                MASTER_DATA_PARITY_ERROR[8] "poisoned data for the function; never";
                CAPABILITIES_LIST[4] "there are capabilities";
            };
            /// Which revision.
            REVISION_ID "Revision ID" @ 0x08: 1 Ro(0) = 0, "7.5.1.1.5";
            /// How its registers are programmed.
            PROGRAMMING_INTERFACE "Programming Interface" @ 0x09: 1 Ro(0) = 0, "7.5.1.1.6";
            /// What it does, in detail.
            SUB_CLASS_CODE "Sub-Class Code" @ 0x0a: 1 Ro(0) = 0, "7.5.1.1.6";
            /// What it does.
            BASE_CLASS_CODE "Base Class Code" @ 0x0b: 1 Ro(0) = 0, "7.5.1.1.6";
            /// Without effect.
            CACHE_LINE_SIZE "Cache Line Size" @ 0x0c: 1 Rw(0xff) = 0, "7.5.1.1.7", Storage;
            HEADER_TYPE "Header Type" @ 0x0e: 1 Ro(0) = 0, "7.5.1.1.9" {
                MULTI_FUNCTION[7] "the device has several functions";
                LAYOUT[6:0] "0: a function; 1: a bridge";
            };
            /// The writable bits are those of the BAR's size.
            BAR "Base Address Registers"[6; 4] @ 0x10: 4 Rw(0xffff_fff0) = 0, "7.5.1.2.1" {
                ADDRESS[31:4] "where it answers; of a wide one the upper half is the next register";
                PREFETCHABLE[3] "reads have no effects";
                TYPE[2:1] "2: 64 bits";
                IO[0] "I/O space";
            };
            /// Whose product it is part of.
            SUBSYSTEM_VENDOR_ID "Subsystem Vendor ID" @ 0x2c: 2 Ro(0) = 0, "7.5.1.2.3";
            /// Which product.
            SUBSYSTEM_ID "Subsystem ID" @ 0x2e: 2 Ro(0) = 0, "7.5.1.2.3";
            /// The first capability; 0: there is none.
            CAPABILITIES_POINTER "Capabilities Pointer" @ 0x34: 1 Ro(0) = 0, "7.5.1.1.11";
            /// For software.
            INTERRUPT_LINE "Interrupt Line" @ 0x3c: 1 Rw(0xff) = 0, "7.5.1.1.12", Storage;
            /// There is no INTx.
            INTERRUPT_PIN "Interrupt Pin" @ 0x3d: 1 Ro(0) = 0, "7.5.1.1.13";
        }
    }

    /// Header Type: one of several functions.
    pub const MULTI_FUNCTION: u32 = 1 << 7;
}

/// Type 1 header (7.5.1.3): what differs from type 0. There is no I/O behind a port of ours: its window is read-only
/// zero.
pub mod bridge {
    pub use self::BridgeReg::*;

    hw::register_map! {
        /// The header of a port (7.5.1.3): what differs from that of a function.
        pub enum BridgeReg {
            /// The bus above. Without effect.
            PRIMARY_BUS "Primary Bus Number" @ 0x18: 1 Rw(0xff) = 0, "7.5.1.3.2", Storage;
            /// The bus below.
            SECONDARY_BUS "Secondary Bus Number" @ 0x19: 1 Rw(0xff) = 0, "7.5.1.3.3";
            /// The last bus below.
            SUBORDINATE_BUS "Subordinate Bus Number" @ 0x1a: 1 Rw(0xff) = 0, "7.5.1.3.4";
            /// There is no I/O below.
            IO_BASE "I/O Base" @ 0x1c: 1 Ro(0) = 0, "7.5.1.3.6";
            /// There is no I/O below.
            IO_LIMIT "I/O Limit" @ 0x1d: 1 Ro(0) = 0, "7.5.1.3.6";
            /// Errors below, cleared by writing ones: never any.
            SECONDARY_STATUS "Secondary Status" @ 0x1e: 2 W1c(0xf900) = 0, "7.5.1.3.7";
            MEMORY_BASE "Memory Base" @ 0x20: 2 Rw(0xfff0) = 0, "7.5.1.3.8" {
                ADDRESS[15:4] "bits 31:20 of the first address below";
            };
            MEMORY_LIMIT "Memory Limit" @ 0x22: 2 Rw(0xfff0) = 0, "7.5.1.3.8" {
                ADDRESS[15:4] "bits 31:20 of the last address below";
            };
            PREFETCHABLE_BASE "Prefetchable Memory Base" @ 0x24: 2 Rw(0xfff0) = 1, "7.5.1.3.9" {
                ADDRESS[15:4] "bits 31:20 of the first prefetchable address below";
                IS_64_BIT[0] "there is an upper half";
            };
            PREFETCHABLE_LIMIT "Prefetchable Memory Limit" @ 0x26: 2 Rw(0xfff0) = 1, "7.5.1.3.9" {
                ADDRESS[15:4] "bits 31:20 of the last prefetchable address below";
                IS_64_BIT[0] "there is an upper half";
            };
            /// Upper half of the first prefetchable address below.
            PREFETCHABLE_BASE_UPPER "Prefetchable Base Upper 32 Bits" @ 0x28: 4 Rw(0xffff_ffff) = 0, "7.5.1.3.10";
            /// Upper half of the last prefetchable address below.
            PREFETCHABLE_LIMIT_UPPER "Prefetchable Limit Upper 32 Bits" @ 0x2c: 4 Rw(0xffff_ffff) = 0, "7.5.1.3.10";
            CONTROL "Bridge Control" @ 0x3e: 2 Rw(0x0043) = 0, "7.5.1.3.13" {
                SECONDARY_BUS_RESET[6] "everything below is reset";
                SERR_ENABLE[1] "errors below are reported";
                PARITY_ERROR_RESPONSE[0] "poisoned data are an error";
            };
        }
    }

    /// Bridge Control.Secondary Bus Reset
    pub const SECONDARY_BUS_RESET: u32 = 1 << 6;
}

/// Command register (7.5.1.1.3).
#[bitfield(u16)]
pub struct Command {
    pub io_space_enable: bool,
    pub memory_space_enable: bool,
    pub bus_master_enable: bool,
    #[bits(3)]
    _hardwired: u8,
    pub parity_error_response: bool,
    _idsel: bool,
    pub serr_enable: bool,
    _fast_back_to_back: bool,
    pub interrupt_disable: bool,
    #[bits(5)]
    _reserved: u8,
}

/// What each capability begins with (7.5.1.1.11).
pub mod capability {
    pub use self::CapabilityReg::*;

    hw::register_map! {
        /// What each capability begins with.
        pub enum CapabilityReg {
            /// Which capability it is.
            ID "Capability ID" @ 0x0: 1 Ro(0) = 0, "7.5.1.1.11";
            /// The next one; 0: there is none.
            NEXT "Next Capability Pointer" @ 0x1: 1 Ro(0) = 0, "7.5.1.1.11";
        }
    }
}

/// What each extended capability begins with (7.6.3).
pub mod extended {
    pub use self::ExtendedReg::*;

    hw::register_map! {
        /// What each extended capability begins with.
        pub enum ExtendedReg {
            HEADER "Extended Capability Header" @ 0x0: 4 Ro(0) = 0, "7.6.3" {
                NEXT[31:20] "the next one; 0: there is none";
                VERSION[19:16] "of the capability's layout";
                ID[15:0] "which capability it is";
            };
        }
    }
}

/// Power management capability (7.5.2).
pub mod pm {
    pub use self::PmReg::*;

    hw::register_map! {
        /// Power management (7.5.2): D0 and D3hot.
        pub enum PmReg {
            PMC "Power Management Capabilities" @ 0x2: 2 Ro(0) = 0x3, "7.5.2.1" {
                PME_SUPPORT[15:11] "states that power events come from: none";
                D2_SUPPORT[10] "there is D2";
                D1_SUPPORT[9] "there is D1";
                VERSION[2:0] "3";
            };
            PMCSR "Power Management Control/Status" @ 0x4: 2 Rw(0x3) = 0x8, "7.5.2.2" {
                NO_SOFT_RESET[3] "leaving D3hot keeps all state";
                POWER_STATE[1:0] "0: D0, 3: D3hot; a write of another is ignored";
            };
        }
    }

    /// Capability ID.
    pub const ID: u8 = 0x01;
    /// Bytes.
    pub const LEN: u16 = 8;
}

/// MSI capability (7.7.1), with 64-bit address and per-vector masking.
pub mod msi {
    pub use self::MsiReg::*;

    hw::register_map! {
        /// MSI (7.7.1), with addresses of 64 bits and a mask.
        pub enum MsiReg {
            CONTROL "Message Control" @ 0x2: 2 Rw(0x0071) = 0x180, "7.7.1.2" {
                PER_VECTOR_MASKING[8] "there is a mask";
                IS_64_BIT[7] "the address has 64 bits";
                MULTIPLE_MESSAGE_ENABLE[6:4] "log2 of the vectors that may be used";
                MULTIPLE_MESSAGE_CAPABLE[3:1] "log2 of the vectors";
                ENABLE[0] "messages are sent";
            };
            ADDRESS "Message Address" @ 0x4: 4 Rw(0xffff_fffc) = 0, "7.7.1.3" {
                ADDRESS[31:2] "where messages go";
            };
            /// Upper half of the address.
            UPPER_ADDRESS "Message Upper Address" @ 0x8: 4 Rw(0xffff_ffff) = 0, "7.7.1.4";
            /// What a message says; the vector replaces its low bits.
            DATA "Message Data" @ 0xc: 2 Rw(0xffff) = 0, "7.7.1.5";
            /// A bit for each vector: its message is held back. The writable bits are those of the vectors.
            MASK "Mask Bits" @ 0x10: 4 Rw(0xffff_ffff) = 0, "7.7.1.7";
            /// A bit for each vector: its message is held back and due.
            PENDING "Pending Bits" @ 0x14: 4 Ro(0) = 0, "7.7.1.8";
        }
    }

    /// Capability ID.
    pub const ID: u8 = 0x05;
    /// Bytes.
    pub const LEN: u16 = 0x18;
}

/// MSI-X capability (7.7.2).
pub mod msix {
    pub use self::MsixReg::*;

    hw::register_map! {
        /// MSI-X (7.7.2).
        pub enum MsixReg {
            CONTROL "Message Control" @ 0x2: 2 Rw(0xc000) = 0, "7.7.2.2" {
                ENABLE[15] "messages are sent";
                FUNCTION_MASK[14] "all are held back";
                TABLE_SIZE[10:0] "vectors, less one";
            };
            TABLE "Table Offset/Table BIR" @ 0x4: 4 Ro(0) = 0, "7.7.2.3" {
                OFFSET[31:3] "where the table lies in the BAR";
                BIR[2:0] "in which BAR";
            };
            PBA "PBA Offset/PBA BIR" @ 0x8: 4 Ro(0) = 0, "7.7.2.4" {
                OFFSET[31:3] "where the pending bits lie in the BAR";
                BIR[2:0] "in which BAR";
            };
        }
    }

    /// Capability ID.
    pub const ID: u8 = 0x11;
    /// Bytes.
    pub const LEN: u16 = 0xc;
    /// Control.MSI-X Enable
    pub const ENABLE: u32 = 1 << 15;
    /// Control.Function Mask
    pub const FUNCTION_MASK: u32 = 1 << 14;
}

/// PCI Express capability (7.5.3), version 2.
pub mod express {
    pub use self::ExpressReg::*;

    hw::register_map! {
        /// PCI Express (7.5.3), version 2. There are no errors and no power events.
        pub enum ExpressReg {
            CAPABILITIES "PCI Express Capabilities" @ 0x2: 2 Ro(0) = 2, "7.5.3.2" {
                PORT_TYPE[7:4] "0: endpoint, 4: root port, 9: integrated endpoint";
                VERSION[3:0] "2";
            };
            DEVICE_CAPABILITIES "Device Capabilities" @ 0x4: 4 Ro(0) = 0x8000, "7.5.3.3" {
                FLR[28] "there is a function-level reset" only(ENDPOINT);
                ROLE_BASED_ERRORS[15] "errors are reported by role";
                MAX_PAYLOAD[2:0] "0: 128 bytes";
            };
            DEVICE_CONTROL "Device Control" @ 0x8: 2 Rw(0x7fff) = 0x2810, "7.5.3.4" {
                INITIATE_FLR[15] "a one resets the function; reads as zero" only(ENDPOINT);
                MAX_READ_REQUEST[14:12] "longest read; without effect";
                NO_SNOOP[11] "without effect";
                AUX_POWER[10] "without effect";
                PHANTOM_FUNCTIONS[9] "without effect";
                EXTENDED_TAG[8] "without effect";
                MAX_PAYLOAD[7:5] "longest write; without effect";
                RELAXED_ORDERING[4] "without effect";
                UNSUPPORTED_REQUEST[3] "is reported";
                FATAL_ERROR[2] "is reported";
                NON_FATAL_ERROR[1] "is reported";
                CORRECTABLE_ERROR[0] "is reported";
            };
            DEVICE_STATUS "Device Status" @ 0xa: 2 W1c(0x000f) = 0, "7.5.3.5" {
                UNSUPPORTED_REQUEST[3] "never";
                FATAL_ERROR[2] "never";
                NON_FATAL_ERROR[1] "never";
                CORRECTABLE_ERROR[0] "never";
            };
            LINK_CAPABILITIES "Link Capabilities" @ 0xc: 4 Ro(0) = 0x14, "7.5.3.6" only(LINK) {
                PORT_NUMBER[31:24] "0";
                MAX_WIDTH[9:4] "one lane";
                MAX_SPEED[3:0] "16 GT/s";
            };
            LINK_CONTROL "Link Control" @ 0x10: 2 Rw(0x03c3) = 0, "7.5.3.7", Storage only(LINK) {
                WIDTH_DISABLE[9] "without effect";
                CLOCK_POWER[8] "without effect";
                EXTENDED_SYNCH[7] "without effect";
                COMMON_CLOCK[6] "without effect";
                ASPM[1:0] "without effect";
            };
            LINK_STATUS "Link Status" @ 0x12: 2 Ro(0) = 0x14, "7.5.3.8" only(LINK) {
                WIDTH[9:4] "one lane";
                SPEED[3:0] "16 GT/s";
            };
            ROOT_CONTROL "Root Control" @ 0x1c: 2 Rw(0x000f) = 0, "7.5.3.12", Storage only(ROOT_PORT) {
                PME_INTERRUPT[3] "without effect";
                FATAL_ERROR[2] "without effect";
                NON_FATAL_ERROR[1] "without effect";
                CORRECTABLE_ERROR[0] "without effect";
            };
            /// Nothing is offered.
            ROOT_CAPABILITIES "Root Capabilities" @ 0x1e: 2 Ro(0) = 0, "7.5.3.13" only(ROOT_PORT);
            /// No power event has come.
            ROOT_STATUS "Root Status" @ 0x20: 4 Ro(0) = 0, "7.5.3.14" only(ROOT_PORT);
            DEVICE_CAPABILITIES_2 "Device Capabilities 2" @ 0x24: 4 Ro(0) = 0x0070_0010, "7.5.3.15" {
                MAX_PREFIXES[23:22] "1";
                PREFIXES[21] "End-End TLP prefixes, such as a PASID";
                EXTENDED_FMT[20] "they can be told";
                ARI_FORWARDING[5] "functions above 7 can be reached" only(ROOT_PORT);
                TIMEOUT_DISABLE[4] "completion timeout can be disabled";
            };
            DEVICE_CONTROL_2 "Device Control 2" @ 0x28: 2 Rw(0x833f) = 0, "7.5.3.16" {
                PREFIX_BLOCKING[15] "without effect";
                ID_BASED_COMPLETIONS[9] "without effect";
                ID_BASED_REQUESTS[8] "without effect";
                ARI_FORWARDING[5] "functions above 7 are reached" only(ROOT_PORT);
                TIMEOUT_DISABLE[4] "without effect";
                TIMEOUT[3:0] "without effect";
            };
        }
        /// What registers depend on: the kind of function.
        pub enum ExpressCondition {
            ENDPOINT "it is no port";
            LINK "it is not integrated into the root complex";
            ROOT_PORT "it is a root port";
        }
    }

    /// Capability ID.
    pub const ID: u8 = 0x10;
    /// Bytes.
    pub const LEN: u16 = 0x3c;
    /// Device Capabilities 2: ARI Forwarding Supported. Only for ports.
    pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;
    /// Device Control 2: ARI Forwarding Enable. Only for ports.
    pub const ARI_FORWARDING_ENABLE: u32 = 1 << 5;
    /// Device Capabilities: Function Level Reset Capability.
    pub const FLR_CAPABLE: u32 = 1 << 28;
    /// Device Control: Initiate Function Level Reset.
    pub const INITIATE_FLR: u32 = 1 << 15;
}

/// Device/port type (7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortType {
    /// An endpoint, below a port.
    Endpoint,
    /// A root port.
    RootPort,
    /// A root complex integrated endpoint, on the root bus.
    RcIntegratedEndpoint,
}

impl PortType {
    pub(super) const fn encoding(self) -> u32 {
        match self {
            Self::Endpoint => 0b0000,
            Self::RootPort => 0b0100,
            Self::RcIntegratedEndpoint => 0b1001,
        }
    }

    pub(super) fn holds(self, condition: express::ExpressCondition) -> bool {
        match condition {
            express::ExpressCondition::ENDPOINT => self != Self::RootPort,
            express::ExpressCondition::LINK => self != Self::RcIntegratedEndpoint,
            express::ExpressCondition::ROOT_PORT => self == Self::RootPort,
        }
    }
}

/// Vendor-specific capability (7.9.4): only its header is common.
pub mod vendor {
    /// Capability ID.
    pub const ID: u8 = 0x09;
}

/// PASID extended capability (7.8.9).
pub mod pasid {
    pub use self::PasidReg::*;

    hw::register_map! {
        /// PASID (7.8.9).
        pub enum PasidReg {
            CAPABILITY "PASID Capability" @ 0x4: 2 Ro(0) = 0, "7.8.9.2" {
                MAX_WIDTH[12:8] "bits of a PASID";
                PRIVILEGED[2] "privileged requests are offered";
                EXECUTE[1] "instruction fetches are offered";
            };
            CONTROL "PASID Control" @ 0x6: 2 Rw(0x7) = 0, "7.8.9.3" {
                PRIVILEGED_ENABLE[2] "privileged requests may be made" only(PRIVILEGED);
                EXECUTE_ENABLE[1] "instruction fetches may be made" only(EXECUTE);
                ENABLE[0] "requests may have a PASID";
            };
        }
        /// What the control's bits depend on.
        pub enum PasidCondition {
            EXECUTE "the capability offers instruction fetches";
            PRIVILEGED "the capability offers privileged requests";
        }
    }

    /// Extended capability ID.
    pub const ID: u16 = 0x001b;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// Control.PASID Enable
    pub const ENABLE: u32 = 1 << 0;
    /// Control.Execute Permission Enable
    pub const EXECUTE_ENABLE: u32 = 1 << 1;
    /// Control.Privileged Mode Enable
    pub const PRIVILEGED_ENABLE: u32 = 1 << 2;
}

/// ATS extended capability (10.5.1).
pub mod ats {
    pub use self::AtsReg::*;

    hw::register_map! {
        /// Address translation services (10.5.1).
        pub enum AtsReg {
            CAPABILITY "ATS Capability" @ 0x4: 2 Ro(0) = 0x60, "10.5.1.2" {
                GLOBAL_INVALIDATE[6] "invalidations of all PASIDs are understood";
                PAGE_ALIGNED_REQUEST[5] "requests are for whole pages";
                QUEUE_DEPTH[4:0] "invalidations that are taken at once; 0: 32";
            };
            CONTROL "ATS Control" @ 0x6: 2 Rw(0x801f) = 0, "10.5.1.3" {
                ENABLE[15] "translations may be asked for";
                SMALLEST_UNIT[4:0] "log2 of the pages of one request";
            };
        }
    }

    /// Extended capability ID.
    pub const ID: u16 = 0x000f;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// Control.Enable
    pub const ENABLE: u32 = 1 << 15;
}

/// Page Request extended capability (10.5.2).
pub mod page_request {
    pub use self::PageRequestReg::*;

    hw::register_map! {
        /// Page requests (10.5.2).
        pub enum PageRequestReg {
            CONTROL "Page Request Control" @ 0x4: 2 Rw(0x1) = 0, "10.5.2.2" {
                RESET[1] "a one forgets requests without answer; reads as zero";
                ENABLE[0] "requests may be made";
            };
            STATUS "Page Request Status" @ 0x6: 2 W1c(0x3) = 0x8100, "10.5.2.3" {
                PASID_REQUIRED[15] "responses have to carry the PASID";
                STOPPED[8] "no request is without answer";
                UNEXPECTED_INDEX[1] "a response was of no request";
                RESPONSE_FAILURE[0] "a request has failed, and none is made any more";
            };
            /// Most requests without answer.
            CAPACITY "Outstanding Page Request Capacity" @ 0x8: 4 Ro(0) = 0, "10.5.2.4";
            /// As many as software allows.
            ALLOCATION "Outstanding Page Request Allocation" @ 0xc: 4 Rw(0xffff_ffff) = 0, "10.5.2.5";
        }
    }

    /// Extended capability ID.
    pub const ID: u16 = 0x0013;
    /// Bytes.
    pub const LEN: u16 = 0x10;
    /// Control.Enable
    pub const ENABLE: u32 = 1 << 0;
    /// Control.Reset
    pub const RESET: u32 = 1 << 1;
    /// Status.Response Failure
    pub const RESPONSE_FAILURE: u32 = 1 << 0;
    /// Status.Unexpected Page Request Group Index
    pub const UNEXPECTED_INDEX: u32 = 1 << 1;
    /// Status.Stopped
    pub const STOPPED: u32 = 1 << 8;
    /// Status.PRG Response PASID Required
    pub const PASID_REQUIRED: u32 = 1 << 15;
}

/// Access Control Services extended capability (7.7.11).
pub mod acs {
    pub use self::AcsReg::*;

    hw::register_map! {
        /// Access control services (7.7.11).
        pub enum AcsReg {
            /// A bit for each service that is offered, as in the control.
            CAPABILITY "ACS Capability" @ 0x4: 2 Ro(0) = 0, "7.7.11.2";
            /// The writable bits are those that the capability offers.
            CONTROL "ACS Control" @ 0x6: 2 Rw(0x7f) = 0, "7.7.11.3", Storage {
                DIRECT_TRANSLATED[6] "translated requests go directly";
                EGRESS_CONTROL[5] "by list";
                UPSTREAM_FORWARDING[4] "what came from below goes up again";
                COMPLETION_REDIRECT[3] "completions go up";
                REQUEST_REDIRECT[2] "requests go up";
                TRANSLATION_BLOCKING[1] "translated requests are refused";
                SOURCE_VALIDATION[0] "requester IDs are checked";
            };
        }
    }

    /// Extended capability ID.
    pub const ID: u16 = 0x000d;
    /// Bytes.
    pub const LEN: u16 = 8;
}

/// Alternative Routing-ID Interpretation extended capability (7.8.8).
pub mod ari {
    pub use self::AriReg::*;

    hw::register_map! {
        /// Alternative routing-ID interpretation (7.8.8).
        pub enum AriReg {
            CAPABILITY "ARI Capability" @ 0x4: 2 Ro(0) = 0, "7.8.8.2" {
                NEXT_FUNCTION[15:8] "number of the device's next function; 0: there is none";
            };
            /// Nothing is offered.
            CONTROL "ARI Control" @ 0x6: 2 Ro(0) = 0, "7.8.8.3";
        }
    }

    /// Extended capability ID.
    pub const ID: u16 = 0x000e;
    /// Bytes.
    pub const LEN: u16 = 8;
}
