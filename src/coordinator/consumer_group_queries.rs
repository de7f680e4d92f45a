//! What others ask a consumer group: whether a commit is its member's to make, and what it is like.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::consumer_group::{ConsumerGroup, Member, Refusal};
use super::context::Context;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_describe as describe;

/// The first version of OffsetCommit that members of consumer groups use.
const COMMIT_VERSION_MIN: i16 = 9;
const UNKNOWN_GENERATION: i32 = -1;

const MEMBER_TYPE_CLASSIC: i8 = 0;
const MEMBER_TYPE_CONSUMER: i8 = 1;

/// Who commits offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committer<'a> {
    /// The member's id; empty where no member commits.
    pub(super) member_id: &'a str,
    /// Its instance id.
    pub(super) instance_id: Option<&'a str>,
    /// Its epoch, or generation; -1 where no member commits.
    pub(super) epoch: i32,
    /// The version of OffsetCommit; None in a transaction.
    pub(super) version: Option<i16>,
}

impl ConsumerGroup {
    /// Whether offsets of these partitions may be committed. In an epoch that is over a member may
    /// commit what it has had since then.
    ///
    /// # Errors
    /// When not.
    pub(super) fn validate_offset_commit(
        &self,
        committer: &Committer<'_>,
        partitions: &[(Uuid, i32)],
    ) -> Result<(), Refusal> {
        let epoch = committer.epoch;
        let names_nobody = epoch == UNKNOWN_GENERATION
            && committer.member_id.is_empty()
            && committer.instance_id.is_none();
        if (epoch < 0 && self.is_empty()) || (committer.version.is_none() && names_nobody) {
            return Ok(());
        }
        let member_id = committer.member_id;
        let member = self.members.get(member_id);
        let member = member.ok_or_else(|| self.unknown(member_id))?;
        if committer.version.is_some_and(|v| v < COMMIT_VERSION_MIN) && !member.is_classic() {
            return Err(Refusal::new(
                ErrorCode::UnsupportedVersion,
                "OffsetCommit version 9 or above must be used by members using the modern group protocol",
            ));
        }
        let may_commit = match epoch.cmp(&member.current.epoch) {
            Ordering::Equal => true,
            Ordering::Greater => false,
            Ordering::Less => partitions.iter().all(|(topic, partition)| {
                let since = held_since(member, *topic, *partition);
                since.is_some_and(|since| epoch >= since)
            }),
        };
        if may_commit {
            return Ok(());
        }
        Err(stale(member, epoch))
    }

    /// Whether committed offsets may be told to this member.
    ///
    /// # Errors
    /// When not.
    pub(super) fn validate_offset_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), Refusal> {
        let Some(member_id) = member_id else {
            if epoch < 0 {
                return Ok(());
            }
            return Err(self.unknown(""));
        };
        let member = self.members.get(member_id);
        let member = member.ok_or_else(|| self.unknown(member_id))?;
        match epoch == member.current.epoch {
            true => Ok(()),
            false => Err(stale(member, epoch)),
        }
    }

    /// What ConsumerGroupDescribe tells.
    #[must_use]
    pub(super) fn describe(&self, context: &Context<'_>) -> describe::DescribedGroup<'static> {
        describe::DescribedGroup {
            group_id: self.id.clone().into(),
            group_state: self.state().name().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.preferred_assignor(context.groups).into(),
            members: (self.members.iter())
                .map(|(member_id, member)| self.describe_member(member_id, member, context))
                .collect(),
            ..describe::DescribedGroup::default()
        }
    }

    fn describe_member(
        &self,
        member_id: &str,
        member: &Member,
        context: &Context<'_>,
    ) -> describe::Member<'static> {
        let metadata = &member.metadata;
        let owned = |text: &Option<String>| text.clone().map(Cow::Owned);
        let target = self.targets.get(member_id).into_iter().flatten();
        let target = target.map(|(topic, held)| (*topic, held.iter().copied().collect()));
        let assigned = member.current.assigned.iter();
        let assigned = assigned.map(|(topic, held)| (*topic, held.keys().copied().collect()));
        describe::Member {
            member_id: member_id.to_owned().into(),
            instance_id: owned(&metadata.instance_id),
            rack_id: owned(&metadata.rack_id),
            member_epoch: member.current.epoch,
            client_id: metadata.client_id.clone().into(),
            client_host: metadata.client_host.clone().into(),
            subscribed_topic_names: metadata.topics.iter().cloned().map(Cow::Owned).collect(),
            subscribed_topic_regex: Some(metadata.regex.clone().into()),
            assignment: named(assigned, context),
            target_assignment: named(target, context),
            member_type: match member.is_classic() {
                true => MEMBER_TYPE_CLASSIC,
                false => MEMBER_TYPE_CONSUMER,
            },
        }
    }
}

/// The epoch in which the member got a partition that it has, or has to give up.
fn held_since(member: &Member, topic: Uuid, partition: i32) -> Option<i32> {
    let held = [&member.current.assigned, &member.current.revoking];
    held.into_iter()
        .find_map(|held| held.get(&topic)?.get(&partition).copied())
}

fn stale(member: &Member, epoch: i32) -> Refusal {
    let expected = member.current.epoch;
    match member.is_classic() {
        true => Refusal::new(
            ErrorCode::IllegalGeneration,
            format!(
                "The received generation id {epoch} does not match the expected member epoch {expected}."
            ),
        ),
        false => Refusal::new(
            ErrorCode::StaleMemberEpoch,
            format!(
                "The received member epoch {epoch} does not match the expected member epoch {expected}."
            ),
        ),
    }
}

/// Partitions with the names of their topics; topics that are deleted have none.
fn named(
    partitions: impl Iterator<Item = (Uuid, Vec<i32>)>,
    context: &Context<'_>,
) -> describe::Assignment<'static> {
    let named = partitions.filter_map(|(topic_id, partitions)| {
        let topic = context.topics.by_id(topic_id)?;
        Some(describe::TopicPartitions {
            topic_id,
            topic_name: topic.name.into(),
            partitions,
        })
    });
    describe::Assignment {
        topic_partitions: named.collect(),
    }
}
