//! DescribeProducers, version 0 (KIP-664): who writes to partitions, and which transactions are open
//! there.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::{partition_code, partition_message};
use crate::shard::request::{PartitionError, ProducerDescription, log_of};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};

/// What a partition gave.
type Described = Result<Vec<ProducerDescription>, PartitionError>;

/// Answers a DescribeProducers.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let (image, config) = (api.router.image(), api.router.config());
    let request: DescribeProducersRequest<'_> = call.request()?;
    let topics = request.topics.iter();
    let count = topics.map(|topic| topic.partition_indexes.len()).sum();
    check_count(count, config.limits.request_partitions_max)?;
    let log = |topic: &str, index: i32| {
        let topic = image.topic(topic);
        topic.and_then(|topic| log_of(topic, index))
    };
    let logs = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partition_indexes.iter();
        indexes.filter_map(|index| log(&topic.name, *index))
    });
    let described = api.router.describe_producers(logs.collect()).await;
    let mut described = described.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let indexes = topic.partition_indexes.iter();
        let partitions = indexes.map(|index| {
            let known = log(&topic.name, *index);
            let described = known.map(|_| described.next().expect("one result per log"));
            answer(*index, described.unwrap_or(Err(PartitionError::Unknown)))
        });
        TopicResponse {
            name: Cow::Borrowed(&topic.name),
            partitions: partitions.collect(),
        }
    });
    Ok(call.reply(&DescribeProducersResponse {
        topics: topics.collect(),
        ..DescribeProducersResponse::default()
    }))
}

fn answer(partition_index: i32, described: Described) -> PartitionResponse<'static> {
    match described {
        Err(error) => PartitionResponse {
            partition_index,
            error_code: partition_code(&error).code(),
            error_message: partition_message(&error).map(Cow::Owned),
            ..PartitionResponse::default()
        },
        Ok(producers) => PartitionResponse {
            partition_index,
            error_code: ErrorCode::None.code(),
            active_producers: producers.iter().map(producer).collect(),
            ..PartitionResponse::default()
        },
    }
}

fn producer(producer: &ProducerDescription) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.open_transaction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_told_and_what_is_not_is_minus_one() {
        let mut outline = ProducerDescription {
            producer_id: 9,
            epoch: 3,
            last_sequence: -1,
            last_timestamp_ms: 5,
            coordinator_epoch: 7,
            open_transaction: -1,
        };
        let told = answer(2, Ok(vec![outline])).active_producers;
        assert_eq!(
            (told[0].producer_epoch, told[0].current_txn_start_offset),
            (3, -1)
        );
        outline.open_transaction = 40;
        let told = answer(2, Ok(vec![outline])).active_producers;
        assert_eq!(
            (told[0].coordinator_epoch, told[0].current_txn_start_offset),
            (7, 40)
        );
        let unknown = answer(2, Err(PartitionError::Unknown));
        assert_eq!((unknown.partition_index, unknown.error_code), (2, 3));
    }
}
