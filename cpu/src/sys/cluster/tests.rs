//! vCPUs among themselves: requests, mailboxes, waits, the memory model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hw::schedule::seeded::SeededScheduler;
use hw::{Pa, Scheduler, SysReg};

use super::PowerState;
use crate::mem::Order;
use crate::state::pending;
use crate::testbed::{Bench, RAM, Tables, mmu_on, mmu_on_flat};
use crate::{Cpu, Exit};

/// HVC #0.
const HVC: u32 = 0xd400_0002;
const RET: u32 = 0xd65f_03c0;

#[test]
fn broadcast_tlbi_is_complete_on_every_vcpu_after_dsb() {
    const ROUNDS: u64 = 300;
    let bench = Bench::new(3);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    let va = 0x40_0000_5000;
    let frame = |round: u64| RAM + 0x30_0000 + (round % 2) * 0x1000;
    tables.page(va, frame(0), 0);
    tables.page(va + 0x1000, RAM + 0x40_0000, 0);
    let epoch = va + 0x1000;
    let done = Arc::new(AtomicBool::new(false));
    // Readers: the value at `va` must never be older than the epoch that was read before it.
    let readers: Vec<_> = [1, 2]
        .map(|index| {
            let mut cpu = bench.cpu(index);
            bench.cluster.turn_on(index, RAM, 0);
            let (done, root) = (Arc::clone(&done), tables.root);
            thread::spawn(move || {
                cpu.serve_pending();
                mmu_on(&mut cpu, root, 0, 1);
                while !done.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        let before = cpu.load_acquire::<u64>(epoch).unwrap();
                        let seen = cpu.load::<u64>(va).unwrap();
                        assert!(seen >= before, "round {before} is over, and {seen} is still mapped");
                    }
                    cpu.serve_pending();
                }
                bench_sleep(&cpu);
            })
        })
        .into();
    let mut writer = bench.cpu(0);
    writer.serve_pending();
    mmu_on(&mut writer, tables.root, 0, 1);
    let tlbi_vaae1is = SysReg::new(1, 0, 8, 3, 3);
    for round in 1..=ROUNDS {
        bench.ram.store_u64(Pa(frame(round)), round).unwrap();
        tables.page(va, frame(round), 0);
        writer.system_instruction(tlbi_vaae1is, 0, va >> 12).unwrap();
        writer.complete_requests();
        writer.store_release::<u64>(epoch, round).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    bench_sleep(&writer);
    for reader in readers {
        reader.join().unwrap();
    }
}

/// Ends a vCPU's part in a test: nobody waits for it any more.
fn bench_sleep(cpu: &Cpu) {
    cpu.cluster.signal(cpu.index).fall_asleep();
}

#[test]
fn vcpus_that_wait_for_one_another_do_not_deadlock() {
    let bench = Bench::new(4);
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let mut cpu = bench.cpu(index);
            thread::spawn(move || {
                for round in 0..500 {
                    cpu.system_instruction(
                        SysReg::new(1, 0, 8, 3, if round % 7 == 0 { 0 } else { 1 }),
                        0,
                        round,
                    )
                    .unwrap();
                    cpu.complete_requests();
                    // Code pages and a sleeper in between.
                    cpu.protect_elsewhere(Pa(RAM + 0x1000 * (round % 9)), &[0, 1, 2, 3]);
                    if round % 50 == 0 {
                        bench_sleep(&cpu);
                        thread::yield_now();
                        cpu.cluster.signal(index).get_up();
                    }
                }
                bench_sleep(&cpu);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Who has turns, when vCPUs send one another invalidations, wait until those are done, and sleep until an interrupt.
fn turns_of_vcpus(seed: u64) -> Vec<&'static str> {
    const NAMES: [&str; 3] = ["vcpu0", "vcpu1", "vcpu2"];
    let scheduler = SeededScheduler::new(seed);
    let bench = Bench::scheduled(NAMES.len(), scheduler.clone());
    for (index, name) in NAMES.into_iter().enumerate() {
        let mut cpu = bench.cpu(index);
        let work = move || {
            for va in 0..20 {
                cpu.system_instruction(SysReg::new(1, 0, 8, 3, 1), 0, va).unwrap();
                cpu.complete_requests();
                cpu.protect_elsewhere(Pa(RAM + 0x1000 * va), &[0, 1, 2]);
            }
            cpu.wait_for_interrupt().unwrap();
            bench_sleep(&cpu);
        };
        scheduler.spawn(name, Box::new(work)).unwrap();
    }
    scheduler.run_until_idle();
    assert_eq!(scheduler.tasks(), NAMES.len());
    assert!(bench.signals.iter().all(|signal| signal.is_asleep()));
    (0..NAMES.len()).for_each(|index| bench.signals.irq_line(index).set(true));
    scheduler.run_until_idle();
    assert_eq!(scheduler.tasks(), 0);
    scheduler.log()
}

#[test]
fn vcpus_that_wait_for_one_another_take_turns_that_follow_from_the_seed() {
    let of_first = turns_of_vcpus(1);
    assert_eq!(turns_of_vcpus(1), of_first);
    assert!((2..10).any(|seed| turns_of_vcpus(seed) != of_first));
}

/// Invalidates, and decodes and rewrites code, on far more pages than are named one by one.
fn ask_a_lot(cpu: &mut Cpu) {
    for page in 0..2000u64 {
        cpu.system_instruction(SysReg::new(1, 0, 8, 3, 1), 0, page).unwrap();
        let pa = Pa(RAM + 0x20_0000 + 0x1000 * page);
        cpu.protect_elsewhere(pa, &[0, 1]);
        assert!(cpu.cluster.code_pages.add(pa, 8));
        cpu.store::<u32>(pa.0, RET).unwrap();
    }
    cpu.complete_requests();
}

#[test]
fn mailbox_of_a_sleeper_stays_small_and_then_asks_for_everything() {
    const CODE: u64 = RAM + 0x4000;
    let bench = Bench::new(2);
    let (mut cpu, mut sleeper) = (bench.cpu(0), bench.cpu(1));
    mmu_on_flat(&mut cpu);
    let run = |cpu: &mut Cpu| {
        bench.cluster.resume();
        cpu.set_boot_state(CODE, 0);
        mmu_on_flat(cpu);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        cpu.state.x[3]
    };
    let off = [0x5280_0100, 0x72b0_8000, HVC]; // mov w0, #SYSTEM_OFF; hvc #0
    bench.code(CODE, &[0xd280_0023]); // mov x3, #1
    bench.code(CODE + 4, &off);
    bench_sleep(&cpu);
    assert_eq!(run(&mut sleeper), 1);
    sleeper.store::<u64>(RAM + 0x5000, 1).unwrap();

    cpu.cluster.signal(0).get_up();
    ask_a_lot(&mut cpu);
    cpu.store::<u32>(CODE, 0xd280_0043).unwrap(); // mov x3, #2
    assert!(bench.cluster.mailbox(1).kept() < 1200);

    sleeper.serve_requests();
    assert_eq!(bench.cluster.mailbox(1).kept(), 0);
    assert_eq!(bench.signals.get(1).unwrap().pending() & pending::REQUESTS, 0);
    // It has no fast path to the page any more: a store there is seen by whoever marks it as code.
    bench.cluster.code_pages.add(Pa(RAM + 0x5000), 8);
    sleeper.store::<u64>(RAM + 0x5000, 2).unwrap();
    assert!(!bench.cluster.code_pages.is_code(Pa(RAM + 0x5000)));
    bench_sleep(&cpu);
    assert_eq!(run(&mut sleeper), 2);
}

#[test]
fn vcpu_that_is_off_gets_no_requests_and_starts_with_nothing_remembered() {
    const CODE: u64 = RAM + 0x4000;
    let bench = Bench::new(3);
    let mut cpu = bench.cpu(0);
    mmu_on_flat(&mut cpu);
    bench.code(CODE, &[0xd280_0023, 0x5280_0040, 0x72b0_8000, HVC]); // mov x3, #1; CPU_OFF
    let mut other = bench.cluster.vcpu(1);
    let run = |mut other: Cpu| {
        bench.cluster.turn_on(1, CODE, 0);
        let runner = thread::spawn(move || {
            assert_eq!(other.run(None), Exit::Stopped);
            other
        });
        while bench.cluster.power_state(1) != Some(PowerState::Off) {
            thread::yield_now();
        }
        bench.cluster.stop_all();
        let other = runner.join().unwrap();
        bench.cluster.resume();
        other
    };
    other = run(other);
    assert_eq!(other.state.x[3], 1);
    ask_a_lot(&mut cpu);
    cpu.store::<u32>(CODE, 0xd280_0043).unwrap(); // mov x3, #2
    assert_eq!(bench.cluster.mailbox(1).kept(), 0, "off again");
    assert_eq!(bench.cluster.mailbox(2).kept(), 0, "never on");
    assert_eq!(bench.signals.get(2).unwrap().pending() & pending::REQUESTS, 0);
    bench_sleep(&cpu);
    assert_eq!(run(other).state.x[3], 2);
}

#[test]
fn dsb_does_not_wait_for_a_vcpu_whose_thread_panics() {
    let bench = Bench::new(2);
    bench.code(RAM, &[0xf940_0020]); // ldr x0, [x1]
    let (mut cpu, mut other) = (bench.cpu(0), bench.cpu(1));
    let (arrived, arrives) = std::sync::mpsc::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel();
    let goes_on = std::sync::Mutex::new(goes_on);
    let device = move || {
        arrived.send(()).unwrap();
        goes_on.lock().unwrap().recv().unwrap();
        panic!("a device fails");
    };
    assert!(bench.bus.1.set(Box::new(device)).is_ok());
    other.set_boot_state(RAM, 0);
    other.state.x[1] = crate::testbed::DEVICE;
    let runner = thread::spawn(move || other.run(None));
    arrives.recv().unwrap();
    cpu.system_instruction(SysReg::new(1, 0, 8, 3, 0), 0, 0).unwrap();
    go_on.send(()).unwrap();

    cpu.complete_requests();

    assert!(runner.join().is_err());
}

#[test]
fn exclusive_increments_of_several_vcpus_are_not_lost() {
    const EACH: u64 = 20_000;
    let bench = Bench::new(3);
    let counter = RAM + 0x2000;
    let threads: Vec<_> = (0..3)
        .map(|index| {
            let mut cpu = bench.cpu(index);
            thread::spawn(move || {
                mmu_on_flat(&mut cpu);
                for _ in 0..EACH {
                    loop {
                        let old = cpu.load_exclusive::<u64>(counter, Order::Ordered).unwrap();
                        if cpu.store_exclusive::<u64>(counter, old + 1, Order::Ordered).unwrap() {
                            break;
                        }
                    }
                    cpu.atomic::<u64>(crate::mem::AtomicOp::Add, counter + 8, 1, Order::Relaxed).unwrap();
                    loop {
                        let old = cpu.load_exclusive::<u128>(counter + 16, Order::Relaxed).unwrap();
                        let new = (old + 1) | (old + 1) << 64;
                        if cpu.store_exclusive::<u128>(counter + 16, new, Order::Relaxed).unwrap() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(bench.ram.load_u64(Pa(counter)), Ok(3 * EACH));
    assert_eq!(bench.ram.load_u64(Pa(counter + 8)), Ok(3 * EACH));
    assert_eq!(bench.ram.load_u64(Pa(counter + 16)), Ok(3 * EACH));
}

#[test]
fn release_and_acquire_forbid_the_outcome_of_store_buffering() {
    const ROUNDS: u64 = 20_000;
    let bench = Bench::new(2);
    let (x, y) = (RAM + 0x2000, RAM + 0x3000);
    let barrier = Arc::new(std::sync::Barrier::new(2));
    // Store buffering with STLR and LDAR (RCsc): both may not read the other's old value.
    let threads: Vec<_> = [(x, y), (y, x)]
        .into_iter()
        .enumerate()
        .map(|(index, (mine, other))| {
            let mut cpu = bench.cpu(index);
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                mmu_on_flat(&mut cpu);
                barrier.wait();
                let mut seen = Vec::with_capacity(ROUNDS as usize);
                for round in 1..=ROUNDS {
                    cpu.store_release::<u64>(mine, round).unwrap();
                    seen.push(cpu.load_acquire::<u64>(other).unwrap());
                }
                seen
            })
        })
        .collect();
    let [first, second]: [Vec<u64>; 2] =
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>().try_into().unwrap();
    // If the first read round r of the second in its round n, and the second in its round r + 1 or later read less
    // than n, both would have read past the other's store.
    for (n, &r) in (1..).zip(&first) {
        if let Some(&back) = second.get(r as usize) {
            assert!(back >= n, "store buffering: {n} read {r}, {} read {back}", r + 1);
        }
    }
}

#[test]
fn code_written_by_one_vcpu_runs_on_another_that_has_seen_the_flag_and_an_isb() {
    const ROUNDS: u64 = 2000;
    let bench = Bench::new(2);
    let (flag, function) = (RAM + 0x5000, RAM + 0x6000);
    let movz_x0 = |round: u64| 0xd280_0000 | ((round & 0xffff) as u32) << 5;
    bench.code(function, &[movz_x0(0), 0xd65f_03c0]);
    bench.code(
        RAM,
        &[
            0xc8df_fd41, // loop: ldar x1, [x10]
            0xd503_3fdf, // isb
            0x9400_17fe, // bl function
            0xeb01_001f, // cmp x0, x1
            0x5400_00a3, // b.lo stale
            0xeb0b_003f, // cmp x1, x11
            0x54ff_ff41, // b.ne loop
            0xaa0c_03e0, // mov x0, x12
            HVC,         // power off
            0xaa0c_03e0, // stale: mov x0, x12
            0xd280_002d, // mov x13, #1
            HVC,
        ],
    );
    let mut reader = bench.cluster.vcpu(0);
    reader.set_boot_state(RAM, 0);
    mmu_on_flat(&mut reader);
    (reader.state.x[10], reader.state.x[11], reader.state.x[12]) = (flag, ROUNDS, 0x8400_0008);
    let reader = thread::spawn(move || {
        assert_eq!(reader.run(None), Exit::SystemOff);
        (reader.state.x[13], reader.state.x[0], reader.state.x[1])
    });
    let mut writer = bench.cpu(1);
    mmu_on_flat(&mut writer);
    for round in 1..=ROUNDS {
        writer.store::<u32>(function, movz_x0(round)).unwrap();
        writer.complete_requests();
        writer.store_release::<u64>(flag, round).unwrap();
        // As between blocks: the reader asks for the page back each time that it decodes.
        writer.serve_requests();
    }
    bench_sleep(&writer);
    let (stale, _, seen) = reader.join().unwrap();
    assert_eq!((stale, seen), (0, ROUNDS));
}

#[test]
fn message_passing_with_release_and_acquire_never_shows_the_flag_without_the_message() {
    const ROUNDS: u64 = 20_000;
    let bench = Bench::new(2);
    let (data, flag) = (RAM + 0x2000, RAM + 0x3000);
    let mut reader = bench.cpu(1);
    let reader = thread::spawn(move || {
        mmu_on_flat(&mut reader);
        let mut seen = 0;
        while seen < ROUNDS {
            seen = reader.load_acquire::<u64>(flag).unwrap();
            let message = reader.load::<u64>(data).unwrap();
            assert!(message >= seen, "flag {seen}, message {message}");
        }
    });
    let mut writer = bench.cpu(0);
    mmu_on_flat(&mut writer);
    for round in 1..=ROUNDS {
        writer.store::<u64>(data, round).unwrap();
        writer.store_release::<u64>(flag, round).unwrap();
    }
    reader.join().unwrap();
}

#[test]
fn stop_from_outside_does_not_swallow_the_guests_wish_and_a_later_wish_does_not_replace_it() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    bench.cluster.stop_all();
    bench.cluster.stop_for(Exit::SystemReset);
    bench.cluster.stop_for(Exit::SystemOff);
    bench.cluster.stop_all();
    assert_eq!(cpu.run(None), Exit::SystemReset);
}

#[test]
fn vcpus_after_a_reset_are_as_at_power_on_and_keep_nothing_of_memory() {
    const WAIT: u32 = 0x1400_0000; // b .
    let bench = Bench::new(2);
    bench.code(RAM, &[0xd280_0020, WAIT]); // mov x0, #1
    bench.code(RAM + 0x1000, &[WAIT]);
    let (mut first, mut second) = (bench.cpu(0), bench.cpu(1));
    first.set_boot_state(RAM, 0);
    assert_eq!(first.run(Some(10)), Exit::BudgetSpent);
    bench.cluster.turn_on(1, RAM + 0x1000, 7);
    assert_eq!(second.run(Some(10)), Exit::BudgetSpent);
    second.state.sys.vbar = RAM;
    bench.cluster.virtual_timers[1].set_ctl(1);
    assert!(bench.virtual_lines[1].level());
    first.send_event(true);
    // A broadcast that the other has not served, and whose end nobody has waited for.
    first.broadcast(crate::mem::Invalidation::All);
    bench.cluster.stop_for(Exit::SystemReset);
    assert_eq!([first.run(None), second.run(None)], [Exit::SystemReset; 2]);

    bench.cluster.reset();
    first.power_on();
    second.power_on();

    assert_eq!(bench.cluster.power_state(0), Some(PowerState::On));
    assert_eq!(bench.cluster.power_state(1), Some(PowerState::Off));
    assert_eq!((second.state.pc, second.state.x[0], second.state.sys.vbar), (0, 0, 0));
    assert!(!bench.virtual_lines[1].level());
    assert!(bench.cluster.mailbox(1).is_off() && bench.cluster.mailbox(1).kept() == 0);
    assert!(!bench.cluster.signal(0).take_event() && !bench.cluster.signal(1).take_event());
    // What RAM holds now has been put there without a word to anybody, as by the host.
    let at = bench.cluster.host.host(Pa(RAM), 4).unwrap() as *mut u32;
    // SAFETY: four aligned bytes of RAM, which nobody else uses.
    unsafe { at.write_volatile(0xd280_0040) }; // mov x0, #2
    bench.cluster.resume();
    first.set_boot_state(RAM, 0);
    assert_eq!(first.run(Some(10)), Exit::BudgetSpent);
    assert_eq!(first.state.x[0], 2);
    // The other stays off until it is turned on.
    bench.cluster.stop_all();
    assert_eq!(second.run(None), Exit::Stopped);
    assert_eq!(second.state.pc, 0);
}
