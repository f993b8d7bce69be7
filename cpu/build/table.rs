//! The parser of `spec/*.isa`: text in, rows out. The format is described in `spec/README.md`.

/// One field of a pattern.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub name: String,
    pub lsb: u32,
    pub width: u32,
}

/// What an operand slot is filled with.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// Registers: their role (`r`, `w`, `rsp`, ...), the expression of the first one's number and how many there are.
    Register { role: String, expr: String, count: u32 },
    /// A number computed from fields and `pc`.
    Value(String),
}

/// How a load or store moves one or two registers.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// A name of [`ELEMENTS`].
    pub element: String,
    /// A name of [`ADDRESSING`].
    pub addressing: String,
}

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub file: String,
    pub line: usize,
    pub name: String,
    /// The pattern as it is written, with single blanks.
    pub pattern: String,
    pub mask: u32,
    pub value: u32,
    pub fields: Vec<Field>,
    pub kind: String,
    /// Path of the handler below `crate::exec`.
    pub handler: String,
    pub operands: Vec<(String, Operand)>,
    pub class: String,
    pub feature: String,
    pub memory: String,
    pub access: Option<Access>,
    /// Acquires or releases.
    pub ordered: bool,
    pub reads_flags: bool,
    pub writes_flags: bool,
    pub fp: bool,
    /// In the interpreter's loop itself, not behind a function pointer.
    pub hot: bool,
    /// The path of its emitter below `jit::emit`, if it has one.
    pub emitter: Option<String>,
    pub undefined: Vec<String>,
    pub unpredictable: Vec<String>,
    pub syntax: Option<String>,
}

impl Row {
    /// The name of the `Op` variant.
    pub(crate) fn variant(&self) -> String {
        let mut out = String::new();
        for part in self.name.split('_') {
            let mut chars = part.chars();
            if let Some(first) = chars.next() {
                // Two numbers side by side must stay apart.
                if out.ends_with(|c: char| c.is_ascii_digit()) && first.is_ascii_digit() {
                    out.push('X');
                }
                out.extend(first.to_uppercase());
                out.push_str(chars.as_str());
            }
        }
        out
    }

    /// The emitter of a row: the handler's namesake, but for loads and stores one that takes element and form from the row.
    fn emitter_path(&self, module: &str) -> String {
        if self.access.is_none() {
            return self.handler.clone();
        }
        let pair = if self.operands.iter().any(|(slot, _)| slot == "ra") { "_pair" } else { "" };
        let vector = if self.fp { "vector_" } else { "" };
        format!("{module}::{vector}{}{pair}", self.memory)
    }

    /// Whether the interpreter's loop contains the handler. Branches are always there: they decide where it goes.
    pub(crate) fn is_in_loop(&self) -> bool {
        self.hot || self.kind == "branch" || self.kind == "indirect"
    }

    /// How many bits the pattern fixes.
    pub(crate) fn specificity(&self) -> u32 {
        self.mask.count_ones()
    }
}

pub(crate) const KINDS: [&str; 5] = ["plain", "fallible", "branch", "indirect", "system"];
pub(crate) const ROLES: [&str; 8] = ["r", "w", "rsp", "wsp", "rwsp", "vr", "vw", "vrw"];
pub(crate) const SLOTS: [&str; 7] = ["rd", "rn", "rm", "ra", "a", "b", "imm"];
pub(crate) const FEATURES: [&str; 24] = [
    "base", "crc32", "lse", "lrcpc", "lrcpc2", "flagm", "flagm2", "aes", "pmull", "sha1", "sha256", "sha512",
    "sha3", "rdm", "sb", "uao", "dit", "ssbs", "fp16", "dotprod", "fhm", "fcma", "jscvt", "lse2",
];
pub(crate) const MEMORY: [&str; 8] =
    ["none", "load", "store", "exclusive", "atomic", "prefetch", "maintenance", "zero"];
/// What one register of a load or store moves: name, bytes, and how a load fills the rest of the register.
pub(crate) const ELEMENTS: [(&str, u32, &str); 14] = [
    ("U8", 1, "Zero"),
    ("U16", 2, "Zero"),
    ("U32", 4, "Zero"),
    ("U64", 8, "Zero"),
    ("S8", 1, "Sign64"),
    ("S16", 2, "Sign64"),
    ("S32", 4, "Sign64"),
    ("S8w", 1, "Sign32"),
    ("S16w", 2, "Sign32"),
    ("u8", 1, "Zero"),
    ("u16", 2, "Zero"),
    ("u32", 4, "Zero"),
    ("u64", 8, "Zero"),
    ("u128", 16, "Zero"),
];
pub(crate) const ADDRESSING: [&str; 8] =
    ["offset", "unprivileged", "pre", "post", "reg", "uxtw", "sxtw", "literal"];

/// The rows of one file. Errors read `line: message`.
pub(crate) fn parse(stem: &str, text: &str) -> Result<Vec<Row>, String> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    let mut start = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if pending.is_empty() {
            start = number + 1;
        }
        if let Some(head) = line.strip_suffix('\\') {
            pending.push_str(head);
            continue;
        }
        pending.push_str(line);
        lines.push((start, std::mem::take(&mut pending)));
    }
    if !pending.is_empty() {
        return Err(format!("{start}: the file ends in a continued line"));
    }
    let mut scope = Scope { stem: stem.to_owned(), module: stem.to_owned(), ..Scope::default() };
    let mut rows = Vec::new();
    expand(&lines, &[], &mut scope, &mut rows)?;
    Ok(rows)
}

/// What directives have set for the rows that follow.
#[derive(Clone, Debug, Default)]
struct Scope {
    stem: String,
    module: String,
    class: Option<String>,
    feature: Option<String>,
    fp: bool,
    hot: bool,
    /// The rows have emitters.
    emit: bool,
}

/// Walks lines, replaying each `for` block once per value.
fn expand(
    lines: &[(usize, String)],
    variables: &[(String, String)],
    scope: &mut Scope,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    let mut i = 0;
    while let Some((number, line)) = lines.get(i) {
        let number = *number;
        let fail = |message: String| format!("{number}: {message}");
        let word = line.split_whitespace().next().unwrap_or("");
        let rest = substitute(line[word.len()..].trim(), variables);
        let switch = || match rest.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(fail(format!("`{word}` is on or off, not `{rest}`"))),
        };
        i += 1;
        match word {
            "class" => scope.class = Some(rest),
            "feature" => scope.feature = Some(rest),
            "module" => scope.module = rest,
            "fp" => scope.fp = switch()?,
            "hot" => scope.hot = switch()?,
            "emit" => scope.emit = switch()?,
            "end" => return Err(fail("`end` without `for`".into())),
            "for" => {
                let mut depth = 1;
                let body = i;
                while depth > 0 {
                    let (_, inner) = lines.get(i).ok_or_else(|| fail("`for` without `end`".into()))?;
                    match inner.split_whitespace().next() {
                        Some("for") => depth += 1,
                        Some("end") => depth -= 1,
                        _ => {}
                    }
                    i += 1;
                }
                let body = &lines[body..i - 1];
                let lists: Vec<(String, Vec<String>)> = rest
                    .split_whitespace()
                    .map(|item| {
                        let (name, list) =
                            item.split_once('=').ok_or_else(|| fail(format!("`{item}` is no name=list")))?;
                        Ok((name.to_owned(), list.split(',').map(str::to_owned).collect()))
                    })
                    .collect::<Result<_, String>>()?;
                let count = lists.first().map_or(0, |(_, list)| list.len());
                if lists.iter().any(|(_, list)| list.len() != count) {
                    return Err(fail("the lists of one `for` have different lengths".into()));
                }
                for turn in 0..count {
                    let mut inner = variables.to_vec();
                    inner.retain(|(name, _)| lists.iter().all(|(new, _)| new != name));
                    inner.extend(lists.iter().map(|(name, list)| (name.clone(), list[turn].clone())));
                    // The longest names first, so that `$w` does not eat the start of `$wide`.
                    inner.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
                    expand(body, &inner, &mut scope.clone(), rows)?;
                }
            }
            _ => rows.push(row(number, &substitute(line, variables), scope).map_err(fail)?),
        }
    }
    Ok(())
}

fn substitute(line: &str, variables: &[(String, String)]) -> String {
    let mut line = line.to_owned();
    for (name, value) in variables {
        line = line.replace(&format!("${{{name}}}"), value);
        line = line.replace(&format!("${name}"), value);
    }
    line
}

fn row(line: usize, text: &str, scope: &Scope) -> Result<Row, String> {
    let mut columns = text.split(';').map(str::trim);
    let name = columns.next().unwrap_or("").to_owned();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Err(format!("`{name}` is no row name"));
    }
    let pattern_text = columns.next().ok_or("no pattern")?;
    let (mask, value, fields) = pattern(pattern_text)?;
    let kind = columns.next().ok_or("no kind")?;
    let (kind, handler) = match kind.split_once(':') {
        Some((kind, path)) => (kind.trim(), path.trim().to_owned()),
        None => (kind, name.clone()),
    };
    if !KINDS.contains(&kind) {
        return Err(format!("`{kind}` is no handler kind"));
    }
    let mut row = Row {
        file: scope.stem.clone(),
        line,
        handler: format!("{}::{handler}", scope.module),
        name,
        pattern: pattern_text.split_whitespace().collect::<Vec<_>>().join(" "),
        mask,
        value,
        fields,
        kind: kind.to_owned(),
        operands: Vec::new(),
        class: scope.class.clone().ok_or("a row before any `class`")?,
        feature: scope.feature.clone().unwrap_or_else(|| "base".into()),
        memory: "none".into(),
        access: None,
        ordered: false,
        reads_flags: false,
        writes_flags: false,
        fp: scope.fp,
        hot: scope.hot,
        emitter: None,
        undefined: Vec::new(),
        unpredictable: Vec::new(),
        syntax: None,
    };
    for item in words(columns.next().unwrap_or(""))? {
        let (slot, expr) = item.split_once('=').ok_or_else(|| format!("`{item}` is no slot=operand"))?;
        if !SLOTS.contains(&slot) {
            return Err(format!("`{slot}` is no operand slot"));
        }
        row.operands.push((slot.to_owned(), operand(expr)?));
    }
    let attributes = words(columns.next().unwrap_or(""))?;
    for item in &attributes {
        attribute(&mut row, item)?;
    }
    row.access = access(&attributes)?;
    if scope.emit {
        row.emitter = Some(row.emitter_path(&scope.module));
    }
    row.syntax = columns.next().filter(|s| !s.is_empty()).map(str::to_owned);
    if let Some(extra) = columns.next() {
        return Err(format!("a seventh column: `{extra}`"));
    }
    if !FEATURES.contains(&row.feature.as_str()) {
        return Err(format!("unknown feature `{}`", row.feature));
    }
    Ok(row)
}

fn attribute(row: &mut Row, item: &str) -> Result<(), String> {
    if let Some(expr) = inside(item, "undef") {
        row.undefined.push(expr);
        return Ok(());
    }
    if let Some(expr) = inside(item, "unpred") {
        row.unpredictable.push(expr);
        return Ok(());
    }
    let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
    match (name, value) {
        ("flags", Some(how @ ("r" | "w" | "rw"))) => {
            row.reads_flags = how.contains('r');
            row.writes_flags = how.contains('w');
        }
        ("feat", Some(name)) => row.feature = name.to_owned(),
        ("mem", Some(value)) => {
            let memory = value.split(':').next().unwrap_or("");
            if !MEMORY.contains(&memory) {
                return Err(format!("unknown attribute `{item}`"));
            }
            row.memory = memory.to_owned();
        }
        // Together with the element of `mem`, in `access`.
        ("addr", Some(_)) => {}
        ("ordered", None) => row.ordered = true,
        ("fp", None) => row.fp = true,
        ("nofp", None) => row.fp = false,
        _ => return Err(format!("unknown attribute `{item}`")),
    }
    Ok(())
}

/// What `mem=KIND:ELEMENT` and `addr=FORM` say, which come together.
fn access(attributes: &[String]) -> Result<Option<Access>, String> {
    let value = |name: &str| attributes.iter().find_map(|item| item.strip_prefix(name)?.strip_prefix('='));
    match (value("mem").and_then(|value| value.split_once(':')), value("addr")) {
        (None, None) => Ok(None),
        (Some(("load" | "store", element)), Some(addressing)) => {
            if !ELEMENTS.iter().any(|(name, ..)| *name == element) {
                return Err(format!("`{element}` is no element"));
            }
            if !ADDRESSING.contains(&addressing) {
                return Err(format!("`{addressing}` is no addressing form"));
            }
            Ok(Some(Access { element: element.to_owned(), addressing: addressing.to_owned() }))
        }
        _ => Err("an element of a load or store and an addressing form come together".into()),
    }
}

fn inside(item: &str, name: &str) -> Option<String> {
    Some(item.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?.to_owned())
}

fn operand(text: &str) -> Result<Operand, String> {
    for role in ROLES {
        // `role(expr)`, or `role(expr)*count`.
        let (one, count) = match text.rsplit_once(")*") {
            Some((start, count)) => (format!("{start})"), count),
            None => (text.to_owned(), "1"),
        };
        if let Some(expr) = inside(&one, role) {
            let count = count.parse().map_err(|_| format!("`{text}`: no number of registers"))?;
            return Ok(Operand::Register { role: role.to_owned(), expr, count });
        }
    }
    Ok(Operand::Value(text.to_owned()))
}

/// Splits at blanks outside parentheses.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut depth = 0i32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            if !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if depth != 0 {
        return Err(format!("unbalanced parentheses in `{text}`"));
    }
    if !word.is_empty() {
        out.push(word);
    }
    Ok(out)
}

fn pattern(text: &str) -> Result<(u32, u32, Vec<Field>), String> {
    let (mut mask, mut value) = (0u64, 0u64);
    let mut fields: Vec<Field> = Vec::new();
    let mut used = 0;
    for token in text.split_whitespace() {
        let width = if let Some((name, width)) = token.split_once(':') {
            let width: u32 = width.parse().map_err(|_| format!("`{token}`: no width"))?;
            fields.push(Field { name: name.to_owned(), lsb: 0, width });
            (mask, value) = (mask << width, value << width);
            width
        } else if token.chars().all(|c| matches!(c, '0' | '1' | '?')) {
            for c in token.chars() {
                mask = mask << 1 | u64::from(c != '?');
                value = value << 1 | u64::from(c == '1');
            }
            token.len() as u32
        } else {
            fields.push(Field { name: token.to_owned(), lsb: 0, width: 1 });
            (mask, value) = (mask << 1, value << 1);
            1
        };
        used += width;
        if used > 32 {
            return Err(format!("the pattern has more than 32 bits at `{token}`"));
        }
        // Counted from the top for now.
        if let Some(field) =
            fields.last_mut().filter(|_| token.contains(':') || !token.starts_with(['0', '1', '?']))
        {
            field.lsb = 32 - used;
        }
    }
    if used != 32 {
        return Err(format!("the pattern has {used} bits"));
    }
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|f| f.name == field.name) {
            return Err(format!("two fields called `{}`", field.name));
        }
    }
    Ok((mask as u32, value as u32, fields))
}
