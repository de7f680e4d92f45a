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

    /// An obsolete marker was dropped.
    pub fn note_dropped(&mut self, header: &BatchHeader) {
        if self.aborted.end_at(header) {
            self.dropped.push(Offset(header.base_offset));
        }
    }

    /// The markers of aborted transactions that were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> Vec<Offset> {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::producer_state::ProducerState;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
    use crate::wire::transaction_marker::TransactionMarker;

    fn records(producer_id: i64, base_offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            is_transactional: true,
            ..BatchOptions::default()
        });
        builder.append(1, Some(b"k"), None, [].into_iter());
        BatchHeader::parse(&builder.finish()).expect("just built")
    }

    fn marker(
        producer_id: i64,
        base_offset: i64,
        commit: bool,
    ) -> (TransactionMarker, BatchHeader) {
        let marker = TransactionMarker {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
        };
        let header = BatchHeader::parse(&marker.batch(1)).expect("just built");
        let placed = BatchHeader {
            base_offset,
            ..header
        };
        (marker, placed)
    }

    /// Offset 0: of 7, aborted at 2. Offset 1: of 8, committed at 3.
    fn transactions() -> Transactions {
        let (mut transactions, mut producers) = (Transactions::default(), ProducerState::default());
        for (id, offset) in [(7, 0), (8, 1)] {
            transactions.note(&mut producers, &records(id, offset), Offset(offset), None);
        }
        for (id, offset, commit) in [(7, 2, false), (8, 3, true)] {
            let (marker, header) = marker(id, offset, commit);
            transactions.note(&mut producers, &header, Offset(offset), Some(&marker));
        }
        transactions
    }

    #[test]
    fn markers_are_needed_as_long_as_a_batch_of_their_transaction_is_there() {
        let mut cleaned = CleanedTransactions::new(&transactions(), true);
        assert_eq!(cleaned.judge(&records(7, 0)), Fate::Aborted);
        assert_eq!(cleaned.judge(&records(8, 1)), Fate::ByKeys);
        assert_eq!(cleaned.judge(&marker(7, 2, false).1), Fate::Needed);
        assert_eq!(cleaned.judge(&marker(8, 3, true).1), Fate::Needed);
        let mut later = CleanedTransactions::new(&transactions(), true);
        assert_eq!(later.judge(&records(8, 1)), Fate::ByKeys);
        assert_eq!(later.judge(&marker(7, 2, false).1), Fate::Obsolete);
        later.note_dropped(&marker(7, 2, false).1);
        assert_eq!(later.judge(&marker(8, 3, true).1), Fate::Needed);
        assert_eq!(later.take_dropped(), [Offset(2)]);
        assert!(later.take_dropped().is_empty());
    }

    #[test]
    fn a_run_that_does_not_see_the_beginning_judges_no_marker() {
        let mut cleaned = CleanedTransactions::new(&transactions(), false);
        assert_eq!(cleaned.judge(&marker(7, 2, false).1), Fate::Needed);
        assert_eq!(cleaned.judge(&records(7, 0)), Fate::Aborted);
    }
}
