//! Fetching committed offsets.

use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};

use super::context::Context;
use super::group_shard::GroupShard;
use super::offset_table::CommittedOffset;

/// First version with topic ids instead of names.
const BY_ID_FROM: i16 = 10;

impl GroupShard {
    /// Decides an OffsetFetch for one group. A classic group does not care who asks; a
    /// consumer group tells members in their epoch, and who is none.
    pub(super) fn offset_fetch(
        &self,
        context: &Context<'_>,
        asked: &OffsetFetchRequestGroup<'_>,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup<'static> {
        let verdict = self.consumer(&asked.group_id).map(|group| {
            let member_id = asked.member_id.as_deref();
            group.validate_offset_fetch(member_id, asked.member_epoch)
        });
        if let Some(Err(refusal)) = verdict {
            return OffsetFetchResponseGroup {
                group_id: asked.group_id.to_string().into(),
                error_code: refusal.code.code(),
                ..Default::default()
            };
        }
        let topics = match &asked.topics {
            None => self.fetch_all(context, &asked.group_id, require_stable),
            Some(topics) => {
                let group = &*asked.group_id;
                let topics = topics.iter();
                let topics = topics.map(|t| self.fetch_topic(context, group, t, require_stable));
                topics.collect()
            }
        };
        OffsetFetchResponseGroup {
            group_id: asked.group_id.to_string().into(),
            topics,
            ..Default::default()
        }
    }

    fn fetch_topic(
        &self,
        context: &Context<'_>,
        group: &str,
        asked: &OffsetFetchRequestTopics<'_>,
        require_stable: bool,
    ) -> OffsetFetchResponseTopics<'static> {
        let by_id = context.client.version >= BY_ID_FROM;
        let view = by_id
            .then(|| context.topics.by_id(asked.topic_id))
            .flatten();
        let name = view.as_ref().map_or(&*asked.name, |view| &view.name);
        let unknown = by_id && view.is_none();
        // An offset of an older topic of the same name is not this topic's.
        let expected = if by_id { asked.topic_id } else { Uuid::ZERO };
        let exists = self.groups.contains_key(group);
        let partitions = asked.partition_indexes.iter().map(|&index| {
            if unknown {
                return absent(index, ErrorCode::UnknownTopicId);
            }
            if !exists {
                return absent(index, ErrorCode::None);
            }
            if require_stable && self.offsets.is_pending(group, name, index) {
                return absent(index, ErrorCode::UnstableOffsetCommit);
            }
            match self.offsets.get(group, name, index) {
                Some(found) if !is_of_another_topic(found, expected) => present(index, found),
                _ => absent(index, ErrorCode::None),
            }
        });
        OffsetFetchResponseTopics {
            name: name.to_owned().into(),
            topic_id: asked.topic_id,
            partitions: partitions.collect(),
        }
    }

    fn fetch_all(
        &self,
        context: &Context<'_>,
        group: &str,
        require_stable: bool,
    ) -> Vec<OffsetFetchResponseTopics<'static>> {
        let by_id = context.client.version >= BY_ID_FROM;
        let mut topics = Vec::new();
        if !self.groups.contains_key(group) {
            return topics;
        }
        for (name, partitions) in self.offsets.topics(group) {
            let id = match context.topics.by_name(name) {
                Some(view) => view.id,
                // Without a name an id is all there is to say.
                None if by_id => continue,
                None => Uuid::ZERO,
            };
            let partitions = partitions.iter().map(|(index, found)| {
                if require_stable && self.offsets.is_pending(group, name, *index) {
                    absent(*index, ErrorCode::UnstableOffsetCommit)
                } else {
                    present(*index, found)
                }
            });
            topics.push(OffsetFetchResponseTopics {
                name: name.to_owned().into(),
                topic_id: id,
                partitions: partitions.collect(),
            });
        }
        topics
    }
}

fn is_of_another_topic(found: &CommittedOffset, expected: Uuid) -> bool {
    !found.topic_id.is_zero() && !expected.is_zero() && found.topic_id != expected
}

fn present(index: i32, found: &CommittedOffset) -> OffsetFetchResponsePartitions<'static> {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: found.offset,
        committed_leader_epoch: found.leader_epoch,
        metadata: Some(found.metadata().to_owned().into()),
        ..Default::default()
    }
}

fn absent(index: i32, error: ErrorCode) -> OffsetFetchResponsePartitions<'static> {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some("".into()),
        error_code: error.code(),
    }
}
