//! JSON-RPC 2.0, one message a line: requests in, answers out. [`super::methods`] has what can be asked for.
//!
//! Deliberately absent: batches, which JSON-RPC allows a server to be without use for; several requests are several lines.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::methods;
use crate::faults::FaultRefused;
use crate::machine::{Operation, Refused};
use crate::save::RamForm;

/// The version of methods and results. It changes when one of them changes its meaning or goes.
pub const VERSION: u32 = 1;

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
    /// What the guest prints, from so many bytes before now on.
    Attach(u64),
    /// No more of that.
    Detach,
    /// Bytes for the guest's serial line.
    Input(Vec<u8>),
}

/// An error of JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its code.
    pub code: Code,
    /// One line for people.
    pub message: String,
}

macro_rules! codes {
    ($($(#[doc = $about:literal])+ $name:ident = $number:literal,)*) => {
        /// Codes of errors: those of JSON-RPC 2.0, 5.1, and ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i64)]
        pub enum Code {
            $($(#[doc = $about])+ $name = $number,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// When there is such an error.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($about,)+).trim(),)*
                }
            }
        }
    };
}

codes! {
    /// A line is no JSON.
    Parse = -32700,
    /// It is no request; or it is too long, after which the connection ends.
    Request = -32600,
    /// There is no such method.
    Method = -32601,
    /// Parameters are wrong, or a fault rule is none.
    Params = -32602,
    /// The machine refuses: it has ended, it cannot be reset or saved, or there are too many fault rules.
    Refused = 1,
    /// Nothing is at a path, or too much; no fault rule has this number; an event's device or message is not there.
    NotThere = 2,
    /// There are 8 connections already; this one ends.
    Busy = 3,
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A line that is too long.
    #[must_use]
    pub fn line_too_long() -> Self {
        let message = format!("a line has more than {} bytes; the connection ends", super::lines::LINE_BYTES);
        Self::new(Code::Request, message)
    }

    /// A save without a file.
    #[must_use]
    pub fn no_descriptor() -> Self {
        Self::new(Code::Params, "no descriptor of a file has come with the request (SCM_RIGHTS)")
    }

    /// No further connection.
    #[must_use]
    pub fn too_many_connections(most: usize) -> Self {
        Self::new(Code::Busy, format!("there are {most} connections already"))
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::NoSuchPath { .. }
            | Refused::Nothing { .. }
            | Refused::TooMuch { .. }
            | Refused::Fault(FaultRefused::NoSuchRule(_) | FaultRefused::NoSuchEvent(_)) => Code::NotThere,
            Refused::NoRule(_) => Code::Params,
            _ => Code::Refused,
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

/// Reads a request.
#[must_use]
pub fn parse(line: &[u8]) -> Request {
    let refused =
        |code: Code, message: String| Request { id: Some(Value::Null), call: Err(Error::new(code, message)) };
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return refused(Code::Parse, format!("not JSON: {error}")),
    };
    if value.is_array() {
        return refused(Code::Request, "no batches: send one request a line".to_owned());
    }
    let envelope: Envelope = match serde_json::from_value(value) {
        Ok(envelope) => envelope,
        Err(error) => return refused(Code::Request, format!("no request: {error}")),
    };
    let id_is_valid = envelope.id.as_ref().is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    if envelope.jsonrpc != "2.0" || !id_is_valid {
        return refused(Code::Request, "no request of JSON-RPC 2.0".to_owned());
    }
    Request { id: envelope.id, call: methods::call(&envelope.method, envelope.params) }
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
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code as i64, "message": message } })
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
    use crate::control::methods::{SHORTEST_INTERVAL, USUAL_BACKLOG};
    use crate::machine::FaultOrder;

    fn ok(text: &str) -> (Option<Value>, Call) {
        let request = parse(text.as_bytes());
        (request.id, request.call.unwrap())
    }

    fn error(text: &str) -> (Option<Value>, Code, String) {
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
        assert_eq!(save(r#"{"ram":"gzip"}"#).unwrap_err().code, Code::Params);
        assert_eq!(save(r#"{"file":"x"}"#).unwrap_err().code, Code::Params);
    }

    #[test]
    fn console_is_attached_with_a_backlog_and_input_is_base64() {
        let call = |method: &str, params: &str| {
            parse(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#).as_bytes())
                .call
        };
        assert_eq!(call("console_attach", "{}"), Ok(Call::Attach(USUAL_BACKLOG)));
        assert_eq!(call("console_attach", r#"{"backlog":0}"#), Ok(Call::Attach(0)));
        assert_eq!(call("console_detach", "{}"), Ok(Call::Detach));
        assert_eq!(call("console_input", r#"{"data":"AP9h"}"#), Ok(Call::Input(vec![0, 0xff, b'a'])));
        assert_eq!(call("console_input", r#"{"data":""}"#), Ok(Call::Input(Vec::new())));
        for wrong in [r#"{"data":"AP9"}"#, r#"{"data":"a b="}"#, r#"{"data":[1]}"#, "{}"] {
            assert_eq!(call("console_input", wrong).unwrap_err().code, Code::Params, "{wrong}");
        }
        assert_eq!(call("console_attach", r#"{"backlog":-1}"#).unwrap_err().code, Code::Params);
    }

    #[test]
    fn fault_methods_take_rules_and_numbers() {
        let call = |method: &str, params: &str| {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"fault_{method}","params":{params}}}"#);
            parse(line.as_bytes()).call
        };
        let order = |order| Ok(Call::Machine(Operation::Fault(order)));
        assert_eq!(call("list", "{}"), order(FaultOrder::List(1)));
        assert_eq!(call("list", r#"{"from":7}"#), order(FaultOrder::List(7)));
        assert_eq!(call("arm", r#"{"rule":"msi,drop"}"#), order(FaultOrder::Arm("msi,drop".to_owned())));
        assert_eq!(call("trigger", r#"{"rule":"x"}"#), order(FaultOrder::Trigger("x".to_owned())));
        assert_eq!(call("disarm", r#"{"id":3}"#), order(FaultOrder::Disarm(3)));
        assert_eq!(call("disarm", r#"{"id":4294967296}"#).unwrap_err().code, Code::Params);
    }

    #[test]
    fn what_is_no_request_gets_the_code_of_its_fault() {
        let null = Some(Value::Null);
        for (text, expected) in [
            ("", Code::Parse),
            ("{", Code::Parse),
            ("\"\u{0}\"", Code::Parse),
            (&"[".repeat(10_000), Code::Parse),
            ("1", Code::Request),
            ("[]", Code::Request),
            ("{}", Code::Request),
            (r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#, Code::Request),
            (r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#, Code::Request),
            (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, Code::Request),
        ] {
            let (id, code, _) = error(text);
            assert_eq!((id, code), (null.clone(), expected), "{text:.40}");
        }
        assert_eq!(parse(b"\xff\xfe").call.unwrap_err().code, Code::Parse);
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"frobnicate"}"#, Code::Method),
            (r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":1}}"#, Code::Params),
            (r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[]}"#, Code::Params),
            (r#"{"jsonrpc":"2.0","id":1,"method":"inspect"}"#, Code::Params),
            (r#"{"jsonrpc":"2.0","id":1,"method":"inspect","params":{"path":1}}"#, Code::Params),
            (r#"{"jsonrpc":"2.0","id":1,"method":"counters","params":{"every_ms":-1}}"#, Code::Params),
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
        assert_eq!(value["error"]["code"], Code::NotThere as i64);
        assert_eq!(value["error"]["message"], "nothing is at \"x\\ny\"; there is smmu");
        assert!(answer(&Value::Null, Ok(json!({}))).ends_with(b"}\n"));
    }
}
