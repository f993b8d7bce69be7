//! The build script's parser and what it makes of attributes, on rows that are not in the table.

#[path = "../build/table.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod table;
#[path = "../build/tiers.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod tiers;

use table::{Operand, Row, parse};

const PATTERN: &str = "11 111 0 01 01 imm12:12 rn:5 rt:5";

/// A row called `load_64` behind these directives, with these operands and attributes.
fn row_behind(directives: &str, operands: &str, attributes: &str) -> Result<Row, String> {
    let text = format!(
        "class c\nmodule memory\n{directives}load_64 ; {PATTERN} ; fallible:load_offset::<U64> ; {operands} ; {attributes} ;"
    );
    parse("memory", &text).map(|mut rows| rows.remove(0))
}

fn row(operands: &str, attributes: &str) -> Result<Row, String> {
    row_behind("", operands, attributes)
}

#[test]
fn row_with_an_emitter_is_given_to_it_and_others_are_called() {
    let access = "mem=load:U64 addr=offset";
    for (directives, operands, attributes, arm) in [
        ("", "", "", ""),
        ("emit on\nemit off\n", "", "", ""),
        ("emit on\n", "", "", "Op::Load64 => emit!(memory::load_offset::<U64>),\n"),
        ("emit on\n", "", access, "Op::Load64 => emit!(memory::load),\n"),
        ("emit on\n", "ra=w(rt)", access, "Op::Load64 => emit!(memory::load_pair),\n"),
        ("fp on\nemit on\n", "", access, "Op::Load64 => emit!(memory::vector_load),\n"),
    ] {
        let row = row_behind(directives, operands, attributes).unwrap();
        assert_eq!(tiers::emitters(&[row]), format!("match op {{\n{arm}_ => call!(),\n}}\n"));
    }
    assert!(row_behind("emit maybe\n", "", "").is_err());
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
