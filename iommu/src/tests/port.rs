//! Reads, writes and pins as a device makes them.

use std::sync::atomic::AtomicBool;

use hw::Dir;

use super::*;

#[test]
fn access_over_scattered_pages_is_whole() {
    let m = Bench::new();
    let root = m.process(0);
    let pages = 40u64; // more than one piece
    for n in 0..pages {
        m.map(root, n << 12, DATA + ((n * 7 % pages) << 13), USER_RW);
    }
    let data: Vec<u8> = (0..pages * 4096 - 100).map(|n| (n % 251) as u8).collect();
    m.write(&process(), 50, &data).unwrap();
    assert_eq!(m.read(&process(), 50, data.len()), Ok(data));
}

#[test]
fn bytes_before_the_fault_are_transferred() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    assert_eq!(m.write(&process(), 0x1ffc, &[7; 8]), aborted(0x2000));
    assert_eq!(m.dword(DATA + 0xff8), 0x0707_0707_0000_0000);
    let mut out = [0; 8];
    assert_eq!(m.smmu.read(&process(), Iova(0x1ffc), &mut out), aborted(0x2000));
    assert_eq!(out[..4], [7; 4]);
}

#[test]
fn message_goes_through_translation_to_the_doorbell() {
    let m = Bench::new();
    let root = m.process(0);
    m.cd(0, &[CD_D0, root]);
    m.map(root, 0x800_0000, DOORBELL & !0xfff, USER_RW);
    m.write(&plain(), 0x800_0040, &[0x21, 0, 0, 0]).unwrap();
    assert_eq!(m.msi.take(), [(DeviceId(SID), 0x21)]);
    assert!(m.read(&plain(), 0x800_0040, 4).is_err());
}

#[test]
fn translation_to_nowhere_aborts_without_event() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, HOLE, USER_RW);
    assert_eq!(m.read(&process(), 0x1010, 1), aborted(0x1010));
    assert_eq!(m.write(&process(), 0x1010, &[1]), aborted(0x1010));
    assert!(m.smmu.pin(&process(), Iova(0x1010), 1, Dir::Read).is_err());
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn access_past_the_end_of_the_address_space_aborts() {
    let m = Bench::new();
    m.ste(SID, &[9]);
    assert_eq!(m.read(&plain(), u64::MAX, 2), aborted(u64::MAX));
    assert_eq!(m.write(&plain(), u64::MAX - 1, &[0; 3]), aborted(u64::MAX - 1));
    assert!(m.smmu.pin(&plain(), Iova(u64::MAX), 2, Dir::Write).is_err());
}

#[test]
fn empty_access_translates_nothing() {
    let m = Bench::new();
    m.process(0);
    assert_eq!(m.write(&process(), 0x1000, &[]), Ok(()));
    assert_eq!(m.smmu.pin(&process(), Iova(0x1000), 0, Dir::Read).unwrap().pieces, []);
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn pieces_that_touch_are_pinned_as_one() {
    let m = Bench::new();
    let root = m.process(0);
    for (va, pa) in [(0x1000, DATA), (0x2000, DATA + 0x1000), (0x3000, DATA + 0x8000)] {
        m.map(root, va, pa, USER_RW);
    }
    let pinned = m.smmu.pin(&process(), Iova(0x1800), 0x2000, Dir::Write).unwrap();
    assert_eq!(pinned.pieces, [(Pa(DATA + 0x800), 0x1800), (Pa(DATA + 0x8000), 0x800)]);
}

#[test]
fn pin_needs_the_permission_of_its_direction() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW | RO);
    assert!(m.smmu.pin(&process(), Iova(0x1000), 8, Dir::Read).is_ok());
    assert!(m.smmu.pin(&process(), Iova(0x1000), 8, Dir::Write).is_err());
}

#[test]
fn sync_waits_for_a_pin_and_a_pinning_thread_may_still_access() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    let synced = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let pinned = m.smmu.pin(&process(), Iova(0x1000), 8, Dir::Read).unwrap();
        scope.spawn(|| {
            m.sync();
            synced.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(m.read(&process(), 0x1000, 1).is_ok(), "entering never waits for a sync");
        assert!(!synced.load(Ordering::SeqCst));
        drop(pinned);
        m.until(|| synced.load(Ordering::SeqCst));
    });
}

#[test]
fn pin_that_stalls_holds_nothing_meanwhile() {
    let m = Bench::new();
    let root = m.process(CD_S);
    m.map(root, 0x1000, DATA, USER_RW);
    std::thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let smmu = &m.smmu;
        let pin = scope.spawn(move || {
            smmu.pin(&process(), Iova(0x1ff8), 16, Dir::Write).map(|pinned| pinned.pieces.clone())
        });
        let events = m.await_events(1);
        // The first page moves while the second is waited for.
        m.put(m.pte(root, 0x1000), &[0]);
        m.map(root, 0x1000, DATA + 0x5000, USER_RW);
        m.tlbi_va(ASID, 0x1000, 2);
        m.map(root, 0x2000, DATA + 0x9000, USER_RW);
        m.resume(SID, events[0][1] as u16, true);
        let pieces = pin.join().unwrap().unwrap();
        assert_eq!(pieces, [(Pa(DATA + 0x5ff8), 8), (Pa(DATA + 0x9000), 8)]);
    });
}
