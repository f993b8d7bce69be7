//! The writer of the code that ties rows to functions: the interpreter's handlers and the translating tiers' emitters.
//!
//! The files are lists of macro calls: who includes one says what becomes of a row.

use std::fmt::Write;

use crate::table::Row;

/// `dispatch.rs`: the arms of the interpreter's loop, `KIND!(handler)` for each row that is in it, `call!()` for others.
pub(crate) fn dispatch(rows: &[Row]) -> String {
    let mut out = String::from("match op {\n");
    for row in rows.iter().filter(|row| row.is_in_loop()) {
        let _ = writeln!(out, "Op::{} => {}!(crate::exec::{}),", row.variant(), row.kind, row.handler);
    }
    out.push_str("Op::FallThrough => branch!(crate::exec::fall_through),\n_ => call!(),\n}\n");
    out
}

/// `handlers.rs`: `KIND!(handler)` for each operation, in their order.
pub(crate) fn handlers(rows: &[Row]) -> String {
    let mut out = String::from("[\n");
    for row in rows {
        let _ = writeln!(out, "{}!(crate::exec::{}),", row.kind, row.handler);
    }
    out.push_str(
        "fallible!(crate::exec::undefined),\nfallible!(crate::exec::fp_trapped),\nbranch!(crate::exec::fall_through),\n]\n",
    );
    out
}

/// `emitters.rs`: `emit!(emitter)` for each row that has one, `call!()` for others.
pub(crate) fn emitters(rows: &[Row]) -> String {
    let mut out = String::from("match op {\n");
    for row in rows {
        if let Some(path) = &row.emitter {
            let _ = writeln!(out, "Op::{} => emit!({path}),", row.variant());
        }
    }
    out.push_str("_ => call!(),\n}\n");
    out
}
