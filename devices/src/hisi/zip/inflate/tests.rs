//! The resumable decoder against the library, by example and by property.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

fn deflate(data: &[u8], level: u32) -> Vec<u8> {
    let mut packed = vec![0; data.len() * 2 + 100];
    let mut compress = Compress::new(Compression::new(level), false);
    let status = compress.compress(data, &mut packed, FlushCompress::Finish).unwrap();
    assert_eq!(status, Status::StreamEnd);
    packed.truncate(compress.total_out() as usize);
    packed
}

/// All output, and whether the stream ended. The state goes through its saved form after each piece.
fn inflate(packed: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, bool), Malformed> {
    let mut inflate = Inflate::new();
    inflate.start(0);
    let mut out = Vec::new();
    for chunk in packed.chunks(piece) {
        let mut input = chunk;
        loop {
            let pause = inflate.run(&mut input, room)?;
            out.extend_from_slice(inflate.take_output());
            assert!(out.len() < 1 << 22, "no end");
            let mut next = Inflate::new();
            let history = inflate.history().to_vec();
            next.restore_history(history.len()).copy_from_slice(&history);
            next.restore(inflate.save())?;
            inflate = next;
            match pause {
                Pause::Input => break,
                Pause::Output => {}
                Pause::End => return Ok((out, true)),
            }
        }
    }
    Ok((out, false))
}

/// What the library makes of the same bytes.
fn reference(packed: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut out = vec![0; 1 << 22];
    let mut decompress = Decompress::new(false);
    let status = decompress.decompress(packed, &mut out, FlushDecompress::None);
    out.truncate(decompress.total_out() as usize);
    match status {
        Ok(status) => Some((out, status == Status::StreamEnd)),
        Err(_) => None,
    }
}

fn mixed(seed: &[u8], repeats: usize) -> Vec<u8> {
    (0..repeats).flat_map(|i| seed.iter().map(move |&byte| byte.wrapping_add((i / 3) as u8))).collect()
}

#[test]
fn state_fits_its_place_before_the_fields_of_software() {
    let mut inflate = Inflate::new();
    inflate.start(8);
    assert_eq!(inflate.save()[..4], STATE_MARK.to_le_bytes());
    const { assert!(STATE_BYTES <= 784) };
    // The last field is not cut off.
    inflate.lengths[LENGTHS - 1] = 15;
    let mut other = Inflate::new();
    other.restore(inflate.save()).unwrap();
    assert_eq!(other.lengths[LENGTHS - 1], 15);
}

#[test]
fn state_that_is_none_is_refused() {
    let mut inflate = Inflate::new();
    inflate.start(0);
    let good = inflate.save();
    for (what, at, value) in [
        ("mark", 0, 0),
        ("mode", 4, 9),
        ("bits", 6, 64),
        ("literals", 18, 0xff),
        ("match without history", 24, 2),
        ("trailer", 31, 9),
    ] {
        let mut bad = good;
        bad[at] = value;
        if what == "literals" {
            bad[at + 1] = 0xff;
        }
        assert_eq!(Inflate::new().restore(bad), Err(Malformed), "{what}");
    }
}

#[test]
fn each_kind_of_block_malformed_is_an_error() {
    for (what, packed) in [
        ("block type 3", &[0x07][..]),
        ("stored length", &[0x01, 1, 0, 0, 0]),
        ("distance beyond the beginning", &[0x4b, 0x04, 0xa2, 0x00]),
        ("too many literal codes", &[0xfd, 0xff, 0xff]),
        ("code lengths over-subscribed", &[0x05, 0xe0, 0x49, 0x92, 0x24, 0x49, 0x92, 0x24, 0x49, 0x92, 0x24]),
    ] {
        assert_eq!(reference(packed), None, "{what}: the library agrees");
        assert_eq!(inflate(packed, 1, 100), Err(Malformed), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces_and_rooms_give_the_same_output(
        seed in proptest::collection::vec(any::<u8>(), 1..2000),
        repeats in 1_usize..40,
        level in 0_u32..=9,
        piece in 1_usize..3000,
        room in 1_usize..70_000,
    ) {
        let data = mixed(&seed, repeats);
        let packed = deflate(&data, level);
        // Few turns through the saved form in a test of large data.
        let room = room.max(data.len() / 200);
        let piece = piece.max(packed.len() / 200);
        prop_assert_eq!(inflate(&packed, piece, room), Ok((data, true)));
    }

    #[test]
    fn damaged_streams_end_as_the_library_says(
        seed in proptest::collection::vec(any::<u8>(), 1..300),
        repeats in 1_usize..10,
        level in 0_u32..=9,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut packed = deflate(&mixed(&seed, repeats), level);
        for (at, value) in damage {
            let at = at.index(packed.len());
            packed[at] ^= value;
        }
        match (inflate(&packed, 1 << 20, 1 << 20), reference(&packed)) {
            (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(Malformed), None) => {}
            (ours, theirs) => {
                let len = |all: &(Vec<u8>, bool)| (all.0.len(), all.1);
                prop_assert!(false, "{:?} but {:?}", ours.as_ref().map(len), theirs.as_ref().map(len));
            }
        }
    }

    #[test]
    fn garbage_and_garbage_states_do_no_harm(
        garbage in proptest::collection::vec(any::<u8>(), 0..2000),
        state in proptest::collection::vec(any::<u8>(), STATE_BYTES - 4),
        mode in 0_u8..9,
        lengths in 0_u8..16,
    ) {
        let _ = inflate(&garbage, 100, 1000);
        let mut bytes = [0; STATE_BYTES];
        bytes[4..].copy_from_slice(&state);
        bytes[..4].copy_from_slice(&STATE_MARK.to_le_bytes());
        // Near enough to a state to be let in.
        (bytes[4], bytes[6], bytes[7]) = (mode, 0, bytes[7] % 20);
        bytes[8..16].fill(0);
        for half in [18, 20, 22, 24] {
            bytes[half + 1] = 0;
        }
        (bytes[20], bytes[24]) = (bytes[20] % 31, 0);
        (bytes[30], bytes[31]) = (0, 8);
        for byte in &mut bytes[40..] {
            *byte = if lengths == 0 { *byte % 16 } else { lengths };
        }
        let mut inflate = Inflate::new();
        if inflate.restore(bytes).is_ok() {
            let mut input = &garbage[..];
            let _ = inflate.run(&mut input, 1000);
        }
    }
}
