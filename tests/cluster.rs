//! Three real brokers as one cluster: what was acknowledged survives whatever single brokers, or all of
//! them, go through.
//!
//! `PERCOLOG_SEED` repeats the choices of a run.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use support::cluster::{Cluster, NODES, client_config};
use support::{PATIENCE, until};

/// Records that a producer has on their way at most.
const UNDERWAY_MAX: u64 = 60;

fn seed() -> u64 {
    let seed = std::env::var("PERCOLOG_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("PERCOLOG_SEED={seed}");
    seed
}

/// What was acknowledged: by partition, number and offset in the order of the answers.
#[derive(Clone, Default)]
struct Acknowledged {
    records: Arc<Mutex<BTreeMap<i32, Vec<(u64, i64)>>>>,
    count: Arc<AtomicU64>,
}

impl Acknowledged {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let message = result
            .as_ref()
            .unwrap_or_else(|(error, _)| panic!("{number} was not acknowledged: {error}"));
        let mut records = self.records.lock().expect("no panic");
        let partition = records.entry(message.partition()).or_default();
        partition.push((*number, message.offset()));
        drop(records);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// Writes numbers that follow each other to the partitions in turn, in a thread, until it is told to
/// stop; a record that is lost on the way is sent again for as long as it takes.
struct Writer {
    acknowledged: Acknowledged,
    is_told_to_stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(cluster: &Cluster, topic: &'static str, partitions: u64) -> Writer {
        let acknowledged = Acknowledged::default();
        let is_told_to_stop = Arc::<AtomicBool>::default();
        let config = cluster.client_config();
        let thread = {
            let (acknowledged, is_told) = (acknowledged.clone(), is_told_to_stop.clone());
            std::thread::spawn(move || {
                let producer: BaseProducer<Acknowledged> = producer_of(config, acknowledged);
                write(&producer, topic, partitions, &is_told)
            })
        };
        Writer {
            acknowledged,
            is_told_to_stop,
            thread,
        }
    }

    /// Waits until so many more records are acknowledged.
    fn wait_for(&self, more: u64) {
        let enough = self.acknowledged.count() + more;
        until("more records are acknowledged", || {
            std::thread::park_timeout(Duration::from_millis(1));
            assert!(!self.thread.is_finished(), "the producer has failed");
            (self.acknowledged.count() >= enough).then_some(())
        });
    }

    /// Everything that was sent, acknowledged; by partition, number and offset.
    fn stop(self) -> BTreeMap<i32, Vec<(u64, i64)>> {
        self.is_told_to_stop.store(true, Ordering::Release);
        let sent = self.thread.join().expect("the producer did not fail");
        assert_eq!(self.acknowledged.count(), sent, "all are acknowledged");
        std::mem::take(&mut *self.acknowledged.records.lock().expect("no panic"))
    }
}

fn producer_of(
    mut config: rdkafka::ClientConfig,
    acknowledged: Acknowledged,
) -> BaseProducer<Acknowledged> {
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("request.timeout.ms", "3000")
        .set("message.timeout.ms", "300000")
        .create_with_context(acknowledged)
        .expect("a producer")
}

fn write(
    producer: &BaseProducer<Acknowledged>,
    topic: &str,
    partitions: u64,
    is_told_to_stop: &AtomicBool,
) -> u64 {
    let mut number = 0;
    while !is_told_to_stop.load(Ordering::Acquire) {
        while number - producer.context().count() >= UNDERWAY_MAX {
            producer.poll(Duration::from_millis(100));
        }
        let value = number.to_be_bytes();
        let record: BaseRecord<'_, [u8], [u8; 8], Box<u64>> =
            BaseRecord::with_opaque_to(topic, Box::new(number))
                .partition((number % partitions) as i32)
                .payload(&value);
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("queued");
        number += 1;
    }
    producer.flush(PATIENCE).expect("flushed");
    number
}

/// The numbers of a partition and their offsets, as consumers that begin at `bootstrap` see them.
fn numbers(bootstrap: &str, topic: &str, partition: i32) -> Vec<(u64, i64)> {
    let consumer: BaseConsumer = client_config(bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning)
        .expect("in bounds");
    consumer.assign(&list).expect("assigned");
    let mut numbers = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("in time") {
            Ok(message) => {
                let value = message.payload().expect("a value");
                let number = u64::from_be_bytes(value.try_into().expect("eight bytes"));
                numbers.push((number, message.offset()));
            }
            Err(KafkaError::PartitionEOF(_)) => return numbers,
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            )) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every number that was acknowledged is there once, in order, where the answer said, and no other.
fn assert_all_there(cluster: &Cluster, topic: &str, expected: &BTreeMap<i32, Vec<(u64, i64)>>) {
    for (partition, expected) in expected {
        let found = numbers(&cluster.bootstrap(), topic, *partition);
        let differs = expected
            .iter()
            .zip(&found)
            .find(|(one, other)| one != other);
        assert_eq!(differs, None, "{topic}-{partition}: acknowledged, found");
        let (expected, found) = (expected.len(), found.len());
        assert_eq!(expected, found, "{topic}-{partition}: records");
    }
}

/// The files of stopped nodes say the same, byte for byte.
fn assert_replicas_are_equal(cluster: &Cluster, topic: &str, partitions: i32) {
    for partition in 0..partitions {
        let first = cluster.stored(NODES[0], topic, partition);
        assert!(!first.is_empty());
        for id in &NODES[1..] {
            let other = cluster.stored(*id, topic, partition);
            let differs = first.iter().zip(&other).position(|(one, two)| one != two);
            let lengths = (first.len(), other.len());
            assert!(
                differs.is_none() && lengths.0 == lengths.1,
                "{topic}-{partition}: nodes 1 and {id} differ at {differs:?} of {lengths:?} bytes"
            );
        }
    }
}

#[test]
fn three_brokers_are_one_cluster() {
    let mut cluster = Cluster::start(&[]);
    let (cluster_id, members) = cluster.members(1);
    assert_eq!(members, NODES);
    for id in NODES {
        assert_eq!(cluster.members(id), (cluster_id.clone(), NODES.to_vec()));
        let topic = format!("created-through-{id}");
        cluster.create_topic(id, &topic, 3);
        cluster.until_whole(&topic);
    }
    cluster.create_topic(2, "orders", 3);
    let writer = Writer::start(&cluster, "orders", 3);
    writer.wait_for(300);
    let written = writer.stop();
    for id in NODES {
        let address = cluster.broker(id).address.to_string();
        for (partition, expected) in &written {
            assert_eq!(numbers(&address, "orders", *partition), *expected);
        }
    }
    cluster.until_whole("orders");
    cluster.stop();
    assert_replicas_are_equal(&cluster, "orders", 3);
}

#[test]
fn what_was_acknowledged_survives_kills_and_pauses_of_single_brokers() {
    let mut random = fastrand::Rng::with_seed(seed());
    let begun = Instant::now();
    let mut cluster = Cluster::start(&[]);
    cluster.create_topic(1, "storm", 3);
    cluster.until_whole("storm");
    let writer = Writer::start(&cluster, "storm", 3);
    for round in 0..10 {
        writer.wait_for(random.u64(1..300));
        let id = NODES[random.usize(0..NODES.len())];
        // Others lead and go on, whatever becomes of this one.
        let other = NODES[(id as usize) % NODES.len()];
        let is_without = |state: &support::cluster::PartitionState| {
            state.leader >= 0 && state.leader != id && !state.in_sync.contains(&id)
        };
        let freezes = random.u32(0..10) < 3;
        let seconds = begun.elapsed().as_secs_f64();
        println!("{seconds:6.1} s round {round}: node {id}, freezes: {freezes}");
        if freezes {
            cluster.signal(id, "-STOP");
            cluster.until_every(other, "storm", "goes on with two", is_without);
            writer.wait_for(random.u64(1..300));
            cluster.signal(id, "-CONT");
        } else {
            cluster.kill(id);
            if random.bool() {
                cluster.until_every(other, "storm", "goes on with two", is_without);
                writer.wait_for(random.u64(1..300));
            }
            cluster.start_nodes(&[id]);
        }
        cluster.until_whole("storm");
    }
    let written = writer.stop();
    let count: usize = written.values().map(Vec::len).sum();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seconds:6.1} s: {count} records acknowledged");
    assert_all_there(&cluster, "storm", &written);
    cluster.stop();
    assert_replicas_are_equal(&cluster, "storm", 3);
}
