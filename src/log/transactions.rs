//! The transactions of one log: which are open, and which were aborted.
//!
//! Kafka: `ProducerStateManager.ongoingTxns`, `TransactionIndex`. Both follow from the batches alone:
//! what is open also stands with its producer, what was aborted is told to readers together with the
//! records, so that they leave those out. An aborted transaction is forgotten when its marker is gone:
//! below the log start, cut off, or dropped by compaction.
//!
//! # Format in a checkpoint (little-endian), behind the producers
//! ```text
//! transactional producers (producer_state.rs)
//! count 4 | per aborted transaction, by last offset: producer id 8 | first offset 8 | last offset 8
//!           last stable offset 8
//! ```

use std::collections::{BTreeMap, VecDeque};

use super::bytes::{Fields, Malformed, put_count};
use super::position::Offset;
use super::producer_state::ProducerState;
use crate::wire::record_batch::BatchHeader;
use crate::wire::transaction_marker::TransactionMarker;

/// Transactions, aborted or open, that one log takes: all of them are in memory and in checkpoints.
/// Retention makes room.
pub const TRANSACTIONS_MAX: usize = 1 << 18;

/// A transaction that ended with an ABORT marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: i64,
    /// Where it began.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// Where the oldest transaction that was open then begins, or right behind the marker: what
    /// begins below has ended at or before this one.
    pub last_stable_offset: Offset,
}

/// Where a transaction that ended lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Its first offset.
    pub first: Offset,
    /// Behind its marker.
    pub end: Offset,
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// Producers by the first offset of their open transaction.
    open: BTreeMap<Offset, i64>,
    aborted: VecDeque<AbortedTransaction>,
}

impl Transactions {
    /// How many are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Where the oldest open transaction begins.
    #[must_use]
    pub fn first_open(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// Those aborted, by the offsets of their markers.
    #[must_use]
    pub fn aborted(&self) -> &VecDeque<AbortedTransaction> {
        &self.aborted
    }

    /// Whether another one may be opened.
    #[must_use]
    pub fn has_room(&self, producers_max: usize) -> bool {
        self.open.len() < producers_max && self.open.len() + self.aborted.len() < TRANSACTIONS_MAX
    }

    /// Those aborted that a reader of `from..below` has to know. Kafka:
    /// `TransactionIndex.collectAbortedTxns`.
    pub fn aborted_between(
        &self,
        from: Offset,
        below: Offset,
    ) -> impl Iterator<Item = AbortedTransaction> {
        let begin = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < from);
        let mut is_last = false;
        self.aborted
            .range(begin..)
            .take_while(move |aborted| {
                let goes_on = !is_last;
                is_last = aborted.last_stable_offset >= below;
                goes_on
            })
            .filter(move |aborted| aborted.first_offset < below)
            .copied()
    }

    /// Notes a batch that was appended at `base_offset`, here and with its producer. The transaction
    /// that it ended, if it did.
    pub fn note(
        &mut self,
        producers: &mut ProducerState,
        header: &BatchHeader,
        base_offset: Offset,
        marker: Option<&TransactionMarker>,
    ) -> Option<Completed> {
        let Some(marker) = marker else {
            if producers.remember(header, base_offset) {
                self.open.insert(base_offset, header.producer_id);
            }
            return None;
        };
        let first = producers.end_transaction(marker, base_offset, header.max_timestamp)?;
        self.open.remove(&first);
        let end = Offset(base_offset.0 + 1);
        if !marker.commit {
            self.aborted.push_back(AbortedTransaction {
                producer_id: marker.producer_id,
                first_offset: first,
                last_offset: base_offset,
                last_stable_offset: self.first_open().unwrap_or(end),
            });
        }
        Some(Completed { first, end })
    }

    /// The log was cut at `end`, and the producers are as they are to be remembered now.
    pub(super) fn cut(&mut self, end: Offset, producers: &ProducerState) {
        let left = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < end);
        self.aborted.truncate(left);
        self.follow(producers);
    }

    /// Takes over which transactions are open.
    pub(super) fn follow(&mut self, producers: &ProducerState) {
        self.open = producers.open_transactions().collect();
    }

    /// The log starts later now.
    pub(super) fn forget_before(&mut self, start: Offset) {
        let gone = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < start);
        self.aborted.drain(..gone);
    }

    /// Compaction dropped these markers.
    pub(super) fn forget_markers(&mut self, markers: &[Offset]) {
        if !markers.is_empty() {
            self.aborted
                .retain(|aborted| markers.binary_search(&aborted.last_offset).is_err());
        }
    }

    /// Appends the aborted ones for a checkpoint.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        put_count(into, self.aborted.len());
        for aborted in &self.aborted {
            into.extend_from_slice(&aborted.producer_id.to_le_bytes());
            let offsets = [
                aborted.first_offset,
                aborted.last_offset,
                aborted.last_stable_offset,
            ];
            for offset in offsets {
                into.extend_from_slice(&offset.0.to_le_bytes());
            }
        }
    }

    /// Reads what [`Transactions::encode`] wrote; what is open the producers tell.
    pub(super) fn decode(
        fields: &mut Fields<'_>,
        producers: &ProducerState,
    ) -> Result<Transactions, Malformed> {
        let mut transactions = Transactions::default();
        for _ in 0..fields.count(32)? {
            transactions.aborted.push_back(AbortedTransaction {
                producer_id: fields.i64()?,
                first_offset: Offset(fields.i64()?),
                last_offset: Offset(fields.i64()?),
                last_stable_offset: Offset(fields.i64()?),
            });
        }
        transactions.follow(producers);
        Ok(transactions)
    }
}

/// The aborted transactions of a log by producer, to judge batches by.
#[derive(Debug, Default)]
pub struct AbortedRanges(BTreeMap<(i64, Offset), Offset>);

impl AbortedRanges {
    /// Of these transactions.
    #[must_use]
    pub fn new<'a>(aborted: impl Iterator<Item = &'a AbortedTransaction>) -> AbortedRanges {
        let range = |aborted: &AbortedTransaction| {
            let last = (aborted.producer_id, aborted.last_offset);
            (last, aborted.first_offset)
        };
        AbortedRanges(aborted.map(range).collect())
    }

    /// Whether a batch of records belongs to an aborted transaction.
    #[must_use]
    pub fn hold(&self, header: &BatchHeader) -> bool {
        if !header.attributes.is_transactional() || header.attributes.is_control() {
            return false;
        }
        let (id, base) = (header.producer_id, Offset(header.base_offset));
        let mut ends = self.0.range((id, base)..=(id, Offset(i64::MAX)));
        ends.next().is_some_and(|(_, first)| *first <= base)
    }

    /// Whether a marker ended an aborted transaction.
    #[must_use]
    pub fn end_at(&self, marker: &BatchHeader) -> bool {
        let key = (marker.producer_id, Offset(marker.base_offset));
        self.0.contains_key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    #[derive(Default)]
    struct Log {
        end: i64,
        producers: ProducerState,
        transactions: Transactions,
    }

    impl Log {
        fn write(&mut self, id: i64) {
            let mut builder = BatchBuilder::new(BatchOptions {
                producer_id: id,
                producer_epoch: 0,
                base_sequence: 0,
                is_transactional: true,
                ..BatchOptions::default()
            });
            builder.append(1, None, None, [].into_iter());
            self.note(&builder.finish(), None);
        }

        fn end(&mut self, id: i64, commit: bool) -> Option<Completed> {
            let marker = TransactionMarker {
                producer_id: id,
                producer_epoch: 0,
                coordinator_epoch: 0,
                commit,
            };
            self.note(&marker.batch(1), Some(&marker))
        }

        fn note(&mut self, batch: &[u8], marker: Option<&TransactionMarker>) -> Option<Completed> {
            let header = BatchHeader::parse(batch).expect("just built");
            let at = Offset(self.end);
            self.end += 1;
            let Log {
                producers,
                transactions,
                ..
            } = self;
            transactions.note(producers, &header, at, marker)
        }
    }

    /// 0: of 1, aborted at 3. 1: of 2, committed at 4. 2: of 3, open. 5: of 1, aborted at 6.
    fn log() -> Log {
        let mut log = Log::default();
        for id in 1..4 {
            log.write(id);
        }
        log.end(1, false);
        log.end(2, true);
        log.write(1);
        log.end(1, false);
        log
    }

    fn between(log: &Log, from: i64, below: i64) -> Vec<(i64, i64)> {
        let aborted = log
            .transactions
            .aborted_between(Offset(from), Offset(below));
        aborted
            .map(|it| (it.first_offset.0, it.last_offset.0))
            .collect()
    }

    #[test]
    fn what_is_open_and_aborted_follows_from_the_batches() {
        let log = log();
        assert_eq!(log.transactions.first_open(), Some(Offset(2)));
        let stable: Vec<i64> = log
            .transactions
            .aborted
            .iter()
            .map(|it| it.last_stable_offset.0)
            .collect();
        assert_eq!(stable, [1, 2], "2 began at 1 when the first was aborted");
        assert_eq!(between(&log, 0, 7), [(0, 3), (5, 6)]);
        assert_eq!(between(&log, 4, 7), [(5, 6)], "the first lies before");
        assert_eq!(between(&log, 0, 5), [(0, 3)], "the second begins behind");
        assert_eq!(between(&log, 3, 4), [(0, 3)], "its marker alone");
        assert!(between(&log, 7, 9).is_empty());
    }

    #[test]
    fn a_marker_that_ends_nothing_aborts_nothing() {
        let mut log = Log::default();
        assert_eq!(log.end(1, false), None);
        log.write(1);
        let ended = log.end(1, true).expect("it was open");
        assert_eq!((ended.first, ended.end), (Offset(1), Offset(3)));
        assert_eq!(log.end(1, false), None, "the same marker twice");
        assert!(log.transactions.aborted().is_empty());
        assert_eq!(log.transactions.first_open(), None);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut started = log();
        started.transactions.forget_before(Offset(3));
        assert_eq!(between(&started, 3, 7), [(0, 3), (5, 6)]);
        started.transactions.forget_before(Offset(4));
        assert_eq!(between(&started, 4, 7), [(5, 6)]);
        let mut compacted = log();
        compacted.transactions.forget_markers(&[Offset(3)]);
        assert_eq!(between(&compacted, 0, 7), [(5, 6)]);
        let mut cut = log();
        cut.producers.cut(Offset(6));
        cut.transactions.cut(Offset(6), &cut.producers);
        assert_eq!(between(&cut, 0, 7), [(0, 3)]);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let log = log();
        assert!(log.transactions.has_room(2) && !log.transactions.has_room(1));
    }

    #[test]
    fn a_checkpoint_brings_back_all() {
        let log = log();
        let mut bytes = Vec::new();
        log.producers.encode(&mut bytes);
        log.producers.encode_transactional(&mut bytes);
        log.transactions.encode(&mut bytes);
        let mut fields = Fields::new(&bytes);
        let mut producers = ProducerState::decode(&mut fields).expect("whole");
        producers.decode_transactional(&mut fields).expect("whole");
        let transactions = Transactions::decode(&mut fields, &producers).expect("whole");
        assert_eq!((producers, transactions), (log.producers, log.transactions));
        assert_eq!(fields.remaining(), 0);
    }

    #[test]
    fn batches_are_aborted_by_producer_and_offset() {
        let log = log();
        let ranges = AbortedRanges::new(log.transactions.aborted().iter());
        let at = |producer_id, base_offset, is_transactional| {
            let mut builder = BatchBuilder::new(BatchOptions {
                producer_id,
                base_offset,
                is_transactional,
                ..BatchOptions::default()
            });
            builder.append(1, None, None, [].into_iter());
            BatchHeader::parse(&builder.finish()).expect("just built")
        };
        assert!(ranges.hold(&at(1, 0, true)) && ranges.hold(&at(1, 5, true)));
        assert!(!ranges.hold(&at(1, 4, true)), "between the two");
        assert!(!ranges.hold(&at(1, 7, true)) && !ranges.hold(&at(2, 1, true)));
        assert!(!ranges.hold(&at(1, 0, false)));
    }
}
