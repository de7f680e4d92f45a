//! What counts, and when: acknowledged bytes of the measured time, latencies of the records that
//! were due in it, errors by Kafka's name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::flow::Request;
use crate::latency::Latency;
use crate::schedule::{Nanos, Pace, SECOND};

/// The measured time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Its beginning: the end of the warm-up.
    pub(crate) from: Nanos,
    /// Its end; `None` for that of the last answer.
    pub(crate) to: Option<Nanos>,
}

impl Window {
    /// From the beginning until everything is over.
    pub(crate) const ALL: Window = Window { from: 0, to: None };

    /// Whether `at` is in it.
    pub(crate) fn contains(&self, at: Nanos) -> bool {
        at >= self.from && self.to.is_none_or(|to| at < to)
    }
}

/// Counts of records and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of keys and values; of batches where they are not opened.
    pub(crate) bytes: u64,
    /// Bytes of batches on the wire.
    pub(crate) batch_bytes: u64,
    /// Batches.
    pub(crate) batches: u64,
    /// Requests.
    pub(crate) requests: u64,
}

impl Volume {
    /// Adds another.
    pub(crate) fn add(&mut self, other: Volume) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.batch_bytes += other.batch_bytes;
        self.batches += other.batches;
        self.requests += other.requests;
    }

    fn to_json(self) -> Value {
        json!({
            "records": self.records,
            "bytes": self.bytes,
            "batch_bytes": self.batch_bytes,
            "batches": self.batches,
            "requests": self.requests,
        })
    }
}

/// The measurements of one direction (producing or consuming) of a run.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// The measured time.
    pub(crate) window: Window,
    /// From the intended send time to the answer (or the receipt).
    pub(crate) latency: Latency,
    /// From the intended send time to the hand-over to the connection: the tool's own delay, and
    /// what full windows add.
    pub(crate) send_delay: Latency,
    /// What was answered in the measured time.
    pub(crate) measured: Volume,
    /// What was answered in all.
    pub(crate) total: Volume,
    /// Records that failed, by error.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Records that were sent again after an error that passes.
    pub(crate) retried: u64,
    /// Records due in the measured time that were never answered.
    pub(crate) unanswered: u64,
    /// The last answer.
    pub(crate) last: Nanos,
}

impl Recorder {
    /// Nothing yet.
    pub(crate) fn new(window: Window) -> Recorder {
        Recorder {
            window,
            latency: Latency::new(),
            send_delay: Latency::new(),
            measured: Volume::default(),
            total: Volume::default(),
            errors: BTreeMap::new(),
            retried: 0,
            unanswered: 0,
            last: 0,
        }
    }

    /// Something was answered at `now`.
    pub(crate) fn count(&mut self, volume: Volume, now: Nanos) {
        self.total.add(volume);
        if self.window.contains(now) {
            self.measured.add(volume);
        }
        self.last = now;
    }

    /// `records` failed.
    pub(crate) fn fail(&mut self, error: &str, records: u64) {
        *self.errors.entry(error.to_owned()).or_default() += records;
    }

    /// One sample, if the record was due in the measured time.
    pub(crate) fn sample(&mut self, intended: Nanos, now: Nanos) {
        if self.window.contains(intended) {
            self.latency.record(now.saturating_sub(intended), 1);
        }
    }

    /// The records of a request were answered at `now`. Batches whose place is in `failed` have no
    /// latency.
    pub(crate) fn answered(
        &mut self,
        request: &Request,
        failed: &[usize],
        pace: &Pace,
        now: Nanos,
    ) {
        for (place, batch) in request.batches.iter().enumerate() {
            if failed.contains(&place) {
                continue;
            }
            if matches!(pace, Pace::Closed { .. }) {
                if self.window.contains(request.sent) {
                    let latency = now - request.sent;
                    self.latency.record(latency, u64::from(batch.count));
                }
                continue;
            }
            for index in batch.indices() {
                self.sample(pace.intended(index, request.sent), now);
            }
        }
    }

    /// The records of a request were handed to their connection.
    pub(crate) fn sent(&mut self, request: &Request, pace: &Pace) {
        for batch in &request.batches {
            // The oldest record of a batch waited longest.
            let intended = pace.intended(batch.first, request.sent);
            if self.window.contains(intended) {
                let delay = request.sent.saturating_sub(intended);
                self.send_delay.record(delay, 1);
            }
        }
    }

    /// A record that was due at `intended` will never be answered: it counts with the time it has
    /// waited.
    pub(crate) fn give_up(&mut self, intended: Nanos, now: Nanos) {
        if self.window.contains(intended) {
            self.unanswered += 1;
            self.latency.record(now.saturating_sub(intended), 1);
        }
    }

    /// Seconds of the measured time.
    pub(crate) fn seconds(&self) -> f64 {
        let to = self.window.to.unwrap_or(self.last);
        to.saturating_sub(self.window.from) as f64 / SECOND as f64
    }

    /// Megabytes (10^6) per second.
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        per_second(self.measured.bytes as f64 / 1e6, self.seconds())
    }

    /// Records per second.
    pub(crate) fn records_per_second(&self) -> f64 {
        per_second(self.measured.records as f64, self.seconds())
    }

    /// Records that failed.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Everything.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "seconds": self.seconds(),
            "records_per_second": self.records_per_second(),
            "megabytes_per_second": self.megabytes_per_second(),
            "measured": self.measured.to_json(),
            "total": self.total.to_json(),
            "latency": self.latency.to_json(),
            "send_delay": self.send_delay.to_json(),
            "retried_records": self.retried,
            "unanswered_records": self.unanswered,
            "errors": self.errors,
        })
    }
}

fn per_second(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}
