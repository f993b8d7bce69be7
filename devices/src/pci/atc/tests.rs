//! The cache with an agent that is played by the test.
