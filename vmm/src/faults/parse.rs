//! Plans as people write them: TOML, read value by value, so that each error names line, key and what would be right.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use hw::fault::{ActionKind, Detail, FaultAction, FaultPoint};
use hw::{Pasid, StreamId};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Filter, MOST_DELAY_NS, Plan, Rule, When, takes_numbers};

/// Most rules of a plan, and of a machine.
pub(super) const MOST_RULES: usize = 1000;
/// Longest name of a rule, in characters.
const MOST_NAME: usize = 80;

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for PlanError {}

type Value<'a> = Spanned<DeValue<'a>>;

/// The text, for places of errors.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }

    fn error(&self, at: &Range<usize>, message: impl Into<String>) -> PlanError {
        PlanError { file: self.file.into(), line: self.line(at.start), message: message.into() }
    }

    fn bad(&self, key: &str, value: &Value<'_>, expected: &str) -> PlanError {
        let found = match value.get_ref() {
            DeValue::String(text) => format!("{:?}", shortened(text)),
            DeValue::Integer(number) => shortened(&number.to_string()).into_owned(),
            DeValue::Float(number) => shortened(&number.to_string()).into_owned(),
            DeValue::Boolean(value) => value.to_string(),
            other => format!("this {}", other.type_str()),
        };
        self.error(&value.span(), format!("`{key}`: {found} is not {expected}"))
    }

    fn text<'v>(&self, key: &str, value: &'v Value<'_>, expected: &str) -> Result<&'v str, PlanError> {
        value.get_ref().as_str().ok_or_else(|| self.bad(key, value, expected))
    }

    fn number(&self, key: &str, value: &Value<'_>, range: Range<u128>) -> Result<u64, PlanError> {
        number(value).filter(|&number| range.contains(&number.into())).ok_or_else(|| {
            let last = range.end - 1;
            let expected = if last == u64::MAX.into() {
                format!("a number from {}", range.start)
            } else {
                format!("a number from {} to {last}", range.start)
            };
            self.bad(key, value, &expected)
        })
    }
}

pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST_NAME) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

fn number(value: &Value<'_>) -> Option<u64> {
    let number = value.get_ref().as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Names in a sentence.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

const PLAN_KEYS: [&str; 2] = ["seed", "rule"];
/// Keys that every rule can have; which others depends on point and action.
const RULE_KEYS: [&str; 10] =
    ["name", "point", "action", "device", "pasid", "nth", "every", "probability", "times", "address"];
const MOST: u128 = u64::MAX as u128 + 1;

/// The keys that speak of a detail.
pub(super) fn detail_keys(detail: Detail) -> &'static [&'static str] {
    match detail {
        Detail::Address => &["address"],
        Detail::Level => &["level"],
        Detail::Command => &["queue", "index"],
        Detail::Queue => &["queue"],
        Detail::Vector => &["vector"],
    }
}

impl Plan {
    /// Reads a plan. `file` is its name in messages.
    ///
    /// # Errors
    /// [`PlanError`], at the first thing that is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, PlanError> {
        let source = Source { text, file };
        let document = DeTable::parse(text).map_err(|e| {
            let message = e.message().lines().collect::<Vec<_>>().join(", ");
            source.error(&e.span().unwrap_or(0..0), format!("no TOML: {message}"))
        })?;
        let mut plan = Self { file: file.into(), text: text.into(), seed: 0, rules: Vec::new() };
        for (key, value) in document.get_ref() {
            match key.get_ref().as_ref() {
                "seed" => plan.seed = source.number("seed", value, 0..MOST)?,
                "rule" => {
                    let tables = value.get_ref().as_array();
                    let tables = tables.ok_or_else(|| source.bad("rule", value, "a list: write [[rule]]"))?;
                    if tables.len() > MOST_RULES {
                        let many = tables.len();
                        let message = format!("{many} rules, but a plan has {MOST_RULES} at most");
                        return Err(source.error(&value.span(), message));
                    }
                    for table in tables {
                        plan.rules.push(RuleReader::new(source, table)?.rule()?);
                    }
                }
                other => {
                    let message =
                        format!("unknown key `{}`; a plan has {}", shortened(other), names(PLAN_KEYS));
                    return Err(source.error(&key.span(), message));
                }
            }
        }
        if plan.rules.is_empty() {
            return Err(source.error(&(0..0), "a plan has at least one [[rule]]"));
        }
        Ok(plan)
    }
}

struct RuleReader<'a> {
    source: Source<'a>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    point: FaultPoint,
    action: ActionKind,
}

impl<'a> RuleReader<'a> {
    fn new(source: Source<'a>, value: &'a Value<'a>) -> Result<Self, PlanError> {
        let span = value.span();
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| source.bad("rule", value, "a table: write [[rule]]"))?;
        let required = |key: &str, allowed: &dyn Fn() -> String| {
            table
                .get(key)
                .ok_or_else(|| source.error(&span, format!("a rule needs `{key}`: one of {}", allowed())))
        };
        let points = || names(FaultPoint::ALL.iter().map(|point| point.name()));
        let value = required("point", &points)?;
        let point = value.get_ref().as_str().and_then(FaultPoint::of_name);
        let point = point.ok_or_else(|| source.bad("point", value, &format!("one of {}", points())))?;
        let actions = || names(point.actions().iter().map(|kind| kind.name()));
        let value = required("action", &actions)?;
        let action = value.get_ref().as_str().and_then(ActionKind::of_name);
        let action = action
            .filter(|kind| point.actions().contains(kind))
            .ok_or_else(|| source.bad("action", value, &format!("one of {} (at {point})", actions())))?;
        Ok(Self { source, table, span, point, action })
    }

    fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.table.get(key)
    }

    fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Self, &str, &Value<'_>) -> Result<T, PlanError>,
    ) -> Result<Option<T>, PlanError> {
        self.get(key).map(|value| read(self, key, value)).transpose()
    }

    fn small<T: TryFrom<u64>>(&self, key: &str, most: u32) -> Result<Option<T>, PlanError> {
        let read = |this: &Self, key: &str, value: &Value<'_>| {
            this.source.number(key, value, 0..u128::from(most) + 1)
        };
        Ok(self.optional(key, read)?.and_then(|number| T::try_from(number).ok()))
    }

    fn numbers(&self) -> &'static [&'static str] {
        if takes_numbers(self.point, self.action) { self.action.numbers() } else { &[] }
    }

    /// Refuses keys that this rule cannot have.
    fn check_keys(&self) -> Result<(), PlanError> {
        let details = self.point.details();
        let has = |key: &str| {
            (RULE_KEYS.contains(&key) && (key != "address" || details.contains(&Detail::Address)))
                || self.numbers().contains(&key)
                || details.iter().any(|detail| detail_keys(*detail).contains(&key))
        };
        let Some((key, _)) = self.table.iter().find(|(key, _)| !has(key.get_ref())) else { return Ok(()) };
        let others = RULE_KEYS.iter().filter(|key| **key != "address").copied();
        let all = others
            .chain(details.iter().flat_map(|detail| detail_keys(*detail).iter().copied()))
            .chain(self.numbers().iter().copied());
        let (point, action, name) = (self.point, self.action, shortened(key.get_ref()));
        let message = format!("no key `{name}` for {action} at {point}; there can be {}", names(all));
        Err(self.source.error(&key.span(), message))
    }

    fn rule(&self) -> Result<Rule, PlanError> {
        self.check_keys()?;
        let action = self.action()?;
        let positive = |this: &Self, key: &str, value: &Value<'_>| this.source.number(key, value, 1..MOST);
        Ok(Rule {
            name: self.optional("name", Self::name)?,
            line: Some(self.source.line(self.span.start)),
            point: self.point,
            filter: Filter {
                device: self.optional("device", Self::device)?,
                pasid: self.optional("pasid", Self::pasid)?,
                address: self.optional("address", Self::addresses)?,
                level: self.small("level", 3)?,
                queue: self.small("queue", u16::MAX.into())?,
                index: self.small("index", u16::MAX.into())?,
                vector: self.small("vector", 2047)?,
                least_len: match action {
                    _ if !matches!(self.point, FaultPoint::DmaRead | FaultPoint::DmaWrite) => 0,
                    FaultAction::Abort { byte } | FaultAction::BitFlip { byte, .. } => byte.saturating_add(1),
                    _ => 0,
                },
            },
            when: self.when()?,
            times: self.optional("times", positive)?,
            action,
        })
    }

    fn name(&self, key: &str, value: &Value<'_>) -> Result<String, PlanError> {
        let expected = format!("a text of at most {MOST_NAME} printable characters");
        let text = self.source.text(key, value, &expected)?;
        let is_fine = text.chars().count() <= MOST_NAME && !text.chars().any(char::is_control);
        if is_fine { Ok(text.into()) } else { Err(self.source.bad(key, value, &expected)) }
    }

    fn device(&self, key: &str, value: &Value<'_>) -> Result<StreamId, PlanError> {
        let expected = "a PCI function such as \"00:01.0\", the first accelerator";
        let text = self.source.text(key, value, expected)?;
        parse_device(text).ok_or_else(|| self.source.bad(key, value, expected))
    }

    fn pasid(&self, key: &str, value: &Value<'_>) -> Result<Option<Pasid>, PlanError> {
        if value.get_ref().as_str() == Some("none") {
            return Ok(None);
        }
        let pasid = number(value).and_then(|number| u32::try_from(number).ok()).and_then(Pasid::new);
        pasid.map(Some).ok_or_else(|| {
            self.source.bad(key, value, "a number below 2^20, or \"none\" for accesses without one")
        })
    }

    fn addresses(&self, key: &str, value: &Value<'_>) -> Result<(u64, u64), PlanError> {
        let expected =
            "an address such as 0x1000, or the first and the last of a range, as in [0x1000, 0x1fff]";
        let range = match value.get_ref().as_array() {
            None => number(value).map(|only| (only, only)),
            Some(array) => match array.iter().map(number).collect::<Vec<_>>()[..] {
                [Some(first), Some(last)] if first <= last => Some((first, last)),
                _ => None,
            },
        };
        range.ok_or_else(|| self.source.bad(key, value, expected))
    }

    fn when(&self) -> Result<When, PlanError> {
        let given: Vec<_> =
            ["nth", "every", "probability"].iter().filter_map(|key| Some((*key, self.get(key)?))).collect();
        match given[..] {
            [] => Ok(When::Always),
            [("nth", value)] => Ok(When::Nth(self.source.number("nth", value, 1..MOST)?)),
            [("every", value)] => Ok(When::Every(self.source.number("every", value, 1..MOST)?)),
            [(key, value)] => {
                let number = match value.get_ref() {
                    DeValue::Float(number) => number.as_str().parse().ok(),
                    DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
                    _ => None,
                };
                let probability = number.filter(|probability: &f64| (0.0..=1.0).contains(probability));
                let expected = "a probability from 0.0 to 1.0";
                probability.map(When::Probability).ok_or_else(|| self.source.bad(key, value, expected))
            }
            [_, (_, value), ..] => {
                let message = "only one of `nth`, `every` and `probability` can be given";
                Err(self.source.error(&value.span(), message))
            }
        }
    }

    fn action(&self) -> Result<FaultAction, PlanError> {
        let kind = self.action;
        let required = |key: &str, about: &str| {
            self.get(key).ok_or_else(|| {
                self.source.error(&self.span, format!("action `{kind}` needs `{key}`: {about}"))
            })
        };
        let byte = || -> Result<u64, PlanError> {
            let range = 0..u128::from(u32::MAX);
            Ok(self
                .optional("byte", |this, key, value| this.source.number(key, value, range))?
                .unwrap_or_default())
        };
        Ok(match kind {
            ActionKind::Translation => FaultAction::Translation,
            ActionKind::Permission => FaultAction::Permission,
            ActionKind::AccessFlag => FaultAction::AccessFlag,
            ActionKind::AddressSize => FaultAction::AddressSize,
            ActionKind::ExternalAbort => FaultAction::ExternalAbort,
            ActionKind::Miss => FaultAction::Miss,
            ActionKind::NotGranted => FaultAction::NotGranted,
            ActionKind::UnsupportedRequest => FaultAction::UnsupportedRequest,
            ActionKind::CompleterAbort => FaultAction::CompleterAbort,
            ActionKind::Delay => {
                let expected = "guest time such as \"250us\", \"10ms\" or \"1s\", at most 60s";
                let value = required("delay", expected)?;
                let delay = value.get_ref().as_str().and_then(parse_time);
                let delay = delay.ok_or_else(|| self.source.bad("delay", value, expected))?;
                FaultAction::Delay { delay }
            }
            ActionKind::Drop => FaultAction::Drop,
            ActionKind::Duplicate => FaultAction::Duplicate,
            ActionKind::Reorder => FaultAction::Reorder,
            ActionKind::Failure => FaultAction::Failure,
            ActionKind::Invalid => FaultAction::Invalid,
            ActionKind::Abort => FaultAction::Abort { byte: byte()? },
            ActionKind::AfterUnbind => FaultAction::AfterUnbind,
            ActionKind::Overflow => FaultAction::Overflow,
            ActionKind::BitFlip => {
                FaultAction::BitFlip { byte: byte()?, bit: self.small("bit", 7)?.unwrap_or_default() }
            }
            ActionKind::Hang => FaultAction::Hang,
            ActionKind::WrongStatus => {
                let value = required("status", "a number from 0 to 255")?;
                let status = self.source.number("status", value, 0..256)?;
                FaultAction::WrongStatus { status: status as u8 }
            }
        })
    }
}

/// `bus:device.function`, in hexadecimal.
pub(super) fn parse_device(text: &str) -> Option<StreamId> {
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let part = |text: &str, digits: usize, most: u32| {
        let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok()?;
        (is_hex && number <= most).then_some(number)
    };
    Some(StreamId(part(bus, 2, 0xff)? << 8 | part(device, 2, 0x1f)? << 3 | part(function, 1, 7)?))
}

/// A number with a unit, in nanoseconds.
fn parse_time(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(unit).filter(|&ns| ns <= MOST_DELAY_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_with_every_key_is_understood() {
        let text = "
            seed = 7
            [[rule]]
            name = 'second leaf'
            point = 'smmu.walk'
            device = '00:01.0'
            pasid = 1
            address = [0xffff_0000_0000_0000, 0xffff_ffff_ffff_ffff]
            level = 3
            queue = 2
            index = 9
            every = 3
            times = 2
            action = 'permission'
            [[rule]]
            point = 'dma.write'
            pasid = 'none'
            address = 0x1000
            probability = 0.5
            action = 'bit-flip'
            byte = 63
            bit = 7
            [[rule]]
            point = 'msi'
            vector = 0
            nth = 1
            action = 'delay'
            delay = '250us'
        ";
        let plan = Plan::parse(text, "plan").unwrap();
        assert_eq!(plan.seed, 7);
        assert_eq!(
            plan.rules[0],
            Rule {
                name: Some("second leaf".into()),
                line: Some(3),
                point: FaultPoint::SmmuWalk,
                filter: Filter {
                    device: Some(StreamId(8)),
                    pasid: Some(Pasid::new(1)),
                    address: Some((0xffff << 48, u64::MAX)),
                    level: Some(3),
                    queue: Some(2),
                    index: Some(9),
                    ..Filter::default()
                },
                when: When::Every(3),
                times: Some(2),
                action: FaultAction::Permission,
            }
        );
        let flip = &plan.rules[1];
        assert_eq!((flip.filter.pasid, flip.filter.address), (Some(None), Some((0x1000, 0x1000))));
        assert_eq!((flip.filter.least_len, flip.when), (64, When::Probability(0.5)));
        assert_eq!(flip.action, FaultAction::BitFlip { byte: 63, bit: 7 });
        assert_eq!(plan.rules[2].action, FaultAction::Delay { delay: 250_000 });
        assert_eq!(plan.rules[2].line, Some(23));
    }

    #[test]
    fn errors_name_line_key_and_what_is_allowed() {
        let rule = |rest: &str| format!("[[rule]]\npoint = 'smmu.walk'\naction = 'translation'\n{rest}\n");
        for (text, line, parts) in [
            ("seed = -1".into(), 1, &["`seed`", "-1", "a number from 0"][..]),
            ("sead = 1".into(), 1, &["unknown key `sead`", "`seed`, `rule`"]),
            ("".into(), 1, &["at least one [[rule]]"]),
            ("x = = 1".into(), 1, &["no TOML"]),
            ("rule = 3".into(), 1, &["`rule`", "[[rule]]"]),
            ("[[rule]]\naction = 'drop'".into(), 1, &["needs `point`", "`smmu.walk`", "`msi`"]),
            ("[[rule]]\npoint = 'smmu.wlak'".into(), 2, &["`point`", "smmu.wlak", "`smmu.walk`"]),
            ("[[rule]]\npoint = 'msi'".into(), 1, &["needs `action`", "`drop`, `duplicate`, `delay`"]),
            (
                "[[rule]]\npoint = 'msi'\n\naction = 'translation'".into(),
                4,
                &["`action`", "`drop`", "(at msi)"],
            ),
            (rule("levle = 3"), 4, &["no key `levle`", "`level`", "`queue`"]),
            (rule("delay = '1s'"), 4, &["no key `delay`"]),
            (rule("level = 4"), 4, &["`level`", "4", "0 to 3"]),
            (rule("nth = 0"), 4, &["`nth`", "0", "from 1"]),
            (rule("nth = 1\nevery = 2"), 5, &["only one of"]),
            (rule("probability = 1.5"), 4, &["`probability`", "1.5", "0.0 to 1.0"]),
            (rule("probability = nan"), 4, &["`probability`"]),
            (rule("pasid = 1048576"), 4, &["`pasid`", "2^20", "none"]),
            (rule("device = 'zip'"), 4, &["`device`", "\"zip\"", "00:01.0"]),
            (rule("device = '00:20.0'"), 4, &["`device`"]),
            (rule("address = [2, 1]"), 4, &["`address`", "0x1000"]),
            (rule("name = 7"), 4, &["`name`"]),
            ("[[rule]]\npoint = 'msi'\naction = 'delay'".into(), 1, &["needs `delay`", "10ms"]),
            ("[[rule]]\npoint = 'msi'\naction = 'delay'\ndelay = '61s'".into(), 4, &["`delay`", "60s"]),
            ("[[rule]]\npoint = 'msi'\naction = 'drop'\nlevel = 1".into(), 4, &["no key `level`"]),
            (
                "[[rule]]\npoint = 'qm.sqe-writeback'\naction = 'wrong-status'\nstatus = 256".into(),
                4,
                &["`status`", "0 to 255"],
            ),
        ] {
            let error = Plan::parse(&text, "plan.toml").unwrap_err();
            assert_eq!(error.line, line, "{text}\n{error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{text}\n{error}\nhas no {part}");
            }
            assert!(error.to_string().starts_with("plan.toml:"), "{error}");
        }
    }

    #[test]
    fn every_action_can_be_written_at_each_of_its_points() {
        for point in FaultPoint::ALL {
            for kind in point.actions() {
                let numbers = if takes_numbers(*point, *kind) { kind.numbers() } else { &[] };
                let numbers: String = numbers
                    .iter()
                    .map(
                        |key| if *key == "delay" { "delay = '1ms'\n".into() } else { format!("{key} = 1\n") },
                    )
                    .collect();
                let text = format!("[[rule]]\npoint = '{point}'\naction = '{kind}'\n{numbers}");
                let plan = Plan::parse(&text, "plan").unwrap();
                assert_eq!((plan.rules[0].point, plan.rules[0].action.kind()), (*point, *kind));
            }
        }
    }
}
