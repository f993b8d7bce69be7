//! VMSAv8-64 translation tables: descriptor formats, the walker and the permission rules.
//!
//! Arm ARM (DDI 0487), chapter D8. One walker for everything that reads such tables: the CPU's MMU and the SMMU.
//! It allocates nothing, keeps nothing and touches memory only through [`TableMemory`], so that the CPU can give it
//! RAM and a nested SMMU a memory whose every load is itself translated.
//!
//! Present: stage 1 and stage 2 for 4, 16 and 64 KiB granules, every start level, concatenated tables, blocks, the
//! contiguous bit (accepted as the hint that it is), hierarchical attributes, update of access flag and dirty state,
//! 48-bit addresses, 52-bit addresses with the 64 KiB granule.
//! Deliberately absent: LPA2 and 128-bit descriptors. Choosing between two table bases, TLBs and
//! faults that depend on the translation regime belong to the callers.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

mod descriptor;
mod granule;
mod permission;
mod stage2;
mod update;
mod walk;

pub use descriptor::{LeafDescriptor, TableDescriptor, descriptor_type};
pub use granule::Granule;
pub use permission::{Access, AccessKind, Permissions, Stage1Rules};
pub use stage2::{Stage2Descriptor, stage2_start};
pub use update::{Managed, UpdatableMemory};
pub use walk::{
    ExternalAbort, Half, Leaf, TableMemory, WalkFault, WalkFaultKind, WalkParams, in_range, walk,
};

#[cfg(test)]
mod tests;
