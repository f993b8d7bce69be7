//! Where things are: the project's own folders, and nothing outside of them.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout, and the folders that builds write.
pub(crate) struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that this program was built from.
    pub(crate) fn find() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: here.parent().unwrap_or(here).to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What the guest is made of: configuration, recipe, programs.
    pub(crate) fn guest_sources(&self) -> PathBuf {
        self.root.join("guest")
    }

    /// What the guest boots: `Image`, `initramfs.cpio`, `vmlinux`.
    pub(crate) fn guest(&self) -> PathBuf {
        self.root.join("target/guest")
    }

    /// The bare-metal programs.
    pub(crate) fn firmware(&self) -> PathBuf {
        self.root.join("target/firmware")
    }

    /// Downloads, unpacked sources and object files; may be deleted at any time, at the cost of time.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("target/cache")
    }

    /// What `cargo xtask run` leaves.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("target/run")
    }

    /// What the tests on an emulated arm64 host leave.
    pub(crate) fn arm64_host(&self) -> PathBuf {
        self.root.join("target/arm64-host")
    }

    /// What `cargo xtask bench` leaves.
    pub(crate) fn bench(&self) -> PathBuf {
        self.root.join("target/bench")
    }

    /// Cargo's own output folder, which the user may have moved.
    pub(crate) fn cargo_target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// Waits until no other `cargo xtask` builds in this checkout, and keeps others waiting until the result is dropped.
    pub(crate) fn lock(&self) -> Result<fs::File> {
        let path = self.cache().join("lock");
        let locked = || -> std::io::Result<fs::File> {
            fs::create_dir_all(self.cache())?;
            let file = fs::File::create(&path)?;
            if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
                eprintln!("waiting for another cargo xtask to finish building the guest ...");
                file.lock()?;
            }
            Ok(file)
        };
        locked().with_context(|| format!("cannot lock {}", path.display()))
    }

    /// A path as the user may type it: relative to the checkout where it is inside.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// Writes a file so that nobody ever sees half of it: under another name first, then renamed.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let unfinished = unfinished(path);
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(content)?;
        drop(file);
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file in the same way.
pub(crate) fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let unfinished = unfinished(to);
    let copy = || -> std::io::Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, &unfinished)?;
        fs::rename(&unfinished, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The name under which a file is written until it is complete.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".unfinished");
    path.with_file_name(name)
}

/// Deletes a folder with everything in it; nothing to do if there is none.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_file_is_in_the_same_folder_so_that_rename_is_atomic() {
        assert_eq!(unfinished(Path::new("/a/b/Image")), Path::new("/a/b/Image.unfinished"));
    }

    #[test]
    fn path_inside_the_checkout_is_shown_relative() {
        let project = Project { root: "/home/me/warpvmm".into() };

        assert_eq!(project.shown(&project.guest().join("Image")), "target/guest/Image");
        assert_eq!(project.shown(Path::new("/tmp/x")), "/tmp/x");
    }
}
