//! Answers of software that a fault plan holds back.

use std::sync::{Arc, Mutex, MutexGuard};

use hw::ats::PageResponse;

use crate::lock::lock;
use crate::stalls::{ResumeAction, Stalled};

/// Most answers that are held until their context ends; further ones are given at once.
pub(crate) const MOST_HELD: usize = 1024;

/// An answer to a stalled transaction, or to a group of page requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// CMD_RESUME, with its STAG.
    Resume(u16, ResumeAction),
    /// CMD_PRI_RESP.
    Pages(PageResponse),
}

/// An answer, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateAnswer {
    pub(crate) sid: u32,
    pub(crate) ssid: Option<u32>,
    pub(crate) answer: Answer,
}

/// What a fault plan has put off.
#[derive(Clone, Debug)]
pub(crate) enum Delayed {
    /// A stalled transaction is translated again, and found to stall then.
    Retry(Arc<Stalled>),
    /// An answer is given.
    Answer(LateAnswer),
}

/// Answers that are held until their context ends. The lock is also held while an answer is given whose time has come, so
/// that a reset knows that none is under way.
#[derive(Debug, Default)]
pub(crate) struct LateAnswers(Mutex<Vec<LateAnswer>>);

impl LateAnswers {
    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<LateAnswer>> {
        lock(&self.0)
    }
}
