//! The device's workers as tasks that run one at a time, in an order that follows from a seed.

use hw::schedule::seeded::SeededScheduler;

use super::*;

/// In which order commands of all channels end that have waited for the same page, after a pause and a reset that find them waiting.
fn order_of_messages(seed: u64) -> Vec<u32> {
    let scheduler = SeededScheduler::new(seed);
    let bench = Bench::scheduled(scheduler.clone(), true).unwrap();
    bench.enable();
    bench.enable_messages();
    let start_all =
        || (0..CHANNELS as u64).for_each(|n| bench.start(n, opcode::WRITE, STALLING + 8 * n, MESSAGE));
    start_all();
    scheduler.run_until_idle();
    bench.device.quiesce();
    bench.device.resume();
    scheduler.run_until_idle();
    assert_eq!((0..CHANNELS as u64).map(|n| bench.r32(CH_STATUS + 0x100 * n)).max(), Some(1), "all wait");
    // Waits until the workers have given up, which are tasks as well.
    bench.device.reset();
    bench.enable();
    bench.enable_messages();
    start_all();
    scheduler.run_until_idle();
    bench.serve();
    scheduler.run_until_idle();
    assert!((0..CHANNELS as u64).all(|n| bench.r32(CH_STATUS + 0x100 * n) == DONE));
    let order = bench.msi.take().into_iter().map(|(_, vector)| vector).collect();
    bench.device.shut_down();
    scheduler.run_until_idle();
    assert_eq!(scheduler.tasks(), 0, "workers end with their device");
    order
}

#[test]
fn commands_that_waited_for_the_same_page_end_in_an_order_that_follows_from_the_seed() {
    let of_first = order_of_messages(1);
    assert_eq!(of_first.len(), CHANNELS);
    assert_eq!(order_of_messages(1), of_first);
    assert!((2..10).any(|seed| order_of_messages(seed) != of_first));
}
