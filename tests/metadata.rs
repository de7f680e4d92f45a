//! Metadata outlives kill -9, also when it has grown beyond what the log keeps.

mod support;

use std::collections::BTreeSet;

use percolog::wire::frame;
use percolog::wire::messages::{create_topics, delete_topics, metadata};
use support::{Broker, Client};

const TOPICS: usize = 4_000;
const PER_REQUEST: usize = 200;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// As long as a name may be, so that the metadata log grows fast.
fn name(number: usize) -> String {
    format!("{number:06}-{}", "n".repeat(242))
}

fn create(client: &mut Client, numbers: std::ops::Range<usize>) {
    let topic = |number| create_topics::CreatableTopic {
        name: name(number).into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = create_topics::CreateTopicsRequest {
        topics: numbers.map(topic).collect(),
        timeout_ms: 60_000,
        ..Default::default()
    };
    let frame = client.ask(5, &request);
    let (_, answer) = frame::decode_response_of::<create_topics::CreateTopicsRequest>(&frame, 5)
        .expect("an answer");
    assert!(answer.topics.iter().all(|topic| topic.error_code == 0));
}

fn delete(client: &mut Client, numbers: std::ops::Range<usize>) {
    let request = delete_topics::DeleteTopicsRequest {
        topic_names: numbers.map(|number| name(number).into()).collect(),
        timeout_ms: 60_000,
        ..Default::default()
    };
    let frame = client.ask(4, &request);
    let (_, answer) = frame::decode_response_of::<delete_topics::DeleteTopicsRequest>(&frame, 4)
        .expect("an answer");
    assert!(answer.responses.iter().all(|topic| topic.error_code == 0));
}

fn topics(client: &mut Client) -> BTreeSet<String> {
    let request = metadata::MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let frame = client.ask(8, &request);
    let (_, answer) =
        frame::decode_response_of::<metadata::MetadataRequest>(&frame, 8).expect("an answer");
    let name = |topic: &metadata::MetadataResponseTopic<'_>| {
        topic.name.as_deref().expect("a name").to_string()
    };
    answer.topics.iter().map(name).collect()
}

#[test]
fn thousands_of_topics_survive_kill_9_and_a_snapshot_keeps_the_log_short() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    for first in (0..TOPICS).step_by(PER_REQUEST) {
        create(&mut client, first..first + PER_REQUEST);
    }
    delete(&mut client, 0..PER_REQUEST);
    let expected: BTreeSet<String> = (PER_REQUEST..TOPICS).map(name).collect();
    assert!(topics(&mut client) == expected);
    assert!(
        data.path().join("metadata.snapshot").exists(),
        "more than the log keeps was written"
    );
    broker.kill();
    let broker = Broker::start(data.path(), &["--cores", "1"]);
    assert!(topics(&mut broker.connect()) == expected);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_was_decided_for_a_client_that_left_is_decided_once() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut expected = BTreeSet::new();
    for number in 0..100 {
        let topic = create_topics::CreatableTopic {
            name: name(number).into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let request = create_topics::CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 60_000,
            ..Default::default()
        };
        // The first one asks and is gone; the second one asks for the same.
        broker.connect().send(5, &request);
        let frame = broker.connect().ask(5, &request);
        let decoded = frame::decode_response_of::<create_topics::CreateTopicsRequest>(&frame, 5);
        let (_, answer) = decoded.expect("an answer");
        let code = answer.topics[0].error_code;
        assert!([0, TOPIC_ALREADY_EXISTS].contains(&code), "{code}");
        expected.insert(name(number));
    }
    broker.kill();
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    assert_eq!(topics(&mut broker.connect()), expected);
    assert_eq!(broker.stop(), Some(0));
}
