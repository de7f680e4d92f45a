//! The report as one HTML file with its plots in it: readable without a network.

use std::fmt::Write;

use serde_json::Value;

use crate::comparison::{
    CPU_PER_GIGABYTE, CPU_PER_MILLION, MEGABYTES_PER_SECOND, METRICS, RECORDS_PER_SECOND, Sweeps,
    Workload, text_of,
};
use crate::history::Entry;

const COLOURS: [&str; 6] = [
    "#1f6feb", "#d29922", "#cf222e", "#2da44e", "#8250df", "#57606a",
];
/// What the history shows: a figure of the ledger, its heading, digits behind the point.
const HISTORIES: [(&str, &str, usize); 5] = [
    ("cpu_seconds_per_million_records", "CPU s/M rec", 2),
    ("megabytes_per_second", "MB/s", 1),
    ("latency_p50_ms", "p50 ms", 2),
    ("latency_p99_ms", "p99 ms", 2),
    ("resident_kib_per_connection", "KiB/conn", 2),
];
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;\
color:#1f2328;background:#fff}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #d0d7de}\
th:first-child,td:first-child{text-align:left}.ratio td{color:#57606a;font-style:italic}\
.name td{font-weight:600;border-bottom:none;padding-top:.8rem}small{color:#57606a}\
svg text{font:12px system-ui,sans-serif;fill:#1f2328}";

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The whole page.
pub(crate) fn page(
    title: &str,
    reports: &[Value],
    workloads: &[Workload],
    sweeps: &Sweeps,
    entries: &[Entry],
) -> String {
    let title = escaped(title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    provenance(&mut html, reports);
    table(&mut html, workloads);
    for (metric, heading) in [
        (MEGABYTES_PER_SECOND, "Throughput, MB/s"),
        (RECORDS_PER_SECOND, "Throughput, records/s"),
        (CPU_PER_GIGABYTE, "Broker CPU, seconds per GB"),
        (CPU_PER_MILLION, "Broker CPU, seconds per million records"),
    ] {
        let _ = writeln!(html, "<h2>{heading}</h2>");
        bars(&mut html, workloads, metric);
    }
    for percentile in ["p50", "p99", "p99.9", "max"] {
        curves(&mut html, sweeps, percentile);
    }
    histories(&mut html, entries);
    html.push_str("</html>\n");
    html
}

/// Machine, commit and time of the first report; all have their own in the file beside the page.
fn provenance(html: &mut String, reports: &[Value]) {
    let Some(first) = reports.first() else {
        return;
    };
    let text = |pointer: &str| match first.pointer(pointer) {
        Some(Value::String(text)) => escaped(text),
        Some(value) => escaped(&value.to_string()),
        None => "unknown".to_owned(),
    };
    let gibibytes = first.pointer("/host/memory_bytes").and_then(Value::as_f64);
    let _ = writeln!(
        html,
        "<p>{} · {} cores, {} GiB · Linux {} · commit {} · {}</p>\n\
         <p>Broker and load generator share the machine. Medians of all runs, the extremes small below \
         them. A line of ratios is the first broker's median over the one's above it.</p>",
        text("/host/cpu"),
        text("/host/cores"),
        text_of(gibibytes.map(|bytes| bytes / f64::from(1 << 30)), 1),
        text("/host/kernel"),
        text("/tool/commit"),
        text("/time"),
    );
    if first.pointer("/host/is_virtual") == Some(&Value::Bool(true)) {
        html.push_str(
            "<p>This is a virtual machine. There the page cache can be costly, which flatters brokers \
             that pass it by; compare system CPU with user CPU.</p>\n",
        );
    }
}

fn table(html: &mut String, workloads: &[Workload]) {
    html.push_str("<table><tr><th></th><th>runs</th>");
    for metric in &METRICS {
        let _ = write!(html, "<th>{}</th>", metric.name);
    }
    html.push_str("</tr>\n");
    for workload in workloads {
        let columns = METRICS.len() + 2;
        let name = escaped(&workload.name);
        let _ = writeln!(
            html,
            "<tr class=\"name\"><td colspan=\"{columns}\">{name}</td></tr>"
        );
        for (index, broker) in workload.brokers.iter().enumerate() {
            let name = escaped(&broker.broker);
            let _ = write!(html, "<tr><td>{name}</td><td>{}</td>", broker.runs);
            for (metric, spread) in METRICS.iter().zip(&broker.metrics) {
                let number = |value| text_of(Some(value), metric.digits);
                match spread {
                    None => html.push_str("<td>-</td>"),
                    Some(spread) => {
                        let (min, max) = (number(spread.min), number(spread.max));
                        let median = number(spread.median);
                        let _ = write!(html, "<td>{median}<br><small>{min}..{max}</small></td>");
                    }
                }
            }
            html.push_str("</tr>\n");
            if index > 0 {
                let _ = write!(html, "<tr class=\"ratio\"><td>ratio</td><td></td>");
                for place in 0..METRICS.len() {
                    let ratio = workload.ratio(index, place);
                    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
                    let _ = write!(html, "<td>{ratio}</td>");
                }
                html.push_str("</tr>\n");
            }
        }
    }
    html.push_str("</table>\n");
}

/// A bar per workload and broker, with its number behind it.
fn bars(html: &mut String, workloads: &[Workload], metric: usize) {
    let mut bars = Vec::new();
    for workload in workloads {
        for (index, broker) in workload.brokers.iter().enumerate() {
            if let Some(spread) = broker.metrics[metric] {
                let label = format!("{} · {}", workload.name, broker.broker);
                bars.push((label, index, spread.median));
            }
        }
    }
    let most = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);
    let height = 22 * bars.len() + 4;
    let _ = writeln!(html, "<svg viewBox=\"0 0 1000 {height}\" role=\"img\">");
    for (row, (label, broker, value)) in bars.iter().enumerate() {
        let (top, width) = (
            22 * row,
            if most > 0.0 {
                480.0 * value / most
            } else {
                0.0
            },
        );
        let colour = COLOURS[broker % COLOURS.len()];
        let number = text_of(Some(*value), METRICS[metric].digits);
        let _ = writeln!(
            html,
            "<text x=\"430\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"440\" y=\"{}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{number}</text>",
            top + 15,
            escaped(label),
            top + 2,
            446.0 + width,
            top + 15,
        );
    }
    html.push_str("</svg>\n");
}

/// Latency over the offered rate, both on logarithmic axes; a line per sweep.
fn curves(html: &mut String, sweeps: &Sweeps, percentile: &str) {
    let curve = |points: &[crate::comparison::SweepPoint]| -> Vec<(f64, f64)> {
        let at = |point: &crate::comparison::SweepPoint| {
            let latency_ms = point.latency[percentile].as_f64()? / 1_000.0;
            (point.rate > 0.0 && latency_ms > 0.0).then_some((point.rate, latency_ms))
        };
        points.iter().filter_map(at).collect()
    };
    let lines: Vec<(String, Vec<(f64, f64)>)> = sweeps
        .iter()
        .map(|(workload, broker, points)| (format!("{workload} · {broker}"), curve(points)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let Some(axes) = Axes::around(all()) else {
        return;
    };
    let _ = writeln!(html, "<h2>Latency {percentile} over the offered rate</h2>");
    let height = 360 + 20 * lines.len();
    let _ = writeln!(html, "<svg viewBox=\"0 0 1000 {height}\" role=\"img\">");
    axes.draw(html);
    for (index, (label, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for &(rate, latency) in points {
            let (x, y) = (axes.x.place(rate), axes.y.place(latency));
            let _ = write!(path, "{x:.1},{y:.1} ");
            let _ = write!(
                html,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let top = 355 + 20 * index;
        let _ = writeln!(
            html,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <rect x=\"80\" y=\"{top}\" width=\"14\" height=\"14\" fill=\"{colour}\"/>\
             <text x=\"100\" y=\"{}\">{}</text>",
            path.trim_end(),
            top + 12,
            escaped(label),
        );
    }
    html.push_str("</svg>\n");
}

/// Per workload of the ledger a small plot of each figure over its entries, the last one's value beside.
fn histories(html: &mut String, entries: &[Entry]) {
    let mut workloads: Vec<&str> = Vec::new();
    for entry in entries {
        if !workloads.contains(&entry.workload.as_str()) {
            workloads.push(&entry.workload);
        }
    }
    if workloads.is_empty() {
        return;
    }
    html.push_str(
        "<h2>History on this machine</h2>\n<p>Every run that was recorded, from left to right, each plot \
         from 0 to its most; commit and value of a point show below the pointer.</p>\n<table><tr><th></th>",
    );
    for (_, heading, _) in HISTORIES {
        let _ = write!(html, "<th>{heading}</th>");
    }
    html.push_str("</tr>\n");
    for workload in workloads {
        let _ = write!(html, "<tr><td>{}</td>", escaped(workload));
        for (field, _, digits) in HISTORIES {
            let points = entries.iter().filter(|entry| entry.workload == workload);
            let points = points.filter_map(|entry| Some((entry, entry.median(field)?)));
            html.push_str("<td>");
            history(html, &points.collect::<Vec<_>>(), digits);
            html.push_str("</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

/// One figure over the entries of a ledger.
fn history(html: &mut String, points: &[(&Entry, f64)], digits: usize) {
    let Some((_, last)) = points.last() else {
        html.push('-');
        return;
    };
    let most = points
        .iter()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let step = 140.0 / (points.len().max(2) - 1) as f64;
    let (mut path, mut circles) = (String::new(), String::new());
    for (index, (entry, value)) in points.iter().enumerate() {
        let (x, y) = (
            5.0 + step * index as f64,
            35.0 - 30.0 * value.max(0.0) / most,
        );
        let _ = write!(path, "{x:.1},{y:.1} ");
        let _ = write!(
            circles,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{}\"><title>{} {}: {}</title></circle>",
            COLOURS[0],
            escaped(&entry.commit),
            escaped(&entry.time),
            text_of(Some(*value), digits),
        );
    }
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 150 40\" width=\"150\" height=\"40\" role=\"img\">\
         <line x1=\"5\" y1=\"35\" x2=\"145\" y2=\"35\" stroke=\"#d0d7de\"/>\
         <polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>{circles}</svg> {}",
        path.trim_end(),
        COLOURS[0],
        text_of(Some(*last), digits),
    );
}

/// Powers of ten on `from..to` of the picture.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.least as i32..=self.most as i32).map(|power| 10_f64.powi(power))
    }
}

struct Axes {
    x: Axis,
    y: Axis,
}

impl Axes {
    /// None around no points.
    fn around(points: impl Iterator<Item = (f64, f64)>) -> Option<Axes> {
        let mut bounds: Option<[f64; 4]> = None;
        for (x, y) in points {
            let [left, right, low, high] = bounds.unwrap_or([x, x, y, y]);
            bounds = Some([left.min(x), right.max(x), low.min(y), high.max(y)]);
        }
        let [left, right, low, high] = bounds?;
        let axis = |least: f64, most: f64, from, to| {
            let least = least.log10().floor();
            Axis {
                least,
                most: most.log10().ceil().max(least + 1.0),
                from,
                to,
            }
        };
        Some(Axes {
            x: axis(left, right, 80.0, 960.0),
            y: axis(low, high, 310.0, 15.0),
        })
    }

    fn draw(&self, html: &mut String) {
        for rate in self.x.ticks() {
            let x = self.x.place(rate);
            let _ = writeln!(
                html,
                "<line x1=\"{x:.1}\" y1=\"15\" x2=\"{x:.1}\" y2=\"310\" stroke=\"#d0d7de\"/>\
                 <text x=\"{x:.1}\" y=\"328\" text-anchor=\"middle\">{rate}</text>"
            );
        }
        for latency in self.y.ticks() {
            let y = self.y.place(latency);
            let _ = writeln!(
                html,
                "<line x1=\"80\" y1=\"{y:.1}\" x2=\"960\" y2=\"{y:.1}\" stroke=\"#d0d7de\"/>\
                 <text x=\"72\" y=\"{:.1}\" text-anchor=\"end\">{latency} ms</text>",
                y + 4.0
            );
        }
        html.push_str("<text x=\"960\" y=\"344\" text-anchor=\"end\">records/s</text>\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::comparison;

    #[test]
    fn a_page_has_every_number_and_escapes_what_it_shows() {
        let report = |broker: &str, rate: f64| {
            json!({
                "kind": "produce", "workload_name": "a < b", "broker": { "name": broker },
                "host": { "cpu": "<script>", "is_virtual": true },
                "produce": { "megabytes_per_second": rate },
            })
        };
        let sweep = json!({
            "kind": "sweep", "workload_name": "curve", "broker": { "name": "one" },
            "points": [
                { "rate": 1000, "produce": { "latency": { "p99": 700 } } },
                { "rate": 100_000, "produce": { "latency": { "p99": 90_000 } } },
            ],
        });
        let reports = [report("one", 123.4), report("two", 61.7), sweep];
        let workloads = comparison::workloads(&reports);
        let sweeps = comparison::sweeps(&reports);
        let html = page("A & B", &reports, &workloads, &sweeps, &[]);
        assert!(!html.contains("History"), "there is no ledger");
        assert!(html.contains("123.4") && html.contains("2.00x"), "{html}");
        assert!(html.contains("A &amp; B") && html.contains("a &lt; b"));
        assert!(!html.contains("<script>"));
        assert!(html.contains("This is a virtual machine"));
        assert_eq!(
            html.matches("<polyline").count(),
            1,
            "only p99 was reported"
        );
        assert_eq!(html.matches("<circle").count(), 2);
        assert!(!html.contains("http"), "nothing is fetched");
    }

    #[test]
    fn the_history_has_a_plot_per_workload_and_figure() {
        let entry = |workload: &str, commit: &str, rate: f64| Entry {
            workload: workload.to_owned(),
            commit: commit.to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            figures: crate::history::Figures::from([(
                "megabytes_per_second",
                crate::history::Figure::of(vec![rate]).expect("a value"),
            )]),
        };
        let entries = [
            entry("large", "first", 50.0),
            entry("a < b", "first", 7.0),
            entry("large", "second", 100.0),
        ];
        let mut html = String::new();
        histories(&mut html, &entries);
        assert_eq!(html.matches("<polyline").count(), 2, "{html}");
        assert_eq!(html.matches("<circle").count(), 3, "{html}");
        assert!(
            html.contains("5.0,20.0 145.0,5.0"),
            "half of the most: {html}"
        );
        assert!(
            html.contains("second 2026-01-02T03:04:05Z: 100.0"),
            "{html}"
        );
        assert!(html.contains("a &lt; b"), "{html}");
    }

    #[test]
    fn axes_hold_their_points() {
        let axes = Axes::around([(5.0, 0.2), (70_000.0, 30.0)].into_iter()).expect("points");
        assert!(axes.x.place(5.0) >= 80.0 && axes.x.place(70_000.0) <= 960.0);
        assert!(axes.y.place(0.2) <= 310.0 && axes.y.place(30.0) >= 15.0);
        assert!(Axes::around(std::iter::empty()).is_none());
    }
}
