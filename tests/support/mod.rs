//! A real broker process and a bare client, for tests against the binary.
#![allow(dead_code)] // Every test binary uses a part of it.

pub(crate) mod cluster;
pub(crate) mod copier;
pub(crate) mod numbers;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use percolog::wire::codec::{Records, Writer};
use percolog::wire::frame;
use percolog::wire::message::{Message, Request};
use percolog::wire::messages::{create_topics, fetch, metadata, produce};
use percolog::wire::record_batch::Batches;
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// Long enough for a slow machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// What it writes to stderr, line by line, and then its end.
    lines: Receiver<String>,
    /// What was taken from there so far.
    said: RefCell<String>,
}

impl Broker {
    /// Starts a broker on its own ports and waits until it is ready.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Broker {
        Broker::try_start(data, arguments).unwrap_or_else(|error| panic!("no broker: {error}"))
    }

    /// Starts a broker, or gives what it said on stderr.
    pub(crate) fn try_start(data: &Path, arguments: &[&str]) -> Result<Broker, String> {
        let mut child = command(data, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || drain(stderr, &sender));
        let ready = stdout.lines().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("percolog ready ")
                .map(|address| address.parse().expect("an address"))
        });
        match ready {
            Some(address) => Ok(Broker {
                child,
                address,
                lines,
                said: RefCell::default(),
            }),
            None => {
                let _ = child.wait();
                Err(lines.iter().collect())
            }
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("still running");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let told = Command::new("kill")
            .arg(self.pid().to_string())
            .status()
            .expect("kill exists");
        assert!(told.success());
        self.child.wait().expect("a child").code()
    }

    /// Tells it to stop; the exit code and what it wrote to stderr.
    pub(crate) fn stop_and_tell(self) -> (Option<i32>, String) {
        let mut kill = Command::new("kill");
        let told = kill.arg(self.pid().to_string()).status();
        assert!(told.expect("kill exists").success());
        self.end()
    }

    /// Waits until it has ended by itself; the exit code and what it wrote to stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let said = loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.get_mut().push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break self.said.take(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        };
        (self.child.wait().expect("a child").code(), said)
    }

    /// Waits until it has written this to stderr.
    pub(crate) fn wait_until_said(&self, text: &str) {
        let mut said = self.said.borrow_mut();
        while !said.contains(text) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.push_str(&line),
                Err(error) => panic!("{error}: {text} is not in {said}"),
            }
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("has memory");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        kib * 1024
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_percolog"));
    command
        .args([
            "serve",
            "--set",
            "listeners.client=127.0.0.1:0",
            "--set",
            "listeners.admin=",
            "--data-dir",
        ])
        .arg(data)
        .args([
            "--set",
            "cores.pin=false",
            "--set",
            "storage.journal_bytes=33554432",
        ])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Reads to the end, also when nobody listens any more: the broker must never wait for a reader.
fn drain(stderr: ChildStderr, lines: &Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let _ = lines.send(line + "\n");
    }
}

/// One connection that speaks in our own messages.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream,
            correlation_id: 0,
        }
    }

    /// Sends a request and gives its correlation id.
    pub(crate) fn send<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        let mut writer = Writer::new();
        frame::encode_request(
            &mut writer,
            version,
            self.correlation_id,
            Some("test"),
            request,
        );
        let (head, gaps) = writer.into_parts();
        assert!(gaps.is_empty());
        self.stream.write_all(&head).expect("the broker reads");
        self.correlation_id
    }

    /// Receives one frame without its length; None when the broker closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        if let Err(error) = self.stream.read_exact(&mut length) {
            use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
            assert!(
                matches!(error.kind(), UnexpectedEof | ConnectionReset),
                "{error}"
            );
            return None;
        }
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).expect("a whole answer");
        Some(frame)
    }

    /// Sends a request and gives the frame of its answer.
    pub(crate) fn ask<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> Vec<u8> {
        let sent = self.send(version, request);
        let frame = self.receive().expect("an answer");
        assert_eq!(frame[..4], sent.to_be_bytes(), "answers come in order");
        frame
    }

    /// Creates a topic.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let config = |(name, value): &(&str, &str)| create_topics::CreatableTopicConfig {
            name: name.to_string().into(),
            value: Some(value.to_string().into()),
        };
        let topic = create_topics::CreatableTopic {
            name: name.to_string().into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = create_topics::CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let frame = self.ask(5, &request);
        let (_, answer) =
            frame::decode_response_of::<create_topics::CreateTopicsRequest>(&frame, 5)
                .expect("an answer");
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    }

    /// Whether the broker still answers.
    pub(crate) fn is_served(&mut self) -> bool {
        let request = metadata::MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let frame = self.ask(5, &request);
        frame::decode_response_of::<metadata::MetadataRequest>(&frame, 5)
            .is_ok_and(|(_, answer)| answer.brokers.len() == 1)
    }
}

/// Asks again until the answer is the one waited for.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
    }
}

/// A batch with one record per value.
pub(crate) fn batch(values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.append(1_700_000_000_000, None, Some(value), [].into_iter());
    }
    builder.finish()
}

/// A Produce of one batch.
pub(crate) fn produce_request<'a>(
    topic: &'a str,
    partition: i32,
    acks: i16,
    batch: &'a [u8],
) -> produce::ProduceRequest<'a> {
    let data = produce::PartitionProduceData {
        index: partition,
        records: Records::Bytes(batch),
    };
    let topic = produce::TopicProduceData {
        name: topic.into(),
        partition_data: vec![data],
        ..Default::default()
    };
    produce::ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

/// The error code and base offset of an answer to [`produce_request`].
pub(crate) fn produced(frame: &[u8], version: i16) -> (i16, i64) {
    let (_, answer) =
        frame::decode_response_of::<produce::ProduceRequest>(frame, version).expect("an answer");
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Every record of a partition by offset; the error code of a Fetch, if there was one.
pub(crate) fn read_all(
    client: &mut Client,
    topic: &str,
    partition: i32,
) -> Result<Vec<(i64, Vec<u8>)>, i16> {
    let mut records: Vec<(i64, Vec<u8>)> = Vec::new();
    loop {
        let next = records.last().map_or(0, |(offset, _)| offset + 1);
        let wanted = fetch::FetchPartition {
            partition,
            fetch_offset: next,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let request = fetch::FetchRequest {
            max_bytes: 8 << 20,
            topics: vec![fetch::FetchTopic {
                topic: topic.into(),
                partitions: vec![wanted],
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = client.ask(6, &request);
        let (_, answer) =
            frame::decode_response_of::<fetch::FetchRequest>(&frame, 6).expect("an answer");
        let data = &answer.responses[0].partitions[0];
        if data.error_code != 0 {
            return Err(data.error_code);
        }
        let before = records.len();
        if let Records::Bytes(bytes) = &data.records {
            for batch in Batches::new(bytes).map_while(Result::ok) {
                batch.verify_checksum().expect("stored batches are whole");
                let base = batch.header().base_offset;
                for record in batch.records().expect("uncompressed") {
                    let record = record.expect("whole");
                    let value = record.value.expect("a value").to_vec();
                    records.push((base + i64::from(record.offset_delta), value));
                }
            }
        }
        if records.len() == before {
            return Ok(records);
        }
    }
}

/// Bytes of a message without header and length.
pub(crate) fn body<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    message.to_bytes(version)
}
