//! Compaction of one log on the simulated disk, without cuts unless a test makes one.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::cleaner::Cleaner;
use super::compacting::CompactionError;
use super::compaction::{CompactionProgress, CompactionSettings};
use super::one_log::{open_one, recovered};
use super::partition_log::{LogSettings, PartitionLog};
use super::position::{LeaderEpoch, Offset};
use super::power_cut_history::{DATA, SETTINGS};
use super::segment::segment_file_name;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;
use crate::wire::record::Records;
use crate::wire::record_batch::{BatchHeader, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use crate::wire::transaction_marker::TransactionMarker;

const COMPACTED: LogSettings = LogSettings {
    segment_bytes: 6 << 10,
    compaction: Some(CompactionSettings {
        min_dirty_ratio: 0.0,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        delete_retention_ms: 1000,
    }),
    ..SETTINGS
};

fn cleaner(memory_bytes: usize) -> Cleaner {
    Cleaner::new(memory_bytes, 1 << 20, 0)
}

/// Appends one record per number; its key is the number modulo `keys`. Waits until all is sealed.
async fn fill(log: &Rc<PartitionLog>, numbers: std::ops::Range<u64>, keys: u64) {
    for number in numbers {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let key = (number % keys).to_le_bytes();
        let value = number.to_le_bytes().repeat(60);
        builder.append(5000, Some(&key), Some(&value), [].into_iter());
        let bytes = builder.finish();
        let header = BatchHeader::parse(&bytes).expect("just built");
        log.ready(bytes.len(), 1, 5000).await.expect("healthy");
        log.append(&header, &bytes[HEADER_BYTES..], LeaderEpoch(1));
    }
    let is_sealed = || {
        let state = log.state.borrow();
        let complete = state.segments.len() - 1;
        state
            .segments
            .iter()
            .take(complete)
            .all(|segment| segment.sealed)
    };
    while log.flushed_offset() < log.end_offset() || !is_sealed() {
        clock::sleep(Duration::from_millis(1)).await;
    }
}

/// Offsets and keys of all records.
async fn records(log: &Rc<PartitionLog>) -> Vec<(i64, u64)> {
    let (mut at, end) = (log.start_offset(), log.end_offset());
    let mut found = Vec::new();
    while at < end {
        let run = log.read(at, end, 20_000, true).await.expect("healthy");
        let bytes: Vec<u8> = run.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for batch in Batches::new(&bytes).map_while(Result::ok) {
            let header = *batch.header();
            for record in Records::new(batch.payload(), header.record_count) {
                let record = record.expect("whole");
                let key = record.key.expect("a key").try_into().expect("eight bytes");
                let offset = header.base_offset + i64::from(record.offset_delta);
                found.push((offset, u64::from_le_bytes(key)));
            }
            at = Offset(header.last_offset() + 1);
        }
    }
    found
}

/// Records below the active segment that a later one there makes obsolete.
fn obsolete(log: &PartitionLog, records: &[(i64, u64)]) -> usize {
    let state = log.state.borrow();
    let active = state.active().base_offset.0;
    let sealed: Vec<_> = records.iter().filter(|(at, _)| *at < active).collect();
    let is_obsolete = |(at, key): &(i64, u64)| {
        let mut others = sealed.iter();
        others.any(|(other, other_key)| other_key == key && other > at)
    };
    sealed.iter().filter(|record| is_obsolete(record)).count()
}

fn progress(log: &PartitionLog) -> CompactionProgress {
    log.state.borrow().progress
}

fn first_uncleanable(log: &PartitionLog) -> Offset {
    log.state.borrow().active().base_offset
}

fn segments_below(log: &PartitionLog, offset: Offset) -> usize {
    let state = log.state.borrow();
    let below = |segment: &&super::segment::Segment| segment.base_offset < offset;
    state.segments.iter().filter(below).count()
}

#[test]
fn one_run_leaves_one_record_of_each_key_and_fewer_segments() {
    let world = World::new(1, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..200, 7).await;
        let segments = || log.state.borrow().segments.len();
        let (before, size) = (segments(), log.size_bytes());
        let cleaner = cleaner(1 << 16);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        assert_eq!(obsolete(&log, &records(&log).await), 0);
        assert_eq!(progress(&log).first_dirty, first_uncleanable(&log));
        assert!(log.size_bytes() < size);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(false));
        // What is small now is put together by the next run.
        fill(&log, 200..220, 7).await;
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        assert_eq!(obsolete(&log, &records(&log).await), 0);
        assert!(segments() < before, "{} of {before}", segments());
        assert_eq!(cleaner.counts().runs, 2);
    });
    run.expect("no cut is due");
}

#[test]
fn a_full_map_ends_the_dirty_range_and_the_next_run_begins_there() {
    let world = World::new(2, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..300, 90).await;
        // Memory for 48 keys.
        let cleaner = cleaner(0);
        let mut ends = vec![Offset(0)];
        while log
            .compact(log.flushed_offset(), &cleaner)
            .await
            .expect("nothing disturbs it")
        {
            let end = progress(&log).first_dirty;
            assert!(end > ends[ends.len() - 1], "every run gets on: {ends:?}");
            ends.push(end);
        }
        assert!(ends.len() > 3, "{ends:?}");
        assert_eq!(obsolete(&log, &records(&log).await), 0);
    });
    run.expect("no cut is due");
}

#[test]
fn an_interrupted_run_goes_on_with_its_next_group_also_after_a_power_cut() {
    let world = World::new(3, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        // So many keys that several groups are left.
        fill(&log, 0..200, 100).await;
        let busy = log.clone();
        spawn(Queue::Background, async move {
            let outcome = busy.compact(busy.flushed_offset(), &cleaner(1 << 16)).await;
            assert_eq!(outcome, Err(CompactionError::Interrupted));
        });
        while log.swaps_recorded() < 2 {
            clock::sleep(Duration::from_micros(50)).await;
        }
        log.set_settings(LogSettings {
            compaction: None,
            ..COMPACTED
        });
        drop(log.stop_compaction().await);
        let run = progress(&log).run.expect("it was stopped on its way");
        assert!(run.next < run.end && run.next > Offset(0));
        run
    });
    let before = run.expect("no cut is due");
    let world = World::new(4, world.disk_after_power_cut());
    let core = recovered(&world);
    assert_eq!(core.logs[0].compaction.run, Some(before));
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        let done = segments_below(&log, before.next);
        assert!(done >= 2);
        let cleaner = cleaner(1 << 16);
        while log.compact(log.flushed_offset(), &cleaner).await == Ok(false) {
            // It waits until what the crash left unsealed is sealed.
            clock::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(progress(&log).run, None);
        assert_eq!(progress(&log).first_dirty, before.end);
        assert_eq!(obsolete(&log, &records(&log).await), 0);
        let swaps = log.swaps_recorded() as usize;
        assert_eq!(
            swaps,
            segments_below(&log, before.end) - done,
            "the rest only"
        );
    });
    run.expect("no cut is due");
}

#[test]
fn damage_stops_compaction_of_its_log_and_leaves_it_served() {
    let world = World::new(5, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (directory, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..100, 7).await;
        directory.shut_down().await;
    });
    run.expect("no cut is due");
    let mut disk = world.disk_after_exit();
    let segment = Path::new(DATA)
        .join("log-0")
        .join(segment_file_name(Offset(0)));
    disk.flip_bit(&segment, 100, 2);
    let world = World::new(6, disk);
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        let outcome = log.compact(log.flushed_offset(), &cleaner(1 << 16)).await;
        let Err(CompactionError::Uncleanable(reason)) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(reason.contains("is damaged at byte 0"), "{reason}");
        assert_eq!(log.uncleanable(), Some(reason));
        assert_eq!(log.compaction_outlook(log.flushed_offset(), 0), None);
        assert_eq!(log.healthy(), Ok(()));
    });
    run.expect("no cut is due");
}

#[test]
fn what_is_below_the_log_start_is_dropped() {
    let world = World::new(7, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..60, 1000).await;
        let second = log.state.borrow().segments[1].base_offset;
        log.advance_start(Offset(second.0 + 3))
            .await
            .expect("healthy");
        let before = log.size_bytes();
        let cleaner = cleaner(1 << 16);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        let lost = before - log.size_bytes();
        assert!(lost > 3 * 480, "three batches: {lost} bytes");
        assert_eq!(records(&log).await.len(), 60 - second.0 as usize - 3);
    });
    run.expect("no cut is due");
}

#[test]
fn a_record_that_waits_too_long_rolls_its_segment() {
    let world = World::new(8, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..5, 1).await;
        let lag = |max_lag_ms| LogSettings {
            compaction: COMPACTED.compaction.map(|compaction| CompactionSettings {
                max_lag_ms,
                ..compaction
            }),
            ..COMPACTED
        };
        log.set_settings(lag(100));
        log.roll_for_compaction(5100).await.expect("healthy");
        assert_eq!(log.state.borrow().segments.len(), 1, "not too long yet");
        log.roll_for_compaction(5101).await.expect("healthy");
        assert_eq!(log.state.borrow().segments.len(), 2);
        log.roll_for_compaction(9000).await.expect("healthy");
        assert_eq!(log.state.borrow().segments.len(), 2, "nothing is in it");
        fill(&log, 5..6, 1).await;
        let cleaner = cleaner(1 << 16);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        assert_eq!(records(&log).await.len(), 2, "the last two of the key");
    });
    run.expect("no cut is due");
}

/// Appends one record of a transaction; keys and values are numbers.
async fn write(log: &Rc<PartitionLog>, producer_id: i64, sequence: i32, key: u64) {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence: sequence,
        is_transactional: true,
        ..BatchOptions::default()
    });
    let value = u64::from(sequence.unsigned_abs()).to_le_bytes().repeat(60);
    builder.append(5000, Some(&key.to_le_bytes()), Some(&value), [].into_iter());
    append_bytes(log, &builder.finish()).await;
}

async fn end(log: &Rc<PartitionLog>, producer_id: i64, commit: bool) {
    let marker = TransactionMarker {
        producer_id,
        producer_epoch: 0,
        coordinator_epoch: 0,
        commit,
    };
    append_bytes(log, &marker.batch(5000)).await;
}

async fn append_bytes(log: &Rc<PartitionLog>, bytes: &[u8]) {
    let header = BatchHeader::parse(bytes).expect("just built");
    log.ready(bytes.len(), 1, 5000).await.expect("healthy");
    log.append(&header, &bytes[HEADER_BYTES..], LeaderEpoch(1));
}

/// Producer, offset, and whether it is a marker, of all batches with records.
async fn of_transactions(log: &Rc<PartitionLog>) -> Vec<(i64, i64, bool)> {
    let (mut at, end) = (log.start_offset(), log.end_offset());
    let mut found = Vec::new();
    while at < end {
        let run = log.read(at, end, 20_000, true).await.expect("healthy");
        let bytes: Vec<u8> = run.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for batch in Batches::new(&bytes).map_while(Result::ok) {
            let header = *batch.header();
            if header.attributes.is_transactional() && header.record_count > 0 {
                let is_marker = header.attributes.is_control();
                found.push((header.producer_id, header.base_offset, is_marker));
            }
            at = Offset(header.last_offset() + 1);
        }
    }
    found
}

/// Key 1 is committed by 7, then written again by 8, which is aborted, and by nobody else.
async fn commit_and_abort(log: &Rc<PartitionLog>) {
    write(log, 7, 0, 1 << 40).await;
    end(log, 7, true).await;
    write(log, 8, 0, 1 << 40).await;
    end(log, 8, false).await;
    // The last batches of both, so that those before are not kept for their sequences.
    for id in [7, 8] {
        write(log, id, 1, (1 << 41) + id.unsigned_abs()).await;
        end(log, id, true).await;
    }
}

#[test]
fn aborted_records_go_committed_ones_stay_and_markers_go_last() {
    let world = World::new(7, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (directory, log) = open_one(core, COMPACTED).await;
        commit_and_abort(&log).await;
        fill(&log, 0..60, 7).await;
        let cleaner = cleaner(1 << 16);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        let all = of_transactions(&log).await;
        let aborted = all.iter().find(|(_, offset, _)| *offset == 2);
        assert_eq!(aborted, None, "{all:?}");
        assert_eq!(all[..3], [(7, 0, false), (7, 1, true), (8, 3, true)]);
        assert_eq!(log.aborted_between(Offset(0), log.end_offset()).len(), 1);
        // The marker that ends nothing any more is stamped, then it goes, and the reader is not told
        // of a transaction without an end.
        for begin in [60, 120] {
            fill(&log, begin..begin + 60, 7).await;
            assert!(of_transactions(&log).await.contains(&(8, 3, true)));
            assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
            clock::sleep(Duration::from_secs(2)).await;
        }
        let all = of_transactions(&log).await;
        assert!(!all.contains(&(8, 3, true)), "{all:?}");
        assert!(
            all.contains(&(7, 0, false)) && all.contains(&(7, 1, true)),
            "{all:?}"
        );
        assert!(log.aborted_between(Offset(0), log.end_offset()).is_empty());
        directory.shut_down().await;
    });
    run.expect("no cut is due");
    let world = World::new(8, world.disk_after_exit());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_directory, log) = open_one(core, COMPACTED).await;
        assert!(log.aborted_between(Offset(0), log.end_offset()).is_empty());
    });
    run.expect("no cut is due");
}

#[test]
fn nothing_is_cleaned_above_an_open_transaction() {
    let world = World::new(9, DiskModel::new());
    let core = recovered(&world);
    let run = world.run(async move {
        let (_directory, log) = open_one(core, COMPACTED).await;
        fill(&log, 0..40, 7).await;
        let open_at = log.end_offset();
        write(&log, 9, 0, 1 << 40).await;
        fill(&log, 40..100, 7).await;
        let cleaner = cleaner(1 << 16);
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        assert!(progress(&log).first_dirty <= open_at);
        end(&log, 9, true).await;
        fill(&log, 100..160, 7).await;
        assert_eq!(log.compact(log.flushed_offset(), &cleaner).await, Ok(true));
        assert!(progress(&log).first_dirty > open_at);
        assert!(of_transactions(&log).await.contains(&(9, open_at.0, false)));
    });
    run.expect("no cut is due");
}
