//! A consumer group (KIP-848): who its members are, what each is to have, and what each has.
//!
//! The group's epoch grows with every change of its members, of their subscriptions and of the
//! metadata of their topics. For each epoch an assignor makes a target assignment; the members then
//! go there one by one, each at its own heartbeats.

use std::collections::{BTreeMap, BTreeSet};

use super::consumer_group_census::Census;
use super::consumer_group_deadlines::{Deadlines, Duty};
use super::consumer_records::{
    Change, CurrentAssignment, MemberMetadata, MemberState, Partitions, ResolvedRegex,
};
use super::context::Context;
use super::effects::CoordinatorRecord;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;

/// The epoch of a member that left.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// The epoch of a static member that left and may come back.
pub(super) const STATIC_LEAVE_EPOCH: i32 = -2;
/// The first epoch of a group.
const FIRST_EPOCH: i32 = 2;
/// The epoch of a target assignment that was deleted.
const NO_EPOCH: i32 = -1;
/// Members that one call removes.
const FENCED_MAX: usize = 1_000;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For the client's program.
    pub(super) code: ErrorCode,
    /// For who reads its log.
    pub(super) message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal { code, message }
    }
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// What it said.
    pub(super) metadata: MemberMetadata,
    /// What it has.
    pub(super) current: CurrentAssignment,
}

impl Member {
    /// Whether it speaks the classic protocol.
    #[must_use]
    pub(super) fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }
}

/// What a group is doing, as Kafka names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsumerGroupState {
    /// It has no members.
    Empty,
    /// Its target is older than its members.
    Assigning,
    /// Members are on the way to the target.
    Reconciling,
    /// All have what they are to have.
    Stable,
}

impl ConsumerGroupState {
    /// Kafka's name.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            ConsumerGroupState::Empty => "Empty",
            ConsumerGroupState::Assigning => "Assigning",
            ConsumerGroupState::Reconciling => "Reconciling",
            ConsumerGroupState::Stable => "Stable",
        }
    }
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct ConsumerGroup {
    pub(super) id: String,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) static_members: BTreeMap<String, String>,
    pub(super) target_epoch: i32,
    target_at_ms: i64,
    pub(super) targets: BTreeMap<String, Partitions>,
    pub(super) regexes: BTreeMap<String, ResolvedRegex>,
    has_partition_metadata: bool,
    pub(super) census: Census,
    // What follows is not in the log.
    pub(super) deadlines: Deadlines,
    /// The shard's timer for the next of them.
    pub(super) timer_ms: Option<u64>,
    /// The version of the metadata that the hash was last compared with.
    pub(super) metadata_seen: Option<u64>,
    /// When all expressions were matched last, and with which version of the metadata.
    pub(super) regexes_matched: Option<(u64, u64)>,
}

/// What is in the log.
impl PartialEq for ConsumerGroup {
    fn eq(&self, other: &ConsumerGroup) -> bool {
        (self.epoch, self.metadata_hash) == (other.epoch, other.metadata_hash)
            && (self.target_epoch, self.target_at_ms) == (other.target_epoch, other.target_at_ms)
            && self.id == other.id
            && self.members == other.members
            && self.static_members == other.static_members
            && self.targets == other.targets
            && self.regexes == other.regexes
            && self.has_partition_metadata == other.has_partition_metadata
            && self.census == other.census
    }
}

impl ConsumerGroup {
    /// A group without members.
    #[must_use]
    pub(super) fn new(id: &str) -> ConsumerGroup {
        ConsumerGroup {
            id: id.to_owned(),
            ..ConsumerGroup::default()
        }
    }

    /// Takes over what a record says. The record that deletes the group is the shard's to follow.
    pub(super) fn replay(&mut self, change: Change) {
        match change {
            Change::Group(value) => (self.epoch, self.metadata_hash) = value.unwrap_or_default(),
            Change::PartitionMetadata(is_there) => self.has_partition_metadata = is_there,
            Change::TargetEpoch(value) => {
                (self.target_epoch, self.target_at_ms) = value.unwrap_or((NO_EPOCH, 0));
            }
            Change::Target(member_id, Some(partitions)) => {
                self.targets.insert(member_id, partitions);
            }
            Change::Target(member_id, None) => {
                self.targets.remove(&member_id);
            }
            Change::Regex(expression, Some(resolved)) => {
                self.regexes.insert(expression, resolved);
            }
            Change::Regex(expression, None) => {
                self.regexes.remove(&expression);
            }
            Change::Member(member_id, Some(metadata)) => self.replay_member(member_id, metadata),
            Change::Member(member_id, None) => self.replay_member_gone(&member_id),
            Change::Current(member_id, Some(current)) => self.replay_current(member_id, current),
            Change::Current(member_id, None) => {
                if self.members.contains_key(&member_id) {
                    let left = CurrentAssignment {
                        epoch: LEAVE_EPOCH,
                        previous_epoch: LEAVE_EPOCH,
                        ..CurrentAssignment::default()
                    };
                    self.replay_current(member_id, left);
                }
            }
        }
    }

    fn replay_member(&mut self, member_id: String, metadata: MemberMetadata) {
        if let Some(instance_id) = &metadata.instance_id {
            let instance_id = instance_id.clone();
            self.static_members.insert(instance_id, member_id.clone());
        }
        self.census.add_metadata(&metadata);
        match self.members.get_mut(&member_id) {
            Some(member) => {
                let before = std::mem::replace(&mut member.metadata, metadata);
                self.census.remove_metadata(&before);
                if before.instance_id != member.metadata.instance_id {
                    self.release_instance(&member_id, before.instance_id.as_deref());
                }
            }
            None => {
                let current = CurrentAssignment::default();
                self.members.insert(member_id, Member { metadata, current });
            }
        }
    }

    fn replay_member_gone(&mut self, member_id: &str) {
        let Some(member) = self.members.remove(member_id) else {
            return;
        };
        self.census.remove_metadata(&member.metadata);
        self.census.remove_current(&member.current);
        self.release_instance(member_id, member.metadata.instance_id.as_deref());
    }

    fn release_instance(&mut self, member_id: &str, instance_id: Option<&str>) {
        if let Some(instance_id) = instance_id
            && self.static_members.get(instance_id).map(String::as_str) == Some(member_id)
        {
            self.static_members.remove(instance_id);
        }
    }

    fn replay_current(&mut self, member_id: String, current: CurrentAssignment) {
        // A log that was compacted may have what a member has before what it said.
        let member = self.members.entry(member_id).or_insert_with(|| {
            self.census.add_metadata(&MemberMetadata::default());
            Member::default()
        });
        self.census.remove_current(&member.current);
        self.census.add_current(&current);
        member.current = current;
    }

    /// Emits a record and takes over what it says.
    pub(super) fn commit(&mut self, change: Change, records: &mut Vec<CoordinatorRecord>) {
        records.push(change.encode(&self.id));
        self.replay(change);
    }

    /// Raises the epoch of the group.
    pub(super) fn bump(&mut self, metadata_hash: i64, records: &mut Vec<CoordinatorRecord>) {
        let epoch = (self.epoch + 1).max(FIRST_EPOCH);
        self.commit(Change::Group(Some((epoch, metadata_hash))), records);
        if self.has_partition_metadata {
            self.commit(Change::PartitionMetadata(false), records);
        }
    }

    /// What the group is doing.
    #[must_use]
    pub(super) fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerGroupState::Assigning
        } else if self.members.values().all(|member| self.has_arrived(member)) {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    /// Whether a member has what it is to have.
    pub(super) fn has_arrived(&self, member: &Member) -> bool {
        member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
    }

    /// Whether it has no members.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether any member subscribes to this topic.
    #[must_use]
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        let mut resolved = self.regexes.values();
        self.census.is_subscribed(topic) || resolved.any(|regex| regex.topics.contains(topic))
    }

    /// Records that delete the group and all that belongs to it, in Kafka's order.
    #[must_use]
    pub(super) fn tombstones(&self) -> Vec<CoordinatorRecord> {
        let members = || self.members.keys().cloned();
        let currents = members().map(|member| Change::Current(member, None));
        let targets = members().map(|member| Change::Target(member, None));
        let metadata = members().map(|member| Change::Member(member, None));
        let regexes = self.regexes.keys().cloned();
        (currents.chain(targets))
            .chain([Change::TargetEpoch(None)])
            .chain(metadata)
            .chain(regexes.map(|expression| Change::Regex(expression, None)))
            .chain([Change::PartitionMetadata(false), Change::Group(None)])
            .map(|change| change.encode(&self.id))
            .collect()
    }

    /// Starts what is not in the log: every member has a whole session from now on.
    pub(super) fn loaded(&mut self, context: &Context<'_>) {
        for (member_id, member) in &self.members {
            let session_ms = self.session_timeout_ms(&member.metadata, context);
            let due_ms = context.now_ms + session_ms;
            self.deadlines.set(member_id, Duty::Session, due_ms);
            let metadata = &member.metadata;
            if member.current.state == MemberState::UnrevokedPartitions {
                let due_ms = context.now_ms + rebalance_timeout_ms(metadata);
                let duty = match member.is_classic() {
                    true => Duty::Join,
                    false => Duty::Revoke,
                };
                self.deadlines.set(member_id, duty, due_ms);
            }
        }
    }

    /// When to call [`ConsumerGroup::tick`] at the latest.
    #[must_use]
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.deadlines.next_due_ms()
    }

    /// Removes members that missed a deadline; so many at a time that the records fit a batch.
    pub(super) fn tick(&mut self, context: &Context<'_>, records: &mut Vec<CoordinatorRecord>) {
        let mut late = BTreeSet::new();
        while late.len() < FENCED_MAX {
            let Some((member_id, duty)) = self.deadlines.pop_missed(context.now_ms) else {
                break;
            };
            let Some(member) = self.members.get(&member_id) else {
                continue;
            };
            let is_due = match duty {
                Duty::Session => true,
                Duty::Revoke => member.current.state == MemberState::UnrevokedPartitions,
                Duty::Join | Duty::Sync => member.is_classic(),
            };
            if is_due {
                late.insert(member_id);
            }
        }
        self.fence(late, context, records);
    }

    /// Removes members.
    pub(super) fn fence(
        &mut self,
        members: BTreeSet<String>,
        context: &Context<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) {
        if members.is_empty() {
            return;
        }
        for member_id in members {
            let regex = self.members[&member_id].metadata.regex.clone();
            self.remove(&member_id, records);
            self.forget_regex(&regex, records);
        }
        let hash = self.hash_metadata(context);
        self.bump(hash, records);
    }

    /// Tombstones of a member, in the order that Kafka needs.
    pub(super) fn remove(&mut self, member_id: &str, records: &mut Vec<CoordinatorRecord>) {
        self.commit(Change::Current(member_id.to_owned(), None), records);
        self.commit(Change::Target(member_id.to_owned(), None), records);
        self.commit(Change::Member(member_id.to_owned(), None), records);
        self.deadlines.clear_all(member_id);
    }

    /// Deletes what an expression matches when nobody subscribes to it any more.
    pub(super) fn forget_regex(&mut self, regex: &str, records: &mut Vec<CoordinatorRecord>) {
        if self.regexes.contains_key(regex) && self.census.regex_subscribers(regex) == 0 {
            self.commit(Change::Regex(regex.to_owned(), None), records);
        }
    }

    /// Whether a member subscribes to a topic.
    pub(super) fn subscribes(
        &self,
        member: &MemberMetadata,
        topic: Uuid,
        context: &Context<'_>,
    ) -> bool {
        let Some(topic) = context.topics.by_id(topic) else {
            return false;
        };
        let resolved = self.regexes.get(&member.regex);
        member.topics.contains(&topic.name)
            || resolved.is_some_and(|resolved| resolved.topics.contains(&topic.name))
    }

    /// How long a member may be silent.
    pub(super) fn session_timeout_ms(&self, member: &MemberMetadata, context: &Context<'_>) -> u64 {
        let timeout_ms = match &member.classic {
            Some(classic) => classic.session_timeout_ms,
            None => context.single_groups.timeouts(&self.id).session_timeout_ms,
        };
        u64::try_from(timeout_ms).unwrap_or(0)
    }
}

/// How long a member may take to give partitions up.
pub(super) fn rebalance_timeout_ms(member: &MemberMetadata) -> u64 {
    u64::try_from(member.rebalance_timeout_ms).unwrap_or(0)
}
