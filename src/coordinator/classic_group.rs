//! A classic group: its members, what they can do, and how it is kept in the log.
//!
//! The log holds a group as it was when its last rebalance ended. A rebalance that is under way is
//! not in the log: after a load the members of the last generation are there again, and those that
//! do not come back lose their sessions.
//!
//! `classic_joining` takes members in, `classic_rebalance` ends generations and begins them,
//! `classic_membership` hands assignments out and sees members stay or leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::wire::codec::Reader;
use crate::wire::error_code::ErrorCode;
use crate::wire::message::Message;
use crate::wire::messages::join_group::JoinGroupRequestProtocol;
use crate::wire::messages::records_consumer_protocol_subscription::ConsumerProtocolSubscription;
use crate::wire::messages::records_group_metadata::{GroupMetadataValue, MemberMetadata};

use super::classic_member::{Member, Protocol};
use super::classic_rebalance::JoinTimer;
use super::context::Context;
use super::effects::CoordinatorRecord;
use super::group_records::group_record;
use super::group_turn::{Due, Session, Turn};

/// The protocol type of consumers; what their metadata says is known.
const CONSUMER: &str = "consumer";

/// What a member takes in the group's record beside texts and bytes, and the group in its batch.
const MEMBER_FIELDS_BYTES: usize = 32;
const GROUP_FIELDS_BYTES: usize = 256;

/// Where a group is between two generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has no members.
    Empty,
    /// Its members join.
    PreparingRebalance {
        /// It was empty before, and waits some time for more.
        initial: bool,
    },
    /// Its members wait for their assignments.
    CompletingRebalance,
    /// Its members have their assignments.
    Stable,
}

impl State {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance { .. } => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    pub(super) fn is_preparing(self) -> bool {
        matches!(self, State::PreparingRebalance { .. })
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    /// The time of day of the last change of `state`, where it is known.
    pub(super) state_since_ms: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Box<str>>,
    pub(super) protocol: Option<Box<str>>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// Member ids by instance id.
    pub(super) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Members that were given an id and have not come back with it.
    pub(super) pending: BTreeMap<Arc<str>, Session>,
    /// Members that have not fetched their assignment.
    pub(super) pending_sync: BTreeSet<Arc<str>>,
    /// Members whose JoinGroup waits.
    pub(super) joining: usize,
    /// A member came while the first rebalance waits.
    pub(super) member_added: bool,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_due_ms: Option<u64>,
    /// What clients made the shard keep for the members.
    pub(super) size_bytes: usize,
    /// How many members can do what.
    supported: BTreeMap<Box<str>, usize>,
    /// What consumers subscribed to; None where that is not known.
    subscribed: Option<BTreeSet<Box<str>>>,
}

impl ClassicGroup {
    /// A group without members; `wall_ms` is the time of day.
    pub(super) fn new(id: Arc<str>, wall_ms: Option<i64>) -> ClassicGroup {
        ClassicGroup {
            id,
            state: State::Empty,
            state_since_ms: wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            joining: 0,
            member_added: false,
            join_timer: None,
            sync_due_ms: None,
            size_bytes: 0,
            supported: BTreeMap::new(),
            subscribed: None,
        }
    }

    /// The group of a record.
    pub(super) fn from_record(id: Arc<str>, value: &GroupMetadataValue<'_>) -> ClassicGroup {
        let since_ms = value.current_state_timestamp;
        let mut group = ClassicGroup::new(id, (since_ms != -1).then_some(since_ms));
        let text = |text: &str| (!text.is_empty()).then(|| Box::from(text));
        group.generation = value.generation;
        group.protocol = value.protocol.as_deref().map(Box::from);
        for stored in &value.members {
            if group.members.contains_key(&*stored.member_id) {
                continue;
            }
            let member = member_of(stored, value.protocol.as_deref().unwrap_or(""));
            group.insert(stored.member_id.as_ref().into(), member);
        }
        group.protocol_type = text(&value.protocol_type);
        group.leader = value.leader.as_deref().map(Arc::from);
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.subscribed = group.subscribed_topics();
        group
    }

    /// The group as the log keeps it.
    pub(super) fn record(&self) -> CoordinatorRecord {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|(id, member)| MemberMetadata {
            member_id: (&**id).into(),
            group_instance_id: member.instance_id.as_deref().map(Into::into),
            client_id: (&*member.client_id).into(),
            client_host: (&*member.client_host).into(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol.unwrap_or("")).into(),
            assignment: (&*member.assignment).into(),
        });
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or("").into(),
            generation: self.generation,
            protocol: protocol.map(Into::into),
            leader: self.leader.as_deref().map(Into::into),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: members.collect(),
        };
        group_record(&self.id, &value)
    }

    /// Whether members may take so many bytes, with the group's record that holds them in one batch
    /// of the log.
    pub(super) fn has_room_for(
        &self,
        members: usize,
        members_bytes: usize,
        context: &Context<'_>,
    ) -> bool {
        let names_bytes = 2 * self.id.len()
            + self.leader.as_deref().map_or(0, str::len)
            + self.protocol_type.as_deref().map_or(0, str::len)
            + self.protocol.as_deref().map_or(0, str::len);
        let fields_bytes = members * MEMBER_FIELDS_BYTES + GROUP_FIELDS_BYTES;
        let record_bytes = members_bytes + names_bytes + fields_bytes;
        members_bytes <= context.groups.members_max_bytes && record_bytes <= context.batch_max_bytes
    }

    pub(super) fn enter(&mut self, state: State, turn: &Turn<'_, '_>) {
        self.state = state;
        self.state_since_ms = Some(turn.context.wall_ms);
    }

    /// Takes a member in, which is not there yet.
    pub(super) fn insert(&mut self, id: Arc<str>, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            let instance_id = Arc::clone(instance_id);
            self.static_members.insert(instance_id, Arc::clone(&id));
        }
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        self.size_bytes += member.size_bytes(&id);
        self.joining += usize::from(member.joining.is_some());
        count_protocols(&mut self.supported, &member);
        self.members.insert(id, member);
    }

    /// Takes a member out, with its session, and gives it back.
    pub(super) fn take(&mut self, id: &str, turn: &mut Turn<'_, '_>) -> Option<Member> {
        self.drop_pending(id, turn);
        self.pending_sync.remove(id);
        let (id, mut member) = self.members.remove_entry(id)?;
        let due = self.session_due(&id);
        member.session.end(turn, due);
        self.size_bytes -= member.size_bytes(&id);
        self.joining -= usize::from(member.joining.is_some());
        discount_protocols(&mut self.supported, &member);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.leader.as_ref() == Some(&id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Changes a member, and what is counted of it.
    pub(super) fn change<T>(&mut self, id: &str, edit: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let member = self.members.get_mut(id)?;
        self.size_bytes -= member.size_bytes(id);
        self.joining -= usize::from(member.joining.is_some());
        discount_protocols(&mut self.supported, member);
        let result = edit(member);
        self.size_bytes += member.size_bytes(id);
        self.joining += usize::from(member.joining.is_some());
        count_protocols(&mut self.supported, member);
        Some(result)
    }

    /// Forgets a member id that was given out.
    pub(super) fn drop_pending(&mut self, id: &str, turn: &mut Turn<'_, '_>) {
        if let Some((id, mut session)) = self.pending.remove_entry(id) {
            session.end(turn, self.session_due(&id));
        }
    }

    pub(super) fn session_due(&self, member: &Arc<str>) -> Due {
        Due::Session(Arc::clone(&self.id), Arc::clone(member))
    }

    /// A sign of life of a member.
    pub(super) fn touch(&mut self, id: &str, turn: &mut Turn<'_, '_>) {
        let Some((id, _)) = self.members.get_key_value(id) else {
            return;
        };
        let id = Arc::clone(id);
        let due = self.session_due(&id);
        if let Some(member) = self.members.get_mut(&id) {
            let session_ms = member.session_ms();
            member.session.expire_in(session_ms, turn, due);
        }
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Whether a member of this id is there, and is the one of its instance id.
    pub(super) fn validate_member(
        &self,
        member: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if **known != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(member) {
            return Err(ErrorCode::UnknownMemberId);
        }
        Ok(())
    }

    /// Whether offsets may be committed; `transactional` ones ask for less.
    pub(super) fn validate_commit(
        &self,
        member: &str,
        instance_id: Option<&str>,
        generation: i32,
        transactional: bool,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member.is_empty() || instance_id.is_some() {
            self.validate_member(member, instance_id)?;
            if generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !transactional && self.state != State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        if !transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// The longest that a rebalance waits.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|m| m.rebalance_timeout_ms).max();
        u64::try_from(longest.unwrap_or(0)).unwrap_or(0)
    }

    /// Whether all members wait for the end of the rebalance.
    pub(super) fn all_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending.is_empty()
    }

    /// Whether a member that can do this may join.
    pub(super) fn supports(
        &self,
        protocol_type: &str,
        protocols: &[JoinGroupRequestProtocol<'_>],
    ) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        let can = |name: &str| self.supported.get(name).copied().unwrap_or(0) == all;
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| can(&protocol.name))
    }

    /// The protocol that most members prefer among those that all can do.
    pub(super) fn select_protocol(&self) -> Option<Box<str>> {
        let all = self.members.len();
        let common = self.supported.iter().filter(|(_, count)| **count == all);
        let candidates: BTreeSet<&str> = common.map(|(name, _)| &**name).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|m| m.vote(&candidates)) {
            *votes.entry(name).or_default() += 1;
        }
        // Of equals the first by name, so that it does not depend on who came when.
        let winner = votes
            .iter()
            .max_by_key(|(name, count)| (**count, std::cmp::Reverse(**name)));
        winner.map(|(name, _)| Box::from(*name))
    }

    /// The number of the next generation, and what belongs to it.
    pub(super) fn begin_generation(&mut self) {
        // Below zero is the mark of commits without a group.
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.protocol = self.select_protocol();
        self.subscribed = self.subscribed_topics();
        self.pending_sync.clear();
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Whether the topics are known that its members subscribed to.
    pub(super) fn knows_subscription(&self) -> bool {
        self.subscribed.is_some()
    }

    /// Whether its members are, or may be, subscribed to a topic.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    fn subscribed_topics(&self) -> Option<BTreeSet<Box<str>>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if self.members.is_empty() {
            return Some(topics);
        }
        let protocol = self.protocol.as_deref()?;
        for member in self.members.values() {
            let mut reader = Reader::new(member.metadata(protocol));
            // Every version begins with what version 0 has.
            let known = reader.int16().is_ok_and(|version| version >= 0);
            let subscription = ConsumerProtocolSubscription::decode(&mut reader, 0).ok()?;
            if !known {
                return None;
            }
            topics.extend(subscription.topics.iter().map(|topic| Box::from(&**topic)));
        }
        Some(topics)
    }
}

fn member_of(stored: &MemberMetadata<'_>, protocol: &str) -> Member {
    let rebalance_timeout_ms = match stored.rebalance_timeout {
        -1 => stored.session_timeout,
        timeout_ms => timeout_ms,
    };
    Member {
        instance_id: stored.group_instance_id.as_deref().map(Arc::from),
        client_id: stored.client_id.as_ref().into(),
        client_host: stored.client_host.as_ref().into(),
        rebalance_timeout_ms,
        session_timeout_ms: stored.session_timeout,
        protocols: vec![Protocol {
            name: protocol.into(),
            metadata: stored.subscription.as_ref().into(),
        }],
        assignment: stored.assignment.as_ref().into(),
        ..Member::default()
    }
}

fn count_protocols(supported: &mut BTreeMap<Box<str>, usize>, member: &Member) {
    for protocol in &member.protocols {
        match supported.get_mut(&protocol.name) {
            Some(count) => *count += 1,
            None => {
                supported.insert(protocol.name.clone(), 1);
            }
        }
    }
}

fn discount_protocols(supported: &mut BTreeMap<Box<str>, usize>, member: &Member) {
    for protocol in &member.protocols {
        if let Some(count) = supported.get_mut(&protocol.name) {
            *count -= 1;
            if *count == 0 {
                supported.remove(&protocol.name);
            }
        }
    }
}
