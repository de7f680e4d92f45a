//! Which batches of transactions a run of compaction drops, in the order of the log.
//!
//! Kafka: `CleanedTransactionMetadata`. Records of aborted transactions go at once. A marker goes only
//! when no batch of its transaction is left before it, and not before the delete horizon that is
//! stamped into it has passed: a reader that has seen the records sees the marker. So it goes one run
//! after the last record at the earliest.

use std::collections::BTreeSet;

use super::position::Offset;
use super::transactions::{AbortedRanges, Transactions};
use crate::wire::record_batch::BatchHeader;

/// Markers of aborted transactions that one swap may drop: its journal entry stays small.
const MARKERS_PER_SWAP_MAX: usize = 512;

/// What a transaction means for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its records are judged by their keys.
    ByKeys,
    /// Its records do not count.
    Aborted,
    /// A control batch that stays as it is.
    Needed,
    /// A marker behind which nothing of its transaction is left.
    Obsolete,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct CleanedTransactions {
    /// What was aborted.
    pub aborted: AbortedRanges,
    /// Producers with a batch since their last marker.
    begun: BTreeSet<i64>,
    /// All of the log is looked at; otherwise no marker is judged.
    is_whole: bool,
    /// Markers of aborted transactions that the group under way drops.
    dropped: Vec<Offset>,
}

impl CleanedTransactions {
    /// For a run over a log from its beginning, or not.
    #[must_use]
    pub fn new(transactions: &Transactions, is_whole: bool) -> CleanedTransactions {
        CleanedTransactions {
            aborted: AbortedRanges::new(transactions.aborted().iter()),
            is_whole,
            ..CleanedTransactions::default()
        }
    }

    /// Judges the next batch of the log.
    pub fn judge(&mut self, header: &BatchHeader) -> Fate {
        let attributes = header.attributes;
        if attributes.is_control() {
            let has_records = self.begun.remove(&header.producer_id);
            let may_go = self.is_whole && !has_records && header.has_producer_id();
            return match may_go && self.dropped.len() < MARKERS_PER_SWAP_MAX {
                true => Fate::Obsolete,
                false => Fate::Needed,
            };
        }
        if !attributes.is_transactional() {
            return Fate::ByKeys;
        }
        self.begun.insert(header.producer_id);
        match self.aborted.hold(header) {
            true => Fate::Aborted,
            false => Fate::ByKeys,
        }
    }

    /// A batch was dropped whole.
    pub fn note_dropped(&mut self, header: &BatchHeader) {
        if header.attributes.is_control() && self.aborted.end_at(header) {
            self.dropped.push(Offset(header.base_offset));
        }
    }

    /// The markers of aborted transactions that were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> Vec<Offset> {
        std::mem::take(&mut self.dropped)
    }
}
