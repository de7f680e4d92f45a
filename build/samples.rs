//! Rust that makes up values of every message, for tests only: they include it themselves.
//!
//! The including file provides `trait Sample` and `struct Source`; it gets an implementation per
//! structure and the macro `for_each_message!`, which hands `module name,` pairs to another macro.

use std::fmt::Write;

use crate::generate::{
    allowed, condition, default_value, field_name, is_nullable, lifetime, method,
};
use crate::table::{Family, Field, Kind, Message};

/// The implementations and the macro.
pub(crate) fn samples(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        for message in &family.messages {
            for structure in &message.structures {
                let elided = if lifetime(message, structure).is_empty() {
                    ""
                } else {
                    "<'_>"
                };
                let _ = writeln!(
                    out,
                    "impl Sample for percolog::wire::messages::{}::{}{elided} {{\n\
                     fn sample(source: &mut Source, version: i16) -> Self {{\n\
                     let _ = version;\nSelf {{",
                    family.module, structure.rust_name
                );
                for field in &structure.fields {
                    let _ = writeln!(out, "{}: {},", field_name(field), value(message, field));
                }
                out.push_str("}\n}\n}\n");
            }
        }
    }
    out.push_str("macro_rules! for_each_message {\n($callback:ident) => {\n$callback! {\n");
    for family in families {
        for message in &family.messages {
            let _ = writeln!(out, "{} {},", family.module, message.name);
        }
    }
    out.push_str("}\n};\n}\n");
    out
}

fn value(message: &Message, field: &Field) -> String {
    let some = match &field.kind {
        Kind::Primitive(name) => format!("source.{}()", method(name)),
        Kind::String => "source.string()".to_owned(),
        Kind::Bytes => "source.bytes()".to_owned(),
        Kind::Records => format!("source.records({})", allowed(message, field)),
        Kind::Array(_) => "source.array(version)".to_owned(),
        Kind::Structure(_) => "Sample::sample(source, version)".to_owned(),
    };
    let value = if is_nullable(message, field) {
        format!(
            "if source.null({}) {{ None }} else {{ Some({some}) }}",
            allowed(message, field)
        )
    } else {
        some
    };
    match condition(field.versions, message.versions) {
        None => value,
        Some(exists) => format!(
            "if {exists} {{ {value} }} else {{ {} }}",
            default_value(message, field)
        ),
    }
}
