//! What one core owns in one data directory: a journal, the logs, and the task that moves bytes
//! from the journal to the segments and writes checkpoints.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::checkpoint::{Checkpoint, checkpoint_file_name};
use super::chunk_cache::ChunkCache;
use super::journal::{Journal, JournalLimits};
use super::pace::Pace;
use super::partition_log::{
    LogError, LogHome, LogImage, LogSettings, PartitionLog, is_out_of_space,
};
use super::position::LogId;
use super::recovery::{CHECKPOINT_DIRECTORY, JOURNAL_DIRECTORY, RecoveredCore};
use super::segment_pool::{PoolLimits, SegmentPool};
use super::small_file;
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn, yield_if_needed};
use crate::runtime::signal::{Promise, Signal, promise};

/// How long to wait before a full disk is tried again.
const SPACE_AGAIN: Duration = Duration::from_secs(1);
/// Entries of indexes that one checkpoint carries, shared by its logs; 20 bytes each. Beyond it the
/// indexes of active segments are thinned out, and look-ups after a start walk a little further.
const INDEX_ENTRIES_PER_CHECKPOINT: usize = 200_000;

/// What of them a log gets at least.
const LEAST_INDEX_ENTRIES: usize = 64;

/// Logs that are written and flushed side by side: a device does several small writes in the time of
/// one, and a file system several flushes.
const LOGS_AT_A_TIME: usize = 8;

/// How a directory does what is not urgent.
#[derive(Clone, Copy, Debug)]
pub struct Housekeeping {
    /// Files kept for new segments.
    pub pool: PoolLimits,
    /// Budget of background writes to segments; 0 is none.
    pub write_bytes_per_second: u64,
    /// How often logs are looked over for those that nobody uses.
    pub cool_after: Duration,
}

/// See the head of this file.
pub struct LogDirectory {
    home: Rc<LogHome>,
    core: u16,
    generation: u64,
    journal: Rc<Journal>,
    cache: Rc<ChunkCache>,
    logs: RefCell<BTreeMap<LogId, Rc<PartitionLog>>>,
    stop: RefCell<Option<Promise<()>>>,
    stopping: Cell<bool>,
    /// The task that moves bytes to the segments has ended.
    ended: Cell<bool>,
    /// The disk had no space for what is in the journal; it is tried again.
    out_of_space: Cell<bool>,
    checkpoints: Cell<u64>,
    checkpoint_asked: Cell<bool>,
    cooling_asked: Cell<bool>,
    /// Deletions of logs under way.
    deletions: Cell<usize>,
    deleted: Signal,
}

impl LogDirectory {
    /// Opens what recovery prepared for this core.
    pub async fn start(
        path: &Path,
        core: u16,
        recovered: RecoveredCore,
        cache: &Rc<ChunkCache>,
        limits: JournalLimits,
        housekeeping: Housekeeping,
        settings: impl Fn(&LogImage) -> LogSettings,
    ) -> io::Result<Rc<LogDirectory>> {
        let journal = Journal::start(
            &path.join(JOURNAL_DIRECTORY),
            recovered.epoch,
            limits,
            recovered.journal_files,
            recovered.next_file,
        )
        .await?;
        let prefix = format!("{}-{core}", recovered.generation);
        let home = Rc::new(LogHome {
            path: path.to_path_buf(),
            journal: journal.clone(),
            cache: cache.clone(),
            naming: Rc::default(),
            pool: SegmentPool::start(
                path,
                prefix,
                housekeeping.pool,
                recovered.pool_files,
                recovered.deleted,
            ),
            pace: Pace::new(housekeeping.write_bytes_per_second),
        });
        let mut logs = BTreeMap::new();
        for image in recovered.logs {
            let (id, settings) = (image.id, settings(&image));
            logs.insert(id, PartitionLog::open(&home, image, settings));
        }
        if logs.values().any(|log| log.has_complete_segment()) {
            // A crash came between a roll and its seal.
            journal.note_roll();
        }
        let directory = Rc::new(LogDirectory {
            home,
            core,
            generation: recovered.generation,
            journal,
            cache: cache.clone(),
            logs: RefCell::new(logs),
            stop: RefCell::default(),
            stopping: Cell::new(false),
            ended: Cell::new(false),
            out_of_space: Cell::new(false),
            checkpoints: Cell::new(0),
            checkpoint_asked: Cell::new(false),
            cooling_asked: Cell::new(false),
            deletions: Cell::new(0),
            deleted: Signal::default(),
        });
        spawn(
            Queue::Background,
            directory.clone().cool_now_and_then(housekeeping.cool_after),
        );
        spawn(Queue::Background, directory.clone().keep_house());
        Ok(directory)
    }

    /// The data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.home.path
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Rc<Journal> {
        &self.journal
    }

    /// Checkpoints written since the start.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.get()
    }

    /// A log of this core.
    #[must_use]
    pub fn log(&self, id: LogId) -> Option<Rc<PartitionLog>> {
        self.logs.borrow().get(&id).cloned()
    }

    /// All logs of this core.
    #[must_use]
    pub fn logs(&self) -> Vec<Rc<PartitionLog>> {
        self.logs.borrow().values().cloned().collect()
    }

    /// A new log; it takes no space on disk until its first record.
    pub fn create_log(
        &self,
        id: LogId,
        directory_name: &str,
        settings: LogSettings,
    ) -> Rc<PartitionLog> {
        let image = LogImage::empty(id, directory_name);
        let log = PartitionLog::open(&self.home, image, settings);
        let before = self.logs.borrow_mut().insert(id, log.clone());
        assert!(before.is_none(), "{id:?} is created twice");
        log
    }

    /// Removes a log; its files go when its `file.delete.delay.ms` is over.
    pub async fn delete_log(&self, id: LogId) {
        let Some(log) = self.logs.borrow_mut().remove(&id) else {
            return;
        };
        self.deletions.set(self.deletions.get() + 1);
        if let Err(error) = log.delete().await {
            tracing::warn!(log = %log.directory_name(), %error, "cannot remove a deleted log");
        }
        self.deletions.set(self.deletions.get() - 1);
        self.deleted.raise();
    }

    /// Gives the space of files that wait to become segments, or for their delay to end, back: the
    /// disk is full.
    pub async fn empty_pool(&self) {
        self.home.pool.empty().await;
    }

    /// Removes files that wait for `file.delete.delay.ms` to end: the disk is nearly full.
    pub fn end_deletion_delays(&self) {
        self.home.pool.end_delays();
    }

    /// Bytes of files that wait to become segments.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        self.home.pool.ready_bytes()
    }

    /// Segments since the start that got a recycled file.
    #[must_use]
    pub fn recycled_segments(&self) -> u64 {
        self.home.pool.taken()
    }

    /// Asks for a checkpoint soon.
    pub fn ask_for_checkpoint(&self) {
        self.checkpoint_asked.set(true);
        self.journal.pressed().raise();
    }

    /// Whether the disk has no space for what is to be written; the journal holds it meanwhile.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.out_of_space.get()
    }

    /// Asks for memory and descriptors of logs that nobody used since this was last asked.
    pub fn ask_for_cooling(&self) {
        self.cooling_asked.set(true);
        self.journal.pressed().raise();
    }

    async fn cool_now_and_then(self: Rc<Self>, period: Duration) {
        while !self.stopping.get() {
            clock::sleep(period).await;
            self.ask_for_cooling();
        }
    }

    async fn cool_down(&self) -> Result<(), LogError> {
        for log in self.logs() {
            log.cool_down().await?;
            yield_if_needed().await;
        }
        Ok(())
    }

    /// Writes everything to the segments and an empty journal, and ends the tasks. Nothing may be
    /// appended any more. A directory that has failed is left as it is.
    pub async fn shut_down(&self) {
        loop {
            let deleted = self.deleted.raised();
            if self.deletions.get() == 0 {
                break;
            }
            deleted.await;
        }
        if self.ended.get() {
            return;
        }
        let (done, ended) = promise();
        *self.stop.borrow_mut() = Some(done);
        self.stopping.set(true);
        self.journal.pressed().raise();
        ended.await;
    }

    async fn keep_house(self: Rc<Self>) {
        loop {
            let pressed = self.journal.pressed().raised();
            let crowded = self.cache.crowded().raised();
            if self.journal.failure().is_some() {
                break;
            }
            let stopping = self.stopping.get();
            let due = self.journal.wants_checkpoint();
            if stopping {
                // Before the checkpoint that closes the journal: after it nobody looks for strays.
                self.home.pool.stop().await;
            }
            let outcome = if stopping || due || self.checkpoint_asked.take() {
                self.checkpoint(stopping).await
            } else if self.cache.is_crowded() {
                self.make_room().await
            } else if self.journal.take_roll() {
                self.seal_complete().await
            } else if self.cooling_asked.take() {
                self.cool_down().await
            } else {
                futures_lite::future::or(pressed, crowded).await;
                continue;
            };
            let lacks_space = matches!(outcome, Err(LogError::NoSpace));
            if lacks_space && !self.out_of_space.get() {
                tracing::warn!(directory = %self.home.path.display(),
                    "the disk is full: records stay in the journal until there is space");
            } else if let Err(error) = outcome
                && !lacks_space
            {
                tracing::error!(directory = %self.home.path.display(), %error, "storing failed");
            }
            self.out_of_space.set(lacks_space);
            if stopping {
                break;
            }
            if lacks_space {
                clock::sleep(SPACE_AGAIN).await;
                // What was due was taken as done.
                self.journal.note_roll();
            }
        }
        self.ended.set(true);
        if self.journal.failure().is_some() {
            // Their memory is for the logs of other directories.
            self.logs().iter().for_each(|log| log.abandon());
        }
        self.journal.stop();
        self.home.pool.stop().await;
        let stop = self.stop.borrow_mut().take();
        if let Some(done) = stop {
            done.keep(());
        }
    }

    /// Stores and seals the segments that logs have rolled out of, once all of them is flushed.
    async fn seal_complete(&self) -> Result<(), LogError> {
        let flushed = self.journal.group_completed().raised();
        let mut complete = self.logs();
        complete.retain(|log| log.has_complete_segment());
        side_by_side(&complete, |log| store_and_seal(log, false)).await?;
        if complete.iter().any(|log| log.has_complete_segment()) {
            // The last bytes of the segment are on their way to the journal.
            self.journal.note_roll();
            let pressed = self.journal.pressed().raised();
            futures_lite::future::or(flushed, pressed).await;
        }
        Ok(())
    }

    /// Stores whole blocks; when that gains nothing, partly filled ones; when that gains nothing
    /// either, all that is left waits for the journal, and so does this.
    async fn make_room(&self) -> Result<(), LogError> {
        let pressed = self.journal.pressed().raised();
        let flushed = self.journal.group_completed().raised();
        for ragged in [false, true] {
            let before = self.cache.unstored_bytes();
            self.store_all(ragged).await?;
            if self.cache.unstored_bytes() < before {
                return Ok(());
            }
        }
        futures_lite::future::or(flushed, pressed).await;
        Ok(())
    }

    async fn store_all(&self, ragged: bool) -> Result<(), LogError> {
        // Also of logs that are offline: what the journal holds for them is about to be given up.
        side_by_side(&self.logs(), |log| store_and_seal(log, ragged)).await
    }

    /// Writes a checkpoint that covers everything recorded before this call and gives the journal's
    /// files back. The last one closes the journal.
    async fn checkpoint(&self, closes: bool) -> Result<(), LogError> {
        let most_index_entries = (INDEX_ENTRIES_PER_CHECKPOINT / self.logs.borrow().len().max(1))
            .max(LEAST_INDEX_ENTRIES);
        // No await between the images and the cut: the images are the effect of exactly the
        // groups up to the cut.
        let owned = self.logs();
        let logs: Vec<LogImage> = owned
            .iter()
            .filter_map(|log| log.checkpoint_image(most_index_entries))
            .collect();
        // The images name segments whose files have their names only when these are settled.
        let swaps: Vec<(Rc<PartitionLog>, u64)> = owned
            .into_iter()
            .filter(|log| log.is_swapping())
            .map(|log| (log.clone(), log.swaps_recorded()))
            .collect();
        let cut = if closes {
            self.journal.close()
        } else {
            self.journal.cut()
        };
        let Some(cut) = cut.await else {
            return self.failed("the journal failed");
        };
        if is_planted(Breach::ReuseBeforeCheckpoint) {
            self.journal.release(cut.sequence);
        }
        if !is_planted(Breach::CheckpointBeforeData) {
            self.make_stored_durable(&logs).await?;
            self.settle_swaps(&swaps).await?;
        }
        let checkpoint = Checkpoint {
            generation: self.generation,
            core: self.core,
            epoch: self.journal.epoch(),
            covered: cut.sequence,
            cut: cut.place,
            closed: closes,
            logs,
        };
        let name = checkpoint_file_name(self.generation, self.core);
        let path = self.home.path.join(CHECKPOINT_DIRECTORY).join(name);
        if let Err(error) = small_file::replace(&path, &checkpoint.encode()).await {
            if is_out_of_space(&error) {
                return Err(LogError::NoSpace);
            }
            return self.failed(&format!("writing {} failed: {error}", path.display()));
        }
        self.checkpoints.set(self.checkpoints.get() + 1);
        self.journal.release(cut.sequence);
        Ok(())
    }

    async fn make_stored_durable(&self, images: &[LogImage]) -> Result<(), LogError> {
        self.store_all(true).await?;
        side_by_side(images, |image| self.make_image_durable(image)).await
    }

    async fn make_image_durable(&self, image: &LogImage) -> Result<(), LogError> {
        loop {
            let Some(log) = self.log(image.id) else {
                return Ok(()); // Deleted meanwhile.
            };
            // A block whose beginning the image names may be on its way with a later group.
            let flushed = self.journal.group_completed().raised();
            log.store(true).await?;
            if log.has_stored(image) {
                return log.sync_segments().await;
            }
            if self.journal.failure().is_some() {
                return self.failed("the journal failed");
            }
            flushed.await;
        }
    }

    /// Waits for the names of segments that were swapped in before the images were taken, also of
    /// logs deleted meanwhile: their deletion may not be durable yet.
    async fn settle_swaps(&self, swaps: &[(Rc<PartitionLog>, u64)]) -> Result<(), LogError> {
        for (log, recorded) in swaps {
            log.swaps_settled(*recorded).await;
        }
        match self.journal.failure() {
            Some(reason) => Err(LogError::Offline(reason)),
            None => Ok(()),
        }
    }

    fn failed(&self, reason: &str) -> Result<(), LogError> {
        self.journal.fail(reason);
        Err(LogError::Offline(reason.into()))
    }
}

async fn store_and_seal(log: &PartitionLog, ragged: bool) -> Result<(), LogError> {
    log.store(ragged).await?;
    log.seal_segments().await
}

/// Does `work` for all of `items`, a few at a time, until one fails; what was begun is ended.
async fn side_by_side<'a, T, F>(items: &'a [T], work: impl Fn(&'a T) -> F) -> Result<(), LogError>
where
    F: Future<Output = Result<(), LogError>>,
{
    let left = RefCell::new(items.iter());
    let worker = || async {
        loop {
            let Some(item) = left.borrow_mut().next() else {
                return Ok(());
            };
            if let Err(error) = work(item).await {
                *left.borrow_mut() = [].iter();
                return Err(error);
            }
            yield_if_needed().await;
        }
    };
    let workers = (0..LOGS_AT_A_TIME.min(items.len())).map(|_| worker());
    join_all(workers).await.into_iter().collect()
}
