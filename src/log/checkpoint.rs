//! The checkpoint of one core in one data directory: everything recovery needs beyond the journal.
//!
//! # Format (little-endian), `checkpoint/<generation>-<core>.checkpoint`
//! ```text
//!  0  magic 8 "PLOGCKP3" | generation 8 | core 2 | epoch 16
//! 34  covered sequence 8 | journal file 8 | position 8 | closed 1 | log count 4
//! 63  per log: topic id 16 | partition 4 | directory (length 2, text) | damage (length 2, text)
//!     start 8 | end 8 | compaction's progress 24 (compaction.rs) | segment count 4
//!     per segment: id 8 | base offset 8 | size 8 | largest timestamp 8 | first timestamp 8
//!                  flags 1 (1 sealed, 2 index follows) | index (see index.rs)
//!     leader epochs (leader_epochs.rs) | producers (producer_state.rs)
//!     transactions (transactions.rs), not in "PLOGCKP2", which is read too
//!     checksum 4 (CRC-32C of everything before)
//! ```
//! `checkpoint/current`
//! ```text
//!  0  magic 8 "PLOGCUR1" | generation 8 | number of cores 2 | checksum 4 (CRC-32C of bytes 0..18)
//! ```
//! It names the valid generation and the number of its cores: a start of the broker writes a whole new generation and then switches to it with one rename, so the number of cores
//! may change and a crash in between changes nothing.

use super::bytes::{Fields, Malformed, put_count, put_text};
use super::compaction::CompactionProgress;
use super::group::Epoch;
use super::index::{MOST_ENTRIES, SparseIndex};
use super::leader_epochs::LeaderEpochs;
use super::partition_log::LogImage;
use super::position::{LogId, Offset, SegmentId};
use super::producer_state::ProducerState;
use super::segment::SegmentImage;
use super::transactions::Transactions;

const MAGIC: [u8; 8] = *b"PLOGCKP3";
/// Of a checkpoint without transactions.
const PLAIN_MAGIC: [u8; 8] = *b"PLOGCKP2";
const CURRENT_MAGIC: [u8; 8] = *b"PLOGCUR1";
const SEALED: u8 = 1;
const INDEXED: u8 = 2;

/// A place in a journal: the number of a file and a position in it. Number 0 is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalPlace {
    /// The file's number.
    pub file: u64,
    /// Bytes from its start.
    pub position: u64,
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The start of the broker it belongs to.
    pub generation: u64,
    /// Which core of that start.
    pub core: u16,
    /// The epoch of that core's journal groups.
    pub epoch: Epoch,
    /// Groups up to this one are contained.
    pub covered: u64,
    /// Where that group ends.
    pub cut: JournalPlace,
    /// No entry of this epoch follows: the broker stopped after it.
    pub closed: bool,
    /// All logs of the core in the directory.
    pub logs: Vec<LogImage>,
}

/// The file name of a checkpoint.
#[must_use]
pub fn checkpoint_file_name(generation: u64, core: u16) -> String {
    format!("{generation:010}-{core}.checkpoint")
}

impl Checkpoint {
    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.core.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0);
        bytes.extend_from_slice(&self.covered.to_le_bytes());
        bytes.extend_from_slice(&self.cut.file.to_le_bytes());
        bytes.extend_from_slice(&self.cut.position.to_le_bytes());
        bytes.push(u8::from(self.closed));
        put_count(&mut bytes, self.logs.len());
        for log in &self.logs {
            encode_log(log, &mut bytes);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the content of a file.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, Malformed> {
        let mut fields = Fields::new(checked(bytes)?);
        let head = CheckpointHead::decode(&mut fields)?;
        let mut logs = Vec::new();
        for _ in 0..head.logs {
            logs.push(decode_log(&mut fields, head.has_transactions)?);
        }
        if fields.remaining() > 0 {
            return Err(Malformed(fields.position()));
        }
        Ok(Checkpoint {
            generation: head.generation,
            core: head.core,
            epoch: head.epoch,
            covered: head.covered,
            cut: head.cut,
            closed: head.closed,
            logs,
        })
    }
}

/// What stands before the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHead {
    /// The start of the broker it belongs to.
    pub generation: u64,
    /// Which core of that start.
    pub core: u16,
    /// The epoch of that core's journal groups.
    pub epoch: Epoch,
    /// Groups up to this one are contained.
    pub covered: u64,
    /// Where the last of them ends.
    pub cut: JournalPlace,
    /// No entry of this epoch follows.
    pub closed: bool,
    /// How many logs follow.
    pub logs: u32,
    /// Whether the logs tell of transactions.
    pub has_transactions: bool,
}

impl CheckpointHead {
    /// Reads the beginning of a file.
    pub fn decode(fields: &mut Fields<'_>) -> Result<CheckpointHead, Malformed> {
        let found: [u8; 8] = fields.array()?;
        let has_transactions = found == MAGIC;
        if !has_transactions && found != PLAIN_MAGIC {
            return Err(Malformed(fields.position() - found.len()));
        }
        Ok(CheckpointHead {
            has_transactions,
            generation: fields.u64()?,
            core: fields.i16()?.cast_unsigned(),
            epoch: Epoch(fields.array()?),
            covered: fields.u64()?,
            cut: JournalPlace {
                file: fields.u64()?,
                position: fields.u64()?,
            },
            closed: fields.u8()? != 0,
            logs: fields.u32()?,
        })
    }
}

/// The bytes before the checksum.
fn checked(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed(0))?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(Malformed(content.len()));
    }
    Ok(content)
}

fn magic(fields: &mut Fields<'_>, magic: [u8; 8]) -> Result<(), Malformed> {
    let at = fields.position();
    if fields.array()? == magic {
        Ok(())
    } else {
        Err(Malformed(at))
    }
}

fn encode_log(log: &LogImage, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&log.id.topic);
    bytes.extend_from_slice(&log.id.partition.to_le_bytes());
    put_text(bytes, &log.directory);
    put_text(bytes, log.damage.as_deref().unwrap_or(""));
    bytes.extend_from_slice(&log.start.0.to_le_bytes());
    bytes.extend_from_slice(&log.end.0.to_le_bytes());
    log.compaction.encode(bytes);
    put_count(bytes, log.segments.len());
    for segment in &log.segments {
        for number in [
            segment.id.0,
            segment.base_offset.0.cast_unsigned(),
            segment.size_bytes,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&segment.largest_timestamp_ms.to_le_bytes());
        bytes.extend_from_slice(&segment.first_timestamp_ms.to_le_bytes());
        let sealed = if segment.sealed { SEALED } else { 0 };
        let indexed = if segment.index.is_some() { INDEXED } else { 0 };
        bytes.push(sealed | indexed);
        if let Some(index) = &segment.index {
            index.encode(bytes);
        }
    }
    log.epochs.encode(bytes);
    log.producers.encode(bytes);
    log.producers.encode_transactional(bytes);
    log.transactions.encode(bytes);
}

/// Reads the next log of a checkpoint, with its transactions if it tells of them.
pub fn decode_log(fields: &mut Fields<'_>, has_transactions: bool) -> Result<LogImage, Malformed> {
    let id = LogId {
        topic: fields.array()?,
        partition: fields.u32()?,
    };
    let directory = fields.text()?.to_string();
    let damage = Some(fields.text()?.to_string()).filter(|damage| !damage.is_empty());
    let (start, end) = (Offset(fields.i64()?), Offset(fields.i64()?));
    let compaction = CompactionProgress::decode(fields)?;
    let mut segments = Vec::new();
    for _ in 0..fields.count(41)? {
        let (id, base_offset) = (SegmentId(fields.u64()?), Offset(fields.i64()?));
        let size_bytes = fields.u64()?;
        let (largest_timestamp_ms, first_timestamp_ms) = (fields.i64()?, fields.i64()?);
        let flags = fields.u8()?;
        let index = match flags & INDEXED {
            0 => None,
            _ => Some(SparseIndex::decode(fields, base_offset, MOST_ENTRIES)?),
        };
        segments.push(SegmentImage {
            id,
            base_offset,
            size_bytes,
            sealed: flags & SEALED != 0,
            largest_timestamp_ms,
            first_timestamp_ms,
            index,
        });
    }
    let epochs = LeaderEpochs::decode(fields)?;
    let mut producers = ProducerState::decode(fields)?;
    let mut transactions = Transactions::default();
    if has_transactions {
        producers.decode_transactional(fields)?;
        transactions = Transactions::decode(fields, &producers)?;
    }
    Ok(LogImage {
        id,
        directory,
        start,
        end,
        compaction,
        segments,
        epochs,
        producers,
        transactions,
        damage,
    })
}

/// Which generation of checkpoints is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The generation.
    pub generation: u64,
    /// Its checkpoints are those of the cores below this number.
    pub cores: u16,
}

impl Current {
    /// The content of `checkpoint/current`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = CURRENT_MAGIC.to_vec();
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.cores.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the content of `checkpoint/current`.
    pub fn decode(bytes: &[u8]) -> Result<Current, Malformed> {
        let mut fields = Fields::new(checked(bytes)?);
        magic(&mut fields, CURRENT_MAGIC)?;
        let current = Current {
            generation: fields.u64()?,
            cores: fields.i16()?.cast_unsigned(),
        };
        if fields.remaining() > 0 {
            return Err(Malformed(fields.position()));
        }
        Ok(current)
    }

    /// Whether a file begins like `checkpoint/current`.
    #[must_use]
    pub fn is_announced_by(bytes: &[u8]) -> bool {
        bytes.starts_with(&CURRENT_MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::position::LeaderEpoch;

    fn checkpoint() -> Checkpoint {
        let mut log = LogImage::empty(
            LogId {
                topic: [9; 16],
                partition: 2,
            },
            "t-2",
        );
        log.end = Offset(30);
        log.start = Offset(4);
        log.compaction.first_dirty = Offset(11);
        log.epochs.begin(LeaderEpoch(3), Offset(0));
        let mut index = SparseIndex::new(Offset(20), 16, MOST_ENTRIES);
        index.note(Offset(22), 100, 5);
        log.segments = vec![
            SegmentImage {
                id: SegmentId(1),
                base_offset: Offset(0),
                size_bytes: 5000,
                sealed: true,
                largest_timestamp_ms: 7,
                first_timestamp_ms: 6,
                index: None,
            },
            SegmentImage {
                id: SegmentId(2),
                base_offset: Offset(20),
                size_bytes: 300,
                sealed: false,
                largest_timestamp_ms: 8,
                first_timestamp_ms: 7,
                index: Some(index),
            },
        ];
        Checkpoint {
            generation: 5,
            core: 1,
            epoch: Epoch([1; 16]),
            covered: 77,
            cut: JournalPlace {
                file: 3,
                position: 8192,
            },
            closed: true,
            logs: vec![log],
        }
    }

    #[test]
    fn one_without_transactions_is_read_too() {
        let written = checkpoint();
        let bytes = written.encode();
        // The log is the last one, and what it says of transactions are two empty lists.
        let without = bytes.len() - 4 - 8;
        let mut older = bytes[..without].to_vec();
        assert_eq!(bytes[without..without + 8], [0; 8]);
        older[..8].copy_from_slice(&PLAIN_MAGIC);
        let checksum = crc32c::crc32c(&older);
        older.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(Checkpoint::decode(&older), Ok(written));
    }

    #[test]
    fn round_trip_and_damage_is_noticed() {
        let bytes = checkpoint().encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Checkpoint::decode(&damaged).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let current = Current {
            generation: 5,
            cores: 2,
        };
        assert_eq!(Current::decode(&current.encode()), Ok(current));
    }
}
