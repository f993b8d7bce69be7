//! Random numbers of the host, also from inside the sandbox.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use hw::Entropy;

/// What the guest's RNDR gives: a keyed hash of a counter, with a key from the host. It makes no system call.
#[derive(Debug, Default)]
pub struct HostEntropy {
    key: RandomState,
    drawn: AtomicU64,
}

impl Entropy for HostEntropy {
    fn next(&self) -> u64 {
        self.key.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

/// Fills `bytes` with random numbers (getrandom(2)).
///
/// # Errors
/// The host's.
pub fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the pointer is valid for as many bytes.
        let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_filled_to_the_last_and_differ_each_time() {
        let mut drawn = [[0; 64]; 2];
        drawn.iter_mut().for_each(|bytes| fill(bytes).unwrap());
        assert_ne!(drawn[0], drawn[1]);
        assert!(drawn.iter().all(|bytes| bytes[56..].iter().any(|byte| *byte != 0)));
    }
}
