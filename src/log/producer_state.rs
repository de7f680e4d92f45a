//! What a log remembers of its idempotent producers: the last five batches of each.
//!
//! Kafka: `ProducerStateManager`, `ProducerStateEntry`, `ProducerAppendInfo`. A batch that equals a
//! remembered one is a retry and gets the original's offset; any other batch out of sequence is
//! refused; a producer nothing is known of may start anywhere. Of a transactional one it is also known
//! where its open transaction begins, and which coordinator ended the one before.
//!
//! # Format in a checkpoint (little-endian)
//! ```text
//! count 4 | per producer, by id: producer id 8 | epoch 2 | last timestamp 8 | batch count 4
//!           per batch, oldest first: first sequence 4 | last sequence 4 | base offset 8
//!                                    last offset 8 | timestamp 8
//! ```
//! Transactional producers, elsewhere behind that:
//! ```text
//! count 4 | per producer, by id: producer id 8 | coordinator epoch 4 | offset of its last marker 8
//!                                first offset of its open transaction 8; -1 is none
//! ```

use std::collections::{BTreeMap, VecDeque};

use super::bytes::{Fields, Malformed, put_count};
use super::position::Offset;
use crate::wire::record_batch::{BatchHeader, NO_SEQUENCE, advance_sequence};
use crate::wire::transaction_marker::TransactionMarker;

/// Kafka: `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`; clients keep at most five in flight.
pub const BATCHES_REMEMBERED: usize = 5;

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencedBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its maximum timestamp.
    pub timestamp_ms: i64,
}

/// What is remembered of one producer: its last batches in its epoch, oldest first, or the marker
/// that ended its last transaction, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    pub(super) last_timestamp_ms: i64,
    pub(super) batches: VecDeque<SequencedBatch>,
    /// Of the coordinator that wrote the last marker.
    pub(super) coordinator_epoch: i32,
    pub(super) last_marker: Option<Offset>,
    /// Where its open transaction begins.
    pub(super) open: Option<Offset>,
}

/// There was no marker.
const NO_COORDINATOR_EPOCH: i32 = -1;
const NO_OFFSET: Offset = Offset(-1);

impl Default for Producer {
    fn default() -> Producer {
        Producer {
            epoch: 0,
            last_timestamp_ms: 0,
            batches: VecDeque::new(),
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_marker: None,
            open: None,
        }
    }
}

/// Bytes of one producer in a checkpoint, at most.
pub(super) const PRODUCER_MOST_BYTES: usize = 22 + BATCHES_REMEMBERED * 32 + TRANSACTIONAL_BYTES;
const TRANSACTIONAL_BYTES: usize = 28;

/// A producer as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOutline {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record, or -1.
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_timestamp_ms: i64,
    /// Epoch of the coordinator that ended its last transaction, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub open_transaction: Option<Offset>,
}

/// What to do with a batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// It is the next one.
    Append,
    /// It was appended before, there.
    Duplicate(SequencedBatch),
    /// It is neither the next one nor one of the last five.
    OutOfOrder,
    /// A newer producer has taken over.
    FencedEpoch,
    /// It is not part of the transaction that its producer has open.
    OutsideTransaction,
}

/// What to do with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerCheck {
    /// It may be appended.
    Append,
    /// A newer producer has taken over.
    FencedEpoch,
    /// A newer coordinator has taken over.
    FencedCoordinator,
}

/// The producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    pub(super) producers: BTreeMap<i64, Producer>,
}

impl Producer {
    /// Forgets batches that end at `end` or later.
    pub(super) fn cut(&mut self, end: Offset) {
        let known = self.batches.len();
        self.batches.retain(|batch| batch.last_offset < end);
        if self.batches.len() < known {
            self.note_newest();
        }
        if self.last_marker.is_some_and(|marker| marker >= end) {
            self.last_marker = None;
            self.coordinator_epoch = NO_COORDINATOR_EPOCH;
        }
        self.open = self.open.filter(|first| *first < end);
    }

    /// Offset of the last thing it wrote, or that was written on its behalf.
    fn newest(&self) -> Option<Offset> {
        let batch = self.batches.back().map(|batch| batch.last_offset);
        batch.max(self.last_marker)
    }

    fn is_transactional(&self) -> bool {
        self.last_marker.is_some() || self.open.is_some()
    }

    /// Takes over what stands before everything that is known of the producer.
    pub(super) fn put_older(&mut self, older: Producer) {
        if self.last_marker.is_none() {
            self.last_marker = older.last_marker;
            self.coordinator_epoch = older.coordinator_epoch;
            self.open = older.open.or(self.open);
        }
        if self.epoch == older.epoch {
            self.put_before(older.batches);
        }
    }

    /// Puts batches before those known, as many as are remembered.
    pub(super) fn put_before(&mut self, older: VecDeque<SequencedBatch>) {
        for batch in older.into_iter().rev() {
            if self.batches.len() < BATCHES_REMEMBERED {
                self.batches.push_front(batch);
            }
        }
    }

    fn note_newest(&mut self) {
        if let Some(newest) = self.batches.back() {
            self.last_timestamp_ms = newest.timestamp_ms;
        }
    }
}

impl ProducerState {
    /// Producers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a client's batch; batches without a producer id always pass.
    #[must_use]
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        if !header.has_producer_id() {
            return SequenceCheck::Append;
        }
        let Some(producer) = self.producers.get(&header.producer_id) else {
            return SequenceCheck::Append;
        };
        if header.producer_epoch < producer.epoch {
            return SequenceCheck::FencedEpoch;
        }
        // Coordinators write offsets within a client's transaction; clients cannot leave it out.
        if header.base_sequence == NO_SEQUENCE {
            return SequenceCheck::Append;
        }
        let is_outside = producer.open.is_some() && !header.attributes.is_transactional();
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 if is_outside => SequenceCheck::OutsideTransaction,
                0 => SequenceCheck::Append,
                _ => SequenceCheck::OutOfOrder,
            };
        }
        let same = |batch: &&SequencedBatch| {
            batch.first_sequence == header.base_sequence
                && batch.last_sequence == header.last_sequence()
        };
        if let Some(batch) = producer.batches.iter().find(same) {
            return SequenceCheck::Duplicate(*batch);
        }
        match producer.batches.back() {
            Some(last) if advance_sequence(last.last_sequence, 1) != header.base_sequence => {
                SequenceCheck::OutOfOrder
            }
            // A marker with a newer epoch began this one.
            None if header.base_sequence != 0 => SequenceCheck::OutOfOrder,
            _ if is_outside => SequenceCheck::OutsideTransaction,
            _ => SequenceCheck::Append,
        }
    }

    /// Judges a marker. Kafka: `ProducerAppendInfo.appendEndTxnMarker`.
    #[must_use]
    pub fn check_marker(&self, marker: &TransactionMarker) -> MarkerCheck {
        match self.producers.get(&marker.producer_id) {
            Some(known) if marker.producer_epoch < known.epoch => MarkerCheck::FencedEpoch,
            Some(known) if marker.coordinator_epoch < known.coordinator_epoch => {
                MarkerCheck::FencedCoordinator
            }
            _ => MarkerCheck::Append,
        }
    }

    /// Whether anything is remembered of a producer.
    #[must_use]
    pub fn knows(&self, producer_id: i64) -> bool {
        self.producers.contains_key(&producer_id)
    }

    /// Whether a producer has a transaction open in an epoch.
    #[must_use]
    pub fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        let known = self.producers.get(&producer_id);
        known.is_some_and(|known| known.open.is_some() && known.epoch == epoch)
    }

    /// First offsets of the open transactions, and whose they are.
    pub(super) fn open_transactions(&self) -> impl Iterator<Item = (Offset, i64)> {
        let producers = self.producers.iter();
        producers.filter_map(|(id, producer)| producer.open.map(|first| (first, *id)))
    }

    /// All producers, by id.
    pub fn outlines(&self) -> impl Iterator<Item = ProducerOutline> {
        self.producers.iter().map(|(id, producer)| ProducerOutline {
            producer_id: *id,
            epoch: producer.epoch,
            last_sequence: producer
                .batches
                .back()
                .map_or(NO_SEQUENCE, |batch| batch.last_sequence),
            last_timestamp_ms: producer.last_timestamp_ms,
            coordinator_epoch: producer.coordinator_epoch,
            open_transaction: producer.open,
        })
    }

    /// Offset of the last record of a producer's last batch in its epoch; of the marker that began
    /// the epoch if there is no batch.
    #[must_use]
    pub fn last_offset(&self, producer_id: i64) -> Option<Offset> {
        let producer = self.producers.get(&producer_id)?;
        let batch = producer.batches.back().map(|batch| batch.last_offset);
        batch.or(producer.last_marker)
    }

    /// Remembers a batch of records that was appended at `base_offset`. True when it opened a
    /// transaction.
    pub fn remember(&mut self, header: &BatchHeader, base_offset: Offset) -> bool {
        if !header.has_producer_id() || header.attributes.is_control() {
            return false;
        }
        let producer = self.producers.entry(header.producer_id).or_default();
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.last_timestamp_ms = header.max_timestamp;
        producer.batches.push_back(SequencedBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            last_offset: Offset(base_offset.0 + i64::from(header.last_offset_delta)),
            timestamp_ms: header.max_timestamp,
        });
        let opens = header.attributes.is_transactional() && producer.open.is_none();
        if opens {
            producer.open = Some(base_offset);
        }
        opens
    }

    /// Remembers a marker that was appended at `offset`; where the transaction that it ended began,
    /// if there was one.
    pub fn end_transaction(
        &mut self,
        marker: &TransactionMarker,
        offset: Offset,
        timestamp_ms: i64,
    ) -> Option<Offset> {
        let producer = self.producers.entry(marker.producer_id).or_default();
        if producer.epoch != marker.producer_epoch {
            producer.epoch = marker.producer_epoch;
            producer.batches.clear();
        }
        producer.last_timestamp_ms = timestamp_ms;
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_marker = Some(offset);
        producer.open.take()
    }

    /// Forgets batches that end at `end` or later: the log was cut there. A producer none of whose
    /// remembered batches is left becomes unknown, unless [`ProducerState::restore`] knows better.
    pub fn cut(&mut self, end: Offset) {
        self.producers.retain(|_, producer| {
            producer.cut(end);
            producer.newest().is_some()
        });
    }

    /// Takes over producers as they were found below a cut.
    pub(super) fn restore(&mut self, found: ProducerState) {
        self.producers.extend(found.producers);
    }

    /// Where the log may be cut at once, so that at most `most` producers lose batches: at `to`, or
    /// above it at the end of a batch.
    pub(super) fn next_cut(&self, to: Offset, most: usize) -> Offset {
        assert!(most > 0, "a cut takes the last batch of a producer");
        let producers = self.producers.values();
        let newest = producers.map(|producer| producer.newest().unwrap_or(NO_OFFSET));
        let mut affected: Vec<Offset> = newest.filter(|last| *last >= to).collect();
        if affected.len() <= most {
            return to;
        }
        affected.sort_unstable_by(|left, right| right.cmp(left));
        Offset(affected[most].0 + 1)
    }

    /// In parts of at most so many producers.
    pub(super) fn into_parts(self, most: usize) -> Vec<ProducerState> {
        let mut parts: Vec<ProducerState> = Vec::new();
        for (id, producer) in self.producers {
            match parts.last_mut() {
                Some(last) if last.producers.len() < most => {
                    last.producers.insert(id, producer);
                }
                _ => parts.push(ProducerState {
                    producers: BTreeMap::from([(id, producer)]),
                }),
            }
        }
        parts
    }

    /// Forgets producers whose last batch is older than `horizon_ms`, none with an open transaction.
    pub fn expire(&mut self, horizon_ms: i64) {
        self.producers.retain(|_, producer| {
            producer.open.is_some() || producer.last_timestamp_ms >= horizon_ms
        });
    }

    /// Forgets the longest silent producers until at most `most` are left, none with an open
    /// transaction. In steps of a sixteenth, so that a full table does not cost a search for every
    /// new producer.
    pub fn forget_down_to(&mut self, most: usize) {
        if self.producers.len() <= most {
            return;
        }
        let surplus = self.producers.len() - most + most / 16;
        let age = |(id, producer): (&i64, &Producer)| (producer.last_timestamp_ms, *id);
        let is_idle = |(_, producer): &(&i64, &Producer)| producer.open.is_none();
        let idle = self.producers.iter().filter(is_idle);
        let mut oldest: Vec<(i64, i64)> = idle.map(age).collect();
        oldest.sort_unstable();
        for (_, id) in &oldest[..surplus.min(oldest.len())] {
            self.producers.remove(id);
        }
    }

    /// Appends everything for a checkpoint; the format is at the head of this file.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_count(into, self.producers.len());
        for (id, producer) in &self.producers {
            into.extend_from_slice(&id.to_le_bytes());
            into.extend_from_slice(&producer.epoch.to_le_bytes());
            into.extend_from_slice(&producer.last_timestamp_ms.to_le_bytes());
            put_count(into, producer.batches.len());
            for batch in &producer.batches {
                into.extend_from_slice(&batch.first_sequence.to_le_bytes());
                into.extend_from_slice(&batch.last_sequence.to_le_bytes());
                into.extend_from_slice(&batch.base_offset.0.to_le_bytes());
                into.extend_from_slice(&batch.last_offset.0.to_le_bytes());
                into.extend_from_slice(&batch.timestamp_ms.to_le_bytes());
            }
        }
    }

    /// Reads what [`ProducerState::encode`] wrote.
    pub fn decode(fields: &mut Fields<'_>) -> Result<ProducerState, Malformed> {
        let mut producers = BTreeMap::new();
        for _ in 0..fields.count(22)? {
            let id = fields.i64()?;
            let epoch = fields.i16()?;
            let last_timestamp_ms = fields.i64()?;
            let mut batches = VecDeque::new();
            for _ in 0..fields.count(32)? {
                batches.push_back(SequencedBatch {
                    first_sequence: fields.i32()?,
                    last_sequence: fields.i32()?,
                    base_offset: Offset(fields.i64()?),
                    last_offset: Offset(fields.i64()?),
                    timestamp_ms: fields.i64()?,
                });
            }
            producers.insert(
                id,
                Producer {
                    epoch,
                    last_timestamp_ms,
                    batches,
                    ..Producer::default()
                },
            );
        }
        Ok(ProducerState { producers })
    }

    /// Whether one of the producers is transactional.
    pub(super) fn has_transactional(&self) -> bool {
        self.producers.values().any(Producer::is_transactional)
    }

    /// Appends what [`ProducerState::encode`] leaves out of transactional producers.
    pub(super) fn encode_transactional(&self, into: &mut Vec<u8>) {
        let transactional = || {
            let producers = self.producers.iter();
            producers.filter(|(_, producer)| producer.is_transactional())
        };
        put_count(into, transactional().count());
        for (id, producer) in transactional() {
            into.extend_from_slice(&id.to_le_bytes());
            into.extend_from_slice(&producer.coordinator_epoch.to_le_bytes());
            for offset in [producer.last_marker, producer.open] {
                into.extend_from_slice(&offset.unwrap_or(NO_OFFSET).0.to_le_bytes());
            }
        }
    }

    /// Reads what [`ProducerState::encode_transactional`] wrote.
    pub(super) fn decode_transactional(
        &mut self,
        fields: &mut Fields<'_>,
    ) -> Result<(), Malformed> {
        for _ in 0..fields.count(TRANSACTIONAL_BYTES)? {
            let at = fields.position();
            let id = fields.i64()?;
            let producer = self.producers.get_mut(&id).ok_or(Malformed(at))?;
            producer.coordinator_epoch = fields.i32()?;
            let mut offset = || {
                let offset = Offset(fields.i64()?);
                Ok(Some(offset).filter(|offset| *offset != NO_OFFSET))
            };
            producer.last_marker = offset()?;
            producer.open = offset()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn header(
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        records: i32,
    ) -> BatchHeader {
        let options = BatchOptions {
            producer_id,
            producer_epoch,
            base_sequence,
            ..Default::default()
        };
        let mut builder = BatchBuilder::new(options);
        for _ in 0..records {
            builder.append(1, None, None, [].into_iter());
        }
        BatchHeader::parse(&builder.finish()).expect("just built")
    }

    #[test]
    fn the_last_five_batches_are_known_as_retries() {
        let mut state = ProducerState::default();
        for batch in 0..7 {
            let header = header(9, 0, batch * 2, 2);
            assert_eq!(state.check(&header), SequenceCheck::Append);
            state.remember(&header, Offset(i64::from(batch) * 10));
        }
        for batch in 2..7 {
            let SequenceCheck::Duplicate(known) = state.check(&header(9, 0, batch * 2, 2)) else {
                panic!("batch {batch} is a retry");
            };
            assert_eq!(known.base_offset, Offset(i64::from(batch) * 10));
        }
        assert_eq!(
            state.check(&header(9, 0, 2, 2)),
            SequenceCheck::OutOfOrder,
            "too old"
        );
        assert_eq!(
            state.check(&header(9, 0, 16, 2)),
            SequenceCheck::OutOfOrder,
            "a gap"
        );
        assert_eq!(
            state.check(&header(9, 0, 12, 1)),
            SequenceCheck::OutOfOrder,
            "another batch"
        );
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut state = ProducerState::default();
        state.remember(&header(9, 3, 40, 1), Offset(0));
        assert_eq!(
            state.check(&header(9, 2, 41, 1)),
            SequenceCheck::FencedEpoch
        );
        assert_eq!(state.check(&header(9, 4, 1, 1)), SequenceCheck::OutOfOrder);
        assert_eq!(state.check(&header(9, 4, 0, 1)), SequenceCheck::Append);
        assert_eq!(
            state.check(&header(8, 0, 500, 1)),
            SequenceCheck::Append,
            "unknown producer"
        );
    }

    fn transactional(id: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let plain = header(id, epoch, sequence, 1);
        BatchHeader {
            attributes: plain.attributes.with_transactional(true),
            ..plain
        }
    }

    fn marker(id: i64, epoch: i16, coordinator_epoch: i32) -> TransactionMarker {
        TransactionMarker {
            producer_id: id,
            producer_epoch: epoch,
            coordinator_epoch,
            commit: true,
        }
    }

    #[test]
    fn a_transaction_is_open_from_its_first_batch_to_its_marker() {
        let mut state = ProducerState::default();
        assert!(state.remember(&transactional(9, 0, 0), Offset(10)));
        assert!(!state.remember(&transactional(9, 0, 1), Offset(11)));
        assert!(state.has_open_transaction(9, 0) && !state.has_open_transaction(9, 1));
        assert_eq!(
            state.check(&header(9, 0, 2, 1)),
            SequenceCheck::OutsideTransaction
        );
        assert_eq!(
            state.check(&header(9, 1, 0, 1)),
            SequenceCheck::OutsideTransaction
        );
        assert_eq!(state.check(&transactional(9, 0, 2)), SequenceCheck::Append);
        let ended = state.end_transaction(&marker(9, 0, 3), Offset(12), 5);
        assert_eq!(ended, Some(Offset(10)));
        assert_eq!(state.end_transaction(&marker(9, 0, 3), Offset(13), 5), None);
        assert_eq!(state.check(&header(9, 0, 2, 1)), SequenceCheck::Append);
        assert_eq!(state.last_offset(9), Some(Offset(11)), "the marker is none");
    }

    #[test]
    fn a_marker_with_a_newer_epoch_fences_and_begins_at_zero() {
        let mut state = ProducerState::default();
        state.remember(&transactional(9, 4, 7), Offset(0));
        state.end_transaction(&marker(9, 5, 3), Offset(1), 5);
        assert_eq!(
            state.check(&transactional(9, 4, 8)),
            SequenceCheck::FencedEpoch
        );
        assert_eq!(
            state.check(&transactional(9, 5, 8)),
            SequenceCheck::OutOfOrder
        );
        assert_eq!(state.check(&transactional(9, 5, 0)), SequenceCheck::Append);
        assert_eq!(state.last_offset(9), Some(Offset(1)), "it tells the epoch");
        let outline = state.outlines().next().expect("one");
        assert_eq!(
            (
                outline.epoch,
                outline.last_sequence,
                outline.coordinator_epoch
            ),
            (5, -1, 3)
        );
    }

    #[test]
    fn markers_of_old_producers_and_old_coordinators_are_fenced() {
        let mut state = ProducerState::default();
        assert_eq!(state.check_marker(&marker(9, 0, 0)), MarkerCheck::Append);
        state.end_transaction(&marker(9, 5, 3), Offset(1), 5);
        for (epoch, coordinator, check) in [
            (4, 3, MarkerCheck::FencedEpoch),
            (5, 2, MarkerCheck::FencedCoordinator),
            (5, 3, MarkerCheck::Append),
            (i16::MAX, 4, MarkerCheck::Append),
        ] {
            assert_eq!(state.check_marker(&marker(9, epoch, coordinator)), check);
        }
    }

    #[test]
    fn a_producer_with_an_open_transaction_is_not_forgotten() {
        let mut state = ProducerState::default();
        state.remember(&transactional(1, 0, 0), Offset(0));
        for id in 2..40 {
            state.remember(&header(id, 0, 0, 1), Offset(id));
        }
        state.forget_down_to(8);
        state.expire(i64::MAX);
        assert!(state.knows(1));
        assert_eq!(state.len(), 1);
        state.end_transaction(&marker(1, 0, 0), Offset(50), 5);
        state.expire(i64::MAX);
        assert!(state.is_empty());
    }

    #[test]
    fn a_cut_takes_markers_and_transactions_behind_it() {
        let mut state = ProducerState::default();
        state.remember(&transactional(9, 0, 0), Offset(0));
        state.end_transaction(&marker(9, 0, 3), Offset(1), 5);
        state.remember(&transactional(9, 0, 1), Offset(2));
        let mut open = state.clone();
        open.cut(Offset(3));
        assert!(open.has_open_transaction(9, 0));
        open.cut(Offset(2));
        assert!(!open.has_open_transaction(9, 0));
        assert_eq!(
            open.check_marker(&marker(9, 0, 2)),
            MarkerCheck::FencedCoordinator
        );
        open.cut(Offset(1));
        assert_eq!(open.check_marker(&marker(9, 0, 2)), MarkerCheck::Append);
        assert_eq!(open.len(), 1);
    }

    #[test]
    fn batches_of_coordinators_follow_each_other_without_a_sequence() {
        let mut state = ProducerState::default();
        for offset in 0..3 {
            let header = header(9, 1, NO_SEQUENCE, 1);
            assert_eq!(state.check(&header), SequenceCheck::Append);
            state.remember(&header, Offset(offset));
        }
        let old = header(9, 0, NO_SEQUENCE, 1);
        assert_eq!(state.check(&old), SequenceCheck::FencedEpoch);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut state = ProducerState::default();
        state.remember(&header(9, 0, i32::MAX - 1, 2), Offset(0));
        assert_eq!(state.check(&header(9, 0, 0, 1)), SequenceCheck::Append);
    }

    #[test]
    fn a_cut_forgets_batches_behind_it() {
        let mut state = ProducerState::default();
        for batch in 0..3 {
            state.remember(&header(9, 0, batch * 2, 2), Offset(i64::from(batch) * 2));
        }
        state.remember(&header(8, 0, 0, 1), Offset(6));
        state.cut(Offset(4));
        assert_eq!(state.check(&header(9, 0, 4, 2)), SequenceCheck::Append);
        assert_eq!(state.check(&header(9, 0, 6, 2)), SequenceCheck::OutOfOrder);
        assert_eq!(state.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_survives_a_checkpoint() {
        let mut state = ProducerState::default();
        for producer in 0..100 {
            state.remember(&header(producer, 0, 0, 1), Offset(producer));
            state.forget_down_to(32);
            assert!(state.len() <= 32);
        }
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(ProducerState::decode(&mut Fields::new(&bytes)), Ok(state));
    }
}
