//! When a core enters the kernel for its one ring, in which it also waits.
//!
//! * **One submission per turn**: an operation only fills an entry; the executor enters the kernel
//!   once for all of them, when nothing else is runnable or some time has passed.
//! * **Wake-up**: the core waits in this ring, which also reads the core's eventfd (`wake.rs`).
//! * **Flags**: SINGLE_ISSUER and DEFER_TASKRUN: completions are made when the core enters the ring
//!   for them and never interrupt it. TASKRUN_FLAG tells without a system call that there are some.
//! * **Waiting is not for a disk**: NO_IOWAIT (Linux 6.15) keeps an idle core out of the host's iowait
//!   and I/O pressure. Older kernels count it there.
#![allow(unsafe_code)] // The wait passes a flag that the crate's safe calls do not.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, opcode, types};

use super::ring::{COMPLETION_ENTRIES, OF_THE_TURN, Ring, SUBMISSION_ENTRIES};

/// What a ring needs to wake its core.
pub(super) struct RingTurn {
    wake_fd: RawFd,
    /// Where the count of the eventfd is read to, while a read is on its way. Never freed: the kernel
    /// may write to it until the ring is gone.
    wake_count: &'static AtomicU64,
    wake_armed: Cell<bool>,
    wait_flags: EnterFlags,
}

impl RingTurn {
    /// Something was queued. The executor comes by itself.
    pub(super) fn note_push(&self) {}

    /// The eventfd was read.
    pub(super) fn note_completion(&self) {
        self.wake_armed.set(false);
    }
}

impl Ring {
    /// Opens the ring of the calling thread, which must be the only one that ever uses it. A wait in
    /// it ends when `eventfd` is written.
    pub(crate) fn open(eventfd: RawFd) -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .dontfork()
            .build(SUBMISSION_ENTRIES)?;
        let mut wait_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        let turn = RingTurn {
            wake_fd: eventfd,
            wake_count: Box::leak(Box::default()),
            wake_armed: Cell::new(false),
            wait_flags,
        };
        Ok(Ring::new(uring, turn))
    }

    /// Submits what is queued and takes what has arrived; without a system call if there is neither.
    pub(crate) fn turn(&self) {
        let (queued, deferred) = {
            let mut uring = self.uring.borrow_mut();
            let submission = uring.submission();
            (!submission.is_empty(), submission.taskrun())
        };
        if queued || deferred {
            self.flush();
        } else {
            self.take_completions();
        }
    }

    /// Submits what is queued and waits until something arrives, the eventfd is written or `limit` is
    /// over.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        let queued = self.is_queued();
        self.arm_wake();
        if self.has_backlog() {
            // Nothing may stay behind while the core sleeps: it comes back when all is submitted.
            return self.flush();
        }
        if queued {
            self.count(|counters| counters.submissions += 1);
        }
        let limit = limit.map(types::Timespec::from);
        let mut arguments = types::SubmitArgs::new();
        if let Some(limit) = &limit {
            arguments = arguments.timespec(limit);
        }
        let waited = {
            let mut uring = self.uring.borrow_mut();
            let queued = u32::try_from(uring.submission().len()).expect("SUBMISSION_ENTRIES");
            let flags = self.turn.wait_flags.bits();
            // SAFETY: EXT_ARG goes with `SubmitArgs`, which is what the kernel expects there and
            // outlives the call, as does the time it points to.
            unsafe { uring.submitter().enter(queued, 1, flags, Some(&arguments)) }
        };
        match waited {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        self.take_completions();
        self.refill();
    }

    fn arm_wake(&self) {
        if !self.turn.wake_armed.replace(true) {
            let count = self.turn.wake_count.as_ptr().cast();
            let entry = opcode::Read::new(types::Fd(self.turn.wake_fd), count, 8).build();
            self.push(entry.user_data(OF_THE_TURN));
        }
    }
}
