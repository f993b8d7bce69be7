//! PL031 real-time clock.
