//! ConsumerGroupHeartbeat: a member joins, says what changed, learns what it has, or leaves.

use super::consumer_group::{
    ConsumerGroup, LEAVE_EPOCH, Member, Refusal, STATIC_LEAVE_EPOCH, rebalance_timeout_ms,
};
use super::consumer_group_census::metadata_bytes;
use super::consumer_group_deadlines::Duty;
use super::consumer_group_reconciliation::Reconciliation;
use super::consumer_group_regex;
use super::consumer_records::{Change, HeldPartitions, MemberMetadata, MemberState, Partitions};
use super::context::Context;
use super::effects::CoordinatorRecord;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest as Request,
    ConsumerGroupHeartbeatResponse as Response, ResponseTopicPartitions, TopicPartitions,
};

/// The epoch of a member that joins.
const JOIN_EPOCH: i32 = 0;
/// From this version on members make their ids themselves.
const MEMBER_ID_REQUIRED_VERSION: i16 = 1;

/// The answer of a refusal.
#[must_use]
pub(super) fn refused(refusal: Refusal) -> Response<'static> {
    Response {
        error_code: refusal.code as i16,
        error_message: Some(refusal.message.into()),
        ..Response::default()
    }
}

/// Whether the request may create its group.
#[must_use]
pub(super) fn is_join(request: &Request<'_>) -> bool {
    request.member_epoch == JOIN_EPOCH
}

/// What is wrong with a request whatever the state of its group.
///
/// # Errors
/// When something is.
pub(super) fn validate(context: &Context<'_>, request: &Request<'_>) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let epoch = request.member_epoch;
    let needs_id = context.client.version >= MEMBER_ID_REQUIRED_VERSION
        || epoch > JOIN_EPOCH
        || epoch == LEAVE_EPOCH;
    let is_empty = |text: &Option<_>| text.as_deref().is_some_and(str::is_empty);
    if needs_id && request.member_id.is_empty() {
        return invalid("MemberId can't be empty.");
    } else if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    } else if is_empty(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    } else if is_empty(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    if epoch == JOIN_EPOCH {
        let owns_none = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        } else if !owns_none {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        } else if !names_subscription(request) {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    } else if epoch == STATIC_LEAVE_EPOCH && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if epoch < STATIC_LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    let assignors = &context.groups.consumer_assignors;
    match &request.server_assignor {
        Some(assignor) if !assignors.iter().any(|known| known == assignor) => Err(Refusal::new(
            ErrorCode::UnsupportedAssignor,
            format!(
                "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
                assignors.join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

fn names_subscription(request: &Request<'_>) -> bool {
    request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some()
}

impl ConsumerGroup {
    /// Answers a request that [`validate`] found nothing wrong with.
    ///
    /// # Errors
    /// When the group refuses it; nothing has changed then.
    pub(super) fn heartbeat(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Result<Response<'static>, Refusal> {
        if matches!(request.member_epoch, LEAVE_EPOCH | STATIC_LEAVE_EPOCH) {
            return self.leave(context, request, records);
        }
        let member_id = match request.member_id.as_ref() {
            "" => (context.new_id)().to_string(),
            member_id => member_id.to_owned(),
        };
        self.check_heartbeat(context, request, &member_id)?;
        let replaced = self.replaced_by(request);
        let before = match &replaced {
            Some(replaced) => self.replace(replaced, &member_id, records),
            None => self.members.get(&member_id).cloned().unwrap_or_default(),
        };
        let changed = self.update_subscription(context, request, &member_id, &before, records);
        if self.epoch > self.target_epoch {
            self.update_targets(context, records);
        }
        let owned = request.topic_partitions.as_deref();
        self.reconcile(&member_id, owned, changed, context, records);
        let member = &self.members[&member_id];
        let due_ms = context.now_ms + self.session_timeout_ms(&member.metadata, context);
        self.deadlines.set(&member_id, Duty::Session, due_ms);
        let is_full =
            request.rebalance_timeout_ms != -1 && names_subscription(request) && owned.is_some();
        let tells_assignment =
            is_join(request) || is_full || member.current.assigned != before.current.assigned;
        let assigned = &member.current.assigned;
        Ok(Response {
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: context
                .single_groups
                .timeouts(&self.id)
                .heartbeat_interval_ms,
            assignment: tells_assignment.then(|| assignment(assigned)),
            member_id: Some(member_id.into()),
            ..Response::default()
        })
    }

    fn check_heartbeat(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        member_id: &str,
    ) -> Result<(), Refusal> {
        self.check_room(context, request, member_id)?;
        let member = match &request.instance_id {
            Some(instance_id) => self.check_static(request, member_id, instance_id)?,
            None => self.members.get(member_id),
        };
        let Some(member) = member else {
            if !is_join(request) {
                return Err(self.unknown(member_id));
            }
            return self.check_regex(request, "");
        };
        check_epoch(member, request)?;
        self.check_regex(request, &member.metadata.regex)
    }

    fn check_room(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        member_id: &str,
    ) -> Result<(), Refusal> {
        let limit = context.groups.consumer_max_size;
        if self.members.len() >= limit && !self.members.contains_key(member_id) {
            let message =
                format!("The consumer group has reached its maximum capacity of {limit} members.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let before = self.members.get(member_id);
        let before = before.map(|member| &member.metadata);
        let after = updated(&before.cloned().unwrap_or_default(), context, request);
        let (before, after) = (before.map_or(0, metadata_bytes), metadata_bytes(&after));
        let most = context.member_max_bytes();
        if after > before && after > most {
            let message = format!("The subscriptions of a member need more than {most} bytes.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let limit = context.groups.members_max_bytes;
        if after > before && self.census.metadata_bytes() - before + after > limit {
            let message =
                format!("The subscriptions of the group's members need more than {limit} bytes.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// The member that a request with an instance id is for; None where it is new.
    fn check_static(
        &self,
        request: &Request<'_>,
        member_id: &str,
        instance_id: &str,
    ) -> Result<Option<&Member>, Refusal> {
        let holder = self.static_members.get(instance_id);
        let Some((holder_id, holder)) = holder.and_then(|id| self.members.get_key_value(id)) else {
            return match is_join(request) {
                // Of this id there may be a member without the instance id, which gets it now.
                true => Ok(self.members.get(member_id)),
                false => Err(unknown_instance(instance_id)),
            };
        };
        if !is_join(request) {
            check_instance(holder_id, member_id, instance_id)?;
        } else if holder.current.epoch != STATIC_LEAVE_EPOCH && !holder.is_classic() {
            return Err(Refusal::new(
                ErrorCode::UnreleasedInstanceId,
                format!(
                    "Static member {member_id} with instance id {instance_id} cannot join the group \
                     because the instance id is owned by {holder_id} member."
                ),
            ));
        }
        Ok(Some(holder))
    }

    fn check_regex(&self, request: &Request<'_>, before: &str) -> Result<(), Refusal> {
        match request.subscribed_topic_regex.as_deref() {
            Some(regex)
                if !regex.is_empty()
                    && regex != before
                    && self.census.regex_subscribers(regex) == 0 =>
            {
                consumer_group_regex::compile(regex).map(drop)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn unknown(&self, member_id: &str) -> Refusal {
        let message = format!("Member {member_id} is not a member of group {}.", self.id);
        Refusal::new(ErrorCode::UnknownMemberId, message)
    }

    /// The static member whose place the request takes.
    fn replaced_by(&self, request: &Request<'_>) -> Option<String> {
        let instance_id = request.instance_id.as_deref()?;
        let holder = self.static_members.get(instance_id)?;
        is_join(request).then(|| holder.clone())
    }

    /// Gives what a static member has and is to have to its successor.
    pub(super) fn replace(
        &mut self,
        replaced: &str,
        member_id: &str,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Member {
        let mut successor = self.members[replaced].clone();
        successor.current.epoch = JOIN_EPOCH;
        successor.current.previous_epoch = JOIN_EPOCH;
        let target = self.targets.get(replaced).cloned().unwrap_or_default();
        self.remove(replaced, records);
        if self.members.contains_key(member_id) {
            self.remove(member_id, records);
        }
        let id = || member_id.to_owned();
        self.commit(
            Change::Member(id(), Some(successor.metadata.clone())),
            records,
        );
        self.commit(Change::Target(id(), Some(target)), records);
        self.commit(
            Change::Current(id(), Some(successor.current.clone())),
            records,
        );
        successor
    }

    /// Takes over what a member says, and says whether it subscribes to something else than before.
    fn update_subscription(
        &mut self,
        context: &Context<'_>,
        request: &Request<'_>,
        member_id: &str,
        before: &Member,
        records: &mut Vec<CoordinatorRecord>,
    ) -> bool {
        let metadata = updated(&before.metadata, context, request);
        self.follow(context, member_id, &before.metadata, metadata, records)
    }

    /// Stores what a member says, and raises the epoch of the group where that, or the metadata of
    /// the topics, changes what members are to have.
    pub(super) fn follow(
        &mut self,
        context: &Context<'_>,
        member_id: &str,
        before: &MemberMetadata,
        metadata: MemberMetadata,
        records: &mut Vec<CoordinatorRecord>,
    ) -> bool {
        let regex_changed = metadata.regex != before.regex;
        let changed = regex_changed || metadata.topics != before.topics;
        if metadata != *before || !self.members.contains_key(member_id) {
            let change = Change::Member(member_id.to_owned(), Some(metadata));
            self.commit(change, records);
        }
        if regex_changed {
            self.forget_regex(&before.regex, records);
        }
        let matched_others = self.match_regexes(context, records);
        let must_bump = self.epoch == 0 || changed || matched_others;
        let version = context.topics.version();
        if must_bump || self.metadata_seen != Some(version) {
            self.metadata_seen = Some(version);
            let hash = self.hash_metadata(context);
            if must_bump || hash != self.metadata_hash {
                self.bump(hash, records);
            }
        }
        changed
    }

    /// Brings a member one step closer to its target.
    pub(super) fn reconcile(
        &mut self,
        member_id: &str,
        owned: Option<&[TopicPartitions]>,
        subscription_changed: bool,
        context: &Context<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) {
        let member = &self.members[member_id];
        if !subscription_changed && self.has_arrived(member) {
            return;
        }
        let none = Partitions::new();
        let reconciliation = Reconciliation {
            target_epoch: self.target_epoch,
            target: self.targets.get(member_id).unwrap_or(&none),
            subscribes: &|topic| self.subscribes(&member.metadata, topic, context),
            is_held: &|topic, partition| self.census.is_held(topic, partition),
            owned,
            subscription_changed,
        };
        let next = reconciliation.step(&member.current);
        let Some(next) = next.filter(|next| *next != member.current) else {
            return;
        };
        let is_classic = member.is_classic();
        let due_ms = context.now_ms + rebalance_timeout_ms(&member.metadata);
        let is_revoking = next.state == MemberState::UnrevokedPartitions;
        self.commit(Change::Current(member_id.to_owned(), Some(next)), records);
        if is_revoking && !is_classic {
            self.deadlines.set(member_id, Duty::Revoke, due_ms);
        } else {
            self.deadlines.clear(member_id, Duty::Revoke);
        }
    }

    fn leave(
        &mut self,
        context: &Context<'_>,
        request: &Request<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Result<Response<'static>, Refusal> {
        let member_id = request.member_id.as_ref();
        let mut left_id = member_id.to_owned();
        if let Some(instance_id) = request.instance_id.as_deref() {
            let holder = self.static_members.get(instance_id);
            let holder = holder.ok_or_else(|| unknown_instance(instance_id))?;
            check_instance(holder, member_id, instance_id)?;
            left_id.clone_from(holder);
        }
        let Some(member) = self.members.get(&left_id) else {
            return Err(self.unknown(member_id));
        };
        if request.instance_id.is_some() && request.member_epoch == STATIC_LEAVE_EPOCH {
            let mut current = member.current.clone();
            current.epoch = STATIC_LEAVE_EPOCH;
            current.revoking.clear();
            let epochs = current
                .assigned
                .values_mut()
                .flat_map(|held| held.values_mut());
            epochs.for_each(|epoch| *epoch = JOIN_EPOCH);
            self.commit(Change::Current(left_id.clone(), Some(current)), records);
            self.deadlines.clear(&left_id, Duty::Revoke);
        } else {
            self.fence([left_id.clone()].into(), context, records);
        }
        Ok(Response {
            member_id: Some(left_id.into()),
            member_epoch: request.member_epoch,
            ..Response::default()
        })
    }
}

fn unknown_instance(instance_id: &str) -> Refusal {
    let message = format!("Instance id {instance_id} is unknown.");
    Refusal::new(ErrorCode::UnknownMemberId, message)
}

fn check_instance(holder_id: &str, member_id: &str, instance_id: &str) -> Result<(), Refusal> {
    if holder_id == member_id {
        return Ok(());
    }
    let message = format!(
        "Static member {member_id} with instance id {instance_id} was fenced by member {holder_id}."
    );
    Err(Refusal::new(ErrorCode::FencedInstanceId, message))
}

/// A member speaks in its epoch, or in the one before where the answer with its epoch got lost: then
/// it owns nothing that it was not given.
fn check_epoch(member: &Member, request: &Request<'_>) -> Result<(), Refusal> {
    let (said, known) = (request.member_epoch, member.current.epoch);
    let owned = request.topic_partitions.as_deref();
    if member.current.state == MemberState::Unknown && owned.is_none_or(|o| !o.is_empty()) {
        let message = "The consumer group member is in a unknown state. \
                       The member must abandon all its partitions and rejoin.";
        return Err(Refusal::new(ErrorCode::FencedMemberEpoch, message));
    }
    if said == JOIN_EPOCH || said == known {
        return Ok(());
    }
    let relation = if said > known { "greater" } else { "smaller" };
    let may_have_missed_answer = said < known
        && said == member.current.previous_epoch
        && owned.is_some_and(|owned| are_among(owned, &member.current.assigned));
    if may_have_missed_answer {
        return Ok(());
    }
    let message = format!(
        "The consumer group member has a {relation} member epoch ({said}) than the one known by the \
         group coordinator ({known}). The member must abandon all its partitions and rejoin."
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

fn are_among(owned: &[TopicPartitions], assigned: &HeldPartitions) -> bool {
    owned.iter().all(|topic| {
        assigned
            .get(&topic.topic_id)
            .is_some_and(|held| topic.partitions.iter().all(|p| held.contains_key(p)))
    })
}

/// What a member says about itself after a request; what is null there stays as it is.
fn updated(
    before: &MemberMetadata,
    context: &Context<'_>,
    request: &Request<'_>,
) -> MemberMetadata {
    let mut metadata = before.clone();
    let owned = |text: &Option<_>| text.as_deref().map(str::to_owned);
    metadata.instance_id = owned(&request.instance_id).or(metadata.instance_id);
    metadata.rack_id = owned(&request.rack_id).or(metadata.rack_id);
    metadata.server_assignor = owned(&request.server_assignor).or(metadata.server_assignor);
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        metadata.topics = names.iter().map(|name| name.as_ref().to_owned()).collect();
    }
    if let Some(regex) = owned(&request.subscribed_topic_regex) {
        metadata.regex = regex;
    }
    metadata.client_id = context.client.id.to_owned();
    metadata.client_host = context.client.host.to_owned();
    metadata.classic = None;
    metadata
}

fn assignment(held: &HeldPartitions) -> Assignment {
    Assignment {
        topic_partitions: (held.iter())
            .filter(|(_, partitions)| !partitions.is_empty())
            .map(|(topic_id, partitions)| ResponseTopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.keys().copied().collect(),
            })
            .collect(),
    }
}
