//! Compaction at work: reads the keys of a log's dirty part, then writes group after group of its
//! sealed segments anew and swaps them in.
//!
//! Nothing here touches the chunk cache: one window is read, one is written, one write is in flight.
//! What is decided where: `compaction.rs` from where to where, `cleaned_batch.rs` what of a batch
//! stays, `swap.rs` how names and entries keep a crash harmless.
//!
//! *Architecture Invariant*: from the turn in which a swap's entry is recorded, memory and every
//! checkpoint image know the new segment only; its file handle stays open until its name is durable,
//! and no checkpoint with that image is written before.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::cleaned_batch::{CleanedBatch, CleaningRules, clean, note_keys};
use super::compaction::{
    CompactionOutlook, CompactionPlan, CompactionProgress, CompactionRun, CompactionSettings,
    LogBounds, SegmentOutline, group_segments,
};
use super::entry::Entry;
use super::index::SparseIndex;
use super::offset_map::OffsetMap;
use super::partition_log::{LogError, LogState, PartitionLog};
use super::position::{Offset, SegmentId};
use super::segment::{Segment, index_file_name, segment_file_name};
use super::segment_scan::{CleanedFile, ScanError, SegmentScan};
use super::small_file;
use super::swap::{Swap, cleaned_file_name, is_cleaned_file};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::clock;
use crate::runtime::disk;
use crate::runtime::executor::yield_if_needed;
use crate::runtime::random::random_u64;
use crate::runtime::signal::{Promised, Signal};
use crate::wire::record_batch::BatchView;

/// What compaction may take on one core, and what it took.
pub struct Cleaner {
    memory_bytes: usize,
    decompressed_max_bytes: usize,
    pub(super) pace: super::pace::Pace,
    runs: Cell<u64>,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionCounts {
    /// Runs that came to their end.
    pub runs: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

impl Cleaner {
    /// With so much memory for the keys of a run, and so many bytes read and written per second.
    #[must_use]
    pub fn new(
        memory_bytes: usize,
        decompressed_max_bytes: usize,
        bytes_per_second: f64,
    ) -> Cleaner {
        Cleaner {
            memory_bytes,
            decompressed_max_bytes,
            pace: super::pace::Pace::new(bytes_per_second),
            runs: Cell::new(0),
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> CompactionCounts {
        CompactionCounts {
            runs: self.runs.get(),
            read_bytes: self.pace.read_bytes(),
            written_bytes: self.pace.written_bytes(),
        }
    }
}

/// Why a run of compaction ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactionError {
    /// The log changed under it or does not serve any more; the next run begins where it was.
    #[error("the log changed meanwhile")]
    Interrupted,
    /// The disk has no space for the new segment; nothing was lost.
    #[error("the disk has no space for a compacted segment")]
    NoSpace,
    /// A segment cannot be read as record batches: the log is left alone from now on.
    #[error("{0}")]
    Uncleanable(Rc<str>),
    /// The disk failed.
    #[error(transparent)]
    Log(LogError),
}

/// How a log and its compaction are related.
#[derive(Default)]
pub(super) struct CompactionState {
    running: Cell<bool>,
    /// What earlier starts left behind was looked for.
    swept: Cell<bool>,
    uncleanable: RefCell<Option<Rc<str>>>,
    /// Swaps recorded, and those of them whose files have their names for good.
    recorded: Cell<u64>,
    settled: Cell<u64>,
    changed: Signal,
}

/// A run; there is one per log at a time.
pub(super) struct Running<'a>(&'a CompactionState);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.changed.raise();
    }
}

impl CompactionState {
    fn begin(&self) -> Option<Running<'_>> {
        (!self.running.replace(true)).then(|| Running(self))
    }

    fn settle(&self, number: u64) {
        self.settled.set(number);
        self.changed.raise();
    }
}

/// A swap whose entry was recorded.
struct RecordedSwap {
    number: u64,
    durable: Promised<()>,
    segment: SegmentId,
    base_offset: Offset,
    /// The other segments replaced.
    replaced: Vec<Offset>,
    index: Vec<u8>,
}

impl LogState {
    fn outlines(&self) -> Vec<SegmentOutline> {
        let outline = |segment: &Segment| SegmentOutline {
            id: segment.id,
            base_offset: segment.base_offset,
            size_bytes: segment.size,
            sealed: segment.sealed,
            largest_timestamp_ms: segment.largest_timestamp_ms,
            first_timestamp_ms: segment.first_timestamp_ms,
        };
        self.segments.iter().map(outline).collect()
    }
}

impl PartitionLog {
    /// Swaps recorded so far.
    pub(super) fn swaps_recorded(&self) -> u64 {
        self.compaction.recorded.get()
    }

    /// Whether a swap was recorded whose file does not have its name yet.
    pub(super) fn is_swapping(&self) -> bool {
        self.compaction.settled.get() < self.compaction.recorded.get()
    }

    /// Waits until the first `number` swaps are settled, or the directory has failed.
    pub(super) async fn swaps_settled(&self, number: u64) {
        loop {
            let changed = self.compaction.changed.raised();
            if self.compaction.settled.get() >= number || self.journal.failure().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no run is under way, and keeps others away.
    pub(super) async fn pause_compaction(&self) -> Running<'_> {
        loop {
            let changed = self.compaction.changed.raised();
            if let Some(running) = self.compaction.begin() {
                return running;
            }
            changed.await;
        }
    }

    /// Waits until no run is under way.
    pub(super) async fn compaction_ended(&self) {
        loop {
            let changed = self.compaction.changed.raised();
            if !self.compaction.running.get() {
                return;
            }
            changed.await;
        }
    }

    /// Why the log is not compacted although it should be.
    #[must_use]
    pub fn uncleanable(&self) -> Option<Rc<str>> {
        self.compaction.uncleanable.borrow().clone()
    }

    /// The log in view of compaction; none when it is not compacted.
    #[must_use]
    pub fn compaction_outlook(
        &self,
        high_watermark: Offset,
        now_ms: i64,
    ) -> Option<CompactionOutlook> {
        let settings = self.settings().compaction?;
        if self.uncleanable().is_some() || self.healthy().is_err() {
            return None;
        }
        let state = self.state.borrow();
        let bounds = LogBounds {
            start: state.start,
            end: state.end,
            high_watermark,
        };
        let segments = state.outlines();
        let progress = state.progress;
        Some(CompactionOutlook::new(
            &segments, progress, bounds, &settings, now_ms,
        ))
    }

    /// Compacts what is below the high watermark now. False when there was nothing to do, or a run
    /// is under way already.
    pub async fn compact(
        &self,
        high_watermark: Offset,
        cleaner: &Cleaner,
    ) -> Result<bool, CompactionError> {
        let Some(_running) = self.compaction.begin() else {
            return Ok(false);
        };
        let outcome = self.run_compaction(high_watermark, cleaner).await;
        if let Err(CompactionError::Uncleanable(reason)) = &outcome {
            tracing::error!(log = %self.directory_name(), %reason, "a partition is not compacted any more");
            *self.compaction.uncleanable.borrow_mut() = Some(reason.clone());
        }
        outcome
    }

    /// Begins a new segment when a record of the active one waits longer than
    /// `max.compaction.lag.ms`: only what is sealed can be compacted. Kafka does so with the next
    /// append, by [`LogSettings::segment_ms`](super::partition_log::LogSettings).
    pub async fn roll_for_compaction(&self, now_ms: i64) -> Result<(), LogError> {
        let Some(settings) = self.settings().compaction else {
            return Ok(());
        };
        let Some(_running) = self.compaction.begin() else {
            return Ok(());
        };
        self.healthy()?;
        let overdue = {
            let state = self.state.borrow();
            let horizon_ms = now_ms.saturating_sub(settings.max_lag_ms);
            let active = state.segments.back().filter(|_| !state.rolling);
            active.is_some_and(|active| {
                active.size > 0
                    && active.first_timestamp_ms > 0
                    && active.first_timestamp_ms < horizon_ms
            })
        };
        if !overdue {
            return Ok(());
        }
        match self.roll().await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(LogError::NoSpace),
            Err(error) => Err(self.disk_failed("creating a segment", &error)),
        }
    }

    async fn run_compaction(
        &self,
        high_watermark: Offset,
        cleaner: &Cleaner,
    ) -> Result<bool, CompactionError> {
        let now_ms = clock::wall_ms();
        let plan = self
            .compaction_outlook(high_watermark, now_ms)
            .and_then(|outlook| outlook.plan());
        let Some(plan) = plan else {
            return Ok(false);
        };
        self.sweep().await?;
        let map = self.note_dirty_keys(&plan, cleaner).await?;
        let end = map.end().min(plan.end);
        if end <= plan.first_dirty {
            // The segments went away meanwhile.
            return Err(CompactionError::Interrupted);
        }
        let mut segments = self.state.borrow().outlines();
        segments.retain(|segment| segment.base_offset >= plan.from && segment.base_offset < end);
        let segment_bytes = self.settings().segment_bytes;
        let groups = group_segments(&segments, plan.round_end, segment_bytes);
        for (index, group) in groups.iter().enumerate() {
            let next = groups.get(index + 1).map(|next| &segments[next.start]);
            let progress = match next {
                Some(next) => CompactionProgress {
                    first_dirty: plan.first_dirty,
                    run: Some(CompactionRun {
                        next: next.base_offset,
                        end,
                    }),
                },
                None => CompactionProgress {
                    first_dirty: end,
                    run: None,
                },
            };
            self.compact_group(&segments[group.clone()], progress, &map, &plan, cleaner)
                .await?;
        }
        // As the last swap recorded, unless there was nothing left to swap.
        self.state.borrow_mut().progress = CompactionProgress {
            first_dirty: end,
            run: None,
        };
        cleaner.runs.set(cleaner.runs.get() + 1);
        Ok(true)
    }

    /// The settings, while the log serves and is to be compacted.
    fn still_compacted(&self) -> Result<CompactionSettings, CompactionError> {
        match self.healthy() {
            Ok(()) => self
                .settings()
                .compaction
                .ok_or(CompactionError::Interrupted),
            Err(_) => Err(CompactionError::Interrupted),
        }
    }

    /// Removes what an earlier start left of a compaction it did not finish.
    async fn sweep(&self) -> Result<(), CompactionError> {
        if self.compaction.swept.replace(true) {
            return Ok(());
        }
        let directory = self.directory();
        let listed = disk::list_dir(&directory).await;
        let entries =
            listed.map_err(|error| self.compaction_failed("listing a directory", &error))?;
        for entry in entries {
            if is_cleaned_file(&entry.name) {
                remove(&directory.join(entry.name)).await;
            }
        }
        Ok(())
    }

    async fn note_dirty_keys(
        &self,
        plan: &CompactionPlan,
        cleaner: &Cleaner,
    ) -> Result<OffsetMap, CompactionError> {
        let records = (plan.end.0 - plan.first_dirty.0).cast_unsigned();
        let seed = [random_u64(), random_u64()];
        let mut map = OffsetMap::new(records, cleaner.memory_bytes, seed);
        let segments = self.state.borrow().outlines();
        let dirty = plan.first_dirty..plan.end;
        for (index, segment) in segments.iter().enumerate() {
            let next = segments
                .get(index + 1)
                .map_or(plan.end, |next| next.base_offset);
            if next <= dirty.start || segment.base_offset >= dirty.end {
                continue;
            }
            let mut scan = self.scan(segment).await?;
            while let Some(bytes) = self.next_batch(&mut scan, cleaner).await? {
                let noted = BatchView::parse(&bytes).and_then(|batch| {
                    let limit = cleaner.decompressed_max_bytes;
                    note_keys(&batch, dirty.clone(), limit, &mut map)
                });
                let noted = noted.map_err(|error| scan.damaged(&error));
                if noted.map_err(|error| self.unreadable(error))?.is_err() {
                    return Ok(map);
                }
            }
            // Where the last batches of a segment are gone nothing else is below the next one.
            map.advance(next.min(plan.end));
        }
        Ok(map)
    }

    /// Writes one segment out of several and swaps it in.
    async fn compact_group(
        &self,
        group: &[SegmentOutline],
        progress: CompactionProgress,
        map: &OffsetMap,
        plan: &CompactionPlan,
        cleaner: &Cleaner,
    ) -> Result<(), CompactionError> {
        let segment = SegmentId(random_u64());
        let base_offset = group[0].base_offset;
        let path = self
            .directory()
            .join(cleaned_file_name(base_offset, segment));
        let settings = self.settings();
        let index = SparseIndex::new(
            base_offset,
            settings.index_interval_bytes,
            settings.index_most_entries,
        );
        self.still_compacted()?;
        let created = CleanedFile::create(&path, index).await;
        let mut file = created.map_err(|error| self.compaction_failed("creating", &error))?;
        let written = self.write_group(group, map, plan, cleaner, &mut file).await;
        self.journal.room().await;
        let recorded = written.and_then(|()| {
            let swap = Swap {
                segment,
                base_offset,
                size_bytes: file.size_bytes(),
                largest_timestamp_ms: file.largest_timestamp_ms(),
                first_timestamp_ms: file.first_timestamp_ms(),
                progress,
                old: group.iter().map(|old| old.id).collect(),
            };
            self.record_swap(swap, file)
        });
        match recorded {
            Ok(recorded) => self.finish_swap(recorded).await,
            Err(error) => {
                remove(&path).await;
                Err(error)
            }
        }
    }

    async fn write_group(
        &self,
        group: &[SegmentOutline],
        map: &OffsetMap,
        plan: &CompactionPlan,
        cleaner: &Cleaner,
        file: &mut CleanedFile,
    ) -> Result<(), CompactionError> {
        let now_ms = clock::wall_ms();
        for segment in group {
            let mut scan = self.scan(segment).await?;
            while let Some(bytes) = self.next_batch(&mut scan, cleaner).await? {
                let settings = self.still_compacted()?;
                let last_of_producer = |id| self.state.borrow().producers.last_offset(id);
                let rules = CleaningRules {
                    map,
                    start: self.start_offset(),
                    round_end: plan.round_end,
                    now_ms,
                    delete_retention_ms: settings.delete_retention_ms,
                    decompressed_max_bytes: cleaner.decompressed_max_bytes,
                    last_of_producer: &last_of_producer,
                };
                let cleaned = BatchView::parse(&bytes).and_then(|batch| clean(&batch, &rules));
                let cleaned = cleaned.map_err(|error| self.unreadable(scan.damaged(&error)))?;
                let kept = match &cleaned {
                    CleanedBatch::Same => &bytes[..],
                    CleanedBatch::Rebuilt(rebuilt) => rebuilt,
                    CleanedBatch::Gone => continue,
                };
                let appended = file.append(kept, &cleaner.pace).await;
                appended.map_err(|error| self.compaction_failed("writing", &error))?;
                self.paced(cleaner).await?;
            }
        }
        let finished = file.finish(&cleaner.pace).await;
        finished.map_err(|error| self.compaction_failed("flushing", &error))?;
        let named = disk::sync_dir(&self.directory()).await;
        named.map_err(|error| self.compaction_failed("flushing the directory of", &error))?;
        self.still_compacted().map(|_| ())
    }

    /// Records the swap and lets memory follow, in one turn.
    fn record_swap(&self, swap: Swap, file: CleanedFile) -> Result<RecordedSwap, CompactionError> {
        self.still_compacted()?;
        let mut state = self.state.borrow_mut();
        let first = state
            .segments
            .iter()
            .position(|segment| Some(&segment.id) == swap.old.first())
            .ok_or(CompactionError::Interrupted)?;
        let old = first..first + swap.old.len();
        let are_old = state.segments.len() >= old.end
            && state
                .segments
                .range(old.clone())
                .zip(&swap.old)
                .all(|(segment, id)| segment.id == *id && segment.sealed);
        if !are_old {
            // Retention or a truncation was faster.
            return Err(CompactionError::Interrupted);
        }
        let (handle, index) = file.into_parts();
        let mut segment = Segment::from_image(swap.image());
        let index_file = index.to_file(swap.segment, swap.size_bytes);
        segment.index = Some(index);
        segment.file = Some(handle);
        let after = state.segments.split_off(old.end);
        let replaced = state.segments.split_off(old.start);
        state.segments.push_back(segment);
        state.segments.extend(after);
        state.progress = swap.progress;
        let memory_bytes = replaced
            .iter()
            .map(|segment| segment.chunks.memory_bytes())
            .sum();
        self.cache.forget(memory_bytes);
        let number = self.compaction.recorded.get() + 1;
        self.compaction.recorded.set(number);
        let (segment, base_offset) = (swap.segment, swap.base_offset);
        let durable = self.journal.record(&Entry::Swap {
            log: self.id(),
            swap,
        });
        Ok(RecordedSwap {
            number,
            durable,
            segment,
            base_offset,
            replaced: replaced
                .iter()
                .skip(1)
                .map(|segment| segment.base_offset)
                .collect(),
            index: index_file,
        })
    }

    /// Once the entry is durable, gives the new segment its name and removes the old ones. Also when
    /// the log was deleted meanwhile: a checkpoint may be waiting for it.
    async fn finish_swap(&self, swap: RecordedSwap) -> Result<(), CompactionError> {
        let number = swap.number;
        if is_planted(Breach::SwapBeforeEntry) {
            let _ = self.name_swapped(&swap).await;
        }
        let mut swap = swap;
        if (&mut swap.durable).await.is_none() {
            // The journal failed, or the broker stops: the entry never counts, the old names stay.
            self.compaction.settle(number);
            return Err(CompactionError::Interrupted);
        }
        let named = self.name_swapped(&swap).await;
        if let Err(error) = named {
            let failed = self.fail_directory("swapping in a compacted segment", &error);
            self.compaction.settle(number);
            return Err(CompactionError::Log(failed));
        }
        if let Some(segment) = self.state.borrow_mut().segment_mut(swap.segment) {
            segment.file = None;
        }
        self.compaction.settle(number);
        self.tidy_swapped(&swap).await;
        Ok(())
    }

    async fn name_swapped(&self, swap: &RecordedSwap) -> io::Result<()> {
        let directory = self.directory();
        let cleaned = directory.join(cleaned_file_name(swap.base_offset, swap.segment));
        if is_planted(Breach::SwapBeforeEntry) && !disk::exists(&cleaned).await? {
            return Ok(());
        }
        disk::rename(
            &cleaned,
            &directory.join(segment_file_name(swap.base_offset)),
        )
        .await?;
        disk::sync_dir(&directory).await
    }

    /// The new index, and the files nobody names any more. Neither is needed for anything.
    async fn tidy_swapped(&self, swap: &RecordedSwap) {
        let directory = self.directory();
        let path = directory.join(index_file_name(swap.base_offset));
        match small_file::replace(&path, &swap.index).await {
            Ok(()) => {
                if let Some(segment) = self.state.borrow_mut().segment_mut(swap.segment) {
                    segment.index = None;
                }
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot write an index");
            }
        }
        for base_offset in &swap.replaced {
            remove(&directory.join(segment_file_name(*base_offset))).await;
            remove(&directory.join(index_file_name(*base_offset))).await;
        }
    }

    async fn scan(&self, segment: &SegmentOutline) -> Result<SegmentScan, CompactionError> {
        self.still_compacted()?;
        let path = {
            let state = self.state.borrow();
            let found = state.segment(segment.id);
            let found = found.ok_or(CompactionError::Interrupted)?;
            found.path(&self.directory())
        };
        // A handle of its own, closed with the scan: a cold log keeps no descriptor.
        let opened = disk::open(&path).await;
        if self.state.borrow().segment(segment.id).is_none() {
            return Err(CompactionError::Interrupted);
        }
        match opened {
            Ok(file) => Ok(SegmentScan::new(file, path, segment.size_bytes)),
            Err(error) => Err(self.unreadable(ScanError::Disk(path, error))),
        }
    }

    async fn next_batch(
        &self,
        scan: &mut SegmentScan,
        cleaner: &Cleaner,
    ) -> Result<Option<crate::runtime::buffer::Slice>, CompactionError> {
        let next = scan.next(&cleaner.pace).await;
        let next = next.map_err(|error| self.unreadable(error))?;
        self.paced(cleaner).await?;
        Ok(next)
    }

    /// Keeps to the pace and lets others run.
    async fn paced(&self, cleaner: &Cleaner) -> Result<(), CompactionError> {
        yield_if_needed().await;
        while let Some(step) = cleaner.pace.delay(clock::monotonic_us()) {
            self.still_compacted()?;
            clock::sleep(step).await;
        }
        self.still_compacted().map(|_| ())
    }

    fn unreadable(&self, error: ScanError) -> CompactionError {
        CompactionError::Uncleanable(error.to_string().into())
    }

    /// A failed write to the disk; a full one is no failure.
    fn compaction_failed(&self, doing: &str, error: &io::Error) -> CompactionError {
        if error.kind() == io::ErrorKind::StorageFull {
            return CompactionError::NoSpace;
        }
        if self.healthy().is_err() {
            return CompactionError::Interrupted;
        }
        CompactionError::Log(self.fail_directory(&format!("{doing} a compacted segment"), error))
    }
}

async fn remove(path: &std::path::Path) {
    if let Err(error) = disk::remove_file(path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "cannot remove");
    }
}
