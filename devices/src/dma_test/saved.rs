//! The state as it is saved. A command that a thread is at is begun anew, and so is the message at its end: what the SMMU
//! has recorded of an access that waited is then not recorded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw::ats::InvalidateTag;
use hw::regmap::{Access, RegisterMap};
use hw::saved::{hex, index_of};
use hw::{Registers, RestoreError, SavedState, Waiter};
use serde::{Deserialize, Serialize};

use super::command::Job;
use super::regs::{CHANNELS, Command, DmaTestReg, Status, Tag};
use super::{DmaTest, Front, HELD, Stage};
use crate::pci::ConfigState;

/// The state of the device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DmaTestState {
    config: ConfigState,
    /// Those that do not have their value of power-on.
    registers: Registers,
    /// By number; those that have something to do.
    channels: BTreeMap<String, SavedChannel>,
    /// Messages that were masked were on their way.
    is_messenger_sending: bool,
    /// Tags of Invalidate Requests that are held back.
    held: Vec<u64>,
}

impl SavedState for DmaTestState {
    const VERSION: u32 = 1;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedChannel {
    /// The command, as its registers were when it was started.
    command: Option<SavedJob>,
    /// The message of the command before it is on its way.
    is_message_sent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedJob {
    #[serde(rename = "CH_TAG", with = "hex")]
    tag: u32,
    #[serde(rename = "CH_LENGTH", with = "hex")]
    length: u32,
    #[serde(rename = "CH_ADDRESS", with = "hex")]
    address: u64,
    #[serde(rename = "CH_TARGET", with = "hex")]
    target: u64,
    #[serde(rename = "CH_DATA", with = "hex")]
    data: u64,
    #[serde(rename = "CH_GROUP", with = "hex")]
    group: u16,
    /// Its accesses have begun.
    is_begun: bool,
    is_given_up: bool,
}

fn is_saved(reg: DmaTestReg) -> bool {
    reg.info().access != Access::Wo
}

/// The bits of a register that can differ from its value of power-on.
fn possible(reg: DmaTestReg, has_ats: bool) -> u64 {
    match reg {
        DmaTestReg::DT_CTRL => 2,
        DmaTestReg::CH_STATUS => 0x7f,
        DmaTestReg::CH_FAULT => u64::MAX,
        DmaTestReg::CH_BYTES => DmaTestReg::CH_LENGTH.info().writable,
        DmaTestReg::CH_COUNT => u32::MAX.into(),
        DmaTestReg::DT_INV_COUNT | DmaTestReg::DT_PRG_COUNT if has_ats => u32::MAX.into(),
        DmaTestReg::DT_INV_ADDRESS | DmaTestReg::CH_ATS_ADDRESS if has_ats => u64::MAX,
        DmaTestReg::DT_INV_INFO if has_ats => 0xff3f_ffff,
        DmaTestReg::DT_PRG_INFO if has_ats => 0xf1ff,
        DmaTestReg::DT_PRG_PASID if has_ats => 0x800f_ffff,
        DmaTestReg::CH_ATS_INFO if has_ats => 0x3_ff3f,
        reg => reg.info().writable,
    }
}

/// Whether a channel can have this status, with a command under way or without.
fn is_possible_status(status: Status, is_busy: bool) -> bool {
    let ends = [status.aborted(), status.given_up(), status.bad_command(), status.mismatch()];
    let ends = ends.iter().filter(|end| **end).count();
    status.busy() == is_busy
        && ends <= usize::from(status.done())
        && !(is_busy && status.done())
        && (is_busy || status.done() || !status.dropped())
}

impl DmaTest {
    pub(super) fn saved(&self) -> DmaTestState {
        let front = self.lock();
        let channel = |(n, channel): (usize, &super::Channel)| {
            let job = channel.current.as_ref().or(channel.queued.as_ref());
            let command = job.map(|job| SavedJob {
                tag: job.tag.into(),
                length: job.length,
                address: job.address,
                target: job.target,
                data: job.data,
                group: job.group,
                is_begun: channel.current.is_some() || job.waiter.is_made_again(),
                is_given_up: job.waiter.is_cancelled(),
            });
            let is_message_sent = channel.is_unsent || channel.in_flight == Some(Stage::Message);
            let saved = SavedChannel { command, is_message_sent };
            (saved.command.is_some() || is_message_sent).then(|| (n.to_string(), saved))
        };
        let messenger = &front.messenger;
        DmaTestState {
            config: self.config.save(),
            registers: front.registers.save(),
            channels: front.channels.iter().enumerate().filter_map(channel).collect(),
            is_messenger_sending: messenger.is_sending || messenger.waiter.is_made_again(),
            held: front.held.iter().map(|tag| tag.0).collect(),
        }
    }

    pub(super) fn take_up(&self, saved: DmaTestState) -> Result<(), RestoreError> {
        let DmaTestState { config, registers, channels, is_messenger_sending, held } = saved;
        self.config.restore(config).map_err(|error| error.within("config"))?;
        let has_ats = self.ats.is_some();
        let mut guard = self.lock();
        let front = &mut *guard;
        registers
            .restore_changed(is_saved, |reg, index, value| {
                front.registers.restore(reg, index, value, possible(reg, has_ats))
            })
            .map_err(|error| error.within("registers"))?;
        if held.len() > if has_ats { HELD } else { 0 } {
            return Err(RestoreError::value("held", "more than are ever held back"));
        }
        front.held = held.into_iter().map(InvalidateTag).collect();
        for (key, saved) in channels {
            let within = |error: RestoreError| error.within("channels");
            let n = index_of(&key, CHANNELS).map_err(within)?;
            front.restore_channel(n, saved).map_err(|error| within(error.within(&key)))?;
            self.start_for(front, n);
        }
        for n in 0..CHANNELS {
            if !is_possible_status(front.status(n), front.channels[n].queued.is_some()) {
                let name = format!("registers/CH_STATUS[{n}]");
                return Err(RestoreError::value(name, "is none that the channel can have"));
            }
        }
        // Whether there are any is found by looking.
        front.messenger.is_due = true;
        front.messenger.waiter.set_made_again(is_messenger_sending);
        Ok(())
    }
}

impl Front {
    fn restore_channel(&mut self, n: usize, saved: SavedChannel) -> Result<(), RestoreError> {
        let SavedChannel { command, is_message_sent } = saved;
        let present = Command::from(self.registers.entry(DmaTestReg::CH_COMMAND, n) as u32);
        let has_had_one = u32::from(self.status(n)) != 0;
        let channel = &mut self.channels[n];
        if is_message_sent && !has_had_one {
            return Err(RestoreError::value("is_message_sent", "the channel has had no command"));
        }
        channel.is_unsent = is_message_sent;
        channel.message.set_made_again(is_message_sent);
        let Some(job) = command else { return Ok(()) };
        for (reg, value) in [
            (DmaTestReg::CH_TAG, u64::from(job.tag)),
            (DmaTestReg::CH_LENGTH, job.length.into()),
            (DmaTestReg::CH_GROUP, job.group.into()),
        ] {
            if value & !reg.info().writable != 0 {
                return Err(RestoreError::value(reg.info().name, "has bits that software cannot set"));
            }
        }
        if job.is_begun && is_message_sent {
            return Err(RestoreError::value("is_begun", "the message before it is still on its way"));
        }
        Waiter::replace(&mut channel.waiter);
        channel.waiter.set_made_again(job.is_begun);
        if job.is_given_up {
            channel.waiter.cancel();
        }
        channel.queued = Some(Job {
            command: present,
            tag: Tag::from(job.tag),
            length: job.length,
            address: job.address,
            target: job.target,
            data: job.data,
            group: job.group,
            waiter: Arc::clone(&channel.waiter),
            age: channel.age,
        });
        Ok(())
    }
}
