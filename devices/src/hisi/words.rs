//! The words of a submission queue entry: dwords, little-endian, by their number in the format's description.

use hw::Iova;

/// Dword `index`; 0 beyond the end.
pub(super) fn dword(sqe: &[u8], index: usize) -> u32 {
    match sqe.get(index * 4..index * 4 + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// The address in dwords `index` and `index + 1`.
pub(super) fn address(sqe: &[u8], index: usize) -> Iova {
    Iova(u64::from(dword(sqe, index)) | u64::from(dword(sqe, index + 1)) << 32)
}

/// Replaces dword `index`, if there is one.
pub(super) fn put(sqe: &mut [u8], index: usize, value: u32) {
    if let Some(bytes) = sqe.get_mut(index * 4..index * 4 + 4) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}
