//! OffsetForLeaderEpoch, versions 2 to 4 (KIP-320): where the records of an epoch end.
//!
//! An epoch that the leader does not know ends at -1. Consumers and replicas ask alike; the answer
//! does not depend on who asks.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::read_code;
use crate::shard::request::{EpochEndPart, log_of};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
};

/// Answers an OffsetForLeaderEpoch.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: OffsetForLeaderEpochRequest<'_> = call.request()?;
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    check_count(count.sum(), config.limits.request_partitions_max)?;
    let part = |topic: &str, partition: i32| log_of(image.topic(topic)?, partition);
    let mut parts = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if let Some(log) = part(&topic.topic, partition.partition) {
                parts.push(EpochEndPart {
                    log,
                    current_leader_epoch: partition.current_leader_epoch,
                    leader_epoch: partition.leader_epoch,
                });
            }
        }
    }
    let mut ends = api.router.epoch_ends(parts).await.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|asked| {
            let end = part(&topic.topic, asked.partition).map(|_| ends.next());
            let result = match end {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(end) => end
                    .expect("one result per part")
                    .map_err(|error| read_code(&error)),
            };
            answer(asked.partition, result)
        });
        topics.push(OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: Cow::Borrowed(&topic.topic),
        });
    }
    Ok(call.reply(&OffsetForLeaderEpochResponse {
        topics,
        ..OffsetForLeaderEpochResponse::default()
    }))
}

fn answer(partition: i32, result: Result<(i32, i64), ErrorCode>) -> EpochEndOffset {
    let empty = EpochEndOffset {
        partition,
        ..EpochEndOffset::default()
    };
    match result {
        Ok((leader_epoch, end_offset)) => EpochEndOffset {
            leader_epoch,
            end_offset,
            ..empty
        },
        Err(code) => EpochEndOffset {
            error_code: code.code(),
            ..empty
        },
    }
}
