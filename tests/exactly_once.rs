//! A copy with transactions (consume, produce, commit of offsets) whose client or whose broker is
//! killed at random moments, again and again: readers of committed records find every record once.
//!
//! The client is librdkafka in a process of its own, this binary again, so that kill -9 takes it as a
//! crash of its machine would. In some rounds it is frozen instead, another one takes its place, and
//! then it goes on, as after a long pause. `PERCOLOG_SEED` repeats the choices of a run.

mod support;

use std::time::{Duration, Instant};

use percolog::wire::frame;
use percolog::wire::messages::{list_offsets, offset_fetch};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, types::RDKafkaErrorCode};
use support::copier::{Copier, GROUP, SOURCE, TARGET, client_config};
use support::{Broker, Client, PATIENCE, until};

const ROUNDS: usize = 20;
const PARTITIONS: i32 = 4;
const RECORDS_PER_ROUND: u64 = 200;
/// Copies until it is killed, or fenced.
#[test]
#[ignore = "the process that the other tests of this file start and kill"]
fn copying_process() {
    support::copier::copy_until_killed();
}

fn arguments(protocol: &str, address: Option<&str>) -> Vec<String> {
    let mut settings = vec![
        "transactions.abort_check_interval_ms=1000".to_string(),
        "log.segment.bytes=1048576".to_string(),
    ];
    settings.extend(match protocol {
        "classic" => vec![
            "group.min.session.timeout.ms=500".to_string(),
            "group.initial.rebalance.delay.ms=0".to_string(),
        ],
        _ => vec![
            "group.consumer.min.session.timeout.ms=500".to_string(),
            "group.consumer.session.timeout.ms=1000".to_string(),
            "group.consumer.min.heartbeat.interval.ms=100".to_string(),
            "group.consumer.heartbeat.interval.ms=200".to_string(),
        ],
    });
    settings.extend(address.map(|address| format!("listeners.client={address}")));
    let settings = settings.into_iter().flat_map(|one| ["--set".into(), one]);
    ["--cores".to_string(), "2".to_string()]
        .into_iter()
        .chain(settings)
        .collect()
}

fn start_broker(data: &std::path::Path, protocol: &str, address: Option<&str>) -> Broker {
    let arguments = arguments(protocol, address);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Broker::start(data, &arguments)
}

/// Writes numbers that follow each other, each to its partition, exactly once by idempotence.
fn produce_numbers(producer: &BaseProducer, first: u64) {
    for number in first..first + RECORDS_PER_ROUND {
        let value = number.to_be_bytes();
        let partition = (number % PARTITIONS as u64) as i32;
        let record: BaseRecord<'_, [u8], [u8; 8]> =
            BaseRecord::to(SOURCE).partition(partition).payload(&value);
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("queued");
    }
    producer.flush(PATIENCE).expect("flushed");
}

/// The numbers of a partition that readers of committed records see, in order.
fn committed_numbers(address: &str, partition: i32) -> Vec<u64> {
    let consumer: BaseConsumer = client_config(address)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TARGET, partition, Offset::Beginning)
        .expect("in bounds");
    consumer.assign(&list).expect("assigned");
    let mut numbers = Vec::new();
    loop {
        match consumer.poll(PATIENCE).expect("in time") {
            Ok(message) => {
                let value = message.payload().expect("a value");
                numbers.push(u64::from_be_bytes(value.try_into().expect("eight bytes")));
            }
            Err(KafkaError::PartitionEOF(_)) => return numbers,
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The end of a partition for readers of all or of committed records.
fn end_offset(client: &mut Client, topic: &str, partition: i32, isolation_level: i8) -> i64 {
    let request = list_offsets::ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![list_offsets::ListOffsetsPartition {
                partition_index: partition,
                timestamp: -1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    let frame = client.ask(2, &request);
    let decoded = frame::decode_response_of::<list_offsets::ListOffsetsRequest>(&frame, 2);
    let (_, answer) = decoded.expect("an answer");
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0, "{topic}");
    partition.offset
}

/// What the group has committed, by partition.
fn committed_offsets(client: &mut Client) -> Vec<i64> {
    let request = offset_fetch::OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: Some(vec![offset_fetch::OffsetFetchRequestTopic {
            name: SOURCE.into(),
            partition_indexes: (0..PARTITIONS).collect(),
        }]),
        ..Default::default()
    };
    let frame = client.ask(5, &request);
    let decoded = frame::decode_response_of::<offset_fetch::OffsetFetchRequest>(&frame, 5);
    let (_, answer) = decoded.expect("an answer");
    let topics = answer.topics.iter();
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions.map(|one| one.committed_offset).collect()
}

fn assert_no_transaction_is_open(client: &mut Client, topic: &str, partitions: i32) {
    for partition in 0..partitions {
        let what = format!("{topic}-{partition} has no open transaction");
        until(&what, || {
            let stable = end_offset(client, topic, partition, 1);
            (stable == end_offset(client, topic, partition, 0)).then_some(())
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Disruption {
    KillClient,
    KillBroker,
    FreezeClient,
}

/// A run of one protocol.
struct Storm {
    protocol: &'static str,
    data: tempfile::TempDir,
    address: String,
    broker: Option<Broker>,
    copier: Copier,
    /// Those that were frozen and went on.
    zombies: Vec<Copier>,
}

impl Storm {
    fn start(protocol: &'static str) -> Storm {
        let data = tempfile::tempdir().expect("a temporary directory");
        let broker = start_broker(data.path(), protocol, None);
        let address = broker.address.to_string();
        let mut client = broker.connect();
        client.create_topic(SOURCE, PARTITIONS, &[]);
        client.create_topic(TARGET, PARTITIONS, &[]);
        Storm {
            protocol,
            data,
            copier: Copier::start(&address, protocol),
            address,
            broker: Some(broker),
            zombies: Vec::new(),
        }
    }

    fn replace_copier(&mut self) -> Copier {
        let next = Copier::start(&self.address, self.protocol);
        std::mem::replace(&mut self.copier, next)
    }

    /// Waits for steps of whoever copies.
    fn wait_for_steps(&mut self, steps: usize) {
        while !self.copier.wait_for_steps(steps) {
            self.replace_copier();
        }
    }

    fn disrupt(&mut self, disruption: Disruption) {
        match disruption {
            Disruption::KillClient => drop(self.replace_copier()),
            Disruption::KillBroker => {
                self.broker.take().expect("runs").kill();
                let (data, address) = (self.data.path(), self.address.as_str());
                self.broker = Some(start_broker(data, self.protocol, Some(address)));
            }
            Disruption::FreezeClient => {
                self.copier.signal("-STOP");
                let frozen = self.replace_copier();
                self.wait_for_steps(4);
                frozen.signal("-CONT");
                self.zombies.push(frozen);
            }
        }
    }

    /// Waits until everything is copied.
    fn drain(&mut self, expected: &[i64]) {
        let mut client = self.broker.as_ref().expect("runs").connect();
        let mut committed = Vec::new();
        while committed != expected {
            committed = until("more is copied", || {
                self.zombies.retain_mut(Copier::is_alive);
                if !self.copier.is_alive() {
                    self.replace_copier();
                }
                // Asking without a pause would take the cores from those who copy.
                let _ = self.copier.lines.recv_timeout(Duration::from_millis(100));
                let now = committed_offsets(&mut client);
                (now != committed).then_some(now)
            });
        }
    }
}

fn copies_exactly_once(protocol: &'static str) {
    let seed = std::env::var("PERCOLOG_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("PERCOLOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut storm = Storm::start(protocol);
    let producer: BaseProducer = client_config(&storm.address)
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    let mut produced = 0;
    for round in 0..ROUNDS {
        produce_numbers(&producer, produced);
        produced += RECORDS_PER_ROUND;
        // Every transaction is four steps; a round's records are at least ten transactions.
        let steps = random.usize(1..30);
        storm.wait_for_steps(steps);
        let moment = Duration::from_micros(random.u64(0..3_000));
        let waiting = Instant::now();
        while waiting.elapsed() < moment {
            std::thread::yield_now();
        }
        let disruption = match random.u32(0..5) {
            0 | 1 => Disruption::KillClient,
            2 | 3 => Disruption::KillBroker,
            _ => Disruption::FreezeClient,
        };
        println!(
            "{:6.1} s round {round}: {disruption:?} after {steps} steps",
            begun.elapsed().as_secs_f64()
        );
        storm.disrupt(disruption);
    }
    let share = i64::try_from(produced).expect("few") / i64::from(PARTITIONS);
    storm.drain(&vec![share; PARTITIONS as usize]);
    println!(
        "{:6.1} s: everything is copied",
        begun.elapsed().as_secs_f64()
    );
    let mut client = storm.broker.as_ref().expect("runs").connect();
    assert_no_transaction_is_open(&mut client, TARGET, PARTITIONS);
    assert_no_transaction_is_open(&mut client, "__consumer_offsets", 50);
    for partition in 0..PARTITIONS {
        let expected =
            (0..produced).filter(|number| number % PARTITIONS as u64 == partition as u64);
        let found = committed_numbers(&storm.address, partition);
        assert!(
            found.iter().copied().eq(expected),
            "{} records instead of {share} in partition {partition}, or others, or in another order",
            found.len()
        );
    }
    println!(
        "{produced} records copied exactly once in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    drop(std::mem::take(&mut storm.zombies));
    assert_eq!(storm.broker.take().expect("runs").stop(), Some(0));
}

#[test]
fn a_classic_group_copies_exactly_once_through_kills() {
    copies_exactly_once("classic");
}

#[test]
fn a_consumer_group_copies_exactly_once_through_kills() {
    copies_exactly_once("consumer");
}
