//! What a node must remember besides the entries.
//!
//! # Format (little-endian), `quorum.state`
//! ```text
//!  0  magic 8 "PLOGQRM1" | term 8 | vote 4 (-1: none) | commit 8 | founders (member.rs)
//!     checksum 4 (CRC-32C of everything before)
//! ```

use super::member::Members;
use crate::log::bytes::{Fields, Malformed};

const MAGIC: [u8; 8] = *b"PLOGQRM1";

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableState {
    /// The newest term this node knows.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<i32>,
    /// Entries up to here were committed when this was written; more may be, but no change of the
    /// members that was in force here.
    pub commit: u64,
    /// Who the members were at index 1; a snapshot brings those of its own index. Nobody: this node
    /// is not one of the founders and waits to be told.
    pub founders: Members,
}

impl DurableState {
    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.term.to_le_bytes());
        bytes.extend_from_slice(&self.vote.unwrap_or(-1).to_le_bytes());
        bytes.extend_from_slice(&self.commit.to_le_bytes());
        self.founders.encode(&mut bytes);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the content of the file.
    pub fn decode(bytes: &[u8]) -> Result<DurableState, Malformed> {
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed(0))?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(Malformed(content.len()));
        }
        let mut fields = Fields::new(content.strip_prefix(&MAGIC).ok_or(Malformed(0))?);
        let state = DurableState {
            term: fields.u64()?,
            vote: Some(fields.i32()?).filter(|vote| *vote >= 0),
            commit: fields.u64()?,
            founders: Members::decode(&mut fields)?,
        };
        match fields.remaining() {
            0 => Ok(state),
            _ => Err(Malformed(fields.position())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::Voter;
    use super::*;

    #[test]
    fn a_damaged_state_is_noticed() {
        let voter = Voter {
            node_id: 2,
            directory_id: None,
            host: "h".to_string(),
            port: 1,
        };
        let state = DurableState {
            term: 7,
            vote: Some(2),
            commit: 5,
            founders: Members::founded_by(vec![voter]),
        };
        let bytes = state.encode();
        assert_eq!(DurableState::decode(&bytes), Ok(state));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(DurableState::decode(&damaged).is_err(), "byte {at}");
            assert!(DurableState::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
