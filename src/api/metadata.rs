//! Metadata, versions 0 to 13 (KIP-4, KIP-430 operations from 8, KIP-516 ids from 10, KIP-1102 an
//! error for the whole in 13).
//!
//! No topics are all of them when null, or when empty in version 0. A topic that is not there is
//! created if request and configuration allow it, and is in this very answer: Kafka answers first and
//! has the client come back. Internal topics are not created on a client's word. Each topic is
//! answered once; from version 12 on an id beats a name, before that the combination is
//! INVALID_REQUEST. Without an authorizer everybody may do everything, and that is what the
//! operations say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::endpoint::endpoints;
use super::error_mapping::controller_code;
use crate::cluster::controller::{Command, CommandReply, NewTopic};
use crate::cluster::controller_error::ControllerError;
use crate::cluster::image::{MetadataImage, PartitionImage, TopicImage};
use crate::cluster::topic_name;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};

/// What one may do with a topic: read, write, create, delete, alter, describe, and describe and
/// alter its settings; a bit each.
pub(super) const TOPIC_OPERATIONS: i32 = 3576;
/// What one may do with a cluster: create, alter, describe, act for it, describe and alter settings,
/// write idempotently, and make and describe tokens.
pub(super) const CLUSTER_OPERATIONS: i32 = 8096;
/// Stands for the leader of a partition that has none.
pub(super) const NO_LEADER: i32 = -1;
/// First version with operations.
const OPERATIONS_FROM: i16 = 8;
/// Last version with operations on the cluster.
const CLUSTER_OPERATIONS_UNTIL: i16 = 10;
/// First version in which a topic may be named by id alone.
const TOPIC_ID_FROM: i16 = 12;

/// What the request names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Name(String),
    Id(Uuid),
    /// Neither, or both before that had a meaning.
    Contradiction(Option<String>, Uuid),
}

/// Answers a Metadata.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: MetadataRequest<'_> = call.request()?;
    let config = api.router.config();
    let is_all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && call.version == 0,
    };
    let named = request.topics.as_deref().unwrap_or_default();
    check_count(named.len(), config.limits.request_partitions_max)?;
    let asked = asked(named, call.version);
    let refusals = if request.allow_auto_topic_creation && config.defaults.auto_create_topics {
        create_missing(&api, &asked).await
    } else {
        BTreeMap::new()
    };
    // After the creation, so that the new topics are there.
    let image = api.router.image();
    let mut topics: Vec<MetadataResponseTopic<'_>> = if is_all {
        image.topics().map(|topic| found(&image, topic)).collect()
    } else {
        let asked = asked.iter();
        asked
            .map(|asked| answer(&image, asked, &refusals))
            .collect()
    };
    if request.include_topic_authorized_operations && call.version >= OPERATIONS_FROM {
        let named = topics.iter_mut().filter(|topic| {
            let code = topic.error_code;
            code != ErrorCode::UnknownTopicId.code() && code != ErrorCode::InvalidRequest.code()
        });
        named.for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
    }
    if api.router.has_offline() {
        for topic in &mut topics {
            mark_offline(topic, |id, number| api.router.is_offline(id, number));
        }
    }
    let endpoints = endpoints(&image, &config, &call.peer);
    let brokers = endpoints.iter().map(|endpoint| MetadataResponseBroker {
        node_id: endpoint.node_id,
        host: Cow::Borrowed(&endpoint.host),
        port: endpoint.port,
        rack: endpoint.rack.as_deref().map(Cow::Borrowed),
    });
    let mut response = MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(Cow::Borrowed(image.cluster_id())),
        controller_id: image.node_id(),
        topics,
        ..MetadataResponse::default()
    };
    let has_operations = (OPERATIONS_FROM..=CLUSTER_OPERATIONS_UNTIL).contains(&call.version);
    if request.include_cluster_authorized_operations && has_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(call.reply(&response))
}

/// What is asked for, each once, in the order of the first mention.
fn asked(topics: &[MetadataRequestTopic<'_>], version: i16) -> Vec<Asked> {
    let mut seen = BTreeSet::new();
    let asked = topics.iter().map(|topic| {
        let name = topic.name.as_deref().map(str::to_string);
        match (name, topic.topic_id.is_zero()) {
            (Some(name), true) => Asked::Name(name),
            (_, false) if version >= TOPIC_ID_FROM => Asked::Id(topic.topic_id),
            (name, _) => Asked::Contradiction(name, topic.topic_id),
        }
    });
    asked.filter(|asked| seen.insert(asked.clone())).collect()
}

/// The topics that are asked for and could be created.
fn missing(image: &MetadataImage, asked: &[Asked]) -> Vec<NewTopic> {
    let names = asked.iter().filter_map(|asked| match asked {
        Asked::Name(name) => Some(name),
        _ => None,
    });
    let names = names.filter(|name| {
        image.topic(name).is_none()
            && topic_name::check(name).is_ok()
            && !topic_name::is_internal(name)
            && name.as_str() != topic_name::CLUSTER_METADATA
    });
    let topics = names.map(|name| NewTopic {
        name: name.clone(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    });
    topics.collect()
}

/// Creates what is missing; gives the codes of those that could not be.
async fn create_missing(api: &Api, asked: &[Asked]) -> BTreeMap<String, ErrorCode> {
    let topics = missing(&api.router.image(), asked);
    if topics.is_empty() {
        return BTreeMap::new();
    }
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let command = Command::CreateTopics {
        topics,
        validate_only: false,
    };
    match api.router.control(command).await {
        Ok(CommandReply::TopicsCreated(results)) => {
            let refusals = results
                .into_iter()
                .filter_map(|(name, result)| Some((name, creation_code(&result.err()?)?)));
            refusals.collect()
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        // Worth asking again.
        Err(_) => {
            let refusals = names
                .into_iter()
                .map(|name| (name, ErrorCode::LeaderNotAvailable));
            refusals.collect()
        }
    }
}

fn creation_code(error: &ControllerError) -> Option<ErrorCode> {
    match error {
        // Somebody else was faster.
        ControllerError::TopicExists(_) => None,
        error => Some(controller_code(error)),
    }
}

fn answer<'a>(
    image: &'a MetadataImage,
    asked: &'a Asked,
    refusals: &BTreeMap<String, ErrorCode>,
) -> MetadataResponseTopic<'a> {
    match asked {
        Asked::Name(name) => match image.topic(name) {
            Some(topic) => found(image, topic),
            None => {
                let code = match topic_name::check(name) {
                    Err(_) => ErrorCode::InvalidTopicException,
                    Ok(()) => *refusals
                        .get(name)
                        .unwrap_or(&ErrorCode::UnknownTopicOrPartition),
                };
                MetadataResponseTopic {
                    error_code: code.code(),
                    name: Some(Cow::Borrowed(name)),
                    is_internal: topic_name::is_internal(name),
                    ..MetadataResponseTopic::default()
                }
            }
        },
        Asked::Id(id) => match image.topic_by_id(*id) {
            Some(topic) => found(image, topic),
            None => MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.code(),
                name: None,
                topic_id: *id,
                ..MetadataResponseTopic::default()
            },
        },
        Asked::Contradiction(name, id) => MetadataResponseTopic {
            error_code: ErrorCode::InvalidRequest.code(),
            name: Some(Cow::Borrowed(name.as_deref().unwrap_or_default())),
            topic_id: *id,
            ..MetadataResponseTopic::default()
        },
    }
}

fn found<'a>(image: &MetadataImage, topic: &'a TopicImage) -> MetadataResponseTopic<'a> {
    let partitions =
        (0..)
            .zip(&topic.partitions)
            .map(|(number, of_image)| MetadataResponsePartition {
                offline_replicas: image.offline_replicas(of_image),
                ..partition(number, of_image)
            });
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(Cow::Borrowed(&topic.name)),
        topic_id: topic.id,
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

/// A partition whose disk does not serve has no leader and nobody in sync, as Kafka's controller
/// would have it.
fn mark_offline(topic: &mut MetadataResponseTopic<'_>, is_offline: impl Fn(Uuid, i32) -> bool) {
    for partition in &mut topic.partitions {
        if is_offline(topic.topic_id, partition.partition_index) {
            partition.error_code = ErrorCode::LeaderNotAvailable.code();
            partition.leader_id = NO_LEADER;
            partition.isr_nodes.clear();
            partition.offline_replicas = partition.replica_nodes.clone();
        }
    }
}

fn partition(number: i32, image: &PartitionImage) -> MetadataResponsePartition {
    let code = if image.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    MetadataResponsePartition {
        error_code: code.code(),
        partition_index: number,
        leader_id: image.leader,
        leader_epoch: image.leader_epoch,
        replica_nodes: image.replicas.clone(),
        isr_nodes: image.isr.clone(),
        offline_replicas: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::MetadataRecord;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        let partition = |leader| PartitionImage {
            leader,
            leader_epoch: 6,
            ..PartitionImage::new(vec![1])
        };
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: vec![partition(1), partition(-1)],
            configs: BTreeMap::new(),
        });
        image
    }

    fn topic(name: Option<&'static str>, id: u8) -> MetadataRequestTopic<'static> {
        MetadataRequestTopic {
            topic_id: Uuid([id; 16]),
            name: name.map(Into::into),
        }
    }

    fn codes(topics: &[MetadataRequestTopic<'_>], version: i16) -> Vec<i16> {
        let (image, asked) = (image(), asked(topics, version));
        let refusals = BTreeMap::from([("a.b".to_string(), ErrorCode::InvalidTopicException)]);
        let answers = asked.iter().map(|asked| answer(&image, asked, &refusals));
        answers.map(|topic| topic.error_code).collect()
    }

    #[test]
    fn topics_are_found_refused_or_unknown() {
        let named = ["t", "nope", "a b", "t", "", "a.b"].map(|name| topic(Some(name), 0));
        assert_eq!(codes(&named, 8), [0, 3, 17, 17, 17]);
        let by_id = [topic(None, 1), topic(None, 9)];
        assert_eq!(codes(&by_id, 12), [0, 100]);
    }

    #[test]
    fn an_id_beats_a_name_from_version_12_on() {
        let both = [topic(Some("t"), 9)];
        assert_eq!(codes(&both, 12), [100]);
        assert_eq!(codes(&both, 11), [42]);
        assert_eq!(codes(&[topic(None, 0)], 12), [42]);
    }

    #[test]
    fn leaders_epochs_and_missing_leaders_are_told() {
        let image = image();
        let found = found(&image, image.topic("t").unwrap());
        let told: Vec<_> = found
            .partitions
            .iter()
            .map(|p| (p.partition_index, p.error_code, p.leader_id, p.leader_epoch))
            .collect();
        assert_eq!(told, [(0, 0, 1, 6), (1, 5, -1, 6)]);
    }

    #[test]
    fn only_legal_names_of_clients_are_created() {
        let names = [
            "t",
            "new",
            "a b",
            topic_name::CONSUMER_OFFSETS,
            topic_name::CLUSTER_METADATA,
        ];
        let asked = asked(&names.map(|name| topic(Some(name), 0)), 8);
        let created: Vec<String> = missing(&image(), &asked)
            .into_iter()
            .map(|t| t.name)
            .collect();
        assert_eq!(created, ["new"]);
        let error = ControllerError::TopicExists(String::new());
        assert_eq!(creation_code(&error), None);
    }
}
