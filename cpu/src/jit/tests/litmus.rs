//! Litmus tests of the memory model (Arm ARM B2.3), as guest code in each tier: outcomes that barriers, acquires and
//! releases forbid.
//!
//! Each thread counts rounds and stores the number of its round, so that no thread waits for another between rounds: what
//! it reads says how far the other one was. Each load's result is kept, and the forbidden outcome is looked for
//! afterwards.

use std::sync::Arc;

use hw::Pa;

use crate::insn::{Features, Op, op_of};
use crate::testbed::{Bench, RAM, mmu_on_flat};
use crate::{Exit, Tier};

pub(super) const X: u64 = RAM + 0x10_0000;
const Y: u64 = RAM + 0x10_1000;
const DONE: u64 = RAM + 0x10_2000;
/// Results of each thread: a megabyte for each load.
const RESULTS: u64 = RAM + 0x20_0000;
const ROUNDS: u64 = 3000;

/// Lockstep lets one vCPU run at a time.
pub(super) const TIERS: [Tier; 3] = [Tier::Interpreter, Tier::Auto, Tier::Translated];

const DMB_ISH: u32 = 0xd503_3bbf;
const DMB_ISHLD: u32 = 0xd503_39bf;
const DMB_ISHST: u32 = 0xd503_3abf;
const DSB_ISH: u32 = 0xd503_3b9f;

// Registers: x1 and x2 the addresses of X and Y, x5 the round, x6 the last, x8 and x9 the places of results.
const X1: u32 = 1;
const Y2: u32 = 2;
const ROUND: u32 = 5;

const fn str(at: u32, value: u32) -> u32 {
    0xf900_0000 | at << 5 | value
}
const fn ldr(at: u32, to: u32) -> u32 {
    0xf940_0000 | at << 5 | to
}
const fn stlr(at: u32, value: u32) -> u32 {
    0xc89f_fc00 | at << 5 | value
}
const fn ldar(at: u32, to: u32) -> u32 {
    0xc8df_fc00 | at << 5 | to
}
const fn ldapr(at: u32, to: u32) -> u32 {
    0xf8bf_c000 | at << 5 | to
}
const fn ldaxr(at: u32, to: u32) -> u32 {
    0xc85f_fc00 | at << 5 | to
}
const fn swpl(at: u32, value: u32) -> u32 {
    0xf860_8000 | value << 16 | at << 5 | 31
}
const fn swpal(at: u32, value: u32) -> u32 {
    0xf8e0_8000 | value << 16 | at << 5 | 31
}
/// LDADDA of nothing: a load that acquires.
const fn ldadda(at: u32, to: u32) -> u32 {
    0xf8bf_0000 | at << 5 | to
}
/// Until it is done: LDXR X11, [at]; STLXR W12, value, [at]; CBNZ W12.
const fn stlxr(at: u32, value: u32) -> [u32; 3] {
    [0xc85f_7c0b | at << 5, 0xc80c_fc00 | at << 5 | value, 0x35ff_ffcc]
}
/// The same with STXR, which orders nothing.
const fn stxr(at: u32, value: u32) -> [u32; 3] {
    [0xc85f_7c0b | at << 5, 0xc80c_7c00 | at << 5 | value, 0x35ff_ffcc]
}

/// An access, and what orders it with the one that it is put before or behind.
type Form = Vec<u32>;

/// Stores to `at` that everything before them is ordered with.
fn releases(at: u32) -> Vec<Form> {
    let mut forms: Vec<Form> = [DMB_ISH, DSB_ISH].map(|barrier| vec![barrier, str(at, ROUND)]).into();
    forms.extend([vec![stlr(at, ROUND)], vec![swpl(at, ROUND)], vec![swpal(at, ROUND)]]);
    forms.push(stlxr(at, ROUND).into());
    forms.push([&[DMB_ISH][..], &stxr(at, ROUND)].concat());
    forms
}

/// Loads of `at` to `to` that everything behind them is ordered with.
fn acquires(at: u32, to: u32) -> Vec<Form> {
    let barriers = [DMB_ISH, DMB_ISHLD, DSB_ISH];
    let mut forms: Vec<Form> = barriers.map(|barrier| vec![ldr(at, to), barrier]).into();
    forms.extend([ldar(at, to), ldapr(at, to), ldaxr(at, to), ldadda(at, to)].map(|word| vec![word]));
    forms
}

/// One round of a thread. Loads go to x3 and x4, which are kept.
pub(super) type Round<'a> = &'a [u32];

/// Runs the threads' rounds, and gives for each the values of x3 and x4 after each round.
pub(super) fn run(tier: Tier, threads: &[Round<'_>]) -> Option<Vec<[Vec<u64>; 2]>> {
    if threads.concat().iter().any(|&word| op_of(word, Features::default()) == Op::Undefined) {
        return None;
    }
    let bench = Bench::with_tier(threads.len(), tier);
    let guests: Vec<_> = threads
        .iter()
        .enumerate()
        .map(|(index, round)| {
            let code = RAM + 0x1000 * index as u64;
            let mut words = vec![0x9100_04a5]; // loop: add x5, x5, #1
            words.extend(*round);
            words.extend([0xf800_8503, 0xf800_8524, 0xeb06_00bf]); // str x3, [x8], #8; str x4, [x9], #8; cmp x5, x6
            let back = (words.len() as u32).wrapping_neg() & 0x7_ffff;
            words.push(0x5400_0003 | back << 5); // b.lo loop
            words.extend([0xf8e7_0140, 0x1400_0000]); // ldaddal x7, x0, [x10]; b .
            bench.code(code, &words);
            bench.cluster.turn_on(index, code, 0);
            let mut cpu = bench.cpu(index);
            assert_eq!(cpu.serve_pending(), None);
            cpu.state.pc = code;
            mmu_on_flat(&mut cpu);
            let results = RESULTS + 0x20_0000 * index as u64;
            cpu.state.x[1..3].copy_from_slice(&[X, Y]);
            cpu.state.x[5..11].copy_from_slice(&[0, ROUNDS, 1, results, results + 0x10_0000, DONE]);
            let cluster = Arc::clone(&bench.cluster);
            std::thread::spawn(move || {
                // Until all have made their rounds.
                let _cluster = cluster;
                assert_eq!(cpu.run(None), Exit::Stopped);
            })
        })
        .collect();
    while bench.ram.load_u64(Pa(DONE)) != Ok(threads.len() as u64) {
        assert!(!guests.iter().any(std::thread::JoinHandle::is_finished), "a guest has failed");
        std::thread::yield_now();
    }
    bench.cluster.stop_all();
    for guest in guests {
        guest.join().unwrap();
    }
    let read = |at: u64| (0..ROUNDS).map(|n| bench.ram.load_u64(Pa(at + 8 * n)).unwrap()).collect();
    let results = |thread| RESULTS + 0x20_0000 * thread as u64;
    Some((0..threads.len()).map(|n| [read(results(n)), read(results(n) + 0x10_0000)]).collect())
}

/// Each pair of these, in each tier.
fn pairs<'a>(first: &'a [Form], second: &'a [Form]) -> impl Iterator<Item = (Tier, &'a Form, &'a Form)> {
    TIERS.into_iter().flat_map(move |tier| {
        first.iter().flat_map(move |first| second.iter().map(move |second| (tier, first, second)))
    })
}

#[test]
fn message_is_never_older_than_the_flag_that_tells_of_it() {
    let mut flags = releases(Y2);
    flags.push(vec![DMB_ISHST, str(Y2, ROUND)]);
    for (tier, flag, look) in pairs(&flags, &acquires(Y2, 3)) {
        let writer = [&[str(X1, ROUND)], &flag[..]].concat();
        let reader = [&look[..], &[ldr(X1, 4)]].concat();
        let Some(results) = run(tier, &[&writer, &reader]) else { continue };
        let [flags, messages] = &results[1];
        for (flag, message) in flags.iter().zip(messages) {
            assert!(message >= flag, "{tier:?} {writer:x?} {reader:x?}: flag {flag}, message {message}");
        }
    }
}

#[test]
fn two_threads_that_store_and_then_load_do_not_both_miss_the_other() {
    // Of acquires and releases only LDAR and its kin keep behind STLR and its kin.
    let barriers = |barrier| [[str(X1, ROUND), barrier, ldr(Y2, 3)], [str(Y2, ROUND), barrier, ldr(X1, 3)]];
    let mut forms: Vec<[Form; 2]> = [DMB_ISH, DSB_ISH].map(|barrier| barriers(barrier).map(Vec::from)).into();
    let stores: [fn(u32) -> Form; 4] = [
        |at| vec![stlr(at, ROUND)],
        |at| vec![swpl(at, ROUND)],
        |at| vec![swpal(at, ROUND)],
        |at| stlxr(at, ROUND).into(),
    ];
    for store in stores {
        for load in [ldar, ldaxr, ldadda] {
            let round = |to, from| [store(to), vec![load(from, 3)]].concat();
            forms.push([round(X1, Y2), round(Y2, X1)]);
        }
    }
    for (tier, [first, second]) in
        TIERS.into_iter().flat_map(|tier| forms.iter().map(move |form| (tier, form)))
    {
        let Some(results) = run(tier, &[first, second]) else { continue };
        // If round n of the first has read r, round r + 1 of the second stores later than that load.
        for (n, &r) in (1..).zip(&results[0][0]) {
            if let Some(&back) = results[1][0].get(r as usize) {
                assert!(back >= n, "{tier:?} {first:x?}: round {n} read {r}, round {} read {back}", r + 1);
            }
        }
    }
}

#[test]
fn two_threads_that_load_and_then_store_do_not_both_see_the_other() {
    let forms = |from, to| {
        let acquired = acquires(from, 3).into_iter().map(|load| [load, vec![str(to, ROUND)]].concat());
        let released = releases(to).into_iter().map(|store| [vec![ldr(from, 3)], store].concat());
        acquired.chain(released).collect::<Vec<Form>>()
    };
    let all: Vec<_> = forms(X1, Y2).into_iter().zip(forms(Y2, X1)).collect();
    for (tier, (first, second)) in TIERS.into_iter().flat_map(|tier| all.iter().map(move |form| (tier, form)))
    {
        let Some(results) = run(tier, &[first, second]) else { continue };
        // If round n of the first has read r, round r of the second had loaded before round n of the first stored.
        for (n, &r) in (1..).zip(&results[0][0]) {
            if r > 0 {
                let back = results[1][0][r as usize - 1];
                assert!(back < n, "{tier:?} {first:x?}: round {n} read {r}, round {r} read {back}");
            }
        }
    }
}

#[test]
fn two_readers_agree_on_the_order_of_two_writers() {
    let readers: Vec<_> = acquires(X1, 3).into_iter().zip(acquires(Y2, 3)).collect();
    let writers: [fn(u32) -> Form; 2] = [|at| vec![str(at, ROUND)], |at| stxr(at, ROUND).into()];
    for (tier, (x_first, y_first)) in
        TIERS.into_iter().flat_map(|tier| readers.iter().map(move |form| (tier, form)))
    {
        for write in writers {
            let first = [&x_first[..], &[ldr(Y2, 4)]].concat();
            let second = [&y_first[..], &[ldr(X1, 4)]].concat();
            let Some(results) = run(tier, &[&write(X1), &write(Y2), &first, &second]) else { continue };
            let rounds = |thread: usize| results[thread][0].iter().zip(&results[thread][1]);
            for (x, y) in rounds(2) {
                // The values grow: the first round of the other that has seen a newer y must have seen this x.
                if let Some((newer, older)) = rounds(3).find(|(newer, _)| *newer > y) {
                    assert!(older >= x, "{tier:?} {first:x?}: ({x}, {y}) here, ({older}, {newer}) there");
                }
            }
        }
    }
}

#[test]
fn one_location_never_goes_back() {
    let loads: [fn(u32, u32) -> u32; 5] = [ldr, ldar, ldapr, ldaxr, ldadda];
    let writers =
        [vec![str(X1, ROUND)], vec![stlr(X1, ROUND)], stlxr(X1, ROUND).into(), vec![swpal(X1, ROUND)]];
    let readers: Vec<Form> =
        loads.iter().flat_map(|first| loads.map(|second| vec![first(X1, 3), second(X1, 4)])).collect();
    for (tier, writer, reader) in pairs(&writers, &readers) {
        let Some(results) = run(tier, &[writer, reader]) else { continue };
        let [first, second] = &results[1];
        assert!(first.iter().zip(second).all(|(first, second)| second >= first), "{tier:?} {reader:x?}");
        assert!(second.iter().zip(&first[1..]).all(|(second, next)| next >= second), "{tier:?} {reader:x?}");
    }
}
