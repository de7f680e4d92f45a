//! Settings as Kafka's DescribeConfigs shows them: name, value, type, where it comes from, and
//! everything it overrides.

use std::collections::BTreeMap;

use super::broker::BrokerConfig;
use super::group::{self, GroupKnob};
use super::kind::{KafkaType, Kind, Value};
use super::knob::{Setting, Source};
use super::topic::{self, TopicKnob};

/// Where a value comes from, by its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// An override of the topic.
    Topic = 1,
    /// Set for this broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// Given at start.
    StaticBroker = 4,
    /// The default.
    Default = 5,
    /// An override of the group.
    Group = 8,
}

impl From<Source> for ConfigSource {
    fn from(source: Source) -> ConfigSource {
        match source {
            Source::Default => ConfigSource::Default,
            Source::Disk | Source::File | Source::KafkaProperties | Source::Set | Source::Flag => {
                ConfigSource::StaticBroker
            }
            Source::DynamicDefault => ConfigSource::DynamicDefaultBroker,
            Source::DynamicBroker => ConfigSource::DynamicBroker,
        }
    }
}

/// A value that counts, or would count if the ones before it were not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The name under which it was set.
    pub name: String,
    /// The value; `None` is null.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` is null.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Its type.
    pub kafka_type: KafkaType,
    /// Whether the admin API cannot change it.
    pub is_read_only: bool,
    /// Whether the value must not be shown; none of ours holds a secret.
    pub is_sensitive: bool,
    /// The value in force first, then what it overrides.
    pub synonyms: Vec<Synonym>,
    /// One line of what it does.
    pub documentation: &'static str,
}

/// Every setting of a topic with these overrides.
#[must_use]
pub fn describe_topic(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Vec<ConfigEntry> {
    topic::knobs()
        .map(|knob| topic_entry(knob, overrides.get(knob.name), broker))
        .collect()
}

/// Every setting of a group with these overrides.
#[must_use]
pub fn describe_group(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Vec<ConfigEntry> {
    let entry = |knob: &GroupKnob| {
        let own = overrides.get(knob.name).map(|text| Synonym {
            name: knob.name.to_string(),
            value: Some(text.clone()),
            source: ConfigSource::Group,
        });
        let (row, _) = (broker.settings.find(knob.broker_name()))
            .expect("a group's setting has a default at the broker");
        let synonyms: Vec<Synonym> = own
            .into_iter()
            .chain(synonyms_of(&broker.settings.rows[row]))
            .collect();
        ConfigEntry {
            name: knob.name.to_string(),
            value: synonyms[0].value.clone(),
            source: synonyms[0].source,
            kafka_type: knob.kind.kafka_type(),
            is_read_only: false,
            is_sensitive: false,
            synonyms,
            documentation: knob.doc,
        }
    };
    group::knobs().iter().map(entry).collect()
}

/// Every setting of the broker, under Kafka's name where it has one.
#[must_use]
pub fn describe_broker(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let entry = |setting: &Setting| {
        let knob = &setting.knob;
        let synonyms = synonyms_of(setting);
        ConfigEntry {
            name: knob.kafka_name().to_string(),
            value: synonyms[0].value.clone(),
            source: synonyms[0].source,
            kafka_type: knob.kind.kafka_type(),
            is_read_only: !knob.is_dynamic,
            is_sensitive: false,
            synonyms,
            documentation: knob.doc,
        }
    };
    broker.settings.rows.iter().map(entry).collect()
}

fn topic_entry(
    knob: &TopicKnob,
    override_text: Option<&String>,
    broker: &BrokerConfig,
) -> ConfigEntry {
    let mut synonyms = Vec::new();
    if let Some(text) = override_text {
        let (name, value) = (knob.name.to_string(), Some(text.clone()));
        synonyms.push(Synonym {
            name,
            value,
            source: ConfigSource::Topic,
        });
    }
    match knob
        .default_row()
        .and_then(|row| broker.settings.find(&row))
    {
        Some((row, _)) => synonyms.extend(synonyms_of(&broker.settings.rows[row])),
        None => synonyms.push(Synonym {
            name: knob.name.to_string(),
            value: Some(knob.default.to_string()),
            source: ConfigSource::Default,
        }),
    }
    ConfigEntry {
        name: knob.name.to_string(),
        value: synonyms[0].value.clone(),
        source: synonyms[0].source,
        kafka_type: knob.kind.kafka_type(),
        is_read_only: false,
        is_sensitive: false,
        synonyms,
        documentation: knob.doc,
    }
}

/// The layers of a setting, the one in force first.
fn synonyms_of(setting: &Setting) -> Vec<Synonym> {
    let mut synonyms: Vec<Synonym> = Vec::new();
    for (source, value) in setting.layers.iter().rev() {
        let source = ConfigSource::from(*source);
        // All that was given at start is one source for Kafka, and the last one won.
        if synonyms.last().is_some_and(|last| last.source == source) {
            continue;
        }
        let name = setting.knob.kafka_name().to_string();
        let value = shown(&name, setting.knob.kind, value);
        synonyms.push(Synonym {
            name,
            value,
            source,
        });
    }
    synonyms
}

fn shown(name: &str, kind: Kind, value: &Value) -> Option<String> {
    match (value, kind) {
        (Value::Null, _) => None,
        // Kafka's own names hold listeners, not addresses.
        (Value::Address(address), _) if name.ends_with("listeners") => {
            Some(format!("PLAINTEXT://{address}"))
        }
        _ => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::*;

    fn entry(entries: &[ConfigEntry], name: &str) -> ConfigEntry {
        entries
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .clone()
    }

    fn map(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_string(), value.to_string())])
    }

    #[test]
    fn a_topics_value_comes_before_every_layer_of_the_brokers() {
        let sets = ["log.retention.hours=1".to_string()];
        let broker = BrokerConfig::load(&Sources {
            sets: &sets,
            ..Sources::default()
        })
        .unwrap();
        let broker = broker
            .with_dynamic(
                &map("log.retention.ms", "20"),
                &map("log.retention.ms", "30"),
            )
            .unwrap();
        let entries = describe_topic(&map("retention.ms", "10"), &broker);
        let retention = entry(&entries, "retention.ms");
        assert_eq!(retention.kafka_type, KafkaType::Long);
        assert_eq!(retention.value.as_deref(), Some("10"));
        let synonyms: Vec<_> = retention
            .synonyms
            .iter()
            .map(|synonym| {
                (
                    synonym.name.as_str(),
                    synonym.value.as_deref().unwrap(),
                    synonym.source,
                )
            })
            .collect();
        assert_eq!(
            synonyms,
            [
                ("retention.ms", "10", ConfigSource::Topic),
                ("log.retention.ms", "30", ConfigSource::DynamicBroker),
                ("log.retention.ms", "20", ConfigSource::DynamicDefaultBroker),
                ("log.retention.ms", "3600000", ConfigSource::StaticBroker),
                ("log.retention.ms", "604800000", ConfigSource::Default),
            ]
        );
        let untouched = entry(&entries, "remote.storage.enable");
        assert_eq!(untouched.value.as_deref(), Some("false"));
        assert_eq!(untouched.source, ConfigSource::Default);
        assert!(
            entries
                .iter()
                .all(|entry| entry.name != "internal.segment.bytes")
        );
    }

    #[test]
    fn a_groups_value_comes_before_the_brokers() {
        let broker = BrokerConfig::defaults();
        let entries = describe_group(&map("consumer.session.timeout.ms", "50000"), &broker);
        let session = entry(&entries, "consumer.session.timeout.ms");
        let synonyms: Vec<_> = session
            .synonyms
            .iter()
            .map(|synonym| (synonym.name.as_str(), synonym.value.as_deref().unwrap()))
            .collect();
        assert_eq!(
            synonyms,
            [
                ("consumer.session.timeout.ms", "50000"),
                ("group.consumer.session.timeout.ms", "45000"),
            ]
        );
        assert_eq!(session.value.as_deref(), Some("50000"));
        assert_eq!(
            (session.source, session.source as i8),
            (ConfigSource::Group, 8)
        );
        let heartbeat = entry(&entries, "consumer.heartbeat.interval.ms");
        assert_eq!(heartbeat.source, ConfigSource::Default);
        assert_eq!(heartbeat.value.as_deref(), Some("5000"));
        assert_eq!(heartbeat.kafka_type, KafkaType::Int);
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn the_broker_is_described_under_kafkas_names() {
        let entries = describe_broker(&BrokerConfig::defaults());
        let listeners = entry(&entries, "listeners");
        assert_eq!(
            listeners.value.as_deref(),
            Some("PLAINTEXT://127.0.0.1:9092")
        );
        assert!(listeners.is_read_only);
        assert_eq!(entry(&entries, "broker.rack").value, None);
        assert!(!entry(&entries, "message.max.bytes").is_read_only);
        assert!(!entry(&entries, "max.connections").is_read_only);
        assert!(entry(&entries, "storage.cache_bytes").is_read_only);
        let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), entries.len());
    }
}
