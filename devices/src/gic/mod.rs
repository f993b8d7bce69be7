//! GICv3 and ITS.
