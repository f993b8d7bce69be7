//! A Rust compiler for arm64 programs, beside the project's own: Debian's, unpacked into `target/cache/rust`.
//!
//! A toolchain from elsewhere may have no standard library for arm64, and no place to get it from. Debian has both
//! architectures' in packages, which need not be installed. Only the compiler is taken; cargo is the project's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::archive::{Archive, unpack_deb};
use crate::process;
use crate::project::{Project, remove_folder, write_whole};

/// Cargo's name of the architecture.
pub(super) const TARGET: &str = "aarch64-unknown-linux-gnu";
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";
/// What the compiler's libraries need that every system with a C compiler has.
const EVERYWHERE: &[&str] = &["libc6", "libc6-dev", "libgcc-s1", "libstdc++6", "libtinfo6"];

/// The unpacked compiler.
pub(super) struct Toolchain {
    /// Starts it with its own libraries.
    rustc: PathBuf,
}

impl Toolchain {
    /// Fetches and unpacks what is not there yet.
    pub(super) fn set_up(project: &Project) -> Result<Self> {
        let _lock = project.lock()?;
        let folder = project.cache().join("rust");
        let rustc = folder.join("rustc");
        if !rustc.exists() {
            remove_folder(&folder)?;
            let mut archive = Archive::open(project).context("cannot fetch a compiler for arm64")?;
            let host = process::output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
            unpack(&mut archive, &host, &folder)?;
            write_wrapper(&folder, &rustc)?;
        }
        Ok(Self { rustc })
    }

    /// Cargo, with this compiler: what it builds for arm64 is linked statically, without names and line tables.
    pub(super) fn cargo(&self, project: &Project) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(project.root()).env("RUSTC", &self.rustc);
        cargo.env("CARGO_TARGET_DIR", project.cargo_target().join("arm64"));
        let variable =
            |what: &str| format!("CARGO_TARGET_{}_{what}", TARGET.replace('-', "_").to_uppercase());
        cargo.env(variable("LINKER"), crate::guest::programs::COMPILER);
        cargo.env(variable("RUSTFLAGS"), "-C target-feature=+crt-static");
        cargo.env(variable("RUNNER"), "qemu-aarch64");
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false").env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        // Of another compiler, if they are set.
        for foreign in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTDOC"] {
            cargo.env_remove(foreign);
        }
        cargo
    }
}

/// Unpacks the compiler with the libraries that it needs, and the standard library for both architectures.
fn unpack(archive: &mut Archive, host: &str, folder: &Path) -> Result<()> {
    archive.also(host);
    let compiler = format!("{COMPILER}:{host}");
    let version = archive.version(&compiler)?;
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    if numbers(&version) < numbers(wanted) {
        bail!("the newest compiler that Debian offers here is {COMPILER} {version}; {wanted} is needed");
    }
    let mut wanted = vec![compiler];
    let mut files = vec![archive.fetch(LIBRARY)?];
    let mut seen: BTreeSet<String> = wanted.iter().cloned().collect();
    while let Some(name) = wanted.pop() {
        files.push(archive.fetch(&name)?);
        for dependency in archive.dependencies(&name)? {
            let bare = dependency.split(':').next().unwrap_or_default();
            // Not among them: the C compiler and its tools, which are not libraries of this one.
            if bare.starts_with("lib") && !EVERYWHERE.contains(&bare) {
                let name = format!("{bare}:{host}");
                if seen.insert(name.clone()) {
                    wanted.push(name);
                }
            }
        }
    }
    for file in &files {
        unpack_deb(file, folder)?;
    }
    Ok(())
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '+', '~', '-']).map_while(|part| part.parse().ok()).take(2).collect()
}

/// A script in the compiler's place that lets it find its libraries.
fn write_wrapper(folder: &Path, script: &Path) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for base in ["lib", "usr/lib"].map(|base| folder.join(base)) {
        let Ok(entries) = fs::read_dir(&base) else { continue };
        // Multiarch folders, such as x86_64-linux-gnu.
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
        libraries.extend(folders.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
        libraries.insert(base);
    }
    let libraries: Vec<_> = libraries.iter().map(|path| path.display().to_string()).collect();
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.join(":"),
        folder.join("usr/bin/rustc").display()
    );
    let unfinished = folder.join("rustc-unfinished");
    write_whole(&unfinished, text.as_bytes())?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))
        .and_then(|()| fs::rename(&unfinished, script))
        .with_context(|| format!("cannot write {}", script.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_first_two_numbers() {
        assert_eq!(numbers("1.96.0+dfsg1-1~deb12u2"), [1, 96]);
        assert!(numbers("1.85.0+dfsg3-1~deb12u3") < numbers("1.95"));
        assert!(numbers("1.100.0") > numbers("1.95"));
    }
}
