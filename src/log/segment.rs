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
use crate::runtime::buffer::BLOCK_BYTES;
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
    /// Blocks of the file below this are allocated; known only while the file is open.
    pub(super) allocated: BytePosition,
    /// Blocks of the file below this were written before, since it is a recycled one.
    pub(super) written: BytePosition,
    /// The allocation is being extended.
    pub(super) extending: bool,
    /// How often it was cut: what was read before is not what it holds now.
    pub(super) cuts: u32,
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
            allocated: 0,
            written: 0,
            extending: false,
            cuts: 0,
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
            allocated: 0,
            written: 0,
            extending: false,
            cuts: 0,
            unsynced: false,
            largest_timestamp_ms: image.largest_timestamp_ms,
            first_timestamp_ms: image.first_timestamp_ms,
            index: image.index,
            file: None,
            chunks: Chunks::default(),
        }
    }

    /// For a checkpoint, with at most so many entries of the index.
    pub(super) fn image(&self, most_entries: usize) -> SegmentImage {
        SegmentImage {
            id: self.id,
            base_offset: self.base_offset,
            size_bytes: self.size,
            sealed: self.sealed,
            largest_timestamp_ms: self.largest_timestamp_ms,
            first_timestamp_ms: self.first_timestamp_ms,
            index: match &self.index {
                Some(index) if !self.sealed => Some(index.thinned(most_entries)),
                _ => None,
            },
        }
    }

    /// Cuts what memory knows of it, all of which is flushed.
    pub(super) fn cut(&mut self, position: BytePosition) {
        assert!(self.flushed == self.size && position <= self.size);
        self.size = position;
        self.flushed = position;
        self.stored = self.stored.min(position);
        self.sealed = false;
        self.cuts += 1;
        self.chunks.cut(position - position % BLOCK_BYTES as u64);
        if let Some(index) = &mut self.index {
            index.cut(position);
        }
    }

    /// Whether it holds neither memory nor a descriptor.
    pub(super) fn is_cold(&self) -> bool {
        self.file.is_none() && self.chunks.is_empty() && (!self.sealed || self.index.is_none())
    }

    /// Gives the descriptor back, unless somebody reads by it: as long as they do it stays known, so
    /// that the file is not recycled under them.
    pub(super) fn close_file(&mut self) {
        if self.file.as_ref().is_some_and(|file| !file.is_shared()) {
            self.file = None;
        }
    }

    /// Lets go of memory and, unless it is in use, of the descriptor; the bytes of the chunks. All of
    /// it is stored.
    pub(super) fn cool_down(&mut self) -> usize {
        let memory = self.chunks.memory_bytes();
        self.chunks = Chunks::default();
        self.close_file();
        self.allocated = 0;
        if self.sealed {
            self.index = None;
        }
        memory
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
