//! What a block device stores its sectors in.

use std::io;

/// Zeros for [`BlockBackend::write_out_zeroes`], in pieces.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A store of bytes with a length that does not change. Called on the device's worker; may wait for the host.
pub trait BlockBackend: Send + Sync {
    /// Bytes; the guest sees the whole 512-byte sectors of it.
    fn len(&self) -> u64;

    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// Fills `out` from `offset` on. The range is inside the length.
    ///
    /// # Errors
    /// The host's; the guest sees an I/O error.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`. The range is inside the length.
    ///
    /// # Errors
    /// The host's; the guest sees an I/O error.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// The host's; the guest sees an I/O error.
    fn flush(&self) -> io::Result<()>;

    /// Whether the host can have the room of bytes back, which does not change. If not, the guest is not offered to
    /// discard any.
    fn can_discard(&self) -> bool {
        false
    }

    /// The guest does not need `len` bytes at `offset` any more; what they read afterwards is undefined. The range is
    /// inside the length.
    ///
    /// # Errors
    /// The host's; the guest sees an I/O error.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Makes `len` bytes at `offset` zero; with `may_discard` the host may have their room back. The range is inside the
    /// length.
    ///
    /// # Errors
    /// The host's; the guest sees an I/O error.
    fn write_zeroes(&self, offset: u64, len: u64, may_discard: bool) -> io::Result<()> {
        // There is no room to give back where nothing else is known of the store.
        let _ = may_discard;
        self.write_out_zeroes(offset, len)
    }

    /// The same by writing them, which every store can.
    ///
    /// # Errors
    /// The host's.
    fn write_out_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROES.len() as u64);
            self.write_at(offset + done, &ZEROES[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }
}
