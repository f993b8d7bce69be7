//! Fault points: where a plan can make the machine go wrong along the road of a DMA, and how.
//!
//! A model asks at each of its points through a [`Faults`] handle, tells what is about to happen ([`Occasion`]), and does
//! what the answer says ([`FaultAction`]) in the way in which the architecture would show it. [`FaultPoint::ALL`] is the one
//! table: `warpvmm faults list`, the errors of the plan's parser and the checks of `docs/faults.md` come from it. Without a
//! plan a point is the test of a pointer. Deliberately absent: plans and their files, which are the program's; a decision
//! depends on the occasion and on what the plan has counted, never on wall time.

mod handle;
mod port;
mod script;

use std::fmt;

use crate::{Iova, Pasid, StreamId};

pub use handle::{Delays, FaultPlan, Faults};
pub use port::FaultyPort;
pub use script::{LateFaults, ScriptedFaults};

macro_rules! fault_points {
    ($($(#[doc = $about:literal])+ $variant:ident = $name:literal: [$($action:ident),+] $(where [$($detail:ident),+])?;)+) => {
        /// A place on the road of a DMA where something can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FaultPoint {
            $($(#[doc = $about])+ $variant,)+
        }

        impl FaultPoint {
            /// All points, in the order in which a command meets them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What a plan calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What happens there.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($about,)+).trim(),)+
                }
            }

            /// What can be done there.
            #[must_use]
            pub const fn actions(self) -> &'static [ActionKind] {
                match self {
                    $(Self::$variant => &[$(ActionKind::$action,)+],)+
                }
            }

            /// What is known there besides device and PASID.
            #[must_use]
            pub const fn details(self) -> &'static [Detail] {
                match self {
                    $(Self::$variant => &[$($(Detail::$detail,)+)?],)+
                }
            }
        }
    };
}

fault_points! {
    /// The queue manager takes a command and is about to read its SQE.
    QmSqe = "qm.sqe": [Hang, Delay] where [Address, Command];
    /// A device's read, as it leaves the device: data, SQEs, lists, contexts.
    DmaRead = "dma.read": [Abort, BitFlip, Delay] where [Address, Command];
    /// A device's write, as it leaves the device: data, SQEs, CQEs, events. Messages are not among them.
    DmaWrite = "dma.write": [Abort, BitFlip, Delay] where [Address, Command];
    /// A device's translation cache is looked into, and has what is looked for.
    AtcLookup = "atc.lookup": [Miss] where [Address, Command];
    /// A device's translation cache is about to send a Translation Request.
    AtcRequest = "atc.request": [NotGranted, UnsupportedRequest, CompleterAbort, Delay] where [Address, Command];
    /// The SMMU looks for a page's translation: for an access, or for a Translation Request.
    SmmuLookup = "smmu.lookup": [Miss, Translation, Permission, AccessFlag, AddressSize] where [Address, Command];
    /// The SMMU reads a descriptor of a stage 1 table.
    SmmuWalk = "smmu.walk": [Translation, Permission, AccessFlag, AddressSize, ExternalAbort] where [Address, Level, Command];
    /// The SMMU is about to record the event of an access that then stalls.
    SmmuStall = "smmu.stall": [Delay] where [Address, Command];
    /// The SMMU is about to record the event of an access that is aborted.
    SmmuEvent = "smmu.event": [Overflow, ExternalAbort] where [Address];
    /// The SMMU executes CMD_RESUME for an access that is stalled.
    SmmuResume = "smmu.resume": [Drop, Abort, Delay, AfterUnbind] where [Address, Command];
    /// A device's translation cache is about to send a group of Page Requests.
    AtcPageRequest = "atc.page-request": [Drop, Duplicate, Reorder, Delay] where [Address, Command];
    /// The SMMU takes a Page Request in.
    SmmuPageRequest = "smmu.page-request": [Overflow, ExternalAbort] where [Address];
    /// The SMMU executes CMD_PRI_RESP, which answers a group of Page Requests.
    SmmuPageResponse = "smmu.page-response": [Drop, Failure, Invalid, Duplicate, Delay, AfterUnbind];
    /// A device's translation cache has done an Invalidate Request and is about to say so.
    AtcInvalidate = "atc.invalidate": [Drop, Delay] where [Address];
    /// The queue manager is about to write an SQE back.
    QmSqeWriteback = "qm.sqe-writeback": [Drop, Abort, BitFlip, WrongStatus, Delay] where [Address, Command];
    /// The queue manager is about to write a CQE.
    QmCqe = "qm.cqe": [Drop, Abort, Delay] where [Address, Command];
    /// The queue manager is about to write an entry of the event queue, which says that a queue has a CQE.
    QmEqe = "qm.eqe": [Drop, Abort, Delay] where [Address, Queue];
    /// An accelerator is about to send a message (MSI).
    Msi = "msi": [Drop, Duplicate, Delay] where [Vector];
}

impl FaultPoint {
    /// The point of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An enum of what goes wrong, with its numbers, and one of its kinds, which have names.
macro_rules! named_kinds {
    (
        $(#[doc = $of_kinds:literal])+ $kinds:ident
        $(#[doc = $of_all:literal])+ $all:ident
        {$($(#[doc = $about:literal])+ $variant:ident $({ $($field:ident: $ty:ty),+ })? = $name:literal;)+}
    ) => {
        $(#[doc = $of_kinds])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kinds {
            $($(#[doc = $about])+ $variant,)+
        }

        impl $kinds {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What a plan or a rule calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it does.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($about,)+).trim(),)+
                }
            }

            /// Names of its numbers: keys of a plan or a rule.
            #[must_use]
            pub const fn numbers(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($(stringify!($field),)+)?],)+
                }
            }

            /// The kind of this name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }

        impl fmt::Display for $kinds {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        $(#[doc = $of_all])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $all {
            $(
                $(#[doc = $about])+
                $variant $({ $(
                    #[doc = concat!("Its `", stringify!($field), "`.")]
                    $field: $ty,
                )+ })?,
            )+
        }

        impl $all {
            /// Which kind it is.
            #[must_use]
            pub const fn kind(&self) -> $kinds {
                match self {
                    $(Self::$variant { .. } => $kinds::$variant,)+
                }
            }
        }
    };
}

named_kinds! {
    /// What goes wrong, without its numbers.
    ActionKind
    /// What goes wrong.
    FaultAction
    {
        /// Translation fault: an invalid descriptor.
        Translation = "translation";
        /// Permission fault.
        Permission = "permission";
        /// Access flag fault.
        AccessFlag = "access-flag";
        /// Address size fault.
        AddressSize = "address-size";
        /// Nothing answers at the address that the SMMU reads or writes.
        ExternalAbort = "external-abort";
        /// What the cache holds is forgotten first.
        Miss = "miss";
        /// The translation has no permissions.
        NotGranted = "not-granted";
        /// Unsupported Request: the function uses no translation services until they are enabled again.
        UnsupportedRequest = "unsupported-request";
        /// Completer Abort.
        CompleterAbort = "completer-abort";
        /// It happens later, by so much guest time.
        Delay { delay: u64 } = "delay";
        /// It does not happen, and nobody is told.
        Drop = "drop";
        /// It happens twice.
        Duplicate = "duplicate";
        /// The last one goes first.
        Reorder = "reorder";
        /// The answer becomes Response Failure.
        Failure = "failure";
        /// The answer becomes Invalid Request.
        Invalid = "invalid";
        /// The access ends with an abort; of a read or write, the bytes before `byte` are moved.
        Abort { byte: u64 } = "abort";
        /// The answer arrives when its address space is no longer bound.
        AfterUnbind = "after-unbind";
        /// The queue counts as full.
        Overflow = "overflow";
        /// One bit is the other way round.
        BitFlip { byte: u64, bit: u8 } = "bit-flip";
        /// It never comes to an end; only stopping the queue or a reset does.
        Hang = "hang";
        /// The command ends with this status.
        WrongStatus { status: u8 } = "wrong-status";
    }
}

named_kinds! {
    /// What goes wrong by itself, without its numbers.
    EventKind
    /// What goes wrong by itself: nothing else is about to happen that it changes, so it can be told to a device at any time.
    FaultEvent
    {
        /// An accelerator sends a message (MSI) although it has nothing to tell.
        SpuriousMessage { vector: u16 } = "msi.spurious";
        /// The queue manager's AXI master hears an error in answer to a read that belongs to no queue.
        AxiReadError = "qm.axi-read-error";
        /// The same in answer to a write.
        AxiWriteError = "qm.axi-write-error";
    }
}

/// What only some points know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The address.
    Address,
    /// Level of the table.
    Level,
    /// The device's command.
    Command,
    /// The queue of the device's command.
    Queue,
    /// Number of the message.
    Vector,
}

/// A device's command: what an access is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// The queue that it was in.
    pub queue: u16,
    /// Its place in that queue; `None` where no more than the queue is known.
    pub index: Option<u16>,
}

/// Something is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// Where.
    pub point: FaultPoint,
    /// Whose doing.
    pub stream: StreamId,
    /// In which address space, if it is not the function's own.
    pub pasid: Option<Pasid>,
    /// The first address.
    pub address: Iova,
    /// Bytes from there on; 0 where there is no address.
    pub len: u64,
    /// For which command, where that is known.
    pub command: Option<Command>,
    /// Level of the table, where one is read.
    pub level: Option<u8>,
    /// Number of the message, where one is sent.
    pub vector: Option<u16>,
}

impl Occasion {
    /// An occasion without address and details.
    #[must_use]
    pub const fn new(point: FaultPoint, stream: StreamId, pasid: Option<Pasid>) -> Self {
        let (address, len, command, level, vector) = (Iova(0), 0, None, None, None);
        Self { point, stream, pasid, address, len, command, level, vector }
    }

    /// The same at `len` bytes from `address` on.
    #[must_use]
    pub const fn at(self, address: Iova, len: u64) -> Self {
        Self { address, len, ..self }
    }

    /// The same for a command.
    #[must_use]
    pub const fn during(self, command: Option<Command>) -> Self {
        Self { command, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_points_and_actions_are_unique_and_lead_back() {
        for point in FaultPoint::ALL {
            assert_eq!(FaultPoint::of_name(point.name()), Some(*point));
            assert!(!point.actions().is_empty() && !point.about().is_empty());
        }
        for kind in ActionKind::ALL {
            assert_eq!(ActionKind::of_name(kind.name()), Some(*kind));
            assert!(
                FaultPoint::ALL.iter().any(|point| point.actions().contains(kind)),
                "{kind} is for nothing"
            );
        }
        assert_eq!(FaultPoint::of_name("smmu.wlak"), None);
        for event in EventKind::ALL {
            assert_eq!(EventKind::of_name(event.name()), Some(*event));
            assert_eq!(FaultPoint::of_name(event.name()), None, "one space of names");
        }
    }

    #[test]
    fn set_of_points_fits_its_word() {
        assert!(FaultPoint::ALL.len() <= 32);
    }
}
