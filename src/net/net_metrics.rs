//! Counters of one core's connections, read by the metrics page.

use std::cell::Cell;

use super::close_reason::{CLOSE_REASONS, CloseReason};
use crate::observe::histogram::Histogram;

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
    /// From a whole request to its answer on the wire, by [`ANSWER_KINDS`].
    pub answers: [Histogram; ANSWER_KINDS.len()],
    closed: [Cell<u64>; CLOSE_REASONS],
}

/// Requests that are told apart by their time: the waits of a Fetch for records are part of it.
pub const ANSWER_KINDS: [&str; 3] = ["Produce", "Fetch", "other"];

/// The place of a request in [`ANSWER_KINDS`], by its first two bytes.
pub(crate) fn answer_kind(frame: &[u8]) -> u8 {
    match frame {
        [0, 0, ..] => 0,
        [0, 1, ..] => 1,
        _ => 2,
    }
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
