//! What cores ask of each other: a closed set of requests and answers about partitions.
//!
//! All partitions of a client's request that live on one core travel in one message and come back
//! in one. `api/` builds these and reads the answers; it chooses Kafka's error codes from
//! [`PartitionError`].

use std::ops::{Deref, Range};

use crate::cluster::image::TopicImage;
use crate::log::position::LogId;
use crate::log::reader::Slices;
use crate::log::transactions::AbortedTransaction;
use crate::net::frame::Frame;
use crate::partition::verification::VerificationGuard;
use crate::wire::record_batch::BatchHeader;

/// The log of a partition by its number on the wire, if the topic has it.
#[must_use]
pub fn log_of(topic: &TopicImage, partition: i32) -> Option<LogId> {
    topic.partition(partition)?;
    Some(LogId {
        topic: topic.id.0,
        partition: partition.unsigned_abs(),
    })
}

/// Why a partition did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PartitionError {
    /// This broker does not have the partition.
    Unknown,
    /// The partition exists, but its leader is somewhere else or not there yet.
    NotLeader,
    /// The client knows a newer leader than the leader itself.
    UnknownLeaderEpoch,
    /// The client knows an older leader.
    FencedLeaderEpoch,
    /// The disk is the reason.
    Storage(String),
    /// The disk is full: nothing is appended, everything else goes on.
    DiskFull,
    /// The offset is below the log start or above what may be read.
    OffsetOutOfRange,
    /// The batch does not follow the producer's last one.
    OutOfOrderSequence,
    /// A newer producer with this id has taken over.
    InvalidProducerEpoch,
    /// The batch is larger than a segment may be.
    BatchTooLarge,
    /// The batch opens a transaction that nobody vouches for, or is outside of its producer's.
    InvalidTransactionState,
    /// The marker is of a coordinator that was replaced.
    CoordinatorFenced,
    /// The partition remembers as many open and aborted transactions as it may.
    TooManyTransactions,
    /// The records can only be deleted by retention: the topic is compacted.
    PolicyViolation,
    /// Fewer replicas are in sync than `min.insync.replicas` asks for; nothing was appended.
    NotEnoughReplicas,
    /// A new leader does not know yet where its predecessor told that the log ends.
    OffsetNotAvailable,
    /// The core that owns the partition has too much to do.
    Overloaded,
    /// It did not happen in time; it may still happen.
    TimedOut,
}

/// The records of a batch behind its header.
#[derive(Clone, Debug)]
pub enum Payload {
    /// As the client sent them, within its request.
    Shared(Frame, Range<usize>),
    /// Rebuilt.
    Owned(Vec<u8>),
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Shared(frame, range) => &frame[range.clone()],
            Payload::Owned(bytes) => bytes,
        }
    }
}

/// A validated batch for one partition.
#[derive(Clone, Debug)]
pub struct AppendPart {
    /// Which partition.
    pub log: LogId,
    /// The header, but for base offset and leader epoch.
    pub header: BatchHeader,
    /// The records.
    pub payload: Payload,
    /// Needed where it opens a transaction.
    pub guard: Option<VerificationGuard>,
    /// Its producer's epoch grows with every transaction (KIP-890).
    pub bumps_epochs: bool,
}

/// A batch's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AppendedPart {
    /// Offset of its first record.
    pub base_offset: i64,
    /// The log start at that time.
    pub log_start_offset: i64,
    /// Whether it had been appended before; then the offset is that of the original.
    pub duplicate: bool,
}

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// When its order is fixed (acks=0).
    Enqueued,
    /// When it is flushed here (acks=1).
    Flushed,
    /// When every in-sync replica has flushed it (acks=all).
    Committed,
}

/// What a consumer wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPart {
    /// Which partition.
    pub log: LogId,
    /// From where.
    pub offset: i64,
    /// At most this much of it.
    pub max_bytes: usize,
    /// The leader epoch the client knows, or -1.
    pub current_leader_epoch: i32,
    /// The epoch of the last record the client has, or -1.
    pub last_fetched_epoch: i32,
}

/// How a fetch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchTerms {
    /// Wait for this many bytes,
    pub min_bytes: usize,
    /// but not longer than this.
    pub max_wait_ms: u64,
    /// All partitions together; the first batch comes whole whatever its size.
    pub max_bytes: usize,
    /// Only records below the last stable offset.
    pub read_committed: bool,
}

/// What one partition gave.
#[derive(Clone, Debug)]
pub struct FetchedPart {
    /// Which partition.
    pub log: LogId,
    /// Why nothing, if so.
    pub error: Option<PartitionError>,
    /// Records below are committed; -1 with an error.
    pub high_watermark: i64,
    /// Records below belong to no open transaction; -1 with an error.
    pub last_stable_offset: i64,
    /// First offset that can be read; -1 with an error.
    pub log_start_offset: i64,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Where the client's log and this one part: epoch and its end offset.
    pub diverging: Option<(i32, i64)>,
    /// Record batches; the last may be cut off.
    pub slices: Slices,
    /// Bytes of them.
    pub size_bytes: usize,
    /// For readers of what is committed: transactions whose records among these do not count.
    pub aborted: Vec<AbortedTransaction>,
}

/// Which offset is looked for (Kafka: `ListOffsetsRequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetWanted {
    /// -1: the end for this reader.
    Latest,
    /// -2: the log start; -4 is the same where nothing is tiered.
    Earliest,
    /// -3: the record with the largest timestamp.
    MaxTimestamp,
    /// The first record with this timestamp or a later one.
    Timestamp(i64),
}

/// A question about one partition's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOffsetsPart {
    /// Which partition.
    pub log: LogId,
    /// Which offset.
    pub wanted: OffsetWanted,
    /// The leader epoch the client knows, or -1.
    pub current_leader_epoch: i32,
    /// Whether only what is below the last stable offset is found.
    pub read_committed: bool,
}

/// An offset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// Timestamp of the record, or -1.
    pub timestamp_ms: i64,
    /// Its offset, or -1 when there is none.
    pub offset: i64,
    /// The epoch that wrote it, or -1.
    pub leader_epoch: i32,
}

/// A question about where an epoch ends (Kafka: `OffsetForLeaderEpochRequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndPart {
    /// Which partition.
    pub log: LogId,
    /// The leader epoch the client knows, or -1.
    pub current_leader_epoch: i32,
    /// The epoch asked about.
    pub leader_epoch: i32,
}

/// Deletes records of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRecordsPart {
    /// Which partition.
    pub log: LogId,
    /// The new log start, -1 for the high watermark.
    pub offset: i64,
}

/// Who writes to a partition (Kafka: `DescribeProducersResponse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record, or -1.
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_timestamp_ms: i64,
    /// Epoch of the coordinator that ended its last transaction, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, or -1.
    pub open_transaction: i64,
}

/// What a partition takes on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogUsage {
    /// Which partition.
    pub log: LogId,
    /// Which data directory, as an index into the configured list.
    pub directory: usize,
    /// Bytes of its segments.
    pub size_bytes: u64,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryState {
    /// Where it is.
    pub path: String,
    /// Size of its file system, -1 when unknown.
    pub total_bytes: i64,
    /// What is free of it, -1 when unknown.
    pub usable_bytes: i64,
    /// Whether it has failed.
    pub offline: bool,
}

impl FetchedPart {
    /// A partition that gave nothing.
    #[must_use]
    pub fn failed(log: LogId, error: PartitionError) -> FetchedPart {
        FetchedPart {
            log,
            error: Some(error),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: -1,
            diverging: None,
            slices: Slices::new(),
            size_bytes: 0,
            aborted: Vec::new(),
        }
    }
}

/// Why a command reached no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ControlFailure {
    /// Too many commands wait.
    Overloaded,
    /// The metadata log's disk has failed.
    Storage,
    /// It was not done in time; it may still be done.
    TimedOut,
    /// Another node decides, if it is known which one.
    NotController(Option<i32>),
    /// One record of the decision is larger than the metadata log takes; nothing was changed.
    TooLarge,
}
