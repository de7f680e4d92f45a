//! The numbers of a log, each with a type of its own.

use std::fmt;

/// Names a log inside: the topic's id and the partition's number. Names on disk are for people.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct LogId {
    /// The topic's id, unique for ever.
    pub topic: [u8; 16],
    /// The partition within the topic.
    pub partition: u32,
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.topic[..4] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "..-{}", self.partition)
    }
}

/// A record's place in its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The reign of one leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// Identifies one segment for ever: random, so neither a recreated partition nor a swapped file can
/// be taken for the one an entry of the journal speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A byte of a segment, counted from its start.
pub type BytePosition = u64;

/// A count of bytes ever appended to a log since it was opened; grows through rolls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendedBytes(pub u64);
