//! From a frame to the handler of its API: the one table of what is served.

use std::cell::RefCell;
use std::rc::Rc;

use super::call::{Call, Started, later};
use super::fetch_session::FetchSessions;
use super::init_producer_id::ProducerIds;
use super::peer_requests::{self, INTER_BROKER_LISTENER};
use super::topic_rules::TopicRules;
use super::{
    alter_configs, alter_partition_reassignments, api_versions, create_partitions, create_topics,
    delete_records, delete_topics, describe_cluster, describe_configs, describe_log_dirs,
    describe_producers, describe_quorum, describe_topic_partitions, elect_leaders, fetch,
    find_coordinator, group_admin, group_member, init_producer_id, list_config_resources,
    list_offsets, metadata, offset_fetch, offset_for_leader_epoch, produce, raft_voters,
    transaction_admin, transaction_client, txn_offset_commit, unregister_broker, update_features,
    write_txn_markers,
};
use crate::net::close_reason::CloseReason;
use crate::net::frame::Frame;
use crate::net::peer::Peer;
use crate::net::service::{Reply, Service, Stage};
use crate::shard::router::Router;
use crate::wire::api_table::{ApiKey, ServedApi};
use crate::wire::frame::{FrameError, decode_request, peek_request};

/// Starts the handler of an API.
type Start = fn(&Rc<Api>, Call) -> Started;

/// What is served: every stable version of each.
const SERVED: &[(ApiKey, Start)] = &[
    (ApiKey::Produce, |api, call| produce::start(api, call)),
    (ApiKey::Fetch, |api, call| later(fetch::handle, api, call)),
    (ApiKey::ListOffsets, |api, call| {
        later(list_offsets::handle, api, call)
    }),
    (ApiKey::Metadata, |api, call| {
        later(metadata::handle, api, call)
    }),
    (ApiKey::OffsetCommit, |api, call| {
        later(group_member::commit, api, call)
    }),
    (ApiKey::OffsetFetch, |api, call| {
        later(offset_fetch::handle, api, call)
    }),
    (ApiKey::FindCoordinator, |api, call| {
        later(find_coordinator::handle, api, call)
    }),
    (ApiKey::JoinGroup, |api, call| {
        later(group_member::join, api, call)
    }),
    (ApiKey::Heartbeat, |api, call| {
        later(group_member::heartbeat, api, call)
    }),
    (ApiKey::LeaveGroup, |api, call| {
        later(group_member::leave, api, call)
    }),
    (ApiKey::SyncGroup, |api, call| {
        later(group_member::sync, api, call)
    }),
    (ApiKey::DescribeGroups, |api, call| {
        later(group_admin::describe, api, call)
    }),
    (ApiKey::ListGroups, |api, call| {
        later(group_admin::list, api, call)
    }),
    (ApiKey::ApiVersions, |api, call| {
        let version = api.router.image().cluster_version();
        Started::Stage(Stage::Done(api_versions::handle(&call, version)))
    }),
    (ApiKey::CreateTopics, |api, call| {
        later(create_topics::handle, api, call)
    }),
    (ApiKey::DeleteTopics, |api, call| {
        later(delete_topics::handle, api, call)
    }),
    (ApiKey::DeleteRecords, |api, call| {
        later(delete_records::handle, api, call)
    }),
    (ApiKey::InitProducerId, |api, call| {
        later(init_producer_id::handle, api, call)
    }),
    (ApiKey::OffsetForLeaderEpoch, |api, call| {
        later(offset_for_leader_epoch::handle, api, call)
    }),
    (ApiKey::AddPartitionsToTxn, |api, call| {
        later(transaction_client::add_partitions, api, call)
    }),
    (ApiKey::AddOffsetsToTxn, |api, call| {
        later(transaction_client::add_offsets, api, call)
    }),
    (ApiKey::EndTxn, |api, call| {
        later(transaction_client::end, api, call)
    }),
    (ApiKey::WriteTxnMarkers, |api, call| {
        later(write_txn_markers::handle, api, call)
    }),
    (ApiKey::TxnOffsetCommit, |api, call| {
        later(txn_offset_commit::handle, api, call)
    }),
    (ApiKey::DescribeConfigs, |api, call| {
        later(describe_configs::handle, api, call)
    }),
    (ApiKey::AlterConfigs, |api, call| {
        later(alter_configs::handle_replacing, api, call)
    }),
    (ApiKey::DescribeLogDirs, |api, call| {
        later(describe_log_dirs::handle, api, call)
    }),
    (ApiKey::CreatePartitions, |api, call| {
        later(create_partitions::handle, api, call)
    }),
    (ApiKey::DeleteGroups, |api, call| {
        later(group_admin::delete, api, call)
    }),
    (ApiKey::ElectLeaders, |api, call| {
        later(elect_leaders::handle, api, call)
    }),
    (ApiKey::IncrementalAlterConfigs, |api, call| {
        later(alter_configs::handle_incremental, api, call)
    }),
    (ApiKey::AlterPartitionReassignments, |api, call| {
        later(alter_partition_reassignments::alter, api, call)
    }),
    (ApiKey::ListPartitionReassignments, |api, call| {
        later(alter_partition_reassignments::list, api, call)
    }),
    (ApiKey::OffsetDelete, |api, call| {
        later(group_member::delete_offsets, api, call)
    }),
    (ApiKey::DescribeQuorum, |api, call| {
        later(describe_quorum::handle, api, call)
    }),
    (ApiKey::UpdateFeatures, |api, call| {
        later(update_features::handle, api, call)
    }),
    (ApiKey::DescribeCluster, |api, call| {
        later(describe_cluster::handle, api, call)
    }),
    (ApiKey::DescribeProducers, |api, call| {
        later(describe_producers::handle, api, call)
    }),
    (ApiKey::UnregisterBroker, |api, call| {
        later(unregister_broker::handle, api, call)
    }),
    (ApiKey::DescribeTransactions, |api, call| {
        later(transaction_admin::describe, api, call)
    }),
    (ApiKey::ListTransactions, |api, call| {
        later(transaction_admin::list, api, call)
    }),
    (ApiKey::ConsumerGroupHeartbeat, |api, call| {
        later(group_member::consumer_heartbeat, api, call)
    }),
    (ApiKey::ConsumerGroupDescribe, |api, call| {
        later(group_admin::describe_consumer, api, call)
    }),
    (ApiKey::ListConfigResources, |api, call| {
        later(list_config_resources::handle, api, call)
    }),
    (ApiKey::DescribeTopicPartitions, |api, call| {
        later(describe_topic_partitions::handle, api, call)
    }),
    (ApiKey::AddRaftVoter, |api, call| {
        later(raft_voters::add, api, call)
    }),
    (ApiKey::RemoveRaftVoter, |api, call| {
        later(raft_voters::remove, api, call)
    }),
];

/// The APIs and versions that are served, by ascending key.
pub fn served() -> impl Iterator<Item = ServedApi> {
    SERVED.iter().map(|(key, _)| ServedApi::stable(*key))
}

fn start_of(api: ApiKey, version: i16) -> Option<Start> {
    let (_, start) = SERVED.iter().find(|(key, _)| *key == api)?;
    ServedApi::stable(api).serves(version).then_some(*start)
}

/// The meaning of frames on one core.
pub struct Api {
    pub(super) router: Rc<Router>,
    pub(super) sessions: RefCell<FetchSessions>,
    pub(super) producer_ids: RefCell<ProducerIds>,
    pub(super) rules: RefCell<TopicRules>,
}

impl Api {
    /// The API of one of `core_count` cores.
    #[must_use]
    pub fn new(router: Rc<Router>, core_count: usize) -> Rc<Api> {
        let limits = &router.config().limits;
        let sessions = limits.fetch_sessions_max.div_ceil(core_count.max(1));
        let sessions = FetchSessions::new(sessions, limits.request_partitions_max);
        Rc::new(Api {
            router,
            sessions: RefCell::new(sessions),
            producer_ids: RefCell::default(),
            rules: RefCell::default(),
        })
    }

    fn start(self: &Rc<Self>, frame: Frame, peer: &Peer) -> Started {
        let done = |reply| Started::Stage(Stage::Done(reply));
        let (header, api, body) = match decode_request(&frame) {
            Ok(request) => {
                let body = frame.len() - request.body.remaining().len();
                (request.header, request.api, body)
            }
            Err(FrameError::UnsupportedVersion {
                api: ApiKey::ApiVersions,
                correlation_id,
                ..
            }) => return done(api_versions::unsupported(correlation_id)),
            Err(_) => return done(Reply::Close(CloseReason::InvalidRequest)),
        };
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        let Some(start) = start_of(api, version) else {
            return done(Reply::Close(CloseReason::InvalidRequest));
        };
        let call = Call {
            frame,
            peer: peer.clone(),
            version,
            correlation_id,
            body,
        };
        start(self, call)
    }
}

impl Service for Api {
    fn overlaps(&self, frame: &[u8]) -> bool {
        // What brokers say to each other has another head, and nothing of it overlaps: the kind of
        // a Produce would be of protocol 0.
        peek_request(frame).is_ok_and(|(key, ..)| key == ApiKey::Produce.code())
    }

    async fn call(self: &Rc<Self>, frame: Frame, peer: &Peer) -> Stage {
        if peer.listener() == INTER_BROKER_LISTENER {
            let served = peer_requests::serve(self.clone(), frame, peer.clone());
            return Stage::Later(Box::pin(served));
        }
        match self.start(frame, peer) {
            Started::Stage(stage) => stage,
            Started::Starting(starting) => starting.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_are_for_clients() {
        let keys: Vec<i16> = served().map(|served| served.key.code()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert!(SERVED.iter().all(|(key, _)| key.listeners().broker));
    }

    #[test]
    fn exactly_the_stable_versions_start() {
        assert!(start_of(ApiKey::Produce, 3).is_some());
        assert!(start_of(ApiKey::Produce, 2).is_none());
        assert!(start_of(ApiKey::Fetch, 18).is_some());
        // Not final in Kafka 4.3.
        assert!(start_of(ApiKey::InitProducerId, 6).is_none());
        assert!(start_of(ApiKey::Vote, 0).is_none());
    }
}
