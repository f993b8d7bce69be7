//! Hints for people who boot a kernel of their own: which option it lacks, when its console has said what only a kernel
//! without that option says.
//!
//! The messages are those of Linux's `uacce` and `hisi_qm` drivers (`drivers/misc/uacce`, `drivers/crypto/hisilicon`). A
//! kernel without these drivers says nothing at all, and then there is nothing to go by: `docs/own-kernel.md` has the whole
//! list. Deliberately absent: guesses from what is missing on the console, which may be quiet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::accelerator::Accelerator;
use crate::console::LineWatch;

/// What a line of the console proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// `uacce_alloc` is the stub of a kernel without the framework: of all its failures, only that is ENODEV.
    Uacce,
    /// The accelerator has no IOMMU, or one whose driver knows no such feature.
    Smmu,
    /// The SMMU's driver takes no faults from a device whose accesses can stall.
    Sva,
    /// The same of a device that requests its pages.
    PageRequests,
    /// Faults would do, PASIDs don't.
    Pasid,
}

impl Lack {
    /// What the line says, if it says something. `stalls` and `requests`: there are accelerators that do so.
    fn told_by(line: &str, stalls: bool, requests: bool) -> Option<Self> {
        /// The number behind a text: as the kernel has it, or by its name.
        fn error(line: &str, before: &str) -> Option<&'static str> {
            let text = line.split_once(before)?.1;
            let text = text.trim_end_matches(')').trim_end();
            match text {
                "-19" | "-ENODEV" => Some("ENODEV"),
                "-22" | "-EINVAL" => Some("EINVAL"),
                _ => None,
            }
        }
        if let Some("ENODEV") = error(line, ": fail to alloc uacce (") {
            return Some(Self::Uacce);
        }
        match error(line, ": failed to enable IOPF feature! ret = ") {
            Some("ENODEV") => return Some(Self::Smmu),
            // Of a mixture it is not known which one this is about.
            Some(_) if !stalls => return Some(Self::PageRequests),
            Some(_) if !requests => return Some(Self::Sva),
            _ => {}
        }
        match error(line, ": failed to enable SVA feature! ret = ") {
            Some("ENODEV") => Some(Self::Smmu),
            Some(_) => Some(Self::Pasid),
            None => None,
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Uacce => "it needs CONFIG_UACCE",
            Self::Smmu => {
                "it has no SMMU driver for the accelerator: it needs CONFIG_ARM_SMMU_V3 and CONFIG_ARM_SMMU_V3_SVA"
            }
            Self::Sva => "it needs CONFIG_ARM_SMMU_V3_SVA",
            Self::PageRequests => {
                "it serves no page requests of devices: use --accel zip or zip:ats, or a kernel that does (`cargo xtask guest \
                 --flavour pri`)"
            }
            Self::Pasid => "it needs CONFIG_PCI_PASID",
        }
    }
}

/// What the console has told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    lacks: Arc<Mutex<BTreeSet<Lack>>>,
    stalls: bool,
    requests: bool,
}

impl Hints {
    /// For a machine with these accelerators.
    pub(crate) fn new(accels: &[Accelerator]) -> Self {
        Self {
            lacks: Arc::default(),
            stalls: accels.iter().any(|accel| accel.can_stall()),
            requests: accels.iter().any(|accel| !accel.can_stall()),
        }
    }

    /// A line for each thing that the kernel lacks.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |lack: &Lack| {
            format!(
                "hint: the guest's kernel gives its processes no accelerator; {}; docs/own-kernel.md has all that it needs",
                lack.advice()
            )
        };
        lacks.iter().map(line).collect()
    }
}

impl LineWatch for Hints {
    fn line(&mut self, line: &str) {
        if let Some(lack) = Lack::told_by(line, self.stalls, self.requests) {
            self.lacks.lock().unwrap_or_else(PoisonError::into_inner).insert(lack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Translation;

    fn zip() -> Accelerator {
        Accelerator::default()
    }

    fn pri() -> Accelerator {
        Accelerator { translation: Translation::Pri, ..zip() }
    }

    fn advice(accels: &[Accelerator], line: &str) -> String {
        let mut hints = Hints::new(accels);
        // The same of each accelerator is told once.
        hints.line(line);
        hints.line(line);
        assert!(hints.lines().len() <= 1);
        hints.lines().concat()
    }

    #[test]
    fn each_message_of_a_driver_names_the_option_that_its_kernel_lacks() {
        let zip = [zip()];
        let of = |text: &str| advice(&zip, &format!("[    0.412] hisi_zip 0000:00:01.0: {text}"));
        assert!(of("fail to alloc uacce (-19)").contains("CONFIG_UACCE"));
        assert!(of("failed to enable IOPF feature! ret = -ENODEV").contains("CONFIG_ARM_SMMU_V3 and"));
        assert!(of("failed to enable IOPF feature! ret = -EINVAL").contains("CONFIG_ARM_SMMU_V3_SVA;"));
        // A kernel without names of errors.
        assert!(of("failed to enable IOPF feature! ret = -22").contains("CONFIG_ARM_SMMU_V3_SVA;"));
        assert!(of("failed to enable SVA feature! ret = -EINVAL").contains("CONFIG_PCI_PASID"));
    }

    #[test]
    fn what_may_have_another_reason_is_no_hint() {
        for line in [
            // Follows from the line before it, which is more exact.
            "hisi_zip 0000:00:01.0: fail to alloc uacce (-22)",
            "hisi_zip 0000:00:01.0: fail to alloc uacce (-12)",
            "hisi_zip 0000:00:01.0: failed to enable IOPF feature! ret = -EBUSY",
            "echo failed to enable IOPF feature",
            "",
        ] {
            assert_eq!(advice(&[zip()], line), "", "{line}");
        }
    }

    #[test]
    fn refusal_of_page_requests_is_not_taken_for_a_missing_option() {
        let line = "hisi_zip 0000:00:01.0: failed to enable IOPF feature! ret = -EINVAL";
        assert!(advice(&[pri()], line).contains("--flavour pri"));
        assert_eq!(advice(&[pri(), zip()], line), "");
    }
}
