//! With the feature `glommio`: when a core enters the kernel for our ring, beside glommio's three.
//!
//! * **One submission per turn**: an operation only fills an entry and wakes the flusher task, which
//!   runs behind whatever else is runnable in its queue and enters the kernel once for all of them.
//! * **Wake-up**: the ring signals the core's eventfd, which glommio reads (`wake.rs`). The flusher
//!   also reaps whatever is there already, so a busy core takes most completions without it.
//! * **Flags**: SINGLE_ISSUER. COOP_TASKRUN with TASKRUN_FLAG where the core does not spin before
//!   parking: completions then wait for the next system call instead of interrupting the core, and
//!   a parked core is still woken. A spinning core makes no system calls, so it keeps the interrupt.
//!   DEFER_TASKRUN would raise nothing until somebody enters *this* ring, which a core parked in
//!   glommio's never does.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::IoUring;

use super::ring::{COMPLETION_ENTRIES, Ring, SUBMISSION_ENTRIES};

/// Wakes the flusher.
#[derive(Default)]
pub(super) struct RingTurn {
    is_wanted: Cell<bool>,
    flusher: RefCell<Option<Waker>>,
}

impl RingTurn {
    /// Something was queued, or the ring closes.
    pub(super) fn note_push(&self) {
        if !self.is_wanted.replace(true)
            && let Some(waker) = self.flusher.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Nothing of its own is ever submitted here.
    pub(super) fn note_completion(&self) {
        unreachable!("no operation of {}", std::any::type_name_of_val(self));
    }
}

impl Ring {
    /// Opens the ring of the calling thread, which must be the only one that ever uses it, and
    /// lets every completion signal `eventfd`.
    pub(crate) fn open(eventfd: RawFd, core_spins: bool) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .dontfork();
        if !core_spins {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        let uring = builder.build(SUBMISSION_ENTRIES)?;
        uring.submitter().register_eventfd(eventfd)?;
        Ok(Ring::new(uring, RingTurn::default()))
    }

    /// Whether the core ends.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// The flusher task of this core; ends after [`Ring::close`].
    pub(crate) async fn flush_turns(self: Rc<Ring>) {
        loop {
            FlushWanted(&self).await;
            if self.is_closing() {
                return;
            }
            self.flush();
            if self.is_queued() {
                self.turn.note_push();
            }
        }
    }
}

struct FlushWanted<'a>(&'a Ring);

impl Future for FlushWanted<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let turn = &self.0.turn;
        if turn.is_wanted.replace(false) {
            return Poll::Ready(());
        }
        *turn.flusher.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
