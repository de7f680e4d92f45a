//! Transactions in one partition, on the simulated disk.

use std::rc::Rc;

use super::replica::{AppendRefusal, AppendTerms, Placed, Replica};
use super::verification::{Verification, VerificationGuard};
use crate::log::one_log::{KEEPING, open_one, recovered};
use crate::log::partition_log::{LogError, LogSettings};
use crate::log::position::Offset;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;
use crate::wire::record_batch::{BatchHeader, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use crate::wire::transaction_marker::TransactionMarker;

type Batch = (BatchHeader, Vec<u8>);

/// One record of a producer: id, epoch and sequence.
fn batch(producer: (i64, i16), sequence: i32, is_transactional: bool) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence: sequence,
        is_transactional,
        ..BatchOptions::default()
    });
    builder.append(50, Some(b"key"), Some(b"value"), [].into_iter());
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

fn transactional(producer: (i64, i16), sequence: i32) -> Batch {
    batch(producer, sequence, true)
}

async fn append(
    replica: &Replica,
    (header, payload): &Batch,
    guard: Option<VerificationGuard>,
) -> Result<Placed, AppendRefusal> {
    let terms = AppendTerms {
        guard,
        bumps_epochs: false,
    };
    let turn = replica.take_turn();
    replica.append(turn, header, payload, terms).await
}

/// The guard that a batch needs.
fn guard(replica: &Replica, batch: &Batch) -> Option<VerificationGuard> {
    replica.verification(&batch.0).guard()
}

/// Appends a batch that the coordinator vouches for; its offset once it is committed.
async fn write(replica: &Replica, batch: &Batch) -> i64 {
    let guard = guard(replica, batch);
    let placed = append(replica, batch, guard).await.expect("it follows");
    replica.committed(placed.end).await.expect("healthy");
    placed.base_offset.0
}

fn marker(producer: (i64, i16), commit: bool) -> TransactionMarker {
    TransactionMarker {
        producer_id: producer.0,
        producer_epoch: producer.1,
        coordinator_epoch: 3,
        commit,
    }
}

/// Ends a transaction; the marker's offset once it is committed.
async fn end(replica: &Replica, producer: (i64, i16), commit: bool) -> i64 {
    let placed = replica.append_marker(marker(producer, commit)).await;
    let placed = placed.expect("not fenced");
    replica.committed(placed.end).await.expect("healthy");
    placed.base_offset.0
}

fn with_replica<F: Future<Output = ()> + 'static>(
    settings: LogSettings,
    test: impl FnOnce(Rc<Replica>) -> F + 'static,
) {
    let world = World::new(1, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_directory, log) = open_one(core, settings).await;
        test(Rc::new(Replica::new(log, 0))).await;
    });
    run.expect("no cut is due");
}

const P: (i64, i16) = (9, 2);

#[test]
fn a_batch_that_opens_a_transaction_needs_a_guard() {
    with_replica(KEEPING, async |replica| {
        let first = transactional(P, 0);
        let refused = append(&replica, &first, None).await;
        assert_eq!(refused, Err(AppendRefusal::InvalidTransactionState));
        let given = guard(&replica, &first);
        assert!(given.is_some());
        let of_another = guard(&replica, &transactional((8, 0), 0));
        let refused = append(&replica, &first, of_another).await;
        assert_eq!(refused, Err(AppendRefusal::InvalidTransactionState));
        append(&replica, &first, given).await.expect("it has one");
        // From now on it is open, and retries are known anyway.
        let second = transactional(P, 1);
        assert_eq!(replica.verification(&second.0), Verification::NotNeeded);
        append(&replica, &second, None).await.expect("it is open");
        end(&replica, P, true).await;
        let again = append(&replica, &second, None).await.expect("a retry");
        assert!(again.duplicate && again.base_offset == Offset(1));
        let third = append(&replica, &transactional(P, 2), None).await;
        assert_eq!(third, Err(AppendRefusal::InvalidTransactionState));
        let plain = batch((7, 0), 0, false);
        assert_eq!(replica.verification(&plain.0), Verification::NotNeeded);
    });
}

#[test]
fn a_marker_takes_guards_back() {
    with_replica(KEEPING, async |replica| {
        let first = transactional(P, 0);
        let given = guard(&replica, &first);
        // The transaction that the coordinator vouched for ends before the batch comes.
        end(&replica, P, false).await;
        let late = append(&replica, &first, given).await;
        assert_eq!(late, Err(AppendRefusal::InvalidTransactionState));
        assert_eq!(replica.last_stable_offset(), replica.high_watermark());
        write(&replica, &first).await;
    });
}

#[test]
fn epochs_of_producers_and_coordinators_fence() {
    with_replica(KEEPING, async |replica| {
        write(&replica, &transactional(P, 0)).await;
        let old = replica.append_marker(marker((P.0, P.1 - 1), true)).await;
        assert_eq!(old, Err(AppendRefusal::InvalidProducerEpoch));
        let bumped = (P.0, P.1 + 1);
        end(&replica, bumped, true).await;
        let zombie = transactional(P, 1);
        let given = guard(&replica, &zombie);
        let refused = append(&replica, &zombie, given).await;
        assert_eq!(refused, Err(AppendRefusal::InvalidProducerEpoch));
        let late = transactional(bumped, 1);
        let refused = append(&replica, &late, guard(&replica, &late)).await;
        assert_eq!(refused, Err(AppendRefusal::OutOfOrderSequence));
        write(&replica, &transactional(bumped, 0)).await;
        let replaced = TransactionMarker {
            coordinator_epoch: 2,
            ..marker(bumped, true)
        };
        let refused = replica.append_marker(replaced).await;
        assert_eq!(refused, Err(AppendRefusal::CoordinatorFenced));
        // The marker of the transaction before, once more: it bumped the epoch to this one.
        let delayed = replica.append_marker_that(marker(bumped, true), true).await;
        assert_eq!(delayed, Err(AppendRefusal::InvalidProducerEpoch));
        assert_eq!(replica.last_stable_offset(), Offset(2));
    });
}

#[test]
fn plain_batches_stay_out_of_open_transactions() {
    with_replica(KEEPING, async |replica| {
        write(&replica, &transactional(P, 0)).await;
        let plain = append(&replica, &batch(P, 1, false), None).await;
        assert_eq!(plain, Err(AppendRefusal::InvalidTransactionState));
        end(&replica, P, true).await;
        write(&replica, &batch(P, 1, false)).await;
    });
}

#[test]
fn who_bumps_epochs_begins_with_sequence_zero() {
    with_replica(KEEPING, async |replica| {
        let late = transactional(P, 4);
        let terms = |bumps_epochs| AppendTerms {
            guard: guard(&replica, &late),
            bumps_epochs,
        };
        let appended = replica.append(replica.take_turn(), &late.0, &late.1, terms(true));
        assert_eq!(appended.await, Err(AppendRefusal::OutOfOrderSequence));
        let appended = replica.append(replica.take_turn(), &late.0, &late.1, terms(false));
        appended.await.expect("an older client may begin anywhere");
    });
}

#[test]
fn open_transactions_are_bounded() {
    let two = LogSettings {
        producers_max: 2,
        ..KEEPING
    };
    with_replica(two, async |replica| {
        write(&replica, &transactional((1, 0), 0)).await;
        write(&replica, &transactional((2, 0), 0)).await;
        let third = transactional((3, 0), 0);
        let refused = append(&replica, &third, guard(&replica, &third)).await;
        assert_eq!(refused, Err(AppendRefusal::TooManyTransactions));
        end(&replica, (1, 0), false).await;
        write(&replica, &third).await;
    });
}

/// Base offsets of the batches that a reader gets.
async fn read(replica: &Replica, read_committed: bool) -> Vec<i64> {
    let mut offsets = Vec::new();
    let mut from = Offset(0);
    loop {
        let run = replica.read(from, 1 << 20, true, read_committed).await;
        let run = run.expect("in range");
        if run.size_bytes == 0 {
            return offsets;
        }
        let bytes: Vec<u8> = run.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let batches = Batches::new(&bytes).map_while(Result::ok);
        offsets.extend(batches.map(|batch| batch.header().base_offset));
        from = run.end_offset(from);
    }
}

#[test]
fn readers_of_what_is_committed_stop_at_the_oldest_open_transaction() {
    with_replica(KEEPING, async |replica| {
        let plain = batch((-1, -1), -1, false);
        write(&replica, &plain).await;
        write(&replica, &transactional((1, 0), 0)).await;
        write(&replica, &transactional((2, 0), 0)).await;
        write(&replica, &plain).await;
        assert_eq!(replica.last_stable_offset(), Offset(1));
        assert_eq!(end(&replica, (2, 0), false).await, 4);
        assert_eq!(replica.last_stable_offset(), Offset(1), "1 is still open");
        assert_eq!(read(&replica, true).await, [0]);
        assert_eq!(read(&replica, false).await, [0, 1, 2, 3, 4]);
        let beyond = replica.read(Offset(3), 1000, true, true).await;
        assert_eq!(beyond.expect("in range").size_bytes, 0);
        let out = replica.read(Offset(6), 1000, true, true).await;
        assert!(matches!(out, Err(LogError::OutOfRange { .. })));
        end(&replica, (1, 0), true).await;
        assert_eq!(replica.last_stable_offset(), replica.high_watermark());
        assert_eq!(read(&replica, true).await, [0, 1, 2, 3, 4, 5]);
        let run = replica
            .read(Offset(0), 1 << 20, true, true)
            .await
            .expect("in range");
        let aborted = replica.aborted_in(Offset(0), &run);
        let aborted: Vec<_> = aborted
            .iter()
            .map(|it| (it.producer_id, it.first_offset.0))
            .collect();
        assert_eq!(aborted, [(2, 2)]);
        let run = replica
            .read(Offset(0), 1, true, true)
            .await
            .expect("in range");
        assert!(
            replica.aborted_in(Offset(0), &run).is_empty(),
            "it lies behind"
        );
    });
}

#[test]
fn lookups_by_time_end_there_too() {
    with_replica(KEEPING, async |replica| {
        write(&replica, &batch((-1, -1), -1, false)).await;
        write(&replica, &transactional(P, 0)).await;
        let at = async |timestamp_ms, read_committed| {
            let found = replica.first_at(timestamp_ms, 1000, read_committed).await;
            found.expect("healthy").map(|record| record.offset)
        };
        assert_eq!(at(50, true).await, Some(0));
        replica
            .log()
            .advance_start(Offset(1))
            .await
            .expect("healthy");
        assert_eq!(at(50, true).await, None);
        assert_eq!(at(50, false).await, Some(1));
    });
}

#[test]
fn a_log_start_above_an_open_transaction_is_stable() {
    with_replica(KEEPING, async |replica| {
        write(&replica, &transactional(P, 0)).await;
        write(&replica, &transactional(P, 1)).await;
        replica
            .log()
            .advance_start(Offset(1))
            .await
            .expect("healthy");
        assert_eq!(replica.last_stable_offset(), Offset(1));
        end(&replica, P, true).await;
        assert_eq!(replica.last_stable_offset(), Offset(3));
    });
}

#[test]
fn producers_are_described() {
    with_replica(KEEPING, async |replica| {
        write(&replica, &transactional(P, 0)).await;
        write(&replica, &transactional(P, 1)).await;
        let told = replica.producers()[0];
        assert_eq!(
            (told.producer_id, told.epoch, told.last_sequence),
            (P.0, P.1, 1)
        );
        assert_eq!(
            (told.open_transaction, told.coordinator_epoch),
            (Some(Offset(0)), -1)
        );
        end(&replica, P, true).await;
        let told = replica.producers()[0];
        assert_eq!((told.open_transaction, told.coordinator_epoch), (None, 3));
    });
}

#[test]
fn what_is_open_and_aborted_survives_a_restart() {
    let world = World::new(2, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (directory, log) = open_one(core, KEEPING).await;
        let replica = Replica::new(log, 0);
        write(&replica, &transactional((1, 0), 0)).await;
        end(&replica, (1, 0), false).await;
        directory.ask_for_checkpoint();
        write(&replica, &transactional(P, 0)).await;
    });
    run.expect("no cut is due");
    let world = World::new(3, world.disk_after_power_cut());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_directory, log) = open_one(core, KEEPING).await;
        let replica = Replica::new(log, 0);
        assert_eq!(replica.last_stable_offset(), Offset(2));
        let next = transactional(P, 1);
        assert_eq!(replica.verification(&next.0), Verification::NotNeeded);
        let aborted = replica.log().aborted_between(Offset(0), Offset(2));
        assert_eq!(
            (aborted[0].producer_id, aborted[0].last_offset),
            (1, Offset(1))
        );
        end(&replica, P, false).await;
        assert_eq!(replica.last_stable_offset(), Offset(4));
    });
    run.expect("no cut is due");
}
