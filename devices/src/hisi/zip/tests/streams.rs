//! Requests that are parts of a stream.

use super::*;

const STATEFUL: u32 = 3 << 28 | 1 << 26;
const NEW: u32 = 1 << 27;
const FINISH: u32 = 1 << 25;

/// A session of software: context memory, and the words that it takes from one request to the next.
pub(super) struct Session {
    pub(super) context: u64,
    kind: u32,
    is_new: bool,
    words: [u32; 5],
}

impl Session {
    pub(super) fn new(machine: &Machine, kind: u32) -> Self {
        // Garbage from an earlier stream, which must not matter.
        let context = machine.place(&noise(0x97c0));
        Self { context, kind, is_new: true, words: [0x83, 7, 0xffff, 99, 0xdead_beef] }
    }

    pub(super) fn request(
        &mut self,
        machine: &Machine,
        ring: &mut Ring,
        src: (u64, usize),
        dst: (u64, usize),
        is_last: bool,
    ) -> Vec<u32> {
        let sqe = machine.submit(ring, &self.sqe(src, dst, is_last));
        self.is_new = false;
        self.words = [15, 28, 29, 30, 31].map(|index| sqe[index]);
        sqe
    }

    /// The next request of the stream.
    pub(super) fn sqe(&self, src: (u64, usize), dst: (u64, usize), is_last: bool) -> [u32; 32] {
        let control = STATEFUL | if self.is_new { NEW } else { 0 } | if is_last { FINISH } else { 0 };
        let mut sqe = Sqe::new(self.kind, src, dst).with(7, control);
        sqe = sqe.with(22, self.context as u32).with(23, (self.context >> 32) as u32);
        for (index, word) in [15, 28, 29, 30, 31].into_iter().zip(self.words) {
            sqe = sqe.with(index, word);
        }
        sqe.0
    }
}

#[test]
fn stream_compressed_in_requests_on_two_queues_is_one_stream() {
    for kind in [DEFLATE, ZLIB, GZIP] {
        let machine = Machine::new();
        machine.start(64);
        let mut rings = [machine.start_queue(0, 0, None), machine.start_queue(1, 0, None)];
        let data = text(300_000);
        let src = machine.place(&data);
        let out = machine.alloc(400_000);
        let mut session = Session::new(&machine, kind);
        let (mut at, mut produced) = (0, 0);
        for (index, len) in [4, 100_000, 1, 33_000, 150_000, 12].into_iter().cycle().enumerate() {
            let len = len.min(data.len() - at);
            let is_last = at + len == data.len();
            let place = (out + produced as u64, 400_000 - produced);
            let sqe =
                session.request(&machine, &mut rings[index % 2], (src + at as u64, len), place, is_last);
            let expected = if sqe[1] > sqe[0] { 0x0d } else { 0 };
            assert_eq!((sqe[3], sqe[0] as usize), (expected, len));
            let part = machine.bytes(out + produced as u64, sqe[1] as usize);
            assert!(is_last || part.ends_with(&[0, 0, 0xff, 0xff]), "nothing is held back");
            at += len;
            produced += sqe[1] as usize;
            if is_last {
                break;
            }
        }
        assert_eq!(decode(kind, &machine.bytes(out, produced)), data);
        // The history of earlier requests is used.
        assert!(produced < 100_000, "{produced}");
    }
}

#[test]
fn empty_request_in_a_stream_does_nothing_and_empty_last_request_ends_it() {
    let (machine, mut ring) = started(0);
    let (src, out) = (machine.place(b"123456789"), machine.alloc(4096));
    let mut session = Session::new(&machine, GZIP);
    let first = session.request(&machine, &mut ring, (src, 9), (out, 4096), false);
    let words = session.words;
    let sqe = session.request(&machine, &mut ring, (src, 0), (out + 2048, 16), false);
    assert_eq!((sqe[3], sqe[0], sqe[1]), (0, 0, 0));
    assert_eq!(session.words, words);
    assert_eq!(words[4], 0x9b63_d02c, "software makes trailers of its own from this");
    let last = session.request(&machine, &mut ring, (src, 0), (out + u64::from(first[1]), 64), true);
    assert_eq!(last[3], 0x0d);
    let packed = machine.bytes(out, (first[1] + last[1]) as usize);
    assert_eq!(decode(GZIP, &packed), b"123456789");
}

/// User libraries send this while they deliver output that they have kept, and count on nothing being done.
#[test]
fn stateful_request_without_input_and_with_room_of_16_bytes_is_passed_over() {
    let data = text(10_000);
    let machine = Machine::new();
    machine.start(64);
    let mut compress = machine.start_queue(0, 0, None);
    let mut decompress = machine.start_queue(1, 1, None);
    let (src, packed, out) = (machine.place(&data), machine.alloc(8_192), machine.alloc(16_384));
    let elsewhere = machine.place(&[0x5a; 64]);
    let mut session = Session::new(&machine, GZIP);
    session.request(&machine, &mut compress, (src, data.len()), (packed, 8_192), false);
    // Not even the end of a stream is written into so little room.
    let words = session.words;
    let sqe = session.request(&machine, &mut compress, (src, 0), (elsewhere, 16), true);
    assert_eq!(
        (&sqe[..4], session.words, machine.bytes(elsewhere, 64)),
        (&[0; 4][..], words, vec![0x5a; 64])
    );

    let whole = machine.submit(&mut compress, &Sqe::new(GZIP, (src, data.len()), (packed, 8_192)).0);
    let mut session = Session::new(&machine, GZIP);
    let first = session.request(&machine, &mut decompress, (packed, whole[1] as usize), (out, 4_000), false);
    assert_eq!((first[1], first[15] & 0xf), (4_000, 2), "there is more to come");
    let (words, context) = (session.words, machine.bytes(session.context, 0x97c0));
    for room in [0, 1, 16] {
        let sqe = session.request(&machine, &mut decompress, (packed, 0), (elsewhere, room), false);
        assert_eq!((&sqe[..4], session.words), (&[0; 4][..], words), "room {room}");
    }
    assert_eq!(machine.bytes(elsewhere, 64), [0x5a; 64]);
    assert_eq!(machine.bytes(session.context, 0x97c0), context);
    // With more room it is a request as any other.
    let sqe = session.request(&machine, &mut decompress, (packed, 0), (out + 4_000, 17), false);
    assert_ne!(sqe[1], 0);
    let at = 4_000 + u64::from(sqe[1]);
    let rest = (packed + u64::from(first[0]), (whole[1] - first[0]) as usize);
    let last = session.request(&machine, &mut decompress, rest, (out + at, 12_000), false);
    assert_eq!(last[3], 0x113);
    assert_eq!(machine.bytes(out, data.len()), data);
}

/// Nothing was asked for, and nothing is wrong: that the data end too early is software's to see.
#[test]
fn request_without_input_in_the_middle_of_a_stream_is_a_success_without_progress() {
    let (machine, mut ring) = started(1);
    // A stored block of 4 bytes, of which the last 2 have not come yet.
    let (src, out) = (machine.place(&[1, 4, 0, 0xfb, 0xff, b'a', b'b']), machine.alloc(4096));
    let mut session = Session::new(&machine, DEFLATE);
    let first = session.request(&machine, &mut ring, (src, 7), (out, 4096), false);
    assert_eq!((first[0], first[1], first[3]), (7, 2, 0));
    let words = session.words;
    for _ in 0..3 {
        let sqe = session.request(&machine, &mut ring, (src, 0), (out, 4096), false);
        assert_eq!((&sqe[..4], session.words), (&[0; 4][..], words));
    }
    let rest = machine.place(b"cd");
    let last = session.request(&machine, &mut ring, (rest, 2), (out, 4096), false);
    assert_eq!((last[0], last[1], last[3]), (2, 2, 0x113));
}

/// Feeds a compressed stream in pieces of `piece` bytes into rooms of `room`, as software's loop does.
fn decompress_in_pieces(kind: u32, packed: &[u8], piece: usize, room: usize) -> (Vec<u8>, Vec<u32>) {
    let machine = Machine::new();
    machine.start(64);
    let mut rings = [machine.start_queue(0, 1, None), machine.start_queue(1, 1, None)];
    let src = machine.place(packed);
    let out = machine.alloc(room as u64);
    let mut session = Session::new(&machine, kind);
    let (mut at, mut data) = (0, Vec::new());
    for turn in 0.. {
        let len = piece.min(packed.len() - at);
        let sqe = session.request(&machine, &mut rings[turn % 2], (src + at as u64, len), (out, room), false);
        assert!(sqe[0] as usize <= len);
        data.extend(machine.bytes(out, sqe[1] as usize));
        at += sqe[0] as usize;
        if sqe[3] & 0xff != 0 {
            assert_eq!(at, packed.len(), "all of the stream and its trailer is consumed");
            return (data, sqe);
        }
        assert_eq!(sqe[15] & 0xfc00, 0, "no input bits for software to look at");
        let is_full = sqe[15] & 0xf == 2;
        assert_eq!(is_full, sqe[28] != 0, "pending output is counted");
        assert!(is_full || sqe[0] as usize == len, "where there is room, all input is consumed");
        assert!(sqe[0] != 0 || sqe[1] != 0 || (len == 0 && is_full), "no progress at {at}");
    }
    unreachable!()
}

#[test]
fn stream_decompresses_the_same_whatever_the_pieces() {
    let data = [text(90_000), noise(70_000), vec![b'a'; 100_000]].concat();
    for kind in [DEFLATE, ZLIB, GZIP] {
        let (machine, mut ring) = started(0);
        let (src, out) = (machine.place(&data), machine.alloc(400_000));
        let len = machine.submit(&mut ring, &Sqe::new(kind, (src, data.len()), (out, 400_000)).0)[1];
        let packed = machine.bytes(out, len as usize);
        for (piece, room) in
            [(1 << 20, 1 << 20), (5_000, 1 << 20), (1 << 20, 4_096), (777, 1_001), (150, 201)]
        {
            let (back, last) = decompress_in_pieces(kind, &packed, piece, room);
            assert!(back == data, "kind {kind} pieces {piece} rooms {room}");
            assert_eq!(last[3], 0x113, "end of stream, last block seen");
            assert_eq!(last[30] as usize, data.len());
        }
    }
}

/// A piece smaller than a symbol makes progress by being kept, whatever software offers next.
#[test]
fn stream_in_single_bytes_consumes_each_of_them() {
    let data = [text(700), noise(300)].concat();
    for kind in [DEFLATE, ZLIB, GZIP] {
        let (machine, mut ring) = started(0);
        let (src, out) = (machine.place(&data), machine.alloc(4_000));
        let len = machine.submit(&mut ring, &Sqe::new(kind, (src, data.len()), (out, 4_000)).0)[1];
        let packed = machine.bytes(out, len as usize);
        let (back, _) = decompress_in_pieces(kind, &packed, 1, 4_000);
        assert!(back == data, "kind {kind}");
    }
}

#[test]
fn stream_with_wrong_trailer_or_garbage_context_is_an_error_with_context_word_0() {
    let (machine, mut ring) = started(1);
    let packed = [0x03, 0x00, 0, 0, 0, 2];
    let (src, out) = (machine.place(&packed), machine.alloc(4096));
    let mut session = Session::new(&machine, ZLIB);
    let sqe = session.request(&machine, &mut ring, (src, packed.len()), (out, 4096), false);
    assert_eq!((sqe[3], sqe[15]), (0x110, 0));
    assert_eq!([0, 1, 30, 31].map(|word| sqe[word]), [6, 0, 0, 1], "counts and words are those of the data");
    let again = session.request(&machine, &mut ring, (src, 0), (out, 4096), false);
    assert_eq!((again[3], again[0]), (0x110, 0), "it does not become right by asking again");

    let mut session = Session::new(&machine, ZLIB);
    session.is_new = false;
    let sqe = session.request(&machine, &mut ring, (src, packed.len()), (out, 4096), false);
    assert_eq!((status(&sqe), sqe[15]), (0x06, 0));

    let mut session = Session::new(&machine, ZLIB);
    session.context = 0x10_0000;
    let src = machine.place(&[0x03, 0x00, 0, 0, 0, 1]);
    let sqe = session.request(&machine, &mut ring, (src, packed.len()), (out, 4096), false);
    assert_eq!(status(&sqe), 0x06);
}

#[test]
fn context_memory_from_0x97c0_on_is_never_written() {
    let machine = Machine::new();
    machine.start(64);
    for queue_type in [0, 1] {
        let mut ring = machine.start_queue(queue_type, queue_type, None);
        let data = noise(100_000);
        let mut stored = vec![0, 0xff, 0xff, 0, 0];
        stored.extend(&data[..0xffff]);
        let input = if queue_type == 0 { data } else { stored };
        let (src, out) = (machine.place(&input), machine.alloc(200_000));
        let mut session = Session::new(&machine, DEFLATE);
        let beyond = session.context + 0x97c0;
        machine.ram.write(hw::Pa(beyond), &[0x5a; 64]).unwrap();
        machine.ram.write(hw::Pa(session.context + 784), &[0x5a; 16]).unwrap();
        let sqe = session.request(&machine, &mut ring, (src, input.len()), (out, 200_000), false);
        // Noise does not get smaller when it is compressed.
        let expected = if queue_type == 0 { 0x0d } else { 0 };
        assert_eq!((sqe[3], sqe[29]), (expected, 32768), "the history is full");
        assert_eq!(machine.bytes(beyond, 64), [0x5a; 64]);
        assert_eq!(machine.bytes(session.context + 784, 16), [0x5a; 16]);
    }
}
