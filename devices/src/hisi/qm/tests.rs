//! The queue manager with an engine that echoes.
