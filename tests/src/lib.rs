//! End-to-end tests of the program, run as a user would run it.
