//! What members of the classic protocol say and are told inside of their requests, when they are
//! consumers: subscriptions and assignments, each with its version in front.

use std::collections::{BTreeMap, BTreeSet};

use super::consumer_records::{HeldPartitions, Partitions};
use super::context::Context;
use crate::wire::codec::{DecodeError, Reader, Uuid};
use crate::wire::message::Message;
use crate::wire::messages::consumer_group_heartbeat;
use crate::wire::messages::records_consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition,
};
use crate::wire::messages::records_consumer_protocol_subscription::ConsumerProtocolSubscription;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// What a consumer subscribes to and owns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Subscription {
    /// Names of topics.
    pub(super) topics: BTreeSet<String>,
    /// What it owns of topics that exist.
    pub(super) owned: Vec<consumer_group_heartbeat::TopicPartitions>,
    /// Where it is.
    pub(super) rack_id: Option<String>,
}

/// Reads a subscription; of versions that are newer than ours, what ours have.
pub(super) fn subscription(
    bytes: &[u8],
    context: &Context<'_>,
) -> Result<Subscription, DecodeError> {
    let said: ConsumerProtocolSubscription<'_> = decode(bytes)?;
    let rack_id = said.rack_id.filter(|rack_id| !rack_id.is_empty());
    let owned = said.owned_partitions.into_iter().filter_map(|owned| {
        Some(consumer_group_heartbeat::TopicPartitions {
            topic_id: context.topics.by_name(&owned.topic)?.id,
            partitions: owned.partitions,
        })
    });
    Ok(Subscription {
        owned: owned.collect(),
        topics: said.topics.into_iter().map(|t| t.into_owned()).collect(),
        rack_id: rack_id.map(|rack_id| rack_id.into_owned()),
    })
}

/// The version of a subscription, which is also that of the assignment that answers it.
pub(super) fn version(bytes: &[u8]) -> i16 {
    let versions = ConsumerProtocolAssignment::VERSIONS;
    let version = Reader::new(bytes).int16().unwrap_or(0);
    version.clamp(*versions.start(), *versions.end())
}

/// Reads an assignment: its partitions of topics that exist, and whether it has data of its
/// assignor. No bytes are no partitions.
pub(super) fn assignment(
    bytes: &[u8],
    context: &Context<'_>,
) -> Result<(Partitions, bool), DecodeError> {
    if bytes.is_empty() {
        return Ok((Partitions::new(), false));
    }
    let given: ConsumerProtocolAssignment<'_> = decode(bytes)?;
    let has_data = given.user_data.is_some_and(|data| !data.is_empty());
    let mut partitions = Partitions::new();
    for topic in given.assigned_partitions {
        if let Some(view) = context.topics.by_name(&topic.topic) {
            let held = partitions.entry(view.id).or_default();
            held.extend(topic.partitions);
        }
    }
    Ok((partitions, has_data))
}

/// Writes an assignment; topics that are deleted have no name and are left out.
pub(super) fn assignment_bytes<'a>(
    partitions: impl Iterator<Item = (&'a Uuid, Vec<i32>)>,
    version: i16,
    context: &Context<'_>,
) -> Vec<u8> {
    let named = partitions.filter_map(|(topic_id, partitions)| {
        let topic = context.topics.by_id(*topic_id)?.name.into();
        Some(TopicPartition { topic, partitions })
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: named.collect(),
        user_data: None,
    };
    [&version.to_be_bytes()[..], &assignment.to_bytes(version)].concat()
}

/// Partitions that a member got in `epoch`.
pub(super) fn held_since(partitions: &Partitions, epoch: i32) -> HeldPartitions {
    let held = |partitions: &BTreeSet<i32>| -> BTreeMap<i32, i32> {
        partitions
            .iter()
            .map(|partition| (*partition, epoch))
            .collect()
    };
    (partitions.iter())
        .map(|(topic, partitions)| (*topic, held(partitions)))
        .collect()
}

/// Reads what a version stands in front of; newer versions only add to the end.
fn decode<'a, M: Message<'a>>(bytes: &'a [u8]) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.int16()?;
    M::decode(&mut reader, version.min(*M::VERSIONS.end()))
}
