//! The tables' grammar.
//!
//! A table describes a family of messages in blocks; an empty line ends a block, and `#` starts a
//! line of comment. Parts of a line are separated by two or more blanks.
//!
//! ```text
//! Name  KIND  [key N]  versions V  flexible F  [latest-unstable]  [listeners a,b]
//!   Field: TYPE [as RustName]  vV  [tag N]  [null vV]  [key]  [flex none]  [= DEFAULT]
//!     ...the fields of TYPE, if it is a structure that is described here
//!   struct Type [as RustName]  vV
//!     ...the fields of a structure that several fields of the message share
//! ```
//!
//! * KIND: `request`, `response`, `header`, `data`, `coordinator-key`, `coordinator-value`.
//! * V: `3`, `3-7` or `3+` (the last only for fields). F: `9+` or `none`.
//! * TYPE: `bool int8 int16 int32 int64 uint16 uint32 float64 string bytes records uuid`, the name
//!   of a structure, or `[]` before one of them.
//! * `as`: the Rust name, where request and response both have a structure of that name.
//! * `tag N`: the field is tagged in all its versions. `null`: versions in which it may be null.
//! * `key`: the field that identifies an element among its siblings.
//! * `flex none`: the field keeps the classic form in flexible versions.
//! * `= DEFAULT`: a number, `true`, `false`, `null`, or nothing for the empty string. Without it:
//!   zero, false, or empty; a field that may be null is null only by `= null`.

/// All messages of one file.
#[derive(Debug)]
pub(crate) struct Family {
    /// Name of the Rust module.
    pub(crate) module: String,
    /// In the order of the file.
    pub(crate) messages: Vec<Message>,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Kafka's name.
    pub(crate) name: String,
    /// What the message is for.
    pub(crate) kind: String,
    /// API key, or type of a coordinator record.
    pub(crate) key: Option<i16>,
    /// Versions that exist.
    pub(crate) versions: Versions,
    /// First flexible version.
    pub(crate) flexible_from: Option<i16>,
    /// Whether the last version is not final yet.
    pub(crate) latest_unstable: bool,
    /// Where the API is served.
    pub(crate) listeners: Vec<String>,
    /// The structures, the message itself first.
    pub(crate) structures: Vec<Structure>,
}

/// Fields that follow each other.
#[derive(Debug)]
pub(crate) struct Structure {
    /// Kafka's name.
    pub(crate) name: String,
    /// Ours.
    pub(crate) rust_name: String,
    /// In wire order.
    pub(crate) fields: Vec<Field>,
}

/// One field.
#[derive(Debug)]
pub(crate) struct Field {
    /// Kafka's name.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) kind: Kind,
    /// Versions in which it exists.
    pub(crate) versions: Versions,
    /// Versions in which it may be null.
    pub(crate) null: Option<Versions>,
    /// Its tag.
    pub(crate) tag: Option<u32>,
    /// Classic even in flexible versions.
    pub(crate) never_flexible: bool,
    /// As in the table.
    pub(crate) default: Option<String>,
    /// The line of the table.
    pub(crate) line: String,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number, an id, a boolean: by its name in the table.
    Primitive(String),
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Record batches.
    Records,
    /// A structure, by Kafka's name.
    Structure(String),
    /// Any number of one of the others.
    Array(Box<Kind>),
}

impl Kind {
    /// Name of the structure that the field holds one or many of.
    pub(crate) fn structure(&self) -> Option<&str> {
        match self {
            Kind::Structure(name) => Some(name),
            Kind::Array(element) => element.structure(),
            _ => None,
        }
    }
}

/// A closed range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// First.
    pub(crate) first: i16,
    /// Last.
    pub(crate) last: i16,
}

impl Versions {
    fn parse(text: &str) -> Result<Versions, String> {
        let number = |text: &str| {
            text.parse::<i16>()
                .map_err(|_| format!("bad version {text:?}"))
        };
        if let Some(first) = text.strip_suffix('+') {
            return Ok(Versions {
                first: number(first)?,
                last: i16::MAX,
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(Versions {
            first: number(first)?,
            last: number(last)?,
        })
    }

    /// The versions both have, if any.
    pub(crate) fn intersection(self, other: Versions) -> Option<Versions> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Versions { first, last })
    }

    /// Whether `version` is one of them.
    pub(crate) fn contains(self, version: i16) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

impl Message {
    /// The structure that fields call `name`.
    pub(crate) fn structure(&self, name: &str) -> &Structure {
        self.structures
            .iter()
            .find(|structure| structure.name == name)
            .expect("checked by parse")
    }

    /// Whether values of `kind` borrow from the frame.
    pub(crate) fn borrows(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Primitive(_) => false,
            Kind::String | Kind::Bytes | Kind::Records => true,
            Kind::Array(element) => self.borrows(element),
            Kind::Structure(name) => self.structure_borrows(self.structure(name)),
        }
    }

    /// Whether a field of `structure` borrows from the frame.
    pub(crate) fn structure_borrows(&self, structure: &Structure) -> bool {
        structure
            .fields
            .iter()
            .any(|field| self.borrows(&field.kind))
    }
}

/// Reads the table of one family.
pub(crate) fn parse(module: &str, text: &str) -> Result<Family, String> {
    let mut messages: Vec<Message> = Vec::new();
    // The open structures: indentation of their fields, and index in the message.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = |error: String| format!("line {}: {error}", index + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let indentation = line.len() - line.trim_start().len();
        if indentation == 0 {
            messages.push(parse_message(line).map_err(at)?);
            open = vec![(2, 0)];
            continue;
        }
        let message = messages
            .last_mut()
            .ok_or_else(|| at("field without a message".into()))?;
        open.retain(|&(depth, _)| depth <= indentation);
        let parent = open.last().filter(|&&(depth, _)| depth == indentation);
        let parent = parent.ok_or_else(|| at("unexpected indentation".into()))?.1;
        if let Some(structure) = parse_line(line.trim(), parent, message).map_err(at)? {
            message.structures.push(structure);
            open.push((indentation + 2, message.structures.len() - 1));
        }
    }
    for message in &mut messages {
        // What a field only names was opened like what it describes, but got no fields.
        message
            .structures
            .retain(|structure| structure.name == message.name || !structure.fields.is_empty());
    }
    let family = Family {
        module: module.to_owned(),
        messages,
    };
    check(&family)?;
    Ok(family)
}

fn parse_message(line: &str) -> Result<Message, String> {
    let mut parts = line
        .split("  ")
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let name = parts.next().unwrap_or_default().to_owned();
    let kind = parts.next().unwrap_or_default().to_owned();
    let top = Structure {
        name: name.clone(),
        rust_name: name.clone(),
        fields: Vec::new(),
    };
    let mut message = Message {
        name,
        kind,
        key: None,
        versions: Versions { first: 0, last: -1 },
        flexible_from: None,
        latest_unstable: false,
        listeners: Vec::new(),
        structures: vec![top],
    };
    for part in parts {
        match part.split_once(' ').unwrap_or((part, "")) {
            ("key", key) => message.key = Some(key.parse().map_err(|_| "bad key".to_owned())?),
            ("versions", versions) => message.versions = Versions::parse(versions)?,
            ("flexible", "none") => message.flexible_from = None,
            ("flexible", from) => message.flexible_from = Some(Versions::parse(from)?.first),
            ("latest-unstable", "") => message.latest_unstable = true,
            ("listeners", names) => {
                message.listeners = names.split(',').map(str::to_owned).collect();
            }
            _ => return Err(format!("unknown part {part:?}")),
        }
    }
    if message.versions.first > message.versions.last {
        return Err("no versions".to_owned());
    }
    Ok(message)
}

/// Adds a field to the structure `parent`; returns the structure that the next lines describe.
fn parse_line(
    line: &str,
    parent: usize,
    message: &mut Message,
) -> Result<Option<Structure>, String> {
    let mut parts = line
        .split("  ")
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let head = parts.next().unwrap_or_default();
    let (head, alias) = match head.split_once(" as ") {
        Some((head, alias)) => (head, Some(alias)),
        None => (head, None),
    };
    let described = |name: &str| Structure {
        name: name.to_owned(),
        rust_name: alias.unwrap_or(name).to_owned(),
        fields: Vec::new(),
    };
    if let Some(name) = head.strip_prefix("struct ") {
        return Ok(Some(described(name)));
    }
    let (name, kind) = head.split_once(": ").ok_or("a field is `Name: type`")?;
    let kind = parse_kind(kind);
    let structure = kind.structure().map(described);
    message.structures[parent]
        .fields
        .push(parse_field(line, name, kind, parts)?);
    Ok(structure)
}

fn parse_kind(text: &str) -> Kind {
    if let Some(element) = text.strip_prefix("[]") {
        return Kind::Array(Box::new(parse_kind(element)));
    }
    match text {
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        _ if text.starts_with(|c: char| c.is_ascii_lowercase()) => Kind::Primitive(text.to_owned()),
        _ => Kind::Structure(text.to_owned()),
    }
}

fn parse_field<'a>(
    line: &str,
    name: &str,
    kind: Kind,
    parts: impl Iterator<Item = &'a str>,
) -> Result<Field, String> {
    let mut field = Field {
        name: name.to_owned(),
        kind,
        versions: Versions { first: 0, last: -1 },
        null: None,
        tag: None,
        never_flexible: false,
        default: None,
        line: line.to_owned(),
    };
    for part in parts {
        match part.split_once(' ').unwrap_or((part, "")) {
            ("tag", tag) => field.tag = Some(tag.parse().map_err(|_| "bad tag".to_owned())?),
            ("null", versions) => {
                field.null = Some(Versions::parse(versions.trim_start_matches('v'))?);
            }
            ("flex", "none") => field.never_flexible = true,
            ("=", default) => field.default = Some(default.to_owned()),
            ("key", "") => {}
            (versions, "") if versions.starts_with('v') => {
                field.versions = Versions::parse(&versions[1..])?;
            }
            _ => return Err(format!("unknown part {part:?}")),
        }
    }
    if field.versions.first > field.versions.last {
        return Err(format!("{name} has no versions"));
    }
    Ok(field)
}

/// Every structure is described once, and every field's type is.
fn check(family: &Family) -> Result<(), String> {
    let mut rust_names = Vec::new();
    for message in &family.messages {
        for structure in &message.structures {
            rust_names.push(structure.rust_name.as_str());
            for field in &structure.fields {
                check_field(message, field)?;
            }
        }
    }
    rust_names.sort_unstable();
    match rust_names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{} is described twice", pair[0])),
        None => Ok(()),
    }
}

fn check_field(message: &Message, field: &Field) -> Result<(), String> {
    let flexible_from = message.flexible_from.unwrap_or(i16::MAX);
    if field.tag.is_some() && field.versions.first < flexible_from {
        return Err(format!(
            "{} is tagged before its message is flexible",
            field.name
        ));
    }
    let Some(name) = field.kind.structure() else {
        return Ok(());
    };
    match message
        .structures
        .iter()
        .any(|structure| structure.name == name)
    {
        true => Ok(()),
        false => Err(format!("{} names the unknown structure {name}", field.name)),
    }
}
