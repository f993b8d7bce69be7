//! A DMA port in front of another, which asks at the points of reads and writes. A machine in which nothing can go
//! wrong there has none.

use std::sync::Arc;

use super::{FaultAction, FaultPoint, Faults, Occasion};
use crate::{Dir, DmaFault, DmaPort, Iova, Pinned, Requester};

/// A port whose accesses can go wrong. Pins pass: the copy is not this port's to spoil.
pub struct FaultyPort {
    port: Arc<dyn DmaPort>,
    faults: Faults,
}

impl FaultyPort {
    /// `port`, with a [`FaultyPort`] in front if the plan of `faults` mentions reads or writes, or may do so
    /// later.
    #[must_use]
    pub fn before(port: Arc<dyn DmaPort>, faults: &Faults) -> Arc<dyn DmaPort> {
        if faults.may_watch(FaultPoint::DmaRead) || faults.may_watch(FaultPoint::DmaWrite) {
            Arc::new(Self { port, faults: faults.clone() })
        } else {
            port
        }
    }

    fn ask(&self, point: FaultPoint, who: &Requester, at: Iova, len: usize) -> Option<FaultAction> {
        self.faults.at(point, |point| {
            Occasion::new(point, who.tag.stream, who.tag.pasid).at(at, len as u64).during(who.command)
        })
    }
}

/// Where an access of `len` bytes at `at` breaks off: bytes that are moved, and the fault after them.
fn broken_off(at: Iova, len: usize, byte: u64) -> (usize, DmaFault) {
    let moved = usize::try_from(byte).map_or(len, |byte| byte.min(len));
    (moved, DmaFault::Aborted(Iova(at.0.wrapping_add(moved as u64))))
}

fn flip(data: &mut [u8], byte: u64, bit: u8) {
    if let Some(byte) = usize::try_from(byte).ok().and_then(|byte| data.get_mut(byte)) {
        *byte ^= 1 << (bit & 7);
    }
}

impl DmaPort for FaultyPort {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        match self.ask(FaultPoint::DmaRead, who, at, out.len()) {
            Some(FaultAction::Abort { byte }) => {
                let (moved, fault) = broken_off(at, out.len(), byte);
                let (before, _) = out.split_at_mut(moved);
                self.port.read(who, at, before).and(Err(fault))
            }
            Some(FaultAction::BitFlip { byte, bit }) => {
                self.port.read(who, at, out)?;
                flip(out, byte, bit);
                Ok(())
            }
            Some(FaultAction::Delay { delay }) => {
                self.faults.wait(delay, &who.waiter)?;
                self.port.read(who, at, out)
            }
            _ => self.port.read(who, at, out),
        }
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        match self.ask(FaultPoint::DmaWrite, who, at, data.len()) {
            Some(FaultAction::Abort { byte }) => {
                let (moved, fault) = broken_off(at, data.len(), byte);
                let (before, _) = data.split_at(moved);
                self.port.write(who, at, before).and(Err(fault))
            }
            Some(FaultAction::BitFlip { byte, bit }) => {
                let mut data = data.to_vec();
                flip(&mut data, byte, bit);
                self.port.write(who, at, &data)
            }
            Some(FaultAction::Delay { delay }) => {
                self.faults.wait(delay, &who.waiter)?;
                self.port.write(who, at, data)
            }
            _ => self.port.write(who, at, data),
        }
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.port.pin(who, at, len, dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultPlan;
    use crate::schedule::Threads;
    use crate::{DirectPort, DmaTag, ManualAlarms, ManualClock, Pa, Ram, RecordingMsiSink, StreamId};

    struct Always(FaultAction);

    impl FaultPlan for Always {
        fn mentions(&self, _: FaultPoint) -> bool {
            true
        }

        fn decide(&self, _: &Occasion) -> Option<FaultAction> {
            Some(self.0)
        }
    }

    fn port(action: FaultAction) -> (Arc<dyn DmaPort>, Arc<Ram>) {
        let ram = Arc::new(Ram::new(&[(Pa(0x1000), 0x1000)]).unwrap());
        ram.write(Pa(0x1000), b"abcdefgh").unwrap();
        let direct = DirectPort::new(ram.clone(), Arc::new(RecordingMsiSink::new(Pa(0x809_0040))));
        let clock = Arc::new(ManualClock::default());
        let faults = Faults::new(
            Arc::new(Always(action)),
            clock,
            Arc::new(ManualAlarms::default()),
            Arc::new(Threads),
        );
        (FaultyPort::before(Arc::new(direct), &faults), ram)
    }

    fn who() -> Requester {
        Requester::new(DmaTag::untagged(StreamId(8)))
    }

    #[test]
    fn aborted_access_has_moved_the_bytes_before_and_names_the_address() {
        let (port, ram) = port(FaultAction::Abort { byte: 3 });
        let mut out = [0; 8];
        assert_eq!(port.read(&who(), Iova(0x1000), &mut out), Err(DmaFault::Aborted(Iova(0x1003))));
        assert_eq!(&out, b"abc\0\0\0\0\0");
        assert_eq!(port.write(&who(), Iova(0x1000), b"12345678"), Err(DmaFault::Aborted(Iova(0x1003))));
        ram.read(Pa(0x1000), &mut out).unwrap();
        assert_eq!(&out, b"123defgh");
    }

    #[test]
    fn flipped_bit_is_the_only_difference() {
        let (port, ram) = port(FaultAction::BitFlip { byte: 1, bit: 0 });
        let mut out = [0; 4];
        port.read(&who(), Iova(0x1000), &mut out).unwrap();
        assert_eq!(&out, b"accd");
        port.write(&who(), Iova(0x1004), b"bbbb").unwrap();
        ram.read(Pa(0x1004), &mut out).unwrap();
        assert_eq!(&out, b"bcbb");
    }

    #[test]
    fn plan_that_says_nothing_about_accesses_puts_nothing_in_their_way() {
        struct Nothing;
        impl FaultPlan for Nothing {
            fn mentions(&self, point: FaultPoint) -> bool {
                point == FaultPoint::Msi
            }
            fn decide(&self, _: &Occasion) -> Option<FaultAction> {
                None
            }
        }
        let (direct, _) = port(FaultAction::Abort { byte: 0 });
        let clock = Arc::new(ManualClock::default());
        let faults =
            Faults::new(Arc::new(Nothing), clock, Arc::new(ManualAlarms::default()), Arc::new(Threads));
        assert!(Arc::ptr_eq(&FaultyPort::before(Arc::clone(&direct), &faults), &direct));
    }
}
