//! The seam between an engine and what all accelerators share: another engine than ZIP, which copies, on the same queue manager and
//! function, driven through doorbell, mailbox, queue and interrupt as any.

mod copy;

use hw::LifeCycle;

use self::copy::{CopyEngine, CopyReg, OK, REFUSED, SOURCE_FAULT};
use super::Accelerator;
use super::bench::{MachineWith, Page, Ring, chain, wait_until};
use crate::pci::PciFunction;

type Machine = MachineWith<CopyEngine>;

const TAG: u64 = 0xffff_8000_feed_f00d;

fn sqe((from, len): (u64, usize), to: u64) -> [u32; 16] {
    let mut words = [0; 16];
    words[1] = len as u32;
    for (at, value) in [(2, from), (4, to), (8, TAG)] {
        (words[at], words[at + 1]) = (value as u32, (value >> 32) as u32);
    }
    words
}

fn started() -> (Machine, Ring) {
    let machine = Machine::new();
    machine.start(64);
    let ring = machine.start_queue(3, 0, None);
    (machine, ring)
}

#[test]
fn function_shows_the_engines_identity_and_capabilities() {
    let machine = Machine::new();
    let dword = |offset| {
        let mut data = [0; 4];
        machine.zip.config().read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!((dword(0), dword(8)), (0xa2ff_19e5, 0x1200_0030));
    let words = [0x3124, 0x3128, 0x312c, 0x3130, 0x3134, 0x3138].map(|offset: u64| machine.read(offset));
    assert_eq!(words, [0x7c37, 0x6c37, 0x8, 0x6, 0x2, 0x1]);
    assert_eq!([0x313c, 0x3140].map(|offset: u64| machine.read(offset)), [0x11_0101, 0]);
    assert_eq!(machine.read(0x3100_u64), 0x601, "what all engines have in the same way");
}

#[test]
fn request_goes_through_doorbell_and_queue_to_the_engine_and_comes_back_with_an_interrupt() {
    let machine = Machine::new();
    let (eq, _) = machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    let (from, to) = (machine.place(b"copy this"), machine.alloc(64));
    // The second one is behind the first by the bytes of this engine's SQE.
    for turn in 0..2 {
        let back = machine.submit(&mut ring, &sqe((from, 9), to + 16 * turn));
        assert_eq!((back[0], back[8], back[9]), (OK, TAG as u32, (TAG >> 32) as u32));
        assert_eq!(machine.bytes(to + 16 * turn, 10), b"copy this\0");
    }
    assert_eq!((machine.vectors(), machine.word(eq)), (vec![0], 0x1_0003));
    let totals = machine.zip.totals();
    assert_eq!((totals.commands, totals.errors, totals.bytes_in, totals.bytes_out), (2, 0, 18, 18));
}

#[test]
fn data_come_from_the_process_of_the_queue_and_from_scatter_lists() {
    let machine = Machine::new();
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, Some(7));
    let (from, to) = (machine.place(b"of a process"), machine.alloc(64));
    machine.spaces.map(Some(7), 0x10000, Page::At(from));
    machine.spaces.map(Some(7), 0x20000, Page::At(to));
    assert_eq!(machine.submit(&mut ring, &sqe((0x10000, 12), 0x20000))[0], OK);
    assert_eq!(machine.bytes(to, 12), b"of a process");
    assert_eq!(machine.submit(&mut ring, &sqe((from, 12), 0x20000))[0], SOURCE_FAULT);

    let mut ring = machine.start_queue(4, 0, None);
    let list = chain(&machine, &[(from + 3, 9), (from, 3)], 1);
    let mut request = sqe((list, 12), to);
    request[6] = 1;
    assert_eq!(machine.submit(&mut ring, &request)[0], OK);
    assert_eq!(machine.bytes(to, 12), b"a processof ");
}

#[test]
fn queue_context_of_another_engines_sqe_is_refused_by_the_mailbox() {
    let (machine, _) = started();
    let sqc = machine.sqc(machine.alloc(1 << 20), 5, 0, None);
    assert_eq!(machine.mailbox(0x0, 5, sqc), 0);
    machine.ram.store_u32(hw::Pa(sqc + 12), 0x73ff).unwrap();
    assert_ne!(machine.mailbox(0x0, 5, sqc), 0);
}

#[test]
fn engine_is_told_the_type_of_the_queue_and_its_failures_are_counted() {
    let (machine, _) = started();
    let mut ring = machine.start_queue(4, 1, None);
    let request = sqe((machine.place(b"x"), 1), machine.alloc(64));
    assert_eq!(machine.submit(&mut ring, &request)[0], REFUSED);
    let totals = machine.zip.totals();
    assert_eq!((totals.commands, totals.errors, totals.bytes_in), (1, 1, 0));
}

#[test]
fn error_interrupts_where_the_engines_mask_says_so() {
    let machine = Machine::new();
    let read = |reg: CopyReg| machine.read(reg);
    machine.write(CopyReg::ERROR_SET, 0xffff_fff4);
    machine.run();
    assert_eq!((read(CopyReg::ERROR_STATUS), machine.vectors()), (4, vec![]), "a 0 in this mask masks");
    machine.write(CopyReg::ERROR_ENABLE, 4);
    machine.run();
    assert_eq!(machine.vectors(), [3]);
    machine.write(CopyReg::ERROR_SET, 2);
    machine.run();
    assert_eq!((read(CopyReg::ERROR_SOURCE), machine.vectors()), (6, vec![]), "that one is masked");
    machine.write(CopyReg::ERROR_SOURCE, 4);
    assert_eq!((read(CopyReg::ERROR_STATUS), read(CopyReg::ERROR_SOURCE)), (2, 2));
}

#[test]
fn engines_counters_clear_when_read_if_software_says_so_and_with_a_reset() {
    let (machine, mut ring) = started();
    let request = sqe((machine.place(&[7; 100]), 100), machine.alloc(100));
    let counters = || [0, 4].map(|byte| machine.read(CopyReg::COPIED_BYTES.offset() + byte));
    machine.submit(&mut ring, &request);
    assert_eq!((counters(), counters()), ([100, 0], [100, 0]));
    machine.write(CopyReg::COUNTERS_CLEAR, 1);
    assert_eq!((counters(), counters()), ([100, 0], [0, 0]));
    machine.submit(&mut ring, &request);
    machine.write(CopyReg::INVERT, 1);

    machine.zip.function_reset();

    assert_eq!((counters(), machine.read(CopyReg::INVERT)), ([0, 0], 0));
    assert_eq!(machine.zip.totals().commands, 2, "what people are told goes on");
}

#[test]
fn request_that_waits_for_its_source_goes_on_in_another_accelerator_with_the_same_registers() {
    let machine = MachineWith::<CopyEngine>::threaded(4);
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, Some(7));
    let (from, to) = (machine.place(&[0x0f; 64]), machine.alloc(64));
    machine.spaces.map(Some(7), 0x10000, Page::Absent);
    machine.spaces.map(Some(7), 0x20000, Page::At(to));
    machine.write(CopyReg::INVERT, 1);
    machine.write(CopyReg::ERROR_ENABLE, 3);
    machine.put(&mut ring, &sqe((0x10000, 64), 0x20000));
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);

    machine.zip.quiesce();
    let (after, state) = (machine.successor(None), machine.zip.save());
    after.zip.quiesce();
    after.zip.restore(state.clone()).unwrap();
    assert_eq!(after.zip.save(), state);
    drop(machine);
    after.zip.resume();
    after.spaces.map(Some(7), 0x10000, Page::At(from));

    assert_eq!(after.wait(&mut ring), 0);
    assert_eq!((after.sqe(&ring, 0)[0], after.bytes(to, 64)), (OK, vec![0xf0; 64]));
    assert_eq!(after.read(CopyReg::ERROR_ENABLE), 3);
    assert_eq!(after.read(CopyReg::COPIED_BYTES), 64);
}

#[test]
fn state_with_engine_registers_that_cannot_be_is_refused() {
    let machine = Machine::new();
    for (name, value) in
        [("ERROR_STATUS", "0x1"), ("ERROR_SET", "0x1"), ("INVERT", "0x2"), ("HIGH_PERF", "0x1")]
    {
        let mut state = machine.zip.save();
        state["state"]["registers"][name] = value.into();
        let error = Machine::new().zip.restore(state).unwrap_err().to_string();
        assert!(error.contains("registers") && error.contains(name), "{error}");
    }
}
