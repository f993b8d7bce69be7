//! Cache keys: whether what a product was made from has changed.
//!
//! A key is 128 bits from the standard library's hasher. That one may change with the compiler's version, which then
//! costs one rebuild; it guards against change, not against malice.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result};

use crate::project::write_whole;

/// A key under construction.
pub(crate) struct Key {
    halves: [DefaultHasher; 2],
}

impl Key {
    /// `what` keeps keys of different products apart.
    pub(crate) fn new(what: &str) -> Self {
        let mut key = Self { halves: [DefaultHasher::new(), DefaultHasher::new()] };
        1u8.hash(&mut key.halves[1]);
        key.add(what.as_bytes());
        key
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        for half in &mut self.halves {
            part.hash(half);
        }
    }

    /// Adds a file's name and content.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.add(path.file_name().unwrap_or_default().as_encoded_bytes());
        self.add(&content);
        Ok(())
    }

    pub(crate) fn finish(self) -> String {
        self.halves.iter().map(|half| format!("{:016x}", half.finish())).collect()
    }
}

/// Whether the stamp beside a product holds this key.
pub(crate) fn is_current(stamp: &Path, key: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|text| text.trim() == key)
}

/// Writes the stamp; to be called when the product is complete.
pub(crate) fn set_current(stamp: &Path, key: &str) -> Result<()> {
    write_whole(stamp, format!("{key}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> String {
        let mut key = Key::new("test");
        parts.iter().for_each(|part| key.add(part.as_bytes()));
        key.finish()
    }

    #[test]
    fn keys_of_equal_parts_are_equal_and_of_others_differ() {
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert_ne!(key(&["ab"]), key(&["a", "b"]));
    }
}
