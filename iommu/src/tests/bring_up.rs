//! The driver's way from probe to the first fault of a process, register by register.

use super::*;

/// Polls as the driver does after a write of an enable.
fn write_and_poll(m: &Bench, (offset, ack): (u64, u64), value: u32) {
    m.w32(offset, value);
    assert_eq!(m.r32(ack), value);
}

const CR0_AND_ACK: (u64, u64) = (CR0, CR0ACK);

#[test]
fn linux_probes_attaches_binds_and_serves_a_fault() {
    let m = Bench::reset(Features::default());

    // Hardware probe: what makes the driver give up, and what it needs for shared virtual addressing.
    let (idr0, idr1, idr5) = (m.r32(IDR0), m.r32(IDR1), m.r32(IDR5));
    assert_eq!(idr0 >> 2 & 3, 2, "AArch64 tables");
    assert_eq!(idr0 >> 21 & 3, 2, "little-endian");
    assert_ne!(idr0 & 2, 0, "stage 1");
    assert_eq!(idr0 >> 24 & 3, 0, "stalls");
    assert_ne!(idr0 & 1 << 4, 0, "coherent");
    assert_eq!(idr1 >> 28 & 7, 0, "no preset tables or queues");
    assert!(idr1 >> 21 & 0x1f > 6);
    assert_eq!((idr1 >> 6 & 0x1f, idr1 & 0x3f), (20, 16));
    assert_eq!(idr5 & 0x77, 0x75, "48 bits, all granules");

    // Device reset.
    write_and_poll(&m, CR0_AND_ACK, 0);
    m.w32(CR1, 0xd75);
    m.w32(CR2, 0x6);
    let (l1, l2) = (m.table(4096), m.table(16384));
    m.w64(STRTAB_BASE, 1 << 62 | l1);
    m.w32(STRTAB_BASE_CFG, 0x1_0210);
    m.w64(CMDQ_BASE, 1 << 62 | CMDQ | 7);
    m.w32(CMDQ_PROD, 0);
    m.w32(CMDQ_CONS, 0);
    write_and_poll(&m, CR0_AND_ACK, 8);
    m.command(0x04, 0x1f);
    m.sync();
    m.command(0x30, 0);
    m.sync();
    m.w64(EVENTQ_BASE, 1 << 62 | EVENTQ | 4);
    m.w32(EVENTQ_PROD, 0);
    m.w32(EVENTQ_CONS, 0);
    write_and_poll(&m, CR0_AND_ACK, 0xc);
    write_and_poll(&m, (IRQ_CTRL, IRQ_CTRLACK), 0);
    m.w64(GERROR_IRQ_CFG0, 0);
    m.w64(EVENTQ_IRQ_CFG0, DOORBELL);
    m.w32(SmmuReg::SMMU_EVENTQ_IRQ_CFG1.offset(), 1);
    m.w32(SmmuReg::SMMU_EVENTQ_IRQ_CFG2.offset(), 1);
    write_and_poll(&m, (IRQ_CTRL, IRQ_CTRLACK), 5);
    write_and_poll(&m, CR0_AND_ACK, 0xd);

    // Device probe: a second level table full of aborting entries appears without a command.
    for sid in 0..256 {
        m.put(l2 + 64 * sid, &[1]);
    }
    m.put(l1, &[l2 | 9]);
    let ste = l2 + 64 * u64::from(SID);
    let cfgi_ste = |dword: u64, value: u64| {
        m.put(ste + 8 * dword, &[value]);
        m.command(0x10_0000_0003, 1);
        m.sync();
    };

    // Attach of the DMA domain: context 0, then the entry in two steps; aborts silently in between.
    let (cdl1, cdleaf, dma_root) = (m.table(8192), m.table(65536), m.table(4096));
    m.put(cdl1, &[cdleaf | 1]);
    m.command(0x10_0000_0005, 0);
    m.sync();
    let write_cd = |ssid: u64, d0: u64, root: u64| {
        m.put(cdleaf + 64 * ssid + 8, &[root, 0, 0xff]);
        m.command(0x10_0000_0005 | ssid << 12, 1);
        m.sync();
        m.put(cdleaf + 64 * ssid, &[d0]);
        m.command(0x10_0000_0005 | ssid << 12, 1);
        m.sync();
    };
    write_cd(0, 0x0001_f205_c000_3510, dma_root);
    cfgi_ste(1, 0xd6);
    assert!(m.read(&plain(), 0, 1).is_err());
    cfgi_ste(0, 0x8000_0000_0000_002b | cdl1);
    m.command(0x10_0000_0001, 0);

    // DMA through it, and its messages.
    m.map(dma_root, 0xffff_f000, DATA, USER_RW);
    m.map(dma_root, 0x800_0000, DOORBELL & !0xfff, USER_RW);
    m.write(&plain(), 0xffff_f010, b"ring").unwrap();
    m.write(&plain(), 0x800_0040, &[3, 0, 0, 0]).unwrap();
    assert_eq!(m.msi.take(), [(DeviceId(SID), 3)]);

    // Bind of a process, its first fault, the answer without a CMD_SYNC.
    let pgd = m.table(4096);
    write_cd(u64::from(PASID), 0x0002_f205_c000_3510, pgd);
    let va = 0x7f00_0000_1234;
    std::thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let smmu = &m.smmu;
        let access = scope.spawn(move || smmu.write(&process(), Iova(va), b"done"));
        let events = m.await_events(1);
        assert_eq!(events, [[0x10_0000_5810, 0x0000_0200_8000_0000, va, 0]]);
        assert_eq!(m.msi.take(), [(DeviceId(0xff), 1)]);
        m.map(pgd, va & !0xfff, DATA + 0x1000, USER_RW);
        m.command(0x10_0000_1044, events[0][1] & 0xffff);
        assert_eq!(access.join().unwrap(), Ok(()));
    });
    assert_eq!(m.dword(DATA + 0x1230) >> 32, u64::from(u32::from_le_bytes(*b"done")));

    // munmap: cleared, invalidated by range, gone.
    m.put(m.pte(pgd, va & !0xfff), &[0]);
    m.tlbi_va(2, va & !0xfff, 2);
    // Exit: the context stays, without tables, and aborts silently.
    m.put(cdleaf + 64 * u64::from(PASID), &[0x0002_c205_c000_4000]);
    m.command(0x10_0000_5005, 1);
    m.sync();
    m.tlbi_asid(2);
    assert_eq!(m.read(&process(), va, 1), aborted(va));
    assert_eq!(m.events(), [] as [Record; 0]);
    // Unbind: the context is cleared; accesses that still come are recorded.
    m.put(cdleaf + 64 * u64::from(PASID), &[0]);
    m.command(0x10_0000_5005, 1);
    m.sync();
    assert_eq!(m.read(&process(), va, 1), aborted(va));
    assert_eq!(m.events(), [[0x10_0000_580a, 0, 0, 0]]);
    assert_eq!(m.active_errors(), 0);
}

/// A kernel that crashed left translation on: the next one stops it with everything pending.
#[test]
fn translation_left_on_is_turned_off_with_gbpa_set_to_abort() {
    let m = Bench::new();
    m.process(0);
    assert_eq!(m.r32(GBPA) >> 31, 0);
    m.w32(GBPA, 1 << 31 | 1 << 20);
    assert_eq!(m.r32(GBPA), 1 << 20);
    write_and_poll(&m, CR0_AND_ACK, 0);
    assert_eq!(m.read(&plain(), DATA, 1), aborted(DATA));
}
