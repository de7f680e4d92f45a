//! What the members of a group have to do by when.

use std::collections::BTreeMap;

use super::timers::Timers;

/// What is to happen before a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Duty {
    /// The member shows that it lives.
    Session,
    /// The member gives up the partitions that it has to.
    Revoke,
    /// A member of the classic protocol joins again.
    Join,
    /// A member of the classic protocol fetches its assignment.
    Sync,
}

impl Duty {
    const ALL: [Duty; 4] = [Duty::Session, Duty::Revoke, Duty::Join, Duty::Sync];
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    due_ms: u64,
    /// When its entry in the queue fires, which is not after `due_ms`.
    fires_ms: u64,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    deadlines: BTreeMap<(String, Duty), Deadline>,
    timers: Timers<(String, Duty)>,
}

impl Deadlines {
    /// Sets, or moves, a deadline.
    pub(super) fn set(&mut self, member_id: &str, duty: Duty, due_ms: u64) {
        let key = (member_id.to_owned(), duty);
        if let Some(deadline) = self.deadlines.get_mut(&key) {
            deadline.due_ms = due_ms;
            if deadline.fires_ms <= due_ms {
                return;
            }
            self.timers.cancel(deadline.fires_ms, key.clone());
        }
        self.timers.set(due_ms, key.clone());
        let fires_ms = due_ms;
        self.deadlines.insert(key, Deadline { due_ms, fires_ms });
    }

    /// Sets a deadline that is not set yet.
    pub(super) fn set_if_none(&mut self, member_id: &str, duty: Duty, due_ms: u64) {
        if !self.deadlines.contains_key(&(member_id.to_owned(), duty)) {
            self.set(member_id, duty, due_ms);
        }
    }

    /// The duty is done.
    pub(super) fn clear(&mut self, member_id: &str, duty: Duty) {
        let key = (member_id.to_owned(), duty);
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.timers.cancel(deadline.fires_ms, key);
        }
    }

    /// The member is gone.
    pub(super) fn clear_all(&mut self, member_id: &str) {
        for duty in Duty::ALL {
            self.clear(member_id, duty);
        }
    }

    /// When to ask [`Deadlines::pop_missed`] again.
    #[must_use]
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.timers.next_due_ms()
    }

    /// Takes a deadline that was missed.
    pub(super) fn pop_missed(&mut self, now_ms: u64) -> Option<(String, Duty)> {
        while let Some(key) = self.timers.pop_due(now_ms) {
            let Some(deadline) = self.deadlines.get_mut(&key) else {
                continue;
            };
            if deadline.due_ms <= now_ms {
                self.deadlines.remove(&key);
                return Some(key);
            }
            deadline.fires_ms = deadline.due_ms;
            self.timers.set(deadline.due_ms, key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_moves_is_missed_once_and_where_it_is_last() {
        let mut deadlines = Deadlines::default();
        deadlines.set("a", Duty::Session, 10);
        deadlines.set("a", Duty::Session, 30);
        assert_eq!(deadlines.next_due_ms(), Some(10));
        assert_eq!(deadlines.pop_missed(20), None);
        assert_eq!(deadlines.next_due_ms(), Some(30));
        deadlines.set("a", Duty::Session, 25);
        deadlines.set_if_none("a", Duty::Session, 5);
        assert_eq!(
            deadlines.pop_missed(25),
            Some(("a".to_owned(), Duty::Session))
        );
        assert_eq!(deadlines.pop_missed(100), None);
    }

    #[test]
    fn a_member_that_is_gone_misses_nothing() {
        let mut deadlines = Deadlines::default();
        deadlines.set("a", Duty::Session, 10);
        deadlines.set("a", Duty::Revoke, 20);
        deadlines.set("b", Duty::Sync, 30);
        deadlines.clear_all("a");
        assert_eq!(deadlines.next_due_ms(), Some(30));
        deadlines.clear("b", Duty::Sync);
        assert_eq!(deadlines.next_due_ms(), None);
    }
}
