//! The ZIP engine.
