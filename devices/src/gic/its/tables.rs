//! The ITS's tables in guest memory: devices, collections, and the events of each device (IHI 0069, 5.2).
//!
//! The forms of the entries are ours to choose; each is one doubleword, bit 63 saying that it is valid. A guest can
//! write into them, so nothing read from them is believed unchecked. The device table may have two levels.

use std::sync::Arc;

use bitfield_struct::bitfield;
use hw::{DeviceId, Pa, Ram};

use crate::gic::lpi::Lpi;
use crate::gic::regs::{Baser, GitsTyper, ItsReg};
use hw::regmap::RegisterMap;

/// Bytes of an entry of any of the tables.
const ENTRY_BYTES: u64 = 8;
/// Bits of a DeviceID: the PCI requester IDs, and as many for what is not behind PCI.
const DEVICE_BITS: u32 = 17;
/// Bits of an EventID.
const EVENT_BITS: u32 = 16;

/// What GITS_TYPER promises is what is below.
const TYPER: GitsTyper = GitsTyper::new()
    .with_physical(true)
    .with_itt_entry_size(ENTRY_BYTES - 1)
    .with_id_bits(EVENT_BITS as u64 - 1)
    .with_dev_bits(DEVICE_BITS as u64 - 1)
    .with_pta(false)
    .with_hcc(0)
    .with_cid_bits(u16::BITS as u64 - 1)
    .with_cil(true);
const _: () = assert!(ItsReg::ALL[2].1.reset == TYPER.into_bits());

/// A device's interrupt translation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Itt {
    /// A multiple of 256.
    pub(super) base: Pa,
    /// The table has entries for EventIDs of so many bits.
    pub(super) event_bits: u32,
}

/// What an event is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventEntry {
    pub(super) lpi: Lpi,
    pub(super) icid: u16,
}

/// An entry of the device table.
#[bitfield(u64)]
struct DeviceWord {
    /// EventID bits, less one.
    #[bits(5)]
    size: u32,
    #[bits(3)]
    _unused: u64,
    /// Address bits \[51:8\].
    #[bits(44)]
    itt: u64,
    #[bits(11)]
    _unused_too: u64,
    valid: bool,
}

/// An entry of the collection table.
#[bitfield(u64)]
struct CollectionWord {
    /// The PE's processor number.
    #[bits(16)]
    cpu: usize,
    #[bits(47)]
    _unused: u64,
    valid: bool,
}

/// An entry of an interrupt translation table.
#[bitfield(u64)]
struct EventWord {
    #[bits(16)]
    intid: u32,
    #[bits(16)]
    _unused: u64,
    icid: u16,
    #[bits(15)]
    _unused_too: u64,
    valid: bool,
}

/// An entry of the first level of a two-level table.
#[bitfield(u64)]
struct LevelOneWord {
    #[bits(12)]
    _res0: u64,
    /// Address bits \[51:12\].
    #[bits(40)]
    page: u64,
    #[bits(11)]
    _res0b: u64,
    valid: bool,
}

/// GITS_BASERn as it reads back: the reserved page size is 64 KiB.
pub(super) fn baser(written: u64) -> Baser {
    let baser = Baser::from(written);
    baser.with_page_size(baser.page_size().min(2))
}

fn page_bytes(baser: Baser) -> u64 {
    match baser.page_size() {
        0 => 0x1000,
        1 => 0x4000,
        _ => 0x1_0000,
    }
}

fn table_base(baser: Baser) -> u64 {
    let address = baser.page() << 12;
    if baser.page_size() >= 2 { address & !0xf000 | (address & 0xf000) << 36 } else { address }
}

/// The tables. They are where GITS_BASERn says.
pub(super) struct Tables {
    ram: Arc<Ram>,
    /// GITS_BASER0.
    pub(super) devices: Baser,
    /// GITS_BASER1.
    pub(super) collections: Baser,
}

impl Tables {
    pub(super) fn new(ram: Arc<Ram>) -> Self {
        Self {
            ram,
            devices: Baser::from(ItsReg::GITS_BASER0.info().reset),
            collections: Baser::from(ItsReg::GITS_BASER1.info().reset),
        }
    }

    /// Where a table's entry is.
    fn entry(&self, baser: Baser, index: u64) -> Option<Pa> {
        if !baser.valid() {
            return None;
        }
        let in_first_level = (baser.size() + 1) * page_bytes(baser) / ENTRY_BYTES;
        let (in_table, base) = if baser.indirect() {
            let in_page = page_bytes(baser) / ENTRY_BYTES;
            let page = index / in_page;
            if page >= in_first_level {
                return None;
            }
            let word =
                LevelOneWord::from(self.ram.load_u64(Pa(table_base(baser) + page * ENTRY_BYTES)).ok()?);
            if !word.valid() {
                return None;
            }
            (index % in_page, word.page() << 12)
        } else {
            if index >= in_first_level {
                return None;
            }
            (index, table_base(baser))
        };
        Some(Pa(base + in_table * ENTRY_BYTES))
    }

    fn device_entry(&self, device: DeviceId) -> Option<Pa> {
        if device.0 >> DEVICE_BITS != 0 {
            return None;
        }
        self.entry(self.devices, device.0.into())
    }

    fn device(&self, device: DeviceId) -> Option<Itt> {
        let word = DeviceWord::from(self.ram.load_u64(self.device_entry(device)?).ok()?);
        word.valid().then(|| Itt { base: Pa(word.itt() << 8), event_bits: word.size() + 1 })
    }

    /// Maps a device, or unmaps it.
    pub(super) fn set_device(&self, device: DeviceId, itt: Option<Itt>) -> Option<()> {
        let at = self.device_entry(device)?;
        let word = match itt {
            Some(itt) if itt.event_bits > EVENT_BITS => return None,
            Some(itt) => {
                DeviceWord::new().with_itt(itt.base.0 >> 8).with_size(itt.event_bits - 1).with_valid(true)
            }
            None => DeviceWord::new(),
        };
        self.ram.store_u64(at, word.into_bits()).ok()
    }

    /// The PE of a collection, as the table says: perhaps one that does not exist.
    pub(super) fn collection(&self, icid: u16) -> Option<usize> {
        let at = self.entry(self.collections, icid.into())?;
        let word = CollectionWord::from(self.ram.load_u64(at).ok()?);
        word.valid().then(|| word.cpu())
    }

    /// Maps a collection, or unmaps it.
    pub(super) fn set_collection(&self, icid: u16, cpu: Option<usize>) -> Option<()> {
        let at = self.entry(self.collections, icid.into())?;
        let word =
            cpu.map_or(CollectionWord::new(), |cpu| CollectionWord::new().with_cpu(cpu).with_valid(true));
        self.ram.store_u64(at, word.into_bits()).ok()
    }

    fn event_entry(&self, device: DeviceId, event: u32) -> Option<Pa> {
        let itt = self.device(device)?;
        if itt.event_bits > EVENT_BITS || event >> itt.event_bits != 0 {
            return None;
        }
        itt.base.checked_add(u64::from(event) * ENTRY_BYTES)
    }

    /// What an event is mapped to.
    pub(super) fn event(&self, device: DeviceId, event: u32) -> Option<EventEntry> {
        let word = EventWord::from(self.ram.load_u64(self.event_entry(device, event)?).ok()?);
        if !word.valid() {
            return None;
        }
        Some(EventEntry { lpi: Lpi::new(word.intid())?, icid: word.icid() })
    }

    /// Maps an event, or unmaps it.
    pub(super) fn set_event(&self, device: DeviceId, event: u32, entry: Option<EventEntry>) -> Option<()> {
        let at = self.event_entry(device, event)?;
        let word = entry.map_or(EventWord::new(), |entry| {
            EventWord::new().with_intid(entry.lpi.intid()).with_icid(entry.icid).with_valid(true)
        });
        self.ram.store_u64(at, word.into_bits()).ok()
    }

    /// The LPI of a message, and the PE it goes to, as the tables say: perhaps one that does not exist.
    pub(super) fn translate(&self, device: DeviceId, event: u32) -> Option<(Lpi, usize)> {
        let entry = self.event(device, event)?;
        Some((entry.lpi, self.collection(entry.icid)?))
    }
}
