//! A file system that stops under load, as at a loss of power: ext4 on a loop device is shut down
//! while producers wait for acknowledgements, mounted again, and read. Where such a disk cannot be
//! made (it takes root) the test says so and passes.
//!
//! What was written around the page cache stays here as it does not after a real loss of power; the
//! simulated disk loses that too. This shows what the file system does to names, sizes and blocks.
//!
//! `PERCOLOG_SEED` repeats one seed.

mod loop_disk;
mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use loop_disk::{LoopDisk, Shutdown};
use percolog::wire::codec::Writer;
use percolog::wire::frame;
use support::{Broker, Client, batch, produce_request, produced, read_all, until};

const TOPIC: &str = "loss";
const PARTITIONS: i32 = 8;
const ROUNDS: usize = 6;
const STORAGE_ERROR: i16 = 56;

fn value(number: u64, size_bytes: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(size_bytes.max(8), number as u8);
    value
}

/// What a producer of one partition learned: how many records of all its lives were sent, and how
/// many of them acknowledged.
struct Sent {
    sent: u64,
    acknowledged: u64,
}

/// Produces one record after the other, numbered from `first`, until the broker cannot take one.
/// Sizes are such that records travel in the journal, or straight to segments, or both.
fn produce_until_failure(
    address: SocketAddr,
    partition: i32,
    first: u64,
    seed: u64,
    all_acknowledged: &AtomicU64,
) -> Sent {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(address);
    let mut number = first;
    loop {
        let most = [200, 5000, 70_000, 300_000][random.usize(..4)];
        let batch = batch(&[value(number, random.usize(..most))]);
        let request = produce_request(TOPIC, partition, -1, &batch);
        let mut writer = Writer::new();
        frame::encode_request(&mut writer, 7, 1, Some("test"), &request);
        number += 1;
        let answer = match client.stream.write_all(&writer.into_parts().0) {
            Ok(()) => client.receive(),
            Err(_) => None,
        };
        let code = answer.map(|frame| produced(&frame, 7));
        match code {
            Some((0, offset)) => assert_eq!(offset.cast_unsigned(), number - 1),
            Some((STORAGE_ERROR, _)) | None => {
                return Sent {
                    sent: number,
                    acknowledged: number - 1,
                };
            }
            Some((code, _)) => panic!("error {code}"),
        }
        all_acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// The records of a partition are those that were sent to it, in order, as far as at least the
/// acknowledged ones; how many there are.
fn check_sent(client: &mut Client, partition: i32, sent: &Sent) -> u64 {
    let found = read_all(client, TOPIC, partition);
    let found = found.unwrap_or_else(|code| panic!("partition {partition}: error {code}"));
    for (index, (offset, value)) in found.iter().enumerate() {
        let number = (index as u64).to_be_bytes();
        assert_eq!((*offset, &value[..8]), (index as i64, &number[..]));
        let fill = value[8..].iter().all(|byte| *byte == index as u8);
        assert!(fill, "partition {partition} at {offset}");
    }
    let count = found.len() as u64;
    assert!(
        (sent.acknowledged..=sent.sent).contains(&count),
        "partition {partition} has {count} records, {} were acknowledged and {} sent",
        sent.acknowledged,
        sent.sent
    );
    count
}

#[test]
fn everything_acknowledged_survives_a_file_system_that_stops_under_load() {
    let mut disk = match LoopDisk::new(768 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("SKIPPED, no disk on a loop device can be made here: {reason}");
            return;
        }
    };
    let seed = std::env::var("PERCOLOG_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("PERCOLOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let arguments = ["--cores", "2", "--set", "log.segment.bytes=1048576"];
    let mut counts = [0; PARTITIONS as usize];
    let mut broker = Broker::start(&disk.path(), &arguments);
    broker.connect().create_topic(TOPIC, PARTITIONS, &[]);
    for round in 0..ROUNDS {
        let wanted = random.u64(50..600);
        let all_acknowledged = AtomicU64::new(0);
        let address = broker.address;
        let sent: Vec<Sent> = std::thread::scope(|scope| {
            let produce = |(partition, first): (usize, &u64)| {
                let (seed, first, count) = (random.u64(..), *first, &all_acknowledged);
                scope.spawn(move || {
                    produce_until_failure(address, partition as i32, first, seed, count)
                })
            };
            let producers: Vec<_> = counts.iter().enumerate().map(produce).collect();
            until("enough is acknowledged", || {
                std::thread::yield_now();
                (all_acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())
            });
            disk.shut_down_with(match round % 3 {
                0 => Shutdown::WithJournal,
                _ => Shutdown::WithoutJournal,
            });
            let sent = producers.into_iter().map(|producer| producer.join());
            sent.map(|sent| sent.expect("no wrong answer")).collect()
        });
        broker.kill();
        disk.unmount();
        disk.mount();
        broker = Broker::start(&disk.path(), &arguments);
        let mut client = broker.connect();
        for (partition, sent) in sent.iter().enumerate() {
            counts[partition] = check_sent(&mut client, partition as i32, sent);
        }
        println!("round {round}: {} records", counts.iter().sum::<u64>());
    }
    assert_eq!(broker.stop(), Some(0));
}
