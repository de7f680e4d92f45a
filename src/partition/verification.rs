//! Which producers may open a transaction here, because the coordinator said that the partition is
//! part of it (KIP-890).
//!
//! Kafka: `VerificationStateEntry`, `VerificationGuard`. Between the question to the coordinator and
//! the append a marker may end the very transaction that was asked about: then the answer counts no
//! more. So a guard is given before the question, and a marker takes it away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// What a batch that opens a transaction has to bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// Whether the coordinator has to be asked before a batch is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is no part of a transaction, or of one that is open here.
    NotNeeded,
    /// It would open one.
    Needed(VerificationGuard),
}

impl Verification {
    /// The guard, if the coordinator has to be asked.
    #[must_use]
    pub fn guard(self) -> Option<VerificationGuard> {
        match self {
            Verification::NotNeeded => None,
            Verification::Needed(guard) => Some(guard),
        }
    }
}

/// The guards of one replica.
#[derive(Default)]
pub(super) struct Guards {
    /// Epoch and number, by producer.
    given: RefCell<BTreeMap<i64, (i16, u64)>>,
    next: Cell<u64>,
}

impl Guards {
    /// The guard of a producer in an epoch: the same as long as no marker comes. At most `most`
    /// producers have one; the oldest is taken back, and that producer has to ask again.
    pub(super) fn give(&self, producer_id: i64, epoch: i16, most: usize) -> VerificationGuard {
        let mut given = self.given.borrow_mut();
        if let Some((known, number)) = given.get(&producer_id)
            && *known >= epoch
        {
            return VerificationGuard(*number);
        }
        if given.len() >= most.max(1) {
            let oldest = given.iter().min_by_key(|(_, (_, number))| *number);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                given.remove(&id);
            }
        }
        let number = self.next.get();
        self.next.set(number + 1);
        given.insert(producer_id, (epoch, number));
        VerificationGuard(number)
    }

    /// Whether a guard still counts.
    pub(super) fn accept(
        &self,
        producer_id: i64,
        epoch: i16,
        guard: Option<VerificationGuard>,
    ) -> bool {
        let given = self.given.borrow();
        let known = given.get(&producer_id);
        guard.is_some_and(|guard| known == Some(&(epoch, guard.0)))
    }

    /// A transaction of the producer was opened or ended.
    pub(super) fn take_back(&self, producer_id: i64) {
        self.given.borrow_mut().remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_for_its_producer_and_epoch_until_it_is_taken_back() {
        let guards = Guards::default();
        let guard = guards.give(9, 3, 10);
        assert_eq!(guards.give(9, 3, 10), guard, "two requests in flight");
        assert!(guards.accept(9, 3, Some(guard)));
        assert!(!guards.accept(9, 4, Some(guard)) && !guards.accept(8, 3, Some(guard)));
        assert!(!guards.accept(9, 3, None));
        let newer = guards.give(9, 4, 10);
        assert!(!guards.accept(9, 3, Some(guard)) && guards.accept(9, 4, Some(newer)));
        guards.take_back(9);
        assert!(!guards.accept(9, 4, Some(newer)));
        assert_ne!(guards.give(9, 4, 10), newer, "never the same again");
    }

    #[test]
    fn guards_are_bounded() {
        let guards = Guards::default();
        let all: Vec<_> = (0..20).map(|id| guards.give(id, 0, 4)).collect();
        let counts = |id: &i64| guards.accept(*id, 0, Some(all[*id as usize]));
        assert_eq!((0..20).filter(counts).collect::<Vec<_>>(), [16, 17, 18, 19]);
    }
}
