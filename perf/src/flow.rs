//! What to send next on a connection, and what an answer says about time. Decisions only: no
//! sockets and no clock, so that tests play the broker and the clock.
//!
//! The records of a run are divided equally among its *lanes*: a lane is one producer on one
//! connection, with partitions of its own choice. Lane `l` of `n` has the records `l`, `l + n`,
//! `l + 2n`, ... so that the intended time of each follows from its index and nothing is queued.

use std::collections::VecDeque;

use crate::schedule::{Nanos, Pace};

/// How a producer chooses partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Partitioner {
    /// Whatever is due goes into one batch for one partition, the next batch to the next partition
    Sticky,
    /// Every record goes to the next partition
    RoundRobin,
}

/// A batch to be sent: `count` records of indices `first`, `first + step`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Index into the run's targets.
    pub(crate) target: usize,
    /// Records in it.
    pub(crate) count: u32,
    /// Index of its first record.
    pub(crate) first: u64,
    /// Distance to the next.
    pub(crate) step: u64,
}

impl Batch {
    /// The indices of its records.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u64> + use<> {
        let Batch { first, step, .. } = *self;
        (0..u64::from(self.count)).map(move |number| first + number * step)
    }
}

/// A request that was handed out.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Which of the connection's lanes it came from.
    pub(crate) lane: usize,
    /// When it was handed out for the first time.
    pub(crate) sent: Nanos,
    /// How often it was sent before.
    pub(crate) attempt: u32,
    /// What is in it.
    pub(crate) batches: Vec<Batch>,
}

impl Request {
    /// Records in it.
    pub(crate) fn record_count(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| u64::from(batch.count))
            .sum()
    }
}

/// How large requests may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// Records in one batch.
    pub(crate) batch_records: u32,
    /// Batches (hence partitions) in one request.
    pub(crate) batches: usize,
}

/// One producer on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    number: u64,
    lane_count: u64,
    targets: Vec<usize>,
    partitioner: Partitioner,
    limits: RequestLimits,
    /// The target that is next.
    cursor: usize,
    /// Records handed out in all.
    taken: u64,
    /// Round robin: records handed out for each target.
    taken_of: Vec<u64>,
}

impl Lane {
    /// Lane `number` of `lane_count`, which begins with the target of index `first_target`.
    pub(crate) fn new(
        number: usize,
        lane_count: usize,
        targets: Vec<usize>,
        first_target: usize,
        partitioner: Partitioner,
        limits: RequestLimits,
    ) -> Lane {
        assert!(number < lane_count && !targets.is_empty());
        assert!(limits.batch_records > 0 && limits.batches > 0);
        let mut targets = targets;
        let length = targets.len();
        targets.rotate_left(first_target % length);
        Lane {
            number: number as u64,
            lane_count: lane_count as u64,
            partitioner,
            limits,
            cursor: 0,
            taken: 0,
            taken_of: match partitioner {
                Partitioner::Sticky => Vec::new(),
                Partitioner::RoundRobin => vec![0; targets.len()],
            },
            targets,
        }
    }

    /// How many of the run's first `available` records are this lane's.
    fn share(&self, available: u64) -> u64 {
        available
            .saturating_sub(self.number)
            .div_ceil(self.lane_count)
    }

    /// Records that may be sent and were not handed out.
    pub(crate) fn backlog(&self, available: u64) -> u64 {
        self.share(available).saturating_sub(self.taken)
    }

    /// Gives `each` the index of every record that may be sent and was not handed out.
    pub(crate) fn backlog_indices(&self, available: u64, each: &mut dyn FnMut(u64)) {
        let share = self.share(available);
        let length = self.targets.len() as u64;
        let is_taken = |place: u64| match self.partitioner {
            Partitioner::Sticky => place < self.taken,
            Partitioner::RoundRobin => place / length < self.taken_of[(place % length) as usize],
        };
        for place in (0..share).filter(|place| !is_taken(*place)) {
            each(self.number + place * self.lane_count);
        }
    }

    /// Hands out the next request's batches; none when nothing may be sent.
    fn take(&mut self, available: u64) -> Vec<Batch> {
        let share = self.share(available);
        let mut batches = Vec::new();
        match self.partitioner {
            Partitioner::Sticky => self.take_sticky(share, &mut batches),
            Partitioner::RoundRobin => self.take_round_robin(share, &mut batches),
        }
        self.taken += batches
            .iter()
            .map(|batch| u64::from(batch.count))
            .sum::<u64>();
        batches
    }

    fn take_sticky(&mut self, share: u64, batches: &mut Vec<Batch>) {
        let mut taken = self.taken;
        // A partition appears once in a request.
        while batches.len() < self.limits.batches.min(self.targets.len()) && taken < share {
            let count = (share - taken).min(u64::from(self.limits.batch_records));
            batches.push(Batch {
                target: self.targets[self.cursor],
                count: count as u32,
                first: self.number + taken * self.lane_count,
                step: self.lane_count,
            });
            taken += count;
            self.cursor = (self.cursor + 1) % self.targets.len();
        }
    }

    /// The record at place `p` of this lane belongs to target `p mod targets`, so what is due for a
    /// target is again a sequence with a fixed step.
    fn take_round_robin(&mut self, share: u64, batches: &mut Vec<Batch>) {
        let length = self.targets.len();
        // Less than what was taken may be sent once the load is over.
        let mut left = share.saturating_sub(self.taken);
        for _ in 0..length {
            if left == 0 || batches.len() == self.limits.batches {
                return;
            }
            let position = self.cursor;
            self.cursor = (position + 1) % length;
            let due = share
                .saturating_sub(position as u64)
                .div_ceil(length as u64);
            let taken = self.taken_of[position];
            let count = due.saturating_sub(taken);
            let count = count.min(u64::from(self.limits.batch_records));
            if count == 0 {
                continue;
            }
            let place = position as u64 + taken * length as u64;
            batches.push(Batch {
                target: self.targets[position],
                count: count as u32,
                first: self.number + place * self.lane_count,
                step: self.lane_count * length as u64,
            });
            self.taken_of[position] += count;
            left -= count;
        }
    }
}

/// The lanes of one connection and what it has in flight.
#[derive(Debug)]
pub(crate) struct Flow {
    lanes: Vec<Lane>,
    window: usize,
    /// The lane whose turn it is.
    turn: usize,
    in_flight: VecDeque<Request>,
    /// To be sent again, and when. They keep their place in the window.
    waiting: VecDeque<(Nanos, Request)>,
}

impl Flow {
    /// A connection that may have `window` requests in flight.
    pub(crate) fn new(lanes: Vec<Lane>, window: usize) -> Flow {
        assert!(!lanes.is_empty() && window > 0);
        Flow {
            lanes,
            window,
            turn: 0,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The next request, if the window has room and something may be sent.
    pub(crate) fn next(&mut self, pace: &Pace, now: Nanos) -> Option<&Request> {
        if self.retry_at().is_some_and(|at| at <= now) {
            let (_, request) = self.waiting.pop_front()?;
            self.in_flight.push_back(request);
            return self.in_flight.back();
        }
        if !self.has_room() {
            return None;
        }
        let available = pace.available(now);
        for _ in 0..self.lanes.len() {
            let lane = self.turn;
            self.turn = (lane + 1) % self.lanes.len();
            let batches = self.lanes[lane].take(available);
            if !batches.is_empty() {
                self.in_flight.push_back(Request {
                    lane,
                    sent: now,
                    attempt: 0,
                    batches,
                });
                return self.in_flight.back();
            }
        }
        None
    }

    /// The oldest request was answered.
    pub(crate) fn answered(&mut self) -> Option<Request> {
        self.in_flight.pop_front()
    }

    /// Whether the window has room.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() + self.waiting.len() < self.window
    }

    /// Batches of the request answered last are sent again at `at`; they count from when they were
    /// first due.
    pub(crate) fn retry(&mut self, at: Nanos, request: Request) {
        self.waiting.push_back((at, request));
    }

    /// When something is to be sent again.
    pub(crate) fn retry_at(&self) -> Option<Nanos> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The request that is answered next.
    pub(crate) fn oldest(&self) -> Option<&Request> {
        self.in_flight.front()
    }

    /// Requests handed out whose records have no final answer.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = &Request> {
        let waiting = self.waiting.iter().map(|(_, request)| request);
        self.in_flight.iter().chain(waiting)
    }

    /// Its lanes.
    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Whether nothing that may be sent by `now` is left, and everything was answered.
    pub(crate) fn is_idle(&self, available: u64) -> bool {
        self.unanswered().next().is_none()
            && self.lanes.iter().all(|lane| lane.backlog(available) == 0)
    }
}
