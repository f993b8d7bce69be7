//! The test programs that cargo has built: where they are, for those who run them in another way than cargo does.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// The target that it tests, as its package calls it.
    pub(crate) name: String,
    /// Whether it has a library's unit tests.
    pub(crate) is_library: bool,
    pub(crate) path: PathBuf,
}

/// Builds test programs and tells where they are. `cargo` has the options `--no-run` and `--message-format=json`.
///
/// # Errors
/// If something cannot be compiled, or if there is no test program.
pub(crate) fn build(cargo: &mut Command) -> Result<Vec<TestProgram>> {
    let programs = named_in(&process::output(cargo)?);
    if programs.is_empty() {
        bail!("cargo has built no test program");
    }
    Ok(programs)
}

/// The test programs in cargo's messages.
fn named_in(messages: &str) -> Vec<TestProgram> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true)
        .filter_map(|message| {
            let kinds = message["target"]["kind"].as_array()?;
            Some(TestProgram {
                name: message["target"]["name"].as_str()?.to_owned(),
                is_library: kinds.iter().any(|kind| kind == "lib"),
                path: PathBuf::from(message["executable"].as_str()?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"e2e","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"boot","kind":["test"]},"profile":{"test":true},"executable":"/t/boot-12"}
{"reason":"build-finished","success":true}
"#;

        let boot =
            TestProgram { name: "boot".to_owned(), is_library: false, path: PathBuf::from("/t/boot-12") };
        assert_eq!(named_in(messages), [boot]);
    }
}
