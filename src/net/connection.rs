//! One connection: requests start in order, answers leave in order.
//!
//! One task with two halves. The reading half takes frames and starts requests; the writing half
//! polls what is outstanding, and sends everything that is ready in one gather write. They share
//! the task, so they share its waker: whatever one half changes, [`Connection::run`] lets the
//! other half look at before the task rests. A request is started when all earlier ones are
//! answered, or when it and all unanswered ones overlap.
//!
//! Held per connection at most: one input buffer, [`NetLimits::max_in_flight`] requests, answers of
//! [`NetLimits::max_ready_bytes`] plus the one that exceeded them.
//!
//! [`NetLimits::max_in_flight`]: super::net_limits::NetLimits::max_in_flight
//! [`NetLimits::max_ready_bytes`]: super::net_limits::NetLimits::max_ready_bytes

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use core::time::Duration;

use futures_lite::future::or;
use smallvec::SmallVec;

use super::close_reason::CloseReason;
use super::connection_table::Entry;
use super::frame::Frame;
use super::frame_reader::{FrameReader, ReaderContext};
use super::net_metrics::{add, answer_kind};
use super::peer::Peer;
use super::service::{Reply, Service, Stage};
use crate::runtime::clock::{monotonic_us, sleep};
use crate::runtime::executor::yield_if_needed;
use crate::runtime::gather::Gather;
use crate::runtime::socket::Socket;

/// How often the halves may give each other work within one turn of the task.
const MAX_ROUNDS: usize = 16;
/// How long a closed connection is drained, and how much of it.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 16 << 10;

enum State {
    Waiting(Pin<Box<dyn Future<Output = Reply>>>),
    Ready(Reply),
}

/// A started request whose answer has not been taken to the wire.
struct Outstanding {
    state: State,
    overlaps: bool,
    frame: Frame,
    arrival: Arrival,
}

/// When a request was whole, and where its time is counted.
#[derive(Clone, Copy)]
struct Arrival {
    at_us: u64,
    kind: u8,
}

/// Answers on their way to the wire, with the memory that is given back afterwards.
#[derive(Default)]
struct Batch {
    gather: Gather,
    frames: Vec<Frame>,
    arrivals: SmallVec<[Arrival; 8]>,
    close: Option<CloseReason>,
}

pub(crate) struct Connection<S> {
    pub(crate) service: Rc<S>,
    pub(crate) context: Rc<ReaderContext>,
    pub(crate) socket: Rc<Socket>,
    pub(crate) entry: Rc<Entry>,
    pub(crate) peer: Peer,
    queue: Queue,
}

/// What is outstanding, in request order.
#[derive(Default)]
struct Queue {
    outstanding: RefCell<VecDeque<Outstanding>>,
    /// Bytes of answers ready or being sent.
    ready_bytes: Cell<usize>,
    /// Moves whenever the writing half changed something the reading half waits for.
    progress: Cell<u64>,
}

impl<S: Service> Connection<S> {
    pub(crate) fn new(
        service: Rc<S>,
        context: Rc<ReaderContext>,
        socket: Rc<Socket>,
        entry: Rc<Entry>,
        peer: Peer,
    ) -> Connection<S> {
        Connection {
            service,
            context,
            socket,
            entry,
            peer,
            queue: Queue::default(),
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(&self, reader: FrameReader) -> CloseReason {
        let mut killed = pin!(self.entry.killed());
        let mut reading = pin!(self.read_requests(reader));
        let mut writing = pin!(self.write_answers());
        poll_fn(|context| {
            if let Poll::Ready(reason) = killed.as_mut().poll(context) {
                return Poll::Ready(reason);
            }
            for _ in 0..MAX_ROUNDS {
                if let Poll::Ready(reason) = reading.as_mut().poll(context) {
                    return Poll::Ready(reason);
                }
                let before = self.queue.progress.get();
                if let Poll::Ready(reason) = writing.as_mut().poll(context) {
                    return Poll::Ready(reason);
                }
                if self.queue.progress.get() == before {
                    return Poll::Pending;
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Starts requests; ends with the reason why there are no more.
    async fn read_requests(&self, mut reader: FrameReader) -> CloseReason {
        loop {
            let next = or(async { Some(reader.next().await) }, async {
                self.entry.stopped().await;
                None
            });
            let frame = match next.await {
                Some(Ok(frame)) => frame,
                Some(Err(reason)) => return reason,
                None => break,
            };
            let overlaps = self.service.overlaps(&frame);
            // No waker: only the writing half changes this, see `run`.
            poll_fn(|_| {
                if self.may_start(overlaps) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            if self.entry.is_stopping() {
                break;
            }
            self.entry.set_in_flight(self.entry.in_flight() + 1);
            add(&self.context.metrics.requests, 1);
            let arrival = Arrival {
                at_us: monotonic_us(),
                kind: answer_kind(&frame),
            };
            let stage = self.service.call(frame.clone(), &self.peer).await;
            self.queue.push(stage, overlaps, frame, arrival);
            yield_if_needed().await;
        }
        poll_fn(|_| {
            if self.entry.in_flight() == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        CloseReason::Shutdown
    }

    fn may_start(&self, overlaps: bool) -> bool {
        let limits = &self.context.limits;
        let outstanding = self.queue.outstanding.borrow();
        self.entry.in_flight() < limits.max_in_flight
            && self.queue.ready_bytes.get() <= limits.max_ready_bytes
            && outstanding.iter().all(|earlier| {
                matches!(earlier.state, State::Ready(_)) || (overlaps && earlier.overlaps)
            })
    }

    /// Sends answers; ends when one of them asks for it, or the peer is gone.
    async fn write_answers(&self) -> CloseReason {
        loop {
            let batch = poll_fn(|context| self.queue.poll_batch(context)).await;
            let size_bytes = batch.gather.size_bytes();
            if size_bytes > 0 {
                self.entry
                    .set_write_deadline(Some(self.write_deadline_us(size_bytes)));
                let written = self.socket.write_gather(batch.gather).await;
                self.entry.set_write_deadline(None);
                if written.is_err() {
                    return CloseReason::PeerReset;
                }
                self.entry.touch();
                add(&self.context.metrics.writes, 1);
                add(&self.context.metrics.sent_bytes, size_bytes as u64);
            }
            add(&self.context.metrics.replies, batch.frames.len() as u64);
            let now_us = monotonic_us();
            for arrival in &batch.arrivals {
                let answers = &self.context.metrics.answers[usize::from(arrival.kind)];
                answers.note(now_us - arrival.at_us);
            }
            self.entry
                .set_in_flight(self.entry.in_flight() - batch.frames.len());
            self.queue.sent(size_bytes);
            drop(batch.frames);
            if let Some(reason) = batch.close {
                return reason;
            }
        }
    }

    /// After the service closed the connection: takes what the peer still sends, for a moment. Bytes
    /// left unread would make the kernel reset the connection, and the last answer might be lost.
    pub(crate) async fn linger(&self) {
        self.socket.finish();
        let drain = async {
            let mut buffer = Vec::with_capacity(MAX_LINGER_BYTES);
            while buffer.len() < MAX_LINGER_BYTES {
                let (result, back) = self.socket.read(buffer).await;
                buffer = back;
                if !result.is_ok_and(|count| count > 0) {
                    return;
                }
            }
        };
        let ended = async {
            self.entry.killed().await;
        };
        or(drain, or(sleep(LINGER), ended)).await;
    }

    fn write_deadline_us(&self, size_bytes: usize) -> u64 {
        let limits = &self.context.limits;
        let for_size_ms = size_bytes as u64 * 1000 / limits.write_min_rate_bytes_per_s.max(1);
        monotonic_us() + (limits.write_deadline_ms + for_size_ms) * 1000
    }
}

impl Queue {
    fn push(&self, stage: Stage, overlaps: bool, frame: Frame, arrival: Arrival) {
        let state = match stage {
            Stage::Done(reply) => State::Ready(self.account(reply)),
            Stage::Later(future) => State::Waiting(future),
        };
        self.outstanding.borrow_mut().push_back(Outstanding {
            state,
            overlaps,
            frame,
            arrival,
        });
    }

    fn account(&self, reply: Reply) -> Reply {
        if let Reply::Send(gather) = &reply {
            self.ready_bytes
                .set(self.ready_bytes.get() + gather.size_bytes());
        }
        reply
    }

    fn advanced(&self) {
        self.progress.set(self.progress.get() + 1);
    }

    /// Everything at the front that is ready, once something is.
    fn poll_batch(&self, context: &mut Context<'_>) -> Poll<Batch> {
        let mut outstanding = self.outstanding.borrow_mut();
        // All are polled, not only the front: overlapping requests make progress side by side.
        for request in &mut *outstanding {
            if let State::Waiting(future) = &mut request.state
                && let Poll::Ready(reply) = future.as_mut().poll(context)
            {
                request.state = State::Ready(self.account(reply));
                self.advanced();
            }
        }
        let mut batch = Batch::default();
        while batch.close.is_none()
            && outstanding
                .front()
                .is_some_and(|first| matches!(first.state, State::Ready(_)))
        {
            let Some(first) = outstanding.pop_front() else {
                break;
            };
            batch.frames.push(first.frame);
            batch.arrivals.push(first.arrival);
            match first.state {
                State::Ready(Reply::Send(gather)) => batch.gather.append(gather),
                State::Ready(Reply::Close(reason)) => batch.close = Some(reason),
                State::Ready(Reply::Nothing) | State::Waiting(_) => {}
            }
        }
        if batch.frames.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(batch)
    }

    fn sent(&self, size_bytes: usize) {
        self.ready_bytes.set(self.ready_bytes.get() - size_bytes);
        self.advanced();
    }
}
