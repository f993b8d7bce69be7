//! The guest's kernel: source unpacked once, configured from the fragment, compiled with the cross compiler.
//!
//! The object files stay in the cache, so that an interrupted build goes on where it was, and a change of the fragment
//! compiles only what it touches. A patched kernel starts from the object files of the default one, and the source
//! is patched only while it is compiled. The products appear under their names when they are complete, never before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

use super::{Flavour, fragment};
use crate::archive::{Archive, unpack_deb};
use crate::key::{Key, is_current, set_current};
use crate::process;
use crate::progress::Progress;
use crate::project::{Project, copy_whole, remove_folder, unfinished};

/// The distribution's package of the kernel's source.
const SOURCE_PACKAGE: &str = "linux-source-6.12";
const CROSS: &str = "aarch64-linux-gnu-";
/// Object files of a first build, until a build has counted its own.
const EXPECTED_OBJECTS: u64 = 1600;

pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) vmlinux: PathBuf,
}

/// Source as the user or the archive gave it.
enum Source {
    /// A tree that somebody may be working on: `make` decides what has to be compiled.
    Tree(PathBuf),
    /// A file that is unpacked into the cache.
    Packed(PathBuf),
}

pub(super) fn build(
    project: &Project,
    flavour: Flavour,
    given: Option<&Path>,
    archive: &mut Option<Archive>,
) -> Result<Kernel> {
    let products = flavour.products(project);
    let product = |name: &str| products.join(name);
    let kernel = Kernel { image: product("Image"), vmlinux: product("vmlinux") };
    let stamp = product("kernel.key");

    let source = match given {
        Some(path) if path.is_dir() => Source::Tree(path.to_owned()),
        Some(path) if path.is_file() => Source::Packed(path.to_owned()),
        Some(path) => bail!("there is no kernel source at {}", path.display()),
        None => Source::Packed(super::archive(project, archive)?.fetch(SOURCE_PACKAGE)?),
    };
    let recipe = project.guest_sources().join("kernel");
    let fragments: Vec<PathBuf> = flavour.fragments().iter().map(|name| recipe.join(name)).collect();
    let patches = if flavour.is_patched() { patches(&recipe)? } else { Vec::new() };
    let source_key = source_key(&source)?;
    let key = kernel_key(&source_key, &fragments, &patches)?;
    let complete = kernel.image.exists() && kernel.vmlinux.exists();
    if complete && is_current(&stamp, &key) && matches!(source, Source::Packed(_)) {
        return Ok(kernel);
    }

    let tree = prepare(project, &source, &source_key)?;
    let objects = flavour.objects(project);
    if flavour.is_patched() {
        if matches!(source, Source::Tree(_)) {
            bail!("the flavour {} patches the source, so it needs a packed one", flavour.name());
        }
        copy_objects(project, &objects, &key)?;
        let build = || compile(project, flavour, &tree, &objects);
        with_patches(project, &tree, &patches, &source_key, build)?;
    } else {
        // Object files of other sources would be dated by the wrong files.
        let stamp = objects.join("source.key");
        if !is_current(&stamp, &source_key) {
            remove_folder(&objects)?;
            set_current(&stamp, &source_key)?;
        }
        configure(&tree, &objects, &fragments, given.is_some())?;
        compile(project, flavour, &tree, &objects)?;
    }
    copy_whole(&objects.join("arch/arm64/boot/Image"), &kernel.image)?;
    copy_whole(&objects.join("vmlinux"), &kernel.vmlinux)?;
    set_current(&stamp, &key)?;
    Ok(kernel)
}

fn patches(folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder.join("patches");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    Ok(patches)
}

fn source_key(source: &Source) -> Result<String> {
    let mut key = Key::new("kernel source");
    match source {
        Source::Tree(path) => key.add(path.as_os_str().as_encoded_bytes()),
        Source::Packed(path) => {
            // The name has the version; the content is far too large to be read each time.
            let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
            key.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            key.add(&size.to_le_bytes());
        }
    }
    Ok(key.finish())
}

fn kernel_key(source_key: &str, fragments: &[PathBuf], patches: &[PathBuf]) -> Result<String> {
    let mut key = Key::new("kernel");
    key.add(source_key.as_bytes());
    for file in fragments.iter().chain(patches) {
        key.add_file(file)?;
    }
    key.add(process::output(Command::new(format!("{CROSS}gcc")).arg("--version"))?.as_bytes());
    Ok(key.finish())
}

/// Where the unpacked source says what it is.
fn tree_stamp(project: &Project) -> PathBuf {
    project.cache().join("kernel-source.key")
}

/// Returns the folder of the source, unpacked.
fn prepare(project: &Project, source: &Source, source_key: &str) -> Result<PathBuf> {
    let packed = match source {
        Source::Tree(path) => {
            return path.canonicalize().with_context(|| format!("cannot read {}", path.display()));
        }
        Source::Packed(path) => path,
    };

    let tree = project.cache().join("kernel-source");
    let tree_stamp = tree_stamp(project);
    if tree.exists() && is_current(&tree_stamp, source_key) {
        return Ok(tree);
    }
    let progress = Progress::new("unpacking the kernel's source", 0);
    let raw = unfinished(&tree);
    remove_folder(&raw)?;
    fs::create_dir_all(&raw).with_context(|| format!("cannot create {}", raw.display()))?;
    unpack_source(packed, &raw)?;
    // Archives have one folder at the top.
    let top = only_folder(&raw)?;
    remove_folder(&tree)?;
    fs::rename(&top, &tree).with_context(|| format!("cannot move {}", top.display()))?;
    remove_folder(&raw)?;
    set_current(&tree_stamp, source_key)?;
    drop(progress);
    Ok(tree)
}

/// Starts a patched kernel from the default one's object files: what no patch touches is not compiled again.
fn copy_objects(project: &Project, objects: &Path, key: &str) -> Result<()> {
    let stamp = objects.join("patched.key");
    if is_current(&stamp, key) {
        return Ok(());
    }
    remove_folder(objects)?;
    let default = Flavour::Default.objects(project);
    // With their times, by which make decides.
    process::output(Command::new("cp").arg("-a").arg(&default).arg(objects))?;
    set_current(&stamp, key)
}

/// Runs `build` while the source is patched. The files that were patched come back as they were, with their times; if
/// that can't be, the source is unpacked anew the next time.
fn with_patches(
    project: &Project,
    tree: &Path,
    patches: &[PathBuf],
    source_key: &str,
    build: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let tree_stamp = tree_stamp(project);
    let aside = project.cache().join("kernel-source-unpatched");
    remove_folder(&aside)?;
    fs::remove_file(&tree_stamp).with_context(|| format!("cannot delete {}", tree_stamp.display()))?;
    let mut touched = Vec::new();
    for patch in patches {
        let text = fs::read_to_string(patch).with_context(|| format!("cannot read {}", patch.display()))?;
        touched.extend(touched_by(&text).map(PathBuf::from));
    }
    touched.sort();
    touched.dedup();
    for file in &touched {
        let (original, kept) = (tree.join(file), aside.join(file));
        let keep = || -> std::io::Result<()> {
            if let Some(folder) = kept.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::rename(&original, &kept)?;
            fs::copy(&kept, &original).map(drop)
        };
        keep().with_context(|| format!("cannot set {} aside", original.display()))?;
    }
    for patch in patches {
        process::output(Command::new("patch").args(["-p1", "-s", "-i"]).arg(patch).current_dir(tree))
            .with_context(|| format!("cannot apply {}", patch.display()))?;
    }
    let built = build();
    for file in &touched {
        fs::rename(aside.join(file), tree.join(file))
            .with_context(|| format!("cannot restore {}", file.display()))?;
    }
    remove_folder(&aside)?;
    set_current(&tree_stamp, source_key)?;
    built
}

/// The files that a patch changes. Ours add none.
fn touched_by(patch: &str) -> impl Iterator<Item = &str> {
    patch.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(str::trim)
}

fn unpack_source(packed: &Path, folder: &Path) -> Result<()> {
    if packed.extension().is_some_and(|extension| extension == "deb") {
        let package = folder.join("package");
        unpack_deb(packed, &package)?;
        let sources = package.join("usr/src");
        let inner = fs::read_dir(&sources)
            .with_context(|| format!("{} holds no kernel source", packed.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".tar")))
            .with_context(|| format!("{} holds no kernel source", packed.display()))?;
        untar(&inner, folder)?;
        return remove_folder(&package);
    }
    untar(packed, folder)
}

fn untar(archive: &Path, folder: &Path) -> Result<()> {
    // Headers of one graphics driver are a sixth of the whole tree, and nothing that is built reads them.
    process::output(
        Command::new("tar")
            .arg("xf")
            .arg(archive)
            .args(["--exclude=*/drivers/gpu/drm/amd/include/asic_reg", "-C"])
            .arg(folder),
    )
    .with_context(|| format!("cannot unpack {}", archive.display()))?;
    Ok(())
}

fn only_folder(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    match &folders[..] {
        [one] => Ok(one.clone()),
        _ => bail!("expected one folder in the kernel source archive, found {}", folders.len()),
    }
}

/// `make` for the guest's architecture, with object files in a folder of their own.
fn make(tree: &Path, objects: &Path) -> Command {
    let mut output = std::ffi::OsString::from("O=");
    output.push(objects);
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(tree)
        .arg(output)
        .args(["ARCH=arm64", &format!("CROSS_COMPILE={CROSS}")])
        // Equal sources give equal kernels, whoever builds them and when.
        .env("KBUILD_BUILD_USER", "warpvmm")
        .env("KBUILD_BUILD_HOST", "guest")
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC")
        .env("KBUILD_BUILD_VERSION", "1")
        .env("LC_ALL", "C");
    // A job server of an outer make would not be ours to use.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    command
}

/// Configures the kernel. A source that the user gave may be of another version, where options have other names or are
/// no options any more: what it doesn't take is told, and the kernel is built without.
fn configure(tree: &Path, objects: &Path, fragments: &[PathBuf], is_given: bool) -> Result<()> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let texts = fragments.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let wanted = fragment::merge(&texts);
    let merged = objects.join("warpvmm.config");
    crate::project::write_whole(&merged, wanted.as_bytes())?;
    process::output(make(tree, objects).args(["-s", "allnoconfig"]).env("KCONFIG_ALLCONFIG", &merged))
        .context("cannot configure the guest's kernel")?;
    let lost = fragment::lost(&wanted, &read(&objects.join(".config"))?);
    if !lost.is_empty() {
        let names: Vec<_> = fragments.iter().map(|path| path.display().to_string()).collect();
        let what = format!(
            "this kernel source does not take {} line(s) of {}: {}",
            lost.len(),
            names.join(", "),
            lost.join("; ")
        );
        if !is_given {
            bail!(what);
        }
        eprintln!("warning: {what}");
    }
    Ok(())
}

fn compile(project: &Project, flavour: Flavour, tree: &Path, objects: &Path) -> Result<()> {
    let counted = project.cache().join(format!("kernel-objects-{}.count", flavour.name()));
    let expected = fs::read_to_string(&counted).ok().and_then(|text| text.trim().parse().ok());
    let first = !objects.join("vmlinux").exists();
    let jobs = available_parallelism().map_or(1, usize::from);
    let log = flavour.products(project).join("kernel-build.log");

    let mut progress = Progress::new(
        &match flavour {
            Flavour::Default => "compiling the guest's kernel, files".to_owned(),
            other => format!("compiling the guest's kernel ({}), files", other.name()),
        },
        if first { expected.unwrap_or(EXPECTED_OBJECTS) } else { 0 },
    );
    process::logged(make(tree, objects).arg(format!("-j{jobs}")).arg("Image"), &log, |line| {
        // make prints a line with the kind of step, indented, for each file it makes.
        if line.starts_with("  ") {
            progress.advance();
        }
    })
    .with_context(|| format!("cannot build the guest's kernel (log: {})", project.shown(&log)))?;
    let objects = progress.finish();
    if first {
        crate::project::write_whole(&counted, objects.to_string().as_bytes())?;
    }
    Ok(())
}

/// The plain kernel package of the highest version among these names: no real-time, debug or unsigned flavour.
pub(super) fn newest_stock(names: &[String]) -> Option<&str> {
    let version = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names
        .iter()
        .map(String::as_str)
        .filter(|name| {
            !["-rt-", "-dbg", "-unsigned", "-cloud-", "-16k"].iter().any(|part| name.contains(part))
        })
        .max_by_key(|name| version(name))
}

/// The kernel in an unpacked linux-image package, or in a linux-binary package, where Debian's 7.3 has it.
pub(super) fn in_package(unpacked: &Path) -> Result<PathBuf> {
    let entries = |folder: PathBuf| -> Vec<PathBuf> {
        fs::read_dir(folder)
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default()
    };
    let modules = entries(unpacked.join("usr/lib/modules"));
    std::iter::once(unpacked.join("boot"))
        .chain(modules)
        .flat_map(entries)
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("the package holds no kernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_names_the_files_that_it_changes() {
        let patch = "Subject: x\n--- a/drivers/one.c\n+++ b/drivers/one.c\n@@ -1,1 +1,2 @@\n-a\n+a\n+b\n";

        assert_eq!(touched_by(patch).collect::<Vec<_>>(), ["drivers/one.c"]);
    }

    #[test]
    fn newest_stock_kernel_compares_versions_as_numbers() {
        let names = ["linux-image-6.12.9+bpo-arm64", "linux-image-6.12.38+bpo-arm64"].map(str::to_owned);

        assert_eq!(newest_stock(&names), Some("linux-image-6.12.38+bpo-arm64"));
    }

    #[test]
    fn kernel_is_found_in_packages_of_both_layouts() {
        let unpacked = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
        for folder in ["boot", "usr/lib/modules/7.3.4-arm64"] {
            let folder = unpacked.join(folder);
            fs::create_dir_all(&folder).unwrap();
            assert!(in_package(&unpacked).is_err());

            fs::write(folder.join("vmlinuz-7.3.4-arm64"), "").unwrap();

            assert_eq!(in_package(&unpacked).unwrap(), folder.join("vmlinuz-7.3.4-arm64"));
            fs::remove_dir_all(&unpacked).unwrap();
        }
    }

    #[test]
    fn newest_stock_kernel_is_no_special_flavour() {
        let names = [
            "linux-image-6.12.38+bpo-rt-arm64",
            "linux-image-6.12.38+bpo-cloud-arm64",
            "linux-image-6.12.30+bpo-arm64",
        ]
        .map(str::to_owned);

        assert_eq!(newest_stock(&names), Some("linux-image-6.12.30+bpo-arm64"));
    }
}
