//! Blocks of pre-decoded instructions, and the memory they live in.
//!
//! A block is a header followed by its instructions, in one piece, at an address that stays the same until the whole
//! arena is emptied. The interpreter walks it by pointer; blocks refer to one another by [`Link`]s that are valid only
//! while a stamp matches, so that nothing has to be unlinked. The header has a slot for each tier: the instructions
//! themselves are T0's, [`Block::code`] is the translation, and [`Block::heat`] says when one is worth making.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::insn::Insn;

/// Instructions in a block, without the one that the engine may add at the end.
pub(crate) const LONGEST: usize = 64;

/// A stamp that no vCPU ever has.
pub(crate) const NEVER: u64 = u64::MAX;

/// Where a block's direct branch leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The link is valid while the vCPU's stamp for the block's half of the address space is this.
    pub stamp: u64,
    pub block: NonNull<Block>,
}

/// A run of instructions that is entered at the top and left at the bottom.
#[derive(Debug)]
#[repr(C, align(8))]
pub(crate) struct Block {
    /// Virtual address of the first instruction.
    pub pc: u64,
    /// Virtual address after the last one.
    pub end: u64,
    /// Physical address of the first instruction.
    pub pa: u64,
    /// Where the block goes when its branch is taken (0) and when not (1).
    pub links: [Link; 2],
    /// The context that it was decoded for.
    pub context: u16,
    /// Whether it is in the upper half of the address space: which of the vCPU's stamps counts.
    pub half: u8,
    /// The 64-byte granules of its page that it was made from: what is written there makes it stale.
    pub granules: u64,
    /// How many instructions are the guest's, without the one that the engine may have added at the end.
    pub len: u16,
    /// Executions by the interpreter before the loop asks what to do about the block. 0: ask at once, because the block
    /// is translated.
    pub heat: u32,
    /// Rounds of the loop that this block's branch closes until it is worth a region; below zero when it was looked at.
    pub rounds: i32,
    /// The translation is that of a region that begins with this block.
    pub is_region: bool,
    /// How often that has been made anew.
    pub renewed: u8,
    /// The translation, or what stands for none: an address to jump to, with the guest's registers in memory.
    pub code: *const u8,
}

impl Block {
    /// The first instruction.
    #[inline(always)]
    pub(crate) fn insns(block: NonNull<Self>) -> *const Insn {
        // SAFETY: `Arena::add` lays the instructions out directly after the header, in the same allocation.
        unsafe { block.as_ptr().add(1).cast() }
    }
}

// The instructions start right after the header.
const _: () = assert!(size_of::<Block>().is_multiple_of(align_of::<Insn>()));

/// Bytes of a segment.
const SEGMENT: usize = 1 << 20;
/// Segments of a full arena. 12 MiB hold some 450,000 instructions: a distribution's kernel fills it once while it boots.
const SEGMENTS: usize = 12;

const LAYOUT: Layout = match Layout::from_size_align(SEGMENT, 64) {
    Ok(layout) => layout,
    Err(_) => panic!("a segment is no layout"),
};

/// Where one vCPU's blocks live.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    segments: Vec<NonNull<u8>>,
    /// Segments in use; the others are kept for reuse.
    full: usize,
    /// Bytes used of the last segment in use.
    used: usize,
}

// SAFETY: the segments belong to the arena alone.
unsafe impl Send for Arena {}

/// Bytes of a block of `count` instructions.
const fn bytes_of(count: usize) -> usize {
    (size_of::<Block>() + count * size_of::<Insn>()).next_multiple_of(align_of::<Block>())
}

impl Arena {
    fn fits(&self, bytes: usize) -> bool {
        self.full > 0 && self.used + bytes <= SEGMENT
    }

    /// Whether there is room for a block of `count` instructions.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.full < SEGMENTS || self.fits(bytes_of(count))
    }

    /// A new block of `insns` behind `header`.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn add(&mut self, header: Block, insns: &[Insn]) -> NonNull<Block> {
        let bytes = bytes_of(insns.len());
        assert!(self.has_room(insns.len()) && bytes <= SEGMENT, "the arena is emptied when it is full");
        if !self.fits(bytes) {
            if self.full == self.segments.len() {
                // SAFETY: the layout's size is not zero.
                let segment = unsafe { alloc(LAYOUT) };
                self.segments.push(NonNull::new(segment).unwrap_or_else(|| handle_alloc_error(LAYOUT)));
            }
            self.full += 1;
            self.used = 0;
        }
        let segment = self.segments[self.full - 1];
        // SAFETY: `used + bytes` is within the segment, `used` is a multiple of the header's alignment and the
        // segment is aligned to more; nothing else is at these bytes.
        unsafe {
            let block = segment.add(self.used).cast::<Block>();
            block.write(header);
            let code = block.add(1).cast::<Insn>();
            code.as_ptr().copy_from_nonoverlapping(insns.as_ptr(), insns.len());
            self.used += bytes;
            block
        }
    }

    /// Forgets all blocks. Pointers to them must not be used any more.
    pub(crate) fn empty(&mut self) {
        self.full = 0;
        self.used = 0;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for segment in self.segments.drain(..) {
            // SAFETY: allocated in `add` with this layout.
            unsafe { dealloc(segment.as_ptr(), LAYOUT) };
        }
    }
}
