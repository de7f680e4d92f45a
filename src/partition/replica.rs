//! One replica. The only file of this folder that waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::leader::{EpochJudgement, judge_epoch};
use super::offset_lookup::{self, RecordTime};
use super::turns::{Turn, Turns};
use crate::log::partition_log::{LogError, PartitionLog};
use crate::log::position::{LeaderEpoch, Offset};
use crate::log::producer_state::SequenceCheck;
use crate::log::reader::BatchRun;
use crate::runtime::signal::Signal;
use crate::wire::record_batch::BatchHeader;

/// See the head of this folder.
pub struct Replica {
    log: Rc<PartitionLog>,
    leader_epoch: Cell<i32>,
    turns: Rc<Turns>,
    watchers: RefCell<Vec<Weak<Signal>>>,
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

    /// A place in the order of appends.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        self.turns.take()
    }

    /// Appends a validated batch in its turn. On return its place is fixed.
    pub async fn append(
        &self,
        turn: Turn,
        header: &BatchHeader,
        payload: &[u8],
    ) -> Result<Placed, AppendRefusal> {
        turn.come().await;
        let settings = self.log.settings();
        let most = settings
            .segment_bytes
            .min(self.log.largest_append_bytes() as u64);
        if header.size_bytes() as u64 > most {
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
            SequenceCheck::OutOfOrder => return Err(AppendRefusal::OutOfOrderSequence),
            SequenceCheck::FencedEpoch => return Err(AppendRefusal::InvalidProducerEpoch),
        }
        let appended = self
            .log
            .append(header, payload, LeaderEpoch(self.leader_epoch.get()));
        Ok(Placed {
            base_offset: appended.base_offset,
            end: appended.end,
            duplicate: false,
        })
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

    /// Reads committed batches from `from` on.
    pub async fn read(
        &self,
        from: Offset,
        most_bytes: usize,
        whole_first: bool,
    ) -> Result<BatchRun, LogError> {
        let high_watermark = self.high_watermark();
        if from > high_watermark {
            return Err(LogError::OutOfRange {
                asked: from,
                start: self.log.start_offset(),
                end: high_watermark,
            });
        }
        self.log
            .read(from, high_watermark, most_bytes, whole_first)
            .await
    }

    /// The first committed record at or after `timestamp_ms`.
    pub async fn first_at(
        &self,
        timestamp_ms: i64,
        limit_bytes: usize,
    ) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let below = self.high_watermark();
        let Some(bytes) = self.log.batch_at_time(timestamp_ms, below).await? else {
            return Ok(None);
        };
        Ok(offset_lookup::first_at(&bytes, timestamp_ms, limit_bytes))
    }

    /// The committed record with the largest timestamp.
    pub async fn latest_in_time(&self, limit_bytes: usize) -> Result<Option<RecordTime>, LogError> {
        self.log.healthy()?;
        let largest_ms = self.log.largest_timestamp_ms();
        let below = self.high_watermark();
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
