//! One segment of a log: a file of record batches, byte for byte as Kafka stores them.
//!
//! `<topic>-<partition>/<20 digits>.log`. While a segment is active its file's length is not its
//! end, and bytes may be in the journal only. A *sealed* segment is written, cut to its end and
//! flushed, and has its index beside it; only sealed segments are for readers outside (Kafka's dump
//! tool, `percolog inspect segment`).

use std::path::{Path, PathBuf};

use super::chunk_cache::Chunks;
use super::index::SparseIndex;
use super::position::{BytePosition, Offset, SegmentId};
use crate::runtime::disk::File;

/// No record of the segment has a timestamp.
pub const NO_TIMESTAMP_MS: i64 = -1;

/// The name of a segment's file.
#[must_use]
pub fn segment_file_name(base_offset: Offset) -> String {
    format!("{:020}.log", base_offset.0)
}

/// The name of a sealed segment's index.
#[must_use]
pub fn index_file_name(base_offset: Offset) -> String {
    format!("{:020}.index", base_offset.0)
}

/// A segment as a checkpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentImage {
    /// Its identity.
    pub id: SegmentId,
    /// Its first offset.
    pub base_offset: Offset,
    /// Its end in bytes.
    pub size_bytes: u64,
    /// Whether its file is final.
    pub sealed: bool,
    /// Largest timestamp of its batches.
    pub largest_timestamp_ms: i64,
    /// Timestamp of its first batch, by which it rolls.
    pub first_timestamp_ms: i64,
    /// Its index, unless that lies in a file of its own.
    pub index: Option<SparseIndex>,
}

/// A segment in memory.
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) base_offset: Offset,
    /// End of what was appended.
    pub(super) size: BytePosition,
    /// End of what is durable, by the journal or in the file.
    pub(super) flushed: BytePosition,
    /// End of what is in the file. Invariant: `stored <= flushed <= size`.
    pub(super) stored: BytePosition,
    pub(super) sealed: bool,
    /// Bytes were written to the file since it was last flushed.
    pub(super) unsynced: bool,
    pub(super) largest_timestamp_ms: i64,
    pub(super) first_timestamp_ms: i64,
    pub(super) index: Option<SparseIndex>,
    pub(super) file: Option<File>,
    pub(super) chunks: Chunks,
}

impl Segment {
    pub(super) fn create(
        id: SegmentId,
        base_offset: Offset,
        index: SparseIndex,
        file: File,
    ) -> Segment {
        Segment {
            id,
            base_offset,
            size: 0,
            flushed: 0,
            stored: 0,
            sealed: false,
            unsynced: false,
            largest_timestamp_ms: NO_TIMESTAMP_MS,
            first_timestamp_ms: NO_TIMESTAMP_MS,
            index: Some(index),
            file: Some(file),
            chunks: Chunks::default(),
        }
    }

    pub(super) fn from_image(image: SegmentImage) -> Segment {
        Segment {
            id: image.id,
            base_offset: image.base_offset,
            size: image.size_bytes,
            flushed: image.size_bytes,
            stored: image.size_bytes,
            sealed: image.sealed,
            unsynced: false,
            largest_timestamp_ms: image.largest_timestamp_ms,
            first_timestamp_ms: image.first_timestamp_ms,
            index: image.index,
            file: None,
            chunks: Chunks::default(),
        }
    }

    pub(super) fn image(&self) -> SegmentImage {
        SegmentImage {
            id: self.id,
            base_offset: self.base_offset,
            size_bytes: self.size,
            sealed: self.sealed,
            largest_timestamp_ms: self.largest_timestamp_ms,
            first_timestamp_ms: self.first_timestamp_ms,
            index: if self.sealed {
                None
            } else {
                self.index.clone()
            },
        }
    }

    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(segment_file_name(self.base_offset))
    }

    pub(super) fn assert_ladder(&self) {
        assert!(
            self.stored <= self.flushed && self.flushed <= self.size,
            "segment {}: stored {} flushed {} size {}",
            self.base_offset,
            self.stored,
            self.flushed,
            self.size
        );
    }
}
