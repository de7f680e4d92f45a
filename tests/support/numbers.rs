//! Numbers that a client writes to a cluster in order, and reads again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, client_config};
use super::{PATIENCE, until};

/// By partition, numbers and their offsets.
pub(crate) type Numbers = BTreeMap<i32, Vec<(u64, i64)>>;

/// Records that a producer has on their way at most.
const UNDERWAY_MAX: u64 = 60;

/// What was acknowledged: by partition, number and offset in the order of the answers.
#[derive(Clone, Default)]
struct Acknowledged {
    records: Arc<Mutex<Numbers>>,
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
pub(crate) struct Writer {
    acknowledged: Acknowledged,
    is_told_to_stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    pub(crate) fn start(cluster: &Cluster, topic: &'static str, partitions: u64) -> Writer {
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
    pub(crate) fn wait_for(&self, more: u64) {
        let enough = self.acknowledged.count() + more;
        until("more records are acknowledged", || {
            std::thread::park_timeout(Duration::from_millis(1));
            assert!(!self.thread.is_finished(), "the producer has failed");
            (self.acknowledged.count() >= enough).then_some(())
        });
    }

    /// Everything that was sent, acknowledged; by partition, number and offset.
    pub(crate) fn stop(self) -> Numbers {
        self.is_told_to_stop.store(true, Ordering::Release);
        let sent = self.thread.join().expect("the producer did not fail");
        assert_eq!(self.acknowledged.count(), sent, "all are acknowledged");
        std::mem::take(&mut *self.acknowledged.records.lock().expect("no panic"))
    }
}

fn producer_of(mut config: ClientConfig, acknowledged: Acknowledged) -> BaseProducer<Acknowledged> {
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
pub(crate) fn numbers(bootstrap: &str, topic: &str, partition: i32) -> Vec<(u64, i64)> {
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
