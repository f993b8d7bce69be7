//! `warpvmm ctl`: a client of the control socket for people and scripts.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::cli::{CtlArgs, CtlMethod};
use crate::exit::{Failed, Status};

/// Runs the subcommand.
///
/// # Errors
/// A line for the user.
pub fn ctl(args: &CtlArgs) -> anyhow::Result<Status> {
    let socket = UnixStream::connect(&args.socket)
        .map_err(|e| Failed::new(format!("cannot reach a machine at {:?}: {e}", args.socket)))?;
    let lost = |e: &dyn std::fmt::Display| Failed::new(format!("the connection is lost: {e}"));
    let request = request(&args.method);
    (&socket).write_all(request.as_bytes()).map_err(|e| lost(&e))?;
    let streams = matches!(args.method, CtlMethod::Counters { every: Some(_) });
    let mut out = io::stdout().lock();
    let mut is_answered = false;
    for line in BufReader::new(&socket).lines() {
        let line = line.map_err(|e| lost(&e))?;
        let mut message: Value = serde_json::from_str(&line)
            .map_err(|e| Failed::new(format!("the machine's answer is not JSON: {e}")))?;
        if let Some(why) = message.pointer("/error/message").and_then(Value::as_str) {
            return Err(Failed::new(why).into());
        }
        let is_answer = message.get("result").is_some();
        is_answered |= is_answer;
        let part = if is_answer { "result" } else { "params" };
        let body = message.get_mut(part).map(Value::take).unwrap_or_default();
        if !(is_answer && streams) {
            let text = if args.json { format!("{body}\n") } else { readable(&args.method, &body) };
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // Whoever has seen enough of a stream closes it.
                return if error.kind() == io::ErrorKind::BrokenPipe {
                    Ok(Status::Success)
                } else {
                    Err(Failed::new(format!("cannot write to standard output: {error}")).into())
                };
            }
        }
        if is_answer && !streams {
            return Ok(Status::Success);
        }
    }
    // A stream ends with its machine.
    if is_answered { Ok(Status::Success) } else { Err(lost(&"no answer has come").into()) }
}

fn request(method: &CtlMethod) -> String {
    let (name, params) = match method {
        CtlMethod::Status => ("status", json!({})),
        CtlMethod::Pause => ("pause", json!({})),
        CtlMethod::Resume => ("resume", json!({})),
        CtlMethod::Reset => ("reset", json!({})),
        CtlMethod::Quit => ("quit", json!({})),
        CtlMethod::Counters { every: None } => ("counters", json!({})),
        CtlMethod::Counters { every: Some(every) } => {
            ("counters", json!({ "every_ms": u64::try_from(every.as_millis()).unwrap_or(u64::MAX) }))
        }
        CtlMethod::Inspect { path } => ("inspect", json!({ "path": path })),
    };
    format!("{}\n", json!({ "jsonrpc": "2.0", "id": 1, "method": name, "params": params }))
}

/// Text for people: what is asked for, a line each, with its path.
fn readable(method: &CtlMethod, body: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", body, &mut lines);
    let width = lines.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let mut text: String = lines.iter().map(|(path, value)| format!("{path:width$}  {value}\n")).collect();
    if matches!(method, CtlMethod::Counters { every: Some(_) }) {
        text.push('\n');
    }
    text
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(&below(key), value, lines)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| flatten(&below(&n.to_string()), value, lines));
        }
        Value::String(text) => lines.push((path.to_owned(), text.clone())),
        Value::Null => lines.push((path.to_owned(), "none".to_owned())),
        other => lines.push((path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_answers_are_lines_with_paths_in_columns() {
        let body = json!({ "smmu": { "walks": 7, "events": {} }, "phase": "running", "list": [true, null] });
        let text = readable(&CtlMethod::Status, &body);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["list/0      true", "list/1      none", "phase       running", "smmu/walks  7"]);
    }

    #[test]
    fn every_method_makes_a_request_that_the_server_understands() {
        let every = Some(std::time::Duration::from_secs(1));
        for method in [
            CtlMethod::Status,
            CtlMethod::Pause,
            CtlMethod::Resume,
            CtlMethod::Reset,
            CtlMethod::Quit,
            CtlMethod::Counters { every: None },
            CtlMethod::Counters { every },
            CtlMethod::Inspect { path: "smmu".to_owned() },
        ] {
            let line = request(&method);
            assert!(crate::control::protocol::parse(line.trim_end().as_bytes()).call.is_ok(), "{line}");
        }
    }
}
