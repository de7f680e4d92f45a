//! From the journal to the segments: background writes, sealing, and the files a checkpoint needs
//! flushed.
//!
//! One task per core and data directory calls these, for several logs side by side and never twice for
//! one, so a block of a segment never has two writes in flight. Only flushed bytes are written: the
//! groups that could restore a block are complete before the block itself is touched.

use std::io;

use super::partition_log::{LogError, LogImage, PartitionLog, is_out_of_space};
use super::position::{BytePosition, SegmentId};
use super::segment::{Segment, index_file_name};
use super::small_file;
use crate::runtime::buffer::{BLOCK_BYTES, Slice};
use crate::runtime::disk::Durability;

/// The largest single write to a segment.
const MOST_WRITE_BYTES: usize = 1 << 20;

struct StorePlan {
    segment: SegmentId,
    position: BytePosition,
    bytes: Slice,
    stored: BytePosition,
    /// It ends with a partly filled block.
    partial: bool,
}

impl PartitionLog {
    /// Writes flushed bytes to the segments: whole blocks, and the partly filled last one of each
    /// segment that is complete, or of all if `ragged`.
    pub(super) async fn store(&self, ragged: bool) -> Result<(), LogError> {
        while let Some(plan) = self.plan_store(ragged) {
            let length = plan.bytes.len() as u64;
            // In the same turn as the plan: from now on no group may overwrite the block.
            let block = (plan.segment, plan.position);
            self.mark.set_partial_write(plan.partial.then_some(block));
            self.state.borrow_mut().writing = true;
            let executed = self.execute(plan).await;
            self.mark.set_partial_write(None);
            self.end_writing();
            self.keep_pace(length).await;
            if !self.stored("writing a segment", executed)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether everything that `image` names is in the files, or was cut off by an entry that is told.
    pub(super) fn has_stored(&self, image: &LogImage) -> bool {
        self.settle();
        let state = self.state.borrow();
        let is_stored =
            |segment: &Segment, size: BytePosition| segment.stored >= size.min(segment.flushed);
        image.segments.iter().all(|named| {
            let found = state.segment(named.id);
            found.is_none_or(|segment| is_stored(segment, named.size_bytes))
        })
    }

    fn plan_store(&self, ragged: bool) -> Option<StorePlan> {
        self.settle();
        let state = self.state.borrow();
        let newest = state.segments.len().checked_sub(1)?;
        for (index, segment) in state.segments.iter().enumerate() {
            let block = BLOCK_BYTES as u64;
            let complete = index < newest && segment.flushed == segment.size;
            let end = if ragged || complete {
                segment.flushed
            } else {
                segment.flushed - segment.flushed % block
            };
            let position = segment.stored - segment.stored % block;
            // What a group writes directly is not for us, its partly filled first block included.
            let direct = self.mark.first_direct(segment.id).unwrap_or(u64::MAX);
            let end = end.min(direct);
            if segment.stored >= end {
                continue;
            }
            let slice = segment
                .chunks
                .from(position)
                .expect("what is not stored is in memory");
            let length = slice
                .len()
                .min((end - position) as usize)
                .min(MOST_WRITE_BYTES);
            let whole = length - length % BLOCK_BYTES;
            let (bytes, stored) = if whole > 0 {
                (slice.part(0..whole), position + whole as u64)
            } else {
                (
                    // The block itself goes on being appended to, so a copy is written.
                    small_file::padded(&slice[..length]),
                    position + length as u64,
                )
            };
            return Some(StorePlan {
                segment: segment.id,
                position,
                bytes,
                stored,
                partial: whole == 0,
            });
        }
        None
    }

    async fn execute(&self, plan: StorePlan) -> io::Result<()> {
        let file = self.segment_file(plan.segment).await?;
        let in_flight = self.home.pace.enter(plan.bytes.len() as u64).await;
        file.write(plan.position, plan.bytes, Durability::Volatile)
            .await?;
        drop(in_flight);
        let gained = {
            let mut state = self.state.borrow_mut();
            let Some(segment) = state.segment_mut(plan.segment) else {
                return Ok(());
            };
            let gained = plan.stored - segment.stored;
            segment.stored = plan.stored;
            segment.unsynced = true;
            segment.assert_ladder();
            gained
        };
        self.cache.note_stored(gained as usize);
        Ok(())
    }

    /// Flushes every segment file that was written to.
    pub(super) async fn sync_segments(&self) -> Result<(), LogError> {
        loop {
            let segment = {
                let mut state = self.state.borrow_mut();
                let Some(segment) = state.segments.iter_mut().find(|segment| segment.unsynced)
                else {
                    return Ok(());
                };
                segment.unsynced = false;
                segment.id
            };
            let synced = match self.segment_file(segment).await {
                Ok(file) => file.sync().await,
                Err(error) => Err(error),
            };
            if let Err(error) = synced {
                if self.is_deleted() {
                    return Ok(());
                }
                return Err(self.fail_directory("flushing a segment", &error));
            }
        }
    }

    /// Seals every complete segment: cuts the file to its end, writes its index, flushes both.
    pub(super) async fn seal_segments(&self) -> Result<(), LogError> {
        while let Some(segment) = self.next_to_seal() {
            self.state.borrow_mut().writing = true;
            let sealed = self.seal(segment).await;
            self.end_writing();
            if !self.stored("sealing a segment", sealed)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps background writes from crowding out the journal, unless appends wait for them.
    async fn keep_pace(&self, written_bytes: u64) {
        if !self.journal.is_starved() && !self.cache.is_nearly_full() {
            self.home.pace.spend(written_bytes).await;
        }
    }

    /// Gives back the memory and the descriptor of a log that nobody has used since this was last
    /// called; its last bytes go to the segment first.
    pub(super) async fn cool_down(&self) -> Result<(), LogError> {
        if self.touched.replace(false) || self.is_cold() {
            return Ok(());
        }
        self.store(true).await?;
        let memory = {
            let mut state = self.state.borrow_mut();
            // A segment that is being swapped in has no name to be opened by.
            let idle = !state.rolling
                && state.pending_cut.is_none()
                && !self.touched.get()
                && !self.is_swapping();
            let stored = |segment: &Segment| segment.stored == segment.size && !segment.extending;
            if !idle || !state.segments.iter().all(stored) {
                return Ok(());
            }
            let mut memory = 0;
            for segment in &mut state.segments {
                memory += segment.cool_down();
            }
            memory
        };
        self.cache.forget(memory);
        Ok(())
    }

    fn is_cold(&self) -> bool {
        self.state.borrow().segments.iter().all(Segment::is_cold)
    }

    fn end_writing(&self) {
        self.state.borrow_mut().writing = false;
        self.rolled.raise();
    }

    /// Whether a segment before the active one is not sealed yet.
    pub(super) fn has_complete_segment(&self) -> bool {
        let state = self.state.borrow();
        // Segments are sealed in order, so only the last ones can be open.
        state
            .segments
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|segment| !segment.sealed)
    }

    fn next_to_seal(&self) -> Option<SegmentId> {
        let state = self.state.borrow();
        let newest = state.segments.len().checked_sub(1)?;
        let mut complete = state.segments.iter().take(newest);
        complete
            .find(|segment| !segment.sealed && segment.stored == segment.size && !segment.extending)
            .map(|segment| segment.id)
    }

    async fn seal(&self, segment: SegmentId) -> io::Result<()> {
        let file = self.segment_file(segment).await?;
        let (size, base_offset, index) = {
            let state = self.state.borrow();
            let Some(found) = state.segment(segment) else {
                return Ok(());
            };
            let index = found
                .index
                .as_ref()
                .map(|index| index.to_file(found.id, found.size));
            (found.size, found.base_offset, index)
        };
        file.set_len(size).await?;
        // Whatever a failed flush says, it is no full disk that may be tried again.
        let flushed = file.full_sync().await;
        flushed.map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(index) = index {
            let path = self.directory().join(index_file_name(base_offset));
            small_file::replace(&path, &index).await?;
        }
        drop(file);
        if let Some(found) = self.state.borrow_mut().segment_mut(segment) {
            found.sealed = true;
            found.unsynced = false;
            found.index = None;
            found.close_file();
        }
        Ok(())
    }

    /// A full disk refuses blocks and keeps the rest: the journal holds the bytes until there is
    /// space. False when it failed because the log was deleted meanwhile: nothing is missed then, and
    /// nothing is left to do.
    fn stored(&self, doing: &str, outcome: io::Result<()>) -> Result<bool, LogError> {
        match outcome {
            Ok(()) => Ok(true),
            Err(_) if self.is_deleted() => Ok(false),
            Err(error) if is_out_of_space(&error) => Err(LogError::NoSpace),
            Err(error) => Err(self.fail_directory(doing, &error)),
        }
    }

    fn is_deleted(&self) -> bool {
        matches!(self.healthy(), Err(LogError::Deleted))
    }

    /// A failed write to a segment is the directory's failure: nothing in it can be trusted to
    /// become durable any more.
    pub(super) fn fail_directory(&self, doing: &str, error: &io::Error) -> LogError {
        let failed = self.disk_failed(doing, error);
        self.journal.fail(&failed.to_string());
        failed
    }
}
