//! Which rows of the instruction table the comparison with `qemu-aarch64` covers.
//!
//! Beside the program so that `docs/instructions.md` says what the program does.

#![forbid(unsafe_code)]

use cpu::Features;
use cpu::insn::{Class, Kind, Row};

/// Whether random cases contain the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// In the cases of its class.
    Compared,
    /// It is not in the engine's features.
    NotOffered,
    /// It belongs to the system side or ends the program, and user mode shows neither.
    System,
}

/// Whether random cases of an engine with `features` contain `row`.
#[must_use]
pub fn coverage(row: &Row, features: Features) -> Coverage {
    if !features.has(row.feature) {
        Coverage::NotOffered
    } else if row.kind == Kind::System || matches!(row.class, Class::System | Class::Exception) {
        Coverage::System
    } else {
        Coverage::Compared
    }
}

#[cfg(test)]
mod tests {
    use cpu::insn::ROWS;

    use super::*;

    fn coverage_of(name: &str, features: Features) -> Coverage {
        coverage(ROWS.iter().find(|row| row.name == name).expect("a row"), features)
    }

    #[test]
    fn system_instructions_and_absent_ones_are_not_compared() {
        let features = Features::default();
        assert_eq!(coverage_of("ldr_64", features), Coverage::Compared);
        assert_eq!(coverage_of("ldadd_64", features), Coverage::Compared);
        assert_eq!(coverage_of("ldadd_64", Features::BASE), Coverage::NotOffered);
        assert_eq!(coverage_of("isb", features), Coverage::System);
        assert_eq!(coverage_of("svc", features), Coverage::System);
        assert_eq!(coverage_of("mrs", features), Coverage::System);
    }
}
