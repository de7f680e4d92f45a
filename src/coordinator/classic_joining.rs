//! How members come into a classic group: new ones, known ones, and static ones that replace
//! themselves.

use std::sync::Arc;

use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::join_group::JoinGroupRequest;

use super::classic_group::{ClassicGroup, State};
use super::classic_member::Member;
use super::classic_rebalance::{refuse_join, refuse_sync};
use super::context::Context;
use super::effects::Ticket;
use super::group_request::GroupAnswer;
use super::group_turn::{Session, Turn};

/// A member that has not seen the end of a rebalance cannot send heartbeats; it is given up after
/// this time, as in Kafka.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// First version that asks a new member to come back with the id it is given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// A member id is the client's name, a hyphen, and a UUID.
const MEMBER_SUFFIX_BYTES: usize = 37;

/// First version that tells a leader to leave the assignment as it is.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl ClassicGroup {
    /// Decides a JoinGroup.
    pub(super) fn join(
        &mut self,
        request: &JoinGroupRequest<'_>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let member = &*request.member_id;
        if !self.has_room(member, turn.context.groups.max_size) {
            self.remove_member(member, turn);
            return refuse_join(turn, ticket, "", ErrorCode::GroupMaxSizeReached);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse_join(turn, ticket, member, ErrorCode::InconsistentGroupProtocol);
        }
        if !self.has_bytes_for(request, turn.context) {
            return refuse_join(turn, ticket, member, ErrorCode::GroupMaxSizeReached);
        }
        if member.is_empty() {
            self.join_new(request, ticket, turn);
        } else {
            self.join_known(request, ticket, turn);
        }
    }

    /// Whether one more member may wait; of those that are there, who comes first stays. Member ids
    /// that were given out count too, since they take room.
    fn has_room(&self, member: &str, max: usize) -> bool {
        if member.is_empty() && self.pending.len() >= max {
            return false;
        }
        let known = self.members.get(member);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance { .. } => {
                known.is_some_and(|member| member.joining.is_some()) || self.joining < max
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || self.members.len() < max
            }
        }
    }

    fn has_bytes_for(&self, request: &JoinGroupRequest<'_>, context: &Context<'_>) -> bool {
        let protocols = request.protocols.iter();
        let asked: usize = protocols.map(|p| p.name.len() + p.metadata.len()).sum();
        let instance = request.group_instance_id.as_deref();
        let old = instance.and_then(|instance| self.static_members.get(instance));
        let old = old.map_or(&*request.member_id, |old| old);
        let client = context.client;
        let id_bytes = match &*request.member_id {
            "" => instance.unwrap_or(client.id).len() + MEMBER_SUFFIX_BYTES,
            member => member.len(),
        };
        let known = self.members.get(old);
        let (gone_bytes, names_bytes) = match known {
            Some(member) => (old.len() + member.protocols_bytes(), id_bytes),
            None => {
                let instance_bytes = instance.map_or(0, str::len);
                let client_bytes = client.id.len() + client.host.len();
                (0, id_bytes + instance_bytes + client_bytes)
            }
        };
        let members_bytes = self.size_bytes - gone_bytes + names_bytes + asked;
        let members = self.members.len() + usize::from(known.is_none());
        // Whoever says no more than before is not turned away.
        (known.is_some() && members_bytes <= self.size_bytes)
            || self.has_room_for(members, members_bytes, context)
    }

    fn join_new(
        &mut self,
        request: &JoinGroupRequest<'_>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let instance = request.group_instance_id.as_deref();
        let known = instance.and_then(|instance| self.static_members.get(instance).cloned());
        let prefix = instance.unwrap_or(turn.context.client.id);
        let id: Arc<str> = format!("{prefix}-{}", member_suffix((turn.context.new_id)())).into();
        if let Some(known) = known {
            self.replace_static(request, &known, id, ticket, turn);
        } else if instance.is_none() && turn.context.client.version >= MEMBER_ID_REQUIRED_FROM {
            let mut session = Session::default();
            let timeout_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
            session.expire_in(timeout_ms, turn, self.session_due(&id));
            refuse_join(turn, ticket, &id, ErrorCode::MemberIdRequired);
            self.pending.insert(id, session);
        } else {
            self.add_member(request, id, ticket, turn);
        }
    }

    fn add_member(
        &mut self,
        request: &JoinGroupRequest<'_>,
        id: Arc<str>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let mut member = Member {
            instance_id: request.group_instance_id.as_deref().map(Arc::from),
            client_id: turn.context.client.id.into(),
            client_host: turn.context.client.host.into(),
            joining: Some(ticket),
            is_new: true,
            ..Member::default()
        };
        member.update(request);
        self.drop_pending(&id, turn);
        let due = self.session_due(&id);
        member
            .session
            .expire_in(NEW_MEMBER_JOIN_TIMEOUT_MS, turn, due);
        if self.state == (State::PreparingRebalance { initial: true }) {
            self.member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.as_ref().into());
        }
        self.insert(id, member);
        self.rebalance_or_complete(turn);
    }

    fn join_known(
        &mut self,
        request: &JoinGroupRequest<'_>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let id = &*request.member_id;
        let instance = request.group_instance_id.as_deref();
        if instance.is_none() && self.pending.contains_key(id) {
            return self.add_member(request, id.into(), ticket, turn);
        }
        if let Err(error) = self.validate_member(id, instance) {
            return refuse_join(turn, ticket, id, error);
        }
        let same = self
            .members
            .get(id)
            .is_some_and(|m| m.matches(&request.protocols));
        let leader = self.is_leader(id);
        match self.state {
            State::Empty => refuse_join(turn, ticket, id, ErrorCode::UnknownMemberId),
            // It may not have got the answer: the generation is still the current one.
            State::CompletingRebalance if same => self.answer_current(id, leader, ticket, turn),
            // A leader joins again because something changed that only it knows.
            State::Stable if same && !leader => self.answer_current(id, false, ticket, turn),
            _ => {
                self.update_member(request, id, ticket, turn);
                self.rebalance_or_complete(turn);
            }
        }
    }

    fn answer_current(
        &self,
        id: &str,
        with_members: bool,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let answer = self.joined(id, with_members);
        turn.effects.answer(ticket, GroupAnswer::Join(answer));
    }

    fn update_member(
        &mut self,
        request: &JoinGroupRequest<'_>,
        id: &str,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let before = self.change(id, |member| {
            member.update(request);
            member.joining.replace(ticket)
        });
        if let Some(before) = before.flatten() {
            // Two requests of one member: the connection of the first is gone, or its client
            // does not keep to the protocol.
            refuse_join(turn, before, id, ErrorCode::RebalanceInProgress);
        }
    }

    /// A static member came back without its member id: it gets a new one, and who has the old one
    /// is fenced.
    fn replace_static(
        &mut self,
        request: &JoinGroupRequest<'_>,
        old_id: &str,
        new_id: Arc<str>,
        ticket: Ticket,
        turn: &mut Turn<'_, '_>,
    ) {
        let leader_before = self.leader.clone();
        let was_leader = self.is_leader(old_id);
        let Some(mut member) = self.take(old_id, turn) else {
            return refuse_join(turn, ticket, "", ErrorCode::UnknownMemberId);
        };
        if let Some(ticket) = member.joining.take() {
            refuse_join(turn, ticket, old_id, ErrorCode::FencedInstanceId);
        }
        if let Some(ticket) = member.syncing.take() {
            refuse_sync(turn, ticket, ErrorCode::FencedInstanceId);
        }
        member.is_new = false;
        member.session = Session::default();
        self.insert(Arc::clone(&new_id), member);
        if was_leader {
            self.leader = Some(Arc::clone(&new_id));
        }
        self.touch(&new_id, turn);
        self.update_member(request, &new_id, ticket, turn);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                self.answer_replaced(&new_id, leader_before, turn);
            }
            // The leader may already have been told the old id: it has to see the new one.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(turn),
            State::Empty | State::PreparingRebalance { .. } => self.maybe_complete_join(turn),
        }
    }

    /// The group stays as it is but for one member id.
    fn answer_replaced(
        &mut self,
        id: &Arc<str>,
        leader_before: Option<Arc<str>>,
        turn: &mut Turn<'_, '_>,
    ) {
        turn.effects.records.push(self.record());
        let ticket = self.change(id, |member| member.joining.take()).flatten();
        let Some(ticket) = ticket else {
            return;
        };
        let mut answer;
        if turn.context.client.version >= SKIP_ASSIGNMENT_FROM {
            let leader = self.is_leader(id);
            answer = self.joined(id, leader);
            answer.skip_assignment = leader;
        } else {
            // An older client would assign anew as leader: it is told of the leader before.
            answer = self.joined(id, false);
            answer.leader = leader_before.as_deref().unwrap_or("").to_owned().into();
        }
        turn.effects.answer(ticket, GroupAnswer::Join(answer));
    }
}

/// The random part of a member id, in the form of a random UUID.
fn member_suffix(id: Uuid) -> String {
    let mut bytes = id.0;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_part_of_a_member_id_is_a_random_uuid() {
        let text = member_suffix(Uuid([0xab; 16]));
        assert_eq!(text, "abababab-abab-4bab-abab-abababababab");
        assert_eq!(
            member_suffix(Uuid::ZERO),
            "00000000-0000-4000-8000-000000000000"
        );
    }
}
