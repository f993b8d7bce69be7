//! Descriptor chains and rings, those that make sense and those that do not.

use proptest::prelude::*;

use super::*;

#[test]
fn header_and_payload_may_be_cut_anywhere() {
    let bench = Bench::ready();
    bench.put_header(0, 1);
    bench.put_chain(&[
        (HEADER, 7, 0),
        (HEADER + 7, 9, 0),
        (DATA, 1, WRITE),
        (DATA + 1, 300, WRITE),
        (DATA + 301, 212, WRITE),
    ]);
    bench.submit(0);
    assert_eq!(bench.used(), Some((0, 513)));
    assert_eq!(bench.peek(DATA, 513), [&bench.disk.bytes.lock().unwrap()[512..1024], &[0]].concat());
}

#[test]
fn indirect_chain_is_followed() {
    let bench = Bench::ready();
    bench.put_header(0, 0);
    bench.put_descriptor(INDIRECT, 0, HEADER, 16, NEXT, 2);
    bench.put_descriptor(INDIRECT, 2, DATA, 512, NEXT | WRITE, 1);
    bench.put_descriptor(INDIRECT, 1, STATUS, 1, WRITE, 0);
    bench.put_descriptor(DESC, 5, INDIRECT, 48, INDIRECT_FLAG, 0);
    bench.submit(5);
    assert_eq!(bench.used(), Some((5, 513)));
}

/// Submits what `prepare` has made and expects the device to give up, say so, and work again after a reset.
fn assert_needs_reset(what: &str, prepare: impl FnOnce(&Bench)) {
    let bench = Bench::ready();
    bench.put_header(0, 0);
    bench.put_chain(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    prepare(&bench);
    assert_eq!(bench.errors(), [], "{what}");
    bench.submit(0);
    assert_eq!(bench.used(), None, "{what}");
    assert_eq!(bench.errors(), [("rings that stop the device", 1)], "{what}");
    assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET, "{what}");
    assert_eq!(bench.messages(), [0x100], "{what}: configuration message");
    assert_eq!(bench.read(0x1000, 1), 2, "{what}");
    bench.submit(0);
    assert_eq!(bench.used(), None, "{what}: still");
    bench.start(feature::EVENT_IDX);
    let answer = bench.request(0, 0, Some((DATA, 512, WRITE)));
    assert_eq!(answer, Some((0, 513)), "{what}: after the reset");
}

#[test]
fn rings_and_chains_that_make_no_sense_need_a_reset() {
    assert_needs_reset("circle", |b| b.put_descriptor(DESC, 1, DATA, 512, NEXT | WRITE, 1));
    assert_needs_reset("circle to the head", |b| b.put_descriptor(DESC, 2, STATUS, 1, NEXT | WRITE, 0));
    assert_needs_reset("next beyond the table", |b| b.put_descriptor(DESC, 1, DATA, 512, NEXT | WRITE, 8));
    assert_needs_reset("readable behind writable", |b| b.put_descriptor(DESC, 2, STATUS, 1, 0, 0));
    assert_needs_reset("no status", |b| b.put_chain(&[(HEADER, 16, 0)]));
    assert_needs_reset("empty status", |b| b.put_chain(&[(HEADER, 16, 0), (STATUS, 0, WRITE)]));
    assert_needs_reset("address overflow", |b| {
        b.put_descriptor(DESC, 1, u64::MAX - 5, 512, NEXT | WRITE, 2);
    });
    assert_needs_reset("4 GiB and more", |b| {
        b.put_chain(&[(HEADER, 16, 0), (DATA, u32::MAX, WRITE), (DATA, u32::MAX, WRITE)]);
    });
    assert_needs_reset("indirect table of half a descriptor", |b| {
        b.put_descriptor(DESC, 0, INDIRECT, 24, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("empty indirect table", |b| b.put_descriptor(DESC, 0, INDIRECT, 0, INDIRECT_FLAG, 0));
    assert_needs_reset("unmapped indirect table", |b| b.put_descriptor(DESC, 0, HOLE, 48, INDIRECT_FLAG, 0));
    assert_needs_reset("indirect inside indirect", |b| {
        b.put_descriptor(DESC, 0, INDIRECT, 16, INDIRECT_FLAG, 0);
        b.put_descriptor(INDIRECT, 0, INDIRECT, 16, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("longer than the queue", |b| {
        for i in 0..16 {
            let flags = if i < 15 { NEXT } else { WRITE };
            b.put_descriptor(INDIRECT, i, HEADER, 1, flags, i as u16 + 1);
        }
        b.put_descriptor(DESC, 0, INDIRECT, 256, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("index that runs ahead", |b| b.next_avail.store(8, Ordering::SeqCst));
}

#[test]
fn head_beyond_the_queue_needs_a_reset() {
    let bench = Bench::ready();
    bench.submit(8);
    assert_eq!((bench.used(), bench.status() & NEEDS_RESET), (None, NEEDS_RESET));
}

#[test]
fn rings_at_bad_addresses_need_a_reset() {
    for (desc, avail, used) in [
        (DESC + 1, AVAIL, USED),
        (DESC, AVAIL + 1, USED),
        (DESC, AVAIL, USED + 2),
        (DESC, HOLE, USED),
        (DESC, AVAIL, HOLE),
        (!0xf, AVAIL, USED),
        (DESC, !1, USED),
        (DESC, 0, USED),
    ] {
        let bench = Bench::ready();
        bench.write(STATUS_REG, 1, 0);
        bench.write(STATUS_REG, 1, 3);
        bench.accept(bench.offered());
        bench.write(STATUS_REG, 1, 0xb);
        bench.set_up_queue(desc, avail, used);
        bench.write(STATUS_REG, 1, 0xf);
        bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
        bench.submit(0);
        let is_legal_but_empty = avail == 0;
        assert_eq!(bench.status() & NEEDS_RESET != 0, !is_legal_but_empty, "{desc:x} {avail:x} {used:x}");
        assert_eq!(bench.used(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_in_the_rings_the_worker_comes_back(
        descriptors in prop::collection::vec((0u64..12, any::<u32>(), 0u16..8, 0u16..9), 8),
        heads in prop::collection::vec(0u16..10, 8),
        ahead in any::<u16>(),
        header in prop::array::uniform16(0u8..16),
    ) {
        let bench = Bench::ready();
        bench.poke(HEADER, &header);
        for (index, (page, len, flags, next)) in descriptors.iter().enumerate() {
            let len = if len & 1 == 0 { len >> 8 & 0x3ff } else { *len };
            bench.put_descriptor(DESC, index as u64, HEADER + (page << 12), len, *flags, *next);
            bench.put_descriptor(INDIRECT, index as u64, DATA, len, *next, *flags);
        }
        for (index, head) in heads.iter().enumerate() {
            bench.poke(AVAIL + 4 + 2 * index as u64, &head.to_le_bytes());
        }
        bench.poke(AVAIL + 2, &(ahead % 10).to_le_bytes());
        bench.write(0x3000, 2, 0);
        bench.device.step();
        let status = bench.status();
        prop_assert!(status == 0xf || status == 0xf | NEEDS_RESET);
    }
}
