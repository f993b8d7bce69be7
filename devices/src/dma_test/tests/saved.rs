//! The state that is saved and taken up again.

use serde_json::json;

use super::*;

/// A device that has taken a state up and is quiesced.
fn restored(state: &Value, threads: Option<Arc<Threads>>) -> Result<Bench, String> {
    let bench = Bench::powered_on(threads, true).unwrap();
    bench.device.quiesce();
    bench.device.restore(state.clone()).map_err(|error| error.to_string())?;
    Ok(bench)
}

fn registers(bench: &Bench) -> Vec<u32> {
    (0..BAR0_BYTES).step_by(4).map(|at| bench.r32(at)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn restored_device_is_the_saved_one_and_goes_on_as_it_would(
        writes in prop::collection::vec((0..8u64, 0..0x13u64, any::<u32>(), 0..4u32, prop::bool::ANY), 0..60),
        held in 0..3u64,
    ) {
        let before = Bench::new();
        before.enable_messages();
        for (channel, word, value, kind, steps) in writes {
            match kind {
                0 => before.w32(CH_COMMAND + 0x100 * channel, value & 0x7_010f),
                1 => before.start(channel, (value % 11) as u8, RAM + u64::from(value & 0xfff8), value & MESSAGE),
                2 => before.w32(0x1000 + 0x100 * channel + 4 * word.max(1), value),
                _ => before.w32(DT_CTRL, value & 2),
            }
            if steps {
                before.device.step();
            }
        }
        for tag in 0..held {
            let request = InvalidateRequest { pasid: Pasid::new(5), global: true, address: Iova(!0xfff), size_log2: 12 };
            before.device.invalidate(&request, InvalidateTag(tag));
        }
        before.device.quiesce();
        let state = before.device.save();
        let after = restored(&state, None).unwrap();
        prop_assert_eq!(after.device.save(), state);
        prop_assert_eq!(registers(&after), registers(&before));
        after.ram.write(Pa(RAM), &before.memory()).unwrap();
        let _ = before.msi.take();
        for bench in [&before, &after] {
            bench.device.resume();
            while bench.device.step() {}
        }
        prop_assert_eq!(registers(&after), registers(&before));
        prop_assert_eq!(after.msi.take(), before.msi.take());
        prop_assert!(after.memory() == before.memory());
    }
}

#[test]
fn access_that_waited_is_made_again_and_its_command_ends_with_its_message() {
    let before = Bench::threaded();
    before.enable_messages();
    before.w64(CH_DATA, 0x1234_5678_9abc_def0);
    before.start(0, opcode::WRITE, STALLING, MESSAGE);
    before.until(|| before.device.lock().channels[0].waiter.is_waiting());
    // Registers may be written while the command has its own.
    before.w64(CH_DATA, 0);
    before.w32(CH_LENGTH, 1);
    before.device.quiesce();
    let state = before.device.save();
    assert_eq!(state["state"]["channels"]["0"]["command"]["is_begun"], true);

    let threads = || Some(Arc::new(Threads(Mutex::default(), usize::MAX)));
    let after = restored(&state, threads()).unwrap();
    assert_eq!(after.device.save(), state, "before it goes on");
    after.device.resume();
    after.until(|| after.device.lock().channels[0].waiter.is_waiting());
    assert!(after.device.lock().channels[0].waiter.is_made_again());
    after.device.quiesce();
    assert_eq!(after.device.save(), state, "when it waits again");
    after.device.resume();
    after.serve();
    after.until(|| after.r32(CH_COUNT) == 1 && after.device.lock().is_quiet());
    assert_eq!(value_of(&after.memory()[..8]), 0x1234_5678_9abc_def0);
    assert_eq!((after.r32(CH_STATUS), after.msi.take()), (DONE, vec![(DeviceId(8), 0x40)]));
    after.start(0, opcode::WRITE, RAM, 0);
    assert!(!after.device.lock().channels[0].waiter.is_made_again());
}

#[test]
fn message_that_waited_is_sent_again_before_the_next_command() {
    let before = Bench::new();
    before.enable_messages();
    before.start(0, opcode::WRITE, RAM, MESSAGE);
    assert!(before.device.step());
    before.device.quiesce();
    let mut state = before.device.save();
    state["state"]["channels"]["0"] = json!({ "command": null, "is_message_sent": true });
    let after = restored(&state, None).unwrap();
    assert_eq!(after.device.save(), state);
    after.device.resume();
    after.start(0, opcode::WRITE, RAM, 0);
    assert!(after.device.step());
    assert_eq!((after.msi.take(), after.r32(CH_COUNT)), (vec![(DeviceId(8), 0x40)], 1));
    assert!(!after.device.lock().channels[0].message.is_made_again());
    assert!(after.device.step());
    assert_eq!(after.r32(CH_COUNT), 2);
}

#[test]
fn command_that_was_given_up_before_it_began_ends_so() {
    let before = Bench::new();
    before.start(3, opcode::WRITE, STALLING, 0);
    before.w32(CH_GIVE_UP + 0x300, 1);
    before.device.quiesce();
    let after = restored(&before.device.save(), None).unwrap();
    after.device.resume();
    assert!(after.device.step());
    assert_eq!(after.r32(CH_STATUS + 0x300), DONE | GIVEN_UP);
}

#[test]
fn values_that_no_guest_could_bring_about_are_refused() {
    let before = Bench::new();
    before.start(0, opcode::WRITE, RAM, 0);
    before.device.quiesce();
    let good = before.device.save();
    assert!(restored(&good, None).is_ok());
    let job = &good["state"]["channels"]["0"];
    for (path, value) in [
        ("/state/registers/CH_STATUS[0]", json!("0x3")),
        ("/state/registers/CH_STATUS[0]", json!("0x2")),
        ("/state/registers/CH_STATUS[1]", json!("0x1")),
        ("/state/registers/CH_STATUS[1]", json!("0x4")),
        ("/state/registers/CH_STATUS[1]", json!("0xe")),
        ("/state/registers/CH_STATUS[1]", json!("0x40")),
        ("/state/registers/CH_STATUS[1]", json!("0x80")),
        ("/state/registers/DT_CTRL", json!("0x1")),
        ("/state/registers/DT_ID", json!("0x0")),
        ("/state/registers/DT_INV_HELD", json!("0x1")),
        ("/state/registers/CH_BYTES[0]", json!("0x100000")),
        ("/state/registers/CH_ATS_INFO[0]", json!("0x40000")),
        ("/state/registers/CH_GIVE_UP[0]", json!("0x1")),
        ("/state/held", json!(vec![0; HELD + 1])),
        ("/state/channels/8", job.clone()),
        ("/state/channels/1", json!({ "command": null, "is_message_sent": true })),
        ("/state/channels/0/command/CH_TAG", json!("0x100000")),
        ("/state/channels/0/command/CH_LENGTH", json!("0x100000")),
        ("/state/channels/0/command/CH_GROUP", json!("0x200")),
        ("/state/channels/0/command/more", json!(1)),
        ("/version", json!(2)),
    ] {
        let mut state = good.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        state.pointer_mut(parent).unwrap()[name] = value;
        assert!(restored(&state, None).is_err(), "{path}");
    }
}
