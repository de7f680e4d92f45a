//! What all cores know of the data directories: a disk that fails one core fails all of them.
//!
//! One per process. A core writes what it finds, about once a second, and reads what others found.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::placement;
use crate::log::directory_register::DirectoryRegister;
use crate::log::position::LogId;
use crate::wire::codec::Uuid;

/// See the head of this file.
#[derive(Debug)]
pub struct DirectoryHealth {
    directories: Vec<Health>,
    /// Bytes that each core holds in memory and will write to segments, whatever the directory.
    unstored_bytes: Vec<AtomicU64>,
    register: DirectoryRegister,
    missing: Vec<Uuid>,
}

#[derive(Debug)]
struct Health {
    path: String,
    id: Option<Uuid>,
    failure: OnceLock<String>,
}

impl DirectoryHealth {
    /// Directories by path and id, in the configured order; all that ever were, and those of them
    /// that are not used.
    #[must_use]
    pub fn new(
        directories: Vec<(String, Option<Uuid>)>,
        cores: usize,
        register: DirectoryRegister,
        missing: Vec<Uuid>,
    ) -> DirectoryHealth {
        let health = |(path, id)| Health {
            path,
            id,
            failure: OnceLock::new(),
        };
        DirectoryHealth {
            directories: directories.into_iter().map(health).collect(),
            unstored_bytes: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            register,
            missing,
        }
    }

    /// How many directories are configured.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directories.len()
    }

    /// Whether none is configured, which is never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Where a directory is.
    #[must_use]
    pub fn path(&self, index: usize) -> &str {
        &self.directories[index].path
    }

    /// Whether a log that is found nowhere may lie in a directory that does not serve.
    #[must_use]
    pub fn may_be_missing(&self, log: LogId) -> bool {
        let failed = self
            .directories
            .iter()
            .filter(|health| health.failure.get().is_some());
        let failed = failed.filter_map(|health| health.id);
        let missing: Vec<Uuid> = self.missing.iter().copied().chain(failed).collect();
        placement::may_be_in(log, &self.register, &missing)
    }

    /// Takes a directory out of service for good. True for who says so first.
    pub fn fail(&self, index: usize, reason: &str) -> bool {
        self.directories[index]
            .failure
            .set(reason.to_string())
            .is_ok()
    }

    /// Why a directory does not serve, if so.
    #[must_use]
    pub fn failure(&self, index: usize) -> Option<&str> {
        self.directories[index].failure.get().map(String::as_str)
    }

    /// Notes what a core will write; what all of them will.
    pub fn note_unstored(&self, core: usize, bytes: u64) -> u64 {
        self.unstored_bytes[core].store(bytes, Ordering::Relaxed);
        let all = self.unstored_bytes.iter();
        all.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays_and_unstored_bytes_add_up() {
        let paths = vec![("/a".to_string(), None), ("/b".to_string(), None)];
        let health = DirectoryHealth::new(paths, 2, DirectoryRegister::default(), Vec::new());
        assert!(health.fail(1, "broken"));
        assert!(!health.fail(1, "more"));
        assert_eq!(
            (health.failure(0), health.failure(1)),
            (None, Some("broken"))
        );
        assert_eq!(health.note_unstored(0, 5), 5);
        assert_eq!(health.note_unstored(1, 7), 12);
        assert_eq!(health.note_unstored(0, 1), 8);
    }
}
