//! The metadata at one offset of its log, in a file.
//!
//! # Format (little-endian), `metadata.snapshot`
//! ```text
//!  0  magic 8 "PLOGMET1" | next offset 8 | record count 4
//! 20  per record: length 4, bytes (cluster/record.rs)
//!     checksum 4 (CRC-32C of everything before)
//! ```

use std::path::Path;

use crate::cluster::record::MetadataRecord;
use crate::log::bytes::{Fields, Malformed, put_count};
use crate::log::position::Offset;
use crate::runtime::startup;

/// The file's name, in the first data directory.
pub const SNAPSHOT_FILE: &str = "metadata.snapshot";

const MAGIC: [u8; 8] = *b"PLOGMET1";
const MOST_BYTES: u64 = 1 << 30;

/// Records that rebuild the metadata up to an offset.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first offset of the log that it does not contain.
    pub next_offset: Offset,
    /// The records.
    pub records: Vec<MetadataRecord>,
}

impl Snapshot {
    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.next_offset.0.to_le_bytes());
        put_count(&mut bytes, self.records.len());
        for record in &self.records {
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            put_count(&mut bytes, encoded.len());
            bytes.extend_from_slice(&encoded);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the content of the file.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot, Malformed> {
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed(0))?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(Malformed(content.len()));
        }
        let mut fields = Fields::new(content.strip_prefix(&MAGIC).ok_or(Malformed(0))?);
        let next_offset = Offset(fields.i64()?);
        let mut records = Vec::new();
        for _ in 0..fields.count(4)? {
            let length = fields.count(1)?;
            records.push(MetadataRecord::decode(fields.take(length)?)?);
        }
        Ok(Snapshot {
            next_offset,
            records,
        })
    }

    /// Reads the file of a data directory; empty when there is none yet.
    pub fn read(directory: &Path) -> Result<Snapshot, String> {
        let path = directory.join(SNAPSHOT_FILE);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        if !startup::exists(&path).map_err(|error| failed(&error))? {
            return Ok(Snapshot::default());
        }
        let bytes = startup::read_file(&path, MOST_BYTES).map_err(|error| failed(&error))?;
        Snapshot::decode(&bytes).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_snapshot_is_noticed() {
        let records = vec![MetadataRecord::ProducerIdsAllocated { next: 1000 }];
        let snapshot = Snapshot {
            next_offset: Offset(7),
            records,
        };
        let bytes = snapshot.encode();
        assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Snapshot::decode(&damaged).is_err(), "byte {at}");
            assert!(Snapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
