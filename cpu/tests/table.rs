//! The build script's parser and what it makes of attributes, on rows that are not in the table.

#[path = "../build/table.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod table;
#[path = "../build/tiers.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod tiers;

use table::{Operand, Row, TIERS, parse};

const PATTERN: &str = "11 111 0 01 01 imm12:12 rn:5 rt:5";

/// A row called `load_64` with these operands and attributes.
fn row(operands: &str, attributes: &str) -> Result<Row, String> {
    let text = format!(
        "class c\nmodule memory\nload_64 ; {PATTERN} ; fallible:load::<U64> ; {operands} ; {attributes} ;"
    );
    parse("memory", &text).map(|mut rows| rows.remove(0))
}

#[test]
fn row_with_an_emitter_is_given_to_its_tier_and_others_are_called() {
    let rows = [row("", "t1").unwrap(), row("", "t1=load::<U64> t2").unwrap(), row("", "").unwrap()];
    assert_eq!(TIERS, ["t1", "t2"]);
    for (row, arms) in rows.iter().zip([
        ["Op::Load64 => emit!(memory::load_64),\n", ""],
        ["Op::Load64 => emit!(memory::load::<U64>),\n", "Op::Load64 => emit!(memory::load_64),\n"],
        ["", ""],
    ]) {
        for (tier, arm) in arms.into_iter().enumerate() {
            let text = tiers::emitters(std::slice::from_ref(row), tier);
            assert_eq!(text, format!("match op {{\n{arm}_ => call!(),\n}}\n"));
        }
    }
}

#[test]
fn access_is_read_from_its_two_attributes() {
    let access = row("", "addr=post mem=load:S8w").unwrap().access.unwrap();
    assert_eq!((access.element.as_str(), access.addressing.as_str()), ("S8w", "post"));
    let row = row("", "mem=load").unwrap();
    assert!(row.access.is_none());
    assert_eq!(row.memory, "load");
}

#[test]
fn access_that_is_not_whole_or_not_known_is_refused() {
    for attributes in [
        "mem=load:U64",
        "addr=post",
        "mem=load addr=post",
        "mem=atomic:U64 addr=post",
        "mem=load:U65 addr=post",
        "mem=load:U64 addr=sideways",
        "mem=lode:U64 addr=post",
    ] {
        assert!(row("", attributes).is_err(), "{attributes}");
    }
}

#[test]
fn register_operand_covers_as_many_registers_as_it_says() {
    let row_of = |operands| row(operands, "").map(|row| row.operands[0].1.clone());
    for (operands, expected) in [("rd=vw(rt)", 1), ("rd=vw(rt)*4", 4)] {
        let Ok(Operand::Register { role, expr, count }) = row_of(operands) else { panic!("{operands}") };
        assert_eq!((role.as_str(), expr.as_str(), count), ("vw", "rt", expected));
    }
    assert!(matches!(row_of("imm=(imm12 << 3)"), Ok(Operand::Value(_))));
    assert!(row_of("rd=vw(rt)*many").is_err());
}
