//! The tool against its own null server, over real sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use serde_json::Value;

use crate::commands;
use crate::null_server::NullServer;
use crate::options::CommandLine;

/// A null server in a thread of its own, until it goes out of scope.
struct Server {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut server = NullServer::bind("127.0.0.1:0", 100_000).expect("a free port");
            sender
                .send(server.address().to_string())
                .expect("a listener");
            server.serve(&flag).expect("it serves");
        });
        Server {
            address: receiver.recv().expect("an address"),
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("no panic");
    }
}

/// Runs a command line against a fresh null server; its verdict and its report.
fn run(arguments: &str, report: &Path) -> (bool, Value) {
    let server = Server::start();
    let path = report.display().to_string();
    let fixed = [
        "--bootstrap",
        server.address.as_str(),
        "--json",
        path.as_str(),
    ];
    let words = ["percolog-perf"]
        .into_iter()
        .chain(arguments.split(' '))
        .chain(fixed);
    let command_line = CommandLine::try_parse_from(words).expect("a command line");
    let verdict = commands::run(command_line.command).expect("a report");
    let text = std::fs::read_to_string(report).expect("a report");
    std::fs::remove_file(report).expect("a file");
    let report = serde_json::from_str(text.trim()).expect("one line of JSON");
    (verdict, report)
}

fn file(name: &str) -> PathBuf {
    let directory = std::env::temp_dir();
    directory.join(format!("percolog-perf-{}-{name}.json", std::process::id()))
}

#[test]
fn a_bounded_run_sends_every_record_once() {
    for (name, arguments) in [
        (
            "closed",
            "--partitions 3 --batch-bytes 5000 --record-bytes 1000",
        ),
        ("large", "--batch-bytes 200000 --in-flight 2"),
        ("open", "--rate 5000 --partitions 2 --connections 3"),
        (
            "many",
            "--partitions 500 --partitions-per-request 500 --batch-bytes 1 --partitioner round-robin",
        ),
        (
            "topics",
            "--topics 3 --partitions 4 --partitions-per-request 12 --connections 2 --producers 5",
        ),
        ("compressed", "--compression lz4 --batch-bytes 100000"),
        ("keys", "--keys 100 --partitions 3 --compression zstd"),
        (
            "idempotent",
            "--idempotent --spread divided --partitions 4 --connections 2",
        ),
        ("unacknowledged", "--acks 0 --batch-bytes 1"),
    ] {
        let arguments = format!("produce --count 1500 --pool-bytes 1048576 {arguments}");
        let (verdict, report) = run(&arguments, &file(name));
        assert!(verdict, "{name}: {report}");
        let produce = &report["produce"];
        assert_eq!(produce["total"]["records"], 1500, "{name}: {report}");
        assert_eq!(produce["latency"]["count"], 1500, "{name}: {report}");
        assert_eq!(produce["unanswered_records"], 0, "{name}: {report}");
        assert!(produce["latency"]["p99.99"].is_number(), "{name}: {report}");
        assert!(
            report["costs"]["tool_cpu"]["seconds"].is_number(),
            "{name}: {report}"
        );
    }
}

#[test]
fn a_reader_gets_what_the_server_gives_and_checks_it() {
    let server = Server::start();
    let bootstrap = server.address.as_str();
    let parse = |words: &[&str]| {
        let words = [&["percolog-perf"], words, &["--bootstrap", bootstrap]].concat();
        CommandLine::try_parse_from(words)
            .expect("a command line")
            .command
    };
    assert!(commands::run(parse(&["create", "--partitions", "5"])).expect("a topic"));
    let path = file("consume");
    let text = path.display().to_string();
    let words = [
        "consume",
        "--count",
        "20000",
        "--connections",
        "2",
        "--json",
        &text,
    ];
    assert!(commands::run(parse(&words)).expect("a report"));
    let report = std::fs::read_to_string(&path).expect("a report");
    std::fs::remove_file(&path).expect("a file");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert!(
        report["consume"]["total"]["records"].as_u64() >= Some(20_000),
        "{report}"
    );
    assert_eq!(
        report["consume"]["errors"],
        serde_json::json!({}),
        "{report}"
    );
}

#[test]
fn idle_connections_are_all_there_at_the_end() {
    let (verdict, report) = run(
        "connections --connections 40 --idle 0.01",
        &file("connections"),
    );
    assert!(verdict, "{report}");
    assert_eq!(report["connections"]["count"], 40, "{report}");
    assert_eq!(report["connections"]["lost"], 0, "{report}");
}

#[test]
fn reports_say_where_they_come_from() {
    let (_, report) = run(
        "produce --count 1 --pool-bytes 1048576 --broker-name null",
        &file("provenance"),
    );
    for field in ["tool", "host", "broker", "time", "workload"] {
        assert!(!report[field].is_null(), "{field}: {report}");
    }
    assert_eq!(report["broker"]["name"], "null");
    assert_ne!(report["tool"]["commit"], "");
    let command = report["tool"]["command"].as_array().expect("words");
    assert!(!command.is_empty());
}

#[test]
fn nobody_there_is_a_failure_in_words() {
    let arguments = ["percolog-perf", "produce", "--bootstrap", "127.0.0.1:1"];
    let command_line = CommandLine::try_parse_from(arguments).expect("a command line");
    let failure = commands::run(command_line.command).expect_err("nobody");
    assert!(failure.contains("cannot reach 127.0.0.1:1"), "{failure}");
}

#[test]
fn a_topic_that_a_reader_misses_is_named() {
    let server = Server::start();
    let arguments = [
        "percolog-perf",
        "consume",
        "--topic",
        "missing",
        "--bootstrap",
    ];
    let words = arguments.iter().copied().chain([server.address.as_str()]);
    let command_line = CommandLine::try_parse_from(words).expect("a command line");
    let failure = commands::run(command_line.command).expect_err("no topic");
    assert_eq!(failure, "topic missing: UNKNOWN_TOPIC_OR_PARTITION");
}
