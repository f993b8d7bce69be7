//! Rules in one line: `POINT,ACTION[,KEY=VALUE]...`, for the command line and the control socket.
//!
//! Keys and values are those of a plan, without its quotes; a range of addresses is `FIRST-LAST`, and a value with a comma stands in
//! double quotes. A rule is read by the plan's own parser, so that both forms say the same and are refused for the same reasons.

use std::fmt;

use hw::StreamId;
use hw::fault::{EventKind, FaultAction, FaultEvent};
use serde_json::Value;

use super::parse::{names, parse_device, shortened};
use super::{Event, Filter, Plan, Rule, Trigger, When, device_name, takes_numbers, time_text};

/// Most bytes of a line. A rule that is written by [`Rule`]'s `Display` has fewer.
pub const MOST_BYTES: usize = 1000;

/// The first accelerator.
const FIRST: StreamId = StreamId(8);
/// Keys that say when a rule fires.
const WHEN_KEYS: [&str; 4] = ["nth", "every", "probability", "times"];
/// Keys whose values are texts, whatever they look like.
const TEXT_KEYS: [&str; 3] = ["name", "device", "delay"];

/// A line as its words.
struct Words<'a> {
    /// What has no key: point and action, or event.
    plain: Vec<&'a str>,
    keys: Vec<(&'a str, String)>,
}

impl<'a> Words<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            return Err(format!("it has {} bytes, and a rule has {MOST_BYTES} at most", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("it is more than one line of printable characters".to_owned());
        }
        let mut words = Self { plain: Vec::new(), keys: Vec::new() };
        let mut rest = Some(text);
        while let Some(line) = rest {
            let word = &line[..line.find(',').unwrap_or(line.len())];
            let Some((key, value)) = word.split_once('=') else {
                if !words.keys.is_empty() {
                    return Err(format!("`{}` is no KEY=VALUE", shortened(word.trim())));
                }
                words.plain.push(word.trim());
                rest = line.get(word.len() + 1..);
                continue;
            };
            let key = key.trim();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return Err(format!("no key `{}`", shortened(key)));
            }
            if words.keys.iter().any(|(other, _)| *other == key) {
                return Err(format!("`{key}` is given twice"));
            }
            let (value, after) = match value.trim_start().strip_prefix('"') {
                None => (value.trim().to_owned(), line.get(word.len() + 1..)),
                Some(_) => {
                    let (_, quoted) = line.split_once('"').unwrap_or_default();
                    let (value, after) =
                        unquoted(quoted).ok_or_else(|| format!("`{key}` has no closing quote"))?;
                    match after.trim_start() {
                        "" => (value, None),
                        after => match after.strip_prefix(',') {
                            Some(after) => (value, Some(after)),
                            None => {
                                return Err(format!("after the quoted `{key}` there is more than a comma"));
                            }
                        },
                    }
                }
            };
            words.keys.push((key, value));
            rest = after;
        }
        Ok(words)
    }

    /// The value of a key, which is then no longer there.
    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.keys.iter().position(|(other, _)| *other == key)?;
        Some(self.keys.remove(at).1)
    }
}

/// What stands before the closing quote, and what comes after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// A text in quotes, as [`unquoted`] reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// A value as TOML: a number or a range if it looks like one, and otherwise a text, which the plan's parser refuses where it wants
/// a number.
fn as_toml(key: &str, value: &str) -> String {
    let text = || Value::from(value).to_string();
    if TEXT_KEYS.contains(&key) {
        return text();
    }
    if let Some(number) = number(value) {
        return number.to_string();
    }
    if key == "address"
        && let Some((first, last)) = value.split_once('-')
        && let (Some(first), Some(last)) = (number(first), number(last))
    {
        return format!("[{first}, {last}]");
    }
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => format!("{number:?}"),
        _ => text(),
    }
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::of(&Words::read(text)?)
    }

    fn of(words: &Words<'_>) -> Result<Self, String> {
        let (point, action) = match words.plain[..] {
            [point] => (point, None),
            [point, action] => (point, Some(action)),
            _ => return Err("a rule is POINT,ACTION[,KEY=VALUE]...".to_owned()),
        };
        let keys = [("point", Some(point)), ("action", action)].into_iter();
        let keys = keys.filter_map(|(key, value)| Some(format!("{key} = {}\n", Value::from(value?))));
        if let Some((key, _)) = words.keys.iter().find(|(key, _)| ["point", "action"].contains(key)) {
            return Err(format!("the {key} stands without `{key}=`"));
        }
        let more = words.keys.iter().map(|(key, value)| format!("{key} = {}\n", as_toml(key, value)));
        let text: String = ["[[rule]]\n".to_owned()].into_iter().chain(keys).chain(more).collect();
        let mut plan = Plan::parse(&text, "rule").map_err(|error| error.message)?;
        let rule = plan.rules.pop().ok_or("it is no rule")?;
        Ok(Self { line: None, ..rule })
    }
}

impl Trigger {
    /// Reads what is to go wrong once: a rule that says nothing of when, or an event.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words::read(text)?;
        if let Some((key, _)) = words.keys.iter().find(|(key, _)| WHEN_KEYS.contains(key)) {
            return Err(format!("no key `{key}`: it happens once, now or on the next occasion"));
        }
        if let [name] = words.plain[..]
            && let Some(kind) = EventKind::of_name(name)
        {
            return Event::of(kind, &mut words).map(Self::Now);
        }
        let rule = Rule::of(&words)?;
        Ok(Self::Next(Rule { times: Some(1), ..rule }))
    }
}

impl Event {
    fn of(kind: EventKind, words: &mut Words<'_>) -> Result<Self, String> {
        let device = words.take("device").map_or(Some(FIRST), |text| parse_device(&text));
        let device = device.ok_or("`device` is a PCI function such as 00:01.0, the first accelerator")?;
        let event = match kind {
            EventKind::SpuriousMessage => {
                let vector = words.take("vector").and_then(|text| number(&text)?.try_into().ok());
                let vector =
                    vector.ok_or_else(|| format!("`{kind}` needs `vector`: the number of the message"))?;
                FaultEvent::SpuriousMessage { vector }
            }
            EventKind::AxiReadError => FaultEvent::AxiReadError,
            EventKind::AxiWriteError => FaultEvent::AxiWriteError,
        };
        match words.keys.first() {
            None => Ok(Self { device, event }),
            Some((key, _)) => {
                let all = ["device"].iter().chain(kind.numbers()).copied();
                Err(format!("no key `{key}` for {kind}; there can be {}", names(all)))
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},device={}", self.event.kind(), device_name(self.device))?;
        match self.event {
            FaultEvent::SpuriousMessage { vector } => write!(f, ",vector={vector}"),
            FaultEvent::AxiReadError | FaultEvent::AxiWriteError => Ok(()),
        }
    }
}

/// The line that [`Rule::parse`] reads as this rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn key(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
            value.map_or(Ok(()), |value| write!(f, ",{key}={value}"))
        }
        let Self { name, line: _, point, filter, when, times, action } = self;
        // The least length follows from point and action.
        let Filter { device, pasid, address, level, queue, index, vector, least_len: _ } = filter;
        write!(f, "{point},{}", action.kind())?;
        match *action {
            FaultAction::Delay { delay } => write!(f, ",delay={}", time_text(delay).replace(' ', ""))?,
            FaultAction::BitFlip { byte, bit } => write!(f, ",byte={byte},bit={bit}")?,
            FaultAction::WrongStatus { status } => write!(f, ",status={status:#x}")?,
            FaultAction::Abort { byte } if takes_numbers(*point, action.kind()) => write!(f, ",byte={byte}")?,
            _ => {}
        }
        key(f, "device", device.map(device_name))?;
        key(f, "pasid", pasid.map(|pasid| pasid.map_or("none".to_owned(), |pasid| pasid.get().to_string())))?;
        key(f, "address", address.map(|(first, last)| format!("{first:#x}-{last:#x}")))?;
        key(f, "level", *level)?;
        key(f, "queue", *queue)?;
        key(f, "index", *index)?;
        key(f, "vector", *vector)?;
        match when {
            When::Always => {}
            When::Nth(nth) => write!(f, ",nth={nth}")?,
            When::Every(nth) => write!(f, ",every={nth}")?,
            When::Probability(probability) => write!(f, ",probability={probability}")?,
        }
        key(f, "times", *times)?;
        key(f, "name", name.as_deref().map(quoted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::parse::detail_keys;
    use hw::Pasid;
    use hw::fault::FaultPoint;

    /// A value for each key that speaks of what this point knows.
    fn keys_of(point: FaultPoint) -> String {
        let details = point.details().iter().flat_map(|detail| detail_keys(*detail));
        details
            .map(|key| match *key {
                "address" => ",address=0x1000-0xffff_ffff_ffff_ffff".to_owned(),
                key => format!(",{key}=1"),
            })
            .collect()
    }

    #[test]
    fn line_says_what_the_same_keys_of_a_plan_say() {
        let line = "smmu.walk, translation, device=00:01.0, pasid=1, address=0x1000-0x1fff, level=3, queue=2, index=0, \
                    nth=1, times=1, name=\"leaf, or \\\"last\\\"\"";
        let plan = "[[rule]]\npoint = 'smmu.walk'\naction = 'translation'\ndevice = '00:01.0'\npasid = 1\n\
                    address = [0x1000, 0x1fff]\nlevel = 3\nqueue = 2\nindex = 0\nnth = 1\ntimes = 1\n\
                    name = 'leaf, or \"last\"'";
        let rule = Plan::parse(plan, "plan").unwrap().rules.remove(0);
        assert_eq!(Rule::parse(line).unwrap(), Rule { line: None, ..rule });
    }

    #[test]
    fn every_action_at_each_point_comes_back_from_the_line_that_it_is_written_as() {
        for point in FaultPoint::ALL {
            for kind in point.actions() {
                let numbers = if takes_numbers(*point, *kind) { kind.numbers() } else { &[] };
                let numbers = numbers.iter().map(|key| match *key {
                    "delay" => ",delay=1500us".to_owned(),
                    key => format!(",{key}=3"),
                });
                let numbers: String = numbers.collect();
                for more in ["", ",nth=2", ",every=3,times=4", ",probability=0.001,pasid=none", ",name=a b"] {
                    let text = format!("{point},{kind}{numbers}{}{more}", keys_of(*point));
                    let rule = Rule::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
                    assert_eq!((rule.point, rule.action.kind()), (*point, *kind));
                    let written = rule.to_string();
                    assert!(written.len() < MOST_BYTES);
                    assert_eq!(Rule::parse(&written).as_ref(), Ok(&rule), "{written}");
                }
            }
        }
        let bare = Rule::parse("msi,drop,pasid=7").unwrap();
        assert_eq!(bare.filter.pasid, Some(Pasid::new(7)));
        assert_eq!(bare.to_string(), "msi,drop,pasid=7");
        let longest = format!("msi,drop,name={}", quoted(&"\\".repeat(80)));
        assert!(Rule::parse(&longest).unwrap().to_string().len() < MOST_BYTES);
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        for (text, expected) in [
            ("", "`point`"),
            ("msi", "needs `action`: one of `drop`, `duplicate`, `delay`"),
            ("smmu.wlak,translation", "\"smmu.wlak\" is not one of"),
            ("msi,hang", "\"hang\" is not one of `drop`"),
            ("msi,drop,drop", "a rule is POINT,ACTION"),
            ("msi,drop,levle=3", "no key `levle`"),
            ("msi,drop,level=3", "no key `level`"),
            ("msi,drop,vector=x", "\"x\" is not a number from 0 to 2047"),
            ("msi,drop,vector=1,vector=1", "given twice"),
            ("msi,drop,action=drop", "stands without `action=`"),
            ("msi,drop,nth=0", "`nth`"),
            ("msi,drop,nth=1,every=2", "only one of"),
            ("msi,drop,vector", "a rule is POINT,ACTION"),
            ("msi,drop,vector=1,drop", "no KEY=VALUE"),
            ("msi,drop,Vector=1", "no key `Vector`"),
            ("msi,drop,=1", "no key ``"),
            ("msi,drop,name=\"a", "no closing quote"),
            ("msi,drop,name=\"a\"b", "more than a comma"),
            ("msi,drop,name=\"a\\", "no closing quote"),
            ("msi,drop\nseed = 1", "one line"),
            ("msi,delay,delay=5", "`delay`: \"5\" is not guest time"),
            ("dma.read,abort,address=2-1", "`address`"),
        ] {
            let why = Rule::parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
        assert!(Rule::parse(&"x".repeat(MOST_BYTES + 1)).unwrap_err().contains("at most"));
    }

    #[test]
    fn trigger_is_a_rule_that_fires_once_or_an_event() {
        let Trigger::Next(rule) = Trigger::parse("qm.cqe,drop,queue=3").unwrap() else { panic!("a rule") };
        assert_eq!((rule.times, rule.when), (Some(1), When::Always));
        for key in WHEN_KEYS {
            assert!(
                Trigger::parse(&format!("qm.cqe,drop,{key}=1")).unwrap_err().contains("now or on the next")
            );
        }
        let event = |text: &str| match Trigger::parse(text) {
            Ok(Trigger::Now(event)) => Ok(event),
            Ok(Trigger::Next(rule)) => panic!("{rule}"),
            Err(why) => Err(why),
        };
        let spurious = event("msi.spurious,vector=3,device=00:02.0").unwrap();
        assert_eq!(
            spurious,
            Event { device: StreamId(16), event: FaultEvent::SpuriousMessage { vector: 3 } }
        );
        assert_eq!(spurious.to_string(), "msi.spurious,device=00:02.0,vector=3");
        assert_eq!(event("qm.axi-read-error").unwrap().device, StreamId(8));
        assert_eq!(event("qm.axi-write-error").unwrap().event, FaultEvent::AxiWriteError);
        for (text, expected) in [
            ("msi.spurious", "needs `vector`"),
            ("msi.spurious,vector=65536", "needs `vector`"),
            ("qm.axi-read-error,vector=1", "no key `vector`"),
            ("qm.axi-read-error,device=zip", "`device`"),
            ("qm.axi-read-error,drop", "`point`"),
        ] {
            assert!(event(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
