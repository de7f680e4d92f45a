//! What the logs of a power-cut test should hold, and the comparison after a recovery.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::log_directory::LogDirectory;
use super::partition_log::PartitionLog;
use super::position::{LogId, Offset};
use super::power_cut_compaction::{compare_keyed, is_keyed, note_cut};
use super::producer_state::ProducerState;
use super::reader::BatchRun;
use super::transactions::{AbortedTransaction, Transactions};
use crate::wire::record_batch::{BatchHeader, BatchView};
use crate::wire::transaction_marker::TransactionMarker;

/// What is wrong after a recovery.
pub(super) type Verdict = Result<(), String>;

/// A log as it should be.
#[derive(Default)]
pub(super) struct ModelLog {
    /// Stored bytes of every batch enqueued, by base offset.
    pub(super) batches: BTreeMap<i64, Vec<u8>>,
    pub(super) end: i64,
    pub(super) acknowledged: i64,
    /// Highest log start asked for and highest acknowledged.
    pub(super) start_asked: i64,
    pub(super) start_acknowledged: i64,
    /// The log is being cut at the batch that holds this.
    pub(super) cut_asked: Option<i64>,
    /// How often it was asked to be cut.
    pub(super) cuts: u64,
    /// Keys whose newest record was cut off, and where: compaction may have dropped older ones.
    pub(super) shadowed: BTreeMap<Vec<u8>, i64>,
    pub(super) deletion_asked: bool,
    pub(super) deletion_done: bool,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) logs: BTreeMap<LogId, ModelLog>,
}

/// Compares every log with the model and makes the model what was found.
pub(super) async fn compare(directory: &Rc<LogDirectory>, model: &Rc<RefCell<Model>>) -> Verdict {
    let ids: Vec<LogId> = model.borrow().logs.keys().copied().collect();
    for log in directory.logs() {
        if !ids.contains(&log.id()) && log.end_offset() > Offset(0) {
            return Err(format!("{:?} was never written", log.id()));
        }
    }
    for id in ids {
        let mut expected = model.borrow_mut().logs.remove(&id).expect("listed");
        let found = directory.log(id);
        if expected.deletion_asked {
            if expected.deletion_done && found.is_some() {
                return Err(format!("{id:?} is back after its deletion"));
            }
            if let Some(log) = found {
                log_is_gone_or_whole(&log)?;
                directory.delete_log(id).await;
            }
            continue;
        }
        match found {
            Some(log) => {
                compare_log(&log, &mut expected).await?;
                model.borrow_mut().logs.insert(id, expected);
            }
            None if expected.acknowledged > 0 => {
                return Err(format!(
                    "{id:?} is lost: acknowledged up to {}",
                    expected.acknowledged
                ));
            }
            None => {}
        }
    }
    Ok(())
}

fn log_is_gone_or_whole(log: &PartitionLog) -> Verdict {
    log.healthy()
        .map_err(|error| format!("{:?}, half deleted: {error}", log.id()))
}

async fn compare_log(log: &Rc<PartitionLog>, expected: &mut ModelLog) -> Verdict {
    let id = log.id();
    log.healthy().map_err(|error| format!("{id:?}: {error}"))?;
    let (start, end) = (log.start_offset().0, log.end_offset().0);
    let least = match expected.cut_asked.take() {
        Some(to) => {
            note_cut(id, expected, end);
            let holds = expected.batches.range(..=to).next_back();
            expected
                .acknowledged
                .min(holds.map_or(0, |(base, _)| *base))
        }
        None => expected.acknowledged,
    };
    if end < least {
        return Err(format!("{id:?} ends at {end}, acknowledged {least}"));
    }
    if end > expected.end {
        return Err(format!(
            "{id:?} ends at {end}, only {} were appended",
            expected.end
        ));
    }
    let least_start = expected.start_acknowledged.min(least);
    if start < least_start || start > expected.start_asked {
        return Err(format!(
            "{id:?} starts at {start}, acknowledged {} asked {}",
            expected.start_acknowledged, expected.start_asked
        ));
    }
    if is_keyed(id) {
        compare_keyed(log, expected).await?;
    } else {
        compare_batches(log, expected).await?;
        compare_transactions(log, expected)?;
    }
    expected.batches.split_off(&end);
    expected.end = end;
    expected.acknowledged = end;
    expected.start_asked = start;
    expected.start_acknowledged = start;
    Ok(())
}

async fn compare_batches(log: &Rc<PartitionLog>, expected: &ModelLog) -> Verdict {
    let (id, end) = (log.id(), log.end_offset().0);
    let mut at = log.start_offset().0;
    while at < end {
        let run = log
            .read(Offset(at), Offset(end), 10_000, true)
            .await
            .map_err(|error| format!("{id:?} at {at}: {error}"))?;
        let read = joined(&run);
        let (first, _) = expected
            .batches
            .range(..=at)
            .next_back()
            .expect("start was a batch's");
        let mut rest = &read[..];
        let first = *first;
        for (base, batch) in expected.batches.range(first..) {
            if rest.len() < batch.len() {
                break;
            }
            if rest[..batch.len()] != batch[..] {
                return Err(format!(
                    "{id:?}: the batch at {base} is not what was appended"
                ));
            }
            rest = &rest[batch.len()..];
            at = base + i64::from(BatchHeader::parse(batch).expect("built").last_offset_delta) + 1;
        }
        if rest.len() == read.len() {
            return Err(format!("{id:?}: no whole batch at {at}"));
        }
    }
    Ok(())
}

/// What is open and what was aborted is what the batches say. Where a transaction began below the log
/// start may be forgotten, since the batches there are gone: a cut then finds what is left of it.
fn compare_transactions(log: &PartitionLog, expected: &ModelLog) -> Verdict {
    let (id, start, end) = (log.id(), log.start_offset(), log.end_offset());
    let (mut told, mut producers) = (Transactions::default(), ProducerState::default());
    for (base, bytes) in expected.batches.range(..end.0) {
        let batch = BatchView::parse(bytes).expect("built");
        let marker = TransactionMarker::parse(batch.header(), batch.payload()).expect("built");
        let base = Offset(*base);
        told.note(&mut producers, batch.header(), base, marker.as_ref());
    }
    told.forget_before(start);
    let found = log.with_transactions(Transactions::clone);
    let differs = || Err(format!("{id:?}: {found:?}, the batches say {told:?}"));
    let is_same = |first: Offset, told: Offset| first == told || told < start && first > told;
    let open: BTreeMap<i64, Offset> = log.with_producers(|producers| {
        let open = producers.open_transactions();
        open.map(|(first, id)| (id, first)).collect()
    });
    let told_open = || producers.open_transactions();
    let is_found = |(first, id): (Offset, i64)| match open.get(&id) {
        Some(found) => is_same(*found, first),
        None => first < start,
    };
    let is_told = |id: &i64| told_open().any(|(_, told)| told == *id);
    if !told_open().all(is_found) || !open.keys().all(is_told) {
        return differs();
    }
    // What began below the log start and has nothing left above it hides nothing from readers: a cut
    // that opens it again does not find it, and its next marker ends nothing.
    let ends = |aborted: &AbortedTransaction| (aborted.producer_id, aborted.last_offset);
    let is_left = |aborted: &&AbortedTransaction| {
        aborted.first_offset >= start
            || has_records(expected, aborted, start)
            || found.aborted().iter().any(|it| ends(it) == ends(aborted))
    };
    let told_left: Vec<&AbortedTransaction> = told.aborted().iter().filter(is_left).collect();
    let mut pairs = found.aborted().iter().zip(&told_left);
    let are_same = pairs.all(|(found, told)| {
        (found.producer_id, found.last_offset) == (told.producer_id, told.last_offset)
            && is_same(found.first_offset, told.first_offset)
            && is_same(found.last_stable_offset, told.last_stable_offset)
    });
    if !are_same || found.aborted().len() != told_left.len() {
        return differs();
    }
    let stable = open.values().min().map_or(end, |first| start.max(*first));
    match log.last_stable_offset(end) == stable {
        true => Ok(()),
        false => differs(),
    }
}

/// Whether a reader from the log start on gets records of an aborted transaction.
fn has_records(expected: &ModelLog, aborted: &AbortedTransaction, start: Offset) -> bool {
    let batches = expected
        .batches
        .range(aborted.first_offset.0..aborted.last_offset.0);
    let mut headers = batches.map(|(base, bytes)| {
        let header = *BatchView::parse(bytes).expect("built").header();
        (base + i64::from(header.last_offset_delta), header)
    });
    headers.any(|(last, header)| header.producer_id == aborted.producer_id && last >= start.0)
}

/// The bytes of a run in one piece.
pub(super) fn joined(run: &BatchRun) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(run.size_bytes);
    for slice in &run.slices {
        bytes.extend_from_slice(slice);
    }
    bytes
}
