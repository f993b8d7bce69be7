//! Translation of guest instructions to host machine code: the memory it lives in, and the host's encoder.
//!
//! Only the encoder knows the host's instruction set. Where the host refuses executable memory
//! ([`memory::CodeMemory::new`] fails) the interpreter runs alone.

// The translator, the caller of both, is not part of this module yet.
#![allow(dead_code, unused_imports)]

pub(crate) mod memory;
pub(crate) mod x64;
