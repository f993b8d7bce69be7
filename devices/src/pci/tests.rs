//! Tests of the PCI model.
