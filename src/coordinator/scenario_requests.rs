//! The requests of scenarios, from text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::wire::message::Message;
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::list_groups::ListGroupsRequest;
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::wire::messages::records_consumer_protocol_subscription::ConsumerProtocolSubscription;
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use crate::wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};

use super::group_request::GroupRequest;
use super::group_world::FewTopics;
use super::scenario_consumers::heartbeat;

/// What stands between a client's id and the number of the id that was made for it.
pub(super) const ID_MIDDLE: &str = "-00000000-0000-4000-8000-";

/// `A#1` as the member id that it stands for.
fn member_id(text: &str) -> String {
    match text.split_once('#') {
        Some((client, number)) => {
            let number: u32 = number.parse().expect("the number of an id");
            format!("{client}{ID_MIDDLE}{number:012x}")
        }
        None => text.to_owned(),
    }
}

/// The words of a request: the group first, then `name=value`.
pub(super) struct Arguments {
    group: String,
    named: BTreeMap<String, String>,
}

impl Arguments {
    pub(super) fn parse(words: &[&str]) -> Arguments {
        let mut group = String::new();
        let mut named = BTreeMap::new();
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => {
                    named.insert(name.to_owned(), value.to_owned());
                }
                None => group = (*word).to_owned(),
            }
        }
        Arguments { group, named }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.named.get(name) {
            Some(text) => text.parse().ok().unwrap_or_else(|| panic!("{name}={text}")),
            None => default,
        }
    }

    pub(super) fn text(&self, name: &str, default: &'static str) -> Cow<'static, str> {
        let found = self.named.get(name).cloned();
        found.map_or(Cow::Borrowed(default), Cow::Owned)
    }

    pub(super) fn optional(&self, name: &str) -> Option<Cow<'static, str>> {
        self.named.get(name).cloned().map(Cow::Owned)
    }

    pub(super) fn member(&self) -> Cow<'static, str> {
        member_id(&self.text("member", "")).into()
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let list = self.named.get(name).map(|list| list.split(','));
        let items = list.into_iter().flatten().filter(|item| !item.is_empty());
        items.map(str::to_owned).collect()
    }

    pub(super) fn group(&self) -> Cow<'static, str> {
        self.group.clone().into()
    }

    /// `t/0=5:meta,t/1=6` by topic.
    pub(super) fn offsets(&self) -> BTreeMap<String, Vec<(i32, i64, String)>> {
        let mut topics: BTreeMap<String, Vec<(i32, i64, String)>> = BTreeMap::new();
        for item in self.list("offsets") {
            let (topic, rest) = item.split_once('/').expect("topic/partition");
            let (partition, rest) = rest.split_once(['=', '@']).unwrap_or((rest, "0"));
            let (offset, metadata) = rest.split_once(':').unwrap_or((rest, ""));
            topics.entry(topic.to_owned()).or_default().push((
                partition.parse().expect("a partition"),
                offset.parse().expect("an offset"),
                metadata.to_owned(),
            ));
        }
        topics
    }
}

pub(super) fn default_version(verb: &str) -> i16 {
    match verb {
        "join" | "commit" | "fetch" => 9,
        "heartbeat" => 4,
        "describe" => 6,
        "offset-delete" => 0,
        "beat" => 1,
        "delete" => 2,
        _ => 5,
    }
}

fn subscription(topics: &[String]) -> Vec<u8> {
    let subscription = ConsumerProtocolSubscription {
        topics: topics.iter().map(|topic| topic.clone().into()).collect(),
        ..Default::default()
    };
    let mut bytes = 0_i16.to_be_bytes().to_vec();
    bytes.extend(subscription.to_bytes(0));
    bytes
}

fn join(arguments: &Arguments) -> GroupRequest<'static> {
    let metadata = match arguments.optional("metadata") {
        Some(metadata) => metadata.into_owned().into_bytes(),
        None => subscription(&arguments.list("topics")),
    };
    let names = match arguments.named.get("protocols").map(String::as_str) {
        None => vec!["range".to_owned()],
        Some("") => Vec::new(),
        Some(_) => arguments.list("protocols"),
    };
    let protocols = names.into_iter().map(|name| JoinGroupRequestProtocol {
        name: name.into(),
        metadata: metadata.clone().into(),
    });
    GroupRequest::Join(JoinGroupRequest {
        group_id: arguments.group(),
        session_timeout_ms: arguments.number("session", 10_000),
        rebalance_timeout_ms: arguments.number("rebalance", 60_000),
        member_id: arguments.member(),
        group_instance_id: arguments.optional("instance"),
        protocol_type: arguments.text("type", "consumer"),
        protocols: protocols.collect(),
        reason: None,
    })
}

fn sync(arguments: &Arguments) -> GroupRequest<'static> {
    let assignments = arguments.list("assign").into_iter().map(|item| {
        let (member, assignment) = item.split_once(':').expect("member:assignment");
        SyncGroupRequestAssignment {
            member_id: member_id(member).into(),
            assignment: assignment.as_bytes().to_vec().into(),
        }
    });
    GroupRequest::Sync(SyncGroupRequest {
        group_id: arguments.group(),
        generation_id: arguments.number("gen", 1),
        member_id: arguments.member(),
        group_instance_id: arguments.optional("instance"),
        protocol_type: arguments.optional("type"),
        protocol_name: arguments.optional("protocol"),
        assignments: assignments.collect(),
    })
}

fn leave(arguments: &Arguments) -> GroupRequest<'static> {
    let members = arguments.list("members").into_iter().map(|item| {
        let (member, instance) = match item.split_once('/') {
            Some((member, instance)) => (member.to_owned(), Some(instance.to_owned())),
            None => (item, None),
        };
        MemberIdentity {
            member_id: member_id(&member).into(),
            group_instance_id: instance.map(Into::into),
            reason: None,
        }
    });
    GroupRequest::Leave(LeaveGroupRequest {
        group_id: arguments.group(),
        member_id: arguments.member(),
        members: members.collect(),
    })
}

fn commit(arguments: &Arguments) -> GroupRequest<'static> {
    let by_id = arguments.number("v", 9) >= 10;
    let topics = arguments.offsets().into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        let life = arguments.number("life", 1);
        let mut topic = OffsetCommitRequestTopic {
            topic_id: FewTopics::id(&name, life),
            partitions: partitions
                .map(|(index, offset, metadata)| OffsetCommitRequestPartition {
                    partition_index: index,
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    committed_metadata: Some(metadata.into()),
                })
                .collect(),
            ..Default::default()
        };
        if !by_id {
            topic = OffsetCommitRequestTopic {
                name: name.into(),
                topic_id: Default::default(),
                ..topic
            };
        }
        topic
    });
    GroupRequest::OffsetCommit(OffsetCommitRequest {
        group_id: arguments.group(),
        generation_id_or_member_epoch: arguments.number("gen", -1),
        member_id: arguments.member(),
        group_instance_id: arguments.optional("instance"),
        retention_time_ms: arguments.number("retention", -1),
        topics: topics.collect(),
    })
}

fn txn_commit(arguments: &Arguments) -> GroupRequest<'static> {
    let topics = arguments.offsets().into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        TxnOffsetCommitRequestTopic {
            name: name.into(),
            partitions: partitions
                .map(
                    |(index, offset, metadata)| TxnOffsetCommitRequestPartition {
                        partition_index: index,
                        committed_offset: offset,
                        committed_leader_epoch: -1,
                        committed_metadata: Some(metadata.into()),
                    },
                )
                .collect(),
        }
    });
    GroupRequest::TxnOffsetCommit(TxnOffsetCommitRequest {
        transactional_id: "tx".into(),
        group_id: arguments.group(),
        producer_id: arguments.number("producer", 7),
        producer_epoch: 0,
        generation_id: arguments.number("gen", -1),
        member_id: arguments.member(),
        group_instance_id: arguments.optional("instance"),
        topics: topics.collect(),
    })
}

fn fetch(arguments: &Arguments) -> GroupRequest<'static> {
    let by_id = arguments.number("v", 9) >= 10;
    let topics = arguments.offsets().into_iter().map(|(name, partitions)| {
        let life = arguments.number("life", 1);
        let id = FewTopics::id(&name, life);
        OffsetFetchRequestTopics {
            topic_id: if by_id { id } else { Default::default() },
            name: if by_id { "".into() } else { name.into() },
            partition_indexes: partitions.into_iter().map(|(index, ..)| index).collect(),
        }
    });
    let topics = topics.collect();
    GroupRequest::OffsetFetch {
        group: OffsetFetchRequestGroup {
            group_id: arguments.group(),
            topics: arguments.named.contains_key("offsets").then_some(topics),
            ..Default::default()
        },
        require_stable: arguments.number("stable", false),
    }
}

fn offset_delete(arguments: &Arguments) -> GroupRequest<'static> {
    let topics = arguments.offsets().into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: partitions
                .map(|(index, ..)| OffsetDeleteRequestPartition {
                    partition_index: index,
                })
                .collect(),
        }
    });
    GroupRequest::OffsetDelete(OffsetDeleteRequest {
        group_id: arguments.group(),
        topics: topics.collect(),
    })
}

fn list(arguments: &Arguments) -> GroupRequest<'static> {
    let texts = |name| arguments.list(name).into_iter().map(Cow::Owned).collect();
    GroupRequest::List(ListGroupsRequest {
        states_filter: texts("states"),
        types_filter: texts("types"),
    })
}

/// Makes the request and hands it over.
pub(super) fn with_request<T>(
    verb: &str,
    arguments: &Arguments,
    act: impl FnOnce(GroupRequest<'_>) -> T,
) -> T {
    act(match verb {
        "join" => join(arguments),
        "sync" => sync(arguments),
        "heartbeat" => {
            GroupRequest::Heartbeat(crate::wire::messages::heartbeat::HeartbeatRequest {
                group_id: arguments.group(),
                generation_id: arguments.number("gen", 1),
                member_id: arguments.member(),
                group_instance_id: arguments.optional("instance"),
            })
        }
        "leave" => leave(arguments),
        "commit" => commit(arguments),
        "txn-commit" => txn_commit(arguments),
        "fetch" => fetch(arguments),
        "offset-delete" => offset_delete(arguments),
        "delete" => GroupRequest::DeleteGroup(&arguments.group),
        "describe" => GroupRequest::Describe(&arguments.group),
        "describe-consumer" => GroupRequest::ConsumerDescribe(&arguments.group),
        "beat" => heartbeat(arguments),
        "list" => list(arguments),
        other => panic!("no request {other}"),
    })
}
