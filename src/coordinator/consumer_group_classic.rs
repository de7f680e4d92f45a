//! Members of the classic protocol in a consumer group: their generation is their epoch, the group
//! assigns what their leader would, and a heartbeat tells them to join again to go on.

use std::collections::BTreeSet;

use super::consumer_group::{ConsumerGroup, Member, rebalance_timeout_ms};
use super::consumer_group_census::metadata_bytes;
use super::consumer_group_deadlines::Duty;
use super::consumer_protocol::{self, CONSUMER, Subscription};
use super::consumer_records::{ClassicMetadata, MemberMetadata, MemberState};
use super::context::Context;
use super::effects::CoordinatorRecord;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::MemberIdentity;
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

/// First version that asks a new member to come back with the id it is given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;

/// What a member that joined did to the group.
#[derive(Debug)]
pub(super) struct Joined {
    /// What it is told.
    pub(super) answer: JoinGroupResponse<'static>,
    /// Whether it took the place of a static member.
    pub(super) replaced: bool,
    /// Whether it subscribes to something else than before.
    pub(super) changed: bool,
}

impl ConsumerGroup {
    /// Decides a JoinGroup. A refusal goes with the id that the member is to use.
    pub(super) fn classic_join(
        &mut self,
        context: &mut Context<'_>,
        request: &JoinGroupRequest<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Result<Joined, (ErrorCode, String)> {
        let id = match request.member_id.as_ref() {
            "" => (context.new_id)().to_string(),
            id => id.to_owned(),
        };
        let checked = self.check_join(context, request, &id);
        let checked = checked.and_then(|said| Ok((said, self.replaced_by_join(request, &id)?)));
        let (subscription, replaced) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err((error, id)),
        };
        let before = match &replaced {
            Some(replaced) => self.replace(replaced, &id, records),
            None => self.members.get(&id).cloned().unwrap_or_default(),
        };
        let metadata = updated(&before.metadata, &subscription, context, request);
        let changed = self.follow(context, &id, &before.metadata, metadata, records);
        if self.epoch > self.target_epoch {
            self.update_targets(context, records);
        }
        self.reconcile(&id, Some(&subscription.owned), changed, context, records);
        let member = &self.members[&id];
        let metadata = &member.metadata;
        let session_ms = context.now_ms + self.session_timeout_ms(metadata, context);
        let sync_ms = context.now_ms + rebalance_timeout_ms(metadata);
        let answer = JoinGroupResponse {
            generation_id: member.current.epoch,
            protocol_type: Some(CONSUMER.into()),
            protocol_name: Some(request.protocols[0].name.to_string().into()),
            member_id: id.clone().into(),
            ..JoinGroupResponse::default()
        };
        self.deadlines.clear(&id, Duty::Join);
        self.deadlines.set(&id, Duty::Session, session_ms);
        self.deadlines.set(&id, Duty::Sync, sync_ms);
        Ok(Joined {
            answer,
            replaced: replaced.is_some(),
            changed,
        })
    }

    fn check_join(
        &self,
        context: &Context<'_>,
        request: &JoinGroupRequest<'_>,
        id: &str,
    ) -> Result<Subscription, ErrorCode> {
        let known = self.members.get(id);
        if known.is_none() && self.members.len() >= context.groups.consumer_max_size {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        let classic = self.census.classic_members();
        let is_common = |name: &str| self.census.classic_supporters(name) == classic;
        let mut names = request.protocols.iter().map(|protocol| &*protocol.name);
        if request.protocol_type != CONSUMER || !names.any(is_common) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty()
            && request.group_instance_id.is_none()
            && context.client.version >= MEMBER_ID_REQUIRED_FROM
        {
            return Err(ErrorCode::MemberIdRequired);
        }
        let subscription = consumer_protocol::subscription(&request.protocols[0].metadata, context)
            .map_err(|_| ErrorCode::InconsistentGroupProtocol)?;
        let none = MemberMetadata::default();
        let before = known.map_or(&none, |member| &member.metadata);
        let after = metadata_bytes(&updated(before, &subscription, context, request));
        let others = self.census.metadata_bytes() - metadata_bytes(before);
        let is_too_much =
            after > context.member_max_bytes() || others + after > context.groups.members_max_bytes;
        match after > metadata_bytes(before) && is_too_much {
            true => Err(ErrorCode::GroupMaxSizeReached),
            false => Ok(subscription),
        }
    }

    /// The static member whose place a member takes that joins.
    fn replaced_by_join(
        &self,
        request: &JoinGroupRequest<'_>,
        id: &str,
    ) -> Result<Option<String>, ErrorCode> {
        let instance_id = request.group_instance_id.as_deref();
        let holder = instance_id.and_then(|instance_id| self.static_members.get(instance_id));
        let replaces = match (instance_id, holder) {
            (None, _) => None,
            (Some(_), None) if request.member_id.is_empty() => None,
            (Some(_), None) => return Err(ErrorCode::UnknownMemberId),
            (Some(_), Some(holder)) if request.member_id.is_empty() => Some(holder.clone()),
            (Some(_), Some(holder)) if holder == id => None,
            (Some(_), Some(_)) => return Err(ErrorCode::FencedInstanceId),
        };
        Ok(replaces)
    }

    /// Decides a SyncGroup.
    pub(super) fn classic_sync(
        &mut self,
        context: &Context<'_>,
        request: &SyncGroupRequest<'_>,
    ) -> Result<SyncGroupResponse<'static>, ErrorCode> {
        let id = &*request.member_id;
        let instance_id = request.group_instance_id.as_deref();
        let member = self.classic_member(id, instance_id, request.generation_id)?;
        let (protocol, metadata) = favourite(member);
        let differs = |asked: Option<&str>, ours: &str| asked.is_some_and(|asked| asked != ours);
        if differs(request.protocol_type.as_deref(), CONSUMER)
            || differs(request.protocol_name.as_deref(), protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let current = &member.current;
        if self.epoch > current.epoch && current.state != MemberState::UnrevokedPartitions {
            self.demand_join(id, context);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let assigned = current.assigned.iter();
        let assigned = assigned.map(|(topic, held)| (topic, held.keys().copied().collect()));
        let version = consumer_protocol::version(metadata);
        let answer = SyncGroupResponse {
            protocol_type: request
                .protocol_type
                .as_deref()
                .map(|t| t.to_owned().into()),
            protocol_name: request
                .protocol_name
                .as_deref()
                .map(|n| n.to_owned().into()),
            assignment: consumer_protocol::assignment_bytes(assigned, version, context).into(),
            ..SyncGroupResponse::default()
        };
        let due_ms = context.now_ms + self.session_timeout_ms(&member.metadata, context);
        self.deadlines.clear(id, Duty::Sync);
        self.deadlines.set(id, Duty::Session, due_ms);
        Ok(answer)
    }

    /// Decides a Heartbeat.
    pub(super) fn classic_heartbeat(
        &mut self,
        context: &Context<'_>,
        id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        let member = self.classic_member(id, instance_id, generation)?;
        let due_ms = context.now_ms + self.session_timeout_ms(&member.metadata, context);
        let must_join = member.current.epoch < self.epoch
            || match member.current.state {
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !self.waits_for_others(id, member),
                MemberState::Stable | MemberState::Unknown => false,
            };
        self.deadlines.set(id, Duty::Session, due_ms);
        if !must_join {
            return Ok(());
        }
        self.demand_join(id, context);
        Err(ErrorCode::RebalanceInProgress)
    }

    fn demand_join(&mut self, id: &str, context: &Context<'_>) {
        let due_ms = context.now_ms + rebalance_timeout_ms(&self.members[id].metadata);
        self.deadlines.set_if_none(id, Duty::Join, due_ms);
    }

    /// Whether another member holds something that this one is to have.
    fn waits_for_others(&self, id: &str, member: &Member) -> bool {
        let targets = self.targets.get(id).into_iter().flatten();
        let mut missing = targets.flat_map(|(topic, target)| {
            let own = member.current.assigned.get(topic);
            let has = move |p: &&i32| own.is_some_and(|own| own.contains_key(*p));
            let missing = target.iter().filter(move |partition| !has(partition));
            missing.map(move |partition| (*topic, *partition))
        });
        missing.any(|(topic, partition)| self.census.is_held(topic, partition))
    }

    /// The member of the classic protocol that a request is from.
    fn classic_member(
        &self,
        id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<&Member, ErrorCode> {
        let member = &self.members[self.identified(id, instance_id)?];
        if !member.is_classic() {
            Err(ErrorCode::UnknownMemberId)
        } else if member.current.epoch != generation {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Ok(member)
        }
    }

    fn identified(&self, id: &str, instance_id: Option<&str>) -> Result<&str, ErrorCode> {
        let known = match instance_id {
            None => self.members.get_key_value(id).map(|(id, _)| id),
            Some(instance_id) => self.static_members.get(instance_id),
        };
        match known {
            None => Err(ErrorCode::UnknownMemberId),
            Some(known) if known != id => Err(ErrorCode::FencedInstanceId),
            Some(known) => Ok(known),
        }
    }

    /// Decides a LeaveGroup: an error for each member. Both protocols' members can be named, static
    /// ones by their instance ids alone.
    pub(super) fn classic_leave(
        &mut self,
        context: &Context<'_>,
        members: &[MemberIdentity<'_>],
        records: &mut Vec<CoordinatorRecord>,
    ) -> Vec<ErrorCode> {
        let mut leaving = BTreeSet::new();
        let errors = members.iter().map(|member| {
            let instance_id = member.group_instance_id.as_deref();
            let by_instance = instance_id.filter(|_| member.member_id.is_empty());
            let id = match by_instance {
                Some(instance_id) => (self.static_members.get(instance_id))
                    .map(String::as_str)
                    .ok_or(ErrorCode::UnknownMemberId),
                None => self.identified(&member.member_id, instance_id),
            };
            match id {
                Ok(id) => {
                    leaving.insert(id.to_owned());
                    ErrorCode::None
                }
                Err(error) => error,
            }
        });
        let errors = errors.collect();
        self.fence(leaving, context, records);
        errors
    }
}

/// The assignor that a member of the classic protocol likes best, and its subscription there.
pub(super) fn favourite(member: &Member) -> (&str, &[u8]) {
    let classic = member.metadata.classic.as_ref();
    let first = classic.and_then(|classic| classic.protocols.first());
    first.map_or(("", &[]), |(name, metadata)| (name, metadata))
}

fn updated(
    before: &MemberMetadata,
    subscription: &Subscription,
    context: &Context<'_>,
    request: &JoinGroupRequest<'_>,
) -> MemberMetadata {
    let instance_id = request.group_instance_id.as_deref().map(str::to_owned);
    let protocols = request.protocols.iter();
    let timeout_ms = request.rebalance_timeout_ms;
    MemberMetadata {
        instance_id: instance_id.or_else(|| before.instance_id.clone()),
        rack_id: (subscription.rack_id.clone()).or_else(|| before.rack_id.clone()),
        client_id: context.client.id.to_owned(),
        client_host: context.client.host.to_owned(),
        topics: subscription.topics.clone(),
        regex: String::new(),
        rebalance_timeout_ms: match timeout_ms {
            -1 => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        server_assignor: before.server_assignor.clone(),
        classic: Some(ClassicMetadata {
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols
                .map(|protocol| (protocol.name.to_string(), protocol.metadata.to_vec()))
                .collect(),
        }),
    }
}
