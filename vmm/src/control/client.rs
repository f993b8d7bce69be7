//! `warpvmm ctl`: a client of the control socket for people and scripts.

use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use super::terminal;
use crate::cli::{CtlArgs, CtlFault, CtlMethod};
use crate::exit::{Failed, Status};
use crate::save::{Begun, RamForm, Target};

/// Runs the subcommand.
///
/// # Errors
/// A line for the user.
pub fn ctl(args: &CtlArgs) -> anyhow::Result<Status> {
    match &args.method {
        CtlMethod::Console(options) => return terminal::attach(args, options),
        CtlMethod::Fault { command: CtlFault::List } => return list_faults(args),
        _ => {}
    }
    let socket = connect(args)?;
    let request = request(&args.method)?;
    // The machine opens no files: this program does, and passes it one.
    let mut save = match &args.method {
        CtlMethod::Save { file } => Some(begin_save(file)?),
        _ => None,
    };
    let passed: Vec<RawFd> = save.iter().map(|save| save.file().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&passed)];
    let rights = if passed.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(request.as_bytes())],
        rights,
        MsgFlags::empty(),
        None,
    );
    let sent = sent.map_err(|e| lost(&e))?;
    (&socket).write_all(&request.as_bytes()[sent..]).map_err(|e| lost(&e))?;
    let streams = matches!(args.method, CtlMethod::Counters { every: Some(_) });
    let mut out = io::stdout().lock();
    let mut is_answered = false;
    for line in BufReader::new(&socket).lines() {
        let line = line.map_err(|e| lost(&e))?;
        let mut message = message_of(line.as_bytes())?;
        let is_answer = message.get("result").is_some();
        is_answered |= is_answer;
        let part = if is_answer { "result" } else { "params" };
        let body = message.get_mut(part).map(Value::take).unwrap_or_default();
        if is_answer && let Some(save) = save.take() {
            save.finish().map_err(|e| Failed::new(format!("the save cannot be put in place: {e}")))?;
        }
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

pub(super) fn connect(args: &CtlArgs) -> Result<UnixStream, Failed> {
    UnixStream::connect(&args.socket)
        .map_err(|e| Failed::new(format!("cannot reach a machine at {:?}: {e}", args.socket)))
}

pub(super) fn lost(why: &dyn std::fmt::Display) -> Failed {
    Failed::new(format!("the connection is lost: {why}"))
}

/// The message of a line, if it is not an error.
pub(super) fn message_of(line: &[u8]) -> Result<Value, Failed> {
    let message: Value = serde_json::from_slice(line)
        .map_err(|e| Failed::new(format!("the machine's answer is not JSON: {e}")))?;
    match message.pointer("/error/message").and_then(Value::as_str) {
        Some(why) => Err(Failed::new(why)),
        None => Ok(message),
    }
}

/// The line of a request.
pub(super) fn line_of(method: &str, params: &Value) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
}

/// All fault rules, which come in parts.
fn list_faults(args: &CtlArgs) -> anyhow::Result<Status> {
    let socket = connect(args)?;
    let mut answers = BufReader::new(&socket);
    let mut rules = Vec::new();
    let mut from = json!(1);
    while !from.is_null() {
        let request = line_of("fault_list", &json!({ "from": from }));
        (&socket).write_all(request.as_bytes()).map_err(|e| lost(&e))?;
        let mut line = Vec::new();
        answers.read_until(b'\n', &mut line).map_err(|e| lost(&e))?;
        if line.is_empty() {
            return Err(lost(&"no answer has come").into());
        }
        let mut answer = message_of(&line)?;
        if let Some(Value::Array(part)) = answer.pointer_mut("/result/rules").map(Value::take) {
            rules.extend(part);
        }
        from = answer.pointer_mut("/result/next").map(Value::take).unwrap_or_default();
    }
    let text = if args.json {
        format!("{}\n", json!({ "rules": rules }))
    } else {
        rules.iter().map(rule_line).collect()
    };
    print(&text)
}

/// A fault rule as a line.
fn rule_line(rule: &Value) -> String {
    let word = |name: &str| word(&rule[name]);
    let line = rule["line"].as_u64().map_or_else(String::new, |line| format!("   (line {line})"));
    let (id, state, fired, occasions) = (word("id"), word("state"), word("fired"), word("occasions"));
    format!("{id:>4}  {state:<8}  fired on {fired} of {occasions}  {}{line}\n", word("rule"))
}

/// Prints text; nobody who would read it is fine.
fn print(text: &str) -> anyhow::Result<Status> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failed::new(format!("cannot write to standard output: {error}")).into())
        }
        _ => Ok(Status::Success),
    }
}

/// Makes the file for a save, which gets its name when the machine has written it.
fn begin_save(text: &str) -> Result<Begun, Failed> {
    let (path, form) = parse_save(text)?;
    let target = Target::prepare(&path, form)?;
    target.begin().map_err(|e| Failed::new(format!("cannot save to {path:?}: {e}")))
}

fn parse_save(text: &str) -> Result<(PathBuf, RamForm), Failed> {
    Target::parse(text).map_err(|why| Failed::with_status(Status::Usage, format!("save {text}: {why}")))
}

pub(super) fn request(method: &CtlMethod) -> Result<String, Failed> {
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
        CtlMethod::Save { file } => {
            let ram = if parse_save(file)?.1 == RamForm::Plain { "plain" } else { "compressed" };
            ("save", json!({ "ram": ram }))
        }
        CtlMethod::Inspect { path } => ("inspect", json!({ "path": path })),
        CtlMethod::Walk { stream, pasid, address } => {
            let context = pasid.as_ref().map_or_else(String::new, |pasid| format!("cd/{pasid}/"));
            ("inspect", json!({ "path": format!("smmu/streams/{stream}/{context}walk/{address}") }))
        }
        CtlMethod::Console(options) => ("console_attach", json!({ "backlog": options.backlog })),
        CtlMethod::Fault { command } => match command {
            CtlFault::List => ("fault_list", json!({})),
            CtlFault::Arm { rule } => ("fault_arm", json!({ "rule": rule })),
            CtlFault::Disarm { id } => ("fault_disarm", json!({ "id": id })),
            CtlFault::Trigger { rule } => ("fault_trigger", json!({ "rule": rule })),
        },
    };
    Ok(line_of(name, &params))
}

fn readable(method: &CtlMethod, body: &Value) -> String {
    if matches!(method, CtlMethod::Inspect { .. } | CtlMethod::Walk { .. }) {
        return tree_of(body);
    }
    let mut text = lines_of(body);
    if matches!(method, CtlMethod::Counters { every: Some(_) }) {
        text.push('\n');
    }
    text
}

/// Text for people: a line for each value, with its path.
pub(crate) fn lines_of(body: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", body, &mut lines);
    let width = lines.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    lines.iter().map(|(path, value)| format!("{path:width$}  {value}\n")).collect()
}

/// Text for people: a tree, a line for each name.
pub(crate) fn tree_of(body: &Value) -> String {
    let mut text = String::new();
    indented(body, 0, &mut text);
    text
}

/// A value as a tree, a line for each name.
fn indented(value: &Value, depth: usize, text: &mut String) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, part)| (name.clone(), part)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, part)| (n.to_string(), part)).collect(),
        leaf => {
            *text += &format!("{}\n", word(leaf));
            return;
        }
    };
    let is_leaf = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    let leaves = parts.iter().filter(|(_, part)| is_leaf(part));
    let width = leaves.map(|(name, _)| name.len()).max().unwrap_or(0);
    let indent = 2 * depth;
    for (name, part) in parts {
        if is_leaf(part) {
            *text += &format!("{:indent$}{name:width$}  {}\n", "", word(part));
        } else {
            *text += &format!("{:indent$}{name}\n", "");
            indented(part, depth + 1, text);
        }
    }
}

/// A value that is one word for people.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Object(_) | Value::Array(_) => "none".to_owned(),
        other => other.to_string(),
    }
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(&below(key), value, lines)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| flatten(&below(&n.to_string()), value, lines));
        }
        leaf => lines.push((path.to_owned(), word(leaf))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConsoleArgs;

    #[test]
    fn nested_answers_are_lines_with_paths_in_columns() {
        let body = json!({ "smmu": { "walks": 7, "events": {} }, "phase": "running", "list": [true, null] });
        let text = readable(&CtlMethod::Status, &body);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["list/0      true", "list/1      none", "phase       running", "smmu/walks  7"]);
    }

    #[test]
    fn what_is_inside_is_a_tree_of_names_and_values() {
        let body = json!({ "cr0": "0x1", "queues": [{ "tail": 7 }], "stalls": [], "gerror": null });
        let method = CtlMethod::Inspect { path: "smmu".to_owned() };
        let text = readable(&method, &body);
        for lines in ["cr0     0x1\n", "stalls  none\n", "gerror  none\n", "queues\n  0\n    tail  7\n"] {
            assert!(text.contains(lines), "{text}");
        }
        assert_eq!(readable(&method, &json!("0x1")), "0x1\n");
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
            CtlMethod::Save { file: "x,ram=plain".to_owned() },
            CtlMethod::Inspect { path: "smmu".to_owned() },
            CtlMethod::Walk { stream: "8".to_owned(), pasid: Some("1".to_owned()), address: "0".to_owned() },
            CtlMethod::Console(ConsoleArgs { backlog: 0, eof: false, until: None, timeout: None }),
            CtlMethod::Fault { command: CtlFault::List },
            CtlMethod::Fault { command: CtlFault::Arm { rule: "msi,drop".to_owned() } },
            CtlMethod::Fault { command: CtlFault::Disarm { id: 1 } },
            CtlMethod::Fault { command: CtlFault::Trigger { rule: "msi,drop".to_owned() } },
        ] {
            let line = request(&method).unwrap();
            assert!(crate::control::protocol::parse(line.trim_end().as_bytes()).call.is_ok(), "{line}");
        }
    }
}
