//! Which guest registers are in which host registers while a block is being translated.
//!
//! At the border of a block all guest registers are in memory, in [`State`](crate::State). Inside, a register is loaded at
//! its first use and written back at the border, or when its place is needed, or before something reads memory. Some
//! registers can be *fixed* for several blocks that are translated together: they keep their place at borders too. The
//! file only keeps the books; the loads and stores are `translator`'s.

/// A register file of the guest, kept in a pool of `N` host registers that are known by their index.
#[derive(Clone, Debug)]
pub(crate) struct Registers<const N: usize> {
    slots: [Slot; N],
    /// The slot of each guest register, or [`NOWHERE`].
    places: [u8; GUESTS],
    clock: u32,
}

/// Guest registers at most: general ones by the numbers of [`State::x`](crate::State::x).
const GUESTS: usize = 34;
const NOWHERE: u8 = u8::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The register that is here, or [`NOWHERE`].
    guest: u8,
    /// Memory has an older value.
    dirty: bool,
    /// Used by the instruction that is being translated: stays.
    locked: bool,
    /// Stays for longer.
    fixed: bool,
    used: u32,
}

impl<const N: usize> Registers<N> {
    /// None is in a host register.
    pub(crate) const fn new() -> Self {
        let free = Slot { guest: NOWHERE, dirty: false, locked: false, fixed: false, used: 0 };
        Self { slots: [free; N], places: [NOWHERE; GUESTS], clock: 0 }
    }

    /// The slot of a register, which the present instruction then keeps.
    #[inline]
    pub(crate) fn find(&mut self, guest: u8) -> Option<usize> {
        let slot = self.places[usize::from(guest)];
        if slot == NOWHERE {
            return None;
        }
        self.touch(slot.into());
        Some(slot.into())
    }

    /// The slot of a register, if it has one.
    pub(crate) fn peek(&self, guest: u8) -> Option<usize> {
        let slot = self.places[usize::from(guest)];
        (slot != NOWHERE).then_some(slot.into())
    }

    #[inline]
    fn touch(&mut self, slot: usize) {
        self.clock += 1;
        self.slots[slot].used = self.clock;
        self.slots[slot].locked = true;
    }

    /// Gives `guest`, which has none, a slot: a free one, or the one that was used longest ago. If memory lacks the value of
    /// the register that had the slot, that register is given too: it must be written back from there.
    ///
    /// # Panics
    /// If the present instruction uses all slots: none has that many operands.
    pub(crate) fn allocate(&mut self, guest: u8) -> (usize, Option<u8>) {
        let candidate = (0..N)
            .filter(|&n| !self.slots[n].locked && !self.slots[n].fixed)
            .min_by_key(|&n| if self.slots[n].guest == NOWHERE { 0 } else { self.slots[n].used.max(1) })
            .expect("an instruction has fewer operands than there are host registers");
        let old = self.slots[candidate];
        if old.guest != NOWHERE {
            self.places[usize::from(old.guest)] = NOWHERE;
        }
        self.places[usize::from(guest)] = candidate as u8;
        self.slots[candidate] = Slot { guest, dirty: false, locked: true, fixed: false, used: 0 };
        self.touch(candidate);
        (candidate, old.dirty.then_some(old.guest))
    }

    /// Fixes `guest` in a free slot, if there is one.
    pub(crate) fn fix(&mut self, guest: u8) -> Option<usize> {
        let slot = self.slots.iter().position(|slot| slot.guest == NOWHERE)?;
        self.places[usize::from(guest)] = slot as u8;
        self.slots[slot] = Slot { guest, dirty: false, locked: false, fixed: true, used: 0 };
        Some(slot)
    }

    /// The register in `slot` gets a new value.
    #[inline]
    pub(crate) fn set_dirty(&mut self, slot: usize) {
        self.slots[slot].dirty = true;
    }

    /// Memory has the value of the register in `slot`.
    pub(crate) fn set_clean(&mut self, slot: usize) {
        self.slots[slot].dirty = false;
    }

    /// The slots whose registers memory has older values of, with the registers.
    pub(crate) fn dirty(&self) -> impl Iterator<Item = (usize, u8)> + use<'_, N> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.dirty).map(|(n, slot)| (n, slot.guest))
    }

    /// The fixed slots, with their registers.
    pub(crate) fn fixed(&self) -> impl Iterator<Item = (usize, u8)> + use<N> {
        let slots = self.slots;
        (0..N).filter(move |&n| slots[n].fixed).map(move |n| (n, slots[n].guest))
    }

    /// The fixed slots whose registers are written anywhere in the region.
    pub(crate) fn dirty_fixed(&self) -> impl Iterator<Item = (usize, u8)> + use<N> {
        let slots = self.slots;
        (0..N).filter(move |&n| slots[n].fixed && slots[n].dirty).map(move |n| (n, slots[n].guest))
    }

    /// Whether `guest` is fixed.
    pub(crate) fn is_fixed(&self, guest: u8) -> bool {
        let slot = self.places[usize::from(guest)];
        slot != NOWHERE && self.slots[usize::from(slot)].fixed
    }

    /// The slots in use, with their registers.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = (usize, u8)> + use<'_, N> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.guest != NOWHERE)
            .map(|(n, slot)| (n, slot.guest))
    }

    /// Whether any register is in a host register.
    pub(crate) fn any(&self) -> bool {
        self.slots.iter().any(|slot| slot.guest != NOWHERE)
    }

    /// Forgets `guest`, whose value in memory is the newer one, or is not wanted. A fixed one stays.
    pub(crate) fn forget(&mut self, guest: u8) {
        let slot = self.places[usize::from(guest)];
        if slot != NOWHERE && !self.slots[usize::from(slot)].fixed {
            self.places[usize::from(guest)] = NOWHERE;
            self.slots[usize::from(slot)].guest = NOWHERE;
            self.slots[usize::from(slot)].dirty = false;
        }
    }

    /// Forgets all that are not fixed. What was dirty is written back already.
    pub(crate) fn forget_all(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.fixed) {
            if slot.guest != NOWHERE {
                self.places[usize::from(slot.guest)] = NOWHERE;
                slot.guest = NOWHERE;
            }
            slot.dirty = false;
        }
    }

    /// The present instruction is translated.
    #[inline]
    pub(crate) fn unlock(&mut self) {
        for slot in &mut self.slots {
            slot.locked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_pool_gives_the_slot_that_was_used_longest_ago_and_names_what_it_held() {
        let mut registers = Registers::<3>::new();
        for guest in 0..3 {
            let (slot, evicted) = registers.allocate(guest);
            assert_eq!((slot, evicted), (usize::from(guest), None));
        }
        registers.set_dirty(0);
        registers.unlock();
        registers.find(1);
        registers.unlock();

        assert_eq!(registers.allocate(7), (0, Some(0)));
        assert_eq!((registers.find(0), registers.find(7)), (None, Some(0)));
    }

    #[test]
    fn operands_of_the_present_instruction_and_fixed_registers_keep_their_slots() {
        let mut registers = Registers::<3>::new();
        registers.fix(30);
        registers.allocate(1);
        registers.unlock();
        registers.allocate(2);
        registers.unlock();
        registers.find(1);

        assert_eq!(registers.allocate(3).0, 2);
        registers.forget_all();
        assert_eq!((registers.peek(30), registers.peek(1)), (Some(0), None));
    }
}
