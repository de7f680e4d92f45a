//! Finds in the log what is to be remembered of producers that a cut takes batches from.
//!
//! Kafka: `ProducerStateManager.truncateAndReload`. The last five batches of a producer may all lie
//! behind the cut; then those before them count, which nobody remembers any more. Segments are read
//! from the newest to the oldest, until of every such producer five batches are known, or its first.
//! Of a transactional one the last marker before the cut must be known as well: it says where the
//! transaction begins that is open again.
//!
//! *Architecture Invariant*: this runs before the entry of the truncation is recorded, and the entry
//! carries the outcome: recovery never reads segments for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::partition_log::{CutPlace, LogError, PartitionLog};
use super::position::{BytePosition, Offset, SegmentId};
use super::producer_state::{BATCHES_REMEMBERED, Producer, ProducerState, SequencedBatch};
use crate::runtime::executor::yield_if_needed;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// See the head of this file.
struct ProducerSearch {
    cut: Offset,
    /// What is known of the producers of which more may be found: batches below the cut.
    open: BTreeMap<i64, Producer>,
    /// Transactional producers: what is left of what was remembered, and what was found so far.
    transactional: BTreeMap<i64, Transactional>,
    /// Producers of which batches were found that nobody remembered.
    gained: ProducerState,
    /// The batches below the cut in the segment that is being looked at, as far as they matter.
    segment: ProducerState,
    /// Producers that began behind the cut, in that segment.
    begun: BTreeSet<i64>,
}

/// A producer whose markers count.
struct Transactional {
    left: Producer,
    /// It was forgotten after its transaction had ended: only that it is open again counts.
    is_forgotten: bool,
    found: Option<Producer>,
    /// What is older is of another epoch.
    has_epoch: bool,
}

impl Transactional {
    fn new(left: Producer, is_forgotten: bool) -> Transactional {
        Transactional {
            left,
            is_forgotten,
            found: None,
            has_epoch: false,
        }
    }

    /// Takes over what a segment holds of it; true when that is enough.
    fn take_older(&mut self, older: Producer) -> bool {
        match &mut self.found {
            Some(found) => {
                self.has_epoch |= found.epoch != older.epoch;
                found.put_older(older);
            }
            None => self.found = Some(older),
        }
        let found = self.found.as_ref().expect("just set");
        let begins = |first: &SequencedBatch| first.first_sequence == 0;
        let has_batches = found.batches.len() == BATCHES_REMEMBERED
            || found.batches.front().is_some_and(begins)
            || self.has_epoch;
        found.last_marker.is_some() && has_batches
    }

    /// Retention may have taken batches that are still remembered.
    fn finish(self) -> Option<Producer> {
        let Some(mut found) = self.found else {
            let left = self.left;
            return (!left.batches.is_empty()).then_some(left);
        };
        if self.is_forgotten {
            return found.open.is_some().then_some(found);
        }
        if found.epoch == self.left.epoch {
            let first = found.batches.front().map(|batch| batch.base_offset);
            let mut left = self.left.batches;
            left.retain(|batch| first.is_none_or(|first| batch.last_offset < first));
            found.put_before(left);
        }
        Some(found)
    }
}

/// Whether there is no older batch of the same epoch: a producer begins an epoch with sequence 0. After
/// 2^31 records that may be wrong, and costs the knowledge of up to four retries.
fn is_all_of_epoch(producer: &Producer) -> bool {
    let first = producer.batches.front();
    first.is_none_or(|first| first.first_sequence == 0)
}

impl ProducerSearch {
    /// `state` is what the log remembers before it is cut, `ended` are the producers of markers that
    /// are cut off.
    fn new(state: &ProducerState, ended: &BTreeSet<i64>, cut: Offset) -> ProducerSearch {
        let (mut open, mut transactional) = (BTreeMap::new(), BTreeMap::new());
        for (id, producer) in &state.producers {
            let mut left = producer.clone();
            left.cut(cut);
            let is_cut = left.batches.len() < producer.batches.len();
            if producer.last_marker.is_some() && (is_cut || left.last_marker.is_none()) {
                transactional.insert(*id, Transactional::new(left, false));
                continue;
            }
            if !is_cut {
                continue;
            }
            // With fewer than five nothing older is known to be of this epoch.
            let has_older =
                producer.batches.len() == BATCHES_REMEMBERED && !is_all_of_epoch(producer);
            let had_epoch_before = left.batches.is_empty() && producer.epoch > 0;
            if has_older || had_epoch_before {
                open.insert(*id, left);
            }
        }
        for id in ended.iter().filter(|id| !state.knows(**id)) {
            transactional.insert(*id, Transactional::new(Producer::default(), true));
        }
        ProducerSearch {
            cut,
            open,
            transactional,
            gained: ProducerState::default(),
            segment: ProducerState::default(),
            begun: BTreeSet::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty() && self.transactional.is_empty()
    }

    /// Whether a batch is a marker that counts.
    fn wants_marker(&self, header: &BatchHeader) -> bool {
        header.attributes.is_control()
            && header.last_offset() < self.cut.0
            && self.transactional.contains_key(&header.producer_id)
    }

    /// Notes a batch of a segment, in their order, and the marker if it is one that counts.
    fn note(&mut self, header: &BatchHeader, marker: Option<&TransactionMarker>) {
        let id = header.producer_id;
        if self.transactional.contains_key(&id) {
            let offset = Offset(header.base_offset);
            if let Some(marker) = marker {
                self.segment
                    .end_transaction(marker, offset, header.max_timestamp);
            } else if header.last_offset() < self.cut.0 {
                self.segment.remember(header, offset);
            }
            return;
        }
        if header.attributes.is_control() || !self.open.contains_key(&id) {
            return;
        }
        if header.last_offset() < self.cut.0 {
            self.segment.remember(header, Offset(header.base_offset));
        } else if header.producer_epoch == 0 && header.base_sequence == 0 {
            self.begun.insert(id);
        }
    }

    /// All batches of a segment were noted; the next one is older.
    fn end_segment(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        for (id, older) in std::mem::take(&mut self.segment).producers {
            match self.transactional.get_mut(&id) {
                Some(search) => {
                    if search.take_older(older) {
                        let search = self.transactional.remove(&id).expect("just found");
                        self.settle_transactional(id, search);
                    }
                }
                None => self.take_older(id, older),
            }
        }
        for id in begun {
            if self
                .open
                .get(&id)
                .is_some_and(|known| known.batches.is_empty())
            {
                self.open.remove(&id);
            }
        }
    }

    /// Takes over what a segment holds of a producer.
    fn take_older(&mut self, id: i64, mut older: Producer) {
        let mut known = self.open.remove(&id).expect("only these are noted");
        if let Some(first) = known.batches.front() {
            if known.epoch != older.epoch {
                return self.settle(id, known);
            }
            let first = first.base_offset;
            older.batches.retain(|batch| batch.last_offset < first);
            known.put_before(older.batches);
        } else {
            // Which transaction is open is remembered of those without a marker.
            known = Producer {
                open: known.open,
                ..older
            };
        }
        if known.batches.len() == BATCHES_REMEMBERED || is_all_of_epoch(&known) {
            self.settle(id, known);
        } else {
            self.open.insert(id, known);
        }
    }

    fn settle(&mut self, id: i64, known: Producer) {
        self.gained.producers.insert(id, known);
    }

    fn settle_transactional(&mut self, id: i64, search: Transactional) {
        if let Some(known) = search.finish() {
            self.settle(id, known);
        }
    }

    /// Every producer of which something was found, or was known all along.
    fn finish(mut self) -> ProducerState {
        let open = std::mem::take(&mut self.open);
        for (id, known) in open {
            if !known.batches.is_empty() {
                self.settle(id, known);
            }
        }
        for (id, search) in std::mem::take(&mut self.transactional) {
            self.settle_transactional(id, search);
        }
        self.gained
    }
}

impl PartitionLog {
    /// What is to be remembered of producers once the log is cut, where that is more than is left of
    /// what it remembers. Nothing may be appended meanwhile.
    pub(super) async fn producers_below(&self, place: CutPlace) -> Result<ProducerState, LogError> {
        let ended = self.producers_ended_from(place).await?;
        let (mut search, segments) = {
            let state = self.state.borrow();
            let newest_first = state.segments.iter().rev();
            let segments: Vec<SegmentId> = newest_first.map(|segment| segment.id).collect();
            (
                ProducerSearch::new(&state.producers, &ended, place.offset),
                segments,
            )
        };
        for segment in segments {
            if search.is_done() || !self.note_producers(segment, &mut search).await? {
                break;
            }
            search.end_segment();
        }
        Ok(search.finish())
    }

    /// The producers of the markers behind a place.
    async fn producers_ended_from(&self, place: CutPlace) -> Result<BTreeSet<i64>, LogError> {
        let mut ended = BTreeSet::new();
        let segments: Vec<SegmentId> = {
            let state = self.state.borrow();
            let ids = state.segments.iter().map(|segment| segment.id);
            ids.skip_while(|id| *id != place.segment).collect()
        };
        for segment in segments {
            let first = segment == place.segment;
            let mut position = if first { place.position } else { 0 };
            loop {
                self.healthy()?;
                let size = self.state.borrow().segment(segment).map(|found| found.size);
                if size.is_none_or(|size| position >= size) {
                    break;
                }
                let header = match self.header_at(segment, position).await {
                    Err(LogError::OutOfRange { .. }) => break, // Retention took it.
                    header => header?,
                };
                if header.attributes.is_control() && header.has_producer_id() {
                    ended.insert(header.producer_id);
                }
                position += header.size_bytes() as u64;
                yield_if_needed().await;
            }
        }
        Ok(ended)
    }

    /// False when retention took the segment, and with it all older ones.
    async fn note_producers(
        &self,
        segment: SegmentId,
        search: &mut ProducerSearch,
    ) -> Result<bool, LogError> {
        let mut position = 0;
        loop {
            self.healthy()?;
            let size = self.state.borrow().segment(segment).map(|found| found.size);
            let Some(size) = size else {
                return Ok(false);
            };
            if position >= size {
                return Ok(true);
            }
            let header = match self.header_at(segment, position).await {
                Err(LogError::OutOfRange { .. }) => return Ok(false),
                header => header?,
            };
            let marker = match search.wants_marker(&header) {
                true => self.marker_at(segment, position, &header).await,
                false => Ok(None),
            };
            let marker = match marker {
                Err(LogError::OutOfRange { .. }) => return Ok(false),
                marker => marker?,
            };
            search.note(&header, marker.as_ref());
            position += header.size_bytes() as u64;
            yield_if_needed().await;
        }
    }

    /// The marker that a control batch holds, if it holds one.
    async fn marker_at(
        &self,
        segment: SegmentId,
        position: BytePosition,
        header: &BatchHeader,
    ) -> Result<Option<TransactionMarker>, LogError> {
        let slices = self.bytes(segment, position, header.size_bytes()).await?;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        TransactionMarker::parse(header, &bytes[HEADER_BYTES..]).map_err(|error| {
            let what = format!("the marker at byte {position}: {error}");
            self.disk_failed("reading a segment", &io::Error::other(what))
        })
    }
}
