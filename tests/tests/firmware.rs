//! Bare-metal programs: the SMMU, and a few rules of processors, as software sees them without an operating system.
//!
//! `firmware/README.md` tells what the programs are; each prints a line for each of its checks.

use std::path::PathBuf;

use e2e::{Run, firmware, repository, seconds};

fn sources() -> PathBuf {
    repository("firmware/tests")
}

/// The names of a program's checks, in order.
fn checks(program: &str) -> Vec<String> {
    let path = sources().join(program).with_extension("c");
    let text = std::fs::read_to_string(&path).expect("its source");
    let name = |line: &str| Some(line.strip_prefix("CHECK(")?.strip_suffix(')')?.to_owned());
    text.lines().filter_map(name).collect()
}

/// Boots a program and expects each of its checks to be there and to be ok, none skipped: the machine has every feature.
fn all_checks_pass(program: &str, machine: &[&str]) {
    let checks = checks(program);
    assert!(!checks.is_empty(), "{program} has checks");
    let mut run =
        Run::new(&["run", "--accel", "none", "--device", "dma-test,dma-test", "--timeout", &seconds(240)])
            .args(machine)
            .args(&["--kernel".as_ref(), firmware(program).as_os_str()])
            .finish()
            .expect_status(0)
            .expect_console_without("not ok");
    for (number, name) in (1..).zip(&checks) {
        run = run.expect_console(&format!("ok {number} {name}\n"));
    }
    run.expect_console(&format!("# {} checks, 0 failed\n", checks.len()));
}

/// The programs of the SMMU, which share a machine, and others with what their machine has besides.
macro_rules! programs {
    ($($smmu:ident),*; $($other:ident($($argument:literal),*)),*) => {
        const SMMU_PROGRAMS: &[&str] = &[$(stringify!($smmu)),*];
        const PROGRAMS: &[&str] = &[$(stringify!($smmu),)* $(stringify!($other)),*];
        $(
            #[test]
            fn $smmu() {
                all_checks_pass(stringify!($smmu), &[]);
            }
        )*
        $(
            #[test]
            fn $other() {
                all_checks_pass(stringify!($other), &[$($argument),*]);
            }
        )*
    };
}

programs! {
    registers, commands, streams, contexts, events, stalls, stage2, ats, pri;
    processors("--cpus", "66")
}

#[test]
fn no_program_is_forgotten() {
    let mut found: Vec<String> = std::fs::read_dir(sources())
        .expect("the sources")
        .map(|entry| {
            entry.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    found.sort();
    let mut listed = PROGRAMS.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}

/// The conformance list names every check of the SMMU, and none that does not exist.
#[test]
fn conformance_list_has_every_check() {
    let path = repository("docs/smmuv3-conformance.md");
    let list = std::fs::read_to_string(path).expect("the list");
    let mut named: Vec<&str> = list.split('`').filter(|word| word.contains("::")).collect();
    named.sort_unstable();
    named.dedup();
    let mut all: Vec<String> = SMMU_PROGRAMS
        .iter()
        .flat_map(|program| checks(program).into_iter().map(move |name| format!("{program}::{name}")))
        .collect();
    all.sort();
    assert_eq!(named, all);
}
