//! What must hold between rows before anything is generated: names are unique, and no word has two meanings.

use crate::table::Row;

/// Refuses duplicate names and ambiguous overlaps. Two patterns may overlap only if one is a special case of the
/// other: the special case then wins.
pub(crate) fn check(rows: &[Row]) -> Result<(), String> {
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[..i] {
            if a.name == b.name || a.variant() == b.variant() {
                return Err(format!("{} and {} have the same name `{}`", place(a), place(b), a.name));
            }
            let overlap = (a.value ^ b.value) & a.mask & b.mask == 0;
            let a_in_b = a.mask & b.mask == b.mask && a.mask != b.mask;
            let b_in_a = a.mask & b.mask == a.mask && a.mask != b.mask;
            if overlap && !a_in_b && !b_in_a {
                return Err(format!(
                    "`{}` ({}) and `{}` ({}) overlap, and neither is a special case of the other",
                    a.name,
                    place(a),
                    b.name,
                    place(b)
                ));
            }
        }
    }
    Ok(())
}

fn place(row: &Row) -> String {
    format!("spec/{}.isa:{}", row.file, row.line)
}
