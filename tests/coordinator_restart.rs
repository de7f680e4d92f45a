//! A thousand groups consume while their coordinator is killed and started again: all of them go on,
//! none joins from the beginning or finds an offset behind one that it was told is committed.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use percolog::wire::codec::{Records, Writer};
use percolog::wire::frame;
use percolog::wire::message::Request;
use percolog::wire::messages::{
    fetch, find_coordinator, heartbeat, join_group, offset_commit, offset_fetch, sync_group,
};
use support::{Broker, PATIENCE, batch, produce_request, produced, until};

const GROUPS: usize = 1_000;
const CONNECTIONS: usize = 8;
const RESTARTS: usize = 3;
const TOPIC: &str = "shared";
const RECORDS: i64 = 10_000;

/// Errors after which the same question is asked again: the coordinator is loaded.
const COORDINATOR_IS_LOADED: [i16; 3] = [14, 15, 16];

/// A request was not served; why decides what comes next.
#[derive(Debug)]
enum Unserved {
    /// The connection is broken.
    Disconnected,
    /// Asked too early.
    NotYet,
    /// The group does not know the member any more.
    Rejoin,
}

fn check(code: i16) -> Result<(), Unserved> {
    match code {
        0 => Ok(()),
        code if COORDINATOR_IS_LOADED.contains(&code) => Err(Unserved::NotYet),
        22 | 25 | 27 => Err(Unserved::Rejoin),
        code => panic!("error {code}"),
    }
}

/// A connection that may break at any time.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Connection {
    fn try_ask<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> Option<Vec<u8>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.set_nodelay(true).ok()?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut()?;
        let mut writer = Writer::new();
        frame::encode_request(&mut writer, version, 1, Some("member"), request);
        stream.write_all(&writer.into_parts().0).ok()?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).ok()?;
        Some(answer)
    }

    fn ask<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> Result<Vec<u8>, Unserved> {
        let answer = self.try_ask(version, request);
        if answer.is_none() {
            self.stream = None;
        }
        answer.ok_or(Unserved::Disconnected)
    }
}

/// The only member of a group.
#[derive(Default)]
struct Member {
    group: String,
    id: String,
    generation: i32,
    /// Where it reads next; None before it has asked.
    position: Option<i64>,
    /// The last offset that the coordinator said is committed.
    committed: i64,
    /// How often it has joined.
    joins: usize,
}

impl Member {
    fn join(&mut self, connection: &mut Connection) -> Result<(), Unserved> {
        let request = join_group::JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group::JoinGroupRequestProtocol {
                name: "only".into(),
                metadata: b"".as_slice().into(),
            }],
            ..Default::default()
        };
        let frame = connection.ask(3, &request)?;
        let decoded = frame::decode_response_of::<join_group::JoinGroupRequest>(&frame, 3);
        let (_, joined) = decoded.expect("an answer");
        check(joined.error_code)?;
        let id = joined.member_id.to_string();
        let request = sync_group::SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: joined.generation_id,
            member_id: id.as_str().into(),
            assignments: vec![sync_group::SyncGroupRequestAssignment {
                member_id: id.as_str().into(),
                assignment: b"everything".as_slice().into(),
            }],
            ..Default::default()
        };
        let frame = connection.ask(2, &request)?;
        let decoded = frame::decode_response_of::<sync_group::SyncGroupRequest>(&frame, 2);
        let (_, synced) = decoded.expect("an answer");
        check(synced.error_code)?;
        assert_eq!(*synced.assignment, *b"everything");
        self.generation = joined.generation_id;
        self.id = id;
        self.joins += 1;
        Ok(())
    }

    fn find_position(&mut self, connection: &mut Connection) -> Result<i64, Unserved> {
        let request = offset_fetch::OffsetFetchRequest {
            group_id: self.group.as_str().into(),
            topics: Some(vec![offset_fetch::OffsetFetchRequestTopic {
                name: TOPIC.into(),
                partition_indexes: vec![0],
            }]),
            ..Default::default()
        };
        let frame = connection.ask(5, &request)?;
        let decoded = frame::decode_response_of::<offset_fetch::OffsetFetchRequest>(&frame, 5);
        let (_, answer) = decoded.expect("an answer");
        check(answer.error_code)?;
        let found = answer.topics[0].partitions[0].committed_offset.max(0);
        assert!(
            found >= self.committed,
            "{}: {found} after {} was acknowledged",
            self.group,
            self.committed
        );
        self.position = Some(found);
        Ok(found)
    }

    fn heartbeat(&self, connection: &mut Connection) -> Result<(), Unserved> {
        let request = heartbeat::HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.as_str().into(),
            ..Default::default()
        };
        let frame = connection.ask(2, &request)?;
        let decoded = frame::decode_response_of::<heartbeat::HeartbeatRequest>(&frame, 2);
        check(decoded.expect("an answer").1.error_code)
    }

    fn fetch(&self, connection: &mut Connection, offset: i64) -> Result<(), Unserved> {
        let request = fetch::FetchRequest {
            max_bytes: 1 << 20,
            topics: vec![fetch::FetchTopic {
                topic: TOPIC.into(),
                partitions: vec![fetch::FetchPartition {
                    fetch_offset: offset,
                    partition_max_bytes: 1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = connection.ask(6, &request)?;
        let decoded = frame::decode_response_of::<fetch::FetchRequest>(&frame, 6);
        let (_, answer) = decoded.expect("an answer");
        let data = &answer.responses[0].partitions[0];
        assert_eq!(data.error_code, 0, "offset {offset}");
        let is_there = matches!(&data.records, Records::Bytes(bytes) if !bytes.is_empty());
        assert!(is_there, "a record at {offset}");
        Ok(())
    }

    fn commit(&mut self, connection: &mut Connection, offset: i64) -> Result<(), Unserved> {
        let request = offset_commit::OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.as_str().into(),
            topics: vec![offset_commit::OffsetCommitRequestTopic {
                name: TOPIC.into(),
                partitions: vec![offset_commit::OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = connection.ask(5, &request)?;
        let decoded = frame::decode_response_of::<offset_commit::OffsetCommitRequest>(&frame, 5);
        check(decoded.expect("an answer").1.topics[0].partitions[0].error_code)?;
        self.committed = offset;
        self.position = Some(offset);
        Ok(())
    }

    /// A heartbeat, a record, a commit.
    fn consume(&mut self, connection: &mut Connection) -> Result<(), Unserved> {
        if self.id.is_empty() {
            self.join(connection)?;
        }
        let position = match self.position {
            Some(position) => position,
            None => self.find_position(connection)?,
        };
        self.heartbeat(connection)?;
        self.fetch(connection, position)?;
        self.commit(connection, position + 1)
    }
}

/// What main and the members share.
struct Progress {
    /// Counts the lives of the broker.
    life: AtomicUsize,
    /// In which life each group has consumed last.
    consumed_in: Vec<AtomicUsize>,
    is_over: AtomicBool,
}

/// Lets the members of some groups consume in turn; back come the members.
fn keep_consuming(address: SocketAddr, progress: &Progress, numbers: Vec<usize>) -> Vec<Member> {
    let member = |number: &usize| Member {
        group: format!("group-{number}"),
        ..Default::default()
    };
    let mut members: Vec<Member> = numbers.iter().map(member).collect();
    let mut connection = Connection {
        address,
        stream: None,
    };
    while !progress.is_over.load(Ordering::Acquire) {
        for (number, member) in numbers.iter().zip(&mut members) {
            let life = progress.life.load(Ordering::Acquire);
            match member.consume(&mut connection) {
                Ok(()) => progress.consumed_in[*number].store(life, Ordering::Release),
                // It is not known whether the last commit arrived.
                Err(Unserved::Disconnected) => member.position = None,
                Err(Unserved::NotYet) => {}
                Err(Unserved::Rejoin) => {
                    member.id.clear();
                    member.position = None;
                }
            }
            std::thread::yield_now();
        }
    }
    members
}

fn start(data: &std::path::Path, address: &str) -> Broker {
    let listen = format!("listeners.client={address}");
    let delay = "group.initial.rebalance.delay.ms=0";
    Broker::start(data, &["--cores", "2", "--set", delay, "--set", &listen])
}

fn prepare(broker: &Broker) {
    let mut client = broker.connect();
    client.create_topic(TOPIC, 1, &[]);
    for _ in 0..RECORDS / 100 {
        let batch = batch(&vec![b"value".to_vec(); 100]);
        let answer = client.ask(7, &produce_request(TOPIC, 0, -1, &batch));
        assert_eq!(produced(&answer, 7).0, 0);
    }
    let request = find_coordinator::FindCoordinatorRequest {
        key: "group-0".into(),
        ..Default::default()
    };
    let frame = client.ask(2, &request);
    let decoded = frame::decode_response_of::<find_coordinator::FindCoordinatorRequest>(&frame, 2);
    assert_eq!(decoded.expect("an answer").1.error_code, 0);
}

#[test]
fn a_thousand_groups_go_on_after_kill_9_of_their_coordinator() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = start(data.path(), "127.0.0.1:0");
    let address = broker.address;
    prepare(&broker);
    let mut broker = Some(broker);
    let progress = Progress {
        life: AtomicUsize::new(1),
        consumed_in: (0..GROUPS).map(|_| AtomicUsize::new(0)).collect(),
        is_over: AtomicBool::new(false),
    };
    let wait_for_all = |life: usize| {
        let begun = Instant::now();
        for consumed_in in &progress.consumed_in {
            until("every group consumes", || {
                std::thread::yield_now();
                (consumed_in.load(Ordering::Acquire) >= life).then_some(())
            });
        }
        begun.elapsed()
    };
    let members: Vec<Member> = std::thread::scope(|scope| {
        let progress = &progress;
        let of = |first| (first..GROUPS).step_by(CONNECTIONS).collect();
        let all: Vec<_> = (0..CONNECTIONS)
            .map(|first| scope.spawn(move || keep_consuming(address, progress, of(first))))
            .collect();
        println!("{GROUPS} groups consume after {:?}", wait_for_all(1));
        for life in 2..2 + RESTARTS {
            broker.take().expect("runs").kill();
            let killed = Instant::now();
            progress.life.store(life, Ordering::Release);
            broker = Some(start(data.path(), &address.to_string()));
            let ready = killed.elapsed();
            let waited = wait_for_all(life);
            println!("ready {ready:?} after kill -9, all groups consume {waited:?} later");
        }
        progress.is_over.store(true, Ordering::Release);
        let ended = all.into_iter().map(|one| one.join().expect("no panic"));
        ended.flatten().collect()
    });
    let joins: usize = members.iter().map(|member| member.joins).sum();
    println!("{joins} joins of {GROUPS} members");
    assert_eq!(joins, GROUPS, "a restart is no reason to join again");
    let mut connection = Connection {
        address,
        stream: None,
    };
    for mut member in members {
        let found = member.find_position(&mut connection).expect("served");
        assert_eq!(found, member.committed, "{}", member.group);
    }
    assert_eq!(broker.expect("runs").stop(), Some(0));
}
