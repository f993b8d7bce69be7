//! Wire formats and register layouts with the specification's names: types only, no behaviour.
//!
//! Arm SMMU Architecture Specification, IHI 0070. Dwords of structures in memory are called D0, D1, ... from the
//! lowest address. Fields of features that are not modelled are left out; the sections that have them say what
//! such bits do.

#![allow(missing_docs, reason = "the specification describes the fields under these names")]

pub mod cd;
pub mod command;
pub mod event;
pub mod granule;
pub mod pri;
pub mod regs;
pub mod ste;
