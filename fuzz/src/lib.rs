//! Fuzz targets: one function for each border that a guest or a file can reach.
//!
//! A target takes bytes, reads them as a sequence of operations ([`input`]), and carries those out on a fresh model, as
//! a hostile guest would. It asserts little: a target fails by a panic (the profile checks overflows), by taking too
//! long, or by taking too much memory. The driver (`main.rs`) and libFuzzer (`libfuzzer/`) call the same functions.
//! Deliberately absent: whether the answers are right, which the crates' own tests say.

#![forbid(unsafe_code)]

pub mod input;
mod machine;
mod targets;

pub use targets::*;

/// A border and how to fuzz it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: on the command line, and of its folder of seeds.
    pub name: &'static str,
    /// What it reaches.
    pub about: &'static str,
    /// Carries out one input.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident: $about:literal,)*) => {
        /// All targets.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), about: $about, run: targets::$name },)*];
    };
}

targets! {
    smmu: "SMMUv3: registers, commands, tables in memory, DMA of several streams and PASIDs",
    ats: "ATS and page requests: a function with a translation cache behind the SMMU, hostile answers",
    gic: "GICv3 and ITS: registers, CPU interface, commands, tables in memory, messages, wires",
    pci: "PCI: configuration space, BARs, ECAM and windows",
    dma_test: "DMA test device: registers, commands, invalidations and responses",
    virtio_blk: "virtio-blk over virtio-pci: registers and rings",
    zip: "HiSilicon QM and ZIP: registers, mailbox, doorbells, SQEs, scatter lists, compressed data",
    uart: "PL011: registers, input and output",
    rtc: "PL031: registers and alarms",
    saved: "saved states of GIC, PL011, PL031, PCI host, virtio-blk and vCPUs: taken up, then used",
    vmsa: "translation tables: the walker over random descriptors",
    cpu_decode: "CPU: the decoder over random words",
    cpu_run: "CPU: random instructions at EL1 and EL0 in random states of the system",
    cpu_translate: "CPU: the same translated, each block compared with the interpreter",
    transfer: "KVM: loads and stores that the CPU does not describe, compared with the engine",
    image: "kernel files: Image, gzip, EFI zboot",
    record: "the result that the guest leaves on the output disk",
    device_tree: "device tree: command line and names",
    control: "control socket: lines and requests of a client",
    gdb: "debugger: packets of a client",
    save_file: "save files: header, state, table and chunks of RAM",
    fault_plan: "fault plans: the file, and what one that is right decides",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_survives_nothing_and_each_of_its_seeds() {
        for target in TARGETS {
            (target.run)(&[]);
            let seeds = input::seeds(target.name).unwrap();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for (_, seed) in seeds {
                (target.run)(&seed);
            }
        }
    }
}
