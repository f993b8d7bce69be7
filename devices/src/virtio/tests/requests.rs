//! What requests do to the disk, and how they are answered.

use super::*;

#[test]
fn read_fills_the_buffer_across_pages_and_sends_the_queues_message() {
    let bench = Bench::ready();
    let answer = bench.request(0, 3, Some((DATA + 0xf00, 1024, WRITE)));
    assert_eq!(answer, Some((0, 1025)));
    assert_eq!(bench.peek(DATA + 0xf00, 1024), bench.disk.bytes.lock().unwrap()[3 * 512..5 * 512]);
    assert_eq!(bench.messages(), [0x101]);
    assert_eq!(bench.read(0x1000, 1), 1, "interrupt status");
    assert_eq!(bench.read(0x1000, 1), 0, "cleared by reading");
}

#[test]
fn write_reaches_the_disk_and_flush_its_backend() {
    let bench = Bench::ready();
    bench.poke(DATA, &[0xa5; 512]);
    assert_eq!(bench.request(1, 63, Some((DATA, 512, 0))), Some((0, 1)));
    assert_eq!(bench.request(4, 0, None), Some((0, 1)));
    assert_eq!(bench.disk.bytes.lock().unwrap()[63 * 512..], [0xa5; 512]);
    assert_eq!(*bench.disk.log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn write_is_flushed_at_once_for_a_driver_that_cannot_flush() {
    let bench = Bench::ready_without(1 << 9);
    bench.request(1, 0, Some((DATA, 512, 0)));
    assert_eq!(*bench.disk.log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn identification_is_20_bytes_at_most() {
    let bench = Bench::ready();
    assert_eq!(bench.request(8, 0, Some((DATA, 20, WRITE))), Some((0, 21)));
    assert_eq!(bench.peek(DATA, 20), *b"serial-7\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.request(8, 0, Some((DATA, 3, WRITE))), Some((0, 4)));
    assert_eq!(bench.request(8, 0, Some((DATA, 512, WRITE))), Some((0, 20)), "the status is behind a gap");
}

#[test]
fn requests_beyond_the_disk_or_of_broken_sectors_are_io_errors() {
    let bench = Bench::ready();
    for (sector, len) in [(64, 512), (63, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(bench.request(0, sector, Some((DATA, len, WRITE))), Some((1, 0)), "{sector} {len}");
        assert_eq!(bench.request(1, sector, Some((DATA, len, 0))), Some((1, 1)), "{sector} {len}");
    }
    assert!(bench.disk.log.lock().unwrap().is_empty());
    assert_eq!(bench.status(), 0xf);
}

#[test]
fn unknown_request_is_unsupported_and_a_failing_disk_an_io_error() {
    let bench = Bench::ready();
    assert_eq!(bench.request(99, 0, None), Some((2, 1)));
    bench.disk.fails.store(true, Ordering::SeqCst);
    assert_eq!(bench.request(0, 0, Some((DATA, 512, WRITE))), Some((1, 0)));
    assert_eq!(bench.request(4, 0, None).map(|(status, _)| status), Some(1));
}

#[test]
fn read_only_disk_says_so_and_refuses_writes() {
    let bench = Bench::with(Disk { read_only: true, ..Disk::new(8) });
    bench.start(0);
    assert_eq!(bench.offered() & (1 << 5 | 1 << 13), 1 << 5);
    assert_eq!(bench.request(1, 0, Some((DATA, 512, 0))), Some((1, 1)));
    assert_eq!(bench.request(0, 0, Some((DATA, 512, WRITE))), Some((0, 513)));
}

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

impl Bench {
    /// A discard or write-zeroes request of these ranges: sector, sectors, flags. Its status.
    fn on_ranges(&self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let mut bytes = Vec::new();
        for (sector, sectors, flags) in ranges {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        self.poke(DATA, &bytes);
        self.request(kind, 0, Some((DATA, bytes.len() as u32, 0))).unwrap().0
    }

    fn holes(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.disk.holes.lock().unwrap())
    }
}

#[test]
fn discard_and_write_zeroes_check_every_range_before_they_touch_one() {
    let bench = Bench::ready();
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(2, 3, 1)]), 0);
    let disk = bench.disk.bytes.lock().unwrap()[512..6 * 512].to_vec();
    assert_eq!(disk[512..2048], [0; 1536]);
    assert!(disk[..512].iter().any(|b| *b != 0) && disk[2048..].iter().any(|b| *b != 0));
    assert_eq!(bench.holes(), [(1024, 1536)]);
    let good = (0, 8, 0);
    for (kind, bad, status) in [
        (DISCARD, (2, 3, 1), 2), // no flags for discard
        (WRITE_ZEROES, (2, 3, 2), 2),
        (WRITE_ZEROES, (60, 5, 0), 1),
        (DISCARD, (60, 5, 0), 1),
        (DISCARD, (u64::MAX, 1, 0), 1),
        (DISCARD, (0, u32::MAX, 0), 1),
        (WRITE_ZEROES, (0, 0x8001, 0), 1),
    ] {
        assert_eq!(bench.on_ranges(kind, &[good, bad]), status, "{kind} {bad:?}");
    }
    assert_eq!(bench.request(DISCARD, 0, Some((DATA, 15, 0))).unwrap().0, 1);
    assert_eq!(bench.on_ranges(DISCARD, &[good; 17]), 1, "more ranges than are offered");
    assert_eq!(bench.holes(), []);
    assert_eq!(bench.on_ranges(DISCARD, &[good, (16, 2, 0)]), 0);
    assert_eq!(bench.holes(), [(0, 4096), (8192, 1024)]);
}

#[test]
fn zeroes_give_room_back_only_with_the_unmap_flag() {
    let bench = Bench::ready();
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 0), (2, 1, 1), (4, 1, 0)]), 0);
    assert_eq!(bench.holes(), [(1024, 512)]);
    let disk = bench.disk.bytes.lock().unwrap();
    assert!([0, 2, 4].iter().all(|sector| disk[sector * 512..][..512] == [0; 512]));
}

#[test]
fn disk_that_gives_no_room_back_does_not_offer_it() {
    let bench = Bench::with(Disk { is_sparse: false, ..Disk::new(8) });
    bench.start(0);
    assert_eq!(bench.offered() & (1 << 13 | 1 << 14), 1 << 14);
    // max_discard_sectors, and write_zeroes_may_unmap.
    assert_eq!((bench.read(0x2024, 4), bench.read(0x2038, 1)), (0, 0));
    assert_eq!(bench.on_ranges(DISCARD, &[(0, 1, 0)]), 2);
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 1)]), 0);
    let bench = Bench::new();
    assert_eq!((bench.read(0x2024, 4), bench.read(0x2038, 1)), (1 << 22, 1));
}

#[test]
fn zeroes_and_discards_are_flushed_at_once_for_a_driver_that_cannot_flush() {
    let bench = Bench::ready_without(1 << 9);
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 0)]), 0);
    assert_eq!(bench.on_ranges(DISCARD, &[(0, 1, 0)]), 0);
    assert_eq!(*bench.disk.log.lock().unwrap(), ["zeroes", "flush", "discard", "flush"]);
}

#[test]
fn unmapped_buffers_are_io_errors_as_long_as_the_status_can_be_written() {
    let bench = Bench::ready();
    assert_eq!(bench.request(0, 0, Some((HOLE, 512, WRITE))), Some((1, 0)));
    assert_eq!(bench.request(1, 0, Some((HOLE, 512, 0))), Some((1, 1)));
    bench.put_chain(&[(HOLE, 16, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!((bench.used(), bench.peek(STATUS, 1)[0]), (Some((0, 1)), 1));
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (HOLE, 1, WRITE)]);
    bench.submit(0);
    assert_eq!(bench.used(), Some((0, 0)), "nothing was written");
    bench.put_chain(&[(HEADER, 15, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!((bench.used(), bench.peek(STATUS, 1)[0]), (Some((0, 1)), 1), "short header");
    assert_eq!(bench.status(), 0xf);
}
