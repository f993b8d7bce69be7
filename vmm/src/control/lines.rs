//! Bytes that come in pieces, cut into lines of a bounded length.

/// The longest line, without its end.
pub const LINE_BYTES: usize = 16 << 10;

/// A line has no end within [`LINE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// What has come and not been taken.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Of those, how many have been looked at and are no line's end.
    searched: usize,
}

impl Lines {
    /// Takes a piece. To be called when [`Self::next_line`] has nothing: what is kept is then a line at most, and this.
    pub fn put(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// [`TooLong`]: there is no way to go on.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.bytes.len();
            return if self.searched > LINE_BYTES { Err(TooLong) } else { Ok(None) };
        };
        if end > LINE_BYTES {
            return Err(TooLong);
        }
        self.searched = 0;
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        let text = b"one\r\n\ntwo\nthree";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.put(piece);
                while let Some(line) = lines.next_line().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"two"]);
            assert_eq!(lines.kept(), 5);
        }
    }

    #[test]
    fn line_of_the_greatest_length_is_one_and_a_longer_one_is_refused_with_and_without_an_end() {
        let mut lines = Lines::default();
        lines.put(&[b'x'; LINE_BYTES]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.put(b"\n");
        assert_eq!(lines.next_line().unwrap().unwrap().len(), LINE_BYTES);
        lines.put(&[b'x'; LINE_BYTES + 1]);
        assert_eq!(lines.next_line(), Err(TooLong));
        let mut lines = Lines::default();
        lines.put(&[b'x'; LINE_BYTES + 1]);
        lines.put(b"\n");
        assert_eq!(lines.next_line(), Err(TooLong));
    }
}
