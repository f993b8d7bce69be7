//! When the commands were rung for that wait in a submission queue.

use std::collections::VecDeque;

/// Most doorbells that are remembered. What waits behind more of them has no time.
const MOST: usize = 1024;

/// What one doorbell has added.
#[derive(Clone, Copy, Debug)]
struct Rung {
    /// Place of the first command that no worker has taken.
    first: u16,
    /// Commands from there on.
    count: u16,
    at_ns: u64,
}

/// The doorbells of a queue's waiting commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Submissions(VecDeque<Rung>);

impl Submissions {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// A doorbell has moved the tail from `first` to `tail` in a ring of `depth` places, whose oldest command is at `head`.
    pub(super) fn rung(&mut self, head: u16, first: u16, tail: u16, depth: u16, at_ns: u64) {
        let (waiting, count) = (between(head, first, depth), between(first, tail, depth));
        if waiting + count >= u32::from(depth) {
            // Past the oldest command: no time is that of what is there now.
            self.forget();
        } else if count != 0 && self.0.len() < MOST {
            self.0.push_back(Rung { first, count: count as u16, at_ns });
        }
    }

    /// The command at `index` is taken, which is the oldest: when it was rung for, if that is known.
    pub(super) fn taken(&mut self, index: u16, depth: u16) -> Option<u64> {
        let oldest = self.0.front_mut()?;
        if oldest.first != index {
            return None;
        }
        let at_ns = oldest.at_ns;
        oldest.count -= 1;
        oldest.first = super::context::next(index, depth).0;
        if oldest.count == 0 {
            self.0.pop_front();
        }
        Some(at_ns)
    }
}

/// Steps from one place of a ring to another. Both are below `depth`.
const fn between(from: u16, to: u16, depth: u16) -> u32 {
    if to >= from { (to - from) as u32 } else { (depth - from + to) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_time_of_their_doorbell_around_the_ring() {
        let mut queue = Submissions::default();
        queue.rung(6, 6, 7, 8, 10);
        queue.rung(6, 7, 1, 8, 20);
        queue.rung(6, 1, 1, 8, 30);
        let taken: Vec<_> = [6, 7, 0, 1].into_iter().map(|index| queue.taken(index, 8)).collect();
        assert_eq!(taken, [Some(10), Some(20), Some(20), None]);
    }

    #[test]
    fn commands_that_nobody_saw_submitted_have_no_time_and_those_behind_them_have() {
        let mut queue = Submissions::default();
        queue.rung(2, 4, 5, 8, 10);
        assert_eq!([2, 3, 4].map(|index| queue.taken(index, 8)), [None, None, Some(10)]);
    }

    #[test]
    fn doorbell_past_the_oldest_command_takes_all_times() {
        let mut queue = Submissions::default();
        queue.rung(0, 0, 3, 4, 10);
        queue.rung(0, 3, 1, 4, 20);
        assert_eq!(queue.taken(0, 4), None);
    }

    #[test]
    fn endless_doorbells_are_remembered_up_to_a_bound() {
        let mut queue = Submissions::default();
        (0..60_000).for_each(|index| queue.rung(0, index, index + 1, u16::MAX, 1));
        assert_eq!(queue.0.len(), MOST);
        let timed = (0..60_000).filter(|index| queue.taken(*index, u16::MAX).is_some()).count();
        assert_eq!(timed, MOST);
    }
}
