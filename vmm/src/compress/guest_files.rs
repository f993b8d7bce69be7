//! Finds the guest's kernel and initramfs when the user names none.

use std::path::{Path, PathBuf};

use crate::accelerator::Accelerator;
use crate::exit::Failed;

/// Folder to look in before all others.
const VARIABLE: &str = "WARPVMM_GUEST";
const KERNEL: &str = "Image";
const INITRD: &str = "initramfs.cpio";
/// In the same folder: the kernel's flavour that serves page requests.
const PRI_KERNEL: &str = "pri/Image";
/// What to do for the one accelerator that the usual kernel does not serve.
pub(crate) const PRI_HINT: &str = "--accel zip:pri needs a kernel that serves page requests: `cargo xtask guest --flavour pri` \
                                   builds one, and --kernel takes another";

/// The files to boot.
#[derive(Debug)]
pub(crate) struct GuestFiles {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
}

impl GuestFiles {
    /// Takes what is named and finds the rest, a kernel that serves the accelerator: in `$WARPVMM_GUEST`, or in `guest` beside the program or one level
    /// up (which is where `cargo xtask guest` leaves it).
    ///
    /// # Errors
    /// A line that says where was looked and what to do.
    pub(crate) fn find(
        kernel: Option<&Path>,
        initrd: Option<&Path>,
        accel: Accelerator,
    ) -> Result<Self, Failed> {
        if let (Some(kernel), Some(initrd)) = (kernel, initrd) {
            return Ok(Self { kernel: kernel.into(), initrd: initrd.into() });
        }
        let mut folders = Vec::new();
        match std::env::var_os(VARIABLE) {
            Some(folder) => folders.push(PathBuf::from(folder)),
            None => {
                let program = std::env::current_exe().ok();
                let dirs = program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
                folders.extend(dirs.map(|dir| dir.join("guest")));
            }
        }
        let found = folders.iter().find(|dir| dir.join(KERNEL).is_file() && dir.join(INITRD).is_file());
        let Some(dir) = found else {
            let looked: Vec<String> = folders.iter().map(|dir| dir.display().to_string()).collect();
            return Err(Failed::new(format!(
                "no guest to boot: {KERNEL} and {INITRD} are not in {}; build them with `cargo xtask guest`, or give \
                 --kernel and --initrd",
                looked.join(" or ")
            )));
        };
        Self::in_folder(dir, kernel, initrd, accel)
    }

    /// Takes what is named, and the rest from a folder that has the usual files.
    fn in_folder(
        dir: &Path,
        kernel: Option<&Path>,
        initrd: Option<&Path>,
        accel: Accelerator,
    ) -> Result<Self, Failed> {
        let usual = dir.join(if !accel.can_stall() { PRI_KERNEL } else { KERNEL });
        if kernel.is_none() && !usual.is_file() {
            return Err(Failed::new(format!("there is no {}; {PRI_HINT}", usual.display())));
        }
        Ok(Self {
            kernel: kernel.map_or(usual, Path::to_path_buf),
            initrd: initrd.map_or_else(|| dir.join(INITRD), Path::to_path_buf),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::parse_one;

    #[test]
    fn page_requests_get_the_kernel_that_serves_them_or_a_hint_before_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let find = |kernel, accel| GuestFiles::in_folder(dir, kernel, None, accel);
        std::fs::write(dir.join(KERNEL), "").unwrap();

        assert_eq!(find(None, parse_one("zip:ats").unwrap()).unwrap().kernel, dir.join("Image"));
        let error = find(None, parse_one("zip:pri").unwrap()).unwrap_err().to_string();
        assert!(error.contains("pri/Image") && error.contains("--flavour pri"), "{error}");
        let named = Path::new("/a/kernel");
        assert_eq!(find(Some(named), parse_one("zip:pri").unwrap()).unwrap().kernel, named);

        std::fs::create_dir(dir.join("pri")).unwrap();
        std::fs::write(dir.join(PRI_KERNEL), "").unwrap();
        assert_eq!(find(None, parse_one("zip:pri").unwrap()).unwrap().kernel, dir.join("pri/Image"));
    }
}
