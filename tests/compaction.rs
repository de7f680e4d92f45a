//! Compaction against a real broker, by Kafka's rules: the last value of every key stays, offsets do
//! not change, tombstones go when their time is over, and idempotent producers are still known.
//!
//! With `PERCOLOG_COMPARE=host:port` of an Apache Kafka broker (with a short `log.cleaner.backoff.ms`)
//! the ignored test gives both the same records and compares, byte for byte, what a consumer sees.

mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use percolog::wire::codec::Records;
use percolog::wire::compression::{Codec, Compression};
use percolog::wire::frame;
use percolog::wire::messages::{delete_records, fetch, incremental_alter_configs};
use percolog::wire::record;
use percolog::wire::record_batch::{BatchHeader, Batches};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use support::{Broker, Client, PATIENCE, produce_request, produced};

const TOPIC: &str = "keyed";
const KEYS: u64 = 20;
const PRODUCER_ID: i64 = 4711;
/// Records' own time; long ago, so that nothing depends on when the test runs.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;
/// POLICY_VIOLATION
const POLICY_VIOLATION: i16 = 44;

const NEVER: (&str, &str) = ("min.cleanable.dirty.ratio", "1");
const ALWAYS: (&str, &str) = ("min.cleanable.dirty.ratio", "0");

fn arguments() -> [&'static str; 6] {
    [
        "--cores",
        "2",
        "--set",
        "log.cleaner.backoff.ms=20",
        "--set",
        "storage.compaction_memory_bytes=65536",
    ]
}

/// One record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// A partition as a consumer sees it.
#[derive(Default)]
struct Partition {
    headers: Vec<BatchHeader>,
    records: BTreeMap<i64, Seen>,
}

impl Partition {
    fn has(&self, key: &str) -> bool {
        let is_it = |seen: &Seen| seen.key.as_deref() == Some(key.as_bytes());
        self.records.values().any(is_it)
    }

    /// Records that a later one with the same key makes obsolete.
    fn obsolete(&self) -> usize {
        let latest = self.latest();
        let keyed = self.records.iter().filter_map(|(offset, seen)| {
            let key = seen.key.as_ref()?;
            Some(latest[key].0 > *offset)
        });
        keyed.filter(|obsolete| *obsolete).count()
    }

    fn latest(&self) -> BTreeMap<Vec<u8>, (i64, Seen)> {
        let mut latest = BTreeMap::new();
        for (offset, seen) in &self.records {
            if let Some(key) = &seen.key {
                latest.insert(key.clone(), (*offset, seen.clone()));
            }
        }
        latest
    }
}

fn fetch_from(client: &mut Client, offset: i64, max_wait_ms: i32) -> (i64, Vec<u8>) {
    let wanted = fetch::FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = fetch::FetchTopic {
        topic: TOPIC.into(),
        partitions: vec![wanted],
        ..Default::default()
    };
    let request = fetch::FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 8 << 20,
        topics: vec![topic],
        ..Default::default()
    };
    let frame = client.ask(6, &request);
    let (_, answer) =
        frame::decode_response_of::<fetch::FetchRequest>(&frame, 6).expect("an answer");
    let data = &answer.responses[0].partitions[0];
    assert_eq!(data.error_code, 0, "at {offset}");
    let bytes = match &data.records {
        Records::Bytes(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    };
    (data.high_watermark, bytes)
}

fn read_all(client: &mut Client) -> Partition {
    let mut partition = Partition::default();
    let mut next = 0;
    loop {
        let (end, bytes) = fetch_from(client, next, 0);
        if next >= end {
            return partition;
        }
        let before = next;
        for batch in Batches::new(&bytes).map_while(Result::ok) {
            batch.verify_checksum().expect("stored batches are whole");
            let header = *batch.header();
            assert!(header.last_offset() >= next, "offsets ascend");
            next = header.last_offset() + 1;
            let payload = batch.plain_payload(1 << 20).expect("decompresses");
            for record in record::Records::new(&payload, header.record_count) {
                let record = record.expect("whole");
                let seen = Seen {
                    timestamp_ms: header.base_timestamp + record.timestamp_delta,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                };
                let offset = header.base_offset + i64::from(record.offset_delta);
                partition.records.insert(offset, seen);
            }
            partition.headers.push(header);
        }
        assert!(
            next > before,
            "a consumer at {next} of {end} must find its way on"
        );
    }
}

/// Reads until what is there suits; between two looks the broker waits, not this.
fn read_until(client: &mut Client, what: &str, suits: impl Fn(&Partition) -> bool) -> Partition {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let partition = read_all(client);
        if suits(&partition) {
            return partition;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        let end = fetch_from(client, 0, 0).0;
        fetch_from(client, end, 50);
    }
}

fn produce(client: &mut Client, batch: &[u8]) -> i64 {
    let answer = client.ask(7, &produce_request(TOPIC, 0, -1, batch));
    let (code, offset) = produced(&answer, 7);
    assert_eq!(code, 0);
    offset
}

fn options(producer: Option<i32>, codec: Codec) -> BatchOptions {
    BatchOptions {
        compression: Compression::of(codec),
        producer_id: if producer.is_some() { PRODUCER_ID } else { -1 },
        producer_epoch: if producer.is_some() { 0 } else { -1 },
        base_sequence: producer.unwrap_or(-1),
        ..BatchOptions::default()
    }
}

/// The workload: batches of several codecs and of an idempotent producer with few keys, whose values
/// are replaced again and again; two keys are deleted.
fn batches() -> Vec<Vec<u8>> {
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Gzip];
    let mut sequence = 0;
    let mut batches = Vec::new();
    for round in 0..60u64 {
        let mut producer = None;
        if round % 5 == 2 {
            producer = Some(sequence);
            sequence += 3;
        }
        let codec = codecs[(round % 4) as usize];
        let mut builder = BatchBuilder::new(options(producer, codec));
        for record in 0..3 {
            let number = round * 3 + record;
            let key = format!("key-{}", number % KEYS);
            let deletes = round == 20 && record == 0 || round == 31 && record == 2;
            // Random enough that compression does not make batches tiny.
            let value: Vec<u8> = (0..200u64)
                .map(|byte| (number * 31 + byte * byte * 7 + byte * number) as u8)
                .collect();
            builder.append(
                TIMESTAMP_MS + number as i64,
                Some(key.as_bytes()),
                Some(&value[..]).filter(|_| !deletes),
                [].into_iter(),
            );
        }
        if round == 20 || round == 31 {
            builder.append(TIMESTAMP_MS, Some(b"doomed"), None, [].into_iter());
        } else if round == 0 {
            builder.append(TIMESTAMP_MS, Some(b"doomed"), Some(b"v"), [].into_iter());
        }
        batches.push(builder.finish());
    }
    batches
}

/// Fills the active segment with keys of their own, so that what was in it becomes cleanable.
fn fill_segment(client: &mut Client, name: &str) {
    for part in 0..3 {
        let mut builder = BatchBuilder::new(options(None, Codec::None));
        let key = format!("{name}-{part}");
        let value = vec![b'f'; 3000];
        builder.append(
            TIMESTAMP_MS + 1000,
            Some(key.as_bytes()),
            Some(&value),
            [].into_iter(),
        );
        produce(client, &builder.finish());
    }
}

fn set_topic(client: &mut Client, (name, value): (&str, &str)) {
    use incremental_alter_configs::{
        AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    };
    let config = AlterableConfig {
        name: name.into(),
        config_operation: 0,
        value: Some(value.into()),
    };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: TOPIC.into(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only: false,
    };
    let frame = client.ask(0, &request);
    let (_, answer) =
        frame::decode_response_of::<IncrementalAlterConfigsRequest>(&frame, 0).expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

fn create(client: &mut Client, delete_retention_ms: &str) {
    client.create_topic(
        TOPIC,
        1,
        &[
            ("cleanup.policy", "compact"),
            ("internal.segment.bytes", "8192"),
            ("delete.retention.ms", delete_retention_ms),
            NEVER,
        ],
    );
}

/// Everything that must hold of a compacted partition whatever was removed.
fn assert_nothing_is_lost(before: &Partition, after: &Partition, tombstones_may_go: bool) {
    for (offset, seen) in &after.records {
        assert_eq!(before.records.get(offset), Some(seen), "offset {offset}");
    }
    for (key, (offset, seen)) in before.latest() {
        let stays = after.records.contains_key(&offset);
        let may_go = tombstones_may_go && seen.value.is_none();
        assert!(stays || may_go, "{} at {offset}", key.escape_ascii());
    }
}

#[test]
fn the_last_value_of_every_key_stays_where_it_is() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &arguments());
    let mut client = broker.connect();
    create(&mut client, "86400000");
    for batch in batches() {
        produce(&mut client, &batch);
    }
    fill_segment(&mut client, "first");
    let before = read_all(&mut client);
    assert!(before.obsolete() > 100, "{}", before.obsolete());
    set_topic(&mut client, ALWAYS);
    let after = read_until(&mut client, "compaction", |seen| seen.obsolete() == 0);
    assert_nothing_is_lost(&before, &after, false);
    let stamped = |header: &&BatchHeader| header.attributes.has_delete_horizon();
    assert!(
        after.headers.iter().any(|header| stamped(&header)),
        "tombstones have got their horizon"
    );
    for header in &after.headers {
        let original = before.headers.iter().find(|before| {
            (before.base_offset, before.last_offset()) == (header.base_offset, header.last_offset())
        });
        let original = original.expect("batches keep their bounds");
        assert_eq!(header.base_sequence, original.base_sequence);
        assert_eq!(header.producer_id, original.producer_id);
    }
    drop(client);
    assert_eq!(broker.stop(), Some(0));
    let broker = Broker::start(data.path(), &arguments());
    let again = read_all(&mut broker.connect());
    assert_eq!(again.records, after.records, "also after a restart");
    broker.kill();
    let broker = Broker::start(data.path(), &arguments());
    let again = read_all(&mut broker.connect());
    assert_eq!(again.records, after.records, "also after kill -9");
}

#[test]
fn tombstones_go_when_their_time_is_over_and_deleted_keys_stay_away() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &arguments());
    let mut client = broker.connect();
    create(&mut client, "100");
    for batch in batches() {
        produce(&mut client, &batch);
    }
    fill_segment(&mut client, "first");
    let before = read_all(&mut client);
    assert!(before.has("doomed"));
    set_topic(&mut client, ALWAYS);
    let mut filled = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A log without new records is clean and is left alone, as in Kafka.
        filled += 1;
        fill_segment(&mut client, &format!("again-{filled}"));
        let seen = read_all(&mut client);
        if !seen.has("doomed") {
            let latest = before.latest();
            let values = latest.values().filter(|(_, seen)| seen.value.is_some());
            for (offset, expected) in values {
                assert_eq!(seen.records.get(offset), Some(expected));
            }
            return;
        }
        assert!(Instant::now() < deadline, "the tombstone does not go");
        let end = fetch_from(&mut client, 0, 0).0;
        fetch_from(&mut client, end, 50);
    }
}

#[test]
fn idempotent_producers_are_known_after_compaction_and_restart() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &arguments());
    let mut client = broker.connect();
    create(&mut client, "100");
    let mut last = (Vec::new(), 0);
    for round in 0..40 {
        let mut builder = BatchBuilder::new(options(Some(round), Codec::None));
        let value = vec![round as u8; 700];
        builder.append(TIMESTAMP_MS, Some(b"one key"), Some(&value), [].into_iter());
        let batch = builder.finish();
        last = (batch.clone(), produce(&mut client, &batch));
    }
    // Everything of the producer is obsolete.
    let mut builder = BatchBuilder::new(options(None, Codec::None));
    builder.append(TIMESTAMP_MS, Some(b"one key"), Some(b"end"), [].into_iter());
    produce(&mut client, &builder.finish());
    fill_segment(&mut client, "first");
    set_topic(&mut client, ALWAYS);
    let after = read_until(&mut client, "compaction", |seen| seen.obsolete() == 0);
    let kept = after
        .headers
        .iter()
        .find(|header| header.base_offset == last.1);
    let kept = kept.expect("the last batch of the producer stays");
    assert_eq!((kept.record_count, kept.base_sequence), (0, 39));
    drop(client);
    broker.kill();
    let broker = Broker::start(data.path(), &arguments());
    let mut client = broker.connect();
    assert_eq!(produce(&mut client, &last.0), last.1, "a retry is known");
    let mut builder = BatchBuilder::new(options(Some(40), Codec::None));
    builder.append(TIMESTAMP_MS, Some(b"next"), Some(b"v"), [].into_iter());
    assert!(produce(&mut client, &builder.finish()) > last.1);
    let mut builder = BatchBuilder::new(options(Some(60), Codec::None));
    builder.append(TIMESTAMP_MS, Some(b"gap"), Some(b"v"), [].into_iter());
    let batch = builder.finish();
    let answer = client.ask(7, &produce_request(TOPIC, 0, -1, &batch));
    assert_eq!(produced(&answer, 7).0, 45, "OUT_OF_ORDER_SEQUENCE_NUMBER");
}

#[test]
fn records_that_only_compaction_may_delete_are_not_deleted_by_request() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &arguments());
    let mut client = broker.connect();
    create(&mut client, "100");
    produce(&mut client, &batches()[0]);
    let mut delete = || {
        let partition = delete_records::DeleteRecordsPartition {
            partition_index: 0,
            offset: 1,
        };
        let topic = delete_records::DeleteRecordsTopic {
            name: TOPIC.into(),
            partitions: vec![partition],
        };
        let request = delete_records::DeleteRecordsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
        };
        let frame = client.ask(1, &request);
        let (_, answer) =
            frame::decode_response_of::<delete_records::DeleteRecordsRequest>(&frame, 1)
                .expect("an answer");
        answer.topics[0].partitions[0].error_code
    };
    assert_eq!(delete(), POLICY_VIOLATION);
    set_topic(&mut broker.connect(), ("cleanup.policy", "compact,delete"));
    assert_eq!(delete(), 0);
    set_topic(&mut broker.connect(), ("cleanup.policy", ""));
    assert_eq!(delete(), 0, "nobody else would ever delete them");
}

/// What compaction leaves of the workload: every header (but for the time it was stamped with) and
/// every record.
fn compacted(client: &mut Client) -> (Vec<String>, BTreeMap<i64, Seen>) {
    create(client, "86400000");
    for batch in batches() {
        produce(client, &batch);
    }
    fill_segment(client, "first");
    set_topic(client, ALWAYS);
    let seen = read_until(client, "compaction", |seen| seen.obsolete() == 0);
    let line = |header: &BatchHeader| {
        let stamped = header.attributes.has_delete_horizon();
        let comparable = BatchHeader {
            base_timestamp: if stamped { 0 } else { header.base_timestamp },
            // Encoders differ, and so do length and checksum of what they compress.
            batch_length: 0,
            crc: 0,
            ..*header
        };
        format!("{comparable:?}")
    };
    (seen.headers.iter().map(line).collect(), seen.records)
}

#[test]
#[ignore = "needs an Apache Kafka broker, named by PERCOLOG_COMPARE"]
fn kafka_leaves_the_same() {
    let kafka = std::env::var("PERCOLOG_COMPARE").expect("host:port of a Kafka broker");
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &arguments());
    let ours = compacted(&mut broker.connect());
    let theirs = compacted(&mut Client::connect(kafka.parse().expect("an address")));
    assert_eq!(ours.0, theirs.0);
    assert_eq!(ours.1, theirs.1);
    println!(
        "{} batches, {} records, all alike",
        ours.0.len(),
        ours.1.len()
    );
}
