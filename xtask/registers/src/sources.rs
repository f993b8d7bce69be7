//! What the sources say of a register: whether the model names it, and which tests do.
//!
//! Text, not syntax: a test is a function below `#[test]` up to the closing brace at its own indentation, as `rustfmt`
//! leaves it; in C it is a `CHECK` up to the closing brace at the start of a line. A test shows a register if it names it: by the declared name, or by the constant that the tests have for its
//! offset.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One test function.
pub(crate) struct Test {
    pub(crate) name: String,
    /// Name of its file, without `.rs`; of its folder for `mod.rs` and `tests.rs`.
    pub(crate) module: String,
    /// A check of a bare-metal program.
    pub(crate) is_firmware: bool,
    pub(crate) body: String,
}

/// The Rust and C files at a path: itself, or all below it, in order.
pub(crate) fn source_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", path.display()))?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs" || extension == "c") {
            files.extend(source_files(&path)?);
        }
    }
    files.sort();
    Ok(files)
}

/// The contents of all files at these paths.
pub(crate) fn read(root: &Path, paths: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        for file in source_files(&root.join(path))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            texts.push((file, text));
        }
    }
    Ok(texts)
}

/// A file without what is below its first `#[cfg(test)] mod tests {`.
pub(crate) fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

/// A file with the map's own name where it uses one of its choice: `use ...MapReg as Reg` and then `Reg::NAME`.
pub(crate) fn spelled_out(text: &str, map: &str) -> String {
    let renamed = text
        .split_once(&format!("{map} as "))
        .map(|(_, rest)| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
    match renamed {
        Some(name) => text.replace(&format!(" {name}::"), &format!(" {map}::")),
        None => text.to_owned(),
    }
}

fn module(file: &Path) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let own = stem(file);
    if own == "mod" || own == "tests" { file.parent().map_or(own, stem) } else { own }
}

/// All tests in a file.
pub(crate) fn tests(file: &Path, text: &str) -> Vec<Test> {
    let lines: Vec<&str> = text.lines().collect();
    let mut tests = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix("CHECK(").and_then(|rest| rest.strip_suffix(')')) {
            let body: Vec<&str> = lines[at..].iter().copied().take_while(|l| *l != "}").collect();
            let name = name.to_owned();
            tests.push(Test { name, module: module(file), is_firmware: true, body: body.join("\n") });
        }
        // Property tests have the attribute inside `proptest!`; a further attribute may follow.
        if line.trim() != "#[test]" {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some(start) = lines[at..].iter().position(|l| l.trim_start().starts_with("fn ")) else {
            continue;
        };
        let declaration = lines[at + start].trim_start();
        let name: String = declaration[3..].chars().take_while(|c| *c != '(' && *c != '<').collect();
        let end = format!("{indent}}}");
        let body: Vec<&str> = lines[at + start..].iter().copied().take_while(|l| *l != end).collect();
        tests.push(Test { name, module: module(file), is_firmware: false, body: body.join("\n") });
    }
    tests
}

/// Constants of a file that are registers' offsets, with the registers: `const NAME: u64 = Map::REGISTER.offset();`.
pub(crate) fn offsets(text: &str) -> Vec<(String, String)> {
    let constant = |line: &str| {
        let (left, right) = line.trim().strip_suffix(".offset();")?.split_once(": u64 = ")?;
        Some((left.rsplit(' ').next()?.to_owned(), right.to_owned()))
    };
    text.lines().filter_map(constant).collect()
}

/// Whether a text has a word, with no letter, digit or underscore on either side.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(joins)
            && !text[at + word.len()..].chars().next().is_some_and(joins)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
const CR0: u64 = SmmuReg::SMMU_CR0.offset();
pub(crate) const CR1: u64 = SmmuReg::SMMU_CR1.offset();
const SIZE: u64 = 0x28;
#[test]
fn first_test() {
    m.w32(CR0, 1);
}

mod inner {
    #[test]
    #[should_panic]
    fn second_test() {
        {
            CR0ACK
        }
    }
}
";

    #[test]
    fn tests_are_found_with_their_own_bodies() {
        let found = tests(Path::new("a/gic/mod.rs"), FILE);
        let names: Vec<&str> = found.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["first_test", "second_test"]);
        assert_eq!(found[0].module, "gic");
        assert!(has_word(&found[0].body, "CR0") && !has_word(&found[1].body, "CR0"));
        assert!(has_word(&found[1].body, "CR0ACK"));
    }

    #[test]
    fn checks_of_c_programs_are_tests() {
        let found = tests(Path::new("firmware/tests/stalls.c"), "CHECK(one)\n{\n    r32(CR0);\n}\n");
        assert_eq!((found[0].name.as_str(), found[0].module.as_str()), ("one", "stalls"));
        assert!(found[0].is_firmware && has_word(&found[0].body, "CR0"));
    }

    #[test]
    fn offset_constants_are_found_whatever_their_visibility() {
        let names = [("CR0", "SmmuReg::SMMU_CR0"), ("CR1", "SmmuReg::SMMU_CR1")];
        assert_eq!(offsets(FILE), names.map(|(name, register)| (name.to_owned(), register.to_owned())));
    }

    #[test]
    fn names_of_a_files_own_choice_are_spelled_out() {
        let text =
            "use regs::{Baser, ItsReg as Reg};\nmatch reg {\n    Reg::GITS_CTLR | Reg::GITS_IIDR => 0,\n}";
        let spelled = spelled_out(text, "ItsReg");
        assert!(has_word(&spelled, "ItsReg::GITS_CTLR") && has_word(&spelled, "ItsReg::GITS_IIDR"));
        assert_eq!(spelled_out(text, "OtherReg"), text);
    }

    #[test]
    fn file_ends_where_its_tests_begin() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n}"), "a\n");
        assert_eq!(without_tests("#[cfg(test)]\nmod tests;\nb"), "#[cfg(test)]\nmod tests;\nb");
    }
}
