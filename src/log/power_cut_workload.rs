//! The random work of a power-cut test: appends, reads, checkpoints, deletions, cuts and moves of log
//! starts, all noted in the model.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::log_directory::LogDirectory;
use super::partition_log::{Appended, LogError, PartitionLog};
use super::position::{LeaderEpoch, LogId, Offset};
use super::power_cut_compaction::{
    compact_somewhere, is_keyed, keyed_batch, keyed_read_is_right, note_cut, settings_of,
};
use super::power_cut_history::owner;
use super::power_cut_model::{Model, ModelLog, joined};
use crate::runtime::clock;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::yield_now;
use crate::runtime::random::random_u64;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
use crate::wire::transaction_marker::TransactionMarker;

/// A checkpoint may have to wait for all that others do meanwhile.
const MOST_MS_PER_CHECKPOINT: u32 = 20;

pub(super) fn random_below(bound: u64) -> u64 {
    random_u64() % bound
}

pub(super) fn log_id(number: u64) -> LogId {
    let mut topic = [0; 16];
    topic[..8].copy_from_slice(&number.to_le_bytes());
    LogId {
        topic,
        partition: (number % 7) as u32,
    }
}

/// Later logs take over the names of earlier ones, as recreated topics do.
fn directory_name(number: u64) -> String {
    if number < 4 {
        format!("log-{number}")
    } else {
        format!("new-{}", number % 3)
    }
}

/// Whether, and where, a batch is one of a transaction or its end.
fn random_transaction() -> Option<(BatchHeader, Vec<u8>)> {
    let producer_id = 200_000 + random_below(12) as i64;
    let bytes = match random_below(24) {
        0..2 => TransactionMarker {
            producer_id,
            producer_epoch: 0,
            coordinator_epoch: 0,
            commit: random_below(2) == 0,
        }
        .batch(random_below(1000) as i64),
        2..4 => {
            let mut builder = BatchBuilder::new(BatchOptions {
                producer_id,
                producer_epoch: 0,
                base_sequence: 0,
                is_transactional: true,
                ..BatchOptions::default()
            });
            let value = random_u64().to_le_bytes();
            builder.append(5, None, Some(&value), [].into_iter());
            builder.finish()
        }
        _ => return None,
    };
    let header = BatchHeader::parse(&bytes).expect("just built");
    Some((header, bytes[HEADER_BYTES..].to_vec()))
}

pub(super) fn random_batch() -> (BatchHeader, Vec<u8>) {
    if let Some(batch) = random_transaction() {
        return batch;
    }
    let producer = random_below(8) == 0;
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: if producer {
            random_below(100_000) as i64
        } else {
            -1
        },
        producer_epoch: if producer { 0 } else { -1 },
        base_sequence: if producer { 0 } else { -1 },
        ..BatchOptions::default()
    });
    let most = [40, 700, 3000, 5500][random_below(4) as usize];
    for _ in 0..=random_below(3) {
        // Every value is its own, so misplaced bytes are noticed.
        let value = random_u64()
            .to_le_bytes()
            .repeat(random_below(most / 8) as usize);
        builder.append(
            random_below(1000) as i64,
            None,
            Some(&value),
            [].into_iter(),
        );
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

/// So many blocks that they are written straight to the segment.
fn large_batch() -> (BatchHeader, Vec<u8>) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let size = 9_000 + random_below(6_000);
    let value = random_u64().to_le_bytes().repeat(size as usize / 8);
    builder.append(0, None, Some(&value), [].into_iter());
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

pub(super) async fn work(
    directories: &[Rc<LogDirectory>],
    model: &Rc<RefCell<Model>>,
    worker: u64,
    first_new: u64,
) {
    for _ in 0..random_below(60) {
        match random_below(24) {
            0 | 7 => {
                let core = random_below(directories.len() as u64) as usize;
                directories[core].ask_for_checkpoint();
                directories[core].ask_for_cooling();
            }
            1 => clock::sleep(Duration::from_millis(random_below(30))).await,
            2 => move_start(directories, model).await,
            4 => truncate(directories, model).await,
            5 | 6 => compact_somewhere(directories, first_new).await,
            8 => append_after_checkpoint(directories, model).await,
            9 if worker == 1 && random_below(3) == 0 => {
                append_and_delete(directories, model, first_new).await;
            }
            3 if worker == 0 && random_below(3) == 0 => {
                delete(directories, model, 4 + random_below(12)).await;
            }
            _ => append(directories, model, first_new).await,
        }
    }
}

pub(super) fn pick(directories: &[Rc<LogDirectory>], id: LogId) -> Rc<LogDirectory> {
    let core = owner(directories.len() as u16)(id);
    directories[CoreId(core).index()].clone()
}

async fn append(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>, first_new: u64) {
    let number = if random_below(10) == 0 {
        first_new + random_below(3)
    } else {
        random_below(4)
    };
    let batch = if is_keyed(log_id(number)) {
        keyed_batch()
    } else {
        random_batch()
    };
    let awaited = random_below(4) > 0;
    let log = append_to(directories, model, number, batch, awaited).await;
    if let Some(log) = log
        && random_below(3) == 0
    {
        read_somewhere(&log, model).await;
    }
}

/// Appends to the log of that number and waits until that is flushed, if wanted; none when the log
/// is being deleted or cut.
pub(super) async fn append_to(
    directories: &[Rc<LogDirectory>],
    model: &Rc<RefCell<Model>>,
    number: u64,
    (header, payload): (BatchHeader, Vec<u8>),
    awaited: bool,
) -> Option<Rc<PartitionLog>> {
    let id = log_id(number);
    let goes = |log: &ModelLog| log.deletion_asked || log.cut_asked.is_some();
    if model.borrow().logs.get(&id).is_some_and(goes) {
        return None;
    }
    let directory = pick(directories, id);
    let log = match directory.log(id) {
        Some(log) => log,
        None => directory.create_log(id, &directory_name(number), settings_of(id)),
    };
    let appended = append_batch(&log, &header, &payload).await?;
    {
        let mut model = model.borrow_mut();
        let log = model.logs.entry(id).or_default();
        assert_eq!(log.end, appended.base_offset.0, "offsets are dense");
        let mut bytes = header.placed(appended.base_offset.0, 1).to_vec();
        bytes.extend_from_slice(&payload);
        log.batches.insert(appended.base_offset.0, bytes);
        log.end = appended.end.0;
    }
    if !awaited {
        yield_now().await;
    } else if await_flushed(&log, appended.end).await {
        acknowledge(model, id, appended.end);
    }
    Some(log)
}

/// Appends blocks of bytes right after a checkpoint, when no group holds what is before them in
/// their first block.
async fn append_after_checkpoint(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let number = random_below(3);
    let directory = pick(directories, log_id(number));
    let before = directory.checkpoints();
    directory.ask_for_checkpoint();
    for _ in 0..MOST_MS_PER_CHECKPOINT {
        if directory.checkpoints() > before {
            break;
        }
        clock::sleep(Duration::from_millis(1)).await;
    }
    append_to(directories, model, number, large_batch(), true).await;
}

/// Appends blocks of bytes to a log and deletes it at once: its last group may name bytes in a file
/// that is gone.
async fn append_and_delete(
    directories: &[Rc<LogDirectory>],
    model: &Rc<RefCell<Model>>,
    first_new: u64,
) {
    let mut new = (first_new..first_new + 3).filter(|number| !is_keyed(log_id(*number)));
    let Some(number) = new.next_back() else {
        return;
    };
    for awaited in [true, true, false] {
        append_to(directories, model, number, large_batch(), awaited).await;
    }
    delete(directories, model, number).await;
}

/// Appends a batch; none when the log does not serve.
pub(super) async fn append_batch(
    log: &PartitionLog,
    header: &BatchHeader,
    payload: &[u8],
) -> Option<Appended> {
    let size = HEADER_BYTES + payload.len();
    let records = i64::from(header.record_count);
    let ready = log.ready(size, records, clock::wall_ms()).await;
    ready.ok()?;
    Some(log.append(header, payload, LeaderEpoch(1)))
}

/// False when the log was deleted or cut meanwhile; nothing else may stop it on a disk without errors.
pub(super) async fn await_flushed(log: &PartitionLog, end: Offset) -> bool {
    loop {
        let moved = log.flush_moved().raised();
        if log.flushed_offset() >= end {
            return true;
        }
        if log.end_offset() < end {
            return false; // Cut off meanwhile.
        }
        match log.healthy() {
            Err(LogError::Deleted) => return false,
            healthy => healthy.expect("the disk gives no errors"),
        }
        moved.await;
    }
}

fn acknowledge(model: &Rc<RefCell<Model>>, id: LogId, end: Offset) {
    let mut model = model.borrow_mut();
    if let Some(log) = model.logs.get_mut(&id) {
        log.acknowledged = log.acknowledged.max(end.0);
    }
}

async fn read_somewhere(log: &Rc<PartitionLog>, model: &Rc<RefCell<Model>>) {
    let (start, flushed) = (log.start_offset(), log.flushed_offset());
    let is_cut = |log: &ModelLog| log.cut_asked.is_some();
    if flushed <= start || model.borrow().logs.get(&log.id()).is_none_or(is_cut) {
        return;
    }
    let from = Offset(start.0 + random_below((flushed.0 - start.0) as u64) as i64);
    let most = random_below(20_000) as usize;
    let cuts = model.borrow().logs[&log.id()].cuts;
    let Ok(run) = log.read(from, flushed, most, true).await else {
        return;
    };
    if model.borrow().logs[&log.id()].cuts > cuts {
        return; // What was read may be gone.
    }
    let read = joined(&run);
    let model = model.borrow();
    let batches = &model.logs[&log.id()].batches;
    if is_keyed(log.id()) {
        keyed_read_is_right(&read, batches);
        return;
    }
    let (first, _) = batches
        .range(..=from.0)
        .next_back()
        .expect("read below the end");
    let expected: Vec<u8> = batches
        .range(first..)
        .flat_map(|(_, bytes)| bytes.iter().copied())
        .take(read.len())
        .collect();
    assert!(
        read == expected,
        "read of {:?} at {from} differs from what was appended",
        log.id()
    );
    assert!(!read.is_empty(), "nothing at {from} below {flushed}");
}

async fn move_start(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let id = log_id(random_below(4));
    let Some(log) = pick(directories, id).log(id) else {
        return;
    };
    let cut_asked = |log: &ModelLog| log.cut_asked.is_some();
    if model.borrow().logs.get(&id).is_none_or(cut_asked) {
        return;
    }
    let (start, flushed) = (log.start_offset(), log.flushed_offset());
    let to = Offset(start.0 + random_below((flushed.0 - start.0 + 1) as u64) as i64);
    let cuts = model.borrow().logs[&id].cuts;
    if let Some(log) = model.borrow_mut().logs.get_mut(&id) {
        log.start_asked = log.start_asked.max(to.0);
    }
    // A cut meanwhile may take the start back with the batch it is in.
    if log.advance_start(to).await.is_ok()
        && let Some(log) = model.borrow_mut().logs.get_mut(&id)
        && log.cuts == cuts
    {
        log.start_acknowledged = log.start_acknowledged.max(to.0);
    }
}

async fn truncate(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let id = log_id(random_below(4));
    let Some(log) = pick(directories, id).log(id) else {
        return;
    };
    {
        let mut model = model.borrow_mut();
        let Some(expected) = model.logs.get_mut(&id) else {
            return;
        };
        let span = expected.end - expected.start_asked;
        if span < 1 || expected.cut_asked.is_some() || expected.start_asked != log.start_offset().0
        {
            return;
        }
        expected.cuts += 1;
        expected.cut_asked = Some(expected.end - random_below(span.min(40) as u64) as i64);
    }
    let to = model.borrow().logs[&id].cut_asked.expect("just set");
    if log.truncate(Offset(to)).await.is_err() {
        return;
    }
    let mut model = model.borrow_mut();
    let expected = model.logs.get_mut(&id).expect("just used");
    let end = log.end_offset().0;
    assert!(end <= to, "{id:?} was cut at {to} and ends at {end}");
    note_cut(id, expected, end);
    expected.batches.split_off(&end);
    expected.end = end;
    expected.acknowledged = expected.acknowledged.min(end);
    expected.start_asked = expected.start_asked.min(end);
    expected.start_acknowledged = expected.start_acknowledged.min(end);
    expected.cut_asked = None;
}

async fn delete(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>, number: u64) {
    let id = log_id(number);
    match model.borrow_mut().logs.get_mut(&id) {
        Some(log) => log.deletion_asked = true,
        None => return,
    }
    pick(directories, id).delete_log(id).await;
    if let Some(log) = model.borrow_mut().logs.get_mut(&id) {
        log.deletion_done = true;
    }
}
