//! Writer of `newc` cpio archives, the format of an initramfs.
//!
//! Format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Archives are reproducible: owner
//! is root, times are zero, inode numbers count up. Deliberately absent: reading, hard links, and compression (the
//! guest would spend its own instructions on unpacking, the host nothing on a larger file).

use std::io::{self, Write};

const HEADER_BYTES: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// What an entry is; permission bits are separate.
#[derive(Clone, Copy)]
enum Kind {
    CharDevice = 0o020_000,
    Directory = 0o040_000,
    File = 0o100_000,
    Symlink = 0o120_000,
}

/// An archive under construction. Every method appends one entry; parents must come before what they contain.
pub(crate) struct Archive<W> {
    out: W,
    written: usize,
    inodes: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, inodes: 0 }
    }

    pub(crate) fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.entry(path, Kind::Directory, permissions, (0, 0), &[])
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, Kind::File, permissions, (0, 0), content)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, Kind::Symlink, 0o777, (0, 0), target.as_bytes())
    }

    pub(crate) fn char_device(
        &mut self,
        path: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.entry(path, Kind::CharDevice, permissions, (major, minor), &[])
    }

    /// Ends the archive and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.header(TRAILER, 0, 0, 1, (0, 0), 0)?;
        // The kernel accepts any length; multiples of 512 keep other tools quiet.
        self.pad(512)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        path: &str,
        kind: Kind,
        permissions: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let bytes = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: newc files end at 4 GiB"))
        })?;
        self.inodes += 1;
        let links = if matches!(kind, Kind::Directory) { 2 } else { 1 };
        self.header(
            path.trim_start_matches('/'),
            self.inodes,
            kind as u32 | permissions,
            links,
            device,
            bytes,
        )?;
        self.put(content)?;
        self.pad(4)
    }

    fn header(
        &mut self,
        name: &str,
        inode: u32,
        mode: u32,
        links: u32,
        (major, minor): (u32, u32),
        bytes: u32,
    ) -> io::Result<()> {
        let name_bytes = u32::try_from(name.len() + 1)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "entry name beyond 4 GiB"))?;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let fields = [inode, mode, 0, 0, links, 0, bytes, 0, 0, major, minor, name_bytes, 0];
        let mut header = String::with_capacity(HEADER_BYTES);
        header.push_str("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, alignment: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        self.put(&vec![0; missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(archive: &[u8], index: usize) -> u32 {
        let at = 6 + 8 * index;
        u32::from_str_radix(std::str::from_utf8(&archive[at..at + 8]).unwrap(), 16).unwrap()
    }

    #[test]
    fn file_has_header_name_and_content_each_padded_to_four() {
        let mut archive = Archive::new(Vec::new());

        archive.file("/bin/x", 0o755, b"hello").unwrap();
        let bytes = archive.out;

        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(field(&bytes, 1), 0o100_755); // mode
        assert_eq!(field(&bytes, 4), 1); // nlink
        assert_eq!(field(&bytes, 6), 5); // filesize
        assert_eq!(field(&bytes, 11), 6); // namesize with its zero: "bin/x\0"
        assert_eq!(&bytes[110..116], b"bin/x\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(bytes.len(), 124);
    }

    #[test]
    fn character_device_carries_its_numbers_and_no_content() {
        let mut archive = Archive::new(Vec::new());

        archive.char_device("dev/console", 0o600, 5, 1).unwrap();
        let bytes = archive.out;

        assert_eq!(field(&bytes, 1), 0o020_600);
        assert_eq!(field(&bytes, 6), 0);
        assert_eq!((field(&bytes, 9), field(&bytes, 10)), (5, 1));
    }

    #[test]
    fn symlink_content_is_its_target() {
        let mut archive = Archive::new(Vec::new());

        archive.symlink("bin/sh", "busybox").unwrap();
        let bytes = archive.out;

        assert_eq!(field(&bytes, 1), 0o120_777);
        assert_eq!(&bytes[120..127], b"busybox");
    }

    #[test]
    fn finished_archive_ends_with_trailer_in_whole_blocks() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("proc", 0o555).unwrap();

        let bytes = archive.finish().unwrap();

        assert_eq!(bytes.len() % 512, 0);
        assert!(bytes.windows(TRAILER.len()).any(|w| w == TRAILER.as_bytes()));
    }

    #[test]
    fn inode_numbers_differ_so_that_no_files_become_hard_links() {
        let mut archive = Archive::new(Vec::new());

        archive.directory("a", 0o755).unwrap();
        let second = archive.out.len();
        archive.directory("b", 0o755).unwrap();

        assert_ne!(field(&archive.out, 0), field(&archive.out[second..], 0));
    }
}
