//! The common configuration: what the driver sees and sets of a device and its queues (4.1.4.3).

use hw::BusError;
use hw::regmap::RegisterMap;

use super::device::feature;

hw::register_map! {
    /// `struct virtio_pci_common_cfg`. VIRTIO 1.3, 4.1.4.3.
    pub enum CommonCfg {
        /// Which 32 bits of the offered features show.
        device_feature_select @ 0x00: 4 Rw(0xffff_ffff) = 0, "4.1.4.3";
        /// Features that are offered.
        device_feature        @ 0x04: 4 Ro(0) = 0, "4.1.4.3"; // value computed
        /// Which 32 bits of the taken features show.
        driver_feature_select @ 0x08: 4 Rw(0xffff_ffff) = 0, "4.1.4.3";
        /// Features that the driver takes.
        driver_feature        @ 0x0c: 4 Rw(0xffff_ffff) = 0, "4.1.4.3" fixed(FEATURES_OK);
        /// Vector of changes of the configuration, 0xffff for none.
        config_msix_vector    @ 0x10: 2 Rw(0xffff) = 0xffff, "4.1.4.3";
        /// Queues.
        num_queues            @ 0x12: 2 Ro(0) = 0, "4.1.4.3"; // value computed
        device_status         @ 0x14: 1 Rw(0xff) = 0, "2.1" {
            FAILED[7] "the driver has given up";
            DEVICE_NEEDS_RESET[6] "the device cannot go on; only the device sets it";
            RESERVED[5:4] "kept";
            FEATURES_OK[3] "features are taken, and fixed";
            DRIVER_OK[2] "the driver is ready";
            DRIVER[1] "there is a driver";
            ACKNOWLEDGE[0] "the device has been seen; a write of zero to all resets";
        };
        /// The configuration never changes.
        config_generation     @ 0x15: 1 Ro(0) = 0, "2.5.1";
        /// The queue that all that follow are of.
        queue_select          @ 0x16: 2 Rw(0xffff) = 0, "4.1.4.3";
        /// Its entries, a power of two; at first the most that there can be.
        queue_size            @ 0x18: 2 Rw(0xffff) = 0, "4.1.4.3" fixed(QUEUE_ENABLE);
        /// Its vector, 0xffff for none.
        queue_msix_vector     @ 0x1a: 2 Rw(0xffff) = 0xffff, "4.1.4.3";
        queue_enable          @ 0x1c: 2 Rw(0x1) = 0, "4.1.4.3" fixed(QUEUE_ENABLE) {
            enable[0] "requests are taken";
        };
        /// Where its notifications go, in units of the multiplier.
        queue_notify_off      @ 0x1e: 2 Ro(0) = 0, "4.1.4.3";
        /// Address of its descriptors.
        queue_desc            @ 0x20: 8 Rw(0xffff_ffff_ffff_ffff) = 0, "4.1.4.3" fixed(QUEUE_ENABLE);
        /// Address of its available ring.
        queue_driver          @ 0x28: 8 Rw(0xffff_ffff_ffff_ffff) = 0, "4.1.4.3" fixed(QUEUE_ENABLE);
        /// Address of its used ring.
        queue_device          @ 0x30: 8 Rw(0xffff_ffff_ffff_ffff) = 0, "4.1.4.3" fixed(QUEUE_ENABLE);
    }
    /// What fields depend on.
    pub enum CommonCfgCondition {
        FEATURES_OK "device_status.FEATURES_OK is 1";
        QUEUE_ENABLE "queue_enable of the selected queue is 1";
    }
}

/// Bytes of the common configuration.
pub(super) const COMMON_CFG_BYTES: u32 = 0x38;
/// No MSI-X vector.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Bits of device_status (2.1).
pub(super) mod status {
    pub(in super::super) const DRIVER_OK: u8 = 4;
    pub(in super::super) const FEATURES_OK: u8 = 8;
    pub(in super::super) const NEEDS_RESET: u8 = 64;
}

/// One queue as the driver has set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueSetup {
    pub(super) max_size: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// Requests that the worker has put into the used ring, modulo 65536: the position in both rings, of which a request that
    /// is being served is not a part.
    pub(super) served: u16,
    /// The last of them may not have been announced yet.
    pub(super) is_unannounced: bool,
}

impl QueueSetup {
    const fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
            served: 0,
            is_unannounced: false,
        }
    }
}

/// What a write to the common configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// Zero was written to the status.
    Reset,
    /// The driver has become ready.
    Start,
}

/// The state behind the common configuration.
#[derive(Debug)]
pub(super) struct Front {
    offered: u64,
    vectors: u16,
    pub(super) status: u8,
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) queue_select: u16,
    pub(super) queues: Vec<QueueSetup>,
    /// Counts resets, so that the worker knows its rings from those of an earlier life.
    pub(super) epoch: u64,
    /// The worker is serving queues.
    pub(super) is_busy: bool,
    /// A reset waits for the worker to be done.
    pub(super) is_resetting: bool,
}

impl Front {
    pub(super) fn new(offered: u64, vectors: u16, queue_sizes: &[u16]) -> Self {
        Self {
            offered,
            vectors,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues: queue_sizes.iter().copied().map(QueueSetup::new).collect(),
            epoch: 0,
            is_busy: false,
            is_resetting: false,
        }
    }

    /// Goes back to the state at reset, in a new epoch.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        let epoch = self.epoch.wrapping_add(1);
        let is_busy = self.is_busy;
        *self = Self { epoch, is_busy, ..Self::new(self.offered, self.vectors, &sizes) };
    }

    /// Negotiated features; all zero before the driver has said that it is done.
    pub(super) fn features(&self) -> u64 {
        if self.status & status::FEATURES_OK != 0 { self.driver_features } else { 0 }
    }

    /// Whether queues are to be served.
    pub(super) fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK && !self.is_resetting
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn value(&self, reg: CommonCfg) -> u64 {
        let half = |features: u64, select: u32| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        let queue = |field: fn(&QueueSetup) -> u64| self.selected().map_or(0, field);
        match reg {
            CommonCfg::device_feature_select => self.device_feature_select.into(),
            CommonCfg::device_feature => half(self.offered, self.device_feature_select),
            CommonCfg::driver_feature_select => self.driver_feature_select.into(),
            CommonCfg::driver_feature => half(self.driver_features, self.driver_feature_select),
            CommonCfg::config_msix_vector => self.config_vector.into(),
            CommonCfg::num_queues => self.queues.len() as u64,
            CommonCfg::device_status => self.status.into(),
            CommonCfg::config_generation => 0,
            CommonCfg::queue_select => self.queue_select.into(),
            CommonCfg::queue_size => queue(|q| q.size.into()),
            CommonCfg::queue_msix_vector => self.selected().map_or(NO_VECTOR, |q| q.vector).into(),
            CommonCfg::queue_enable => queue(|q| q.enabled.into()),
            CommonCfg::queue_notify_off => self.selected().map_or(0, |_| self.queue_select.into()),
            CommonCfg::queue_desc => queue(|q| q.desc),
            CommonCfg::queue_driver => queue(|q| q.driver),
            CommonCfg::queue_device => queue(|q| q.device),
        }
    }

    /// A read of part or all of a field.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<u64, BusError> {
        let located = CommonCfg::locate(offset).ok_or(BusError::NoRegister(offset))?;
        if located.byte + len as u64 > located.reg.info().bytes {
            return Err(BusError::BadAccess { offset, len });
        }
        Ok(self.value(located.reg) >> (8 * located.byte))
    }

    /// A write of a whole field, or of half of one of 64 bits (4.1.3.1).
    pub(super) fn write(&mut self, offset: u64, len: usize, value: u64) -> Result<Asked, BusError> {
        let located = CommonCfg::locate(offset).ok_or(BusError::NoRegister(offset))?;
        let info = located.reg.info();
        let is_whole = located.byte == 0 && len as u64 == info.bytes;
        let is_half = info.bytes == 8 && len == 4 && matches!(located.byte, 0 | 4);
        if !is_whole && !is_half {
            return Err(BusError::BadAccess { offset, len });
        }
        let old = self.value(located.reg);
        let value = if is_half {
            let shift = 8 * located.byte;
            (old & !(0xffff_ffff << shift)) | ((value & 0xffff_ffff) << shift)
        } else {
            value
        };
        Ok(self.set(located.reg, info.written(old, value)))
    }

    /// Features are fixed once the driver has said that it is done, and a queue once it is enabled.
    fn holds(&self, condition: CommonCfgCondition) -> bool {
        match condition {
            CommonCfgCondition::FEATURES_OK => self.status & status::FEATURES_OK != 0,
            CommonCfgCondition::QUEUE_ENABLE => self.selected().is_some_and(|queue| queue.enabled),
        }
    }

    fn set(&mut self, reg: CommonCfg, value: u64) -> Asked {
        if self.is_resetting || reg.is_fixed(|condition| self.holds(condition)) {
            return Asked::Nothing;
        }
        match reg {
            CommonCfg::device_feature_select => self.device_feature_select = value as u32,
            CommonCfg::driver_feature_select => self.driver_feature_select = value as u32,
            CommonCfg::driver_feature => {
                let shift = match self.driver_feature_select {
                    0 => 0,
                    1 => 32,
                    _ => return Asked::Nothing,
                };
                self.driver_features = (self.driver_features & !(0xffff_ffff << shift)) | (value << shift);
            }
            CommonCfg::config_msix_vector => self.config_vector = self.existing_vector(value),
            CommonCfg::device_status => return self.set_status(value as u8),
            CommonCfg::queue_select => self.queue_select = value as u16,
            CommonCfg::queue_size
            | CommonCfg::queue_msix_vector
            | CommonCfg::queue_enable
            | CommonCfg::queue_desc
            | CommonCfg::queue_driver
            | CommonCfg::queue_device => self.set_queue(reg, value, self.existing_vector(value)),
            CommonCfg::device_feature
            | CommonCfg::num_queues
            | CommonCfg::config_generation
            | CommonCfg::queue_notify_off => {}
        }
        Asked::Nothing
    }

    /// Vectors that do not exist read back as none (4.1.5.1.2).
    pub(super) fn existing_vector(&self, value: u64) -> u16 {
        match u16::try_from(value) {
            Ok(vector) if vector < self.vectors => vector,
            _ => NO_VECTOR,
        }
    }

    /// Whether the driver's features are some of those that are offered, and among them those that it has to take.
    pub(super) fn accepts_features(&self) -> bool {
        let needed = feature::VERSION_1 | feature::ACCESS_PLATFORM;
        self.driver_features & !self.offered == 0 && self.driver_features & needed == needed
    }

    fn set_queue(&mut self, reg: CommonCfg, value: u64, vector: u16) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        match reg {
            CommonCfg::queue_msix_vector => queue.vector = vector,
            CommonCfg::queue_size => {
                if let Ok(size) = u16::try_from(value)
                    && size.is_power_of_two()
                    && size <= queue.max_size
                {
                    queue.size = size;
                }
            }
            CommonCfg::queue_enable => queue.enabled = value & 1 != 0,
            CommonCfg::queue_desc => queue.desc = value,
            CommonCfg::queue_driver => queue.driver = value,
            CommonCfg::queue_device => queue.device = value,
            _ => {}
        }
    }

    fn set_status(&mut self, value: u8) -> Asked {
        if value == 0 {
            return Asked::Reset;
        }
        // The driver only adds bits; DEVICE_NEEDS_RESET is the device's.
        let mut new = self.status | (value & !status::NEEDS_RESET);
        let is_offered = self.status & status::FEATURES_OK == 0 && new & status::FEATURES_OK != 0;
        if is_offered && !self.accepts_features() {
            new &= !status::FEATURES_OK;
        }
        if new & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        let starts = self.status & status::DRIVER_OK == 0 && new & status::DRIVER_OK != 0;
        self.status = new;
        if starts { Asked::Start } else { Asked::Nothing }
    }
}
