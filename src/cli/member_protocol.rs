//! What consumers tell each other through a group of the classic protocol: subscriptions and
//! assignments, each with its version in front. Newer versions only add to the end.

use std::collections::BTreeMap;

use crate::wire::codec::Reader;
use crate::wire::message::Message;
use crate::wire::messages::records_consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition,
};
use crate::wire::messages::records_consumer_protocol_subscription::ConsumerProtocolSubscription;

/// The version that is written: without what cooperation needs.
const VERSION: i16 = 0;

/// Partitions by topic.
pub(crate) type Share = BTreeMap<String, Vec<i32>>;

/// A subscription to one topic.
pub(crate) fn subscription(topic: &str) -> Vec<u8> {
    versioned(&ConsumerProtocolSubscription {
        topics: vec![topic.into()],
        ..Default::default()
    })
}

/// What a leader gave a consumer. During a rebalance it is empty.
pub(crate) fn assigned(bytes: &[u8]) -> Option<Share> {
    if bytes.is_empty() {
        return Some(Share::new());
    }
    let mut reader = Reader::new(bytes);
    let version = reader.int16().ok()?;
    let version = version.min(*ConsumerProtocolAssignment::VERSIONS.end());
    let assignment = ConsumerProtocolAssignment::decode(&mut reader, version).ok()?;
    let topics = assignment.assigned_partitions.into_iter().map(|topic| {
        let mut partitions = topic.partitions;
        partitions.sort_unstable();
        (topic.topic.into_owned(), partitions)
    });
    Some(topics.collect())
}

/// A message with its version in front.
fn versioned<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let version = VERSION;
    [&version.to_be_bytes()[..], &message.to_bytes(version)].concat()
}

/// What a leader gives to a member.
pub(crate) fn assignment(share: Share) -> Vec<u8> {
    let topics = share.into_iter().map(|(topic, partitions)| TopicPartition {
        topic: topic.into(),
        partitions,
    });
    versioned(&ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: None,
    })
}

/// The topics of a subscription.
pub(crate) fn subscribed(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes);
    let version = reader.int16().ok()?;
    let version = version.min(*ConsumerProtocolSubscription::VERSIONS.end());
    let said = ConsumerProtocolSubscription::decode(&mut reader, version).ok()?;
    Some(said.topics.into_iter().map(|it| it.into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let share = Share::from([("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![0])]);
        assert_eq!(assigned(&assignment(share.clone())), Some(share));
        assert_eq!(subscribed(&subscription("a")), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn newer_versions_are_read_as_far_as_they_are_known() {
        let given = ConsumerProtocolAssignment {
            assigned_partitions: vec![TopicPartition {
                topic: "orders".into(),
                partitions: vec![2, 0],
            }],
            user_data: None,
        };
        let said = ConsumerProtocolSubscription {
            topics: vec!["a".into(), "b".into()],
            ..Default::default()
        };
        let newest = *ConsumerProtocolAssignment::VERSIONS.end();
        for version in [0, newest, newest + 1] {
            let written = version.min(newest);
            let with_version = |body: &[u8]| [&version.to_be_bytes()[..], body, b"more"].concat();
            let share = Share::from([("orders".to_owned(), vec![0, 2])]);
            let bytes = with_version(&given.to_bytes(written));
            assert_eq!(assigned(&bytes), Some(share));
            let bytes = with_version(&said.to_bytes(written));
            assert_eq!(
                subscribed(&bytes),
                Some(vec!["a".to_owned(), "b".to_owned()])
            );
        }
        assert_eq!((assigned(&[0]), subscribed(&[])), (None, None));
        assert_eq!(assigned(&[]), Some(Share::new()));
    }
}
