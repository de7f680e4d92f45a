//! Foreign clients of the Rust world against the real binary: rdkafka (librdkafka) and rskafka.
//!
//! Two cores and four partitions: whatever core a connection lands on, half of its partitions are
//! owned by the other one, so both the short and the long way are taken.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::record::Record;
use support::{Broker, PATIENCE};

const PARTITIONS: i32 = 4;
const RECORDS: usize = 2_000;

fn broker() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    (data, broker)
}

fn client_config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address.to_string());
    config
}

fn create(broker: &Broker, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        client_config(broker).create().expect("an admin client");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let topics = [NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))];
    let created = runtime
        .block_on(admin.create_topics(&topics, &AdminOptions::new()))
        .expect("the broker answers");
    assert_eq!(created, [Ok(topic.to_string())]);
}

fn value(partition: i32, number: usize) -> Vec<u8> {
    format!("{partition}/{number}/{}", "x".repeat(number % 700)).into_bytes()
}

/// All values of a topic by partition, in order.
fn consume_all(broker: &Broker, topic: &str, total: usize) -> BTreeMap<i32, Vec<Vec<u8>>> {
    let consumer: BaseConsumer = client_config(broker)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("in bounds");
    }
    consumer.assign(&list).expect("assigned");
    let mut values: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
    let mut found = 0;
    while found < total {
        let message = consumer.poll(PATIENCE).expect("in time").expect("no error");
        let partition = values.entry(message.partition()).or_default();
        assert_eq!(
            message.offset(),
            partition.len() as i64,
            "offsets are dense"
        );
        partition.push(message.payload().expect("a value").to_vec());
        found += 1;
    }
    values
}

#[test]
fn librdkafka_produces_with_every_codec_and_reads_it_back() {
    let (_data, broker) = broker();
    for (codec, idempotent) in [
        ("none", "true"),
        ("gzip", "false"),
        ("snappy", "true"),
        ("lz4", "true"),
        ("zstd", "true"),
    ] {
        let topic = format!("rdkafka-{codec}");
        create(&broker, &topic);
        let producer: ThreadedProducer<_> = client_config(&broker)
            .set("compression.codec", codec)
            .set("enable.idempotence", idempotent)
            .set("linger.ms", "2")
            .create()
            .expect("a producer");
        for number in 0..RECORDS {
            let partition = (number % PARTITIONS as usize) as i32;
            let value = value(partition, number);
            let record: BaseRecord<'_, str, Vec<u8>> = BaseRecord::to(&topic)
                .partition(partition)
                .payload(&value)
                .key("k");
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("queued");
        }
        producer.flush(PATIENCE).expect("flushed");
        let values = consume_all(&broker, &topic, RECORDS);
        for (partition, values) in values {
            for (index, found) in values.iter().enumerate() {
                let number = index * PARTITIONS as usize + partition as usize;
                assert_eq!(found, &value(partition, number), "{codec}");
            }
        }
    }
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn librdkafka_looks_offsets_up_and_waits_for_more() {
    let (_data, broker) = broker();
    create(&broker, "waits");
    let consumer: BaseConsumer = client_config(&broker)
        .set("group.id", "unused")
        .set("fetch.wait.max.ms", "5000")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("waits", 1, Offset::Beginning)
        .expect("in bounds");
    consumer.assign(&list).expect("assigned");
    assert!(
        consumer.poll(Duration::from_millis(200)).is_none(),
        "nothing yet"
    );
    let producer: ThreadedProducer<_> = client_config(&broker).create().expect("a producer");
    let record: BaseRecord<'_, str, str> = BaseRecord::to("waits").partition(1).payload("late");
    producer
        .send(record.timestamp(1_000))
        .map_err(|(error, _)| error)
        .expect("queued");
    let message = consumer.poll(PATIENCE).expect("in time").expect("no error");
    assert_eq!(message.payload(), Some(&b"late"[..]));
    assert_eq!(
        consumer
            .fetch_watermarks("waits", 1, PATIENCE)
            .expect("known"),
        (0, 1)
    );
    let mut wanted = TopicPartitionList::new();
    wanted
        .add_partition_offset("waits", 1, Offset::Offset(500))
        .expect("in bounds");
    let found = consumer
        .offsets_for_times(wanted, PATIENCE)
        .expect("looked up");
    assert_eq!(found.elements()[0].offset(), Offset::Offset(0));
}

#[test]
fn rskafka_produces_fetches_and_deletes() {
    let (_data, broker) = broker();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = ClientBuilder::new(vec![broker.address.to_string()])
            .build()
            .await
            .expect("connects");
        let controller = client.controller_client().expect("a controller");
        controller
            .create_topic("rskafka", PARTITIONS, 1, 30_000)
            .await
            .expect("created");
        for partition in 0..PARTITIONS {
            let client = client
                .partition_client("rskafka", partition, UnknownTopicHandling::Retry)
                .await
                .expect("a partition");
            let record = |number: usize| Record {
                key: Some(b"key".to_vec()),
                value: Some(value(partition, number)),
                headers: BTreeMap::from([("h".to_string(), b"v".to_vec())]),
                timestamp: Default::default(),
            };
            let records: Vec<Record> = (0..50).map(record).collect();
            let offsets = client
                .produce(records.clone(), Compression::NoCompression)
                .await
                .expect("stored");
            assert_eq!(offsets, (0..50).collect::<Vec<i64>>());
            let (found, high_watermark) = client
                .fetch_records(0, 1..1_000_000, 1_000)
                .await
                .expect("fetched");
            assert_eq!(high_watermark, 50);
            let found: Vec<Record> = found.into_iter().map(|found| found.record).collect();
            assert_eq!(found.len(), 50);
            assert!(
                found
                    .iter()
                    .zip(&records)
                    .all(|(a, b)| a.value == b.value && a.headers == b.headers)
            );
            client.delete_records(20, 30_000).await.expect("deleted");
            assert_eq!(
                client.get_offset(OffsetAt::Earliest).await.expect("known"),
                20
            );
            assert_eq!(
                client.get_offset(OffsetAt::Latest).await.expect("known"),
                50
            );
        }
    });
    assert_eq!(broker.stop(), Some(0));
}
