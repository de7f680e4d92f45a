//! Samples of one core's numbers, taken by the core itself and read by the admin endpoint.
//!
//! A core fills its page about once a second from plain cells; the reader never touches the core.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// What a number means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One number with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Prometheus name.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// One label beside the core, as name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// The value.
    pub value: u64,
}

/// The latest samples of one core.
#[derive(Clone, Default)]
pub struct MetricPage {
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl MetricPage {
    /// Replaces the samples.
    pub fn publish(&self, samples: Vec<Sample>) {
        *self
            .samples
            .lock()
            .expect("nothing panics while it holds this") = samples;
    }

    fn read(&self) -> Vec<Sample> {
        self.samples
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }
}

/// All pages in Prometheus' text format; the number of a page is its core.
#[must_use]
pub fn prometheus(pages: &[MetricPage]) -> String {
    let mut rows: Vec<(usize, Sample)> = Vec::new();
    for (core, page) in pages.iter().enumerate() {
        rows.extend(page.read().into_iter().map(|sample| (core, sample)));
    }
    rows.sort_by_key(|(core, sample)| (sample.name, *core));
    let mut text = String::new();
    let mut last = "";
    for (core, sample) in &rows {
        if sample.name != last {
            let kind = match sample.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            let _ = writeln!(text, "# HELP {} {}", sample.name, sample.help);
            let _ = writeln!(text, "# TYPE {} {kind}", sample.name);
            last = sample.name;
        }
        let label = match sample.label {
            Some((name, value)) => format!(",{name}=\"{value}\""),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "{}{{core=\"{core}\"{label}}} {}",
            sample.name, sample.value
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_prometheus_text() {
        let sample = |value, label| Sample {
            name: "percolog_closed_total",
            help: "Connections closed.",
            kind: MetricKind::Counter,
            label,
            value,
        };
        let pages = [MetricPage::default(), MetricPage::default()];
        pages[0].publish(vec![sample(3, Some(("reason", "idle")))]);
        pages[1].publish(vec![sample(4, None)]);
        assert_eq!(
            prometheus(&pages),
            "# HELP percolog_closed_total Connections closed.\n\
             # TYPE percolog_closed_total counter\n\
             percolog_closed_total{core=\"0\",reason=\"idle\"} 3\n\
             percolog_closed_total{core=\"1\"} 4\n"
        );
    }
}
