//! The saved state of a virtio device: its configuration space, the common configuration, and where its rings have come to.
//!
//! A request that waits in the midst of an access when the device is paused is not there: its ring's position is before it, and it is
//! served anew. Nobody has seen its end, so that is the same. Everything else about rings is in guest memory, and a queue that was
//! to be served is found by looking at all of them. The kinds of devices that there are have no state besides.

use std::collections::BTreeMap;

use hw::saved::{RestoreError, SavedState, hex};
use serde::{Deserialize, Serialize};

use super::front::{Front, QueueSetup, status};
use crate::pci::ConfigState;

/// One device.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtioState {
    pub(super) config: ConfigState,
    /// ISR status.
    #[serde(with = "hex")]
    pub(super) isr: u8,
    pub(super) common: CommonState,
    /// By number.
    pub(super) queues: BTreeMap<String, QueueState>,
}

impl SavedState for VirtioState {
    const VERSION: u32 = 1;
}

/// The common configuration (4.1.4.3).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommonState {
    #[serde(with = "hex")]
    device_status: u8,
    #[serde(with = "hex")]
    device_feature_select: u32,
    #[serde(with = "hex")]
    driver_feature_select: u32,
    /// Both halves of `driver_feature`.
    #[serde(with = "hex")]
    driver_features: u64,
    #[serde(with = "hex")]
    config_msix_vector: u16,
    #[serde(with = "hex")]
    queue_select: u16,
}

/// One queue.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueState {
    queue_size: u16,
    #[serde(with = "hex")]
    queue_msix_vector: u16,
    queue_enable: bool,
    #[serde(with = "hex")]
    queue_desc: u64,
    #[serde(with = "hex")]
    queue_driver: u64,
    #[serde(with = "hex")]
    queue_device: u64,
    /// Requests served, modulo 65536: the position in both rings.
    served: u16,
    /// The last one may be in the used ring without the driver having been told.
    is_unannounced: bool,
}

impl Front {
    pub(super) fn save(&self) -> (CommonState, BTreeMap<String, QueueState>) {
        let common = CommonState {
            device_status: self.status,
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.driver_features,
            config_msix_vector: self.config_vector,
            queue_select: self.queue_select,
        };
        let queue = |queue: &QueueSetup| {
            let &QueueSetup {
                max_size: _,
                size,
                vector,
                enabled,
                desc,
                driver,
                device,
                served,
                is_unannounced,
            } = queue;
            QueueState {
                queue_size: size,
                queue_msix_vector: vector,
                queue_enable: enabled,
                queue_desc: desc,
                queue_driver: driver,
                queue_device: device,
                served,
                is_unannounced,
            }
        };
        (common, self.queues.iter().enumerate().map(|(n, setup)| (n.to_string(), queue(setup))).collect())
    }

    pub(super) fn restore(
        &mut self,
        common: CommonState,
        mut queues: BTreeMap<String, QueueState>,
    ) -> Result<(), RestoreError> {
        self.reset();
        self.restore_common(&common).map_err(|error| error.within("common"))?;
        for n in 0..self.queues.len() {
            let key = n.to_string();
            let within = |error: RestoreError| error.within(&key).within("queues");
            let queue = queues
                .remove(&key)
                .ok_or_else(|| RestoreError::value(format!("queues/{key}"), "is missing"))?;
            self.restore_queue(n, &queue).map_err(within)?;
        }
        match queues.into_keys().next() {
            Some(key) => Err(RestoreError::value(format!("queues/{key}"), "there is no such queue")),
            None => Ok(()),
        }
    }

    fn restore_common(&mut self, state: &CommonState) -> Result<(), RestoreError> {
        let &CommonState {
            device_status,
            device_feature_select,
            driver_feature_select,
            driver_features,
            config_msix_vector,
            queue_select,
        } = state;
        self.driver_features = driver_features;
        let has = |bits: u8| device_status & bits != 0;
        if has(status::FEATURES_OK) && !self.accepts_features() {
            return Err(RestoreError::value("driver_features", "are not what this device accepts"));
        }
        if has(status::DRIVER_OK) && !has(status::FEATURES_OK) {
            return Err(RestoreError::value("device_status", "is DRIVER_OK before FEATURES_OK"));
        }
        if has(status::NEEDS_RESET) && !has(status::DRIVER_OK) {
            return Err(RestoreError::value("device_status", "nothing was served that needs a reset"));
        }
        if self.existing_vector(config_msix_vector.into()) != config_msix_vector {
            return Err(RestoreError::value("config_msix_vector", "does not exist"));
        }
        self.status = device_status;
        self.device_feature_select = device_feature_select;
        self.driver_feature_select = driver_feature_select;
        self.config_vector = config_msix_vector;
        self.queue_select = queue_select;
        Ok(())
    }

    /// After the common configuration. The addresses are looked at when the queue is served, as those that a driver writes are.
    fn restore_queue(&mut self, n: usize, state: &QueueState) -> Result<(), RestoreError> {
        let &QueueState {
            queue_size,
            queue_msix_vector,
            queue_enable,
            queue_desc,
            queue_driver,
            queue_device,
            served,
            is_unannounced,
        } = state;
        if self.existing_vector(queue_msix_vector.into()) != queue_msix_vector {
            return Err(RestoreError::value("queue_msix_vector", "does not exist"));
        }
        let has_run = queue_enable && self.status & status::DRIVER_OK != 0;
        let queue = &mut self.queues[n];
        if !queue_size.is_power_of_two() || queue_size > queue.max_size {
            return Err(RestoreError::value("queue_size", "is no power of two, or more than there can be"));
        }
        if !has_run && (served != 0 || is_unannounced) {
            return Err(RestoreError::value("served", "the queue has not been on"));
        }
        *queue = QueueSetup {
            max_size: queue.max_size,
            size: queue_size,
            vector: queue_msix_vector,
            enabled: queue_enable,
            desc: queue_desc,
            driver: queue_driver,
            device: queue_device,
            served,
            is_unannounced,
        };
        Ok(())
    }
}
