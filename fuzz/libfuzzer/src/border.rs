//! libFuzzer on the target that the environment variable `FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static fuzz::Target> = OnceLock::new();

fuzz_target!(init: {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target; `cargo run -p fuzz -- --list`");
    let target = fuzz::TARGETS.iter().find(|target| target.name == name).expect("there is such a target");
    let _ = TARGET.set(target);
}, |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(data);
    }
});
