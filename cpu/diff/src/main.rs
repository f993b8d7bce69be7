//! `cpu-diff`: random instructions in our engine and in `qemu-aarch64`, every register and byte compared.
//!
//! A difference is shrunk to the instructions that make it and printed with its seed. Exceptions are not compared:
//! user mode shows none of them; the crate's own tests do.

mod batch;
mod case;
mod engine;
mod generate;
mod machine_code;
mod qemu;
mod random;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use cpu::insn::{Class, Memory, Row, disassemble};
use cpu::{Features, Tier};

use crate::batch::Layout;
use crate::case::{Case, SCRATCH, name_of, span_of};
use crate::engine::{Engine, FAULTS};
use crate::generate::{Need, UNMAPPED};
use crate::random::Random;

/// Compares the CPU engine with qemu-aarch64 over random instructions.
#[derive(Debug, Parser)]
#[command(name = "cpu-diff", version)]
struct Args {
    /// Instruction class, or part of a row's name; without it, all classes in turn
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Cases per class
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    cases: u64,
    /// Random instructions to execute per class
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    instructions: u64,
    /// Time per class, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// Seed of the first batch; a failing batch prints its own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Cases with the same instructions and other registers: most of the other side's time is translation
    #[arg(long, value_name = "N", default_value_t = 8)]
    inputs: usize,
    /// Cases in a batch
    #[arg(long, value_name = "N", default_value_t = 4000)]
    batch: usize,
    /// Classes compared at the same time; by default, one per processor
    #[arg(long, short = 'j', value_name = "N")]
    jobs: Option<usize>,
    /// What runs the engine's side: interp, or jit, which translates at the first execution
    #[arg(long, value_name = "TIER", default_value = "auto", value_parser = tier)]
    tier: Tier,
    /// Differences to print before giving a class up
    #[arg(long, value_name = "N", default_value_t = 3)]
    show: usize,
}

fn tier(name: &str) -> Result<Tier, String> {
    match name {
        "auto" => Ok(Tier::Auto),
        "interp" => Ok(Tier::Interpreter),
        "jit" => Ok(Tier::Translated),
        _ => Err("one of auto, interp, jit".into()),
    }
}

/// What one class is run with.
struct Job<'a> {
    engine: &'a Engine,
    folder: &'a std::path::Path,
    features: Features,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(e) => {
            eprintln!("cpu-diff: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<usize> {
    let features = Features::default();
    let seed = match args.seed {
        Some(seed) => seed,
        None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64,
    };
    let mut groups: Vec<(String, Vec<&'static Row>)> = Class::ALL
        .iter()
        .map(|&class| (class.name().to_string(), generate::rows_of(class, features)))
        .collect();
    if let Some(name) = &args.class {
        if groups.iter().any(|(class, _)| class == name) {
            groups.retain(|(class, _)| class == name);
        } else {
            let rows =
                groups.into_iter().flat_map(|(_, rows)| rows).filter(|row| row.name.contains(name.as_str()));
            groups = vec![(name.clone(), rows.collect())];
        }
    }
    groups.retain(|(_, rows)| !rows.is_empty());
    if groups.is_empty() {
        bail!("no instructions called {:?}", args.class.as_deref().unwrap_or(""));
    }
    let jobs = args.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let queue = Mutex::new(groups.iter());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let totals: Vec<anyhow::Result<usize>> = thread::scope(|scope| {
        let worker = || -> anyhow::Result<usize> {
            let engine = Engine::new(args.tier)?;
            let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
            let job = Job { engine: &engine, folder: folder.path(), features };
            let mut total = 0;
            while let Some((name, rows)) = take() {
                total += class(&job, args, name, rows, seed)?;
            }
            Ok(total)
        };
        let workers: Vec<_> = (0..jobs.clamp(1, groups.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("its panic has been printed")).collect()
    });
    let total = totals.into_iter().sum::<anyhow::Result<usize>>()?;
    println!("{} classes, {total} differences", groups.len());
    Ok(total)
}

fn class(job: &Job<'_>, args: &Args, name: &str, rows: &[&'static Row], seed: u64) -> anyhow::Result<usize> {
    let start = Instant::now();
    let (mut done, mut executed, mut different, mut shown) = (0, 0, 0, 0);
    let mut batch_seed = seed;
    let is_time_over = || start.elapsed() >= Duration::from_secs(args.seconds);
    while done < args.cases && executed < args.instructions && !is_time_over() {
        let mut random = Random::new(batch_seed);
        let count = args.batch.min(usize::try_from(args.cases - done).unwrap_or(args.batch));
        let (cases, dropped) = make(job, args.inputs, rows, count, &mut random)?;
        let bad = differences(job, &cases)?;
        different += bad.len();
        for &index in bad.iter().take(args.show - shown) {
            print_difference(job, name, batch_seed, &cases[index])?;
            shown += 1;
        }
        done += (count - dropped.cases) as u64;
        executed += cases.iter().map(|case| case.words.len() as u64).sum::<u64>() - dropped.instructions;
        batch_seed = batch_seed.wrapping_add(1);
        if shown >= args.show {
            println!("{name}: gave up after {shown} printed differences");
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name}: {done} cases of {} kinds, {executed} instructions, {different} differences, {:.0} cases/s (seed {seed})",
        rows.len(),
        done as f64 / seconds
    );
    Ok(different)
}

/// Cases that do nothing, because they have no usable address.
#[derive(Default)]
struct Dropped {
    cases: usize,
    instructions: u64,
}

/// Random cases, and which of them were dropped.
fn make(
    job: &Job<'_>,
    inputs: usize,
    rows: &[&'static Row],
    count: usize,
    random: &mut Random,
) -> anyhow::Result<(Vec<Case>, Dropped)> {
    const LENGTHS: [usize; 4] = [1, 1, 4, 16];
    let mut cases = Vec::with_capacity(count);
    let mut probes = Vec::new();
    while cases.len() < count {
        let (words, need) = generate::code(rows, LENGTHS[random.below(4)], random, job.features);
        let group = cases.len();
        for _ in 0..inputs.clamp(1, count - group) {
            if let Need::Base(base) = need {
                probes.push((cases.len(), base));
            }
            cases.push(generate::case(&words, group, need, random));
        }
    }
    if probes.is_empty() {
        return Ok((cases, Dropped::default()));
    }
    // First with an unmapped base: the fault tells what the instruction adds.
    for &(index, base) in &probes {
        generate::set_base(&mut cases[index], base, UNMAPPED);
    }
    job.engine.clear_faults(cases.len())?;
    run_engine(job, &cases)?;
    let layout = layout_of(&cases);
    let mut useless = Vec::new();
    for &(index, base) in &probes {
        let fault = job.engine.fault(index, cases.len())?;
        let offset = fault.map(|fault| fault.far.wrapping_sub(UNMAPPED));
        // 64-byte alignment suits pairs, exclusives and DC ZVA; ordinary accesses also get odd addresses.
        let mut target = layout.scratch(index) + 64 * (1 + random.below(SCRATCH / 64 - 3) as u64);
        let row = cpu::insn::op_of(cases[index].words[0], job.features).row().context("a row")?;
        if base != 31 && matches!(row.memory, Memory::Load | Memory::Store) && !row.name.contains("ld1") {
            target += if row.ordered { 0 } else { random.below(64) as u64 };
        }
        match offset {
            Some(offset) if base != 31 || offset.is_multiple_of(16) => {
                generate::set_base(&mut cases[index], base, target.wrapping_sub(offset));
            }
            _ => useless.push(cases[index].group),
        }
    }
    // Their whole group keeps its place and does nothing.
    let mut dropped = Dropped::default();
    for case in &mut cases {
        if useless.binary_search(&case.group).is_ok() {
            case.words.fill(0xd503_201f);
            dropped.cases += 1;
            dropped.instructions += case.words.len() as u64;
        }
    }
    Ok((cases, dropped))
}

fn layout_of(cases: &[Case]) -> Layout {
    Layout::new(cases)
}

fn run_engine(job: &Job<'_>, cases: &[Case]) -> anyhow::Result<Vec<u8>> {
    let layout = layout_of(cases);
    job.engine.run(&layout.image(cases, FAULTS), layout.end(), layout.dump())
}

/// The cases whose results differ.
fn differences(job: &Job<'_>, cases: &[Case]) -> anyhow::Result<Vec<usize>> {
    let layout = layout_of(cases);
    let image = layout.image(cases, FAULTS);
    job.engine.clear_faults(cases.len())?;
    let ours = job.engine.run(&image, layout.end(), layout.dump())?;
    let (_, dump_bytes) = layout.dump();
    let memory = layout.end() - machine_code::IMAGE_BASE;
    let Some(theirs) = qemu::run(job.folder, &image, memory, dump_bytes)? else {
        // A case killed the program: find it by halves.
        if cases.len() == 1 {
            return Ok(vec![0]);
        }
        let (left, right) = cases.split_at(cases.len() / 2);
        let mut bad = Vec::new();
        for (part, first) in [(left, 0), (right, left.len())] {
            // Addresses move with the layout: cases that depend on them cannot be taken out.
            bad.extend(differences(job, part)?.into_iter().map(|i| i + first));
            if bad.len() > 8 {
                break;
            }
        }
        return Ok(bad);
    };
    let mut bad = Vec::new();
    for index in 0..cases.len() {
        let faulted = job.engine.fault(index, cases.len())?.is_some();
        if faulted || layout.result(&ours, index) != layout.result(&theirs, index) {
            bad.push(index);
        }
    }
    Ok(bad)
}

/// Replaces instructions by NOPs as long as the difference stays.
fn shrink(job: &Job<'_>, case: &Case) -> anyhow::Result<Case> {
    const NOP: u32 = 0xd503_201f;
    let mut small = case.clone();
    for i in 0..small.words.len() {
        let word = std::mem::replace(&mut small.words[i], NOP);
        if word != NOP && differences(job, std::slice::from_ref(&small))?.is_empty() {
            small.words[i] = word;
        }
    }
    Ok(small)
}

fn print_difference(job: &Job<'_>, name: &str, seed: u64, case: &Case) -> anyhow::Result<()> {
    let alone = std::slice::from_ref(case);
    let repeats = !differences(job, alone)?.is_empty();
    let case = if repeats { shrink(job, case)? } else { case.clone() };
    let alone = std::slice::from_ref(&case);
    let layout = layout_of(alone);
    println!("{name}: difference, seed {seed}{}", if repeats { "" } else { " (only within its batch)" });
    for (i, &word) in case.words.iter().enumerate() {
        if word != 0xd503_201f {
            let text = disassemble(word, layout.code(0) + 4 * i as u64, job.features);
            println!("  {word:08x}  {text}");
        }
    }
    println!("  nzcv {:#x} fpcr {:#x} fpsr {:#x} sp {:#x}", case.nzcv, case.fpcr, case.fpsr, case.sp);
    for &word in &case.words {
        let Some(row) = cpu::insn::op_of(word, job.features).row() else { continue };
        for register in row.registers {
            let Some(field) = register.field else { continue };
            let field = &row.fields[field];
            let n = field.of(word) as usize;
            if register.role.is_vector() {
                println!("  in  v{n} = {:#034x}", case.v[n % 32]);
            } else {
                println!("  in  x{n} = {:#x}", case.x.get(n).copied().unwrap_or(case.sp));
            }
        }
    }
    job.engine.clear_faults(1)?;
    let image = layout.image(alone, FAULTS);
    let ours = job.engine.run(&image, layout.end(), layout.dump())?;
    if let Some(fault) = job.engine.fault(0, 1)? {
        println!("  ours took an exception: {fault:x?}");
        return Ok(());
    }
    let (_, dump_bytes) = layout.dump();
    let memory = layout.end() - machine_code::IMAGE_BASE;
    let Some(theirs) = qemu::run(job.folder, &image, memory, dump_bytes)? else {
        println!("  theirs died of a signal");
        return Ok(());
    };
    let (ours, theirs) = (layout.result(&ours, 0), layout.result(&theirs, 0));
    let mut at = 0;
    let mut printed = 0;
    while let Some(offset) = (at..ours.len()).find(|&i| ours[i] != theirs[i]) {
        let (start, len) = span_of(offset);
        let hex = |bytes: &[u8]| bytes.iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
        println!(
            "  {:10} ours {} theirs {}",
            name_of(offset),
            hex(&ours[start..start + len]),
            hex(&theirs[start..start + len])
        );
        at = start + len;
        printed += 1;
        if printed == 6 {
            break;
        }
    }
    Ok(())
}
