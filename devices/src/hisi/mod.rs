//! HiSilicon accelerators: the queue manager they share, and the engines behind it.
