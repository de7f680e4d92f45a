//! Rust for the messages and for the table of APIs.

use std::fmt::Write;

use crate::table::{Family, Field, Kind, Message, Structure, Versions};

/// The modules of all families.
pub(crate) fn messages(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        let names: Vec<&str> = family
            .messages
            .iter()
            .map(|message| &*message.name)
            .collect();
        line(&mut out, &format!("/// {}.", names.join(", ")));
        line(&mut out, &format!("pub mod {} {{", family.module));
        line(&mut out, "use crate::wire::codec::*;");
        line(&mut out, "use crate::wire::message::*;");
        if family.messages.iter().any(is_api) {
            line(&mut out, "use crate::wire::api_table::ApiKey;");
        }
        for message in &family.messages {
            for structure in &message.structures {
                let context = Context { message, structure };
                context.definition(&mut out);
                context.default(&mut out);
                context.element(&mut out);
            }
            message_traits(&mut out, family, message);
        }
        line(&mut out, "}");
    }
    out
}

/// The enum of API keys and its properties.
pub(crate) fn api_table(families: &[Family]) -> String {
    let requests: Vec<&Message> = families
        .iter()
        .flat_map(|family| &family.messages)
        .filter(|message| message.kind == "request")
        .collect();
    let mut out = String::new();
    line(&mut out, "/// An API of Kafka.");
    line(
        &mut out,
        "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]",
    );
    line(&mut out, "#[repr(i16)]");
    line(&mut out, "pub enum ApiKey {");
    for message in &requests {
        let (name, key) = (api_name(message), api_key(message));
        line(
            &mut out,
            &format!("/// {name}, key {key}.\n{name} = {key},"),
        );
    }
    line(&mut out, "}");
    let codes = 0..=requests
        .iter()
        .map(|message| api_key(message))
        .max()
        .unwrap_or(0);
    let length = codes.clone().count();
    line(
        &mut out,
        &format!("static APIS: [Option<ApiProperties>; {length}] = ["),
    );
    for code in codes {
        let request = requests.iter().find(|message| api_key(message) == code);
        let properties = request.map(|message| api_properties(message));
        let properties = properties.map_or("None".to_owned(), |text| format!("Some({text})"));
        line(&mut out, &format!("{properties},"));
    }
    line(&mut out, "];");
    out
}

fn api_properties(message: &Message) -> String {
    let listener = |name: &str| message.listeners.iter().any(|listener| listener == name);
    let name = api_name(message);
    let Versions { first, last } = message.versions;
    let flexible_from = flexible_from(message);
    let latest_unstable = message.latest_unstable;
    let (broker, controller) = (listener("broker"), listener("controller"));
    format!(
        "ApiProperties {{ key: ApiKey::{name}, name: \"{name}\", versions: {first}..={last}, \
         latest_unstable: {latest_unstable}, flexible_from: {flexible_from}, \
         listeners: Listeners {{ broker: {broker}, controller: {controller} }} }}"
    )
}

/// Name of the API that a request or response belongs to.
pub(crate) fn api_name(message: &Message) -> &str {
    message
        .name
        .trim_end_matches("Request")
        .trim_end_matches("Response")
}

fn is_api(message: &Message) -> bool {
    message.kind == "request" || message.kind == "response"
}

fn api_key(message: &Message) -> i16 {
    message.key.expect("requests have a key")
}

fn flexible_from(message: &Message) -> String {
    message
        .flexible_from
        .map_or("i16::MAX".to_owned(), |from| from.to_string())
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn message_traits(out: &mut String, family: &Family, message: &Message) {
    let Versions { first, last } = message.versions;
    let lifetime = lifetime(message, message.structure(&message.name));
    let name = format!("{}{lifetime}", message.name);
    let lifetime = if lifetime.is_empty() {
        "<'_>"
    } else {
        lifetime
    };
    let generics = if lifetime == "<'_>" { "" } else { lifetime };
    let _ = writeln!(
        out,
        "impl{generics} Message{lifetime} for {name} {{\n\
         const NAME: &'static str = \"{}\";\n\
         const VERSIONS: std::ops::RangeInclusive<i16> = {first}..={last};\n\
         const FLEXIBLE_FROM: i16 = {};\n}}",
        message.name,
        flexible_from(message)
    );
    if !is_api(message) {
        return;
    }
    let (capital, api) = (
        if message.kind == "request" {
            "Request"
        } else {
            "Response"
        },
        api_name(message),
    );
    let _ = writeln!(
        out,
        "impl{generics} {capital}{lifetime} for {name} {{\nconst API_KEY: ApiKey = ApiKey::{api};"
    );
    if message.kind == "request" {
        let response = format!("{api}Response");
        let answer = family
            .messages
            .iter()
            .find(|message| message.name == response);
        let answer = answer.expect("the response is in the table of its request");
        let borrows = answer.structure_borrows(answer.structure(&response));
        let lifetime = if borrows { "<'r>" } else { "" };
        line(out, &format!("type Response<'r> = {response}{lifetime};"));
    }
    line(out, "}");
}

/// `<'a>` where a structure borrows.
pub(crate) fn lifetime(message: &Message, structure: &Structure) -> &'static str {
    if message.structure_borrows(structure) {
        "<'a>"
    } else {
        ""
    }
}

/// The Rust name of a field.
pub(crate) fn field_name(field: &Field) -> String {
    let name = snake_case(&field.name);
    match &*name {
        "type" | "match" | "ref" | "move" => format!("r#{name}"),
        _ => name,
    }
}

fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after_lower = before.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let starts_word = before.is_some_and(|c| c.is_ascii_uppercase())
            && letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_lower || starts_word) {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// The condition that `version` is in `versions`, given that it is in `within`; `None` if always.
pub(crate) fn condition(versions: Versions, within: Versions) -> Option<String> {
    let Some(Versions { first, last }) = versions.intersection(within) else {
        return Some("false".to_owned());
    };
    match (first > within.first, last < within.last) {
        (false, false) => None,
        _ if first == last => Some(format!("version == {first}")),
        (true, false) => Some(format!("version >= {first}")),
        (false, true) => Some(format!("version <= {last}")),
        (true, true) => Some(format!("({first}..={last}).contains(&version)")),
    }
}

/// Fewest bytes a value of `kind` takes in the compact form, which is never the longer one.
fn minimum_bytes(message: &Message, kind: &Kind, version: i16) -> usize {
    match kind {
        Kind::Primitive(name) => match &**name {
            "bool" | "int8" => 1,
            "int16" | "uint16" => 2,
            "int32" | "uint32" => 4,
            "int64" | "float64" => 8,
            "uuid" => 16,
            _ => panic!("{}: unknown type {name}", message.name),
        },
        Kind::Structure(name) => structure_minimum_bytes(message, message.structure(name), version),
        Kind::String if !is_flexible(message, version) => 2,
        Kind::Array(_) | Kind::Bytes | Kind::Records if !is_flexible(message, version) => 4,
        _ => 1,
    }
}

fn is_flexible(message: &Message, version: i16) -> bool {
    message.flexible_from.is_some_and(|from| version >= from)
}

fn structure_minimum_bytes(message: &Message, structure: &Structure, version: i16) -> usize {
    let fields = structure
        .fields
        .iter()
        .filter(|field| field.tag.is_none() && field.versions.contains(version));
    let fields = fields.map(|field| match (&field.kind, &field.null) {
        // Only the marker.
        (Kind::Structure(_), Some(_)) => 1,
        (kind, _) => minimum_bytes(message, kind, version),
    });
    fields.sum::<usize>() + usize::from(is_flexible(message, version))
}

/// Whether `from` is `target` or has it somewhere in `version`.
fn reaches(message: &Message, from: &Structure, target: &Structure, version: i16) -> bool {
    let fields = from
        .fields
        .iter()
        .filter(|field| field.versions.contains(version));
    let mut inner = fields.filter_map(|field| field.kind.structure());
    from.name == target.name
        || inner.any(|name| reaches(message, message.structure(name), target, version))
}

/// Whether `version` is a word of `body` other than as the name of a field.
fn uses_version(body: &str) -> bool {
    body.match_indices("version").any(|(at, word)| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let (before, after) = (&body[..at], &body[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(|c| is_part(c) && c != '.' || c == ':')
    })
}

/// A field within its structure and message, or a structure within its message.
struct Context<'t> {
    message: &'t Message,
    structure: &'t Structure,
}

impl Context<'_> {
    fn lifetime(&self) -> &'static str {
        lifetime(self.message, self.structure)
    }

    fn condition(&self, versions: Versions) -> Option<String> {
        condition(versions, self.message.versions)
    }

    /// Whether null is possible in any version of the message.
    fn is_nullable(&self, field: &Field) -> bool {
        is_nullable(self.message, field)
    }

    fn rust_type(&self, kind: &Kind) -> String {
        match kind {
            Kind::Primitive(name) => rust_primitive(name).to_owned(),
            Kind::String => "Str<'a>".to_owned(),
            Kind::Bytes => "Bytes<'a>".to_owned(),
            Kind::Records => "Records<'a>".to_owned(),
            Kind::Array(element) => format!("Vec<{}>", self.rust_type(element)),
            Kind::Structure(name) => {
                let structure = self.message.structure(name);
                format!(
                    "{}{}",
                    structure.rust_name,
                    lifetime(self.message, structure)
                )
            }
        }
    }

    fn definition(&self, out: &mut String) {
        let Structure {
            name,
            rust_name,
            fields,
        } = self.structure;
        let what = if *name == self.message.name {
            let Versions { first, last } = self.message.versions;
            format!("{name}, versions {first} to {last}.")
        } else {
            format!("`{name}` of {}.", self.message.name)
        };
        let derive_default = fields.iter().all(|field| self.has_rust_default(field));
        let default = if derive_default { ", Default" } else { "" };
        let _ = writeln!(
            out,
            "/// {what}\n#[derive(Debug, Clone, PartialEq{default})]\npub struct {rust_name}{} {{",
            self.lifetime()
        );
        for field in fields {
            let kind = self.rust_type(&field.kind);
            let kind = if self.is_nullable(field) {
                format!("Option<{kind}>")
            } else {
                kind
            };
            let _ = writeln!(
                out,
                "/// `{}`\npub {}: {kind},",
                field.line,
                field_name(field)
            );
        }
        line(out, "}");
    }

    fn has_rust_default(&self, field: &Field) -> bool {
        self.default_value(field) == "Default::default()"
    }

    fn default_value(&self, field: &Field) -> String {
        default_value(self.message, field)
    }

    fn default(&self, out: &mut String) {
        let Structure {
            rust_name, fields, ..
        } = self.structure;
        if fields.iter().all(|field| self.has_rust_default(field)) {
            return;
        }
        let elided = if self.lifetime().is_empty() {
            ""
        } else {
            "<'_>"
        };
        let _ = writeln!(
            out,
            "impl Default for {rust_name}{elided} {{\nfn default() -> Self {{\nSelf {{"
        );
        for field in fields {
            let _ = writeln!(out, "{}: {},", field_name(field), self.default_value(field));
        }
        line(out, "}\n}\n}");
    }

    fn element(&self, out: &mut String) {
        let (read, write) = (self.read_body(), self.write_body());
        let parameter = |body: &str| match uses_version(body) {
            true => "version: i16",
            false => "_version: i16",
        };
        let minimum_bytes = self.minimum_bytes();
        let (generics, lifetime) = if self.lifetime().is_empty() {
            ("", "<'_>")
        } else {
            ("<'a>", "<'a>")
        };
        let reader = if generics.is_empty() { "<'_>" } else { "<'a>" };
        let name = format!("{}{}", self.structure.rust_name, self.lifetime());
        let _ = writeln!(
            out,
            "impl{generics} Element{lifetime} for {name} {{\n\
             const MINIMUM_BYTES: usize = {minimum_bytes};\n\
             fn read(reader: &mut Reader{reader}, {}) -> Result<Self, DecodeError> {{\n{read}}}\n\
             fn write(&self, writer: &mut Writer, {}) {{\n{write}}}\n}}",
            parameter(&read),
            parameter(&write)
        );
    }

    /// Fewest bytes in any version in which the message has the structure at all.
    fn minimum_bytes(&self) -> usize {
        let Context { message, structure } = self;
        let top = message.structure(&message.name);
        let versions = message.versions.first..=message.versions.last;
        let bytes = versions
            .filter(|&version| reaches(message, top, structure, version))
            .map(|version| structure_minimum_bytes(message, structure, version))
            .min()
            .expect("no structure is without use");
        // Only what stands in no array may take no bytes.
        bytes.max(usize::from(structure.name == message.name))
    }

    fn tagged(&self) -> Vec<&Field> {
        let mut tagged: Vec<&Field> = self
            .structure
            .fields
            .iter()
            .filter(|field| field.tag.is_some())
            .collect();
        tagged.sort_by_key(|field| field.tag);
        tagged
    }

    fn read_body(&self) -> String {
        let tagged = self.tagged();
        let mut out = String::new();
        let mutable = if tagged.is_empty() { "" } else { "mut " };
        let _ = writeln!(out, "let {mutable}value = Self {{");
        for field in &self.structure.fields {
            let default = self.default_value(field);
            let read = self.read_value(field);
            let value = match (field.tag, self.condition(field.versions)) {
                (Some(_), _) => default,
                (None, None) => read,
                (None, Some(condition)) => {
                    format!("if {condition} {{ {read} }} else {{ {default} }}")
                }
            };
            let _ = writeln!(out, "{}: {value},", field_name(field));
        }
        line(&mut out, "};");
        if self.message.flexible_from.is_none() {
        } else if tagged.is_empty() {
            line(&mut out, "reader.skip_tags()?;");
        } else {
            line(&mut out, "reader.tags(&mut |reader, tag| {\nmatch tag {");
            for field in &tagged {
                let guard = self.condition(field.versions);
                let guard = guard
                    .map(|guard| format!(" if {guard}"))
                    .unwrap_or_default();
                let (tag, name) = (field.tag.unwrap_or_default(), field_name(field));
                let _ = writeln!(
                    out,
                    "{tag}{guard} => value.{name} = {},",
                    self.read_value(field)
                );
            }
            line(&mut out, "_ => return Ok(false),\n}\nOk(true)\n})?;");
        }
        line(&mut out, "Ok(value)");
        out
    }

    fn allowed(&self, field: &Field) -> String {
        allowed(self.message, field)
    }

    fn read_value(&self, field: &Field) -> String {
        let allowed = self.allowed(field);
        let classic = if field.never_flexible { "classic_" } else { "" };
        match (&field.kind, self.is_nullable(field)) {
            (Kind::Primitive(name), _) => format!("reader.{}()?", method(name)),
            (Kind::String, false) => "reader.string()?".to_owned(),
            (Kind::String, true) => format!("reader.{classic}nullable_string({allowed})?"),
            (Kind::Bytes, false) => "reader.bytes()?".to_owned(),
            (Kind::Bytes, true) => format!("reader.nullable_bytes({allowed})?"),
            (Kind::Records, _) => "reader.records()?".to_owned(),
            (Kind::Array(_), false) => "reader.array(version)?".to_owned(),
            (Kind::Array(_), true) => format!("reader.nullable_array(version, {allowed})?"),
            (Kind::Structure(_), false) => "Element::read(reader, version)?".to_owned(),
            (Kind::Structure(_), true) if field.tag.is_some() => {
                "reader.tagged_structure(version)?".to_owned()
            }
            (Kind::Structure(_), true) => format!("reader.nullable_structure(version, {allowed})?"),
        }
    }

    fn write_body(&self) -> String {
        let mut out = String::new();
        for field in self
            .structure
            .fields
            .iter()
            .filter(|field| field.tag.is_none())
        {
            let write = self.write_value(field);
            match self.condition(field.versions) {
                None => line(&mut out, &format!("{write};")),
                Some(condition) => line(&mut out, &format!("if {condition} {{ {write}; }}")),
            }
        }
        if self.message.flexible_from.is_none() {
            return out;
        }
        let tagged = self.tagged();
        if tagged.is_empty() {
            line(&mut out, "writer.begin_tags();");
            return out;
        }
        line(&mut out, "let tags = writer.begin_tags();");
        for field in tagged {
            let exists = self.condition(field.versions);
            let exists = exists
                .map(|exists| format!("{exists} && "))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "if {exists}{} {{ writer.tag(&tags, {}, &mut |writer| {}); }}",
                self.is_not_default(field),
                field.tag.unwrap_or_default(),
                self.write_value(field)
            );
        }
        out
    }

    fn is_not_default(&self, field: &Field) -> String {
        let name = field_name(field);
        let default = self.default_value(field);
        match (&field.kind, self.is_nullable(field)) {
            (Kind::Array(_) | Kind::String | Kind::Bytes, false)
                if default == "Default::default()" =>
            {
                format!("!self.{name}.is_empty()")
            }
            (_, true) if default == "Default::default()" => format!("self.{name}.is_some()"),
            (Kind::Structure(kind), false) => {
                let kind = &self.message.structure(kind).rust_name;
                format!("self.{name} != {kind}::default()")
            }
            (Kind::Primitive(kind), _) if kind == "bool" => match &*default {
                "true" => format!("!self.{name}"),
                _ => format!("self.{name}"),
            },
            (Kind::Primitive(kind), _) if default == "Default::default()" => {
                format!("self.{name} != {}::default()", rust_primitive(kind))
            }
            _ => format!("self.{name} != {default}"),
        }
    }

    fn write_value(&self, field: &Field) -> String {
        let name = field_name(field);
        let allowed = self.allowed(field);
        let classic = if field.never_flexible { "classic_" } else { "" };
        match (&field.kind, self.is_nullable(field)) {
            (Kind::Primitive(kind), _) => format!("writer.{}(self.{name})", method(kind)),
            (Kind::String, false) => format!("writer.string(&self.{name})"),
            (Kind::String, true) => {
                format!("writer.{classic}nullable_string(self.{name}.as_deref(), {allowed})")
            }
            (Kind::Bytes, false) => format!("writer.bytes(&self.{name})"),
            (Kind::Bytes, true) => {
                format!("writer.nullable_bytes(self.{name}.as_deref(), {allowed})")
            }
            (Kind::Records, _) => {
                let allowed = field.null.map_or("false".to_owned(), |null| {
                    self.condition(null).unwrap_or("true".to_owned())
                });
                format!("writer.records(self.{name}, {allowed})")
            }
            (Kind::Array(_), false) => format!("writer.array(&self.{name}, version)"),
            (Kind::Array(_), true) => {
                format!("writer.nullable_array(self.{name}.as_deref(), version, {allowed})")
            }
            (Kind::Structure(_), false) => format!("self.{name}.write(writer, version)"),
            (Kind::Structure(_), true) if field.tag.is_some() => {
                format!("writer.tagged_structure(self.{name}.as_ref(), version)")
            }
            (Kind::Structure(_), true) => {
                format!("writer.nullable_structure(self.{name}.as_ref(), version, {allowed})")
            }
        }
    }
}

/// Whether null is possible in any version of the message; records have a null of their own.
pub(crate) fn is_nullable(message: &Message, field: &Field) -> bool {
    field.kind != Kind::Records
        && field
            .null
            .is_some_and(|null| null.intersection(message.versions).is_some())
}

/// The condition under which `field` may be null where it exists.
pub(crate) fn allowed(message: &Message, field: &Field) -> String {
    let within = field
        .versions
        .intersection(message.versions)
        .unwrap_or(message.versions);
    match field.null {
        None => "false".to_owned(),
        Some(null) => condition(null, within).unwrap_or("true".to_owned()),
    }
}

/// The expression for what `field` holds unless told otherwise.
pub(crate) fn default_value(message: &Message, field: &Field) -> String {
    let rust_default = "Default::default()".to_owned();
    let is_float = field.kind == Kind::Primitive("float64".to_owned());
    match (
        is_nullable(message, field),
        field.default.as_deref(),
        &field.kind,
    ) {
        (true, Some("null"), _) => rust_default,
        (true, None | Some(""), _) => "Some(Default::default())".to_owned(),
        (_, None | Some("" | "null" | "false" | "0"), _) => rust_default,
        (_, Some(text), _) if is_float && !text.contains('.') => format!("{text}.0"),
        (_, Some(text), Kind::Primitive(_)) => text.to_owned(),
        (_, Some(text), _) => panic!("{}: default {text:?} of {}", message.name, field.name),
    }
}

fn rust_primitive(name: &str) -> &'static str {
    match name {
        "bool" => "bool",
        "int8" => "i8",
        "int16" => "i16",
        "int32" => "i32",
        "int64" => "i64",
        "uint16" => "u16",
        "uint32" => "u32",
        "float64" => "f64",
        "uuid" => "Uuid",
        _ => panic!("unknown type {name}"),
    }
}

/// The reader's and writer's method for a primitive type.
pub(crate) fn method(name: &str) -> &str {
    if name == "bool" { "boolean" } else { name }
}
