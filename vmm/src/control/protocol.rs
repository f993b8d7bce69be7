//! JSON-RPC 2.0, one message a line: requests in, answers out. `docs/control.md` has the methods.
//!
//! Deliberately absent: batches, which JSON-RPC allows a server to be without use for; several requests are several lines.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::machine::{Operation, Refused};
use crate::save::RamForm;

/// The version of methods and results. It changes when one of them changes its meaning or goes.
pub const VERSION: u32 = 1;

/// Counters are not sent more often, whatever is asked for.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Where the machine is in its life.
    Status,
    /// Ends the machine.
    Quit,
    /// A save to the file that the client has passed, with RAM in this form.
    Save(RamForm),
    /// Something that the machine's thread does.
    Machine(Operation),
    /// Counters again and again; `None` ends that.
    Stream(Option<Duration>),
}

/// An error of JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its code: see JSON-RPC 2.0, 5.1, and `docs/control.md` for ours.
    pub code: i64,
    /// One line for people.
    pub message: String,
}

/// Codes of JSON-RPC 2.0.
mod code {
    pub(super) const PARSE: i64 = -32700;
    pub(super) const REQUEST: i64 = -32600;
    pub(super) const METHOD: i64 = -32601;
    pub(super) const PARAMS: i64 = -32602;
    /// The machine refuses.
    pub(super) const REFUSED: i64 = 1;
    /// Nothing is at a path.
    pub(super) const NO_SUCH_PATH: i64 = 2;
    /// The server has no room.
    pub(super) const BUSY: i64 = 3;
}

impl Error {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A line that is too long.
    #[must_use]
    pub fn line_too_long() -> Self {
        let message = format!("a line has more than {} bytes; the connection ends", super::lines::LINE_BYTES);
        Self::new(code::REQUEST, message)
    }

    /// A save without a file.
    #[must_use]
    pub fn no_descriptor() -> Self {
        Self::new(code::PARAMS, "no descriptor of a file has come with the request (SCM_RIGHTS)")
    }

    /// No further connection.
    #[must_use]
    pub fn too_many_connections(most: usize) -> Self {
        Self::new(code::BUSY, format!("there are {most} connections already"))
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::NoSuchPath { .. } | Refused::Nothing { .. } | Refused::TooMuch { .. } => {
                code::NO_SUCH_PATH
            }
            _ => code::REFUSED,
        };
        Self::new(code, refused.to_string())
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the answer carries; without one, there is to be no answer. A request that is none is answered with null.
    pub id: Option<Value>,
    /// What it asks for.
    pub call: Result<Call, Error>,
}

#[derive(Deserialize)]
struct Envelope {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

/// An `id` of null is one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountersParams {
    every_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaveParams {
    #[serde(default)]
    ram: SavedRam,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedRam {
    #[default]
    Compressed,
    Plain,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InspectParams {
    path: String,
}

fn params<T: for<'de> Deserialize<'de>>(given: Option<Value>) -> Result<T, Error> {
    let given = given.unwrap_or_else(|| json!({}));
    if !given.is_object() {
        return Err(Error::new(code::PARAMS, "parameters are given by name, in an object"));
    }
    serde_json::from_value(given).map_err(|e| Error::new(code::PARAMS, e.to_string()))
}

/// Reads a request.
#[must_use]
pub fn parse(line: &[u8]) -> Request {
    let refused =
        |code, message: String| Request { id: Some(Value::Null), call: Err(Error::new(code, message)) };
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return refused(code::PARSE, format!("not JSON: {error}")),
    };
    if value.is_array() {
        return refused(code::REQUEST, "no batches: send one request a line".to_owned());
    }
    let envelope: Envelope = match serde_json::from_value(value) {
        Ok(envelope) => envelope,
        Err(error) => return refused(code::REQUEST, format!("no request: {error}")),
    };
    let id_is_valid = envelope.id.as_ref().is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    if envelope.jsonrpc != "2.0" || !id_is_valid {
        return refused(code::REQUEST, "no request of JSON-RPC 2.0".to_owned());
    }
    Request { id: envelope.id, call: call(&envelope.method, envelope.params) }
}

fn call(method: &str, given: Option<Value>) -> Result<Call, Error> {
    let plain = |call| params::<NoParams>(given.clone()).map(|NoParams {}| call);
    match method {
        "status" => plain(Call::Status),
        "quit" => plain(Call::Quit),
        "pause" => plain(Call::Machine(Operation::Pause)),
        "resume" => plain(Call::Machine(Operation::Resume)),
        "reset" => plain(Call::Machine(Operation::Reset)),
        "counters" => Ok(match params::<CountersParams>(given)?.every_ms {
            None => Call::Machine(Operation::Counters),
            Some(0) => Call::Stream(None),
            Some(every) => Call::Stream(Some(Duration::from_millis(every).max(SHORTEST_INTERVAL))),
        }),
        "save" => Ok(Call::Save(match params::<SaveParams>(given)?.ram {
            SavedRam::Compressed => RamForm::Compressed,
            SavedRam::Plain => RamForm::Plain,
        })),
        "inspect" => params(given).map(|InspectParams { path }| Call::Machine(Operation::Inspect(path))),
        other => {
            let known = "status, pause, resume, reset, quit, save, counters, inspect";
            Err(Error::new(code::METHOD, format!("no method {other:?}; there is {known}")))
        }
    }
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The line of an answer.
#[must_use]
pub fn answer(id: &Value, result: Result<Value, Error>) -> Vec<u8> {
    line(&match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(Error { code, message }) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
        }
    })
}

/// The line of a message that answers nothing.
#[must_use]
pub fn notification(method: &str, params: Value) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (Option<Value>, Call) {
        let request = parse(text.as_bytes());
        (request.id, request.call.unwrap())
    }

    fn error(text: &str) -> (Option<Value>, i64, String) {
        let request = parse(text.as_bytes());
        let error = request.call.unwrap_err();
        (request.id, error.code, error.message)
    }

    #[test]
    fn requests_are_read_with_any_id_and_without_one() {
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":7,"method":"status"}"#), (Some(json!(7)), Call::Status));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":"a","method":"quit","params":{}}"#).0, Some(json!("a")));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":null,"method":"pause"}"#).0, Some(Value::Null));
        let (id, call) = ok(r#"{"jsonrpc":"2.0","method":"inspect","params":{"path":"cpu0/regs"}}"#);
        assert_eq!((id, call), (None, Call::Machine(Operation::Inspect("cpu0/regs".to_owned()))));
    }

    #[test]
    fn counters_come_once_or_at_an_interval_that_is_not_too_short() {
        let counters = |params: &str| {
            ok(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"counters","params":{params}}}"#)).1
        };
        assert_eq!(counters("{}"), Call::Machine(Operation::Counters));
        assert_eq!(counters(r#"{"every_ms":500}"#), Call::Stream(Some(Duration::from_millis(500))));
        assert_eq!(counters(r#"{"every_ms":1}"#), Call::Stream(Some(SHORTEST_INTERVAL)));
        assert_eq!(counters(r#"{"every_ms":0}"#), Call::Stream(None));
        let longest = counters(&format!(r#"{{"every_ms":{}}}"#, u64::MAX));
        assert_eq!(longest, Call::Stream(Some(Duration::from_millis(u64::MAX))));
    }

    #[test]
    fn save_says_how_ram_is_to_be_kept() {
        let save = |params: &str| {
            parse(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"save","params":{params}}}"#).as_bytes()).call
        };
        assert_eq!(save("{}"), Ok(Call::Save(RamForm::Compressed)));
        assert_eq!(save(r#"{"ram":"plain"}"#), Ok(Call::Save(RamForm::Plain)));
        assert_eq!(save(r#"{"ram":"gzip"}"#).unwrap_err().code, code::PARAMS);
        assert_eq!(save(r#"{"file":"x"}"#).unwrap_err().code, code::PARAMS);
    }

    #[test]
    fn what_is_no_request_gets_the_code_of_its_fault() {
        let null = Some(Value::Null);
        for (text, expected) in [
            ("", code::PARSE),
            ("{", code::PARSE),
            ("\"\u{0}\"", code::PARSE),
            (&"[".repeat(10_000), code::PARSE),
            ("1", code::REQUEST),
            ("[]", code::REQUEST),
            ("{}", code::REQUEST),
            (r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#, code::REQUEST),
            (r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#, code::REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, code::REQUEST),
        ] {
            let (id, code, _) = error(text);
            assert_eq!((id, code), (null.clone(), expected), "{text:.40}");
        }
        assert_eq!(parse(b"\xff\xfe").call.unwrap_err().code, code::PARSE);
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"frobnicate"}"#, code::METHOD),
            (r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":1}}"#, code::PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[]}"#, code::PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"inspect"}"#, code::PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"inspect","params":{"path":1}}"#, code::PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"counters","params":{"every_ms":-1}}"#, code::PARAMS),
        ] {
            let (id, code, _) = error(text);
            assert_eq!((id, code), (Some(json!(1)), expected), "{text}");
        }
        assert!(error(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).2.contains("there is status, pause"));
    }

    #[test]
    fn answers_are_one_line_each() {
        let refused = Refused::NoSuchPath {
            path: "x\ny".to_owned(),
            at: String::new(),
            there: vec!["smmu".to_owned()],
        };
        let text = String::from_utf8(answer(&json!(1), Err(refused.into()))).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"]["code"], code::NO_SUCH_PATH);
        assert_eq!(value["error"]["message"], "nothing is at \"x\\ny\"; there is smmu");
        assert!(answer(&Value::Null, Ok(json!({}))).ends_with(b"}\n"));
    }
}
