//! One run: a loop over sockets and points in time, with a producing side, a consuming side or both.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::accounting::Accounting;
use crate::client::Failure;
use crate::consumer::Consumer;
use crate::measure::Window;
use crate::producer::Producer;
use crate::schedule::{Nanos, Pace, SECOND, Schedule};
use crate::sockets::Sockets;

/// How often the broker's memory is looked at.
const MEMORY_INTERVAL: Nanos = SECOND / 4;
/// From the making of the plan to the first record, so that the first is not late.
const LEAD: Duration = Duration::from_millis(1);

/// What acknowledged records that did not come back are counted under.
const NOT_RECEIVED: &str = "NOT_RECEIVED";

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// At 0 now.
    pub(crate) fn new() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    /// The moment that is so many nanoseconds behind the beginning.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.origin + Duration::from_nanos(at)
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now(&self) -> Nanos {
        nanos(self.origin.elapsed())
    }
}

/// As nanoseconds.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// When a run begins, counts and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Load without measurement.
    pub(crate) warmup: Duration,
    /// Measured time; `None` until everything is answered.
    pub(crate) duration: Option<Duration>,
    /// What answers may take after the end of the load.
    pub(crate) drain: Duration,
    /// Records in all.
    pub(crate) count: Option<u64>,
    /// Records per second.
    pub(crate) rate: Option<u64>,
    /// Between two looks at the schedule at least.
    pub(crate) tick: Duration,
}

/// The plan of a run on its clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Beginning of the load.
    pub(crate) start: Nanos,
    /// The measured time.
    pub(crate) window: Window,
    /// What answers may take after it.
    pub(crate) drain: Nanos,
    /// How much may be sent.
    pub(crate) pace: Pace,
    /// Between two looks at the schedule at least.
    pub(crate) tick: Nanos,
}

impl Timing {
    /// On the clock of the run.
    pub(crate) fn plan(&self, clock: &Clock) -> Plan {
        let start = clock.now() + nanos(LEAD);
        let from = start + nanos(self.warmup);
        let to = self.duration.map(|duration| from + nanos(duration));
        let limit = self.count.unwrap_or(u64::MAX);
        let pace = match self.rate {
            None => Pace::Closed { limit },
            Some(rate) => {
                let schedule = Schedule { start, rate, limit };
                let in_time = to.map_or(u64::MAX, |to| schedule.due(to - 1));
                let limit = limit.min(in_time);
                Pace::Open(Schedule { limit, ..schedule })
            }
        };
        Plan {
            start,
            window: Window { from, to },
            drain: nanos(self.drain),
            pace,
            tick: nanos(self.tick),
        }
    }
}

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its clock.
    pub(crate) clock: Clock,
    /// Its plan.
    pub(crate) plan: Plan,
    /// Its connections.
    pub(crate) sockets: Sockets,
    /// Its producing side.
    pub(crate) producer: Option<Producer>,
    /// Its consuming side.
    pub(crate) consumer: Option<Consumer>,
    /// What it costs.
    pub(crate) accounting: Accounting,
    /// The next record is sent when the one before was received.
    pub(crate) is_one_at_a_time: bool,
    /// Records that the consumer reads before it stops.
    pub(crate) receive_count: u64,
}

/// What of the measured time is behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Waiting,
    WarmUp,
    Measuring,
    Draining,
}

impl Run {
    /// Runs to the end.
    pub(crate) fn execute(&mut self) -> Result<(), Failure> {
        let mut phase = Phase::Waiting;
        let mut next_memory = self.plan.window.from;
        loop {
            let now = self.clock.now();
            phase = self.advance(phase, now);
            if phase == Phase::Measuring && now >= next_memory {
                self.accounting.sample();
                next_memory = now + MEMORY_INTERVAL;
            }
            if self.is_over(phase, now) {
                break;
            }
            self.pump(phase, now);
            let timeout = self.timeout(phase, next_memory, now);
            let events = self.sockets.wait(Some(timeout));
            for event in events.map_err(|error| error.to_string())? {
                let now = self.clock.now();
                self.handle(event, now);
            }
        }
        self.give_up(self.clock.now());
        if phase <= Phase::Measuring {
            self.accounting.stop();
            // Everything ended before its time.
            let producer = self
                .producer
                .as_mut()
                .map(|producer| &mut producer.recorder);
            let consumer = self
                .consumer
                .as_mut()
                .map(|consumer| &mut consumer.recorder);
            for recorder in producer.into_iter().chain(consumer) {
                recorder.window.to = Some(recorder.last.max(recorder.window.from));
            }
        }
        Ok(())
    }

    /// What is due and has no answer counts with the time it has waited.
    fn give_up(&mut self, now: Nanos) {
        let Some(producer) = &mut self.producer else {
            return;
        };
        let mut recorder = producer.recorder.clone();
        let mut receipts = self
            .consumer
            .as_mut()
            .map(|consumer| &mut consumer.recorder);
        producer.outstanding(now, &mut |intended| {
            recorder.give_up(intended, now);
            if let Some(receipts) = &mut receipts {
                receipts.give_up(intended, now);
            }
        });
        producer.recorder = recorder;
        if let Some(consumer) = &mut self.consumer {
            let acknowledged = producer.recorder.total.records;
            let missing = acknowledged.saturating_sub(consumer.received);
            if missing > 0 {
                consumer.recorder.fail(NOT_RECEIVED, missing);
            }
        }
    }

    fn advance(&mut self, phase: Phase, now: Nanos) -> Phase {
        let window = self.plan.window;
        let mut phase = phase;
        if phase == Phase::Waiting && now >= self.plan.start {
            phase = Phase::WarmUp;
            if let Some(producer) = &mut self.producer {
                producer.pace = self.plan.pace;
                producer.wake_all();
            }
        }
        if let (true, Some(producer), Some(consumer)) =
            (self.is_one_at_a_time, &mut self.producer, &self.consumer)
            && (Phase::WarmUp..Phase::Draining).contains(&phase)
        {
            let limit = (consumer.received + 1).min(self.receive_count);
            producer.pace = Pace::Closed { limit };
            producer.wake_all();
        }
        if phase == Phase::WarmUp && now >= window.from {
            phase = Phase::Measuring;
            self.accounting.start();
        }
        if phase == Phase::Measuring && window.to.is_some_and(|to| now >= to) {
            phase = Phase::Draining;
            self.accounting.stop();
            // Without a rate, nothing new is sent.
            if let Some(producer) = &mut self.producer
                && let Pace::Closed { .. } = producer.pace
            {
                producer.pace = Pace::Closed { limit: 0 };
            }
        }
        phase
    }

    fn is_over(&self, phase: Phase, now: Nanos) -> bool {
        if phase < Phase::Measuring {
            return false;
        }
        let end = self.plan.window.to.map(|to| to + self.plan.drain);
        if end.is_some_and(|end| now >= end) {
            return true;
        }
        let is_draining = phase == Phase::Draining;
        if end.is_none() && now > self.last_sign() + self.plan.drain {
            return true;
        }
        match (&self.producer, &self.consumer) {
            (Some(producer), None) => producer.is_lost() || is_sent(producer, is_draining, now),
            (None, Some(consumer)) => {
                let is_enough = consumer.recorder.total.records >= self.receive_count;
                is_draining || is_enough || consumer.is_lost() || consumer.is_done()
            }
            (Some(producer), Some(consumer)) => {
                let is_received = consumer.received >= producer.recorder.total.records;
                let is_lost = producer.is_lost() || consumer.is_lost();
                is_lost || (is_sent(producer, is_draining, now) && is_received)
            }
            (None, None) => true,
        }
    }

    /// When something was last due or answered.
    fn last_sign(&self) -> Nanos {
        let mut sign = self.plan.start;
        if let Pace::Open(schedule) = self.plan.pace {
            sign = schedule.intended(schedule.limit.saturating_sub(1));
        }
        match (&self.producer, &self.consumer) {
            // Empty answers to a consumer do not tell that its producer makes progress.
            (Some(producer), _) => sign.max(producer.recorder.last),
            (None, Some(consumer)) => sign.max(consumer.recorder.last),
            (None, None) => sign,
        }
    }

    fn pump(&mut self, phase: Phase, now: Nanos) {
        if phase == Phase::Waiting {
            return;
        }
        if let Some(producer) = &mut self.producer {
            producer.pump(now, wall_ms(), &mut self.sockets);
        }
        if let Some(consumer) = &mut self.consumer {
            consumer.pump(now, &mut self.sockets);
        }
    }

    /// How long to sleep at most.
    fn timeout(&self, phase: Phase, next_memory: Nanos, pumped: Nanos) -> Nanos {
        let window = self.plan.window;
        let now = self.clock.now();
        let next = match phase {
            Phase::Waiting => self.plan.start,
            Phase::WarmUp => window.from,
            Phase::Measuring => window.to.unwrap_or(u64::MAX).min(next_memory),
            Phase::Draining => now + SECOND / 10,
        };
        let due = self
            .producer
            .as_ref()
            .and_then(|producer| producer.next_due(pumped));
        let due = due.map_or(u64::MAX, |due| due.max(pumped + self.plan.tick));
        next.min(due).saturating_sub(now)
    }

    fn handle(&mut self, event: crate::poller::Event, now: Nanos) {
        let sockets = &mut self.sockets;
        if let Some(producer) = &mut self.producer
            && let Some(line) = producer.line_of(event.token)
        {
            if event.is_writable {
                producer.writable(line, now, sockets);
            }
            if event.is_readable {
                producer.readable(line, now, sockets);
            }
        }
        if let Some(consumer) = &mut self.consumer
            && let Some(line) = consumer.line_of(event.token)
        {
            if event.is_writable {
                consumer.writable(line, sockets);
            }
            if event.is_readable {
                consumer.readable(line, now, sockets);
            }
        }
    }
}

/// Whether the producer has nothing left to send or to hear.
fn is_sent(producer: &Producer, is_draining: bool, now: Nanos) -> bool {
    match producer.pace {
        Pace::Closed { .. } if is_draining => producer.is_answered(),
        _ => producer.is_idle(now),
    }
}
