//! The modules of the crate depend on one another in one direction: the order of the table in `lib.rs`.

use std::fs;
use std::path::Path;

/// A module, and its text without tests.
struct Module {
    name: String,
    text: String,
}

fn sources() -> impl AsRef<Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules of the table, in its order.
fn modules() -> Vec<Module> {
    let folder = sources();
    let table = fs::read_to_string(folder.as_ref().join("lib.rs")).unwrap();
    let names = table.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("//! | ")?.split_once('`')?.1.split_once('`')?;
        Some(name.to_owned())
    });
    let read = |name: String| {
        let file = match name.as_str() {
            "spec" => return Module { name, text: String::new() },
            _ => folder.as_ref().join(format!("{name}.rs")),
        };
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        Module { name, text }
    };
    names.map(read).collect()
}

/// What follows each `prefix` in a text, up to the first character that no name has.
fn names_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// The blocks that implement something for the SMMU itself.
fn blocks_of_smmu(text: &str) -> impl Iterator<Item = &str> {
    text.split("\nimpl ").skip(1).filter_map(|block| {
        let (head, _) = block.split_once('{')?;
        (head.trim() == "Smmu" || head.trim().ends_with(" for Smmu"))
            .then(|| block.split("\n}").next())
            .flatten()
    })
}

#[test]
fn every_file_is_in_the_table() {
    let modules = modules();
    for entry in fs::read_dir(sources()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(
            matches!(name, "lib" | "tests") || modules.iter().any(|module| module.name == name),
            "{name}"
        );
    }
}

#[test]
fn module_uses_only_modules_above_it_in_the_table() {
    let modules = modules();
    for (at, Module { name, text }) in modules.iter().enumerate() {
        for used in names_after(text, "crate::") {
            assert!(modules[..at].iter().any(|above| above.name == used), "{name} uses {used}");
        }
    }
}

#[test]
fn method_of_the_smmu_calls_only_those_of_its_module_and_above() {
    let modules = modules();
    let methods_of = |module: &Module| -> Vec<String> {
        blocks_of_smmu(&module.text).flat_map(|block| names_after(block, "fn ")).map(str::to_owned).collect()
    };
    for (at, Module { name, text }) in modules.iter().enumerate() {
        let below: Vec<String> = modules[at + 1..].iter().flat_map(methods_of).collect();
        for called in blocks_of_smmu(text).flat_map(|block| names_after(block, "self.")) {
            assert!(!below.iter().any(|method| method == called), "{name} calls {called}");
        }
    }
}
