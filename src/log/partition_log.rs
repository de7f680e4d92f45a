//! One append-only log: segments, the tail in memory, and how far it is durable.
//!
//! Decisions are plain functions over the state in one `RefCell`; waiting happens in the `async`
//! functions here and in `reader.rs` and `storing.rs`, which take no borrow across an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use super::chunk_cache::{ChunkCache, Eviction};
use super::compacting::CompactionState;
use super::compaction::{CompactionProgress, CompactionSettings};
use super::flush_mark::FlushMark;
use super::journal::Journal;
use super::leader_epochs::LeaderEpochs;
use super::naming::Naming;
use super::pace::Pace;
use super::position::{AppendedBytes, BytePosition, LogId, Offset, SegmentId};
use super::producer_state::{MarkerCheck, ProducerState, SequenceCheck};
use super::segment::{Segment, SegmentImage};
use super::segment_pool::SegmentPool;
use super::transactions::{AbortedTransaction, Completed, Transactions};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::Slice;
use crate::runtime::clock;
use crate::runtime::disk;
use crate::runtime::signal::Signal;
use crate::wire::record_batch::BatchHeader;
use crate::wire::transaction_marker::TransactionMarker;

/// The live settings of a log.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Whether clients may delete records: not when only compaction may.
    pub deletable: bool,
    /// How it is compacted, if it is.
    pub compaction: Option<CompactionSettings>,
    /// Idempotent producers remembered.
    pub producers_max: usize,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: u64,
    /// `flush.messages`: records that may be acknowledged before they are flushed, plus one.
    pub flush_messages: i64,
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
    /// How far compaction has come.
    pub compaction: CompactionProgress,
    /// All segments, oldest first; the last one is active.
    pub segments: Vec<SegmentImage>,
    /// Which leader wrote what.
    pub epochs: LeaderEpochs,
    /// Idempotent producers.
    pub producers: ProducerState,
    /// Open and aborted transactions.
    pub transactions: Transactions,
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
            compaction: CompactionProgress::default(),
            segments: Vec::new(),
            epochs: LeaderEpochs::default(),
            producers: ProducerState::default(),
            transactions: Transactions::default(),
            damage: None,
        }
    }

    /// Cuts the log; the segments that are gone. None when there is no such place in it.
    pub(super) fn cut(&mut self, place: CutPlace) -> Option<Vec<SegmentImage>> {
        let mut segments = self.segments.iter();
        let index = segments.position(|known| known.id == place.segment)?;
        let active = &mut self.segments[index];
        if place.position > active.size_bytes || place.offset > self.end {
            return None;
        }
        active.size_bytes = place.position;
        active.sealed = false;
        if let Some(index) = &mut active.index {
            index.cut(place.position);
        }
        self.end = place.offset;
        self.start = self.start.min(place.offset);
        self.compaction.cut(place.offset);
        self.epochs.cut(place.offset);
        self.producers.cut(place.offset);
        self.transactions.cut(place.offset, &self.producers);
        Some(self.segments.split_off(index + 1))
    }

    /// Takes over producers as they were found below a cut.
    pub(super) fn restore_producers(&mut self, found: ProducerState) {
        self.producers.restore(found);
        self.transactions.follow(&self.producers);
    }
}

/// Where a log is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutPlace {
    /// The segment that becomes the active one.
    pub(super) segment: SegmentId,
    /// Its end.
    pub(super) position: BytePosition,
    /// The log's end.
    pub(super) offset: Offset,
}

/// A cut whose entry was recorded.
#[derive(Clone, Debug)]
pub(super) struct PendingCut {
    pub(super) place: CutPlace,
    /// What was found below it of producers.
    pub(super) producers: ProducerState,
}

/// A batch that is not durable yet.
pub(super) struct Unflushed {
    pub(super) appended: AppendedBytes,
    pub(super) next_offset: Offset,
    pub(super) segment: SegmentId,
    pub(super) position: BytePosition,
}

pub(super) struct LogState {
    pub(super) segments: VecDeque<Segment>,
    pub(super) start: Offset,
    /// The log start that survives a crash.
    pub(super) durable_start: Offset,
    pub(super) end: Offset,
    pub(super) flushed: Offset,
    pub(super) appended: AppendedBytes,
    pub(super) unflushed: VecDeque<Unflushed>,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    pub(super) transactions: Transactions,
    /// Transactions whose markers are not flushed yet, in the order of these.
    pub(super) completing: VecDeque<Completed>,
    /// How far compaction has come.
    pub(super) progress: CompactionProgress,
    /// The journal or the checkpoint knows the log.
    pub(super) created: bool,
    /// Nothing may be appended now: a roll or a cut is under way.
    pub(super) rolling: bool,
    /// The log is being cut there; memory follows when the entry that says so is told.
    pub(super) pending_cut: Option<PendingCut>,
    /// A background write or the sealing of a segment is under way.
    pub(super) writing: bool,
    /// The next entry begins at the boundary of the block that is partly filled: no complete group
    /// since the last checkpoint holds that block's beginning.
    pub(super) rebase: bool,
    /// Once the log is flushed up to here, complete groups hold the beginning of the partly filled
    /// block, so it may be overwritten.
    pub(super) image_at: AppendedBytes,
}

/// What the logs of one core in one data directory share.
pub(super) struct LogHome {
    pub(super) path: PathBuf,
    pub(super) journal: Rc<Journal>,
    pub(super) cache: Rc<ChunkCache>,
    pub(super) naming: Rc<Naming>,
    pub(super) pool: Rc<SegmentPool>,
    /// Of background writes to segments.
    pub(super) pace: Pace,
}

/// See the head of this file.
pub struct PartitionLog {
    pub(super) id: LogId,
    pub(super) home: Rc<LogHome>,
    /// Settled when the first segment is created; see `claim_directory`.
    pub(super) directory_name: RefCell<Rc<str>>,
    pub(super) journal: Rc<Journal>,
    pub(super) cache: Rc<ChunkCache>,
    settings: Cell<LogSettings>,
    pub(super) mark: Rc<FlushMark>,
    pub(super) state: RefCell<LogState>,
    pub(super) rolled: Signal,
    pub(super) compaction: CompactionState,
    /// Appended to or read since the logs were last looked over for cold ones.
    pub(super) touched: Cell<bool>,
    /// Highest offset that was acknowledged before it was flushed.
    pub(super) acknowledged: Cell<Offset>,
    offline: RefCell<Option<LogError>>,
    /// What recovery or the scrubber found; it outlives restarts, unlike an error of the disk.
    damage: RefCell<Option<String>>,
    pub(super) weak: Weak<PartitionLog>,
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
    pub(super) fn open(
        home: &Rc<LogHome>,
        image: LogImage,
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
            transactions: image.transactions,
            completing: VecDeque::new(),
            progress: image.compaction,
            created,
            rolling: false,
            pending_cut: None,
            writing: false,
            rebase: true,
            image_at: AppendedBytes(u64::MAX),
        };
        let offline = image
            .damage
            .as_deref()
            .map(|damage| LogError::Offline(damage.into()));
        Rc::new_cyclic(|weak| PartitionLog {
            id: image.id,
            home: home.clone(),
            directory_name: RefCell::new(image.directory.into()),
            journal: home.journal.clone(),
            cache: home.cache.clone(),
            settings: Cell::new(settings),
            mark: Rc::default(),
            state: RefCell::new(state),
            rolled: Signal::default(),
            compaction: CompactionState::default(),
            touched: Cell::new(false),
            acknowledged: Cell::default(),
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
        self.home.path.join(&**self.directory_name.borrow())
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
        self.settle();
        self.state.borrow().flushed
    }

    /// Everything below this offset may be acknowledged: what is flushed and, if `flush.messages`
    /// says so, fewer records beyond it than that. Never moves back while the broker runs.
    #[must_use]
    pub fn acknowledgeable_offset(&self) -> Offset {
        let flushed = self.flushed_offset();
        let ahead = self.settings.get().flush_messages - 1;
        if ahead > 0 {
            let state = self.state.borrow();
            let most = Offset(flushed.0.saturating_add(ahead));
            let count = state
                .unflushed
                .partition_point(|batch| batch.next_offset <= most);
            if let Some(last) = count.checked_sub(1) {
                let next = state.unflushed[last].next_offset;
                self.acknowledged.set(self.acknowledged.get().max(next));
            }
        }
        self.acknowledged.get().max(flushed)
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

    /// Judges a marker by its producer's and its coordinator's epoch.
    #[must_use]
    pub fn check_marker(&self, marker: &TransactionMarker) -> MarkerCheck {
        self.state.borrow().producers.check_marker(marker)
    }

    /// Runs `look` over the transactions.
    pub fn with_transactions<T>(&self, look: impl FnOnce(&Transactions) -> T) -> T {
        look(&self.state.borrow().transactions)
    }

    /// Whether another transaction may be opened.
    #[must_use]
    pub fn has_room_for_transaction(&self) -> bool {
        let producers_max = self.settings.get().producers_max;
        self.with_transactions(|transactions| transactions.has_room(producers_max))
    }

    /// Records below belong to no transaction that is open for a reader who may see everything below
    /// `high_watermark`. Kafka: `UnifiedLog.lastStableOffset`.
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        self.settle();
        let mut state = self.state.borrow_mut();
        // A high watermark that waits for other replicas is below what is flushed here.
        let settled = state.flushed.min(high_watermark);
        while state
            .completing
            .front()
            .is_some_and(|completed| completed.end <= settled)
        {
            state.completing.pop_front();
        }
        let hidden = state.completing.iter();
        let hidden = hidden.filter(|completed| completed.end > high_watermark);
        let unstable = hidden.map(|completed| completed.first);
        let first = unstable.chain(state.transactions.first_open()).min();
        let stable = first.map_or(high_watermark, |first| first.min(high_watermark));
        stable.max(state.start)
    }

    /// The aborted transactions that a reader of `from..below` has to know.
    #[must_use]
    pub fn aborted_between(&self, from: Offset, below: Offset) -> Vec<AbortedTransaction> {
        let state = self.state.borrow();
        state.transactions.aborted_between(from, below).collect()
    }

    pub(super) fn disk_failed(&self, doing: &str, error: &io::Error) -> LogError {
        let reason = format!("{doing} in {} failed: {error}", self.directory().display());
        tracing::error!(%reason, "log goes offline");
        let error = LogError::Offline(reason.into());
        self.set_offline(error.clone());
        error
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
        let mut state = self.state.borrow_mut();
        let Some(segment) = state.segment_mut(segment) else {
            // The name may lead to another segment by now.
            return Err(io::Error::other("the segment was removed"));
        };
        Ok(segment.file.get_or_insert(file).clone())
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

    /// Keeps what was read from a segment that had been cut so often.
    pub(super) fn keep_chunk(
        &self,
        (segment, cuts): (SegmentId, u32),
        position: BytePosition,
        bytes: Slice,
    ) {
        let kept = {
            let mut state = self.state.borrow_mut();
            state
                .segment_mut(segment)
                .filter(|segment| segment.cuts == cuts)
                .and_then(|segment| segment.chunks.keep(position, bytes))
        };
        if let Some(memory_bytes) = kept {
            self.cache
                .admit(self.weak.clone(), segment, position, memory_bytes);
            self.cache.trim();
        }
    }

    /// The log as of now for a checkpoint, with at most so many entries of each index: exactly the effect of all entries recorded so far. What
    /// comes next is journalled from its block's boundary on.
    pub(super) fn checkpoint_image(&self, most_index_entries: usize) -> Option<LogImage> {
        let mut state = self.state.borrow_mut();
        if !state.created {
            return None;
        }
        let horizon_ms = clock::wall_ms() - self.settings.get().producer_expiration_ms;
        state.producers.expire(horizon_ms);
        if !is_planted(Breach::SkipBlockRebase) {
            state.rebase = true;
        }
        let mut image = LogImage {
            id: self.id,
            directory: self.directory_name().to_string(),
            start: state.start,
            end: state.end,
            compaction: state.progress,
            segments: state
                .segments
                .iter()
                .map(|segment| segment.image(most_index_entries))
                .collect(),
            epochs: state.epochs.clone(),
            producers: state.producers.clone(),
            transactions: state.transactions.clone(),
            damage: self.damage.borrow().clone(),
        };
        if let Some(cut) = &state.pending_cut {
            let later = image.cut(cut.place);
            debug_assert!(later.is_some(), "the segment is there until memory is cut");
            image.restore_producers(cut.producers.clone());
        }
        Some(image)
    }

    /// Lets go of the memory of bytes that will never be stored: the directory has failed.
    pub(super) fn abandon(&self) {
        self.settle();
        self.mark.forget_direct();
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
}

impl LogState {
    pub(super) fn active(&self) -> &Segment {
        self.segments.back().expect("ready() made a segment")
    }

    pub(super) fn active_mut(&mut self) -> &mut Segment {
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

    /// Moves the flushed offset to where the journal has come.
    fn settle_flushed(&mut self, flushed: AppendedBytes) {
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

    /// Counts what groups wrote straight to segments as stored, as far as everything before it is;
    /// the bytes gained.
    fn settle_direct(&mut self, mark: &FlushMark) -> u64 {
        let mut gained = 0;
        while let Some(range) = mark.durable_direct() {
            if let Some(segment) = self.segment_mut(range.segment) {
                if segment.stored < range.start {
                    break;
                }
                assert!(segment.stored <= range.end, "{range:?} was stored before");
                gained += range.end - segment.stored;
                segment.stored = range.end;
                segment.assert_ladder();
            }
            mark.take_direct();
        }
        gained
    }
}

impl PartitionLog {
    /// Takes over what the journal has reached.
    pub(super) fn settle(&self) {
        let gained = {
            let mut state = self.state.borrow_mut();
            state.settle_flushed(self.mark.flushed());
            state.settle_direct(&self.mark)
        };
        if gained > 0 {
            self.cache.note_stored(gained as usize);
        }
    }
}
