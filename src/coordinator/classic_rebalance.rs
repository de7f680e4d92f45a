//! How a classic group goes from one generation to the next, and what its timers do.

use std::sync::Arc;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::join_group::{JoinGroupResponse, JoinGroupResponseMember};
use crate::wire::messages::sync_group::SyncGroupResponse;

use super::classic_group::{ClassicGroup, State};
use super::effects::Ticket;
use super::group_request::GroupAnswer;
use super::group_turn::{Due, Turn};

/// When waiting for members ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinTimer {
    due_ms: u64,
    /// What the first rebalance of an empty group waits, and may wait after that.
    initial: Option<(u64, u64)>,
}

impl ClassicGroup {
    /// Begins a rebalance, or ends the one that is under way if everybody is there.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut Turn<'_, '_>) {
        if self.state.is_preparing() {
            self.maybe_complete_join(turn);
        } else {
            self.prepare_rebalance(turn);
        }
    }

    /// Ends the rebalance that is under way if everybody is there; the first one of a group waits
    /// all its time.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_, '_>) {
        if self.state == (State::PreparingRebalance { initial: false }) && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// Makes all members join again.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_, '_>) {
        if self.state == State::CompletingRebalance {
            self.reset_assignments(ErrorCode::RebalanceInProgress, turn);
        }
        self.pending_sync.clear();
        self.cancel_sync_timer(turn);
        let initial = self.state == State::Empty;
        self.enter(State::PreparingRebalance { initial }, turn);
        if initial {
            let delay_ms = initial_delay_ms(turn);
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.set_join_timer(delay_ms, Some((delay_ms, remaining_ms)), turn);
        } else if self.all_joined() {
            self.complete_join(turn);
        } else {
            self.set_join_timer(self.rebalance_timeout_ms(), None, turn);
        }
    }

    fn set_join_timer(
        &mut self,
        delay_ms: u64,
        initial: Option<(u64, u64)>,
        turn: &mut Turn<'_, '_>,
    ) {
        self.cancel_join_timer(turn);
        let due_ms = turn.context.now_ms.saturating_add(delay_ms);
        turn.timers.set(due_ms, Due::Join(Arc::clone(&self.id)));
        self.join_timer = Some(JoinTimer { due_ms, initial });
    }

    fn cancel_join_timer(&mut self, turn: &mut Turn<'_, '_>) {
        if let Some(timer) = self.join_timer.take() {
            let due = Due::Join(Arc::clone(&self.id));
            turn.timers.cancel(timer.due_ms, due);
        }
    }

    pub(super) fn cancel_sync_timer(&mut self, turn: &mut Turn<'_, '_>) {
        if let Some(due_ms) = self.sync_due_ms.take() {
            turn.timers.cancel(due_ms, Due::Sync(Arc::clone(&self.id)));
        }
    }

    /// Takes all timers back: the group goes.
    pub(super) fn end_timers(&mut self, turn: &mut Turn<'_, '_>) {
        self.cancel_join_timer(turn);
        self.cancel_sync_timer(turn);
        let pending: Vec<Arc<str>> = self.pending.keys().cloned().collect();
        for id in pending {
            self.drop_pending(&id, turn);
        }
        let members: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in members {
            self.remove_member(&id, turn);
        }
    }

    /// The waiting for members is over.
    pub(super) fn join_timer_fired(&mut self, turn: &mut Turn<'_, '_>) {
        let Some(timer) = self.join_timer else {
            return;
        };
        // A timer that was taken back cannot fire; one of an older life of the group can.
        if timer.due_ms > turn.context.now_ms || !self.state.is_preparing() {
            return;
        }
        self.join_timer = None;
        match timer.initial {
            Some((delay_ms, remaining_ms)) if self.member_added && remaining_ms != 0 => {
                self.member_added = false;
                let next_ms = initial_delay_ms(turn).min(remaining_ms);
                let rest_ms = remaining_ms.saturating_sub(delay_ms);
                self.set_join_timer(next_ms, Some((next_ms, rest_ms)), turn);
            }
            _ => self.complete_join(turn),
        }
    }

    /// Begins the next generation with the members that joined, and with static ones that did not.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_, '_>) {
        self.cancel_join_timer(turn);
        self.member_added = false;
        let missing = self.members.iter();
        let missing = missing.filter(|(_, m)| m.joining.is_none() && m.instance_id.is_none());
        let missing: Vec<Arc<str>> = missing.map(|(id, _)| Arc::clone(id)).collect();
        for id in missing {
            self.remove_member(&id, turn);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Nobody came: the sessions of the static members decide.
            self.set_join_timer(self.rebalance_timeout_ms(), None, turn);
            return;
        }
        self.begin_generation();
        if self.members.is_empty() {
            self.enter(State::Empty, turn);
            turn.effects.records.push(self.record());
            return;
        }
        self.enter(State::CompletingRebalance, turn);
        self.answer_joins(turn);
        let due_ms = turn.context.now_ms;
        let due_ms = due_ms.saturating_add(self.rebalance_timeout_ms());
        self.cancel_sync_timer(turn);
        turn.timers.set(due_ms, Due::Sync(Arc::clone(&self.id)));
        self.sync_due_ms = Some(due_ms);
    }

    /// Sees to it that the leader is one that joined; false if nobody did.
    fn elect_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_some_and(|leader| leader.joining.is_some()) {
            return true;
        }
        let mut joined = self.members.iter().filter(|(_, m)| m.joining.is_some());
        let Some((id, _)) = joined.next() else {
            return false;
        };
        self.leader = Some(Arc::clone(id));
        true
    }

    fn answer_joins(&mut self, turn: &mut Turn<'_, '_>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let ticket = self.members.get_mut(&id).and_then(|member| {
                member.is_new = false;
                member.joining.take()
            });
            if let Some(ticket) = ticket {
                self.joining -= 1;
                let answer = self.joined(&id, self.is_leader(&id));
                turn.effects.answer(ticket, GroupAnswer::Join(answer));
            }
            self.touch(&id, turn);
            self.pending_sync.insert(id);
        }
    }

    /// The answer to a member that is part of the generation.
    pub(super) fn joined(&self, member: &str, with_members: bool) -> JoinGroupResponse<'static> {
        let protocol = self.protocol.as_deref();
        let mut members = Vec::new();
        if with_members {
            members.extend(self.members.iter().map(|(id, m)| JoinGroupResponseMember {
                member_id: id.to_string().into(),
                group_instance_id: m.instance_id.as_deref().map(|id| id.to_owned().into()),
                metadata: m.metadata(protocol.unwrap_or("")).to_vec().into(),
            }));
        }
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.as_deref().map(|t| t.to_owned().into()),
            protocol_name: protocol.map(|name| name.to_owned().into()),
            leader: self.leader.as_deref().unwrap_or("").to_owned().into(),
            member_id: member.to_owned().into(),
            members,
            ..Default::default()
        }
    }

    /// Takes a member out; what it waits for is answered.
    pub(super) fn remove_member(&mut self, id: &str, turn: &mut Turn<'_, '_>) {
        let Some(member) = self.take(id, turn) else {
            return;
        };
        if let Some(ticket) = member.joining {
            refuse_join(turn, ticket, "", ErrorCode::UnknownMemberId);
        }
        if let Some(ticket) = member.syncing {
            refuse_sync(turn, ticket, ErrorCode::UnknownMemberId);
        }
    }

    /// Takes all assignments back and tells who waits for one.
    pub(super) fn reset_assignments(&mut self, error: ErrorCode, turn: &mut Turn<'_, '_>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let syncing = self.change(&id, |member| {
                member.assignment = Box::default();
                member.syncing.take()
            });
            if let Some(ticket) = syncing.flatten() {
                refuse_sync(turn, ticket, error);
                self.touch(&id, turn);
            }
        }
    }

    /// The timer of a member's session fired.
    pub(super) fn session_timer_fired(&mut self, id: &Arc<str>, turn: &mut Turn<'_, '_>) {
        let due = self.session_due(id);
        if let Some(session) = self.pending.get_mut(id) {
            if session.is_over(turn, due) {
                self.pending.remove(id);
                self.complete_if_all_joined(turn);
            }
            return;
        }
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        // A member whose request waits is alive; it gets a new session with its answer. Only one
        // that was never answered may be gone for good.
        let waits = member.joining.is_some() || member.syncing.is_some();
        if !member.session.is_over(turn, due) || (waits && !member.is_new) {
            return;
        }
        self.remove_member(id, turn);
        if self.state.is_preparing() {
            self.complete_if_all_joined(turn);
        } else {
            self.prepare_rebalance(turn);
        }
    }

    fn complete_if_all_joined(&mut self, turn: &mut Turn<'_, '_>) {
        if self.state.is_preparing() && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// The time to fetch assignments is over.
    pub(super) fn sync_timer_fired(&mut self, turn: &mut Turn<'_, '_>) {
        if self
            .sync_due_ms
            .is_none_or(|due_ms| due_ms > turn.context.now_ms)
        {
            return;
        }
        self.sync_due_ms = None;
        let rests = matches!(self.state, State::CompletingRebalance | State::Stable);
        if !rests || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(&id, turn);
        }
        self.prepare_rebalance(turn);
    }
}

fn initial_delay_ms(turn: &Turn<'_, '_>) -> u64 {
    u64::try_from(turn.context.groups.initial_rebalance_delay_ms).unwrap_or(0)
}

pub(super) fn refuse_join(turn: &mut Turn<'_, '_>, ticket: Ticket, member: &str, error: ErrorCode) {
    let answer = JoinGroupResponse {
        error_code: error.code(),
        member_id: member.to_owned().into(),
        ..Default::default()
    };
    turn.effects.answer(ticket, GroupAnswer::Join(answer));
}

pub(super) fn refuse_sync(turn: &mut Turn<'_, '_>, ticket: Ticket, error: ErrorCode) {
    let answer = SyncGroupResponse {
        error_code: error.code(),
        ..Default::default()
    };
    turn.effects.answer(ticket, GroupAnswer::Sync(answer));
}
