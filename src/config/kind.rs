//! What values a setting takes: parsing and bounds, with Kafka's rules and Kafka's words.

use std::fmt;

/// Entries of a list setting.
const LIST_ENTRIES_MAX: usize = 10_000;
/// Cores a list may name.
const CORES_MAX: u16 = 1024;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or a literal address, without brackets.
    pub host: String,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
}

impl Address {
    /// Parses `host:port` or `[v6]:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        // A colon outside brackets is an IPv6 address whose port cannot be told apart.
        let host = match bare {
            Some(bare) => bare,
            None if host.contains([':', '[', ']']) => return None,
            None => host,
        };
        let fits = |letter: char| letter.is_ascii_graphic() && !"/@,\"'".contains(letter);
        let is_host = !host.is_empty() && host.len() <= 255 && host.chars().all(fits);
        let port = port.parse().ok()?;
        is_host.then(|| Address {
            host: host.to_string(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which cores serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreSelection {
    /// All that the process may use.
    Auto,
    /// The first so many of them.
    Count(u16),
    /// Exactly these, in ascending order.
    List(Vec<u16>),
}

impl CoreSelection {
    /// Parses `auto`, a count (`4`), or a list (`0,2-3`; one core alone is `3-3`).
    #[must_use]
    pub fn parse(text: &str) -> Option<CoreSelection> {
        if text == "auto" {
            return Some(CoreSelection::Auto);
        }
        if let Ok(count) = text.parse::<u16>() {
            return (1..=CORES_MAX)
                .contains(&count)
                .then_some(CoreSelection::Count(count));
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse().ok()?);
            if first > last || last >= CORES_MAX {
                return None;
            }
            cores.extend(first..=last);
        }
        let named = cores.len();
        cores.sort_unstable();
        cores.dedup();
        (cores.len() == named).then_some(CoreSelection::List(cores))
    }
}

impl fmt::Display for CoreSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreSelection::Auto => f.write_str("auto"),
            CoreSelection::Count(count) => write!(f, "{count}"),
            CoreSelection::List(cores) => match cores[..] {
                [only] => write!(f, "{only}-{only}"),
                _ => f.write_str(&join(cores)),
            },
        }
    }
}

fn join<T: ToString>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not set, where that is possible.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Float(f64),
    /// A string.
    Text(String),
    /// Strings.
    List(Vec<String>),
    /// A host and a port.
    Address(Address),
    /// A choice of cores.
    Cores(CoreSelection),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => Ok(()),
            Value::Bool(value) => value.fmt(f),
            Value::Integer(value) => value.fmt(f),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(value) => value.fmt(f),
            Value::List(values) => f.write_str(&values.join(",")),
            Value::Address(value) => value.fmt(f),
            Value::Cores(value) => value.fmt(f),
        }
    }
}

/// The types that Kafka's DescribeConfigs tells apart, by their number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum KafkaType {
    /// True or false.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 64 bits.
    Long = 5,
    /// Floating point.
    Double = 6,
    /// Comma separated.
    List = 7,
}

/// The values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number of 32 bits, with both bounds.
    Int(i32, i32),
    /// A whole number of 64 bits, with both bounds.
    Long(i64, i64),
    /// Like `Int`, or nothing.
    OptionalInt(i32, i32),
    /// A gzip level: 1 to 9, or -1 for the default.
    GzipLevel,
    /// A number, with both bounds.
    Double(f64, f64),
    /// Any text, not empty.
    Text,
    /// Text or nothing.
    OptionalText,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Any of these, none of them twice; possibly none at all.
    Choices(&'static [&'static str]),
    /// Any texts, at least one.
    List,
    /// Kafka's lists of throttled replicas: `*`, or pairs of partition and broker.
    ThrottledReplicas,
    /// A host and a port.
    Address,
    /// A host and a port, or nothing.
    OptionalAddress,
    /// A choice of cores.
    Cores,
}

impl Kind {
    /// Its type in DescribeConfigs.
    #[must_use]
    pub fn kafka_type(&self) -> KafkaType {
        match self {
            Kind::Bool => KafkaType::Boolean,
            Kind::Int(..) | Kind::OptionalInt(..) | Kind::GzipLevel => KafkaType::Int,
            Kind::Long(..) => KafkaType::Long,
            Kind::Double(..) => KafkaType::Double,
            Kind::Choices(_) | Kind::List | Kind::ThrottledReplicas => KafkaType::List,
            _ => KafkaType::String,
        }
    }

    /// Its bounds in words, for printing.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self {
            Kind::Bool => "true or false".to_string(),
            Kind::Int(least, most) => {
                range(i64::from(*least), i64::from(*most), i64::from(i32::MAX))
            }
            Kind::OptionalInt(least, most) => {
                let range = range(i64::from(*least), i64::from(*most), i64::from(i32::MAX));
                format!("{range}, or nothing")
            }
            Kind::Long(least, most) => range(*least, *most, i64::MAX),
            Kind::GzipLevel => "[1,...,9] or -1".to_string(),
            Kind::Double(least, f64::MAX) => format!("[{least},...]"),
            Kind::Double(least, most) => format!("[{least},...,{most}]"),
            Kind::Text => "any text".to_string(),
            Kind::OptionalText => "any text, or nothing".to_string(),
            Kind::Choice(valid) => format!("one of {}", valid.join(", ")),
            Kind::Choices(valid) => format!("any of {}", valid.join(", ")),
            Kind::List => "a list, not empty".to_string(),
            Kind::ThrottledReplicas => "*, or a list of partition:broker".to_string(),
            Kind::Address => "host:port".to_string(),
            Kind::OptionalAddress => "host:port, or nothing".to_string(),
            Kind::Cores => "auto, a count, or a list such as 0,2-3".to_string(),
        }
    }

    /// Parses `text`, which Kafka trims for every type, and checks bounds.
    ///
    /// # Errors
    /// What is wrong, in Kafka's words where it has such a rule.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = self.parse_unbounded(text)?;
        self.check(&value)?;
        Ok(value)
    }

    /// Parses `text` without checking bounds.
    pub(super) fn parse_unbounded(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Kind::Bool if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Kind::Bool if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Kind::Bool => Err("Expected value to be either true or false".to_string()),
            Kind::OptionalInt(..) | Kind::OptionalText | Kind::OptionalAddress
                if text.is_empty() =>
            {
                Ok(Value::Null)
            }
            Kind::Int(..) | Kind::OptionalInt(..) | Kind::GzipLevel => match text.parse::<i32>() {
                Ok(value) => Ok(Value::Integer(i64::from(value))),
                Err(_) => Err("Not a number of type INT".to_string()),
            },
            Kind::Long(..) => match text.parse() {
                Ok(value) => Ok(Value::Integer(value)),
                Err(_) => Err("Not a number of type LONG".to_string()),
            },
            Kind::Double(..) => match text.parse() {
                Ok(value) => Ok(Value::Float(value)),
                Err(_) => Err("Not a number of type DOUBLE".to_string()),
            },
            Kind::Text | Kind::OptionalText | Kind::Choice(_) => Ok(Value::Text(text.to_string())),
            Kind::Choices(_) | Kind::List | Kind::ThrottledReplicas => parse_list(text),
            Kind::Address | Kind::OptionalAddress => match Address::parse(text) {
                Some(address) => Ok(Value::Address(address)),
                None => Err("Expected host:port, IPv6 as [address]:port".to_string()),
            },
            Kind::Cores => match CoreSelection::parse(text) {
                Some(cores) => Ok(Value::Cores(cores)),
                None => Err(format!("Expected {}, below {CORES_MAX}", self.bounds())),
            },
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Kind::Int(least, most) | Kind::OptionalInt(least, most), Value::Integer(value)) => {
                check_range(*value, i64::from(*least), i64::from(*most))
            }
            (Kind::Long(least, most), Value::Integer(value)) => check_range(*value, *least, *most),
            (Kind::GzipLevel, Value::Integer(value))
                if *value != -1 && !(1..=9).contains(value) =>
            {
                Err("Value must be between 1 and 9 or equal to -1".to_string())
            }
            (Kind::Double(least, _), Value::Float(value)) if value.is_nan() || value < least => {
                Err(format!("Value must be at least {least}"))
            }
            (Kind::Double(_, most), Value::Float(value)) if value > most => {
                Err(format!("Value must be no more than {most}"))
            }
            (Kind::Text, Value::Text(text)) if text.is_empty() => {
                Err("String must be non-empty".to_string())
            }
            (Kind::Choice(valid), Value::Text(text)) if !valid.contains(&text.as_str()) => {
                Err(format!("String must be one of: {}", valid.join(", ")))
            }
            (Kind::Choices(valid), Value::List(values)) => check_choices(valid, values),
            (Kind::List, Value::List(values)) if values.is_empty() => {
                Err("List must not be empty".to_string())
            }
            (Kind::ThrottledReplicas, Value::List(values)) => check_replicas(values),
            _ => Ok(()),
        }
    }
}

fn range(least: i64, most: i64, unbounded: i64) -> String {
    if most == unbounded {
        format!("[{least},...]")
    } else {
        format!("[{least},...,{most}]")
    }
}

fn check_range(value: i64, least: i64, most: i64) -> Result<(), String> {
    if value < least {
        return Err(format!("Value must be at least {least}"));
    }
    if value > most {
        return Err(format!("Value must be no more than {most}"));
    }
    Ok(())
}

fn parse_list(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::List(Vec::new()));
    }
    let values: Vec<String> = text
        .split(',')
        .map(|part| part.trim().to_string())
        .collect();
    if values.len() > LIST_ENTRIES_MAX {
        return Err(format!(
            "List must not have more than {LIST_ENTRIES_MAX} values"
        ));
    }
    if values.iter().any(String::is_empty) {
        return Err("List values must not be empty".to_string());
    }
    let mut sorted: Vec<&String> = values.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("List values must not be duplicated".to_string());
    }
    Ok(Value::List(values))
}

fn check_choices(valid: &[&str], values: &[String]) -> Result<(), String> {
    match values.iter().find(|value| !valid.contains(&value.as_str())) {
        Some(_) => Err(format!("String must be one of: {}", valid.join(", "))),
        None => Ok(()),
    }
}

fn check_replicas(values: &[String]) -> Result<(), String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_pair = |value: &String| {
        value
            .split_once(':')
            .is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
    };
    if values == ["*"] || values.iter().all(is_pair) {
        return Ok(());
    }
    Err(
        "must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            .to_string(),
    )
}

/// Reads a typed field out of a value whose kind its table row declares.
pub(super) trait FromValue: Sized {
    /// `None` when row and field disagree, which a test rules out.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<bool> {
        if let Value::Bool(value) = value {
            Some(*value)
        } else {
            None
        }
    }
}

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<$type> {
                if let Value::Integer(value) = value { (*value).try_into().ok() } else { None }
            }
        }
    )*};
}
from_integer!(i16, u16, i32, u32, i64, u64, usize);

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<f64> {
        if let Value::Float(value) = value {
            Some(*value)
        } else {
            None
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<String> {
        if let Value::Text(value) = value {
            Some(value.clone())
        } else {
            None
        }
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: &Value) -> Option<Vec<String>> {
        if let Value::List(values) = value {
            Some(values.clone())
        } else {
            None
        }
    }
}

impl FromValue for Address {
    fn from_value(value: &Value) -> Option<Address> {
        if let Value::Address(value) = value {
            Some(value.clone())
        } else {
            None
        }
    }
}

impl FromValue for CoreSelection {
    fn from_value(value: &Value) -> Option<CoreSelection> {
        if let Value::Cores(value) = value {
            Some(value.clone())
        } else {
            None
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Option<T>> {
        if *value == Value::Null {
            Some(None)
        } else {
            T::from_value(value).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_javas_rules() {
        let long = Kind::Long(-1, i64::MAX);
        assert_eq!(long.parse(" +5 "), Ok(Value::Integer(5)));
        assert_eq!(long.parse("-1"), Ok(Value::Integer(-1)));
        assert_eq!(
            long.parse("-2"),
            Err("Value must be at least -1".to_string())
        );
        for bad in ["", "x", "1.0", "1e3", "9223372036854775808"] {
            assert_eq!(
                long.parse(bad),
                Err("Not a number of type LONG".to_string()),
                "{bad}"
            );
        }
        let int = Kind::Int(1, 10);
        assert_eq!(
            int.parse("11"),
            Err("Value must be no more than 10".to_string())
        );
        assert_eq!(
            int.parse("2147483648"),
            Err("Not a number of type INT".to_string())
        );
        let ratio = Kind::Double(0.0, 1.0);
        assert_eq!(ratio.parse("0.25"), Ok(Value::Float(0.25)));
        for bad in ["1.01", "-0.1", "NaN", "half"] {
            assert!(ratio.parse(bad).is_err(), "{bad}");
        }
        for good in ["-1", "1", "9"] {
            assert!(Kind::GzipLevel.parse(good).is_ok());
        }
        for bad in ["0", "10", "-2"] {
            assert!(
                Kind::GzipLevel
                    .parse(bad)
                    .unwrap_err()
                    .contains("between 1 and 9")
            );
        }
    }

    #[test]
    fn booleans_choices_and_lists() {
        assert_eq!(Kind::Bool.parse(" TRUE"), Ok(Value::Bool(true)));
        assert!(Kind::Bool.parse("yes").is_err());
        let choice = Kind::Choice(&["a", "b"]);
        assert!(choice.parse("a").is_ok());
        assert_eq!(
            choice.parse("A"),
            Err("String must be one of: a, b".to_string())
        );
        let choices = Kind::Choices(&["a", "b"]);
        assert_eq!(choices.parse(""), Ok(Value::List(vec![])));
        assert_eq!(choices.parse("b, a").unwrap().to_string(), "b,a");
        for bad in ["c", "a,,b", "a,a", ","] {
            assert!(choices.parse(bad).is_err(), "{bad}");
        }
        assert!(Kind::List.parse("").is_err());
        for good in ["", "*", "0:1,1:2"] {
            assert!(Kind::ThrottledReplicas.parse(good).is_ok(), "{good}");
        }
        for bad in ["*,0:1", "0", "0:", "a:b"] {
            assert!(Kind::ThrottledReplicas.parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:9092", "host.example:0", "[::1]:65535"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "host",
            ":1",
            "::1:9092",
            "host:65536",
            "host:-1",
            "a b:1",
            "x://h:1",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
        assert_eq!(Kind::OptionalAddress.parse(""), Ok(Value::Null));
    }

    #[test]
    fn cores() {
        let list = |cores: &[u16]| Some(CoreSelection::List(cores.to_vec()));
        assert_eq!(CoreSelection::parse("auto"), Some(CoreSelection::Auto));
        assert_eq!(CoreSelection::parse("4"), Some(CoreSelection::Count(4)));
        assert_eq!(CoreSelection::parse("0,2-3"), list(&[0, 2, 3]));
        assert_eq!(CoreSelection::parse("3-3").unwrap().to_string(), "3-3");
        for bad in ["", "0", "3-2", "0,0", "0-2,1", "-1", "0,", "1024-1024", "a"] {
            assert_eq!(CoreSelection::parse(bad), None, "{bad}");
        }
    }
}
