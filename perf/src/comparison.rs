//! Reports of the same workloads side by side: medians and spread per broker, and ratios.

use std::path::Path;

use serde_json::Value;

use crate::client::Failure;

/// A figure that reports are compared by.
pub(crate) struct Metric {
    /// How tables head it.
    pub(crate) name: &'static str,
    /// Where it stands in a report, below the side that was measured if it begins with a dot.
    pointer: &'static str,
    /// What the value is divided by for the table.
    scale: f64,
    /// Digits behind the point.
    pub(crate) digits: usize,
}

const fn metric(name: &'static str, pointer: &'static str, scale: f64, digits: usize) -> Metric {
    Metric {
        name,
        pointer,
        scale,
        digits,
    }
}

/// Places in [`METRICS`].
pub(crate) const MEGABYTES_PER_SECOND: usize = 0;
pub(crate) const RECORDS_PER_SECOND: usize = 1;
pub(crate) const CPU_PER_GIGABYTE: usize = 2;
pub(crate) const CPU_PER_MILLION: usize = 3;

/// The columns of every table.
pub(crate) const METRICS: [Metric; 12] = [
    metric("MB/s", "./megabytes_per_second", 1.0, 1),
    metric("records/s", "./records_per_second", 1.0, 0),
    metric("CPU s/GB", "/costs/broker_cpu/per_gigabyte", 1.0, 3),
    metric("s/M rec", "/costs/broker_cpu/per_million_records", 1.0, 2),
    metric("user s", "/costs/broker_cpu/user", 1.0, 2),
    metric("system s", "/costs/broker_cpu/system", 1.0, 2),
    metric("p50 ms", "./latency/p50", 1_000.0, 2),
    metric("p99 ms", "./latency/p99", 1_000.0, 2),
    metric("p99.9 ms", "./latency/p99.9", 1_000.0, 2),
    metric("max ms", "./latency/max", 1_000.0, 2),
    metric("MiB", "/costs/broker_memory_bytes/end", 1_048_576.0, 0),
    metric("KiB/conn", "/connections/resident_kibibytes_each", 1.0, 2),
];

/// The middle and the extremes of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no values. The median of an even number is the mean of the two in the middle.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Spread { median, min, max })
    }
}

/// What one broker did in one workload.
pub(crate) struct Summary {
    pub(crate) broker: String,
    pub(crate) runs: usize,
    /// By place in [`METRICS`].
    pub(crate) metrics: Vec<Option<Spread>>,
}

impl Summary {
    fn of(broker: &str, reports: &[&Value]) -> Summary {
        let spread = |metric: &Metric| {
            let values = reports.iter().filter_map(|report| value(report, metric));
            Spread::of(values.collect())
        };
        Summary {
            broker: broker.to_owned(),
            runs: reports.len(),
            metrics: METRICS.iter().map(spread).collect(),
        }
    }

    fn median(&self, metric: usize) -> Option<f64> {
        self.metrics[metric].map(|spread| spread.median)
    }
}

/// One workload, by every broker that ran it.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) brokers: Vec<Summary>,
}

impl Workload {
    /// The first broker's median over that of the broker at `other`.
    pub(crate) fn ratio(&self, other: usize, metric: usize) -> Option<f64> {
        let first = self.brokers.first()?.median(metric)?;
        let other = self.brokers.get(other)?.median(metric)?;
        (other > 0.0).then(|| first / other)
    }
}

/// One rate of a sweep: asked for, and the latencies in microseconds by percentile name.
pub(crate) struct SweepPoint {
    pub(crate) rate: f64,
    pub(crate) latency: Value,
}

/// The sweeps of a file: workload, broker, points.
pub(crate) type Sweeps = Vec<(String, String, Vec<SweepPoint>)>;

/// The reports of a file, a line each.
pub(crate) fn load(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| format!("{}: line {}: {error}", path.display(), number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

fn value(report: &Value, metric: &Metric) -> Option<f64> {
    let number = match metric.pointer.strip_prefix('.') {
        None => report.pointer(metric.pointer)?,
        Some(pointer) => {
            let sides = ["end_to_end", "consume", "produce"];
            let side = sides.iter().find_map(|side| report.get(*side))?;
            side.pointer(pointer)?
        }
    };
    Some(number.as_f64()? / metric.scale)
}

fn names(report: &Value) -> Option<(&str, &str)> {
    let workload = report.pointer("/workload_name")?.as_str()?;
    let broker = report.pointer("/broker/name").and_then(Value::as_str);
    Some((workload, broker.unwrap_or("broker")))
}

/// The workloads a broker ran, in the order they first appear in.
pub(crate) fn workload_names(reports: &[Value], broker: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for report in reports.iter().filter(|report| report["kind"] != "sweep") {
        if let Some((workload, by)) = names(report)
            && by == broker
            && !found.iter().any(|known| known == workload)
        {
            found.push(workload.to_owned());
        }
    }
    found
}

/// A metric of every run of a workload by a broker that has it.
pub(crate) fn values(reports: &[Value], workload: &str, broker: &str, metric: &Metric) -> Vec<f64> {
    let of_it = |report: &&Value| names(report) == Some((workload, broker));
    let reports = reports.iter().filter(of_it);
    reports.filter_map(|report| value(report, metric)).collect()
}

/// Values by name, in the order the names first appear in.
type Groups<'a, T> = Vec<(&'a str, T)>;
/// Reports by broker.
type Brokers<'a> = Groups<'a, Vec<&'a Value>>;

/// Workloads and brokers in the order they first appear in.
pub(crate) fn workloads(reports: &[Value]) -> Vec<Workload> {
    let mut groups: Groups<'_, Brokers<'_>> = Vec::new();
    for report in reports {
        let Some((name, broker)) = names(report).filter(|_| report["kind"] != "sweep") else {
            continue;
        };
        let group = place(&mut groups, name);
        place(group, broker).push(report);
    }
    let summary = |(broker, reports): (&str, Vec<&Value>)| Summary::of(broker, &reports);
    let workload = |(name, brokers): (&str, Brokers<'_>)| Workload {
        name: name.to_owned(),
        brokers: brokers.into_iter().map(summary).collect(),
    };
    groups.into_iter().map(workload).collect()
}

fn place<'a, 'b, T: Default>(groups: &'b mut Groups<'a, T>, name: &'a str) -> &'b mut T {
    let found = groups.iter().position(|(known, _)| *known == name);
    let index = found.unwrap_or_else(|| {
        groups.push((name, T::default()));
        groups.len() - 1
    });
    &mut groups[index].1
}

/// The sweeps among the reports.
pub(crate) fn sweeps(reports: &[Value]) -> Sweeps {
    let mut sweeps = Vec::new();
    for report in reports.iter().filter(|report| report["kind"] == "sweep") {
        let Some((name, broker)) = names(report) else {
            continue;
        };
        let points = report["points"].as_array().into_iter().flatten();
        let points = points.filter_map(|point| {
            Some(SweepPoint {
                rate: point["rate"].as_f64()?,
                latency: point.pointer("/produce/latency")?.clone(),
            })
        });
        sweeps.push((name.to_owned(), broker.to_owned(), points.collect()));
    }
    sweeps
}

/// A number with so many digits, or a dash.
pub(crate) fn text_of(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The table for a terminal. With several brokers, a line of ratios follows each broker behind the
/// first: the first one's median over this one's.
pub(crate) fn table(workloads: &[Workload]) -> String {
    let mut text = format!("{:<34} {:>4}", "", "runs");
    for metric in &METRICS {
        text += &format!("{:>11}", metric.name);
    }
    text.push('\n');
    for workload in workloads {
        text += &format!("{}\n", workload.name);
        for (index, broker) in workload.brokers.iter().enumerate() {
            text += &format!("  {:<32} {:>4}", broker.broker, broker.runs);
            for (place, metric) in METRICS.iter().enumerate() {
                text += &format!("{:>11}", text_of(broker.median(place), metric.digits));
            }
            text.push('\n');
            if index > 0 {
                let title = format!("{} / {}", workload.brokers[0].broker, broker.broker);
                text += &format!("    {title:<30} {:>4}", "");
                for place in 0..METRICS.len() {
                    let ratio = workload.ratio(index, place);
                    text += &format!("{:>11}", ratio.map_or("-".into(), |r| format!("{r:.2}x")));
                }
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(workload: &str, broker: &str, rate: f64) -> Value {
        json!({
            "kind": "produce",
            "workload_name": workload,
            "broker": { "name": broker },
            "produce": { "megabytes_per_second": rate, "latency": { "p50": 1500 } },
            "costs": { "broker_cpu": { "per_gigabyte": 2.0 } },
        })
    }

    #[test]
    fn medians_are_the_middle_and_ratios_the_first_over_the_other() {
        let reports = [
            report("large", "one", 30.0),
            report("large", "two", 10.0),
            report("large", "one", 10.0),
            report("large", "one", 50.0),
            report("large", "two", 20.0),
            report("small", "two", 1.0),
            json!({ "kind": "script" }),
        ];
        let workloads = workloads(&reports);
        assert_eq!(workloads.len(), 2);
        let large = &workloads[0];
        assert_eq!(large.brokers[0].runs, 3);
        let spread = large.brokers[0].metrics[MEGABYTES_PER_SECOND];
        let expected = Spread {
            median: 30.0,
            min: 10.0,
            max: 50.0,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(large.ratio(1, MEGABYTES_PER_SECOND), Some(2.0));
        assert_eq!(large.ratio(1, RECORDS_PER_SECOND), None);
        assert_eq!(large.ratio(2, MEGABYTES_PER_SECOND), None);
        let table = table(&workloads);
        assert!(table.contains("2.00x"), "{table}");
        assert!(table.contains("1.50"), "{table}");
    }

    #[test]
    fn sweeps_are_curves_and_no_rows() {
        let sweep = json!({
            "kind": "sweep", "workload_name": "curve", "broker": { "name": "one" },
            "points": [{ "rate": 1000, "produce": { "latency": { "p99": 7 } } }, { "odd": 1 }],
        });
        let reports = [sweep];
        assert!(workloads(&reports).is_empty());
        let sweeps = sweeps(&reports);
        assert_eq!(sweeps[0].2.len(), 1);
        assert_eq!(sweeps[0].2[0].latency["p99"], 7);
    }
}
