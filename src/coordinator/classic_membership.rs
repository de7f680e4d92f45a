//! Assignments, heartbeats and leaving of members of a classic group.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::leave_group::{MemberIdentity, MemberResponse};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::classic_group::{ClassicGroup, State};
use super::classic_rebalance::refuse_sync;
use super::effects::Ticket;
use super::group_request::GroupAnswer;
use super::group_turn::Turn;

impl ClassicGroup {
    /// Decides a SyncGroup.
    pub(super) fn sync(
        &mut self,
        request: &SyncGroupRequest<'_>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let member = &*request.member_id;
        if let Err(error) = self.validate_sync(request) {
            return refuse_sync(turn, ticket, error);
        }
        match self.state {
            State::Empty => refuse_sync(turn, ticket, ErrorCode::UnknownMemberId),
            State::PreparingRebalance { .. } => {
                refuse_sync(turn, ticket, ErrorCode::RebalanceInProgress);
            }
            State::CompletingRebalance => {
                let before = self.change(member, |m| m.syncing.replace(ticket));
                if let Some(before) = before.flatten() {
                    refuse_sync(turn, before, ErrorCode::RebalanceInProgress);
                }
                self.has_synced(member, turn);
                if self.is_leader(member) {
                    self.assign(request, turn);
                }
            }
            State::Stable => {
                self.has_synced(member, turn);
                self.answer_sync(member, ticket, turn);
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest<'_>) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: Option<&str>, ours: Option<&str>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        if differs(
            request.protocol_type.as_deref(),
            self.protocol_type.as_deref(),
        ) || differs(request.protocol_name.as_deref(), self.protocol.as_deref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn has_synced(&mut self, member: &str, turn: &mut Turn<'_, '_>) {
        self.pending_sync.remove(member);
        if self.pending_sync.is_empty() {
            self.cancel_sync_timer(turn);
        }
    }

    fn answer_sync(&self, member: &str, ticket: Ticket, turn: &mut Turn<'_, '_>) {
        let assignment = self.members.get(member).map(|m| m.assignment.to_vec());
        let answer = SyncGroupResponse {
            protocol_type: self.protocol_type.as_deref().map(|t| t.to_owned().into()),
            protocol_name: self.protocol.as_deref().map(|name| name.to_owned().into()),
            assignment: assignment.unwrap_or_default().into(),
            ..Default::default()
        };
        turn.effects.answer(ticket, GroupAnswer::Sync(answer));
    }

    /// The leader's assignment: it is written, and given to everybody who waits.
    fn assign(&mut self, request: &SyncGroupRequest<'_>, turn: &mut Turn<'_, '_>) {
        let given = request.assignments.iter();
        let given: BTreeMap<&str, &[u8]> = given.map(|a| (&*a.member_id, &*a.assignment)).collect();
        let members = self.members.iter();
        let change: (usize, usize) = members.fold((0, 0), |(old, new), (id, member)| {
            let next = given.get(&**id).map_or(0, |assignment| assignment.len());
            (old + member.assignment.len(), new + next)
        });
        let size_bytes = self.size_bytes - change.0 + change.1;
        if !self.has_room_for(self.members.len(), size_bytes, turn.context) {
            self.reset_assignments(ErrorCode::UnknownServerError, turn);
            return self.rebalance_or_complete(turn);
        }
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        self.enter(State::Stable, turn);
        for id in &ids {
            let assignment = given.get(&**id).copied().unwrap_or(&[]);
            self.change(id, |member| member.assignment = assignment.into());
        }
        turn.effects.records.push(self.record());
        for id in &ids {
            let syncing = self.members.get_mut(id).and_then(|m| m.syncing.take());
            if let Some(ticket) = syncing {
                self.answer_sync(id, ticket, turn);
                self.touch(id, turn);
            }
        }
    }

    /// Decides a Heartbeat.
    pub(super) fn heartbeat(
        &mut self,
        member: &str,
        instance_id: Option<&str>,
        generation: i32,
        turn: &mut Turn<'_, '_>,
    ) -> ErrorCode {
        if let Err(error) = self.validate_member(member, instance_id) {
            return error;
        }
        if generation != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        self.touch(member, turn);
        if self.state.is_preparing() {
            ErrorCode::RebalanceInProgress
        } else {
            ErrorCode::None
        }
    }

    /// Decides a LeaveGroup.
    pub(super) fn leave(
        &mut self,
        members: &[MemberIdentity<'_>],
        turn: &mut Turn<'_, '_>,
    ) -> Vec<MemberResponse<'static>> {
        let mut answers = Vec::with_capacity(members.len());
        for member in members {
            answers.push(leave_answer(member, self.leave_one(member, turn)));
        }
        if answers.iter().any(|answer| answer.error_code == 0) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(turn),
                State::PreparingRebalance { .. } => self.maybe_complete_join(turn),
                State::Empty => {}
            }
        }
        answers
    }

    fn leave_one(&mut self, member: &MemberIdentity<'_>, turn: &mut Turn<'_, '_>) -> ErrorCode {
        let instance = member.group_instance_id.as_deref();
        if member.member_id.is_empty() {
            // An administrator names static members without knowing their ids.
            let known = instance.and_then(|instance| self.static_members.get(instance));
            let Some(id) = known.cloned() else {
                return ErrorCode::UnknownMemberId;
            };
            self.remove_member(&id, turn);
        } else if self.pending.contains_key(&*member.member_id) {
            self.drop_pending(&member.member_id, turn);
        } else if let Err(error) = self.validate_member(&member.member_id, instance) {
            return error;
        } else {
            self.remove_member(&member.member_id, turn);
        }
        ErrorCode::None
    }
}

/// What one member is told about its leaving.
pub(super) fn leave_answer(
    member: &MemberIdentity<'_>,
    error: ErrorCode,
) -> MemberResponse<'static> {
    let instance = member.group_instance_id.as_deref();
    MemberResponse {
        member_id: member.member_id.to_string().into(),
        group_instance_id: instance.map(|id| id.to_owned().into()),
        error_code: error.code(),
    }
}
