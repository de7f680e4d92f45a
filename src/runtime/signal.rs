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
/// moment. Waiters look at the state they wait for, wait, and look again. Waiting costs the same
/// whether one waits or ten thousand.
#[derive(Default)]
pub struct Signal {
    generation: Cell<u64>,
    waiting: RefCell<Waiting>,
}

/// The wakers of this generation by the place their waiter was given.
#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Signal {
    /// Wakes everybody who waits.
    pub fn raise(&self) {
        self.generation.set(self.generation.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting.wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    /// Resolves at the first [`Signal::raise`] after this call (not after the first poll).
    pub fn raised(&self) -> Raised<'_> {
        Raised {
            signal: self,
            generation: self.generation.get(),
            place: None,
        }
    }
}

/// See [`Signal::raised`].
pub struct Raised<'a> {
    signal: &'a Signal,
    generation: u64,
    place: Option<usize>,
}

impl Raised<'_> {
    fn is_raised(&self) -> bool {
        self.signal.generation.get() != self.generation
    }
}

impl Future for Raised<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_raised() {
            return Poll::Ready(());
        }
        let signal = self.signal;
        let mut waiting = signal.waiting.borrow_mut();
        let place = self.place.or_else(|| waiting.free.pop());
        let place = place.unwrap_or_else(|| {
            waiting.wakers.push(None);
            waiting.wakers.len() - 1
        });
        match &mut waiting.wakers[place] {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        // The places of an earlier generation are gone.
        if let Some(place) = self.place.filter(|_| !self.is_raised()) {
            let mut waiting = self.signal.waiting.borrow_mut();
            waiting.wakers[place] = None;
            waiting.free.push(place);
        }
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

    #[test]
    fn who_gives_up_is_not_woken_and_leaves_its_place() {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let signal = Signal::default();
        for _ in 0..10 {
            assert!(poll(&mut signal.raised(), &first).is_pending());
        }
        assert_eq!(signal.waiting.borrow().wakers.len(), 1);
        let mut old = signal.raised();
        assert!(poll(&mut old, &first).is_pending());
        signal.raise();
        let mut new = signal.raised();
        assert!(poll(&mut new, &second).is_pending());
        drop(old);
        signal.raise();
        assert_eq!((woken(&first), woken(&second)), (1, 1));
    }
}
