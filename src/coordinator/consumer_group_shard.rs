//! Consumer groups in a shard: which request goes to which, and when they come and go.

use std::sync::Arc;

use super::classic_group::{ClassicGroup, State};
use super::consumer_group::{ConsumerGroup, Refusal};
use super::consumer_group_heartbeat::{is_join, refused, validate};
use super::consumer_group_migration::{downgraded, end_classic, may_become_classic, upgraded};
use super::consumer_records::Change;
use super::context::Context;
use super::effects::{CoordinatorRecord, Effects, Ticket};
use super::group_records::group_tombstone;
use super::group_request::GroupAnswer;
use super::group_shard::{Group, GroupShard};
use super::group_turn::{Due, Turn};
use super::timers::Timers;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::MemberIdentity;

impl ConsumerGroup {
    /// Sees to it that the shard's timer fires when the group has something to do.
    pub(super) fn wake(&mut self, timers: &mut Timers<Due>) {
        let due = || Due::Consumer(Arc::from(&*self.id));
        let next_ms = self.next_due_ms();
        match (self.timer_ms, next_ms) {
            (Some(timer_ms), Some(next_ms)) if timer_ms <= next_ms => return,
            (Some(timer_ms), _) => timers.cancel(timer_ms, due()),
            (None, _) => {}
        }
        if let Some(next_ms) = next_ms {
            timers.set(next_ms, due());
        }
        self.timer_ms = next_ms;
    }

    /// The group goes.
    pub(super) fn end_timer(&mut self, timers: &mut Timers<Due>) {
        if let Some(timer_ms) = self.timer_ms.take() {
            timers.cancel(timer_ms, Due::Consumer(Arc::from(&*self.id)));
        }
    }
}

impl GroupShard {
    /// The consumer group of this id.
    pub(super) fn consumer(&self, id: &str) -> Option<&ConsumerGroup> {
        match self.groups.get(id) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        }
    }

    /// Acts on the consumer group of this id; None if there is none.
    pub(super) fn on_consumer<T>(
        &mut self,
        id: &str,
        act: impl FnOnce(&mut ConsumerGroup) -> T,
    ) -> Option<T> {
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else {
            return None;
        };
        let result = act(group);
        group.wake(&mut self.timers);
        Some(result)
    }

    /// Decides a ConsumerGroupHeartbeat.
    pub(super) fn consumer_heartbeat(
        &mut self,
        context: &mut Context<'_>,
        request: &ConsumerGroupHeartbeatRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> ConsumerGroupHeartbeatResponse<'static> {
        validate(context, request)
            .and_then(|()| self.heartbeat_of_member(context, request, effects))
            .unwrap_or_else(refused)
    }

    fn heartbeat_of_member(
        &mut self,
        context: &mut Context<'_>,
        request: &ConsumerGroupHeartbeatRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> Result<ConsumerGroupHeartbeatResponse<'static>, Refusal> {
        let id = &*request.group_id;
        let before = effects.records.len();
        let answer = self.on_consumer(id, |group| {
            group.heartbeat(context, request, &mut effects.records)
        });
        if let Some(answer) = answer {
            if request.member_epoch < 0 && effects.records.len() > before {
                self.become_classic(id, true, context, effects);
            }
            return answer;
        }
        let known = self.groups.get(id).and_then(Group::classic);
        if !is_join(request) {
            let message = match known {
                Some(_) => format!("Group {id} is not a consumer group."),
                None => format!("Group {id} not found."),
            };
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        }
        if known.is_none() && self.groups.len() >= context.groups.groups_max {
            let message = "This broker coordinates as many groups as it may.";
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
        let mut records = Vec::new();
        let mut group = match known {
            Some(classic) => {
                records.push(group_tombstone(id));
                match classic.state == State::Empty {
                    true => ConsumerGroup::new(id),
                    false => upgraded(classic, context, &mut records)?,
                }
            }
            None => ConsumerGroup::new(id),
        };
        let answer = group.heartbeat(context, request, &mut records)?;
        if let Some(Group::Classic(classic)) = self.groups.remove(id) {
            let timers = &mut self.timers;
            end_classic(
                *classic,
                &mut Turn {
                    context,
                    timers,
                    effects,
                },
            );
        }
        effects.records.extend(records);
        group.wake(&mut self.timers);
        self.groups
            .insert(id.into(), Group::Consumer(Box::new(group)));
        Ok(answer)
    }

    /// Decides a JoinGroup to a consumer group; one without members becomes a classic group.
    pub(super) fn consumer_join(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: &JoinGroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let id = &*request.group_id;
        let joined = self.on_consumer(id, |group| {
            group.classic_join(context, request, &mut effects.records)
        });
        let answer = match joined {
            Some(Ok(joined)) => {
                if joined.replaced {
                    self.become_classic(id, joined.changed, context, effects);
                }
                joined.answer
            }
            Some(Err((error, member_id))) => JoinGroupResponse {
                error_code: error.code(),
                member_id: member_id.into(),
                ..JoinGroupResponse::default()
            },
            None => JoinGroupResponse {
                error_code: ErrorCode::UnknownMemberId.code(),
                ..JoinGroupResponse::default()
            },
        };
        effects.answer(ticket, GroupAnswer::Join(answer));
    }

    /// Makes room for a classic group in place of a consumer group without members.
    pub(super) fn end_empty_consumer(&mut self, id: &str, effects: &mut Effects<GroupAnswer>) {
        if self.consumer(id).is_some_and(ConsumerGroup::is_empty)
            && let Some(Group::Consumer(mut group)) = self.groups.remove(id)
        {
            group.end_timer(&mut self.timers);
            effects.records.extend(group.tombstones());
        }
    }

    /// Decides a LeaveGroup to a consumer group: an error for each member.
    pub(super) fn consumer_leave(
        &mut self,
        context: &mut Context<'_>,
        id: &str,
        members: &[MemberIdentity<'_>],
        effects: &mut Effects<GroupAnswer>,
    ) -> Option<Vec<ErrorCode>> {
        let before = effects.records.len();
        let errors = self.on_consumer(id, |group| {
            group.classic_leave(context, members, &mut effects.records)
        })?;
        if effects.records.len() > before {
            self.become_classic(id, true, context, effects);
        }
        Some(errors)
    }

    /// A consumer group's timer fired.
    pub(super) fn consumer_timer_fired(
        &mut self,
        id: &str,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let before = effects.records.len();
        self.on_consumer(id, |group| {
            group.timer_ms = None;
            group.tick(context, &mut effects.records);
        });
        if effects.records.len() > before {
            self.become_classic(id, true, context, effects);
        }
    }

    /// Makes a consumer group a classic one when only members of the classic protocol are left.
    fn become_classic(
        &mut self,
        id: &str,
        rebalance: bool,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let group = self.consumer(id);
        let Some(group) = group.filter(|group| may_become_classic(group, context.groups)) else {
            return;
        };
        let mut classic = downgraded(group, context);
        let before = effects.records.len();
        effects.records.extend(group.tombstones());
        effects.records.push(classic.record());
        if !context.fits_batch(&effects.records) {
            // It goes on as it is.
            effects.records.truncate(before);
            return;
        }
        if let Some(Group::Consumer(mut group)) = self.groups.remove(id) {
            group.end_timer(&mut self.timers);
        }
        let timers = &mut self.timers;
        let mut turn = Turn {
            context,
            timers,
            effects,
        };
        let members: Vec<Arc<str>> = classic.members.keys().cloned().collect();
        for member in &members {
            classic.touch(member, &mut turn);
        }
        if rebalance {
            classic.prepare_rebalance(&mut turn);
        }
        let id = Arc::clone(&classic.id);
        self.groups.insert(id, Group::Classic(Box::new(classic)));
    }

    /// Applies a record of a consumer group.
    pub(super) fn replay_consumer(&mut self, id: &str, change: Change) {
        if self.consumer(id).is_none() {
            // What a classic group left its place to is written after its tombstone.
            if change.is_tombstone() {
                return;
            }
            let group = ConsumerGroup::new(id);
            self.groups
                .insert(Arc::from(id), Group::Consumer(Box::new(group)));
        }
        if change == Change::Group(None) {
            self.groups.remove(id);
        } else if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
            group.replay(change);
        }
    }

    /// Records that delete a group, whatever kind it is, which goes with its timers.
    pub(super) fn end_group(
        &mut self,
        id: &str,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> Vec<CoordinatorRecord> {
        match self.groups.remove(id) {
            Some(Group::Classic(mut group)) => {
                let timers = &mut self.timers;
                ClassicGroup::end_timers(
                    &mut group,
                    &mut Turn {
                        context,
                        timers,
                        effects,
                    },
                );
                vec![group_tombstone(id)]
            }
            Some(Group::Consumer(mut group)) => {
                group.end_timer(&mut self.timers);
                group.tombstones()
            }
            None => vec![group_tombstone(id)],
        }
    }
}
