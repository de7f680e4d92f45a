//! From a classic group to a consumer group and back, while its members go on reading.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::classic_group::ClassicGroup;
use super::classic_member::{Member, Protocol};
use super::classic_rebalance::{refuse_join, refuse_sync};
use super::consumer_group::{ConsumerGroup, Refusal};
use super::consumer_group_classic::favourite;
use super::consumer_protocol::{self, CONSUMER};
use super::consumer_records::{
    Change, ClassicMetadata, CurrentAssignment, MemberMetadata, MemberState,
};
use super::context::Context;
use super::effects::CoordinatorRecord;
use super::group_turn::Turn;
use crate::config::coordinators::GroupsConfig;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::records_group_metadata::{self, GroupMetadataValue};

fn may_upgrade(config: &GroupsConfig) -> bool {
    matches!(
        &*config.consumer_migration_policy,
        "upgrade" | "bidirectional"
    )
}

fn may_downgrade(config: &GroupsConfig) -> bool {
    matches!(
        &*config.consumer_migration_policy,
        "downgrade" | "bidirectional"
    )
}

/// The consumer group that a classic one becomes: its members keep what they have, in their
/// generation as epoch.
pub(super) fn upgraded(
    classic: &ClassicGroup,
    context: &Context<'_>,
    records: &mut Vec<CoordinatorRecord>,
) -> Result<ConsumerGroup, Refusal> {
    let id = &classic.id;
    let refuse = |why: &str| {
        let message = format!("Cannot upgrade classic group {id} to consumer group because {why}.");
        Refusal::new(ErrorCode::GroupIdNotFound, message)
    };
    if !may_upgrade(context.groups) {
        return Err(refuse("online upgrade is disabled"));
    } else if !classic.uses_consumer_protocol() {
        return Err(refuse(
            "the group does not use the consumer embedded protocol",
        ));
    } else if classic.members.len() > context.groups.consumer_max_size {
        return Err(refuse(
            "the group size exceeds the consumer group maximum size",
        ));
    }
    let mut changes: [Vec<Change>; 3] = Default::default();
    for (member_id, member) in &classic.members {
        let of_member = changes_of(classic, member_id, member, context).map_err(refuse)?;
        for (all, change) in changes.iter_mut().zip(of_member) {
            all.push(change);
        }
    }
    let before = records.len();
    let mut group = ConsumerGroup::new(id);
    let [metadata, targets, currents] = changes;
    metadata
        .into_iter()
        .for_each(|change| group.commit(change, records));
    let hash = group.hash_metadata(context);
    let epoch = classic.generation;
    group.commit(Change::Group(Some((epoch, hash))), records);
    targets
        .into_iter()
        .for_each(|change| group.commit(change, records));
    group.commit(Change::TargetEpoch(Some((epoch, context.wall_ms))), records);
    currents
        .into_iter()
        .for_each(|change| group.commit(change, records));
    if !context.fits_batch(records) {
        records.truncate(before);
        return Err(refuse("its members do not fit into one batch of the log"));
    }
    group.loaded(context);
    Ok(group)
}

/// What a member of a classic group said, is to have, and has; or why that cannot be kept.
fn changes_of(
    classic: &ClassicGroup,
    member_id: &str,
    member: &Member,
    context: &Context<'_>,
) -> Result<[Change; 3], &'static str> {
    let malformed = |_| "the embedded consumer protocol is malformed";
    let selected = classic.protocol.as_deref();
    let first = member.protocols.first().map(|protocol| &*protocol.name);
    let protocol = selected.or(first).unwrap_or("");
    let said = consumer_protocol::subscription(member.metadata(protocol), context);
    let said = said.map_err(malformed)?;
    let given = consumer_protocol::assignment(&member.assignment, context);
    let (target, has_data) = given.map_err(malformed)?;
    if has_data {
        return Err("an unsupported custom assignor is in use");
    }
    let metadata = MemberMetadata {
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        rack_id: said.rack_id,
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        topics: said.topics,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        classic: Some(ClassicMetadata {
            session_timeout_ms: member.session_timeout_ms,
            protocols: (member.protocols.iter())
                .map(|protocol| (protocol.name.to_string(), protocol.metadata.to_vec()))
                .collect(),
        }),
        ..MemberMetadata::default()
    };
    let current = CurrentAssignment {
        epoch: classic.generation,
        previous_epoch: classic.generation,
        state: MemberState::Stable,
        assigned: consumer_protocol::held_since(&target, classic.generation),
        ..CurrentAssignment::default()
    };
    Ok([
        Change::Member(member_id.to_owned(), Some(metadata)),
        Change::Target(member_id.to_owned(), Some(target)),
        Change::Current(member_id.to_owned(), Some(current)),
    ])
}

/// Ends what the members of a classic group wait for: they are to join again.
pub(super) fn end_classic(mut classic: ClassicGroup, turn: &mut Turn<'_, '_>) {
    let ids: Vec<Arc<str>> = classic.members.keys().cloned().collect();
    for id in ids {
        let waiting = classic.change(&id, |member| (member.joining.take(), member.syncing.take()));
        let (joining, syncing) = waiting.unwrap_or_default();
        if let Some(ticket) = joining {
            refuse_join(turn, ticket, &id, ErrorCode::RebalanceInProgress);
        }
        if let Some(ticket) = syncing {
            refuse_sync(turn, ticket, ErrorCode::RebalanceInProgress);
        }
    }
    classic.end_timers(turn);
}

/// Whether nobody is left who needs a consumer group.
pub(super) fn may_become_classic(group: &ConsumerGroup, config: &GroupsConfig) -> bool {
    let members = group.members.len();
    members > 0
        && group.census.classic_members() == members
        && members <= config.max_size
        && may_downgrade(config)
}

/// The classic group that a consumer group of classic members becomes. They have what they were to
/// have; the leader of the next generation sees to the rest.
pub(super) fn downgraded(group: &ConsumerGroup, context: &Context<'_>) -> ClassicGroup {
    let all = group.members.len();
    let is_common = |name: &str| group.census.classic_supporters(name) == all;
    let protocol = group.members.values().find_map(|member| {
        let classic = member.metadata.classic.as_ref()?;
        let mut names = classic.protocols.iter().map(|(name, _)| name.as_str());
        names.find(|name| is_common(name))
    });
    let members = group.members.iter().map(|(id, member)| {
        let classic = member.metadata.classic.as_ref();
        let targets = group.targets.get(id).into_iter().flatten();
        let targets = targets.map(|(topic, held)| (topic, held.iter().copied().collect()));
        let version = consumer_protocol::version(favourite(member).1);
        records_group_metadata::MemberMetadata {
            member_id: id.into(),
            group_instance_id: member.metadata.instance_id.as_deref().map(Into::into),
            client_id: (&*member.metadata.client_id).into(),
            client_host: (&*member.metadata.client_host).into(),
            rebalance_timeout: member.metadata.rebalance_timeout_ms,
            session_timeout: classic.map_or(0, |classic| classic.session_timeout_ms),
            assignment: consumer_protocol::assignment_bytes(targets, version, context).into(),
            ..records_group_metadata::MemberMetadata::default()
        }
    });
    let value = GroupMetadataValue {
        protocol_type: CONSUMER.into(),
        generation: group.epoch,
        protocol: protocol.map(Into::into),
        leader: group.members.keys().next().map(Into::into),
        current_state_timestamp: context.wall_ms,
        members: members.collect(),
    };
    let mut classic = ClassicGroup::from_record(Arc::from(&*group.id), &value);
    let protocols: BTreeMap<&String, Vec<Protocol>> = (group.members.iter())
        .map(|(id, member)| {
            let known = member.metadata.classic.iter().flat_map(|c| &c.protocols);
            let known = known.map(|(name, metadata)| Protocol {
                name: name.as_str().into(),
                metadata: metadata.as_slice().into(),
            });
            (id, known.collect())
        })
        .collect();
    for (id, protocols) in protocols {
        classic.change(id, |member| member.protocols = protocols);
    }
    classic
}
