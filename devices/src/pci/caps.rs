//! Registers of the configuration header and of each capability, declared once: name, offset, width, what software
//! can change. PCI Express Base 7.5 to 7.9.

use bitfield_struct::bitfield;

/// One register of the configuration space. Offsets of capability registers count from the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4.
    pub bytes: u16,
    /// Bits that software can write.
    pub writable: u32,
    /// Bits that software clears by writing ones.
    pub w1c: u32,
}

const fn ro(name: &'static str, offset: u16, bytes: u16) -> Field {
    Field { name, offset, bytes, writable: 0, w1c: 0 }
}

const fn rw(name: &'static str, offset: u16, bytes: u16, writable: u32) -> Field {
    Field { name, offset, bytes, writable, w1c: 0 }
}

const fn w1c(name: &'static str, offset: u16, bytes: u16, w1c: u32) -> Field {
    Field { name, offset, bytes, writable: 0, w1c }
}

/// Type 0 header (7.5.1).
pub mod header {
    use super::{Field, ro, rw, w1c};
    /// 7.5.1.1.1
    pub const VENDOR_ID: Field = ro("Vendor ID", 0x00, 2);
    /// 7.5.1.1.2
    pub const DEVICE_ID: Field = ro("Device ID", 0x02, 2);
    /// 7.5.1.1.3: I/O Space, Memory Space, Bus Master, Parity Error Response, SERR#, Interrupt Disable.
    pub const COMMAND: Field = rw("Command", 0x04, 2, 0x0547);
    /// 7.5.1.1.4. Errors are cleared by writing ones.
    pub const STATUS: Field = w1c("Status", 0x06, 2, 0xf900);
    /// 7.5.1.1.5
    pub const REVISION_ID: Field = ro("Revision ID", 0x08, 1);
    /// 7.5.1.1.6: programming interface, sub-class, base class.
    pub const CLASS_CODE: [Field; 3] =
        [ro("Programming Interface", 0x09, 1), ro("Sub-Class Code", 0x0a, 1), ro("Base Class Code", 0x0b, 1)];
    /// 7.5.1.1.7: storage, without effect.
    pub const CACHE_LINE_SIZE: Field = rw("Cache Line Size", 0x0c, 1, 0xff);
    /// 7.5.1.1.9
    pub const HEADER_TYPE: Field = ro("Header Type", 0x0e, 1);
    /// 7.5.1.2.1: the writable bits depend on the BAR.
    pub const BAR0: Field = ro("Base Address Registers", 0x10, 4);
    /// 7.5.1.2.3
    pub const SUBSYSTEM_VENDOR_ID: Field = ro("Subsystem Vendor ID", 0x2c, 2);
    /// 7.5.1.2.3
    pub const SUBSYSTEM_ID: Field = ro("Subsystem ID", 0x2e, 2);
    /// 7.5.1.1.11
    pub const CAPABILITIES_POINTER: Field = ro("Capabilities Pointer", 0x34, 1);
    /// 7.5.1.1.12: storage for software.
    pub const INTERRUPT_LINE: Field = rw("Interrupt Line", 0x3c, 1, 0xff);
    /// 7.5.1.1.13: 0, there is no INTx.
    pub const INTERRUPT_PIN: Field = ro("Interrupt Pin", 0x3d, 1);
}

/// Type 1 header (7.5.1.3): what differs from type 0. There is no I/O behind a port of ours: its window is read-only
/// zero.
pub mod bridge {
    use super::{Field, ro, rw, w1c};
    /// 7.5.1.3.2: storage.
    pub const PRIMARY_BUS: Field = rw("Primary Bus Number", 0x18, 1, 0xff);
    /// 7.5.1.3.3
    pub const SECONDARY_BUS: Field = rw("Secondary Bus Number", 0x19, 1, 0xff);
    /// 7.5.1.3.4
    pub const SUBORDINATE_BUS: Field = rw("Subordinate Bus Number", 0x1a, 1, 0xff);
    /// 7.5.1.3.6
    pub const IO_BASE: Field = ro("I/O Base", 0x1c, 1);
    /// 7.5.1.3.6
    pub const IO_LIMIT: Field = ro("I/O Limit", 0x1d, 1);
    /// 7.5.1.3.7
    pub const SECONDARY_STATUS: Field = w1c("Secondary Status", 0x1e, 2, 0xf900);
    /// 7.5.1.3.8: address bits 31:20 in bits 15:4.
    pub const MEMORY_BASE: Field = rw("Memory Base", 0x20, 2, 0xfff0);
    /// 7.5.1.3.8
    pub const MEMORY_LIMIT: Field = rw("Memory Limit", 0x22, 2, 0xfff0);
    /// 7.5.1.3.9: as [`MEMORY_BASE`]; bit 0 tells of 64-bit addresses.
    pub const PREFETCHABLE_BASE: Field = rw("Prefetchable Memory Base", 0x24, 2, 0xfff0);
    /// 7.5.1.3.9
    pub const PREFETCHABLE_LIMIT: Field = rw("Prefetchable Memory Limit", 0x26, 2, 0xfff0);
    /// 7.5.1.3.10
    pub const PREFETCHABLE_BASE_UPPER: Field = rw("Prefetchable Base Upper 32 Bits", 0x28, 4, 0xffff_ffff);
    /// 7.5.1.3.10
    pub const PREFETCHABLE_LIMIT_UPPER: Field = rw("Prefetchable Limit Upper 32 Bits", 0x2c, 4, 0xffff_ffff);
    /// 7.5.1.3.13: Parity Error Response, SERR#, Secondary Bus Reset.
    pub const CONTROL: Field = rw("Bridge Control", 0x3e, 2, 0x0043);
    /// Bridge Control.Secondary Bus Reset
    pub const SECONDARY_BUS_RESET: u32 = 1 << 6;
    /// Prefetchable Memory Base and Limit: 64-bit addresses.
    pub const IS_64_BIT: u32 = 1;
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

/// Status.Capabilities List.
pub const STATUS_CAPABILITIES_LIST: u32 = 1 << 4;

/// Power management capability (7.5.2).
pub mod pm {
    use super::{Field, ro, rw};
    /// Capability ID.
    pub const ID: u8 = 0x01;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// 7.5.2.1
    pub const PMC: Field = ro("Power Management Capabilities", 0x2, 2);
    /// 7.5.2.2: PowerState.
    pub const PMCSR: Field = rw("Power Management Control/Status", 0x4, 2, 0x3);
    /// PMC version 3, no D1, D2, PME.
    pub const PMC_VALUE: u32 = 0x0003;
    /// PMCSR.No_Soft_Reset: leaving D3hot keeps all state.
    pub const NO_SOFT_RESET: u32 = 1 << 3;
}

/// MSI capability (7.7.1), with 64-bit address and per-vector masking.
pub mod msi {
    use super::{Field, ro, rw};
    /// Capability ID.
    pub const ID: u8 = 0x05;
    /// Bytes.
    pub const LEN: u16 = 0x18;
    /// 7.7.1.2: MSI Enable, Multiple Message Enable.
    pub const CONTROL: Field = rw("Message Control", 0x2, 2, 0x0071);
    /// 7.7.1.3
    pub const ADDRESS: Field = rw("Message Address", 0x4, 4, 0xffff_fffc);
    /// 7.7.1.4
    pub const UPPER_ADDRESS: Field = rw("Message Upper Address", 0x8, 4, 0xffff_ffff);
    /// 7.7.1.5
    pub const DATA: Field = rw("Message Data", 0xc, 2, 0xffff);
    /// 7.7.1.7: the writable bits are those of the vectors.
    pub const MASK: Field = ro("Mask Bits", 0x10, 4);
    /// 7.7.1.8
    pub const PENDING: Field = ro("Pending Bits", 0x14, 4);
    /// Control.64-bit Address Capable and Per-Vector Masking Capable.
    pub const CONTROL_FIXED: u32 = 1 << 7 | 1 << 8;
}

/// MSI-X capability (7.7.2).
pub mod msix {
    use super::{Field, ro, rw};
    /// Capability ID.
    pub const ID: u8 = 0x11;
    /// Bytes.
    pub const LEN: u16 = 0xc;
    /// 7.7.2.2: Function Mask, MSI-X Enable.
    pub const CONTROL: Field = rw("Message Control", 0x2, 2, 0xc000);
    /// 7.7.2.3
    pub const TABLE: Field = ro("Table Offset/Table BIR", 0x4, 4);
    /// 7.7.2.4
    pub const PBA: Field = ro("PBA Offset/PBA BIR", 0x8, 4);
    /// Control.MSI-X Enable
    pub const ENABLE: u32 = 1 << 15;
    /// Control.Function Mask
    pub const FUNCTION_MASK: u32 = 1 << 14;
}

/// PCI Express capability (7.5.3), version 2.
pub mod express {
    use super::{Field, ro, rw, w1c};
    /// Capability ID.
    pub const ID: u8 = 0x10;
    /// Bytes.
    pub const LEN: u16 = 0x3c;
    /// 7.5.3.2
    pub const CAPABILITIES: Field = ro("PCI Express Capabilities", 0x2, 2);
    /// 7.5.3.3
    pub const DEVICE_CAPABILITIES: Field = ro("Device Capabilities", 0x4, 4);
    /// 7.5.3.4: all but Initiate Function Level Reset, which reads as zero.
    pub const DEVICE_CONTROL: Field = rw("Device Control", 0x8, 2, 0x7fff);
    /// 7.5.3.5
    pub const DEVICE_STATUS: Field = w1c("Device Status", 0xa, 2, 0x000f);
    /// 7.5.3.6. Not for root complex integrated endpoints.
    pub const LINK_CAPABILITIES: Field = ro("Link Capabilities", 0xc, 4);
    /// 7.5.3.7
    pub const LINK_CONTROL: Field = rw("Link Control", 0x10, 2, 0x03c3);
    /// 7.5.3.8
    pub const LINK_STATUS: Field = ro("Link Status", 0x12, 2);
    /// 7.5.3.15
    pub const DEVICE_CAPABILITIES_2: Field = ro("Device Capabilities 2", 0x24, 4);
    /// 7.5.3.16: completion timeout, ID-based ordering, End-End TLP Prefix Blocking.
    pub const DEVICE_CONTROL_2: Field = rw("Device Control 2", 0x28, 2, 0x831f);
    /// 7.5.3.12 to 7.5.3.14. Only for root ports, and without effect: there are no errors and no power events.
    pub const ROOT: [Field; 3] =
        [rw("Root Control", 0x1c, 2, 0x000f), ro("Root Capabilities", 0x1e, 2), ro("Root Status", 0x20, 4)];
    /// Device Capabilities 2: ARI Forwarding Supported. Only for ports.
    pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;
    /// Device Control 2: ARI Forwarding Enable. Only for ports.
    pub const ARI_FORWARDING_ENABLE: u32 = 1 << 5;
    /// Device Capabilities: role-based error reporting.
    pub const ROLE_BASED_ERRORS: u32 = 1 << 15;
    /// Device Capabilities: Function Level Reset Capability.
    pub const FLR_CAPABLE: u32 = 1 << 28;
    /// Device Control: Initiate Function Level Reset.
    pub const INITIATE_FLR: u32 = 1 << 15;
    /// Device Control at reset: relaxed ordering, no snoop; payload 128 bytes, read requests 512 bytes.
    pub const DEVICE_CONTROL_RESET: u32 = 0x2810;
    /// Device Capabilities 2: Completion Timeout Disable, End-End TLP Prefix Supported, up to 1 prefix.
    pub const DEVICE_CAPABILITIES_2_VALUE: u32 = 1 << 4 | 1 << 20 | 1 << 21 | 1 << 22;
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
}

/// Vendor-specific capability (7.9.4): only its header is common.
pub mod vendor {
    /// Capability ID.
    pub const ID: u8 = 0x09;
}

/// PASID extended capability (7.8.9).
pub mod pasid {
    use super::{Field, ro, rw};
    /// Extended capability ID.
    pub const ID: u16 = 0x001b;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// 7.8.9.2
    pub const CAPABILITY: Field = ro("PASID Capability", 0x4, 2);
    /// 7.8.9.3: the writable bits are those that the capability offers.
    pub const CONTROL: Field = rw("PASID Control", 0x6, 2, 0x7);
    /// Control.PASID Enable
    pub const ENABLE: u32 = 1 << 0;
    /// Control.Execute Permission Enable
    pub const EXECUTE_ENABLE: u32 = 1 << 1;
    /// Control.Privileged Mode Enable
    pub const PRIVILEGED_ENABLE: u32 = 1 << 2;
}

/// ATS extended capability (10.5.1).
pub mod ats {
    use super::{Field, ro, rw};
    /// Extended capability ID.
    pub const ID: u16 = 0x000f;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// 10.5.1.2
    pub const CAPABILITY: Field = ro("ATS Capability", 0x4, 2);
    /// 10.5.1.3: Smallest Translation Unit, Enable.
    pub const CONTROL: Field = rw("ATS Control", 0x6, 2, 0x801f);
    /// Capability: Invalidate Queue Depth 32, Page Aligned Request, Global Invalidate Supported.
    pub const CAPABILITY_VALUE: u32 = 1 << 5 | 1 << 6;
    /// Control.Enable
    pub const ENABLE: u32 = 1 << 15;
}

/// Page Request extended capability (10.5.2).
pub mod page_request {
    use super::{Field, ro, rw, w1c};
    /// Extended capability ID.
    pub const ID: u16 = 0x0013;
    /// Bytes.
    pub const LEN: u16 = 0x10;
    /// 10.5.2.2: Enable. Reset acts when it is written and reads as zero.
    pub const CONTROL: Field = rw("Page Request Control", 0x4, 2, 0x1);
    /// 10.5.2.3: Response Failure and Unexpected Page Request Group Index are cleared by writing ones.
    pub const STATUS: Field = w1c("Page Request Status", 0x6, 2, 0x3);
    /// 10.5.2.4
    pub const CAPACITY: Field = ro("Outstanding Page Request Capacity", 0x8, 4);
    /// 10.5.2.5
    pub const ALLOCATION: Field = rw("Outstanding Page Request Allocation", 0xc, 4, 0xffff_ffff);
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
    use super::{Field, ro, rw};
    /// Extended capability ID.
    pub const ID: u16 = 0x000d;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// 7.7.11.2
    pub const CAPABILITY: Field = ro("ACS Capability", 0x4, 2);
    /// 7.7.11.3: the writable bits are those that the capability offers.
    pub const CONTROL: Field = rw("ACS Control", 0x6, 2, 0x7f);
}

/// Alternative Routing-ID Interpretation extended capability (7.8.8).
pub mod ari {
    use super::{Field, ro};
    /// Extended capability ID.
    pub const ID: u16 = 0x000e;
    /// Bytes.
    pub const LEN: u16 = 8;
    /// 7.8.8.2: Next Function Number in bits 15:8.
    pub const CAPABILITY: Field = ro("ARI Capability", 0x4, 2);
    /// 7.8.8.3
    pub const CONTROL: Field = ro("ARI Control", 0x6, 2);
}
