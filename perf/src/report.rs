//! The report of a run: a table for the terminal, a line of JSON with its whole provenance.

use percolog::wire::api_table::ApiKey;
use serde_json::{Value, json};

use crate::accounting::Accounting;
use crate::client::Failure;
use crate::cluster::Cluster;
use crate::host;
use crate::ledger;
use crate::measure::Recorder;
use crate::options::RunOptions;

/// What every report holds besides its results.
pub(crate) fn provenance(kind: &str, options: &RunOptions, cluster: &Cluster) -> Value {
    let versions = [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata];
    let versions: serde_json::Map<String, Value> = versions
        .iter()
        .filter_map(|api| Some((api.name().to_owned(), json!(cluster.versions.get(api)?))))
        .collect();
    let executable = options.broker_pid.and_then(|pid| {
        let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(path.file_name()?.to_string_lossy().into_owned())
    });
    json!({
        "kind": kind,
        "workload_name": options.workload_name,
        "time": host::time(),
        "tool": host::tool(),
        "host": host::describe(),
        "broker": {
            "bootstrap": options.bootstrap,
            "name": options.broker_name,
            "executable": executable,
            "cluster_id": cluster.id,
            "nodes": cluster.brokers.len(),
            "versions": versions,
        },
        "topics": {
            "count": cluster.topics.len(),
            "partitions": cluster.targets.len(),
            "created_seconds": cluster.created_after.map(|after| after.as_secs_f64()),
            "leaders_seconds": cluster.leaders_after.map(|after| after.as_secs_f64()),
        },
    })
}

/// Appends a report to the file that was asked for.
pub(crate) fn write(report: &Value, options: &RunOptions) -> Result<(), Failure> {
    let Some(path) = &options.json else {
        return Ok(());
    };
    ledger::append(report, path)
}

/// Prints a line of the table.
fn row(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<22} {value}");
}

/// Prints what one side of a run came to.
pub(crate) fn print_side(title: &str, recorder: &Recorder) {
    println!("{title}");
    row(
        "rate",
        format!(
            "{:.1} MB/s, {:.0} records/s over {:.2} s",
            recorder.megabytes_per_second(),
            recorder.records_per_second(),
            recorder.seconds()
        ),
    );
    if recorder.latency.count() > 0 {
        row("latency", recorder.latency.to_line());
    }
    if recorder.send_delay.count() > 0 {
        row("of which before sending", recorder.send_delay.to_line());
    }
    let total = recorder.total;
    row(
        "in all",
        format!(
            "{} records, {} batches, {} requests, {:.3} GB",
            total.records,
            total.batches,
            total.requests,
            total.bytes as f64 / 1e9
        ),
    );
    if recorder.retried > 0 {
        row("sent again", format!("{} records", recorder.retried));
    }
    if recorder.unanswered > 0 {
        row("NEVER ANSWERED", format!("{} records", recorder.unanswered));
    }
    for (error, records) in &recorder.errors {
        row("ERROR", format!("{error}: {records}"));
    }
}

/// Prints what a run cost.
pub(crate) fn print_costs(accounting: &Accounting, bytes: u64, records: u64) {
    println!("costs");
    let per = |seconds: f64| {
        let mut text = format!("{seconds:.2} s");
        if bytes > 0 {
            text += &format!(", {:.3} s/GB", seconds / (bytes as f64 / 1e9));
        }
        if records > 0 {
            text += &format!(
                ", {:.2} s per million records",
                seconds / (records as f64 / 1e6)
            );
        }
        text
    };
    if let Some((user, system)) = accounting.broker_cpu() {
        let split = format!(
            "{} (user {user:.2}, system {system:.2})",
            per(user + system)
        );
        row("broker CPU", split);
    }
    row("CPU of this tool", per(accounting.own_cpu()));
    if let Some((end, max)) = accounting.broker_memory() {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let text = format!(
            "{:.1} MiB at the end, {:.1} at most",
            mebibytes(end),
            mebibytes(max)
        );
        row("broker memory", text);
    }
    let accounts = accounting.to_json(bytes, records);
    let fields = [
        "broker_written_bytes",
        "device_written_bytes",
        "device_flushes",
    ];
    for (name, field) in [
        "written by broker",
        "written to device",
        "flushes of device",
    ]
    .iter()
    .zip(fields)
    {
        match accounts[field].as_u64() {
            Some(count) if field.ends_with("bytes") => {
                let ratio = count as f64 / (bytes.max(1)) as f64;
                row(
                    name,
                    format!("{:.3} GB, {ratio:.2} per byte", count as f64 / 1e9),
                );
            }
            Some(count) => row(name, count),
            None => {}
        }
    }
}
