//! What a consumer group keeps in the shard's log: record types 3 to 8 and 16, as Kafka writes them.
//!
//! A [`Change`] is one record. Type 4 was written by older versions of Kafka: it is read, and taken
//! back, but not written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::effects::CoordinatorRecord;
use crate::wire::codec::{DecodeError, Reader, Str, Uuid};
use crate::wire::message::Message;
use crate::wire::messages::records_consumer_group_current_member_assignment as current;
use crate::wire::messages::records_consumer_group_member_metadata as metadata;
use crate::wire::messages::records_consumer_group_metadata as group;
use crate::wire::messages::records_consumer_group_partition_metadata as partition_metadata;
use crate::wire::messages::records_consumer_group_regular_expression as regex;
use crate::wire::messages::records_consumer_group_target_assignment_member as target;
use crate::wire::messages::records_consumer_group_target_assignment_metadata as target_metadata;

const GROUP: i16 = 3;
const PARTITION_METADATA: i16 = 4;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;
const TYPE_BYTES: usize = 2;

/// Partitions of topics.
pub(super) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;
/// Partitions of topics, each with the epoch in which its member got it.
pub(super) type HeldPartitions = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Where a member is on the way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable,
    /// It was told to give partitions up and has not confirmed that yet.
    UnrevokedPartitions,
    /// It waits for partitions that others still hold.
    UnreleasedPartitions,
    /// Written by a version that knows more states.
    Unknown,
}

impl MemberState {
    const UNKNOWN_CODE: i8 = 127;

    fn from_code(code: i8) -> MemberState {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }

    fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => MemberState::UNKNOWN_CODE,
        }
    }
}

/// What a member of the classic protocol said when it joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassicMetadata {
    /// Its session timeout.
    pub(super) session_timeout_ms: i32,
    /// Its assignors with their subscriptions, the favourite first.
    pub(super) protocols: Vec<(String, Vec<u8>)>,
}

/// What a member said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberMetadata {
    /// Set for static members.
    pub(super) instance_id: Option<String>,
    /// Where it is.
    pub(super) rack_id: Option<String>,
    /// The `client.id` of its requests.
    pub(super) client_id: String,
    /// Its address.
    pub(super) client_host: String,
    /// Topics that it subscribes to by name.
    pub(super) topics: BTreeSet<String>,
    /// The expression that it subscribes to; empty without one.
    pub(super) regex: String,
    /// How long it may take to give partitions up.
    pub(super) rebalance_timeout_ms: i32,
    /// The assignor it wants.
    pub(super) server_assignor: Option<String>,
    /// Set while it speaks the classic protocol.
    pub(super) classic: Option<ClassicMetadata>,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CurrentAssignment {
    /// Its epoch.
    pub(super) epoch: i32,
    /// The epoch before, which is accepted while the answer with the new one may have got lost.
    pub(super) previous_epoch: i32,
    /// Where it is on the way to its target.
    pub(super) state: MemberState,
    /// Partitions it may use.
    pub(super) assigned: HeldPartitions,
    /// Partitions it has to give up.
    pub(super) revoking: HeldPartitions,
}

/// The topics that an expression matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvedRegex {
    /// Their names.
    pub(super) topics: BTreeSet<String>,
    /// The version of the metadata it was matched with.
    pub(super) version: u64,
    /// When it was matched.
    pub(super) at_ms: i64,
}

/// One record; None is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The epoch of the group, and the hash of its topics' metadata.
    Group(Option<(i32, i64)>),
    /// Whether there is a record of type 4.
    PartitionMetadata(bool),
    /// What a member said.
    Member(String, Option<MemberMetadata>),
    /// The epoch of the target assignment, and when it was made.
    TargetEpoch(Option<(i32, i64)>),
    /// What a member is to have.
    Target(String, Option<Partitions>),
    /// What a member has.
    Current(String, Option<CurrentAssignment>),
    /// What an expression matches.
    Regex(String, Option<ResolvedRegex>),
}

impl Change {
    /// Whether it takes something back.
    pub(super) fn is_tombstone(&self) -> bool {
        match self {
            Change::Group(value) | Change::TargetEpoch(value) => value.is_none(),
            Change::PartitionMetadata(is_there) => !is_there,
            Change::Member(_, value) => value.is_none(),
            Change::Target(_, value) => value.is_none(),
            Change::Current(_, value) => value.is_none(),
            Change::Regex(_, value) => value.is_none(),
        }
    }

    /// Reads a record: its group, and the change; None where it is of another type.
    ///
    /// # Errors
    /// When the bytes are not what the type says.
    pub(super) fn decode(
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<(String, Change)>, DecodeError> {
        let record_type = Reader::new(key).int16()?;
        let key = &key[TYPE_BYTES..];
        match record_type {
            MEMBER | TARGET | CURRENT => decode_of_member(record_type, key, value).map(Some),
            GROUP | PARTITION_METADATA | TARGET_EPOCH => {
                decode_of_group(record_type, key, value).map(Some)
            }
            REGEX => {
                let key = regex::ConsumerGroupRegularExpressionKey::decode_whole(key, 0)?;
                let resolved = decode_value(value)?.map(resolved_regex);
                let expression = key.regular_expression.into_owned();
                let change = Change::Regex(expression, resolved);
                Ok(Some((key.group_id.into_owned(), change)))
            }
            _ => Ok(None),
        }
    }

    /// The record of this change in `group_id`.
    #[must_use]
    pub(super) fn encode(&self, group_id: &str) -> CoordinatorRecord {
        match self {
            Change::Group(value) => record(
                GROUP,
                &group_key(group_id),
                value.map(|(epoch, metadata_hash)| group::ConsumerGroupMetadataValue {
                    epoch,
                    metadata_hash,
                }),
            ),
            Change::PartitionMetadata(_) => record(
                PARTITION_METADATA,
                &group_key(group_id),
                None::<partition_metadata::ConsumerGroupPartitionMetadataValue<'_>>,
            ),
            Change::TargetEpoch(value) => record(
                TARGET_EPOCH,
                &group_key(group_id),
                value.map(|(assignment_epoch, assignment_timestamp)| {
                    target_metadata::ConsumerGroupTargetAssignmentMetadataValue {
                        assignment_epoch,
                        assignment_timestamp,
                    }
                }),
            ),
            Change::Member(member_id, value) => record(
                MEMBER,
                &member_key(group_id, member_id),
                value.as_ref().map(member_value),
            ),
            Change::Target(member_id, value) => record(
                TARGET,
                &member_key(group_id, member_id),
                value.as_ref().map(target_value),
            ),
            Change::Current(member_id, value) => record(
                CURRENT,
                &member_key(group_id, member_id),
                value.as_ref().map(current_value),
            ),
            Change::Regex(expression, value) => record(
                REGEX,
                &member_key(group_id, expression),
                value.as_ref().map(regex_value),
            ),
        }
    }
}

fn decode_of_group(
    record_type: i16,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(String, Change), DecodeError> {
    let key = group::ConsumerGroupMetadataKey::decode_whole(key, 0)?;
    let change = match record_type {
        GROUP => {
            let value: Option<group::ConsumerGroupMetadataValue> = decode_value(value)?;
            Change::Group(value.map(|value| (value.epoch, value.metadata_hash)))
        }
        TARGET_EPOCH => {
            let value: Option<target_metadata::ConsumerGroupTargetAssignmentMetadataValue> =
                decode_value(value)?;
            Change::TargetEpoch(
                value.map(|value| (value.assignment_epoch, value.assignment_timestamp)),
            )
        }
        _ => Change::PartitionMetadata(value.is_some()),
    };
    Ok((key.group_id.into_owned(), change))
}

fn decode_of_member(
    record_type: i16,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(String, Change), DecodeError> {
    let key = metadata::ConsumerGroupMemberMetadataKey::decode_whole(key, 0)?;
    let member_id = key.member_id.into_owned();
    let change = match record_type {
        MEMBER => Change::Member(member_id, decode_value(value)?.map(member_metadata)),
        TARGET => Change::Target(member_id, decode_value(value)?.map(target_partitions)),
        _ => Change::Current(member_id, decode_value(value)?.map(current_assignment)),
    };
    Ok((key.group_id.into_owned(), change))
}

fn decode_value<'a, M: Message<'a>>(value: Option<&'a [u8]>) -> Result<Option<M>, DecodeError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let version = Reader::new(value).int16()?;
    M::decode_whole(&value[TYPE_BYTES..], version).map(Some)
}

fn record<'a, 'b, K: Message<'a>, V: Message<'b>>(
    record_type: i16,
    key: &K,
    value: Option<V>,
) -> CoordinatorRecord {
    let with_number = |number: i16, bytes: Vec<u8>| [&number.to_be_bytes()[..], &bytes].concat();
    CoordinatorRecord {
        key: with_number(record_type, key.to_bytes(0)),
        value: value.map(|value| with_number(VALUE_VERSION, value.to_bytes(VALUE_VERSION))),
    }
}

fn group_key(group_id: &str) -> group::ConsumerGroupMetadataKey<'_> {
    group::ConsumerGroupMetadataKey {
        group_id: Cow::Borrowed(group_id),
    }
}

/// Also the form of the key of an expression.
fn member_key<'a>(
    group_id: &'a str,
    member_id: &'a str,
) -> metadata::ConsumerGroupMemberMetadataKey<'a> {
    metadata::ConsumerGroupMemberMetadataKey {
        group_id: Cow::Borrowed(group_id),
        member_id: Cow::Borrowed(member_id),
    }
}

fn borrowed(text: &Option<String>) -> Option<Str<'_>> {
    text.as_deref().map(Cow::Borrowed)
}

fn owned(text: Option<Str<'_>>) -> Option<String> {
    text.map(Cow::into_owned)
}

fn member_value(member: &MemberMetadata) -> metadata::ConsumerGroupMemberMetadataValue<'_> {
    let classic = member.classic.as_ref();
    metadata::ConsumerGroupMemberMetadataValue {
        instance_id: borrowed(&member.instance_id),
        rack_id: borrowed(&member.rack_id),
        client_id: Cow::Borrowed(&member.client_id),
        client_host: Cow::Borrowed(&member.client_host),
        subscribed_topic_names: member.topics.iter().map(|name| name.into()).collect(),
        subscribed_topic_regex: Some(Cow::Borrowed(&member.regex)),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: borrowed(&member.server_assignor),
        classic_member_metadata: classic.map(|classic| metadata::ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: (classic.protocols.iter())
                .map(|(name, bytes)| metadata::ClassicProtocol {
                    name: Cow::Borrowed(name),
                    metadata: Cow::Borrowed(bytes),
                })
                .collect(),
        }),
    }
}

fn member_metadata(value: metadata::ConsumerGroupMemberMetadataValue<'_>) -> MemberMetadata {
    let classic = value.classic_member_metadata;
    MemberMetadata {
        instance_id: owned(value.instance_id),
        rack_id: owned(value.rack_id),
        client_id: value.client_id.into_owned(),
        client_host: value.client_host.into_owned(),
        topics: (value.subscribed_topic_names.into_iter())
            .map(Cow::into_owned)
            .collect(),
        regex: owned(value.subscribed_topic_regex).unwrap_or_default(),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: owned(value.server_assignor),
        classic: classic.map(|classic| ClassicMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: (classic.supported_protocols.into_iter())
                .map(|protocol| (protocol.name.into_owned(), protocol.metadata.into_owned()))
                .collect(),
        }),
    }
}

fn target_value(partitions: &Partitions) -> target::ConsumerGroupTargetAssignmentMemberValue {
    target::ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: (partitions.iter())
            .map(|(topic_id, partitions)| target::TopicPartition {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
            })
            .collect(),
    }
}

fn target_partitions(value: target::ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    (value.topic_partitions.into_iter())
        .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
        .collect()
}

fn current_value(
    current: &CurrentAssignment,
) -> current::ConsumerGroupCurrentMemberAssignmentValue {
    current::ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state.code(),
        assigned_partitions: held_value(&current.assigned),
        partitions_pending_revocation: held_value(&current.revoking),
    }
}

fn held_value(held: &HeldPartitions) -> Vec<current::TopicPartitions> {
    held.iter()
        .map(|(topic_id, partitions)| current::TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
            assignment_epochs: Some(partitions.values().copied().collect()),
        })
        .collect()
}

fn current_assignment(
    value: current::ConsumerGroupCurrentMemberAssignmentValue,
) -> CurrentAssignment {
    let held = |topics| held_partitions(topics, value.member_epoch);
    CurrentAssignment {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: MemberState::from_code(value.state),
        assigned: held(value.assigned_partitions),
        revoking: held(value.partitions_pending_revocation),
    }
}

/// Older versions of Kafka did not write when a member got a partition: at the latest now.
fn held_partitions(topics: Vec<current::TopicPartitions>, member_epoch: i32) -> HeldPartitions {
    (topics.into_iter())
        .map(|topic| {
            let epochs = topic.assignment_epochs.unwrap_or_default();
            let epochs = epochs.into_iter().chain(std::iter::repeat(member_epoch));
            (
                topic.topic_id,
                topic.partitions.into_iter().zip(epochs).collect(),
            )
        })
        .collect()
}

fn regex_value(resolved: &ResolvedRegex) -> regex::ConsumerGroupRegularExpressionValue<'_> {
    regex::ConsumerGroupRegularExpressionValue {
        topics: resolved.topics.iter().map(|name| name.into()).collect(),
        version: resolved.version.cast_signed(),
        timestamp: resolved.at_ms,
    }
}

fn resolved_regex(value: regex::ConsumerGroupRegularExpressionValue<'_>) -> ResolvedRegex {
    ResolvedRegex {
        topics: value.topics.into_iter().map(Cow::into_owned).collect(),
        version: value.version.cast_unsigned(),
        at_ms: value.timestamp,
    }
}
