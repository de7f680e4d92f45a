//! A row of the table of settings, and the values that all rows have together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::disk_profile;
use super::kind::{FromValue, Kind, Value};
use super::problem::Problem;

/// A name Kafka has for a setting, and what its unit is multiplied by to get ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Kafka's name.
    pub name: &'static str,
    /// 1, or for instance 3,600,000 where Kafka counts hours and we count milliseconds.
    pub factor: i64,
}

/// One setting of the broker.
#[derive(Clone, Debug)]
pub struct Knob {
    /// `section.key`.
    pub name: Cow<'static, str>,
    /// Kafka's names for it, the one that wins first.
    pub aliases: &'static [Alias],
    /// What values it takes.
    pub kind: Kind,
    /// What its number counts; empty when it is no number.
    pub unit: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// Whether it can be changed while the broker runs.
    pub is_dynamic: bool,
    /// One line of what it does.
    pub doc: &'static str,
}

impl Knob {
    /// The name under which Kafka's admin API shows it: Kafka's if there is one.
    #[must_use]
    pub fn kafka_name(&self) -> &str {
        self.aliases.first().map_or(&self.name, |alias| alias.name)
    }
}

/// Where a value comes from; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The table.
    Default,
    /// What the probe of the disk found.
    Disk,
    /// The TOML file.
    File,
    /// A file of Java properties, `--kafka-properties`.
    KafkaProperties,
    /// `--set`.
    Set,
    /// A flag of its own.
    Flag,
    /// The cluster-wide default that the admin API set.
    DynamicDefault,
    /// What the admin API set for this broker.
    DynamicBroker,
}

impl Source {
    /// Its name for printing.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::Disk => disk_profile::FILE_NAME,
            Source::File => "file",
            Source::KafkaProperties => "kafka-properties",
            Source::Set => "--set",
            Source::Flag => "flag",
            Source::DynamicDefault => "dynamic default",
            Source::DynamicBroker => "dynamic",
        }
    }
}

/// A value and all it overrides.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) knob: Knob,
    /// From the default to the one in force, at most one per source.
    pub(super) layers: Vec<(Source, Value)>,
}

impl Setting {
    pub(super) fn current(&self) -> &(Source, Value) {
        self.layers.last().expect("the default is always there")
    }
}

/// All settings of the broker, by position in the table.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) rows: Vec<Setting>,
    by_name: BTreeMap<String, (usize, i64)>,
}

impl Settings {
    /// The table's defaults.
    pub(super) fn new(knobs: Vec<Knob>) -> Settings {
        let mut settings = Settings {
            rows: Vec::with_capacity(knobs.len()),
            by_name: BTreeMap::new(),
        };
        for (row, knob) in knobs.into_iter().enumerate() {
            let names = knob
                .aliases
                .iter()
                .map(|alias| (alias.name.to_string(), alias.factor));
            for (name, factor) in names.chain([(knob.name.to_string(), 1)]) {
                let other = settings.by_name.insert(name, (row, factor));
                assert!(
                    other.is_none_or(|other| other == (row, factor)),
                    "two rows answer to a name of {}",
                    knob.name
                );
            }
            let default = knob.kind.parse(knob.default).unwrap_or_else(|problem| {
                panic!(
                    "the default of {} breaks its own bounds: {problem}",
                    knob.name
                )
            });
            settings.rows.push(Setting {
                knob,
                layers: vec![(Source::Default, default)],
            });
        }
        settings
    }

    /// The row that answers to `name`, its own or Kafka's, and the factor of that name.
    pub(super) fn find(&self, name: &str) -> Option<(usize, i64)> {
        self.by_name.get(name).copied()
    }

    /// How much `name` counts among Kafka's names of one row; the highest wins within a source.
    pub(super) fn precedence(&self, name: &str) -> usize {
        let Some((row, _)) = self.find(name) else {
            return 0;
        };
        let aliases = self.rows[row].knob.aliases;
        let position = aliases.iter().position(|alias| alias.name == name);
        position.map_or(usize::MAX, |position| aliases.len() - position)
    }

    /// Sets a row under the name it was given by.
    pub(super) fn set(&mut self, name: &str, text: &str, source: Source) -> Result<(), Problem> {
        let (row, factor) = self
            .find(name)
            .ok_or_else(|| Problem::refused(name, "unknown setting"))?;
        let kind = self.rows[row].knob.kind;
        let invalid = |why: String| Problem::invalid_value(name, text, why);
        let value = if factor == 1 {
            kind.parse(text).map_err(invalid)?
        } else {
            let value: i32 = text
                .trim()
                .parse()
                .map_err(|_| invalid("Not a number of type INT".to_string()))?;
            // Below zero means unlimited in any unit.
            let scaled = if value < 0 {
                -1
            } else {
                i64::from(value) * factor
            };
            kind.parse(&scaled.to_string()).map_err(invalid)?
        };
        self.put(row, source, value);
        Ok(())
    }

    /// Sets a row without a look at its bounds: for presets of tests.
    pub(super) fn force(&mut self, name: &str, text: &str) {
        let (row, _) = self
            .find(name)
            .unwrap_or_else(|| panic!("{name} is no setting"));
        let value = self.rows[row].knob.kind.parse_unbounded(text);
        self.put(
            row,
            Source::Flag,
            value.unwrap_or_else(|problem| panic!("{name}: {problem}")),
        );
    }

    fn put(&mut self, row: usize, source: Source, value: Value) {
        let layers = &mut self.rows[row].layers;
        layers.retain(|(other, _)| *other != source);
        let at = layers.partition_point(|(other, _)| *other < source);
        layers.insert(at, (source, value));
    }

    /// The value of the row with this name of ours.
    pub(super) fn value(&self, name: &str) -> &Value {
        let (row, _) = self
            .find(name)
            .unwrap_or_else(|| panic!("{name} is no setting"));
        &self.rows[row].current().1
    }

    /// The value of a row as the type its field has.
    pub(super) fn typed<T: FromValue>(&self, name: &str) -> T {
        let value = self.value(name);
        T::from_value(value).unwrap_or_else(|| panic!("{name} = {value} does not suit its field"))
    }
}

/// Declares a section: its struct, and the rows of its table.
macro_rules! section {
    (
        $(#[doc = $struct_doc:literal])+
        $struct_name:ident in $section:literal {
            $(
                #[doc = $doc:literal]
                $field:ident: $type:ty = $default:literal, $kind:expr, $unit:literal,
                [$($alias:literal $(* $factor:literal)?),*] $(, $dynamic:ident)?;
            )+
        }
    ) => {
        $(#[doc = $struct_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct_name {
            $(#[doc = $doc] pub $field: $type,)+
        }

        impl $struct_name {
            pub(super) fn knobs() -> Vec<crate::config::knob::Knob> {
                vec![$(crate::config::knob::Knob {
                    name: concat!($section, ".", stringify!($field)).into(),
                    aliases: &[$(crate::config::knob::alias!($alias $(* $factor)?)),*],
                    kind: $kind,
                    unit: $unit,
                    default: $default,
                    is_dynamic: crate::config::knob::dynamic!($($dynamic)?),
                    doc: $doc.trim_ascii(),
                }),+]
            }

            pub(super) fn from_settings(settings: &crate::config::knob::Settings) -> $struct_name {
                $struct_name {
                    $($field: settings.typed(concat!($section, ".", stringify!($field))),)+
                }
            }
        }
    };
}

macro_rules! alias {
    ($name:literal) => {
        crate::config::knob::Alias {
            name: $name,
            factor: 1,
        }
    };
    ($name:literal * $factor:literal) => {
        crate::config::knob::Alias {
            name: $name,
            factor: $factor,
        }
    };
}

macro_rules! dynamic {
    () => {
        false
    };
    (dynamic) => {
        true
    };
}

pub(super) use {alias, dynamic, section};
