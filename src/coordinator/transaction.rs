//! One transactional id: its producer, its state, and what may happen to it next.
//!
//! Kafka: `TransactionMetadata`, `TransactionCoordinator`. A state changes at once when it is decided,
//! and nobody hears of it before it is durable, so there is no pending transition here; Kafka's
//! PrepareEpochFence, which only exists in memory there, is no state here either.

use super::effects::ProducerIdAndEpoch;
use super::transaction_request::{ClientProtocol, Partitions};
use crate::wire::error_code::ErrorCode;

/// What a transactional id does; the numbers are those of the log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[repr(i8)]
pub enum TransactionState {
    /// It has a producer and no transaction yet.
    Empty = 0,
    /// A transaction is open.
    Ongoing = 1,
    /// It commits: markers are being written.
    PrepareCommit = 2,
    /// It aborts: markers are being written.
    PrepareAbort = 3,
    /// Its last transaction was committed.
    CompleteCommit = 4,
    /// Its last transaction was aborted.
    CompleteAbort = 5,
}

impl TransactionState {
    const ALL: [TransactionState; 6] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ];

    /// The state of a number in the log.
    #[must_use]
    pub fn from_code(code: i8) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| *state as i8 == code)
    }

    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether markers are being written.
    #[must_use]
    pub fn is_prepared(self) -> bool {
        matches!(
            self,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        )
    }
}

/// The last epoch that a client gets; the one above is for fencing (Kafka: `isEpochExhausted`).
const LAST_EPOCH: i16 = i16::MAX - 1;

/// No epoch was given out yet.
const NO_EPOCH: i16 = -1;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its producer now.
    pub producer: ProducerIdAndEpoch,
    /// The producer id before this one, -1 if there was none.
    pub previous_producer_id: i64,
    /// The producer id when the markers are written, -1 if it stays.
    pub next_producer_id: i64,
    /// The epoch before the last InitProducerId of a client that had one, -1 if none; not in the log.
    pub last_epoch: i16,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// What it does.
    pub state: TransactionState,
    /// Partitions of the open transaction.
    pub partitions: Partitions,
    /// When the open transaction began, -1 if none is.
    pub start_ms: i64,
    /// When it changed last.
    pub last_update_ms: i64,
    /// What its client speaks.
    pub protocol: ClientProtocol,
}

/// What InitProducerId comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitDecision {
    /// This producer, after this change.
    Become(Transaction),
    /// The same producer again: a retry.
    Keep,
    /// The open transaction is aborted first, by this change; the client asks again.
    AbortFirst(Transaction),
    /// No.
    Refuse(ErrorCode),
}

/// What EndTxn comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndDecision {
    /// Markers are written after this change; the client gets this producer.
    Prepare(Transaction, ProducerIdAndEpoch),
    /// It is done already: a retry.
    Done(ProducerIdAndEpoch),
    /// No.
    Refuse(ErrorCode),
}

impl Transaction {
    /// A transactional id that nobody has used.
    #[must_use]
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Transaction {
        Transaction {
            producer: ProducerIdAndEpoch {
                id: producer_id,
                epoch: NO_EPOCH,
            },
            previous_producer_id: -1,
            next_producer_id: -1,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::new(),
            start_ms: -1,
            last_update_ms: now_ms,
            protocol: ClientProtocol::V1,
        }
    }

    fn is_epoch_exhausted(&self) -> bool {
        self.producer.epoch >= LAST_EPOCH
    }

    /// Whether the transaction is open for longer than it may be.
    #[must_use]
    pub fn is_timed_out(&self, now_ms: i64) -> bool {
        self.state == TransactionState::Ongoing
            && self.start_ms.saturating_add(i64::from(self.timeout_ms)) < now_ms
    }

    /// Decides about InitProducerId (Kafka: `prepareInitProducerIdTransit`).
    #[must_use]
    pub fn init(
        &self,
        expected: Option<ProducerIdAndEpoch>,
        timeout_ms: i32,
        fresh_producer_id: i64,
        now_ms: i64,
    ) -> InitDecision {
        if expected.is_some_and(|expected| !self.knows(expected)) {
            return InitDecision::Refuse(ErrorCode::ProducerFenced);
        }
        match self.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                InitDecision::Refuse(ErrorCode::ConcurrentTransactions)
            }
            TransactionState::Ongoing => InitDecision::AbortFirst(self.fence_and_abort(now_ms)),
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {
                self.next_producer(expected, timeout_ms, fresh_producer_id, now_ms)
            }
        }
    }

    /// Whether a client may come with this producer to get the next one.
    fn knows(&self, expected: ProducerIdAndEpoch) -> bool {
        self.producer.epoch == NO_EPOCH
            || expected.id == self.producer.id
            // It got the last epoch of the id before, and its request to replace it is a retry.
            || (expected.id == self.previous_producer_id && expected.epoch >= LAST_EPOCH)
    }

    fn next_producer(
        &self,
        expected: Option<ProducerIdAndEpoch>,
        timeout_ms: i32,
        fresh_producer_id: i64,
        now_ms: i64,
    ) -> InitDecision {
        let mut next = Transaction {
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::new(),
            start_ms: -1,
            last_update_ms: now_ms,
            ..self.clone()
        };
        let last_epoch = match expected {
            _ if self.producer.epoch == NO_EPOCH => NO_EPOCH,
            None => NO_EPOCH,
            Some(expected) if expected.id != self.producer.id => return InitDecision::Keep,
            Some(expected) if expected.epoch == self.producer.epoch => expected.epoch,
            Some(expected) if expected.epoch == self.last_epoch => return InitDecision::Keep,
            Some(_) => return InitDecision::Refuse(ErrorCode::ProducerFenced),
        };
        next.last_epoch = last_epoch;
        if self.is_epoch_exhausted() {
            next.previous_producer_id = self.producer.id;
            next.producer = ProducerIdAndEpoch {
                id: fresh_producer_id,
                epoch: 0,
            };
        } else {
            next.producer.epoch += 1;
        }
        InitDecision::Become(next)
    }

    /// Aborts an open transaction over its client's head: who comes with the old epoch is fenced.
    #[must_use]
    pub fn fence_and_abort(&self, now_ms: i64) -> Transaction {
        assert!(self.state == TransactionState::Ongoing, "it is open");
        let mut fenced = self.clone();
        fenced.producer.epoch = fenced.producer.epoch.saturating_add(1);
        fenced.last_epoch = NO_EPOCH;
        // The highest epoch is below what a client of the new protocol could still raise.
        fenced.prepared(false, self.protocol, -1, now_ms)
    }

    fn prepared(
        &self,
        commit: bool,
        protocol: ClientProtocol,
        next_producer_id: i64,
        now_ms: i64,
    ) -> Transaction {
        let mut prepared = self.clone();
        prepared.state = if commit {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        };
        prepared.next_producer_id = next_producer_id;
        prepared.last_update_ms = now_ms;
        prepared.protocol = protocol;
        if prepared.start_ms < 0 {
            prepared.start_ms = now_ms;
        }
        if protocol == ClientProtocol::V2 {
            prepared.last_epoch = self.producer.epoch;
            prepared.producer.epoch = self.producer.epoch.saturating_add(1);
        }
        prepared
    }

    /// Whether a client may add partitions (Kafka: `handleAddPartitionsToTransaction`).
    pub fn check_producer(&self, producer: ProducerIdAndEpoch) -> Result<(), ErrorCode> {
        if producer.id != self.producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if producer.epoch != self.producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        if self.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok(())
    }

    /// The transaction with partitions added; None when it has them all.
    #[must_use]
    pub fn with_partitions(
        &self,
        added: &Partitions,
        protocol: ClientProtocol,
        now_ms: i64,
    ) -> Option<Transaction> {
        let has = |(topic, partitions): (&String, &std::collections::BTreeSet<i32>)| {
            let known = self.partitions.get(topic);
            known.is_some_and(|known| partitions.is_subset(known))
        };
        if self.state == TransactionState::Ongoing && added.iter().all(has) {
            return None;
        }
        let mut next = self.clone();
        if next.state != TransactionState::Ongoing {
            next.state = TransactionState::Ongoing;
            next.partitions.clear();
            next.start_ms = now_ms;
        }
        for (topic, partitions) in added {
            let known = next.partitions.entry(topic.clone()).or_default();
            known.extend(partitions);
        }
        next.last_update_ms = now_ms;
        next.protocol = protocol;
        Some(next)
    }

    /// Of `asked`, what was not added to the open transaction.
    #[must_use]
    pub fn missing(&self, asked: &Partitions) -> Partitions {
        let is_open = self.state == TransactionState::Ongoing;
        let mut missing = Partitions::new();
        for (topic, partitions) in asked {
            let known = self.partitions.get(topic).filter(|_| is_open);
            for partition in partitions {
                if !known.is_some_and(|known| known.contains(partition)) {
                    let of_topic = missing.entry(topic.clone()).or_default();
                    of_topic.insert(*partition);
                }
            }
        }
        missing
    }

    /// Decides about EndTxn (Kafka: `TransactionCoordinator.endTransaction`).
    #[must_use]
    pub fn end(
        &self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        protocol: ClientProtocol,
        fresh_producer_id: i64,
        now_ms: i64,
    ) -> EndDecision {
        let is_v2 = protocol == ClientProtocol::V2;
        // The client did not hear that it got a new producer id, or a new epoch.
        let retries_overflow = is_v2
            && self.previous_producer_id == producer.id
            && producer.epoch == LAST_EPOCH
            && self.producer.epoch == 0;
        let retries_bump = is_v2 && producer.epoch.checked_add(1) == Some(self.producer.epoch);
        if producer.id != self.producer.id && !retries_overflow {
            return EndDecision::Refuse(ErrorCode::InvalidProducerIdMapping);
        }
        let is_current = producer.epoch == self.producer.epoch;
        let is_valid = match self.state {
            _ if !is_v2 => is_current,
            TransactionState::Ongoing | TransactionState::Empty => is_current,
            state if state.is_prepared() => retries_bump,
            _ => is_current || retries_bump || retries_overflow,
        };
        if !is_valid {
            return EndDecision::Refuse(ErrorCode::ProducerFenced);
        }
        let is_retry = retries_bump || retries_overflow;
        let prepare = |open: &Transaction| {
            let exhausted = is_v2 && self.is_epoch_exhausted();
            let next_id = if exhausted { fresh_producer_id } else { -1 };
            let prepared = open.prepared(commit, protocol, next_id, now_ms);
            let becomes = prepared.completed_producer();
            EndDecision::Prepare(prepared, becomes)
        };
        match (self.state, commit) {
            (TransactionState::Ongoing, _) => prepare(self),
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                EndDecision::Refuse(ErrorCode::ConcurrentTransactions)
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
                if !is_v2 || is_retry =>
            {
                EndDecision::Done(self.producer)
            }
            // An abort of nothing: the epoch still moves on, so that what is late is fenced.
            (
                TransactionState::Empty
                | TransactionState::CompleteCommit
                | TransactionState::CompleteAbort,
                false,
            ) if is_v2 && !is_retry => prepare(&Transaction {
                partitions: Partitions::new(),
                start_ms: -1,
                ..self.clone()
            }),
            _ => EndDecision::Refuse(ErrorCode::InvalidTxnState),
        }
    }

    /// The producer when the markers are written.
    fn completed_producer(&self) -> ProducerIdAndEpoch {
        if self.protocol == ClientProtocol::V2 && self.next_producer_id >= 0 {
            return ProducerIdAndEpoch {
                id: self.next_producer_id,
                epoch: 0,
            };
        }
        self.producer
    }

    /// The transaction when all markers are written.
    #[must_use]
    pub fn completed(&self, now_ms: i64) -> Transaction {
        let state = match self.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            TransactionState::PrepareAbort => TransactionState::CompleteAbort,
            other => panic!("a transaction that is {} completes", other.name()),
        };
        let producer = self.completed_producer();
        Transaction {
            producer,
            previous_producer_id: if producer.id == self.producer.id {
                self.previous_producer_id
            } else {
                self.producer.id
            },
            next_producer_id: -1,
            state,
            partitions: Partitions::new(),
            last_update_ms: now_ms,
            ..self.clone()
        }
    }
}
