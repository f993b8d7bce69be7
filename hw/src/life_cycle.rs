//! What can be told to every model with state, as a whole: the machine's reset, its pauses, and what follows them.
//!
//! The monitor calls these from one thread, with all vCPUs standing still, in an order that follows the road of an
//! access: what makes accesses of its own (accelerators, test devices, disks) comes first, then their translation caches and
//! the SMMU, then bridges and interrupt controllers, and RAM last. Deliberately absent: a function-level reset or a hot
//! reset, which are the guest's and do the same to a part of a model.

use serde_json::Value;

use crate::saved::RestoreError;

/// A model whose state can be reset, saved and looked at, and whose work can be stopped.
pub trait LifeCycle: Send + Sync {
    /// Brings back the state of power-on.
    ///
    /// Work that is under way is aborted, accesses that wait for the guest included, and has ended when this returns:
    /// nothing of the time before reaches memory or an interrupt input afterwards. Outputs (wires) have their level of power-on.
    /// What the model was made with (sizes, connections, files, contents of disks) stays, and so do counts for the user.
    fn reset(&self);

    /// Takes up no further work. When this returns, no work is under way but such as waits for the guest or for guest
    /// time; that stays where it is. Models that only answer accesses have nothing to do.
    fn quiesce(&self) {}

    /// Ends what [`Self::quiesce`] has begun.
    fn resume(&self) {}

    /// The state as of now, which is that of a [`SavedState`](crate::saved::SavedState). After [`Self::quiesce`] it is whole: what
    /// waits for the guest or for guest time is in it. Of a model that runs it is a look at one moment.
    fn save(&self) -> Value;

    /// Takes up a state that [`Self::save`] has given to the same kind of model, made in the same way. The model is as at power-on and
    /// quiesced, RAM is as it was when the state was saved, and models that accesses of this one reach have been restored before.
    /// Accesses that waited are made again after [`Self::resume`]. Outputs (wires) have the saved level when this returns.
    ///
    /// # Errors
    /// If the state is not of this form, or has a value that no guest could have brought about. The model is then of no use.
    fn restore(&self, state: Value) -> Result<(), RestoreError>;
}
