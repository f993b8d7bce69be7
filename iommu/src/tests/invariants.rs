//! States that no guest can bring about are not answered as if all were well.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::context::World;
use crate::spec::ste::{SteD1, SteD2, SteD3};
use crate::stage2::{Stage2, Translator};
use crate::stream::{Ats, StreamConfig};
use crate::transaction::Transaction;

const NO_STAGE: StreamConfig = StreamConfig {
    world: World::El1,
    stage1: None,
    stage2: None,
    d1: SteD1::from_bits(0),
    vmid: 0,
    ats: Ats::Off,
};

#[test]
#[should_panic = "without stage 1 there is stage 2"]
fn lookup_for_a_stream_without_stages_is_a_bug() {
    let m = Bench::new();
    let tx = Transaction::untranslated(&plain(), DATA, false);
    let _ = m.smmu.look_up(&m.smmu.inflight.enter(), &NO_STAGE, &tx, 0);
}

#[test]
#[should_panic = "split-stage ATS has stage 2"]
fn intermediate_address_for_a_stream_without_stage2_is_a_bug() {
    let m = Bench::new();
    let tx = Transaction::untranslated(&plain(), DATA, false);
    let _ = m.smmu.translate_to_intermediate(&m.smmu.inflight.enter(), &NO_STAGE, &tx);
}

#[test]
#[should_panic = "a legal STE has a granule for stage 2"]
fn stage2_with_a_reserved_granule_is_a_bug() {
    let (m, features) = (Bench::new(), Features::default());
    let (d1, d2, d3) = (SteD1::new(), SteD2::new().with_s2t0sz(16).with_s2tg(3), SteD3::new());
    let stage2 = Translator { ram: &*m.ram, features: &features, stage2: &Stage2 { d1, d2, d3 } };
    let _ = stage2.table(0, false, 0);
}

#[test]
fn state_of_a_thread_that_panicked_is_not_built_on_but_counters_can_be_read() {
    let m = Bench::new();
    let holder = || {
        let _state = m.smmu.state();
        panic!("with the lock held");
    };
    assert!(catch_unwind(AssertUnwindSafe(holder)).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| m.r32(CR0))).is_err());
    assert_eq!(m.smmu.stats().stalls, 0);
}
