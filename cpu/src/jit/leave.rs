//! Ends of blocks: where direct branches lead, by links or within a region, and the ways out of a region.
//!
//! Links are made when they are first taken, and hold by what [`LinkKind`] says. The flags that a way out needs, and the
//! region has not stored, are stored there.

use std::mem::offset_of;

use super::access::Cold;
use super::flags::{HostFlags, Kept};
use super::stubs::{self, state_at};
use super::translator::{LinkKind, LinkSite, Translator};
use super::x64::{Alu, Cond, Gpr, Label, Mem, Size};
use crate::code::half;
use crate::state::State;

impl Translator<'_> {
    /// Goes to `target`, directly. All registers have been written back.
    pub(crate) fn leave_to(&mut self, target: u64) {
        self.write_back();
        self.jump_to(target);
    }

    /// A conditional branch: to `taken` if `cond`, else to the next instruction. All registers have been written back.
    pub(crate) fn leave_if(&mut self, cond: Cond, taken: u64) {
        if let Some(label) = self.label_behind(taken) {
            // The look that each round of a loop takes is in line, so that a round has one jump.
            let stay = self.asm.label();
            self.asm.jcc(cond.not(), stay);
            self.emit_back(label, taken);
            self.asm.bind(stay);
            // What comes here has not looked: the flags are what they were.
            self.jump_to(self.end());
        } else if !self.region.is_empty() || self.counts(taken) {
            let label = self.edge(taken);
            self.asm.jcc(cond, label);
            self.jump_to(self.end());
        } else if self.is_near(taken) {
            let (number, label) = self.link(taken);
            let offset = self.asm.jcc_patchable(cond, self.asm.here());
            self.asm.retarget(offset, label);
            self.links[number].kind = LinkKind::Jump(self.asm.address(offset));
            self.jump_to(self.end());
        } else {
            let near = self.asm.label();
            self.asm.jcc(cond, near);
            self.jump_to(self.end());
            self.asm.bind(near);
            self.jump_to(taken);
        }
    }

    /// Whether a branch to `target` closes a loop that may become worth a region.
    fn counts(&self, target: u64) -> bool {
        self.region.is_empty() && self.is_near(target) && target <= self.pc()
    }

    /// The block of the region at `target`.
    fn label_inside(&self, target: u64) -> Option<Label> {
        self.region.iter().find(|(pc, _)| *pc == target).map(|(_, label)| *label)
    }

    /// The block of the region at `target`, if a branch there may close a loop: then the pending word is to be looked at.
    fn label_behind(&self, target: u64) -> Option<Label> {
        self.label_inside(target).filter(|_| target < self.end())
    }

    /// Where to jump to for `target`, which is ahead in the region or outside: then code out of the way leaves it.
    fn edge(&mut self, target: u64) -> Label {
        if let Some(label) = self.label_inside(target) {
            self.edges.push((target, self.host_flags, self.memory_is_old));
            return label;
        }
        let entry = self.asm.label();
        self.cold.push(Cold::leave_to(entry, target, self.counts(target), self.flags_for(target)));
        entry
    }

    /// What the host's flags hold, if code at `target`, outside the region, must find that in memory, and it is not there.
    fn flags_for(&self, target: u64) -> Option<HostFlags> {
        let lives = |&(successor, kept): &(u64, Kept)| successor == target && kept != Kept::Nowhere;
        if self.region.is_empty() || !self.memory_is_old || !self.successors.iter().flatten().any(lives) {
            return None;
        }
        debug_assert!(
            self.host_flags.can_be_stored() || self.live_out.memory < Kept::Whole,
            "flags are stored for those that find them in memory"
        );
        Some(self.host_flags).filter(|flags| flags.can_be_stored())
    }

    /// Emits code out of the way that leaves for `target`.
    pub(super) fn emit_leave_to(&mut self, target: u64, counted: bool, flags: Option<HostFlags>) {
        if let Some(flags) = flags {
            self.store_host_flags(flags);
        }
        if counted {
            let hot = self.hot(target);
            self.asm.mov_imm64(Gpr::Rax, self.counter);
            self.asm.alu_imm(Alu::Sub, Size::Dword, Mem::base(Gpr::Rax, 0), 1);
            self.asm.jcc(Cond::S, hot);
        }
        self.write_back_fixed();
        self.link_to(target);
    }

    /// Goes round a loop of the region, to its block `label` at `target`, unless something is pending.
    fn emit_back(&mut self, label: Label, target: u64) {
        let wanted = self.asm.label();
        self.edges.push((target, HostFlags::Unknown, self.memory_is_old));
        stubs::jump_unless_wanted(self.asm, label);
        self.asm.jmp(wanted);
        self.cold.push(Cold::wanted(wanted, target));
    }

    /// Emits code out of the way that leaves a loop for something that is pending.
    pub(super) fn emit_wanted(&mut self, target: u64) {
        self.write_back_fixed();
        self.asm.mov_imm(Gpr::Rax, target);
        self.asm.mov_store(Size::Qword, state_at(offset_of!(State, pc)), Gpr::Rax);
        self.asm.jmp_to(self.stubs.pending);
    }

    /// A way out that says that the loop at `target` is hot.
    fn hot(&mut self, target: u64) -> Label {
        let number = self.links.len();
        self.links.push(LinkSite { target, kind: LinkKind::Counter(self.counter) });
        let label = self.asm.label();
        self.cold.push(Cold::link(label, number, self.stubs.hot));
        label
    }

    /// Whether a link to `target` holds as long as the block does.
    fn is_near(&self, target: u64) -> bool {
        (target ^ self.start) & !0xfff == 0 && target & 3 == 0
    }

    fn link(&mut self, target: u64) -> (usize, Label) {
        let number = self.links.len();
        self.links.push(LinkSite { target, kind: LinkKind::Jump(0) });
        let label = self.asm.label();
        self.cold.push(Cold::link(label, number, self.stubs.link));
        (number, label)
    }

    fn jump_to(&mut self, target: u64) {
        if let Some(label) = self.label_behind(target) {
            self.emit_back(label, target);
            return;
        }
        if self.label_inside(target).is_some() {
            let label = self.edge(target);
            if self.following != Some(target) {
                self.asm.jmp(label);
            }
            return;
        }
        if self.counts(target) {
            let label = self.edge(target);
            self.asm.jmp(label);
            return;
        }
        if let Some(flags) = self.flags_for(target) {
            self.store_host_flags(flags);
        }
        self.write_back_fixed();
        self.link_to(target);
    }

    /// Leaves for `target`: by a link, where a stamp speaks of it.
    fn link_to(&mut self, target: u64) {
        if half(target) != half(self.start) {
            // No stamp of ours speaks of it.
            self.asm.mov_imm(Gpr::Rax, target);
            self.asm.jmp_to(self.stubs.lookup);
            return;
        }
        let near = self.is_near(target);
        let (number, label) = self.link(target);
        if near {
            let offset = self.asm.jmp_patchable(self.asm.here());
            self.asm.retarget(offset, label);
            self.links[number].kind = LinkKind::Jump(self.asm.address(offset));
        } else {
            let data = self.asm.label();
            self.asm.mov(Size::Qword, Gpr::Rax, stamp_at(half(target)));
            self.asm.alu(Alu::Cmp, Size::Qword, Gpr::Rax, Mem::At(data));
            self.asm.jcc(Cond::Ne, label);
            let address = self.asm.label();
            self.asm.jmp_rm(Mem::At(address));
            self.cold.push(Cold::data(data, address, number));
        }
    }

    /// Goes to the address in RAX, which a register held. All registers have been written back.
    pub(crate) fn leave_to_rax(&mut self) {
        self.write_back_fixed();
        let miss = self.asm.label();
        self.asm.mov(Size::Qword, Gpr::Rdx, stamp_at(half(self.start)));
        stubs::probe(self.asm, miss);
        self.asm.bind(miss);
        self.asm.jmp_to(self.stubs.lookup);
    }
}

fn stamp_at(half: usize) -> Mem {
    state_at(offset_of!(State, stamp) + 8 * half)
}
