//! ListOffsets, versions 1 to 11 (KIP-79, KIP-320 leader epochs from 4, KIP-734 largest timestamp
//! from 7, KIP-405 tiers from 8, 9 and 11).
//!
//! Timestamps below zero are questions: -1 the end, -2 the log start, -3 the largest timestamp, -4
//! the start of what is local (here the log start). What is only in tiers (-5, -6) is not there:
//! offset -1 without an error. A question that the version does not know is UNSUPPORTED_VERSION. A
//! partition named twice is answered once, with INVALID_REQUEST. For readers of what is committed the end
//! is the last stable offset, and no record is found beyond it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::read_code;
use crate::cluster::image::MetadataImage;
use crate::shard::request::{FoundOffset, ListOffsetsPart, OffsetWanted, PartitionError, log_of};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

/// What a partition is asked, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The router knows.
    Ask(ListOffsetsPart),
    /// There is no such offset.
    Nothing,
    /// It is not a question.
    Refused(ErrorCode),
}

/// Answers a ListOffsets.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: ListOffsetsRequest<'_> = call.request()?;
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    check_count(count.sum(), config.limits.request_partitions_max)?;
    let questions = questions(&image, &request, call.version);
    let parts = questions
        .iter()
        .filter_map(|(_, _, question)| match question {
            Question::Ask(part) => Some(*part),
            _ => None,
        });
    let found = api.router.list_offsets(parts.collect()).await;
    Ok(call.reply(&ListOffsetsResponse {
        topics: topics(&request, &questions, &found),
        ..ListOffsetsResponse::default()
    }))
}

/// Index of the topic, number of the partition, and what it is asked; each partition once.
fn questions(
    image: &MetadataImage,
    request: &ListOffsetsRequest<'_>,
    version: i16,
) -> Vec<(usize, i32, Question)> {
    let mut all: Vec<(usize, i32, Question)> = Vec::new();
    let mut places = BTreeMap::new();
    for (index, topic) in request.topics.iter().enumerate() {
        for partition in &topic.partitions {
            let number = partition.partition_index;
            let place = *places.entry((&topic.name, number)).or_insert(all.len());
            match all.get_mut(place) {
                Some((_, _, earlier)) => *earlier = Question::Refused(ErrorCode::InvalidRequest),
                None => {
                    let is_committed = request.isolation_level == 1;
                    let question = question(image, &topic.name, partition, is_committed, version);
                    all.push((index, number, question));
                }
            }
        }
    }
    all
}

fn question(
    image: &MetadataImage,
    topic: &str,
    partition: &ListOffsetsPartition,
    read_committed: bool,
    version: i16,
) -> Question {
    let known_from = match partition.timestamp {
        -3 => 7,
        -4 => 8,
        -5 => 9,
        -6 => 11,
        below if below < -6 => i16::MAX,
        _ => 1,
    };
    let log = image
        .topic(topic)
        .and_then(|topic| log_of(topic, partition.partition_index));
    let Some(log) = log else {
        return Question::Refused(ErrorCode::UnknownTopicOrPartition);
    };
    if version < known_from {
        return Question::Refused(ErrorCode::UnsupportedVersion);
    }
    let wanted = match partition.timestamp {
        -1 => OffsetWanted::Latest,
        -2 | -4 => OffsetWanted::Earliest,
        -3 => OffsetWanted::MaxTimestamp,
        -5 | -6 => return Question::Nothing,
        timestamp => OffsetWanted::Timestamp(timestamp),
    };
    Question::Ask(ListOffsetsPart {
        log,
        wanted,
        current_leader_epoch: partition.current_leader_epoch,
        read_committed,
    })
}

fn topics<'a>(
    request: &'a ListOffsetsRequest<'_>,
    questions: &[(usize, i32, Question)],
    found: &[Result<FoundOffset, PartitionError>],
) -> Vec<ListOffsetsTopicResponse<'a>> {
    let mut found = found.iter();
    let mut topics: Vec<ListOffsetsTopicResponse<'_>> = Vec::new();
    let mut last = None;
    for (index, partition, question) in questions {
        if last != Some(*index) {
            last = Some(*index);
            topics.push(ListOffsetsTopicResponse {
                name: Cow::Borrowed(&request.topics[*index].name),
                partitions: Vec::new(),
            });
        }
        let mut answer = match question {
            Question::Ask(_) => answer(found.next().expect("one result per part")),
            Question::Nothing => ListOffsetsPartitionResponse::default(),
            Question::Refused(code) => error(*code),
        };
        answer.partition_index = *partition;
        topics
            .last_mut()
            .expect("just pushed")
            .partitions
            .push(answer);
    }
    topics
}

fn error(code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        error_code: code.code(),
        ..ListOffsetsPartitionResponse::default()
    }
}

fn answer(found: &Result<FoundOffset, PartitionError>) -> ListOffsetsPartitionResponse {
    match found {
        Err(problem) => error(read_code(problem)),
        Ok(found) => ListOffsetsPartitionResponse {
            timestamp: found.timestamp_ms,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
            ..ListOffsetsPartitionResponse::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::PartitionImage;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::codec::Uuid;
    use crate::wire::messages::list_offsets::ListOffsetsTopic;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::empty("c", 1);
        let partition = PartitionImage {
            leader: 1,
            leader_epoch: 0,
            ..PartitionImage::new(vec![1])
        };
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: vec![partition; 2],
            configs: BTreeMap::new(),
        });
        image
    }

    fn request(partitions: &[(&'static str, i32, i64)]) -> ListOffsetsRequest<'static> {
        let topic =
            |(name, partition_index, timestamp): &(&'static str, i32, i64)| ListOffsetsTopic {
                name: (*name).into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: *partition_index,
                    timestamp: *timestamp,
                    ..ListOffsetsPartition::default()
                }],
            };
        ListOffsetsRequest {
            topics: partitions.iter().map(topic).collect(),
            ..ListOffsetsRequest::default()
        }
    }

    fn asked(timestamp: i64, version: i16) -> Question {
        questions(&image(), &request(&[("t", 0, timestamp)]), version)[0].2
    }

    #[test]
    fn questions_exist_from_their_version_on() {
        for (timestamp, from) in [
            (-1, 1),
            (-2, 1),
            (-3, 7),
            (-4, 8),
            (-5, 9),
            (-6, 11),
            (5, 1),
        ] {
            for version in 1..=11 {
                let is_refused =
                    asked(timestamp, version) == Question::Refused(ErrorCode::UnsupportedVersion);
                assert_eq!(is_refused, version < from, "{timestamp} in {version}");
            }
        }
        for unknown in [-7, i64::MIN] {
            assert_eq!(
                asked(unknown, 11),
                Question::Refused(ErrorCode::UnsupportedVersion)
            );
        }
        assert_eq!(asked(-5, 11), Question::Nothing);
    }

    #[test]
    fn a_partition_named_twice_is_answered_once_and_unknown_ones_too() {
        let request = request(&[
            ("t", 0, -1),
            ("t", 1, -1),
            ("t", 0, -2),
            ("t", 2, -1),
            ("x", 0, -1),
        ]);
        let questions = questions(&image(), &request, 9);
        let found = [Ok(FoundOffset {
            timestamp_ms: 3,
            offset: 4,
            leader_epoch: 5,
        })];
        let topics = topics(&request, &questions, &found);
        let codes: Vec<_> = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|partition| {
                (
                    partition.partition_index,
                    partition.error_code,
                    partition.offset,
                )
            })
            .collect();
        assert_eq!(codes, [(0, 42, -1), (1, 0, 4), (2, 3, -1), (0, 3, -1)]);
    }
}
