//! What compaction may take on one core, and what it took.

use std::cell::Cell;
use std::time::Duration;

use super::pace::Pace;
use crate::runtime::clock;

/// See the head of this file. One per core.
pub struct Cleaner {
    pub(super) memory_bytes: usize,
    pub(super) decompressed_max_bytes: usize,
    pace: Pace,
    /// Read and written since the pace was last kept.
    owed_bytes: Cell<u64>,
    counts: Cell<CompactionCounts>,
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
    /// With so much memory for the keys of a run, and so many bytes read and written per second; 0
    /// is no bound.
    #[must_use]
    pub fn new(
        memory_bytes: usize,
        decompressed_max_bytes: usize,
        bytes_per_second: u64,
    ) -> Cleaner {
        Cleaner {
            memory_bytes,
            decompressed_max_bytes,
            pace: Pace::new(bytes_per_second),
            owed_bytes: Cell::new(0),
            counts: Cell::default(),
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> CompactionCounts {
        self.counts.get()
    }

    fn count(&self, change: impl FnOnce(&mut CompactionCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn note_run(&self) {
        self.count(|counts| counts.runs += 1);
    }

    pub(super) fn note_read(&self, bytes: u64) {
        self.count(|counts| counts.read_bytes += bytes);
        self.owed_bytes.set(self.owed_bytes.get() + bytes);
    }

    pub(super) fn note_written(&self, bytes: u64) {
        self.count(|counts| counts.written_bytes += bytes);
        self.owed_bytes.set(self.owed_bytes.get() + bytes);
    }

    /// How long to wait for what was read and written since this was last asked.
    pub(super) fn delay(&self) -> Duration {
        match self.owed_bytes.take() {
            0 => Duration::ZERO,
            owed => {
                let wait = self.pace.take(owed, clock::monotonic_us());
                wait.unwrap_or_default()
            }
        }
    }
}
