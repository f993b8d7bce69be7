//! PCI Express: host bridge with ECAM, configuration space, capabilities.
