//! Samples of one core's numbers, taken by the core itself and read by the admin endpoint.
//!
//! A core fills its page about once a second from plain cells; the reader never touches the core.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use super::histogram::{Counted, bound_us};

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

/// Durations with their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSample {
    /// Prometheus name; ends in `_seconds`.
    pub name: &'static str,
    /// What is measured, in a sentence.
    pub help: &'static str,
    /// One label beside the core, as name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// What was counted.
    pub counted: Counted,
}

/// Everything a core tells.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Numbers.
    pub numbers: Vec<Sample>,
    /// Durations.
    pub histograms: Vec<HistogramSample>,
}

/// The latest samples of one core.
#[derive(Clone, Default)]
pub struct MetricPage {
    samples: Arc<Mutex<Samples>>,
}

impl MetricPage {
    /// Replaces the samples.
    pub fn publish(&self, samples: Samples) {
        *self
            .samples
            .lock()
            .expect("nothing panics while it holds this") = samples;
    }

    fn read(&self) -> Samples {
        self.samples
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }
}

/// All pages in Prometheus' text format; the number of a page is its core.
#[must_use]
pub fn prometheus(pages: &[MetricPage]) -> String {
    let mut numbers: Vec<(usize, Sample)> = Vec::new();
    let mut histograms: Vec<(usize, HistogramSample)> = Vec::new();
    for (core, page) in pages.iter().enumerate() {
        let samples = page.read();
        numbers.extend(samples.numbers.into_iter().map(|sample| (core, sample)));
        histograms.extend(samples.histograms.into_iter().map(|sample| (core, sample)));
    }
    numbers.sort_by_key(|(core, sample)| (sample.name, *core));
    histograms.sort_by_key(|(core, sample)| (sample.name, *core));
    let mut text = String::new();
    let mut last = "";
    for (core, sample) in &numbers {
        let kind = match sample.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        head(&mut text, &mut last, (sample.name, sample.help, kind));
        let labels = labels(*core, sample.label);
        let _ = writeln!(text, "{}{{{labels}}} {}", sample.name, sample.value);
    }
    for (core, sample) in &histograms {
        head(
            &mut text,
            &mut last,
            (sample.name, sample.help, "histogram"),
        );
        write_histogram(&mut text, &labels(*core, sample.label), sample);
    }
    text
}

fn head<'a>(
    text: &mut String,
    last: &mut &'a str,
    (name, help, kind): (&'a str, &'a str, &'a str),
) {
    if name != *last {
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} {kind}");
        *last = name;
    }
}

fn labels(core: usize, label: Option<(&str, &str)>) -> String {
    match label {
        Some((name, value)) => format!("core=\"{core}\",{name}=\"{value}\""),
        None => format!("core=\"{core}\""),
    }
}

fn write_histogram(text: &mut String, labels: &str, sample: &HistogramSample) {
    let name = sample.name;
    let mut sum = 0;
    for (index, count) in sample.counted.counts.iter().enumerate() {
        sum += count;
        let bound = bound_us(index).map_or("+Inf".to_owned(), seconds);
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
    }
    let _ = writeln!(
        text,
        "{name}_sum{{{labels}}} {}",
        seconds(sample.counted.sum_us)
    );
    let _ = writeln!(text, "{name}_count{{{labels}}} {sum}");
}

fn seconds(duration_us: u64) -> String {
    format!("{}.{:06}", duration_us / 1_000_000, duration_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
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
        let page = |sample| Samples {
            numbers: vec![sample],
            histograms: Vec::new(),
        };
        pages[0].publish(page(sample(3, Some(("reason", "idle")))));
        pages[1].publish(page(sample(4, None)));
        assert_eq!(
            prometheus(&pages),
            "# HELP percolog_closed_total Connections closed.\n\
             # TYPE percolog_closed_total counter\n\
             percolog_closed_total{core=\"0\",reason=\"idle\"} 3\n\
             percolog_closed_total{core=\"1\"} 4\n"
        );
    }
    #[test]
    fn histograms_become_cumulative() {
        let histogram = Histogram::default();
        for duration_us in [10, 20, 1_500_000, u64::from(u32::MAX)] {
            histogram.note(duration_us);
        }
        let page = MetricPage::default();
        page.publish(Samples {
            numbers: Vec::new(),
            histograms: vec![HistogramSample {
                name: "percolog_x_seconds",
                help: "X.",
                label: Some(("api", "Fetch")),
                counted: histogram.counted(),
            }],
        });
        let text = prometheus(&[page]);
        assert!(text.starts_with(
            "# HELP percolog_x_seconds X.\n\
             # TYPE percolog_x_seconds histogram\n\
             percolog_x_seconds_bucket{core=\"0\",api=\"Fetch\",le=\"0.000016\"} 1\n\
             percolog_x_seconds_bucket{core=\"0\",api=\"Fetch\",le=\"0.000032\"} 2\n"
        ));
        assert!(text.ends_with(
            "le=\"16.777216\"} 3\n\
             percolog_x_seconds_bucket{core=\"0\",api=\"Fetch\",le=\"+Inf\"} 4\n\
             percolog_x_seconds_sum{core=\"0\",api=\"Fetch\"} 4296.467325\n\
             percolog_x_seconds_count{core=\"0\",api=\"Fetch\"} 4\n"
        ));
    }
}
