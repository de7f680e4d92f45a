//! Committing, fetching and deleting offsets.

use std::collections::BTreeSet;

use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use crate::wire::messages::records_offset_commit::OffsetCommitValue;
use crate::wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};

use super::classic_group::State;
use super::consumer_group::ConsumerGroup;
use super::consumer_group_queries;
use super::context::{Context, TopicView};
use super::effects::{CoordinatorRecord, Effects, ProducerIdAndEpoch};
use super::group_records::{offset_record, offset_tombstone, record_bytes};
use super::group_request::GroupAnswer;
use super::group_shard::GroupShard;

/// Largest batch of one commit: Kafka's default of `max.message.bytes`.
const COMMIT_BYTES_MAX: usize = 1_048_588;

/// First version of OffsetCommit with ids instead of names.
const COMMIT_BY_ID_FROM: i16 = 10;
/// First version of OffsetCommit that says that a group is not there.
const NOT_FOUND_FROM: i16 = 9;

/// What a commit asks for one topic, whatever its request is called.
struct AskedTopic<'r> {
    view: Result<TopicView, ErrorCode>,
    partitions: Vec<AskedPartition<'r>>,
}

struct AskedPartition<'r> {
    index: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: &'r str,
}

/// Who commits.
struct Committer<'r> {
    group: &'r str,
    member: &'r str,
    instance_id: Option<&'r str>,
    generation: i32,
    producer: Option<ProducerIdAndEpoch>,
    expire_ms: Option<i64>,
}

/// An offset that is committed when the whole commit fits a batch.
struct Accepted<'r> {
    topic: &'r str,
    partition: i32,
    value: OffsetCommitValue<'r>,
}

impl GroupShard {
    /// Decides an OffsetCommit.
    pub(super) fn offset_commit(
        &mut self,
        context: &mut Context<'_>,
        request: &OffsetCommitRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> OffsetCommitResponse<'static> {
        let by_id = context.client.version >= COMMIT_BY_ID_FROM;
        let asked: Vec<AskedTopic<'_>> = request
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| AskedPartition {
                    index: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_deref().unwrap_or(""),
                });
                let view = if by_id {
                    context
                        .topics
                        .by_id(topic.topic_id)
                        .ok_or(ErrorCode::UnknownTopicId)
                } else {
                    topic_of(context, &topic.name)
                };
                AskedTopic {
                    view,
                    partitions: partitions.collect(),
                }
            })
            .collect();
        let retention_ms = request.retention_time_ms;
        let committer = Committer {
            group: &request.group_id,
            member: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation: request.generation_id_or_member_epoch,
            producer: None,
            expire_ms: (retention_ms != -1).then(|| context.wall_ms.saturating_add(retention_ms)),
        };
        let errors = self.commit(context, &committer, &asked, effects);
        let topics = request.topics.iter().zip(errors).map(|(topic, errors)| {
            let partitions = topic.partitions.iter().zip(errors);
            OffsetCommitResponseTopic {
                name: topic.name.to_string().into(),
                topic_id: topic.topic_id,
                partitions: partitions
                    .map(|(partition, error)| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: error.code(),
                    })
                    .collect(),
            }
        });
        OffsetCommitResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    /// Decides a TxnOffsetCommit.
    pub(super) fn txn_offset_commit(
        &mut self,
        context: &mut Context<'_>,
        request: &TxnOffsetCommitRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> TxnOffsetCommitResponse<'static> {
        let asked: Vec<AskedTopic<'_>> = request
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| AskedPartition {
                    index: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_deref().unwrap_or(""),
                });
                AskedTopic {
                    view: topic_of(context, &topic.name),
                    partitions: partitions.collect(),
                }
            })
            .collect();
        let committer = Committer {
            group: &request.group_id,
            member: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation: request.generation_id,
            producer: Some(ProducerIdAndEpoch {
                id: request.producer_id,
                epoch: request.producer_epoch,
            }),
            expire_ms: None,
        };
        let errors = self.commit(context, &committer, &asked, effects);
        let topics = request.topics.iter().zip(errors).map(|(topic, errors)| {
            let partitions = topic.partitions.iter().zip(errors);
            TxnOffsetCommitResponseTopic {
                name: topic.name.to_string().into(),
                partitions: partitions
                    .map(|(partition, error)| TxnOffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: error.code(),
                    })
                    .collect(),
            }
        });
        TxnOffsetCommitResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    /// Commits what may be committed; an error for every partition.
    fn commit(
        &mut self,
        context: &mut Context<'_>,
        who: &Committer<'_>,
        asked: &[AskedTopic<'_>],
        effects: &mut Effects<GroupAnswer>,
    ) -> Vec<Vec<ErrorCode>> {
        // Without a topic that exists nothing is asked of the group.
        let admitted = if asked.iter().any(|topic| topic.view.is_ok()) {
            self.admit(context, who, asked, effects)
        } else {
            Ok(())
        };
        let metadata_max = context.groups.offset_metadata_max_bytes;
        let mut accepted = Vec::new();
        let mut errors = Vec::with_capacity(asked.len());
        for topic in asked {
            let verdicts = topic.partitions.iter().map(|partition| {
                let view = topic.view.as_ref().map_err(|error| *error)?;
                admitted?;
                if !(0..view.partitions).contains(&partition.index) {
                    return Err(ErrorCode::UnknownTopicOrPartition);
                }
                if is_longer(partition.metadata, metadata_max) {
                    return Err(ErrorCode::OffsetMetadataTooLarge);
                }
                accepted.push(accept(context, who, view, partition));
                Ok(())
            });
            let verdicts = verdicts.map(|verdict: Result<(), ErrorCode>| verdict.err());
            let verdicts = verdicts.map(|error| error.unwrap_or(ErrorCode::None));
            errors.push(verdicts.collect::<Vec<ErrorCode>>());
        }
        let records: Vec<CoordinatorRecord> = accepted
            .iter()
            .map(|one| offset_record(who.group, one.topic, one.partition, &one.value))
            .collect();
        if records.iter().map(record_bytes).sum::<usize>() > COMMIT_BYTES_MAX {
            let all = errors.iter_mut().flatten();
            for error in all.filter(|error| **error == ErrorCode::None) {
                *error = ErrorCode::InvalidCommitOffsetSize;
            }
            return errors;
        }
        self.apply(who, &accepted);
        if !records.is_empty() {
            effects.transaction = who.producer;
        }
        effects.records.extend(records);
        errors
    }

    fn apply(&mut self, who: &Committer<'_>, accepted: &[Accepted<'_>]) {
        if accepted.is_empty() {
            return;
        }
        let group = self.group_or_simple(who.group);
        for one in accepted {
            let (topic, partition, value) = (one.topic, one.partition, &one.value);
            match who.producer {
                None => self.offsets.put(&group, topic, partition, value),
                Some(producer) => {
                    self.offsets
                        .put_pending(producer.id, &group, topic, partition, value);
                }
            }
        }
    }

    /// Whether this member of this generation may commit. A commit is a sign of life.
    fn admit(
        &mut self,
        context: &mut Context<'_>,
        who: &Committer<'_>,
        asked: &[AskedTopic<'_>],
        effects: &mut Effects<GroupAnswer>,
    ) -> Result<(), ErrorCode> {
        let transactional = who.producer.is_some();
        // Offsets of consumers without a group were committed under the empty id once.
        if transactional && who.group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.groups.contains_key(who.group) {
            return match who.generation {
                0.. if !transactional && context.client.version >= NOT_FOUND_FROM => {
                    Err(ErrorCode::GroupIdNotFound)
                }
                0.. => Err(ErrorCode::IllegalGeneration),
                _ if self.groups.len() >= context.groups.groups_max => {
                    Err(ErrorCode::CoordinatorNotAvailable)
                }
                _ => Ok(()),
            };
        }
        if let Some(group) = self.consumer(who.group) {
            return admit_to_consumer(group, context, who, asked);
        }
        let verdict = self.on_classic(who.group, context, effects, |group, turn| {
            let (member, instance) = (who.member, who.instance_id);
            group.validate_commit(member, instance, who.generation, transactional)?;
            if !transactional && (group.state == State::Stable || group.state.is_preparing()) {
                group.touch(member, turn);
            }
            Ok(())
        });
        verdict.unwrap_or(Err(ErrorCode::GroupIdNotFound))
    }

    /// Decides an OffsetDelete.
    pub(super) fn offset_delete(
        &mut self,
        context: &Context<'_>,
        request: &OffsetDeleteRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> OffsetDeleteResponse<'static> {
        let refused = |error: ErrorCode| OffsetDeleteResponse {
            error_code: error.code(),
            ..Default::default()
        };
        let id = &*request.group_id;
        if id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        let Some(group) = self.groups.get(id) else {
            return refused(ErrorCode::GroupIdNotFound);
        };
        let classic = group.classic().filter(|group| group.state != State::Empty);
        if classic.is_some_and(|group| !group.uses_consumer_protocol()) {
            return refused(ErrorCode::NonEmptyGroup);
        }
        let mut gone = BTreeSet::new();
        let topics = request.topics.iter().map(|topic| {
            let error = if context.topics.by_name(&topic.name).is_none() {
                ErrorCode::UnknownTopicOrPartition
            } else if group.is_subscribed(&topic.name) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let known = self.offsets.get(id, &topic.name, index).is_some()
                    || self.offsets.is_pending(id, &topic.name, index);
                if known && error == ErrorCode::None {
                    gone.insert((&*topic.name, index));
                }
                OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: error.code(),
                }
            });
            OffsetDeleteResponseTopic {
                name: topic.name.to_string().into(),
                partitions: partitions.collect(),
            }
        });
        let topics = topics.collect();
        let tombstones = gone
            .iter()
            .map(|(topic, partition)| offset_tombstone(id, topic, *partition));
        let tombstones: Vec<CoordinatorRecord> = tombstones.collect();
        if tombstones.iter().map(record_bytes).sum::<usize>() > COMMIT_BYTES_MAX {
            return refused(ErrorCode::MessageTooLarge);
        }
        for (topic, partition) in gone {
            self.offsets.remove(id, topic, partition);
        }
        effects.records.extend(tombstones);
        OffsetDeleteResponse {
            topics,
            ..Default::default()
        }
    }
}

/// Whether a member of a consumer group may commit what it asks for.
fn admit_to_consumer(
    group: &ConsumerGroup,
    context: &Context<'_>,
    who: &Committer<'_>,
    asked: &[AskedTopic<'_>],
) -> Result<(), ErrorCode> {
    let transactional = who.producer.is_some();
    let committer = consumer_group_queries::Committer {
        member_id: who.member,
        instance_id: who.instance_id,
        epoch: who.generation,
        version: (!transactional).then_some(context.client.version),
    };
    let known = asked.iter().filter_map(|topic| {
        let view = topic.view.as_ref().ok()?;
        Some((view.id, &topic.partitions))
    });
    let partitions =
        known.flat_map(|(id, partitions)| partitions.iter().map(move |p| (id, p.index)));
    let partitions: Vec<(Uuid, i32)> = partitions.collect();
    let verdict = group.validate_offset_commit(&committer, &partitions);
    verdict.map_err(|refusal| match refusal.code {
        // Producers do not know the other code.
        ErrorCode::StaleMemberEpoch if transactional => ErrorCode::IllegalGeneration,
        code => code,
    })
}

fn topic_of(context: &Context<'_>, name: &str) -> Result<TopicView, ErrorCode> {
    let view = context.topics.by_name(name);
    view.ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn accept<'r>(
    context: &Context<'_>,
    who: &Committer<'_>,
    view: &'r TopicView,
    partition: &AskedPartition<'r>,
) -> Accepted<'r> {
    Accepted {
        topic: &view.name,
        partition: partition.index,
        value: OffsetCommitValue {
            offset: partition.offset,
            leader_epoch: partition.leader_epoch,
            metadata: partition.metadata.into(),
            commit_timestamp: context.wall_ms,
            expire_timestamp: who.expire_ms.unwrap_or(-1),
            // Version 1 of the record has no room for it.
            topic_id: if who.expire_ms.is_none() {
                view.id
            } else {
                Uuid::ZERO
            },
        },
    }
}

/// Kafka measures text in UTF-16 units.
fn is_longer(text: &str, units_max: usize) -> bool {
    text.len() > units_max && text.encode_utf16().count() > units_max
}
