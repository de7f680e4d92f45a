//! Disks that fill up, break and come back, on a real file system: small ext4 disks on loop devices.
//! Where these cannot be made (it takes root), every test says so and passes.

mod loop_disk;
mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use loop_disk::LoopDisk;
use percolog::wire::error_code::ErrorCode;
use percolog::wire::frame;
use percolog::wire::messages::{delete_topics, describe_log_dirs, metadata};
use support::{Broker, Client, batch, produce_request, produced, read_all, until};

const TOPIC: &str = "disks";
/// A topic that gets no record while a disk is away.
const IDLE: &str = "idle";
const PARTITIONS: i32 = 8;
const MIB: u64 = 1 << 20;
const FULL: &str = "percolog_full_directories";
const OFFLINE: &str = "percolog_offline_directories";
const STORAGE_ERROR: i16 = 56;
const LEADER_NOT_AVAILABLE: i16 = 5;

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

/// What was acknowledged: value by offset and partition.
#[derive(Default)]
struct Acknowledged {
    next: u64,
    records: BTreeMap<(i32, i64), u64>,
}

fn value(number: u64, size_bytes: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(size_bytes.max(8), number as u8);
    value
}

impl Acknowledged {
    /// Produces one record; the error code.
    fn produce(&mut self, client: &mut Client, partition: i32, size_bytes: usize) -> i16 {
        let number = self.next;
        self.next += 1;
        let batch = batch(&[value(number, size_bytes)]);
        let frame = client.ask(7, &produce_request(TOPIC, partition, -1, &batch));
        let (code, offset) = produced(&frame, 7);
        if code == 0 {
            let before = self.records.insert((partition, offset), number);
            assert_eq!(before, None, "an offset is given once");
        }
        code
    }

    /// Everything that was acknowledged in these partitions is there.
    fn check(&self, client: &mut Client, partitions: impl Iterator<Item = i32>) {
        for partition in partitions {
            let found: BTreeMap<i64, Vec<u8>> = read_all(client, TOPIC, partition)
                .unwrap_or_else(|code| panic!("partition {partition}: error {code}"))
                .into_iter()
                .collect();
            let acknowledged = self.records.range((partition, 0)..(partition + 1, 0));
            for ((_, offset), number) in acknowledged {
                let found = found.get(offset).map(|value| &value[..8]);
                let expected = number.to_be_bytes();
                assert_eq!(found, Some(&expected[..]), "{partition} at {offset}");
            }
        }
    }
}

/// Directories as DescribeLogDirs has them: error, total and usable bytes, partitions with sizes.
type Directories = Vec<(i16, i64, i64, BTreeMap<i32, i64>)>;

fn log_dirs(client: &mut Client) -> Directories {
    log_dirs_of(client, TOPIC)
}

fn log_dirs_of(client: &mut Client, topic: &str) -> Directories {
    let request = describe_log_dirs::DescribeLogDirsRequest { topics: None };
    let frame = client.ask(5, &request);
    let (_, answer) =
        frame::decode_response_of::<describe_log_dirs::DescribeLogDirsRequest>(&frame, 5)
            .expect("an answer");
    let results = answer.results.iter().map(|result| {
        let topics = result.topics.iter().filter(|found| found.name == topic);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        for partition in partitions.clone() {
            assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
        }
        assert!(!result.is_cordoned);
        let sizes =
            partitions.map(|partition| (partition.partition_index, partition.partition_size));
        let (total, usable) = (result.total_bytes, result.usable_bytes);
        (result.error_code, total, usable, sizes.collect())
    });
    results.collect()
}

/// Partitions of a directory.
fn homes(client: &mut Client, topic: &str, directory: usize) -> Vec<i32> {
    let directories = log_dirs_of(client, topic);
    directories[directory].3.keys().copied().collect()
}

/// Leader, error code and offline replicas by partition.
fn leaders(client: &mut Client) -> BTreeMap<i32, (i32, i16, Vec<i32>)> {
    leaders_of(client, TOPIC)
}

fn leaders_of(client: &mut Client, topic: &str) -> BTreeMap<i32, (i32, i16, Vec<i32>)> {
    let request = metadata::MetadataRequest {
        topics: Some(vec![metadata::MetadataRequestTopic {
            name: Some(topic.into()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let frame = client.ask(9, &request);
    let (_, answer) =
        frame::decode_response_of::<metadata::MetadataRequest>(&frame, 9).expect("an answer");
    let partitions = answer.topics[0].partitions.iter().map(|partition| {
        let offline = partition.offline_replicas.clone();
        let shown = (partition.leader_id, partition.error_code, offline);
        (partition.partition_index, shown)
    });
    partitions.collect()
}

/// A port for the admin endpoint; another process might take it before the broker does, but hardly.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A gauge of the metrics page, by core.
fn gauge(admin_port: u16, name: &str) -> Vec<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin_port)).expect("the admin endpoint");
    let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a whole page");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix('{')?;
        let (_, value) = rest.rsplit_once(' ')?;
        Some(value.parse().expect("a number"))
    };
    let values: Vec<u64> = page.lines().filter_map(value).collect();
    assert!(!values.is_empty(), "{name} is not in {page}");
    values
}

/// Waits until all cores show the same for a gauge.
fn until_gauge(admin_port: u16, name: &str, value: u64) {
    until(name, || {
        let shown = gauge(admin_port, name);
        shown.iter().all(|shown| *shown == value).then_some(())
    });
}

fn delete_topic(client: &mut Client, name: &str) -> i16 {
    let request = delete_topics::DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let frame = client.ask(1, &request);
    let (_, answer) = frame::decode_response_of::<delete_topics::DeleteTopicsRequest>(&frame, 1)
        .expect("an answer");
    answer.responses[0].error_code
}

/// What a full directory looks like from outside.
fn shows_as_full(client: &mut Client, admin_port: u16, reserve_bytes: u64) {
    assert_eq!(log_dirs(client)[0].0, 0, "it is full, not offline");
    if reserve_bytes > 0 {
        // Without a reserve it is full only for appends that are larger than what is left.
        until_gauge(admin_port, FULL, 1);
    }
    until_gauge(admin_port, OFFLINE, 0);
}

#[test]
fn a_full_disk_refuses_appends_and_comes_back() {
    // With a reserve, and without one, when writes of every kind meet the full disk.
    for reserve_bytes in [24 * MIB, 0] {
        let mut disk = disk_or_return!(256 * MIB);
        let data = disk.path();
        let port = free_port();
        let start = || start_on_small_disk(&data, reserve_bytes, port);
        let broker = start();
        let mut client = broker.connect();
        client.create_topic(TOPIC, PARTITIONS, &[]);
        client.create_topic("other", 4, &[]);
        until_gauge(port, FULL, 0);
        let mut acknowledged = Acknowledged::default();
        let mut turn = 0..;
        let mut produce = |acknowledged: &mut Acknowledged, client: &mut Client| {
            let partition = turn.next().expect("endless") % PARTITIONS;
            acknowledged.produce(client, partition, 200_000)
        };
        for _ in 0..150 {
            assert_eq!(produce(&mut acknowledged, &mut client), 0);
        }
        // What is in the journal and in memory now has no place in the segments.
        disk.fill(0);
        until("appends are refused", || {
            match produce(&mut acknowledged, &mut client) {
                0 => None,
                STORAGE_ERROR => Some(()),
                code => panic!("error {code}"),
            }
        });
        acknowledged.check(&mut client, 0..PARTITIONS);
        shows_as_full(&mut client, port, reserve_bytes);
        client.create_topic("administration", 1, &[]);
        assert_eq!(delete_topic(&mut client, "other"), 0);
        let code = produce(&mut acknowledged, &mut client);
        // Without a reserve, blocks that were allocated ahead and given back may be enough for it.
        assert!(
            code == STORAGE_ERROR || (code == 0 && reserve_bytes == 0),
            "error {code}"
        );

        disk.free();
        // Each core finds out by itself.
        for _ in 0..100 {
            until("appends are taken again", || {
                (produce(&mut acknowledged, &mut client) == 0).then_some(())
            });
        }
        until_gauge(port, FULL, 0);
        acknowledged.check(&mut client, 0..PARTITIONS);

        // Once more, and this time the power goes while the disk is full.
        disk.fill(0);
        until("appends are refused", || {
            (produce(&mut acknowledged, &mut client) == STORAGE_ERROR).then_some(())
        });
        if reserve_bytes == 0 {
            broker.wait_until_said("records stay in the journal until there is space");
        }
        broker.kill();
        disk.free();
        let broker = start();
        acknowledged.check(&mut broker.connect(), 0..PARTITIONS);
        assert_eq!(broker.stop(), Some(0));
    }
}

fn start_on_small_disk(data: &Path, reserve_bytes: u64, admin_port: u16) -> Broker {
    let settings = [
        &format!("storage.reserve_bytes={reserve_bytes}"),
        "log.segment.bytes=1048576",
        &format!("listeners.admin=127.0.0.1:{admin_port}"),
        // Idle logs go to their segments soon, so that those meet the full disk too.
        "storage.cool_after_ms=500",
    ];
    Broker::start(data, &settings.map(|setting| ["--set", setting]).concat())
}

/// Two directories, the second on a disk that breaks.
struct Broken {
    first: tempfile::TempDir,
    disk: LoopDisk,
    acknowledged: Acknowledged,
    good: Vec<i32>,
    bad: Vec<i32>,
    /// Partitions on the second disk that never got a record.
    idle: Vec<i32>,
    admin_port: Cell<u16>,
}

impl Broken {
    fn start(&self) -> Broker {
        let second = self.disk.path();
        let second = second.to_str().expect("UTF-8");
        self.admin_port.set(free_port());
        let admin = format!("listeners.admin=127.0.0.1:{}", self.admin_port.get());
        let arguments = [
            "--data-dir",
            second,
            "--cores",
            "2",
            "--set",
            "storage.reserve_bytes=0",
            "--set",
            &admin,
        ];
        Broker::start(self.first.path(), &arguments)
    }

    fn new(disk: LoopDisk) -> (Broken, Broker, Client) {
        let mut broken = Broken {
            first: tempfile::tempdir().expect("a temporary directory"),
            disk,
            acknowledged: Acknowledged::default(),
            good: Vec::new(),
            bad: Vec::new(),
            idle: Vec::new(),
            admin_port: Cell::new(0),
        };
        let broker = broken.start();
        let mut client = broker.connect();
        client.create_topic(TOPIC, PARTITIONS, &[]);
        client.create_topic(IDLE, PARTITIONS, &[]);
        for number in 0..400 {
            let partition = number % PARTITIONS;
            let code = broken.acknowledged.produce(&mut client, partition, 3000);
            assert_eq!(code, 0);
        }
        broken.good = homes(&mut client, TOPIC, 0);
        broken.bad = homes(&mut client, TOPIC, 1);
        assert_eq!(broken.good.len() + broken.bad.len(), PARTITIONS as usize);
        assert!(!broken.good.is_empty() && !broken.bad.is_empty());
        broken.idle = homes(&mut client, IDLE, 1);
        assert!(!broken.idle.is_empty() && broken.idle.len() < PARTITIONS as usize);
        until_gauge(broken.admin_port.get(), OFFLINE, 0);
        (broken, broker, client)
    }

    /// Goes on producing until the broker has noticed.
    fn produce_until_offline(&mut self, client: &mut Client) {
        let mut turn = 0;
        until("the directory is offline", || {
            for partition in &self.good {
                let code = self.acknowledged.produce(client, *partition, 3000);
                assert_eq!(code, 0);
            }
            turn += 1;
            let partition = self.bad[turn % self.bad.len()];
            let code = self.acknowledged.produce(client, partition, 3000);
            assert!(code == 0 || code == STORAGE_ERROR, "error {code}");
            (log_dirs(client)[1].0 == STORAGE_ERROR).then_some(())
        });
    }

    /// What clients see of a directory that is offline.
    fn check_offline(&mut self, client: &mut Client) {
        let directories = log_dirs(client);
        assert_eq!((directories[1].1, directories[1].3.len()), (-1, 0));
        assert!(directories[0].0 == 0 && directories[0].1 >= directories[0].2);
        until("Metadata says so", || {
            let leaders = leaders(client);
            let shown = |partition: &i32| leaders[partition].clone();
            let offline = (-1, LEADER_NOT_AVAILABLE, vec![1]);
            for partition in &self.good {
                assert_eq!(shown(partition), (1, 0, vec![]));
            }
            let mut bad = self.bad.iter();
            bad.all(|partition| shown(partition) == offline)
                .then_some(())
        });
        until_gauge(self.admin_port.get(), OFFLINE, 1);
        // Nobody knows without the directory that nothing was written there, so these wait for it
        // too, as Kafka's do.
        for (partition, shown) in leaders_of(client, IDLE) {
            let is_away = self.idle.contains(&partition);
            let expected = if is_away { -1 } else { 1 };
            assert_eq!(shown.0, expected, "{IDLE}-{partition}");
        }
        for partition in &self.idle {
            let batch = batch(&[value(1, 100)]);
            let frame = client.ask(7, &produce_request(IDLE, *partition, -1, &batch));
            assert_eq!(produced(&frame, 7).0, STORAGE_ERROR);
        }
        for partition in &self.bad {
            let code = self.acknowledged.produce(client, *partition, 3000);
            assert_eq!(code, STORAGE_ERROR);
            assert_eq!(read_all(client, TOPIC, *partition), Err(STORAGE_ERROR));
        }
        self.acknowledged.check(client, self.good.iter().copied());
    }
}

/// Breaks the second of two directories under load; what happens until it is back.
fn a_broken_disk(breaks: impl Fn(&mut LoopDisk), stays_mounted: bool, is_killed: bool) {
    let (mut broken, broker, mut client) = Broken::new(disk_or_return!(256 * MIB));
    breaks(&mut broken.disk);
    broken.produce_until_offline(&mut client);
    broken.check_offline(&mut client);
    // New partitions have their place on the directory that is left.
    client.create_topic("new", 4, &[]);
    for partition in 0..4 {
        let batch = batch(&[value(1, 100)]);
        let frame = client.ask(7, &produce_request("new", partition, -1, &batch));
        assert_eq!(produced(&frame, 7).0, 0);
    }
    drop(client);
    if is_killed {
        broker.kill();
    } else {
        let (code, said) = broker.stop_and_tell();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("data directory is offline"), "{said}");
    }

    // The disk is not mounted: its partitions are away, not empty.
    if stays_mounted {
        broken.disk.unmount();
    }
    let broker = broken.start();
    broken.check_offline(&mut broker.connect());
    assert_eq!(broker.stop(), Some(0));

    broken.disk.mount();
    let broker = broken.start();
    let mut client = broker.connect();
    broken.acknowledged.check(&mut client, 0..PARTITIONS);
    for partition in 0..PARTITIONS {
        let code = broken.acknowledged.produce(&mut client, partition, 3000);
        assert_eq!(code, 0);
    }
    assert_eq!(homes(&mut client, TOPIC, 1), broken.bad);
    assert_eq!(homes(&mut client, IDLE, 1), broken.idle);
    for partition in 0..PARTITIONS {
        let batch = batch(&[value(1, 100)]);
        let frame = client.ask(7, &produce_request(IDLE, partition, -1, &batch));
        assert_eq!(produced(&frame, 7), (0, 0));
    }
    until_gauge(broken.admin_port.get(), OFFLINE, 0);
    let new = read_all(&mut client, "new", 3);
    assert_eq!(new.map(|records| records.len()), Ok(1));
    drop(client);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_disk_that_is_gone_takes_only_its_partitions_offline() {
    a_broken_disk(LoopDisk::shut_down, true, false);
}

#[test]
fn nothing_acknowledged_is_lost_when_disk_and_broker_go_together() {
    a_broken_disk(LoopDisk::shut_down, true, true);
}

#[test]
fn a_file_system_that_turned_read_only_takes_only_its_partitions_offline() {
    a_broken_disk(LoopDisk::abort, true, false);
}

#[test]
fn a_disk_that_is_unmounted_underneath_takes_only_its_partitions_offline() {
    a_broken_disk(LoopDisk::detach, false, false);
}

#[test]
fn without_the_disk_of_the_metadata_the_broker_ends() {
    let mut disk = disk_or_return!(256 * MIB);
    let second = tempfile::tempdir().expect("a temporary directory");
    let path = second.path().to_str().expect("UTF-8");
    let arguments = [
        "--data-dir",
        path,
        "--cores",
        "2",
        "--set",
        "storage.reserve_bytes=0",
    ];
    let broker = Broker::start(&disk.path(), &arguments);
    let mut client = broker.connect();
    client.create_topic(TOPIC, PARTITIONS, &[]);
    let mut acknowledged = Acknowledged::default();
    for partition in 0..PARTITIONS {
        assert_eq!(acknowledged.produce(&mut client, partition, 3000), 0);
    }
    let first = homes(&mut client, TOPIC, 0)[0];
    disk.shut_down();
    assert_eq!(acknowledged.produce(&mut client, first, 100), STORAGE_ERROR);
    drop(client);
    let (code, said) = broker.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("holds the metadata and failed"), "{said}");
    disk.unmount();
    // Not mounted: what the other directory holds is not thrown away as unknown.
    let error = refused(&disk.path(), &arguments);
    assert!(error.contains("mount its disk"), "{error}");
    disk.mount();
    let broker = Broker::start(&disk.path(), &arguments);
    acknowledged.check(&mut broker.connect(), 0..PARTITIONS);
    assert_eq!(broker.stop(), Some(0));
}

fn refused(data: &Path, arguments: &[&str]) -> String {
    match Broker::try_start(data, arguments) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn codes_are_those_of_kafka() {
    assert_eq!(ErrorCode::KafkaStorageError.code(), STORAGE_ERROR);
    assert_eq!(ErrorCode::LeaderNotAvailable.code(), LEADER_NOT_AVAILABLE);
}

/// Flips one bit of a file.
fn flip(path: &Path, byte: u64) {
    let mut bytes = std::fs::read(path).expect("the file is there");
    bytes[byte as usize] ^= 4;
    std::fs::write(path, bytes).expect("the file is written");
}

fn percolog(arguments: &[&str], path: &Path) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_percolog"));
    let output = command.args(arguments).arg(path).output();
    let output = output.expect("the binary was built for this test");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said)
}

fn offline(client: &mut Client) -> Vec<i32> {
    let leaders = leaders(client);
    let offline = leaders.iter().filter(|(_, (leader, ..))| *leader == -1);
    offline.map(|(partition, _)| *partition).collect()
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_and_takes_its_partition_offline() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let slow = [
        "--set",
        "log.segment.bytes=1048576",
        "--set",
        "storage.scrub_bytes_per_second=0",
    ];
    let broker = Broker::start(data.path(), &slow);
    let mut client = broker.connect();
    client.create_topic(TOPIC, 4, &[]);
    let mut acknowledged = Acknowledged::default();
    for number in 0..80 {
        assert_eq!(acknowledged.produce(&mut client, number % 4, 100_000), 0);
    }
    drop(client);
    assert_eq!(broker.stop(), Some(0));
    let segment = data.path().join("disks-2/00000000000000000000.log");
    flip(&segment, 350_000);
    let (is_whole, _) = percolog(&["inspect", "segment"], &segment);
    assert!(!is_whole);

    let fast = [
        "--set",
        "log.segment.bytes=1048576",
        "--set",
        "storage.scrub_bytes_per_second=1073741824",
    ];
    let broker = Broker::start(data.path(), &fast);
    let mut client = broker.connect();
    until("the scrub found it", || {
        (offline(&mut client) == [2]).then_some(())
    });
    acknowledged.check(&mut client, [0, 1, 3].into_iter());
    assert_eq!(read_all(&mut client, TOPIC, 2), Err(STORAGE_ERROR));
    assert_eq!(acknowledged.produce(&mut client, 2, 100), STORAGE_ERROR);
    drop(client);
    let (code, said) = broker.stop_and_tell();
    assert_eq!(code, Some(0));
    let found = said
        .lines()
        .find(|line| line.contains("partition goes offline"));
    let found = found.unwrap_or_else(|| panic!("{said}"));
    assert!(found.contains(segment.to_str().expect("UTF-8")), "{found}");
    // Batches of 100,000 bytes and what is around a record.
    assert!(
        found.contains("the batch at byte 300") && found.contains("offset 3"),
        "{found}"
    );

    damage_survives_until_repair(data.path(), &acknowledged);
}

/// An operator's word brings back what verifies.
fn damage_survives_until_repair(data: &Path, acknowledged: &Acknowledged) {
    let slow = ["--set", "storage.scrub_bytes_per_second=0"];
    let broker = Broker::start(data, &slow);
    let mut client = broker.connect();
    until("Metadata says so", || {
        (offline(&mut client) == [2]).then_some(())
    });
    acknowledged.check(&mut client, [0, 1, 3].into_iter());
    drop(client);
    assert_eq!(broker.stop(), Some(0));
    let (is_repaired, said) = percolog(&["repair", "--accept-loss", "--data-dir"], data);
    assert!(is_repaired, "{said}");
    let broker = Broker::start(data, &slow);
    let mut client = broker.connect();
    assert_eq!(
        read_all(&mut client, TOPIC, 2).map(|records| records.len()),
        Ok(3)
    );
    assert_eq!(Acknowledged::default().produce(&mut client, 2, 100), 0);
    drop(client);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_flipped_bit_in_a_journal_takes_only_the_partitions_it_hit_offline() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["--cores", "1", "--set", "storage.scrub_bytes_per_second=0"];
    let broker = Broker::start(data.path(), &arguments);
    let mut client = broker.connect();
    client.create_topic(TOPIC, PARTITIONS, &[]);
    let mut acknowledged = Acknowledged::default();
    for number in 0..10 * PARTITIONS {
        assert_eq!(
            acknowledged.produce(&mut client, number % PARTITIONS, 3000),
            0
        );
    }
    drop(client);
    broker.kill();
    // An append in the middle, as the offline tool shows it.
    let journals = std::fs::read_dir(data.path().join("journal")).expect("a journal");
    let mut appends = Vec::new();
    for entry in journals {
        let path = entry.expect("an entry").path();
        let (is_whole, lines) = percolog(&["inspect", "journal", "--output", "json"], &path);
        assert!(is_whole, "{lines}");
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if line["kind"] == "append" && line["length"].as_u64() > Some(3000) {
                let position = line["position"].as_u64().expect("a number");
                appends.push((path.clone(), position, line["partition"].clone()));
            }
        }
    }
    assert!(appends.len() > 60, "{}", appends.len());
    let (path, position, partition) = &appends[appends.len() / 2];
    flip(path, position + 1500);
    let (is_whole, _) = percolog(&["inspect", "journal"], path);
    assert!(!is_whole, "the tool sees it");

    let broker = Broker::start(data.path(), &arguments);
    let mut client = broker.connect();
    let hit = until("Metadata says so", || {
        Some(offline(&mut client)).filter(|offline| !offline.is_empty())
    });
    assert_eq!(hit, [partition.as_i64().expect("a number") as i32]);
    acknowledged.check(
        &mut client,
        (0..PARTITIONS).filter(|other| !hit.contains(other)),
    );
    assert_eq!(read_all(&mut client, TOPIC, hit[0]), Err(STORAGE_ERROR));
    drop(client);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_directory_that_takes_no_writes_at_the_start() {
    let (mut broken, broker, client) = Broken::new(disk_or_return!(256 * MIB));
    drop(client);
    assert_eq!(broker.stop(), Some(0));
    broken.disk.unmount();
    broken.disk.mount_read_only();
    let broker = broken.start();
    broken.check_offline(&mut broker.connect());
    assert_eq!(broker.stop(), Some(0));
    let alone = refused(&broken.disk.path(), &["--cores", "2"]);
    assert!(alone.contains("Read-only file system"), "{alone}");
    broken.disk.unmount();
    broken.disk.mount();
    let broker = broken.start();
    broken
        .acknowledged
        .check(&mut broker.connect(), 0..PARTITIONS);
    assert_eq!(broker.stop(), Some(0));
}

/// Directories of deleted logs below a data directory.
fn deleted_directories(data: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(data).expect("the data directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_deleted = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "deleted");
    paths.filter(is_deleted).collect()
}

const HOUR: (&str, &str) = ("file.delete.delay.ms", "3600000");

#[test]
fn files_of_a_deleted_topic_wait_for_their_delay_and_disturb_nobody() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    client.create_topic(TOPIC, 2, &[HOUR]);
    let mut acknowledged = Acknowledged::default();
    for number in 0..8 {
        assert_eq!(acknowledged.produce(&mut client, number % 2, 50_000), 0);
    }
    assert_eq!(delete_topic(&mut client, TOPIC), 0);
    until("both are put aside", || {
        (deleted_directories(data.path()).len() == 2).then_some(())
    });
    let aside = &deleted_directories(data.path())[0];
    let segment = std::fs::metadata(aside.join("00000000000000000000.log"));
    assert!(segment.expect("its records are kept").len() > 0);
    // Nothing is known of them, and a topic of the same name has its own files.
    assert!(log_dirs(&mut client)[0].3.is_empty());
    client.create_topic(TOPIC, 2, &[HOUR]);
    let mut again = Acknowledged::default();
    assert_eq!(again.produce(&mut client, 0, 1000), 0);
    assert_eq!(again.produce(&mut client, 1, 1000), 0);
    again.check(&mut client, 0..2);
    assert!(data.path().join("disks-0").is_dir());
    assert!(log_dirs(&mut client)[0].3.values().all(|size| *size < 5000));
    drop(client);
    assert_eq!(deleted_directories(data.path()).len(), 2);
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(
        deleted_directories(data.path()).len(),
        0,
        "a stop is the end"
    );

    // A crash instead of a stop: the next start looks for what was left.
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    let mut client = broker.connect();
    again.check(&mut client, 0..2);
    assert_eq!(delete_topic(&mut client, TOPIC), 0);
    until("both are put aside", || {
        (deleted_directories(data.path()).len() == 2).then_some(())
    });
    broker.kill();
    let broker = Broker::start(data.path(), &["--cores", "2"]);
    until("they are gone", || {
        deleted_directories(data.path()).is_empty().then_some(())
    });

    let mut client = broker.connect();
    client.create_topic(TOPIC, 2, &[("file.delete.delay.ms", "0")]);
    assert_eq!(Acknowledged::default().produce(&mut client, 0, 1000), 0);
    assert!(data.path().join("disks-0").is_dir());
    assert_eq!(delete_topic(&mut client, TOPIC), 0);
    until("its delay is over", || {
        let is_gone = !data.path().join("disks-0").exists();
        (is_gone && deleted_directories(data.path()).is_empty()).then_some(())
    });
    drop(client);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_full_disk_does_not_wait_for_the_delay_of_deleted_files() {
    let mut disk = disk_or_return!(512 * MIB);
    let data = disk.path();
    // A journal that waits for the segments instead of growing into the reserve.
    let journal = format!("storage.journal_bytes={}", 32 * MIB);
    let reserve = format!("storage.reserve_bytes={}", 24 * MIB);
    let arguments = ["--set", &reserve, "--set", &journal];
    let broker = Broker::start(&data, &arguments);
    let mut client = broker.connect();
    client.create_topic(TOPIC, 2, &[HOUR]);
    let mut gone = Acknowledged::default();
    for number in 0..80 {
        assert_eq!(gone.produce(&mut client, number % 2, 900_000), 0);
    }
    assert_eq!(delete_topic(&mut client, TOPIC), 0);
    until("both are put aside", || {
        (deleted_directories(&data).len() == 2).then_some(())
    });
    client.create_topic(TOPIC, 2, &[]);
    let mut acknowledged = Acknowledged::default();
    assert_eq!(acknowledged.produce(&mut client, 0, 1000), 0);
    assert_eq!(deleted_directories(&data).len(), 2, "there is space");
    disk.fill_at_once(8 * MIB);
    until("there is space again", || {
        let is_taken = acknowledged.produce(&mut client, 0, 100_000) == 0;
        (is_taken && deleted_directories(&data).is_empty()).then_some(())
    });
    acknowledged.check(&mut client, 0..2);
    drop(client);
    disk.free();
    assert_eq!(broker.stop(), Some(0));
}
