//! The metadata quorum, asked and changed: for `percolog cluster describe`, `add` and `remove`.

use std::borrow::Cow;

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use crate::wire::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, PartitionData, ReplicaState, TopicData,
};
use crate::wire::messages::remove_raft_voter::RemoveRaftVoterRequest;

use super::client::{Client, ClientOptions};
use super::failure::Failure;
use super::output::{self, OutputFormat};

/// The topic that Kafka keeps its metadata in; its partition 0 has the quorum.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// One node of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) node_id: i32,
    /// `leader`, `voter` or `observer`.
    pub(crate) role: &'static str,
    /// Its first data directory.
    pub(crate) directory_id: Uuid,
    /// Where it listens for others, if the broker says so.
    pub(crate) address: Option<String>,
    /// How far its log goes, -1 when nobody knows.
    pub(crate) log_end: i64,
}

/// The quorum as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// Who leads.
    pub(crate) leader: i32,
    /// Since when, in elections.
    pub(crate) epoch: i32,
    /// Up to where it is committed.
    pub(crate) high_watermark: i64,
    /// Voters, then observers, by id.
    pub(crate) members: Vec<Member>,
}

impl Quorum {
    /// How far a member is behind the leader.
    pub(crate) fn lag(&self, member: &Member) -> Option<i64> {
        let mut members = self.members.iter();
        let leader = members.find(|other| other.node_id == self.leader)?;
        let is_known = leader.log_end >= 0 && member.log_end >= 0;
        is_known.then(|| (leader.log_end - member.log_end).max(0))
    }
}

/// Asks for the quorum; None from brokers that do not serve the question.
pub(crate) fn quorum(client: &mut Client) -> Result<Option<Quorum>, Failure> {
    let connection = client.any()?;
    if connection.version(ApiKey::DescribeQuorum).is_none() {
        return Ok(None);
    }
    let request = DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: Cow::Borrowed(METADATA_TOPIC),
            partitions: vec![PartitionData::default()],
        }],
    };
    let reply = connection.ask(&request)?;
    let response = reply.decode::<DescribeQuorumRequest<'_>>()?;
    let message = response.error_message.as_deref();
    Failure::check("metadata quorum", response.error_code, message)?;
    read(&response).map(Some)
}

fn read(response: &DescribeQuorumResponse<'_>) -> Result<Quorum, Failure> {
    let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let partition = partitions.next().ok_or_else(|| {
        let code = ErrorCode::UnknownTopicOrPartition.code();
        Failure::refused("metadata quorum", code, None)
    })?;
    let message = partition.error_message.as_deref();
    Failure::check("metadata quorum", partition.error_code, message)?;
    let address = |node_id| {
        let mut nodes = response.nodes.iter();
        let node = nodes.find(|node| node.node_id == node_id)?;
        let listener = node.listeners.first()?;
        Some(format!("{}:{}", listener.host, listener.port))
    };
    let member = |role: &'static str| {
        move |state: &ReplicaState| Member {
            node_id: state.replica_id,
            role: match state.replica_id == partition.leader_id {
                true => "leader",
                false => role,
            },
            directory_id: state.replica_directory_id,
            address: address(state.replica_id),
            log_end: state.log_end_offset,
        }
    };
    let voters = partition.current_voters.iter().map(member("voter"));
    let observers = partition.observers.iter().map(member("observer"));
    Ok(Quorum {
        leader: partition.leader_id,
        epoch: partition.leader_epoch,
        high_watermark: partition.high_watermark,
        members: voters.chain(observers).collect(),
    })
}

/// `NODE_ID@HOST:PORT`, as in `node.quorum`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewVoter {
    node_id: i32,
    host: String,
    port: u16,
}

impl std::str::FromStr for NewVoter {
    type Err = String;

    fn from_str(text: &str) -> Result<NewVoter, String> {
        let read = || {
            let (node_id, address) = text.split_once('@')?;
            let (host, port) = address.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(NewVoter {
                node_id: node_id.parse().ok().filter(|id| *id >= 0)?,
                host: host.to_owned(),
                port: port.parse().ok()?,
            })
        };
        read()
            .filter(|voter| !voter.host.is_empty())
            .ok_or_else(|| "a voter is NODE_ID@HOST:PORT, as in node.quorum".to_owned())
    }
}

/// `percolog cluster add`.
pub(crate) fn add(voter: &NewVoter, options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let request = AddRaftVoterRequest {
        cluster_id: None,
        timeout_ms: options.timeout_ms(),
        voter_id: voter.node_id,
        listeners: vec![Listener {
            name: Cow::Borrowed("INTER_BROKER"),
            host: Cow::Borrowed(&voter.host),
            port: voter.port,
        }],
        ack_when_committed: true,
        ..AddRaftVoterRequest::default()
    };
    let reply = client.any()?.ask(&request)?;
    let response = reply.decode::<AddRaftVoterRequest<'_>>()?;
    let message = response.error_message.as_deref();
    let subject = format!("voter {}", voter.node_id);
    Failure::check(subject, response.error_code, message)?;
    match options.output {
        OutputFormat::Table => output::line(&format!("node {} votes now", voter.node_id)),
        OutputFormat::Json => output::json(&json!({ "added": voter.node_id })),
    }
}

/// Takes the vote of a node, if it has one; whether it had.
pub(crate) fn remove_voter(client: &mut Client, node_id: i32) -> Result<bool, Failure> {
    let Some(quorum) = quorum(client)? else {
        return Ok(false);
    };
    let mut members = quorum.members.iter();
    if !members.any(|member| member.node_id == node_id && member.role != "observer") {
        return Ok(false);
    }
    let request = RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: node_id,
        ..RemoveRaftVoterRequest::default()
    };
    let reply = client.any()?.ask(&request)?;
    let response = reply.decode::<RemoveRaftVoterRequest<'_>>()?;
    let message = response.error_message.as_deref();
    Failure::check(format!("voter {node_id}"), response.error_code, message)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_is_an_id_and_an_address() {
        let voter: NewVoter = "2@[::1]:9093".parse().expect("a voter");
        assert_eq!(
            (voter.node_id, voter.host.as_str(), voter.port),
            (2, "::1", 9093)
        );
        for bad in ["2", "2@host", "-1@host:1", "x@host:1", "2@:1", "2@host:x"] {
            assert!(bad.parse::<NewVoter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lag_is_counted_from_the_leader_where_both_are_known() {
        let member = |node_id, log_end| Member {
            node_id,
            role: "voter",
            directory_id: Uuid::ZERO,
            address: None,
            log_end,
        };
        let quorum = Quorum {
            leader: 1,
            epoch: 1,
            high_watermark: 9,
            members: vec![member(1, 10), member(2, 7), member(3, -1)],
        };
        let lags: Vec<_> = quorum.members.iter().map(|m| quorum.lag(m)).collect();
        assert_eq!(lags, [Some(0), Some(3), None]);
    }
}
