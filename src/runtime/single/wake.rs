//! Waking a core from another thread: one eventfd per core, read by the core's ring, written only
//! while the core waits in it.
#![allow(unsafe_code)] // Plain system calls on descriptors this file owns.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use super::executor;
use super::queue::Doorbell;

/// Makes the core that owns it look at its bells, and leave its wait if it is in one.
///
/// The waker sets `pending`, then looks at `parked`; the core sets `parked`, then looks at `pending`
/// before it waits. All four are sequentially consistent, so one of them sees the other: either the
/// core does not wait, or the eventfd that its ring reads is written.
pub(crate) struct WakeFd {
    descriptor: OwnedFd,
    pending: AtomicBool,
    parked: AtomicBool,
}

impl WakeFd {
    pub(crate) fn new() -> io::Result<WakeFd> {
        // SAFETY: no memory is passed; a non-negative result is a fresh descriptor.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(WakeFd {
            // SAFETY: the descriptor is fresh and owned by nobody else.
            descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
            pending: AtomicBool::new(false),
            parked: AtomicBool::new(false),
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    pub(crate) fn wake(&self) {
        self.pending.store(true, Ordering::SeqCst);
        if !self.parked.swap(false, Ordering::SeqCst) {
            return;
        }
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the pointer and length describe `one`. The write cannot block: that takes 2^64-2
        // unread wake-ups. Its only failures are programming errors.
        let written = unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "eventfd: {}", io::Error::last_os_error());
    }

    /// Whether somebody called since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::SeqCst)
    }

    /// From here on a call writes the eventfd. Look once more before you wait.
    pub(crate) fn begin_parking(&self) {
        self.parked.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end_parking(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }
}

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
