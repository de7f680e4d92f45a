//! Finds in the log what is to be remembered of producers that a cut takes batches from.
//!
//! Kafka: `ProducerStateManager.truncateAndReload`. The last five batches of a producer may all lie
//! behind the cut; then those before them count, which nobody remembers any more. Segments are read
//! from the newest to the oldest, until of every such producer five batches are known, or its first.
//!
//! *Architecture Invariant*: this runs before the entry of the truncation is recorded, and the entry
//! carries the outcome: recovery never reads segments for it.

use std::collections::{BTreeMap, BTreeSet};

use super::partition_log::{LogError, PartitionLog};
use super::position::{Offset, SegmentId};
use super::producer_state::{BATCHES_REMEMBERED, Producer, ProducerState};
use crate::runtime::executor::yield_if_needed;
use crate::wire::record_batch::BatchHeader;

/// See the head of this file.
struct ProducerSearch {
    cut: Offset,
    /// What is known of the producers of which more may be found: batches below the cut.
    open: BTreeMap<i64, Producer>,
    /// Producers of which batches were found that nobody remembered.
    gained: ProducerState,
    /// The batches below the cut in the segment that is being looked at, as far as they matter.
    segment: ProducerState,
    /// Producers that began behind the cut, in that segment.
    begun: BTreeSet<i64>,
}

/// Whether there is no older batch of the same epoch: a producer begins an epoch with sequence 0. After
/// 2^31 records that may be wrong, and costs the knowledge of up to four retries.
fn is_all_of_epoch(producer: &Producer) -> bool {
    let first = producer.batches.front();
    first.is_none_or(|first| first.first_sequence == 0)
}

impl ProducerSearch {
    /// `state` is what the log remembers before it is cut.
    fn new(state: &ProducerState, cut: Offset) -> ProducerSearch {
        let mut open = BTreeMap::new();
        for (id, producer) in &state.producers {
            let mut left = producer.clone();
            left.cut(cut);
            if left.batches.len() == producer.batches.len() {
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
        ProducerSearch {
            cut,
            open,
            gained: ProducerState::default(),
            segment: ProducerState::default(),
            begun: BTreeSet::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes a batch of a segment, in their order.
    fn note(&mut self, header: &BatchHeader) {
        let id = header.producer_id;
        if !self.open.contains_key(&id) {
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
            self.take_older(id, older);
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
            known = older;
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

    /// Every producer of which something was found, or was known all along.
    fn finish(mut self) -> ProducerState {
        let open = std::mem::take(&mut self.open);
        for (id, known) in open {
            if !known.batches.is_empty() {
                self.settle(id, known);
            }
        }
        self.gained
    }
}

impl PartitionLog {
    /// What is to be remembered of producers once the log is cut, where that is more than is left of
    /// what it remembers. Nothing may be appended meanwhile.
    pub(super) async fn producers_below(&self, cut: Offset) -> Result<ProducerState, LogError> {
        let (mut search, segments) = {
            let state = self.state.borrow();
            let newest_first = state.segments.iter().rev();
            let segments: Vec<SegmentId> = newest_first.map(|segment| segment.id).collect();
            (ProducerSearch::new(&state.producers, cut), segments)
        };
        for segment in segments {
            if search.is_done() || !self.note_producers(segment, &mut search).await? {
                break;
            }
            search.end_segment();
        }
        Ok(search.finish())
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
            search.note(&header);
            position += header.size_bytes() as u64;
            yield_if_needed().await;
        }
    }
}
