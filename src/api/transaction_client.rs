//! What transactional producers send besides records: AddPartitionsToTxn, AddOffsetsToTxn, EndTxn.
//!
//! Versions that came with KIP-890 are for clients whose partitions the broker adds; versions of
//! AddPartitionsToTxn from 4 are for brokers, which ask whether partitions were added.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::{ask_transaction, create_topic};
use super::dispatch::Api;
use super::init_producer_id::new_id;
use crate::coordinator::effects::ProducerIdAndEpoch;
use crate::coordinator::transaction_request::{
    ClientProtocol, Partitions, TransactionAnswer, TransactionRequest,
};
use crate::shard::coordinators::{OFFSETS_TOPIC, partition_of};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use crate::wire::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use crate::wire::messages::end_txn::{EndTxnRequest, EndTxnResponse};

/// First versions whose clients know PRODUCER_FENCED (KIP-588).
const FENCED_FROM: i16 = 2;

/// First AddPartitionsToTxn that is for brokers.
const MANY_TRANSACTIONS_FROM: i16 = 4;

/// First AddPartitionsToTxn whose broker knows TRANSACTION_ABORTABLE.
const ABORTABLE_FROM: i16 = 5;

/// First EndTxn of a client that gets a new epoch with every transaction.
const EPOCH_BUMP_FROM: i16 = 5;

/// A code as clients of a version know it.
pub(super) fn known_to(code: ErrorCode, knows_fenced: bool) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if !knows_fenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// Answers an AddPartitionsToTxn, versions 0 to 5.
pub(super) async fn add_partitions(api: Rc<Api>, call: Call) -> Handled {
    let request: AddPartitionsToTxnRequest<'_> = call.request()?;
    let topics = request.transactions.iter().flat_map(|one| &one.topics);
    let topics = topics.chain(&request.v3_and_below_topics);
    let count = topics.map(|topic| 1 + topic.partitions.len()).sum();
    check_count(count, api.router.config().limits.request_partitions_max)?;
    if call.version >= MANY_TRANSACTIONS_FROM {
        let mut results = Vec::with_capacity(request.transactions.len());
        for transaction in &request.transactions {
            results.push(add_for_broker(&api, call.version, transaction).await);
        }
        return Ok(call.reply(&AddPartitionsToTxnResponse {
            results_by_transaction: results,
            ..AddPartitionsToTxnResponse::default()
        }));
    }
    let producer = ProducerIdAndEpoch {
        id: request.v3_and_below_producer_id,
        epoch: request.v3_and_below_producer_epoch,
    };
    let topics = &request.v3_and_below_topics;
    let id = &request.v3_and_below_transactional_id;
    let code = add(&api, id, producer, topics).await;
    let knows_fenced = call.version >= FENCED_FROM;
    let code = code.map_err(|code| known_to(code, knows_fenced));
    let image = api.router.image();
    let is_known = |topic: &str, partition: i32| {
        let topic = image.topic(topic);
        topic.is_some_and(|topic| topic.partition(partition).is_some())
    };
    let results = results(topics, |topic, partition| match &code {
        // All or nothing: those that exist were not tried.
        Err(ErrorCode::UnknownTopicOrPartition) if is_known(topic, partition) => {
            ErrorCode::OperationNotAttempted
        }
        Err(code) => *code,
        Ok(()) => ErrorCode::None,
    });
    Ok(call.reply(&AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: results,
        ..AddPartitionsToTxnResponse::default()
    }))
}

async fn add(
    api: &Api,
    id: &str,
    producer: ProducerIdAndEpoch,
    topics: &[AddPartitionsToTxnTopic<'_>],
) -> Result<(), ErrorCode> {
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let image = api.router.image();
    let is_known = |topic: &AddPartitionsToTxnTopic<'_>| {
        let known = image.topic(&topic.name);
        let has =
            |partition: &i32| known.is_some_and(|known| known.partition(*partition).is_some());
        topic.partitions.iter().all(has)
    };
    if !topics.iter().all(is_known) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let partitions = partitions(topics);
    add_to_transaction(api, id, producer, partitions, ClientProtocol::V1).await
}

/// Adds partitions to the transaction of a producer.
pub(super) async fn add_to_transaction(
    api: &Api,
    id: &str,
    producer: ProducerIdAndEpoch,
    partitions: Partitions,
    protocol: ClientProtocol,
) -> Result<(), ErrorCode> {
    let request = TransactionRequest::AddPartitions {
        transactional_id: id.to_string(),
        producer,
        partitions,
        protocol,
    };
    match ask_transaction(api, id, request).await? {
        TransactionAnswer::AddPartitions(result) => result,
        other => unreachable!("the answer to another request: {other:?}"),
    }
}

/// The partitions that were not added to the transaction of a producer.
pub(super) async fn missing_in_transaction(
    api: &Api,
    id: &str,
    producer: ProducerIdAndEpoch,
    partitions: Partitions,
) -> Result<Partitions, ErrorCode> {
    let request = TransactionRequest::Verify {
        transactional_id: id.to_string(),
        producer,
        partitions,
    };
    match ask_transaction(api, id, request).await? {
        TransactionAnswer::Verify(result) => result,
        other => unreachable!("the answer to another request: {other:?}"),
    }
}

async fn add_for_broker(
    api: &Api,
    version: i16,
    asked: &AddPartitionsToTxnTransaction<'_>,
) -> AddPartitionsToTxnResult<'static> {
    let producer = ProducerIdAndEpoch {
        id: asked.producer_id,
        epoch: asked.producer_epoch,
    };
    let (id, wanted) = (&asked.transactional_id, partitions(&asked.topics));
    let missing = if asked.verify_only {
        missing_in_transaction(api, id, producer, wanted).await
    } else {
        let added = add_to_transaction(api, id, producer, wanted, ClientProtocol::V2).await;
        added.map(|()| Partitions::new())
    };
    let not_added = if version >= ABORTABLE_FROM {
        ErrorCode::TransactionAbortable
    } else {
        ErrorCode::InvalidTxnState
    };
    let topic_results = results(&asked.topics, |topic, partition| match &missing {
        Err(code) => *code,
        Ok(missing) => match missing.get(topic) {
            Some(missing) if missing.contains(&partition) => not_added,
            _ => ErrorCode::None,
        },
    });
    AddPartitionsToTxnResult {
        transactional_id: Cow::Owned(id.to_string()),
        topic_results,
    }
}

fn partitions(topics: &[AddPartitionsToTxnTopic<'_>]) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in topics {
        let known = partitions.entry(topic.name.to_string()).or_default();
        known.extend(&topic.partitions);
    }
    partitions
}

fn results(
    topics: &[AddPartitionsToTxnTopic<'_>],
    code: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult<'static>> {
    let topic = |topic: &AddPartitionsToTxnTopic<'_>| AddPartitionsToTxnTopicResult {
        name: Cow::Owned(topic.name.to_string()),
        results_by_partition: topic
            .partitions
            .iter()
            .map(|partition| AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: code(&topic.name, *partition).code(),
            })
            .collect(),
    };
    topics.iter().map(topic).collect()
}

/// Answers an AddOffsetsToTxn, versions 0 to 4: the partition that keeps the group's offsets joins
/// the transaction.
pub(super) async fn add_offsets(api: Rc<Api>, call: Call) -> Handled {
    let request: AddOffsetsToTxnRequest<'_> = call.request()?;
    let producer = ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let (id, group) = (&request.transactional_id, &request.group_id);
    let result = match id.is_empty() {
        true => Err(ErrorCode::InvalidRequest),
        false => match offsets_partition(&api, group).await {
            Ok(partition) => {
                let partitions = Partitions::from([partition]);
                add_to_transaction(&api, id, producer, partitions, ClientProtocol::V1).await
            }
            Err(code) => Err(code),
        },
    };
    let knows_fenced = call.version >= FENCED_FROM;
    let code = result.err().unwrap_or(ErrorCode::None);
    Ok(call.reply(&AddOffsetsToTxnResponse {
        error_code: known_to(code, knows_fenced).code(),
        ..AddOffsetsToTxnResponse::default()
    }))
}

/// The partition that keeps a group's offsets, as a member of a transaction.
pub(super) async fn offsets_partition(
    api: &Api,
    group: &str,
) -> Result<(String, std::collections::BTreeSet<i32>), ErrorCode> {
    if api.router.image().topic(OFFSETS_TOPIC).is_none() {
        create_topic(api, OFFSETS_TOPIC).await?;
    }
    let image = api.router.image();
    let topic = image.topic(OFFSETS_TOPIC);
    let topic = topic.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let count = u32::try_from(topic.partitions.len()).expect("partitions are counted in 32 bits");
    let partition = partition_of(group, count).cast_signed();
    Ok((OFFSETS_TOPIC.to_string(), [partition].into()))
}

/// Answers an EndTxn, versions 0 to 5.
pub(super) async fn end(api: Rc<Api>, call: Call) -> Handled {
    let request: EndTxnRequest<'_> = call.request()?;
    let result = end_transaction(&api, &call, &request).await;
    let knows_fenced = call.version >= FENCED_FROM;
    Ok(call.reply(&match result {
        Ok(producer) => EndTxnResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..EndTxnResponse::default()
        },
        Err(code) => EndTxnResponse {
            error_code: known_to(code, knows_fenced).code(),
            ..EndTxnResponse::default()
        },
    }))
}

async fn end_transaction(
    api: &Api,
    call: &Call,
    request: &EndTxnRequest<'_>,
) -> Result<ProducerIdAndEpoch, ErrorCode> {
    let id = request.transactional_id.to_string();
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let is_v2 = call.version >= EPOCH_BUMP_FROM;
    let end = TransactionRequest::End {
        transactional_id: id.clone(),
        producer: ProducerIdAndEpoch {
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
        commit: request.committed,
        protocol: if is_v2 {
            ClientProtocol::V2
        } else {
            ClientProtocol::V1
        },
        fresh_producer_id: if is_v2 { new_id(api).await? } else { -1 },
    };
    match ask_transaction(api, &id, end).await? {
        TransactionAnswer::End(result) => result,
        other => unreachable!("the answer to another request: {other:?}"),
    }
}
