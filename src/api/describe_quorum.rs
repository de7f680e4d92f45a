//! DescribeQuorum, versions 0 to 2 (KIP-595, KIP-853 directories, listeners and messages in 2).
//!
//! The quorum's leader answers; nobody else knows how far the others are. Offsets are indexes of the
//! quorum's log. It keeps no times of fetches: these are -1, as Kafka tells what it does not know.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::raft_voters::refusal_of;
use crate::cluster::image::MetadataImage;
use crate::cluster::quorum::node_membership::{QuorumDescription, ReplicaDescription};
use crate::shard::quorum_requests::{QuorumAnswer, QuorumRequest};
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, ReplicaState,
    ResponsePartitionData, ResponseTopicData,
};

/// The topic and the partition that Kafka keeps its metadata in.
const METADATA_TOPIC: &str = "__cluster_metadata";
const METADATA_PARTITION: i32 = 0;

/// The name of the listener for other brokers; settings have none.
pub(super) const LISTENER_NAME: &str = "INTER_BROKER";

/// Answers a DescribeQuorum.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeQuorumRequest<'_> = call.request()?;
    let most = api.router.config().limits.request_partitions_max;
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    check_count(request.topics.len().max(named.sum()), most)?;
    let described = match api.router.ask_quorum(QuorumRequest::Describe).await {
        Ok(QuorumAnswer::Described(described)) => described,
        Ok(QuorumAnswer::Changed) => unreachable!("a description was asked for"),
        Err(failure) => {
            let (code, message) = refusal_of(&failure);
            return Ok(call.reply(&DescribeQuorumResponse {
                error_code: code.code(),
                error_message: Some(Cow::Owned(message)),
                ..DescribeQuorumResponse::default()
            }));
        }
    };
    let topics = request.topics.iter().map(|topic| {
        let is_metadata = topic.topic_name == METADATA_TOPIC;
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            match is_metadata && index == METADATA_PARTITION {
                true => metadata_partition(&described),
                false => unknown_partition(index),
            }
        });
        ResponseTopicData {
            topic_name: Cow::Borrowed(&topic.topic_name),
            partitions: partitions.collect(),
        }
    });
    let image = api.router.image();
    Ok(call.reply(&DescribeQuorumResponse {
        topics: topics.collect(),
        nodes: nodes(&described, &image),
        ..DescribeQuorumResponse::default()
    }))
}

fn unknown_partition<'a>(index: i32) -> ResponsePartitionData<'a> {
    ResponsePartitionData {
        partition_index: index,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        error_message: Some(Cow::Borrowed(
            "Only partition 0 of __cluster_metadata has a quorum",
        )),
        ..ResponsePartitionData::default()
    }
}

fn metadata_partition<'a>(described: &QuorumDescription) -> ResponsePartitionData<'a> {
    let states = |is_voter: bool| {
        let replicas = described.replicas.iter();
        let replicas = replicas.filter(move |replica| replica.is_voter == is_voter);
        replicas.map(replica_state).collect()
    };
    ResponsePartitionData {
        partition_index: METADATA_PARTITION,
        leader_id: described.leader.unwrap_or(-1),
        leader_epoch: i32::try_from(described.leader_epoch).unwrap_or(i32::MAX),
        high_watermark: next_offset(described.high_watermark),
        current_voters: states(true),
        observers: states(false),
        ..ResponsePartitionData::default()
    }
}

fn replica_state(replica: &ReplicaDescription) -> ReplicaState {
    ReplicaState {
        replica_id: replica.node_id,
        replica_directory_id: replica.directory_id.unwrap_or(Uuid::ZERO),
        log_end_offset: replica.log_end.map_or(-1, next_offset),
        ..ReplicaState::default()
    }
}

/// Kafka's offsets are those of the record behind.
fn next_offset(index: u64) -> i64 {
    i64::try_from(index).map_or(i64::MAX, |index| index.saturating_add(1))
}

fn nodes<'a>(described: &QuorumDescription, image: &'a MetadataImage) -> Vec<Node<'a>> {
    let node = |replica: &ReplicaDescription| {
        let broker = image.brokers().get(&replica.node_id)?;
        let (host, port) = broker.inter_broker.as_ref()?;
        Some(Node {
            node_id: replica.node_id,
            listeners: vec![Listener {
                name: Cow::Borrowed(LISTENER_NAME),
                host: Cow::Borrowed(host),
                port: *port,
            }],
        })
    };
    described.replicas.iter().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_and_observers_are_told_apart_and_the_unknown_is_minus_one() {
        let replica = |node_id, is_voter, log_end| ReplicaDescription {
            node_id,
            directory_id: None,
            is_voter,
            log_end,
        };
        let told = metadata_partition(&QuorumDescription {
            leader: None,
            leader_epoch: 3,
            high_watermark: 7,
            replicas: vec![replica(1, true, Some(7)), replica(2, false, None)],
        });
        assert_eq!((told.leader_id, told.leader_epoch), (-1, 3));
        assert_eq!(told.high_watermark, 8);
        let ends = |states: &[ReplicaState]| -> Vec<(i32, i64, i64)> {
            let end = |state: &ReplicaState| {
                (
                    state.replica_id,
                    state.log_end_offset,
                    state.last_fetch_timestamp,
                )
            };
            states.iter().map(end).collect()
        };
        assert_eq!(ends(&told.current_voters), [(1, 8, -1)]);
        assert_eq!(ends(&told.observers), [(2, -1, -1)]);
    }
}
