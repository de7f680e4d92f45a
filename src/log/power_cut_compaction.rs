//! Compacted logs in the power-cut tests: every fourth log has keys, is compacted at any time, and
//! must then hold the latest acknowledged value of every key, whatever was cut.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::cleaner::Cleaner;
use super::compacting::CompactionError;
use super::compaction::CompactionSettings;
use super::log_directory::LogDirectory;
use super::partition_log::{LogError, LogSettings, PartitionLog};
use super::position::{LogId, Offset};
use super::power_cut_history::SETTINGS;
use super::power_cut_model::{ModelLog, Verdict, joined};
use super::power_cut_workload::{log_id, pick, random_below};
use crate::runtime::random::random_u64;
use crate::wire::record::Records;
use crate::wire::record_batch::{BatchHeader, BatchView, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

const KEYS: u64 = 6;
const DECOMPRESSED_MAX_BYTES: usize = 1 << 20;

const KEYED: LogSettings = LogSettings {
    segment_bytes: 6 << 10,
    compaction: Some(CompactionSettings {
        min_dirty_ratio: 0.0,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        // Short enough that tombstones go within a history.
        delete_retention_ms: 20,
    }),
    ..SETTINGS
};

/// Whether a log of the workload is compacted.
pub(super) fn is_keyed(id: LogId) -> bool {
    id.topic[0] % 4 == 3
}

/// The settings of a log of the workload.
pub(super) fn settings_of(id: LogId) -> LogSettings {
    if is_keyed(id) { KEYED } else { SETTINGS }
}

/// A batch of few records with few keys; now and then without value or without key.
pub(super) fn keyed_batch() -> (BatchHeader, Vec<u8>) {
    let producer = random_below(3) == 0;
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: if producer { random_below(3) as i64 } else { -1 },
        producer_epoch: if producer { 0 } else { -1 },
        base_sequence: if producer { 0 } else { -1 },
        ..BatchOptions::default()
    });
    for _ in 0..=random_below(4) {
        let key = random_below(KEYS).to_le_bytes();
        let value = random_u64()
            .to_le_bytes()
            .repeat(1 + random_below(90) as usize);
        builder.append(
            random_below(1000) as i64,
            Some(&key[..]).filter(|_| random_below(20) > 0),
            Some(&value[..]).filter(|_| random_below(5) > 0),
            [].into_iter(),
        );
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

/// Compacts a log, with memory for all of its keys or for a few.
pub(super) async fn compact_somewhere(directories: &[Rc<LogDirectory>], first_new: u64) {
    let new = (first_new..first_new + 3).find(|number| is_keyed(log_id(*number)));
    let number = new.filter(|_| random_below(4) == 0).unwrap_or(3);
    if let Some(log) = pick(directories, log_id(number)).log(log_id(number)) {
        compact(&log).await;
    }
}

pub(super) async fn compact(log: &Rc<PartitionLog>) {
    let memory_bytes = [0, 1 << 16][random_below(2) as usize];
    let cleaner = Cleaner::new(memory_bytes, DECOMPRESSED_MAX_BYTES, 0);
    match log.compact(log.flushed_offset(), &cleaner).await {
        Ok(_) | Err(CompactionError::Interrupted) => {}
        Err(error) => match log.healthy() {
            Err(LogError::Deleted) => {}
            _ => panic!("{:?}: {error}", log.id()),
        },
    }
}

/// Key and value; either may be missing.
type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The records of whole batches, by offset.
type RecordsByOffset = BTreeMap<i64, KeyAndValue>;

fn records_of(batch: &[u8]) -> Result<RecordsByOffset, String> {
    let view = BatchView::parse(batch).map_err(|error| error.to_string())?;
    view.verify_checksum().map_err(|error| error.to_string())?;
    let payload = view
        .plain_payload(DECOMPRESSED_MAX_BYTES)
        .map_err(|error| error.to_string())?;
    let header = view.header();
    let mut records = RecordsByOffset::new();
    for record in Records::new(&payload, header.record_count) {
        let record = record.map_err(|error| error.to_string())?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        records.insert(offset, (own(record.key), own(record.value)));
    }
    Ok(records)
}

/// Checks one batch as read against the one that was enqueued: nothing in it is new, and its frame is
/// what it was.
fn check_batch(batch: &[u8], enqueued: &BTreeMap<i64, Vec<u8>>) -> Result<RecordsByOffset, String> {
    let found = BatchHeader::parse(batch).map_err(|error| error.to_string())?;
    let base = found.base_offset;
    let original = enqueued
        .get(&base)
        .ok_or_else(|| format!("no batch was enqueued at {base}"))?;
    let expected = BatchHeader::parse(original).expect("built");
    let frame = |header: &BatchHeader| {
        (
            header.last_offset(),
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
            header.partition_leader_epoch,
        )
    };
    if frame(&found) != frame(&expected) {
        return Err(format!("the frame of the batch at {base} has changed"));
    }
    let (records, expected) = (records_of(batch)?, records_of(original)?);
    for (offset, record) in &records {
        if expected.get(offset) != Some(record) {
            return Err(format!("the record at {offset} was never written"));
        }
    }
    Ok(records)
}

/// Splits off whole batches from what a read gave; the last one may be cut off.
fn whole_batches(mut read: &[u8]) -> Vec<&[u8]> {
    let mut batches = Vec::new();
    while let Ok(header) = BatchHeader::parse(read) {
        if header.size_bytes() > read.len() {
            break;
        }
        let (batch, rest) = read.split_at(header.size_bytes());
        batches.push(batch);
        read = rest;
    }
    batches
}

/// Notes that the log was cut: what comes behind was there and may have made older records obsolete.
pub(super) fn note_cut(id: LogId, expected: &mut ModelLog, end: i64) {
    if !is_keyed(id) {
        return;
    }
    let ModelLog {
        batches, shadowed, ..
    } = expected;
    // A batch that begins before the cut and reaches beyond it was dropped before, or the log would
    // have been cut at its beginning.
    batches.retain(|_, batch| {
        let stays = BatchHeader::parse(batch).expect("built").last_offset() < end;
        if !stays {
            let records = records_of(batch).expect("built").into_values();
            shadowed.extend(records.filter_map(|(key, _)| Some((key?, end))));
        }
        stays
    });
}

/// A read while appends and compaction go on.
pub(super) fn keyed_read_is_right(read: &[u8], enqueued: &BTreeMap<i64, Vec<u8>>) {
    for batch in whole_batches(read) {
        check_batch(batch, enqueued).expect("a read gives what was enqueued");
    }
}

/// Compares a recovered log with the model, then compacts it and compares again.
pub(super) async fn compare_keyed(log: &Rc<PartitionLog>, expected: &ModelLog) -> Verdict {
    compare_once(log, expected).await?;
    if random_below(2) == 0 {
        compact(log).await;
        compare_once(log, expected)
            .await
            .map_err(|error| format!("compacted after recovery: {error}"))?;
    }
    Ok(())
}

async fn compare_once(log: &Rc<PartitionLog>, expected: &ModelLog) -> Verdict {
    let id = log.id();
    let found = read_all(log, expected).await?;
    let start = log.start_offset().0;
    let end = log.end_offset().0.min(expected.acknowledged);
    let mut latest: BTreeMap<Vec<u8>, (i64, bool)> = BTreeMap::new();
    for batch in expected.batches.values() {
        for (offset, (key, value)) in records_of(batch).expect("built") {
            if let Some(key) = key.filter(|_| offset >= start && offset < end) {
                latest.insert(key, (offset, value.is_none()));
            }
        }
    }
    for (key, (latest, is_tombstone)) in latest {
        if expected.shadowed.get(&key).is_some_and(|cut| latest < *cut) {
            continue;
        }
        let mut of_key = found
            .iter()
            .filter(|(_, (found_key, _))| found_key.as_deref() == Some(&key[..]))
            .map(|(offset, _)| *offset);
        let is_there = of_key.clone().any(|offset| offset >= latest);
        // A tombstone may be gone, but then what it deleted must be gone as well.
        if !is_there && (!is_tombstone || of_key.next().is_some()) {
            return Err(format!(
                "{id:?}: key {key:?} has lost its latest record at {latest} (deletes: {is_tombstone})"
            ));
        }
    }
    Ok(())
}

async fn read_all(log: &Rc<PartitionLog>, expected: &ModelLog) -> Result<RecordsByOffset, String> {
    let (id, end) = (log.id(), log.end_offset().0);
    let mut at = log.start_offset().0;
    let mut found = RecordsByOffset::new();
    while at < end {
        let run = log
            .read(Offset(at), Offset(end), 10_000, true)
            .await
            .map_err(|error| format!("{id:?} at {at}: {error}"))?;
        let read = joined(&run);
        let batches = whole_batches(&read);
        if batches.is_empty() && !read.is_empty() {
            return Err(format!("{id:?}: no whole batch at {at}"));
        }
        if batches.is_empty() {
            break;
        }
        for batch in batches {
            let header = BatchHeader::parse(batch).expect("split off");
            if header.last_offset() < at {
                return Err(format!("{id:?}: offsets do not ascend at {at}"));
            }
            let records = check_batch(batch, &expected.batches)
                .map_err(|error| format!("{id:?}: {error}"))?;
            found.extend(records);
            at = header.last_offset() + 1;
        }
    }
    Ok(found)
}
