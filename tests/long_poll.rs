//! A Fetch that waits is answered by the append it waits for, on whatever cores both arrive.

mod support;

use percolog::wire::codec::Records;
use percolog::wire::frame;
use percolog::wire::messages::fetch;
use support::{Broker, Client, batch, produce_request, produced};

const PARTITIONS: i32 = 4;

/// Long enough that an answer before it proves that the append woke the fetch.
const MAX_WAIT_MS: i32 = 300_000;

/// A Fetch of every partition from where it ends after so many rounds.
fn fetch_all(session_epoch: i32, rounds: i32) -> fetch::FetchRequest<'static> {
    let partition = |partition| fetch::FetchPartition {
        partition,
        fetch_offset: i64::from((rounds + PARTITIONS - 1 - partition) / PARTITIONS),
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = fetch::FetchTopic {
        topic: "waits".into(),
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    fetch::FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch,
        topics: vec![topic],
        ..Default::default()
    }
}

fn bytes_by_partition(answer: &[u8], version: i16) -> Vec<(i32, usize)> {
    let (_, answer) =
        frame::decode_response_of::<fetch::FetchRequest>(answer, version).expect("an answer");
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| match &partition.records {
            Records::Bytes(bytes) => (partition.partition_index, bytes.len()),
            _ => (partition.partition_index, 0),
        })
        .filter(|(_, bytes)| *bytes > 0)
        .collect()
}

#[test]
fn an_append_to_any_partition_wakes_the_fetch() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut producer = broker.connect();
    producer.create_topic("waits", PARTITIONS, &[]);
    let good = batch(&[b"late".to_vec()]);
    for round in 0..8 {
        let partition = round % PARTITIONS;
        // From version 7 on with a session, before without; a connection of its own each time, so
        // that both cores have their turn.
        let version = if round % 2 == 0 { 4 } else { 11 };
        let mut consumer: Client = broker.connect();
        consumer.send(version, &fetch_all(-1, round));
        // An answered request behind the fetch's on another connection: the fetch has arrived.
        assert!(producer.is_served());
        let answer = producer.ask(7, &produce_request("waits", partition, -1, &good));
        assert_eq!(produced(&answer, 7).0, 0);
        let answer = consumer.receive().expect("an answer");
        assert_eq!(
            bytes_by_partition(&answer, version),
            [(partition, good.len())]
        );
    }
    assert_eq!(broker.stop(), Some(0));
}
