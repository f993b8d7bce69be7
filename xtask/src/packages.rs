//! The system packages that a command needs: found by what they contain, installed by name when missing.
//!
//! Installing is the only thing here that changes the system, and it says so first. On systems other than Debian and
//! its kin, or without root, the user gets the list instead.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, find_program};

/// How to see whether a package's content is there, on any system.
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// A package by its Debian name, and the sign that it, or an equal, is there.
pub(crate) struct Package {
    name: &'static str,
    sign: Sign,
}

const fn program(name: &'static str, sign: &'static str) -> Package {
    Package { name, sign: Sign::Program(sign) }
}

const fn file(name: &'static str, sign: &'static str) -> Package {
    Package { name, sign: Sign::File(sign) }
}

/// For building the guest: kernel (with its own build programs), C programs, unpacking.
pub(crate) const GUEST: &[Package] = &[
    program("make", "make"),
    program("gcc", "gcc"),
    file("libc6-dev", "/usr/include/stdio.h"),
    program("flex", "flex"),
    program("bison", "bison"),
    program("bc", "bc"),
    program("perl", "perl"),
    program("patch", "patch"),
    program("xz-utils", "xz"),
    program("tar", "tar"),
    program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    file("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
];

/// For building the bare-metal programs, which need no library.
pub(crate) const FIRMWARE: &[Package] = &[
    program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    program("binutils-aarch64-linux-gnu", "aarch64-linux-gnu-objcopy"),
];

/// For the tests: the differential harness compares with this emulator of user programs, and this debugger debugs guests.
pub(crate) const TESTS: &[Package] =
    &[program("qemu-user", "qemu-aarch64"), program("gdb-multiarch", "gdb-multiarch")];

/// For the tests on an emulated arm64 host: the emulator of systems, and what links programs for it.
pub(crate) const ARM64_HOST: &[Package] = &[
    program("qemu-system-arm", "qemu-system-aarch64"),
    program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    file("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
];

/// For the benchmarks that boot the same guest elsewhere.
pub(crate) const BENCH: &[Package] = &[program("qemu-system-arm", "qemu-system-aarch64")];

impl Package {
    fn is_there(&self) -> bool {
        match self.sign {
            Sign::Program(name) => find_program(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
        }
    }
}

/// Makes sure that all of these are there, or says what is missing.
pub(crate) fn require(packages: &[&[Package]], may_install: bool) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !may_install {
        bail!("missing packages (Debian names): {list}; installing was switched off");
    }
    if !is_debian_like() || find_program("apt-get").is_none() {
        bail!("missing packages: {list}; these are the Debian names, please install their equals");
    }
    let root = is_root()?;
    if !root && find_program("sudo").is_none() {
        bail!("missing packages: {list}; as root, run: apt-get install {list}");
    }

    eprintln!("installing missing packages with apt-get{}: {list}", if root { "" } else { ", through sudo" });
    // Lists of a fresh system are empty, old ones name versions that are gone; both show as a failure to install.
    if apt_get(root, &["install", "--no-install-recommends", "-y"], &missing).is_err() {
        apt_get(root, &["update"], &[])?;
        apt_get(root, &["install", "--no-install-recommends", "-y"], &missing)
            .with_context(|| format!("cannot install {list}"))?;
    }
    let still = self::missing(packages);
    if !still.is_empty() {
        bail!("installed, but what they should contain is not there: {}", still.join(" "));
    }
    Ok(())
}

fn missing(packages: &[&[Package]]) -> Vec<&'static str> {
    packages
        .iter()
        .flat_map(|group| group.iter())
        .filter(|package| !package.is_there())
        .map(|p| p.name)
        .collect()
}

fn apt_get(root: bool, words: &[&str], names: &[&str]) -> Result<()> {
    let mut command = if root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    process::visible(command.args(words).args(names).arg("-q").env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether the system describes itself as Debian, or as derived from it.
pub(crate) fn is_debian_like() -> bool {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let like = |key| {
        os_release(&text, key).unwrap_or_default().split(' ').any(|id| matches!(id, "debian" | "ubuntu"))
    };
    like("ID") || like("ID_LIKE")
}

/// The value of a key in the text of `/etc/os-release`.
pub(crate) fn os_release<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, v)| v.trim_matches('"'))
}

/// Whether this process may install packages itself.
pub(crate) fn is_root() -> Result<bool> {
    Ok(process::output(Command::new("id").arg("-u"))?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_values_come_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_CODENAME=bookworm\n";

        assert_eq!(os_release(text, "ID"), Some("debian"));
        assert_eq!(os_release(text, "PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_release(text, "NAME"), None);
    }

    #[test]
    fn package_whose_program_is_there_is_not_missing() {
        assert!(missing(&[&[program("base-files", "sh")]]).is_empty());
        assert_eq!(missing(&[&[program("nothing", "no-such-program-here")]]), ["nothing"]);
    }
}
