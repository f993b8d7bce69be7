//! Wire formats and register layouts with the specification's names: types only, no behaviour.
//!
//! Arm SMMU Architecture Specification, IHI 0070. Dwords of structures in memory are called D0, D1, ... from the
//! lowest address. Fields of features that are not modelled are left out; the sections that have them say what
//! such bits do.

// The fields are described in the specification under these names; a sentence for each would only repeat it.
#![allow(missing_docs)]

pub mod cd;
pub mod command;
pub mod event;
pub mod regs;
pub mod ste;
