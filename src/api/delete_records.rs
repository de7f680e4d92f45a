//! DeleteRecords, versions 0 to 2 (KIP-107): moves log starts.
//!
//! Offset -1 is the high watermark. Internal topics are not for clients. A topic whose records only
//! compaction may remove answers POLICY_VIOLATION, which the owner of the partition decides.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count, duration_ms};
use super::dispatch::Api;
use super::error_mapping::partition_code;
use crate::cluster::image::MetadataImage;
use crate::cluster::topic_name;
use crate::shard::request::{DeleteRecordsPart, log_of};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};

/// Answers a DeleteRecords.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: DeleteRecordsRequest<'_> = call.request()?;
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    check_count(count.sum(), config.limits.request_partitions_max)?;
    let mut planned = Vec::new();
    for topic in &request.topics {
        let partitions = topic.partitions.iter();
        let parts = partitions.map(|partition| part(&image, &topic.name, partition));
        planned.extend(parts);
    }
    let parts = planned.iter().filter_map(|part| part.ok()).collect();
    let timeout_ms = duration_ms(request.timeout_ms);
    let results = api.router.delete_records(parts, timeout_ms).await;
    let (mut planned, mut results) = (planned.into_iter(), results.into_iter());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = match planned.next().expect("one plan per partition") {
                Err(code) => Err(code),
                Ok(_) => results
                    .next()
                    .expect("one result per part")
                    .map_err(|error| partition_code(&error)),
            };
            answer(partition.partition_index, result)
        });
        topics.push(DeleteRecordsTopicResult {
            partitions: partitions.collect(),
            name: Cow::Borrowed(&topic.name),
        });
    }
    Ok(call.reply(&DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }))
}

fn part(
    image: &MetadataImage,
    topic: &str,
    partition: &DeleteRecordsPartition,
) -> Result<DeleteRecordsPart, ErrorCode> {
    if topic_name::is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let topic = image.topic(topic);
    let log = topic.and_then(|topic| log_of(topic, partition.partition_index));
    let log = log.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // Only -1 has a meaning below zero.
    if partition.offset < -1 {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok(DeleteRecordsPart {
        log,
        offset: partition.offset,
    })
}

fn answer(partition_index: i32, result: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    let (low_watermark, error_code) = match result {
        Ok(low_watermark) => (low_watermark, ErrorCode::None.code()),
        Err(code) => (-1, code.code()),
    };
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark,
        error_code,
    }
}
