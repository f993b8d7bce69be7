//! What every engine promises the machine, asked of the engine that [`e2e::ENGINE`] names, or of the built-in one.
//!
//! No program is started: the engine is used as the machine uses it. The guests are a few instructions at the start of
//! RAM, without MMU.

use std::sync::{Arc, Mutex};

use hw::schedule::Threads;
use hw::{
    Alarms, BusError, Clock, GuestErrorBook, ManualAlarms, ManualClock, MmioDevice, Pa, Ram, Scheduler,
};
use vmm::board::map;
use vmm::bus::Bus;
use vmm::cli::EngineChoice;
use vmm::engine::soft::SoftOptions;
use vmm::engine::{Engine, Exit, Ground, Vcpu, open};

const CODE: Pa = Pa(map::RAM_BASE + 0x1000);

/// A device that remembers what was written to it, and reads as its own offsets.
#[derive(Default)]
struct Device(Mutex<Vec<(u64, Vec<u8>)>>);

impl MmioDevice for Device {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = at as u8;
        }
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        self.0.lock().unwrap().push((offset, data.to_vec()));
        Ok(())
    }
}

/// One vCPU with a program, and a device in the UART's place.
fn machine(program: &[u32]) -> (Box<dyn Engine>, Box<dyn Vcpu>, Arc<Device>) {
    let choice = if e2e::engine() == "kvm" { EngineChoice::Kvm } else { EngineChoice::Soft };
    let ram = Arc::new(Ram::new(&[(Pa(map::RAM_BASE), 0x10_0000)]).unwrap());
    for (word, at) in program.iter().zip((CODE.0..).step_by(4)) {
        ram.write(Pa(at), &word.to_le_bytes()).unwrap();
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let alarms: Arc<dyn Alarms> = Arc::new(ManualAlarms::default());
    let scheduler: Arc<dyn Scheduler> = Arc::new(Threads);
    let errors = GuestErrorBook::default();
    let ground = Ground {
        cpus: 1,
        ram: &ram,
        clock: &clock,
        alarms: &alarms,
        scheduler: &scheduler,
        errors: &errors,
        soft: &SoftOptions::default(),
    };
    let (foundation, _) = open(choice, &ground).unwrap();
    let mut bus = Bus::default();
    foundation.attach(&mut bus).unwrap();
    let device = Arc::new(Device::default());
    bus.attach(map::UART, device.clone()).unwrap();
    let engine = foundation.complete(Arc::new(bus));
    let mut vcpu = engine.vcpu(0);
    vcpu.set_boot_state(CODE, 0x5a).unwrap();
    (engine, vcpu, device)
}

/// mov w0, #0x84000008; hvc #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

#[test]
fn boot_state_is_that_of_the_boot_protocol() {
    let (_, vcpu, _) = machine(&OFF);
    let registers = vcpu.registers().unwrap();
    assert_eq!((registers.pc, registers.x[0], registers.x[1]), (CODE.0, 0x5a, 0));
    assert_eq!(registers.pstate & 0x3cf, 0x3c5, "EL1h, everything masked");
}

#[test]
fn power_off_and_reset_end_the_run() {
    let (_, mut vcpu, _) = machine(&OFF);
    assert_eq!(vcpu.run().unwrap(), Exit::SystemOff);
    // mov w0, #0x84000009; hvc #0
    let (_, mut vcpu, _) = machine(&[0x5280_0120, 0x72b0_8000, 0xd400_0002]);
    assert_eq!(vcpu.run().unwrap(), Exit::SystemReset);
}

#[test]
fn stop_ends_a_loop_and_resume_goes_on_with_the_registers_that_were_set() {
    // mov x9, #0x9000000; loop: add x1, x1, #1; str w1, [x9]; cbz x2, loop; then power-off
    let program = [0xd2a1_2009, 0x9100_0421, 0xb900_0121, 0xb4ff_ffc2];
    let (engine, mut vcpu, device) = machine(&[&program, &OFF[..]].concat());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let exit = vcpu.run().unwrap();
            (exit, vcpu)
        });
        // A loop that has not begun would have nothing to show.
        while device.0.lock().unwrap().is_empty() {
            assert!(!running.is_finished());
            std::thread::yield_now();
        }
        engine.stop();
        let (exit, mut vcpu) = running.join().unwrap();
        assert_eq!(exit, Exit::Stopped);
        assert_eq!(vcpu.run().unwrap(), Exit::Stopped, "until it is resumed");
        let mut registers = vcpu.registers().unwrap();
        assert!(registers.x[1] > 0);
        registers.x[2] = 1;
        registers.sp = 0x1230;
        vcpu.set_registers(&registers).unwrap();
        assert_eq!(vcpu.registers().unwrap(), registers);
        engine.resume();
        assert_eq!(vcpu.run().unwrap(), Exit::SystemOff);
        assert_eq!(vcpu.registers().unwrap().sp, 0x1230);
    });
}

#[test]
fn stop_before_the_run_is_not_lost() {
    // b .
    let (engine, mut vcpu, _) = machine(&[0x1400_0000]);
    engine.stop();
    assert_eq!(vcpu.run().unwrap(), Exit::Stopped);
}

/// Accesses of every kind: with syndrome and, under KVM, without.
#[test]
fn loads_and_stores_of_every_width_reach_a_device_whole() {
    let program = [
        0xd2a1_2009, // mov x9, #0x9000000
        0x3940_0522, // ldrb w2, [x9, #1]
        0x7900_0522, // strh w2, [x9, #2]
        0xf940_0923, // ldr x3, [x9, #16]
        0xa942_1524, // ldp x4, x5, [x9, #32]
        0xa904_1524, // stp x4, x5, [x9, #64]
        0xb800_4d23, // str w3, [x9, #4]!
    ];
    let (_, mut vcpu, device) = machine(&[&program, &OFF[..]].concat());
    assert_eq!(vcpu.run().unwrap(), Exit::SystemOff);
    let bytes = |first: u8, count: u8| (first..first + count).collect::<Vec<u8>>();
    assert_eq!(*device.0.lock().unwrap(), [(2, vec![1, 0]), (64, bytes(32, 16)), (4, bytes(16, 4))]);
    // x0 to x3 belong to the call that powers off.
    assert_eq!(vcpu.registers().unwrap().x[9], map::UART.base + 4);
}

/// Where nothing answers, the guest gets an external abort.
#[test]
fn access_in_a_hole_is_an_external_abort() {
    // The vectors are 0x800 behind the program's start.
    let mut program = vec![
        0x1000_4009, // adr x9, vectors
        0xd518_c009, // msr vbar_el1, x9
        0xd503_3fdf, // isb
        0xd2a4_0001, // mov x1, #0x20000000, where nothing is
        0xa940_0c22, // ldp x2, x3, [x1]
        0x1400_0000, // b .
    ];
    // Synchronous, from EL1h.
    program.resize((0x800 + 0x200) / 4, 0xd503_201f);
    program.push(0xd538_5207); // mrs x7, esr_el1
    program.extend(OFF);
    let (_, mut vcpu, _) = machine(&program);
    assert_eq!(vcpu.run().unwrap(), Exit::SystemOff);
    let esr = vcpu.registers().unwrap().x[7];
    assert_eq!((esr >> 26, esr & 0x3f), (0x25, 0x10), "a data abort from EL1, external");
}
