//! Reads the instruction table (`spec/*.isa`) and writes the code that follows from it: the operation enum, the
//! decoder, operand packing, dispatch, disassembly and the metadata for test generators. See `spec/README.md`.

#[path = "build/check.rs"]
mod check;
#[path = "build/emit.rs"]
mod emit;
#[path = "build/table.rs"]
mod table;
#[path = "build/tiers.rs"]
mod tiers;
#[path = "build/tree.rs"]
mod tree;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-changed=spec");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    if let Err(message) = generate() {
        println!("cargo::error={message}");
        process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    let mut files: Vec<PathBuf> = fs::read_dir("spec")
        .map_err(|e| format!("cannot read cpu/spec: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "isa"))
        .collect();
    files.sort();

    let mut rows = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        rows.extend(table::parse(stem, &text).map_err(|e| format!("{}:{e}", path.display()))?);
    }
    check::check(&rows)?;

    let out = env::var("OUT_DIR").map_err(|e| e.to_string())?;
    let write = |name: &str, text: String| {
        fs::write(Path::new(&out).join(name), text).map_err(|e| format!("cannot write {name}: {e}"))
    };
    write("isa.rs", emit::isa(&rows, &tree::build(&rows)))?;
    write("handlers.rs", tiers::handlers(&rows))?;
    write("dispatch.rs", tiers::dispatch(&rows))?;
    write("emitters.rs", tiers::emitters(&rows))
}
