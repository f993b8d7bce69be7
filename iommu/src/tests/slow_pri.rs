//! A second model of page requests, slow and obvious: what software finds in registers and memory, and what devices
//! hear. Written from chapter 8, the circular queues (3.5.1), the command (4.5.2), the global errors (7.5) and the text
//! of each register; it shares no code with the first. `agreement_pri` compares the two.
//!
//! Deliberately absent: all that page requests don't ask, stream tables among it.

use std::collections::{BTreeMap, HashMap};

use super::slow::{bit, bits};
use super::*;

const CMDQ_ERR: u32 = 0;
const PRIQ_ABT_ERR: u32 = 3;
const MSI_PRIQ_ABT_ERR: u32 = 6;

const SUCCESS: u8 = 0b0000;
const INVALID_REQUEST: u8 = 0b0001;
const RESPONSE_FAILURE: u8 = 0b1111;

/// A page request message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) sid: u32,
    pub(super) pasid: Option<u32>,
    pub(super) address: u64,
    pub(super) group: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) execute: bool,
    pub(super) privileged: bool,
    pub(super) last: bool,
}

/// A response: who hears it, group index, response code, PASID.
pub(super) type Heard = (u32, u64, u8, Option<u32>);

#[derive(Debug, Default)]
pub(super) struct SlowPri {
    /// IDR0.PRI.
    has_pri: bool,
    /// IDR1.SSIDSIZE is not 0. IDR3.PPS is then 1.
    has_pasids: bool,
    /// IDR1.PRIQS.
    priqs: u64,
    /// Streams with a device.
    devices: Vec<u32>,
    pub(super) cr0: u32,
    pub(super) irq_ctrl: u32,
    pub(super) gerror: u32,
    pub(super) gerrorn: u32,
    pub(super) base: u64,
    prod: u64,
    cons: u64,
    irq_cfg0: u64,
    irq_cfg1: u32,
    irq_cfg2: u32,
    cmdq_prod: u64,
    pub(super) cmdq_cons: u64,
    /// What the SMMU has written to RAM, in words.
    pub(super) memory: BTreeMap<u64, u32>,
    /// The latest record.
    pub(super) record: Option<u64>,
    pub(super) heard: Vec<Heard>,
    pub(super) priq_edges: usize,
    pub(super) gerror_edges: usize,
    pub(super) messages: Vec<(DeviceId, u32)>,
    /// What of the specification has shown itself, and how often.
    pub(super) met: HashMap<&'static str, u64>,
}

impl SlowPri {
    /// As after reset.
    pub(super) fn new(features: &Features, devices: &[u32]) -> Self {
        Self {
            has_pri: features.pri,
            has_pasids: features.ssid_bits != 0,
            priqs: features.priq_log2.into(),
            devices: devices.into(),
            ..Self::default()
        }
    }

    fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    pub(super) fn is_active(&self, error: u32) -> bool {
        bit(self.gerror.into(), error) != bit(self.gerrorn.into(), error)
    }

    fn raise(&mut self, error: u32) {
        if self.is_active(error) {
            return;
        }
        self.gerror ^= 1 << error;
        if bit(self.irq_ctrl.into(), 0) {
            self.gerror_edges += 1;
        }
    }

    /// QS.
    pub(super) fn log2size(&self) -> u64 {
        bits(self.base, 4, 0).min(self.priqs)
    }

    /// A register of the queue as it is read: no bits between the wrap bit and the overflow flag.
    fn seen(&self, index: u64) -> u32 {
        let below = bits(index, self.log2size() as u32, 0);
        (bits(index, 31, 31) << 31 | below) as u32
    }

    pub(super) fn prod(&self) -> u32 {
        self.seen(self.prod)
    }

    pub(super) fn cons(&self) -> u32 {
        self.seen(self.cons)
    }

    fn interrupt(&mut self) {
        if !bit(self.irq_ctrl.into(), 1) {
            return;
        }
        self.priq_edges += 1;
        match self.irq_cfg0 {
            0 => {}
            DOORBELL => {
                self.messages.push((DeviceId(0xff), self.irq_cfg1));
                self.meet("message");
            }
            at if (RAM..RAM + RAM_BYTES).contains(&at) => _ = self.memory.insert(at, self.irq_cfg1),
            _ => {
                self.raise(MSI_PRIQ_ABT_ERR);
                self.meet("message: abort");
            }
        }
    }

    fn send(&mut self, sid: u32, group: u64, code: u8, pasid: Option<u32>) {
        if self.devices.contains(&sid) {
            self.heard.push((sid, group, code, pasid));
        } else {
            self.meet("response to nobody");
        }
    }

    /// A page request arrives.
    pub(super) fn receive(&mut self, message: &Message) {
        let pasid = message.pasid.filter(|_| self.has_pasids);
        let ssv = pasid.is_some();
        let is_marker = message.pasid.is_some() && message.last && !message.read && !message.write;
        let effective_priqen = bit(self.cr0.into(), 1) && bit(self.cr0.into(), 0);
        if !effective_priqen || self.is_active(PRIQ_ABT_ERR) {
            if is_marker {
                return self.meet("off: marker");
            }
            self.meet(if effective_priqen { "error is active" } else { "off" });
            return self.send(message.sid, message.group, RESPONSE_FAILURE, None);
        }
        let qs = self.log2size();
        let size = 1 << qs;
        let (wr, wr_wrap) = (self.prod % size, bit(self.prod, qs as u32));
        let (rd, rd_wrap) = (self.cons % size, bit(self.cons, qs as u32));
        let is_empty = wr == rd && wr_wrap == rd_wrap;
        let is_full = wr == rd && wr_wrap != rd_wrap;
        // An inconsistent state: as if full.
        let is_nonsense = wr > rd && wr_wrap != rd_wrap || wr < rd && wr_wrap == rd_wrap;
        let has_overflowed = bit(self.prod, 31) != bit(self.cons, 31);
        let last_only = bit(self.irq_cfg2.into(), 31);
        if is_full || is_nonsense || has_overflowed {
            if has_overflowed {
                self.meet(if is_full { "overflow" } else { "overflow: with space" });
            } else {
                self.prod ^= 1 << 31;
                self.meet(if is_full { "overflow begins" } else { "overflow begins: nonsense" });
            }
            if last_only && message.last {
                self.interrupt();
                self.meet("overflow: interrupt");
            }
            if is_marker {
                return self.meet("overflow: marker");
            }
            if !message.last {
                return self.meet("overflow: not the last");
            }
            return self.send(message.sid, message.group, SUCCESS, pasid);
        }
        // The base is aligned to the queue's size, and at least to 32 bytes.
        let align = (size * 16).max(32);
        let base = bits(self.base, 47, 5) << 5;
        let at = base / align * align + wr * 16;
        if !(RAM..RAM + RAM_BYTES).contains(&at) {
            self.raise(PRIQ_ABT_ERR);
            if is_marker {
                return self.meet("abort: marker");
            }
            self.meet("abort");
            return self.send(message.sid, message.group, RESPONSE_FAILURE, None);
        }
        let flag = |value: bool, place: u32| u32::from(value) << place;
        let second = pasid.unwrap_or(0)
            | flag(ssv && message.privileged, 26)
            | flag(ssv && message.execute, 27)
            | flag(message.read, 28)
            | flag(message.write, 29)
            | flag(message.last, 30)
            | flag(ssv, 31);
        let third = (bits(message.address, 31, 12) << 12 | message.group) as u32;
        let fourth = bits(message.address, 63, 32) as u32;
        for (place, word) in (at..).step_by(4).zip([message.sid, second, third, fourth]) {
            self.memory.insert(place, word);
        }
        self.record = Some(at);
        let wraps = wr + 1 == size;
        let next = if wraps { u64::from(!wr_wrap) << qs } else { u64::from(wr_wrap) << qs | (wr + 1) };
        self.prod = bits(self.prod, 31, 31) << 31 | next;
        self.meet(match (is_marker, wraps) {
            (true, _) => "recorded: marker",
            (false, true) => "recorded: wraps",
            (false, false) => "recorded",
        });
        if if last_only { message.last } else { is_empty } {
            self.interrupt();
            self.meet(if last_only { "interrupt: last" } else { "interrupt: was empty" });
        }
    }

    /// Software writes a register.
    pub(super) fn write(&mut self, m: &Bench, offset: u64, value: u64) {
        let is_on = bit(self.cr0.into(), 1);
        let irq_is_on = bit(self.irq_ctrl.into(), 1);
        let word = value as u32;
        match offset {
            CR0 => {
                let there = if self.has_pri { 0b1_1111 } else { 0b1_1101 };
                self.cr0 = word & there;
                self.consume(m);
            }
            IRQ_CTRL => self.irq_ctrl = word & if self.has_pri { 0b111 } else { 0b101 },
            GERRORN => {
                // Only what is active can be acknowledged.
                let acknowledged = (self.gerrorn ^ word) & (self.gerror ^ self.gerrorn);
                self.gerrorn ^= acknowledged;
                self.consume(m);
            }
            CMDQ_PROD => {
                self.cmdq_prod = bits(value, CMDQ_LOG2, 0);
                self.consume(m);
            }
            _ if !self.has_pri => {}
            PRIQ_CONS => self.cons = value,
            PRIQ_PROD | PRIQ_BASE if is_on => self.meet("guarded"),
            PRIQ_PROD => self.prod = value,
            PRIQ_BASE => self.base = value & 0x40ff_ffff_ffff_ffff,
            PRIQ_IRQ_CFG0 | PRIQ_IRQ_CFG1 | PRIQ_IRQ_CFG2 if irq_is_on => self.meet("interrupt: guarded"),
            PRIQ_IRQ_CFG0 => self.irq_cfg0 = bits(value, 55, 2) << 2,
            PRIQ_IRQ_CFG1 => self.irq_cfg1 = word,
            PRIQ_IRQ_CFG2 => self.irq_cfg2 = word,
            _ => panic!("{offset:#x} is none of the registers here"),
        }
    }

    fn consume(&mut self, m: &Bench) {
        while bit(self.cr0.into(), 3) && !self.is_active(CMDQ_ERR) && self.cmdq_cons != self.cmdq_prod {
            let at = CMDQ + 16 * (self.cmdq_cons % (1 << CMDQ_LOG2));
            if !self.execute(m.dword(at), m.dword(at + 8)) {
                self.meet("illegal command");
                return self.raise(CMDQ_ERR);
            }
            self.cmdq_cons = (self.cmdq_cons + 1) % (2 << CMDQ_LOG2);
        }
    }

    /// False if it is illegal.
    fn execute(&mut self, d0: u64, d1: u64) -> bool {
        let is_secure = bit(d0, 10);
        match bits(d0, 7, 0) {
            0x04 => !is_secure,
            0x46 => bits(d0, 13, 12) != 3,
            0x41 => {
                let code = match bits(d1, 13, 12) {
                    0 => RESPONSE_FAILURE,
                    1 => INVALID_REQUEST,
                    2 => SUCCESS,
                    _ => return false,
                };
                if is_secure || !self.has_pri {
                    return false;
                }
                if !bit(self.cr0.into(), 0) {
                    self.meet("response: ignored");
                    return true;
                }
                let pasid = (bit(d0, 11) && self.has_pasids).then(|| bits(d0, 31, 12) as u32);
                self.meet(match code {
                    SUCCESS => "response: success",
                    INVALID_REQUEST => "response: invalid",
                    _ => "response: failure",
                });
                self.send(bits(d0, 63, 32) as u32, bits(d1, 8, 0), code, pasid);
                true
            }
            _ => false,
        }
    }
}
