//! The other side: the image as a static ELF program under `qemu-aarch64`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::machine_code::IMAGE_BASE;

/// The CPU model: everything that the engine may advertise, nothing that changes what base instructions do.
const CPU: &str = "max,sve=off,pauth=off";

const EHDR: usize = 64;
const PHDR: usize = 56;
/// File offset of the image: congruent to its address.
const IMAGE_OFFSET: usize = 0x1000;

fn elf(image: &[u8], memory_bytes: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(IMAGE_OFFSET + image.len());
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(2u16.to_le_bytes()); // ET_EXEC
    out.extend(183u16.to_le_bytes()); // EM_AARCH64
    out.extend(1u32.to_le_bytes());
    out.extend(IMAGE_BASE.to_le_bytes()); // entry
    out.extend((EHDR as u64).to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    for half in [EHDR, PHDR, 1, 64, 0, 0] {
        out.extend((half as u16).to_le_bytes());
    }
    out.extend(1u32.to_le_bytes()); // PT_LOAD
    out.extend(7u32.to_le_bytes()); // RWX
    for word in
        [IMAGE_OFFSET as u64, IMAGE_BASE, IMAGE_BASE, image.len() as u64, memory_bytes, IMAGE_OFFSET as u64]
    {
        out.extend(word.to_le_bytes());
    }
    out.resize(IMAGE_OFFSET, 0);
    out.extend(image);
    out
}

/// Runs the image and returns its dump, or `None` if the program died of a signal.
pub(crate) fn run(
    folder: &Path,
    image: &[u8],
    memory_bytes: u64,
    dump_bytes: usize,
) -> anyhow::Result<Option<Vec<u8>>> {
    let path = folder.join("batch.elf");
    {
        let mut file = File::create(&path).context("cannot write the test program")?;
        file.write_all(&elf(image, memory_bytes))?;
        file.set_permissions(PermissionsExt::from_mode(0o700))?;
    }
    let mut child = Command::new("qemu-aarch64")
        .args(["-cpu", CPU])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-aarch64: install the package qemu-user")?;
    let mut dump = Vec::with_capacity(dump_bytes);
    child.stdout.take().context("its output is piped")?.read_to_end(&mut dump)?;
    let status = child.wait()?;
    match status.code() {
        Some(0) if dump.len() == dump_bytes => Ok(Some(dump)),
        Some(0) => bail!("qemu-aarch64 wrote {} of {dump_bytes} bytes", dump.len()),
        Some(code) => bail!("qemu-aarch64 exited with {code}"),
        None => Ok(None),
    }
}
