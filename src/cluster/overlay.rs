//! What a command makes of partitions, over the image that it is decided on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::controller_error::ControllerError;
use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::partition_change::{Change, ElectionTerms, changed};
use super::record::MetadataRecord;
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;

/// Partitions in one record: a topic of many must not make a record of any size.
const PARTITIONS_PER_RECORD: usize = 500;

/// See the head of this file.
pub(super) struct Overlay<'a> {
    pub(super) image: &'a MetadataImage,
    config: &'a BrokerConfig,
    changed: BTreeMap<Uuid, BTreeMap<i32, PartitionImage>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(image: &'a MetadataImage, config: &'a BrokerConfig) -> Overlay<'a> {
        Overlay {
            image,
            config,
            changed: BTreeMap::new(),
        }
    }

    /// The partition as it is by now.
    pub(super) fn partition<'b>(
        &'b self,
        topic: &'b TopicImage,
        number: i32,
    ) -> Option<&'b PartitionImage> {
        let changed = self.changed.get(&topic.id);
        let changed = changed.and_then(|partitions| partitions.get(&number));
        changed.or_else(|| topic.partition(number))
    }

    /// A topic by its name; `unknown` makes the words of the refusal.
    pub(super) fn topic(
        &self,
        name: &str,
        unknown: impl FnOnce() -> String,
    ) -> Result<&'a Arc<TopicImage>, ControllerError> {
        let topic = self.image.topic(name);
        topic.ok_or_else(|| ControllerError::UnknownTopic(unknown()))
    }

    /// What the change would make of a partition, or `None` when it stays as it is.
    pub(super) fn plan(
        &self,
        topic: &TopicImage,
        old: &PartitionImage,
        change: Change,
    ) -> Option<PartitionImage> {
        let terms = ElectionTerms::of(&topic.configs, self.config);
        changed(old, terms, self.image, change)
    }

    pub(super) fn put(&mut self, topic: &TopicImage, number: i32, partition: PartitionImage) {
        let partitions = self.changed.entry(topic.id).or_default();
        partitions.insert(number, partition);
    }

    /// Changes every partition that is selected.
    pub(super) fn change(
        &mut self,
        is_selected: impl Fn(&PartitionImage) -> bool,
        change: impl Fn(ElectionTerms) -> Change,
    ) {
        for topic in self.image.topics() {
            let numbered = (0_i32..).zip(&topic.partitions);
            let mut selected = numbered
                .filter(|(_, partition)| is_selected(partition))
                .peekable();
            if selected.peek().is_none() {
                continue;
            }
            let terms = ElectionTerms::of(&topic.configs, self.config);
            let new = |(number, old): (i32, &PartitionImage)| {
                Some((number, changed(old, terms, self.image, change(terms))?))
            };
            let new: BTreeMap<i32, PartitionImage> = selected.filter_map(new).collect();
            self.changed.entry(topic.id).or_default().extend(new);
        }
    }

    pub(super) fn into_records(self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (topic, partitions) in self.changed {
            let partitions: Vec<(i32, PartitionImage)> = partitions.into_iter().collect();
            for some in partitions.chunks(PARTITIONS_PER_RECORD) {
                records.push(MetadataRecord::PartitionsChanged {
                    topic,
                    partitions: some.to_vec(),
                });
            }
        }
        records
    }
}
