//! Saved configuration spaces, alone and as the host has them.

use serde_json::{Value, json};

use super::*;

fn services() -> ConfigBuilder {
    full().ats().page_requests(32)
}

/// The configuration space of a function attached nowhere, from its form in a file.
fn restored(builder: ConfigBuilder, state: &Value) -> Result<ConfigSpace, String> {
    let state = serde_json::from_value(state.clone()).map_err(|error| error.to_string())?;
    let space = builder.build();
    space.restore(state).map_err(|error| error.to_string())?;
    Ok(space)
}

fn bytes(space: &ConfigSpace) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    space.read(0, &mut bytes);
    bytes
}

fn saved(space: &ConfigSpace) -> Value {
    serde_json::to_value(space.save()).unwrap()
}

proptest! {
    #[test]
    fn configuration_space_comes_back_as_it_was_whatever_was_written(
        writes in proptest::collection::vec((0u64..0x160, 1usize..5, any::<u32>()), 0..60),
        table in proptest::collection::vec((0u64..40, any::<u32>()), 0..30),
        raised in proptest::collection::vec(0u16..80, 0..30),
        has_msix: bool,
    ) {
        let builder = || if has_msix { with_msix(10) } else { services() };
        let space = builder().build();
        let port = Bench::new().port;
        let who = Requester::new(DmaTag::untagged(StreamId(8)));
        // Enabled as often as not, so that messages are held back.
        let _ = space.write(header::COMMAND.offset(), &[6, 0]);
        let _ = space.write(
            if has_msix { MSIX + msix::CONTROL.offset() } else { MSI + msi::CONTROL.offset() },
            &[1, if has_msix { 0x80 } else { 0 }],
        );
        for (at, len, value) in writes {
            let _ = space.write(at, &value.to_le_bytes()[..len]);
            space.set_page_request_status(value & 0x103);
        }
        if has_msix {
            for (word, value) in table {
                space.msix_write(0x1000 + 4 * word, &value.to_le_bytes()).unwrap();
            }
        }
        for vector in raised {
            space.raise(vector, &port, &who);
        }
        space.capture_requester(StreamId(0x123));

        let state = saved(&space);
        let after = restored(builder(), &state).unwrap();
        prop_assert_eq!(saved(&after), state);
        prop_assert_eq!(bytes(&after), bytes(&space));
        prop_assert_eq!(after.decoded_bars(), space.decoded_bars());
        prop_assert_eq!(after.is_bus_master(), space.is_bus_master());
        prop_assert_eq!(after.is_ats_enabled(), space.is_ats_enabled());
        prop_assert_eq!(after.page_request_control(), space.page_request_control());
        let tag = DmaTag { pasid: Some(Pasid::new(1).unwrap()), ..DmaTag::untagged(StreamId(8)) };
        prop_assert_eq!(after.may_request(&tag), space.may_request(&tag));
        if has_msix {
            let all = |space: &ConfigSpace, at: u64, len: u64| {
                (0..len).step_by(4).map(|word| {
                    let mut data = [0; 4];
                    space.msix_read(at + word, &mut data).unwrap();
                    u32::from_le_bytes(data)
                }).collect::<Vec<_>>()
            };
            prop_assert_eq!(all(&after, 0x1000, 160), all(&space, 0x1000, 160));
            prop_assert_eq!(all(&after, 0x2000, 8), all(&space, 0x2000, 8));
        }
    }
}

#[test]
fn saved_configuration_space_has_names_and_only_what_differs_from_reset() {
    let space = with_msix(10).build();
    assert_eq!(saved(&space), json!({ "requester_id": null, "registers": {}, "msix": {} }));
    let _ = space.write(header::COMMAND.offset(), &[6, 0]);
    space.capture_requester(StreamId(8));
    space.msix_write(0x1030, &0x900_0040u64.to_le_bytes()).unwrap();
    space.msix_write(0x1038, &7u64.to_le_bytes()).unwrap();
    assert_eq!(
        saved(&space),
        json!({
            "requester_id": "0x8",
            "registers": { "0x004": { "register": "Command", "value": "0x6" } },
            "msix": { "3": { "address": "0x9000040", "data": "0x7", "masked": false, "pending": false } },
        })
    );
}

#[test]
fn pending_message_of_a_restored_function_goes_when_its_work_goes_on() {
    let bench = Bench::new();
    let space = with_msix(10).build();
    let _ = space.write(header::COMMAND.offset(), &[6, 0]);
    let _ = space.write(MSIX + msix::CONTROL.offset(), &[0, 0xc0]);
    space.msix_write(0x1030, &DOORBELL.to_le_bytes()).unwrap();
    space.msix_write(0x1038, &7u64.to_le_bytes()).unwrap();
    let who = Requester::new(DmaTag::untagged(StreamId(8)));
    space.raise(3, &bench.port, &who);
    let after = restored(with_msix(10), &saved(&space)).unwrap();
    after.deliver_pending(&bench.port, &who);
    assert_eq!(bench.messages(), []);
    let _ = after.write(0x42, &[0, 0x80]);
    after.deliver_pending(&bench.port, &who);
    assert_eq!(bench.messages(), [(DeviceId(8), 7)]);
}

#[test]
fn configuration_space_that_no_guest_could_have_made_is_refused() {
    let with = |register: (&str, &str, &str)| {
        let (at, name, value) = register;
        json!({ "requester_id": null, "registers": { at: { "register": name, "value": value } }, "msix": {} })
    };
    let vector =
        |key: &str, entry: Value| json!({ "requester_id": null, "registers": {}, "msix": { key: entry } });
    let entry = json!({ "address": "0x0", "data": "0x0", "masked": true, "pending": true });
    let pending = (format!("{:#05x}", MSI + 0x14), "Pending Bits", "0x1");
    for (state, why) in [
        (with(("0x004", "Command", "0x8")), "read-only"),
        (with(("0x004", "Status", "0x6")), "is Command"),
        (with(("0x004", "Command", "0x10000")), "read-only"),
        (with(("0x005", "Command", "0x0")), "no register"),
        (with(("0x4", "Command", "0x6")), "no register"),
        (with(("0x000", "Vendor ID", "0x1235")), "read-only"),
        (with(("0x006", "Status", "0x8010")), "read-only"),
        (with(("0x010", "Base Address Registers", "0x800")), "read-only"),
        (with(("0x080", "Power Management Control/Status", "0x9")), "PowerState"),
        (with((&pending.0, pending.1, pending.2)), "MSI is disabled"),
        (with((&pending.0, pending.1, "0x10")), "read-only"),
        (with(("0xffff", "Command", "0x0")), "no register"),
        (vector("0", entry.clone()), "no index below 0"),
        (json!({ "requester_id": "0x10000", "registers": {}, "msix": {} }), "16 bits"),
        (json!({ "requester_id": null, "registers": {}, "msix": {}, "more": 1 }), "unknown field"),
    ] {
        let refused = restored(services(), &state).err().unwrap_or_else(|| panic!("{state} was taken"));
        assert!(refused.contains(why), "{state}: {refused}");
    }
    for key in ["10", "03", "-1", "x"] {
        assert!(restored(with_msix(10), &vector(key, entry.clone())).is_err(), "{key}");
    }
    assert!(restored(with_msix(10), &vector("9", entry)).is_ok());
}

#[test]
fn page_requests_that_are_enabled_and_stopped_at_once_are_refused() {
    let space = services().build();
    let base = (0x100..0x1000).step_by(4).find(|&at| space.register(at, header::VENDOR_ID) == 0x13);
    let base = base.unwrap();
    let _ = space.write(u64::from(base) + page_request::CONTROL.offset(), &[1, 0]);
    let mut state = saved(&space);
    let status = format!("{:#05x}", u64::from(base) + page_request::STATUS.offset());
    assert_eq!(state["registers"][&status]["value"], "0x8000");
    assert!(restored(services(), &state).is_ok());
    // As after reset: Stopped.
    state["registers"].as_object_mut().unwrap().remove(&status);
    assert!(restored(services(), &state).is_err());
}

#[test]
fn host_restores_bridges_and_the_routes_to_functions_behind_them() {
    let machine = || {
        let bench = Bench::new();
        let probe = Probe::new(full());
        let behind = Probe::new(with_msix(4));
        let port = RootPort::new();
        bench.host.attach(0, 8, probe.clone()).unwrap();
        bench.host.attach(0, 16, port.clone()).unwrap();
        port.attach(0, behind.clone()).unwrap();
        (bench, probe, behind)
    };
    let (bench, probe, behind) = machine();
    bench.config_write(8, header::BAR.at(0), 4, 0x1000_0000);
    bench.config_write(8, header::COMMAND, 2, 6);
    bench.config_write(16, bridge::PRIMARY_BUS, 4, 0x0005_0500);
    bench.config_write(16, bridge::MEMORY_BASE, 4, 0x2000_2000);
    bench.config_write(16, header::COMMAND, 2, 6);
    bench.config_write(5 << 8, header::BAR.at(4), 4, 0x2000_0000);
    bench.config_write(5 << 8, header::COMMAND, 2, 6);
    let restore = |host: Value, first: Value, second: Value| {
        let (after, one, two) = machine();
        one.config.restore(serde_json::from_value(first).unwrap()).map_err(|error| error.to_string())?;
        two.config.restore(serde_json::from_value(second).unwrap()).map_err(|error| error.to_string())?;
        after.host.restore(host).map_err(|error| error.to_string())?;
        assert_eq!(read(&*after.memory, 0x1000_0010, 8), 0x10);
        assert_eq!(read(&*after.memory, 0x2000_0010, 8), 4 << 56 | 0x10);
        assert_eq!(two.config.requester_id(), Some(StreamId(0x500)));
        assert!(two.config.is_bus_master());
        Ok::<_, String>(after.host.save())
    };
    let host = bench.host.save();
    let (first, second) = (saved(&probe.config), saved(&behind.config));
    assert_eq!(restore(host.clone(), first.clone(), second.clone()), Ok(host.clone()));

    let mut wrong = first.clone();
    wrong["requester_id"] = json!("0x10");
    assert!(restore(host.clone(), wrong, second.clone()).unwrap_err().contains("function's place"));
    let mut wrong = second.clone();
    wrong["requester_id"] = json!("0x508");
    assert!(restore(host.clone(), first.clone(), wrong).unwrap_err().contains("another function's"));
    let mut wrong = host.clone();
    wrong["state"]["bridges"].as_object_mut().unwrap().remove("0x0000").unwrap();
    assert!(restore(wrong, first.clone(), second.clone()).unwrap_err().contains("missing"));
    let mut wrong = host.clone();
    wrong["state"]["bridges"]["0x0008"] = host["state"]["bridges"]["0x0000"].clone();
    assert!(restore(wrong, first, second).unwrap_err().contains("no bridge"));
}

/// Looks at a configuration space while a message of it is on its way.
struct Looks<'s> {
    space: &'s ConfigSpace,
    seen: std::sync::Mutex<Vec<Value>>,
}

impl DmaPort for Looks<'_> {
    fn read(&self, _: &Requester, _: Iova, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault::Cancelled)
    }

    fn write(&self, _: &Requester, _: Iova, _: &[u8]) -> Result<(), DmaFault> {
        self.seen.lock().unwrap().push(saved(self.space));
        Ok(())
    }

    fn pin(&self, _: &Requester, _: Iova, _: usize, _: hw::Dir) -> Result<hw::Pinned<'_>, DmaFault> {
        Err(DmaFault::Cancelled)
    }
}

#[test]
fn message_that_was_held_back_and_waits_on_its_way_is_pending_in_the_saved_state() {
    for has_msix in [true, false] {
        let builder = || if has_msix { with_msix(10) } else { services() };
        let space = builder().build();
        let who = Requester::new(DmaTag::untagged(StreamId(8)));
        let _ = space.write(header::COMMAND.offset(), &[6, 0]);
        if has_msix {
            let _ = space.write(MSIX + msix::CONTROL.offset(), &[0, 0x80]);
            space.raise(3, &Bench::new().port, &who);
            space.msix_write(0x103c, &[0; 4]).unwrap();
        } else {
            let _ = space.write(MSI + msi::CONTROL.offset(), &[1, 0]);
            let mask = MSI + msi::MASK.offset();
            let _ = space.write(mask, &[1, 0, 0, 0]);
            space.raise(0, &Bench::new().port, &who);
            let _ = space.write(mask, &[0; 4]);
        }
        let before = saved(&space);
        let port = Looks { space: &space, seen: std::sync::Mutex::default() };
        space.deliver_pending(&port, &who);
        assert_eq!(*port.seen.lock().unwrap(), [before], "MSI-X: {has_msix}");
        assert_ne!(saved(&space), port.seen.lock().unwrap()[0], "it has been sent");
        assert!(restored(builder(), &port.seen.lock().unwrap()[0]).is_ok());
    }
}
