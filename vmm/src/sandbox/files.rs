//! What a thread may still do by the names of files, and by TCP: Landlock's rules.
//!
//! Everything that is read or written was opened before. What is left are names: a job's output gets its name when it
//! is complete, in a folder that the user has given.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};

use super::SandboxError;

/// The newest version of Landlock whose rights are handled here. On older kernels there are fewer.
const NEWEST: ABI = ABI::V7;

/// Takes every right from the calling thread but that to put files in place in `folders`. Says how much of that the
/// kernel does.
pub(super) fn enter(folders: &[PathBuf]) -> Result<RulesetStatus, SandboxError> {
    let failed = |e: landlock::RulesetError| SandboxError::Files(e.to_string());
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for folder in folders {
        let folder = PathFd::new(folder).map_err(|e| SandboxError::Files(e.to_string()))?;
        let names = PathBeneath::new(folder, AccessFs::MakeReg | AccessFs::RemoveFile);
        rules = rules.add_rule(names).map_err(failed)?;
    }
    Ok(rules.restrict_self().map_err(failed)?.ruleset)
}
