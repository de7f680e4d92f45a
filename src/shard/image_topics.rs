//! The topics of an image as coordinators see them.

use std::collections::BTreeSet;

use crate::cluster::image::{MetadataImage, TopicImage};
use crate::coordinator::context::{TopicView, Topics};
use crate::wire::codec::Uuid;

/// See the head of this file.
pub(super) struct ImageTopics<'a>(pub(super) &'a MetadataImage);

fn view(topic: &TopicImage) -> TopicView {
    TopicView {
        id: topic.id,
        name: topic.name.to_string(),
        partitions: topic.partitions.len() as i32,
    }
}

impl Topics for ImageTopics<'_> {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        self.0.topic(name).map(|topic| view(topic))
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        self.0.topic_by_id(id).map(|topic| view(topic))
    }

    fn names(&self) -> Vec<String> {
        self.0
            .topics()
            .map(|topic| topic.name.to_string())
            .collect()
    }

    fn version(&self) -> u64 {
        self.0.version()
    }

    fn racks(&self, topic: &TopicView, partition: i32) -> Vec<String> {
        let image = self.0.topic_by_id(topic.id);
        let partition = image.and_then(|topic| topic.partition(partition));
        let brokers = partition.map_or(&[][..], |partition| &partition.replicas[..]);
        let rack = |broker: &i32| self.0.brokers().get(broker)?.rack.clone();
        let racks: BTreeSet<String> = brokers.iter().filter_map(rack).collect();
        racks.into_iter().collect()
    }
}
