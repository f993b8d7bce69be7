//! The workers for tasks, as numbers.

#[derive(Debug)]
pub(super) struct Crew {
    /// Those that wait for work, and those that are on their way.
    pub(super) idle: usize,
    hired: usize,
    limit: usize,
}

impl Crew {
    pub(super) const fn new(limit: usize) -> Self {
        Self { idle: 0, hired: 0, limit }
    }

    /// Counts one more that is to be hired. `false` if there are not to be more.
    pub(super) fn hire(&mut self) -> bool {
        let is_one_more = self.hired < self.limit;
        self.hired += usize::from(is_one_more);
        self.idle += usize::from(is_one_more);
        is_one_more
    }

    /// `count` of them could not be had; no more are asked for. One there is, who was hired first.
    pub(super) fn hire_failed(&mut self, count: usize) {
        self.idle = self.idle.saturating_sub(count);
        self.hired = self.hired.saturating_sub(count);
        self.limit = self.hired;
    }
}
