//! The settings of a topic: Kafka's names, types, bounds and defaults, and the broker settings
//! that are their defaults.

use std::collections::BTreeMap;

use super::broker::BrokerConfig;
use super::kind::{FromValue, Kind, Value};
use super::knob::{Alias, Knob};
use super::problem::{Problem, Problems};

const INT_MAX: i32 = i32::MAX;
const LONG_MAX: i64 = i64::MAX;
const INTERNAL_SEGMENT_BYTES: &str = "internal.segment.bytes";
/// Settings that one topic overrides; the API refuses requests with more.
pub const OVERRIDES_MAX: usize = 64;

/// One setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicKnob {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker settings that are its default, the one that wins first; possibly none.
    pub broker_aliases: &'static [Alias],
    /// What values it takes.
    pub kind: Kind,
    /// What its number counts; empty when it is no number.
    pub unit: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// One line of what it does.
    pub doc: &'static str,
    /// Why no value but the default is accepted, when that is so.
    pub only_default_because: Option<&'static str>,
}

/// What happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted.
    pub is_delete: bool,
    /// Only the last record of each key is kept.
    pub is_compact: bool,
}

impl FromValue for CleanupPolicy {
    fn from_value(value: &Value) -> Option<CleanupPolicy> {
        let Value::List(values) = value else {
            return None;
        };
        let has = |name: &str| values.iter().any(|value| value == name);
        Some(CleanupPolicy {
            is_delete: has("delete"),
            is_compact: has("compact"),
        })
    }
}

/// The codec a topic stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// Whatever the producer used.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl FromValue for CompressionType {
    fn from_value(value: &Value) -> Option<CompressionType> {
        let Value::Text(name) = value else {
            return None;
        };
        match name.as_str() {
            "producer" => Some(CompressionType::Producer),
            "uncompressed" => Some(CompressionType::Uncompressed),
            "gzip" => Some(CompressionType::Gzip),
            "snappy" => Some(CompressionType::Snappy),
            "lz4" => Some(CompressionType::Lz4),
            "zstd" => Some(CompressionType::Zstd),
            _ => None,
        }
    }
}

/// Whose clock a topic's timestamps come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at append.
    LogAppendTime,
}

impl FromValue for MessageTimestampType {
    fn from_value(value: &Value) -> Option<MessageTimestampType> {
        let Value::Text(name) = value else {
            return None;
        };
        match name.as_str() {
            "CreateTime" => Some(MessageTimestampType::CreateTime),
            "LogAppendTime" => Some(MessageTimestampType::LogAppendTime),
            _ => None,
        }
    }
}

macro_rules! topic_settings {
    (
        $(
            #[doc = $doc:literal]
            $field:ident: $type:ty = $default:literal, $name:literal, $kind:expr, $unit:literal,
            [$($alias:literal $(* $factor:literal)?),*];
        )+
    ) => {
        /// All settings of one topic, parsed.
        #[derive(Clone, Debug, PartialEq)]
        pub struct TopicConfig {
            $(#[doc = $doc] pub $field: $type,)+
        }

        impl TopicConfig {
            fn from_values(values: &BTreeMap<&'static str, Value>) -> TopicConfig {
                TopicConfig { $($field: typed(values, $name),)+ }
            }
        }

        /// The settings that have a field of their own.
        const FIELDS: &[TopicKnob] = &[$(TopicKnob {
            name: $name,
            broker_aliases: &[$(crate::config::knob::alias!($alias $(* $factor)?)),*],
            kind: $kind,
            unit: $unit,
            default: $default,
            doc: $doc.trim_ascii(),
            only_default_because: None,
        }),+];
    };
}

topic_settings! {
    /// Whether old segments are deleted, compacted, both, or neither.
    cleanup_policy: CleanupPolicy = "delete", "cleanup.policy", Kind::Choices(&["compact", "delete"]), "", ["log.cleanup.policy"];
    /// Level of gzip when the broker compresses with it.
    compression_gzip_level: i32 = "-1", "compression.gzip.level", Kind::GzipLevel, "", ["compression.gzip.level"];
    /// The codec batches are stored in.
    compression_type: CompressionType = "producer", "compression.type", Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "", ["compression.type"];
    /// Level of zstd when the broker compresses with it.
    compression_zstd_level: i32 = "3", "compression.zstd.level", Kind::Int(-131_072, 22), "", ["compression.zstd.level"];
    /// How long tombstones outlive the compaction that first met them.
    delete_retention_ms: i64 = "86400000", "delete.retention.ms", Kind::Long(0, LONG_MAX), "ms", ["log.cleaner.delete.retention.ms"];
    /// How long a deleted segment's file is kept.
    file_delete_delay_ms: i64 = "60000", "file.delete.delay.ms", Kind::Long(0, LONG_MAX), "ms", ["log.segment.delete.delay.ms"];
    /// Records after which a flush is due; 1 flushes before every ack, which Kafka does not.
    flush_messages: i64 = "1", "flush.messages", Kind::Long(1, LONG_MAX), "records", ["log.flush.interval.messages"];
    /// Time after which a flush is due.
    flush_ms: i64 = "9223372036854775807", "flush.ms", Kind::Long(0, LONG_MAX), "ms", ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    /// Bytes of a log between two entries of its index.
    index_interval_bytes: i32 = "4096", "index.interval.bytes", Kind::Int(0, INT_MAX), "bytes", ["log.index.interval.bytes"];
    /// Age at which a record must be compacted.
    max_compaction_lag_ms: i64 = "9223372036854775807", "max.compaction.lag.ms", Kind::Long(1, LONG_MAX), "ms", ["log.cleaner.max.compaction.lag.ms"];
    /// Largest batch.
    max_message_bytes: i32 = "1048588", "max.message.bytes", Kind::Int(0, INT_MAX), "bytes", ["message.max.bytes"];
    /// How far ahead of the broker's clock a record's timestamp may be.
    message_timestamp_after_max_ms: i64 = "3600000", "message.timestamp.after.max.ms", Kind::Long(0, LONG_MAX), "ms", ["log.message.timestamp.after.max.ms"];
    /// How far behind the broker's clock a record's timestamp may be.
    message_timestamp_before_max_ms: i64 = "9223372036854775807", "message.timestamp.before.max.ms", Kind::Long(0, LONG_MAX), "ms", ["log.message.timestamp.before.max.ms"];
    /// Whether timestamps are the producer's or the broker's.
    message_timestamp_type: MessageTimestampType = "CreateTime", "message.timestamp.type", Kind::Choice(&["CreateTime", "LogAppendTime"]), "", ["log.message.timestamp.type"];
    /// Part of a log that must be uncompacted for compaction to start.
    min_cleanable_dirty_ratio: f64 = "0.5", "min.cleanable.dirty.ratio", Kind::Double(0.0, 1.0), "", ["log.cleaner.min.cleanable.ratio"];
    /// Age below which a record is not compacted.
    min_compaction_lag_ms: i64 = "0", "min.compaction.lag.ms", Kind::Long(0, LONG_MAX), "ms", ["log.cleaner.min.compaction.lag.ms"];
    /// In-sync replicas that acks=all needs.
    min_insync_replicas: i32 = "1", "min.insync.replicas", Kind::Int(1, INT_MAX), "replicas", ["min.insync.replicas"];
    /// Size beyond which a partition's oldest segments are deleted; -1 is none.
    retention_bytes: i64 = "-1", "retention.bytes", Kind::Long(i64::MIN, LONG_MAX), "bytes", ["log.retention.bytes"];
    /// Age beyond which segments are deleted; -1 is none.
    retention_ms: i64 = "604800000", "retention.ms", Kind::Long(-1, LONG_MAX), "ms", ["log.retention.ms", "log.retention.minutes" * 60_000, "log.retention.hours" * 3_600_000];
    /// Size of a segment.
    segment_bytes: i32 = "1073741824", "segment.bytes", Kind::Int(1_048_576, INT_MAX), "bytes", ["log.segment.bytes"];
    /// Size of a segment's offset index.
    segment_index_bytes: i32 = "10485760", "segment.index.bytes", Kind::Int(4, INT_MAX), "bytes", ["log.index.size.max.bytes"];
    /// By how much at most a segment is rolled early, so that not all roll at once.
    segment_jitter_ms: i64 = "0", "segment.jitter.ms", Kind::Long(0, LONG_MAX), "ms", ["log.roll.jitter.ms", "log.roll.jitter.hours" * 3_600_000];
    /// Age at which a segment is rolled.
    segment_ms: i64 = "604800000", "segment.ms", Kind::Long(1, LONG_MAX), "ms", ["log.roll.ms", "log.roll.hours" * 3_600_000];
    /// Whether a replica out of sync may lead; data may be lost then.
    unclean_leader_election_enable: bool = "false", "unclean.leader.election.enable", Kind::Bool, "", ["unclean.leader.election.enable"];
}

macro_rules! fixed {
    ($($name:literal = $default:literal, $kind:expr, [$($alias:literal),*], $doc:literal, $why:expr;)+) => {
        /// Settings of Kafka's that take their default only.
        const FIXED: &[TopicKnob] = &[$(TopicKnob {
            name: $name,
            broker_aliases: &[$(crate::config::knob::alias!($alias)),*],
            kind: $kind,
            unit: "",
            default: $default,
            doc: $doc,
            only_default_because: Some($why),
        }),+];
    };
}

const NO_TIERS: &str = "tiered storage is not built; leave the default";
const NO_REPLICATION: &str = "throttles of replication are not built yet; leave it out";

fixed! {
    "compression.lz4.level" = "9", Kind::Int(1, 17), ["compression.lz4.level"], "Level of lz4 when the broker compresses with it.",
        "the lz4 encoder of this broker has one level only; leave the default";
    "follower.replication.throttled.replicas" = "", Kind::ThrottledReplicas, [], "Replicas whose replication is throttled on followers.", NO_REPLICATION;
    "leader.replication.throttled.replicas" = "", Kind::ThrottledReplicas, [], "Replicas whose replication is throttled on leaders.", NO_REPLICATION;
    "local.retention.bytes" = "-2", Kind::Long(-2, LONG_MAX), ["log.local.retention.bytes"], "Size kept locally under tiered storage.", NO_TIERS;
    "local.retention.ms" = "-2", Kind::Long(-2, LONG_MAX), ["log.local.retention.ms"], "Time kept locally under tiered storage.", NO_TIERS;
    "preallocate" = "false", Kind::Bool, ["log.preallocate"], "Whether a segment's file is created at full size.",
        "segments are always prepared in paced steps; leave the default";
    "remote.log.copy.disable" = "false", Kind::Bool, [], "Whether copying to tiered storage is off.", NO_TIERS;
    "remote.log.delete.on.disable" = "false", Kind::Bool, [], "Whether tiered data goes when tiered storage is disabled.", NO_TIERS;
    "remote.storage.enable" = "false", Kind::Bool, [], "Whether tiered storage is used.", NO_TIERS;
}

/// Kafka's way around the bounds of `segment.bytes`, for tests; shown to nobody.
const INTERNAL: TopicKnob = TopicKnob {
    name: INTERNAL_SEGMENT_BYTES,
    broker_aliases: &[],
    kind: Kind::OptionalInt(4096, INT_MAX),
    unit: "bytes",
    default: "",
    doc: "Size of a segment, for tests.",
    only_default_because: None,
};

/// Every setting of a topic that clients see, in no particular order.
pub fn knobs() -> impl Iterator<Item = &'static TopicKnob> {
    FIELDS.iter().chain(FIXED)
}

/// The setting of this name, internal ones included.
#[must_use]
pub fn find(name: &str) -> Option<&'static TopicKnob> {
    knobs().chain([&INTERNAL]).find(|knob| knob.name == name)
}

/// The broker setting that is the default of the topic setting `name`.
pub(super) fn broker_name(name: &str) -> Option<&'static str> {
    find(name)?.broker_aliases.first().map(|alias| alias.name)
}

impl TopicKnob {
    /// The row of `[defaults]` that holds its default.
    pub(super) fn default_row(&self) -> Option<String> {
        self.broker_aliases
            .first()
            .map(|alias| format!("defaults.{}", alias.name))
    }

    /// Parses an override and checks everything that depends on no other setting.
    ///
    /// # Errors
    /// Why the value is refused.
    pub fn parse(&self, text: &str) -> Result<Value, Problem> {
        let invalid = |why: &str| Problem::invalid_value(self.name, text, why);
        let value = self.kind.parse(text).map_err(|why| invalid(&why))?;
        self.check_default(&value).map_err(invalid)?;
        Ok(value)
    }

    fn check_default(&self, value: &Value) -> Result<(), &'static str> {
        match self.only_default_because {
            Some(why) if value.to_string() != self.default => Err(why),
            _ => Ok(()),
        }
    }
}

/// The rows of `[defaults]`.
pub(super) fn default_knobs() -> Vec<Knob> {
    let row = |knob: &TopicKnob| {
        Some(Knob {
            name: knob.default_row()?.into(),
            aliases: knob.broker_aliases,
            kind: knob.kind,
            unit: knob.unit,
            default: knob.default,
            is_dynamic: true,
            doc: knob.doc,
        })
    };
    knobs().filter_map(row).collect()
}

/// Refuses defaults that no topic could have.
pub(super) fn check_defaults(broker: &BrokerConfig) -> Result<(), Problem> {
    for knob in FIXED {
        if let Some(row) = knob.default_row() {
            let value = broker.settings.value(&row);
            knob.check_default(value)
                .map_err(|why| Problem::invalid_value(&row, &value.to_string(), why))?;
        }
    }
    let config = TopicConfig::resolve(&BTreeMap::new(), broker);
    config
        .map(|_| ())
        .map_err(|mut problems| problems.0.remove(0))
}

fn typed<T: FromValue>(values: &BTreeMap<&'static str, Value>, name: &str) -> T {
    let value = values.get(name).and_then(T::from_value);
    value.unwrap_or_else(|| panic!("the value of {name} does not suit its field"))
}

impl TopicConfig {
    /// The overrides of a topic over the broker's defaults.
    ///
    /// # Errors
    /// Every override that was refused.
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<TopicConfig, Problems> {
        let mut problems = Vec::new();
        let mut values: BTreeMap<&'static str, Value> = FIELDS
            .iter()
            .map(|knob| {
                let row = knob
                    .default_row()
                    .expect("every field has a default at the broker");
                (knob.name, broker.settings.value(&row).clone())
            })
            .collect();
        for (name, text) in overrides {
            match find(name).map(|knob| (knob, knob.parse(text))) {
                None => {
                    let why = format!("Unknown topic config name: {name}");
                    problems.push(Problem {
                        name: name.clone(),
                        message: why,
                    });
                }
                Some((_, Err(problem))) => problems.push(problem),
                Some((knob, Ok(value))) => {
                    values.insert(knob.name, value);
                }
            }
        }
        let config = TopicConfig::from_values(&values).with_internal(&values);
        problems.extend(config.check_relations().err());
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    fn with_internal(mut self, values: &BTreeMap<&'static str, Value>) -> TopicConfig {
        let internal = values.get(INTERNAL_SEGMENT_BYTES).and_then(i32::from_value);
        self.segment_bytes = internal.unwrap_or(self.segment_bytes);
        self
    }

    fn check_relations(&self) -> Result<(), Problem> {
        let (least, most) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
        if least <= most {
            return Ok(());
        }
        let why = format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        );
        Err(Problem {
            name: "min.compaction.lag.ms".to_string(),
            message: why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::knob::Source;
    use super::super::sources::Sources;
    use super::*;

    fn resolve(overrides: &[(&str, &str)]) -> Result<TopicConfig, Problems> {
        TopicConfig::resolve(&map(overrides), &BrokerConfig::defaults())
    }

    fn map(overrides: &[(&str, &str)]) -> BTreeMap<String, String> {
        overrides
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn defaults_are_kafkas_but_for_the_flush() {
        let config = resolve(&[]).unwrap();
        assert_eq!(
            config.cleanup_policy,
            CleanupPolicy {
                is_delete: true,
                is_compact: false
            }
        );
        assert_eq!(config.compression_type, CompressionType::Producer);
        assert_eq!(
            (config.max_message_bytes, config.segment_bytes),
            (1_048_588, 1 << 30)
        );
        assert_eq!(
            (config.retention_ms, config.retention_bytes),
            (604_800_000, -1)
        );
        assert_eq!((config.flush_messages, config.flush_ms), (1, i64::MAX));
        assert_eq!(
            config.message_timestamp_type,
            MessageTimestampType::CreateTime
        );
        // All settings of Kafka 4.3.1 but the internal one.
        assert_eq!(knobs().count(), 33);
    }

    #[test]
    fn every_default_is_a_valid_override_of_itself() {
        let all: Vec<_> = knobs().map(|knob| (knob.name, knob.default)).collect();
        assert_eq!(resolve(&all), resolve(&[]));
    }

    #[test]
    fn overrides_win_and_a_policy_may_be_empty() {
        let config = resolve(&[
            ("cleanup.policy", ""),
            ("retention.ms", " 5 "),
            ("compression.type", "zstd"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("flush.messages", "9223372036854775807"),
        ])
        .unwrap();
        assert_eq!(
            config.cleanup_policy,
            CleanupPolicy {
                is_delete: false,
                is_compact: false
            }
        );
        assert_eq!((config.retention_ms, config.flush_messages), (5, i64::MAX));
        assert_eq!(config.compression_type, CompressionType::Zstd);
        assert_eq!(
            config.message_timestamp_type,
            MessageTimestampType::LogAppendTime
        );
        let both = resolve(&[("cleanup.policy", "compact,delete")]).unwrap();
        assert_eq!(
            both.cleanup_policy,
            CleanupPolicy {
                is_delete: true,
                is_compact: true
            }
        );
    }

    #[test]
    fn bad_values_are_refused_by_name_and_all_at_once() {
        for (name, value, why) in [
            ("segment.bytes", "1", "Value must be at least 1048576"),
            ("segment.bytes", "2147483648", "Not a number of type INT"),
            ("retention.ms", "-2", "Value must be at least -1"),
            ("compression.type", "brotli", "String must be one of"),
            ("compression.type", "none", "String must be one of"),
            ("cleanup.policy", "shred", "String must be one of"),
            ("cleanup.policy", "delete,delete", "duplicated"),
            (
                "min.cleanable.dirty.ratio",
                "1.5",
                "Value must be no more than 1",
            ),
            ("min.insync.replicas", "0", "Value must be at least 1"),
            ("preallocate", "maybe", "true or false"),
            ("preallocate", "true", "prepared in paced steps"),
            (
                "remote.storage.enable",
                "true",
                "tiered storage is not built",
            ),
            ("compression.lz4.level", "3", "one level only"),
            (
                "leader.replication.throttled.replicas",
                "*",
                "not built yet",
            ),
            ("internal.segment.bytes", "1", "Value must be at least 4096"),
        ] {
            let problems = resolve(&[(name, value)]).unwrap_err();
            let text = problems.to_string();
            assert!(text.contains(name) && text.contains(why), "{text}");
        }
        let problems = resolve(&[("no.such", "1"), ("segment.ms", "0"), ("flush.ms", "x")]);
        assert_eq!(problems.unwrap_err().0.len(), 3);
        let unknown = resolve(&[("no.such", "1")]).unwrap_err().to_string();
        assert_eq!(unknown, "Unknown topic config name: no.such");
        let lag = [
            ("min.compaction.lag.ms", "10"),
            ("max.compaction.lag.ms", "9"),
        ];
        assert!(
            resolve(&lag)
                .unwrap_err()
                .to_string()
                .contains("conflict topic config")
        );
    }

    #[test]
    fn the_brokers_settings_are_the_defaults_of_topics() {
        let sets = [
            "log.retention.hours=2",
            "message.max.bytes=5000",
            "log.roll.ms=7",
        ];
        let sets = sets.map(str::to_string);
        let broker = BrokerConfig::load(&Sources {
            sets: &sets,
            ..Sources::default()
        })
        .unwrap();
        let config = TopicConfig::resolve(&map(&[("segment.ms", "9")]), &broker).unwrap();
        assert_eq!(
            (config.retention_ms, config.max_message_bytes),
            (7_200_000, 5000)
        );
        assert_eq!(config.segment_ms, 9);
    }

    #[test]
    fn dynamic_defaults_reach_topics_and_are_checked() {
        let broker = BrokerConfig::defaults();
        let changed = broker
            .with_dynamic(&map(&[("log.retention.ms", "11")]), &BTreeMap::new())
            .unwrap();
        assert_eq!(
            TopicConfig::resolve(&BTreeMap::new(), &changed)
                .unwrap()
                .retention_ms,
            11
        );
        let (source, _) = changed.settings.rows
            [changed.settings.find("log.retention.ms").unwrap().0]
            .current()
            .clone();
        assert_eq!(source, Source::DynamicDefault);
        let refused = broker.with_dynamic(&map(&[("log.preallocate", "true")]), &BTreeMap::new());
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("prepared in paced steps")
        );
    }

    #[test]
    fn the_internal_segment_size_wins_below_kafkas_bound() {
        assert_eq!(
            resolve(&[("internal.segment.bytes", "16384")])
                .unwrap()
                .segment_bytes,
            16_384
        );
        let tiny = TopicConfig::resolve(&BTreeMap::new(), &BrokerConfig::tiny_for_tests()).unwrap();
        assert_eq!((tiny.segment_bytes, tiny.segment_index_bytes), (16_384, 32));
    }
}
