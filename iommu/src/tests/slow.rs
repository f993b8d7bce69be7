//! A second model of translation, slow and obvious: written from the specification's tables, it shares no code with the
//! first, caches nothing and reads everything bit by bit. `agreement` compares the two.

use std::collections::HashMap;

use super::*;

const BAD_STE: u64 = 0x04;
const STREAM_DISABLED: u64 = 0x06;
const BAD_SUBSTREAM: u64 = 0x08;
const CD_FETCH: u64 = 0x09;
const BAD_CD: u64 = 0x0a;
pub(super) const WALK_EABT: u64 = 0x0b;
const TRANSLATION: u64 = 0x10;
const ADDR_SIZE: u64 = 0x11;
const ACCESS: u64 = 0x12;
const PERMISSION: u64 = 0x13;

/// `[high:low]` of a word.
pub(super) fn bits(word: u64, high: u32, low: u32) -> u64 {
    word << (63 - high) >> (63 - high) >> low
}

pub(super) fn bit(word: u64, n: u32) -> bool {
    bits(word, n, n) == 1
}

/// A transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tx {
    pub(super) ssid: Option<u32>,
    pub(super) va: u64,
    pub(super) write: bool,
    pub(super) execute: bool,
    pub(super) privileged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pa(u64),
    Abort(Option<Record>),
    Stall(Record),
}

/// What a translation request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<Address = Option<u64>> {
    /// With an event, if it is not the stream that is shut.
    Unsupported(Option<Record>),
    CompleterAbort,
    /// Read, write, execute; and where the address leads, if any of them is granted.
    Success([bool; 3], Address),
}

/// Ends a translation early.
struct End(Outcome);

/// What one stage found.
struct Page {
    pa: u64,
}

pub(super) struct Slow<'a> {
    pub(super) m: &'a Bench,
    pub(super) oas: u64,
    pub(super) vax: bool,
    pub(super) e2h: bool,
    pub(super) tx: Tx,
    pub(super) ste: [u64; 4],
    pub(super) cd: [u64; 4],
    /// What stage 1 came to.
    pub(super) ipa: u64,
    /// Words that the SMMU has written.
    pub(super) written: HashMap<u64, u64>,
}

impl Slow<'_> {
    fn load(&self, pa: u64) -> Option<u64> {
        if let Some(&word) = self.written.get(&pa) {
            return Some(word);
        }
        (RAM..RAM + RAM_BYTES).contains(&pa).then(|| self.m.dword(pa))
    }

    fn record(&self, event: u64, d1: u64, d2: u64, d3: u64) -> Record {
        let ssv = u64::from(self.tx.ssid.is_some());
        let ssid = u64::from(self.tx.ssid.unwrap_or(0));
        [u64::from(SID) << 32 | ssid << 12 | ssv << 11 | event, d1, d2, d3]
    }

    fn recorded(&self, event: u64) -> End {
        End(Outcome::Abort(Some(self.record(event, 0, 0, 0))))
    }

    /// RnW, InD and PnU.
    fn flags(&self) -> u64 {
        u64::from(!self.tx.write) << 35
            | u64::from(self.tx.execute && !self.tx.write) << 34
            | u64::from(self.tx.privileged) << 33
    }

    fn stage1_fault(&self, event: u64) -> End {
        let record = self.record(event, 2 << 40 | self.flags(), self.tx.va, 0);
        let (s, r) = (bit(self.cd[0], 44), bit(self.cd[0], 45));
        End(if s {
            Outcome::Stall([record[0], record[1] | 1 << 31, record[2], record[3]])
        } else {
            Outcome::Abort(r.then_some(record))
        })
    }

    fn stage2_fault(&self, event: u64, class: u64, ipa: u64, table_write: bool) -> End {
        let ttrnw = u64::from(event == PERMISSION && class == 1 && !table_write) << 44;
        let d1 = class << 40 | 1 << 39 | ttrnw | self.flags();
        let record = self.record(event, d1, self.tx.va, ipa & 0x00ff_ffff_ffff_f000);
        let (s, r) = (bit(self.ste[2], 57), bit(self.ste[2], 58));
        End(if s {
            Outcome::Stall([record[0], record[1] | 1 << 31, record[2], record[3]])
        } else {
            Outcome::Abort(r.then_some(record))
        })
    }

    fn walk_abort(&self, stage2: bool, class: u64, address: u64) -> End {
        let d1 = class << 40 | u64::from(stage2) << 39 | self.flags();
        End(Outcome::Abort(Some(self.record(WALK_EABT, d1, self.tx.va, address))))
    }

    pub(super) fn run(&mut self) -> Outcome {
        match self.translate() {
            Ok(pa) => Outcome::Pa(pa),
            Err(End(outcome)) => outcome,
        }
    }

    /// A translation request for the page of `tx.va`, by a stream of which ATSCHK is 1: each permission that is asked for
    /// is tried.
    pub(super) fn request(&mut self, no_write: bool) -> Answer {
        let [d0, d1, ..] = self.ste;
        let (asked, config, eats) = (self.tx, bits(d0, 3, 1), bits(d1, 29, 28));
        if bit(d0, 0) && config < 4 {
            return Answer::Unsupported(None);
        }
        let (mut granted, mut address) = ([false; 3], None);
        for (i, (write, execute)) in [(false, false), (true, false), (false, true)].into_iter().enumerate() {
            if i == 1 && no_write || i == 2 && !(asked.execute && granted[0]) {
                continue;
            }
            self.tx = Tx { write, execute, ..asked };
            let outcome = self.run();
            let event = match outcome {
                Outcome::Abort(Some(record)) => bits(record[0], 7, 0),
                _ => TRANSLATION,
            };
            if event != BAD_STE && (config == 4 || eats == 0 || eats == 3) {
                self.tx = asked;
                self.written.clear();
                let flags = u64::from(asked.privileged) << 28 | u64::from(asked.execute) << 29;
                let d1 = 1 << 31 | u64::from(!no_write) << 30 | flags | 1;
                return Answer::Unsupported(Some(self.record(0x05, d1, asked.va, 0)));
            }
            if event < TRANSLATION {
                return Answer::CompleterAbort;
            }
            if let Outcome::Pa(pa) = outcome {
                granted[i] = true;
                address.get_or_insert(if eats == 2 { self.ipa } else { pa });
            }
        }
        Answer::Success(granted, address)
    }

    /// A translated read of a stream with split-stage ATS, by `tx` with the address of its request's answer.
    pub(super) fn translated(&mut self) -> Outcome {
        let (read, fetch) = (false, bits(self.ste[1], 51, 50) == 3);
        self.tx.execute = fetch;
        self.tx.privileged = bits(self.ste[1], 49, 48) == 3;
        match self.stage2(self.tx.va, 2, read, fetch, self.tx.privileged) {
            Ok(pa) => Outcome::Pa(pa),
            Err(End(outcome)) => outcome,
        }
    }

    fn translate(&mut self) -> Result<u64, End> {
        let [d0, d1, d2, _] = self.ste;
        if !bit(d0, 0) {
            return Err(self.recorded(BAD_STE));
        }
        let config = bits(d0, 3, 1);
        if config < 4 {
            return Err(End(Outcome::Abort(None)));
        }
        let (s1, s2) = (config & 1 != 0, config & 2 != 0);
        let eats = bits(d1, 29, 28);
        let illegal = s1 && (bits(d0, 63, 59) > 20 || bits(d0, 55, 6) << 6 >> self.oas != 0)
            || config == 5 && bits(d1, 31, 30) & 1 == 1
            || (s1 || s2) && eats == 2 && config != 7
            || s2 && (eats == 1 || eats == 2) && bit(d2, 57)
            || s2 && !self.stage2_is_legal();
        if illegal {
            return Err(self.recorded(BAD_STE));
        }
        if self.tx.ssid.is_some() && !s1 {
            return Err(self.bad_substream());
        }
        let mut index = None;
        if s1 {
            let max = bits(d0, 63, 59);
            let dss = bits(d1, 1, 0);
            index = match self.tx.ssid {
                Some(_) if max == 0 => return Err(self.bad_substream()),
                None if max == 0 => Some(0),
                Some(ssid) if u64::from(ssid) >= 1 << max => return Err(self.bad_substream()),
                Some(0) if dss == 2 => return Err(self.disabled()),
                Some(ssid) => Some(u64::from(ssid)),
                None if dss == 1 => None,
                None if dss == 2 => Some(0),
                None => return Err(self.disabled()),
            };
        }
        match bits(d1, 49, 48) {
            2 => self.tx.privileged = false,
            3 => self.tx.privileged = true,
            _ => {}
        }
        match bits(d1, 51, 50) {
            2 => self.tx.execute = false,
            3 => self.tx.execute = !self.tx.write,
            _ => {}
        }
        let ipa = match index {
            Some(index) => {
                self.fetch_cd(index, s2)?;
                self.stage1(s2, config == 5)?.pa
            }
            None if self.tx.va >> self.oas != 0 => {
                let record = self.record(ADDR_SIZE, 2 << 40 | self.flags(), self.tx.va, 0);
                return Err(End(Outcome::Abort(Some(record))));
            }
            None => self.tx.va,
        };
        self.ipa = ipa;
        if s2 { self.stage2(ipa, 2, self.tx.write, self.tx.execute, self.tx.privileged) } else { Ok(ipa) }
    }

    fn bad_substream(&self) -> End {
        let mut record = self.record(BAD_SUBSTREAM, 0, 0, 0);
        record[0] &= !(1 << 11);
        End(Outcome::Abort(Some(record)))
    }

    fn disabled(&self) -> End {
        End(Outcome::Abort(Some([u64::from(SID) << 32 | STREAM_DISABLED, 0, 0, 0])))
    }

    fn size(&self, encoding: u64, page: u64) -> u64 {
        let bits = [32, 36, 40, 42, 44, 48, 52, 52][encoding as usize].min(self.oas);
        if page == 16 { bits } else { bits.min(48) }
    }

    /// Page shift by S2TG and TG0.
    fn page_of_tg0(tg: u64) -> Option<u64> {
        [Some(12), Some(16), Some(14), None][tg as usize]
    }

    fn stage2_is_legal(&self) -> bool {
        let [_, _, d2, d3] = self.ste;
        let Some(page) = Self::page_of_tg0(bits(d2, 47, 46)) else { return false };
        let tsz = bits(d2, 37, 32);
        let most = if page == 16 { self.oas } else { self.oas.min(48) };
        if !bit(d2, 51) || bit(d2, 52) || tsz > Self::most_tsz(page) || 64 - tsz > most {
            return false;
        }
        let Some(level) = Self::stage2_level(page, bits(d2, 39, 38)) else { return false };
        let resolved = 64 - tsz - (page + (page - 3) * (3 - level)).min(64 - tsz);
        resolved >= 1
            && resolved <= page - 3 + 4
            && bits(d3, 51, 4) << 4 >> self.size(bits(d2, 50, 48), page) == 0
    }

    /// With small tables.
    fn most_tsz(page: u64) -> u64 {
        if page == 16 { 47 } else { 48 }
    }

    /// The base of a first table of so many bytes.
    fn base(ttb: u64, log2_bytes: u64, size: u64) -> u64 {
        let log2_bytes = if size == 52 { log2_bytes.max(6) } else { log2_bytes };
        bits(ttb, 51, 4) << 4 >> log2_bytes << log2_bytes
    }

    fn stage2_level(page: u64, sl0: u64) -> Option<u64> {
        match (page, sl0) {
            (12, 3) => Some(3),
            (_, 3) => None,
            (12, _) => Some(2 - sl0),
            _ => Some(3 - sl0),
        }
    }

    fn output(&self, descriptor: u64, page: u64, shift: u64) -> u64 {
        let mut address = bits(descriptor, 47, 0) >> shift << shift;
        if page == 16 && self.oas == 52 {
            address |= bits(descriptor, 15, 12) << 48;
        }
        address
    }

    fn block_may_be_at(&self, page: u64, level: u64) -> bool {
        level == 2 || level == 1 && (page == 12 || page == 16 && self.oas == 52)
    }

    fn stage2(
        &mut self,
        ipa: u64,
        class: u64,
        write: bool,
        execute: bool,
        privileged: bool,
    ) -> Result<u64, End> {
        let [_, d1, d2, d3] = self.ste;
        let page = Self::page_of_tg0(bits(d2, 47, 46)).unwrap();
        let n = 64 - bits(d2, 37, 32);
        let table_write = write && class == 1;
        let fault = |slow: &Self, event| slow.stage2_fault(event, class, ipa, table_write);
        if ipa >> n != 0 {
            return Err(fault(self, TRANSLATION));
        }
        let size = self.size(bits(d2, 50, 48), page);
        let mut level = Self::stage2_level(page, bits(d2, 39, 38)).unwrap();
        let mut low = page + (page - 3) * (3 - level);
        let mut index = ipa >> low;
        let mut table = Self::base(d3, n - low + 3, size);
        loop {
            let at = table + 8 * index;
            let Some(d) = self.load(at) else { return Err(self.walk_abort(true, class, at)) };
            let is_leaf = match d & 3 {
                3 => level == 3,
                1 if self.block_may_be_at(page, level) => true,
                _ => return Err(fault(self, TRANSLATION)),
            };
            let address = self.output(d, page, if is_leaf { low } else { page });
            if address >> size != 0 {
                return Err(fault(self, ADDR_SIZE));
            }
            if !is_leaf {
                table = address;
                level += 1;
                low -= page - 3;
                index = ipa >> low & ((1 << (page - 3)) - 1);
                continue;
            }
            let (ha, hd) = (bit(d2, 56), bit(d2, 56) && bit(d2, 55));
            if !bit(d, 10) && !ha && !bit(d2, 53) {
                return Err(fault(self, ACCESS));
            }
            let writable = bit(d, 7) || hd && bit(d, 51);
            let execute_never = match bits(d, 54, 53) {
                0 => false,
                1 => privileged,
                2 => true,
                _ => !privileged,
            };
            let allowed = match (write, execute) {
                (true, _) => writable,
                (_, true) => !execute_never,
                _ => bit(d, 6),
            };
            let memattr = bits(d, 5, 2);
            let device = if bit(d1, 25) { memattr & 4 == 0 } else { memattr & 12 == 0 };
            if !allowed || class != 2 && bit(d2, 54) && device {
                return Err(fault(self, PERMISSION));
            }
            let mut new = d;
            if ha {
                new |= 1 << 10;
            }
            if write && !bit(d, 7) {
                new |= 1 << 7;
            }
            if new != d {
                self.written.insert(at, new);
            }
            return Ok(address | ipa & ((1 << low) - 1));
        }
    }

    fn fetch_cd(&mut self, index: u64, s2: bool) -> Result<(), End> {
        let [d0, ..] = self.ste;
        let pointer = bits(d0, 55, 6) << 6;
        let split = match bits(d0, 5, 4) {
            _ if bits(d0, 63, 59) == 0 => None,
            1 => Some(6),
            2 => Some(10),
            _ => None,
        };
        let mut at = pointer + index * 64;
        if let Some(split) = split {
            let mut l1 = pointer + (index >> split) * 8;
            if s2 {
                l1 = self.stage2(l1, 0, false, false, true)?;
            }
            let Some(word) = self.load(l1) else { return Err(self.cd_fetch(l1)) };
            let table = bits(word, 55, 12) << 12 >> (split + 6) << (split + 6);
            if !bit(word, 0) || table >> self.oas != 0 {
                return Err(self.bad_substream());
            }
            at = table + (index & ((1 << split) - 1)) * 64;
        }
        if s2 {
            at = self.stage2(at, 0, false, false, true)?;
        }
        for i in 0..4 {
            let Some(word) = self.load(at + 8 * i) else { return Err(self.cd_fetch(at)) };
            self.cd[i as usize] = word;
        }
        let [c0, c1, c2, _] = self.cd;
        let el2 = self.is_el2();
        let low = !bit(c0, 14) || el2;
        let high = !bit(c0, 30) && !el2;
        let half_is_legal = |page: Option<u64>, tsz: u64, ttb: u64| {
            page.is_some_and(|page| {
                let least = if page == 16 && self.vax { 12 } else { 16 };
                (least..=Self::most_tsz(page)).contains(&tsz)
                    && bits(ttb, 51, 4) << 4 >> self.size(bits(c0, 34, 32), page) == 0
            })
        };
        let legal = bit(c0, 31)
            && bit(c0, 41)
            && bit(c0, 46)
            && !(bit(c0, 15) && (low || high))
            && !(bit(c0, 44) && bit(self.ste[1], 27))
            && (!low || half_is_legal(Self::page_of_tg0(bits(c0, 7, 6)), bits(c0, 5, 0), c1))
            && (!high || half_is_legal(Self::page_of_tg1(bits(c0, 23, 22)), bits(c0, 21, 16), c2));
        if legal { Ok(()) } else { Err(self.recorded(BAD_CD)) }
    }

    fn page_of_tg1(tg: u64) -> Option<u64> {
        [None, Some(14), Some(12), Some(16)][tg as usize]
    }

    fn cd_fetch(&self, at: u64) -> End {
        // Privilege overrides do not show: this record has no access in it.
        End(Outcome::Abort(Some(self.record(CD_FETCH, 0, 0, at))))
    }

    /// Stream world EL2 without E2H.
    fn is_el2(&self) -> bool {
        bits(self.ste[0], 3, 1) == 5 && bits(self.ste[1], 31, 30) == 2 && !self.e2h
    }

    fn stage1(&mut self, s2: bool, _alone: bool) -> Result<Page, End> {
        let [c0, c1, c2, _] = self.cd;
        let va = self.tx.va;
        let el2 = self.is_el2();
        let high = bit(va, 55) && !el2;
        let (tsz, page, ttb, off, tbi) = if high {
            (bits(c0, 21, 16), Self::page_of_tg1(bits(c0, 23, 22)), c2, bit(c0, 30), bit(c0, 39))
        } else {
            (bits(c0, 5, 0), Self::page_of_tg0(bits(c0, 7, 6)), c1, bit(c0, 14) && !el2, bit(c0, 38))
        };
        let n = 64u64.saturating_sub(tsz);
        let top = if tbi { 55 } else { 63 };
        let above_is = |value: bool| (n as u32..=top).all(|i| bit(va, i) == value);
        if off || !above_is(high) {
            return Err(self.stage1_fault(TRANSLATION));
        }
        let page = page.unwrap();
        let size = self.size(bits(c0, 34, 32), page);
        let mut level = 3 - (n - 1 - page) / (page - 3);
        let mut low = page + (page - 3) * (3 - level);
        let mut index = bits(va, n as u32 - 1, 0) >> low;
        let mut table = Self::base(ttb, n - low + 3, size);
        let had = bit(ttb, 1);
        let (mut no_write, mut no_user, mut pxn, mut uxn) = (false, false, false, false);
        loop {
            let ipa = table + 8 * index;
            let at = if s2 { self.stage2(ipa, 1, false, false, true)? } else { ipa };
            let Some(d) = self.load(at) else { return Err(self.walk_abort(false, 1, at)) };
            let is_leaf = match d & 3 {
                3 => level == 3,
                1 if self.block_may_be_at(page, level) => true,
                _ => return Err(self.stage1_fault(TRANSLATION)),
            };
            let address = self.output(d, page, if is_leaf { low } else { page });
            if address >> size != 0 {
                return Err(self.stage1_fault(ADDR_SIZE));
            }
            if !is_leaf {
                if !had {
                    pxn |= bit(d, 59);
                    uxn |= bit(d, 60);
                    no_user |= bit(d, 61);
                    no_write |= bit(d, 62);
                }
                table = address;
                level += 1;
                low -= page - 3;
                index = va >> low & ((1 << (page - 3)) - 1);
                continue;
            }
            let (ha, hd) = (bit(c0, 43), bit(c0, 43) && bit(c0, 42));
            if !bit(d, 10) && !ha && !bit(c0, 35) {
                return Err(self.stage1_fault(ACCESS));
            }
            let writable = (!bit(d, 7) || hd && bit(d, 51)) && !no_write;
            let user = (bit(d, 6) && !no_user) || el2;
            let wxn = bit(c0, 36) && writable;
            let allowed = if el2 {
                match (self.tx.write, self.tx.execute) {
                    (true, _) => writable,
                    (_, true) => !(bit(d, 54) || uxn || wxn),
                    _ => true,
                }
            } else if self.tx.privileged {
                let kept_by_pan = bit(c0, 40) && user;
                match (self.tx.write, self.tx.execute) {
                    (true, _) => writable && !kept_by_pan,
                    (_, true) => !(bit(d, 53) || pxn || wxn || user && writable),
                    _ => !kept_by_pan,
                }
            } else {
                match (self.tx.write, self.tx.execute) {
                    (true, _) => user && writable,
                    (_, true) => !(bit(d, 54) || uxn || wxn && user),
                    _ => user,
                }
            };
            if !allowed {
                return Err(self.stage1_fault(PERMISSION));
            }
            let mut new = d;
            if ha {
                new |= 1 << 10;
            }
            if self.tx.write && bit(d, 7) {
                new &= !(1 << 7);
            }
            if new != d {
                let at = if s2 { self.stage2(ipa, 1, true, false, true)? } else { ipa };
                self.written.insert(at, new);
            }
            return Ok(Page { pa: address | va & ((1 << low) - 1) });
        }
    }
}
