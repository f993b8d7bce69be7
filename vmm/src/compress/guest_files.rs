//! Finds the guest's kernel and initramfs when the user names none.

use std::path::{Path, PathBuf};

use crate::exit::Failed;

/// Folder to look in before all others.
const VARIABLE: &str = "WARPVMM_GUEST";
const KERNEL: &str = "Image";
const INITRD: &str = "initramfs.cpio";

/// The files to boot.
#[derive(Debug)]
pub(crate) struct GuestFiles {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
}

impl GuestFiles {
    /// Takes what is named and finds the rest: in `$WARPVMM_GUEST`, or in `guest` beside the program or one level
    /// up (which is where `cargo xtask guest` leaves it).
    ///
    /// # Errors
    /// A line that says where was looked and what to do.
    pub(crate) fn find(kernel: Option<&Path>, initrd: Option<&Path>) -> Result<Self, Failed> {
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
        Ok(Self {
            kernel: kernel.map_or_else(|| dir.join(KERNEL), Path::to_path_buf),
            initrd: initrd.map_or_else(|| dir.join(INITRD), Path::to_path_buf),
        })
    }
}
