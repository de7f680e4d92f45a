//! Hostile input against the real binary: each gets Kafka's error or a closed connection, and a
//! well-behaved client is still served.

mod support;

use std::io::{Read, Write};

use percolog::wire::codec::{Records, Writer};
use percolog::wire::error_code::ErrorCode;
use percolog::wire::frame;
use percolog::wire::messages::{api_versions, create_topics, fetch, metadata, produce};
use support::{Broker, Client, batch, produce_request, produced};

struct Stage {
    _data: tempfile::TempDir,
    broker: Broker,
}

impl Stage {
    fn set() -> Stage {
        Stage::with(&["--cores", "2"])
    }

    fn with(arguments: &[&str]) -> Stage {
        let data = tempfile::tempdir().expect("a temporary directory");
        let broker = Broker::start(data.path(), arguments);
        broker.connect().create_topic("hostile", 1, &[]);
        Stage {
            _data: data,
            broker,
        }
    }

    /// Sends bytes on a connection of their own and tells whether the broker closed it.
    fn is_closed_after(&self, bytes: &[u8]) -> bool {
        let mut client = self.broker.connect();
        client.stream.write_all(bytes).expect("the broker reads");
        client.receive().is_none()
    }

    fn assert_serves(&self) {
        let mut client = self.broker.connect();
        assert!(client.is_served());
        let good = batch(&[b"good".to_vec()]);
        let answer = client.ask(7, &produce_request("hostile", 0, -1, &good));
        assert_eq!(produced(&answer, 7).0, 0);
    }
}

/// Whether a connection is closed instead of answered.
fn is_refused(client: &mut Client) -> bool {
    let mut byte = [0];
    client.stream.write_all(&framed(&header(18, 0))).is_err()
        || client
            .stream
            .read(&mut byte)
            .map_or(true, |count| count == 0)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn header(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes
}

#[test]
fn frame_lengths_that_cannot_be() {
    let stage = Stage::set();
    for length in [-1, i32::MIN, 0, 3, i32::MAX, (100 << 20) + 1] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 8]);
        assert!(stage.is_closed_after(&bytes), "length {length}");
    }
    assert!(
        stage.is_closed_after(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        "HTTP on the Kafka port"
    );
    stage.assert_serves();
}

#[test]
fn unknown_keys_and_versions() {
    let stage = Stage::set();
    for (key, version) in [(4, 0), (999, 0), (-1, 0), (3, 99), (3, -1), (0, 2), (11, 0)] {
        assert!(
            stage.is_closed_after(&framed(&header(key, version))),
            "{key} v{version}"
        );
    }
    // ApiVersions of a later Kafka is answered in version 0 with what there is.
    let mut client = stage.broker.connect();
    client
        .stream
        .write_all(&framed(&header(18, 77)))
        .expect("the broker reads");
    let answer = client.receive().expect("an answer");
    let (_, versions) =
        frame::decode_response_of::<api_versions::ApiVersionsRequest>(&answer, 0).expect("v0");
    assert_eq!(versions.error_code, ErrorCode::UnsupportedVersion.code());
    assert!(versions.api_keys.iter().any(|api| api.api_key == 18));
    stage.assert_serves();
}

#[test]
fn counts_and_lengths_beyond_the_frame() {
    let stage = Stage::set();
    let huge = i32::MAX.to_be_bytes();
    let mut metadata = header(3, 1);
    metadata.extend_from_slice(&huge);
    let mut produce = header(0, 3);
    produce.extend_from_slice(&(-1i16).to_be_bytes());
    produce.extend_from_slice(&1i16.to_be_bytes());
    produce.extend_from_slice(&1000i32.to_be_bytes());
    produce.extend_from_slice(&huge);
    let mut flexible = header(3, 9);
    // An empty tag section of the header, then a compact array of 2^35 elements.
    flexible.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let before = stage.broker.resident_bytes();
    for body in [&metadata, &produce, &flexible] {
        assert!(stage.is_closed_after(&framed(body)));
    }
    assert!(
        stage.broker.resident_bytes() < before + (16 << 20),
        "no length allocates"
    );
    stage.assert_serves();
}

#[test]
fn five_hundred_announcements_of_a_hundred_megabytes() {
    let stage = Stage::set();
    let before = stage.broker.resident_bytes();
    let mut liars = Vec::new();
    for _ in 0..500 {
        let mut client = stage.broker.connect();
        let mut bytes = (100i32 << 20).to_be_bytes().to_vec();
        bytes.extend_from_slice(&header(0, 7));
        bytes.resize(1024, 0);
        client.stream.write_all(&bytes).expect("the broker reads");
        liars.push(client);
    }
    stage.assert_serves();
    let grown = stage.broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for 500 KiB received");
    drop(liars);
    stage.assert_serves();
}

/// A lie, the batch that tells it, and the codes that are an answer to it.
type Lie = (&'static str, Vec<u8>, Vec<ErrorCode>);

const INVALID: [ErrorCode; 2] = [ErrorCode::InvalidRecord, ErrorCode::CorruptMessage];

fn honest() -> Vec<u8> {
    batch(&[b"one".to_vec(), b"two".to_vec()])
}

fn edited(at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = honest();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// The same with a checksum that fits.
fn sealed(at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = edited(at, new);
    let checksum = percolog::wire::checksum::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Lies about the frame of the batch.
fn crude_lies() -> Vec<Lie> {
    let lie = |name, bytes| (name, bytes, INVALID.to_vec());
    let cut = honest().len() - 3;
    vec![
        (
            "bad checksum",
            edited(30, &[0xff]),
            vec![ErrorCode::CorruptMessage],
        ),
        lie("magic 1", edited(16, &[1])),
        lie("magic 0", edited(16, &[0])),
        lie("length past the end", edited(8, &100_000i32.to_be_bytes())),
        lie("negative length", edited(8, &(-5i32).to_be_bytes())),
        lie("two batches", [honest(), honest()].concat()),
        lie("a truncated batch", honest()[..cut].to_vec()),
        lie("empty", Vec::new()),
    ]
}

/// Lies under a checksum that fits.
fn careful_lies() -> Vec<Lie> {
    let lie = |name, bytes| (name, bytes, INVALID.to_vec());
    let also = |mut lie: Lie, code| {
        lie.2.push(code);
        lie
    };
    let far = (i64::MAX / 2).to_be_bytes();
    vec![
        lie("count too high", sealed(57, &9i32.to_be_bytes())),
        lie("count of 2^31-1", sealed(57, &i32::MAX.to_be_bytes())),
        lie("negative count", sealed(57, &(-1i32).to_be_bytes())),
        lie("last offset delta", sealed(23, &77i32.to_be_bytes())),
        lie("control batch", sealed(21, &0x20i16.to_be_bytes())),
        lie("not that codec", sealed(21, &4i16.to_be_bytes())),
        also(
            lie("the far future", sealed(27, &far)),
            ErrorCode::InvalidTimestamp,
        ),
        also(
            lie("codec 7", sealed(21, &7i16.to_be_bytes())),
            ErrorCode::UnsupportedCompressionType,
        ),
    ]
}

#[test]
fn batches_that_lie() {
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    for (lie, bytes, expected) in crude_lies().into_iter().chain(careful_lies()) {
        let answer = client.ask(7, &produce_request("hostile", 0, -1, &bytes));
        let (code, offset) = produced(&answer, 7);
        let expected: Vec<i16> = expected.iter().map(|code| code.code()).collect();
        assert!(expected.contains(&code), "{lie}: code {code}");
        assert_eq!(offset, -1, "{lie}");
    }
    stage.assert_serves();
}

#[test]
fn a_null_record_set_and_a_negative_length_are_answered() {
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    let mut request = produce_request("hostile", 0, -1, &[]);
    request.topic_data[0].partition_data[0].records = Records::Null;
    let answer = client.ask(7, &request);
    assert_eq!(produced(&answer, 7).0, ErrorCode::InvalidRecord.code());
    // The length of the records is the last field of the request in a version without tags.
    let mut writer = Writer::new();
    frame::encode_request(&mut writer, 7, 99, Some("test"), &request);
    let mut bytes = writer.into_parts().0;
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&(-77i32).to_be_bytes());
    client.stream.write_all(&bytes).expect("the broker reads");
    let answer = client
        .receive()
        .expect("an answer, where Kafka neither answers nor closes");
    assert_eq!(produced(&answer, 7).0, ErrorCode::InvalidRecord.code());
    stage.assert_serves();
}

#[test]
fn acks_that_do_not_exist_and_acks_0_that_fail() {
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    let good = batch(&[b"x".to_vec()]);
    let answer = client.ask(7, &produce_request("hostile", 0, 5, &good));
    assert_eq!(
        produced(&answer, 7).0,
        ErrorCode::InvalidRequiredAcks.code()
    );
    // A failed acks=0 has no answer that could carry an error: the connection goes.
    client.send(7, &produce_request("no-such-topic", 0, 0, &good));
    assert!(client.receive().is_none());
    stage.assert_serves();
}

#[test]
fn topic_names_that_are_none() {
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    let long = "x".repeat(250);
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
        "ä",
        long.as_str(),
        "__cluster_metadata",
    ] {
        let topic = create_topics::CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let request = create_topics::CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let frame = client.ask(5, &request);
        let (_, answer) =
            frame::decode_response_of::<create_topics::CreateTopicsRequest>(&frame, 5).expect("v5");
        assert_ne!(answer.topics[0].error_code, 0, "{name:?}");
    }
    stage.assert_serves();
}

#[test]
fn fetches_without_measure() {
    let stage = Stage::set();
    stage.assert_serves();
    let mut client = stage.broker.connect();
    let fetch = |partitions: i32, max_wait_ms: i32, min_bytes: i32, max_bytes: i32| {
        let partition = |partition| fetch::FetchPartition {
            partition,
            partition_max_bytes: max_bytes,
            ..Default::default()
        };
        let topic = fetch::FetchTopic {
            topic: "hostile".into(),
            partitions: (0..partitions).map(partition).collect(),
            ..Default::default()
        };
        fetch::FetchRequest {
            max_wait_ms,
            min_bytes,
            max_bytes,
            topics: vec![topic],
            ..Default::default()
        }
    };
    let answer = client.ask(6, &fetch(1, -1, i32::MAX, 0));
    let (_, answer) = frame::decode_response_of::<fetch::FetchRequest>(&answer, 6).expect("v6");
    let Records::Bytes(records) = &answer.responses[0].partitions[0].records else {
        panic!("the first batch comes whole whatever the limits: {answer:?}");
    };
    assert!(!records.is_empty());
    let answer = client.ask(6, &fetch(1, 0, 0, -1));
    assert!(frame::decode_response_of::<fetch::FetchRequest>(&answer, 6).is_ok());
    // 100,000 partitions are more than one request may name; whatever the answer, others are served.
    client.send(6, &fetch(100_000, 0, 0, 1000));
    let _ = client.receive();
    stage.assert_serves();
}

#[test]
fn answers_that_nobody_reads() {
    let stage = Stage::with(&["--cores", "1", "--set", "limits.pipelined_requests_max=64"]);
    let before = stage.broker.resident_bytes();
    let client = stage.broker.connect();
    client.stream.set_nonblocking(true).expect("a socket");
    let mut writer = Writer::new();
    let all = metadata::MetadataRequest {
        topics: None,
        ..Default::default()
    };
    frame::encode_request(&mut writer, 5, 1, Some("deaf"), &all);
    let request = writer.into_parts().0;
    let mut stream = client.stream;
    // Until the broker stops reading from somebody who does not read.
    let mut sent = 0;
    for _ in 0..100_000 {
        match stream.write(&request) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent > 0);
    stage.assert_serves();
    let grown = stage.broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for one deaf client");
}

#[test]
fn many_requests_in_flight_are_answered_in_order() {
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    let good = batch(&[b"x".to_vec()]);
    let mut sent = Vec::new();
    for round in 0..200 {
        sent.push(match round % 3 {
            0 => client.send(7, &produce_request("hostile", 0, -1, &good)),
            1 => client.send(3, &produce_request("hostile", 0, 1, &good)),
            _ => client.send(2, &metadata::MetadataRequest::default()),
        });
    }
    for correlation_id in sent {
        let answer = client.receive().expect("an answer");
        assert_eq!(answer[..4], correlation_id.to_be_bytes());
    }
    stage.assert_serves();
}

#[test]
fn connections_beyond_the_limit_of_an_address() {
    let stage = Stage::with(&["--cores", "1", "--set", "max.connections.per.ip=20"]);
    let mut held: Vec<Client> = (0..30).map(|_| stage.broker.connect()).collect();
    let refused = held
        .iter_mut()
        .filter_map(|client| is_refused(client).then_some(()));
    let refused = refused.count();
    // The connection that created the topic may still count.
    assert!(
        (10..=11).contains(&refused),
        "{refused} of 30 refused, 20 allowed"
    );
    drop(held);
    // The broker notices in its own time that they are gone; until then it goes on refusing.
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while is_refused(&mut stage.broker.connect()) {
        assert!(
            std::time::Instant::now() < deadline,
            "closed connections still count"
        );
    }
    stage.assert_serves();
}

#[test]
fn a_producer_that_guesses_sequences_is_refused() {
    use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};
    let stage = Stage::set();
    let mut client = stage.broker.connect();
    let mut send = |producer_epoch: i16, base_sequence: i32| {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: 4711,
            producer_epoch,
            base_sequence,
            ..Default::default()
        });
        builder.append(1_700_000_000_000, None, Some(b"v"), [].into_iter());
        let bytes = builder.finish();
        produced(
            &client.ask(7, &produce_request("hostile", 0, -1, &bytes)),
            7,
        )
    };
    assert_eq!(send(0, 0), (0, 0));
    assert_eq!(send(0, 1), (0, 1));
    assert_eq!(send(0, 0), (0, 0), "a retry gets the original's offset");
    assert_eq!(send(0, 7).0, ErrorCode::OutOfOrderSequenceNumber.code());
    assert_eq!(send(2, 5).0, ErrorCode::OutOfOrderSequenceNumber.code());
    assert_eq!(send(2, 0), (0, 2));
    assert_eq!(send(1, 0).0, ErrorCode::InvalidProducerEpoch.code());
    let _ = produce::ProduceRequest::default();
}
