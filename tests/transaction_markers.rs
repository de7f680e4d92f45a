//! Markers that are written over the wire, and what the broker tells of them.

mod support;

use percolog::wire::frame;
use percolog::wire::messages::{describe_producers, fetch, list_offsets, write_txn_markers};
use support::{Broker, Client, batch, produce_request, produced};

const TOPIC: &str = "ended";

struct Marker {
    epoch: i16,
    coordinator_epoch: i32,
}

/// The codes of partitions 0 and 9.
fn write(client: &mut Client, version: i16, marker: &Marker) -> Vec<i16> {
    let topic = write_txn_markers::WritableTxnMarkerTopic {
        name: TOPIC.into(),
        partition_indexes: vec![0, 9],
    };
    let request = write_txn_markers::WriteTxnMarkersRequest {
        markers: vec![write_txn_markers::WritableTxnMarker {
            producer_id: 7,
            producer_epoch: marker.epoch,
            transaction_result: false,
            topics: vec![topic],
            coordinator_epoch: marker.coordinator_epoch,
            ..Default::default()
        }],
    };
    let answer = client.ask(version, &request);
    let decoded =
        frame::decode_response_of::<write_txn_markers::WriteTxnMarkersRequest>(&answer, version);
    let (_, answer) = decoded.expect("an answer");
    let partitions = answer.markers[0].topics[0].partitions.iter();
    partitions.map(|partition| partition.error_code).collect()
}

/// Id, epoch, coordinator epoch, last sequence, start of the open transaction.
type Producer = (i64, i32, i32, i32, i64);

/// The code of the partition and what is told of its producers.
fn described(client: &mut Client, partition: i32) -> (i16, Vec<Producer>) {
    let request = describe_producers::DescribeProducersRequest {
        topics: vec![describe_producers::TopicRequest {
            name: TOPIC.into(),
            partition_indexes: vec![partition],
        }],
    };
    let answer = client.ask(0, &request);
    let decoded =
        frame::decode_response_of::<describe_producers::DescribeProducersRequest>(&answer, 0);
    let (_, answer) = decoded.expect("an answer");
    let partition = &answer.topics[0].partitions[0];
    let producers = partition.active_producers.iter().map(|producer| {
        (
            producer.producer_id,
            producer.producer_epoch,
            producer.coordinator_epoch,
            producer.last_sequence,
            producer.current_txn_start_offset,
        )
    });
    (partition.error_code, producers.collect())
}

/// High watermark, last stable offset and aborted transactions of partition 0.
fn fetched(client: &mut Client, isolation_level: i8) -> (i64, i64, Option<usize>) {
    let request = fetch::FetchRequest {
        max_bytes: 1 << 20,
        isolation_level,
        session_epoch: -1,
        topics: vec![fetch::FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![fetch::FetchPartition {
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.ask(11, &request);
    let decoded = frame::decode_response_of::<fetch::FetchRequest>(&answer, 11);
    let (_, answer) = decoded.expect("an answer");
    let partition = &answer.responses[0].partitions[0];
    let aborted = partition.aborted_transactions.as_ref().map(Vec::len);
    (
        partition.high_watermark,
        partition.last_stable_offset,
        aborted,
    )
}

fn latest(client: &mut Client, isolation_level: i8) -> i64 {
    let request = list_offsets::ListOffsetsRequest {
        isolation_level,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: vec![list_offsets::ListOffsetsPartition {
                timestamp: -1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    let answer = client.ask(7, &request);
    let decoded = frame::decode_response_of::<list_offsets::ListOffsetsRequest>(&answer, 7);
    decoded.expect("an answer").1.topics[0].partitions[0].offset
}

#[test]
fn markers_take_an_offset_fence_and_survive() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    client.create_topic(TOPIC, 1, &[]);
    let answer = client.ask(7, &produce_request(TOPIC, 0, -1, &batch(&[b"v".to_vec()])));
    assert_eq!(produced(&answer, 7).0, 0);
    let marker = |epoch, coordinator_epoch| Marker {
        epoch,
        coordinator_epoch,
    };
    assert_eq!(write(&mut client, 1, &marker(3, 5)), [0, 3]);
    assert_eq!(write(&mut client, 2, &marker(2, 5)), [47, 3]);
    assert_eq!(write(&mut client, 2, &marker(3, 4)), [52, 3]);
    assert_eq!(write(&mut client, 2, &marker(3, 5)), [0, 3], "once more");
    assert_eq!(write(&mut client, 1, &marker(-1, 5)), [42, 42]);
    assert_eq!(described(&mut client, 0), (0, vec![(7, 3, 5, -1, -1)]));
    assert_eq!(described(&mut client, 9), (3, Vec::new()));
    assert_eq!(fetched(&mut client, 0), (3, 3, None));
    assert_eq!(fetched(&mut client, 1), (3, 3, Some(0)));
    assert_eq!((latest(&mut client, 0), latest(&mut client, 1)), (3, 3));
    assert_eq!(broker.stop(), Some(0));
    let broker = Broker::start(data.path(), &["--cores", "1"]);
    let mut client = broker.connect();
    assert_eq!(described(&mut client, 0), (0, vec![(7, 3, 5, -1, -1)]));
    assert_eq!(write(&mut client, 1, &marker(2, 5)), [47, 3]);
    assert_eq!(broker.stop(), Some(0));
}
