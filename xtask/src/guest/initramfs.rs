//! The initramfs: what the recipe `guest/initramfs` says, as a cpio archive.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::archive::{Archive, unpack_deb};
use crate::cpio;
use crate::project::{Project, copy_whole, remove_folder, write_whole};

const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Start of a little-endian 64-bit ELF file; bytes 18 and 19 are the machine.
const ELF64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
const MACHINE_AARCH64: [u8; 2] = [183, 0];

/// One entry of the archive, as the recipe describes it.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory {
        path: String,
        permissions: u32,
    },
    /// `program` is the name of one of our programs, or `busybox`.
    File {
        path: String,
        permissions: u32,
        program: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    CharDevice {
        path: String,
        permissions: u32,
        major: u32,
        minor: u32,
    },
}

/// Reads a recipe. Lines are `dir PATH MODE`, `file PATH MODE PROGRAM`, `link PATH TARGET`, `links FOLDER TARGET NAME...`
/// and `char PATH MODE MAJOR MINOR`; a hash sign starts a comment.
fn parse(recipe: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (number, line) in recipe.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match parse_line(&words) {
            Some(mut some) => entries.append(&mut some),
            None => bail!("line {} of the initramfs recipe makes no sense: {}", number + 1, line.trim()),
        }
    }
    Ok(entries)
}

fn parse_line(words: &[&str]) -> Option<Vec<Entry>> {
    let mode = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    Some(match *words {
        [] => vec![],
        ["dir", path, permissions] => {
            vec![Entry::Directory { path: path.into(), permissions: mode(permissions)? }]
        }
        ["file", path, permissions, program] => {
            vec![Entry::File { path: path.into(), permissions: mode(permissions)?, program: program.into() }]
        }
        ["link", path, target] => vec![Entry::Symlink { path: path.into(), target: target.into() }],
        ["links", folder, target, ref names @ ..] => names
            .iter()
            .map(|name| Entry::Symlink { path: format!("{folder}/{name}"), target: target.into() })
            .collect(),
        ["char", path, permissions, major, minor] => vec![Entry::CharDevice {
            path: path.into(),
            permissions: mode(permissions)?,
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        }],
        _ => return None,
    })
}

/// Writes the archive if it is not what is there already; returns its path.
pub(super) fn build(
    project: &Project,
    programs: &BTreeMap<&'static str, PathBuf>,
    busybox: &Path,
) -> Result<PathBuf> {
    let recipe = project.guest_sources().join("initramfs");
    let recipe = fs::read_to_string(&recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
    let mut archive = cpio::Archive::new(Vec::new());
    for entry in parse(&recipe)? {
        match entry {
            Entry::Directory { path, permissions } => archive.directory(&path, permissions)?,
            Entry::Symlink { path, target } => archive.symlink(&path, &target)?,
            Entry::CharDevice { path, permissions, major, minor } => {
                archive.char_device(&path, permissions, major, minor)?;
            }
            Entry::File { path, permissions, program } => {
                let source = match program.as_str() {
                    "busybox" => busybox,
                    name => programs
                        .get(name)
                        .with_context(|| format!("the recipe wants {name}, which nobody builds"))?,
                };
                let content =
                    fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
                archive.file(&path, permissions, &content)?;
            }
        }
    }
    let bytes = archive.finish()?;
    let product = project.guest().join("initramfs.cpio");
    if fs::read(&product).ok().as_deref() != Some(&bytes[..]) {
        write_whole(&product, &bytes)?;
    }
    Ok(product)
}

/// A static arm64 busybox: the user's file, or the distribution's package.
pub(super) fn busybox(
    project: &Project,
    given: Option<&Path>,
    archive: &mut Option<Archive>,
) -> Result<PathBuf> {
    let is_package = |path: &Path| path.extension().is_some_and(|extension| extension == "deb");
    let package = match given {
        Some(path) if !is_package(path) => {
            check_program(path)?;
            return Ok(path.to_owned());
        }
        Some(path) => path.to_owned(),
        None => super::archive(project, archive)?.fetch(BUSYBOX_PACKAGE)?,
    };
    let name = package.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let program = project.cache().join("busybox").join(name);
    if !program.exists() {
        let unpacked = project.cache().join("busybox-package");
        remove_folder(&unpacked)?;
        unpack_deb(&package, &unpacked)?;
        // Where it is depends on whether the release has merged /bin into /usr/bin.
        let inside = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
        let inside = inside.iter().find(|path| path.is_file());
        copy_whole(inside.with_context(|| format!("{} holds no busybox", package.display()))?, &program)?;
        remove_folder(&unpacked)?;
    }
    check_program(&program)?;
    Ok(program)
}

fn check_program(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !bytes.starts_with(ELF64_LITTLE) || bytes.get(18..20) != Some(&MACHINE_AARCH64[..]) {
        bail!("{} is no arm64 program", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_lines_become_entries_in_their_order() {
        let recipe = "# Console.\ndir /dev 755\nchar /dev/console 600 5 1\n\nfile /init 755 init # first\nlinks /bin busybox sh ls\n";

        let entries = parse(recipe).unwrap();

        assert_eq!(
            entries,
            [
                Entry::Directory { path: "/dev".into(), permissions: 0o755 },
                Entry::CharDevice { path: "/dev/console".into(), permissions: 0o600, major: 5, minor: 1 },
                Entry::File { path: "/init".into(), permissions: 0o755, program: "init".into() },
                Entry::Symlink { path: "/bin/sh".into(), target: "busybox".into() },
                Entry::Symlink { path: "/bin/ls".into(), target: "busybox".into() },
            ]
        );
    }

    #[test]
    fn senseless_line_is_named_by_its_number() {
        let error = parse("dir /a 755\ndir /b 9z9\n").unwrap_err();

        assert_eq!(error.to_string(), "line 2 of the initramfs recipe makes no sense: dir /b 9z9");
    }

    #[test]
    fn program_of_another_architecture_is_refused() {
        let file = std::env::temp_dir().join(format!("xtask-elf-{}", std::process::id()));
        let mut elf = ELF64_LITTLE.to_vec();
        elf.resize(64, 0);
        elf[18] = 62; // x86-64

        fs::write(&file, &elf).unwrap();
        let result = check_program(&file);
        fs::remove_file(&file).unwrap();

        assert!(result.unwrap_err().to_string().ends_with("is no arm64 program"));
    }
}
