//! `docs/control-reference.md`, from the tables that requests are read by. `cargo xtask docs` writes it, `cargo xtask check` compares it.

use std::fmt::Write;

use super::methods::{Field, METHODS, Method, NOTIFICATIONS};
use super::protocol::{Code, VERSION};

/// The document.
#[must_use]
pub fn document() -> String {
    let mut text = format!(
        "# Control socket: reference\n\nGenerated from `vmm/src/control` by `cargo xtask docs`. [control.md](control.md) explains it.\n\n\
         Protocol version {VERSION}. Parameters that are not optional have to be given; others than these are refused. An empty \
         result is `{{}}`.\n\n## Methods\n"
    );
    for method in METHODS {
        put_method(&mut text, method);
    }
    text += "\n## Notifications\n";
    for notification in NOTIFICATIONS {
        put(&mut text, format_args!("\n### `{}`\n\n{}\n", notification.name, notification.about));
        put_fields(&mut text, "Parameter", notification.params);
    }
    text += "\n## Errors\n\n| Code | When |\n|---|---|\n";
    for code in Code::ALL {
        put(&mut text, format_args!("| {} | {} |\n", *code as i64, code.about()));
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}

fn put_method(text: &mut String, method: &Method) {
    let Method { name, about, ctl, params, result, .. } = method;
    put(text, format_args!("\n### `{name}`\n\n{about}\n\n`warpvmm ctl PATH {ctl}`\n"));
    put_fields(text, "Parameter", params);
    put_fields(text, "Result", result);
}

fn put_fields(text: &mut String, heading: &str, fields: &[Field]) {
    if fields.is_empty() {
        return;
    }
    put(text, format_args!("\n| {heading} | Type | What |\n|---|---|---|\n"));
    for Field { name, kind, about } in fields {
        // A bar ends a cell.
        let about = about.trim().replace('|', "\\|");
        put(text, format_args!("| `{name}` | {kind} | {about} |\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_every_method_once_with_its_parameters() {
        let text = document();
        for method in METHODS {
            assert_eq!(text.matches(&format!("### `{}`\n\n{}", method.name, method.about)).count(), 1);
            assert!(
                method
                    .params
                    .iter()
                    .all(|field| text.contains(&format!("| `{}` | {}", field.name, field.kind)))
            );
        }
        assert!(Code::ALL.iter().all(|code| text.contains(&format!(
            "| {} | {}",
            *code as i64,
            code.about()
        ))));
        let spaces = text.lines().filter(|line| line.contains("  ") || line.ends_with(' '));
        assert_eq!(spaces.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
