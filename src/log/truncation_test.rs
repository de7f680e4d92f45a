//! What a log remembers of its producers after it was cut, on the simulated disk: always what Kafka
//! would read out of the batches that are left.

use std::rc::Rc;
use std::time::Duration;

use super::one_log::{open_one, recovered};
use super::partition_log::{LogSettings, PartitionLog};
use super::position::{LeaderEpoch, Offset};
use super::power_cut_history::SETTINGS;
use super::producer_state::{MarkerCheck, ProducerState, SequenceCheck};
use super::recovery::RecoveredCore;
use super::transactions::Transactions;
use crate::runtime::clock;
use crate::runtime::random::random_u64;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;
use crate::wire::record_batch::{BatchHeader, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use crate::wire::transaction_marker::TransactionMarker;

/// More producers than one step of a truncation may bring back.
const MANY: LogSettings = LogSettings {
    producers_max: 1000,
    ..SETTINGS
};

/// A batch of a producer: id, epoch, first sequence and number of records.
fn batch(producer: (i64, i16), sequence: i32, records: i32) -> (BatchHeader, Vec<u8>) {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence: sequence,
        ..BatchOptions::default()
    });
    for _ in 0..records {
        let value = random_u64().to_le_bytes().repeat(20);
        builder.append(77, None, Some(&value), [].into_iter());
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

async fn append(log: &Rc<PartitionLog>, producer: (i64, i16), sequence: i32, records: i32) {
    append_as(false, log, producer, sequence, records).await;
}

async fn append_as(
    is_transactional: bool,
    log: &Rc<PartitionLog>,
    producer: (i64, i16),
    sequence: i32,
    records: i32,
) {
    let (header, payload) = batch(producer, sequence, records);
    let header = BatchHeader {
        attributes: header.attributes.with_transactional(is_transactional),
        ..header
    };
    let header = BatchHeader {
        crc: header.checksum(&payload),
        ..header
    };
    assert_eq!(log.check_sequence(&header), SequenceCheck::Append);
    let size = HEADER_BYTES + payload.len();
    log.ready(size, i64::from(records), 77)
        .await
        .expect("healthy");
    log.append(&header, &payload, LeaderEpoch(1));
}

/// Ends a producer's transaction, if it may be ended so.
async fn end(log: &Rc<PartitionLog>, marker: TransactionMarker) {
    if log.check_marker(&marker) != MarkerCheck::Append {
        return;
    }
    let bytes = marker.batch(78);
    log.ready(bytes.len(), 1, 78).await.expect("healthy");
    let header = BatchHeader::parse(&bytes).expect("just built");
    log.append(&header, &bytes[HEADER_BYTES..], LeaderEpoch(1));
}

async fn batches(log: &Rc<PartitionLog>) -> Vec<(BatchHeader, Option<TransactionMarker>)> {
    let mut headers = Vec::new();
    let (mut at, end) = (log.start_offset(), log.end_offset());
    while at < end {
        let run = log.read(at, end, 20_000, true).await.expect("healthy");
        let bytes: Vec<u8> = run.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for batch in Batches::new(&bytes).map_while(Result::ok) {
            let marker = TransactionMarker::parse(batch.header(), batch.payload());
            headers.push((*batch.header(), marker.expect("whole")));
            at = Offset(batch.header().last_offset() + 1);
        }
    }
    headers
}

/// What the batches of a log say about its producers and their transactions.
async fn told_by_batches(log: &Rc<PartitionLog>) -> (ProducerState, Transactions) {
    let mut state = ProducerState::default();
    let mut transactions = Transactions::default();
    for (header, marker) in batches(log).await {
        let at = Offset(header.base_offset);
        transactions.note(&mut state, &header, at, marker.as_ref());
    }
    (state, transactions)
}

fn remembered(log: &PartitionLog) -> (ProducerState, Transactions) {
    let producers = log.with_producers(|producers| producers.clone());
    (producers, log.with_transactions(Transactions::clone))
}

#[test]
fn a_producer_whose_remembered_batches_are_all_cut_off_is_known_from_those_before() {
    let world = World::new(1, DiskModel::new());
    let core = recovered(&world);
    let ran = world.run(async move {
        let (directory, log) = open_one(core, MANY).await;
        // Sixteen batches of two, over several segments; seven of them go.
        for number in 0..16 {
            append(&log, (9, 0), number * 2, 2).await;
            for other in 0..10 {
                append(&log, (-1, -1), -1, 1 + other).await;
            }
        }
        append(&log, (8, 0), 0, 1).await;
        log.truncate(Offset(9 * 57)).await.expect("cut");
        assert_eq!(log.end_offset(), Offset(9 * 57));
        let check = |sequence| log.check_sequence(&batch((9, 0), sequence, 2).0);
        assert_eq!(check(30), SequenceCheck::OutOfOrder, "a gap");
        assert_eq!(check(18), SequenceCheck::Append);
        for known in 4..9 {
            let judged = check(known * 2);
            assert!(
                matches!(judged, SequenceCheck::Duplicate(batch) if batch.base_offset.0 == i64::from(known) * 57),
                "{known}: {judged:?}"
            );
        }
        let unknown = log.check_sequence(&batch((8, 0), 40, 1).0);
        assert_eq!(unknown, SequenceCheck::Append, "nothing of it is left");
        assert_eq!(remembered(&log), told_by_batches(&log).await);
        directory.shut_down().await;
    });
    ran.expect("no cut is due");
}

#[test]
fn after_a_cut_into_the_first_batch_of_an_epoch_the_epoch_before_counts() {
    let world = World::new(2, DiskModel::new());
    let core = recovered(&world);
    let ran = world.run(async move {
        let (_directory, log) = open_one(core, MANY).await;
        for number in 0..7 {
            append(&log, (9, 3), number, 1).await;
        }
        append(&log, (9, 4), 0, 1).await;
        log.truncate(Offset(7)).await.expect("cut");
        let check = |epoch, sequence| log.check_sequence(&batch((9, epoch), sequence, 1).0);
        assert_eq!(check(3, 7), SequenceCheck::Append);
        assert_eq!(check(3, 8), SequenceCheck::OutOfOrder);
        assert_eq!(check(2, 0), SequenceCheck::FencedEpoch);
        assert_eq!(check(4, 0), SequenceCheck::Append);
        assert_eq!(remembered(&log), told_by_batches(&log).await);
    });
    ran.expect("no cut is due");
}

#[test]
fn more_producers_than_a_group_of_the_journal_holds_are_brought_back_in_steps() {
    let world = World::new(3, DiskModel::new());
    let core = recovered(&world);
    let ran = world.run(async move {
        let (directory, log) = open_one(core, MANY).await;
        for turn in 0..7 {
            for producer in 0..300 {
                append(&log, (producer, 0), turn, 1).await;
            }
        }
        log.truncate(Offset(350)).await.expect("cut");
        assert_eq!(log.end_offset(), Offset(350));
        assert_eq!(remembered(&log).0.len(), 300);
        assert_eq!(remembered(&log), told_by_batches(&log).await);
        directory.shut_down().await;
    });
    ran.expect("no cut is due");
    let world = World::new(4, world.disk_after_exit());
    let core = recovered(&world);
    let ran = world.run(async move {
        let (_directory, log) = open_one(core, MANY).await;
        assert_eq!(remembered(&log), told_by_batches(&log).await);
    });
    ran.expect("no cut is due");
}

/// Appends by producers that start anew now and then, cuts and checkpoints.
async fn live(core: RecoveredCore) {
    let (directory, log) = open_one(core, MANY).await;
    let mut random = fastrand::Rng::with_seed(random_u64());
    for _ in 0..random.usize(..150) {
        match random.u8(..40) {
            0 => directory.ask_for_checkpoint(),
            1 => clock::sleep(Duration::from_millis(random.u64(..30))).await,
            2 => {
                let span = log.end_offset().0 - log.start_offset().0;
                let back = random.i64(0..=span.min(60));
                let to = Offset(log.end_offset().0 - back);
                log.truncate(to).await.expect("healthy");
                assert_eq!(remembered(&log), told_by_batches(&log).await);
            }
            3..9 => {
                let id = 2 * random.i64(0..6) + 1;
                let epoch = next_sequence(&log, id).map_or(0, |(epoch, _)| epoch);
                let marker = TransactionMarker {
                    producer_id: id,
                    producer_epoch: epoch + random.i16(0..2),
                    coordinator_epoch: random.i32(0..4),
                    commit: random.bool(),
                };
                end(&log, marker).await;
            }
            _ => {
                let id = random.i64(0..12);
                let known = next_sequence(&log, id);
                let (mut epoch, mut sequence) = known.unwrap_or((0, random.i32(0..3)));
                if random.u8(..20) == 0 {
                    (epoch, sequence) = (epoch + 1, 0);
                }
                // Those with odd ids are transactional.
                let records = random.i32(1..3);
                append_as(id % 2 == 1, &log, (id, epoch), sequence, records).await;
            }
        }
    }
    if random.bool() {
        directory.shut_down().await;
    }
}

/// Epoch and next sequence of a producer.
fn next_sequence(log: &PartitionLog, id: i64) -> Option<(i16, i32)> {
    log.with_producers(|producers| {
        let mut outlines = producers.outlines();
        let known = outlines.find(|known| known.producer_id == id)?;
        Some((known.epoch, known.last_sequence + 1))
    })
}

#[test]
fn a_transaction_whose_marker_is_cut_off_is_open_again() {
    let world = World::new(5, DiskModel::new());
    let core = recovered(&world);
    let ran = world.run(async move {
        let (_directory, log) = open_one(core, MANY).await;
        let marker = |commit| TransactionMarker {
            producer_id: 9,
            producer_epoch: 0,
            coordinator_epoch: 2,
            commit,
        };
        append_as(true, &log, (9, 0), 0, 1).await;
        end(&log, marker(false)).await;
        for sequence in 1..40 {
            append_as(true, &log, (9, 0), sequence, 1).await;
        }
        end(&log, marker(true)).await;
        append_as(true, &log, (9, 0), 40, 1).await;
        assert_eq!(
            log.last_stable_offset(log.end_offset()),
            Offset(42).min(log.end_offset())
        );
        log.truncate(Offset(30)).await.expect("cut");
        assert_eq!(log.last_stable_offset(Offset(30)), Offset(2));
        let aborted = log.aborted_between(Offset(0), Offset(30));
        assert_eq!(aborted.len(), 1, "the first one's marker is still there");
        assert_eq!(remembered(&log), told_by_batches(&log).await);
        log.truncate(Offset(1)).await.expect("cut");
        assert_eq!(log.last_stable_offset(Offset(1)), Offset(0));
        assert!(log.aborted_between(Offset(0), Offset(1)).is_empty());
        assert_eq!(remembered(&log), told_by_batches(&log).await);
    });
    ran.expect("no cut is due");
}

#[test]
fn producers_are_those_of_the_batches_left_wherever_the_power_is_cut() {
    let only = std::env::var("PERCOLOG_SEED").ok();
    let only: Option<u64> = only.and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..400, |seed| seed..seed + 1);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut disk = DiskModel::new();
        for life in 0..4 {
            let world = World::new(random.u64(..), disk);
            let core = recovered(&world);
            world.with_disk(|disk, _| disk.cut_after(random.u64(20..1200)));
            let ended = world.run(live(core));
            disk = match ended {
                Ok(()) if random.bool() => world.disk_after_exit(),
                _ => world.disk_after_power_cut(),
            };
            let world = World::new(random.u64(..), disk);
            let core = recovered(&world);
            let compared = world.run(async move {
                let (_directory, log) = open_one(core, MANY).await;
                (remembered(&log), told_by_batches(&log).await)
            });
            let (remembered, told) = compared.expect("no cut is due");
            assert_eq!(remembered, told, "PERCOLOG_SEED={seed} life {life}");
            disk = world.disk_after_exit();
        }
    }
}
