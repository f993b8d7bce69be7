//! The writer of generated code.

use std::fmt::Write;

use crate::table::{ELEMENTS, FEATURES, Operand, Row};
use crate::tree::{FIRST_SHIFT, SECOND_BITS, SECOND_SHIFT, SPLIT, Tree};

/// `isa.rs`: operations, decoder, packing, disassembly, metadata.
pub(crate) fn isa(rows: &[Row], tree: &Tree) -> String {
    let mut out = String::new();
    operations(&mut out, rows);
    features(&mut out);
    classes(&mut out, rows);
    decoder(&mut out, rows, tree);
    packing(&mut out, rows);
    text(&mut out, rows);
    metadata(&mut out, rows);
    descriptions(&mut out, rows);
    out
}

fn operations(out: &mut String, rows: &[Row]) {
    out.push_str(
        "/// What an instruction does: one variant per row of the table, and three of the engine's own.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(u16)]\n\
         #[allow(missing_docs, clippy::upper_case_acronyms)]\npub enum Op {\n",
    );
    for row in rows {
        let _ = writeln!(out, "{},", row.variant());
    }
    out.push_str("/// No instruction: takes the Undefined Instruction exception.\nUndefined,\n");
    out.push_str("/// A floating-point or SIMD instruction while CPACR_EL1 forbids them.\nFpTrapped,\n");
    out.push_str("/// The end of a block that does not end in a branch.\nFallThrough,\n}\n");
    let _ = writeln!(
        out,
        "/// Rows in the table: `Op`s with a lower number have one.\npub const ROW_COUNT: usize = {};",
        rows.len()
    );
}

fn features(out: &mut String) {
    out.push_str(
        "/// What an instruction needs to exist. `Base` is always there.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(u8)]\n#[allow(missing_docs)]\n\
         pub enum Feature {\n",
    );
    for name in FEATURES {
        let _ = writeln!(out, "{},", camel(name));
    }
    out.push_str("}\nimpl Feature {\n");
    names(out, "Feature", &FEATURES);
    out.push_str("}\n");
}

/// The method that gives a variant its name in the table.
fn names(out: &mut String, of: &str, names: &[&str]) {
    out.push_str(
        "/// The name in the table.\n#[must_use]\npub const fn name(self) -> &'static str { match self {\n",
    );
    for name in names {
        let _ = writeln!(out, "{of}::{} => {name:?},", camel(name));
    }
    out.push_str("} }\n");
}

fn classes(out: &mut String, rows: &[Row]) {
    let mut names: Vec<&str> = rows.iter().map(|r| r.class.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    out.push_str(
        "/// The groups in which test generators pick instructions.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[allow(missing_docs)]\npub enum Class {\n",
    );
    for name in &names {
        let _ = writeln!(out, "{},", camel(name));
    }
    out.push_str("}\nimpl Class {\n/// All classes.\npub const ALL: &'static [Class] = &[");
    for name in &names {
        let _ = write!(out, "Class::{}, ", camel(name));
    }
    out.push_str("];\n");
    self::names(out, "Class", &names);
    out.push_str("}\n");
}

fn decoder(out: &mut String, rows: &[Row], tree: &Tree) {
    let _ = writeln!(out, "static FIRST: [u32; {}] = {:?};", tree.first.len(), tree.first);
    let _ = writeln!(
        out,
        "static SECOND: [[u32; {}]; {}] = {:?};",
        1 << SECOND_BITS,
        tree.second.len(),
        tree.second
    );
    let _ = writeln!(out, "static ENTRIES: [Entry; {}] = [", tree.entries.len());
    for &i in &tree.entries {
        let row = &rows[i];
        let _ = writeln!(
            out,
            "Entry {{ mask: {:#x}, value: {:#x}, op: Op::{}, feature: Feature::{}, fp: {} }},",
            row.mask,
            row.value,
            row.variant(),
            camel(&row.feature),
            row.fp
        );
    }
    out.push_str("];\n");
    let _ = writeln!(
        out,
        "#[inline]\nfn candidates(word: u32) -> &'static [Entry] {{\n\
         let mut slot = FIRST[(word >> {FIRST_SHIFT}) as usize];\n\
         if slot & {SPLIT:#x} != 0 {{ slot = SECOND[(slot & !{SPLIT:#x}) as usize][(word >> {SECOND_SHIFT}) as usize & {}]; }}\n\
         let start = (slot >> 8) as usize;\n&ENTRIES[start..start + (slot & 0xff) as usize]\n}}",
        (1 << SECOND_BITS) - 1
    );
    out.push_str(
        "/// Whether the row's own conditions call this word UNDEFINED.\n#[allow(unused_parens, non_snake_case, clippy::all, reason = \"generated from the table\")]\n\
         fn is_undefined(op: Op, word: u32) -> bool {\nmatch op {\n",
    );
    for row in rows.iter().filter(|r| !r.undefined.is_empty()) {
        let expr = any(&row.undefined);
        let _ = writeln!(out, "Op::{} => {{ {} {expr} }}", row.variant(), lets(row, &expr));
    }
    out.push_str("_ => false,\n}\n}\n");
    out.push_str(
        "/// Whether the architecture leaves the result of this word open, so that two implementations may differ.\n\
         #[allow(unused_parens, non_snake_case, clippy::all, reason = \"generated from the table\")]\nfn is_unpredictable(op: Op, word: u32) -> bool {\nmatch op {\n",
    );
    for row in rows.iter().filter(|r| !r.unpredictable.is_empty()) {
        let expr = any(&row.unpredictable);
        let _ = writeln!(out, "Op::{} => {{ {} {expr} }}", row.variant(), lets(row, &expr));
    }
    out.push_str("_ => false,\n}\n}\n");
}

fn packing(out: &mut String, rows: &[Row]) {
    out.push_str(
        "/// Fills the operand slots from the fields of `word`, which is at `pc`.\n\
         #[allow(unused_parens, unused_variables, non_snake_case, clippy::all, reason = \"generated from the table\")]\n\
         fn pack(op: Op, word: u32, pc: u64) -> Insn {\nlet mut i = Insn::new(op, word);\nmatch op {\n",
    );
    for row in rows.iter().filter(|r| !r.operands.is_empty()) {
        let mut body = String::new();
        for (slot, operand) in &row.operands {
            match operand {
                Operand::Register { role, expr, .. } => {
                    let _ = write!(body, "i.{slot} = role::{role}({expr}); ");
                }
                Operand::Value(expr) => {
                    // Register slots index the register file, so nothing but a register number may reach them.
                    let cast = match slot.as_str() {
                        "imm" => "as u64",
                        "a" | "b" => "as u8",
                        _ => "as u8 & 31",
                    };
                    let _ = write!(body, "i.{slot} = ({expr}) {cast}; ");
                }
            }
        }
        let _ = writeln!(out, "Op::{} => {{ {}{body}}}", row.variant(), lets(row, &body));
    }
    out.push_str("_ => {}\n}\ni\n}\n");
}

fn text(out: &mut String, rows: &[Row]) {
    out.push_str(
        "#[allow(unused_parens, unused_variables, non_snake_case, clippy::all, reason = \"generated from the table\")]\n\
         fn text(op: Op, word: u32, pc: u64) -> Option<String> {\nSome(match op {\n",
    );
    for row in rows {
        let Some(syntax) = &row.syntax else { continue };
        let (mut format, mut args) = (String::new(), String::new());
        let mut rest = syntax.as_str();
        while let Some(open) = rest.find('{') {
            format.push_str(&rest[..open]);
            let close = rest[open..].find('}').map_or(rest.len() - 1, |c| open + c);
            let _ = write!(args, ", {}", &rest[open + 1..close]);
            format.push_str("{}");
            rest = &rest[close + 1..];
        }
        format.push_str(rest);
        let _ =
            writeln!(out, "Op::{} => {{ {} format!({format:?}{args}) }}", row.variant(), lets(row, &args));
    }
    out.push_str("_ => return None,\n})\n}\n");
}

fn metadata(out: &mut String, rows: &[Row]) {
    let _ = writeln!(out, "/// The table, in the order of `Op`.\npub static ROWS: [Row; {}] = [", rows.len());
    for row in rows {
        let _ = write!(
            out,
            "Row {{ op: Op::{}, name: {:?}, mask: {:#x}, value: {:#x}, class: Class::{}, feature: Feature::{}, kind: Kind::{}, \
             memory: Memory::{}, access: {}, ordered: {}, fp: {}, reads_flags: {}, writes_flags: {}, ",
            row.variant(),
            row.name,
            row.mask,
            row.value,
            camel(&row.class),
            camel(&row.feature),
            camel(&row.kind),
            camel(&row.memory),
            access(row),
            row.ordered,
            row.fp,
            row.reads_flags,
            row.writes_flags
        );
        let _ = write!(out, "has_emitter: {}, ", row.emitter.is_some());
        out.push_str("fields: &[");
        for f in &row.fields {
            let _ = write!(out, "Field {{ name: {:?}, lsb: {}, width: {} }}, ", f.name, f.lsb, f.width);
        }
        out.push_str("], registers: &[");
        for (slot, operand) in &row.operands {
            if let Operand::Register { role, expr, count } = operand {
                let field = row.fields.iter().position(|f| f.name == *expr);
                let _ = write!(
                    out,
                    "Register {{ slot: Slot::{}, role: Role::{}, field: {field:?}, count: {count} }}, ",
                    camel(slot),
                    camel(role)
                );
            }
        }
        out.push_str("] },\n");
    }
    out.push_str("];\n");
}

fn access(row: &Row) -> String {
    let Some(access) = &row.access else { return "None".into() };
    let (bytes, extend) = ELEMENTS
        .iter()
        .find(|(name, ..)| *name == access.element)
        .map_or((0, ""), |(_, bytes, extend)| (*bytes, *extend));
    format!(
        "Some(Access {{ bytes: {bytes}, extend: Extend::{extend}, addressing: Addressing::{} }})",
        camel(&access.addressing)
    )
}

/// What only documents need: a table of its own, so that it is not in programs that do not read it.
fn descriptions(out: &mut String, rows: &[Row]) {
    let _ = writeln!(
        out,
        "/// What documents say of the rows, in the order of `Op`.\npub static DESCRIPTIONS: [Description; {}] = [",
        rows.len()
    );
    for row in rows {
        let _ = writeln!(
            out,
            "Description {{ pattern: {:?}, handler: {:?}, in_loop: {} }},",
            row.pattern,
            row.handler,
            row.is_in_loop()
        );
    }
    out.push_str("];\n");
}

/// `let` lines for the fields whose names occur in `code`.
fn lets(row: &Row, code: &str) -> String {
    let mut out = String::new();
    for f in &row.fields {
        let used = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == f.name);
        if used {
            let mask = ((1u64 << f.width) - 1) as u32;
            let _ = write!(out, "let {} = (word >> {}) & {mask:#x}; ", f.name, f.lsb);
        }
    }
    out
}

fn any(conditions: &[String]) -> String {
    conditions.iter().map(|c| format!("({c})")).collect::<Vec<_>>().join(" || ")
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
        })
        .collect()
}
