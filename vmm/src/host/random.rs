//! Random numbers of the host, also from inside the sandbox.

use std::io;

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
