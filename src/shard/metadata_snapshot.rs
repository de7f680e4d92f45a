//! The metadata at one index of the quorum's log, in a file.
//!
//! # Format (little-endian), `metadata.snapshot`
//! ```text
//!  0  magic 8 "PLOGMET2" | next offset 8 | index 8 | term 8 | members (cluster/quorum/member.rs)
//!     records (metadata_entry.rs)
//!     checksum 4 (CRC-32C of everything before)
//! ```
//! The entry behind the snapshot stands at the next offset of the metadata log, if it is there. So
//! this file ties the offsets of that log to the indexes of the quorum.

use std::path::Path;

use super::metadata_entry;
use crate::cluster::quorum::member::Members;
use crate::cluster::quorum::node::SnapshotPoint;
use crate::cluster::record::MetadataRecord;
use crate::log::bytes::{Fields, Malformed};
use crate::log::position::Offset;
use crate::runtime::startup;

/// The file's name, in the first data directory.
pub const SNAPSHOT_FILE: &str = "metadata.snapshot";

const MAGIC: [u8; 8] = *b"PLOGMET2";
const MOST_BYTES: u64 = 1 << 30;

/// Records that rebuild the metadata up to an index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first offset of the log that it does not contain.
    pub next_offset: Offset,
    /// The last entry that it contains, and the members there.
    pub point: SnapshotPoint,
    /// The records.
    pub records: Vec<MetadataRecord>,
}

impl Snapshot {
    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.next_offset.0.to_le_bytes());
        bytes.extend_from_slice(&self.point.index.to_le_bytes());
        bytes.extend_from_slice(&self.point.term.to_le_bytes());
        self.point.members.encode(&mut bytes);
        metadata_entry::put(&mut bytes, &self.records);
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
        Ok(Snapshot {
            next_offset: Offset(fields.i64()?),
            point: SnapshotPoint {
                index: fields.u64()?,
                term: fields.u64()?,
                members: Members::decode(&mut fields)?,
            },
            records: metadata_entry::take(&mut fields)?,
        })
    }

    /// Reads the file of a data directory; none when there is none yet.
    pub fn read(directory: &Path) -> Result<Option<Snapshot>, String> {
        let path = directory.join(SNAPSHOT_FILE);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        if !startup::exists(&path).map_err(|error| failed(&error))? {
            return Ok(None);
        }
        let bytes = startup::read_file(&path, MOST_BYTES).map_err(|error| failed(&error))?;
        let snapshot = Snapshot::decode(&bytes).map_err(|error| failed(&error))?;
        Ok(Some(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::quorum::member::Voter;

    #[test]
    fn a_damaged_snapshot_is_noticed() {
        let records = vec![MetadataRecord::ProducerIdsAllocated { next: 1000 }];
        let voter = Voter {
            node_id: 1,
            directory_id: None,
            host: "h".to_string(),
            port: 9093,
        };
        let snapshot = Snapshot {
            next_offset: Offset(7),
            point: SnapshotPoint {
                index: 9,
                term: 3,
                members: Members::founded_by(vec![voter]),
            },
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
