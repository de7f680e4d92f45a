//! A real broker process and a bare client, for tests against the binary.
#![allow(dead_code)] // Every test binary uses a part of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use percolog::wire::codec::{Records, Writer};
use percolog::wire::frame;
use percolog::wire::message::{Message, Request};
use percolog::wire::messages::{create_topics, metadata, produce};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// Long enough for a slow machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
}

impl Broker {
    /// Starts a broker on its own ports and waits until it is ready.
    pub fn start(data: &Path, arguments: &[&str]) -> Broker {
        Broker::try_start(data, arguments).unwrap_or_else(|error| panic!("no broker: {error}"))
    }

    /// Starts a broker, or gives what it said on stderr.
    pub fn try_start(data: &Path, arguments: &[&str]) -> Result<Broker, String> {
        let mut child = command(data, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");
        let said = std::thread::spawn(move || drain(stderr));
        let ready = stdout.lines().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("percolog ready ")
                .map(|address| address.parse().expect("an address"))
        });
        match ready {
            Some(address) => Ok(Broker { child, address }),
            None => {
                let _ = child.wait();
                Err(said.join().expect("reading does not panic"))
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("still running");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let told = Command::new("kill")
            .arg(self.pid().to_string())
            .status()
            .expect("kill exists");
        assert!(told.success());
        self.child.wait().expect("a child").code()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
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
    pub fn connect(&self) -> Client {
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

fn drain(mut stderr: ChildStderr) -> String {
    let mut said = String::new();
    let _ = stderr.read_to_string(&mut said);
    said
}

/// One connection that speaks in our own messages.
pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream,
            correlation_id: 0,
        }
    }

    /// Sends a request and gives its correlation id.
    pub fn send<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> i32 {
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
    pub fn receive(&mut self) -> Option<Vec<u8>> {
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
    pub fn ask<'a, R: Request<'a>>(&mut self, version: i16, request: &R) -> Vec<u8> {
        let sent = self.send(version, request);
        let frame = self.receive().expect("an answer");
        assert_eq!(frame[..4], sent.to_be_bytes(), "answers come in order");
        frame
    }

    /// Creates a topic.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
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
    pub fn is_served(&mut self) -> bool {
        let request = metadata::MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let frame = self.ask(5, &request);
        frame::decode_response_of::<metadata::MetadataRequest>(&frame, 5)
            .is_ok_and(|(_, answer)| answer.brokers.len() == 1)
    }
}

/// A batch with one record per value.
pub fn batch(values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.append(1_700_000_000_000, None, Some(value), [].into_iter());
    }
    builder.finish()
}

/// A Produce of one batch.
pub fn produce_request<'a>(
    topic: &'a str,
    partition: i32,
    acks: i16,
    batch: &'a [u8],
) -> produce::ProduceRequest<'a> {
    let data = produce::PartitionProduceData {
        index: partition,
        records: Records::Bytes(batch.into()),
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
pub fn produced(frame: &[u8], version: i16) -> (i16, i64) {
    let (_, answer) =
        frame::decode_response_of::<produce::ProduceRequest>(frame, version).expect("an answer");
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Bytes of a message without header and length.
pub fn body<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    message.to_bytes(version)
}
