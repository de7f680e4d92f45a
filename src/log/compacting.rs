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
use std::time::Duration;

use super::cleaned_batch::{CleanedBatch, CleaningRules, clean, note_keys};
use super::cleaned_transactions::{CleanedTransactions, Fate};
use super::cleaner::Cleaner;
use super::compaction::{
    CompactionOutlook, CompactionPlan, CompactionProgress, CompactionRun, CompactionSettings,
    LogBounds, SegmentOutline, group_segments,
};
use super::entry::Entry;
use super::index::SparseIndex;
use super::offset_map::OffsetMap;
use super::partition_log::{LogError, LogState, PartitionLog, is_out_of_space};
use super::position::{Offset, SegmentId};
use super::segment::{Segment, index_file_name, segment_file_name};
use super::segment_scan::{CleanedFile, ScanError, SegmentScan};
use super::small_file;
use super::swap::{Swap, cleaned_file_name, is_cleaned_file};
use super::transactions::AbortedRanges;
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::clock;
use crate::runtime::disk;
use crate::runtime::executor::yield_if_needed;
use crate::runtime::random::random_u64;
use crate::runtime::signal::{Promised, Signal};
use crate::wire::record_batch::BatchView;

/// The longest wait at a time: whoever waits looks up now and then whether it is still wanted.
const PACE_STEP: Duration = Duration::from_millis(100);

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
    /// Those who cannot bear a run.
    unwanted: Cell<u32>,
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

/// As long as it lives no run begins, and none is under way.
pub(super) struct Quiet<'a>(&'a CompactionState);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.unwanted.set(self.0.unwanted.get() - 1);
    }
}

impl CompactionState {
    fn begin(&self) -> Option<Running<'_>> {
        let may = self.unwanted.get() == 0 && !self.running.replace(true);
        may.then(|| Running(self))
    }

    fn settle(&self, number: u64) {
        self.settled.set(number);
        self.changed.raise();
    }
}

/// What the groups of a run have in common.
#[derive(Clone, Copy)]
struct GroupWork<'a> {
    map: &'a OffsetMap,
    plan: &'a CompactionPlan,
    cleaner: &'a Cleaner,
}

/// A swap whose entry was recorded.
struct RecordedSwap {
    number: u64,
    durable: Promised<()>,
    segment: SegmentId,
    base_offset: Offset,
    /// The other segments replaced.
    replaced: Vec<Segment>,
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

    /// Asks a run to stop and waits until it has.
    pub(super) async fn stop_compaction(&self) -> Quiet<'_> {
        let state = &self.compaction;
        state.unwanted.set(state.unwanted.get() + 1);
        let quiet = Quiet(state);
        loop {
            let changed = state.changed.raised();
            if !state.running.get() {
                return quiet;
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
        // What may yet be undone is not cleaned, be it by an open transaction or by a power cut.
        let high_watermark = self.last_stable_offset(high_watermark.min(self.flushed_offset()));
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
            Err(error) if is_out_of_space(&error) => Err(LogError::NoSpace),
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
        let mut transactions = self.with_transactions(|transactions| {
            CleanedTransactions::new(transactions, plan.from == Offset(0))
        });
        let map = self
            .note_dirty_keys(&plan, &transactions.aborted, cleaner)
            .await?;
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
            let work = GroupWork {
                map: &map,
                plan: &plan,
                cleaner,
            };
            self.compact_group(&segments[group.clone()], progress, &work, &mut transactions)
                .await?;
        }
        // As the last swap recorded, unless there was nothing left to swap.
        self.state.borrow_mut().progress = CompactionProgress {
            first_dirty: end,
            run: None,
        };
        cleaner.note_run();
        Ok(true)
    }

    /// The settings, while the log serves and is to be compacted.
    fn still_compacted(&self) -> Result<CompactionSettings, CompactionError> {
        if self.healthy().is_err() || self.compaction.unwanted.get() > 0 {
            return Err(CompactionError::Interrupted);
        }
        let settings = self.settings().compaction;
        settings.ok_or(CompactionError::Interrupted)
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
                self.remove(&entry.name).await;
            }
        }
        Ok(())
    }

    async fn note_dirty_keys(
        &self,
        plan: &CompactionPlan,
        aborted: &AbortedRanges,
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
                    note_keys(&batch, dirty.clone(), aborted, limit, &mut map)
                });
                let noted = noted.map_err(|error| scan.damaged(&error));
                if noted.map_err(|error| self.unreadable(error))?.is_err() {
                    return Ok(map);
                }
            }
            drop(scan);
            self.close_file(segment.id);
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
        work: &GroupWork<'_>,
        transactions: &mut CleanedTransactions,
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
        let written = self.write_group(group, work, transactions, &mut file).await;
        if is_planted(Breach::SwapBeforeEntry) && written.is_ok() {
            let named = self.name_swapped(base_offset, segment).await;
            named.map_err(|error| self.compaction_failed("naming", &error))?;
        }
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
                markers: transactions.take_dropped(),
            };
            self.record_swap(swap, file)
        });
        match recorded {
            Ok(recorded) => self.finish_swap(recorded).await,
            Err(error) => {
                self.remove(&cleaned_file_name(base_offset, segment)).await;
                Err(error)
            }
        }
    }

    async fn write_group(
        &self,
        group: &[SegmentOutline],
        work: &GroupWork<'_>,
        transactions: &mut CleanedTransactions,
        file: &mut CleanedFile,
    ) -> Result<(), CompactionError> {
        let GroupWork { map, plan, cleaner } = *work;
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
                let cleaned = BatchView::parse(&bytes).and_then(|batch| {
                    let fate = transactions.judge(batch.header());
                    let cleaned = clean(&batch, fate, &rules)?;
                    if fate == Fate::Obsolete && cleaned == CleanedBatch::Gone {
                        transactions.note_dropped(batch.header());
                    }
                    Ok(cleaned)
                });
                let cleaned = cleaned.map_err(|error| self.unreadable(scan.damaged(&error)))?;
                let kept = match &cleaned {
                    CleanedBatch::Same => &bytes[..],
                    CleanedBatch::Rebuilt(rebuilt) => rebuilt,
                    CleanedBatch::Gone => continue,
                };
                let appended = file.append(kept, cleaner).await;
                appended.map_err(|error| self.compaction_failed("writing", &error))?;
                self.paced(cleaner).await?;
            }
            drop(scan);
            self.close_file(segment.id);
        }
        let finished = file.finish(cleaner).await;
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
        state.transactions.forget_markers(&swap.markers);
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
            replaced: replaced.into_iter().skip(1).collect(),
            index: index_file,
        })
    }

    /// Once the entry is durable, gives the new segment its name and removes the old ones. Also when
    /// the log was deleted meanwhile: a checkpoint may be waiting for it.
    async fn finish_swap(&self, swap: RecordedSwap) -> Result<(), CompactionError> {
        let number = swap.number;
        if swap.durable.await.is_none() {
            // The journal failed, or the broker stops: the entry never counts, the old names stay.
            self.compaction.settle(number);
            return Err(CompactionError::Interrupted);
        }
        let named = self.name_swapped(swap.base_offset, swap.segment).await;
        if let Err(error) = named {
            let failed = self.fail_directory("swapping in a compacted segment", &error);
            self.compaction.settle(number);
            return Err(CompactionError::Log(failed));
        }
        self.close_file(swap.segment);
        self.compaction.settle(number);
        self.write_index(swap.base_offset, swap.segment, &swap.index)
            .await;
        self.retire_swapped(swap.replaced).await
    }

    async fn name_swapped(&self, base_offset: Offset, segment: SegmentId) -> io::Result<()> {
        let directory = self.directory();
        let cleaned = directory.join(cleaned_file_name(base_offset, segment));
        if is_planted(Breach::SwapBeforeEntry) && !disk::exists(&cleaned).await? {
            return Ok(());
        }
        disk::rename(&cleaned, &directory.join(segment_file_name(base_offset))).await?;
        disk::sync_dir(&directory).await
    }

    /// Without its file the index is built again, so a failure does no harm.
    async fn write_index(&self, base_offset: Offset, segment: SegmentId, index: &[u8]) {
        let path = self.directory().join(index_file_name(base_offset));
        match small_file::replace(&path, index).await {
            Ok(()) => {
                if let Some(segment) = self.state.borrow_mut().segment_mut(segment) {
                    segment.index = None;
                }
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot write an index");
            }
        }
    }

    /// Gives away the files that nobody names any more, once recovery knows of it.
    async fn retire_swapped(&self, replaced: Vec<Segment>) -> Result<(), CompactionError> {
        if replaced.is_empty() {
            return Ok(());
        }
        if self.journal.told().await.is_none() {
            return Err(CompactionError::Interrupted);
        }
        let delay_ms = self.settings().file_delete_delay_ms;
        for mut segment in replaced {
            let path = segment.path(&self.directory());
            let open = segment.file.take();
            let pool = &self.home.pool;
            pool.retire(path, segment.size, open, delay_ms).await;
            self.remove(&index_file_name(segment.base_offset)).await;
        }
        Ok(())
    }

    async fn scan(&self, segment: &SegmentOutline) -> Result<SegmentScan, CompactionError> {
        self.still_compacted()?;
        let path = segment_file_name(segment.base_offset);
        let path = self.directory().join(path);
        let opened = self.segment_file(segment.id).await;
        if self.state.borrow().segment(segment.id).is_none() {
            return Err(CompactionError::Interrupted);
        }
        match opened {
            Ok(file) => Ok(SegmentScan::new(file, path, segment.size_bytes)),
            Err(error) => Err(self.unreadable(ScanError::Disk(path, error))),
        }
    }

    /// Gives a descriptor back that nobody else uses: a cold log keeps none.
    fn close_file(&self, segment: SegmentId) {
        let mut state = self.state.borrow_mut();
        if let Some(segment) = state.segment_mut(segment) {
            segment.close_file();
        }
    }

    async fn next_batch(
        &self,
        scan: &mut SegmentScan,
        cleaner: &Cleaner,
    ) -> Result<Option<crate::runtime::buffer::Slice>, CompactionError> {
        let next = scan.next(cleaner).await;
        let next = next.map_err(|error| self.unreadable(error))?;
        self.paced(cleaner).await?;
        Ok(next)
    }

    /// Keeps to the pace and lets others run.
    async fn paced(&self, cleaner: &Cleaner) -> Result<(), CompactionError> {
        yield_if_needed().await;
        let mut left = cleaner.delay();
        while !left.is_zero() {
            self.still_compacted()?;
            let step = left.min(PACE_STEP);
            clock::sleep(step).await;
            left -= step;
        }
        self.still_compacted().map(|_| ())
    }

    fn unreadable(&self, error: ScanError) -> CompactionError {
        CompactionError::Uncleanable(error.to_string().into())
    }

    /// A failed write to the disk; a full one is no failure.
    fn compaction_failed(&self, doing: &str, error: &io::Error) -> CompactionError {
        if is_out_of_space(error) {
            return CompactionError::NoSpace;
        }
        if self.healthy().is_err() {
            return CompactionError::Interrupted;
        }
        CompactionError::Log(self.fail_directory(&format!("{doing} a compacted segment"), error))
    }
}
