//! A histogram of microseconds with three significant digits.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::schedule::Nanos;

/// Longest latency told apart: an hour.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Percentiles of every report, by name.
pub(crate) const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
];

/// Latencies.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// None yet.
    pub(crate) fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, MICROSECONDS_MAX, SIGNIFICANT_DIGITS);
        Latency {
            histogram: histogram.expect("the bounds are constants"),
        }
    }

    /// Takes in `count` equal latencies.
    pub(crate) fn record(&mut self, latency: Nanos, count: u64) {
        let microseconds = latency.saturating_add(500) / 1_000;
        self.histogram
            .saturating_record_n(microseconds.max(1), count);
    }

    /// Takes in all of another one.
    pub(crate) fn absorb(&mut self, other: &Latency) {
        let added = self.histogram.add(&other.histogram);
        added.expect("all have the same bounds");
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The value at a percentile, in microseconds; 0 when nothing was recorded.
    pub(crate) fn at_percentile(&self, percentile: f64) -> u64 {
        match self.count() {
            0 => 0,
            _ => self.histogram.value_at_percentile(percentile),
        }
    }

    /// The largest, in microseconds.
    pub(crate) fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// Percentiles, mean and extremes, in microseconds.
    pub(crate) fn to_json(&self) -> Value {
        let mut value = json!({ "unit": "us", "count": self.count() });
        if self.count() > 0 {
            value["min"] = json!(self.histogram.min());
            value["mean"] = json!(self.histogram.mean());
            for (name, percentile) in PERCENTILES {
                value[name] = json!(self.at_percentile(percentile));
            }
            value["max"] = json!(self.max());
        }
        value
    }

    /// The same on one line, in milliseconds.
    pub(crate) fn to_line(&self) -> String {
        let mut line = String::new();
        for (name, percentile) in PERCENTILES {
            let milliseconds = self.at_percentile(percentile) as f64 / 1_000.0;
            line += &format!("{name} {milliseconds:.3}  ");
        }
        line + &format!("max {:.3} ms", self.max() as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_three_digits_and_percentiles_count_every_sample() {
        let mut latency = Latency::new();
        latency.record(1_234_567_000, 1);
        latency.record(50_000, 999);
        assert_eq!(latency.count(), 1_000);
        assert_eq!(latency.at_percentile(50.0), 50);
        assert_eq!(latency.at_percentile(99.8), 50);
        let max = latency.max();
        assert!(max.abs_diff(1_234_567) * 1_000 <= 1_234_567, "{max}");
        assert_eq!(latency.at_percentile(99.99), max);
    }

    #[test]
    fn extremes_are_kept_at_the_bounds() {
        let mut latency = Latency::new();
        assert_eq!(latency.at_percentile(99.0), 0);
        latency.record(0, 1);
        assert_eq!(latency.at_percentile(50.0), 1);
        latency.record(u64::MAX, 1);
        assert!(latency.max() >= MICROSECONDS_MAX);
    }
}
