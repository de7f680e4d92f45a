//! Waking a core from another thread: one eventfd per core, read by the core's ring, written only
//! while the core waits in it.
#![allow(unsafe_code)] // Plain system calls on descriptors this file owns.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

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
