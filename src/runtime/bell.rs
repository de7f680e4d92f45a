//! Waiting on a core for something that another thread does: a [`Bell`] per such wait, whose ringing
//! wakes the core and there the task.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use super::executor;
use super::queue::Doorbell;
use super::wake::WakeFd;

/// A doorbell with the address of the core that sleeps behind it. One waiter at a time.
pub(crate) struct Bell {
    door: Doorbell,
    home: OnceLock<Arc<WakeFd>>,
}

impl Bell {
    pub(crate) fn new() -> Arc<Bell> {
        Arc::new(Bell {
            door: Doorbell::new(),
            home: OnceLock::new(),
        })
    }

    /// Called by any thread after it made something visible that the waiter looks at.
    pub(crate) fn ring(&self) {
        if self.door.ring() {
            // The waiter set its home before it armed the bell.
            self.home.get().expect("an armed bell has a home").wake();
        }
    }

    /// Resolves once `ready` holds. `ready` must become true by something after which
    /// [`Bell::ring`] is called.
    pub(crate) fn rung<F: Fn() -> bool + Unpin>(self: &Arc<Bell>, ready: F) -> Rung<'_, F> {
        Rung {
            bell: self,
            ready,
            registered: false,
        }
    }
}

/// See [`Bell::rung`].
pub(crate) struct Rung<'a, F> {
    bell: &'a Arc<Bell>,
    ready: F,
    registered: bool,
}

impl<F: Fn() -> bool + Unpin> Future for Rung<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if (self.ready)() {
            return Poll::Ready(());
        }
        let core = executor::core();
        let home = self.bell.home.get_or_init(|| core.wake_fd().clone());
        assert!(
            Arc::ptr_eq(home, core.wake_fd()),
            "a bell is waited for on one core only"
        );
        self.bell.door.arm();
        // Once more after the arm: see the proof in `queue.rs`.
        if (self.ready)() {
            return Poll::Ready(());
        }
        core.waiters().register(self.bell, context.waker());
        self.registered = true;
        Poll::Pending
    }
}

impl<F> Drop for Rung<'_, F> {
    fn drop(&mut self) {
        self.bell.door.disarm();
        if self.registered
            && let Some(core) = executor::try_core()
        {
            core.waiters().remove(self.bell);
        }
    }
}

/// The bells this core sleeps behind: one per mesh port, inbox and pending blocking call.
#[derive(Default)]
pub(crate) struct Waiters(RefCell<Vec<(Arc<Bell>, Waker)>>);

impl Waiters {
    fn register(&self, bell: &Arc<Bell>, waker: &Waker) {
        let mut waiters = self.0.borrow_mut();
        match waiters
            .iter_mut()
            .find(|(other, _)| Arc::ptr_eq(other, bell))
        {
            Some((_, old)) => old.clone_from(waker),
            None => waiters.push((bell.clone(), waker.clone())),
        }
    }

    fn remove(&self, bell: &Arc<Bell>) {
        self.0
            .borrow_mut()
            .retain(|(other, _)| !Arc::ptr_eq(other, bell));
    }

    pub(crate) fn wake_rung(&self) {
        let mut waiters = self.0.borrow_mut();
        let mut index = 0;
        while index < waiters.len() {
            if waiters[index].0.door.is_armed() {
                index += 1;
            } else {
                waiters.swap_remove(index).1.wake();
            }
        }
    }
}
