//! A decision in the making: the records so far, and the image they lead to.

use std::sync::Arc;

use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::partition_change::{Change, ElectionTerms, changed};
use super::record::MetadataRecord;
use crate::config::broker::BrokerConfig;

/// Partitions in one record: a topic of many must not make a record of any size.
const PARTITIONS_PER_RECORD: usize = 500;

/// See the head of this file.
pub(super) struct Draft<'a> {
    pub(super) image: MetadataImage,
    config: &'a BrokerConfig,
    records: Vec<MetadataRecord>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(image: &MetadataImage, config: &'a BrokerConfig) -> Draft<'a> {
        Draft {
            image: image.clone(),
            config,
            records: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, record: MetadataRecord) {
        self.image.apply(&record);
        self.records.push(record);
    }

    pub(super) fn into_records(self) -> Vec<MetadataRecord> {
        self.records
    }

    /// Changes every partition that is selected.
    pub(super) fn change_partitions(
        &mut self,
        is_selected: impl Fn(&PartitionImage) -> bool,
        change: impl Fn(ElectionTerms) -> Change,
    ) {
        let topics: Vec<Arc<TopicImage>> = self.image.topics().cloned().collect();
        for topic in topics {
            let numbered = (0_i32..).zip(&topic.partitions);
            let mut selected = numbered.filter(|(_, partition)| is_selected(partition));
            let Some(first) = selected.next() else {
                continue;
            };
            let terms = ElectionTerms::of(&topic.configs, self.config);
            let new = |(number, partition): (i32, &PartitionImage)| {
                Some((
                    number,
                    changed(partition, terms, &self.image, change(terms))?,
                ))
            };
            let partitions = std::iter::once(first).chain(selected);
            let partitions: Vec<(i32, PartitionImage)> = partitions.filter_map(new).collect();
            self.put_partitions(&topic, partitions);
        }
    }

    /// Records what partitions of a topic became.
    pub(super) fn put_partitions(
        &mut self,
        topic: &TopicImage,
        partitions: Vec<(i32, PartitionImage)>,
    ) {
        for some in partitions.chunks(PARTITIONS_PER_RECORD) {
            self.push(MetadataRecord::PartitionsChanged {
                topic: topic.id,
                partitions: some.to_vec(),
            });
        }
    }
}
