//! From tables to the programs that the kernel runs before each system call (seccomp, in classic BPF).
//!
//! A program knows one answer for the calls in its table and one for all others; the kernel asks every program of a
//! thread, and the strictest answer counts. So there is one program that permits, and one for each error that is given
//! instead of an end.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_int;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::calls::{self, Descriptors, EngineCalls, Names, Permit};
use super::{SandboxError, Thread};

/// The programs of a thread, in the order in which it takes them: the one that permits is the last, because it does not
/// permit to take another.
#[derive(Clone, Debug)]
pub(super) struct Filter(Vec<BpfProgram>);

impl Filter {
    pub(super) fn new(
        thread: Thread,
        names: Names,
        descriptors: &Descriptors,
        engine: EngineCalls,
    ) -> Result<Self, SandboxError> {
        let refusal = |calls, errno: c_int| {
            program(&calls::fixed(calls), SeccompAction::Errno(errno as u32), SeccompAction::Allow)
        };
        let permits = calls::permits(thread, names, descriptors, engine);
        Ok(Self(vec![
            refusal(calls::NO_SUCH_ACCESS, libc::EACCES)?,
            refusal(calls::NO_SUCH_CALL, libc::ENOSYS)?,
            program(&permits, SeccompAction::Allow, SeccompAction::Trap)?,
        ]))
    }

    /// Puts the calling thread under the filter, for good, and without the way to new privileges.
    pub(super) fn enter(&self) -> Result<(), SandboxError> {
        for program in &self.0 {
            seccompiler::apply_filter(program).map_err(SandboxError::Filter)?;
        }
        Ok(())
    }
}

fn program(
    permits: &[Permit],
    in_table: SeccompAction,
    others: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let failed = |e: BackendError| SandboxError::Filter(e.into());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for permit in permits {
        let rules = rules.entry(permit.call.number).or_default();
        if !permit.is_free() {
            rules.push(rule(permit).map_err(failed)?);
        }
    }
    let arch = ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, others, in_table, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn rule(permit: &Permit) -> Result<SeccompRule, BackendError> {
    let conditions = permit.conditions().map(|arg| {
        let equal = SeccompCmpOp::MaskedEq(u64::from(arg.mask));
        SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, equal, u64::from(arg.value))
    });
    let bounds = permit.within.map(|(first, last)| {
        [(SeccompCmpOp::Ge, first), (SeccompCmpOp::Le, last)]
            .map(|(op, bound)| SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, u64::from(bound)))
    });
    SeccompRule::new(conditions.chain(bounds.into_iter().flatten()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ALL_NAMES: Names = Names { puts: true, removes: true, saves: true };

    /// More than a machine can have.
    fn many_descriptors() -> Descriptors {
        Descriptors {
            traces: vec![401],
            events: (10..14).collect(),
            inputs: (20..24).collect(),
            results: (30..34).collect(),
            logs: (40..44).collect(),
            maps: vec![45],
            drives: (60..100).collect(),
            boot: vec![46, 47],
            control: vec![48],
            gdb: vec![50],
            console: vec![13],
            wakes: vec![49, 51],
            saves: vec![(3, 9), (15, 19), (101, 400), (402, i32::MAX)],
        }
    }

    #[test]
    fn every_threads_tables_become_programs_that_the_kernel_takes_in_length() {
        for thread in Thread::ALL {
            for program in
                Filter::new(thread, ALL_NAMES, &many_descriptors(), EngineCalls::default()).unwrap().0
            {
                // BPF_MAXINSNS
                assert!(program.len() <= 4096);
            }
        }
    }

    #[test]
    fn call_without_conditions_is_in_no_table_a_second_time_with_some() {
        for thread in Thread::ALL {
            let permits = calls::permits(thread, ALL_NAMES, &many_descriptors(), EngineCalls::default());
            let free: BTreeSet<_> = permits.iter().filter(|p| p.is_free()).map(|p| p.call.number).collect();
            assert!(!permits.iter().any(|p| !p.is_free() && free.contains(&p.call.number)), "{thread:?}");
        }
    }
}
