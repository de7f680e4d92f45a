//! Files that logs have left: kept for `file.delete.delay.ms`, then recycled or removed.
//!
//! A recycled file has all its blocks allocated and written, so that a durable write into it has no
//! metadata to commit. It waits in `pool/` and becomes a new segment by one rename. What it holds
//! is never taken for anything: an active segment's end is told by checkpoint and journal, and the
//! batches of an extent are checked against the entry that names them.
//!
//! *Architecture Invariant*: a file is recycled only when its deletion is told (see
//! [`super::journal::Journal::told`]) and nobody holds it open: a reader would see another log.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::clock;
use crate::runtime::disk::{self, File};
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::Signal;

/// Where recycled files are, below the data directory.
pub const POOL_DIRECTORY: &str = "pool";

/// The longest delay that is waited for in one go, a year; a longer one ends with the process.
const MOST_DELAY_MS: u64 = 366 * 24 * 3600 * 1000;

/// Sizes of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Files kept for new segments, all together.
    pub total_bytes: u64,
    /// The smallest file worth keeping.
    pub least_file_bytes: u64,
    /// A segment that has grown to this belongs to a log with a large flow: it gets blocks ahead
    /// whatever the size of its batches, and its successor a recycled file.
    pub busy_segment_bytes: u64,
}

/// A file that no log names any more.
struct Retired {
    due_ms: i64,
    path: PathBuf,
    size_bytes: u64,
}

/// A file for a new segment.
pub(super) struct Recycled {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
}

/// See the head of this file. One per core and data directory.
pub(super) struct SegmentPool {
    directory: PathBuf,
    /// Begins the names of this core's files in this start of the broker.
    prefix: String,
    limits: PoolLimits,
    retired: RefCell<VecDeque<Retired>>,
    ready: RefCell<VecDeque<Recycled>>,
    ready_bytes: Cell<u64>,
    taken: Cell<u64>,
    next: Cell<u64>,
    work: Signal,
    stopped: Cell<bool>,
}

impl SegmentPool {
    /// Starts the task that waits for delays to end. `ready` are files found in the pool.
    pub(super) fn start(
        data_directory: &Path,
        prefix: String,
        limits: PoolLimits,
        found: Vec<(PathBuf, u64)>,
    ) -> Rc<SegmentPool> {
        let ready = found.into_iter();
        let ready: VecDeque<Recycled> = ready
            .map(|(path, size_bytes)| Recycled { path, size_bytes })
            .collect();
        let pool = Rc::new(SegmentPool {
            directory: data_directory.join(POOL_DIRECTORY),
            prefix,
            limits,
            retired: RefCell::default(),
            ready_bytes: Cell::new(ready.iter().map(|file| file.size_bytes).sum()),
            ready: RefCell::new(ready),
            taken: Cell::new(0),
            next: Cell::new(0),
            work: Signal::default(),
            stopped: Cell::new(false),
        });
        spawn(Queue::Background, pool.clone().run());
        pool
    }

    /// Its sizes.
    pub(super) fn limits(&self) -> &PoolLimits {
        &self.limits
    }

    /// Files that were given to new segments.
    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Bytes of the files that wait to become segments.
    pub(super) fn ready_bytes(&self) -> u64 {
        self.ready_bytes.get()
    }

    /// Takes over a segment's file whose deletion is told: at once out of its log's names, and after
    /// the delay out of the disk or into the pool. `open` is what its readers hold.
    pub(super) async fn retire(
        &self,
        path: PathBuf,
        size_bytes: u64,
        open: Option<File>,
        delay_ms: u64,
    ) {
        let aside = path.with_extension("log.deleted");
        if let Err(error) = disk::rename(&path, &aside).await {
            tracing::warn!(file = %path.display(), %error, "cannot put aside");
            return;
        }
        let is_read = open.is_some_and(|open| open.is_shared());
        let recycles = !is_read || is_planted(Breach::RecycleWhileRead);
        self.retired.borrow_mut().push_back(Retired {
            due_ms: clock::wall_ms().saturating_add(delay_ms.min(MOST_DELAY_MS).cast_signed()),
            path: aside,
            size_bytes: if recycles { size_bytes } else { 0 },
        });
        self.work.raise();
    }

    /// A file for a new segment, if one is ready.
    pub(super) fn take(&self) -> Option<Recycled> {
        let file = self.next_ready()?;
        self.taken.set(self.taken.get() + 1);
        Some(file)
    }

    fn next_ready(&self) -> Option<Recycled> {
        let taken = self.ready.borrow_mut().pop_front()?;
        self.ready_bytes
            .set(self.ready_bytes.get() - taken.size_bytes);
        Some(taken)
    }

    /// Gives the space of the pool back: the disk is full.
    pub(super) async fn empty(&self) {
        while let Some(file) = self.next_ready() {
            remove(&file.path).await;
        }
    }

    /// Removes everything that still waits for its delay, and ends the task.
    pub(super) async fn stop(&self) {
        self.stopped.set(true);
        self.work.raise();
        loop {
            let next = self.retired.borrow_mut().pop_front();
            let Some(retired) = next else { return };
            remove(&retired.path).await;
        }
    }

    async fn run(self: Rc<Self>) {
        loop {
            let work = self.work.raised();
            if self.stopped.get() {
                return;
            }
            let now_ms = clock::wall_ms();
            let next = {
                let mut retired = self.retired.borrow_mut();
                // Settings differ per topic, so the oldest need not be the first one due.
                let due = retired.iter().position(|retired| retired.due_ms <= now_ms);
                due.and_then(|index| retired.remove(index))
            };
            if let Some(retired) = next {
                self.recycle(retired).await;
                continue;
            }
            let next_ms = self.retired.borrow().iter().map(|r| r.due_ms).min();
            match next_ms {
                None => work.await,
                Some(due_ms) => {
                    let wait_ms = due_ms.saturating_sub(now_ms).max(1).unsigned_abs();
                    let due = clock::sleep(Duration::from_millis(wait_ms));
                    futures_lite::future::or(work, due).await;
                }
            }
        }
    }

    /// Puts a file into the pool if that has room for it, or removes it.
    async fn recycle(&self, retired: Retired) {
        let size_bytes = retired.size_bytes;
        let fits = size_bytes >= self.limits.least_file_bytes
            && self.ready_bytes.get() + size_bytes <= self.limits.total_bytes;
        if !fits {
            return remove(&retired.path).await;
        }
        let number = self.next.replace(self.next.get() + 1);
        let name = format!("{}-{number}.segment", self.prefix);
        let path = self.directory.join(name);
        if let Err(error) = disk::rename(&retired.path, &path).await {
            tracing::warn!(file = %retired.path.display(), %error, "cannot recycle");
            return;
        }
        self.ready_bytes.set(self.ready_bytes.get() + size_bytes);
        self.ready
            .borrow_mut()
            .push_back(Recycled { path, size_bytes });
    }
}

async fn remove(path: &Path) {
    if let Err(error) = disk::remove_file(path).await {
        tracing::warn!(file = %path.display(), %error, "cannot remove");
    }
}
