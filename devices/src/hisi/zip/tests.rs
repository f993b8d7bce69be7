//! The accelerator as the Linux driver and user libraries use it, and as a hostile guest might.

mod faults;
mod latency;
mod saved;
mod stop;
mod streams;

use std::io::Read;

use proptest::prelude::*;

use super::regs::ZipReg;
use crate::hisi::Accelerator;
use crate::hisi::bench::{Machine, Page, Ring, chain, wait_until};
use crate::hisi::qm::regs::QmReg;

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

fn status(sqe: &[u32]) -> u32 {
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
            let expected = if sqe[1] > sqe[0] { 0x0d } else { 0 };
            assert_eq!(status(&sqe), expected, "kind {kind} len {}", data.len());
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

// ---- scatter lists

/// The kernel's self-test: one-entry lists, a destination of 512 bytes, flags all zero, a window code of 0.
#[test]
fn kernel_self_test_request_with_one_entry_lists_round_trips() {
    let machine = Machine::new();
    let (eq, _) = machine.start(64);
    let mut compress = machine.start_queue(0, 0, None);
    let mut decompress = machine.start_queue(1, 1, None);
    for data in [text(70), text(191)] {
        let packed = machine.alloc(512);
        let src = chain(&machine, &[(machine.place(&data), data.len())], 1);
        let dst = chain(&machine, &[(packed, 512)], 1);
        let request = Sqe::new(DEFLATE, (src, data.len()), (dst, 512)).sgl().with(9, 0x101);
        let sqe = machine.submit(&mut compress, &request.0);
        assert_eq!(sqe[3], 0);
        let produced = sqe[1] as usize;

        let out = machine.alloc(512);
        let src = chain(&machine, &[(packed, produced)], 1);
        let dst = chain(&machine, &[(out, 512)], 1);
        let request = Sqe::new(DEFLATE, (src, produced), (dst, 512)).sgl().with(9, 0x101);
        let sqe = machine.submit(&mut decompress, &request.0);
        assert_eq!((sqe[3], sqe[1] as usize), (0, data.len()));
        assert_eq!(machine.bytes(out, data.len()), data);
    }
    assert_eq!(machine.word(eq), 0x1_0000, "an event of queue 0 in phase 1");
    assert_eq!(machine.word(eq + 4), 0x1_0001);
}

#[test]
fn fixed_raw_deflate_vector_decompresses() {
    let (machine, mut ring) = started(1);
    // A fixed-code block: "warpvmm" as raw deflate, made by an independent encoder.
    let vector = [0x2b, 0x4f, 0x2c, 0x2a, 0x28, 0xcb, 0xcd, 0x05, 0x00];
    let (src, out) = (machine.place(&vector), machine.alloc(64));
    let sqe = machine.submit(&mut ring, &Sqe::new(DEFLATE, (src, vector.len()), (out, 64)).0);
    assert_eq!((status(&sqe), sqe[1]), (0, 7));
    assert_eq!(machine.bytes(out, 7), b"warpvmm");
}

#[test]
fn chain_of_lists_with_skips_and_empty_entries_is_one_run_of_bytes() {
    let (machine, mut ring) = started(0);
    let data = text(100_000);
    // Entries of odd sizes, some empty, three to a list; headers of 10 and 12 bytes to skip.
    let mut runs = Vec::new();
    let whole = [&[0xee; 10][..], &data].concat();
    for (piece, len) in whole.chunks(7_777).zip([7_777, 0].iter().cycle()) {
        if *len == 0 {
            runs.push((0xdead_0000, 0));
        }
        runs.push((machine.place(piece), piece.len()));
    }
    let src = chain(&machine, &runs, 3);
    let out = machine.alloc(200_000);
    let out_runs: Vec<_> = (0..20).map(|i| (out + 10_000 * i, 10_000)).collect();
    let dst = chain(&machine, &out_runs, 7);
    let request = Sqe::new(ZLIB, (src, data.len()), (dst, 199_988)).sgl().with(8, 12);
    let request = request.with(7, 3 << 28 | 10);
    let sqe = machine.submit(&mut ring, &request.0);
    assert_eq!((status(&sqe), sqe[0] as usize), (0, data.len()));
    assert_eq!(machine.bytes(out, 12), [0; 12], "skipped output is untouched");
    assert_eq!(decode(ZLIB, &machine.bytes(out + 12, sqe[1] as usize)), data);
}

#[test]
fn chain_that_loops_and_list_with_too_many_entries_and_short_list_are_source_faults() {
    let (machine, mut ring) = started(0);
    let out = machine.alloc(4096);
    let list = machine.alloc(64 + 32);
    machine.ram.store_u64(hw::Pa(list), list).unwrap();
    let looping = Sqe::new(DEFLATE, (list, 100), (list, 100)).sgl();
    assert_eq!(status(&machine.submit(&mut ring, &looping.0)), 0x04);

    let many = machine.alloc(64);
    machine.ram.store_u64(hw::Pa(many + 8), 256 << 16).unwrap();
    assert_eq!(status(&machine.submit(&mut ring, &Sqe::new(DEFLATE, (many, 100), (out, 100)).sgl().0)), 0x04);

    let short = chain(&machine, &[(out, 50)], 1);
    assert_eq!(
        status(&machine.submit(&mut ring, &Sqe::new(DEFLATE, (short, 100), (out, 100)).sgl().0)),
        0x04
    );
}

/// The data that there are end in the middle of a block, so the decoder waits for those that there are not.
#[test]
fn list_shorter_than_its_compressed_data_is_a_source_fault_and_not_a_wait_without_end() {
    let (machine, mut ring) = started(1);
    let (src, dst) = (machine.place(&[0]), machine.alloc(4096));
    let short = chain(&machine, &[(src, 1)], 1);

    let request = Sqe::new(DEFLATE, (short, 100), (dst, 100)).sgl();

    assert_eq!(status(&machine.submit(&mut ring, &request.0)), 0x04);
}

// ---- what goes wrong with one request

#[test]
fn destination_too_small_by_one_byte_is_0x0e_and_exactly_fitting_is_success() {
    let machine = Machine::new();
    machine.start(64);
    let mut compress = machine.start_queue(0, 0, None);
    let mut decompress = machine.start_queue(1, 1, None);
    let data = text(50_000);
    let (src, packed, out) = (machine.place(&data), machine.alloc(60_000), machine.alloc(60_000));
    for kind in [DEFLATE, ZLIB, GZIP] {
        let fit = machine.submit(&mut compress, &Sqe::new(kind, (src, data.len()), (packed, 60_000)).0)[1];
        let exact = Sqe::new(kind, (src, data.len()), (packed, fit as usize));
        assert_eq!(status(&machine.submit(&mut compress, &exact.0)), 0);
        let small = Sqe::new(kind, (src, data.len()), (out, fit as usize - 1));
        assert_eq!(status(&machine.submit(&mut compress, &small.0)), 0x0e);

        let exact = Sqe::new(kind, (packed, fit as usize), (out, data.len()));
        assert_eq!(status(&machine.submit(&mut decompress, &exact.0)), 0);
        let small = Sqe::new(kind, (packed, fit as usize), (out, data.len() - 1));
        assert_eq!(status(&machine.submit(&mut decompress, &small.0)), 0x0e);
    }
}

#[test]
fn malformed_truncated_and_mismatched_data_have_their_status() {
    let machine = Machine::new();
    machine.start(64);
    let mut compress = machine.start_queue(0, 0, None);
    let mut decompress = machine.start_queue(1, 1, None);
    let data = text(5_000);
    let (src, packed, out) = (machine.place(&data), machine.alloc(8_192), machine.alloc(8_192));
    for kind in [ZLIB, GZIP] {
        let len = machine.submit(&mut compress, &Sqe::new(kind, (src, data.len()), (packed, 8_192)).0)[1];
        let mut bytes = machine.bytes(packed, len as usize);
        for (cut, expected) in [(1, 0x03), (len as usize / 2, 0x03), (len as usize, 0x03)] {
            let request = Sqe::new(kind, (packed, len as usize - cut), (out, 8_192));
            assert_eq!(status(&machine.submit(&mut decompress, &request.0)), expected, "cut by {cut}");
        }
        *bytes.last_mut().unwrap() ^= 1;
        let wrong = machine.place(&bytes);
        let request = Sqe::new(kind, (wrong, bytes.len()), (out, 8_192));
        let sqe = machine.submit(&mut decompress, &request.0);
        assert_eq!(sqe[3], 0x10);
        assert_eq!([0, 1, 2, 30].map(|word| sqe[word]), [len, 5_000, 5_000, 5_000], "the data are there");
        assert_eq!(machine.bytes(out, data.len()), data);
    }
    let junk = machine.place(&[0xff; 100]);
    let sqe = machine.submit(&mut decompress, &Sqe::new(DEFLATE, (junk, 100), (out, 8_192)).0);
    assert_eq!(status(&sqe), 0x03);
    assert_eq!((sqe[15], sqe[28], sqe[29]), (0, 0, 0));
}

#[test]
fn request_that_the_device_does_not_have_is_refused() {
    let (machine, mut ring) = started(0);
    let (src, out) = (machine.place(&[1; 64]), machine.alloc(4096));
    let good = Sqe::new(DEFLATE, (src, 64), (out, 4096));
    for (what, bad) in [
        ("lz77_zstd", good.with(9, 0x42 | 4 << 12)),
        ("lz4", good.with(9, 0x04 | 4 << 12)),
        ("request type 0", good.with(9, 4 << 12)),
        ("buffer type 2", good.with(9, 1 | 2 << 8)),
        ("window 5", good.with(9, 1 | 5 << 12)),
        ("SQE type 1", good.with(7, 1 << 28)),
        ("SQE type 15", good.with(7, 15 << 28)),
    ] {
        assert_eq!(status(&machine.submit(&mut ring, &bad.0)), 0x01, "{what}");
    }
    assert_eq!(status(&machine.submit(&mut ring, &good.with(7, 0).0)), 0, "SQE type 0");
    let mut other = machine.start_queue(9, 2, None);
    assert_eq!(status(&machine.submit(&mut other, &good.0)), 0x01, "queue type 2");
    let totals = machine.zip.totals();
    assert_eq!((totals.commands, totals.errors), (9, 8));
}

#[test]
fn address_that_does_not_answer_is_told_in_the_status_and_the_queue_goes_on() {
    let (machine, mut ring) = started(0);
    let (src, out) = (machine.place(&[1; 64]), machine.alloc(4096));
    let hole = 0x10_0000;
    let request = Sqe::new(GZIP, (hole, 64), (out, 4096));
    assert_eq!(status(&machine.submit(&mut ring, &request.0)), 0x04);
    let request = Sqe::new(GZIP, (src, 64), (hole, 4096));
    assert_eq!(status(&machine.submit(&mut ring, &request.0)), 0x05);
    let request = Sqe::new(GZIP, (u64::MAX - 5, 64), (out, 4096));
    assert_eq!(status(&machine.submit(&mut ring, &request.0)), 0x04);
    let request = Sqe::new(GZIP, (src, 64), (out, 4096));
    assert_eq!(status(&machine.submit(&mut ring, &request.with(23, 1).with(22, 64).0)), 0, "context unused");
    assert_eq!(
        machine.read(QmReg::ABNORMAL_INT_STATUS),
        0,
        "no RAS error: that would start a reset of the device"
    );
}

#[test]
fn lengths_of_4_gib_take_no_memory_and_end_where_the_data_do() {
    let (machine, mut ring) = started(1);
    let packed = machine.place(&[0x03, 0x00]);
    let out = machine.alloc(4096);
    let request = Sqe::new(DEFLATE, (packed, u32::MAX as usize), (out, u32::MAX as usize));
    // The empty stream ends in its second byte, in front of a long rest of RAM and then a hole.
    let sqe = machine.submit(&mut ring, &request.0);
    assert_eq!((status(&sqe), sqe[0], sqe[1]), (0, 2, 0));
}

#[test]
fn compression_that_makes_more_of_the_data_says_so_and_is_good() {
    let (machine, mut ring) = started(0);
    for (data, expected) in [(noise(5_000), 0x0d), (vec![7], 0x0d), (text(5_000), 0)] {
        let (src, out) = (machine.place(&data), machine.alloc(8_192));
        let sqe = machine.submit(&mut ring, &Sqe::new(ZLIB, (src, data.len()), (out, 8_192)).0);
        assert_eq!((sqe[3], sqe[1] > sqe[0], sqe[0] as usize), (expected, expected == 0x0d, data.len()));
        assert_eq!(decode(ZLIB, &machine.bytes(out, sqe[1] as usize)), data);
    }
    assert_eq!(machine.zip.totals().errors, 0);
}

#[test]
fn stale_stream_words_of_a_stateless_request_are_ignored_and_come_back_as_zero() {
    let (machine, mut ring) = started(0);
    let data = b"123456789";
    let (src, out) = (machine.place(data), machine.alloc(64));
    let mut request = Sqe::new(GZIP, (src, data.len()), (out, 64)).with(15, 0x83).with(28, 7).with(29, 9);
    request = request.with(30, 0x1234).with(31, 0xdead_beef).with(7, 3 << 28 | 5 << 25);
    let sqe = machine.submit(&mut ring, &request.0);
    assert_eq!((sqe[15], sqe[28], sqe[29]), (0, 0, 0));
    assert_eq!((sqe[30], sqe[31]), (9, 0x9b63_d02c));
    assert_eq!(sqe[7], 3 << 28 | 5 << 25, "software counts its header by this word");
}

#[test]
fn window_code_limits_the_distance_of_matches() {
    let (machine, mut ring) = started(0);
    // Noise that repeats after 8000 bytes: a 4 KiB window cannot see the repetition, a 32 KiB window can.
    let half = noise(8_000);
    let data = [&half[..], &half].concat();
    let (src, out) = (machine.place(&data), machine.alloc(20_000));
    let request = Sqe::new(DEFLATE, (src, data.len()), (out, 20_000));
    let small = machine.submit(&mut ring, &request.with(9, DEFLATE).0)[1];
    let large = machine.submit(&mut ring, &request.0)[1];
    assert!(small > 16_000 && large < 9_000, "{small} {large}");
}

// ---- processes: PASIDs, stalls, threads

/// Maps `len` bytes at `va` of a process to new memory; returns where that is.
fn map(machine: &Machine, pasid: u16, va: u64, len: u64) -> u64 {
    let pa = machine.alloc(len);
    for page in (0..len).step_by(4096) {
        machine.spaces.map(Some(pasid.into()), va + page, Page::At(pa + page));
    }
    pa
}

#[test]
fn user_queue_takes_data_from_the_process_and_rings_from_the_function() {
    let machine = Machine::new();
    machine.start(64);
    let mut first = machine.start_queue(10, 0, Some(7));
    let mut second = machine.start_queue(11, 0, Some(8));
    // The same addresses in two processes, other data behind them.
    let (one, two) = (text(9_000), noise(9_000));
    let (va, out_va) = (0x7fff_1234_5000, 0x7fff_2000_0000);
    for (pasid, data) in [(7, &one), (8, &two)] {
        let pa = map(&machine, pasid, va, 12_288);
        machine.ram.write(hw::Pa(pa + 100), data).unwrap();
    }
    let outs = [7, 8].map(|pasid| map(&machine, pasid, out_va, 16_384));
    let request = Sqe::new(GZIP, (va + 100, 9_000), (out_va + 3, 16_000)).0;
    let len = [machine.submit(&mut first, &request)[1], machine.submit(&mut second, &request)[1]];
    assert_eq!(decode(GZIP, &machine.bytes(outs[0] + 3, len[0] as usize)), one);
    assert_eq!(decode(GZIP, &machine.bytes(outs[1] + 3, len[1] as usize)), two);

    // A kernel queue does not see the process.
    let mut kernel = machine.start_queue(12, 0, None);
    assert_eq!(status(&machine.submit(&mut kernel, &request)), 0x04);
}

#[test]
fn pasid_that_the_function_may_not_use_reaches_nothing() {
    let machine = Machine::new();
    machine.start(64);
    let mut ring = machine.start_queue(10, 0, Some(7));
    map(&machine, 7, 0x10000, 4096);
    let config = crate::pci::PciFunction::config(&*machine.zip);
    let _ = config.write(0x106, &0_u16.to_le_bytes());
    let request = Sqe::new(GZIP, (0x10000, 100), (0x10800, 500)).0;
    assert_eq!(status(&machine.submit(&mut ring, &request)), 0x04);
}

#[test]
fn task_that_waits_for_a_page_goes_on_when_it_comes() {
    let machine = Machine::threaded(4);
    machine.start(64);
    let mut ring = machine.start_queue(10, 0, Some(7));
    let pa = map(&machine, 7, 0x10000, 8192);
    let out = map(&machine, 7, 0x20000, 8192);
    machine.ram.write(hw::Pa(pa), &[b'z'; 8192]).unwrap();
    machine.spaces.map(Some(7), 0x11000, Page::Absent);
    machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 8192), (0x20000, 8192)).0);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    assert_eq!(machine.poll(&mut ring), None);
    machine.spaces.map(Some(7), 0x11000, Page::At(pa + 4096));
    let index = machine.wait(&mut ring);
    let sqe = machine.sqe(&ring, index);
    assert_eq!(status(&sqe), 0);
    assert_eq!(decode(ZLIB, &machine.bytes(out, sqe[1] as usize)), [b'z'; 8192]);
}

#[test]
fn page_that_the_guest_refuses_ends_the_task_with_an_error() {
    let machine = Machine::threaded(4);
    machine.start(64);
    let mut ring = machine.start_queue(10, 0, Some(7));
    machine.spaces.map(Some(7), 0x10000, Page::Absent);
    machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 4096), (0x20000, 4096)).0);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    machine.spaces.map(Some(7), 0x10000, Page::Refused);
    let index = machine.wait(&mut ring);
    assert_eq!(status(&machine.sqe(&ring, index)), 0x04);
}

#[test]
fn many_queues_on_few_workers_complete_in_order() {
    let machine = Machine::threaded(3);
    machine.start(64);
    let data = text(3_000);
    let src = machine.place(&data);
    let mut rings: Vec<(Ring, u64)> =
        (0..16).map(|qn| (machine.start_queue(qn, 0, None), machine.alloc(4_096 * 40))).collect();
    for _ in 0..40 {
        for (ring, out) in &mut rings {
            let index = machine.put(ring, &[0; 32]);
            let place = (*out + 4_096 * u64::from(index), 4_096);
            let sqe = Sqe::new(GZIP, (src, data.len()), place).with(26, index.into()).0;
            let bytes: Vec<u8> = sqe.iter().flat_map(|word| word.to_le_bytes()).collect();
            machine.ram.write(hw::Pa(ring.sq + 128 * u64::from(index)), &bytes).unwrap();
            machine.ring_sq(ring);
        }
    }
    for (ring, out) in &mut rings {
        for expected in 0..40 {
            assert_eq!(machine.wait(ring), expected);
            let sqe = machine.sqe(ring, expected);
            assert_eq!((status(&sqe), sqe[26]), (0, expected.into()));
            let packed = machine.bytes(*out + 4_096 * u64::from(expected), sqe[1] as usize);
            assert_eq!(decode(GZIP, &packed), data);
        }
    }
    let threads = machine.threads.as_ref().unwrap();
    assert!(threads.count() <= 4, "control and three workers, not {}", threads.count());
    assert_eq!(machine.zip.totals().commands, 640);
}

#[test]
fn function_reset_gives_up_stalled_tasks_and_forgets_everything() {
    let machine = Machine::threaded(4);
    machine.start(64);
    let mut ring = machine.start_queue(10, 0, Some(7));
    machine.spaces.map(Some(7), 0x10000, Page::Absent);
    machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 4096), (0x20000, 4096)).0);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    crate::pci::PciFunction::function_reset(&*machine.zip);
    wait_until(|| machine.read(QmReg::AM_CURR_TRANS_RETURN) == 3);
    assert_eq!(
        (
            machine.read(QmReg::VFT_CFG_RDY),
            machine.read(QmReg::EQ_INT_MASK),
            machine.read(QmReg::AEQ_INT_MASK)
        ),
        (1, 1, 1)
    );
    machine.ring_sq(&ring);
    assert_eq!(machine.poll(&mut ring), None);

    // A new life: the driver starts it again, without MEM_START_INIT.
    machine.start(64);
    let mut ring = machine.start_queue(10, 0, None);
    let (src, out) = (machine.place(&[1; 64]), machine.alloc(4096));
    assert_eq!(status(&machine.submit(&mut ring, &Sqe::new(ZLIB, (src, 64), (out, 4096)).0)), 0);
}

#[test]
fn engine_error_raises_the_abnormal_message_until_its_source_is_cleared() {
    let machine = Machine::new();
    machine.write(ZipReg::CORE_INT_SET, 1 << 2);
    machine.run();
    assert_eq!(machine.vectors(), [0_u32; 0], "masked");
    assert_eq!(machine.read(ZipReg::CORE_INT_STATUS), 1 << 2);
    machine.write(ZipReg::CORE_INT_MASK, 0);
    machine.run();
    assert_eq!(machine.vectors(), [3]);
    machine.write(ZipReg::CORE_INT_SOURCE, 1 << 2);
    assert_eq!(machine.read(ZipReg::CORE_INT_STATUS), 0);
}

#[test]
fn core_counters_clear_when_read_if_software_says_so() {
    let (machine, mut ring) = started(0);
    let (src, out) = (machine.place(&[1; 64]), machine.alloc(4096));
    machine.submit(&mut ring, &Sqe::new(ZLIB, (src, 64), (out, 4096)).0);
    // Queue 3 compresses on core 1.
    assert_eq!(
        (
            machine.read(ZipReg::GET_BD_NUM.at(1)),
            machine.read(ZipReg::GET_RIGHT_BD.at(1)),
            machine.read(ZipReg::CONSUMED_BYTE.at(1))
        ),
        (1, 1, 64)
    );
    machine.write(ZipReg::SOFT_CTRL_CNT_CLR_CE, 5);
    assert_eq!((machine.read(ZipReg::GET_BD_NUM.at(1)), machine.read(ZipReg::GET_BD_NUM.at(1))), (1, 0));
    assert_eq!(machine.read(ZipReg::GET_BD_NUM.at(7)), 0, "cores that do not exist read as zero");
}

/// vCPUs that start queues, submit, stop in the middle and reset at will, while workers run: no deadlock, no panic, and
/// a device that works afterwards.
#[test]
fn stops_and_resets_while_workers_run_leave_a_working_device() {
    let machine = Machine::threaded(8);
    machine.start(64);
    let data = text(200_000);
    let src = machine.place(&data);
    let rings: Vec<u64> = (0..8).map(|_| machine.alloc(37 * 4096)).collect();
    let contexts: Vec<(u64, u64)> = (0..8)
        .map(|qn| {
            let sq = rings[usize::from(qn)];
            (machine.sqc(sq, qn, 0, None), machine.cqc(sq + 131_072, None))
        })
        .collect();
    let out = machine.alloc(300_000);
    let request = Sqe::new(GZIP, (src, data.len()), (out, 300_000)).0;
    let bytes: Vec<u8> = request.iter().flat_map(|word| word.to_le_bytes()).collect();
    for sq in &rings {
        for index in 0..64 {
            machine.ram.write(hw::Pa(sq + 128 * index), &bytes).unwrap();
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..400_u64 {
                let qn = (turn % 8) as u16;
                let (sqc, cqc) = contexts[usize::from(qn)];
                for (command, base) in [(0x0, sqc), (0x1, cqc)] {
                    machine.post_mailbox(command, qn, base);
                    while machine.mailbox_is_busy() {}
                }
                machine.ring_page(qn, (turn % 60 + 1) << 32);
                if turn % 3 == 0 {
                    machine.post_mailbox(0x8, qn, 0);
                    machine.pass_ns(100_000_000);
                    while machine.mailbox_is_busy() {}
                }
                if turn % 67 == 0 {
                    crate::pci::PciFunction::function_reset(&*machine.zip);
                    machine.set_vft(0, 63 << 45 | 1 << 44);
                    machine.set_vft(1, 1 << 28);
                }
            }
        });
        scope.spawn(|| {
            for turn in 0..4000_u64 {
                machine.ring_page((turn % 9) as u16, (turn % 64) << 32 | (turn % 2) << 12 | (turn % 3) << 48);
                machine.write64(QmReg::DOORBELL_EQ_AEQ, (turn % 8) << 32 | 2 << 12);
                machine.read(QmReg::AM_CURR_TRANS_RETURN);
            }
        });
    });
    crate::pci::PciFunction::function_reset(&*machine.zip);
    wait_until(|| machine.read(QmReg::AM_CURR_TRANS_RETURN) == 3);
    machine.start(64);
    let mut ring = machine.start_queue(1, 0, None);
    let sqe = machine.submit(&mut ring, &request);
    assert_eq!(decode(GZIP, &machine.bytes(out, sqe[1] as usize)), data);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever an SQE says, it completes, in order, and the next good one works.
    #[test]
    fn any_sqe_completes_and_leaves_a_working_queue(
        queue_type in 0_u16..4,
        contents in proptest::collection::vec(any::<u8>(), 4096),
        sqes in proptest::collection::vec((any::<[u32; 32]>(), any::<[u8; 8]>()), 1..8),
    ) {
        let machine = Machine::new();
        machine.start(64);
        let mut ring = machine.start_queue(1, queue_type, None);
        let junk = machine.place(&contents);
        for (mut sqe, choice) in sqes {
            // Near enough to a request to get somewhere; each field is left wild now and then.
            let pick = |at: usize, wild: u32, tame: u32| if choice[at] % 8 == 0 { wild } else { tame };
            sqe[4] = pick(0, sqe[4], sqe[4] % 70_000);
            sqe[7] = pick(1, sqe[7], sqe[7] & 0xe00_000f | 3 << 28);
            sqe[8] = pick(2, sqe[8], sqe[8] & 0xf);
            sqe[9] = pick(3, sqe[9], (sqe[9] % 3 + 1) | sqe[9] >> 7 & 0x100 | 4 << 12);
            sqe[14] = pick(4, sqe[14], sqe[14] % 100_000);
            for (at, word) in [(5, 18), (6, 20), (7, 22)] {
                sqe[word] = pick(at, sqe[word], junk as u32 + sqe[word] % 4096);
                sqe[word + 1] = pick(at, sqe[word + 1], 0);
            }
            let tag = (sqe[13], sqe[26], sqe[27]);
            let sqe = machine.submit(&mut ring, &sqe);
            prop_assert_eq!((sqe[13], sqe[26], sqe[27]), tag);
        }
        let mut good = machine.start_queue(2, 0, None);
        let out = machine.alloc(4096);
        let sqe = machine.submit(&mut good, &Sqe::new(ZLIB, (out, 100), (out + 2048, 1000)).0);
        prop_assert_eq!(status(&sqe), 0);
    }
}
