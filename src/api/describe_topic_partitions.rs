//! DescribeTopicPartitions, version 0 (KIP-966): topics in the order of their names, in pages.
//!
//! The limit is the smaller of the request's and `max.request.partition.size.limit`, at least 1. A
//! page ends with a cursor to the next partition. The cursor's topic must be among those asked for.
//! Eligible leader replicas are empty lists: every replica is in sync.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::metadata::{NO_LEADER, TOPIC_OPERATIONS};
use crate::cluster::image::{MetadataImage, PartitionImage, TopicImage};
use crate::cluster::topic_name;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, ResponseCursor,
};

type Topic<'a> = DescribeTopicPartitionsResponseTopic<'a>;

/// Answers a DescribeTopicPartitions.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeTopicPartitionsRequest<'_> = call.request()?;
    let limits = &api.router.config().limits;
    check_count(request.topics.len(), limits.request_partitions_max)?;
    let image = api.router.image();
    let mut response = answer(&image, &request, limits.describe_partitions_max);
    if api.router.has_offline() {
        for topic in &mut response.topics {
            mark_offline(topic, |id, number| api.router.is_offline(id, number));
        }
    }
    Ok(call.reply(&response))
}

fn answer<'a>(
    image: &'a MetadataImage,
    request: &'a DescribeTopicPartitionsRequest<'_>,
    most: usize,
) -> DescribeTopicPartitionsResponse<'a> {
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let limit = limit.min(most).max(1);
    let cursor = request.cursor.as_ref();
    let (first_name, first_partition) = match cursor {
        None => ("", 0),
        Some(cursor) => (cursor.topic_name.as_ref(), cursor.partition_index),
    };
    let is_all = request.topics.is_empty();
    let names: BTreeSet<&str> = request
        .topics
        .iter()
        .map(|topic| topic.name.as_ref())
        .collect();
    let is_foreign = cursor.is_some() && !is_all && !names.contains(first_name);
    let Ok(first_partition) = usize::try_from(first_partition) else {
        return refused(&names);
    };
    if is_foreign {
        return refused(&names);
    }
    let mut page = Page {
        image,
        topics: Vec::new(),
        left: limit,
        next: None,
    };
    let start = |name: &str| {
        if name == first_name {
            first_partition
        } else {
            0
        }
    };
    if is_all {
        for topic in image.topics_from(first_name) {
            if !page.add(topic, start(&topic.name)) {
                break;
            }
        }
    } else {
        for name in names.range::<str, _>((
            std::ops::Bound::Included(first_name),
            std::ops::Bound::Unbounded,
        )) {
            match image.topic(name) {
                Some(topic) if !page.add(topic, start(name)) => break,
                Some(_) => {}
                None => page.topics.push(unknown(name)),
            }
        }
    }
    DescribeTopicPartitionsResponse {
        topics: page.topics,
        next_cursor: page.next,
        ..DescribeTopicPartitionsResponse::default()
    }
}

/// What fits into an answer.
struct Page<'a> {
    image: &'a MetadataImage,
    topics: Vec<Topic<'a>>,
    left: usize,
    next: Option<ResponseCursor<'a>>,
}

impl<'a> Page<'a> {
    /// Adds partitions of a topic from `start` on; false when the page is full.
    fn add(&mut self, topic: &'a TopicImage, start: usize) -> bool {
        let count = topic.partitions.len();
        let start = start.min(count);
        if self.left == 0 {
            self.next = Some(cursor(topic, start));
            return false;
        }
        let end = count.min(start.saturating_add(self.left));
        let shown = (0..).zip(&topic.partitions).skip(start).take(end - start);
        self.left -= end - start;
        self.topics.push(Topic {
            name: Some(Cow::Borrowed(&topic.name)),
            topic_id: topic.id,
            is_internal: topic_name::is_internal(&topic.name),
            partitions: shown
                .map(
                    |(number, of_image)| DescribeTopicPartitionsResponsePartition {
                        offline_replicas: self.image.offline_replicas(of_image),
                        ..partition(number, of_image)
                    },
                )
                .collect(),
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Topic::default()
        });
        if end < count {
            self.next = Some(cursor(topic, end));
        }
        end == count
    }
}

fn cursor(topic: &TopicImage, partition: usize) -> ResponseCursor<'_> {
    ResponseCursor {
        topic_name: Cow::Borrowed(&topic.name),
        partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
    }
}

/// A partition whose disk does not serve has no leader and nobody in sync, as Kafka's controller
/// would have it.
fn mark_offline(topic: &mut Topic<'_>, is_offline: impl Fn(Uuid, i32) -> bool) {
    for partition in &mut topic.partitions {
        if is_offline(topic.topic_id, partition.partition_index) {
            partition.error_code = ErrorCode::LeaderNotAvailable.code();
            partition.leader_id = NO_LEADER;
            partition.isr_nodes.clear();
            partition.offline_replicas = partition.replica_nodes.clone();
        }
    }
}

fn partition(number: i32, image: &PartitionImage) -> DescribeTopicPartitionsResponsePartition {
    let code = if image.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    DescribeTopicPartitionsResponsePartition {
        error_code: code.code(),
        partition_index: number,
        leader_id: image.leader,
        leader_epoch: image.leader_epoch,
        replica_nodes: image.replicas.clone(),
        isr_nodes: image.isr.clone(),
        eligible_leader_replicas: Some(image.elr.clone()),
        last_known_elr: Some(image.last_known_elr.clone()),
        offline_replicas: Vec::new(),
    }
}

fn unknown(name: &str) -> Topic<'_> {
    let code = match topic_name::check(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    Topic {
        error_code: code.code(),
        name: Some(Cow::Borrowed(name)),
        is_internal: topic_name::is_internal(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Topic::default()
    }
}

fn refused<'a>(names: &BTreeSet<&'a str>) -> DescribeTopicPartitionsResponse<'a> {
    let topics = names.iter().map(|name| Topic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(Cow::Borrowed(*name)),
        ..Topic::default()
    });
    DescribeTopicPartitionsResponse {
        topics: topics.collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::codec::Uuid;
    use crate::wire::messages::describe_topic_partitions::{Cursor, TopicRequest};
    use std::collections::BTreeMap;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let partition = PartitionImage {
                leader: 1,
                leader_epoch: 0,
                ..PartitionImage::new(vec![1])
            };
            image.apply(&MetadataRecord::TopicCreated {
                name: name.to_string(),
                id: Uuid([id; 16]),
                partitions: vec![partition; 2],
                configs: BTreeMap::new(),
            });
        }
        image
    }

    type Shown = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    fn shown(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Shown {
        let image = image();
        let request = DescribeTopicPartitionsRequest {
            topics: names
                .iter()
                .map(|name| TopicRequest {
                    name: (*name).into(),
                })
                .collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| Cursor {
                topic_name: name.into(),
                partition_index,
            }),
        };
        let response = answer(&image, &request, 5);
        let topics = response.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| p.partition_index);
            let name = topic.name.as_deref().unwrap().to_string();
            (name, topic.error_code, partitions.collect())
        });
        let next = response
            .next_cursor
            .as_ref()
            .map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    fn topic(name: &str, code: i16, partitions: &[i32]) -> (String, i16, Vec<i32>) {
        (name.to_string(), code, partitions.to_vec())
    }

    fn at(name: &str, partition: i32) -> Option<(String, i32)> {
        Some((name.to_string(), partition))
    }

    #[test]
    fn pages_end_where_the_next_begins() {
        let all = (
            vec![
                topic("a", 0, &[0, 1]),
                topic("b", 0, &[0, 1]),
                topic("c", 0, &[0]),
            ],
            at("c", 1),
        );
        // The broker's own limit is 5.
        assert_eq!(shown(&[], 2000, None), all);
        assert_eq!(
            shown(&["a"], 0, None),
            (vec![topic("a", 0, &[0])], at("a", 1))
        );
        assert_eq!(
            shown(&["a", "b"], 2, None),
            (vec![topic("a", 0, &[0, 1])], at("b", 0))
        );
        assert_eq!(shown(&["a", "b"], 4, None).1, None);
        let second = shown(&["a", "b"], 2, Some(("a", 1)));
        assert_eq!(
            second,
            (vec![topic("a", 0, &[1]), topic("b", 0, &[0])], at("b", 1))
        );
        let past = shown(&["a", "b"], 2, Some(("a", 9)));
        assert_eq!(
            past,
            (vec![topic("a", 0, &[]), topic("b", 0, &[0, 1])], None)
        );
        assert_eq!(shown(&[], 9, Some(("bb", 0))).0, [topic("c", 0, &[0, 1])]);
    }

    #[test]
    fn topics_are_in_order_once_and_may_be_unknown() {
        let answer = shown(&["c", "x", "a b", "c"], 9, None);
        let expected = [
            topic("a b", 17, &[]),
            topic("c", 0, &[0, 1]),
            topic("x", 3, &[]),
        ];
        assert_eq!(answer.0, expected);
    }

    #[test]
    fn a_cursor_outside_is_invalid() {
        let refused = (vec![topic("a", 42, &[]), topic("b", 42, &[])], None);
        assert_eq!(shown(&["a", "b"], 2, Some(("aa", 1))), refused);
        assert_eq!(shown(&["a", "b"], 2, Some(("a", -1))), refused);
        assert_eq!(shown(&[], 2, Some(("a", -1))), (Vec::new(), None));
    }
}
