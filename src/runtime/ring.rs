//! The io_uring ring of this core: what every operation owns and how it ends.
//!
//! * Files: reads and writes from *our* buffers, with per-write DSYNC, and syncs. Sockets: only the
//!   waiting for readiness; the bytes move by plain non-blocking calls.
//! * **When** the kernel is entered, and with which flags the ring is opened, is for `ring_turn.rs`:
//!   there is one for the core that waits in this ring, and one for glommio's beside it.
//! * **Buffers** belong to the operation's slot from submission until its completion arrives,
//!   whether or not somebody still waits for it. A dropped wait for readiness is cancelled; a
//!   dropped read or write runs to its end unseen.
#![allow(unsafe_code)] // Buffers are owned by the slot until completion, see the last point above.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{io, mem};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::buffer::{AppendBuf, Slice};
use super::ring_turn::RingTurn;

/// Entries submitted in one go; more of them in one turn are submitted in several.
pub(super) const SUBMISSION_ENTRIES: u32 = 512;
/// Completions the kernel can hold before it falls back to a list of its own.
pub(super) const COMPLETION_ENTRIES: u32 = 8192;
/// Operations of one core that may be waiting at once: two per connection and the disk's.
const MAX_OPERATIONS: usize = 1 << 18;
/// Marks completions nobody waits for.
const UNOWNED: u64 = u64::MAX;
/// Marks the completion that is [`RingTurn`]'s own.
pub(super) const OF_THE_TURN: u64 = u64::MAX - 1;

/// How often each operation was submitted on this core since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Reads of files.
    pub reads: u64,
    /// Writes of files, durable or not.
    pub writes: u64,
    /// Those of `writes` that carried DSYNC.
    pub durable_writes: u64,
    /// Flushes of files, data only or full.
    pub syncs: u64,
    /// Waits for readiness of sockets.
    pub polls: u64,
    /// Cancelled waits.
    pub cancels: u64,
    /// System calls that submitted something.
    pub submissions: u64,
    /// Completions taken.
    pub completions: u64,
}

/// What an operation owns while the kernel works on it, returned with its result.
struct Held {
    /// Stays open until then.
    _descriptor: Arc<OwnedFd>,
    /// Written by the kernel.
    target: Option<AppendBuf>,
    /// Read by the kernel.
    _source: Option<Slice>,
    /// Nothing but a wait, which may be cancelled.
    waits_only: bool,
}

impl Held {
    fn descriptor(descriptor: Arc<OwnedFd>) -> Held {
        Held {
            _descriptor: descriptor,
            target: None,
            _source: None,
            waits_only: false,
        }
    }
}

struct Slot {
    held: Held,
    waker: Option<Waker>,
    result: Option<i32>,
    abandoned: bool,
}

/// The ring of one core.
pub(crate) struct Ring {
    pub(super) uring: RefCell<IoUring>,
    pub(super) turn: RingTurn,
    slots: RefCell<Slab<Slot>>,
    backlog: RefCell<VecDeque<squeue::Entry>>,
    arrived: RefCell<Vec<(u64, i32)>>,
    pub(super) closing: Cell<bool>,
    in_memory_flight: Cell<usize>,
    counters: Cell<RingCounters>,
}

impl Ring {
    /// The ring of the calling thread, which must be the only one that ever uses it.
    pub(super) fn new(uring: IoUring, turn: RingTurn) -> Ring {
        Ring {
            uring: RefCell::new(uring),
            turn,
            slots: RefCell::new(Slab::new()),
            backlog: RefCell::new(VecDeque::new()),
            arrived: RefCell::new(Vec::new()),
            closing: Cell::new(false),
            in_memory_flight: Cell::new(0),
            counters: Cell::new(RingCounters::default()),
        }
    }

    pub(crate) fn counters(&self) -> RingCounters {
        self.counters.get()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut RingCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Reads from `position` into the unwritten part of `buffer`, at most `length` bytes; the
    /// result publishes what arrived.
    pub(crate) async fn read(
        self: &Rc<Ring>,
        file: Arc<OwnedFd>,
        position: u64,
        mut buffer: AppendBuf,
        length: usize,
    ) -> (io::Result<usize>, AppendBuf) {
        self.count(|counters| counters.reads += 1);
        let (start, room) = buffer.unwritten();
        let length = u32::try_from(length.min(room)).expect("reads are bounded by config");
        let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), start, length)
            .offset(position)
            .build();
        let (result, held) = self
            .submit(
                entry,
                Held {
                    target: Some(buffer),
                    ..Held::descriptor(file)
                },
            )
            .await;
        let mut buffer = held.target.expect("a read holds its buffer");
        let result = outcome(result);
        if let Ok(count) = result {
            // SAFETY: the kernel completed a read of `count` bytes at `unwritten`, and nobody else
            // had the buffer in between.
            unsafe { buffer.publish(count) };
        }
        (result, buffer)
    }

    /// Writes `bytes` at `position`; with `durable` the completion means they are on stable
    /// storage. May write less than all.
    pub(crate) async fn write(
        self: &Rc<Ring>,
        file: Arc<OwnedFd>,
        position: u64,
        bytes: Slice,
        durable: bool,
    ) -> io::Result<usize> {
        self.count(|counters| {
            counters.writes += 1;
            counters.durable_writes += u64::from(durable);
        });
        let length = u32::try_from(bytes.len()).expect("writes are bounded by config");
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), length)
            .offset(position)
            .rw_flags(flags)
            .build();
        outcome(
            self.submit(
                entry,
                Held {
                    _source: Some(bytes),
                    ..Held::descriptor(file)
                },
            )
            .await
            .0,
        )
    }

    /// fdatasync, or fsync when `full`.
    pub(crate) async fn sync(self: &Rc<Ring>, file: Arc<OwnedFd>, full: bool) -> io::Result<()> {
        self.count(|counters| counters.syncs += 1);
        let flags = if full {
            types::FsyncFlags::empty()
        } else {
            types::FsyncFlags::DATASYNC
        };
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(flags)
            .build();
        outcome(self.submit(entry, Held::descriptor(file)).await.0).map(drop)
    }

    /// Waits until one of the poll `events` (or an error or hang-up) holds for a socket.
    pub(crate) async fn readiness(
        self: &Rc<Ring>,
        descriptor: Arc<OwnedFd>,
        events: libc::c_short,
    ) -> io::Result<()> {
        self.count(|counters| counters.polls += 1);
        let events = u32::from(events.cast_unsigned());
        let entry = opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), events).build();
        outcome(
            self.submit(
                entry,
                Held {
                    waits_only: true,
                    ..Held::descriptor(descriptor)
                },
            )
            .await
            .0,
        )
        .map(drop)
    }

    fn submit(self: &Rc<Ring>, entry: squeue::Entry, held: Held) -> Operation {
        let mut slots = self.slots.borrow_mut();
        let full = slots.len() >= MAX_OPERATIONS;
        if !held.waits_only && !full {
            self.in_memory_flight.set(self.in_memory_flight.get() + 1);
        }
        let result = full.then_some(-libc::EBUSY);
        let key = slots.insert(Slot {
            held,
            waker: None,
            result,
            abandoned: false,
        });
        drop(slots);
        if !full {
            self.push(entry.user_data(key as u64));
        }
        Operation {
            ring: self.clone(),
            key: Some(key),
        }
    }

    pub(super) fn push(&self, entry: squeue::Entry) {
        // SAFETY: the slot owns what the entry points to until the completion is taken.
        let pushed = unsafe { self.uring.borrow_mut().submission().push(&entry) };
        if pushed.is_err() {
            self.backlog.borrow_mut().push_back(entry);
        }
        self.turn.note_push();
    }

    /// Whether entries wait for the kernel to be entered.
    pub(super) fn is_queued(&self) -> bool {
        !self.uring.borrow_mut().submission().is_empty()
    }

    /// Whether more is queued than the kernel takes in one go.
    #[cfg(not(feature = "glommio"))]
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.borrow().is_empty()
    }

    /// Submits everything queued and takes the completions that are there.
    pub(super) fn flush(&self) {
        loop {
            if self.is_queued() {
                self.count(|counters| counters.submissions += 1);
            }
            let submitted = self.uring.borrow().submit();
            match submitted {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The kernel is out of room: take completions and come back next turn.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => panic!("io_uring_enter: {error}"),
            }
            self.take_completions();
            if !self.refill() {
                break;
            }
        }
    }

    /// Moves entries of the backlog to the submission queue; whether there were any.
    pub(super) fn refill(&self) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        let mut uring = self.uring.borrow_mut();
        let mut submission = uring.submission();
        let mut moved = false;
        while let Some(entry) = backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            backlog.pop_front();
            moved = true;
        }
        moved
    }

    /// Takes the completions that are there and wakes whoever waits for them.
    pub(crate) fn take_completions(&self) {
        let mut arrived = mem::take(&mut *self.arrived.borrow_mut());
        arrived.extend(
            self.uring
                .borrow_mut()
                .completion()
                .map(|entry: cqueue::Entry| (entry.user_data(), entry.result())),
        );
        for (key, result) in arrived.drain(..) {
            self.count(|counters| counters.completions += 1);
            match key {
                UNOWNED => {}
                OF_THE_TURN => self.turn.note_completion(),
                key => self.complete(key, result),
            }
        }
        *self.arrived.borrow_mut() = arrived;
    }

    fn complete(&self, key: u64, result: i32) {
        let key = usize::try_from(key).expect("keys come from the slab");
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        assert!(slot.result.is_none(), "two completions for slot {key}");
        slot.result = Some(result);
        if !slot.held.waits_only {
            self.in_memory_flight.set(self.in_memory_flight.get() - 1);
        }
        if slot.abandoned {
            let gone = slots.remove(key);
            drop(slots);
            drop(gone);
        } else if let Some(waker) = slot.waker.take() {
            drop(slots);
            waker.wake();
        }
    }

    fn abandon(&self, key: usize) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        slot.waker = None;
        if slot.result.is_some() {
            let gone = slots.remove(key);
            drop(slots);
            drop(gone);
            return;
        }
        slot.abandoned = true;
        let cancel = slot.held.waits_only;
        drop(slots);
        if cancel && !self.closing.get() {
            self.count(|counters| counters.cancels += 1);
            self.push(
                opcode::AsyncCancel::new(key as u64)
                    .build()
                    .user_data(UNOWNED),
            );
        }
    }

    /// Reads, writes and syncs the kernel still works on.
    pub(crate) fn in_memory_flight(&self) -> usize {
        self.in_memory_flight.get()
    }

    /// Nothing is submitted any more.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.turn.note_push();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_memory_flight.get() > 0 {
            // The kernel may still touch these buffers: better lost than reused.
            mem::forget(mem::take(self.slots.get_mut()));
        }
    }
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// One submitted operation; dropping it abandons the wait, not the buffers.
struct Operation {
    ring: Rc<Ring>,
    key: Option<usize>,
}

impl Future for Operation {
    type Output = (i32, Held);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(i32, Held)> {
        let key = self.key.expect("not polled after completion");
        let mut slots = self.ring.slots.borrow_mut();
        let Some(result) = slots[key].result else {
            slots[key].waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let held = slots.remove(key).held;
        drop(slots);
        self.key = None;
        Poll::Ready((result, held))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.ring.abandon(key);
        }
    }
}

/// The counters of the calling core's ring.
#[must_use]
pub fn counters() -> RingCounters {
    super::executor::core().ring().counters()
}
