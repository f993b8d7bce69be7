//! Where the vCPUs' threads wait while they do not run, and what is asked of their vCPUs there.
//!
//! A vCPU stays on its thread for good: whoever wants to see or change it has the thread do so while it stands here. One
//! thread at a time opens, closes and asks: that of [`super::life_cycle`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::engine::debug::DebugStop;
use crate::engine::{Exit, Vcpu};

type Job = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Closed,
    Open,
    Ended,
}

/// What a vCPU does when the gate is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// It runs.
    #[default]
    Run,
    /// It runs one instruction.
    Step,
    /// It stands here.
    Stay,
}

/// What a thread has to do that has stood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// To run its vCPU.
    Run,
    /// To have its vCPU run one instruction.
    Step,
    /// To end.
    End,
}

struct State {
    mode: Mode,
    /// What each vCPU does when the gate is open: as long as nobody says otherwise.
    orders: Vec<Order>,
    /// Which vCPU came back for a debugger first, and why.
    stop: Option<(usize, DebugStop)>,
    /// Threads that stand here.
    standing: usize,
    /// What each is to do here next.
    jobs: Vec<Option<Job>>,
    /// What the guest has asked for when its vCPUs came back.
    wish: Option<Exit>,
}

/// The gate, closed at first.
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// For these many vCPUs.
    pub(super) fn new(vcpus: usize) -> Self {
        let jobs = (0..vcpus).map(|_| None).collect();
        let orders = vec![Order::Run; vcpus];
        let state = State { mode: Mode::Closed, orders, stop: None, standing: 0, jobs, wish: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// On the thread of vCPU `index`: stands until the vCPU is to run or the thread to end, and does what is asked
    /// meanwhile.
    pub(super) fn pass(&self, index: usize, vcpu: &mut dyn Vcpu) -> Pass {
        let mut state = self.lock();
        state.standing += 1;
        self.changed.notify_all();
        loop {
            if let Some(job) = state.jobs[index].take() {
                drop(state);
                job(vcpu);
                state = self.lock();
                continue;
            }
            let pass = match (state.mode, state.orders[index]) {
                (Mode::Closed, _) | (Mode::Open, Order::Stay) => {
                    state = self.wait(state);
                    continue;
                }
                (Mode::Open, Order::Run) => Pass::Run,
                (Mode::Open, Order::Step) => Pass::Step,
                (Mode::Ended, _) => Pass::End,
            };
            state.standing -= 1;
            return pass;
        }
    }

    /// The guest has asked for an end or a reset, and a vCPU has come back therefore: none passes any more. Says whether
    /// this is the first.
    pub(super) fn wish(&self, exit: Exit) -> bool {
        let mut state = self.lock();
        if state.mode == Mode::Open {
            state.mode = Mode::Closed;
        }
        let is_first = state.wish.is_none();
        state.wish.get_or_insert(exit);
        is_first
    }

    /// vCPU `index` has come back for a debugger: none passes any more. Says whether it is the first; of the others nobody is
    /// told.
    pub(super) fn stop(&self, index: usize, stop: DebugStop) -> bool {
        let mut state = self.lock();
        if state.mode == Mode::Open {
            state.mode = Mode::Closed;
        }
        let is_first = state.stop.is_none();
        state.stop.get_or_insert((index, stop));
        is_first
    }

    /// Whether [`Self::take_stop`] has something.
    pub(super) fn has_stop(&self) -> bool {
        self.lock().stop.is_some()
    }

    /// Which vCPU came back for a debugger, and why.
    pub(super) fn take_stop(&self) -> Option<(usize, DebugStop)> {
        self.lock().stop.take()
    }

    /// What the vCPUs do from the next opening on.
    pub(super) fn order(&self, order: impl Fn(usize) -> Order) {
        let mut state = self.lock();
        for (index, at) in state.orders.iter_mut().enumerate() {
            *at = order(index);
        }
    }

    /// Whether [`Self::take_wish`] has something.
    pub(super) fn has_wish(&self) -> bool {
        self.lock().wish.is_some()
    }

    /// What the guest has asked for. All vCPUs stand here.
    pub(super) fn take_wish(&self) -> Option<Exit> {
        self.lock().wish.take()
    }

    /// Lets none pass any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.mode == Mode::Open {
            state.mode = Mode::Closed;
        }
    }

    /// Waits until all stand here. After [`Self::close`], and when somebody has made them come back.
    pub(super) fn wait_for_all(&self) {
        let mut state = self.lock();
        while state.standing < state.jobs.len() {
            state = self.wait(state);
        }
    }

    /// Lets all pass.
    pub(super) fn open(&self) {
        self.set(Mode::Open);
    }

    /// Lets all threads end, now or when they come here.
    pub(super) fn end(&self) {
        self.set(Mode::Ended);
    }

    fn set(&self, mode: Mode) {
        let mut state = self.lock();
        if state.mode != Mode::Ended {
            state.mode = mode;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Has the thread of vCPU `index`, which stands here, do something with its vCPU, and waits for the answer.
    ///
    /// # Panics
    /// If that thread has ended.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        index: usize,
        job: impl FnOnce(&mut dyn Vcpu) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = mpsc::sync_channel(1);
        // Only a receiver that is gone refuses, and this one waits.
        let job: Job = Box::new(move |vcpu| drop(sender.send(job(vcpu))));
        self.lock().jobs[index] = Some(job);
        self.changed.notify_all();
        answer.recv().expect("the thread stands at the gate until it is opened")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use hw::Pa;

    use super::*;
    use crate::engine::Registers;

    /// Comes back at once, and counts how often it has run.
    struct Counter(Arc<AtomicUsize>);

    impl Vcpu for Counter {
        fn set_boot_state(&mut self, _: Pa, _: u64) -> anyhow::Result<()> {
            Ok(())
        }
        fn power_on(&mut self) -> anyhow::Result<()> {
            Ok(())
        }
        fn run(&mut self) -> anyhow::Result<Exit> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Exit::Stopped)
        }
        fn registers(&self) -> anyhow::Result<Registers> {
            Ok(Registers { x: [0; 31], sp: 0, pc: self.0.load(Ordering::SeqCst) as u64, pstate: 0 })
        }
        fn set_registers(&mut self, _: &Registers) -> anyhow::Result<()> {
            Ok(())
        }
    }

    fn start(vcpus: usize) -> (Arc<Gate>, Vec<Arc<AtomicUsize>>, Vec<thread::JoinHandle<()>>) {
        let gate = Arc::new(Gate::new(vcpus));
        let runs: Vec<_> = (0..vcpus).map(|_| Arc::<AtomicUsize>::default()).collect();
        let threads = runs.iter().enumerate().map(|(index, runs)| {
            let (gate, mut vcpu) = (Arc::clone(&gate), Counter(Arc::clone(runs)));
            thread::spawn(move || {
                while gate.pass(index, &mut vcpu) != Pass::End {
                    vcpu.run().unwrap();
                }
            })
        });
        let threads = threads.collect();
        (gate, runs, threads)
    }

    #[test]
    fn vcpus_run_only_while_the_gate_is_open_and_answer_while_it_is_closed() {
        let (gate, runs, threads) = start(3);
        gate.wait_for_all();
        assert!(runs.iter().all(|runs| runs.load(Ordering::SeqCst) == 0));
        for _ in 0..50 {
            gate.open();
            gate.close();
            gate.wait_for_all();
            for (index, runs) in runs.iter().enumerate() {
                let pc = gate.ask(index, |vcpu| vcpu.registers().unwrap().pc);
                assert_eq!(pc, runs.load(Ordering::SeqCst) as u64);
            }
        }
        gate.end();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn wish_closes_the_gate_and_the_first_one_counts() {
        let (gate, runs, threads) = start(2);
        gate.open();
        assert!(gate.wish(Exit::SystemReset));
        assert!(!gate.wish(Exit::SystemOff));
        gate.wait_for_all();
        let before: Vec<_> = runs.iter().map(|runs| runs.load(Ordering::SeqCst)).collect();
        assert_eq!(gate.take_wish(), Some(Exit::SystemReset));
        assert!(!gate.has_wish());
        assert_eq!(before, runs.iter().map(|runs| runs.load(Ordering::SeqCst)).collect::<Vec<_>>());
        gate.end();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn opened_gate_lets_pass_those_that_are_to_run_and_the_first_stop_closes_it() {
        let (gate, runs, threads) = start(3);
        gate.order(|index| if index == 1 { Order::Stay } else { Order::Run });
        gate.wait_for_all();
        gate.open();
        while runs[0].load(Ordering::SeqCst) == 0 || runs[2].load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        assert!(gate.stop(2, DebugStop::Breakpoint));
        assert!(!gate.stop(0, DebugStop::Stepped));
        gate.wait_for_all();
        assert_eq!(runs[1].load(Ordering::SeqCst), 0);
        assert_eq!(gate.take_stop(), Some((2, DebugStop::Breakpoint)));
        assert!(!gate.has_stop());
        gate.end();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
