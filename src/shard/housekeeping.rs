//! Keeps the logs of one core: retention and compaction, one log at a time, in the background.

use std::rc::Rc;
use std::time::Duration;

use super::replica_manager::ReplicaManager;
use crate::log::cleaner::{Cleaner, CompactionCounts};
use crate::log::compacting::CompactionError;
use crate::log::partition_log::LogError;
use crate::partition::replica::Replica;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn, yield_if_needed};

/// How often and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HousekeepingConfig {
    /// Time between two looks at retention.
    pub retention_check_ms: u64,
    /// Whether logs are compacted at all.
    pub compacts: bool,
    /// How long to wait when no log is due for compaction.
    pub compaction_backoff_ms: u64,
    /// Memory for the keys of a run.
    pub compaction_memory_bytes: usize,
    /// Bytes that compaction reads and writes per second; 0 is no bound.
    pub compaction_bytes_per_second: u64,
}

/// See the head of this file.
pub struct Housekeeper {
    cleaner: Cleaner,
}

/// What waits for compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionBacklog {
    /// Partitions left alone since they are damaged.
    pub uncleanable: u64,
    /// Age of the oldest record that waits.
    pub longest_lag_ms: u64,
}

impl Housekeeper {
    /// With nothing done yet.
    #[must_use]
    pub(super) fn new(config: &HousekeepingConfig, decompressed_max_bytes: usize) -> Housekeeper {
        Housekeeper {
            cleaner: Cleaner::new(
                config.compaction_memory_bytes,
                decompressed_max_bytes,
                config.compaction_bytes_per_second,
            ),
        }
    }

    /// Starts the tasks.
    pub(super) fn start(manager: &Rc<ReplicaManager>, config: &HousekeepingConfig) {
        let retention_check = Duration::from_millis(config.retention_check_ms);
        spawn(
            Queue::Background,
            keep_retention(manager.clone(), retention_check),
        );
        if config.compacts {
            let backoff = Duration::from_millis(config.compaction_backoff_ms);
            spawn(Queue::Background, keep_compaction(manager.clone(), backoff));
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn compaction_counts(&self) -> CompactionCounts {
        self.cleaner.counts()
    }
}

impl ReplicaManager {
    /// What waits for compaction on this core.
    #[must_use]
    pub fn compaction_backlog(&self) -> CompactionBacklog {
        let now_ms = clock::wall_ms();
        let mut backlog = CompactionBacklog::default();
        for replica in self.replicas() {
            let log = replica.log();
            backlog.uncleanable += u64::from(log.uncleanable().is_some());
            let oldest_ms = log
                .compaction_outlook(replica.high_watermark(), now_ms)
                .and_then(|outlook| outlook.oldest_dirty_ms);
            let lag_ms = oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
            backlog.longest_lag_ms = backlog.longest_lag_ms.max(lag_ms.max(0).cast_unsigned());
        }
        backlog
    }
}

/// Deletes old segments, one partition after the other.
async fn keep_retention(manager: Rc<ReplicaManager>, check: Duration) {
    loop {
        clock::sleep(check).await;
        for replica in manager.replicas() {
            let kept = replica
                .log()
                .retain(clock::wall_ms(), replica.high_watermark())
                .await;
            note_failure(&replica, "retention", kept);
        }
    }
}

/// Compacts the dirtiest log that is due, again and again. Kafka: `LogCleaner.CleanerThread`.
async fn keep_compaction(manager: Rc<ReplicaManager>, backoff: Duration) {
    loop {
        roll_overdue(&manager).await;
        let did_work = match dirtiest(&manager).await {
            Some(replica) => compact(&manager, &replica).await,
            None => false,
        };
        if !did_work {
            // At least a moment: a backoff of 0 must not keep the core from sleeping.
            clock::sleep(backoff.max(Duration::from_millis(1))).await;
        }
    }
}

async fn roll_overdue(manager: &ReplicaManager) {
    for replica in manager.replicas() {
        let rolled = replica.log().roll_for_compaction(clock::wall_ms()).await;
        note_failure(&replica, "rolling for compaction", rolled);
        yield_if_needed().await;
    }
}

async fn dirtiest(manager: &ReplicaManager) -> Option<Rc<Replica>> {
    let now_ms = clock::wall_ms();
    let mut dirtiest: Option<(f64, Rc<Replica>)> = None;
    for replica in manager.replicas() {
        let log = replica.log();
        if let Some(settings) = log.settings().compaction
            && let Some(outlook) = log.compaction_outlook(replica.high_watermark(), now_ms)
            && outlook.is_due(&settings, now_ms)
        {
            let ratio = outlook.dirty_ratio();
            if dirtiest.as_ref().is_none_or(|(most, _)| ratio > *most) {
                dirtiest = Some((ratio, replica));
            }
        }
        yield_if_needed().await;
    }
    dirtiest.map(|(_, replica)| replica)
}

/// Whether the log was compacted; any other outcome is worth a pause.
async fn compact(manager: &ReplicaManager, replica: &Replica) -> bool {
    let log = replica.log();
    let cleaner = &manager.housekeeper().cleaner;
    match log.compact(replica.high_watermark(), cleaner).await {
        Ok(did_work) => did_work,
        // It is logged where it is found, and the log is left alone.
        Err(CompactionError::Uncleanable(_)) => true,
        Err(error) => {
            tracing::warn!(log = %log.directory_name(), %error, "compaction stopped");
            false
        }
    }
}

fn note_failure(replica: &Replica, doing: &str, result: Result<(), LogError>) {
    if let Err(error) = result
        && error != LogError::Deleted
    {
        tracing::warn!(log = %replica.log().directory_name(), %error, "{doing}");
    }
}
