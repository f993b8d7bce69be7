//! The workers for tasks, as numbers.

#[derive(Debug)]
pub(super) struct Pool {
    /// Workers that wait for a task, and those whose start has been asked for.
    idle: usize,
    /// Workers that there are, and those whose start has been asked for.
    size: usize,
    limit: usize,
}

impl Pool {
    pub(super) const fn new(limit: usize) -> Self {
        Self { idle: 0, size: 0, limit }
    }

    pub(super) const fn idle(&self) -> usize {
        self.idle
    }

    /// Counts one more that is to be started. `false` if there are not to be more.
    pub(super) fn grow(&mut self) -> bool {
        let is_one_more = self.size < self.limit;
        self.size += usize::from(is_one_more);
        self.idle += usize::from(is_one_more);
        is_one_more
    }

    /// `count` of them could not be started; no more are asked for. One there is, which was started first.
    pub(super) fn start_failed(&mut self, count: usize) {
        self.idle = self.idle.checked_sub(count).expect("only who has been started finds a task");
        self.size = self.size.checked_sub(count).expect("who is started has been counted");
        self.limit = self.size;
    }

    /// A worker has found a task.
    pub(super) fn busy(&mut self) {
        self.idle = self.idle.checked_sub(1).expect("who finds a task has been idle");
    }

    /// A worker is done with its task.
    pub(super) fn free(&mut self) {
        self.idle += 1;
    }
}
