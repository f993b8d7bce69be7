//! An inflate (RFC 1951) that can stop at any bit and go on from a state of a few hundred bytes.
//!
//! Stateful decompression needs it: a stream's state lives in the guest's memory between requests, and no library
//! gives its state out. Whole streams go through `flate2`, which is faster. The state is guest data when it comes back,
//! so all of it is checked, and the code tables are built again from the code lengths in it.
//!
//! A symbol is decoded as a whole or not at all: what is there of it stays in the bit buffer, 47 bits at most.

#[cfg(test)]
mod tests;

use super::deflate::WINDOW_BYTES;

/// Bytes of output that gather before the caller must take them.
const OUT_BYTES: usize = 128 << 10;
const BUFFER_BYTES: usize = WINDOW_BYTES + OUT_BYTES;

/// Most literal/length codes and distance codes (3.2.5); 286 and 287, 30 and 31 take part in fixed codes only.
const LITERALS: usize = 288;
const DISTANCES: usize = 32;
const LENGTHS: usize = LITERALS + DISTANCES;
/// Order of the code length codes (3.2.7).
const ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];
const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// The data are not deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Why [`Inflate::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// All input is used up.
    Input,
    /// There is output that has no room.
    Output,
    /// The last block has ended, and the trailer is complete.
    End,
}

/// Bits of a code looked up at once; longer codes are found bit by bit.
const FAST_BITS: u32 = 10;

/// A Huffman code.
#[derive(Clone)]
struct Code {
    /// By the next bits of input: symbol in bits 15:4, its length in 3:0; 0 for codes that are longer or do not exist.
    fast: [u16; 1 << FAST_BITS],
    /// Codes of each length.
    count: [u16; 16],
    /// Symbols by length and value.
    symbols: [u16; LITERALS],
}

/// A decoding attempt.
enum Decoded {
    Symbol {
        symbol: u16,
        bits: u32,
    },
    /// No code begins with these bits, or with those to come.
    NeedBits,
    Invalid,
}

impl Code {
    const fn empty() -> Self {
        Self { fast: [0; 1 << FAST_BITS], count: [0; 16], symbols: [0; LITERALS] }
    }

    /// Builds the code of these lengths. A code must be complete, or have one symbol of one bit.
    fn build(&mut self, lengths: &[u8], may_be_single: bool) -> Result<(), Malformed> {
        self.count = [0; 16];
        for &length in lengths {
            *self.count.get_mut(usize::from(length)).ok_or(Malformed)? += 1;
        }
        let unused = std::mem::take(&mut self.count[0]);
        let used = lengths.len() - usize::from(unused);
        let mut left = 1_i32;
        for count in &self.count[1..] {
            left = (left << 1) - i32::from(*count);
            if left < 0 {
                return Err(Malformed);
            }
        }
        if left > 0 && !(may_be_single && (used == 0 || used == 1 && self.count[1] == 1)) {
            return Err(Malformed);
        }
        let mut offsets = [0_u16; 17];
        let mut codes = [0_u16; 17];
        for bits in 1..16 {
            offsets[bits + 1] = offsets[bits] + self.count[bits];
            codes[bits + 1] = (codes[bits] + self.count[bits]) << 1;
        }
        self.fast.fill(0);
        for (symbol, &length) in (0_u16..).zip(lengths) {
            if length == 0 {
                continue;
            }
            let bits = usize::from(length);
            if let Some(slot) = self.symbols.get_mut(usize::from(offsets[bits])) {
                *slot = symbol;
            }
            offsets[bits] += 1;
            let code = codes[bits];
            codes[bits] = code.wrapping_add(1);
            if u32::from(length) <= FAST_BITS {
                let first = usize::from(code.reverse_bits() >> (16 - u32::from(length)));
                for slot in self.fast.iter_mut().skip(first).step_by(1 << length) {
                    *slot = symbol << 4 | u16::from(length);
                }
            }
        }
        Ok(())
    }

    /// Decodes from the low end of `bits`, of which `available` are there.
    #[inline]
    fn decode(&self, bits: u64, available: u32) -> Decoded {
        let entry = self.fast[(bits as usize) & ((1 << FAST_BITS) - 1)];
        let length = u32::from(entry & 15);
        if length != 0 {
            return if length <= available {
                Decoded::Symbol { symbol: entry >> 4, bits: length }
            } else {
                Decoded::NeedBits
            };
        }
        self.decode_slowly(bits, available)
    }

    fn decode_slowly(&self, mut bits: u64, available: u32) -> Decoded {
        let (mut code, mut first, mut index) = (0_i32, 0_i32, 0_i32);
        for length in 1..16_u32 {
            if length > available {
                return Decoded::NeedBits;
            }
            code |= (bits & 1) as i32;
            bits >>= 1;
            let count = i32::from(self.count[length as usize]);
            if code - count < first {
                let symbol = usize::try_from(index + (code - first)).ok().and_then(|at| self.symbols.get(at));
                return symbol.map_or(Decoded::Invalid, |&symbol| Decoded::Symbol { symbol, bits: length });
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Decoded::Invalid
    }
}

/// Where in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    BlockHeader,
    StoredHeader,
    Stored,
    DynamicHeader,
    CodeLengthLengths,
    CodeLengths,
    Codes,
    Trailer,
    Done,
}

impl Mode {
    const ALL: [Self; 9] = [
        Self::BlockHeader,
        Self::StoredHeader,
        Self::Stored,
        Self::DynamicHeader,
        Self::CodeLengthLengths,
        Self::CodeLengths,
        Self::Codes,
        Self::Trailer,
        Self::Done,
    ];
}

/// A symbol that has been decoded and not yet put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Literal(u8),
    Match { len: u16, distance: u16 },
}

/// The decoder and its window.
pub(super) struct Inflate {
    mode: Mode,
    is_last: bool,
    /// Unused bits of input, the next at the low end.
    bits: u64,
    available: u32,
    /// Bytes left of a stored block.
    stored: u16,
    literals: u16,
    distances: u16,
    code_length_codes: u8,
    /// Code lengths read so far.
    have: u16,
    code_length_lengths: [u8; 19],
    lengths: [u8; LENGTHS],
    pending: Pending,
    trailer: [u8; 8],
    trailer_have: u8,
    trailer_bytes: u8,

    length_code: Code,
    literal_code: Code,
    distance_code: Code,
    /// History, then output that has not been taken.
    buffer: Box<[u8]>,
    /// Where new output begins, and where it ends.
    taken: usize,
    end: usize,
}

/// Bytes of a saved state.
pub(super) const STATE_BYTES: usize = 400;
/// What a saved state begins with: "inflate state, layout 1".
const STATE_MARK: u32 = 0x3153_4e49;

impl Inflate {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::BlockHeader,
            is_last: false,
            bits: 0,
            available: 0,
            stored: 0,
            literals: 0,
            distances: 0,
            code_length_codes: 0,
            have: 0,
            code_length_lengths: [0; 19],
            lengths: [0; LENGTHS],
            pending: Pending::Nothing,
            trailer: [0; 8],
            trailer_have: 0,
            trailer_bytes: 0,
            length_code: Code::empty(),
            literal_code: Code::empty(),
            distance_code: Code::empty(),
            buffer: vec![0; BUFFER_BYTES].into(),
            taken: 0,
            end: 0,
        }
    }

    /// Begins a stream that ends with a trailer of so many bytes, at most 8.
    pub(super) fn start(&mut self, trailer_bytes: usize) {
        self.mode = Mode::BlockHeader;
        self.is_last = false;
        (self.bits, self.available, self.stored) = (0, 0, 0);
        (self.literals, self.distances, self.code_length_codes, self.have) = (0, 0, 0, 0);
        self.lengths = [0; LENGTHS];
        self.code_length_lengths = [0; 19];
        self.pending = Pending::Nothing;
        (self.trailer, self.trailer_have) = ([0; 8], 0);
        self.trailer_bytes = trailer_bytes.min(8) as u8;
        (self.taken, self.end) = (0, 0);
    }

    /// The trailer, complete after [`Pause::End`].
    pub(super) fn trailer(&self) -> &[u8] {
        self.trailer.get(..usize::from(self.trailer_have)).unwrap_or_default()
    }

    pub(super) fn is_done(&self) -> bool {
        self.mode == Mode::Done
    }

    /// Whether the block in progress is the last.
    pub(super) const fn is_last_block(&self) -> bool {
        self.is_last
    }

    /// Bytes that have been decoded, or are known to come, and have had no room.
    pub(super) fn pending_bytes(&self) -> u32 {
        match (self.pending, self.mode) {
            (Pending::Literal(_), _) => 1,
            (Pending::Match { len, .. }, _) => len.into(),
            (Pending::Nothing, Mode::Stored) => self.stored.into(),
            (Pending::Nothing, _) => 0,
        }
    }

    /// Output since the last call; the window keeps it.
    pub(super) fn take_output(&mut self) -> &[u8] {
        let from = std::mem::replace(&mut self.taken, self.end);
        self.buffer.get(from..self.end).unwrap_or_default()
    }

    /// What further output may refer to.
    pub(super) fn history(&self) -> &[u8] {
        self.buffer.get(self.end.saturating_sub(WINDOW_BYTES)..self.end).unwrap_or_default()
    }

    /// The window's bytes to fill, at most [`WINDOW_BYTES`], before decoding goes on.
    pub(super) fn restore_history(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(WINDOW_BYTES);
        (self.taken, self.end) = (len, len);
        self.buffer.get_mut(..len).unwrap_or_default()
    }

    /// Whole bytes of input that are in the bit buffer go back, at most `limit`; how many.
    pub(super) fn give_back(&mut self, limit: u32) -> u32 {
        let bytes = (self.available / 8).min(limit);
        self.available -= bytes * 8;
        self.bits &= (1_u64 << self.available) - 1;
        bytes
    }

    fn refill(&mut self, input: &mut &[u8]) {
        while self.available <= 55 {
            let Some((&byte, rest)) = input.split_first() else { return };
            self.bits |= u64::from(byte) << self.available;
            self.available += 8;
            *input = rest;
        }
    }

    fn drop_bits(&mut self, count: u32) {
        self.bits >>= count;
        self.available -= count;
    }

    /// Takes `count` bits, at most 32, if they are there.
    fn take(&mut self, input: &mut &[u8], count: u32) -> Option<u32> {
        if self.available < count {
            self.refill(input);
            if self.available < count {
                return None;
            }
        }
        let value = self.bits & ((1_u64 << count) - 1);
        self.drop_bits(count);
        Some(value as u32)
    }

    /// Makes room in the buffer once all output has been taken.
    fn slide(&mut self) {
        if self.taken == self.end && self.end > BUFFER_BYTES / 2 && self.end > WINDOW_BYTES {
            let from = self.end - WINDOW_BYTES;
            self.buffer.copy_within(from..self.end, 0);
            (self.taken, self.end) = (WINDOW_BYTES, WINDOW_BYTES);
        }
    }

    /// Decodes from `input`, which moves on, at most `room` bytes of output. At [`Pause::Output`] the caller takes
    /// the output and calls again if it has room.
    ///
    /// # Errors
    /// [`Malformed`]; the state is then of no further use.
    pub(super) fn run(&mut self, input: &mut &[u8], room: usize) -> Result<Pause, Malformed> {
        self.slide();
        let stop = self.end.saturating_add(room).min(self.buffer.len());
        loop {
            let pause = match self.mode {
                Mode::BlockHeader => self.block_header(input)?,
                Mode::StoredHeader => self.stored_header(input)?,
                Mode::Stored => self.stored(input, stop),
                Mode::DynamicHeader => self.dynamic_header(input)?,
                Mode::CodeLengthLengths => self.code_length_lengths(input)?,
                Mode::CodeLengths => self.code_lengths(input)?,
                Mode::Codes => self.codes(input, stop)?,
                Mode::Trailer => self.read_trailer(input),
                Mode::Done => Some(Pause::End),
            };
            if let Some(pause) = pause {
                return Ok(pause);
            }
        }
    }

    fn block_header(&mut self, input: &mut &[u8]) -> Result<Option<Pause>, Malformed> {
        let Some(header) = self.take(input, 3) else { return Ok(Some(Pause::Input)) };
        self.is_last = header & 1 != 0;
        self.mode = match header >> 1 {
            0 => {
                self.drop_bits(self.available % 8);
                Mode::StoredHeader
            }
            1 => {
                self.fixed_lengths();
                self.build_codes()?;
                Mode::Codes
            }
            2 => Mode::DynamicHeader,
            _ => return Err(Malformed),
        };
        Ok(None)
    }

    fn stored_header(&mut self, input: &mut &[u8]) -> Result<Option<Pause>, Malformed> {
        let Some(lengths) = self.take(input, 32) else { return Ok(Some(Pause::Input)) };
        let (len, complement) = (lengths as u16, (lengths >> 16) as u16);
        if len != !complement {
            return Err(Malformed);
        }
        self.stored = len;
        self.mode = Mode::Stored;
        Ok(None)
    }

    fn stored(&mut self, input: &mut &[u8], stop: usize) -> Option<Pause> {
        while self.stored != 0 {
            if self.available < 8 && input.is_empty() {
                return Some(Pause::Input);
            }
            if self.end >= stop {
                return Some(Pause::Output);
            }
            let run = if self.available >= 8 {
                let byte = self.bits as u8;
                self.drop_bits(8);
                if let Some(slot) = self.buffer.get_mut(self.end) {
                    *slot = byte;
                }
                1
            } else {
                let run = usize::from(self.stored).min(stop - self.end).min(input.len());
                let (now, rest) = input.split_at(run);
                if let Some(space) = self.buffer.get_mut(self.end..self.end + run) {
                    space.copy_from_slice(now);
                }
                *input = rest;
                run
            };
            self.end += run;
            self.stored = self.stored.saturating_sub(run as u16);
        }
        self.end_block();
        None
    }

    fn end_block(&mut self) {
        self.mode = if self.is_last {
            self.drop_bits(self.available % 8);
            Mode::Trailer
        } else {
            Mode::BlockHeader
        };
    }

    fn dynamic_header(&mut self, input: &mut &[u8]) -> Result<Option<Pause>, Malformed> {
        let Some(header) = self.take(input, 14) else { return Ok(Some(Pause::Input)) };
        self.literals = 257 + (header & 31) as u16;
        self.distances = 1 + (header >> 5 & 31) as u16;
        self.code_length_codes = 4 + (header >> 10) as u8;
        if self.literals > 286 || self.distances > 30 {
            return Err(Malformed);
        }
        self.have = 0;
        self.code_length_lengths = [0; 19];
        self.lengths = [0; LENGTHS];
        self.mode = Mode::CodeLengthLengths;
        Ok(None)
    }

    fn code_length_lengths(&mut self, input: &mut &[u8]) -> Result<Option<Pause>, Malformed> {
        while self.have < u16::from(self.code_length_codes) {
            let Some(length) = self.take(input, 3) else { return Ok(Some(Pause::Input)) };
            let symbol = ORDER.get(usize::from(self.have)).copied().unwrap_or(0);
            if let Some(slot) = self.code_length_lengths.get_mut(usize::from(symbol)) {
                *slot = length as u8;
            }
            self.have += 1;
        }
        self.length_code.build(&self.code_length_lengths, false)?;
        self.have = 0;
        self.mode = Mode::CodeLengths;
        Ok(None)
    }

    fn code_lengths(&mut self, input: &mut &[u8]) -> Result<Option<Pause>, Malformed> {
        let total = self.literals + self.distances;
        while self.have < total {
            self.refill(input);
            let (symbol, bits) = match self.length_code.decode(self.bits, self.available) {
                Decoded::Symbol { symbol, bits } => (symbol, bits),
                Decoded::NeedBits => return Ok(Some(Pause::Input)),
                Decoded::Invalid => return Err(Malformed),
            };
            let (extra, least) = match symbol {
                0..=15 => (0, 1),
                16 => (2, 3),
                17 => (3, 3),
                _ => (7, 11),
            };
            if self.available < bits + extra {
                return Ok(Some(Pause::Input));
            }
            let repeat = least + (self.bits >> bits & ((1 << extra) - 1)) as u16;
            self.drop_bits(bits + extra);
            let length = match symbol {
                0..=15 => symbol as u8,
                16 => {
                    let last = self.have.checked_sub(1).ok_or(Malformed)?;
                    self.lengths.get(usize::from(last)).copied().unwrap_or(0)
                }
                _ => 0,
            };
            if self.have + repeat > total {
                return Err(Malformed);
            }
            let range = usize::from(self.have)..usize::from(self.have + repeat);
            if let Some(lengths) = self.lengths.get_mut(range) {
                lengths.fill(length);
            }
            self.have += repeat;
        }
        // Distances move to where those of a fixed code are.
        let (literals, distances) = (usize::from(self.literals), usize::from(self.distances));
        let mut lengths = [0; LENGTHS];
        lengths[..literals].copy_from_slice(&self.lengths[..literals]);
        lengths[LITERALS..LITERALS + distances]
            .copy_from_slice(&self.lengths[literals..literals + distances]);
        self.lengths = lengths;
        if self.lengths[256] == 0 {
            return Err(Malformed); // no end of block
        }
        self.build_codes()?;
        self.mode = Mode::Codes;
        Ok(None)
    }

    /// Lengths of the fixed code (3.2.6).
    fn fixed_lengths(&mut self) {
        self.lengths[..144].fill(8);
        self.lengths[144..256].fill(9);
        self.lengths[256..280].fill(7);
        self.lengths[280..LITERALS].fill(8);
        self.lengths[LITERALS..].fill(5);
    }

    fn build_codes(&mut self) -> Result<(), Malformed> {
        self.literal_code.build(&self.lengths[..LITERALS], true)?;
        self.distance_code.build(&self.lengths[LITERALS..], true)
    }

    fn codes(&mut self, input: &mut &[u8], stop: usize) -> Result<Option<Pause>, Malformed> {
        loop {
            if self.pending != Pending::Nothing && !self.put_pending(stop) {
                return Ok(Some(Pause::Output));
            }
            self.refill(input);
            let (symbol, bits) = match self.literal_code.decode(self.bits, self.available) {
                Decoded::Symbol { symbol, bits } => (symbol, bits),
                Decoded::NeedBits => return Ok(Some(Pause::Input)),
                Decoded::Invalid => return Err(Malformed),
            };
            if let Ok(literal) = u8::try_from(symbol) {
                self.drop_bits(bits);
                match self.buffer.get_mut(self.end) {
                    Some(slot) if self.end < stop => {
                        *slot = literal;
                        self.end += 1;
                    }
                    _ => self.pending = Pending::Literal(literal),
                }
                continue;
            }
            if symbol == 256 {
                self.drop_bits(bits);
                self.end_block();
                return Ok(None);
            }
            match self.decode_match(usize::from(symbol - 257), bits)? {
                Some(pending) => self.pending = pending,
                None => return Ok(Some(Pause::Input)),
            }
        }
    }

    /// The match whose length code, of `bits` bits, is at the low end of the bit buffer; `None` if it is not all
    /// there.
    fn decode_match(&mut self, length_code: usize, bits: u32) -> Result<Option<Pending>, Malformed> {
        let (&base, &extra) =
            LENGTH_BASE.get(length_code).zip(LENGTH_EXTRA.get(length_code)).ok_or(Malformed)?;
        let mut used = bits;
        if self.available < used + u32::from(extra) {
            return Ok(None);
        }
        let len = base + (self.bits >> used & ((1 << extra) - 1)) as u16;
        used += u32::from(extra);
        let distance_code = match self.distance_code.decode(self.bits >> used, self.available - used) {
            Decoded::Symbol { symbol, bits } => {
                used += bits;
                usize::from(symbol)
            }
            Decoded::NeedBits => return Ok(None),
            Decoded::Invalid => return Err(Malformed),
        };
        let (&base, &extra) =
            DISTANCE_BASE.get(distance_code).zip(DISTANCE_EXTRA.get(distance_code)).ok_or(Malformed)?;
        if self.available < used + u32::from(extra) {
            return Ok(None);
        }
        let distance = base + (self.bits >> used & ((1 << extra) - 1)) as u16;
        self.drop_bits(used + u32::from(extra));
        if usize::from(distance) > self.end {
            return Err(Malformed);
        }
        Ok(Some(Pending::Match { len, distance }))
    }

    /// Puts the pending symbol out as far as there is room. Whether all of it went.
    fn put_pending(&mut self, stop: usize) -> bool {
        match self.pending {
            Pending::Nothing => return true,
            Pending::Literal(literal) => {
                if self.end >= stop {
                    return false;
                }
                if let Some(slot) = self.buffer.get_mut(self.end) {
                    *slot = literal;
                }
                self.end += 1;
            }
            Pending::Match { len, distance } => {
                let run = usize::from(len).min(stop.saturating_sub(self.end));
                let distance_bytes = usize::from(distance);
                let mut done = 0;
                while done < run {
                    // As much as does not depend on itself.
                    let part = (run - done).min(distance_bytes);
                    let from = self.end - distance_bytes;
                    self.buffer.copy_within(from..from + part, self.end);
                    self.end += part;
                    done += part;
                }
                let rest = len - run as u16;
                if rest != 0 {
                    self.pending = Pending::Match { len: rest, distance };
                    return false;
                }
            }
        }
        self.pending = Pending::Nothing;
        true
    }

    fn read_trailer(&mut self, input: &mut &[u8]) -> Option<Pause> {
        while self.trailer_have < self.trailer_bytes {
            let Some(byte) = self.take(input, 8) else { return Some(Pause::Input) };
            if let Some(slot) = self.trailer.get_mut(usize::from(self.trailer_have)) {
                *slot = byte as u8;
            }
            self.trailer_have += 1;
        }
        self.mode = Mode::Done;
        None
    }

    /// The state, without history.
    pub(super) fn save(&self) -> [u8; STATE_BYTES] {
        let mut writer = Fields { bytes: [0; STATE_BYTES], at: 0 };
        let (kind, value, distance) = match self.pending {
            Pending::Nothing => (0, 0, 0),
            Pending::Literal(literal) => (1, literal.into(), 0),
            Pending::Match { len, distance } => (2, len, distance),
        };
        let mode = Mode::ALL.iter().position(|&mode| mode == self.mode).unwrap_or(0);
        writer.put(&STATE_MARK.to_le_bytes());
        writer.put(&[mode as u8, self.is_last.into(), self.available as u8, self.code_length_codes]);
        writer.put(&self.bits.to_le_bytes());
        for half in [self.stored, self.literals, self.distances, self.have, kind, value, distance] {
            writer.put(&half.to_le_bytes());
        }
        writer.put(&[self.trailer_have, self.trailer_bytes]);
        writer.put(&self.trailer);
        writer.put(&self.code_length_lengths);
        writer.put(&self.lengths);
        writer.bytes
    }

    /// Takes a saved state up again; [`Self::restore_history`] has been called before.
    ///
    /// # Errors
    /// [`Malformed`], if it is none.
    pub(super) fn restore(&mut self, bytes: [u8; STATE_BYTES]) -> Result<(), Malformed> {
        let mut reader = Fields { bytes, at: 0 };
        if reader.take::<4>() != STATE_MARK.to_le_bytes() {
            return Err(Malformed);
        }
        let [mode, is_last, available, code_length_codes] = reader.take();
        self.mode = *Mode::ALL.get(usize::from(mode)).ok_or(Malformed)?;
        self.is_last = is_last != 0;
        self.available = available.into();
        self.code_length_codes = code_length_codes;
        self.bits = u64::from_le_bytes(reader.take());
        let mut half = || u16::from_le_bytes(reader.take());
        (self.stored, self.literals, self.distances, self.have) = (half(), half(), half(), half());
        self.pending = match (half(), half(), half()) {
            (0, _, _) => Pending::Nothing,
            (1, literal, _) => Pending::Literal(u8::try_from(literal).map_err(|_| Malformed)?),
            (2, len @ 1..=258, distance @ 1..=0x8000) if usize::from(distance) <= self.end => {
                Pending::Match { len, distance }
            }
            _ => return Err(Malformed),
        };
        [self.trailer_have, self.trailer_bytes] = reader.take();
        self.trailer = reader.take();
        self.code_length_lengths = reader.take();
        self.lengths = reader.take();
        let is_sound = self.available < 64
            && self.bits >> self.available == 0
            && self.literals <= 286
            && self.distances <= 30
            && self.have <= 316
            && self.code_length_codes <= 19
            && self.trailer_bytes <= 8
            && self.trailer_have <= self.trailer_bytes;
        if !is_sound {
            return Err(Malformed);
        }
        match self.mode {
            Mode::CodeLengths => self.length_code.build(&self.code_length_lengths, false),
            Mode::Codes => self.build_codes(),
            _ => Ok(()),
        }
    }
}

/// A state being written or read, field by field.
struct Fields {
    bytes: [u8; STATE_BYTES],
    at: usize,
}

impl Fields {
    fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        if let Some(space) = self.bytes.get_mut(self.at..end) {
            space.copy_from_slice(field);
        }
        self.at = end;
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let field = self.bytes.get(self.at..self.at + N).and_then(|field| field.try_into().ok());
        self.at += N;
        field.unwrap_or([0; N])
    }
}
