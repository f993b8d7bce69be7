//! Building the guest: kernel, programs, initramfs. Each is cached and made again only when its sources change.

mod flavour;
mod fragment;
mod initramfs;
mod kernel;
pub(crate) mod programs;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use flavour::Flavour;

use crate::archive::{Archive, unpack_deb};
use crate::packages;
use crate::project::{Project, copy_whole, remove_folder};

/// Where the guest's parts come from, and what set-up may do.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GuestOptions {
    /// Kernel source to use instead of the distribution's: a folder, a tar archive, or a linux-source package
    #[arg(long, value_name = "FILE|DIR", global = true)]
    pub(crate) kernel_source: Option<PathBuf>,
    /// Static arm64 busybox to use instead of the distribution's: the program, or a busybox-static package
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) busybox: Option<PathBuf>,
    /// Debian's arm64 kernel to use instead of fetching it: vmlinuz, or a linux-image or linux-binary package
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) stock_kernel: Option<PathBuf>,
    /// Say which system packages are missing instead of installing them
    #[arg(long, global = true)]
    pub(crate) no_install: bool,
}

/// What the guest boots.
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// The kernel as an ELF file with its symbols: large enough to be worth compressing.
    pub(crate) sample: PathBuf,
}

/// Installs what is missing, fetches what is not there, builds what is not current.
pub(crate) fn build(project: &Project, options: &GuestOptions) -> Result<Guest> {
    let _lock = project.lock()?;
    packages::require(&[packages::GUEST], !options.no_install)?;
    let mut archive = None;
    let kernel = kernel::build(project, Flavour::Default, options.kernel_source.as_deref(), &mut archive)?;
    let programs = programs::build(project)?;
    let busybox = initramfs::busybox(project, options.busybox.as_deref(), &mut archive)?;
    let initrd = initramfs::build(project, &programs, &busybox)?;
    Ok(Guest { kernel: kernel.image, initrd, sample: kernel.vmlinux })
}

/// Another kernel for the same root file system; returns its `Image`. The default guest has been built.
pub(crate) fn flavour(project: &Project, options: &GuestOptions, flavour: Flavour) -> Result<PathBuf> {
    let _lock = project.lock()?;
    let kernel = kernel::build(project, flavour, options.kernel_source.as_deref(), &mut None)?;
    Ok(kernel.image)
}

/// Debian's own arm64 kernel, unmodified, as proof that the board is a real one.
pub(crate) fn stock_kernel(project: &Project, options: &GuestOptions) -> Result<PathBuf> {
    let _lock = project.lock()?;
    let image = project.guest().join("stock/vmlinuz");
    let package = match &options.stock_kernel {
        Some(file) if file.extension().is_some_and(|extension| extension == "deb") => file.clone(),
        Some(file) => {
            copy_whole(file, &image)?;
            return Ok(image);
        }
        None if image.exists() => return Ok(image),
        None => {
            let mut archive =
                Archive::open(project).context("cannot fetch it; please pass --stock-kernel")?;
            let name = archive.find(r"^linux-image-6\.12\..*-arm64$", kernel::newest_stock)?;
            archive.fetch(&name)?
        }
    };
    let unpacked = project.cache().join("stock-kernel");
    remove_folder(&unpacked)?;
    unpack_deb(&package, &unpacked)?;
    copy_whole(&kernel::in_package(&unpacked)?, &image)?;
    remove_folder(&unpacked)?;
    Ok(image)
}

/// Opens the archive when it is needed for the first time.
fn archive<'a>(project: &Project, archive: &'a mut Option<Archive>) -> Result<&'a mut Archive> {
    match archive {
        Some(archive) => Ok(archive),
        None => Ok(archive.insert(Archive::open(project)?)),
    }
}
