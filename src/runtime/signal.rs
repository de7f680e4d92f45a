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

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, count: &Arc<Count>) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(count.clone())))
    }

    fn woken(count: &Arc<Count>) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_kept_promise_wakes_once_and_delivers() {
        let count = Arc::new(Count::default());
        let (promise, mut promised) = promise();
        assert!(poll(&mut promised, &count).is_pending());
        promise.keep(5);
        assert_eq!(woken(&count), 1);
        assert_eq!(poll(&mut promised, &count), Poll::Ready(Some(5)));
    }

    #[test]
    fn a_dropped_promise_is_told() {
        let count = Arc::new(Count::default());
        let (promise, mut promised) = promise::<u8>();
        assert!(poll(&mut promised, &count).is_pending());
        drop(promise);
        assert_eq!(woken(&count), 1);
        assert_eq!(poll(&mut promised, &count), Poll::Ready(None));
    }

    #[test]
    fn a_promise_kept_before_the_wait_needs_no_wake() {
        let count = Arc::new(Count::default());
        let (promise, mut promised) = promise();
        promise.keep("early");
        assert_eq!(poll(&mut promised, &count), Poll::Ready(Some("early")));
        assert_eq!(woken(&count), 0);
    }

    #[test]
    fn a_signal_wakes_all_who_wait_and_counts_from_the_call() {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let signal = Signal::default();
        signal.raise();
        let (mut one, mut two) = (signal.raised(), signal.raised());
        assert!(poll(&mut one, &first).is_pending());
        assert!(poll(&mut one, &first).is_pending());
        assert!(poll(&mut two, &second).is_pending());
        let mut unpolled = signal.raised();
        signal.raise();
        assert_eq!((woken(&first), woken(&second)), (1, 1));
        assert!(poll(&mut one, &first).is_ready());
        assert!(poll(&mut two, &second).is_ready());
        assert!(poll(&mut unpolled, &first).is_ready());
        assert!(poll(&mut signal.raised(), &first).is_pending());
    }
}
