//! Bytes as a source of numbers, and seeds as files.
//!
//! A seed is a file in `corpus/NAME/`: as it is, or, with the ending `.hex`, as hexadecimal digits with comments
//! from `#` to the end of the line.

use std::io;
use std::path::{Path, PathBuf};

/// An input, read from its front. What is missing at its end reads as zero, so that each cut of an input is an input.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Up to `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn number(&mut self, len: usize) -> u64 {
        self.bytes(len).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// The next two bytes, little-endian, as all numbers.
    pub fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        self.number(8)
    }

    /// A number below `bound`, from one byte if that can reach all of them.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "a target chooses among something");
        let number = if bound <= 0x100 { u32::from(self.u8()) } else { self.u32() };
        number as usize % bound
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there is none.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A 64-bit number of a kind that registers and descriptors have: small, one bit, an address near one of `bases`,
    /// next to a power of two, or anything.
    pub fn word(&mut self, bases: &[u64]) -> u64 {
        match self.u8() % 8 {
            0 => self.u8().into(),
            1 => self.u16().into(),
            2 => self.u32().into(),
            3 => 1 << (self.u8() % 64),
            4 => (1_u64 << (self.u8() % 64)).wrapping_sub(1),
            5 if !bases.is_empty() => {
                let base = self.choose(bases);
                // Pages first: tables, queues and buffers are aligned.
                base.wrapping_add(u64::from(self.u8()) << 12).wrapping_add(self.u8().into())
            }
            6 => u64::MAX - u64::from(self.u8()),
            _ => self.u64(),
        }
    }
}

/// This crate's folder.
#[must_use]
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The bytes that a `.hex` file stands for; `None` if it holds something else.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    odd.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect())
}

/// The input in a file.
///
/// # Errors
/// If it can't be read, or is a `.hex` file of something else.
pub fn load(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    if path.extension().is_none_or(|ending| ending != "hex") {
        return Ok(bytes);
    }
    std::str::from_utf8(&bytes).ok().and_then(parse_hex).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is not hexadecimal", path.display()))
    })
}

/// The seeds of a target, with their files, in order of their names.
///
/// # Errors
/// If a file can't be read. No folder is no seeds.
pub fn seeds(name: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = match std::fs::read_dir(home().join("corpus").join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folder => folder?,
    };
    let mut paths = folder.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), load(&path)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_the_input_reads_as_zeros() {
        let mut input = Input::new(&[1, 2, 3]);
        assert_eq!(input.u16(), 0x0201);
        assert_eq!(input.u32(), 3);
        assert_eq!((input.u64(), input.u8(), input.is_empty()), (0, 0, true));
    }

    #[test]
    fn hexadecimal_files_have_comments_and_pairs_of_digits() {
        assert_eq!(parse_hex("01 0a # ff\n# 02\nFf"), Some(vec![1, 10, 255]));
        assert_eq!(parse_hex("0"), None);
        assert_eq!(parse_hex("zz"), None);
    }
}
