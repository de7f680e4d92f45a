//! Sealed segments read from front to back, and new ones written: past the chunk cache, a window at
//! a time.

use std::io;
use std::path::{Path, PathBuf};

use super::cleaner::Cleaner;
use super::index::SparseIndex;
use super::position::{BytePosition, Offset};
use super::segment::NO_TIMESTAMP_MS;
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use crate::runtime::disk::{self, Durability, File};
use crate::wire::record_batch::{BatchError, BatchHeader, BatchView, HEADER_BYTES};

/// What one read or write carries, but for batches that are larger.
const WINDOW_BYTES: usize = 256 << 10;

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// The disk refused.
    #[error("reading {0} failed: {1}")]
    Disk(PathBuf, io::Error),
    /// There is no batch where one begins.
    #[error("{path} is damaged at byte {position}: {what}")]
    Damaged {
        path: PathBuf,
        position: BytePosition,
        what: String,
    },
}

/// Reads the batches of a sealed segment, one after the other.
pub(super) struct SegmentScan {
    file: File,
    path: PathBuf,
    size: u64,
    position: BytePosition,
    /// Where the last batch began.
    last: BytePosition,
    window: Option<(BytePosition, Slice)>,
}

impl SegmentScan {
    pub(super) fn new(file: File, path: PathBuf, size: u64) -> SegmentScan {
        SegmentScan {
            file,
            path,
            size,
            position: 0,
            last: 0,
            window: None,
        }
    }

    /// The next batch, whose checksum was verified.
    pub(super) async fn next(&mut self, cleaner: &Cleaner) -> Result<Option<Slice>, ScanError> {
        if self.position >= self.size {
            return Ok(None);
        }
        self.last = self.position;
        let head = self.bytes(HEADER_BYTES, cleaner).await?;
        let header = BatchHeader::parse(&head).map_err(|error| self.damaged(&error))?;
        let batch = self.bytes(header.size_bytes(), cleaner).await?;
        BatchView::parse(&batch)
            .and_then(|view| view.verify_checksum())
            .map_err(|error| self.damaged(&error))?;
        self.position += batch.len() as u64;
        Ok(Some(batch))
    }

    /// That the last batch is damaged.
    pub(super) fn damaged(&self, error: &BatchError) -> ScanError {
        self.damage(error.to_string())
    }

    fn damage(&self, what: String) -> ScanError {
        ScanError::Damaged {
            path: self.path.clone(),
            position: self.last,
            what,
        }
    }

    /// `length` bytes from the position on, out of the window if they are in it.
    async fn bytes(&mut self, length: usize, cleaner: &Cleaner) -> Result<Slice, ScanError> {
        if self.position + length as u64 > self.size {
            let left = self.size - self.position;
            return Err(self.damage(format!("{length} bytes of {left}")));
        }
        if let Some((begin, window)) = &self.window {
            let within = (self.position - begin) as usize;
            if within + length <= window.len() {
                return Ok(window.part(within..within + length));
            }
        }
        let begin = self.position - self.position % BLOCK_BYTES as u64;
        let within = (self.position - begin) as usize;
        let wanted = (within + length)
            .max(WINDOW_BYTES)
            .min((self.size - begin) as usize)
            .next_multiple_of(BLOCK_BYTES);
        let read = self.file.read(begin, wanted).await;
        let window = read.map_err(|error| ScanError::Disk(self.path.clone(), error))?;
        cleaner.note_read(window.len() as u64);
        if window.len() < within + length {
            return Err(self.damage("the file ends early".into()));
        }
        let bytes = window.part(within..within + length);
        self.window = Some((begin, window));
        Ok(bytes)
    }
}

/// A segment under way, written front to back.
pub(super) struct CleanedFile {
    file: File,
    index: SparseIndex,
    buffer: AppendBuf,
    /// End of what was written.
    written: BytePosition,
    size: u64,
    largest_timestamp_ms: i64,
    first_timestamp_ms: i64,
}

impl CleanedFile {
    /// Creates the file, which must not exist.
    pub(super) async fn create(path: &Path, index: SparseIndex) -> io::Result<CleanedFile> {
        Ok(CleanedFile {
            file: disk::create(path, 0).await?,
            index,
            buffer: AppendBuf::allocate(WINDOW_BYTES),
            written: 0,
            size: 0,
            largest_timestamp_ms: NO_TIMESTAMP_MS,
            first_timestamp_ms: NO_TIMESTAMP_MS,
        })
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size
    }

    pub(super) fn largest_timestamp_ms(&self) -> i64 {
        self.largest_timestamp_ms
    }

    pub(super) fn first_timestamp_ms(&self) -> i64 {
        self.first_timestamp_ms
    }

    /// Appends a whole batch.
    pub(super) async fn append(&mut self, batch: &[u8], cleaner: &Cleaner) -> io::Result<()> {
        let header = BatchHeader::parse(batch).expect("a batch that was parsed or built");
        assert!(header.size_bytes() == batch.len(), "one whole batch");
        let offset = Offset(header.base_offset);
        self.index
            .note(offset, self.size, self.largest_timestamp_ms);
        if self.size == 0 {
            self.first_timestamp_ms = header.max_timestamp;
        }
        self.largest_timestamp_ms = self.largest_timestamp_ms.max(header.max_timestamp);
        self.size += batch.len() as u64;
        let mut rest = batch;
        while !rest.is_empty() {
            if self.buffer.remaining() == 0 {
                self.write(cleaner).await?;
            }
            let here = rest.len().min(self.buffer.remaining());
            self.buffer.append(&rest[..here]);
            rest = &rest[here..];
        }
        Ok(())
    }

    /// Writes the rest, cuts the file to its end and flushes it.
    pub(super) async fn finish(&mut self, cleaner: &Cleaner) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.buffer.pad_to_block();
            self.write(cleaner).await?;
        }
        self.file.set_len(self.size).await?;
        // Whatever a failed flush says, it is no full disk that may be tried again.
        let flushed = self.file.full_sync().await;
        flushed.map_err(|error| io::Error::other(error.to_string()))
    }

    /// The open file and the index.
    pub(super) fn into_parts(self) -> (File, SparseIndex) {
        (self.file, self.index)
    }

    async fn write(&mut self, cleaner: &Cleaner) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, AppendBuf::allocate(WINDOW_BYTES));
        let bytes = full.whole();
        let length = bytes.len() as u64;
        let position = self.written;
        self.file
            .write(position, bytes, Durability::Volatile)
            .await?;
        self.written += length;
        cleaner.note_written(length);
        Ok(())
    }
}
