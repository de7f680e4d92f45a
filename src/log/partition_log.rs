//! One append-only log: segments, the tail in memory, and how far it is durable.
//!
//! Decisions are plain functions over the state in one `RefCell`; waiting happens in the `async`
//! functions here and in `reader.rs` and `storing.rs`, which take no borrow across an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use smallvec::SmallVec;

use super::chunk_cache::{ChunkCache, Eviction};
use super::entry::Entry;
use super::index::SparseIndex;
use super::journal::{FlushMark, Journal};
use super::leader_epochs::LeaderEpochs;
use super::position::{AppendedBytes, BytePosition, LeaderEpoch, LogId, Offset, SegmentId};
use super::producer_state::{ProducerState, SequenceCheck};
use super::segment::{Segment, SegmentImage};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use crate::runtime::clock;
use crate::runtime::disk;
use crate::runtime::random::random_u64;
use crate::runtime::signal::Signal;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};

/// The live settings of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`, less this log's share of `segment.jitter.ms`
    pub segment_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u64,
    /// Entries at which an index thins out; smaller only in tests.
    pub index_most_entries: usize,
    /// `retention.ms`; none keeps records for ever, or the topic does not delete.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; none keeps any number of them.
    pub retention_bytes: Option<u64>,
    /// Idempotent producers remembered.
    pub producers_max: usize,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: i64,
}

/// Why a log does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The disk failed or lost what it promised.
    #[error("log is offline: {0}")]
    Offline(Rc<str>),
    /// The log was deleted.
    #[error("log is deleted")]
    Deleted,
    /// The disk has no space for another segment; everything else goes on.
    #[error("the disk is full")]
    NoSpace,
    /// The offset is below the log start or beyond the end.
    #[error("offset {asked} is outside {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// The log start.
        start: Offset,
        /// The log end.
        end: Offset,
    },
}

/// Whether a disk said that it is full, which passes: what was refused may be tried again, since
/// blocks were refused and none is in an unknown state. Not so of a flush, which is never retried.
#[must_use]
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A log as a checkpoint knows it, with everything recovery needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogImage {
    /// Which log.
    pub id: LogId,
    /// Name of its directory below the data directory.
    pub directory: String,
    /// First offset that may be read.
    pub start: Offset,
    /// The next offset to be assigned.
    pub end: Offset,
    /// All segments, oldest first; the last one is active.
    pub segments: Vec<SegmentImage>,
    /// Which leader wrote what.
    pub epochs: LeaderEpochs,
    /// Idempotent producers.
    pub producers: ProducerState,
    /// Why the log must not be served, found at recovery.
    pub damage: Option<String>,
}

impl LogImage {
    /// A log that holds nothing yet.
    #[must_use]
    pub fn empty(id: LogId, directory: &str) -> LogImage {
        LogImage {
            id,
            directory: directory.into(),
            start: Offset(0),
            end: Offset(0),
            segments: Vec::new(),
            epochs: LeaderEpochs::default(),
            producers: ProducerState::default(),
            damage: None,
        }
    }
}

struct Unflushed {
    appended: AppendedBytes,
    next_offset: Offset,
    segment: SegmentId,
    position: BytePosition,
}

pub(super) struct LogState {
    pub(super) segments: VecDeque<Segment>,
    pub(super) start: Offset,
    /// The log start that survives a crash.
    durable_start: Offset,
    pub(super) end: Offset,
    pub(super) flushed: Offset,
    appended: AppendedBytes,
    unflushed: VecDeque<Unflushed>,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    /// The journal or the checkpoint knows the log.
    created: bool,
    rolling: bool,
    /// The next entry begins at the boundary of the block that is partly filled: no complete group
    /// since the last checkpoint holds that block's beginning.
    rebase: bool,
}

/// See the head of this file.
pub struct PartitionLog {
    id: LogId,
    data_directory: PathBuf,
    /// Settled when the first segment is created; see `claim_directory`.
    directory_name: RefCell<Rc<str>>,
    pub(super) journal: Rc<Journal>,
    pub(super) cache: Rc<ChunkCache>,
    settings: Cell<LogSettings>,
    mark: Rc<FlushMark>,
    pub(super) state: RefCell<LogState>,
    rolled: Signal,
    offline: RefCell<Option<LogError>>,
    /// What recovery or the scrubber found; it outlives restarts, unlike an error of the disk.
    damage: RefCell<Option<String>>,
    weak: Weak<PartitionLog>,
}

/// Where a batch came to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The log end after it; the batch is durable when the flushed offset reaches this.
    pub end: Offset,
}

impl PartitionLog {
    /// Opens a log that recovery found, or a new one.
    #[must_use]
    pub fn open(
        data_directory: &Path,
        image: LogImage,
        journal: &Rc<Journal>,
        cache: &Rc<ChunkCache>,
        settings: LogSettings,
    ) -> Rc<PartitionLog> {
        let created = !image.segments.is_empty() || image.end.0 > 0;
        let state = LogState {
            segments: image
                .segments
                .into_iter()
                .map(Segment::from_image)
                .collect(),
            start: image.start,
            durable_start: image.start,
            end: image.end,
            flushed: image.end,
            appended: AppendedBytes(0),
            unflushed: VecDeque::new(),
            epochs: image.epochs,
            producers: image.producers,
            created,
            rolling: false,
            rebase: true,
        };
        let offline = image
            .damage
            .as_deref()
            .map(|damage| LogError::Offline(damage.into()));
        Rc::new_cyclic(|weak| PartitionLog {
            id: image.id,
            data_directory: data_directory.to_path_buf(),
            directory_name: RefCell::new(image.directory.into()),
            journal: journal.clone(),
            cache: cache.clone(),
            settings: Cell::new(settings),
            mark: Rc::default(),
            state: RefCell::new(state),
            rolled: Signal::default(),
            offline: RefCell::new(offline),
            damage: RefCell::new(image.damage),
            weak: weak.clone(),
        })
    }

    /// Which log this is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The name of its directory.
    #[must_use]
    pub fn directory_name(&self) -> Rc<str> {
        self.directory_name.borrow().clone()
    }

    /// Where its segments are.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.data_directory.join(&**self.directory_name.borrow())
    }

    /// Changes the live settings.
    pub fn set_settings(&self, settings: LogSettings) {
        self.settings.set(settings);
    }

    /// The live settings.
    #[must_use]
    pub fn settings(&self) -> LogSettings {
        self.settings.get()
    }

    /// Fails when the log does not serve.
    pub fn healthy(&self) -> Result<(), LogError> {
        if let Some(error) = &*self.offline.borrow() {
            return Err(error.clone());
        }
        match self.journal.failure() {
            Some(reason) => Err(LogError::Offline(reason)),
            None => Ok(()),
        }
    }

    /// Takes this log out of service.
    pub fn set_offline(&self, error: LogError) {
        self.offline.borrow_mut().get_or_insert(error);
        self.mark.moved().raise();
        self.rolled.raise();
        self.cache.wake();
    }

    /// Takes this log out of service until an operator repairs it; the next checkpoint makes that
    /// durable.
    pub(super) fn set_damage(&self, what: String) {
        let what = self.damage.borrow_mut().get_or_insert(what).clone();
        self.set_offline(LogError::Offline(what.into()));
    }

    /// First offset that may be read.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.state.borrow().start
    }

    /// The next offset to be assigned.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.state.borrow().end
    }

    /// Everything below this offset is durable.
    #[must_use]
    pub fn flushed_offset(&self) -> Offset {
        let mut state = self.state.borrow_mut();
        state.settle(self.mark.flushed());
        state.flushed
    }

    /// Raised when the flushed offset may have moved or the log stopped serving.
    #[must_use]
    pub fn flush_moved(&self) -> &Signal {
        self.mark.moved()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state
            .borrow()
            .segments
            .iter()
            .map(|segment| segment.size)
            .sum()
    }

    /// The largest batch that the journal takes.
    #[must_use]
    pub fn largest_append_bytes(&self) -> usize {
        self.journal.limits().append_bytes
    }

    /// Runs `look` over the leader epochs.
    pub fn with_epochs<T>(&self, look: impl FnOnce(&LeaderEpochs) -> T) -> T {
        look(&self.state.borrow().epochs)
    }

    /// Runs `look` over the producer state.
    pub fn with_producers<T>(&self, look: impl FnOnce(&mut ProducerState) -> T) -> T {
        look(&mut self.state.borrow_mut().producers)
    }

    /// Judges a client's batch by its producer's sequence.
    #[must_use]
    pub fn check_sequence(&self, header: &BatchHeader) -> SequenceCheck {
        self.state.borrow().producers.check(header)
    }

    /// Waits until a batch of `size_bytes` with `records` may be appended: for memory, for the
    /// journal, and for a segment with room. `timestamp_ms` is the batch's largest: a segment's age
    /// is what lies between it and the segment's first (Kafka: `LogSegment.timeWaitedForRoll`). Call [`PartitionLog::append`] without awaiting between.
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
            let step = self.state.borrow().next_step(
                &self.settings.get(),
                size_bytes,
                records,
                timestamp_ms,
            );
            match step {
                Step::Append => return Ok(()),
                Step::Wait => wait.await,
                Step::Roll => {
                    if let Err(error) = self.roll().await {
                        if is_out_of_space(&error) {
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

    pub(super) fn disk_failed(&self, doing: &str, error: &io::Error) -> LogError {
        let reason = format!("{doing} in {} failed: {error}", self.directory().display());
        tracing::error!(%reason, "log goes offline");
        let error = LogError::Offline(reason.into());
        self.set_offline(error.clone());
        error
    }

    /// Appends a batch that validation and [`PartitionLog::check_sequence`] have let pass, right
    /// after [`PartitionLog::ready`]. On return its order is fixed; it is durable when
    /// [`PartitionLog::flushed_offset`] reaches the returned end.
    ///
    /// # Panics
    /// When the batch is longer or shorter than its header says.
    pub fn append(&self, header: &BatchHeader, payload: &[u8], epoch: LeaderEpoch) -> Appended {
        let size_bytes = header.size_bytes();
        assert!(
            HEADER_BYTES + payload.len() == size_bytes,
            "{} bytes behind a header that says {size_bytes}",
            payload.len()
        );
        let mut state = self.state.borrow_mut();
        let base_offset = state.end;
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
        let opened = state.copy(&[&placed, payload], self.cache.limits());
        state.note(
            header,
            base_offset,
            size_bytes,
            self.settings.get().producers_max,
        );
        let (segment, position, bytes) = state.entry_bytes(size_bytes);
        let appended = AppendedBytes(state.appended.0 + size_bytes as u64);
        state.appended = appended;
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
        self.journal
            .append((self.id, segment), position, bytes, &self.mark, appended);
        self.cache.trim();
        Appended {
            base_offset,
            end: next,
        }
    }

    /// Creates the next segment: its file and the names of it are durable before an entry of the
    /// journal speaks of it.
    async fn roll(&self) -> io::Result<()> {
        let (base_offset, created) = {
            let mut state = self.state.borrow_mut();
            state.rolling = true;
            (state.end, state.created)
        };
        let created_file = self.create_segment_file(base_offset, created).await;
        let mut state = self.state.borrow_mut();
        state.rolling = false;
        self.rolled.raise();
        let file = created_file?;
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
        let settings = self.settings.get();
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
        state
            .segments
            .push_back(Segment::create(segment, base_offset, index, file));
        Ok(())
    }

    /// Creates the log's directory. A deleted topic of the same name may still hold the plain name;
    /// then the topic's id makes another one.
    async fn claim_directory(&self) -> io::Result<()> {
        if disk::exists(&self.directory()).await? {
            let id = crc32c::crc32c(&self.id.topic);
            let name = format!("{}.{id:08x}", self.directory_name.borrow());
            *self.directory_name.borrow_mut() = name.into();
        }
        disk::create_dir_all(&self.directory()).await
    }

    async fn create_segment_file(
        &self,
        base_offset: Offset,
        created: bool,
    ) -> io::Result<disk::File> {
        if !created {
            self.claim_directory().await?;
            let above = &self.data_directory;
            if !is_planted(Breach::NameBeforeDirectorySync) {
                disk::sync_dir(above).await?;
            }
        }
        let path = self
            .directory()
            .join(super::segment::segment_file_name(base_offset));
        if disk::exists(&path).await? {
            // Left by a crash between the creation and its entry, or by a deleted log of this name.
            disk::remove_file(&path).await?;
        }
        let file = disk::create(&path, 0).await?;
        file.full_sync().await?;
        if !is_planted(Breach::NameBeforeDirectorySync) {
            disk::sync_dir(&self.directory()).await?;
        }
        Ok(file)
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

    /// The open file of a segment.
    pub(super) async fn segment_file(&self, segment: SegmentId) -> io::Result<disk::File> {
        let path = {
            let state = self.state.borrow();
            let Some(segment) = state.segment(segment) else {
                return Err(io::Error::other("the segment was removed"));
            };
            if let Some(file) = &segment.file {
                return Ok(file.clone());
            }
            segment.path(&self.directory())
        };
        let file = disk::open(&path).await?;
        if let Some(segment) = self.state.borrow_mut().segment_mut(segment) {
            segment.file.get_or_insert(file.clone());
        }
        Ok(file)
    }

    pub(super) fn evict(&self, segment: SegmentId, position: BytePosition) -> Eviction {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return Eviction::Pinned;
        };
        match state.segment_mut(segment) {
            Some(segment) => {
                let stored = segment.stored;
                segment.chunks.evict(position, stored)
            }
            None => Eviction::Gone,
        }
    }

    pub(super) fn keep_chunk(&self, segment: SegmentId, position: BytePosition, bytes: Slice) {
        let kept = {
            let mut state = self.state.borrow_mut();
            state
                .segment_mut(segment)
                .and_then(|segment| segment.chunks.keep(position, bytes))
        };
        if let Some(memory_bytes) = kept {
            self.cache
                .admit(self.weak.clone(), segment, position, memory_bytes);
            self.cache.trim();
        }
    }

    /// The log as of now for a checkpoint: exactly the effect of all entries recorded so far. What
    /// comes next is journalled from its block's boundary on.
    pub(super) fn checkpoint_image(&self) -> Option<LogImage> {
        let mut state = self.state.borrow_mut();
        if !state.created {
            return None;
        }
        let horizon_ms = clock::wall_ms() - self.settings.get().producer_expiration_ms;
        state.producers.expire(horizon_ms);
        if !is_planted(Breach::SkipBlockRebase) {
            state.rebase = true;
        }
        Some(LogImage {
            id: self.id,
            directory: self.directory_name().to_string(),
            start: state.start,
            end: state.end,
            segments: state.segments.iter().map(Segment::image).collect(),
            epochs: state.epochs.clone(),
            producers: state.producers.clone(),
            damage: self.damage.borrow().clone(),
        })
    }

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
    /// only whole segments beyond it.
    pub async fn retain(&self, now_ms: i64) -> Result<(), LogError> {
        let flushed = self.flushed_offset();
        let to = self
            .state
            .borrow()
            .retention_start(&self.settings.get(), now_ms);
        match to.filter(|to| *to <= flushed) {
            Some(to) => self.advance_start(to).await,
            None => Ok(()),
        }
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
        for (segment, durable) in dropped {
            if durable.await.is_none() {
                return self.healthy();
            }
            for name in [
                segment.path(&self.directory()),
                self.directory()
                    .join(super::segment::index_file_name(segment.base_offset)),
            ] {
                if let Err(error) = disk::remove_file(&name).await {
                    tracing::warn!(file = %name.display(), %error, "cannot remove");
                }
            }
        }
        Ok(())
    }

    /// Lets go of the memory of bytes that will never be stored: the directory has failed.
    pub(super) fn abandon(&self) {
        self.settle();
        let mut state = self.state.borrow_mut();
        state.unflushed.clear();
        let mut unstored = 0;
        for segment in &mut state.segments {
            unstored += segment.size - segment.stored;
            segment.flushed = segment.size;
            segment.stored = segment.size;
        }
        drop(state);
        self.cache.note_stored(unstored as usize);
        self.cache.trim();
    }

    /// Removes the log for good.
    pub(super) async fn delete(&self) -> io::Result<()> {
        self.set_offline(LogError::Deleted);
        let created = self.state.borrow().created;
        let unstored = {
            let mut state = self.state.borrow_mut();
            state.unflushed.clear();
            let segments = std::mem::take(&mut state.segments);
            let memory: usize = segments
                .iter()
                .map(|segment| segment.chunks.memory_bytes())
                .sum();
            self.cache.forget(memory);
            segments
                .iter()
                .map(|segment| (segment.size - segment.stored) as usize)
                .sum::<usize>()
        };
        self.cache.note_stored(unstored);
        if !created
            || self
                .journal
                .record(&Entry::Delete { log: self.id })
                .await
                .is_none()
        {
            return Ok(());
        }
        let directory = self.directory();
        for entry in disk::list_dir(&directory).await? {
            if !entry.is_dir {
                disk::remove_file(&directory.join(entry.name)).await?;
            }
        }
        disk::remove_dir(&directory).await?;
        disk::sync_dir(&self.data_directory).await
    }
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

    fn active(&self) -> &Segment {
        self.segments.back().expect("ready() made a segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("ready() made a segment")
    }

    pub(super) fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.id == id)
    }

    pub(super) fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments
            .iter_mut()
            .rev()
            .find(|segment| segment.id == id)
    }

    /// Copies a batch into the tail, opening chunks as needed; the chunks opened.
    fn copy(
        &mut self,
        pieces: &[&[u8]],
        limits: &super::chunk_cache::CacheLimits,
    ) -> SmallVec<[(BytePosition, usize); 2]> {
        let mut opened = SmallVec::new();
        let active = self.active_mut();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                if active.chunks.tail(active.size).is_none() {
                    let bytes = (2 * active.chunks.newest_memory_bytes())
                        .max(rest.len())
                        .clamp(limits.least_chunk_bytes, limits.most_chunk_bytes);
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

    /// Notes a batch of `size` bytes just copied to the end of the active segment.
    fn note(
        &mut self,
        header: &BatchHeader,
        base_offset: Offset,
        size: usize,
        producers_max: usize,
    ) {
        self.producers.remember(header, base_offset);
        self.producers.forget_down_to(producers_max);
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

    /// The last `length` bytes of the active segment, from the block's boundary if the log was
    /// checkpointed since the last entry.
    fn entry_bytes(&mut self, length: usize) -> (SegmentId, BytePosition, SmallVec<[Slice; 2]>) {
        let rebase = std::mem::replace(&mut self.rebase, false);
        let active = self.active();
        let begin = active.size - length as u64;
        let from = if rebase {
            begin - begin % BLOCK_BYTES as u64
        } else {
            begin
        };
        let mut position = from;
        let mut bytes = SmallVec::new();
        while position < active.size {
            let slice = active
                .chunks
                .from(position)
                .expect("what is not stored is in memory");
            position += slice.len() as u64;
            bytes.push(slice);
        }
        (active.id, from, bytes)
    }

    /// Moves the flushed offset to where the journal has come.
    pub(super) fn settle(&mut self, flushed: AppendedBytes) {
        while self
            .unflushed
            .front()
            .is_some_and(|first| first.appended <= flushed)
        {
            let first = self.unflushed.pop_front().expect("checked");
            assert!(first.next_offset > self.flushed && first.next_offset <= self.end);
            self.flushed = first.next_offset;
            if let Some(segment) = self.segment_mut(first.segment) {
                segment.flushed = first.position;
                segment.assert_ladder();
            }
        }
    }
}

impl PartitionLog {
    pub(super) fn settle(&self) {
        self.state.borrow_mut().settle(self.mark.flushed());
    }
}
