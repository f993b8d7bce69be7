//! Whether a device's workers may begin anything.

/// What keeps workers from beginning anything. What they have begun goes on.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The machine is paused, or about to be.
    is_quiesced: bool,
    /// Resets that wait for the end of what was under way.
    resets: u32,
    /// For good.
    is_shut_down: bool,
}

impl Gate {
    /// Whether workers may begin anything.
    pub(crate) const fn is_open(&self) -> bool {
        !self.is_quiesced && self.resets == 0 && !self.is_shut_down
    }

    pub(crate) const fn is_shut_down(&self) -> bool {
        self.is_shut_down
    }

    pub(crate) const fn set_quiesced(&mut self, is_quiesced: bool) {
        self.is_quiesced = is_quiesced;
    }

    pub(crate) const fn begin_reset(&mut self) {
        self.resets += 1;
    }

    pub(crate) fn end_reset(&mut self) {
        self.resets = self.resets.checked_sub(1).expect("each reset ends once");
    }

    pub(crate) const fn shut_down(&mut self) {
        self.is_shut_down = true;
    }
}
