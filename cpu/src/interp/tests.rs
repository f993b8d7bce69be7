//! Blocks, chaining and self-modifying code.
