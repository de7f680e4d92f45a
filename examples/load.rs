//! A first figure: produces batches as fast as the broker acknowledges them and tells MB/s and the
//! broker's CPU seconds per GB and per million requests.
//!
//! ```text
//! cargo run --release --example load -- 127.0.0.1:9092 BROKER_PID [BATCH_BYTES] [CONNECTIONS] [SECONDS]
//! ```
//! Closed loop with five requests in flight per connection, one record per batch, acks=all, one topic
//! of as many partitions as connections. Bytes are counted when they are acknowledged, CPU is the
//! user and system time of the broker's process between the first and the last acknowledgement.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use percolog::wire::codec::{Records, Writer};
use percolog::wire::frame;
use percolog::wire::messages::{create_topics, produce};
use percolog::wire::record_batch_builder::{BatchBuilder, BatchOptions};

const IN_FLIGHT: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize, default: u64| {
        arguments
            .get(index)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let address = arguments.get(1).expect("HOST:PORT of the broker").clone();
    let pid = number(2, 0);
    let batch_bytes = number(3, 1 << 20) as usize;
    let connections = number(4, 1) as i32;
    let seconds = number(5, 10);
    let topic = format!("load-{}", std::process::id());
    create_topic(&address, &topic, connections);
    let (cpu_before, started) = (cpu_seconds(pid), Instant::now());
    let deadline = started + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..connections)
        .map(|partition| {
            let (address, topic) = (address.clone(), topic.clone());
            std::thread::spawn(move || produce(&address, &topic, partition, batch_bytes, deadline))
        })
        .collect();
    let requests: u64 = workers
        .into_iter()
        .map(|worker| worker.join().expect("no broken connection"))
        .sum();
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(pid) - cpu_before;
    let bytes = requests as f64 * batch_bytes as f64;
    println!(
        "{batch_bytes} B x {connections}: {:.0} MB/s, {:.0} requests/s, {:.3} CPU s/GB, {:.2} CPU s per million",
        bytes / elapsed / 1e6,
        requests as f64 / elapsed,
        cpu / (bytes / 1e9),
        cpu / (requests as f64 / 1e6)
    );
}

fn create_topic(address: &str, name: &str, partitions: i32) {
    let topic = create_topics::CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: vec![create_topics::CreatableTopicConfig {
            name: "max.message.bytes".into(),
            value: Some("4194304".into()),
        }],
        ..Default::default()
    };
    let request = create_topics::CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    let mut writer = Writer::new();
    frame::encode_request(&mut writer, 5, 1, Some("load"), &request);
    stream.write_all(&writer.into_parts().0).expect("sent");
    receive(&mut stream);
}

/// Requests acknowledged until the deadline.
fn produce(
    address: &str,
    name: &str,
    partition: i32,
    batch_bytes: usize,
    deadline: Instant,
) -> u64 {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_nodelay(true).expect("a socket");
    // Bytes that no codec and no cache line has seen twice in a row.
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let value: Vec<u8> = (0..batch_bytes / 8 + 1)
        .flat_map(|_| next())
        .take(batch_bytes)
        .collect();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1_700_000_000_000, None, Some(&value), [].into_iter());
    let batch = builder.finish();
    let data = produce::PartitionProduceData {
        index: partition,
        records: Records::Bytes((&batch[..]).into()),
    };
    let topic = produce::TopicProduceData {
        name: name.into(),
        partition_data: vec![data],
        ..Default::default()
    };
    let request = produce::ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    let mut writer = Writer::new();
    frame::encode_request(&mut writer, 7, 1, Some("load"), &request);
    let bytes = writer.into_parts().0;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < sent || Instant::now() < deadline {
        while sent < acknowledged + IN_FLIGHT as u64 && Instant::now() < deadline {
            stream.write_all(&bytes).expect("sent");
            sent += 1;
        }
        let answer = receive(&mut stream);
        let (_, answer) = frame::decode_response_of::<produce::ProduceRequest>(&answer, 7)
            .expect("an answer to Produce");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
        acknowledged += 1;
    }
    acknowledged
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut frame = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).expect("a whole answer");
    frame
}

/// User and system time of a process.
fn cpu_seconds(pid: u64) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0.0;
    };
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap_or(0))
        .sum();
    // USER_HZ is 100 on every Linux that matters here.
    ticks as f64 / 100.0
}
