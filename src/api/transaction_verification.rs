//! The coordinator's word on whether partitions belong to a transaction (KIP-890).
//!
//! Clients of the first protocol have added their partitions; those of the second leave that to the
//! broker, which adds what a batch brings. While the markers of the transaction before are being
//! written the second is tried again here, since those clients do not. What clients of a version
//! cannot know becomes a code that they try again on: Kafka's NOT_ENOUGH_REPLICAS.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::Api;
use super::transaction_client::{add_to_transaction, missing_in_transaction};
use crate::coordinator::effects::ProducerIdAndEpoch;
use crate::coordinator::transaction_request::{ClientProtocol, Partitions};
use crate::runtime::clock;
use crate::wire::error_code::ErrorCode;

/// First Produce whose broker adds partitions to the transaction.
pub(super) const BROKER_ADDS_FROM: i16 = 12;

/// First Produce whose client knows TRANSACTION_ABORTABLE.
const ABORTABLE_FROM: i16 = 11;

/// How often, and how long apart, partitions are added while another transaction ends. Kafka:
/// `add.partitions.to.txn.retry.backoff.ms` and its maximum.
const TRIES: usize = 6;
const RETRY_WAIT: Duration = Duration::from_millis(20);

impl Api {
    /// Whether each of the partitions, by topic and number, belongs to the transaction that the
    /// transactional id has open with this producer.
    pub(super) async fn verify_transaction(
        &self,
        transactional_id: &str,
        (id, epoch): (i64, i16),
        partitions: Vec<(Arc<str>, i32)>,
        api_version: i16,
    ) -> Vec<Result<(), ErrorCode>> {
        let producer = ProducerIdAndEpoch { id, epoch };
        let mut asked = Partitions::new();
        for (topic, partition) in &partitions {
            let of_topic: &mut BTreeSet<i32> = asked.entry(topic.to_string()).or_default();
            of_topic.insert(*partition);
        }
        let missing = if api_version >= BROKER_ADDS_FROM {
            self.add_what_a_batch_brings(transactional_id, producer, asked)
                .await
        } else {
            missing_in_transaction(self, transactional_id, producer, asked).await
        };
        let missing = missing.map_err(|code| produce_code(code, api_version));
        let not_added = if api_version >= ABORTABLE_FROM {
            ErrorCode::TransactionAbortable
        } else {
            ErrorCode::InvalidTxnState
        };
        let verdict = |(topic, partition): &(Arc<str>, i32)| match &missing {
            Err(code) => Err(*code),
            Ok(missing) => {
                let of_topic = missing.get(&**topic);
                match of_topic.is_some_and(|of_topic| of_topic.contains(partition)) {
                    true => Err(not_added),
                    false => Ok(()),
                }
            }
        };
        partitions.iter().map(verdict).collect()
    }

    async fn add_what_a_batch_brings(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        asked: Partitions,
    ) -> Result<Partitions, ErrorCode> {
        let mut tries = 1;
        loop {
            let protocol = ClientProtocol::V2;
            let partitions = asked.clone();
            let added = add_to_transaction(self, transactional_id, producer, partitions, protocol);
            match added.await {
                Ok(()) => return Ok(Partitions::new()),
                Err(ErrorCode::ConcurrentTransactions) if tries < TRIES => {}
                Err(code) => return Err(code),
            }
            tries += 1;
            clock::sleep(RETRY_WAIT).await;
        }
    }
}

/// Kafka: `ReplicaManager.handleProduceAppend`.
fn produce_code(code: ErrorCode, api_version: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::ConcurrentTransactions if api_version >= BROKER_ADDS_FROM => code,
        ErrorCode::ConcurrentTransactions
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        code => code,
    }
}
