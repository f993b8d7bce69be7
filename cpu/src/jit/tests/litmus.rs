//! Litmus tests of the memory model (Arm ARM B2.3), as guest code in translations: outcomes that barriers, acquires and
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

const X: u64 = RAM + 0x10_0000;
const Y: u64 = RAM + 0x10_1000;
const DONE: u64 = RAM + 0x10_2000;
/// Results of each thread: a megabyte for each load.
const RESULTS: u64 = RAM + 0x20_0000;
const ROUNDS: u64 = 3000;

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
const fn swpal(at: u32, value: u32) -> u32 {
    0xf8e0_8000 | value << 16 | at << 5 | 31
}

/// One round of a thread. Loads go to x3 and x4, which are kept.
type Round<'a> = &'a [u32];

/// Runs the threads' rounds, and gives for each the values of x3 and x4 after each round.
fn run(threads: &[Round<'_>]) -> Option<Vec<[Vec<u64>; 2]>> {
    if threads.concat().iter().any(|&word| op_of(word, Features::default()) == Op::Undefined) {
        return None;
    }
    let bench = Bench::with_tier(threads.len(), Tier::Translated);
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

#[test]
fn message_is_never_older_than_the_flag_that_tells_of_it() {
    let writers = [
        [str(X1, ROUND), DMB_ISH, str(Y2, ROUND)],
        [str(X1, ROUND), DMB_ISHST, str(Y2, ROUND)],
        [str(X1, ROUND), DSB_ISH, stlr(Y2, ROUND)],
    ];
    let readers = [
        [ldr(Y2, 3), DMB_ISH, ldr(X1, 4)],
        [ldr(Y2, 3), DMB_ISHLD, ldr(X1, 4)],
        [ldar(Y2, 3), 0xd503_201f, ldr(X1, 4)],
        [ldapr(Y2, 3), 0xd503_201f, ldr(X1, 4)],
    ];
    for writer in &writers {
        for reader in &readers {
            let Some(results) = run(&[writer, reader]) else { continue };
            let [flags, messages] = &results[1];
            for (flag, message) in flags.iter().zip(messages) {
                assert!(message >= flag, "{writer:x?} {reader:x?}: flag {flag}, message {message}");
            }
        }
    }
}

#[test]
fn two_threads_that_store_and_then_load_do_not_both_miss_the_other() {
    let forms: [(&[u32], &[u32]); 4] = [
        (&[str(X1, ROUND), DMB_ISH, ldr(Y2, 3)], &[str(Y2, ROUND), DMB_ISH, ldr(X1, 3)]),
        (&[str(X1, ROUND), DSB_ISH, ldr(Y2, 3)], &[str(Y2, ROUND), DSB_ISH, ldr(X1, 3)]),
        (&[stlr(X1, ROUND), ldar(Y2, 3)], &[stlr(Y2, ROUND), ldar(X1, 3)]),
        (&[swpal(X1, ROUND), ldar(Y2, 3)], &[swpal(Y2, ROUND), ldar(X1, 3)]),
    ];
    for (first, second) in forms {
        let Some(results) = run(&[first, second]) else { continue };
        // If round n of the first has read r, round r + 1 of the second stores later than that load.
        for (n, &r) in (1..).zip(&results[0][0]) {
            if let Some(&back) = results[1][0].get(r as usize) {
                assert!(back >= n, "{first:x?}: round {n} read {r}, round {} read {back}", r + 1);
            }
        }
    }
}

#[test]
fn two_threads_that_load_and_then_store_do_not_both_see_the_other() {
    let forms: [(&[u32], &[u32]); 4] = [
        (&[ldr(X1, 3), DMB_ISH, str(Y2, ROUND)], &[ldr(Y2, 3), DMB_ISH, str(X1, ROUND)]),
        (&[ldr(X1, 3), DMB_ISHLD, str(Y2, ROUND)], &[ldr(Y2, 3), DMB_ISHLD, str(X1, ROUND)]),
        (&[ldar(X1, 3), str(Y2, ROUND)], &[ldar(Y2, 3), str(X1, ROUND)]),
        (&[ldr(X1, 3), stlr(Y2, ROUND)], &[ldr(Y2, 3), stlr(X1, ROUND)]),
    ];
    for (first, second) in forms {
        let Some(results) = run(&[first, second]) else { continue };
        // If round n of the first has read r, round r of the second had loaded before round n of the first stored.
        for (n, &r) in (1..).zip(&results[0][0]) {
            if r > 0 {
                let back = results[1][0][r as usize - 1];
                assert!(back < n, "{first:x?}: round {n} read {r}, round {r} read {back}");
            }
        }
    }
}

#[test]
fn two_readers_agree_on_the_order_of_two_writers() {
    let writers = [[str(X1, ROUND)], [str(Y2, ROUND)]];
    let forms: [(&[u32], &[u32]); 3] = [
        (&[ldr(X1, 3), DMB_ISH, ldr(Y2, 4)], &[ldr(Y2, 3), DMB_ISH, ldr(X1, 4)]),
        (&[ldr(X1, 3), DMB_ISHLD, ldr(Y2, 4)], &[ldr(Y2, 3), DMB_ISHLD, ldr(X1, 4)]),
        (&[ldar(X1, 3), ldar(Y2, 4)], &[ldar(Y2, 3), ldar(X1, 4)]),
    ];
    for (first, second) in forms {
        let Some(results) = run(&[&writers[0], &writers[1], first, second]) else { continue };
        let rounds = |thread: usize| results[thread][0].iter().zip(&results[thread][1]);
        for (x, y) in rounds(2) {
            // The values grow: the first round of the other that has seen a newer y must have seen this x.
            if let Some((newer, older)) = rounds(3).find(|(newer, _)| *newer > y) {
                assert!(older >= x, "{first:x?}: ({x}, {y}) here, ({older}, {newer}) there");
            }
        }
    }
}

#[test]
fn one_location_never_goes_back() {
    for loads in [[ldr(X1, 3), ldr(X1, 4)], [ldar(X1, 3), ldr(X1, 4)], [ldr(X1, 3), ldar(X1, 4)]] {
        let Some(results) = run(&[&[str(X1, ROUND)], &loads]) else { continue };
        let [first, second] = &results[1];
        assert!(first.iter().zip(second).all(|(first, second)| second >= first), "{loads:x?}");
        assert!(second.iter().zip(&first[1..]).all(|(second, next)| next >= second), "{loads:x?}");
    }
}
