//! What the shard of a partition of `__consumer_offsets` is asked, and what it answers.
//!
//! Requests that name several groups come as one request per group. Answers hold nothing of the
//! request, so that they can wait and cross cores.

use crate::wire::messages::consumer_group_describe;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::messages::describe_groups;
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListedGroup};
use crate::wire::messages::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use crate::wire::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::wire::messages::txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

/// A request to one shard.
#[derive(Debug)]
pub enum GroupRequest<'a> {
    /// JoinGroup.
    Join(JoinGroupRequest<'a>),
    /// SyncGroup.
    Sync(SyncGroupRequest<'a>),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest<'a>),
    /// LeaveGroup; versions below 3 name one member, which comes as the request's own `member_id`.
    Leave(LeaveGroupRequest<'a>),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitRequest<'a>),
    /// TxnOffsetCommit.
    TxnOffsetCommit(TxnOffsetCommitRequest<'a>),
    /// One group of an OffsetFetch; versions below 8 are put into this shape. No topics is all.
    OffsetFetch {
        /// The group, and what is asked of it.
        group: OffsetFetchRequestGroup<'a>,
        /// Whether offsets of open transactions answer UNSTABLE_OFFSET_COMMIT.
        require_stable: bool,
    },
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest<'a>),
    /// One group of a DeleteGroups.
    DeleteGroup(&'a str),
    /// One group of a DescribeGroups.
    Describe(&'a str),
    /// ListGroups, of this shard's groups.
    List(ListGroupsRequest<'a>),
    /// ConsumerGroupHeartbeat (KIP-848).
    ConsumerHeartbeat(ConsumerGroupHeartbeatRequest<'a>),
    /// One group of a ConsumerGroupDescribe.
    ConsumerDescribe(&'a str),
}

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAnswer {
    /// JoinGroup.
    Join(JoinGroupResponse<'static>),
    /// SyncGroup.
    Sync(SyncGroupResponse<'static>),
    /// Heartbeat.
    Heartbeat(HeartbeatResponse),
    /// LeaveGroup.
    Leave(LeaveGroupResponse<'static>),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitResponse<'static>),
    /// TxnOffsetCommit.
    TxnOffsetCommit(TxnOffsetCommitResponse<'static>),
    /// One group of an OffsetFetch.
    OffsetFetch(OffsetFetchResponseGroup<'static>),
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteResponse<'static>),
    /// The error code of one group of a DeleteGroups.
    DeleteGroup(i16),
    /// One group of a DescribeGroups.
    Describe(describe_groups::DescribedGroup<'static>),
    /// The groups of a shard.
    List(Vec<ListedGroup<'static>>),
    /// ConsumerGroupHeartbeat.
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse<'static>),
    /// One group of a ConsumerGroupDescribe.
    ConsumerDescribe(consumer_group_describe::DescribedGroup<'static>),
}
