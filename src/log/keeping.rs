//! What makes a log shorter: its start moves up, old segments go, its end is cut, it is deleted.

use std::io;

use super::entry::Entry;
use super::partition_log::{CutPlace, LogError, LogSettings, LogState, PartitionLog, PendingCut};
use super::position::{BytePosition, Offset, SegmentId};
use super::producer_state::{PRODUCER_MOST_BYTES, ProducerState};
use super::reader::FoundBatch;
use super::segment::{Segment, index_file_name, segment_file_name};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES};
use crate::runtime::disk;
use crate::runtime::signal::Promised;

impl PartitionLog {
    /// Moves the log start up, durably; segments wholly below it go. Kafka: `DeleteRecords`,
    /// retention.
    pub async fn advance_start(&self, to: Offset) -> Result<(), LogError> {
        self.healthy()?;
        let durable = {
            let mut state = self.state.borrow_mut();
            if to <= state.durable_start {
                return Ok(());
            }
            assert!(
                to <= state.end,
                "log start {to} beyond the end {}",
                state.end
            );
            state.start = state.start.max(to);
            let start = state.start;
            state.epochs.forget_before(start);
            state.transactions.forget_before(start);
            self.journal.record(&Entry::Start {
                log: self.id,
                offset: start,
            })
        };
        if durable.await.is_none() {
            return self.healthy();
        }
        {
            let mut state = self.state.borrow_mut();
            state.durable_start = state.durable_start.max(to);
        }
        self.drop_segments_below(to).await
    }

    /// Deletes the oldest segments whose time is over or that are beyond the size to keep. Kafka:
    /// `UnifiedLog.deleteOldSegments`; the largest timestamp of a segment counts, and size counts
    /// only whole segments beyond it. Nothing that is not below `committed` goes.
    pub async fn retain(&self, now_ms: i64, committed: Offset) -> Result<(), LogError> {
        if self.is_active_expired(now_ms) {
            // It is dropped at the next look, when it is sealed.
            match self.roll().await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                Err(error) => return Err(self.disk_failed("creating a segment", &error)),
            }
        }
        let most = self.flushed_offset().min(committed);
        let to = self
            .state
            .borrow()
            .retention_start(&self.settings(), now_ms);
        match to.filter(|to| *to <= most) {
            Some(to) => self.advance_start(to).await,
            None => Ok(()),
        }
    }

    /// Whether even the newest record is too old, and a new segment may be begun.
    fn is_active_expired(&self, now_ms: i64) -> bool {
        let Some(retention_ms) = self.settings().retention_ms else {
            return false;
        };
        let state = self.state.borrow();
        let active = state.segments.back().filter(|_| !state.rolling);
        active.is_some_and(|active| {
            active.size > 0
                && active.largest_timestamp_ms >= 0
                && now_ms.saturating_sub(active.largest_timestamp_ms) > retention_ms
        })
    }

    async fn drop_segments_below(&self, start: Offset) -> Result<(), LogError> {
        let mut dropped = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            // Only sealed ones: nothing is being written to them any more.
            while state.segments.len() > 1
                && state.segments[0].sealed
                && state.segments[1].base_offset <= start
            {
                let segment = state.segments.pop_front().expect("checked");
                self.cache.forget(segment.chunks.memory_bytes());
                let entry = Entry::Drop {
                    log: self.id,
                    segment: segment.id,
                };
                dropped.push((segment, self.journal.record(&entry)));
            }
        }
        let mut gone = Vec::new();
        for (segment, durable) in dropped {
            if durable.await.is_none() {
                return self.healthy();
            }
            gone.push(segment);
        }
        if self.journal.told().await.is_none() {
            return self.healthy();
        }
        // They may have been swapped in just before: then their names are still to come.
        self.swaps_settled(self.swaps_recorded()).await;
        let delay_ms = self.settings().file_delete_delay_ms;
        for mut segment in gone {
            let path = segment.path(&self.directory());
            let open = segment.file.take();
            // A run of compaction may read it by a descriptor of its own: not to be recycled then.
            let compacted = self.settings().compaction.is_some();
            let size_bytes = if compacted { 0 } else { segment.size };
            let pool = &self.home.pool;
            pool.retire(path, size_bytes, open, delay_ms).await;
            self.remove(&index_file_name(segment.base_offset)).await;
        }
        Ok(())
    }

    /// Removes the files of a segment that no entry names any more.
    async fn remove_segment_files(&self, base_offset: Offset) {
        for name in [segment_file_name(base_offset), index_file_name(base_offset)] {
            self.remove(&name).await;
        }
    }

    pub(super) async fn remove(&self, name: &str) {
        let path = self.directory().join(name);
        if let Err(error) = disk::remove_file(&path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "cannot remove");
        }
    }

    /// Cuts the log: records from `to` on are gone, durably, on return. A batch that begins before
    /// `to` and reaches beyond it goes as a whole. Nothing may be appended meanwhile.
    ///
    /// Producers are remembered as the batches that are left tell, see `producer_search.rs`.
    pub async fn truncate(&self, to: Offset) -> Result<(), LogError> {
        // Neither may find other segments than it began with.
        let _quiet = self.stop_compaction().await;
        loop {
            let rolled = self.rolled.raised();
            if !std::mem::replace(&mut self.state.borrow_mut().rolling, true) {
                break;
            }
            self.healthy()?;
            rolled.await;
        }
        let cut = self.truncate_alone(to).await;
        self.state.borrow_mut().rolling = false;
        self.rolled.raise();
        cut
    }

    async fn truncate_alone(&self, to: Offset) -> Result<(), LogError> {
        // What is on its way was promised a place; it is flushed before it goes.
        loop {
            let moved = self.mark.moved().raised();
            self.healthy()?;
            if self.flushed_offset() == self.end_offset() {
                break;
            }
            moved.await;
        }
        // Half of what one append may bring, so that the journal keeps room for a cut.
        let most_producers = self.journal.limits().append_bytes / 2 / PRODUCER_MOST_BYTES;
        let mut goes_on = true;
        while goes_on {
            self.healthy()?;
            let to = to.max(self.start_offset());
            if to >= self.end_offset() {
                break;
            }
            let step = {
                let state = self.state.borrow();
                state.producers.next_cut(to, most_producers.max(1))
            };
            goes_on = self.cut_once(step).await?;
        }
        Ok(())
    }

    /// Cuts the log at a place below its end; all of it is flushed. False when the broker stops.
    async fn cut_once(&self, to: Offset) -> Result<bool, LogError> {
        let found = self.batch_at(to, self.end_offset()).await?;
        self.healthy()?;
        let place = self.state.borrow().cut_place(to, found.as_ref());
        let (segment, position) = (place.segment, place.position);
        let producers = self.producers_below(place).await?;
        let tail = self.block_before(segment, position).await?;
        self.journal.room().await;
        self.healthy()?;
        if self.state.borrow().segment(segment).is_none() {
            return Ok(true); // Retention was faster; the place is looked for again.
        }
        let recorded = self.record_cut(place, producers);
        if is_planted(Breach::TruncateBeforeEntry) {
            let file = self.segment_file(segment).await;
            let file = file.map_err(|error| self.disk_failed("cutting a segment", &error))?;
            drop(file.set_len(position).await);
        }
        if recorded.await.is_none() || self.journal.told().await.is_none() {
            return self.healthy().map(|()| false);
        }
        // The end of a background write would move what is cut here.
        self.wait_until(|state| !state.writing).await;
        self.settle();
        self.mark.cut_direct(segment, position);
        for base_offset in self.cut_memory(place, &tail) {
            self.remove_segment_files(base_offset).await;
        }
        Ok(true)
    }

    /// Records the entries of a cut in one turn: no checkpoint comes between them.
    fn record_cut(&self, place: CutPlace, producers: ProducerState) -> Promised<()> {
        let per_entry = (self.journal.limits().group_bytes / 2 / PRODUCER_MOST_BYTES).max(1);
        for producers in producers.clone().into_parts(per_entry) {
            let log = self.id;
            drop(self.journal.record(&Entry::Producers { log, producers }));
        }
        let recorded = self.journal.record(&Entry::Truncate {
            log: self.id,
            segment: place.segment,
            position: place.position,
            offset: place.offset,
        });
        self.state.borrow_mut().pending_cut = Some(PendingCut { place, producers });
        recorded
    }

    /// Waits for rolls and background writes.
    async fn wait_until(&self, is_so: impl Fn(&LogState) -> bool) {
        loop {
            let ended = self.rolled.raised();
            if is_so(&self.state.borrow()) {
                return;
            }
            ended.await;
        }
    }

    /// The bytes of a segment before `position` in its block.
    async fn block_before(
        &self,
        segment: SegmentId,
        position: BytePosition,
    ) -> Result<Vec<u8>, LogError> {
        let before = position % BLOCK_BYTES as u64;
        let slices = self
            .bytes(segment, position - before, before as usize)
            .await?;
        Ok(slices.iter().flat_map(|slice| slice.to_vec()).collect())
    }

    /// Cuts what memory knows; the base offsets of the segments that are gone.
    fn cut_memory(&self, place: CutPlace, tail: &[u8]) -> Vec<Offset> {
        let mut buffer = AppendBuf::allocate(self.cache.limits().least_chunk_bytes);
        buffer.append(tail);
        let mut state = self.state.borrow_mut();
        let mut segments = state.segments.iter();
        let Some(index) = segments.position(|known| known.id == place.segment) else {
            return Vec::new(); // The log was deleted meanwhile.
        };
        let (unstored, memory) = state.chunk_bytes();
        let later = state.segments.split_off(index + 1);
        let active = state.active_mut();
        active.cut(place.position);
        let block = place.position - tail.len() as u64;
        let opened = (!tail.is_empty()).then(|| active.chunks.open(block, buffer));
        let pending = state.pending_cut.take();
        state.end = place.offset;
        state.flushed = place.offset;
        state.start = state.start.min(place.offset);
        state.durable_start = state.durable_start.min(place.offset);
        state.progress.cut(place.offset);
        state.epochs.cut(place.offset);
        state.producers.cut(place.offset);
        if let Some(pending) = pending {
            state.producers.restore(pending.producers);
        }
        let LogState {
            producers,
            transactions,
            completing,
            ..
        } = &mut *state;
        transactions.cut(place.offset, producers);
        // Everything was flushed before the cut.
        completing.clear();
        state.rebase = true;
        let (unstored_now, memory_now) = state.chunk_bytes();
        drop(state);
        let acknowledged = self.acknowledged.get().min(place.offset);
        self.acknowledged.set(acknowledged);
        self.cache.note_stored(unstored - unstored_now);
        if let Some(memory_bytes) = opened {
            self.cache
                .admit(self.weak.clone(), place.segment, block, memory_bytes);
        }
        self.cache.forget(memory + opened.unwrap_or(0) - memory_now);
        later.iter().map(|later| later.base_offset).collect()
    }

    /// Removes the log for good. Its name is free on return; its files go when
    /// `file.delete.delay.ms` is over.
    pub(super) async fn delete(&self) -> io::Result<()> {
        self.set_offline(LogError::Deleted);
        let created = self.state.borrow().created;
        let (unstored, memory) = {
            let mut state = self.state.borrow_mut();
            let bytes = state.chunk_bytes();
            state.unflushed.clear();
            state.segments.clear();
            bytes
        };
        self.cache.forget(memory);
        self.cache.note_stored(unstored);
        if !created {
            return Ok(());
        }
        let recorded = self.journal.record(&Entry::Delete { log: self.id });
        if recorded.await.is_none() || self.journal.told().await.is_none() {
            return Ok(());
        }
        let _quiet = self.stop_compaction().await;
        // Neither a roll nor a seal under way may find its files gone, or leave one behind.
        self.wait_until(|state| !state.writing && !state.rolling)
            .await;
        let delay_ms = self.settings().file_delete_delay_ms;
        let pool = &self.home.pool;
        pool.retire_log(&self.directory_name(), delay_ms).await
    }
}

impl LogState {
    /// Where the log is cut at `to`, which is in batch `found` or, where compaction has left a gap,
    /// before it or behind everything.
    fn cut_place(&self, to: Offset, found: Option<&FoundBatch>) -> CutPlace {
        let after = self
            .segments
            .partition_point(|segment| segment.base_offset <= to);
        let holding = &self.segments[after.saturating_sub(1)];
        match found {
            Some(batch) if batch.place().0 == holding.id => CutPlace {
                segment: holding.id,
                position: batch.place().1,
                offset: to.min(Offset(batch.header.base_offset)),
            },
            _ => CutPlace {
                segment: holding.id,
                position: holding.size,
                offset: to,
            },
        }
    }

    /// Bytes that are in no file yet, and memory of all chunks.
    fn chunk_bytes(&self) -> (usize, usize) {
        let unstored = |segment: &Segment| (segment.size - segment.stored) as usize;
        (
            self.segments.iter().map(unstored).sum(),
            self.segments
                .iter()
                .map(|segment| segment.chunks.memory_bytes())
                .sum(),
        )
    }

    /// Where the log starts when retention has done its work; none when nothing is to be done. The
    /// active segment stays.
    fn retention_start(&self, settings: &LogSettings, now_ms: i64) -> Option<Offset> {
        let mut size: u64 = self.segments.iter().map(|segment| segment.size).sum();
        let mut start = None;
        for (index, segment) in self.segments.iter().enumerate() {
            let Some(next) = self.segments.get(index + 1).filter(|_| segment.sealed) else {
                break;
            };
            let expired = settings.retention_ms.is_some_and(|retention_ms| {
                now_ms.saturating_sub(segment.largest_timestamp_ms) > retention_ms
            });
            let beyond = settings
                .retention_bytes
                .is_some_and(|keep| size - segment.size >= keep);
            if !expired && !beyond {
                break;
            }
            size -= segment.size;
            start = Some(next.base_offset);
        }
        start
    }
}
