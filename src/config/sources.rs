//! Where settings come from: a TOML file, a file of Java properties, `--set`, flags.

use super::broker::kafka_listener;
use super::disk_profile::{DiskSettings, FILE_NAME};
use super::kafka_refusals;
use super::kind::Kind;
use super::knob::{Settings, Source};
use super::problem::Problem;
use super::topic;

/// The texts a configuration is made of; later ones win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// What the data directories say about their disks.
    pub disk: Option<DiskSettings>,
    /// Content of the TOML file.
    pub toml: Option<&'a str>,
    /// Content of a file in the syntax of Java properties, Kafka's `server.properties`.
    pub kafka_properties: Option<&'a str>,
    /// `key=value` of each `--set`, in order.
    pub sets: &'a [String],
    /// Names of ours and values of the flags of their own.
    pub flags: &'a [(&'a str, String)],
}

/// Sets what the sources say and returns what was refused.
pub(super) fn apply(sources: &Sources<'_>, settings: &mut Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in sources.disk.iter().flat_map(DiskSettings::entries) {
        let name = format!("storage.{name}");
        let set = settings.set(&name, &value.to_string(), Source::Disk);
        problems.extend(set.map_err(|why| Problem::refused(FILE_NAME, why)).err());
    }
    if let Some(text) = sources.toml {
        let entries = toml_entries(text, settings, &mut problems);
        apply_entries(entries, Source::File, settings, &mut problems);
    }
    if let Some(text) = sources.kafka_properties {
        match java_properties(text) {
            Ok(entries) => {
                apply_entries(entries, Source::KafkaProperties, settings, &mut problems);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut sets = Vec::new();
    for set in sources.sets {
        match set.split_once('=') {
            Some((name, value)) => sets.push((name.trim().to_string(), value.to_string())),
            None => problems.push(Problem::refused(set, "expected key=value")),
        }
    }
    apply_entries(sets, Source::Set, settings, &mut problems);
    let flags = sources
        .flags
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone()));
    apply_entries(flags.collect(), Source::Flag, settings, &mut problems);
    problems
}

/// Sets the entries of one source. Where Kafka has several names for one setting (milliseconds,
/// minutes, hours), the most precise wins, wherever it stands.
fn apply_entries(
    mut entries: Vec<(String, String)>,
    source: Source,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    entries.sort_by_key(|(name, _)| settings.precedence(bare(name, settings)));
    for (name, value) in entries {
        problems.extend(apply_entry(&name, &value, source, settings).err());
    }
}

/// Kafka's names may stand in `[defaults]` as well as alone.
fn bare<'n>(name: &'n str, settings: &Settings) -> &'n str {
    let Some(rest) = name.strip_prefix("defaults.") else {
        return name;
    };
    let is_default = settings
        .find(rest)
        .is_some_and(|(row, _)| settings.rows[row].knob.name.starts_with("defaults."));
    if is_default { rest } else { name }
}

fn apply_entry(
    name: &str,
    value: &str,
    source: Source,
    settings: &mut Settings,
) -> Result<(), Problem> {
    let bare = bare(name, settings);
    if let ("listeners" | "advertised.listeners", Some((row, _))) = (bare, settings.find(bare)) {
        let address =
            kafka_listener(bare, value).map_err(|why| Problem::invalid_value(name, value, why))?;
        let ours = settings.rows[row].knob.name.to_string();
        return settings.set(&ours, &address.to_string(), source);
    }
    if settings.find(bare).is_none() {
        let is_harmless =
            kafka_refusals::find(bare).is_some_and(|refusal| refusal.is_harmless(value));
        return if is_harmless {
            Ok(())
        } else {
            Err(unknown(name))
        };
    }
    settings.set(bare, value, source)
}

/// Why a name that is in no table is refused.
pub(super) fn unknown(name: &str) -> Problem {
    if let Some(refusal) = kafka_refusals::find(name) {
        return Problem::refused(name, refusal.reason.text());
    }
    let topic_name = name.strip_prefix("defaults.").unwrap_or(name);
    if let Some(broker_name) = topic::broker_name(topic_name) {
        let why =
            format!("this is the name for a topic; the default for all of them is {broker_name}");
        return Problem::refused(name, why);
    }
    Problem::refused(
        name,
        "unknown setting; percolog serve --print-config lists all there are",
    )
}

fn toml_entries(
    text: &str,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Vec<(String, String)> {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            problems.push(Problem::refused("configuration file", error));
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    // Depth is bounded by the parser, which refuses deep nesting.
    let mut tables = vec![(String::new(), table)];
    while let Some((prefix, table)) = tables.pop() {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => tables.push((format!("{name}."), inner)),
                value => {
                    let row = settings.find(bare(&name, settings));
                    let kind = row.map(|(row, _)| settings.rows[row].knob.kind);
                    match toml_text(kind, &value) {
                        Ok(text) => entries.push((name, text)),
                        Err(why) => {
                            problems.push(Problem::invalid_value(&name, &value.to_string(), why))
                        }
                    }
                }
            }
        }
    }
    entries
}

/// The value as text, if its TOML type suits the setting; any will do for a setting unknown.
fn toml_text(kind: Option<Kind>, value: &toml::Value) -> Result<String, String> {
    use toml::Value as T;
    let expected = match (kind, value) {
        (
            None
            | Some(
                Kind::Int(..)
                | Kind::Long(..)
                | Kind::OptionalInt(..)
                | Kind::GzipLevel
                | Kind::Double(..)
                | Kind::Cores,
            ),
            T::Integer(number),
        ) => {
            return Ok(number.to_string());
        }
        (None | Some(Kind::Double(..)), T::Float(number)) => return Ok(number.to_string()),
        (None | Some(Kind::Bool), T::Boolean(value)) => return Ok(value.to_string()),
        (
            None | Some(Kind::List | Kind::Choices(_) | Kind::ThrottledReplicas),
            T::Array(values),
        ) => {
            let texts = values.iter().map(|value| match value {
                T::String(text) if !text.contains(',') => Ok(text.clone()),
                _ => Err("Expected an array of strings without commas".to_string()),
            });
            return texts
                .collect::<Result<Vec<_>, _>>()
                .map(|texts| texts.join(","));
        }
        (Some(Kind::OptionalInt(..)), T::String(text)) if text.is_empty() => {
            return Ok(String::new());
        }
        (Some(Kind::Int(..) | Kind::Long(..) | Kind::OptionalInt(..) | Kind::GzipLevel), _) => {
            "an integer"
        }
        (Some(Kind::Double(..)), _) => "a number",
        (Some(Kind::Bool), _) => "true or false, without quotes",
        (_, T::String(text)) => return Ok(text.clone()),
        (Some(Kind::List | Kind::Choices(_) | Kind::ThrottledReplicas), _) => "an array of strings",
        _ => "a string",
    };
    Err(format!("Expected {expected}"))
}

/// Parses the syntax of `java.util.Properties`.
fn java_properties(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut entries = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches([' ', '\t', '\x0c']);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_string();
        while ends_escaped(&logical) {
            logical.pop();
            let next = lines.next().unwrap_or_default();
            logical.push_str(next.trim_start_matches([' ', '\t', '\x0c']));
            if next.is_empty() {
                break;
            }
        }
        let (name, value) = split_property(&logical);
        entries.push((unescape(name)?, unescape(value)?));
    }
    Ok(entries)
}

/// Whether the line ends in an odd number of backslashes.
fn ends_escaped(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Splits at the first `=`, `:` or white space that is not escaped.
fn split_property(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|letter| {
        let ends = !is_escaped && matches!(letter, '=' | ':' | ' ' | '\t' | '\x0c');
        is_escaped = letter == '\\' && !is_escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let space = [' ', '\t', '\x0c'];
    let rest = line[end..].trim_start_matches(space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(space))
}

fn unescape(text: &str) -> Result<String, Problem> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\x0c'),
            Some('u') => {
                let digits: String = letters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4);
                let letter = code.and_then(char::from_u32);
                plain.push(letter.ok_or_else(|| Problem::refused(text, "malformed \\uxxxx"))?);
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_properties_are_read_as_java_reads_them() {
        let text = "# comment\n! another\n\n a=1\nb : 2\nc 3\nd\ne=\n f\\:g = x\\=y \nlong = one,\\\n   two\nu=\\u00e9\\t\\\\\n";
        let entries = java_properties(text).unwrap();
        let expected = [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", ""),
            ("e", ""),
            ("f:g", "x=y "),
            ("long", "one,two"),
            ("u", "é\t\\"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(entries, expected);
        assert!(java_properties("a=\\u12").is_err());
        assert_eq!(
            java_properties("a=1\\").unwrap(),
            [("a".to_string(), "1".to_string())]
        );
    }
}
