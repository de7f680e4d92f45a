//! Looks after the data directories of a core: which have failed, which are full.
//!
//! A directory fails when a write or flush failed here or on another core, or when its path leads
//! somewhere else than at the start (its disk was unmounted). It stays offline until the broker
//! starts again. A full one comes back by itself.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::directory_health::DirectoryHealth;
use super::replica_manager::{DirectorySlot, ReplicaManager};
use super::request::DirectoryState;
use crate::log::log_directory::LogDirectory;
use crate::log::partition_log::LogError;
use crate::log::position::LogId;
use crate::runtime::clock;
use crate::runtime::disk;

/// How often a data directory is looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What appends leave of a directory before it counts as no longer full, as a part of the reserve:
/// it would be full again at once.
const RETURN_DIVISOR: u64 = 8;

/// What is free on a disk that is no longer full.
fn return_bytes(reserve_bytes: u64) -> u64 {
    reserve_bytes + reserve_bytes / RETURN_DIVISOR
}

impl DirectorySlot {
    /// The directory, unless it does not serve.
    pub(super) fn online(&self) -> Option<&Rc<LogDirectory>> {
        let directory = self.directory.as_ref();
        directory.filter(|directory| directory.journal().failure().is_none())
    }

    /// Whether `bytes` may be appended to logs of this directory; takes them off what is left.
    pub(super) fn take_room(&self, bytes: usize) -> bool {
        let out_of_space = self.directory.as_ref().is_some_and(|d| d.is_out_of_space());
        if self.is_full.get() || out_of_space {
            return false;
        }
        match self.room_bytes.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.room_bytes.set(left);
                true
            }
            None => {
                self.is_full.set(true);
                false
            }
        }
    }

    fn note_space(&self, path: &Path, free_bytes: u64, reserve_bytes: u64) {
        self.room_bytes
            .set(free_bytes.saturating_sub(reserve_bytes));
        let was_full = self.announced_full.get();
        let wanted = if was_full {
            return_bytes(reserve_bytes)
        } else {
            reserve_bytes
        };
        let is_full = free_bytes < wanted;
        self.is_full.set(is_full);
        if self.announced_full.replace(is_full) == is_full {
            return;
        }
        let directory = path.display();
        if is_full {
            tracing::warn!(%directory, free_bytes, reserve_bytes,
                "data directory is full: appends are refused, everything else goes on");
        } else {
            tracing::info!(%directory, free_bytes, "data directory has space again");
        }
    }
}

impl ReplicaManager {
    /// The task.
    pub(super) async fn watch_directories(self: Rc<Self>) {
        loop {
            for index in 0..self.slots.len() {
                self.look_at(index).await;
            }
            let offline = self.find_offline();
            let changed = *self.offline_logs.borrow() != offline;
            if changed {
                *self.offline_logs.borrow_mut() = offline;
            }
            self.looked.raise();
            clock::sleep(CHECK_PERIOD).await;
        }
    }

    async fn look_at(&self, index: usize) {
        let slot = &self.slots[index];
        let Some(directory) = &slot.directory else {
            return;
        };
        if let Some(reason) = self.health.failure(index) {
            directory.journal().fail(reason);
            return;
        }
        let failure = directory
            .journal()
            .failure()
            .map(|reason| reason.to_string());
        let reason = match failure {
            Some(reason) => reason,
            None => match self.check_disk(slot, directory).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
        };
        fail(&self.health, index, &reason);
        directory.journal().fail(&reason);
    }

    async fn check_disk(&self, slot: &DirectorySlot, directory: &LogDirectory) -> io::Result<()> {
        let path = directory.path();
        let identity = disk::identity(path).await?;
        let before = slot.identity.get();
        slot.identity.set(Some(identity));
        if before.is_some_and(|before| before != identity) {
            return Err(io::Error::other(
                "another file system or directory is at its path: its disk was unmounted or replaced",
            ));
        }
        let space = disk::space(path).await?;
        let unstored = self.cache.unstored_bytes() as u64;
        let unstored = self.health.note_unstored(self.core.index(), unstored);
        let free_bytes = space.free_bytes.saturating_sub(unstored);
        let reserve_bytes = self.settings.reserve_bytes;
        slot.note_space(path, free_bytes, reserve_bytes);
        if slot.is_full.get() || directory.is_out_of_space() {
            directory.empty_pool().await;
        } else if free_bytes < return_bytes(reserve_bytes) {
            directory.end_deletion_delays();
        }
        Ok(())
    }

    /// Gives up the first data directory: what it holds of the metadata cannot be relied on.
    pub fn fail_metadata(&self, why: &str) {
        fail(&self.health, 0, why);
        self.looked.raise();
    }

    /// Resolves when the first data directory has failed: without the metadata a broker cannot
    /// serve.
    pub async fn metadata_failed(&self) {
        loop {
            let looked = self.looked.raised();
            if self.health.failure(0).is_some() {
                return;
            }
            looked.await;
        }
    }

    fn find_offline(&self) -> BTreeSet<LogId> {
        let mut offline: BTreeSet<LogId> = self.missing.borrow().keys().copied().collect();
        let replicas = self.replicas.borrow();
        let failed = replicas.iter().filter(|(_, replica)| {
            let health = replica.log().healthy();
            matches!(health, Err(LogError::Offline(_)))
        });
        offline.extend(failed.map(|(log, _)| *log));
        offline
    }

    /// The state of the data directories as this core sees them.
    pub async fn directory_states(&self) -> Vec<DirectoryState> {
        let mut states = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let path = PathBuf::from(self.health.path(index));
            let offline = self.health.failure(index).is_some() || slot.online().is_none();
            let space = match offline {
                true => None,
                false => disk::space(&path).await.ok(),
            };
            states.push(DirectoryState {
                path: path.display().to_string(),
                total_bytes: space.map_or(-1, |space| space.total_bytes.cast_signed()),
                usable_bytes: space.map_or(-1, |space| space.free_bytes.cast_signed()),
                offline,
            });
        }
        states
    }
}

/// Takes a directory out of service on all cores.
pub fn fail(health: &DirectoryHealth, index: usize, reason: &str) {
    if health.fail(index, reason) {
        let directory = health.path(index);
        tracing::error!(
            directory,
            reason,
            "data directory is offline, with its partitions"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_directory_returns_with_some_distance() {
        let slot = DirectorySlot::new(None);
        let path = Path::new("/d");
        slot.note_space(path, 1000, 800);
        assert!(slot.take_room(150) && slot.take_room(50));
        assert!(!slot.take_room(1), "the reserve stays");
        assert!(!slot.take_room(0), "full until it is looked at again");
        slot.note_space(path, 1000, 800);
        assert!(slot.take_room(200));
        slot.note_space(path, 799, 800);
        slot.note_space(path, 850, 800);
        assert!(!slot.take_room(1), "it would be full again at once");
        slot.note_space(path, 900, 800);
        assert!(slot.take_room(100) && !slot.take_room(1));
    }
}
