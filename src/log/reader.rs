//! Reading a log: from offset or timestamp to slices of chunks.
//!
//! What is in memory is found without waiting; the rest is read with direct I/O in windows that
//! become chunks. Bytes of a segment that are not in its file are in pinned chunks, so a byte is
//! always in one of the two.

use std::io;

use smallvec::SmallVec;

use super::partition_log::{LogError, PartitionLog};
use super::position::{BytePosition, Offset, SegmentId};
use super::segment::index_file_name;
use crate::runtime::buffer::{BLOCK_BYTES, Slice};
use crate::runtime::disk;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};

/// How much one cold read brings in beyond what was asked for.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// Bytes of a log, in order.
pub type Slices = SmallVec<[Slice; 4]>;

/// A run of record batches.
#[derive(Clone, Debug, Default)]
pub struct BatchRun {
    /// The bytes; the last batch may be cut off.
    pub slices: Slices,
    /// Their number.
    pub size_bytes: usize,
}

impl BatchRun {
    /// Behind the last batch that has its header in here; `from` if none has.
    #[must_use]
    pub fn end_offset(&self, from: Offset) -> Offset {
        let (mut end, mut at) = (from, 0);
        while at + HEADER_BYTES <= self.size_bytes {
            let mut skip = at;
            let mut bytes = [0; HEADER_BYTES];
            let mut filled = 0;
            for slice in &self.slices {
                let begin = skip.min(slice.len());
                skip -= begin;
                let count = (slice.len() - begin).min(HEADER_BYTES - filled);
                bytes[filled..filled + count].copy_from_slice(&slice[begin..begin + count]);
                filled += count;
            }
            let Ok(header) = BatchHeader::parse(&bytes) else {
                // Damage, which the reader notices too: rather too far than not far enough.
                return Offset(i64::MAX);
            };
            end = Offset(header.last_offset() + 1);
            at += header.size_bytes();
        }
        end
    }
}

/// Where a batch stands.
pub(super) struct FoundBatch {
    segment: SegmentId,
    position: BytePosition,
    pub(super) header: BatchHeader,
}

impl FoundBatch {
    /// Its segment, and where it begins there.
    pub(super) fn place(&self) -> (SegmentId, BytePosition) {
        (self.segment, self.position)
    }
}

/// How a batch is looked for.
#[derive(Clone, Copy)]
enum Wanted {
    /// The first whose last offset is not below this.
    Offset(Offset),
    /// The first with this timestamp or a later one.
    Timestamp(i64),
}

impl Wanted {
    fn is_met_by(self, header: &BatchHeader) -> bool {
        match self {
            Wanted::Offset(offset) => header.last_offset() >= offset.0,
            Wanted::Timestamp(timestamp_ms) => header.max_timestamp >= timestamp_ms,
        }
    }
}

impl PartitionLog {
    /// Reads batches from the one that holds `from` on, of one segment, ending before `below`
    /// (which is at a batch boundary). The first batch comes whole if `whole_first`, whatever
    /// `most_bytes`; the last may be cut off. Empty when `from` is at `below`.
    pub async fn read(
        &self,
        from: Offset,
        below: Offset,
        most_bytes: usize,
        whole_first: bool,
    ) -> Result<BatchRun, LogError> {
        self.look(
            async || self.read_here(from, below, most_bytes, whole_first).await,
            |run| run.size_bytes == 0,
        )
        .await
    }

    /// Looks again when a swap took away the segments that were being looked at: by offset, since
    /// what is wanted is elsewhere now. Ends, since every turn needs another swap.
    async fn look<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, LogError>,
        is_nothing: impl Fn(&T) -> bool,
    ) -> Result<T, LogError> {
        loop {
            let swaps = self.swaps_recorded();
            let outcome = attempt().await;
            let found = match &outcome {
                Ok(found) => !is_nothing(found),
                Err(error) => !matches!(error, LogError::OutOfRange { .. }),
            };
            if found || swaps == self.swaps_recorded() {
                return outcome;
            }
        }
    }

    async fn read_here(
        &self,
        from: Offset,
        below: Offset,
        most_bytes: usize,
        whole_first: bool,
    ) -> Result<BatchRun, LogError> {
        self.healthy()?;
        self.touched.set(true);
        let (start, end) = (self.start_offset(), self.end_offset());
        if from < start || from > end {
            return Err(LogError::OutOfRange {
                asked: from,
                start,
                end,
            });
        }
        if from >= below {
            return Ok(BatchRun::default());
        }
        let found = self.find(Wanted::Offset(from), below).await?;
        // The log start may have moved while this waited.
        let start = self.start_offset();
        if from < start {
            return Err(LogError::OutOfRange {
                asked: from,
                start,
                end,
            });
        }
        let Some(found) = found else {
            return Ok(BatchRun::default());
        };
        let limit = self.end_of_readable(&found, below).await?;
        // The log may have been cut while this waited.
        let Some(room) = limit.checked_sub(found.position).filter(|room| *room > 0) else {
            return Ok(BatchRun::default());
        };
        let room = room as usize;
        let first = found.header.size_bytes();
        if first > most_bytes && !whole_first {
            return Ok(BatchRun::default());
        }
        let take = most_bytes.max(first).min(room);
        let slices = self.bytes(found.segment, found.position, take).await?;
        Ok(BatchRun {
            slices,
            size_bytes: take,
        })
    }

    /// The batch that holds `offset`, or the next one.
    pub(super) async fn batch_at(
        &self,
        offset: Offset,
        below: Offset,
    ) -> Result<Option<FoundBatch>, LogError> {
        self.find(Wanted::Offset(offset), below).await
    }

    /// The bytes of the first batch below `below` with a timestamp of `timestamp_ms` or more.
    pub async fn batch_at_time(
        &self,
        timestamp_ms: i64,
        below: Offset,
    ) -> Result<Option<Vec<u8>>, LogError> {
        let wanted = Wanted::Timestamp(timestamp_ms);
        let attempt = async || match self.find(wanted, below).await? {
            Some(found) => self.batch_bytes(&found).await.map(Some),
            None => Ok(None),
        };
        self.look(attempt, Option::is_none).await
    }

    /// The largest timestamp of all segments, or -1.
    #[must_use]
    pub fn largest_timestamp_ms(&self) -> i64 {
        let state = self.state.borrow();
        state
            .segments
            .iter()
            .map(|segment| segment.largest_timestamp_ms)
            .max()
            .unwrap_or(-1)
    }

    async fn batch_bytes(&self, found: &FoundBatch) -> Result<Vec<u8>, LogError> {
        let slices = self
            .bytes(found.segment, found.position, found.header.size_bytes())
            .await?;
        Ok(slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect())
    }

    async fn find(&self, wanted: Wanted, below: Offset) -> Result<Option<FoundBatch>, LogError> {
        let mut after: Option<SegmentId> = None;
        loop {
            let Some(segment) = self.candidate(wanted, after) else {
                return Ok(None);
            };
            if let Some(found) = self.find_in_segment(segment, wanted, below).await? {
                return Ok((found.header.base_offset < below.0).then_some(found));
            }
            after = Some(segment);
        }
    }

    /// The next segment that may hold what is wanted.
    fn candidate(&self, wanted: Wanted, after: Option<SegmentId>) -> Option<SegmentId> {
        let state = self.state.borrow();
        let first = match (after, wanted) {
            (Some(after), _) => {
                state
                    .segments
                    .iter()
                    .position(|segment| segment.id == after)?
                    + 1
            }
            (None, Wanted::Offset(offset)) => state
                .segments
                .partition_point(|segment| segment.base_offset <= offset)
                .saturating_sub(1),
            (None, Wanted::Timestamp(_)) => 0,
        };
        let may_hold = |segment: &&super::segment::Segment| match wanted {
            Wanted::Offset(_) => true,
            Wanted::Timestamp(timestamp_ms) => segment.largest_timestamp_ms >= timestamp_ms,
        };
        state
            .segments
            .iter()
            .skip(first)
            .find(may_hold)
            .map(|segment| segment.id)
    }

    async fn find_in_segment(
        &self,
        segment: SegmentId,
        wanted: Wanted,
        below: Offset,
    ) -> Result<Option<FoundBatch>, LogError> {
        self.load_index(segment).await?;
        let (mut position, start) = {
            let state = self.state.borrow();
            let Some(found) = state.segment(segment) else {
                return Ok(None);
            };
            let index = found.index.as_ref().expect("loaded above");
            let position = match wanted {
                Wanted::Offset(offset) => index.position_of(offset),
                Wanted::Timestamp(timestamp_ms) => index.position_of_timestamp(timestamp_ms),
            };
            (position, state.start)
        };
        loop {
            let size = self
                .state
                .borrow()
                .segment(segment)
                .map_or(0, |segment| segment.size);
            if position >= size {
                return Ok(None);
            }
            let header = self.header_at(segment, position).await?;
            if header.base_offset >= below.0 {
                return Ok(None);
            }
            if header.last_offset() >= start.0 && wanted.is_met_by(&header) {
                return Ok(Some(FoundBatch {
                    segment,
                    position,
                    header,
                }));
            }
            position += header.size_bytes() as u64;
        }
    }

    /// Where reading a segment for a reader that may see up to `below` ends.
    async fn end_of_readable(
        &self,
        found: &FoundBatch,
        below: Offset,
    ) -> Result<BytePosition, LogError> {
        self.settle();
        let (scan_from, size) = {
            let state = self.state.borrow();
            let index = state
                .segments
                .iter()
                .position(|segment| segment.id == found.segment);
            let Some(index) = index else {
                return Err(LogError::OutOfRange {
                    asked: below,
                    start: state.start,
                    end: state.end,
                });
            };
            let segment = &state.segments[index];
            let next = state
                .segments
                .get(index + 1)
                .map_or(state.end, |next| next.base_offset);
            if below >= next {
                return Ok(segment.size);
            }
            if below == state.flushed {
                return Ok(segment.flushed);
            }
            let index = segment.index.as_ref();
            let scan_from = index.map_or(0, |index| index.position_of(below));
            (scan_from, segment.size)
        };
        let mut position = scan_from.max(found.position);
        // Compaction may have dropped all that was behind `below` in the segment.
        while position < size {
            let header = self.header_at(found.segment, position).await?;
            if header.base_offset >= below.0 {
                break;
            }
            position += header.size_bytes() as u64;
        }
        Ok(position)
    }

    /// The header of the batch that begins at `position`; damage takes the log out of service.
    pub(super) async fn header_at(
        &self,
        segment: SegmentId,
        position: BytePosition,
    ) -> Result<BatchHeader, LogError> {
        let in_memory = {
            let state = self.state.borrow();
            state
                .segment(segment)
                .and_then(|segment| segment.chunks.from(position))
        };
        let parsed = match in_memory {
            Some(slice) if slice.len() >= HEADER_BYTES => BatchHeader::parse(&slice),
            _ => {
                let slices = self.bytes(segment, position, HEADER_BYTES).await?;
                let joined: SmallVec<[u8; HEADER_BYTES]> = slices
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                BatchHeader::parse(&joined)
            }
        };
        parsed.map_err(|error| {
            let what = format!("no batch at byte {position}: {error}");
            self.read_failed(segment, &io::Error::other(what))
        })
    }

    /// `length` bytes of a segment from `position` on.
    pub(super) async fn bytes(
        &self,
        segment: SegmentId,
        position: BytePosition,
        length: usize,
    ) -> Result<Slices, LogError> {
        let mut slices = Slices::new();
        let end = position + length as u64;
        let mut at = position;
        while at < end {
            let in_memory = {
                let state = self.state.borrow();
                let Some(segment) = state.segment(segment) else {
                    return Err(LogError::OutOfRange {
                        asked: state.start,
                        start: state.start,
                        end: state.end,
                    });
                };
                segment.chunks.from(at)
            };
            let slice = match in_memory {
                Some(slice) => slice,
                None => self
                    .read_cold(segment, at, end)
                    .await
                    .map_err(|error| self.read_failed(segment, &error))?,
            };
            let here = slice.len().min((end - at) as usize);
            slices.push(slice.part(0..here));
            at += here as u64;
        }
        Ok(slices)
    }

    /// A segment that was removed while it was read is no failure of the disk.
    fn read_failed(&self, segment: SegmentId, error: &io::Error) -> LogError {
        let state = self.state.borrow();
        if state.segment(segment).is_none() {
            return LogError::OutOfRange {
                asked: state.start,
                start: state.start,
                end: state.end,
            };
        }
        drop(state);
        self.disk_failed("reading a segment", error)
    }

    /// Reads from the file what is not in memory at `at`, and keeps it as a chunk.
    async fn read_cold(
        &self,
        segment: SegmentId,
        at: BytePosition,
        end: BytePosition,
    ) -> io::Result<Slice> {
        let block = BLOCK_BYTES as u64;
        let begin = at - at % block;
        let (stop, stored, keep_below, cuts) = {
            let state = self.state.borrow();
            let found = state.segment(segment).ok_or_else(gone)?;
            let most = self.cache.limits().most_chunk_bytes as u64;
            let window = (end + READ_AHEAD_BYTES).min(begin + most);
            let stop = window.max(at + 1).next_multiple_of(block);
            let next = found.chunks.next_start(begin).unwrap_or(u64::MAX);
            // The ragged last block of the active segment is opened by appends, never kept here.
            let keep_below = if found.id == state.segments.back().ok_or_else(gone)?.id {
                found.stored - found.stored % block
            } else {
                found.stored
            };
            (
                stop.min(next).min(found.stored.next_multiple_of(block)),
                found.stored,
                keep_below,
                found.cuts,
            )
        };
        if begin >= stop || at >= stored {
            return Err(io::Error::other(format!(
                "byte {at} is neither in memory nor stored"
            )));
        }
        let file = self.segment_file(segment).await?;
        let bytes = file.read(begin, (stop - begin) as usize).await?;
        let valid = bytes.len().min((stored - begin) as usize);
        if begin + valid as u64 <= at {
            return Err(io::Error::other(format!("the file ends before byte {at}")));
        }
        let kept = valid.min(keep_below.saturating_sub(begin) as usize);
        self.keep_chunk((segment, cuts), begin, bytes.part(0..kept));
        Ok(bytes.part((at - begin) as usize..valid))
    }

    /// Brings the index of a sealed segment into memory; rebuilds it when it is missing or damaged.
    async fn load_index(&self, segment: SegmentId) -> Result<(), LogError> {
        let (id, size, base_offset) = {
            let state = self.state.borrow();
            match state.segment(segment) {
                Some(found) if found.index.is_none() => (found.id, found.size, found.base_offset),
                _ => return Ok(()),
            }
        };
        let path = self.directory().join(index_file_name(base_offset));
        let index = match read_index_file(&path).await {
            Ok(bytes) => super::index::SparseIndex::from_file(&bytes, id, size, base_offset),
            Err(_) => None,
        };
        let index = match index {
            Some(index) => index,
            None => self.rebuild_index(segment, base_offset, size).await?,
        };
        if let Some(found) = self.state.borrow_mut().segment_mut(segment) {
            found.index.get_or_insert(index);
        }
        Ok(())
    }

    async fn rebuild_index(
        &self,
        segment: SegmentId,
        base_offset: Offset,
        size: u64,
    ) -> Result<super::index::SparseIndex, LogError> {
        tracing::warn!(directory = %self.directory().display(), %base_offset,
            "rebuilding the index of a segment");
        let settings = self.settings();
        let mut index = super::index::SparseIndex::new(
            base_offset,
            settings.index_interval_bytes,
            settings.index_most_entries,
        );
        let (mut position, mut largest_ms) = (0, super::segment::NO_TIMESTAMP_MS);
        while position < size {
            let header = self.header_at(segment, position).await?;
            index.note(Offset(header.base_offset), position, largest_ms);
            largest_ms = largest_ms.max(header.max_timestamp);
            position += header.size_bytes() as u64;
        }
        Ok(index)
    }
}

fn gone() -> io::Error {
    io::Error::other("the segment was removed")
}

/// An index file, whose length is padded to whole blocks.
async fn read_index_file(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let file = disk::open(path).await?;
    let size = file.len().await?;
    let padded = (size as usize).next_multiple_of(BLOCK_BYTES);
    let bytes = file.read(0, padded).await?;
    Ok(bytes[..bytes.len().min(size as usize)].to_vec())
}
