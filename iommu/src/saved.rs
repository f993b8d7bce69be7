//! The state as it is saved, and what a state must be to be taken up: what software could have written into registers, and
//! what the SMMU could have been waiting for.
//!
//! Deliberately absent: caches, which may be empty at any time; stalls that have no record; counts for the user.

use hw::ats::{PageResponse, PageResponseCode, PrgIndex};
use hw::regmap::{Access, RegisterMap};
use hw::saved::Hex;
use hw::timer::Later;
use hw::{Pasid, Registers, RestoreError, SavedState};
use serde::{Deserialize, Serialize};

use crate::ats::SavedInvalidations;
use crate::features::Features;
use crate::late_answers::{Answer, Delayed, LateAnswer, MOST_HELD};
use crate::smmu::Smmu;
use crate::spec::regs::{Gbpa, SmmuReg};
use crate::stalls::{ResumeAction, SavedStalls, Stalls};
use crate::state::State;

/// The state of an SMMU.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    registers: Registers,
    stalls: SavedStalls,
    invalidations: SavedInvalidations,
    /// Answers that a fault plan holds until their context ends.
    held_answers: Vec<SavedAnswer>,
    /// Answers that a fault plan delays.
    delayed_answers: Vec<Later<SavedAnswer>>,
}

impl SavedState for Saved {
    const VERSION: u32 = 1;
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum SavedCode {
    Success,
    InvalidRequest,
    ResponseFailure,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedAction {
    Retry,
    Abort,
}

/// An answer of software that has not been given yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAnswer {
    #[serde(rename = "StreamID", with = "hw::saved::hex")]
    sid: u32,
    #[serde(rename = "SubstreamID")]
    ssid: Option<Hex>,
    answer: SavedAnswerKind,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum SavedAnswerKind {
    #[serde(rename = "CMD_RESUME")]
    Resume {
        #[serde(rename = "STAG", with = "hw::saved::hex")]
        stag: u16,
        action: SavedAction,
    },
    #[serde(rename = "CMD_PRI_RESP")]
    Pages {
        pasid: Option<Hex>,
        #[serde(rename = "PRGIndex", with = "hw::saved::hex")]
        index: u16,
        #[serde(rename = "Resp")]
        code: SavedCode,
    },
}

impl SavedAnswer {
    fn of(late: &LateAnswer) -> Self {
        let answer = match late.answer {
            Answer::Resume(stag, action) => SavedAnswerKind::Resume {
                stag,
                action: match action {
                    ResumeAction::Retry => SavedAction::Retry,
                    ResumeAction::Abort => SavedAction::Abort,
                },
            },
            Answer::Pages(PageResponse { pasid, index, code }) => SavedAnswerKind::Pages {
                pasid: pasid.map(|pasid| Hex(pasid.get().into())),
                index: index.get(),
                code: match code {
                    PageResponseCode::Success => SavedCode::Success,
                    PageResponseCode::InvalidRequest => SavedCode::InvalidRequest,
                    PageResponseCode::ResponseFailure => SavedCode::ResponseFailure,
                },
            },
        };
        Self { sid: late.sid, ssid: late.ssid.map(|ssid| Hex(ssid.into())), answer }
    }

    fn take_up(&self) -> Result<LateAnswer, RestoreError> {
        let pasid = |number: Option<Hex>, name| match number {
            None => Ok(None),
            Some(Hex(number)) => u32::try_from(number)
                .ok()
                .and_then(Pasid::new)
                .map(Some)
                .ok_or_else(|| RestoreError::value(name, "has more than 20 bits")),
        };
        let answer = match self.answer {
            SavedAnswerKind::Resume { stag, action } => Answer::Resume(
                stag,
                match action {
                    SavedAction::Retry => ResumeAction::Retry,
                    SavedAction::Abort => ResumeAction::Abort,
                },
            ),
            SavedAnswerKind::Pages { pasid: number, index, code } => {
                if index >= PrgIndex::COUNT {
                    return Err(RestoreError::value("PRGIndex", "has more than nine bits"));
                }
                let code = match code {
                    SavedCode::Success => PageResponseCode::Success,
                    SavedCode::InvalidRequest => PageResponseCode::InvalidRequest,
                    SavedCode::ResponseFailure => PageResponseCode::ResponseFailure,
                };
                Answer::Pages(PageResponse {
                    pasid: pasid(number, "pasid")?,
                    index: PrgIndex::new(index),
                    code,
                })
            }
        };
        let ssid = pasid(self.ssid, "SubstreamID")?.map(Pasid::get);
        Ok(LateAnswer { sid: self.sid, ssid, answer })
    }
}

/// Registers with a value of their own; the others are the same for good.
fn is_saved(reg: SmmuReg) -> bool {
    match reg {
        SmmuReg::SMMU_CR0ACK | SmmuReg::SMMU_IRQ_CTRLACK | SmmuReg::SMMU_GERROR => true,
        reg => reg.info().access != Access::Ro,
    }
}

/// The bits that a register can have, by what software can write and what is offered.
fn possible_bits(features: &Features, reg: SmmuReg) -> u64 {
    let state = State::at_reset();
    let possible = |reg: SmmuReg| reg.possible(|condition| state.holds(features, condition));
    match reg {
        SmmuReg::SMMU_CR0ACK => possible(SmmuReg::SMMU_CR0),
        SmmuReg::SMMU_IRQ_CTRLACK => possible(SmmuReg::SMMU_IRQ_CTRL),
        SmmuReg::SMMU_GERROR => possible(SmmuReg::SMMU_GERRORN),
        // An update is complete when its write returns.
        SmmuReg::SMMU_GBPA => possible(reg) & !u64::from(u32::from(Gbpa::new().with_update(true))),
        _ => possible(reg),
    }
}

/// The registers of a state.
fn state_of(features: &Features, registers: Registers) -> Result<State, RestoreError> {
    let mut state = State::at_reset();
    registers.restore(is_saved, |reg, _, value| {
        if value & !possible_bits(features, reg) != 0 {
            return Err("has bits that software cannot set");
        }
        state.set(reg, value);
        Ok(())
    })?;
    for (acknowledgement, of) in
        [(SmmuReg::SMMU_CR0ACK, SmmuReg::SMMU_CR0), (SmmuReg::SMMU_IRQ_CTRLACK, SmmuReg::SMMU_IRQ_CTRL)]
    {
        if state.get(acknowledgement) != state.get(of) {
            return Err(RestoreError::value(acknowledgement.info().name, "is not what is acknowledged"));
        }
    }
    Ok(state)
}

impl Smmu {
    pub(crate) fn saved(&self) -> Saved {
        let held_answers = self.late_answers.held().iter().map(SavedAnswer::of).collect();
        let delayed = |Later { in_ns, step }| match step {
            // Its access is made again.
            Delayed::Retry(_) => None,
            Delayed::Answer(late) => Some(Later { in_ns, step: SavedAnswer::of(&late) }),
        };
        let delayed_answers = self.delays.save().into_iter().filter_map(delayed).collect();
        let invalidations = self.endpoints.save();
        let state = self.state();
        let registers = Registers::of(is_saved, |reg, _| state.get(reg));
        Saved { registers, stalls: state.stalls.save(), invalidations, held_answers, delayed_answers }
    }

    /// Takes a state up, on an SMMU that has just been made.
    pub(crate) fn take_up(&self, saved: Saved) -> Result<(), RestoreError> {
        let Saved { registers, stalls, invalidations, held_answers, delayed_answers } = saved;
        let _consumer = self.consumer();
        let mut state = state_of(&self.features, registers).map_err(|error| error.within("registers"))?;
        if !stalls.is_empty() && !state.cr0().smmuen() {
            return Err(RestoreError::value("stalls/recorded", "translation is off"));
        }
        state.stalls = Stalls::of_saved(stalls, &self.features).map_err(|error| error.within("stalls"))?;
        if held_answers.len() > MOST_HELD {
            return Err(RestoreError::value("held_answers", "more than are ever held"));
        }
        let held = held_answers
            .iter()
            .map(SavedAnswer::take_up)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.within("held_answers"))?;
        if !held.is_empty() && !self.faults.0.is_planned() {
            return Err(RestoreError::value("held_answers", "no fault plan is there that could hold them"));
        }
        let delayed = delayed_answers
            .into_iter()
            .map(|Later { in_ns, step }| Ok(Later { in_ns, step: Delayed::Answer(step.take_up()?) }))
            .collect::<Result<Vec<_>, RestoreError>>()
            .map_err(|error| error.within("delayed_answers"))?;
        self.delays.restore(delayed).map_err(|error| error.within("delayed_answers"))?;
        self.endpoints.restore(invalidations).map_err(|error| error.within("invalidations"))?;
        *self.late_answers.held() = held;
        // What is in the caches by accident of the order of calls is of no configuration that holds now.
        self.configs.invalidate_all(&self.age);
        self.tlb.reset(&self.age);
        let mut present = self.state();
        *present = state;
        self.set_mode(&present);
        Ok(())
    }
}
