//! Entries of the journal: what happened to a log, in order.
//!
//! # Format (little-endian)
//! ```text
//! kind  1 | topic id 16 | partition 4 | fields of the kind
//! 1 Create   directory name (length 2, text)
//! 2 Roll     segment id 8, base offset 8      the segment becomes the active one
//! 3 Append   segment id 8, position 8, length 4, bytes
//! 4 Start    log start offset 8               records below it are gone
//! 5 Drop     segment id 8                     the segment's file may be gone
//! 6 Epoch    leader epoch 4, start offset 8
//! 7 Delete                                    the log's files may be gone
//! 8 Swap     new segment id 8, base offset 8, size 8, largest timestamp 8, first timestamp 8,
//!            compaction's progress 24 (compaction.rs), count 4, old segment ids 8 each
//!                                             the new segment takes the place of the old ones
//! 9 Truncate segment id 8, position 8, offset 8   the log ends there; later segments are gone
//! 10 Extent  segment id 8, position 8, length 4, count 4, then per batch position 8, header 61
//! 11 Producers  as in a checkpoint (producer_state.rs)   how they are once the log is cut: counts
//!                                             only with the Truncate that follows for this log
//! 12 Producers  as 11, then the transactional ones (producer_state.rs)
//! 13 Swap    as 8, then count 4 and offsets 8 of the markers that the new segment lacks
//! 14 Skip    offset 8                         the next batch begins there: a follower's leader has
//!                                             nothing between
//! ```
//! 12 and 13 are written only where 11 and 8 cannot say everything.
//! An `Extent` says that the bytes were written straight to the segment's file, durably before the
//! group was acknowledged. It names every batch that begins in its append before its end, so that
//! recovery can tell a torn extent (header and checksum differ) and needs no look into whole ones.
//! Its first bytes share a block with earlier bytes unless `position` is at a block's boundary.
//! `Append` carries any range of bytes, not whole batches: large batches span groups, and the
//! first entry after a checkpoint repeats the beginning of a partly filled block.

use super::bytes::{Fields, Malformed, put_count, put_text};
use super::position::{BytePosition, LeaderEpoch, LogId, Offset, SegmentId};
use super::producer_state::ProducerState;
use super::swap::Swap;
use crate::wire::record_batch::HEADER_BYTES;

/// Bytes of an `Append` before its payload.
pub const APPEND_HEADER_BYTES: usize = 1 + LOG_ID_BYTES + 8 + 8 + 4;

/// Bytes of an `Extent` before the batches it names.
pub const EXTENT_HEADER_BYTES: usize = APPEND_HEADER_BYTES + 4;

/// Bytes of one batch named by an `Extent`: its position and its header.
pub const NAMED_BATCH_BYTES: usize = 8 + HEADER_BYTES;

const LOG_ID_BYTES: usize = 20;

/// One thing that happened to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The log exists, in this directory.
    Create {
        /// Which log.
        log: LogId,
        /// Name of its directory below the data directory.
        directory: &'a str,
    },
    /// The log continues in a new segment.
    Roll {
        /// Which log.
        log: LogId,
        /// The new active segment.
        segment: SegmentId,
        /// Its first offset.
        base_offset: Offset,
    },
    /// Bytes were appended.
    Append {
        /// Which log.
        log: LogId,
        /// To which segment.
        segment: SegmentId,
        /// Where in the segment.
        position: BytePosition,
        /// What.
        bytes: &'a [u8],
    },
    /// The log begins later now.
    Start {
        /// Which log.
        log: LogId,
        /// Its new first offset.
        offset: Offset,
    },
    /// A segment is gone.
    Drop {
        /// Which log.
        log: LogId,
        /// Which segment.
        segment: SegmentId,
    },
    /// A leader began to write.
    Epoch {
        /// Which log.
        log: LogId,
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// The first offset of that epoch.
        start: Offset,
    },
    /// The log is gone.
    Delete {
        /// Which log.
        log: LogId,
    },
    /// A compacted segment takes the place of others.
    Swap {
        /// Which log.
        log: LogId,
        /// Which segment takes whose place.
        swap: Swap,
    },
    /// The log was cut.
    Truncate {
        /// Which log.
        log: LogId,
        /// The segment that is the active one now.
        segment: SegmentId,
        /// Where it ends now.
        position: BytePosition,
        /// Where the log ends now.
        offset: Offset,
    },
    /// Producers as they are to be remembered once the log is cut.
    Producers {
        /// Which log.
        log: LogId,
        /// Those of which more is known than what the cut leaves.
        producers: ProducerState,
    },
    /// The log ends at a later offset now, with nothing between.
    Skip {
        /// Which log.
        log: LogId,
        /// Where it ends now.
        to: Offset,
    },
    /// Bytes were appended, straight to the segment's file.
    Extent {
        /// Which log.
        log: LogId,
        /// To which segment.
        segment: SegmentId,
        /// Where in the segment.
        position: BytePosition,
        /// How many bytes.
        length: u32,
        /// The batches that begin before its end, see [`named_batches`].
        batches: &'a [u8],
    },
}

/// Positions and headers of the batches that an `Extent` names.
pub fn named_batches(batches: &[u8]) -> impl Iterator<Item = (BytePosition, &[u8; HEADER_BYTES])> {
    batches.chunks_exact(NAMED_BATCH_BYTES).map(|batch| {
        let (position, header) = batch.split_first_chunk::<8>().expect("chunks are exact");
        let header = header.first_chunk().expect("chunks are exact");
        (u64::from_le_bytes(*position), header)
    })
}

fn take_named<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    let count = fields.count(NAMED_BATCH_BYTES)?;
    fields.take(count * NAMED_BATCH_BYTES)
}

fn put_log(into: &mut Vec<u8>, kind: u8, log: LogId) {
    into.push(kind);
    into.extend_from_slice(&log.topic);
    into.extend_from_slice(&log.partition.to_le_bytes());
}

fn encode_swap(into: &mut Vec<u8>, log: LogId, swap: &Swap) {
    let kind = if swap.markers.is_empty() { 8 } else { 13 };
    put_log(into, kind, log);
    swap.encode(into);
    if kind == 13 {
        swap.encode_markers(into);
    }
}

fn encode_producers(into: &mut Vec<u8>, log: LogId, producers: &ProducerState) {
    let kind = if producers.has_transactional() {
        12
    } else {
        11
    };
    put_log(into, kind, log);
    producers.encode(into);
    if kind == 12 {
        producers.encode_transactional(into);
    }
}

/// Reads a part of the log's memory of its producers, with what makes them transactional or without.
fn decode_producers(fields: &mut Fields<'_>, kind: u8) -> Result<ProducerState, Malformed> {
    let mut producers = ProducerState::decode(fields)?;
    if kind == 12 {
        producers.decode_transactional(fields)?;
    }
    Ok(producers)
}

/// Reads a swap, with the markers that went or without.
fn decode_swap(fields: &mut Fields<'_>, kind: u8) -> Result<Swap, Malformed> {
    match kind {
        8 => Swap::decode(fields),
        _ => Swap::decode_with_markers(fields),
    }
}

impl<'a> Entry<'a> {
    /// Appends the bytes of this entry.
    pub fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Entry::Create { log, directory } => {
                put_log(into, 1, *log);
                put_text(into, directory);
            }
            Entry::Roll {
                log,
                segment,
                base_offset,
            } => {
                put_log(into, 2, *log);
                into.extend_from_slice(&segment.0.to_le_bytes());
                into.extend_from_slice(&base_offset.0.to_le_bytes());
            }
            Entry::Append {
                log,
                segment,
                position,
                bytes,
            } => {
                encode_append_header(into, *log, *segment, *position, bytes.len());
                into.extend_from_slice(bytes);
            }
            Entry::Start { log, offset } => {
                put_log(into, 4, *log);
                into.extend_from_slice(&offset.0.to_le_bytes());
            }
            Entry::Drop { log, segment } => {
                put_log(into, 5, *log);
                into.extend_from_slice(&segment.0.to_le_bytes());
            }
            Entry::Epoch { log, epoch, start } => {
                put_log(into, 6, *log);
                into.extend_from_slice(&epoch.0.to_le_bytes());
                into.extend_from_slice(&start.0.to_le_bytes());
            }
            Entry::Delete { log } => put_log(into, 7, *log),
            Entry::Swap { log, swap } => {
                encode_swap(into, *log, swap);
            }
            Entry::Truncate {
                log,
                segment,
                position,
                offset,
            } => {
                put_log(into, 9, *log);
                into.extend_from_slice(&segment.0.to_le_bytes());
                into.extend_from_slice(&position.to_le_bytes());
                into.extend_from_slice(&offset.0.to_le_bytes());
            }
            Entry::Extent {
                log,
                segment,
                position,
                length,
                batches,
            } => {
                let count = batches.len() / NAMED_BATCH_BYTES;
                encode_extent_header(into, *log, *segment, *position, *length as usize, count);
                into.extend_from_slice(batches);
            }
            Entry::Producers { log, producers } => encode_producers(into, *log, producers),
            Entry::Skip { log, to } => {
                put_log(into, 14, *log);
                into.extend_from_slice(&to.0.to_le_bytes());
            }
        }
    }

    /// Reads the next entry.
    pub fn decode(fields: &mut Fields<'a>) -> Result<Entry<'a>, Malformed> {
        let at = fields.position();
        let kind = fields.u8()?;
        let log = LogId {
            topic: fields.array()?,
            partition: fields.u32()?,
        };
        Ok(match kind {
            1 => Entry::Create {
                log,
                directory: fields.text()?,
            },
            2 => Entry::Roll {
                log,
                segment: SegmentId(fields.u64()?),
                base_offset: Offset(fields.i64()?),
            },
            3 => {
                let segment = SegmentId(fields.u64()?);
                let position = fields.u64()?;
                let length = fields.count(1)?;
                Entry::Append {
                    log,
                    segment,
                    position,
                    bytes: fields.take(length)?,
                }
            }
            4 => Entry::Start {
                log,
                offset: Offset(fields.i64()?),
            },
            5 => Entry::Drop {
                log,
                segment: SegmentId(fields.u64()?),
            },
            6 => Entry::Epoch {
                log,
                epoch: LeaderEpoch(fields.i32()?),
                start: Offset(fields.i64()?),
            },
            7 => Entry::Delete { log },
            8 | 13 => Entry::Swap {
                log,
                swap: decode_swap(fields, kind)?,
            },
            9 => Entry::Truncate {
                log,
                segment: SegmentId(fields.u64()?),
                position: fields.u64()?,
                offset: Offset(fields.i64()?),
            },
            10 => Entry::Extent {
                log,
                segment: SegmentId(fields.u64()?),
                position: fields.u64()?,
                length: fields.u32()?,
                batches: take_named(fields)?,
            },
            11 | 12 => Entry::Producers {
                log,
                producers: decode_producers(fields, kind)?,
            },
            14 => Entry::Skip {
                log,
                to: Offset(fields.i64()?),
            },
            _ => return Err(Malformed(at)),
        })
    }

    /// The log this entry speaks of.
    #[must_use]
    pub fn log(&self) -> LogId {
        match self {
            Entry::Create { log, .. }
            | Entry::Roll { log, .. }
            | Entry::Append { log, .. }
            | Entry::Start { log, .. }
            | Entry::Drop { log, .. }
            | Entry::Epoch { log, .. }
            | Entry::Delete { log }
            | Entry::Swap { log, .. }
            | Entry::Truncate { log, .. }
            | Entry::Producers { log, .. }
            | Entry::Skip { log, .. }
            | Entry::Extent { log, .. } => *log,
        }
    }
}

/// Appends the head of an `Append` whose `length` bytes follow.
pub fn encode_append_header(
    into: &mut Vec<u8>,
    log: LogId,
    segment: SegmentId,
    position: BytePosition,
    length: usize,
) {
    put_log(into, 3, log);
    into.extend_from_slice(&segment.0.to_le_bytes());
    into.extend_from_slice(&position.to_le_bytes());
    into.extend_from_slice(&u32::try_from(length).expect("below a group").to_le_bytes());
}

/// Appends the head of an `Extent` whose `count` named batches follow.
pub fn encode_extent_header(
    into: &mut Vec<u8>,
    log: LogId,
    segment: SegmentId,
    position: BytePosition,
    length: usize,
    count: usize,
) {
    put_log(into, 10, log);
    into.extend_from_slice(&segment.0.to_le_bytes());
    into.extend_from_slice(&position.to_le_bytes());
    into.extend_from_slice(&u32::try_from(length).expect("below a group").to_le_bytes());
    put_count(into, count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::compaction::CompactionProgress;
    use crate::wire::record_batch::BatchHeader;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};
    use crate::wire::transaction_marker::TransactionMarker;

    fn one_producer() -> ProducerState {
        let mut batch = BatchBuilder::new(BatchOptions {
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 3,
            ..BatchOptions::default()
        });
        batch.append(1, None, None, [].into_iter());
        let batch = BatchHeader::parse(&batch.finish()).expect("just built");
        let mut producers = ProducerState::default();
        producers.remember(&batch, Offset(12));
        producers
    }

    fn transactional_producer() -> ProducerState {
        let mut producers = one_producer();
        let marker = TransactionMarker {
            producer_id: 7,
            producer_epoch: 1,
            coordinator_epoch: 5,
            commit: true,
        };
        producers.end_transaction(&marker, Offset(13), 9);
        producers
    }

    fn a_swap(markers: Vec<Offset>) -> Swap {
        Swap {
            segment: SegmentId(99),
            base_offset: Offset(3),
            size_bytes: 4097,
            largest_timestamp_ms: 9,
            first_timestamp_ms: 8,
            progress: CompactionProgress::default(),
            old: vec![SegmentId(5), SegmentId(6)],
            markers,
        }
    }

    fn every_kind() -> Vec<Entry<'static>> {
        let log = LogId {
            topic: [3; 16],
            partition: 4,
        };
        let segment = SegmentId(99);
        vec![
            Entry::Create {
                log,
                directory: "topic-4",
            },
            Entry::Roll {
                log,
                segment,
                base_offset: Offset(17),
            },
            Entry::Append {
                log,
                segment,
                position: 4096,
                bytes: b"bytes",
            },
            Entry::Start {
                log,
                offset: Offset(5),
            },
            Entry::Drop { log, segment },
            Entry::Epoch {
                log,
                epoch: LeaderEpoch(2),
                start: Offset(17),
            },
            Entry::Delete { log },
            Entry::Swap {
                log,
                swap: a_swap(Vec::new()),
            },
            Entry::Truncate {
                log,
                segment,
                position: 8192,
                offset: Offset(16),
            },
            Entry::Extent {
                log,
                segment,
                position: 8192,
                length: 4096,
                batches: &[7; 2 * NAMED_BATCH_BYTES],
            },
            Entry::Producers {
                log,
                producers: one_producer(),
            },
            Entry::Producers {
                log,
                producers: transactional_producer(),
            },
            Entry::Swap {
                log,
                swap: a_swap(vec![Offset(4), Offset(9)]),
            },
            Entry::Skip {
                log,
                to: Offset(1 << 40),
            },
        ]
    }

    #[test]
    fn every_kind_round_trips() {
        let entries = every_kind();
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        let mut fields = Fields::new(&bytes);
        for entry in &entries {
            assert_eq!(Entry::decode(&mut fields).as_ref(), Ok(entry));
        }
        assert_eq!(fields.remaining(), 0);
        for cut in 0..bytes.len() {
            let mut fields = Fields::new(&bytes[..cut]);
            let whole = std::iter::from_fn(|| Entry::decode(&mut fields).ok()).count();
            assert!(whole < entries.len(), "cut at {cut}");
        }
    }
}
