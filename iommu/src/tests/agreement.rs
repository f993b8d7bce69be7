//! Random machines on which the SMMU and the slow model must agree: result, address, events, and what becomes of the
//! tables in memory. Tables change on the way, and software invalidates.
//!
//! `WARPVMM_SMMU_CASES` sets how many accesses are compared, and has what they came to printed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::thread;

use hw::ats::{AtsRefusal, TranslationRequest};

use super::slow::{Answer, Outcome, Slow, Tx, WALK_EABT, bit, bits};
use super::*;
use crate::OutputSize;

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    /// Once in `n` times.
    pub(super) fn rarely(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Tables are taken from here, for each machine anew.
const POOL: u64 = 0x4020_0000;
const POOL_BYTES: u64 = 0x100_0000;
/// Frames whose words hold their own addresses.
const FRAMES: u64 = DATA;
const FRAME_BYTES: u64 = 0x10_0000;

struct World<'a> {
    m: &'a Bench,
    random: Random,
    next: u64,
    oas: u64,
    vax: bool,
    e2h: bool,
    ste: [u64; 4],
    cd: [u64; 4],
    ssid: u64,
    /// Input addresses for which there are tables.
    inputs: Vec<u64>,
    /// Descriptors of both stages, for changes.
    entries: Vec<u64>,
    s2: Option<Stage2Shape>,
}

#[derive(Clone, Copy)]
struct Stage2Shape {
    root: u64,
    page: u64,
    bits: u64,
    level: u64,
}

impl World<'_> {
    fn table(&mut self, bytes: u64) -> u64 {
        let at = self.next.next_multiple_of(bytes);
        self.next = at + bytes;
        assert!(self.next <= POOL + POOL_BYTES);
        at
    }

    fn frame(&mut self, shift: u64) -> u64 {
        (FRAMES + (self.random.below(FRAME_BYTES) & !0xffff)) >> shift << shift
    }

    /// Address and 52-bit extension of a descriptor.
    fn field(&self, address: u64, page: u64) -> u64 {
        if page == 16 { address & 0xffff_ffff_ffff | (address >> 48) << 12 } else { address }
    }

    /// Makes stage 2 translate a page of IPA to the same address plus nothing: tables lie where they lie.
    fn map_ipa(&mut self, ipa: u64, pa: u64, perfect: bool) {
        let Some(Stage2Shape { root, page, bits, level }) = self.s2 else { return };
        let (mut table, mut level) = (root, level);
        if ipa >> bits != 0 {
            return;
        }
        let mut top = bits;
        loop {
            let low = page + (page - 3) * (3 - level);
            let at = table + 8 * (ipa >> low & ((1 << (top - low)) - 1));
            let may_be_block = level == 2 || level == 1 && page == 12;
            let present = self.m.dword(at);
            if level == 3 || present == 0 && may_be_block && self.random.rarely(6) && pa == ipa {
                if present & 3 == 0 {
                    let leaf = self.stage2_leaf(perfect);
                    let kind = if level == 3 { 3 } else { 1 };
                    let field = self.field(pa >> low << low, page);
                    self.m.put(at, &[field | leaf | kind]);
                    self.entries.push(at);
                }
                return;
            }
            if present & 3 == 1 {
                return;
            }
            if present == 0 {
                let next = self.table(1 << page);
                self.m.put(at, &[self.field(next, page) | 3]);
                self.entries.push(at);
            }
            table = self.m.dword(at) & 0xffff_ffff_f000;
            top = low;
            level += 1;
        }
    }

    fn stage2_leaf(&mut self, perfect: bool) -> u64 {
        let mut leaf = AF | 3 << 6 | 0xf << 2 | self.random.below(4) << 53;
        if !perfect {
            if self.random.rarely(8) {
                leaf &= !AF;
            }
            if self.random.rarely(4) {
                leaf &= !(1 << self.random.pick(&[6, 7]));
            }
            if self.random.rarely(3) {
                leaf |= 1 << 51;
            }
            if self.random.rarely(6) {
                leaf = leaf & !(0xf << 2) | self.random.below(16) << 2;
            }
        }
        leaf
    }

    fn stage1_leaf(&mut self) -> u64 {
        let mut leaf = self.random_flags();
        if self.random.rarely(8) {
            leaf &= !AF;
        }
        leaf
    }

    fn random_flags(&mut self) -> u64 {
        let r = &mut self.random;
        let flags = r.below(2) << 7 | u64::from(!r.rarely(4)) << 6 | r.below(2) << 11;
        AF | flags
            | r.below(2) << 51
            | u64::from(r.rarely(4)) << 53
            | u64::from(r.rarely(4)) << 54
            | r.below(2) << 52
    }

    /// Tables of stage 1 for `va`, as far as the parameters are sane.
    fn map_va(&mut self, root: u64, page: u64, n: u64, va: u64) {
        let mut level = 3 - (n - 1 - page) / (page - 3);
        let mut table = root;
        let mut top = n;
        loop {
            let low = page + (page - 3) * (3 - level);
            let at = table + 8 * (bits(va, top as u32 - 1, 0) >> low);
            self.map_ipa(table, table, true);
            self.map_ipa(at & !0xfff, at & !0xfff, true);
            if !(POOL..POOL + POOL_BYTES).contains(&at) {
                return;
            }
            self.entries.push(at);
            let present = self.m.dword(at);
            let may_be_block = level == 2 || level == 1 && page == 12;
            if level == 3 || present == 0 && may_be_block && self.random.rarely(5) {
                if present == 0 {
                    let pa = self.frame(low);
                    let kind = if level == 3 { 3 } else { 1 };
                    let leaf = self.stage1_leaf();
                    self.m.put(at, &[self.field(pa, page) | leaf | kind]);
                    let target = (pa | va & ((1 << low) - 1)) & !0xfff;
                    self.map_ipa(target, target, false);
                }
                return;
            }
            if present & 3 != 3 && present != 0 {
                return;
            }
            if present == 0 {
                let next = self.table(1 << page);
                let restrict = if self.random.rarely(4) { self.random.below(16) << 59 } else { 0 };
                self.m.put(at, &[self.field(next, page) | restrict | 3]);
            }
            table = self.m.dword(at) & 0xffff_ffff_f000 & !((1 << page) - 1);
            top = low;
            level += 1;
        }
    }

    fn build(&mut self) {
        let config = self.random.pick(&[5, 5, 5, 6, 7, 7, 7, 7, 4, 0]);
        let eats =
            if config == 7 { self.random.pick(&[0, 1, 1, 2, 2]) } else { self.random.pick(&[0, 1, 1]) };
        let d1 = self.random_ste_d1() | eats << 28;
        let (mut d2, mut d3) = (self.random.below(3), 0);
        if config & 2 != 0 || self.random.rarely(3) {
            let page = self.random.pick(&[12, 14, 16]);
            let level = match page {
                12 => self.random.below(3),
                _ => 1 + self.random.below(3),
            };
            let low = page + (page - 3) * (3 - level);
            let most = (low + page - 3 + 4).min(if page == 16 { self.oas } else { 48 });
            let bits = (low + 1 + self.random.below(page + 1)).clamp((low + 1).max(32), most.max(32));
            let sl0 = if page == 12 { 2 - level } else { 3 - level };
            let root = self.table(8 << (bits - low.min(bits)).min(16));
            let tg = match page {
                12 => 0,
                14 => 2,
                _ => 1,
            };
            d2 |= (64 - bits) << 32 | sl0 << 38 | tg << 46 | 1 << 51 | 1 << 58;
            d2 |= self.random.pick(&[5, 5, 6, 7, 2, 0]) << 48;
            for flag in [53, 54, 55, 56] {
                d2 |= self.random.below(2) << flag;
            }
            if self.random.rarely(30) {
                d2 |= 1 << 57;
            }
            if self.random.rarely(8) {
                d2 &= !(1 << 58);
            }
            if self.random.rarely(20) {
                d2 ^= 1 << self.random.pick(&[32, 33, 37, 38, 39, 46, 47, 48, 51, 52]);
            }
            d3 = root;
            if config & 2 != 0 && bits > low {
                self.s2 = Some(Stage2Shape { root, page, bits, level });
            }
        }
        let format = self.random.below(4);
        let max = self.random.pick(&[0, 6, 8, 12]);
        self.ssid = if max == 0 { 0 } else { self.random.below((1 << max).min(300)) };
        let (leaf, pointer) = self.context_tables(format, max);
        self.ste = [max << 59 | pointer | format << 4 | config << 1 | 1, d1, d2, d3];
        if self.random.rarely(40) {
            self.ste[0] ^= 1 << self.random.pick(&[0, 55, 63]);
        }
        self.build_context(leaf);
        if self.ste[0] >> 1 & 1 == 0 {
            for _ in 0..4 {
                let ipa = self.frame(12) | self.random.below(0x1000);
                self.inputs.push(ipa);
                self.map_ipa(ipa & !0xfff, ipa & !0xfff, false);
            }
        }
        self.m.put(STRTAB + 64 * u64::from(SID), &self.ste);
    }

    fn random_ste_d1(&mut self) -> u64 {
        let mut d1 = self.random.pick(&[0, 1, 1, 2, 2, 2, 3]);
        if self.random.rarely(3) {
            d1 |= self.random.below(4) << 48 | self.random.below(4) << 50;
        }
        if self.random.rarely(4) {
            d1 |= 2 << 30;
        }
        if self.random.rarely(30) {
            d1 |= 1 << self.random.pick(&[27, 29, 30]);
        }
        d1 | self.random.below(2) << 25
    }

    /// Where the context of `ssid` is, and the pointer that leads there.
    fn context_tables(&mut self, format: u64, max: u64) -> (u64, u64) {
        let split = match format {
            _ if max == 0 => None,
            1 => Some(6),
            2 => Some(10),
            _ => None,
        };
        let (leaf, pointer) = match split {
            None => {
                let table = self.table(64 << max);
                (table + 64 * self.ssid, table)
            }
            Some(split) => {
                let (l1, l2) = (self.table(4096), self.table(64 << split));
                self.m.put(l1 + 8 * (self.ssid >> split), &[l2 | u64::from(!self.random.rarely(20))]);
                (l2 + 64 * (self.ssid & ((1 << split) - 1)), l1)
            }
        };
        for at in [leaf, pointer, pointer + 8 * (self.ssid >> 6), pointer + 8 * (self.ssid >> 10)] {
            self.map_ipa(at & !0xfff, at & !0xfff, true);
        }
        (leaf, pointer)
    }

    fn build_context(&mut self, at: u64) {
        let mut halves = [(0, 0, 0); 2];
        let most = if self.s2.is_some() { 40 } else { 48 };
        for half in &mut halves {
            let page = self.random.pick(&[12, 14, 16]);
            let n = 17 + self.random.below(if page == 16 && self.vax { 36 } else { 32 });
            let level = 3 - (n - 1 - page) / (page - 3);
            let low = page + (page - 3) * (3 - level);
            let _ = most;
            *half = (page, n, self.table((8 << (n - low)).max(64)));
        }
        let [(page0, n0, root0), (page1, n1, root1)] = halves;
        let tg0 = match page0 {
            12 => 0,
            14 => 2,
            _ => 1,
        };
        let tg1 = match page1 {
            12 => 2,
            14 => 1,
            _ => 3,
        };
        let r = &mut self.random;
        let mut d0 =
            (64 - n0) | tg0 << 6 | (64 - n1) << 16 | tg1 << 22 | 1 << 31 | 1 << 41 | 1 << 45 | 1 << 46;
        d0 |= r.pick(&[5, 5, 5, 6, 7, 2]) << 32 | r.below(4) << 48;
        for flag in [35, 36, 38, 39, 42, 43] {
            d0 |= r.below(2) << flag;
        }
        d0 |= u64::from(r.rarely(3)) << 40;
        if r.rarely(30) {
            d0 |= 1 << 44;
        }
        if r.rarely(8) {
            d0 ^= 1 << r.pick(&[14, 30, 45]);
        }
        if r.rarely(20) {
            d0 ^= 1 << r.pick(&[0, 5, 6, 7, 15, 16, 21, 22, 23, 31, 33, 41, 46]);
        }
        let had = |r: &mut Random| u64::from(r.rarely(3)) << 1;
        self.cd = [d0, root0 | had(r), root1 | had(r), 0];
        self.m.put(at, &self.cd);
        for _ in 0..4 {
            let r = &mut self.random;
            let (low_va, high_va) = (r.next() >> (64 - n0), r.next() >> (64 - n1) | u64::MAX << n1);
            self.map_va(root0, page0, n0, low_va);
            self.map_va(root1, page1, n1, high_va);
            self.inputs.extend([low_va, high_va]);
        }
    }

    /// Changes one descriptor, and tells in one of the ways that are enough.
    fn change(&mut self) {
        let at = self.random.pick(&self.entries.clone());
        let old = self.m.dword(at);
        let new = match self.random.below(6) {
            0 => old ^ AF,
            1 => old ^ 1 << self.random.pick(&[6, 7, 51, 53, 54]),
            2 => old ^ 1 << self.random.pick(&[59, 60, 61, 62]),
            3 => old ^ 1 << self.random.pick(&[0, 1]),
            4 => old ^ 1 << self.random.pick(&[14, 40, 47, 12]),
            _ => old ^ 1 << self.random.pick(&[2, 3, 4, 5]),
        };
        self.m.put(at, &[new]);
        let (asid, vmid) = (bits(self.cd[0], 63, 48), bits(self.ste[2], 15, 0));
        match self.random.below(4) {
            0 => _ = self.m.command(0x30, 0),
            // Stage 1 of the ASID in both worlds, and stage 2 of the virtual machine.
            1 => {
                self.m.command(asid << 48 | vmid << 32 | 0x11, 0);
                self.m.command(asid << 48 | 0x21, 0);
                self.m.command(0x20, 0);
                self.m.command(vmid << 32 | 0x28, 0);
            }
            2 => {
                self.m.command(vmid << 32 | 0x10, 0);
                self.m.command(0x20, 0);
            }
            _ => {
                for &va in &self.inputs {
                    self.m.command(asid << 48 | vmid << 32 | 0x12, va & !0xfff);
                    self.m.command(asid << 48 | 0x22, va & !0xfff);
                    let ipa = va & 0x000f_ffff_ffff_f000;
                    self.m.command(vmid << 32 | 0x2a, ipa);
                }
                self.m.command(0x20, 0);
            }
        }
        // A context descriptor may have been found through what has changed.
        self.m.command(0x04, 31);
        self.m.sync();
    }

    fn transaction(&mut self) -> Tx {
        let r = &mut self.random;
        let mut va = r.pick(&self.inputs) & !7;
        match r.below(16) {
            0 => va ^= 1 << r.below(64),
            1 => va ^= r.next() << 56,
            2 => va = r.next(),
            _ => va = va & !0xff8 | r.below(0x200) << 3,
        }
        let ssid = match r.below(8) {
            0 => None,
            1 => Some(r.below(0x200) as u32),
            _ if self.ste[0] >> 1 & 1 == 0 || self.ste[0] >> 59 == 0 => None,
            _ => Some(self.ssid as u32),
        };
        let write = r.below(3) == 0;
        let with_pasid = ssid.is_some();
        Tx {
            ssid,
            va: va & !7,
            write,
            execute: with_pasid && !write && r.rarely(4),
            privileged: with_pasid && r.rarely(2),
        }
    }

    fn slow(&self, tx: Tx) -> Slow<'_> {
        Slow {
            m: self.m,
            oas: self.oas,
            vax: self.vax,
            e2h: self.e2h,
            tx,
            ste: self.ste,
            cd: [0; 4],
            ipa: 0,
            written: HashMap::new(),
        }
    }

    /// A translation request, the same for another address of the range that was granted, and a translated read there.
    fn compare_request(&mut self, seed: u64, met: &mut HashMap<String, u64>) {
        let mut tx = self.transaction();
        tx.va &= !0xfff;
        let no_write = !tx.write;
        tx.execute = tx.ssid.is_some() && self.random.rarely(3);
        let answer = self.request(seed, tx, no_write);
        let name = match answer {
            Answer::Unsupported(_) => "request: UR",
            Answer::CompleterAbort => "request: CA",
            Answer::Success(_, (None, _)) => "request: nothing",
            Answer::Success(..) if bits(self.ste[1], 29, 28) == 2 => "request: split",
            Answer::Success(..) => "request: translation",
        };
        *met.entry(name.into()).or_default() += 1;
        let Answer::Success(granted, (Some(address), size_log2)) = answer else { return };
        let offset = self.random.next() & ((1 << size_log2) - 1) & !7;
        let start = tx.va >> size_log2 << size_log2;
        let there = Tx { va: (start | offset) & !0xfff, ..tx };
        let address = address >> size_log2 << size_log2 | offset;
        match self.request(seed, there, no_write) {
            Answer::Success(also, (Some(found), _)) => {
                assert_eq!((also, found), (granted, address & !0xfff), "{seed:#x} {tx:x?} {there:x?}");
            }
            other => panic!("{seed:#x} {tx:x?} {there:x?}: {other:x?} in a range with {granted:?}"),
        }
        let tx = Tx { ssid: None, va: address, write: false, execute: false, privileged: false };
        let mut slow = self.slow(tx);
        let expected = if bits(self.ste[1], 29, 28) == 2 { slow.translated() } else { Outcome::Pa(address) };
        let written = slow.written;
        let mut bytes = [0; 8];
        let result = self.m.smmu.read_translated(StreamId(SID), Pa(address), &mut bytes);
        let events = self.m.events();
        match expected {
            Outcome::Pa(pa) if (RAM..RAM + RAM_BYTES).contains(&pa) => {
                assert_eq!(
                    (result, u64::from_le_bytes(bytes)),
                    (Ok(()), self.m.dword(pa)),
                    "{seed:#x} {tx:x?}"
                );
                assert_eq!(events, [] as [Record; 0], "{seed:#x} {tx:x?}");
            }
            Outcome::Abort(record) => {
                assert!(result.is_err(), "{seed:#x} {tx:x?}");
                assert_eq!(events, Vec::from_iter(record), "{seed:#x} {tx:x?}");
            }
            _ => assert!(result.is_err() && events.is_empty(), "{seed:#x} {tx:x?} {expected:x?} {events:x?}"),
        }
        self.check_written(seed, tx, written);
    }

    /// Both models' answer to a request; with the address that it gives, and the size of the range.
    fn request(&self, seed: u64, tx: Tx, no_write: bool) -> Answer<(Option<u64>, u32)> {
        let mut slow = self.slow(tx);
        let expected = slow.request(no_write);
        let written = slow.written;
        let tag = self.tag(&tx);
        let found =
            self.m.smmu.request_translation(&TranslationRequest { tag, address: Iova(tx.va), no_write });
        let events = self.m.events();
        let context = format!("{seed:#x} {tx:x?} no_write {no_write}: {expected:x?} {found:x?} {events:x?}");
        let answer = match (expected, found) {
            (Answer::Unsupported(record), Err(AtsRefusal::UnsupportedRequest)) => {
                assert_eq!(events, Vec::from_iter(record), "{context}");
                return Answer::Unsupported(record);
            }
            (Answer::CompleterAbort, Err(AtsRefusal::CompleterAbort)) => Answer::CompleterAbort,
            (Answer::Success(granted, address), Ok(found)) => {
                assert_eq!([found.read, found.write, found.execute], granted, "{context}");
                let asked_with_privilege = tx.ssid.is_some() && tx.privileged;
                assert_eq!((found.privileged, found.global), (asked_with_privilege, false), "{context}");
                let inside = tx.va & ((1 << found.size_log2) - 1);
                assert!(address.is_none_or(|address| found.address.0 | inside == address), "{context}");
                Answer::Success(granted, (address, found.size_log2.into()))
            }
            _ => panic!("{context}"),
        };
        assert!(events.is_empty(), "{context}");
        self.check_written(seed, tx, written);
        answer
    }

    fn tag(&self, tx: &Tx) -> DmaTag {
        DmaTag {
            stream: StreamId(SID),
            pasid: tx.ssid.map(|ssid| Pasid::new(ssid).unwrap()),
            privileged: tx.privileged,
            execute: tx.execute,
        }
    }

    fn check_written(&self, seed: u64, tx: Tx, written: HashMap<u64, u64>) {
        for (at, word) in written {
            assert_eq!(self.m.dword(at), word, "{seed:#x} {tx:x?}: descriptor at {at:#x}");
        }
    }

    fn compare(&mut self, seed: u64, met: &mut HashMap<String, u64>) {
        let tx = self.transaction();
        let mut slow = self.slow(tx);
        let mut expected = slow.run();
        let written = slow.written;
        *met.entry(name_of(&expected, self.s2.is_some())).or_default() += 1;
        if !written.is_empty() {
            *met.entry("update".into()).or_default() += 1;
        }
        let in_frames = |pa: u64| (FRAMES..FRAMES + FRAME_BYTES).contains(&pa);
        if let Outcome::Pa(pa) = expected {
            if tx.write && !in_frames(pa) && (RAM..RAM + RAM_BYTES).contains(&pa) {
                return; // it would overwrite a table
            }
            if !(RAM..RAM + RAM_BYTES).contains(&pa) {
                expected = Outcome::Abort(None); // by the interconnect
            }
        }
        let who = Requester::new(self.tag(&tx));
        let mark = 0x5a5a_0000_0000_0000 | seed;
        let go = || {
            let mut bytes = mark.to_le_bytes();
            let result = if tx.write {
                self.m.smmu.write(&who, Iova(tx.va), &bytes)
            } else {
                self.m.smmu.read(&who, Iova(tx.va), &mut bytes)
            };
            result.map(|()| u64::from_le_bytes(bytes))
        };
        let result = if matches!(expected, Outcome::Stall(_)) {
            thread::scope(|scope| {
                let _unstuck = self.m.unstuck_on_panic();
                let access = scope.spawn(go);
                let event = self.m.await_events(1)[0];
                let Outcome::Stall(record) = expected else { unreachable!() };
                assert_eq!([event[0], event[1] & !0xffff, event[2], event[3]], record, "{seed:#x} {tx:x?}");
                self.m.resume(SID, event[1] as u16, false);
                access.join().unwrap()
            })
        } else {
            go()
        };
        let events = self.m.events();
        match (expected, result) {
            (Outcome::Pa(pa), Ok(value)) => {
                assert_eq!(events, [] as [Record; 0], "{seed:#x} {tx:x?}");
                let at = self.m.dword(pa);
                assert_eq!(value, at, "{seed:#x} {tx:x?} {pa:#x}");
                if tx.write {
                    self.m.put(pa, &[pa]);
                }
            }
            (Outcome::Abort(record), Err(_)) => {
                assert_eq!(events, Vec::from_iter(record), "{seed:#x} {tx:x?}");
            }
            (Outcome::Stall(_), Err(_)) => assert_eq!(events, [] as [Record; 0], "{seed:#x}"),
            (expected, found) => {
                panic!("{seed:#x} {tx:x?}: expected {expected:x?}, found {found:x?} {events:x?}")
            }
        }
        self.check_written(seed, tx, written);
    }
}

/// What of the specification an outcome shows.
fn name_of(outcome: &Outcome, nested: bool) -> String {
    match outcome {
        Outcome::Pa(_) => if nested { "page behind stage 2" } else { "page" }.into(),
        Outcome::Abort(None) => "silent".into(),
        Outcome::Abort(Some(record)) | Outcome::Stall(record) => {
            let event = bits(record[0], 7, 0);
            let stalled = if bit(record[1], 31) { " stalled" } else { "" };
            match event {
                0..WALK_EABT => format!("{event:#x}"),
                _ => format!(
                    "{event:#x} s2={} class={}{stalled}",
                    bits(record[1], 39, 39),
                    bits(record[1], 41, 40)
                ),
            }
        }
    }
}

/// All that random machines should come to, so that agreement means something.
const MUST_BE_MET: &[&str] = &[
    "page",
    "page behind stage 2",
    "update",
    "request: UR",
    "request: CA",
    "request: nothing",
    "request: translation",
    "request: split",
    "silent",
    "0x4",
    "0x6",
    "0x8",
    "0x9",
    "0xa",
    "0xb s2=0 class=1",
    "0xb s2=1 class=2",
    "0x10 s2=0 class=2",
    "0x10 s2=0 class=2 stalled",
    "0x10 s2=1 class=0",
    "0x10 s2=1 class=1",
    "0x10 s2=1 class=2",
    "0x11 s2=0 class=2",
    "0x11 s2=1 class=2",
    "0x12 s2=0 class=2",
    "0x12 s2=1 class=1",
    "0x12 s2=1 class=2",
    "0x13 s2=0 class=2",
    "0x13 s2=1 class=1",
    "0x13 s2=1 class=2",
];

fn run(features: Features, e2h: bool, seed: u64, accesses: u64) {
    let m = Bench::reset(features);
    m.set_up(4);
    m.w32(CR2, 2 | u32::from(e2h));
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    for pa in (FRAMES..FRAMES + FRAME_BYTES).step_by(8) {
        m.put(pa, &[pa]);
    }
    let (mut done, mut seed, mut met) = (0, seed, HashMap::new());
    while done < accesses {
        seed = seed.wrapping_add(1) & 0xffff_ffff_ffff;
        let mut world = World {
            m: &m,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            next: POOL,
            oas: if features.output == OutputSize::BITS_52 { 52 } else { 48 },
            vax: features.va52,
            e2h,
            ste: [0; 4],
            cd: [0; 4],
            ssid: 0,
            inputs: Vec::new(),
            entries: Vec::new(),
            s2: None,
        };
        world.build();
        m.command(0x04, 31);
        m.command(0x30, 0);
        m.command(0x20, 0);
        m.sync();
        for _ in 0..64 {
            if world.random.rarely(6) && !world.entries.is_empty() {
                world.change();
            }
            if world.random.rarely(4) {
                world.compare_request(seed, &mut met);
            } else {
                world.compare(seed, &mut met);
            }
            done += 1;
        }
        // What was written apart from what was expected shows as a difference of the next machine, or here.
        let used = world.next;
        for at in (POOL..used).step_by(8) {
            if m.dword(at) != 0 {
                m.put(at, &[0]);
            }
        }
    }
    print(&met);
    let missed: Vec<_> = MUST_BE_MET.iter().filter(|&&name| !met.contains_key(name)).collect();
    assert!(missed.is_empty() || accesses < 30_000, "{missed:?}");
}

/// What random machines came to, for who has asked for more of them.
pub(super) fn print<Name: Ord + Debug>(met: &HashMap<Name, u64>) {
    if std::env::var_os("WARPVMM_SMMU_CASES").is_some() {
        let mut met: Vec<_> = met.iter().collect();
        met.sort();
        eprintln!("{met:#?}");
    }
}

pub(super) fn cases() -> u64 {
    std::env::var("WARPVMM_SMMU_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000)
}

#[test]
fn both_models_agree() {
    run(Features::default(), false, 1, cases());
}

#[test]
fn both_models_agree_with_e2h() {
    run(Features::default(), true, 0x1_0000_0000, cases() / 4);
}

#[test]
fn both_models_agree_on_52_bit_addresses() {
    let features = Features { output: OutputSize::BITS_52, va52: true, ..Features::default() };
    run(features, false, 0x2_0000_0000, cases() / 4);
}
