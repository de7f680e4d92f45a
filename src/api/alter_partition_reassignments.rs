//! AlterPartitionReassignments, versions 0 and 1 (KIP-455, KIP-860 the replication factor in 1), and
//! ListPartitionReassignments, version 0.
//!
//! The first starts and cancels; the second shows what is under way, for all partitions or for those
//! that are named, and says nothing of those that do not move or are not there.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply, Reassignment};
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment, OngoingTopicReassignment,
};

/// Answers an AlterPartitionReassignments.
pub(super) async fn alter(api: Rc<Api>, call: Call) -> Handled {
    let request: AlterPartitionReassignmentsRequest<'_> = call.request()?;
    let reassignments = reassignments(&request);
    let most = api.router.config().limits.request_partitions_max;
    check_count(reassignments.len(), most)?;
    let command = Command::AlterReassignments {
        allows_factor_change: request.allow_replication_factor_change,
        reassignments,
    };
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_message: None,
        ..AlterPartitionReassignmentsResponse::default()
    };
    match api.router.control(command).await {
        Ok(CommandReply::ReassignmentsAltered(results)) => {
            let mut results = results.into_iter();
            let topics = request.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let result = results.next().expect("one result per partition");
                    let error = result.err();
                    ReassignablePartitionResponse {
                        partition_index: partition.partition_index,
                        error_code: error
                            .as_ref()
                            .map_or(0, |error| controller_code(error).code()),
                        error_message: error.map(|error| Cow::Owned(error.to_string())),
                    }
                });
                ReassignableTopicResponse {
                    name: Cow::Owned(topic.name.to_string()),
                    partitions: partitions.collect(),
                }
            });
            response.responses = topics.collect();
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            response.error_code = control_code(failure).code();
            response.error_message = Some(Cow::Borrowed(control_message(failure)));
        }
    }
    Ok(call.reply(&response))
}

fn reassignments(request: &AlterPartitionReassignmentsRequest<'_>) -> Vec<Reassignment> {
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| Reassignment {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            replicas: partition.replicas.clone(),
        })
    });
    partitions.collect()
}

/// Answers a ListPartitionReassignments.
pub(super) async fn list(api: Rc<Api>, call: Call) -> Handled {
    let request: ListPartitionReassignmentsRequest<'_> = call.request()?;
    let named = request.topics.as_deref().unwrap_or_default();
    let count = named
        .iter()
        .map(|topic| topic.partition_indexes.len())
        .sum();
    check_count(count, api.router.config().limits.request_partitions_max)?;
    let image = api.router.image();
    Ok(call.reply(&ListPartitionReassignmentsResponse {
        error_message: None,
        topics: ongoing(&image, &request),
        ..ListPartitionReassignmentsResponse::default()
    }))
}

fn ongoing<'a>(
    image: &'a MetadataImage,
    request: &ListPartitionReassignmentsRequest<'_>,
) -> Vec<OngoingTopicReassignment<'a>> {
    let topics: Vec<OngoingTopicReassignment<'a>> = match &request.topics {
        None => {
            let all = image.topics();
            all.map(|topic| of_topic(topic, 0..topic.partitions.len() as i32))
                .collect()
        }
        Some(named) => {
            let named = named.iter().filter_map(|named| {
                let topic = image.topic(&named.name)?;
                Some(of_topic(topic, named.partition_indexes.iter().copied()))
            });
            named.collect()
        }
    };
    let is_moving = |topic: &OngoingTopicReassignment<'_>| !topic.partitions.is_empty();
    topics.into_iter().filter(is_moving).collect()
}

fn of_topic(
    topic: &TopicImage,
    numbers: impl Iterator<Item = i32>,
) -> OngoingTopicReassignment<'_> {
    let ongoing = |number: i32| {
        let partition = topic.partition(number)?;
        let is_over =
            partition.adding_replicas.is_empty() && partition.removing_replicas.is_empty();
        (!is_over).then(|| OngoingPartitionReassignment {
            partition_index: number,
            replicas: partition.replicas.clone(),
            adding_replicas: partition.adding_replicas.clone(),
            removing_replicas: partition.removing_replicas.clone(),
        })
    };
    OngoingTopicReassignment {
        name: Cow::Borrowed(&topic.name),
        partitions: numbers.filter_map(ongoing).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::PartitionImage;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::codec::Uuid;
    use crate::wire::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;

    #[test]
    fn only_what_moves_is_shown() {
        let moving = PartitionImage {
            adding_replicas: vec![2],
            removing_replicas: vec![1],
            ..PartitionImage::new(vec![2, 1])
        };
        let mut image = MetadataImage::empty("c", 1);
        for (id, name, partitions) in [
            (1, "moves", vec![PartitionImage::new(vec![1]), moving]),
            (2, "stays", vec![PartitionImage::new(vec![1])]),
        ] {
            image.apply(&MetadataRecord::TopicCreated {
                name: name.to_string(),
                id: Uuid([id; 16]),
                partitions,
                configs: std::collections::BTreeMap::new(),
            });
        }
        let ask = |topics: Option<Vec<(&'static str, Vec<i32>)>>| {
            let topics = topics.map(|topics| {
                let topics = topics.into_iter();
                let topics =
                    topics.map(
                        |(name, partition_indexes)| ListPartitionReassignmentsTopics {
                            name: Cow::Borrowed(name),
                            partition_indexes,
                        },
                    );
                topics.collect()
            });
            ongoing(
                &image,
                &ListPartitionReassignmentsRequest {
                    topics,
                    ..ListPartitionReassignmentsRequest::default()
                },
            )
        };
        let all = ask(None);
        assert_eq!((all.len(), all[0].name.as_ref()), (1, "moves"));
        let only = &all[0].partitions;
        assert_eq!((only.len(), only[0].partition_index), (1, 1));
        assert_eq!(only[0].adding_replicas, [2]);
        assert_eq!(ask(Some(vec![("moves", vec![1, 7])])), all);
        assert!(ask(Some(vec![("moves", vec![0]), ("no", vec![0])])).is_empty());
    }
}
