//! Waking a core from another thread: one eventfd per core, shared by the ring's completions and
//! by everything that rings a bell (`bell.rs`).
//!
//! The eventfd is a blocking one, read through glommio's ring: a non-blocking one would complete
//! that read with EAGAIN at once.
#![allow(unsafe_code)] // Plain system calls on descriptors this file owns.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use glommio::io::BufferedFile;

use super::bell::Waiters;
use super::ring::Ring;

/// Makes the core that owns it leave its sleep.
pub(crate) struct WakeFd(OwnedFd);

impl WakeFd {
    pub(crate) fn new() -> io::Result<WakeFd> {
        // SAFETY: no memory is passed; a non-negative result is a fresh descriptor.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and owned by nobody else.
        Ok(WakeFd(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the pointer and length describe `one`. The write cannot block: that takes 2^64-2
        // unread wake-ups. Its only failures are programming errors.
        let written = unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "eventfd: {}", io::Error::last_os_error());
    }
}

/// Ends [`watch`] at the core's shutdown.
#[derive(Default)]
pub(crate) struct WatchEnd {
    asked: Cell<bool>,
    ended: super::signal::Signal,
    done: Cell<bool>,
}

impl WatchEnd {
    pub(crate) async fn end(&self, wake_fd: &WakeFd) {
        self.asked.set(true);
        wake_fd.wake();
        while !self.done.get() {
            self.ended.raised().await;
        }
    }
}

/// The task that turns the core's eventfd into wake-ups of its tasks.
pub(crate) async fn watch(
    wake_fd: Arc<WakeFd>,
    ring: Rc<Ring>,
    waiters: Rc<Waiters>,
    end: Rc<WatchEnd>,
) {
    let own = wake_fd
        .0
        .try_clone()
        .expect("a descriptor for the core's wake-ups");
    // SAFETY: the descriptor is handed over; nobody else closes it.
    let file = unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) };
    while !end.asked.get() {
        file.read_at(0, 8).await.expect("reading an eventfd");
        ring.take_completions();
        waiters.wake_rung();
    }
    file.close().await.expect("closing an eventfd");
    end.done.set(true);
    end.ended.raise();
}
