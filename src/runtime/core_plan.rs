//! What both executors and their callers name: a core's plan, its task queues, its stalls.

#[cfg(not(feature = "sim"))]
use std::time::Duration;

use super::core_id::CoreId;

/// A poll of one task that takes longer than this is a stall of its core.
#[cfg(not(feature = "sim"))]
pub(super) const STALL: Duration = Duration::from_millis(10);

/// A task queue of a core; the head of the executor says how they share its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// The road of an acknowledgement.
    Ack,
    /// Connections.
    Network,
    /// Metadata, heartbeats, sweeps.
    Control,
    /// Whatever has time.
    Background,
}

/// Where and how one core runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorePlan {
    /// Its name.
    pub core: CoreId,
    /// The CPU to pin it to; unpinned when absent.
    pub cpu: Option<usize>,
    /// How long it looks for work before it sleeps; only for pinned cores.
    pub spin_before_park_us: u64,
}

/// What a core's long polls cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stalls {
    /// Polls of a single task beyond 10 ms.
    pub count: u64,
    /// Time spent in them.
    pub total_us: u64,
    /// The longest one.
    pub longest_us: u64,
}

#[cfg(not(feature = "sim"))]
impl Stalls {
    /// With a poll that took so long.
    pub(super) fn with(self, took: Duration) -> Stalls {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Stalls {
            count: self.count + 1,
            total_us: self.total_us + took_us,
            longest_us: self.longest_us.max(took_us),
        }
    }
}
