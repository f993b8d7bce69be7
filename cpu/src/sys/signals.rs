//! What reaches a vCPU from outside its thread: interrupt wires, kicks, and the sleep that they end.
//!
//! Each vCPU has one word of pending bits. Anybody sets bits with one atomic operation; the vCPU looks at the word
//! between blocks, and sleeps on it in WFI, WFE and while it is powered off. Made before the interrupt controller,
//! which drives the wires, and before the [`Cluster`](super::cluster::Cluster), which needs the controller.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use hw::{IrqLine, Scheduler, WaitQueue};

use crate::state::pending;

/// One vCPU's pending word and bed.
#[derive(Debug)]
pub struct Signal {
    word: AtomicU32,
    /// The vCPU executes nothing and will look at the word and its mailbox before it does.
    asleep: AtomicBool,
    bed: Mutex<()>,
    wake: WaitQueue,
    /// The event register of WFE (D1.6.1). Apart from the word, because a running vCPU need not look at it.
    event: AtomicBool,
}

impl Signal {
    /// No bit is set.
    fn new(scheduler: &dyn Scheduler) -> Self {
        Self {
            word: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            bed: Mutex::new(()),
            wake: scheduler.wait_queue(),
            event: AtomicBool::new(false),
        }
    }

    /// The word itself: what generated code and the interpreter test between blocks.
    #[must_use]
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// The bits that are set.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    /// Sets bits and wakes the vCPU if it sleeps.
    pub fn raise(&self, bits: u32) {
        if self.word.fetch_or(bits, Ordering::SeqCst) & bits != bits {
            self.wake_sleeper();
        }
    }

    /// Sets bits that a sleeper need not wake for: it looks at them before it goes on.
    pub fn note(&self, bits: u32) {
        self.word.fetch_or(bits, Ordering::SeqCst);
    }

    /// Clears bits.
    pub fn clear(&self, bits: u32) {
        self.word.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Clears bits and tells which of them were set.
    pub fn take(&self, bits: u32) -> u32 {
        self.word.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Sets the event register.
    pub fn send_event(&self) {
        self.event.store(true, Ordering::SeqCst);
        self.wake_sleeper();
    }

    /// Sets the event register of the calling vCPU, which is awake.
    pub fn send_event_to_itself(&self) {
        self.event.store(true, Ordering::Relaxed);
    }

    /// Clears the event register; tells if it was set.
    pub fn take_event(&self) -> bool {
        self.event.swap(false, Ordering::SeqCst)
    }

    /// Whether the event register is set.
    pub(crate) fn has_event(&self) -> bool {
        self.event.load(Ordering::SeqCst)
    }

    fn wake_sleeper(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            // The lock orders this after the sleeper's last look and before its wait.
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// Whether the vCPU sleeps: requests to it count as done, since it looks into its mailbox before it goes on.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Marks the vCPU as executing nothing. Every vCPU starts so.
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The vCPU goes on. It must look into its mailbox before its next guest instruction.
    pub fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // Others set a bit and then look whether the vCPU sleeps; the vCPU says that it doesn't and then looks at the
        // bits, with a relaxed load. The fence keeps that load from passing the store.
        fence(Ordering::SeqCst);
    }

    /// Sleeps until `enough`, which is asked after each change of the word or the event register.
    pub fn sleep_until(&self, mut enough: impl FnMut(&Self) -> bool) {
        self.fall_asleep();
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        while !enough(self) {
            bed = self.wake.wait(&self.bed, bed);
        }
        drop(bed);
        self.get_up();
    }
}

/// The signals of all vCPUs of a machine.
#[derive(Clone, Debug)]
pub struct VcpuSignals {
    all: Arc<[Arc<Signal>]>,
}

impl VcpuSignals {
    /// Signals for `cpus` vCPUs that are tasks of `scheduler`, no interrupt pending, all asleep.
    #[must_use]
    pub fn new(cpus: usize, scheduler: &dyn Scheduler) -> Self {
        let one = || {
            let signal = Signal::new(scheduler);
            signal.fall_asleep();
            // The first border looks whether the vCPU is on.
            signal.raise(pending::RECHECK);
            Arc::new(signal)
        };
        Self { all: (0..cpus).map(|_| one()).collect() }
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The signal of one vCPU.
    #[must_use]
    pub fn get(&self, cpu: usize) -> Option<&Arc<Signal>> {
        self.all.get(cpu)
    }

    /// Each vCPU's signal, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Signal>> {
        self.all.iter()
    }

    /// The IRQ input of a vCPU; a wire to nowhere for one that does not exist.
    #[must_use]
    pub fn irq_line(&self, cpu: usize) -> Arc<dyn IrqLine> {
        self.line(cpu, pending::IRQ)
    }

    /// The FIQ input of a vCPU; a wire to nowhere for one that does not exist.
    #[must_use]
    pub fn fiq_line(&self, cpu: usize) -> Arc<dyn IrqLine> {
        self.line(cpu, pending::FIQ)
    }

    /// The GIC's WakeRequest to a vCPU; a wire to nowhere for one that does not exist.
    #[must_use]
    pub fn wake_line(&self, cpu: usize) -> Arc<dyn IrqLine> {
        self.line(cpu, pending::WAKE)
    }

    fn line(&self, cpu: usize, bit: u32) -> Arc<dyn IrqLine> {
        match self.all.get(cpu) {
            Some(signal) => Arc::new(PendingBit { signal: Arc::clone(signal), bit }),
            None => Arc::new(hw::UnconnectedLine),
        }
    }
}

/// A wire that is one bit of a pending word.
struct PendingBit {
    signal: Arc<Signal>,
    bit: u32,
}

impl IrqLine for PendingBit {
    fn set(&self, high: bool) {
        if high {
            self.signal.raise(self.bit);
        } else {
            self.signal.clear(self.bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::schedule::Threads;

    #[test]
    fn wires_set_and_clear_their_own_bit_of_their_own_vcpu() {
        let signals = VcpuSignals::new(2, &Threads);
        signals.irq_line(1).set(true);
        signals.fiq_line(1).set(true);
        let interrupts = |cpu| signals.get(cpu).unwrap().pending() & (pending::IRQ | pending::FIQ);
        assert_eq!((interrupts(0), interrupts(1)), (0, pending::IRQ | pending::FIQ));
        signals.irq_line(1).set(false);
        assert_eq!(interrupts(1), pending::FIQ);
        signals.irq_line(7).set(true);
    }

    #[test]
    fn sleeper_wakes_for_what_it_waits_for() {
        let signals = VcpuSignals::new(1, &Threads);
        let signal = Arc::clone(signals.get(0).unwrap());
        let sleeper = std::thread::spawn(move || {
            signal.sleep_until(|signal| signal.pending() & pending::IRQ != 0);
            signal.pending()
        });
        signals.get(0).unwrap().raise(pending::RECHECK);
        signals.irq_line(0).set(true);
        assert_eq!(sleeper.join().unwrap() & pending::IRQ, pending::IRQ);
    }

    #[test]
    fn event_register_is_taken_once() {
        let signals = VcpuSignals::new(1, &Threads);
        let signal = signals.get(0).unwrap();
        signal.send_event();
        signal.send_event();
        assert!(signal.take_event());
        assert!(!signal.take_event());
    }
}
