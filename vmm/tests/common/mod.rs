//! What several of these tests need: the image of a guest.

/// An image of these instructions, in the form of an arm64 kernel (Linux, Documentation/arch/arm64/booting.rst).
pub(crate) fn image(words: &[u32]) -> Vec<u8> {
    const BRANCH_TO_64: u32 = 0x1400_0010;
    const IMAGE_SIZE: u64 = 4096;
    let mut image = vec![0; 64];
    image[..4].copy_from_slice(&BRANCH_TO_64.to_le_bytes());
    image[16..24].copy_from_slice(&IMAGE_SIZE.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    image
}
