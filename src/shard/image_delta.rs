//! From one metadata image to the next: which partitions this core gains, loses, or leads under
//! other settings.

use std::rc::Rc;
use std::sync::Arc;

use super::placement;
use super::replica_manager::ReplicaManager;
use crate::cluster::image::{MetadataImage, PartitionImage, TopicImage};
use crate::config::broker::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::log::compaction::CompactionSettings;
use crate::log::partition_log::LogSettings;
use crate::log::position::LogId;
use crate::partition::leader::Reign;
use crate::runtime::core_id::CoreId;
use crate::wire::codec::Uuid;

/// Entries at which a segment's index thins out: `segment.index.bytes` by Kafka's entry size.
const KAFKA_INDEX_ENTRY_BYTES: usize = 8;

/// The broker's configuration with the dynamic values of the image.
#[must_use]
pub(super) fn effective_config(base: &Rc<BrokerConfig>, image: &MetadataImage) -> Rc<BrokerConfig> {
    let none = std::collections::BTreeMap::new();
    let own = image.broker_configs(image.node_id()).unwrap_or(&none);
    if image.default_configs().is_empty() && own.is_empty() {
        return base.clone();
    }
    match base.with_dynamic(image.default_configs(), own) {
        Ok(config) => Rc::new(config),
        Err(problems) => {
            // They were valid when they were accepted: another version of the broker wrote them.
            tracing::error!(%problems, "dynamic settings are ignored");
            base.clone()
        }
    }
}

/// The settings of a topic's logs.
#[must_use]
pub(super) fn log_settings(topic: &TopicImage, config: &BrokerConfig) -> LogSettings {
    let resolved = TopicConfig::resolve(&topic.configs, config).unwrap_or_else(|problem| {
        tracing::error!(topic = %topic.name, %problem, "settings of a topic are ignored");
        TopicConfig::resolve(&std::collections::BTreeMap::new(), config)
            .expect("the broker's own defaults were checked at start")
    });
    // Topics created together do not roll together; Kafka draws the share anew at every roll.
    let jitter_ms = match resolved.segment_jitter_ms {
        0 => 0,
        most => i64::from(crc32c::crc32c(&topic.id.0)) % most,
    };
    let compaction = resolved
        .cleanup_policy
        .is_compact
        .then_some(CompactionSettings {
            min_dirty_ratio: resolved.min_cleanable_dirty_ratio,
            min_lag_ms: resolved.min_compaction_lag_ms,
            max_lag_ms: resolved.max_compaction_lag_ms,
            delete_retention_ms: resolved.delete_retention_ms,
        });
    // Kafka: `LogConfig.maxSegmentMs`. What must be compacted in time must be rolled in time.
    let segment_ms = match compaction {
        Some(compaction) => resolved.segment_ms.min(compaction.max_lag_ms),
        None => resolved.segment_ms,
    };
    LogSettings {
        segment_bytes: resolved.segment_bytes as u64,
        segment_ms: segment_ms.saturating_sub(jitter_ms),
        index_interval_bytes: resolved.index_interval_bytes as u64,
        retention_ms: resolved
            .cleanup_policy
            .is_delete
            .then_some(resolved.retention_ms)
            .filter(|ms| *ms >= 0),
        retention_bytes: resolved
            .cleanup_policy
            .is_delete
            .then_some(resolved.retention_bytes)
            .and_then(|bytes| u64::try_from(bytes).ok()),
        deletable: resolved.cleanup_policy.is_delete || compaction.is_none(),
        compaction,
        producers_max: config.limits.producers_per_partition_max,
        producer_expiration_ms: config.limits.producer_id_expiration_ms as i64,
        file_delete_delay_ms: resolved.file_delete_delay_ms.unsigned_abs(),
        flush_messages: resolved.flush_messages,
        index_most_entries: resolved.segment_index_bytes as usize / KAFKA_INDEX_ENTRY_BYTES,
    }
}

/// Two images, the older one absent at start.
pub(super) struct ImageDelta<'a> {
    /// What was.
    pub(super) before: Option<&'a MetadataImage>,
    /// What is.
    pub(super) after: &'a MetadataImage,
}

impl ImageDelta<'_> {
    /// Makes the partitions of `core` what the image says.
    pub(super) fn apply(
        &self,
        replicas: &Rc<ReplicaManager>,
        config: &BrokerConfig,
        core: CoreId,
        cores: usize,
    ) {
        let defaults_changed = self.before.is_some_and(|before| {
            before.default_configs() != self.after.default_configs()
                || before.broker_configs(before.node_id())
                    != self.after.broker_configs(self.after.node_id())
        });
        for topic in self.after.topics() {
            let before = self.before.and_then(|before| before.topic_by_id(topic.id));
            let same = before.is_some_and(|before| Arc::ptr_eq(before, topic));
            if !same || defaults_changed {
                let known = match self.before {
                    None => usize::MAX,
                    Some(_) => before.map_or(0, |before| before.partitions.len()),
                };
                self.hold_topic((topic, known), replicas, config, core, cores);
            }
        }
        for log in self.gone(replicas) {
            replicas.remove(log);
        }
    }

    /// Logs that are here although the metadata give them to nobody or to other brokers: of topics
    /// deleted or partitions moved since, or while this broker was down.
    fn gone(&self, replicas: &ReplicaManager) -> Vec<LogId> {
        let node_id = self.after.node_id();
        let gone = |id: &LogId| {
            let topic = self.after.topic_by_id(Uuid(id.topic));
            let partition = topic.and_then(|topic| topic.partitions.get(id.partition as usize));
            let is_held = partition.is_some_and(|held| held.replicas.contains(&node_id));
            *id != placement::METADATA_LOG && !is_held
        };
        match self.before {
            None => replicas.recovered_logs().into_iter().filter(gone).collect(),
            Some(before) => before
                .topics()
                .filter(|topic| !self.is_same(topic))
                .flat_map(|topic| (0..topic.partitions.len()).map(|number| log_id(topic, number)))
                .filter(|id| gone(id) && replicas.replica(*id).is_some())
                .collect(),
        }
    }

    fn is_same(&self, before: &Arc<TopicImage>) -> bool {
        let after = self.after.topic_by_id(before.id);
        after.is_some_and(|after| Arc::ptr_eq(before, after))
    }

    /// Holds the replicas of a topic that this broker and `core` have. The first `known` partitions
    /// of the topic are not new.
    fn hold_topic(
        &self,
        (topic, known): (&TopicImage, usize),
        replicas: &Rc<ReplicaManager>,
        config: &BrokerConfig,
        core: CoreId,
        cores: usize,
    ) {
        let settings = log_settings(topic, config);
        let min_isr = min_isr(topic, config);
        let directories = replicas.directory_count();
        let node_id = self.after.node_id();
        for (number, partition) in topic.partitions.iter().enumerate() {
            let log = log_id(topic, number);
            if placement::owner(log, cores) != core || !partition.replicas.contains(&node_id) {
                continue;
            }
            let name = format!("{}-{number}", topic.name);
            let home = (
                placement::directory(log, cores, directories),
                number >= known,
            );
            let reign = reign(partition, min_isr);
            replicas.hold(log, home, &name, (node_id, &reign), settings);
        }
    }
}

fn log_id(topic: &TopicImage, partition: usize) -> LogId {
    LogId {
        topic: topic.id.0,
        partition: partition as u32,
    }
}

fn min_isr(topic: &TopicImage, config: &BrokerConfig) -> usize {
    let resolved = TopicConfig::resolve(&topic.configs, config);
    // What cannot be resolved was logged with the other settings.
    resolved.map_or(1, |resolved| resolved.min_insync_replicas.max(1) as usize)
}

fn reign(partition: &PartitionImage, min_isr: usize) -> Reign {
    Reign {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        min_isr,
    }
}
