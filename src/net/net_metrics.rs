//! Counters of one core's connections, read by the metrics page.

use std::cell::Cell;

use super::close_reason::{CLOSE_REASONS, CloseReason};

/// One core's counters; plain cells, nobody else's core touches them.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// Connections accepted by this core's listeners.
    pub accepted: Cell<u64>,
    /// Of these, handed to another core.
    pub handed_over: Cell<u64>,
    /// Connections taken over from another core.
    pub taken_over: Cell<u64>,
    /// Connections open now.
    pub open: Cell<u64>,
    /// Times accepting paused because no descriptor was left.
    pub accept_pauses: Cell<u64>,
    /// Requests started.
    pub requests: Cell<u64>,
    /// Answers put on the wire.
    pub replies: Cell<u64>,
    /// Gather writes that carried them.
    pub writes: Cell<u64>,
    /// Bytes received.
    pub received_bytes: Cell<u64>,
    /// Bytes sent.
    pub sent_bytes: Cell<u64>,
    /// Waits for memory.
    pub memory_waits: Cell<u64>,
    /// Most memory for requests held at once.
    pub memory_peak_bytes: Cell<u64>,
    closed: [Cell<u64>; CLOSE_REASONS],
}

impl NetMetrics {
    /// Connections closed for `reason`.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()].get()
    }

    pub(crate) fn count_close(&self, reason: CloseReason) {
        add(&self.closed[reason.index()], 1);
    }
}

pub(crate) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
