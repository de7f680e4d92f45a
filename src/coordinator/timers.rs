//! What is due when: one queue for all timers of a shard.
//!
//! A timer that is moved later is not looked up: it fires early, its owner sees that the deadline is
//! not reached and sets it again. So a heartbeat costs nothing here, and the queue holds at most one
//! entry per timer.

use std::collections::BTreeSet;

/// See the head of this file. `K` says what is due.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    queue: BTreeSet<(u64, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            queue: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Fires `what` at `due_ms`, besides other times it is set for.
    pub fn set(&mut self, due_ms: u64, what: K) {
        self.queue.insert((due_ms, what));
    }

    /// Takes one firing back.
    pub fn cancel(&mut self, due_ms: u64, what: K) {
        self.queue.remove(&(due_ms, what));
    }

    /// When the next one fires.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.queue.first().map(|(due_ms, _)| *due_ms)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        if self.next_due_ms()? > now_ms {
            return None;
        }
        self.queue.pop_first().map(|(_, what)| what)
    }

    /// Timers that are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_fires_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(30, "c");
        timers.set(10, "a");
        timers.set(20, "b");
        timers.cancel(20, "b");
        assert_eq!((timers.next_due_ms(), timers.len()), (Some(10), 2));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(30), Some("a"));
        assert_eq!(timers.pop_due(30), Some("c"));
        assert!(timers.is_empty() && timers.pop_due(30).is_none());
    }
}
