//! The guest kernel's flavours: the same source with other page sizes, or with our patches.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::project::Project;

/// A guest kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flavour {
    /// Pages of 4 KiB, unpatched: what everything runs unless told otherwise
    Default,
    /// The default with our patches, which let the kernel serve an endpoint's page requests
    Pri,
    /// Pages of 16 KiB, unpatched
    #[value(name = "16k")]
    K16,
    /// Pages of 64 KiB, unpatched
    #[value(name = "64k")]
    K64,
}

impl Flavour {
    /// Those besides the default that the usual tests boot.
    pub(crate) const TESTED: &[Self] = &[Self::Pri];
    /// Those that only the slow tests boot: each takes minutes to compile.
    pub(crate) const TESTED_SLOWLY: &[Self] = &[Self::K16, Self::K64];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Pri => "pri",
            Self::K16 => "16k",
            Self::K64 => "64k",
        }
    }

    /// Configuration fragments, in the folder of the kernel's recipe. Lines of later ones win.
    pub(crate) const fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Pri => &["config"],
            Self::K16 => &["config", "config.small", "config.16k"],
            Self::K64 => &["config", "config.small", "config.64k"],
        }
    }

    /// Whether the source is patched.
    pub(crate) const fn is_patched(self) -> bool {
        matches!(self, Self::Pri)
    }

    /// Where its products go.
    pub(crate) fn products(self, project: &Project) -> PathBuf {
        match self {
            Self::Default => project.guest(),
            other => project.guest().join(other.name()),
        }
    }

    /// Where its object files are kept.
    pub(crate) fn objects(self, project: &Project) -> PathBuf {
        match self {
            Self::Default => project.cache().join("kernel-objects"),
            other => project.cache().join(format!("kernel-objects-{}", other.name())),
        }
    }
}
