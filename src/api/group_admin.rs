//! What operators ask about groups: DescribeGroups, ConsumerGroupDescribe, ListGroups, DeleteGroups.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::{NoAnswer, ask_group};
use super::dispatch::Api;
use crate::coordinator::group_request::GroupAnswer;
use crate::shard::coordinators::{CoordinatorAnswer, GroupAsk};
use crate::wire::messages::consumer_group_describe::{
    self, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use crate::wire::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use crate::wire::messages::describe_groups::{self, DescribeGroupsRequest, DescribeGroupsResponse};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListGroupsResponse};

/// Authorized operations where nobody asked for them.
const NOT_ASKED: i32 = i32::MIN;

/// Every operation on a group that Kafka knows: read, delete, describe, describe and alter configs.
const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

fn operations(asked: bool) -> i32 {
    if asked {
        ALL_GROUP_OPERATIONS
    } else {
        NOT_ASKED
    }
}

/// Answers a DescribeGroups, versions 0 to 6.
pub(super) async fn describe(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeGroupsRequest<'_> = call.request()?;
    check_count(
        request.groups.len(),
        api.router.config().limits.request_partitions_max,
    )?;
    let authorized_operations = operations(request.include_authorized_operations);
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        let ask = GroupAsk::Describe(group.to_string());
        let described = match ask_group(&api, &call, group, ask).await {
            Ok(GroupAnswer::Describe(described)) => described,
            Ok(other) => unreachable!("the answer to another request: {other:?}"),
            Err(why) => describe_groups::DescribedGroup {
                error_code: why.code()?.code(),
                group_id: Cow::Owned(group.to_string()),
                ..describe_groups::DescribedGroup::default()
            },
        };
        groups.push(describe_groups::DescribedGroup {
            authorized_operations: if described.error_code == 0 {
                authorized_operations
            } else {
                NOT_ASKED
            },
            ..described
        });
    }
    Ok(call.reply(&DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }))
}

/// Answers a ConsumerGroupDescribe, versions 0 to 1 (KIP-848).
pub(super) async fn describe_consumer(api: Rc<Api>, call: Call) -> Handled {
    let request: ConsumerGroupDescribeRequest<'_> = call.request()?;
    check_count(
        request.group_ids.len(),
        api.router.config().limits.request_partitions_max,
    )?;
    let authorized_operations = operations(request.include_authorized_operations);
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group in &request.group_ids {
        let ask = GroupAsk::ConsumerDescribe(group.to_string());
        let described = match ask_group(&api, &call, group, ask).await {
            Ok(GroupAnswer::ConsumerDescribe(described)) => described,
            Ok(other) => unreachable!("the answer to another request: {other:?}"),
            Err(why) => consumer_group_describe::DescribedGroup {
                error_code: why.code()?.code(),
                group_id: Cow::Owned(group.to_string()),
                ..consumer_group_describe::DescribedGroup::default()
            },
        };
        groups.push(consumer_group_describe::DescribedGroup {
            authorized_operations: if described.error_code == 0 {
                authorized_operations
            } else {
                NOT_ASKED
            },
            ..described
        });
    }
    Ok(call.reply(&ConsumerGroupDescribeResponse {
        groups,
        ..ConsumerGroupDescribeResponse::default()
    }))
}

/// Answers a ListGroups, versions 0 to 5: the groups of all partitions, or the code of one that does
/// not serve.
pub(super) async fn list(api: Rc<Api>, call: Call) -> Handled {
    let _: ListGroupsRequest<'_> = call.request()?;
    let answers = match api.router.list_groups(&call.frame).await {
        Ok(answers) => answers,
        Err(why) => {
            return Ok(call.reply(&ListGroupsResponse {
                error_code: NoAnswer::from(why).code()?.code(),
                ..ListGroupsResponse::default()
            }));
        }
    };
    let mut groups = Vec::new();
    for answer in answers {
        match answer {
            CoordinatorAnswer::Group(GroupAnswer::List(listed)) => groups.extend(listed),
            other => unreachable!("the answer to another request: {other:?}"),
        }
    }
    Ok(call.reply(&ListGroupsResponse {
        groups,
        ..ListGroupsResponse::default()
    }))
}

/// Answers a DeleteGroups, versions 0 to 2.
pub(super) async fn delete(api: Rc<Api>, call: Call) -> Handled {
    let request: DeleteGroupsRequest<'_> = call.request()?;
    check_count(
        request.groups_names.len(),
        api.router.config().limits.request_partitions_max,
    )?;
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in &request.groups_names {
        let ask = GroupAsk::Delete(group.to_string());
        let error_code = match ask_group(&api, &call, group, ask).await {
            Ok(GroupAnswer::DeleteGroup(code)) => code,
            Ok(other) => unreachable!("the answer to another request: {other:?}"),
            Err(why) => why.code()?.code(),
        };
        results.push(DeletableGroupResult {
            group_id: group.clone(),
            error_code,
        });
    }
    Ok(call.reply(&DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }))
}
