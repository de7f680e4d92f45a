//! One shard of groups: what is asked of a partition of `__consumer_offsets`.
//!
//! A group is in the log as its last generation ended, see `classic_group`; a group that never had
//! a member is not in the log itself, its offsets make it. An offset that is committed in a
//! transaction waits for the marker, see `offset_table`. What takes long (expired offsets, those of
//! deleted topics and groups) is done in steps, see `group_chores`.
//!
//! A JoinGroup that is refused makes no group, and a commit names partitions that exist: so clients
//! cannot make a shard grow with what is not there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::wire::codec::DecodeError;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::JoinGroupRequest;
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::classic_group::{ClassicGroup, State};
use super::classic_membership::leave_answer;
use super::classic_rebalance::{refuse_join, refuse_sync};
use super::consumer_group::{ConsumerGroup, ConsumerGroupState};
use super::consumer_records::Change;
use super::context::Context;
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};
use super::group_chores::Chore;
use super::group_records::{GroupRecord, decode};
use super::group_request::{GroupAnswer, GroupRequest};
use super::group_turn::{Due, Turn};
use super::offset_table::OffsetTable;
use super::timers::Timers;

/// First version of LeaveGroup that names several members.
const LEAVE_IN_BATCHES_FROM: i16 = 3;

/// How many of what a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Classic groups without members.
    pub classic_empty: usize,
    /// Classic groups whose members are joining.
    pub classic_preparing_rebalance: usize,
    /// Classic groups whose members wait for their assignments.
    pub classic_completing_rebalance: usize,
    /// Classic groups whose members have their assignments.
    pub classic_stable: usize,
    /// Consumer groups without members.
    pub consumer_empty: usize,
    /// Consumer groups whose target assignment is to be made.
    pub consumer_assigning: usize,
    /// Consumer groups whose members are on the way to their targets.
    pub consumer_reconciling: usize,
    /// Consumer groups whose members have what they are to have.
    pub consumer_stable: usize,
    /// Members of all groups.
    pub members: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Records of types that are not known, seen by `replay`.
    pub unknown_records: u64,
}

/// A group of one of its kinds.
#[derive(Debug)]
pub(super) enum Group {
    /// Its members share the work themselves.
    Classic(Box<ClassicGroup>),
    /// The coordinator shares it out (KIP-848).
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    /// The classic group, if it is one.
    pub(super) fn classic(&self) -> Option<&ClassicGroup> {
        match self {
            Group::Classic(group) => Some(group),
            Group::Consumer(_) => None,
        }
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.state == State::Empty,
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether member ids were given out that were not used yet.
    pub(super) fn has_pending(&self) -> bool {
        self.classic()
            .is_some_and(|group| !group.pending.is_empty())
    }

    /// Whether members are, or may be, subscribed to a topic.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed(topic),
            Group::Consumer(group) => group.is_subscribed(topic),
        }
    }

    /// The classic group, if it is one.
    pub(super) fn classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match self {
            Group::Classic(group) => Some(group),
            Group::Consumer(_) => None,
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct GroupShard {
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    pub(super) offsets: OffsetTable,
    pub(super) timers: Timers<Due>,
    pub(super) chores: VecDeque<Chore>,
    unknown_records: u64,
}

impl GroupShard {
    /// A shard whose log is empty.
    #[must_use]
    pub fn new() -> GroupShard {
        GroupShard::default()
    }

    /// Decides a request. Its answer is in the effects of this call or of a later one.
    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: GroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let answer = match request {
            GroupRequest::Join(request) => return self.join(context, ticket, request, effects),
            GroupRequest::Sync(request) => return self.sync(context, ticket, &request, effects),
            GroupRequest::DeleteGroup(group) => {
                return self.delete_group(context, ticket, group, effects);
            }
            GroupRequest::Heartbeat(request) => {
                GroupAnswer::Heartbeat(self.heartbeat(context, &request, effects))
            }
            GroupRequest::Leave(request) => {
                GroupAnswer::Leave(self.leave(context, &request, effects))
            }
            GroupRequest::OffsetCommit(request) => {
                GroupAnswer::OffsetCommit(self.offset_commit(context, &request, effects))
            }
            GroupRequest::TxnOffsetCommit(request) => {
                GroupAnswer::TxnOffsetCommit(self.txn_offset_commit(context, &request, effects))
            }
            GroupRequest::OffsetFetch {
                group,
                require_stable,
            } => GroupAnswer::OffsetFetch(self.offset_fetch(context, &group, require_stable)),
            GroupRequest::OffsetDelete(request) => {
                GroupAnswer::OffsetDelete(self.offset_delete(context, &request, effects))
            }
            GroupRequest::Describe(group) => GroupAnswer::Describe(self.describe(context, group)),
            GroupRequest::List(request) => GroupAnswer::List(self.list(&request)),
            GroupRequest::ConsumerHeartbeat(request) => {
                GroupAnswer::ConsumerHeartbeat(self.consumer_heartbeat(context, &request, effects))
            }
            GroupRequest::ConsumerDescribe(group) => {
                GroupAnswer::ConsumerDescribe(self.describe_consumer(context, group))
            }
        };
        effects.answer(ticket, answer);
    }

    /// Acts on the classic group of this id; None if there is none.
    pub(super) fn on_classic<T>(
        &mut self,
        group: &str,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn<'_, '_>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(group)?.classic_mut()?;
        let mut turn = Turn {
            context,
            timers: &mut self.timers,
            effects,
        };
        Some(act(group, &mut turn))
    }

    fn heartbeat(
        &mut self,
        context: &mut Context<'_>,
        request: &HeartbeatRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> HeartbeatResponse {
        let (group, member) = (&*request.group_id, &*request.member_id);
        let instance = request.group_instance_id.as_deref();
        let generation = request.generation_id;
        let error = self.on_consumer(group, |group| {
            let verdict = group.classic_heartbeat(context, member, instance, generation);
            verdict.err().unwrap_or(ErrorCode::None)
        });
        let error = error.or_else(|| {
            self.on_classic(group, context, effects, |group, turn| {
                group.heartbeat(member, instance, generation, turn)
            })
        });
        HeartbeatResponse {
            error_code: error.unwrap_or(unknown_member(group)).code(),
            ..Default::default()
        }
    }

    fn join(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        mut request: JoinGroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        if context.client.version == 0 {
            // The first version has one timeout for both.
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        let limits = context.groups;
        let sessions = limits.min_session_timeout_ms..=limits.max_session_timeout_ms;
        let full = self.groups.len() >= limits.groups_max;
        let id = &*request.group_id;
        let known = self.groups.contains_key(id);
        let mut turn = Turn {
            context,
            timers: &mut self.timers,
            effects,
        };
        let refusal = if id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !sessions.contains(&request.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !known && !request.member_id.is_empty() {
            Some(ErrorCode::UnknownMemberId)
        } else if !known && full {
            Some(ErrorCode::CoordinatorNotAvailable)
        } else {
            None
        };
        if let Some(error) = refusal {
            return refuse_join(&mut turn, ticket, &request.member_id, error);
        }
        match self.groups.get_mut(id) {
            Some(Group::Classic(group)) => group.join(&request, ticket, &mut turn),
            Some(Group::Consumer(group)) if !group.is_empty() => {
                self.consumer_join(context, ticket, &request, effects);
            }
            Some(Group::Consumer(_)) | None => {
                let wall_ms = turn.context.wall_ms;
                let mut group = ClassicGroup::new(id.into(), Some(wall_ms));
                let record = group.record();
                group.join(&request, ticket, &mut turn);
                if !group.members.is_empty() || !group.pending.is_empty() {
                    self.end_empty_consumer(id, effects);
                    effects.records.push(record);
                    let id = Arc::clone(&group.id);
                    self.groups.insert(id, Group::Classic(Box::new(group)));
                }
            }
        }
    }

    fn sync(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: &SyncGroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let answer = self.on_consumer(&request.group_id, |group| {
            let answer = group.classic_sync(context, request);
            answer.unwrap_or_else(|error| SyncGroupResponse {
                error_code: error.code(),
                ..Default::default()
            })
        });
        if let Some(answer) = answer {
            return effects.answer(ticket, GroupAnswer::Sync(answer));
        }
        let known = self.on_classic(&request.group_id, context, effects, |group, turn| {
            group.sync(request, ticket, turn);
        });
        if known.is_none() {
            let mut turn = Turn {
                context,
                timers: &mut self.timers,
                effects,
            };
            refuse_sync(&mut turn, ticket, unknown_member(&request.group_id));
        }
    }

    fn leave(
        &mut self,
        context: &mut Context<'_>,
        request: &LeaveGroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> LeaveGroupResponse<'static> {
        if request.group_id.is_empty() {
            return LeaveGroupResponse {
                error_code: ErrorCode::InvalidGroupId.code(),
                ..Default::default()
            };
        }
        let one = [MemberIdentity {
            member_id: request.member_id.clone(),
            ..Default::default()
        }];
        let batch = context.client.version >= LEAVE_IN_BATCHES_FROM;
        let members = if batch { &request.members[..] } else { &one };
        let id = &*request.group_id;
        let errors = self.consumer_leave(context, id, members, effects);
        let answers = errors.map(|errors| {
            let answers = members.iter().zip(errors);
            answers
                .map(|(member, error)| leave_answer(member, error))
                .collect()
        });
        let answers = answers.or_else(|| {
            self.on_classic(id, context, effects, |group, turn| {
                group.leave(members, turn)
            })
        });
        let answers = answers.unwrap_or_else(|| {
            let unknown = |member| leave_answer(member, ErrorCode::UnknownMemberId);
            members.iter().map(unknown).collect()
        });
        if batch {
            return LeaveGroupResponse {
                members: answers,
                ..Default::default()
            };
        }
        LeaveGroupResponse {
            error_code: answers.first().map_or(0, |answer| answer.error_code),
            ..Default::default()
        }
    }

    /// Applies a record of the log. Types that are not known are counted and skipped.
    pub fn replay(
        &mut self,
        record_key: &[u8],
        value: Option<&[u8]>,
        transaction: Option<ProducerIdAndEpoch>,
    ) -> Result<(), DecodeError> {
        if let Some((group, change)) = Change::decode(record_key, value)? {
            self.replay_consumer(&group, change);
            return Ok(());
        }
        match decode(record_key, value)? {
            GroupRecord::Offset(key, Some(value)) => {
                let group = self.group_or_simple(&key.group);
                let (topic, partition) = (&*key.topic, key.partition);
                match transaction {
                    Some(producer) => {
                        self.offsets
                            .put_pending(producer.id, &group, topic, partition, &value);
                    }
                    None => self.offsets.put(&group, topic, partition, &value),
                }
            }
            GroupRecord::Offset(key, None) => {
                self.offsets.remove(&key.group, &key.topic, key.partition);
            }
            GroupRecord::Group(id, Some(value)) => {
                let known = self
                    .groups
                    .get_key_value(&*id)
                    .map(|(id, _)| Arc::clone(id));
                let id: Arc<str> = known.unwrap_or_else(|| Arc::from(&*id));
                let group = ClassicGroup::from_record(Arc::clone(&id), &value);
                self.groups.insert(id, Group::Classic(Box::new(group)));
            }
            GroupRecord::Group(id, None) => {
                if self.groups.get(&*id).and_then(Group::classic).is_some() {
                    self.groups.remove(&*id);
                }
            }
            GroupRecord::Unknown => self.unknown_records += 1,
        }
        Ok(())
    }

    /// The id of the group; if there is none, a group that only has offsets is made.
    pub(super) fn group_or_simple(&mut self, group: &str) -> Arc<str> {
        if let Some((id, _)) = self.groups.get_key_value(group) {
            return Arc::clone(id);
        }
        let id: Arc<str> = group.into();
        let group = ClassicGroup::new(Arc::clone(&id), None);
        self.groups
            .insert(Arc::clone(&id), Group::Classic(Box::new(group)));
        id
    }

    /// A marker of this producer's transaction stands in the log.
    pub fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        self.offsets.end_transaction(producer_id, committed);
    }

    /// The whole log was replayed: sessions and timers begin.
    pub fn loaded(&mut self, context: &mut Context<'_>, effects: &mut Effects<GroupAnswer>) {
        let size_max = context.groups.max_size;
        let interval_ms = context.groups.offsets_retention_check_interval_ms;
        let due_ms = context.now_ms.saturating_add(interval_ms);
        self.timers.set(due_ms, Due::Expiry);
        let mut turn = Turn {
            context,
            timers: &mut self.timers,
            effects,
        };
        for group in self.groups.values_mut() {
            let group = match group {
                Group::Classic(group) => group,
                Group::Consumer(group) => {
                    group.loaded(turn.context);
                    group.wake(turn.timers);
                    continue;
                }
            };
            let members: Vec<Arc<str>> = group.members.keys().cloned().collect();
            for member in &members {
                group.touch(member, &mut turn);
            }
            if members.len() > size_max {
                group.prepare_rebalance(&mut turn);
            }
        }
    }

    /// How many of what it holds.
    #[must_use]
    pub fn counts(&self) -> GroupCounts {
        let mut counts = GroupCounts {
            offsets: self.offsets.len(),
            unknown_records: self.unknown_records,
            ..GroupCounts::default()
        };
        for group in self.groups.values() {
            let (members, state) = match group {
                Group::Classic(group) => {
                    let state = match group.state {
                        State::Empty => &mut counts.classic_empty,
                        State::PreparingRebalance { .. } => &mut counts.classic_preparing_rebalance,
                        State::CompletingRebalance => &mut counts.classic_completing_rebalance,
                        State::Stable => &mut counts.classic_stable,
                    };
                    (group.members.len(), state)
                }
                Group::Consumer(group) => {
                    let state = match group.state() {
                        ConsumerGroupState::Empty => &mut counts.consumer_empty,
                        ConsumerGroupState::Assigning => &mut counts.consumer_assigning,
                        ConsumerGroupState::Reconciling => &mut counts.consumer_reconciling,
                        ConsumerGroupState::Stable => &mut counts.consumer_stable,
                    };
                    (group.members.len(), state)
                }
            };
            *state += 1;
            counts.members += members;
        }
        counts
    }
}

/// What a member is told whose group is not there.
fn unknown_member(group: &str) -> ErrorCode {
    if group.is_empty() {
        ErrorCode::InvalidGroupId
    } else {
        ErrorCode::UnknownMemberId
    }
}
