//! The ledger that is kept in the repository: per host a file with a line per workload of every run
//! that was recorded.
//!
//! Figures of different machines say nothing about each other, hence a file per [`fingerprint`]: what
//! a figure depends on and nothing that names a machine.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Failure;
use crate::comparison::{self, METRICS, Spread};
use crate::host;
use crate::ledger;

/// What is kept of a run: how the ledger calls it, and how tables do ([`METRICS`]).
pub(crate) const FIELDS: [(&str, &str); 8] = [
    ("megabytes_per_second", "MB/s"),
    ("records_per_second", "records/s"),
    ("cpu_seconds_per_gigabyte", "CPU s/GB"),
    ("cpu_seconds_per_million_records", "s/M rec"),
    ("latency_p50_ms", "p50 ms"),
    ("latency_p99_ms", "p99 ms"),
    ("resident_mib", "MiB"),
    ("resident_kib_per_connection", "KiB/conn"),
];

/// What the figures of a machine depend on: processor, number of cores, kernel, disk.
pub(crate) fn fingerprint(directory: &Path) -> Result<Value, Failure> {
    let host = host::describe();
    let disk = host::disk_kind(directory)?;
    let parts = [&host["cpu"], &host["cores"], &host["kernel"]].map(Value::to_string);
    let text = format!("{}|{disk}", parts.join("|"));
    Ok(json!({
        "fingerprint": format!("{:08x}", crc32c::crc32c(text.as_bytes())),
        "cpu": host["cpu"],
        "cores": host["cores"],
        "kernel": host["kernel"],
        "disk": disk,
    }))
}

/// Several runs of one figure: the middle, and how far the middle run is from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// Median of the distances from the median.
    pub(crate) deviation: f64,
    pub(crate) runs: usize,
}

impl Figure {
    /// None of no values.
    pub(crate) fn of(values: Vec<f64>) -> Option<Figure> {
        let runs = values.len();
        let median = Spread::of(values.clone())?.median;
        let distances = values.iter().map(|value| (value - median).abs());
        let deviation = Spread::of(distances.collect())?.median;
        Some(Figure {
            median,
            deviation,
            runs,
        })
    }
}

/// The figures of one workload by their names in [`FIELDS`].
pub(crate) type Figures = BTreeMap<&'static str, Figure>;

/// What `broker` did in every workload of the reports, in the order they first appear in.
pub(crate) fn measured(reports: &[Value], broker: &str) -> Vec<(String, Figures)> {
    let mut workloads = Vec::new();
    for name in comparison::workload_names(reports, broker) {
        let figures = FIELDS.iter().filter_map(|(field, column)| {
            let metric = METRICS.iter().find(|metric| metric.name == *column)?;
            let values = comparison::values(reports, &name, broker, metric);
            Some((*field, Figure::of(values)?))
        });
        let figures: Figures = figures.collect();
        workloads.push((name, figures));
    }
    workloads
}

/// What `broker` took over what `other` took, run by run, where both ran a workload equally often: what
/// changed on the machine between two runs is not in it.
pub(crate) fn ratios(reports: &[Value], workload: &str, broker: &str, other: &str) -> Figures {
    let mut ratios = Figures::new();
    for (field, column) in FIELDS {
        let Some(metric) = METRICS.iter().find(|metric| metric.name == column) else {
            continue;
        };
        let values = |broker| comparison::values(reports, workload, broker, metric);
        let (ours, theirs) = (values(broker), values(other));
        if ours.len() != theirs.len() || theirs.iter().any(|value| *value <= 0.0) {
            continue;
        }
        let pairs = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
        if let Some(figure) = Figure::of(pairs.collect()) {
            ratios.insert(field, figure);
        }
    }
    ratios
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) workload: String,
    pub(crate) commit: String,
    pub(crate) time: String,
    pub(crate) figures: Figures,
}

impl Entry {
    fn to_json(&self, host: &Value) -> Value {
        let (commit, is_changed) = match self.commit.strip_suffix(CHANGES) {
            Some(commit) => (commit, true),
            None => (self.commit.as_str(), false),
        };
        let figures = FIELDS.iter().filter_map(|(field, _)| {
            let figure = self.figures.get(field)?;
            let value =
                json!({ "median": rounded(figure.median), "deviation": rounded(figure.deviation) });
            Some(((*field).to_owned(), value))
        });
        json!({
            "workload": self.workload,
            "commit": commit,
            "has_changes": is_changed,
            "time": self.time,
            "host": host,
            "runs": self.figures.values().map(|figure| figure.runs).max(),
            "figures": figures.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn from_json(line: &Value) -> Option<Entry> {
        let text = |name: &str| Some(line[name].as_str()?.to_owned());
        let changes = if line["has_changes"].as_bool()? {
            CHANGES
        } else {
            ""
        };
        let runs = usize::try_from(line["runs"].as_u64()?).ok()?;
        let figure = |field: &'static str| {
            let figure = line["figures"].get(field)?;
            let (median, deviation) = (figure["median"].as_f64()?, figure["deviation"].as_f64()?);
            let figure = Figure {
                median,
                deviation,
                runs,
            };
            Some((field, figure))
        };
        Some(Entry {
            workload: text("workload")?,
            commit: text("commit")? + changes,
            time: text("time")?,
            figures: FIELDS
                .iter()
                .filter_map(|(field, _)| figure(field))
                .collect(),
        })
    }

    /// One figure's median.
    pub(crate) fn median(&self, field: &str) -> Option<f64> {
        self.figures.get(field).map(|figure| figure.median)
    }
}

/// How the tool marks the commit of a tree that was changed (see build.rs).
const CHANGES: &str = "+changes";

/// Four significant digits: what is behind them is noise, and lines are read by people.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Appends a line per workload; how many there were.
pub(crate) fn record(
    reports: &[Value],
    broker: &str,
    directory: &Path,
    path: &Path,
) -> Result<usize, Failure> {
    let host = fingerprint(directory)?;
    let workloads = measured(reports, broker);
    for (workload, figures) in &workloads {
        let entry = Entry {
            workload: workload.clone(),
            commit: commit_of(reports, workload),
            time: host::time(),
            figures: figures.clone(),
        };
        ledger::append(&entry.to_json(&host), path)?;
    }
    Ok(workloads.len())
}

/// The commit that the tool was built from, as the reports say: `make` builds it with the broker.
fn commit_of(reports: &[Value], workload: &str) -> String {
    let mut reports = reports.iter();
    let report = reports.find(|report| report["workload_name"] == workload);
    let commit = report.and_then(|report| report.pointer("/tool/commit")?.as_str());
    commit.unwrap_or("unknown").to_owned()
}

/// Every line of a ledger. A file that is not there has none.
pub(crate) fn load(path: &Path) -> Result<Vec<Entry>, Failure> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for (number, line) in comparison::load(path)?.iter().enumerate() {
        let entry = Entry::from_json(line);
        let place = || format!("{}: line {}: not of a ledger", path.display(), number + 1);
        entries.push(entry.ok_or_else(place)?);
    }
    Ok(entries)
}

/// The last entry of a workload.
pub(crate) fn last<'a>(entries: &'a [Entry], workload: &str) -> Option<&'a Entry> {
    entries
        .iter()
        .rev()
        .find(|entry| entry.workload == workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(workload: &str, rate: f64, cpu: f64) -> Value {
        json!({
            "kind": "produce",
            "workload_name": workload,
            "broker": { "name": "percolog" },
            "tool": { "commit": "abc123+changes" },
            "produce": { "megabytes_per_second": rate, "latency": { "p99": 2_500 } },
            "costs": { "broker_cpu": { "per_million_records": cpu } },
        })
    }

    #[test]
    fn the_deviation_is_that_of_the_middle_run() {
        let figure = Figure::of(vec![1.0, 1.1, 1.3, 0.9, 9.0]).expect("values");
        assert_eq!((figure.median, figure.runs), (1.1, 5));
        assert!((figure.deviation - 0.2).abs() < 1e-9, "{figure:?}");
        assert_eq!(Figure::of(Vec::new()), None);
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let name = format!("percolog-perf-history-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let reports = [
            report("large", 100.0, 1.0),
            report("small", 5.0, 20.0),
            report("large", 200.0, 3.0),
        ];
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(record(&reports, "percolog", here, &path), Ok(2));
        assert_eq!(record(&reports[..1], "percolog", here, &path), Ok(1));
        let text = std::fs::read_to_string(&path).expect("a ledger");
        let entries = load(&path).expect("a ledger");
        std::fs::remove_file(&path).expect("a file");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].median("megabytes_per_second"), Some(150.0));
        assert_eq!(entries[0].median("latency_p99_ms"), Some(2.5));
        assert_eq!(entries[0].commit, "abc123+changes");
        let large = last(&entries, "large").expect("an entry");
        assert_eq!(large.median("megabytes_per_second"), Some(100.0));
        assert_eq!(last(&entries, "none"), None);
        assert!(text.contains("\"has_changes\":true"), "{text}");
        let host = host::describe();
        let host = host["name"].as_str().expect("a name");
        assert!(host.is_empty() || !text.contains(&format!("\"{host}\"")));
    }

    #[test]
    fn ratios_are_of_runs_that_followed_each_other() {
        let by = |broker: &str, cpu: f64| {
            let mut report = report("large", 1.0, cpu);
            report["broker"]["name"] = json!(broker);
            report
        };
        // The machine got twice as slow from one round to the next, twice.
        let mut reports = vec![
            by("new", 1.2),
            by("old", 1.0),
            by("old", 2.0),
            by("new", 2.4),
            by("new", 4.8),
            by("old", 4.0),
        ];
        let field = "cpu_seconds_per_million_records";
        let ratio = ratios(&reports, "large", "new", "old")[field];
        assert!((ratio.median - 1.2).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.deviation < 1e-9, "{ratio:?}");
        reports.push(by("new", 9.0));
        assert!(!ratios(&reports, "large", "new", "old").contains_key(field));
    }

    #[test]
    fn a_ledger_that_is_not_there_has_no_entries_and_a_strange_one_is_refused() {
        let missing = std::env::temp_dir().join("percolog-perf-no-ledger");
        assert_eq!(load(&missing), Ok(Vec::new()));
        let name = format!("percolog-perf-strange-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        ledger::append(&json!({ "workload": "large" }), &path).expect("a file");
        let refusal = load(&path).expect_err("no commit");
        std::fs::remove_file(&path).expect("a file");
        assert!(refusal.contains("line 1: not of a ledger"), "{refusal}");
    }

    #[test]
    fn a_host_keeps_its_fingerprint() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let fingerprint_of = || fingerprint(here).expect("a disk");
        assert_eq!(fingerprint_of(), fingerprint_of());
        let length = fingerprint_of()["fingerprint"].as_str().map(str::len);
        assert_eq!(length, Some(8));
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!(rounded(234_567.0), 234_600.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!(rounded(0.0), 0.0);
    }
}
