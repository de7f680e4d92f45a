//! Transactions that end while a disk is full: nothing of them hangs, and readers of committed records
//! get them once there is space again. On small ext4 disks on loop devices; where these cannot be made
//! (it takes root), every test says so and passes.

mod loop_disk;
mod support;

use std::path::Path;
use std::time::Instant;

use loop_disk::LoopDisk;
use percolog::shard::coordinators::partition_of;
use percolog::wire::frame;
use percolog::wire::messages::{describe_log_dirs, describe_transactions, list_offsets};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use support::{Broker, Client, PATIENCE, batch, produce_request, produced, until};

const TOPIC: &str = "ends";
const PARTITIONS: i32 = 8;
const MIB: u64 = 1 << 20;
const SEGMENT_BYTES: usize = 1 << 20;
const STORAGE_ERROR: i16 = 56;
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// A disk, or the reason why this test cannot run here.
macro_rules! disk_or_return {
    ($size_bytes:expr) => {
        match LoopDisk::new($size_bytes) {
            Ok(disk) => disk,
            Err(reason) => {
                println!("SKIPPED, no disk on a loop device can be made here: {reason}");
                return;
            }
        }
    };
}

fn start(first: &Path, arguments: &[&str]) -> Broker {
    let settings = [
        "log.segment.bytes=1048576",
        // Records of the past and of now share a segment.
        "log.roll.ms=1000000000000",
        "transaction.state.log.segment.bytes=1048576",
        "transactions.abort_check_interval_ms=500",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = arguments.iter().copied().chain(settings).collect();
    Broker::start(first, &arguments)
}

/// Partitions of a topic by directory.
fn homes(client: &mut Client, topic: &str) -> Vec<Vec<i32>> {
    let request = describe_log_dirs::DescribeLogDirsRequest { topics: None };
    let answer = client.ask(4, &request);
    let decoded =
        frame::decode_response_of::<describe_log_dirs::DescribeLogDirsRequest>(&answer, 4);
    let (_, answer) = decoded.expect("an answer");
    let results = answer.results.iter().map(|result| {
        let topics = result.topics.iter().filter(|found| found.name == topic);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| partition.partition_index)
            .collect()
    });
    results.collect()
}

/// The end of a partition, or of what is committed there (1).
fn end(client: &mut Client, partition: i32, isolation_level: i8) -> i64 {
    let request = list_offsets::ListOffsetsRequest {
        isolation_level,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: vec![list_offsets::ListOffsetsPartition {
                partition_index: partition,
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

/// The state of a transactional id; empty while its coordinator does not serve.
fn state(client: &mut Client, id: &str) -> String {
    let request = describe_transactions::DescribeTransactionsRequest {
        transactional_ids: vec![id.into()],
    };
    let answer = client.ask(0, &request);
    let decoded = frame::decode_response_of::<describe_transactions::DescribeTransactionsRequest<'_>>(
        &answer, 0,
    );
    decoded.expect("an answer").1.transaction_states[0]
        .transaction_state
        .to_string()
}

fn produce(client: &mut Client, partition: i32, size_bytes: usize) -> i16 {
    let batch = batch(&[vec![7; size_bytes]]);
    let answer = client.ask(7, &produce_request(TOPIC, partition, -1, &batch));
    produced(&answer, 7).0
}

/// Appends to an empty partition until its segment has room for so many bytes.
fn fill_segment(client: &mut Client, partition: i32, left_bytes: usize) {
    let mut room_bytes = SEGMENT_BYTES - left_bytes;
    while room_bytes > 0 {
        let last = (1..room_bytes)
            .rev()
            .find(|size_bytes| *size_bytes <= 200_000 && size(*size_bytes) <= room_bytes);
        let size_bytes = last.expect("a batch fits");
        let size_bytes = match room_bytes - size(size_bytes) {
            0 => size_bytes,
            // So that there is room for one more.
            _ => size_bytes - 1000,
        };
        assert_eq!(produce(client, partition, size_bytes), 0);
        room_bytes -= size(size_bytes);
    }
}

/// A batch of one record of this size.
fn size(value_bytes: usize) -> usize {
    batch(&[vec![7; value_bytes]]).len()
}

/// Calls again what may be called again.
fn insist(mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let begun = Instant::now();
    loop {
        match call() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

fn producer(broker: &Broker, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address.to_string())
        .set("transactional.id", id)
        .set("linger.ms", "1")
        .create()
        .expect("a producer");
    insist(|| producer.init_transactions(PATIENCE)).expect("initialised");
    producer
}

/// Begins a transaction with a record in each of these partitions.
fn begin(producer: &BaseProducer, partitions: &[i32]) {
    producer.begin_transaction().expect("none is open");
    for partition in partitions {
        let record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(TOPIC).partition(*partition).payload(b"once");
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("there is room");
    }
    producer.flush(PATIENCE).expect("all is appended");
}

/// An id whose coordinator has its partition in the first directory.
fn id_in_first_directory(client: &mut Client, broker: &Broker) -> String {
    // The first to ask for a coordinator has the topic made.
    drop(producer(broker, "first"));
    let homes = homes(client, TRANSACTIONS_TOPIC);
    let count = homes.iter().map(Vec::len).sum::<usize>() as u32;
    let is_there = |id: &String| homes[0].contains(&(partition_of(id, count).cast_signed()));
    (0..)
        .map(|number| format!("id-{number}"))
        .find(is_there)
        .expect("some id")
}

/// What is appended to a partition, and what of it is committed, without the markers.
fn ends(client: &mut Client, partition: i32) -> (i64, i64) {
    (end(client, partition, 0), end(client, partition, 1))
}

/// Two directories: that of the coordinator has space, and the other one no inode for a file.
struct Stuck {
    disk: LoopDisk,
    first: tempfile::TempDir,
    id: String,
    good: i32,
    bad: Vec<i32>,
}

impl Stuck {
    fn start(&self) -> Broker {
        start_with_second(self.first.path(), &self.disk)
    }

    fn new(disk: LoopDisk) -> (Stuck, Broker, Client) {
        let first = tempfile::tempdir().expect("a temporary directory");
        let broker = start_with_second(first.path(), &disk);
        let mut client = broker.connect();
        client.create_topic(TOPIC, PARTITIONS, &[]);
        let id = id_in_first_directory(&mut client, &broker);
        let mut homes = homes(&mut client, TOPIC);
        let bad = homes.remove(1);
        let good = homes[0][0];
        let stuck = Stuck {
            disk,
            first,
            id,
            good,
            bad,
        };
        (stuck, broker, client)
    }

    /// Ends a transaction whose marker needs a new file in one of its partitions.
    fn end(&mut self, client: &mut Client, producer: &BaseProducer, bad: i32, is_committed: bool) {
        // Room for the record of the transaction, and not for the marker behind it.
        fill_segment(client, bad, 110);
        let before = end(client, bad, 1);
        begin(producer, &[self.good, bad]);
        self.disk.fill_inodes();
        let ended = match is_committed {
            true => insist(|| producer.commit_transaction(PATIENCE)),
            false => insist(|| producer.abort_transaction(PATIENCE)),
        };
        ended.expect("the decision is stored");
        let (all, committed) = ends(client, self.good);
        assert_eq!(all, committed, "the other partition has its marker");
        assert_eq!(ends(client, bad), (before + 1, before));
        let state = state(client, &self.id);
        assert!(state.starts_with("Prepare"), "{state}");
    }

    /// Waits until the marker is there.
    fn until_ended(&self, client: &mut Client, bad: i32, all: i64) {
        until("the marker is written", || {
            (ends(client, bad) == (all, all)).then_some(())
        });
        until("the coordinator knows it", || {
            state(client, &self.id)
                .starts_with("Complete")
                .then_some(())
        });
    }
}

fn start_with_second(first: &Path, disk: &LoopDisk) -> Broker {
    let second = disk.path();
    let second = second.to_str().expect("UTF-8");
    start(
        first,
        &[
            "--data-dir",
            second,
            "--cores",
            "2",
            "--set",
            "storage.reserve_bytes=0",
        ],
    )
}

#[test]
fn a_marker_that_finds_no_space_is_written_when_there_is() {
    let (mut stuck, broker, mut client) = Stuck::new(disk_or_return!(128 * MIB));
    let bad = stuck.bad[0];
    let producer = producer(&broker, &stuck.id);
    stuck.end(&mut client, &producer, bad, true);
    let all = end(&mut client, bad, 0) + 1;
    stuck.disk.free_inodes();
    stuck.until_ended(&mut client, bad, all);
    // The next transaction finds the way free.
    begin(&producer, &[stuck.good, bad]);
    insist(|| producer.commit_transaction(PATIENCE)).expect("committed");
    assert_eq!(ends(&mut client, bad), (all + 2, all + 2));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_marker_that_waits_for_space_outlives_the_broker() {
    let (mut stuck, broker, mut client) = Stuck::new(disk_or_return!(128 * MIB));
    let bad = stuck.bad[0];
    let producer = producer(&broker, &stuck.id);
    stuck.end(&mut client, &producer, bad, false);
    let all = end(&mut client, bad, 0) + 1;
    broker.kill();
    stuck.disk.free_inodes();
    let broker = stuck.start();
    let mut client = broker.connect();
    stuck.until_ended(&mut client, bad, all);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_transaction_ends_while_the_disk_refuses_records() {
    for reserve_bytes in [24 * MIB, 0] {
        let mut disk = disk_or_return!(256 * MIB);
        let reserve = format!("storage.reserve_bytes={reserve_bytes}");
        let broker = start(&disk.path(), &["--cores", "2", "--set", &reserve]);
        let mut client = broker.connect();
        client.create_topic(TOPIC, PARTITIONS, &[]);
        let producer = producer(&broker, "id");
        begin(&producer, &[0, 1, 2, 3]);
        disk.fill(0);
        until("records are refused", || {
            (produce(&mut client, 5, 200_000) == STORAGE_ERROR).then_some(())
        });
        insist(|| producer.commit_transaction(PATIENCE)).expect("committed");
        for partition in 0..4 {
            assert_eq!(ends(&mut client, partition), (2, 2), "{reserve_bytes}");
        }
        let ended = || (state(&mut client, "id") == "CompleteCommit").then_some(());
        until("the coordinator knows it", ended);
        disk.free();
        until("records are taken again", || {
            (produce(&mut client, 5, 200_000) == 0).then_some(())
        });
        begin(&producer, &[0]);
        insist(|| producer.commit_transaction(PATIENCE)).expect("committed");
        assert_eq!(broker.stop(), Some(0));
    }
}
