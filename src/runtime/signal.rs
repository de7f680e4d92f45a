//! Waiting for an event of the same core: a one-shot [`promise`] and a repeating [`Signal`].
//!
//! Both are plain single-threaded state machines over wakers, so both runtimes share them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    promised: bool,
}

/// The side that will deliver one value.
pub struct Promise<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

/// The side that waits for it; resolves to `None` when the promise was dropped unkept.
pub struct Promised<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

/// A one-shot pair.
#[must_use]
pub fn promise<T>() -> (Promise<T>, Promised<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
        promised: true,
    }));
    (Promise { slot: slot.clone() }, Promised { slot })
}

impl<T> Promise<T> {
    /// Delivers the value and wakes the waiter.
    pub fn keep(self, value: T) {
        self.slot.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            slot.promised = false;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Promised<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.slot.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(Some(value));
        }
        if !slot.promised {
            return Poll::Ready(None);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A repeating event with any number of waiters: [`Signal::raise`] wakes all who wait at that
/// moment. Waiters look at the state they wait for, wait, and look again.
#[derive(Default)]
pub struct Signal {
    generation: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Wakes everybody who waits.
    pub fn raise(&self) {
        self.generation.set(self.generation.get() + 1);
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        for waker in wakers {
            waker.wake();
        }
    }

    /// Resolves at the first [`Signal::raise`] after this call (not after the first poll).
    pub fn raised(&self) -> Raised<'_> {
        Raised {
            signal: self,
            generation: self.generation.get(),
        }
    }
}

/// See [`Signal::raised`].
pub struct Raised<'a> {
    signal: &'a Signal,
    generation: u64,
}

impl Future for Raised<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.generation.get() != self.generation {
            return Poll::Ready(());
        }
        let mut wakers = self.signal.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
