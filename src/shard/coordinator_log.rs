//! A coordinator's records in its partition's log, there and back.

use crate::coordinator::effects::{CoordinatorRecord, ProducerIdAndEpoch};
use crate::coordinator::shard::Shard;
use crate::log::position::Offset;
use crate::partition::replica::Replica;
use crate::runtime::clock;
use crate::wire::record_batch::{BatchHeader, BatchView, Batches, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// Bytes of a log read at a time.
const LOAD_BYTES: usize = 1 << 20;

/// One batch of all records; None of none.
pub(super) fn batch(
    records: &[CoordinatorRecord],
    transaction: Option<ProducerIdAndEpoch>,
) -> Option<(BatchHeader, Vec<u8>)> {
    if records.is_empty() {
        return None;
    }
    let mut options = BatchOptions::default();
    if let Some(producer) = transaction {
        options.producer_id = producer.id;
        options.producer_epoch = producer.epoch;
        options.is_transactional = true;
    }
    let mut builder = BatchBuilder::new(options);
    let now_ms = clock::wall_ms();
    for record in records {
        let value = record.value.as_deref();
        builder.append(now_ms, Some(&record.key), value, [].into_iter());
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    Some((header, bytes[HEADER_BYTES..].to_vec()))
}

/// The header of a batch within a producer's transaction.
pub(super) fn transactional_header(producer: ProducerIdAndEpoch) -> BatchHeader {
    let record = CoordinatorRecord {
        key: Vec::new(),
        value: None,
    };
    let (header, _) = batch(&[record], Some(producer)).expect("there is a record");
    header
}

/// A shard as its log tells.
pub(super) async fn load<S: Shard>(replica: &Replica) -> Result<S, String> {
    let log = replica.log();
    let unreadable = |error| format!("{error}");
    log.healthy().map_err(unreadable)?;
    let mut shard = S::empty();
    let (mut at, end) = (log.start_offset(), log.end_offset());
    // What recovery found is durable; what is appended before the load cannot be ours.
    let committed = replica.committed(end).await;
    committed.map_err(|failure| format!("{failure:?}"))?;
    while at < end {
        let run = log
            .read(at, end, LOAD_BYTES, true)
            .await
            .map_err(unreadable)?;
        let slices = run.slices.iter().flat_map(|slice| slice.iter().copied());
        let joined: Vec<u8> = slices.collect();
        let before = at;
        for batch in Batches::new(&joined) {
            // The last one may be cut off; it comes whole with the next read.
            let Ok(batch) = batch else { break };
            replay(&batch, &mut shard).map_err(|why| format!("offset {at}: {why}"))?;
            at = Offset(batch.header().last_offset() + 1);
        }
        if at == before {
            return Err(format!("no whole batch at offset {at}"));
        }
    }
    Ok(shard)
}

fn replay<S: Shard>(batch: &BatchView<'_>, shard: &mut S) -> Result<(), String> {
    batch.verify_checksum().map_err(|error| error.to_string())?;
    let header = batch.header();
    let producer = ProducerIdAndEpoch {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let transaction = header.attributes.is_transactional().then_some(producer);
    for record in batch.records().map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        let Some(key) = record.key else { continue };
        if header.attributes.is_control() {
            // Version, then type: 0 aborts, 1 commits (ControlRecordType).
            let committed = match key {
                [_, _, 0, 0] => false,
                [_, _, 0, 1] => true,
                _ => continue,
            };
            shard.end_transaction(header.producer_id, committed);
        } else {
            shard.replay(key, record.value, transaction)?;
        }
    }
    Ok(())
}
