//! Reset, pause, save and restore of the SMMU as a part of the machine. Deliberately absent: a reset by software, which the architecture
//! does not have.

use std::sync::atomic::Ordering;

use hw::{LifeCycle, RestoreError, SavedState};
use serde_json::Value;

use crate::saved;
use crate::smmu::Smmu;
use crate::state::State;

impl LifeCycle for Smmu {
    /// Stalled transactions are aborted without a record, and an access that goes on in pieces or is retried after the reset
    /// began is aborted too: with its translation gone it would pass with the address that it came with.
    fn reset(&self) {
        let Self {
            // What the SMMU was made with. Endpoints stay attached.
            features: _,
            ram: _,
            msi: _,
            device_id: _,
            // Interrupts are pulses, sent with the state locked: no wire is high, and no interrupt is left to be sent.
            wires: _,
            output_end: _,
            faults: _,
            delays,
            // What is told of its work.
            trace: _,
            errors: _,
            describes_commands: _,
            page_faults: _,
            clock: _,
            // Counts for the user. What threads remember beside theirs is of an age that ends here.
            stats: _,
            inflight,
            state: _,
            consumer: _,
            never_waits: _,
            // Copies of registers.
            mode: _,
            checks_translated: _,
            age,
            configs,
            tlb,
            endpoints,
            late_answers: _,
            resets,
        } = self;
        // No command is being executed, and none begins meanwhile.
        let _consumer = self.consumer();
        {
            // No answer is being given that a fault plan has held back, and those of before find nothing from here on.
            let mut held = self.late_answers.held();
            held.clear();
            let mut state = self.state();
            state.stalls.terminate_all();
            *state = State::at_reset();
            state.is_in_reset = true;
            resets.fetch_add(1, Ordering::SeqCst);
            self.set_mode(&state);
        }
        // With no lock that a delayed step takes: one that is being carried out ends here.
        delays.clear();
        endpoints.reset();
        // In this order: an access that reads the ages which begin here finds that it is aborted.
        configs.invalidate_all(age);
        tlb.reset(age);
        inflight.drain(age);
        let mut state = self.state();
        state.is_in_reset = false;
        resets.fetch_add(1, Ordering::SeqCst);
        self.set_mode(&state);
    }

    /// The SMMU has no work of its own: accesses are made by the threads of devices, and commands are executed by the thread
    /// that makes them visible. What other threads may still be at, with the devices and the vCPUs standing still, are
    /// commands behind a CMD_SYNC whose wait has just ended, and an answer whose time has come: the alarm service does both.
    /// A CMD_SYNC or a stalled transaction that waits stays where it is, so there is nothing to resume.
    fn quiesce(&self) {
        drop(self.consumer());
        drop(self.late_answers.held());
    }

    /// Caches are not part of it: after a restore they are empty, as an implementation may forget what it likes at any time
    /// (3.17). Neither are stalls that could not be recorded, whose accesses find their faults again.
    fn save(&self) -> Value {
        self.saved().to_value()
    }

    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        self.take_up(saved::Saved::from_value(state)?)
    }
}
