//! What the shard of a partition of `__transaction_state` is asked, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::ProducerIdAndEpoch;
use super::transaction::TransactionState;
use crate::wire::error_code::ErrorCode;

/// Partitions by topic, in order.
pub type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// Which protocol of transactions the client speaks (`transaction.version`, KIP-890).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum ClientProtocol {
    /// Partitions are added by the client; the epoch stays.
    V1,
    /// Partitions are added by the broker; every transaction has an epoch of its own.
    V2,
}

/// A request to one shard.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TransactionRequest {
    /// InitProducerId with a transactional id.
    Init {
        /// Whose.
        transactional_id: String,
        /// How long a transaction may stay open.
        timeout_ms: i32,
        /// What the client has already; None when it begins.
        expected: Option<ProducerIdAndEpoch>,
        /// An id that nobody has, for a new transactional id or when its epochs are used up.
        fresh_producer_id: i64,
    },
    /// AddPartitionsToTxn, AddOffsetsToTxn, or a Produce of a client that leaves it to the broker.
    AddPartitions {
        /// Whose.
        transactional_id: String,
        /// As which producer.
        producer: ProducerIdAndEpoch,
        /// What is added.
        partitions: Partitions,
        /// What the client speaks.
        protocol: ClientProtocol,
    },
    /// Whether partitions were added (KIP-890).
    Verify {
        /// Whose.
        transactional_id: String,
        /// As which producer.
        producer: ProducerIdAndEpoch,
        /// Which partitions.
        partitions: Partitions,
    },
    /// EndTxn.
    End {
        /// Whose.
        transactional_id: String,
        /// As which producer.
        producer: ProducerIdAndEpoch,
        /// Commit or abort.
        commit: bool,
        /// What the client speaks.
        protocol: ClientProtocol,
        /// An id that nobody has, for when the epochs are used up.
        fresh_producer_id: i64,
    },
    /// One id of a DescribeTransactions.
    Describe(String),
    /// ListTransactions, of this shard.
    List(TransactionFilter),
}

/// Which transactions are listed; what is empty does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransactionFilter {
    /// States.
    pub states: Vec<TransactionState>,
    /// Producer ids.
    pub producer_ids: Vec<i64>,
    /// Open for longer than this.
    pub open_longer_than_ms: Option<i64>,
}

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TransactionAnswer {
    /// The producer to be.
    Init(Result<ProducerIdAndEpoch, ErrorCode>),
    /// All partitions were added, or none.
    AddPartitions(Result<(), ErrorCode>),
    /// The partitions that were not added.
    Verify(Result<Partitions, ErrorCode>),
    /// The producer of the next transaction.
    End(Result<ProducerIdAndEpoch, ErrorCode>),
    /// None where the id is unknown.
    Describe(Option<TransactionDescription>),
    /// Those that the filter lets through.
    List(Vec<ListedTransaction>),
}

/// A transactional id as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransactionDescription {
    /// What it does.
    pub state: TransactionState,
    /// Who.
    pub producer: ProducerIdAndEpoch,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// When the open transaction began; -1 when none is open.
    pub start_ms: i64,
    /// Partitions of the open transaction.
    pub partitions: Partitions,
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ListedTransaction {
    /// Whose.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// What it does.
    pub state: TransactionState,
}

/// Markers to be written, when the decision to write them is durable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MarkerJob {
    /// Whose transaction ends.
    pub transactional_id: String,
    /// The producer of the markers.
    pub producer: ProducerIdAndEpoch,
    /// Commit or abort.
    pub commit: bool,
    /// Where.
    pub partitions: Partitions,
    /// What the client speaks: whether the epoch was raised for the markers.
    pub protocol: ClientProtocol,
}
