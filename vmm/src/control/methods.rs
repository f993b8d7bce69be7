//! The methods of the control socket: each with its parameters, how they are read, and what it answers. The one table from which
//! requests are read and `docs/control-reference.md` is written.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::protocol::{Call, Code, Error};
use crate::machine::{FaultOrder, Operation};
use crate::save::RamForm;

/// Counters are not sent more often, whatever is asked for.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// What a client that attaches is shown of what was printed before, if it does not say.
pub const USUAL_BACKLOG: u64 = 64 << 10;

/// A parameter, or a part of a result.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type in JSON.
    pub kind: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// A method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// How `warpvmm ctl PATH` is told to.
    pub ctl: &'static str,
    /// What it is told.
    pub params: &'static [Field],
    /// What it answers: these, or something else that `about` tells of.
    pub result: &'static [Field],
    read: fn(Option<Value>) -> Result<Call, Error>,
}

/// A message of the server that answers nothing.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What it tells.
    pub params: &'static [Field],
}

/// Parameters: the structure that is read, and the same for people.
macro_rules! parameters {
    ($name:ident { $($(#[doc = $about:literal])+ $field:ident: $type:ty = $kind:literal,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name { $($field: $type,)* }

        impl $name {
            const FIELDS: &[Field] = &[$(
                Field { name: stringify!($field), kind: $kind, about: concat!($($about,)+) },
            )*];
        }
    };
}

/// Parts of results.
macro_rules! fields {
    ($($name:literal: $kind:literal = $about:literal,)*) => {
        &[$(Field { name: $name, kind: $kind, about: $about },)*]
    };
}

parameters!(NoParams {});

parameters!(CountersParams {
    /// At this interval, 10 at least; 0 ends that.
    every_ms: Option<u64> = "number, optional",
});

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SavedRam {
    #[default]
    Compressed,
    Plain,
}

parameters!(SaveParams {
    /// `compressed`, as without it, or `plain`.
    ram: Option<SavedRam> = "string, optional",
});

parameters!(InspectParams {
    /// Names and numbers with `/` between them.
    path: String = "string",
});

parameters!(ListParams {
    /// From the rule of this number on; from the first without it.
    from: Option<u32> = "number, optional",
});

parameters!(RuleParams {
    /// `POINT,ACTION[,KEY=VALUE]...`
    rule: String = "string",
});

parameters!(TriggerParams {
    /// `POINT,ACTION[,KEY=VALUE]...` without `nth`, `every`, `probability` and `times`, or `EVENT[,KEY=VALUE]...`
    rule: String = "string",
});

parameters!(DisarmParams {
    /// The rule's number.
    id: u32 = "number",
});

parameters!(AttachParams {
    /// How many bytes of what was printed before, as far as they are kept; 65536 without it.
    backlog: Option<u64> = "number, optional",
});

parameters!(InputParams {
    /// The bytes, in Base64.
    data: String = "string",
});

fn params<T: for<'de> Deserialize<'de>>(given: Option<Value>) -> Result<T, Error> {
    let given = given.unwrap_or_else(|| json!({}));
    if !given.is_object() {
        return Err(Error::new(Code::Params, "parameters are given by name, in an object"));
    }
    serde_json::from_value(given).map_err(|e| Error::new(Code::Params, e.to_string()))
}

fn plain(given: Option<Value>, call: Call) -> Result<Call, Error> {
    params::<NoParams>(given).map(|NoParams {}| call)
}

/// What `pause`, `resume` and `reset` answer.
const SHORT_STATUS: &[Field] = fields! {
    "phase": "string" = "`starting`, `running`, `paused`, `resetting` or `ended`",
    "stopped_by": "string or null" = "who has paused it: `start`, `control` or `gdb`; null if it is not paused",
    "resets": "number" = "how often it has been reset",
    "engine": "string" = "what runs its vCPUs",
    "cpus": "number" = "vCPUs",
    "memory_bytes": "number" = "bytes of RAM",
};

/// All methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "status",
        about: "Where the machine is in its life, and what it is. Answered at once, whatever else the machine does.",
        ctl: "status",
        params: NoParams::FIELDS,
        result: fields! {
            "phase": "string" = "`starting`, `running`, `paused`, `resetting` or `ended`",
            "stopped_by": "string or null" = "who has paused it: `start`, `control` or `gdb`; null if it is not paused",
            "resets": "number" = "how often it has been reset",
            "engine": "string" = "what runs its vCPUs",
            "cpus": "number" = "vCPUs",
            "memory_bytes": "number" = "bytes of RAM",
            "pid": "number" = "the process",
            "version": "string" = "the program's version",
            "protocol": "number" = "the protocol's version",
        },
        read: |given| plain(given, Call::Status),
    },
    Method {
        name: "pause",
        about: "Everything stands still, guest time too. A machine that is paused stays so.",
        ctl: "pause",
        params: NoParams::FIELDS,
        result: SHORT_STATUS,
        read: |given| plain(given, Call::Machine(Operation::Pause)),
    },
    Method {
        name: "resume",
        about: "A paused machine goes on. One that runs does so.",
        ctl: "resume",
        params: NoParams::FIELDS,
        result: SHORT_STATUS,
        read: |given| plain(given, Call::Machine(Operation::Resume)),
    },
    Method {
        name: "reset",
        about: "Power-on. Answered when the machine is there; a paused machine is then paused before its first instruction.",
        ctl: "reset",
        params: NoParams::FIELDS,
        result: SHORT_STATUS,
        read: |given| plain(given, Call::Machine(Operation::Reset)),
    },
    Method {
        name: "quit",
        about: "Ends the run, with status 0.",
        ctl: "quit",
        params: NoParams::FIELDS,
        result: &[],
        read: |given| plain(given, Call::Quit),
    },
    Method {
        name: "save",
        about: "Saves the machine to a regular file, whose descriptor, opened to be written, is passed with the request (SCM_RIGHTS). The \
                machine stands still meanwhile and is then as before; the client names the file when the answer has come.",
        ctl: "save FILE[,ram=compressed|plain]",
        params: SaveParams::FIELDS,
        result: fields! {
            "bytes": "number" = "the file's length",
            "guest_ns": "number" = "guest time of the save",
        },
        read: |given| {
            Ok(Call::Save(match params::<SaveParams>(given)?.ram.unwrap_or_default() {
                SavedRam::Compressed => RamForm::Compressed,
                SavedRam::Plain => RamForm::Plain,
            }))
        },
    },
    Method {
        name: "counters",
        about: "What `--report-json` writes at the end, as of now; of very many firings of fault rules the first ones. The engine's part is \
                as old as each vCPU's last stop. With `every_ms` the answer is empty, and notifications `counters` follow.",
        ctl: "counters [--every TIME]",
        params: CountersParams::FIELDS,
        result: &[],
        read: |given| {
            Ok(match params::<CountersParams>(given)?.every_ms {
                None => Call::Machine(Operation::Counters),
                Some(0) => Call::Stream(None),
                Some(every) => Call::Stream(Some(Duration::from_millis(every).max(SHORTEST_INTERVAL))),
            })
        },
    },
    Method {
        name: "inspect",
        about: "What is at a path: [control.md](control.md) has them.",
        ctl: "inspect WHAT",
        params: InspectParams::FIELDS,
        result: &[],
        read: |given| params(given).map(|InspectParams { path }| Call::Machine(Operation::Inspect(path))),
    },
    Method {
        name: "fault_list",
        about: "The fault rules: those of the plan, of the command line, and those that were armed. Each has `id`, `rule` (in one line), \
                `line` (in the plan; else null), `state` (`armed`, `over` or `disarmed`), `occasions` and `fired`.",
        ctl: "fault list",
        params: ListParams::FIELDS,
        result: fields! {
            "rules": "array" = "the rules in the order of their numbers, 200 at most",
            "next": "number or null" = "the next rule's number, if there are more",
        },
        read: |given| {
            let from = params::<ListParams>(given)?.from.unwrap_or(1);
            Ok(Call::Machine(Operation::Fault(FaultOrder::List(from))))
        },
    },
    Method {
        name: "fault_arm",
        about: "One more fault rule, which is asked after all others: [faults.md](faults.md).",
        ctl: "fault arm RULE",
        params: RuleParams::FIELDS,
        result: fields! {
            "id": "number" = "the rule's number",
            "rule": "string" = "the rule as `fault_list` has it",
        },
        read: |given| {
            params(given).map(|RuleParams { rule }| Call::Machine(Operation::Fault(FaultOrder::Arm(rule))))
        },
    },
    Method {
        name: "fault_disarm",
        about: "A fault rule, be it the plan's or not, counts and fires no more. One that is over or disarmed may be.",
        ctl: "fault disarm ID",
        params: DisarmParams::FIELDS,
        result: &[],
        read: |given| {
            params(given).map(|DisarmParams { id }| Call::Machine(Operation::Fault(FaultOrder::Disarm(id))))
        },
    },
    Method {
        name: "fault_trigger",
        about: "Something goes wrong once: an event at once, anything else on the next occasion that the rule describes, before all rules \
                that are armed.",
        ctl: "fault trigger RULE",
        params: TriggerParams::FIELDS,
        result: fields! {
            "when": "string" = "`now`, or `next` for the next occasion",
            "id": "number or null" = "the rule's number, for `fault_list` and `fault_disarm`; null of an event",
            "rule": "string" = "the rule or event, with all that it does not say",
        },
        read: |given| {
            params(given)
                .map(|TriggerParams { rule }| Call::Machine(Operation::Fault(FaultOrder::Trigger(rule))))
        },
    },
    Method {
        name: "console_attach",
        about: "What the guest prints comes as notifications `console` from now on. Once more begins anew.",
        ctl: "console [--backlog BYTES]",
        params: AttachParams::FIELDS,
        result: &[],
        read: |given| Ok(Call::Attach(params::<AttachParams>(given)?.backlog.unwrap_or(USUAL_BACKLOG))),
    },
    Method {
        name: "console_detach",
        about: "Ends these notifications.",
        ctl: "console",
        params: NoParams::FIELDS,
        result: &[],
        read: |given| plain(given, Call::Detach),
    },
    Method {
        name: "console_input",
        about: "Types at the guest's serial line. Answered when its UART has taken every byte: as long as it does not, nothing more is read \
                from this connection. The end of the connection takes back what has not been taken.",
        ctl: "console",
        params: InputParams::FIELDS,
        result: &[],
        read: |given| {
            let InputParams { data } = params(given)?;
            let bytes = STANDARD.decode(data);
            bytes.map(Call::Input).map_err(|e| Error::new(Code::Params, format!("`data` is not Base64: {e}")))
        },
    },
];

/// What comes without being asked for each time.
pub const NOTIFICATIONS: &[Notification] = &[
    Notification {
        name: "counters",
        about: "Counters, at the interval that was asked for.",
        params: fields! {
            "counters": "object" = "as `counters` answers",
            "skipped": "number" = "how many were left out before this one because the client did not read",
        },
    },
    Notification {
        name: "console",
        about: "What the guest has printed.",
        params: fields! {
            "data": "string" = "the bytes, in Base64; 8 KiB of them at most",
            "lost": "number" = "bytes before these that are lost because the client did not read",
        },
    },
];

/// What a request asks for.
pub(super) fn call(method: &str, given: Option<Value>) -> Result<Call, Error> {
    if let Some(known) = METHODS.iter().find(|known| known.name == method) {
        return (known.read)(given);
    }
    let names: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    Err(Error::new(Code::Method, format!("no method {method:?}; there is {}", names.join(", "))))
}
