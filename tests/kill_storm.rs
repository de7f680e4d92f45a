//! kill -9 in the middle of a stream of Produce requests, again and again: every acknowledged record
//! is there once, in order, and nothing that was never sent.

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use percolog::wire::codec::{Records, Writer};
use percolog::wire::frame;
use percolog::wire::messages::fetch;
use percolog::wire::record_batch::Batches;
use support::{Broker, Client, batch, produce_request, produced};

const KILLS: u64 = 30;
const PARTITIONS: i32 = 4;
const IN_FLIGHT: usize = 5;

/// What one life of the broker acknowledged: base offset and value by partition.
#[derive(Default)]
struct Acknowledged {
    records: Vec<(i32, i64, u64)>,
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    // Sizes that leave blocks ragged and now and then span chunks.
    value.resize(8 + (number % 17 * 731) as usize, number as u8);
    value
}

/// Produces until the connection breaks.
fn produce_until_killed(broker: &Broker, next: &mut u64, acked: &Arc<AtomicU64>) -> Acknowledged {
    let mut client = broker.connect();
    let mut acknowledged = Acknowledged::default();
    let mut in_flight = std::collections::VecDeque::new();
    loop {
        while in_flight.len() < IN_FLIGHT {
            let number = *next;
            *next += 1;
            let partition = (number % PARTITIONS as u64) as i32;
            let batch = batch(&[value(number)]);
            let request = produce_request("storm", partition, -1, &batch);
            let mut writer = Writer::new();
            frame::encode_request(&mut writer, 7, number as i32, Some("storm"), &request);
            if client.stream.write_all(&writer.into_parts().0).is_err() {
                return acknowledged;
            }
            in_flight.push_back((partition, number));
        }
        let Some(answer) = client.receive_or_broken() else {
            return acknowledged;
        };
        let (partition, number) = in_flight.pop_front().expect("sent");
        let (code, offset) = produced(&answer, 7);
        assert_eq!(code, 0);
        acknowledged.records.push((partition, offset, number));
        acked.fetch_add(1, Ordering::Relaxed);
    }
}

trait ReceiveOrBroken {
    fn receive_or_broken(&mut self) -> Option<Vec<u8>>;
}

impl ReceiveOrBroken for Client {
    fn receive_or_broken(&mut self) -> Option<Vec<u8>> {
        use std::io::Read;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame)
    }
}

/// Every record of a partition, as offset and number.
fn read_all(client: &mut Client, partition: i32) -> Vec<(i64, u64)> {
    let mut records = Vec::new();
    loop {
        let next = records.last().map_or(0, |(offset, _)| offset + 1);
        let wanted = fetch::FetchPartition {
            partition,
            fetch_offset: next,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topic = fetch::FetchTopic {
            topic: "storm".into(),
            partitions: vec![wanted],
            ..Default::default()
        };
        let request = fetch::FetchRequest {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 8 << 20,
            topics: vec![topic],
            ..Default::default()
        };
        let frame = client.ask(6, &request);
        let (_, answer) =
            frame::decode_response_of::<fetch::FetchRequest>(&frame, 6).expect("an answer");
        let data = &answer.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        let Records::Bytes(bytes) = &data.records else {
            return records;
        };
        let before = records.len();
        for batch in Batches::new(bytes) {
            let Ok(batch) = batch else { break };
            batch.verify_checksum().expect("stored batches are whole");
            let base = batch.header().base_offset;
            for record in batch.records().expect("uncompressed") {
                let record = record.expect("whole");
                let found = record.value.expect("a value");
                let number = u64::from_be_bytes(found[..8].try_into().expect("eight bytes"));
                assert_eq!(found, value(number), "a record as it was sent");
                records.push((base + i64::from(record.offset_delta), number));
            }
        }
        if records.len() == before {
            return records;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["--cores", "2", "--set", "log.segment.bytes=1048576"];
    let mut next = 0;
    let mut acknowledged = Acknowledged::default();
    let broker = Broker::start(data.path(), &arguments);
    broker.connect().create_topic("storm", PARTITIONS, &[]);
    let mut broker = broker;
    for kill in 0..KILLS {
        let acked = Arc::new(AtomicU64::new(0));
        let enough = 20 + (kill * 37) % 400;
        let pid = broker.pid();
        let watcher = {
            let acked = acked.clone();
            std::thread::spawn(move || {
                while acked.load(Ordering::Relaxed) < enough {
                    std::thread::yield_now();
                }
                let mut kill = std::process::Command::new("kill");
                let killed = kill.arg("-9").arg(pid.to_string()).status();
                assert!(killed.expect("kill exists").success());
            })
        };
        let life = produce_until_killed(&broker, &mut next, &acked);
        watcher.join().expect("killed");
        acknowledged.records.extend(life.records);
        drop(broker);
        broker = Broker::start(data.path(), &arguments);
    }
    let mut client = broker.connect();
    let mut found = 0;
    for partition in 0..PARTITIONS {
        let records = read_all(&mut client, partition);
        found += records.len();
        for (index, (offset, number)) in records.iter().enumerate() {
            assert_eq!(*offset, index as i64, "offsets are dense");
            assert_eq!(
                number % PARTITIONS as u64,
                partition as u64,
                "nothing goes astray"
            );
        }
        let in_order = records.windows(2).all(|pair| pair[0].1 < pair[1].1);
        assert!(in_order, "each record once, in the order sent");
        for (_, offset, number) in acknowledged
            .records
            .iter()
            .filter(|(p, ..)| *p == partition)
        {
            assert_eq!(
                records[*offset as usize],
                (*offset, *number),
                "acknowledged, so it is there"
            );
        }
    }
    println!(
        "{} acknowledged, {found} found, {KILLS} kills",
        acknowledged.records.len()
    );
    assert_eq!(broker.stop(), Some(0));
}
