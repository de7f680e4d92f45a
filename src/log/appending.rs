//! Appending to a log: room, rolls, the one copy into the tail, and the entry for the journal.

use std::io;
use std::rc::Rc;

use smallvec::SmallVec;

use super::chunk_cache::ChunkCache;
use super::entry::Entry;
use super::flush_mark::FlushMark;
use super::group_queue::{DirectTarget, PendingAppend};
use super::index::SparseIndex;
use super::partition_log::{Appended, LogError, LogSettings, LogState, PartitionLog, Unflushed};
use super::position::{AppendedBytes, BytePosition, LeaderEpoch, LogId, Offset, SegmentId};
use super::segment::{Segment, segment_file_name};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES};
use crate::runtime::disk::{File, Placement};
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_u64;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// Steps in which blocks are allocated ahead.
const LEAST_STEP_BYTES: u64 = 64 << 10;
const MOST_STEP_BYTES: u64 = 64 << 20;

impl PartitionLog {
    /// Waits until a batch of `size_bytes` with `records` may be appended: for memory, for the
    /// journal, and for a segment with room. `timestamp_ms` is the batch's largest: a segment's age
    /// is what lies between it and the segment's first (Kafka: `LogSegment.timeWaitedForRoll`). Call
    /// [`PartitionLog::append`] without awaiting between.
    pub async fn ready(
        &self,
        size_bytes: usize,
        records: i64,
        timestamp_ms: i64,
    ) -> Result<(), LogError> {
        loop {
            self.healthy()?;
            self.journal.room().await;
            self.cache.room(|| self.healthy().is_err()).await;
            self.healthy()?;
            let wait = self.rolled.raised();
            let step =
                self.state
                    .borrow()
                    .next_step(&self.settings(), size_bytes, records, timestamp_ms);
            match step {
                Step::Append => match self.plan_blocks(size_bytes) {
                    Some(unopened) => self.open_active(unopened).await?,
                    None => return Ok(()),
                },
                Step::Wait => wait.await,
                Step::Roll => {
                    if let Err(error) = self.roll().await {
                        if error.kind() == io::ErrorKind::StorageFull {
                            return Err(LogError::NoSpace);
                        }
                        return Err(self.disk_failed("creating a segment", &error));
                    }
                }
                Step::LoadTail => {
                    if let Err(error) = self.load_tail().await {
                        return Err(self.disk_failed("reading the end of the log", &error));
                    }
                }
            }
        }
    }

    /// Appends a batch that validation and [`PartitionLog::check_sequence`] have let pass, right
    /// after [`PartitionLog::ready`]. On return its order is fixed; it is durable when
    /// [`PartitionLog::flushed_offset`] reaches the returned end.
    ///
    /// # Panics
    /// When the batch is longer or shorter than its header says.
    pub fn append(&self, header: &BatchHeader, payload: &[u8], epoch: LeaderEpoch) -> Appended {
        self.append_at(header, payload, epoch, self.end_offset())
    }

    /// Appends a batch of the leader's log, which fixed its offsets and epoch; right after
    /// [`PartitionLog::ready`] with the records from this log's end to the batch's. Where the leader
    /// has nothing before it (compaction), neither has this log.
    ///
    /// # Panics
    /// When the batch begins below the end of the log.
    pub fn append_replicated(&self, header: &BatchHeader, payload: &[u8]) -> Appended {
        let base_offset = Offset(header.base_offset);
        let end = self.end_offset();
        assert!(
            base_offset >= end,
            "a batch at {base_offset} is below the end {end}"
        );
        if base_offset > end {
            self.state.borrow_mut().end = base_offset;
            let entry = Entry::Skip {
                log: self.id,
                to: base_offset,
            };
            drop(self.journal.record(&entry));
        }
        let epoch = LeaderEpoch(header.partition_leader_epoch);
        self.append_at(header, payload, epoch, base_offset)
    }

    /// Lets the log end at a later offset, with nothing between: what the leader had there is gone.
    /// Nothing may be appended meanwhile.
    pub async fn skip_to(&self, to: Offset) -> Result<(), LogError> {
        loop {
            let moved = self.mark.moved().raised();
            self.healthy()?;
            if self.flushed_offset() == self.end_offset() {
                break;
            }
            moved.await;
        }
        if self.state.borrow().segments.is_empty()
            && let Err(error) = self.roll().await
        {
            return match error.kind() {
                io::ErrorKind::StorageFull => Err(LogError::NoSpace),
                _ => Err(self.disk_failed("creating a segment", &error)),
            };
        }
        let durable = {
            let mut state = self.state.borrow_mut();
            assert!(to >= state.end, "a log skips ahead to {to}");
            state.end = to;
            state.flushed = to;
            self.journal.record(&Entry::Skip { log: self.id, to })
        };
        match durable.await {
            Some(()) => Ok(()),
            None => self.healthy(),
        }
    }

    fn append_at(
        &self,
        header: &BatchHeader,
        payload: &[u8],
        epoch: LeaderEpoch,
        base_offset: Offset,
    ) -> Appended {
        let size_bytes = header.size_bytes();
        assert!(
            HEADER_BYTES + payload.len() == size_bytes,
            "{} bytes behind a header that says {size_bytes}",
            payload.len()
        );
        self.touched.set(true);
        let marker = TransactionMarker::parse(header, payload);
        let marker = marker.expect("no client writes markers, and ours are whole");
        let mut state = self.state.borrow_mut();
        if state.epochs.begin(epoch, base_offset) {
            let entry = Entry::Epoch {
                log: self.id,
                epoch,
                start: base_offset,
            };
            drop(self.journal.record(&entry));
        }
        let placed = header.placed(base_offset.0, epoch.0);
        let next = Offset(base_offset.0 + i64::from(header.last_offset_delta) + 1);
        let opened = state.copy(&[&placed, payload], &self.cache);
        let producers_max = self.settings().producers_max;
        state.note_producer(header, base_offset, marker.as_ref(), producers_max);
        state.note(header, base_offset, size_bytes);
        let appended = AppendedBytes(state.appended.0 + size_bytes as u64);
        state.appended = appended;
        let append = state.entry(self.id, &self.mark, size_bytes, marker.is_some());
        let segment = append.segment;
        let end_position = state.active().size;
        state.unflushed.push_back(Unflushed {
            appended,
            next_offset: next,
            segment,
            position: end_position,
        });
        assert!(next > state.end, "offsets grow: {next} after {}", state.end);
        state.end = next;
        drop(state);
        for (position, memory_bytes) in opened {
            self.cache
                .admit(self.weak.clone(), segment, position, memory_bytes);
        }
        self.cache.note_appended(size_bytes);
        self.journal.append(append);
        self.cache.trim();
        Appended {
            base_offset,
            end: next,
        }
    }

    /// Sees to it that blocks are allocated ahead of a log with a large flow, so that these can be
    /// written straight to the segment. Extending goes on beside the appends, which travel in the
    /// journal until it is done. A segment whose file must be opened first is returned.
    fn plan_blocks(&self, size_bytes: usize) -> Option<SegmentId> {
        let least = self.journal.limits().direct_busy_bytes / 2;
        let is_large = size_bytes >= least;
        let busy_bytes = self.home.pool.limits().busy_segment_bytes;
        let segment_bytes = self.settings().segment_bytes;
        let mut state = self.state.borrow_mut();
        let is_busy = is_large || state.active().size >= busy_bytes;
        match state.plan_blocks(size_bytes, is_busy, segment_bytes) {
            BlockPlan::Enough => None,
            BlockPlan::Open(segment) => Some(segment),
            BlockPlan::Extend(segment, file, target) => {
                if let Some(log) = self.weak.upgrade() {
                    spawn(Queue::Background, log.extend_blocks(segment, file, target));
                }
                None
            }
        }
    }

    async fn open_active(&self, segment: SegmentId) -> Result<(), LogError> {
        let opened = match self.segment_file(segment).await {
            Ok(file) => file.len().await,
            Err(error) => Err(error),
        };
        if self.healthy().is_err() {
            return self.healthy(); // Deleted meanwhile.
        }
        let length = opened.map_err(|error| self.disk_failed("opening a segment", &error))?;
        if let Some(segment) = self.state.borrow_mut().segment_mut(segment) {
            segment.allocated = length - length % BLOCK_BYTES as u64;
        }
        Ok(())
    }

    async fn extend_blocks(self: Rc<Self>, segment: SegmentId, file: File, target: BytePosition) {
        let extended = match file.allocate(target).await {
            // The new length is durable before a write relies on it.
            Ok(()) => file.full_sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &extended {
            // Nothing is lost: the appends travel in the journal.
            tracing::warn!(directory = %self.directory().display(), %error,
                "cannot allocate blocks ahead");
        }
        if let Some(segment) = self.state.borrow_mut().segment_mut(segment) {
            segment.extending = false;
            if extended.is_ok() {
                segment.allocated = segment.allocated.max(target);
            }
        }
        if self.has_complete_segment() {
            // Sealing may have waited for this.
            self.journal.note_roll();
        }
    }

    /// Creates the next segment: its file and the names of it are durable before an entry of the
    /// journal speaks of it.
    pub(super) async fn roll(&self) -> io::Result<()> {
        let (base_offset, created) = {
            let mut state = self.state.borrow_mut();
            state.rolling = true;
            (state.end, state.created)
        };
        let created_file = match self.create_segment_file(base_offset, created).await {
            Ok(file) => file.len().await.map(|length| (file, length)),
            Err(error) => Err(error),
        };
        let mut state = self.state.borrow_mut();
        state.rolling = false;
        self.rolled.raise();
        let (file, allocated) = created_file?;
        if self.healthy().is_err() {
            return Ok(()); // The log was deleted meanwhile; nothing may speak of it after that.
        }
        if !state.created {
            let entry = Entry::Create {
                log: self.id,
                directory: &self.directory_name(),
            };
            drop(self.journal.record(&entry));
            state.created = true;
        }
        let segment = SegmentId(random_u64());
        drop(self.journal.record(&Entry::Roll {
            log: self.id,
            segment,
            base_offset,
        }));
        let settings = self.settings();
        let index = SparseIndex::new(
            base_offset,
            settings.index_interval_bytes,
            settings.index_most_entries,
        );
        assert!(
            base_offset == state.end,
            "nothing is appended while a segment is created"
        );
        if !state.segments.is_empty() {
            self.journal.note_roll();
        }
        let mut segment = Segment::create(segment, base_offset, index, file);
        segment.allocated = allocated - allocated % BLOCK_BYTES as u64;
        segment.written = segment.allocated;
        state.segments.push_back(segment);
        Ok(())
    }

    /// Makes the file of the next segment, durable by name, and the log's directory if this is the
    /// first one. A log with a large flow gets a recycled file, if there is one.
    async fn create_segment_file(&self, base_offset: Offset, created: bool) -> io::Result<File> {
        let is_busy = {
            let state = self.state.borrow();
            let last = state.segments.back();
            let busy_bytes = self.home.pool.limits().busy_segment_bytes;
            last.is_some_and(|last| last.size >= busy_bytes)
        };
        let recycled = is_busy.then(|| self.home.pool.take()).flatten();
        let mut makes_directory = !created;
        let mut attempts = 0;
        loop {
            let placement = Placement {
                path: self.directory().join(segment_file_name(base_offset)),
                makes_directory,
                from: recycled.as_ref().map(|recycled| recycled.path.clone()),
            };
            match self.home.naming.place(placement).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && makes_directory => {
                    // A deleted topic of the same name may still hold the plain name; then the
                    // topic's id makes another one. That one, if it exists, is ours.
                    makes_directory = attempts == 0;
                    if makes_directory {
                        let id = crc32c::crc32c(&self.id.topic);
                        let name = format!("{}.{id:08x}", self.directory_name());
                        *self.directory_name.borrow_mut() = name.into();
                    }
                    attempts += 1;
                }
                placed => return placed,
            }
        }
    }

    /// Brings the partly filled last block back into memory.
    async fn load_tail(&self) -> io::Result<()> {
        let (segment, size) = {
            let mut state = self.state.borrow_mut();
            state.rolling = true;
            let active = state.active();
            (active.id, active.size)
        };
        let block = size - size % BLOCK_BYTES as u64;
        let read = match self.segment_file(segment).await {
            Ok(file) => file.read(block, BLOCK_BYTES).await,
            Err(error) => Err(error),
        };
        let mut state = self.state.borrow_mut();
        state.rolling = false;
        self.rolled.raise();
        let bytes = read?;
        let filled = (size - block) as usize;
        if bytes.len() < filled {
            return Err(io::Error::other(format!(
                "the file ends before byte {size}"
            )));
        }
        let mut buffer = AppendBuf::allocate(self.cache.limits().least_chunk_bytes);
        buffer.append(&bytes[..filled]);
        let Some(active) = state.segment_mut(segment) else {
            return Ok(()); // The log was deleted meanwhile.
        };
        let memory_bytes = active.chunks.open(block, buffer);
        drop(state);
        self.cache
            .admit(self.weak.clone(), segment, block, memory_bytes);
        Ok(())
    }
}

/// What is to be done for direct writes to the active segment.
enum BlockPlan {
    Enough,
    Open(SegmentId),
    Extend(SegmentId, File, BytePosition),
}

enum Step {
    Append,
    Wait,
    Roll,
    LoadTail,
}

impl LogState {
    fn next_step(
        &self,
        settings: &LogSettings,
        size_bytes: usize,
        records: i64,
        timestamp_ms: i64,
    ) -> Step {
        if self.rolling {
            return Step::Wait;
        }
        let Some(active) = self.segments.back() else {
            return Step::Roll;
        };
        let full = active.size > 0 && active.size + size_bytes as u64 > settings.segment_bytes;
        let aged = active.size > 0
            && active.first_timestamp_ms >= 0
            && timestamp_ms.saturating_sub(active.first_timestamp_ms) > settings.segment_ms;
        let far = self.end.0 + records - active.base_offset.0 > i64::from(i32::MAX);
        if full || aged || far || active.sealed {
            return Step::Roll;
        }
        let ragged = !active.size.is_multiple_of(BLOCK_BYTES as u64);
        if ragged && !active.chunks.is_open_at(active.size) {
            return Step::LoadTail;
        }
        Step::Append
    }

    /// Plans the next step of the allocation: as much as the segment holds, between 64 KiB and
    /// 64 MiB, once less than half a step is left.
    fn plan_blocks(&mut self, size_bytes: usize, is_busy: bool, segment_bytes: u64) -> BlockPlan {
        let active = self.active_mut();
        if active.extending || !is_busy {
            return BlockPlan::Enough;
        }
        let Some(file) = &active.file else {
            return BlockPlan::Open(active.id);
        };
        let step = active.size.clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES);
        let most = segment_bytes.next_multiple_of(BLOCK_BYTES as u64);
        let needed = active.size + size_bytes as u64 + step / 2;
        if active.allocated >= needed.min(most) {
            return BlockPlan::Enough;
        }
        let target = (active.size + size_bytes as u64 + step)
            .next_multiple_of(BLOCK_BYTES as u64)
            .min(most);
        active.extending = true;
        BlockPlan::Extend(active.id, file.clone(), target)
    }

    /// Copies a batch into the tail, opening chunks as needed; the chunks opened.
    fn copy(
        &mut self,
        pieces: &[&[u8]],
        cache: &ChunkCache,
    ) -> SmallVec<[(BytePosition, usize); 2]> {
        let mut opened = SmallVec::new();
        let active = self.active_mut();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                if active.chunks.tail(active.size).is_none() {
                    let newest_bytes = active.chunks.newest_memory_bytes();
                    let bytes = cache.next_chunk_bytes(newest_bytes, rest.len());
                    let memory = active.chunks.open(active.size, AppendBuf::allocate(bytes));
                    opened.push((active.size, memory));
                }
                let tail = active.chunks.tail(active.size).expect("opened above");
                let here = rest.len().min(tail.remaining());
                tail.append(&rest[..here]);
                active.size += here as u64;
                rest = &rest[here..];
            }
        }
        opened
    }

    /// Notes what a batch says of its producer and its transaction.
    fn note_producer(
        &mut self,
        header: &BatchHeader,
        base_offset: Offset,
        marker: Option<&TransactionMarker>,
        producers_max: usize,
    ) {
        let transactions = &mut self.transactions;
        let completed = transactions.note(&mut self.producers, header, base_offset, marker);
        self.completing.extend(completed);
        self.producers.forget_down_to(producers_max);
    }

    /// Notes a batch of `size` bytes just copied to the end of the active segment.
    fn note(&mut self, header: &BatchHeader, base_offset: Offset, size: usize) {
        let active = self.active_mut();
        let position = active.size - size as u64;
        let before_ms = active.largest_timestamp_ms;
        if let Some(index) = &mut active.index {
            index.note(base_offset, position, before_ms);
        }
        if position == 0 {
            active.first_timestamp_ms = header.max_timestamp;
        }
        active.largest_timestamp_ms = before_ms.max(header.max_timestamp);
    }

    /// The entry for the last `length` bytes of the active segment; it begins at the block's
    /// boundary if the log was checkpointed since the last one. Markers always travel in the journal:
    /// recovery reads what they say.
    fn entry(
        &mut self,
        log: LogId,
        mark: &Rc<FlushMark>,
        length: usize,
        is_marker: bool,
    ) -> PendingAppend {
        let rebase = std::mem::replace(&mut self.rebase, false);
        let overwrite_after = if rebase {
            self.image_at = self.appended;
            AppendedBytes(u64::MAX)
        } else {
            self.image_at
        };
        let active = self.active();
        let begin = active.size - length as u64;
        let boundary = begin - begin % BLOCK_BYTES as u64;
        let position = if rebase { boundary } else { begin };
        let mut at = boundary;
        let mut bytes = SmallVec::new();
        while at < active.size {
            let slice = active
                .chunks
                .from(at)
                .expect("what is not stored is in memory");
            at += slice.len() as u64;
            bytes.push(slice);
        }
        let is_direct = active.allocated > 0 && !is_marker;
        let file = active.file.as_ref().filter(|_| is_direct);
        PendingAppend {
            log,
            segment: active.id,
            position,
            begin,
            length: (active.size - position) as usize,
            bytes,
            mark: mark.clone(),
            appended: self.appended,
            batches: 1,
            direct: file.map(|file| DirectTarget {
                file: file.clone(),
                allocated: active.allocated,
                written: active.written,
                overwrite_after,
            }),
        }
    }
}
