//! Blocks of guest code, which all tiers share: how they are found, linked, and dropped when their memory changes.
//!
//! `block` has the blocks and where they live, `cache` how they are looked up, `code_pages` which memory they came
//! from. A block is decoded once; what runs it, interpreter or translation, is the business of `interp` and `jit`.

mod block;
mod cache;
mod code_pages;

pub(crate) use block::Block;
pub(crate) use cache::{Code, JUMPS, Jump, context, half};
pub use code_pages::CodePages;
pub(crate) use code_pages::granules;
