//! Records of `__transaction_state`, in Kafka's formats.

use std::borrow::Cow;

use super::effects::{CoordinatorRecord, ProducerIdAndEpoch};
use super::transaction::{Transaction, TransactionState};
use super::transaction_request::{ClientProtocol, Partitions};
use crate::wire::message::Message;
use crate::wire::messages::records_transaction_log::{
    PartitionsSchema, TransactionLogKey, TransactionLogValue,
};

/// The type of the only kind of key.
const KEY_TYPE: i16 = 0;

/// The version of values written here; the first with tagged fields (`transaction.version` 2).
const VALUE_VERSION: i16 = 1;

/// A record that does not follow the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The record that says what a transactional id is now; None forgets it.
#[must_use]
pub fn encode(transactional_id: &str, transaction: Option<&Transaction>) -> CoordinatorRecord {
    let key = TransactionLogKey {
        transactional_id: Cow::Borrowed(transactional_id),
    };
    CoordinatorRecord {
        key: [&KEY_TYPE.to_be_bytes()[..], &key.to_bytes(0)].concat(),
        value: transaction.map(value),
    }
}

fn value(transaction: &Transaction) -> Vec<u8> {
    let partition = |(topic, ids): (&String, &std::collections::BTreeSet<i32>)| PartitionsSchema {
        topic: Cow::Owned(topic.clone()),
        partition_ids: ids.iter().copied().collect(),
    };
    let has_partitions = transaction.state != TransactionState::Empty;
    let value = TransactionLogValue {
        producer_id: transaction.producer.id,
        previous_producer_id: transaction.previous_producer_id,
        next_producer_id: transaction.next_producer_id,
        producer_epoch: transaction.producer.epoch,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state as i8,
        transaction_partitions: has_partitions
            .then(|| transaction.partitions.iter().map(partition).collect()),
        transaction_last_update_timestamp_ms: transaction.last_update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: match transaction.protocol {
            ClientProtocol::V1 => 0,
            ClientProtocol::V2 => 2,
        },
        ..TransactionLogValue::default()
    };
    [
        &VALUE_VERSION.to_be_bytes()[..],
        &value.to_bytes(VALUE_VERSION),
    ]
    .concat()
}

/// Reads a record: whose it is and what it says; None where it is of a kind unknown here.
///
/// # Errors
/// What is wrong with it.
pub fn decode(
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Option<(String, Option<Transaction>)>, Malformed> {
    let (key_type, key) = versioned(key)?;
    if key_type != KEY_TYPE {
        return Ok(None);
    }
    let malformed = |error| Malformed(format!("{error}"));
    let key = TransactionLogKey::decode_whole(key, 0).map_err(malformed)?;
    let id = key.transactional_id.into_owned();
    let Some(value) = value else {
        return Ok(Some((id, None)));
    };
    let (version, value) = versioned(value)?;
    let value = TransactionLogValue::decode_whole(value, version).map_err(malformed)?;
    Ok(Some((id, Some(transaction(&value)?))))
}

fn versioned(bytes: &[u8]) -> Result<(i16, &[u8]), Malformed> {
    match bytes.split_first_chunk() {
        Some((version, rest)) => Ok((i16::from_be_bytes(*version), rest)),
        None => Err(Malformed("shorter than its version".to_string())),
    }
}

fn transaction(value: &TransactionLogValue<'_>) -> Result<Transaction, Malformed> {
    let status = value.transaction_status;
    let state = TransactionState::from_code(status)
        .ok_or_else(|| Malformed(format!("transaction status {status}")))?;
    let mut partitions = Partitions::new();
    for of_topic in value.transaction_partitions.iter().flatten() {
        let known = partitions.entry(of_topic.topic.to_string()).or_default();
        known.extend(&of_topic.partition_ids);
    }
    Ok(Transaction {
        producer: ProducerIdAndEpoch {
            id: value.producer_id,
            epoch: value.producer_epoch,
        },
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        last_epoch: -1,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions,
        start_ms: value.transaction_start_timestamp_ms,
        last_update_ms: value.transaction_last_update_timestamp_ms,
        protocol: match value.client_transaction_version {
            2.. => ClientProtocol::V2,
            _ => ClientProtocol::V1,
        },
    })
}
