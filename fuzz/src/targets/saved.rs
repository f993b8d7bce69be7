//! Saved states: a model takes up a state of the input, and is then used.

use std::sync::Arc;

use ::cpu::{Cluster, ClusterConfig, Features, Tier, VcpuSignals};
use devices::pci::PciHost;
use devices::rtc::{Pl031, Pl031Reg};
use devices::uart::{ConsoleOut, Pl011, Pl011Reg};
use hw::schedule::Threads;
use hw::{
    IrqLine, LifeCycle, ManualAlarms, ManualClock, MmioDevice, MsiSink, Pa, RecordingLine, RestoreError,
    SysRegDevice, UnconnectedLine,
};
use serde_json::Value;

use super::{cpu, gic, smmu, virtio_blk, zip};
use crate::input::Input;
use crate::machine::{ITS, PLACES, RAM, mmio, offsets, ram};

/// What the state that is taken up is: the input as it is, or what the model has saved with changes.
fn changed(input: &mut Input<'_>, saved: Value) -> Value {
    let how = input.u8();
    if how & 0x80 != 0 {
        let len = usize::from(input.u16());
        return serde_json::from_slice(input.bytes(len)).unwrap_or(Value::Null);
    }
    let mut state = saved;
    for _ in 0..how % 16 {
        change(input, &mut state);
    }
    state
}

/// Changes one place: goes down from `value` until there is nothing below.
fn change(input: &mut Input<'_>, value: &mut Value) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = input.below(map.len());
            match input.u8() {
                0..4 => {
                    let key = map.keys().nth(at).cloned().unwrap_or_default();
                    map.remove(&key);
                }
                // The same under another index: entries of tables are alike.
                4..24 => {
                    let entry = map.values().nth(at).cloned().unwrap_or_default();
                    map.insert(input.word(&[32, 8192]).to_string(), entry);
                }
                _ => {
                    if let Some(entry) = map.values_mut().nth(at) {
                        change(input, entry);
                    }
                }
            }
        }
        Value::Object(map) => {
            let config = serde_json::json!("0x1");
            map.insert(input.word(&[32, 8192]).to_string(), config);
        }
        Value::Array(list) => match input.u8() % 4 {
            0 => drop(list.pop()),
            1 => list.push(input.word(&[8192]).into()),
            _ => list.push(format!("{:#x}", input.u16()).into()),
        },
        Value::Bool(is_set) => *is_set = !*is_set,
        Value::Number(_) => *value = input.word(&[]).into(),
        Value::String(text) => {
            let old = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            *text = match (old, input.u8() % 2) {
                (Some(old), 0) => format!("{:#x}", old ^ 1 << (input.u8() % 64)),
                _ => format!("{:#x}", input.word(&PLACES)),
            };
        }
        Value::Null => *value = Value::String(format!("{:#x}", input.word(&[]))),
    }
}

/// Restores what the input makes of the state. The model can be saved afterwards, whether or not it was taken up.
fn restore(
    input: &mut Input<'_>,
    save: impl Fn() -> Value,
    restore: impl FnOnce(Value) -> Result<(), RestoreError>,
) -> bool {
    let state = changed(input, save());
    let is_restored = restore(state).is_ok();
    let _ = save();
    is_restored
}

struct Null;

impl ConsoleOut for Null {
    fn write(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

/// One kind of model, by the first byte.
pub fn saved(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => with_gic(&mut input),
        1 => {
            let uart = Pl011::new(Arc::new(Null), Arc::new(RecordingLine::default()));
            if restore(&mut input, || uart.save(), |state| uart.restore(state)) {
                uart.resume();
                poke(&mut input, &offsets::<Pl011Reg>(), &*uart);
                let _ = uart.receive(b"0123");
                uart.output_room();
            }
        }
        2 => {
            let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
            clock.advance_ns(input.u32().into());
            let rtc = Pl031::new(clock, alarms.clone(), Arc::new(RecordingLine::default()), 0);
            if restore(&mut input, || rtc.save(), |state| rtc.restore(state)) {
                alarms.fire();
                poke(&mut input, &offsets::<Pl031Reg>(), &*rtc);
            }
        }
        3 => {
            let host = PciHost::new();
            if restore(&mut input, || host.save(), |state| host.restore(state)) {
                let window = host.memory_window(0);
                poke(&mut input, &[0], &*window);
                poke(&mut input, &[0, 4, 16], &*host.ecam());
            }
        }
        4 => virtio_blk::with_saved(&mut input, |input, device| {
            restore(input, || device.save(), |state| device.restore(state))
        }),
        5 => with_cpu(&mut input),
        6 => smmu::with_saved(&mut input, |input, state, smmu| smmu.restore(changed(input, state)).is_ok()),
        _ => zip::with_saved(&mut input, |input, state, zip| zip.restore(changed(input, state)).is_ok()),
    }
}

fn poke(input: &mut Input<'_>, registers: &[u64], device: &dyn MmioDevice) {
    while !input.is_empty() {
        mmio(input, 0x1000, registers, device);
    }
}

fn with_gic(input: &mut Input<'_>) {
    let machine = gic::Machine::new();
    if input.u8() & 1 == 0 {
        machine.bring_up();
    }
    let gic = &machine.gic;
    if !restore(input, || gic.save(), |state| gic.restore(state)) {
        return;
    }
    for n in 0..32 {
        gic.spi(n).pulse();
        let _ = gic.write(hw::DeviceId(n % 4), Pa(ITS + 0x1_0040), n);
    }
    for cpu in 0..3 {
        for _ in 0..8 {
            let _ = gic.sysreg_read(cpu, hw::SysReg::new(3, 0, 12, 12, 0));
        }
    }
    poke(input, &[0, 0x88, 0x100], &*gic.its());
}

fn with_cpu(input: &mut Input<'_>) {
    let (ram, signals) = (ram(), VcpuSignals::new(2, &Threads));
    let lines = || vec![Arc::new(UnconnectedLine) as Arc<dyn IrqLine>; 2];
    let cluster = Cluster::new(ClusterConfig {
        signals,
        features: Features::default(),
        tier: Tier::Interpreter,
        observation: ::cpu::Observation::default(),
        ram,
        bus: Arc::new(cpu::Devices),
        gic: Arc::new(cpu::Devices),
        scheduler: Arc::new(Threads),
        clock: Arc::new(ManualClock::default()),
        entropy: Arc::new(hw::SeededEntropy::new(0)),
        alarms: Arc::new(ManualAlarms::default()),
        virtual_timer: lines(),
        physical_timer: lines(),
    });
    let mut vcpu = cluster.vcpu(0);
    vcpu.set_boot_state(RAM, 0);
    let state = changed(input, cluster.save());
    let has_power = cluster.restore(state).is_ok();
    let state = changed(input, vcpu.save());
    if vcpu.restore(state).is_ok() && has_power {
        // One that is off would wait for ever; memory is zeros, which is no instruction.
        cluster.stop_all();
        let _ = vcpu.run(Some(100));
        cluster.resume();
        if cluster.save()["state"]["power"]["0"] == "on" {
            let _ = vcpu.run(Some(100));
        }
    }
    let _ = vcpu.save();
}
