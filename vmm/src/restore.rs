//! `warpvmm restore`: a saved machine goes on. `docs/save-files.md`

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cli::{MachineArgs, RestoreArgs};
use crate::exit::{Failed, Status};
use crate::host::disk::FileDisk;
use crate::run::{Launch, launch};
use crate::save::SaveFile;
use crate::save::state::SavedDrive;

/// Runs the subcommand.
///
/// # Errors
/// A line for the user.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<Status> {
    let file = SaveFile::open(&args.file)?;
    let saved = file.saved();
    let drives = drives(&saved.drives, &args.drive)?;
    let options = &saved.options;
    let machine = MachineArgs {
        cpus: options.cpus,
        memory: options.memory_bytes,
        numa: options.numa,
        engine: options.engine,
        tier: options.tier,
        perf_map: false,
        symbols: None,
        process: args.process.clone(),
        faults: None,
        fault: Vec::new(),
        strict: args.strict,
    };
    launch(Launch {
        kernel: Default::default(),
        initrd: None,
        append: String::new(),
        machine,
        session: &args.session,
        accels: options.accels.clone(),
        devices: options.devices.clone(),
        drives,
        restored: Some(file),
    })
}

/// Opens the drives: each has to be as it was, or to be named anew.
fn drives(saved: &[SavedDrive], instead: &[String]) -> Result<Vec<Arc<FileDisk>>, Failed> {
    let mut others = BTreeMap::new();
    for text in instead {
        let (number, spec) = text
            .split_once('=')
            .and_then(|(number, spec)| Some((number.parse::<usize>().ok()?, spec)))
            .filter(|(number, _)| *number < saved.len())
            .ok_or_else(|| {
                let message = format!(
                    "--drive {text:?}: the machine has {} drives; write N=FILE, N from 0",
                    saved.len()
                );
                Failed::with_status(Status::Usage, message)
            })?;
        others.insert(number, spec);
    }
    let mut drives: Vec<Arc<FileDisk>> = Vec::new();
    for (number, was) in saved.iter().enumerate() {
        let instead = others.get(&number).copied();
        let hint = format!("--drive {number}=FILE names another file for it, or this one as it is");
        if instead.is_none() && was.file.path.is_none() {
            return Err(Failed::new(format!(
                "the name of drive {number} is not UTF-8 and was not saved; {hint}"
            )));
        }
        let drive = FileDisk::open_saved(was, instead, &drives).map_err(|e| {
            Failed::new(format!(
                "drive {number} of the saved machine: {}; {hint}",
                crate::exit::line(&e.into())
            ))
        })?;
        let failed = |why: &str| {
            Failed::new(format!(
                "drive {number} {:?} is not what it was when the machine was saved: {why}; {hint}",
                drive.path()
            ))
        };
        let is = drive.save().map_err(|e| failed(&e.to_string()))?;
        let difference = was.file.difference(&is.file);
        // Who names a file says that it is the right one; a disk of another size is no disk of this guest.
        if let Some(why) = difference.filter(|_| instead.is_none() || is.file.bytes != was.file.bytes) {
            return Err(failed(&why));
        }
        drives.push(Arc::new(drive));
    }
    Ok(drives)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn saved(path: &Path) -> SavedDrive {
        FileDisk::open(path.to_str().unwrap()).unwrap().save().unwrap()
    }

    #[test]
    fn drive_is_the_one_of_the_save_or_is_named_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("disk"), folder.path().join("copy"));
        fs::write(&path, [1; 1024]).unwrap();
        fs::write(&copy, [2; 1024]).unwrap();
        let was = [saved(&path)];
        assert_eq!(drives(&was, &[]).unwrap()[0].path(), path);

        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let refused = drives(&was, &[]).unwrap_err().message;
        assert!(refused.contains("drive 0") && refused.contains("written to since"), "{refused}");
        assert!(refused.contains("--drive 0=FILE"), "{refused}");
        for named in [&path, &copy] {
            let instead = [format!("0={}", named.display())];
            assert_eq!(drives(&was, &instead).unwrap()[0].path(), named);
        }

        fs::write(&copy, [2; 2048]).unwrap();
        let refused = drives(&was, &[format!("0={}", copy.display())]).unwrap_err().message;
        assert!(refused.contains("2048 bytes now, and had 1024"), "{refused}");
        fs::remove_file(&path).unwrap();
        assert!(drives(&was, &[]).unwrap_err().message.contains("cannot open drive"));
        for wrong in ["1=x", "x", "a=b"] {
            assert_eq!(drives(&was, &[wrong.to_owned()]).unwrap_err().status, Status::Usage);
        }
    }
}
