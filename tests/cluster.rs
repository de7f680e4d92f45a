//! Three real brokers as one cluster: what was acknowledged survives whatever single brokers, or all of
//! them, go through.
//!
//! `PERCOLOG_SEED` repeats the choices of a run.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use percolog::shard::peer_protocol::{
    Hello, PeerAnswer, PeerKind, PeerRequest, put, request, take,
};
use percolog::wire::codec::Uuid;
use percolog::wire::frame;
use percolog::wire::messages::find_coordinator::FindCoordinatorRequest;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use support::cluster::{Cluster, NODES, PartitionState};
use support::copier::{self, Copier};
use support::numbers::{Numbers, Writer, numbers};
use support::{Client, PATIENCE, until};

fn seed() -> u64 {
    let seed = std::env::var("PERCOLOG_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("PERCOLOG_SEED={seed}");
    seed
}

/// Every number that was acknowledged is there once, in order, where the answer said, and no other.
fn assert_all_there(cluster: &Cluster, topic: &str, expected: &Numbers) {
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
    let mut stored_bytes = 0;
    for partition in 0..partitions {
        let first = cluster.stored(NODES[0], topic, partition);
        stored_bytes += first.len();
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
    assert!(stored_bytes > 0, "{topic}: nothing is stored");
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
        let is_without = |state: &PartitionState| {
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

#[test]
fn nothing_acknowledged_is_lost_when_all_are_killed_at_once() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut cluster = Cluster::start(&[]);
    cluster.create_topic(1, "all", 3);
    cluster.until_whole("all");
    let writer = Writer::start(&cluster, "all", 3);
    for _ in 0..2 {
        writer.wait_for(random.u64(1..400));
        cluster.kill_all();
        cluster.start_nodes(&NODES);
    }
    cluster.until_whole("all");
    writer.wait_for(100);
    let written = writer.stop();
    // Nobody writes any more, so the watermarks come back by themselves.
    cluster.kill_all();
    cluster.start_nodes(&NODES);
    assert_ends_come_back(&cluster, "all", &written);
    assert_all_there(&cluster, "all", &written);
    cluster.until_whole("all");
    cluster.stop();
    assert_replicas_are_equal(&cluster, "all", 3);
}

fn assert_ends_come_back(cluster: &Cluster, topic: &str, written: &Numbers) {
    let config = cluster.client_config();
    let consumer: BaseConsumer = config.create().expect("a consumer");
    for (partition, records) in written {
        let end = records.len() as i64;
        cluster.until(1, "consumers may read to the end", || {
            let found = consumer.fetch_watermarks(topic, *partition, PATIENCE);
            let (_, found) = found.ok()?;
            assert!(found <= end, "{topic}-{partition} ends at {found}");
            (found == end).then_some(())
        });
    }
}

#[test]
fn a_leader_that_lost_its_disk_is_not_believed() {
    let mut cluster = Cluster::start(&[]);
    cluster.create_topic(1, "led", 1);
    cluster.until_whole("led");
    let writer = Writer::start(&cluster, "led", 1);
    writer.wait_for(200);
    let written = writer.stop();
    let leader = cluster.describe(1, "led").expect("known")[0].leader;
    println!("node {leader} loses its disk");
    cluster.kill_all();
    cluster.empty_disk(leader);
    cluster.start_nodes(&NODES);
    cluster.until_whole("led");
    assert_all_there(&cluster, "led", &written);
    cluster.stop();
    assert_replicas_are_equal(&cluster, "led", 1);
}

/// Sends bytes to where a node listens for others.
fn knock(cluster: &Cluster, id: i32, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.peer_address(id)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // It may have been closed in the middle.
    let _ = stream.write_all(bytes);
    stream
}

#[track_caller]
fn assert_closed(mut stream: TcpStream, what: &str) {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{what}: {error}");
    }
    assert_eq!(answer, b"", "{what}: no answer");
}

fn call(asked: &PeerRequest) -> Vec<u8> {
    request(PeerKind::Call, 1, |into| put(into, asked))
}

/// Introduces itself; why that is refused. What comes after it is refused as well.
fn refused_hello(cluster: &Cluster, to: i32, hello: Hello) -> String {
    let what = format!("{hello:?}");
    let mut stream = knock(cluster, to, &call(&PeerRequest::Hello(hello)));
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("a whole answer");
    let Some(PeerAnswer::Hello(Err(why))) = take(&answer[4..]) else {
        panic!("{what}: it is welcome");
    };
    let beat = PeerRequest::Heartbeat {
        node_id: 2,
        broker_epoch: 0,
    };
    let _ = stream.write_all(&call(&beat));
    assert_closed(stream, &what);
    why
}

fn assert_hellos_are_refused(cluster: &Cluster, cluster_id: &str) {
    let hello = |cluster_id: &str, node_id, to| Hello {
        cluster_id: cluster_id.to_string(),
        node_id,
        to,
        directory_id: Uuid([7; 16]),
    };
    let why = refused_hello(cluster, 1, hello("another", 2, 1));
    assert!(why.contains("this is cluster"), "{why}");
    let why = refused_hello(cluster, 1, hello(cluster_id, 2, 3));
    assert!(why.contains("this is node 1, not 3"), "{why}");
    let why = refused_hello(cluster, 1, hello(cluster_id, 1, 1));
    assert!(why.contains("node.id is given twice"), "{why}");
}

/// What is none of the protocol, in frames of right and of wrong lengths.
fn assert_nonsense_is_refused(cluster: &Cluster, random: &mut fastrand::Rng) {
    let mut writer = percolog::wire::codec::Writer::new();
    let versions = percolog::wire::messages::api_versions::ApiVersionsRequest::default();
    frame::encode_request(&mut writer, 3, 1, Some("test"), &versions);
    let (versions, _) = writer.into_parts();
    for id in NODES {
        assert_closed(knock(cluster, id, &versions), "a client of Kafka");
        for length in [0, 1, 5, 1 << 30, i32::MAX as u32, 1 << 31, u32::MAX] {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0]);
            assert_closed(knock(cluster, id, &bytes), &format!("length {length}"));
        }
        for kind in 0..=5 {
            let body: Vec<u8> = (0..random.usize(2..500)).map(|_| random.u8(..)).collect();
            let mut bytes = (body.len() as u32 + 6).to_be_bytes().to_vec();
            bytes.extend_from_slice(&[1, kind, 0, 0, 0, 0]);
            bytes.extend_from_slice(&body);
            assert_closed(knock(cluster, id, &bytes), &format!("kind {kind}"));
        }
    }
}

#[test]
fn strangers_disturb_nobody() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut cluster = Cluster::start(&[]);
    cluster.create_topic(1, "calm", 3);
    cluster.until_whole("calm");
    let before = cluster.describe(1, "calm");
    let (cluster_id, _) = cluster.members(1);
    let writer = Writer::start(&cluster, "calm", 3);
    writer.wait_for(10);
    for _ in 0..3 {
        assert_hellos_are_refused(&cluster, &cluster_id);
        assert_nonsense_is_refused(&cluster, &mut random);
        writer.wait_for(10);
    }
    let second = cluster.start_second(3);
    second.wait_until_said("waiting for the controller");
    writer.wait_for(300);
    drop(second);
    let written = writer.stop();
    assert_all_there(&cluster, "calm", &written);
    for id in NODES {
        assert_eq!(cluster.describe(id, "calm"), before, "nobody was disturbed");
        assert_eq!(cluster.members(id), (cluster_id.clone(), NODES.to_vec()));
    }
    cluster.stop();
    assert_replicas_are_equal(&cluster, "calm", 3);
}

const GROUP: &str = "readers";

/// The broker that coordinates the group, as another one knows it.
fn coordinator(cluster: &Cluster, through: i32) -> Option<i32> {
    let mut client: Client = cluster.broker(through).connect();
    let request = FindCoordinatorRequest {
        key: GROUP.into(),
        ..Default::default()
    };
    let frame = client.ask(2, &request);
    let decoded = frame::decode_response_of::<FindCoordinatorRequest<'_>>(&frame, 2);
    let (_, answer) = decoded.expect("an answer");
    (answer.error_code == 0).then_some(answer.node_id)
}

/// By partition, an offset.
type Offsets = BTreeMap<i32, i64>;

/// What a member of the group has read, and what it knows to be committed.
#[derive(Default)]
struct Progress {
    read: BTreeMap<i32, BTreeSet<i64>>,
    committed: Offsets,
}

/// A member of the group that reads and commits in a thread until it is told to stop.
struct GroupReader {
    progress: Arc<Mutex<Progress>>,
    is_told_to_stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

fn group_config(cluster: &Cluster, group: &str) -> rdkafka::ClientConfig {
    let mut config = cluster.client_config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "3000")
        .set("heartbeat.interval.ms", "300")
        .set("fetch.wait.max.ms", "100");
    config
}

impl GroupReader {
    fn start(cluster: &Cluster, topic: &str) -> GroupReader {
        let consumer: BaseConsumer = group_config(cluster, GROUP).create().expect("a consumer");
        consumer.subscribe(&[topic]).expect("subscribed");
        let progress = Arc::<Mutex<Progress>>::default();
        let is_told_to_stop = Arc::<AtomicBool>::default();
        let (shared, is_told) = (progress.clone(), is_told_to_stop.clone());
        let thread = std::thread::spawn(move || {
            while !is_told.load(Ordering::Acquire) {
                read_and_commit(&consumer, &shared);
            }
        });
        GroupReader {
            progress,
            is_told_to_stop,
            thread,
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().expect("no panic")
    }

    fn committed_count(&self) -> i64 {
        self.progress().committed.values().sum()
    }

    /// Waits until it has committed so many records more.
    fn wait_for(&self, more: i64) {
        let enough = self.committed_count() + more;
        until("the group has committed more", || {
            std::thread::park_timeout(Duration::from_millis(5));
            assert!(!self.thread.is_finished(), "the reader has failed");
            (self.committed_count() >= enough).then_some(())
        });
    }
}

fn read_and_commit(consumer: &BaseConsumer, progress: &Mutex<Progress>) {
    let mut positions = Offsets::new();
    let mut wait = Duration::from_millis(100);
    while let Some(message) = consumer.poll(wait) {
        let Ok(message) = message else { continue };
        wait = Duration::ZERO;
        let mut progress = progress.lock().expect("no panic");
        let read = progress.read.entry(message.partition()).or_default();
        read.insert(message.offset());
        positions.insert(message.partition(), message.offset() + 1);
        if positions.values().len() >= 3 && message.offset() % 10 == 0 {
            break;
        }
    }
    if positions.is_empty() {
        return;
    }
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Ok(()) => {
            let known = &mut progress.lock().expect("no panic").committed;
            for (partition, offset) in positions {
                let before = known.insert(partition, offset);
                assert!(before <= Some(offset), "it began again at {offset}");
            }
        }
        Err(error) => println!("a commit failed: {error}"),
    }
}

/// What the coordinator says is committed for the three partitions of a topic.
fn committed(cluster: &Cluster, group: &str, through: i32, topic: &str) -> Offsets {
    let consumer: BaseConsumer = group_config(cluster, group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition(topic, partition);
    }
    let found = cluster.until(through, "the coordinator knows offsets", || {
        consumer.committed_offsets(list.clone(), PATIENCE).ok()
    });
    let offset = |one: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        let offset = match one.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        (one.partition(), offset)
    };
    found.elements().into_iter().map(offset).collect()
}

fn assert_none_went_back(before: &Offsets, after: &Offsets) {
    for (partition, offset) in before {
        assert!(after[partition] >= *offset, "{before:?}, then {after:?}");
    }
}

#[test]
fn a_group_goes_on_when_its_coordinator_is_killed() {
    let mut cluster = Cluster::start(&[
        "group.min.session.timeout.ms=500",
        "group.initial.rebalance.delay.ms=0",
    ]);
    cluster.create_topic(1, "read", 3);
    cluster.until_whole("read");
    let writer = Writer::start(&cluster, "read", 3);
    let reader = GroupReader::start(&cluster, "read");
    for _ in 0..3 {
        reader.wait_for(200);
        let id = cluster.until(1, "a coordinator", || coordinator(&cluster, 1));
        let other = NODES[(id as usize) % NODES.len()];
        println!("node {id} coordinates and is killed");
        cluster.kill(id);
        let known = reader.progress().committed.clone();
        cluster.until(other, "another coordinator", || {
            coordinator(&cluster, other).filter(|found| *found != id)
        });
        assert_none_went_back(&known, &committed(&cluster, GROUP, other, "read"));
        reader.wait_for(200);
        cluster.start_nodes(&[id]);
        cluster.until_whole("__consumer_offsets");
        cluster.until_whole("read");
    }
    let written = writer.stop();
    let all: BTreeMap<i32, BTreeSet<i64>> = written
        .iter()
        .map(|(partition, all)| (*partition, all.iter().map(|(_, offset)| *offset).collect()))
        .collect();
    cluster.until(1, "the group has read everything", || {
        (reader.progress().read == all).then_some(())
    });
    let known = reader.progress().committed.clone();
    reader.is_told_to_stop.store(true, Ordering::Release);
    reader.thread.join().expect("the reader did not fail");
    assert_none_went_back(&known, &committed(&cluster, GROUP, 1, "read"));
    cluster.stop();
    assert_replicas_are_equal(&cluster, "__consumer_offsets", 4);
}

/// Copies until it is killed, or fenced.
#[test]
#[ignore = "the process that another test of this file starts"]
fn copying_process() {
    copier::copy_until_killed();
}

#[test]
fn a_copy_with_transactions_is_exact_through_kills_of_brokers() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut cluster = Cluster::start(&[
        "transactions.abort_check_interval_ms=1000",
        "group.min.session.timeout.ms=500",
        "group.initial.rebalance.delay.ms=0",
    ]);
    for topic in [copier::SOURCE, copier::TARGET] {
        cluster.create_topic(1, topic, 3);
        cluster.until_whole(topic);
    }
    let writer = Writer::start(&cluster, copier::SOURCE, 3);
    writer.wait_for(1500);
    let written = writer.stop();
    let mut copier = Copier::start(&cluster.bootstrap(), "classic");
    for _ in 0..4 {
        wait_for_steps(&cluster, &mut copier, random.usize(1..30));
        let id = NODES[random.usize(0..NODES.len())];
        println!("node {id} is killed");
        cluster.kill(id);
        cluster.start_nodes(&[id]);
        wait_for_steps(&cluster, &mut copier, random.usize(1..8));
        cluster.until_whole(copier::TARGET);
    }
    let ends: Offsets = written
        .iter()
        .map(|(partition, records)| (*partition, records.len() as i64))
        .collect();
    cluster.until(1, "everything is copied", || {
        if !copier.is_alive() {
            copier = Copier::start(&cluster.bootstrap(), "classic");
        }
        let found = committed(&cluster, copier::GROUP, 1, copier::SOURCE);
        (found == ends).then_some(())
    });
    for (partition, written) in &written {
        let copied = numbers(&cluster.bootstrap(), copier::TARGET, *partition);
        let copied = copied.iter().map(|(number, _)| number);
        let is_exact = copied.eq(written.iter().map(|(number, _)| number));
        assert!(is_exact, "partition {partition} is another one");
    }
    drop(copier);
    cluster.stop();
    assert_replicas_are_equal(&cluster, copier::TARGET, 3);
    assert_replicas_are_equal(&cluster, "__transaction_state", 4);
}

/// Waits for steps of whoever copies.
fn wait_for_steps(cluster: &Cluster, copier: &mut Copier, steps: usize) {
    while !copier.wait_for_steps(steps) {
        *copier = Copier::start(&cluster.bootstrap(), "classic");
    }
}
