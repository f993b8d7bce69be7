//! What a thread may still do by the names of files, by TCP, and to other processes: Landlock's rules.
//!
//! Everything that is read or written was opened before. What is left are names: a job's output gets its name when it
//! is complete, in a folder that the user has given.

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use super::{Folders, SandboxError};

/// The newest version of Landlock whose rights are handled here. On older kernels there are fewer.
const NEWEST: ABI = ABI::V7;

/// Keeps the calling thread, and those that it starts from now on, from signalling other processes and from connecting to
/// the abstract sockets of others.
///
/// All threads have this from one domain. Were it part of each thread's own, Linux 6.12 to 6.14 would refuse signals between
/// them too, with which vCPUs are kicked.
pub(super) fn leave_other_processes() -> Result<(), SandboxError> {
    let failed = |e: landlock::RulesetError| SandboxError::Files(e.to_string());
    let rules =
        Ruleset::default().scope(Scope::from_all(NEWEST)).and_then(Ruleset::create).map_err(failed)?;
    let status = rules.restrict_self().map_err(failed)?.ruleset;
    if status == RulesetStatus::NotEnforced {
        log::info!("sandbox: no scopes in this kernel's Landlock, only filters of system calls");
    }
    Ok(())
}

/// Takes every right from the calling thread but those to make files, put them in place and remove names in `folders`. Says how
/// much of that the kernel does.
pub(super) fn enter(folders: &Folders) -> Result<RulesetStatus, SandboxError> {
    let failed = |e: landlock::RulesetError| SandboxError::Files(e.to_string());
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let outputs = folders.outputs.iter().map(|folder| (folder, AccessFs::MakeReg | AccessFs::RemoveFile));
    let removals = folders.removals.iter().map(|folder| (folder, AccessFs::RemoveFile.into()));
    // To open what it makes there; that it opens nothing else is a matter of the filters.
    let making = AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate;
    let saves = folders.saves.iter().map(|folder| (folder, making));
    for (folder, rights) in outputs.chain(removals).chain(saves) {
        let folder = PathFd::new(folder).map_err(|e| SandboxError::Files(e.to_string()))?;
        let names = PathBeneath::new(folder, rights);
        rules = rules.add_rule(names).map_err(failed)?;
    }
    Ok(rules.restrict_self().map_err(failed)?.ruleset)
}
