//! One replica. The only file of this folder that waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::leader::{EpochJudgement, judge_epoch};
use super::offset_lookup::{self, RecordTime};
use super::turns::{Turn, Turns};
use super::verification::{Guards, Verification, VerificationGuard};
use crate::log::partition_log::{LogError, PartitionLog};
use crate::log::position::{LeaderEpoch, Offset};
use crate::log::producer_state::{MarkerCheck, ProducerOutline, ProducerState, SequenceCheck};
use crate::log::reader::BatchRun;
use crate::log::transactions::AbortedTransaction;
use crate::runtime::clock;
use crate::runtime::signal::Signal;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// See the head of this folder.
pub struct Replica {
    log: Rc<PartitionLog>,
    leader_epoch: Cell<i32>,
    turns: Rc<Turns>,
    watchers: RefCell<Vec<Weak<Signal>>>,
    guards: Guards,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The log does not serve.
    Log(LogError),
    /// The batch does not follow the producer's last one.
    OutOfOrderSequence,
    /// A newer producer with this id has taken over.
    InvalidProducerEpoch,
    /// It is larger than a segment may be.
    TooLarge,
    /// It opens a transaction that the coordinator does not vouch for, or is outside of the one that
    /// its producer has open.
    InvalidTransactionState,
    /// A newer coordinator than that of the marker has taken over.
    CoordinatorFenced,
    /// The log remembers as many open and aborted transactions as it may.
    TooManyTransactions,
}

/// How a client's batch came here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendTerms {
    /// Needed to open a transaction.
    pub guard: Option<VerificationGuard>,
    /// Its producer's epoch grows with every transaction (KIP-890): a producer that is not known
    /// begins with sequence 0.
    pub bumps_epochs: bool,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The high watermark must reach this before the batch is committed.
    pub end: Offset,
    /// It had been appended before.
    pub duplicate: bool,
}

impl Replica {
    /// The leader of a partition whose log is here.
    #[must_use]
    pub fn new(log: Rc<PartitionLog>, leader_epoch: i32) -> Replica {
        Replica {
            log,
            leader_epoch: Cell::new(leader_epoch),
            turns: Rc::default(),
            watchers: RefCell::default(),
            guards: Guards::default(),
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Rc<PartitionLog> {
        &self.log
    }

    /// The epoch in which this replica leads.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }

    /// A new reign of the same leader.
    pub fn set_leader_epoch(&self, epoch: i32) {
        assert!(epoch >= self.leader_epoch.get(), "leader epochs grow");
        self.leader_epoch.set(epoch);
    }

    /// Judges a client's `current_leader_epoch`.
    #[must_use]
    pub fn judge_epoch(&self, clients: i32) -> EpochJudgement {
        judge_epoch(self.leader_epoch.get(), clients)
    }

    /// Records below are committed: on every in-sync replica's disk, or as much less as the topic's
    /// `flush.messages` asks for.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.log.acknowledgeable_offset()
    }

    /// Records below are committed and belong to no open transaction.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        let high_watermark = self.high_watermark();
        let stable = self.log.last_stable_offset(high_watermark);
        assert!(
            self.log.start_offset() <= stable && stable <= high_watermark,
            "the last stable offset {stable} is above the high watermark {high_watermark}"
        );
        stable
    }

    /// Where reading ends for a reader.
    #[must_use]
    pub fn readable_end(&self, read_committed: bool) -> Offset {
        if read_committed {
            self.last_stable_offset()
        } else {
            self.high_watermark()
        }
    }

    /// The producers that are remembered.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerOutline> {
        self.log
            .with_producers(|producers| producers.outlines().collect())
    }

    /// Whether the coordinator has to be asked before a batch is appended.
    #[must_use]
    pub fn verification(&self, header: &BatchHeader) -> Verification {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if !header.attributes.is_transactional() || self.has_open_transaction(header) {
            return Verification::NotNeeded;
        }
        let most = self.log.settings().producers_max;
        Verification::Needed(self.guards.give(id, epoch, most))
    }

    fn has_open_transaction(&self, header: &BatchHeader) -> bool {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        self.log
            .with_producers(|producers| producers.has_open_transaction(id, epoch))
    }

    /// A place in the order of appends.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        self.turns.take()
    }

    /// Bytes of the largest batch that can be appended.
    #[must_use]
    pub fn batch_max_bytes(&self) -> usize {
        let segment_bytes = self.log.settings().segment_bytes;
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        segment_bytes.min(self.log.largest_append_bytes())
    }

    /// Appends a validated batch in its turn. On return its place is fixed.
    pub async fn append(
        &self,
        turn: Turn,
        header: &BatchHeader,
        payload: &[u8],
        terms: AppendTerms,
    ) -> Result<Placed, AppendRefusal> {
        turn.come().await;
        if header.size_bytes() > self.batch_max_bytes() {
            return Err(AppendRefusal::TooLarge);
        }
        let records = i64::from(header.last_offset_delta) + 1;
        self.log
            .ready(header.size_bytes(), records, header.max_timestamp)
            .await
            .map_err(AppendRefusal::Log)?;
        match self.log.check_sequence(header) {
            SequenceCheck::Append => {}
            SequenceCheck::Duplicate(original) => {
                return Ok(Placed {
                    base_offset: original.base_offset,
                    end: Offset(original.last_offset.0 + 1),
                    duplicate: true,
                });
            }
            SequenceCheck::FencedEpoch => return Err(AppendRefusal::InvalidProducerEpoch),
            SequenceCheck::OutOfOrder if !header.attributes.is_transactional() => {
                return Err(AppendRefusal::OutOfOrderSequence);
            }
            SequenceCheck::OutOfOrder => {
                self.check_transactional(header, terms)?;
                return Err(AppendRefusal::OutOfOrderSequence);
            }
            SequenceCheck::OutsideTransaction => {
                return Err(AppendRefusal::InvalidTransactionState);
            }
        }
        if header.attributes.is_transactional() {
            self.check_transactional(header, terms)?;
            self.guards.take_back(header.producer_id);
        }
        Ok(self.place(header, payload))
    }

    /// Whether a batch may be appended to its transaction, or open it.
    fn check_transactional(
        &self,
        header: &BatchHeader,
        terms: AppendTerms,
    ) -> Result<(), AppendRefusal> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if self.has_open_transaction(header) {
            return Ok(());
        }
        if !self.guards.accept(id, epoch, terms.guard) {
            return Err(AppendRefusal::InvalidTransactionState);
        }
        let is_known = self.log.with_producers(|producers| producers.knows(id));
        if terms.bumps_epochs && !is_known && header.base_sequence != 0 {
            return Err(AppendRefusal::OutOfOrderSequence);
        }
        if !self.log.has_room_for_transaction() {
            return Err(AppendRefusal::TooManyTransactions);
        }
        Ok(())
    }

    fn place(&self, header: &BatchHeader, payload: &[u8]) -> Placed {
        let epoch = LeaderEpoch(self.leader_epoch.get());
        let appended = self.log.append(header, payload, epoch);
        Placed {
            base_offset: appended.base_offset,
            end: appended.end,
            duplicate: false,
        }
    }

    /// Appends a marker, in its turn. It takes one offset, whether it ends a transaction or not.
    pub async fn append_marker(&self, marker: TransactionMarker) -> Result<Placed, AppendRefusal> {
        self.append_marker_that(marker, false).await
    }

    /// Appends a marker that `bumps_epoch` or may have the epoch of its transaction (KIP-1228): one
    /// that bumps it cannot end a transaction of its own epoch, which is a later one.
    pub async fn append_marker_that(
        &self,
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Result<Placed, AppendRefusal> {
        let turn = self.take_turn();
        turn.come().await;
        let now_ms = clock::wall_ms();
        let bytes = marker.batch(now_ms);
        let ready = self.log.ready(bytes.len(), 1, now_ms).await;
        ready.map_err(AppendRefusal::Log)?;
        match self.log.check_marker(&marker) {
            MarkerCheck::Append => {}
            MarkerCheck::FencedEpoch => return Err(AppendRefusal::InvalidProducerEpoch),
            MarkerCheck::FencedCoordinator => return Err(AppendRefusal::CoordinatorFenced),
        }
        let (id, epoch) = (marker.producer_id, marker.producer_epoch);
        let ends_later = |producers: &mut ProducerState| producers.has_open_transaction(id, epoch);
        if bumps_epoch && self.log.with_producers(ends_later) {
            return Err(AppendRefusal::InvalidProducerEpoch);
        }
        self.guards.take_back(marker.producer_id);
        let header = BatchHeader::parse(&bytes).expect("just built");
        Ok(self.place(&header, &bytes[HEADER_BYTES..]))
    }

    /// Waits until the high watermark reaches `end`. The journal either flushes or fails, so this
    /// ends without a timer.
    pub async fn committed(&self, end: Offset) -> Result<(), LogError> {
        loop {
            let moved = self.log.flush_moved().raised();
            if self.high_watermark() >= end {
                return Ok(());
            }
            self.log.healthy()?;
            moved.await;
        }
    }

    /// Raises `signal` once when the high watermark moves or the partition ends.
    pub fn watch(&self, signal: &Rc<Signal>) {
        let mut watchers = self.watchers.borrow_mut();
        if watchers.len() == watchers.capacity() {
            // Before it grows: those who gave up are forgotten.
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Rc::downgrade(signal));
    }

    /// Wakes those who watch.
    pub fn grew(&self) {
        let watchers = std::mem::take(&mut *self.watchers.borrow_mut());
        for watcher in watchers {
            if let Some(signal) = watcher.upgrade() {
                signal.raise();
            }
        }
    }

    /// Reads committed batches from `from` on, to a reader of `read_committed` none of open
    /// transactions.
    pub async fn read(
        &self,
        from: Offset,
        most_bytes: usize,
        whole_first: bool,
        read_committed: bool,
    ) -> Result<BatchRun, LogError> {
        let high_watermark = self.high_watermark();
        if from > high_watermark {
            return Err(LogError::OutOfRange {
                asked: from,
                start: self.log.start_offset(),
                end: high_watermark,
            });
        }
        let below = self.readable_end(read_committed);
        self.log.read(from, below, most_bytes, whole_first).await
    }

    /// The aborted transactions that a reader has to know who got `run`, read from `from` on.
    #[must_use]
    pub fn aborted_in(&self, from: Offset, run: &BatchRun) -> Vec<AbortedTransaction> {
        match run.size_bytes {
            0 => Vec::new(),
            _ => self.log.aborted_between(from, run.end_offset(from)),
        }
    }

    /// The first record at or after `timestamp_ms` that a reader may see.
    pub async fn first_at(
        &self,
        timestamp_ms: i64,
        limit_bytes: usize,
        read_committed: bool,
    ) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let below = self.readable_end(read_committed);
        let Some(bytes) = self.log.batch_at_time(timestamp_ms, below).await? else {
            return Ok(None);
        };
        Ok(offset_lookup::first_at(&bytes, timestamp_ms, limit_bytes))
    }

    /// The record with the largest timestamp that a reader may see.
    pub async fn latest_in_time(
        &self,
        limit_bytes: usize,
        read_committed: bool,
    ) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let largest_ms = self.log.largest_timestamp_ms();
        let below = self.readable_end(read_committed);
        let Some(bytes) = self.log.batch_at_time(largest_ms, below).await? else {
            return Ok(None);
        };
        Ok(offset_lookup::largest(&bytes, limit_bytes))
    }

    /// Where the largest epoch up to `asked` ends, as epoch and offset; (-1, -1) when unknown.
    #[must_use]
    pub fn epoch_end(&self, asked: i32) -> (i32, i64) {
        let log_end = self.log.end_offset();
        if asked == self.leader_epoch.get() {
            return (asked, log_end.0);
        }
        self.log
            .with_epochs(|epochs| epochs.end_of(LeaderEpoch(asked), log_end))
            .map_or((-1, -1), |(epoch, end)| (epoch.0, end.0))
    }

    /// The epoch that wrote `offset`, or -1.
    #[must_use]
    pub fn epoch_of(&self, offset: i64) -> i32 {
        self.log
            .with_epochs(|epochs| epochs.epoch_of(Offset(offset)))
            .map_or(-1, |epoch| epoch.0)
    }
}
