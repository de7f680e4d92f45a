//! First come, first served: the order in which batches asked to be appended.
//!
//! A turn is taken when a request arrives, without waiting, so that requests of one connection are
//! appended in the order in which they were sent, whatever the earlier ones wait for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::runtime::signal::Signal;

/// The turns of one replica.
#[derive(Default)]
pub struct Turns {
    next: Cell<u64>,
    serving: Cell<u64>,
    ended: RefCell<BTreeSet<u64>>,
    moved: Signal,
}

/// A place in the queue; dropping it lets the next one go.
pub struct Turn {
    turns: Rc<Turns>,
    number: u64,
}

impl Turns {
    /// Takes the next place.
    #[must_use]
    pub fn take(self: &Rc<Self>) -> Turn {
        let number = self.next.get();
        self.next.set(number + 1);
        Turn {
            turns: self.clone(),
            number,
        }
    }
}

impl Turn {
    /// Waits until it is served.
    pub async fn come(&self) {
        loop {
            let moved = self.turns.moved.raised();
            if self.turns.serving.get() == self.number {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = &self.turns;
        turns.ended.borrow_mut().insert(self.number);
        // One that ends before it was served (at the end of a core) is passed over in its time.
        while turns.ended.borrow_mut().remove(&turns.serving.get()) {
            turns.serving.set(turns.serving.get() + 1);
        }
        turns.moved.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_the_order_they_were_taken() {
        let turns: Rc<Turns> = Rc::default();
        let served: Rc<RefCell<Vec<u64>>> = Rc::default();
        let visit = |turn: Turn| {
            let served = served.clone();
            async move {
                turn.come().await;
                served.borrow_mut().push(turn.number);
            }
        };
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        let both = futures_lite::future::zip(visit(third), visit(second));
        futures_lite::future::block_on(futures_lite::future::zip(both, visit(first)));
        assert_eq!(*served.borrow(), [0, 1, 2]);
    }

    #[test]
    fn a_turn_that_is_given_up_is_passed_over() {
        let turns: Rc<Turns> = Rc::default();
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        drop(second);
        drop(first);
        futures_lite::future::block_on(third.come());
    }
}
