//! The accelerator as the Linux driver and user libraries use it, and as a hostile guest might.

use std::io::Read;

use crate::hisi::bench::{Machine, Page, Ring};

/// Fields of an SQE that tests set.
#[derive(Clone, Copy)]
struct Sqe([u32; 32]);

const DEFLATE: u32 = 1;
const ZLIB: u32 = 2;
const GZIP: u32 = 3;

impl Sqe {
    /// Type 3, flat buffers, 32 KiB window, stateless.
    fn new(kind: u32, (src, src_len): (u64, usize), (dst, dst_len): (u64, usize)) -> Self {
        let mut dw = [0; 32];
        dw[4] = src_len as u32;
        dw[7] = 3 << 28;
        dw[9] = kind | 4 << 12;
        dw[14] = dst_len as u32;
        (dw[18], dw[19]) = (src as u32, (src >> 32) as u32);
        (dw[20], dw[21]) = (dst as u32, (dst >> 32) as u32);
        (dw[26], dw[27]) = (0xfeed_f00d, 0xffff_8000);
        Self(dw)
    }

    fn sgl(mut self) -> Self {
        self.0[9] |= 1 << 8;
        self
    }

    fn with(mut self, index: usize, value: u32) -> Self {
        self.0[index] = value;
        self
    }
}

fn status(sqe: &[u32; 32]) -> u32 {
    sqe[3] & 0xff
}

fn text(len: usize) -> Vec<u8> {
    let words = ["accelerator ", "queue ", "stream ", "page ", "fault ", "doorbell ", "x", "0123456789 "];
    let mut seed = 12345_u32;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(words[(seed >> 24) as usize % words.len()].as_bytes());
    }
    out.truncate(len);
    out
}

fn noise(len: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 32) as u8
        })
        .collect()
}

/// What an independent decoder makes of the device's output, headers put before it as software does.
fn decode(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        DEFLATE => flate2::read::DeflateDecoder::new(data).read_to_end(&mut out).unwrap(),
        ZLIB => {
            let whole = [&[0x78, 0x9c], data].concat();
            flate2::read::ZlibDecoder::new(&whole[..]).read_to_end(&mut out).unwrap()
        }
        _ => {
            let whole = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], data].concat();
            flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut out).unwrap()
        }
    };
    out
}

fn started(queue_type: u16) -> (Machine, Ring) {
    let machine = Machine::new();
    machine.start(64);
    let ring = machine.start_queue(3, queue_type, None);
    (machine, ring)
}

#[test]
fn stateless_request_of_each_format_round_trips_and_counts_without_headers() {
    let machine = Machine::new();
    machine.start(64);
    let mut compress = machine.start_queue(0, 0, None);
    let mut decompress = machine.start_queue(1, 1, None);
    for data in [text(300_000), noise(200_000), Vec::new(), vec![7], vec![0; 1 << 20]] {
        for kind in [DEFLATE, ZLIB, GZIP] {
            let src = machine.place(&data);
            let room = data.len() + data.len() / 8 + 64;
            let (packed, out) = (machine.alloc(room as u64), machine.alloc(room as u64));
            let sqe = machine.submit(&mut compress, &Sqe::new(kind, (src, data.len()), (packed, room)).0);
            assert_eq!(status(&sqe), 0, "kind {kind} len {}", data.len());
            assert_eq!(sqe[0] as usize, data.len());
            assert_eq!((sqe[26], sqe[27]), (0xfeed_f00d, 0xffff_8000), "the tag comes back");
            let produced = sqe[1] as usize;
            assert_eq!(decode(kind, &machine.bytes(packed, produced)), data);

            // More input than the stream: only the stream is consumed.
            let request = Sqe::new(kind, (packed, produced + 5), (out, data.len()));
            let sqe = machine.submit(&mut decompress, &request.0);
            assert_eq!((status(&sqe), sqe[0] as usize, sqe[1] as usize), (0, produced, data.len()));
            assert_eq!(machine.bytes(out, data.len()), data);
            assert_eq!(sqe[30] as usize, data.len());
        }
    }
    let totals = machine.zip.totals();
    assert_eq!((totals.commands, totals.errors), (30, 0));
}
