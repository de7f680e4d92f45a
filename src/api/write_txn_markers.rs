//! WriteTxnMarkers, versions 1 and 2 (KIP-98, KIP-1228): ends transactions in the partitions named.
//!
//! Coordinators of other brokers send it, and operators who abort a transaction that hangs. Markers of
//! one request are written one after the other, the partitions of a marker side by side. A marker that
//! ends nothing is written too, as in Kafka. From transaction version 2 on the epoch was bumped at the
//! end of the transaction; a marker that would end one of its own epoch is INVALID_PRODUCER_EPOCH then,
//! since that is a later one. Where Kafka also refuses such a marker when no transaction is open, it is
//! written here: it is the same one again and changes nothing.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::partition_code;
use crate::cluster::image::MetadataImage;
use crate::shard::request::log_of;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::wire::transaction_marker::TransactionMarker;

/// The first transaction version whose markers have a bumped epoch.
const BUMPS_EPOCH_FROM: i8 = 2;

/// Answers a WriteTxnMarkers.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: WriteTxnMarkersRequest<'_> = call.request()?;
    let topics = request.markers.iter().flat_map(|marker| &marker.topics);
    let count = topics.map(|topic| topic.partition_indexes.len()).sum();
    check_count(count, config.limits.request_partitions_max)?;
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in &request.markers {
        markers.push(write(&api, &image, marker).await);
    }
    Ok(call.reply(&WriteTxnMarkersResponse { markers }))
}

async fn write<'a>(
    api: &Api,
    image: &MetadataImage,
    marker: &'a WritableTxnMarker<'_>,
) -> WritableTxnMarkerResult<'a> {
    let is_valid = marker.producer_id >= 0 && marker.producer_epoch >= 0;
    let log = |topic: &str, index: i32| {
        if !is_valid {
            return Err(ErrorCode::InvalidRequest);
        }
        let topic = image.topic(topic);
        let log = topic.and_then(|topic| log_of(topic, index));
        log.ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    let planned = marker.topics.iter().flat_map(|topic| {
        let indexes = topic.partition_indexes.iter();
        indexes.map(|index| log(&topic.name, *index))
    });
    let planned: Vec<_> = planned.collect();
    let logs = planned.iter().filter_map(|log| log.ok()).collect();
    let bumps_epoch = marker.transaction_version >= BUMPS_EPOCH_FROM;
    let written = TransactionMarker {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.transaction_result,
    };
    let results = api.router.write_markers_that(logs, written, bumps_epoch);
    let mut results = results.await.into_iter();
    let codes = planned.into_iter().map(|log| match log {
        Err(code) => code,
        Ok(_) => match results.next().expect("one result per log") {
            Ok(_) => ErrorCode::None,
            Err(error) => partition_code(&error),
        },
    });
    answer(marker, codes)
}

/// The codes, in the order of the plan, in their places.
fn answer<'a>(
    marker: &'a WritableTxnMarker<'_>,
    mut codes: impl Iterator<Item = ErrorCode>,
) -> WritableTxnMarkerResult<'a> {
    let topics = marker.topics.iter().map(|topic| {
        let indexes = topic.partition_indexes.iter();
        let partitions = indexes.map(|index| WritableTxnMarkerPartitionResult {
            partition_index: *index,
            error_code: codes.next().expect("one code per partition").code(),
        });
        WritableTxnMarkerTopicResult {
            name: Cow::Borrowed(&topic.name),
            partitions: partitions.collect(),
        }
    });
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: topics.collect(),
    }
}
