//! The journal's group: what one durable write carries.
//!
//! # Format (little-endian; a group starts on a block of 4,096 bytes and fills whole blocks)
//! ```text
//!  0  magic            8  "PLOGGRP1"
//!  8  epoch           16  random, made durable in the checkpoint before the first group of it
//! 24  sequence         8  1, 2, 3, ... within the epoch
//! 32  completed        8  every group up to this one was durable when this one was submitted
//! 40  predecessor      4  header checksum of group sequence-1, 0 for the first
//! 44  body length      4
//! 48  entry count      4
//! 52  reserved         4  0
//! 56  body checksum    4  CRC-32C of the body, seeded with the epoch
//! 60  header checksum  4  CRC-32C of bytes 0..60, seeded with the epoch
//! 64  body             entries, see `entry.rs`, then zeroes to the end of the block
//! ```
//! A client can make bytes that look like a group land on a block boundary of the journal, but it
//! does not know the epoch, which never leaves the machine. Stale groups of a recycled file have
//! another epoch or a sequence that the checkpoint covers.
//!
//! To change this format: new magic, read both, write the new one after the next checkpoint.

use std::fmt;

use super::bytes::{Fields, Malformed};
use crate::runtime::buffer::BLOCK_BYTES;

/// Bytes before the body.
pub const GROUP_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"PLOGGRP1";

/// The identity of one start of the broker within its journal. A secret while that start lasts:
/// who knows it can make bytes that recovery takes for a group, so it is shown as a digest only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 16]);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({:08x})", self.digest())
    }
}

impl Epoch {
    /// Tells epochs apart for people: 32 of 128 bits, mixed so that they are neither a part of the
    /// epoch nor the seed it gives the checksums.
    #[must_use]
    pub fn digest(self) -> u32 {
        let mixed = self.0.chunks_exact(8).fold(0_u64, |mixed, half| {
            let half = u64::from_le_bytes(half.try_into().expect("eight bytes"));
            // The finalizer of SplitMix64, a bijection that spreads every bit.
            let mut mixed = (mixed ^ half).wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        (mixed >> 32) as u32
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.0), bytes)
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Which start of the broker wrote it.
    pub epoch: Epoch,
    /// Its number within the epoch, from 1.
    pub sequence: u64,
    /// All groups up to this one were durable when this one was submitted.
    pub completed: u64,
    /// Header checksum of the group before, 0 for the first.
    pub predecessor: u32,
    /// Bytes of entries.
    pub body_length: u32,
    /// Number of entries.
    pub entry_count: u32,
    /// Checksum of the body.
    pub body_checksum: u32,
}

impl GroupHeader {
    /// The bytes of the header, and their checksum, which the next group names as predecessor.
    #[must_use]
    pub fn encode(&self) -> ([u8; GROUP_HEADER_BYTES], u32) {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.epoch.0);
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.completed.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.predecessor.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.body_length.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.entry_count.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = self.epoch.checksum(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads a header with its checksum, if these bytes are one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(GroupHeader, u32)> {
        if bytes.len() < GROUP_HEADER_BYTES || bytes[0..8] != MAGIC {
            return None;
        }
        let (header, checksum) = Self::fields(&bytes[8..64]).ok()?;
        (header.epoch.checksum(&bytes[..60]) == checksum).then_some((header, checksum))
    }

    fn fields(bytes: &[u8]) -> Result<(GroupHeader, u32), Malformed> {
        let mut fields = Fields::new(bytes);
        let header = GroupHeader {
            epoch: Epoch(fields.array()?),
            sequence: fields.u64()?,
            completed: fields.u64()?,
            predecessor: fields.u32()?,
            body_length: fields.u32()?,
            entry_count: fields.u32()?,
            body_checksum: {
                fields.u32()?;
                fields.u32()?
            },
        };
        Ok((header, fields.u32()?))
    }

    /// Whether `body` is what this header was written for.
    #[must_use]
    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_length as usize && self.epoch.checksum(body) == self.body_checksum
    }

    /// The checksum to put into the header of a group with this body.
    #[must_use]
    pub fn body_checksum(epoch: Epoch, body: &[u8]) -> u32 {
        epoch.checksum(body)
    }

    /// The bytes that the group takes in its file.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        group_size_bytes(self.body_length as usize)
    }
}

/// The bytes that a group with that much body takes in its file.
#[must_use]
pub fn group_size_bytes(body_length: usize) -> usize {
    (GROUP_HEADER_BYTES + body_length).next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> GroupHeader {
        let epoch = Epoch([7; 16]);
        GroupHeader {
            epoch,
            sequence: 9,
            completed: 7,
            predecessor: 1234,
            body_length: 5,
            entry_count: 1,
            body_checksum: GroupHeader::body_checksum(epoch, b"hello"),
        }
    }

    #[test]
    fn round_trip_and_every_bit_counts() {
        let (bytes, checksum) = header().encode();
        assert_eq!(GroupHeader::decode(&bytes), Some((header(), checksum)));
        for bit in 0..GROUP_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn an_epoch_is_shown_as_a_digest_only() {
        let epoch = Epoch([7; 16]);
        let shown = format!("{epoch:?}");
        assert_eq!(shown, format!("Epoch({:08x})", epoch.digest()));
        assert_ne!(epoch.digest(), crc32c::crc32c(&epoch.0));
        let mut other = epoch;
        other.0[15] ^= 1;
        assert_ne!(epoch.digest(), other.digest());
    }

    #[test]
    fn a_body_belongs_to_its_header() {
        assert!(header().matches(b"hello"));
        assert!(!header().matches(b"hellO"));
        assert!(!header().matches(b"hello "));
        let mut other = header();
        other.epoch = Epoch([8; 16]);
        assert!(!other.matches(b"hello"), "the epoch seeds the checksum");
    }

    /// Golden bytes: what is on disks out there must stay readable.
    #[test]
    fn golden_header() {
        let (bytes, _) = header().encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            &hex[..112],
            concat!(
                "504c4f4747525031",
                "07070707070707070707070707070707",
                "0900000000000000",
                "0700000000000000",
                "d2040000",
                "05000000",
                "01000000",
                "00000000"
            )
        );
    }
}
