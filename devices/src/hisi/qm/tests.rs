//! The queue manager from the driver's side, with the ZIP engine behind it, and what a hostile guest might do to it.

mod event_rings;
mod held_polls;
mod life;
mod timeline;
mod workers;

use std::sync::Arc;

use hw::regmap::check_plain;
use hw::{LifeCycle, Pa, StreamId};
use proptest::prelude::*;

use crate::hisi::bench::{Machine, Page, Ring, STREAM, cq_bell, ring_page};
use crate::hisi::qm::regs::QmReg;
use crate::hisi::zip::regs::ZipReg;
use crate::pci::PciFunction;

/// A task that takes no time: one byte of nothing, refused or not, that completes.
fn nothing() -> [u32; 32] {
    [0; 32]
}

fn started() -> (Machine, u64, u64) {
    let machine = Machine::new();
    let (eq, aeq) = machine.start(64);
    (machine, eq, aeq)
}

fn submit(machine: &Machine, ring: &mut Ring, count: usize) {
    for _ in 0..count {
        machine.put(ring, &nothing());
    }
    machine.ring_sq(ring);
    machine.run();
}

// ---- identity and probe

/// The whole of the register space that nothing else tests: what the driver writes for hardware's sake, and what its
/// debug files read.
#[test]
fn plain_registers_keep_what_is_writable_and_nothing_else() {
    let machine = Machine::new();
    let read = |at, bytes| {
        let high = if bytes == 8 { machine.read(at + 4) } else { 0 };
        u64::from(machine.read(at)) | u64::from(high) << 32
    };
    let write = |at, bytes, value: u64| match bytes {
        8 => machine.write64(at, value),
        _ => machine.write(at, value as u32),
    };
    check_plain::<QmReg>(read, write, &[]);
    check_plain::<ZipReg>(read, write, &[]);
}

#[test]
fn configuration_space_is_that_of_a_kunpeng_930_accelerator() {
    let machine = Machine::new();
    let config = machine.zip.config();
    let dword = |offset| {
        let mut data = [0; 4];
        config.read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(dword(0x00), 0xa250_19e5);
    assert_eq!(dword(0x08), 0x1200_0030);
    assert_eq!((dword(0x18) & 0xf, dword(0x20) & 0xf), (0x4, 0x4), "BAR2 and BAR4 have 64 bits");
    let mut at = u64::from(dword(0x34) & 0xff);
    let mut found = Vec::new();
    while at != 0 {
        let header = dword(at);
        found.push(header & 0xff);
        match header & 0xff {
            0x05 => assert_eq!(header >> 16 & 0x18e, 0x184, "64-bit, maskable, 4 messages"),
            0x10 => {
                assert_eq!(header >> 20 & 0xf, 9, "root complex integrated endpoint");
                assert_eq!(dword(at + 4) >> 28 & 1, 1, "function-level reset");
            }
            _ => {}
        }
        at = u64::from(header >> 8 & 0xff);
    }
    assert!(found.contains(&0x05) && found.contains(&0x10));
    assert_eq!(dword(0x100) & 0xffff, 0x001b);
    assert_eq!(dword(0x104) >> 8 & 0x1f, 16, "PASIDs of 16 bits, as wide as a queue context's field");
}

/// The accesses of the PF's probe, in the driver's order.
#[test]
fn probe_of_the_linux_driver_finds_what_it_expects() {
    let machine = Machine::new();

    assert_eq!(machine.read(QmReg::QUE_ISO_CFG), 1, "doorbell pages in BAR4");
    assert_eq!(machine.read(QmReg::CAPABILITY), 0x601);
    let caps = [3, 4, 5, 6, 7].map(|word| machine.read(QmReg::CAPABILITY.at(word)));
    assert_eq!(caps, [0x1_0000, 0x1_0001, 0x1_0003, 0x2, 0x4_0003]);
    assert_eq!(machine.read(QmReg::QUEUE_NUMBERS), 0x0008_0400);
    assert_eq!(
        [11, 9, 10, 13].map(|word| machine.read(QmReg::CAPABILITY.at(word))),
        [0x8, 0x7c77, 0x6c77, 0x7fe]
    );
    machine.write(QmReg::DB_TIMEOUT_CFG, 0x1f_ffff);
    machine.modify(QmReg::PM_CTRL, 0, 0x200);
    machine.write(QmReg::MEM_START_INIT, 1);
    assert_eq!(machine.read(QmReg::MEM_INIT_DONE) & 1, 1);
    assert_eq!([1, 2].map(|word| machine.read(QmReg::CAPABILITY.at(word))), [0x0400_0800, 0x0400_0400]);
    assert_eq!(
        [15, 16, 17, 18].map(|word| machine.read(QmReg::CAPABILITY.at(word))),
        [0x1205_0203, 0x1c_0003, 0x30, 0x3f]
    );
    for reg in [
        QmReg::ARUSER_M_CFG_1,
        QmReg::ARUSER_M_CFG_ENABLE,
        QmReg::AWUSER_M_CFG_1,
        QmReg::AWUSER_M_CFG_ENABLE,
        QmReg::WUSER_M_CFG_ENABLE,
        QmReg::AXI_M_CFG,
        QmReg::AXI_M_CFG_ENABLE,
        QmReg::PEH_AXUSER_CFG,
        QmReg::PEH_AXUSER_CFG_ENABLE,
    ] {
        machine.write(reg, 0x4000_1070);
        assert_eq!(machine.read(reg), 0x4000_1070);
    }
    for at in [
        ZipReg::PORT_ARCA_CHE.at(0),
        ZipReg::PORT_ARCA_CHE.at(1),
        ZipReg::PORT_AWCA_CHE.at(0),
        ZipReg::PORT_AWCA_CHE.at(1),
        ZipReg::BD_RUSER_32_63.offset(),
        ZipReg::BD_WUSER_32_63.offset(),
        ZipReg::DATA_RUSER_32_63.offset(),
        ZipReg::DATA_WUSER_32_63.offset(),
        ZipReg::SGL_RUSER_32_63.offset(),
    ] {
        machine.write(at, 0x4000_1070);
        assert_eq!(machine.read(at), 0x4000_1070);
    }
    machine.write(ZipReg::CLOCK_GATE_CTRL, 0x1_001f);
    machine.write(QmReg::CACHE_CTL, 0x1833);
    machine.write(ZipReg::HIGH_PERF, machine.read(ZipReg::HIGH_PERF) & !1);
    machine.modify(ZipReg::CLOCK_GATE_CTRL, 0, 0x2000_ff00);
    machine.modify(ZipReg::PEH_CFG_AUTO_GATE, 0, 1);
    machine.write(QmReg::ABNORMAL_INT_SOURCE, 0x7c7f);
    machine.write(QmReg::RAS_CE_ENABLE, 0x8);
    machine.write(QmReg::RAS_CE_THRESHOLD, 1);
    machine.write(QmReg::RAS_NFE_ENABLE, 0x7c77);
    machine.write(QmReg::RAS_FE_ENABLE, 0);
    machine.write(QmReg::OOO_SHUTDOWN_SEL, 0x6c77);
    machine.modify(QmReg::ABNORMAL_INT_MASK, 0x7c7f, 0);
    machine.write(ZipReg::CORE_INT_SOURCE, 0x1fff);
    machine.write(ZipReg::RAS_CE_ENB, 1);
    machine.write(ZipReg::RAS_FE_ENB, 0);
    machine.write(ZipReg::RAS_NFE_ENB, 0x1ffe);
    machine.write(ZipReg::OOO_SHUTDOWN_SEL, 0x7fe);
    machine.modify(ZipReg::SOFT_CTRL_ZIP_CONTROL, 0, 1 << 14);
    machine.write(ZipReg::CORE_INT_MASK, 0);
    machine.write(ZipReg::SOFT_CTRL_CNT_CLR_CE, 5);
    machine.write(ZipReg::SOFT_CTRL_CNT_CLR_CE, 0);
    for reg in
        [QmReg::DFX_MB_CNT_VF, QmReg::DFX_DB_CNT_VF, QmReg::DFX_SQE_CNT_VF_SQN, QmReg::DFX_CQE_CNT_VF_CQN]
    {
        machine.write(reg, 0);
    }
    machine.write(QmReg::DFX_CNT_CLR_CE, 1);
    for reg in [
        QmReg::DFX_ECC_1BIT_CNT,
        QmReg::DFX_ECC_MBIT_CNT,
        QmReg::DFX_MB_CNT,
        QmReg::DFX_DB_CNT,
        QmReg::DFX_SQE_CNT,
        QmReg::DFX_CQE_CNT,
        QmReg::DFX_SEND_SQE_TO_ACC_CNT,
        QmReg::DFX_WB_SQE_FROM_ACC_CNT,
        QmReg::DFX_ACC_FINISH_CNT,
        QmReg::DFX_CQE_ERR_CNT,
    ] {
        machine.read(reg);
    }
    machine.write(QmReg::DFX_CNT_CLR_CE, 0);
    assert_eq!(
        [QmReg::ABNORMAL_INT_STATUS.offset(), ZipReg::CORE_INT_STATUS.offset()].map(|at| machine.read(at)),
        [0, 0]
    );
    machine.start(64);
    // debugfs: all registers once, twice the same.
    let all = || {
        (QmReg::ABNORMAL_INT_SOURCE.offset()..QmReg::SHAPER_CFG.offset())
            .chain(QmReg::DFX_ECC_1BIT_CNT.offset()..QmReg::DFX_CQE_ERR_CNT.offset())
            .chain(QmReg::AEQ_INT_SOURCE.offset()..QmReg::MAILBOX.at(2))
            .step_by(4)
            .map(|at| machine.read(at))
            .collect::<Vec<_>>()
    };
    assert_eq!(all(), all());
    assert_eq!(machine.read(QmReg::DFX_IN_IDLE_ST), 1, "idle");
    assert_eq!(machine.vectors(), [0_u32; 0], "nothing has happened");
}

#[test]
fn access_of_8_bytes_is_two_registers_and_narrow_writes_are_bad() {
    let machine = Machine::new();
    machine.write64(QmReg::VFT_CFG_DATA_L, 0x1111_2222_3333_4444);
    assert_eq!(
        (machine.read(QmReg::VFT_CFG_DATA_L), machine.read(QmReg::VFT_CFG_DATA_H)),
        (0x3333_4444, 0x1111_2222)
    );
    let mut data = [0; 8];
    machine.zip.bar_read(2, QmReg::VFT_CFG_DATA_L.offset(), &mut data).unwrap();
    assert_eq!(u64::from_le_bytes(data), 0x1111_2222_3333_4444);
    let mut byte = [0];
    machine.zip.bar_read(2, QmReg::VFT_CFG_DATA_L.offset() + 1, &mut byte).unwrap();
    assert_eq!(byte, [0x44]);
    assert!(machine.zip.bar_write(2, QmReg::VFT_CFG_DATA_L.offset(), &[1]).is_err());
    assert!(machine.zip.bar_read(0, 0, &mut byte).is_err());
}

// ---- function table and mailbox

#[test]
fn function_table_entry_reads_back_through_registers_and_mailbox() {
    let machine = Machine::new();
    machine.set_vft(0, 63 << 45 | 1 << 44 | 5 << 28);
    machine.write(QmReg::VFT_CFG_OP_WR, 1);
    machine.write(QmReg::VFT_CFG_TYPE, 0);
    machine.write64(QmReg::VFT_CFG_DATA_L, 0);
    machine.write(QmReg::VFT_CFG_RDY, 0);
    machine.write(QmReg::VFT_CFG_OP_ENABLE, 1);
    assert_eq!(machine.read(QmReg::VFT_CFG_RDY), 1);
    assert_eq!(
        (machine.read(QmReg::VFT_CFG_DATA_L), machine.read(QmReg::VFT_CFG_DATA_H)),
        (0x5000_0000, 0x7_f000)
    );
    // Without bus mastering, as a probe before it is enabled.
    let _ = machine.zip.config().write(4, &2_u16.to_le_bytes());
    assert_eq!(machine.mailbox(0x4006, 0, 0), 0);
    assert_eq!(
        (machine.read(QmReg::MAILBOX.at(1)), machine.read(QmReg::MAILBOX.at(2))),
        (0x5000_0000, 0x7_f000)
    );
}

#[test]
fn contexts_dump_with_live_head_tail_phase_and_wrap() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(2, 0, None);
    for _ in 0..3 {
        for _ in 0..512 {
            submit(&machine, &mut ring, 1);
            machine.poll(&mut ring).unwrap();
            machine.ring_cq(&ring, false);
        }
    }
    let buffer = machine.alloc(128);
    assert_eq!(machine.mailbox(0x4000, 2, buffer), 0);
    assert_eq!(machine.mailbox(0x4001, 2, buffer + 32), 0);
    assert_eq!(machine.mailbox(0x4002, 0, buffer + 64), 0);
    assert_eq!(machine.mailbox(0x4003, 0, buffer + 96), 0);
    // 1536 tasks: index 512, wrapped once.
    assert_eq!(machine.word(buffer), 512 << 16 | 512);
    assert_eq!(machine.word(buffer + 12), 0x73ff);
    assert_eq!(machine.word(buffer + 20) >> 16 & 0x40, 0x40);
    assert_eq!(machine.word(buffer + 32), 512 << 16 | 512);
    assert_eq!(machine.word(buffer + 52) >> 16 & 0x40, 0x40);
    assert_eq!(machine.word(buffer + 56) & 3, 0, "phase 0, not armed");
    assert_eq!(machine.word(buffer + 64) >> 16, 1, "one event");
    assert_eq!(machine.word(buffer + 88), 0x1_07ff);
    assert_eq!(machine.word(buffer + 120), 0x1_03ff);
}

#[test]
fn bad_mailbox_commands_are_refused_and_the_mailbox_stays_usable() {
    let (machine, ..) = started();
    let good = machine.sqc(machine.alloc(1 << 20), 5, 0, None);
    let wrong_size = machine.sqc(machine.alloc(1 << 20), 5, 0, None);
    machine.ram.store_u32(Pa(wrong_size + 12), 0x63ff).unwrap();
    for (what, w0, qn, base) in [
        ("unknown command", 0xff, 0, 0),
        ("queue beyond the function's", 0x0, 64, good),
        ("queue beyond the device's", 0x1, 0xffff, good),
        ("context where nothing is", 0x0, 5, 0x1000),
        ("dump where nothing is", 0x4000, 5, 0x1000),
        ("SQE size of another engine", 0x0, 5, wrong_size),
        ("CQE size of another engine", 0x1, 5, good),
        ("stop of a queue beyond", 0x8, 64, 0),
        ("message between functions", 0xc, 0, 0),
        ("pause for migration", 0xe, 0, 0),
    ] {
        assert_ne!(machine.mailbox(w0, qn, base), 0, "{what}");
    }
    assert_eq!(machine.mailbox(0x0, 5, good), 0);
}

#[test]
fn table_bases_read_back() {
    let machine = Machine::new();
    for command in [0x4, 0x5] {
        assert_eq!(machine.mailbox(command, 0, 0x1_2345_6780), 0);
        assert_eq!(machine.mailbox(0x4000 | command, 0, 0), 0);
        assert_eq!(
            (machine.read(QmReg::MAILBOX.at(1)), machine.read(QmReg::MAILBOX.at(2))),
            (0x2345_6780, 1)
        );
    }
}

#[test]
fn cache_write_back_writes_live_contexts_and_always_reports_done() {
    let machine = Machine::new();
    machine.write(QmReg::CACHE_WB_START, 1);
    machine.run();
    assert_eq!(machine.read(QmReg::CACHE_WB_DONE) & 1, 1, "nothing to write, done");

    machine.start(64);
    let tables = machine.alloc(64 * 64);
    machine.mailbox(0x4, 0, tables);
    machine.mailbox(0x5, 0, tables + 64 * 32);
    let mut ring = machine.start_queue(3, 0, None);
    submit(&machine, &mut ring, 2);
    machine.write(QmReg::CACHE_WB_START, 1);
    assert_eq!(machine.read(QmReg::CACHE_WB_DONE) & 1, 0);
    machine.run();
    assert_eq!(machine.read(QmReg::CACHE_WB_DONE) & 1, 1);
    assert_eq!(machine.word(tables + 3 * 32), 2 << 16 | 2);
    assert_eq!(machine.word(tables + 64 * 32 + 3 * 32), 2 << 16);
    assert_eq!(machine.bytes(tables, 96), [0; 96], "queues that are not live are not written");
}

// ---- queues

#[test]
fn first_completion_raises_an_event_and_further_ones_only_after_arming() {
    let (machine, eq, _) = started();
    let mut ring = machine.start_queue(5, 0, None);
    submit(&machine, &mut ring, 2);
    assert_eq!(machine.vectors(), [0]);
    assert_eq!([eq, eq + 4].map(|at| machine.word(at)), [0x1_0005, 0]);

    // The kernel's loop: a doorbell for each entry without arming, the event doorbell, then the arming one.
    machine.poll(&mut ring).unwrap();
    machine.ring_cq(&ring, false);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 2 << 12);
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.vectors(), [0_u32; 0], "not armed");
    // Arming with entries that have not been seen raises the event at once.
    machine.ring_cq(&ring, true);
    machine.run();
    assert_eq!(machine.vectors(), [0]);
    assert_eq!(machine.word(eq + 4), 0x1_0005);

    machine.poll(&mut ring).unwrap();
    machine.poll(&mut ring).unwrap();
    machine.ring_cq(&ring, true);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 2 << 32 | 2 << 12);
    machine.run();
    assert_eq!(machine.vectors(), [0_u32; 0], "all seen: armed, no event");
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.vectors(), [0]);
    assert_eq!(machine.word(eq + 8), 0x1_0005);
}

/// Software that polls sees a completion as soon as it is in memory, and may have read it, armed for the next and gone to
/// sleep before the device has counted it.
#[test]
fn arming_after_a_completion_that_is_not_counted_yet_is_for_the_next_one() {
    for arms_at_once in [true, false] {
        let (machine, ..) = started();
        let mut ring = machine.start_queue(5, 0, None);
        let zip = machine.zip.clone();
        machine.spaces.react(ring.cq + 8, move || {
            ring_page(&zip, 5, cq_bell(5, 1, arms_at_once));
            if !arms_at_once {
                ring_page(&zip, 5, cq_bell(5, 1, true));
            }
        });
        submit(&machine, &mut ring, 1);
        assert_eq!(machine.vectors(), [0_u32; 0], "it has been read");
        submit(&machine, &mut ring, 1);
        assert_eq!(machine.vectors(), [0]);
        // What else the ring can take has not suffered.
        submit(&machine, &mut ring, 1022);
        assert_eq!((0..1024).filter_map(|_| machine.poll(&mut ring)).count(), 1024);
    }
}

#[test]
fn messages_leave_with_the_functions_requester_id() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(0, 0, Some(9));
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.msi.take(), [(hw::DeviceId(STREAM.0), 0x40)]);
    assert_eq!(STREAM, StreamId(8));
}

#[test]
fn interrupt_sources_tell_of_entries_until_the_doorbell_has_passed_them() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(5, 0, None);
    assert_eq!([QmReg::EQ_INT_SOURCE, QmReg::AEQ_INT_SOURCE].map(|reg| machine.read(reg)), [0, 0]);
    submit(&machine, &mut ring, 1);
    machine.write(QmReg::EQ_INT_SOURCE, 1);
    assert_eq!([QmReg::EQ_INT_SOURCE, QmReg::AEQ_INT_SOURCE].map(|reg| machine.read(reg)), [1, 0]);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 2 << 12);
    assert_eq!(machine.read(QmReg::EQ_INT_SOURCE), 0);

    let _ = machine.mailbox(0x1, 5, machine.cqc(0x10_0000, None));
    submit(&machine, &mut ring, 1);
    assert_eq!([QmReg::EQ_INT_SOURCE, QmReg::AEQ_INT_SOURCE].map(|reg| machine.read(reg)), [0, 1]);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 3 << 12);
    assert_eq!(machine.read(QmReg::AEQ_INT_SOURCE), 0);
}

#[test]
fn event_interrupt_stays_back_while_masked_in_either_place() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(5, 0, None);
    machine.write(QmReg::EQ_INT_MASK, 1);
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.vectors(), [0_u32; 0]);
    machine.write(QmReg::EQ_INT_MASK, 0);
    machine.run();
    assert_eq!(machine.vectors(), [0]);

    // The mask of the MSI capability: pending until it is cleared.
    let mut at = 0_u64;
    let config = machine.zip.config();
    let byte = |offset| {
        let mut data = [0];
        config.read(offset, &mut data);
        u64::from(data[0])
    };
    let mut next = byte(0x34);
    while next != 0 {
        at = if byte(next) == 5 { next } else { at };
        next = byte(next + 1);
    }
    let _ = config.write(at + 0x10, &1_u32.to_le_bytes());
    machine.poll(&mut ring).unwrap();
    machine.ring_cq(&ring, true);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 2 << 12);
    submit(&machine, &mut ring, 1);
    assert_eq!((machine.vectors(), byte(at + 0x14)), (vec![], 1));
    let _ = config.write(at + 0x10, &0_u32.to_le_bytes());
    machine.zip.qm().messages_unmasked();
    machine.run();
    assert_eq!((machine.vectors(), byte(at + 0x14)), (vec![0], 0));
}

#[test]
fn ring_wraps_with_phase_and_order_over_many_turns() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(1, 0, None);
    let mut expected = 0;
    for batch in [1000, 1023, 500, 1, 1023, 700] {
        submit(&machine, &mut ring, batch);
        for _ in 0..batch {
            assert_eq!(machine.poll(&mut ring), Some(expected));
            expected = (expected + 1) % 1024;
        }
        assert_eq!(machine.poll(&mut ring), None);
        machine.ring_cq(&ring, false);
    }
}

#[test]
fn full_completion_queue_is_told_once_loses_nothing_and_goes_on() {
    let (machine, _, aeq) = started();
    let mut ring = machine.start_queue(4, 0, None);
    submit(&machine, &mut ring, 1023);
    submit(&machine, &mut ring, 5);
    machine.vectors();
    let overflow = 1 << 16 | 4;
    assert_eq!([aeq, aeq + 4].map(|at| machine.word(at)), [overflow, 0]);
    assert_eq!(machine.errors.counted(), [("completion queues without room", 1)]);
    for expected in 0..1023 {
        assert_eq!(machine.poll(&mut ring), Some(expected));
    }
    assert_eq!(machine.poll(&mut ring), None);
    machine.ring_cq(&ring, false);
    machine.run();
    for expected in [1023, 0, 1, 2, 3] {
        assert_eq!(machine.poll(&mut ring), Some(expected));
    }
}

#[test]
fn doorbells_that_mean_nothing_are_ignored() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(4, 0, None);
    machine.put(&mut ring, &nothing());
    for (what, bell) in [
        ("queue that was never started", 1 << 32 | 5),
        ("queue beyond the function's", 1 << 32 | 64),
        ("queue beyond the device's", 1 << 32 | 0xfff),
        ("index beyond the ring", 1024 << 32 | 4),
        ("wrong random value", 1 << 32 | 0xaaaa << 16 | 4),
        ("command 15", 1 << 32 | 15 << 12 | 4),
        ("restart after migration", 1 << 48 | 1 << 32 | 4),
    ] {
        machine.write64(QmReg::DOORBELL_SQ_CQ, bell);
        machine.run();
        assert_eq!(machine.poll(&mut ring), None, "{what}");
    }
    let counted = machine.errors.counted();
    assert_eq!(counted[0], ("doorbells to queues that are not there", 2));
    assert_eq!(counted[1..], [("doorbells with an index outside the ring", 1)]);
    // In two halves it is a doorbell like any other.
    machine.write(QmReg::DOORBELL_SQ_CQ, 4);
    machine.write(QmReg::DOORBELL_SQ_CQ.offset() + 4, 1);
    machine.run();
    assert_eq!(machine.poll(&mut ring), Some(0));
}

#[test]
fn doorbell_page_rings_its_own_queue_whatever_the_data_say_and_shows_nothing() {
    let (machine, ..) = started();
    let mut mine = machine.start_queue(4, 0, Some(7));
    let mut other = machine.start_queue(5, 0, Some(8));
    machine.put(&mut mine, &nothing());
    machine.put(&mut other, &nothing());
    machine.ring_page(4, 1 << 32 | 5);
    machine.run();
    assert_eq!((machine.poll(&mut mine), machine.poll(&mut other)), (Some(0), None));

    let mut data = [0xff; 8];
    machine.zip.bar_read(4, 0x4_0300, &mut data).unwrap();
    assert_eq!(data, [0; 8]);
    // Where the page of registers has the mailbox there is nothing.
    machine.zip.bar_write(4, 0x4_0300, &[0xff; 16]).unwrap();
    assert_eq!(machine.read(QmReg::MAILBOX) & 0x2000, 0);
    // Nor can a process move the function's event queue.
    machine.ring_page(4, 5 << 32 | 2 << 12);
    let dump = machine.alloc(32);
    machine.mailbox(0x4002, 0, dump);
    assert_eq!(machine.word(dump) & 0xffff, 0);
    // Halves of two queues do not mix; both addresses work.
    machine.zip.bar_write(4, 0x5_1000, &5_u32.to_le_bytes()).unwrap();
    machine.zip.bar_write(4, 0x4_1000, &0xaaaa_0004_u32.to_le_bytes()).unwrap();
    machine.zip.bar_write(4, 0x5_1004, &1_u32.to_le_bytes()).unwrap();
    machine.run();
    assert_eq!(machine.poll(&mut other), Some(0));
}

#[test]
fn each_way_to_stop_makes_later_doorbells_void_until_the_queue_starts_again() {
    type Stop = fn(&Machine);
    let stops: [(&str, Stop); 6] = [
        ("STOP_QP", |machine| assert_eq!(machine.mailbox(0x8, 6, 0), 0)),
        ("FLUSH_QM", |machine| assert_eq!(machine.mailbox(0x9, 0, 0), 0)),
        ("no queues in the table", |machine| machine.set_vft(0, 0)),
        ("MEM_START_INIT", |machine| machine.write(QmReg::MEM_START_INIT, 1)),
        ("AXI master shut", |machine| {
            machine.write(QmReg::AM_CTRL_GLOBAL, 1);
            assert_eq!(machine.read(QmReg::AM_CURR_TRANS_RETURN), 3);
            machine.write(QmReg::AM_CTRL_GLOBAL, 0);
        }),
        ("function-level reset", |machine| machine.zip.function_reset()),
    ];
    for (what, stop) in stops {
        let (machine, ..) = started();
        let mut ring = machine.start_queue(6, 0, None);
        submit(&machine, &mut ring, 1);
        assert!(machine.poll(&mut ring).is_some(), "{what}");
        stop(&machine);
        submit(&machine, &mut ring, 1);
        assert_eq!(machine.poll(&mut ring), None, "{what}");
        machine.vectors();
        machine.start(64);
        let mut ring = machine.start_queue_at(ring.sq, 6, 0, None);
        submit(&machine, &mut ring, 1);
        assert_eq!(machine.poll(&mut ring), Some(0), "{what}");
        assert_eq!(machine.vectors(), [0], "{what}");
    }
}

#[test]
fn stop_qp_finishes_what_the_last_doorbell_gave() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(6, 0, None);
    for _ in 0..100 {
        machine.put(&mut ring, &nothing());
    }
    machine.ring_sq(&ring);
    machine.post_mailbox(0x8, 6, 0);
    assert!(machine.mailbox_is_busy());
    // Too late.
    machine.put(&mut ring, &nothing());
    machine.ring_sq(&ring);
    machine.run();
    assert!(!machine.mailbox_is_busy());
    for expected in 0..100 {
        assert_eq!(machine.poll(&mut ring), Some(expected));
    }
    assert_eq!(machine.poll(&mut ring), None);
}

#[test]
fn stop_qp_that_takes_too_long_drops_the_rest() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(6, 0, None);
    for _ in 0..100 {
        machine.put(&mut ring, &nothing());
    }
    machine.ring_sq(&ring);
    machine.post_mailbox(0x8, 6, 0);
    machine.pass_ns(799_999);
    assert!(machine.mailbox_is_busy());
    machine.pass_ns(1);
    assert!(!machine.mailbox_is_busy());
    machine.run();
    assert_eq!(machine.poll(&mut ring), None);
    assert_eq!(machine.mailbox(0x4006, 0, 0), 0, "the mailbox serves the next command");
}

#[test]
fn ring_that_cannot_be_read_or_written_is_an_error_of_the_function() {
    let (machine, ..) = started();
    machine.write(QmReg::ABNORMAL_INT_MASK, 0);
    let hole = 0x10_0000;
    assert_eq!(machine.mailbox(0x0, 6, machine.sqc(hole, 6, 0, None)), 0);
    assert_eq!(machine.mailbox(0x1, 6, machine.cqc(machine.alloc(16384), None)), 0);
    machine.write64(QmReg::DOORBELL_SQ_CQ, 1 << 32 | 6);
    machine.run();
    assert_eq!(machine.read(QmReg::ABNORMAL_INT_STATUS), 1, "AXI read response");
    assert_eq!(machine.errors.counted(), [("queues whose rings cannot be accessed", 1)]);
    assert_eq!(machine.vectors(), [3]);
    machine.write(QmReg::ABNORMAL_INT_SOURCE, 1);
    assert_eq!(machine.read(QmReg::ABNORMAL_INT_STATUS), 0);
}

#[test]
fn completion_that_cannot_be_written_is_an_asynchronous_event() {
    let (machine, _, aeq) = started();
    let sq = machine.alloc(131_072);
    assert_eq!(machine.mailbox(0x0, 6, machine.sqc(sq, 6, 0, None)), 0);
    assert_eq!(machine.mailbox(0x1, 6, machine.cqc(0x10_0000, None)), 0);
    machine.write64(QmReg::DOORBELL_SQ_CQ, 2 << 32 | 6);
    machine.run();
    assert_eq!([aeq, aeq + 4].map(|at| machine.word(at)), [2 << 17 | 1 << 16 | 6, 0]);
    assert_eq!(machine.vectors(), [1]);
    assert_eq!(machine.read(QmReg::DFX_CQE_ERR_CNT), 1);
}

#[test]
fn counters_follow_their_selectors_and_clear_only_when_told() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(7, 0, None);
    submit(&machine, &mut ring, 3);
    machine.write(QmReg::DFX_SQE_CNT_VF_SQN, 7 << 16);
    machine.write(QmReg::DFX_CQE_CNT_VF_CQN, 7 << 16);
    assert_eq!(
        [
            QmReg::DFX_SQE_CNT,
            QmReg::DFX_CQE_CNT,
            QmReg::DFX_SEND_SQE_TO_ACC_CNT,
            QmReg::DFX_WB_SQE_FROM_ACC_CNT,
            QmReg::DFX_ACC_FINISH_CNT
        ]
        .map(|reg| machine.read(reg)),
        [3; 5]
    );
    machine.write(QmReg::DFX_SQE_CNT_VF_SQN, 8 << 16);
    assert_eq!(machine.read(QmReg::DFX_SQE_CNT), 0);
    machine.write(QmReg::DFX_SQE_CNT_VF_SQN, 7 << 16 | 1);
    assert_eq!(machine.read(QmReg::DFX_SQE_CNT), 0, "of another function");
    machine.write(QmReg::DFX_CNT_CLR_CE, 1);
    assert_eq!([machine.read(QmReg::DFX_ACC_FINISH_CNT), machine.read(QmReg::DFX_ACC_FINISH_CNT)], [3, 0]);
    assert_eq!(machine.read(QmReg::DFX_EQE_OUT), 1, "one event");
}

#[test]
fn injected_error_that_software_has_told_to_shut_the_master_does() {
    let (machine, ..) = started();
    let mut ring = machine.start_queue(7, 0, None);
    machine.write(QmReg::OOO_SHUTDOWN_SEL, 1 << 2);
    machine.write(QmReg::ABNORMAL_INT_MASK, 0x7fff & !(1 << 2));
    machine.write(QmReg::ABNORMAL_INT_SET, 1 << 2);
    machine.run();
    assert_eq!(machine.vectors(), [3]);
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.poll(&mut ring), None);
}

// ---- anything at all

#[derive(Clone, Debug)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Mailbox(u16, u16, u64),
    Bell(u64, u64),
    Time(u64),
    Reset,
    Run,
}

fn access() -> impl Strategy<Value = Access> {
    let offset = prop_oneof![
        0_u64..0x400,
        0x1000_u64..0x1010,
        0x2000_u64..0x2010,
        0x3100_u64..0x3180,
        0x10_0000_u64..0x10_0300,
        0x10_4000_u64..0x10_4200,
        0x30_0000_u64..0x30_0200,
        0x30_1000_u64..0x30_1300,
        0_u64..0x3f_fff0,
    ];
    let len = prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), Just(16)];
    let address = prop_oneof![Just(0x4000_1000_u64), 0x4000_0000_u64..0x4001_0000, any::<u64>()];
    let bell = (0_u64..70, 0_u64..5, 0_u64..1100, 0_u64..3)
        .prop_map(|(qn, command, index, priority)| qn | command << 12 | index << 32 | priority << 48);
    prop_oneof![
        (offset.clone(), len.clone()).prop_map(|(at, len)| Access::Read(at, len)),
        (offset, len, any::<[u8; 16]>()).prop_map(|(at, len, data)| Access::Write(at, data[..len].to_vec())),
        (0_u16..0x10, any::<bool>(), 0_u16..70, address).prop_map(|(command, get, qn, at)| Access::Mailbox(
            command | u16::from(get) << 14,
            qn,
            at
        )),
        (prop_oneof![Just(0x1000_u64), Just(0x2000), Just(0x4_1000)], bell)
            .prop_map(|(at, bell)| Access::Bell(at, bell)),
        (0_u64..1_000_000).prop_map(Access::Time),
        Just(Access::Reset),
        Just(Access::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_sequence_of_accesses_panics_or_hangs_and_each_can_be_saved_and_restored(
        contents in proptest::collection::vec(any::<u8>(), 4096),
        accesses in proptest::collection::vec(access(), 1..200),
    ) {
        let machine = Machine::new();
        machine.ram.write(Pa(0x4000_1000), &contents).unwrap();
        machine.start(64);
        for qn in 0..4 {
            machine.start_queue(qn, qn % 3, Some(qn).filter(|qn| qn % 2 == 0));
        }
        for access in accesses {
            match access {
                Access::Read(at, len) => {
                    let _ = machine.zip.bar_read(2, at, &mut vec![0; len]);
                }
                Access::Write(at, data) => {
                    let _ = machine.zip.bar_write(2, at, &data);
                }
                Access::Mailbox(w0, qn, at) => machine.post_mailbox(w0, qn, at),
                Access::Bell(0x4_1000, bell) => machine.ring_page(bell as u16 & 0xff, bell),
                Access::Bell(at, bell) => machine.write64(at, bell),
                Access::Time(ns) => machine.pass_ns(ns),
                Access::Reset => machine.zip.function_reset(),
                Access::Run => machine.run(),
            }
        }
        // In the midst of it, in another accelerator.
        machine.zip.quiesce();
        let (after, state) = (machine.successor(None), machine.zip.save());
        prop_assert_eq!(after.zip.restore(state.clone()), Ok(()));
        prop_assert_eq!(after.zip.save(), state);
        machine.zip.resume();
        for machine in [machine, after] {
            machine.run();
            machine.pass_ns(10_000_000);
            machine.run();
            prop_assert_eq!(machine.read(QmReg::AM_CURR_TRANS_RETURN), 3);
        }
    }
}
