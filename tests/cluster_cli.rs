//! The commands for a cluster, the real binary against the real broker.

mod support;

use std::process::{Command, Output, Stdio};

use percolog::wire::frame;
use percolog::wire::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use serde_json::{Value, json};
use support::Broker;

const INVALID_UPDATE_VERSION: i16 = 95;

fn broker() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    broker.connect().create_topic("orders", 2, &[]);
    (data, broker)
}

fn run(broker: &Broker, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_percolog"))
        .args(line.split_whitespace())
        .args(["--bootstrap", &broker.address.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built")
}

#[track_caller]
fn works(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn json_of(broker: &Broker, line: &str) -> Value {
    let text = works(broker, &format!("{line} --output json"));
    serde_json::from_str(&text).expect("JSON")
}

#[track_caller]
fn refused(broker: &Broker, line: &str) -> String {
    let output = run(broker, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_broker_alone_leads_everything_and_nothing_moves() {
    let (_data, broker) = broker();
    assert_eq!(json_of(&broker, "cluster elect preferred --all"), json!([]));
    let named = json_of(&broker, "cluster elect preferred orders:1");
    let expected = json!([{"topic": "orders", "partition": 1, "result": "not needed"}]);
    assert_eq!(named, expected);
    let started = works(&broker, "cluster reassign orders --to 1");
    assert_eq!(started, "started: 2 partitions\n");
    let moving = works(&broker, "cluster reassign --list");
    assert_eq!(moving, "no partition is being reassigned\n");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let (_data, broker) = broker();
    for (line, reason) in [
        (
            "cluster elect unclean orders:7",
            "UNKNOWN_TOPIC_OR_PARTITION",
        ),
        (
            "cluster elect unclean nothing:0",
            "UNKNOWN_TOPIC_OR_PARTITION",
        ),
        (
            "cluster reassign orders --to 1,2",
            "INVALID_REPLICA_ASSIGNMENT",
        ),
        (
            "cluster reassign orders:0 --cancel",
            "NO_REASSIGNMENT_IN_PROGRESS",
        ),
        ("cluster drain 1", "no other active broker"),
        ("cluster remove 1", "is active"),
        ("cluster remove 9", "BROKER_ID_NOT_REGISTERED"),
    ] {
        let said = refused(&broker, line);
        assert!(said.contains(reason), "{line}: {said}");
    }
    assert_eq!(
        works(&broker, "cluster drain 9"),
        "the broker holds no replicas that stay\n"
    );
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn the_cluster_version_is_a_feature() {
    let (_data, broker) = broker();
    let mut client = broker.connect();
    let mut update = |version, level| {
        let request = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: "cluster.version".into(),
                max_version_level: level,
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = client.ask(version, &request);
        let decoded = frame::decode_response_of::<UpdateFeaturesRequest<'_>>(&frame, version);
        let (_, answer) = decoded.expect("an answer");
        (answer.error_code, answer.results.len())
    };
    for (version, results) in [(0, 1), (1, 1), (2, 0)] {
        assert_eq!(update(version, 1), (0, results));
        assert_eq!(update(version, 99), (INVALID_UPDATE_VERSION, results));
    }
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_broker_that_starts_again_leads_under_a_new_epoch() {
    let (data, broker) = broker();
    let described = || json_of(&broker, "cluster describe");
    let brokers = described()["brokers"].clone();
    assert_eq!(
        (&brokers[0]["id"], &brokers[0]["fenced"]),
        (&json!(1), &json!(false))
    );
    broker.kill();
    let broker = Broker::start(data.path(), &["--cores", "1"]);
    let topics = json_of(&broker, "topic describe orders");
    for partition in topics[0]["partitions"].as_array().expect("partitions") {
        assert_eq!(
            (&partition["leader"], &partition["isr"]),
            (&json!(1), &json!([1]))
        );
        // It led nothing while it was down, and leads again.
        assert_eq!(partition["leader_epoch"], json!(2));
    }
    assert_eq!(broker.stop(), Some(0));
}
