//! What administrators ask of groups: descriptions and lists.

use std::sync::Arc;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_describe;
use crate::wire::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListedGroup};

use super::classic_group::{ClassicGroup, State};
use super::classic_member::Member;
use super::consumer_protocol::CONSUMER;
use super::context::Context;
use super::group_shard::{Group, GroupShard};

/// First version of DescribeGroups that says that a group is not there.
const NOT_FOUND_FROM: i16 = 6;
const DEAD: &str = "Dead";
const CLASSIC: &str = "classic";

impl GroupShard {
    /// Decides a DescribeGroups for one group.
    pub(super) fn describe(&self, context: &Context<'_>, id: &str) -> DescribedGroup<'static> {
        let message = match self.groups.get(id) {
            Some(Group::Classic(group)) => return describe_classic(group),
            Some(Group::Consumer(_)) => format!("Group {id} is not a classic group."),
            None => not_found(id),
        };
        match context.client.version {
            NOT_FOUND_FROM.. => DescribedGroup {
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(message.into()),
                group_id: id.to_owned().into(),
                group_state: DEAD.into(),
                ..Default::default()
            },
            _ => DescribedGroup {
                group_id: id.to_owned().into(),
                group_state: DEAD.into(),
                ..Default::default()
            },
        }
    }

    /// Decides a ConsumerGroupDescribe for one group.
    pub(super) fn describe_consumer(
        &self,
        context: &Context<'_>,
        id: &str,
    ) -> consumer_group_describe::DescribedGroup<'static> {
        let message = match self.groups.get(id) {
            Some(Group::Consumer(group)) => return group.describe(context),
            Some(Group::Classic(_)) => format!("Group {id} is not a consumer group."),
            None => not_found(id),
        };
        consumer_group_describe::DescribedGroup {
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(message.into()),
            group_id: id.to_owned().into(),
            ..Default::default()
        }
    }

    /// Decides a ListGroups.
    pub(super) fn list(&self, request: &ListGroupsRequest<'_>) -> Vec<ListedGroup<'static>> {
        let wanted = |filter: &[std::borrow::Cow<'_, str>], name: &str| {
            filter.is_empty() || filter.iter().any(|asked| asked.eq_ignore_ascii_case(name))
        };
        let groups = self.groups.values().map(listed);
        let groups = groups.filter(|group| {
            wanted(&request.types_filter, &group.group_type)
                && wanted(&request.states_filter, &group.group_state)
        });
        groups.collect()
    }
}

fn not_found(id: &str) -> String {
    format!("Group {id} not found.")
}

fn listed(group: &Group) -> ListedGroup<'static> {
    match group {
        Group::Classic(group) => ListedGroup {
            group_id: group.id.to_string().into(),
            protocol_type: (group.protocol_type.as_deref().unwrap_or(""))
                .to_owned()
                .into(),
            group_state: group.state.name().into(),
            group_type: CLASSIC.into(),
        },
        Group::Consumer(group) => ListedGroup {
            group_id: group.id.clone().into(),
            protocol_type: CONSUMER.into(),
            group_state: group.state().name().into(),
            group_type: CONSUMER.into(),
        },
    }
}

/// Members show what they can do and what they have only while the group is stable.
fn describe_classic(group: &ClassicGroup) -> DescribedGroup<'static> {
    let stable = group.state == State::Stable;
    let protocol = group.protocol.as_deref().filter(|_| stable);
    let members = group.members.iter();
    DescribedGroup {
        group_id: group.id.to_string().into(),
        group_state: group.state.name().into(),
        protocol_type: group
            .protocol_type
            .as_deref()
            .unwrap_or("")
            .to_owned()
            .into(),
        protocol_data: protocol.unwrap_or("").to_owned().into(),
        members: members
            .map(|(id, member)| describe_member(id, member, protocol))
            .collect(),
        ..Default::default()
    }
}

fn describe_member(
    id: &Arc<str>,
    member: &Member,
    protocol: Option<&str>,
) -> DescribedGroupMember<'static> {
    let instance = member.instance_id.as_deref();
    let mut described = DescribedGroupMember {
        member_id: id.to_string().into(),
        group_instance_id: instance.map(|id| id.to_owned().into()),
        client_id: member.client_id.to_string().into(),
        client_host: member.client_host.to_string().into(),
        ..Default::default()
    };
    if let Some(protocol) = protocol {
        described.member_metadata = member.metadata(protocol).to_vec().into();
        described.member_assignment = member.assignment.to_vec().into();
    }
    described
}
