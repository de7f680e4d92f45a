//! Which records of transactions a reader sees.

use std::collections::BTreeSet;

use crate::wire::messages::fetch::AbortedTransaction;
use crate::wire::record_batch::{BatchError, BatchView};
use crate::wire::transaction_marker::TransactionMarker;

/// What a marker may unpack to: it holds one small record.
const MARKER_BYTES_MAX: usize = 1 << 20;

/// Whether records of open and aborted transactions are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    /// Records whose transaction was committed, and those of no transaction; none behind the
    /// first transaction that is still open
    Committed,
    /// All records
    #[default]
    Uncommitted,
}

impl Isolation {
    /// The same on the wire.
    pub(crate) fn level(self) -> i8 {
        match self {
            Isolation::Uncommitted => 0,
            Isolation::Committed => 1,
        }
    }
}

/// Leaves out what was aborted, batch by batch in the order of the log.
#[derive(Debug)]
pub(crate) struct AbortFilter {
    /// First offsets of transactions that end with an abort, with their producers; the last comes
    /// first.
    to_come: Vec<(i64, i64)>,
    /// Producers within such a transaction.
    aborting: BTreeSet<i64>,
}

impl AbortFilter {
    /// Of the transactions that a Fetch says are aborted.
    pub(crate) fn new(aborted: Option<&[AbortedTransaction]>) -> AbortFilter {
        let aborted = aborted.unwrap_or_default().iter();
        let mut to_come: Vec<_> = aborted
            .map(|aborted| (aborted.first_offset, aborted.producer_id))
            .collect();
        to_come.sort_unstable_by(|a, b| b.cmp(a));
        AbortFilter {
            to_come,
            aborting: BTreeSet::new(),
        }
    }

    /// Whether the records of `batch` are for readers: they are neither markers nor aborted.
    pub(crate) fn admits(&mut self, batch: &BatchView<'_>) -> Result<bool, BatchError> {
        let header = batch.header();
        while let Some((first_offset, producer_id)) = self.to_come.last().copied()
            && first_offset <= header.last_offset()
        {
            self.aborting.insert(producer_id);
            self.to_come.pop();
        }
        if header.attributes.is_control() {
            let payload = batch.plain_payload(MARKER_BYTES_MAX)?;
            let marker = TransactionMarker::parse(header, &payload)?;
            if marker.is_some_and(|marker| !marker.commit) {
                self.aborting.remove(&header.producer_id);
            }
            return Ok(false);
        }
        let is_aborted =
            header.attributes.is_transactional() && self.aborting.contains(&header.producer_id);
        Ok(!is_aborted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn batch(producer_id: i64, base_offset: i64, is_transactional: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            producer_id,
            producer_epoch: 0,
            is_transactional,
            ..Default::default()
        });
        builder.append(1, None, Some(b"v"), std::iter::empty());
        builder.finish()
    }

    fn marker(producer_id: i64, base_offset: i64, commit: bool) -> Vec<u8> {
        let marker = TransactionMarker {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit,
        };
        let mut bytes = marker.batch(1);
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes
    }

    fn admitted(filter: &mut AbortFilter, bytes: &[u8]) -> bool {
        let batch = BatchView::parse(bytes).expect("a batch");
        filter.admits(&batch).expect("not damaged")
    }

    #[test]
    fn an_aborted_transaction_is_left_out_up_to_its_marker() {
        let aborted = [(7, 4), (8, 1)].map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
        });
        let mut filter = AbortFilter::new(Some(&aborted));
        assert!(admitted(&mut filter, &batch(7, 0, true)), "committed later");
        assert!(!admitted(&mut filter, &batch(8, 1, true)), "aborted");
        assert!(admitted(&mut filter, &batch(8, 2, false)), "no transaction");
        assert!(!admitted(&mut filter, &marker(7, 3, true)), "a marker");
        assert!(!admitted(&mut filter, &batch(7, 4, true)), "aborted");
        assert!(!admitted(&mut filter, &marker(8, 5, false)), "a marker");
        assert!(admitted(&mut filter, &batch(8, 6, true)), "the next one");
        assert!(!admitted(&mut filter, &batch(7, 7, true)), "still aborted");
    }

    #[test]
    fn without_aborted_transactions_only_markers_are_left_out() {
        let mut filter = AbortFilter::new(None);
        assert!(admitted(&mut filter, &batch(7, 0, true)));
        assert!(!admitted(&mut filter, &marker(7, 1, false)));
        assert!(admitted(&mut filter, &batch(7, 2, true)));
    }
}
