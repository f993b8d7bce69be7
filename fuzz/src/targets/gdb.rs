//! A debugger: bytes of a client, in pieces, with stops of the machine in between.

use std::sync::Arc;

use serde_json::json;
use vmm::engine::Exit;
use vmm::engine::debug::{CoreRegisters, DebugStop, DebugVcpu, Space};
use vmm::gdb::session::{MUCH, Session};
use vmm::gdb::target::{Debuggee, Job, Order, Stop};
use vmm::machine::{Answer, Operation};

use crate::input::Input;

const RAM: std::ops::Range<u64> = 0x1000..0x9000;

#[derive(Clone, Debug)]
struct Fake;

struct FakeVcpu;

impl DebugVcpu for FakeVcpu {
    fn core(&self) -> CoreRegisters {
        CoreRegisters::default()
    }
    fn set_core(&mut self, _: &CoreRegisters) {}
    fn system(&mut self, index: usize) -> Option<u64> {
        Some(index as u64)
    }
    fn set_system(&mut self, index: usize, _: u64) -> bool {
        index & 1 == 0
    }
    /// RAM in two places, one of which ends with the address space.
    fn read(&self, _: Space, address: u64, out: &mut [u8]) -> usize {
        if address >= u64::MAX - 0xfff {
            return out.len().min((u64::MAX - address) as usize + 1);
        }
        if RAM.contains(&address) { out.len().min((RAM.end - address) as usize) } else { 0 }
    }
    fn write(&mut self, space: Space, address: u64, data: &[u8]) -> bool {
        self.read(space, address, &mut data.to_vec()) == data.len()
    }
    fn set_points(&mut self, _: &Arc<cpu::DebugPoints>) {}
    fn step(&mut self) -> anyhow::Result<Exit> {
        Ok(Exit::Debug(DebugStop::Stepped))
    }
    fn forget_stop(&mut self) {}
}

impl Debuggee for Fake {
    fn cpus(&self) -> usize {
        3
    }
    fn with_vcpu(&mut self, cpu: usize, work: Job) {
        assert!(cpu < 3);
        work(&mut FakeVcpu);
    }
    fn set_points(&mut self, _: Arc<cpu::DebugPoints>) {}
    fn resume(&mut self, orders: Vec<Order>) {
        assert!(orders.len() <= 3);
    }
    fn interrupt(&mut self) {}
    fn ask(&mut self, operation: Operation) -> Answer {
        Ok(json!({ "asked": format!("{operation:?}") }))
    }
}

/// Every byte that follows a `$` may be part of a packet: checksums are put right where the input says so, for few inputs
/// would find them. What waits to be sent is bounded.
pub fn gdb(data: &[u8]) {
    let mut input = Input::new(data);
    let mut session = Session::new(Fake).expect("a buffer is there");
    while !input.is_empty() {
        let done = match input.u8() {
            0 => session.stopped(Stop::Vcpu(input.below(3), DebugStop::Breakpoint)),
            1 => {
                let stop = DebugStop::Watchpoint { address: input.u64(), write: input.u8() & 1 != 0 };
                session.stopped(Stop::Vcpu(input.below(3), stop))
            }
            2 => session.stopped(Stop::Interrupted),
            3 => {
                let len = usize::from(input.u8());
                session.take(input.bytes(len))
            }
            4 => {
                session.output().clear();
                Ok(())
            }
            _ => {
                // Up to the end of a line.
                let mut packet = Vec::new();
                while !input.is_empty() {
                    match input.u8() {
                        b'\n' => break,
                        byte => packet.push(byte),
                    }
                }
                let sum = packet.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                let whole = [b"$", packet.as_slice(), format!("#{sum:02x}").as_bytes()].concat();
                session.take(&whole)
            }
        };
        assert!(session.output().len() <= MUCH);
        if done.is_err() {
            return;
        }
    }
}
