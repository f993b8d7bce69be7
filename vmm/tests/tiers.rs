//! What `--tier` promises: where the host gives no memory for translated code, and where it does.
#![cfg(target_arch = "x86_64")]

use std::sync::Arc;
use std::thread;

use hw::schedule::Threads;
use hw::{Alarms, Clock, ManualAlarms, ManualClock, Pa, Ram, Scheduler};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use vmm::board::map;
use vmm::bus::Bus;
use vmm::cli::{EngineChoice, TierChoice};
use vmm::engine::soft::SoftOptions;
use vmm::engine::{Exit, Ground, open};

/// mov w0, #0x84000008; hvc #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const CODE: Pa = Pa(map::RAM_BASE + 0x1000);

/// What an engine with this tier says of itself, and how many blocks it has translated at the guest's end.
fn run(tier: TierChoice) -> Result<(Option<String>, u64), String> {
    let ram = Arc::new(Ram::new(&[(Pa(map::RAM_BASE), 0x10_0000)]).unwrap());
    for (word, at) in OFF.iter().zip((CODE.0..).step_by(4)) {
        ram.write(Pa(at), &word.to_le_bytes()).unwrap();
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let alarms: Arc<dyn Alarms> = Arc::new(ManualAlarms::default());
    let scheduler: Arc<dyn Scheduler> = Arc::new(Threads);
    let soft = SoftOptions { tier, ..Default::default() };
    let errors = hw::GuestErrorBook::default();
    let ground = Ground {
        cpus: 1,
        ram: &ram,
        clock: &clock,
        alarms: &alarms,
        scheduler: &scheduler,
        errors: &errors,
        soft: &soft,
    };
    let (foundation, _) = open(EngineChoice::Soft, &ground).unwrap();
    let engine = foundation.complete(Arc::new(Bus::default()));
    let mut vcpu = engine.vcpu(0);
    let note = engine.check().map_err(|error| error.to_string())?;
    vcpu.set_boot_state(CODE, 0).unwrap();
    assert_eq!(vcpu.run().unwrap(), Exit::SystemOff);
    let report = serde_json::to_value(engine.statistics().unwrap()).unwrap();
    Ok((note, report["translations"].as_u64().unwrap()))
}

/// Does something on a thread to which the host refuses memory that is executable.
fn refused<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let executable = libc::PROT_EXEC as u64;
    let condition =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), executable);
    let rules = [(libc::SYS_mmap, vec![SeccompRule::new(vec![condition.unwrap()]).unwrap()])].into();
    let refuse = SeccompAction::Errno(libc::EACCES as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap();
    thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        work()
    })
    .join()
    .unwrap()
}

#[test]
fn guest_is_interpreted_with_one_line_where_executable_memory_is_refused() {
    let (note, translations) = refused(|| run(TierChoice::Auto)).unwrap();

    let note = note.expect("a line");
    assert!(note.contains("Permission denied") && note.contains("interpreted"), "{note}");
    assert_eq!(note.lines().count(), 1);
    assert_eq!(translations, 0);
}

#[test]
fn translation_that_was_asked_for_and_cannot_be_had_is_an_error_that_says_what_to_do() {
    let error = refused(|| run(TierChoice::Jit)).unwrap_err();

    assert!(error.contains("Permission denied") && error.contains("--tier interp"), "{error}");
}

#[test]
fn interpreter_asks_for_no_executable_memory() {
    assert_eq!(refused(|| run(TierChoice::Interp)), Ok((None, 0)));
}

#[test]
fn tiers_do_what_they_are_named_for_and_say_nothing() {
    assert_eq!(run(TierChoice::Interp), Ok((None, 0)));
    assert_eq!(run(TierChoice::Auto).unwrap().0, None);
    let (note, translations) = run(TierChoice::Jit).unwrap();
    assert!(note.is_none() && translations > 0, "{translations}");
}
