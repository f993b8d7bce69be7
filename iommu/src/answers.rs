//! Answers of software to what waits: CMD_RESUME to stalled transactions, CMD_PRI_RESP to page requests. A fault plan can
//! change them, lose them, or hold them back.

use hw::ats::{PageResponse, PageResponseCode};
use hw::fault::FaultAction;
use hw::trace::{Ending, SliceKind};
use hw::{Pasid, StreamId, TimerTarget, Track};

use crate::faults::not_of_this_point;
use crate::late_answers::{Answer, Delayed, LateAnswer, MOST_HELD};
use crate::smmu::Smmu;
use crate::stalls::ResumeAction;
use crate::state::State;
use crate::stream;
use crate::transaction::Transaction;

impl Smmu {
    /// CMD_RESUME.
    pub(crate) fn answer_stall(&self, sid: u32, stag: u16, action: ResumeAction) {
        let mut state = self.state();
        let Some(stalled) = state.stalls.recorded(sid, stag) else { return };
        let (ssid, injected) = (stalled.ssid, self.faults.at_resume(sid, stalled));
        let action = match injected {
            None => action,
            Some(FaultAction::Abort { .. }) => ResumeAction::Abort,
            Some(injected) => {
                drop(state);
                return self
                    .hold_back(injected, LateAnswer { sid, ssid, answer: Answer::Resume(stag, action) });
            }
        };
        self.end_stall(&state, sid, stag);
        state.stalls.resume(sid, stag, action);
    }

    /// A timeline's stall ends with its answer, not when its thread comes to run.
    fn end_stall(&self, state: &State, sid: u32, stag: u16) {
        let command = state.stalls.recorded(sid, stag).and_then(|stalled| stalled.command);
        if let Some(track) = Track::of_command(StreamId(sid), command) {
            self.trace.end(track, SliceKind::Stall, Ending::Said("answered"));
        }
    }

    /// CMD_PRI_RESP.
    pub(crate) fn answer_pages(&self, sid: u32, response: PageResponse) {
        let code = match self.faults.at_page_response(sid, &response) {
            None => response.code,
            Some(FaultAction::Failure) => PageResponseCode::ResponseFailure,
            Some(FaultAction::Invalid) => PageResponseCode::InvalidRequest,
            Some(FaultAction::Duplicate) => {
                self.endpoints.respond(sid, &response);
                response.code
            }
            Some(injected) => {
                let ssid = response.pasid.map(Pasid::get);
                return self.hold_back(injected, LateAnswer { sid, ssid, answer: Answer::Pages(response) });
            }
        };
        self.endpoints.respond(sid, &PageResponse { code, ..response });
    }

    /// An answer that is not given now.
    #[cold]
    fn hold_back(&self, injected: FaultAction, answer: LateAnswer) {
        match injected {
            FaultAction::Delay { delay } => self.delays.later(delay, Delayed::Answer(answer)),
            FaultAction::AfterUnbind => {
                let mut held = self.late_answers.held();
                if held.len() < MOST_HELD {
                    held.push(answer);
                } else {
                    drop(held);
                    self.give(&answer);
                }
            }
            FaultAction::Drop => {}
            other => not_of_this_point(other),
        }
    }

    pub(crate) fn give(&self, late: &LateAnswer) {
        match late.answer {
            Answer::Resume(stag, action) => {
                let mut state = self.state();
                self.end_stall(&state, late.sid, stag);
                state.stalls.resume(late.sid, stag, action);
            }
            Answer::Pages(response) => self.endpoints.respond(late.sid, &response),
        }
    }

    /// Configurations have changed: the answers that are held for contexts that are no longer valid are given.
    pub(crate) fn give_answers_of_ended_contexts(&self) {
        if self.late_answers.held().is_empty() {
            return;
        }
        let table = self.state().stream_table(&self.features);
        let has_ended = |late: &mut LateAnswer| {
            let tx = Transaction::probe(late.sid, late.ssid);
            stream::fetch(&self.ram, &self.features, &table, &tx).is_err()
        };
        let given: Vec<LateAnswer> = self.late_answers.held().extract_if(.., has_ended).collect();
        given.iter().for_each(|late| self.give(late));
    }
}

impl TimerTarget<Delayed> for Smmu {
    fn step(&self, step: Delayed) {
        match step {
            Delayed::Retry(stalled) => stalled.answer(ResumeAction::Retry),
            Delayed::Answer(answer) => {
                let _one_at_a_time = self.late_answers.held();
                // A reset waits for the steps that are being carried out before it ends: what finds one under way is of before.
                if !self.is_in_reset() {
                    self.give(&answer);
                }
            }
        }
    }
}
