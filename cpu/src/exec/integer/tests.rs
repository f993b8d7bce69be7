//! Known values of data processing.
