//! Running other programs: output captured, shown, or sent to a log with every line seen on the way.
//!
//! Every failure names the program and says how it ended; a failure with a log shows where it is and its last lines.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

const LAST_LINES: usize = 20;

/// The program's name, for messages.
fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("failed with exit status {code}"),
        None => format!("was ended: {status}"),
    }
}

/// Runs quietly and returns what the program wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let result = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !result.status.success() {
        // Some programs complain on standard output, `patch` among them.
        let messages = [&result.stdout[..], &result.stderr].concat();
        let messages = String::from_utf8_lossy(&messages);
        let last = messages.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
        bail!("{name} {}: {}", ended(result.status), last.trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs with the user's terminal.
pub(crate) fn visible(command: &mut Command) -> Result<()> {
    let name = name(command);
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} {}", ended(status));
    }
    Ok(())
}

/// Runs with standard output and error in a log file, and gives each line also to `see`.
pub(crate) fn logged(command: &mut Command, log: &Path, mut see: impl FnMut(&str)) -> Result<()> {
    let name = name(command);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot make a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    // The command still holds both ends for writing; the pipe only ends when the last one is closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read from the pipe")? > 0 {
        file.write_all(&line).with_context(|| format!("cannot write {}", log.display()))?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        see(text);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.to_owned());
        line.clear();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    if !status.success() {
        for line in &last {
            eprintln!("    {line}");
        }
        bail!("{name} {}; the whole log is {}", ended(status), log.display());
    }
    Ok(())
}

/// The program's path, if there is one of this name to run.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    // Package tools of the system are often not on an ordinary user's path.
    env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_failing_program_is_an_error_with_its_last_message() {
        let error =
            output(Command::new("sh").args(["-c", "echo first >&2; echo second >&2; exit 3"])).unwrap_err();

        assert_eq!(error.to_string(), "sh failed with exit status 3: second");
    }

    #[test]
    fn missing_program_is_named() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();

        assert_eq!(error.to_string(), "cannot run no-such-program-here");
    }

    #[test]
    fn logged_sees_both_streams_and_keeps_them() {
        let log = env::temp_dir().join(format!("xtask-logged-{}", std::process::id()));
        let mut seen = Vec::new();

        logged(Command::new("sh").args(["-c", "echo one; echo two >&2"]), &log, |line| {
            seen.push(line.to_owned())
        })
        .unwrap();
        let kept = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();

        seen.sort();
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(kept.lines().count(), 2);
    }
}
