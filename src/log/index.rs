//! The sparse index of a segment: from offset or timestamp to a position not far before it.
//!
//! One entry per interval of bytes. The interval starts at `index.interval.bytes` and doubles,
//! with every second entry dropped, whenever the index reaches [`MOST_ENTRIES`]: so an index costs
//! at most 96 KiB, whatever the size of its segment, and a look-up is followed by reading at most
//! 1/2048 of the segment's batch headers.
//!
//! # File format (little-endian), `<20 digits>.index` beside a sealed segment
//! ```text
//!  0  magic 8 "PLOGIDX1" | segment id 8 | size of the segment 8 | interval 8 | count 4
//! 36  per entry: relative offset 4 | position 8 | largest timestamp up to here 8
//!     checksum 4 (CRC-32C of everything before)
//! ```
//! An index that does not verify is rebuilt from its segment.

use super::bytes::{Fields, Malformed, put_count};
use super::position::{BytePosition, Offset, SegmentId};

/// Entries at which the interval doubles.
pub const MOST_ENTRIES: usize = 4096;

const MAGIC: [u8; 8] = *b"PLOGIDX1";
const ENTRY_BYTES: usize = 20;

/// One batch that a look-up may start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The batch at `position` begins at this offset, relative to the segment's base.
    pub relative_offset: u32,
    /// Where the batch begins in the segment.
    pub position: BytePosition,
    /// Largest timestamp of all batches before `position`.
    pub timestamp_before_ms: i64,
}

/// The index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    base_offset: Offset,
    interval_bytes: u64,
    most_entries: usize,
    next_position: BytePosition,
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// An empty index.
    #[must_use]
    pub fn new(base_offset: Offset, interval_bytes: u64, most_entries: usize) -> SparseIndex {
        let interval_bytes = interval_bytes.max(1);
        let most_entries = most_entries.clamp(2, MOST_ENTRIES);
        SparseIndex {
            base_offset,
            interval_bytes,
            most_entries,
            next_position: interval_bytes,
            entries: Vec::new(),
        }
    }

    /// Notes a batch that was appended at `position`; `timestamp_before_ms` is the largest of all
    /// batches before it.
    pub fn note(&mut self, offset: Offset, position: BytePosition, timestamp_before_ms: i64) {
        if position < self.next_position {
            return;
        }
        let relative_offset =
            u32::try_from(offset.0 - self.base_offset.0).expect("a segment rolls before 2^31");
        self.entries.push(IndexEntry {
            relative_offset,
            position,
            timestamp_before_ms,
        });
        if self.entries.len() >= self.most_entries {
            self.thin_out();
        }
        self.next_position = position.saturating_add(self.interval_bytes);
    }

    /// Drops every second entry.
    fn thin_out(&mut self) {
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        self.interval_bytes = self.interval_bytes.saturating_mul(2);
    }

    /// A copy with at most `most` entries.
    #[must_use]
    pub fn thinned(&self, most: usize) -> SparseIndex {
        let mut copy = self.clone();
        while copy.entries.len() > most.max(1) {
            copy.thin_out();
        }
        copy
    }

    /// A position from which the batch that holds `offset` is found by walking forward.
    #[must_use]
    pub fn position_of(&self, offset: Offset) -> BytePosition {
        let relative = offset.0 - self.base_offset.0;
        let after = self
            .entries
            .partition_point(|entry| i64::from(entry.relative_offset) <= relative);
        after
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].position)
    }

    /// A position before which no batch has a timestamp of `timestamp_ms` or more.
    #[must_use]
    pub fn position_of_timestamp(&self, timestamp_ms: i64) -> BytePosition {
        let after = self
            .entries
            .partition_point(|entry| entry.timestamp_before_ms < timestamp_ms);
        after
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].position)
    }

    /// The entries, ascending.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Bytes from one entry to the next, at least.
    #[must_use]
    pub fn interval_bytes(&self) -> u64 {
        self.interval_bytes
    }

    /// Forgets everything from `position` on.
    pub fn cut(&mut self, position: BytePosition) {
        self.entries.retain(|entry| entry.position < position);
        let last = self.entries.last().map_or(0, |entry| entry.position);
        self.next_position = last.saturating_add(self.interval_bytes);
    }

    /// Memory of the entries in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>()
    }

    /// Appends the index for a checkpoint: interval 8, count 4, entries.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.interval_bytes.to_le_bytes());
        put_count(into, self.entries.len());
        for entry in &self.entries {
            into.extend_from_slice(&entry.relative_offset.to_le_bytes());
            into.extend_from_slice(&entry.position.to_le_bytes());
            into.extend_from_slice(&entry.timestamp_before_ms.to_le_bytes());
        }
    }

    /// Reads what [`SparseIndex::encode`] wrote.
    pub fn decode(
        fields: &mut Fields<'_>,
        base_offset: Offset,
        most_entries: usize,
    ) -> Result<SparseIndex, Malformed> {
        let mut index = SparseIndex::new(base_offset, fields.u64()?, most_entries);
        let count = fields.count(ENTRY_BYTES)?;
        let mut last = (0, 0);
        for _ in 0..count {
            let entry = IndexEntry {
                relative_offset: fields.u32()?,
                position: fields.u64()?,
                timestamp_before_ms: fields.i64()?,
            };
            if (entry.relative_offset, entry.position) <= last || entry.position <= last.1 {
                return Err(Malformed(fields.position() - ENTRY_BYTES));
            }
            last = (entry.relative_offset, entry.position);
            index.next_position = entry.position.saturating_add(index.interval_bytes);
            index.entries.push(entry);
        }
        Ok(index)
    }

    /// The content of the index file of a sealed segment.
    #[must_use]
    pub fn to_file(&self, segment: SegmentId, size_bytes: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&segment.0.to_le_bytes());
        bytes.extend_from_slice(&size_bytes.to_le_bytes());
        self.encode(&mut bytes);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads an index file; None when it is damaged or belongs to another segment.
    #[must_use]
    pub fn from_file(
        bytes: &[u8],
        segment: SegmentId,
        size_bytes: u64,
        base_offset: Offset,
    ) -> Option<SparseIndex> {
        let file = IndexFile::decode(bytes, base_offset).ok()?;
        (file.segment == segment && file.size_bytes == size_bytes).then_some(file.index)
    }
}

/// What an index file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// The segment it was written for.
    pub segment: SegmentId,
    /// The end of that segment.
    pub size_bytes: u64,
    /// The index.
    pub index: SparseIndex,
}

impl IndexFile {
    /// The longest file there is.
    pub const MOST_BYTES: usize = 36 + MOST_ENTRIES * ENTRY_BYTES + 4;

    /// Reads the content of a file beside a segment that begins at `base_offset`.
    pub fn decode(bytes: &[u8], base_offset: Offset) -> Result<IndexFile, Malformed> {
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed(0))?;
        let mut fields = Fields::new(content);
        if fields.array()? != MAGIC {
            return Err(Malformed(0));
        }
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(Malformed(content.len()));
        }
        let (segment, size_bytes) = (SegmentId(fields.u64()?), fields.u64()?);
        let index = SparseIndex::decode(&mut fields, base_offset, MOST_ENTRIES)?;
        if fields.remaining() > 0 {
            return Err(Malformed(fields.position()));
        }
        Ok(IndexFile {
            segment,
            size_bytes,
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batches: i64, most_entries: usize) -> SparseIndex {
        let mut index = SparseIndex::new(Offset(1000), 100, most_entries);
        for batch in 0..batches {
            index.note(Offset(1000 + batch * 3), batch as u64 * 60, batch * 10 - 1);
        }
        index
    }

    #[test]
    fn a_look_up_never_overshoots() {
        for most_entries in [2, 4, 4096] {
            let index = filled(500, most_entries);
            for offset in 0..1500 {
                let position = index.position_of(Offset(1000 + offset));
                assert!(position <= (offset as u64 / 3) * 60);
                assert_eq!(position % 60, 0);
            }
            for timestamp in 0..5000 {
                let first = (timestamp as u64).div_ceil(10) * 60;
                assert!(index.position_of_timestamp(timestamp) <= first);
            }
        }
    }

    #[test]
    fn the_index_is_bounded_and_stays_dense_enough() {
        let index = filled(10_000, 16);
        assert!(index.entries.len() < 16);
        assert!(filled(10_000, 4096).thinned(16).entries.len() <= 16);
        let worst = (0..30_000)
            .map(|offset| (offset as u64 / 3) * 60 - index.position_of(Offset(1000 + offset)))
            .max();
        assert!(worst <= Some(600_000 / 4), "{worst:?}");
    }

    #[test]
    fn the_file_verifies() {
        let index = filled(50, 4096);
        let bytes = index.to_file(SegmentId(5), 3000);
        let read = |bytes: &[u8], segment, size| {
            SparseIndex::from_file(bytes, SegmentId(segment), size, Offset(1000))
        };
        assert_eq!(read(&bytes, 5, 3000), Some(index));
        assert_eq!(read(&bytes, 6, 3000), None);
        assert_eq!(read(&bytes, 5, 3001), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged, 5, 3000), None, "byte {at}");
            assert_eq!(read(&bytes[..at], 5, 3000), None, "cut at {at}");
        }
    }
}
