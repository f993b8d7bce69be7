//! Ordered loads and stores. The handlers of exclusives and atomics are called.

pub(crate) use super::memory::{ldar, stlr};
