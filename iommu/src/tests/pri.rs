//! Page requests (chapter 8, 4.5.2).

use hw::ats::{AtsPort, PageRequest, PageResponse, PageResponseCode, PrgIndex};

use super::*;

const OVFLG: u32 = 1 << 31;
const PRIQ_ABT_ERR: u32 = 1 << 3;
const MSI_PRIQ_ABT_ERR: u32 = 1 << 6;

/// A bench whose page request queue has `1 << log2` entries and is on.
fn bench(log2: u64) -> Bench {
    bench_with(log2, Features::default())
}

fn bench_with(log2: u64, features: Features) -> Bench {
    let m = Bench::reset(features);
    m.set_up(4);
    m.w64(PRIQ_BASE, PRIQ | log2);
    m.w32(IRQ_CTRL, 7);
    m.enable(SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
    m
}

fn request(index: u16, last: bool) -> PageRequest {
    PageRequest {
        tag: process().tag,
        address: Iova(0x7f00_0000_1234),
        read: true,
        write: true,
        last,
        index: PrgIndex::new(index),
    }
}

fn marker() -> PageRequest {
    PageRequest::stop_marker(StreamId(SID), Pasid::new(PASID).unwrap())
}

fn response(index: u16, code: PageResponseCode, has_pasid: bool) -> PageResponse {
    PageResponse { pasid: has_pasid.then(|| Pasid::new(PASID).unwrap()), index: PrgIndex::new(index), code }
}

fn take(endpoint: &Endpoint) -> Vec<PageResponse> {
    std::mem::take(&mut endpoint.responses.lock().unwrap())
}

#[test]
fn record_has_every_field_and_the_queue_tells_when_it_ceases_to_be_empty() {
    let m = bench(3);
    m.smmu.request_page(&request(3, true));
    assert_eq!([m.dword(PRIQ), m.dword(PRIQ + 8)], [0xf000_0005_0000_0010, 0x7f00_0000_1003]);
    assert_eq!((m.r32(PRIQ_PROD), m.priq.edges()), (1, 1));
    assert_eq!(m.r32(PRIQ_PROD - crate::WINDOW_BYTES / 2), 1, "the index shows in page 0 too");
    m.smmu.request_page(&PageRequest { write: false, ..request(0x1ff, false) });
    assert_eq!([m.dword(PRIQ + 16), m.dword(PRIQ + 24)], [0x9000_0005_0000_0010, 0x7f00_0000_11ff]);
    assert_eq!((m.r32(PRIQ_PROD), m.priq.edges()), (2, 1));
}

#[test]
fn privilege_and_execute_are_recorded_with_a_pasid_only() {
    let m = bench(3);
    let mut asked = request(0, true);
    (asked.tag.privileged, asked.tag.execute) = (true, true);
    m.smmu.request_page(&asked);
    asked.tag.pasid = None;
    m.smmu.request_page(&asked);
    assert_eq!([m.dword(PRIQ), m.dword(PRIQ + 16)], [0xfc00_0005_0000_0010, 0x7000_0000_0000_0010]);
}

#[test]
fn with_lo_the_queue_tells_of_last_requests() {
    let m = bench(3);
    m.w32(IRQ_CTRL, 5);
    m.w32(PRIQ_IRQ_CFG2, 1 << 31);
    m.w32(IRQ_CTRL, 7);
    m.smmu.request_page(&request(0, false));
    assert_eq!(m.priq.edges(), 0);
    m.smmu.request_page(&request(0, true));
    m.smmu.request_page(&request(1, true));
    assert_eq!(m.priq.edges(), 2);
}

#[test]
fn message_goes_where_the_registers_say_and_its_abort_is_a_global_error() {
    let m = bench(3);
    m.w32(IRQ_CTRL, 5);
    m.w64(PRIQ_IRQ_CFG0, DOORBELL);
    m.w32(PRIQ_IRQ_CFG1, 0x77);
    m.w32(IRQ_CTRL, 7);
    m.w64(PRIQ_IRQ_CFG0, HOLE);
    m.smmu.request_page(&request(0, true));
    assert_eq!(m.msi.take(), [(DeviceId(0xff), 0x77)], "configuration is fixed while PRIQ_IRQEN is 1");
    m.w32(IRQ_CTRL, 5);
    m.w64(PRIQ_IRQ_CFG0, HOLE);
    m.w32(IRQ_CTRL, 7);
    m.w32(PRIQ_CONS, 1);
    m.smmu.request_page(&request(0, true));
    assert_eq!(m.active_errors(), MSI_PRIQ_ABT_ERR);
}

#[test]
fn full_queue_answers_last_requests_with_success_until_the_overflow_is_acknowledged() {
    let m = bench(1);
    let endpoint = m.endpoint();
    for index in 0..2 {
        m.smmu.request_page(&request(index, true));
    }
    assert_eq!(take(&endpoint), []);
    m.smmu.request_page(&request(2, false));
    m.smmu.request_page(&marker());
    assert_eq!((m.r32(PRIQ_PROD), take(&endpoint)), (OVFLG | 2, vec![]));
    // Space, but no acknowledgement: not recorded.
    m.w32(PRIQ_CONS, 2);
    m.smmu.request_page(&request(3, true));
    assert_eq!(take(&endpoint), [response(3, PageResponseCode::Success, true)]);
    assert_eq!(m.r32(PRIQ_PROD), OVFLG | 2);
    m.w32(PRIQ_CONS, OVFLG | 2);
    m.smmu.request_page(&request(4, true));
    assert_eq!((m.r32(PRIQ_PROD), take(&endpoint)), (OVFLG | 3, vec![]));
    assert_eq!(m.smmu.stats().page_requests_lost, 3);
}

#[test]
fn without_the_queue_or_translation_every_request_fails_without_pasid_and_markers_get_nothing() {
    let m = bench(3);
    let endpoint = m.endpoint();
    for cr0 in [SMMUEN | EVENTQEN | CMDQEN, PRIQEN | EVENTQEN | CMDQEN] {
        m.enable(cr0);
        m.smmu.request_page(&request(5, true));
        m.smmu.request_page(&request(6, false));
        m.smmu.request_page(&marker());
        let failure = |index| response(index, PageResponseCode::ResponseFailure, false);
        assert_eq!(take(&endpoint), [failure(5), failure(6)], "CR0 {cr0:#x}");
    }
    assert_eq!(m.r32(PRIQ_PROD), 0);
}

#[test]
fn record_that_cannot_be_written_fails_and_stops_the_queue_until_acknowledged() {
    let m = bench(3);
    let endpoint = m.endpoint();
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.w64(PRIQ_BASE, HOLE | 3);
    m.enable(SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
    m.smmu.request_page(&request(5, true));
    m.smmu.request_page(&request(6, true));
    let failure = |index| response(index, PageResponseCode::ResponseFailure, false);
    assert_eq!(take(&endpoint), [failure(5), failure(6)]);
    assert_eq!((m.active_errors(), m.r32(PRIQ_PROD), m.gerror.edges()), (PRIQ_ABT_ERR, 0, 1));
    m.w32(GERRORN, m.r32(GERROR));
    m.smmu.request_page(&request(7, true));
    assert_eq!(m.active_errors(), PRIQ_ABT_ERR, "again");
}

#[test]
fn pri_resp_reaches_the_endpoint_with_its_code_and_with_a_pasid_if_ssv() {
    let m = bench(3);
    let endpoint = m.endpoint();
    m.command(0x0000_0010_0000_5841, 0x0003);
    m.command(0x0000_0010_0000_5841, 0x1004);
    m.command(0x0000_0010_0000_0041, 0x21ff);
    assert_eq!(
        take(&endpoint),
        [
            response(3, PageResponseCode::ResponseFailure, true),
            response(4, PageResponseCode::InvalidRequest, true),
            response(0x1ff, PageResponseCode::Success, false),
        ]
    );
    // To a stream without an endpoint: nothing to answer.
    m.command(0x0000_0011_0000_5841, 0x2003);
    assert_eq!(take(&endpoint), []);
}

#[test]
fn pri_resp_with_reserved_code_is_illegal_also_while_translation_is_off() {
    for cr0 in [SMMUEN | EVENTQEN | CMDQEN, EVENTQEN | CMDQEN] {
        let m = bench(3);
        m.enable(cr0);
        m.command(0x0000_0010_0000_5841, 0x3003);
        assert_eq!((m.active_errors(), m.r32(CMDQ_CONS)), (1, 1 << 24), "CR0 {cr0:#x}");
    }
}

#[test]
fn without_pri_registers_are_res0_and_the_command_is_illegal() {
    let m = Bench::reset(Features { pri: false, ..Features::default() });
    m.set_up(4);
    m.w64(PRIQ_BASE, PRIQ | 3);
    m.w32(PRIQ_CONS, 1);
    assert_eq!((m.r64(PRIQ_BASE), m.r32(PRIQ_CONS), m.r32(PRIQ_IRQ_CFG2)), (0, 0, 0));
    m.w32(CR0, SMMUEN | PRIQEN | CMDQEN);
    assert_eq!(m.r32(CR0ACK), SMMUEN | CMDQEN);
    m.w32(IRQ_CTRL, 7);
    assert_eq!(m.r32(IRQ_CTRLACK), 5);
    m.command(0x0000_0010_0000_5841, 3);
    assert_eq!(m.active_errors(), 1);
    assert_eq!(m.r32(IDR0) >> 16 & 1, 0);
}

#[test]
fn without_substreams_no_record_and_no_response_has_a_pasid() {
    let m = bench_with(1, Features { ssid_bits: 0, ..Features::default() });
    let endpoint = m.endpoint();
    let mut asked = request(3, true);
    (asked.tag.privileged, asked.tag.execute) = (true, true);
    m.smmu.request_page(&asked);
    assert_eq!([m.dword(PRIQ), m.dword(PRIQ + 8)], [0x7000_0000_0000_0010, 0x7f00_0000_1003]);
    m.command(0x0000_0010_0000_5841, 0x2003);
    m.smmu.request_page(&request(4, true));
    m.smmu.request_page(&request(5, true)); // there is no space for it
    m.smmu.request_page(&marker());
    let success = |index| response(index, PageResponseCode::Success, false);
    assert_eq!(take(&endpoint), [success(3), success(5)]);
}

#[test]
fn queue_registers_are_fixed_while_the_queue_is_on() {
    let m = bench(3);
    m.w64(PRIQ_BASE, 0);
    m.w32(PRIQ_PROD, 5);
    assert_eq!((m.r64(PRIQ_BASE), m.r32(PRIQ_PROD)), (PRIQ | 3, 0));
    // The bit counts, effective or not.
    m.enable(PRIQEN | CMDQEN);
    m.w64(PRIQ_BASE, 0);
    assert_eq!(m.r64(PRIQ_BASE), PRIQ | 3);
    m.enable(CMDQEN);
    m.w32(PRIQ_PROD, OVFLG | 0x25);
    assert_eq!(m.r32(PRIQ_PROD), OVFLG | 5, "no bits above the wrap bit");
}
