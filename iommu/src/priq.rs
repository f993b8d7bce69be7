//! Page request queue: what becomes of a page request when it comes in (chapter 8).
//!
//! A request is either recorded, and then answered by CMD_PRI_RESP, or answered at once as the architecture says. Stop
//! markers are never answered. Requests aren't checked against the stream table: software decides about each. With
//! IDR3.PPS responses to overflows have the PASID whatever the stream, so STE.PPAR is deliberately absent.

use hw::ats::{PageRequest, PageResponse, PageResponseCode};
use hw::fault::FaultAction;
use hw::{Pa, Pasid};

use crate::faults::not_of_this_point;
use crate::interrupts::Interrupt;
use crate::queue::Ring;
use crate::smmu::Smmu;
use crate::spec::pri::{PRI_BYTES, PriD0, PriD1};
use crate::spec::regs::{PRIQ_IRQ_CFG2_LO, QueueBase, SmmuReg, gerror, queue_index};
use crate::state::State;
use crate::stats::count;

/// Whether a page request is answered at once.
enum Response {
    /// It is in the queue, or it is a stop marker, or not the last of its group.
    None,
    Immediate(PageResponse),
}

impl Smmu {
    pub(crate) fn page_request_ring(&self, state: &State) -> Ring {
        let base = QueueBase::from(state.get(SmmuReg::SMMU_PRIQ_BASE));
        Ring::new(base, self.features.priq_log2, PRI_BYTES, self.features.output_mask())
    }

    /// Takes a page request in.
    pub(crate) fn take_page_request(&self, request: &PageRequest) {
        count(&self.stats.page_requests);
        if request.last && !request.is_stop_marker() {
            self.page_faults.count(self.clock.now_ns());
        }
        let response = self.queue_page_request(&mut self.state(), request);
        if let Response::Immediate(response) = response {
            self.endpoints.respond(request.tag.stream.0, &response);
        }
    }

    fn queue_page_request(&self, state: &mut State, request: &PageRequest) -> Response {
        let answered = |code, pasid| match request.is_stop_marker() {
            true => Response::None,
            false => Response::Immediate(PageResponse { pasid, index: request.index, code }),
        };
        let failed = || answered(PageResponseCode::ResponseFailure, None);
        let cr0 = state.cr0();
        let is_on = self.features.pri && cr0.priqen() && cr0.smmuen();
        if !is_on || state.active_errors() & gerror::PRIQ_ABT_ERR != 0 {
            return failed();
        }
        let ring = self.page_request_ring(state);
        let prod = state.word(SmmuReg::SMMU_PRIQ_PROD);
        let cons = state.word(SmmuReg::SMMU_PRIQ_CONS);
        let last_only = state.word(SmmuReg::SMMU_PRIQ_IRQ_CFG2) & PRIQ_IRQ_CFG2_LO != 0;
        let has_overflowed = (prod ^ cons) & queue_index::OVERFLOW != 0;
        let (counts_as_full, is_aborted) = match self.faults.at_page_request(request) {
            None => (false, false),
            Some(FaultAction::Overflow) => (true, false),
            Some(FaultAction::ExternalAbort) => (false, true),
            Some(other) => not_of_this_point(other),
        };
        // Software takes entries out of a full queue, and acknowledges the overflow then: so an injected overflow needs an
        // entry in the queue, and an empty queue takes the request first.
        if has_overflowed || ring.is_full(prod, cons) || counts_as_full && !ring.is_empty(prod, cons) {
            if !has_overflowed {
                state.set_word(SmmuReg::SMMU_PRIQ_PROD, prod ^ queue_index::OVERFLOW);
            }
            count(&self.stats.page_requests_lost);
            if !request.last {
                return Response::None;
            }
            if last_only {
                self.interrupt(state, Interrupt::Priq);
            }
            // On Success the endpoint asks for the translations again, and for the pages that are still missing.
            return answered(
                PageResponseCode::Success,
                request.tag.pasid.filter(|_| self.features.keeps_pasid_on_overflow()),
            );
        }
        let at = ring.entry(prod);
        let (d0, d1) = record(request, self.features.pasid(request.tag.pasid));
        let written =
            self.ram.store_u64(Pa(at), d0.into()).and_then(|()| self.ram.store_u64(Pa(at + 8), d1.into()));
        if written.is_err() || is_aborted {
            self.raise(state, gerror::PRIQ_ABT_ERR);
            return failed();
        }
        log::trace!("page request {d0:?} {d1:?}");
        let overflow = if counts_as_full { queue_index::OVERFLOW } else { 0 };
        state.set_word(SmmuReg::SMMU_PRIQ_PROD, ring.next(prod) | prod & queue_index::OVERFLOW ^ overflow);
        if if last_only { request.last } else { ring.is_empty(prod, cons) } {
            self.interrupt(state, Interrupt::Priq);
        }
        Response::None
    }
}

/// Without a PASID there is no privilege and no execution (chapter 8).
fn record(request: &PageRequest, pasid: Option<Pasid>) -> (PriD0, PriD1) {
    let tag = request.tag;
    let ssv = pasid.is_some();
    let d0 = PriD0::new()
        .with_sid(tag.stream.0)
        .with_ssid(pasid.map_or(0, Pasid::get))
        .with_privileged(ssv && tag.privileged)
        .with_x(ssv && tag.execute)
        .with_r(request.read)
        .with_w(request.write)
        .with_last(request.last)
        .with_ssv(ssv);
    let d1 = PriD1::new().with_prg_index(request.index.get()).with_address_63_12(request.address.0 >> 12);
    (d0, d1)
}
