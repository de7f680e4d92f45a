//! The rules of batches per topic, kept so that no produce parses settings.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::cluster::image::TopicImage;
use crate::config::broker::BrokerConfig;
use crate::config::topic::{CompressionType, MessageTimestampType, TopicConfig};
use crate::wire::batch_validation::{BatchRules, TopicCompression};
use crate::wire::codec::Uuid;
use crate::wire::compression::{Codec, Compression};
use crate::wire::record_batch::TimestampType;

/// Topics whose rules are kept; all are forgotten when there would be more.
const TOPICS_MAX: usize = 4096;

/// Rules with what they follow from; another image of the topic, or another configuration, is a
/// change.
struct Entry {
    topic: Arc<TopicImage>,
    config: Rc<BrokerConfig>,
    rules: BatchRules,
}

/// The rules of the topics that this core's clients produce to.
#[derive(Default)]
pub(super) struct TopicRules {
    entries: BTreeMap<Uuid, Entry>,
}

impl TopicRules {
    /// The rules of a topic, zstd allowed.
    pub(super) fn of(&mut self, topic: &Arc<TopicImage>, config: &Rc<BrokerConfig>) -> BatchRules {
        if let Some(entry) = self.entries.get(&topic.id)
            && Arc::ptr_eq(&entry.topic, topic)
            && Rc::ptr_eq(&entry.config, config)
        {
            return entry.rules;
        }
        let rules = rules(topic, config);
        if self.entries.len() >= TOPICS_MAX {
            self.entries.clear();
        }
        let entry = Entry {
            topic: topic.clone(),
            config: config.clone(),
            rules,
        };
        self.entries.insert(topic.id, entry);
        rules
    }
}

fn rules(topic: &TopicImage, config: &BrokerConfig) -> BatchRules {
    // The controller checked the overrides under every configuration that was in force since; a
    // static setting changed at a restart can still contradict them. Then the defaults count.
    let settings = TopicConfig::resolve(&topic.configs, config)
        .or_else(|_| TopicConfig::resolve(&BTreeMap::new(), config))
        .expect("defaults were checked at start");
    BatchRules {
        message_max_bytes: size(settings.max_message_bytes),
        segment_bytes: size(settings.segment_bytes),
        decompressed_max_bytes: config.limits.decompressed_batch_max_bytes,
        compression: compression(&settings),
        timestamp_type: match settings.message_timestamp_type {
            MessageTimestampType::CreateTime => TimestampType::CreateTime,
            MessageTimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: settings.message_timestamp_before_max_ms,
        timestamp_after_max_ms: settings.message_timestamp_after_max_ms,
        is_compacted: settings.cleanup_policy.is_compact,
        allows_zstd: true,
    }
}

fn size(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

fn compression(settings: &TopicConfig) -> TopicCompression {
    let (codec, level) = match settings.compression_type {
        CompressionType::Producer => return TopicCompression::Producer,
        CompressionType::Uncompressed => (Codec::None, None),
        // -1 is gzip's own default.
        CompressionType::Gzip => (
            Codec::Gzip,
            Some(settings.compression_gzip_level).filter(|level| *level != -1),
        ),
        CompressionType::Snappy => (Codec::Snappy, None),
        CompressionType::Lz4 => (Codec::Lz4, None),
        CompressionType::Zstd => (Codec::Zstd, Some(settings.compression_zstd_level)),
    };
    TopicCompression::Fixed(Compression { codec, level })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(configs: &[(&str, &str)]) -> Arc<TopicImage> {
        let configs = configs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        Arc::new(TopicImage {
            name: "t".into(),
            id: Uuid([1; 16]),
            partitions: Vec::new(),
            configs: configs.collect(),
        })
    }

    #[test]
    fn rules_follow_the_topic_and_the_configuration() {
        let mut rules = TopicRules::default();
        let config = Rc::new(BrokerConfig::defaults());
        let plain = rules.of(&topic(&[]), &config);
        assert_eq!(plain.compression, TopicCompression::Producer);
        assert_eq!(plain.message_max_bytes, 1_048_588);
        let changed = topic(&[
            ("compression.type", "gzip"),
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        let changed = rules.of(&changed, &config);
        assert_eq!(
            changed.compression,
            TopicCompression::Fixed(Compression::of(Codec::Gzip))
        );
        assert!(changed.is_compacted);
        assert_eq!(changed.timestamp_type, TimestampType::LogAppendTime);
        let smaller = BTreeMap::from([("message.max.bytes".to_string(), "9".to_string())]);
        let smaller = config.with_dynamic(&smaller, &BTreeMap::new()).unwrap();
        let topic = topic(&[]);
        assert_eq!(rules.of(&topic, &config).message_max_bytes, 1_048_588);
        assert_eq!(rules.of(&topic, &Rc::new(smaller)).message_max_bytes, 9);
    }
}
