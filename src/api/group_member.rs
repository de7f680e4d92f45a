//! What members of a group send: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit,
//! OffsetDelete and ConsumerGroupHeartbeat. Each names one group, whose coordinator decides
//! everything.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::{NoAnswer, ask_group};
use super::dispatch::Api;
use crate::coordinator::group_request::GroupAnswer;
use crate::net::service::Reply;
use crate::shard::coordinators::GroupAsk;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

/// Answers a JoinGroup, versions 0 to 9.
pub(super) async fn join(api: Rc<Api>, call: Call) -> Handled {
    let request: JoinGroupRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::Join(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&JoinGroupResponse {
                error_code: code.code(),
                generation_id: -1,
                member_id: request.member_id.clone(),
                protocol_name: (call.version < 7).then_some(Cow::Borrowed("")),
                ..JoinGroupResponse::default()
            }))
        }
    }
}

/// Answers a SyncGroup, versions 0 to 5.
pub(super) async fn sync(api: Rc<Api>, call: Call) -> Handled {
    let request: SyncGroupRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::Sync(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&SyncGroupResponse {
                error_code: code.code(),
                ..SyncGroupResponse::default()
            }))
        }
    }
}

/// Answers a Heartbeat, versions 0 to 4.
pub(super) async fn heartbeat(api: Rc<Api>, call: Call) -> Handled {
    let request: HeartbeatRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::Heartbeat(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&HeartbeatResponse {
                error_code: code.code(),
                ..HeartbeatResponse::default()
            }))
        }
    }
}

/// Answers a LeaveGroup, versions 0 to 5.
pub(super) async fn leave(api: Rc<Api>, call: Call) -> Handled {
    let request: LeaveGroupRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::Leave(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&LeaveGroupResponse {
                error_code: code.code(),
                ..LeaveGroupResponse::default()
            }))
        }
    }
}

/// Answers an OffsetCommit, versions 2 to 10.
pub(super) async fn commit(api: Rc<Api>, call: Call) -> Handled {
    let request: OffsetCommitRequest<'_> = call.request()?;
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    check_count(
        count.sum(),
        api.router.config().limits.request_partitions_max,
    )?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::OffsetCommit(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(refused_commit(&call, &request, code))
        }
    }
}

fn refused_commit(call: &Call, request: &OffsetCommitRequest<'_>, code: ErrorCode) -> Reply {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: partitions
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code.code(),
                })
                .collect(),
        }
    });
    call.reply(&OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    })
}

/// Answers an OffsetDelete, version 0.
pub(super) async fn delete_offsets(api: Rc<Api>, call: Call) -> Handled {
    let request: OffsetDeleteRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::OffsetDelete(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&OffsetDeleteResponse {
                error_code: code.code(),
                ..OffsetDeleteResponse::default()
            }))
        }
    }
}

/// Answers a ConsumerGroupHeartbeat, versions 0 to 1 (KIP-848).
pub(super) async fn consumer_heartbeat(api: Rc<Api>, call: Call) -> Handled {
    let request: ConsumerGroupHeartbeatRequest<'_> = call.request()?;
    match ask(&api, &call, &request.group_id).await {
        Ok(GroupAnswer::ConsumerHeartbeat(answer)) => Ok(call.reply(&answer)),
        other => {
            let code = no_answer(other).code()?;
            Ok(call.reply(&ConsumerGroupHeartbeatResponse {
                error_code: code.code(),
                ..ConsumerGroupHeartbeatResponse::default()
            }))
        }
    }
}

async fn ask(api: &Api, call: &Call, group: &str) -> Result<GroupAnswer, NoAnswer> {
    ask_group(api, call, group, GroupAsk::Frame).await
}

fn no_answer(answer: Result<GroupAnswer, NoAnswer>) -> NoAnswer {
    match answer {
        Ok(other) => unreachable!("the answer to another request: {other:?}"),
        Err(why) => why,
    }
}
