//! The gates that every access of a function asks. Atomic, so that no DMA takes the registers' lock.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use hw::{DmaTag, StreamId};

use super::super::caps::{Command, pasid};

/// What is let through at present, and under which requester ID.
#[derive(Debug)]
pub(in crate::pci) struct Gates {
    open: AtomicU8,
    /// The requester ID; [`NO_REQUESTER`] before there is one.
    requester: AtomicU32,
    /// Counts the changes of ATS Control.Enable: odd while it is set.
    ats: AtomicU32,
    /// The port above, which also has to let requests through.
    upstream: OnceLock<Arc<Gates>>,
}

const NO_REQUESTER: u32 = u32::MAX;

impl Default for Gates {
    fn default() -> Self {
        Self {
            open: AtomicU8::new(0),
            requester: AtomicU32::new(NO_REQUESTER),
            ats: AtomicU32::new(0),
            upstream: OnceLock::new(),
        }
    }
}

impl Gates {
    const MEMORY: u8 = 1;
    const IO: u8 = 2;
    const BUS_MASTER: u8 = 4;
    const PASID: u8 = 8;
    const EXECUTE: u8 = 0x10;
    const PRIVILEGED: u8 = 0x20;

    pub(in crate::pci) fn bus_master(&self) -> bool {
        self.open.load(Ordering::Acquire) & Self::BUS_MASTER != 0
            && self.upstream.get().is_none_or(|port| port.bus_master())
    }

    /// Whether a request of this kind may be made.
    pub(in crate::pci) fn allow(&self, tag: &DmaTag) -> bool {
        let with = |claim: bool, bit: u8| if claim { bit } else { 0 };
        let needed = match tag.pasid {
            None => 0,
            Some(_) => {
                Self::PASID | with(tag.execute, Self::EXECUTE) | with(tag.privileged, Self::PRIVILEGED)
            }
        };
        self.bus_master() && self.open.load(Ordering::Acquire) & needed == needed
    }

    /// Whether I/O, or memory, BARs answer.
    pub(super) fn decodes(&self, is_io: bool) -> bool {
        self.open.load(Ordering::Acquire) & if is_io { Self::IO } else { Self::MEMORY } != 0
    }

    pub(super) fn set_requester(&self, requester: Option<StreamId>) {
        self.requester.store(requester.map_or(NO_REQUESTER, |requester| requester.0), Ordering::Release);
    }

    pub(super) fn set_upstream(&self, port: &Arc<Self>) {
        // A function is below one port for all its life; the first stays.
        let _ = self.upstream.set(Arc::clone(port));
    }

    /// The requester ID, once the function is on a bus.
    pub(in crate::pci) fn requester(&self) -> Option<StreamId> {
        let requester = self.requester.load(Ordering::Acquire);
        (requester != NO_REQUESTER).then_some(StreamId(requester))
    }

    /// Which enabling of ATS this is, since power-on; `None` while it is off.
    pub(in crate::pci) fn ats(&self) -> Option<u32> {
        let changes = self.ats.load(Ordering::SeqCst);
        (changes & 1 != 0).then_some(changes)
    }

    pub(super) fn set_ats(&self, is_on: bool) {
        if self.ats().is_some() != is_on {
            self.ats.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What Command and PASID Control let through, in D0.
    pub(super) fn set(&self, command: Command, pasid_control: u32, is_on: bool) {
        let bit = |claim: bool, bit: u8| if claim && is_on { bit } else { 0 };
        let gates = bit(command.memory_space_enable(), Self::MEMORY)
            | bit(command.io_space_enable(), Self::IO)
            | bit(command.bus_master_enable(), Self::BUS_MASTER)
            | bit(pasid_control & pasid::ENABLE != 0, Self::PASID)
            | bit(pasid_control & pasid::EXECUTE_ENABLE != 0, Self::EXECUTE)
            | bit(pasid_control & pasid::PRIVILEGED_ENABLE != 0, Self::PRIVILEGED);
        self.open.store(gates, Ordering::Release);
    }
}
