//! Files that logs have left: kept for `file.delete.delay.ms`, then recycled or removed.
//!
//! The directory of a deleted log is renamed at once, so that a new log may have its name. Its files
//! are removed one by one, so that nobody waits for a log of many segments to be gone. What a crash
//! leaves of it is found by its name at the next start; a clean stop leaves nothing.
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
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::clock;
use crate::runtime::disk::{self, File};
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_u64;
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

/// How the directories of deleted logs end; those of logs end with a number.
const DELETED_SUFFIX: &str = ".deleted";

/// Of a log's name, what a deleted one keeps: the whole must not be too long for a file system.
const NAME_KEPT_BYTES: usize = 200;

/// A file that no log names any more, or the directory of a deleted log.
struct Retired {
    due_ms: i64,
    path: PathBuf,
    /// Of a file that may be recycled.
    size_bytes: u64,
    is_directory: bool,
}

fn deleted_name(log: &str) -> String {
    let kept = log.get(..NAME_KEPT_BYTES).unwrap_or(log);
    format!("{kept}.{:016x}{DELETED_SUFFIX}", random_u64())
}

/// Whether a directory of this name is one of a deleted log.
pub(super) fn is_deleted_name(name: &str) -> bool {
    let mark = name.strip_suffix(DELETED_SUFFIX);
    let mark = mark.and_then(|name| name.rsplit_once('.'));
    mark.is_some_and(|(_, mark)| mark.len() == 16 && mark.chars().all(|c| c.is_ascii_hexdigit()))
}

/// A file for a new segment.
pub(super) struct Recycled {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
}

/// See the head of this file. One per core and data directory.
pub(super) struct SegmentPool {
    data_directory: PathBuf,
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
    /// The task is at something that was retired.
    busy: Cell<bool>,
    idle: Signal,
}

impl SegmentPool {
    /// Starts the task that waits for delays to end. `ready` are files found in the pool, `deleted`
    /// directories of deleted logs.
    pub(super) fn start(
        data_directory: &Path,
        prefix: String,
        limits: PoolLimits,
        ready: Vec<(PathBuf, u64)>,
        deleted: Vec<PathBuf>,
    ) -> Rc<SegmentPool> {
        let deleted = deleted.into_iter().map(|path| Retired {
            due_ms: 0,
            path,
            size_bytes: 0,
            is_directory: true,
        });
        let ready = ready.into_iter();
        let ready: VecDeque<Recycled> = ready
            .map(|(path, size_bytes)| Recycled { path, size_bytes })
            .collect();
        let pool = Rc::new(SegmentPool {
            data_directory: data_directory.to_path_buf(),
            directory: data_directory.join(POOL_DIRECTORY),
            prefix,
            limits,
            retired: RefCell::new(deleted.collect()),
            ready_bytes: Cell::new(ready.iter().map(|file| file.size_bytes).sum()),
            ready: RefCell::new(ready),
            taken: Cell::new(0),
            next: Cell::new(0),
            work: Signal::default(),
            stopped: Cell::new(false),
            busy: Cell::new(false),
            idle: Signal::default(),
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
        self.keep(Retired {
            due_ms: due_ms(delay_ms),
            path: aside,
            size_bytes: if recycles { size_bytes } else { 0 },
            is_directory: false,
        })
        .await;
    }

    /// Takes over the directory of a log whose deletion is told; its name is free on return.
    pub(super) async fn retire_log(&self, name: &str, delay_ms: u64) -> io::Result<()> {
        let aside = self.data_directory.join(deleted_name(name));
        disk::rename(&self.data_directory.join(name), &aside).await?;
        disk::sync_dir(&self.data_directory).await?;
        self.keep(Retired {
            due_ms: due_ms(delay_ms),
            path: aside,
            size_bytes: 0,
            is_directory: true,
        })
        .await;
        Ok(())
    }

    async fn keep(&self, retired: Retired) {
        if self.stopped.get() {
            return remove(&retired).await;
        }
        self.retired.borrow_mut().push_back(retired);
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
        self.end_delays();
        while let Some(file) = self.next_ready() {
            remove_file(&file.path).await;
        }
    }

    /// What waits for its delay to end is removed now: its space is needed.
    pub(super) fn end_delays(&self) {
        for retired in self.retired.borrow_mut().iter_mut() {
            retired.due_ms = 0;
            retired.size_bytes = 0;
        }
        self.work.raise();
    }

    /// Removes everything that still waits for its delay, and ends the task. What is retired later
    /// goes at once.
    pub(super) async fn stop(&self) {
        self.stopped.set(true);
        self.work.raise();
        loop {
            let idle = self.idle.raised();
            if !self.busy.get() {
                break;
            }
            idle.await;
        }
        let mut removed = false;
        loop {
            let next = self.retired.borrow_mut().pop_front();
            let Some(retired) = next else { break };
            remove(&retired).await;
            removed |= retired.is_directory;
        }
        // After a clean stop nobody looks for directories that came back.
        if removed && let Err(error) = disk::sync_dir(&self.data_directory).await {
            tracing::warn!(directory = %self.data_directory.display(), %error, "cannot flush");
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
                self.busy.set(true);
                self.recycle(retired).await;
                self.busy.set(false);
                self.idle.raise();
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
        let fits = !retired.is_directory
            && size_bytes >= self.limits.least_file_bytes
            && self.ready_bytes.get() + size_bytes <= self.limits.total_bytes;
        if !fits {
            return remove(&retired).await;
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

fn due_ms(delay_ms: u64) -> i64 {
    clock::wall_ms().saturating_add(delay_ms.min(MOST_DELAY_MS).cast_signed())
}

async fn remove(retired: &Retired) {
    if !retired.is_directory {
        return remove_file(&retired.path).await;
    }
    if let Err(error) = remove_directory(&retired.path).await {
        tracing::warn!(directory = %retired.path.display(), %error, "cannot remove a deleted log");
    }
}

/// File by file: others use the disk and the pool of blocking calls in between.
async fn remove_directory(path: &Path) -> io::Result<()> {
    for entry in disk::list_dir(path).await? {
        if !entry.is_dir {
            remove_file(&path.join(entry.name)).await;
        }
    }
    disk::remove_dir(path).await
}

async fn remove_file(path: &Path) {
    if let Err(error) = disk::remove_file(path).await {
        tracing::warn!(file = %path.display(), %error, "cannot remove");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_deleted_logs_are_no_names_of_logs() {
        let mark = format!(".{:016x}", 7);
        assert!(is_deleted_name(&format!("orders-0{mark}.deleted")));
        for log in ["orders-0", "orders-0.deadbeef", "a.deleted-0", "x.deleted"] {
            assert!(!is_deleted_name(log), "{log}");
        }
        assert!(!is_deleted_name(&format!("a{mark}.deleted-3")));
    }
}
