//! The control socket: bytes of a client, in pieces, as lines and requests.

use vmm::control::lines::{LINE_BYTES, Lines};
use vmm::control::protocol;

use crate::input::Input;

/// Cut into whatever pieces, the same lines come out; what is kept is bounded; each line is a request or has an error of one
/// line, and what is answered is JSON.
pub fn control(data: &[u8]) {
    let mut input = Input::new(data);
    let size = usize::from(input.u8()) + 1;
    let bytes = input.bytes(usize::MAX);
    let cut = lines(bytes, size);
    assert_eq!(cut, lines(bytes, 4096));
    for line in cut {
        let request = protocol::parse(&line);
        let result = request.call.map(|call| format!("{call:?}").into());
        let answer = protocol::answer(&request.id.unwrap_or_default(), result);
        assert_eq!(answer.iter().position(|byte| *byte == b'\n'), Some(answer.len() - 1));
        assert!(serde_json::from_slice::<serde_json::Value>(&answer).is_ok());
    }
}

fn lines(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(size) {
        lines.put(piece);
        assert!(lines.kept() <= LINE_BYTES + 4096);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}
