//! The swap: a compacted segment takes the place of those it was made from.
//!
//! The new segment is written and flushed under a name of its own, `<20 digits>.<16 digits>.cleaned`
//! (base offset, then segment id in hex: never the name of an earlier swap's file), then its entry is
//! recorded, and only when that is durable the file is renamed over the `.log` of its base offset.
//! So recovery that finds the entry finds the file under one of the two names.

use std::io;
use std::path::Path;

use super::bytes::{Fields, Malformed, put_count};
use super::compaction::CompactionProgress;
use super::position::{Offset, SegmentId};
use super::segment::{SegmentImage, segment_file_name};
use crate::runtime::startup;

const SUFFIX: &str = ".cleaned";

/// The name of a compacted segment's file until it is swapped in.
#[must_use]
pub fn cleaned_file_name(base_offset: Offset, segment: SegmentId) -> String {
    format!("{:020}.{:016x}{SUFFIX}", base_offset.0, segment.0)
}

/// Whether a file is a compacted segment that was not swapped in.
#[must_use]
pub fn is_cleaned_file(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// What the journal says of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The new segment.
    pub segment: SegmentId,
    /// Its first offset, that of the first segment replaced.
    pub base_offset: Offset,
    /// Its bytes.
    pub size_bytes: u64,
    /// Largest timestamp of its batches.
    pub largest_timestamp_ms: i64,
    /// Timestamp of its first batch.
    pub first_timestamp_ms: i64,
    /// How far compaction is with it.
    pub progress: CompactionProgress,
    /// The segments replaced, adjacent and in order.
    pub old: Vec<SegmentId>,
    /// Offsets of the markers of aborted transactions that the new segment lacks, ascending.
    pub markers: Vec<Offset>,
}

impl Swap {
    /// The new segment as a checkpoint knows it.
    #[must_use]
    pub fn image(&self) -> SegmentImage {
        SegmentImage {
            id: self.segment,
            base_offset: self.base_offset,
            size_bytes: self.size_bytes,
            sealed: true,
            largest_timestamp_ms: self.largest_timestamp_ms,
            first_timestamp_ms: self.first_timestamp_ms,
            index: None,
        }
    }

    /// Appends the fields of the journal entry, but for the markers.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.segment.0.to_le_bytes());
        into.extend_from_slice(&self.base_offset.0.to_le_bytes());
        into.extend_from_slice(&self.size_bytes.to_le_bytes());
        into.extend_from_slice(&self.largest_timestamp_ms.to_le_bytes());
        into.extend_from_slice(&self.first_timestamp_ms.to_le_bytes());
        self.progress.encode(into);
        put_count(into, self.old.len());
        for segment in &self.old {
            into.extend_from_slice(&segment.0.to_le_bytes());
        }
    }

    /// Reads what [`Swap::encode`] wrote.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Swap, Malformed> {
        Ok(Swap {
            segment: SegmentId(fields.u64()?),
            base_offset: Offset(fields.i64()?),
            size_bytes: fields.u64()?,
            largest_timestamp_ms: fields.i64()?,
            first_timestamp_ms: fields.i64()?,
            progress: CompactionProgress::decode(fields)?,
            old: (0..fields.count(8)?)
                .map(|_| fields.u64().map(SegmentId))
                .collect::<Result<_, _>>()?,
            markers: Vec::new(),
        })
    }

    /// Appends the markers.
    pub fn encode_markers(&self, into: &mut Vec<u8>) {
        put_count(into, self.markers.len());
        for marker in &self.markers {
            into.extend_from_slice(&marker.0.to_le_bytes());
        }
    }

    /// Reads what [`Swap::encode`] and then [`Swap::encode_markers`] wrote.
    pub fn decode_with_markers(fields: &mut Fields<'_>) -> Result<Swap, Malformed> {
        let swap = Swap::decode(fields)?;
        let markers = (0..fields.count(8)?).map(|_| fields.i64().map(Offset));
        Ok(Swap {
            markers: markers.collect::<Result<_, _>>()?,
            ..swap
        })
    }
}

/// At recovery: gives segments that were swapped in their names, durably.
pub(super) fn name_swapped(directory: &Path, swapped: &[(Offset, SegmentId)]) -> io::Result<()> {
    if swapped.is_empty() {
        return Ok(());
    }
    for (base_offset, segment) in swapped {
        let cleaned = directory.join(cleaned_file_name(*base_offset, *segment));
        if startup::exists(&cleaned)? {
            startup::rename(&cleaned, &directory.join(segment_file_name(*base_offset)))?;
        }
    }
    // Also when nothing was renamed here: a process that was killed may have left names that are
    // visible but not durable, and the next checkpoint relies on them.
    startup::sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::compaction::CompactionRun;

    #[test]
    fn the_fields_round_trip_and_the_name_says_which_swap() {
        for run in [
            None,
            Some(CompactionRun {
                next: Offset(9),
                end: Offset(70),
            }),
        ] {
            let swap = Swap {
                segment: SegmentId(u64::MAX - 1),
                base_offset: Offset(5),
                size_bytes: 1000,
                largest_timestamp_ms: 77,
                first_timestamp_ms: -1,
                progress: CompactionProgress {
                    first_dirty: Offset(60),
                    run,
                },
                old: vec![SegmentId(3), SegmentId(4)],
                markers: Vec::new(),
            };
            let mut bytes = Vec::new();
            swap.encode(&mut bytes);
            let mut fields = Fields::new(&bytes);
            assert_eq!(Swap::decode(&mut fields).as_ref(), Ok(&swap));
            assert_eq!(fields.remaining(), 0);
            for cut in 0..bytes.len() {
                assert!(Swap::decode(&mut Fields::new(&bytes[..cut])).is_err());
            }
            let swap = Swap {
                markers: vec![Offset(6), Offset(9)],
                ..swap
            };
            swap.encode_markers(&mut bytes);
            let read = Swap::decode_with_markers(&mut Fields::new(&bytes));
            assert_eq!(read, Ok(swap));
        }
        let name = cleaned_file_name(Offset(5), SegmentId(0xab));
        assert_eq!(name, "00000000000000000005.00000000000000ab.cleaned");
        assert!(is_cleaned_file(&name) && !is_cleaned_file("00000000000000000005.log"));
    }
}
