//! What brokers say to each other, on a listener where nobody else is served.
//!
//! # Format
//! ```text
//! request: length 4 (big-endian, of what follows) | protocol 1 | kind 1 | correlation 4 | body
//! answer:  length 4 (big-endian)                  | correlation 4 | body
//! ```
//! Numbers are little-endian but for lengths. Bodies of kind 1 and their answers are
//! [`PeerRequest`] and [`PeerAnswer`] in postcard's encoding; kinds 2 to 4 are:
//! ```text
//! 2 quorum   a message of the metadata quorum (cluster/quorum); not answered
//! 3 fetch    broker epoch 8, wait ms 4, bytes 4, bytes of one partition 4, count 4, then per
//!            partition: topic 16, number 4, leader epoch 4, log end 8, durable end 8,
//!            epoch of the last record 4 or -1
//!   answer   count 4, then per partition: topic 16, number 4, status 1, leader epoch 4,
//!            high watermark 8, log start 8, log end 8, diverging epoch 4 or -1, its end 8,
//!            length 4; then the record batches of all, in this order
//! 4 report   broker epoch 8, count 4, then per partition: topic 16, number 4, leader epoch 4,
//!            log end 8, durable end 8; not answered
//! ```
//! Postcard needs both sides to know the same types: a change of these is a new `protocol` number.

use serde::{Deserialize, Serialize};

use super::quorum_requests::{QuorumAnswer, QuorumFailure, QuorumRequest};
use super::request::{AppendedPart, ControlFailure, PartitionError};
use crate::cluster::controller::{Command, CommandReply};
use crate::coordinator::transaction_request::{TransactionAnswer, TransactionRequest};
use crate::log::bytes::{Fields, Malformed, put_count};
use crate::log::position::{LogId, Offset};
use crate::shard::coordinator_host::Unavailable;
use crate::wire::codec::Uuid;
use crate::wire::transaction_marker::TransactionMarker;

/// The protocol of this build.
pub const PROTOCOL: u8 = 1;

/// Bytes of a request before its body, without the length.
pub const REQUEST_HEAD_BYTES: usize = 6;
/// Bytes of an answer before its body, without the length.
pub const ANSWER_HEAD_BYTES: usize = 4;

/// Bytes of a partition in a fetch, in its answer, and in a report.
const FETCHED_BYTES: usize = 44;
const ANSWERED_BYTES: usize = 65;
const REPORTED_BYTES: usize = 40;

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerKind {
    /// A [`PeerRequest`].
    Call = 1,
    /// A message of the quorum.
    Quorum = 2,
    /// A [`ReplicaFetch`].
    Fetch = 3,
    /// A [`ReplicaReport`].
    Report = 4,
}

impl PeerKind {
    fn from_byte(byte: u8) -> Option<PeerKind> {
        use PeerKind::{Call, Fetch, Quorum, Report};
        [Call, Quorum, Fetch, Report]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Who connects; the first thing said on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that both belong to.
    pub cluster_id: String,
    /// Who connects.
    pub node_id: i32,
    /// Whom it wants to speak to.
    pub to: i32,
    /// The identity of its first data directory.
    pub directory_id: Uuid,
}

/// What one broker asks another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Who connects.
    Hello(Hello),
    /// A command for the active controller.
    Control(Command),
    /// A broker is alive.
    Heartbeat {
        /// Which.
        node_id: i32,
        /// Its registration.
        broker_epoch: i64,
    },
    /// Markers for partitions that the one asked leads.
    WriteMarkers {
        /// Which partitions.
        logs: Vec<LogId>,
        /// The marker.
        marker: TransactionMarker,
        /// See `Replica::append_marker_that`.
        bumps_epoch: bool,
    },
    /// A question for a coordinator of transactions that the one asked hosts.
    Transaction(LogId, TransactionRequest),
    /// A question for the leader of the metadata quorum.
    Quorum(QuorumRequest),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// Welcome, or why not.
    Hello(Result<(), String>),
    /// What was decided, and how far the metadata must be applied for it to be seen.
    Control(Result<(CommandReply, u64), ControlFailure>),
    /// Whether the registration is known and current; the active controller otherwise known.
    Heartbeat(Result<(), HeartbeatRefusal>),
    /// In the order of the request.
    MarkersWritten(Vec<Result<AppendedPart, PartitionError>>),
    /// What the coordinator says.
    Transaction(Result<TransactionAnswer, Unavailable>),
    /// What the quorum's leader says.
    Quorum(Result<QuorumAnswer, QuorumFailure>),
}

/// Why a heartbeat does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeartbeatRefusal {
    /// The one asked is not the active controller.
    NotController(Option<i32>),
    /// The broker must register anew.
    StaleEpoch,
}

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct PeerFrame<'a> {
    /// What it is.
    pub kind: PeerKind,
    /// Comes back with the answer.
    pub correlation: u32,
    /// What it says.
    pub body: &'a [u8],
}

impl<'a> PeerFrame<'a> {
    /// Reads a request without its length; None when it is none of this protocol.
    #[must_use]
    pub fn decode(frame: &'a [u8]) -> Option<PeerFrame<'a>> {
        let (head, body) = frame.split_first_chunk::<REQUEST_HEAD_BYTES>()?;
        let [protocol, kind, correlation @ ..] = *head;
        (protocol == PROTOCOL).then_some(())?;
        Some(PeerFrame {
            kind: PeerKind::from_byte(kind)?,
            correlation: u32::from_le_bytes(correlation),
            body,
        })
    }
}

/// A request with its length, whose body `encode` writes.
pub fn request(kind: PeerKind, correlation: u32, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&[PROTOCOL, kind as u8]);
    bytes.extend_from_slice(&correlation.to_le_bytes());
    encode(&mut bytes);
    put_length(&mut bytes, 0);
    bytes
}

/// The beginning of an answer with its length, behind which `more` bytes follow.
pub fn answer(correlation: u32, more: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&correlation.to_le_bytes());
    encode(&mut bytes);
    put_length(&mut bytes, more);
    bytes
}

fn put_length(bytes: &mut [u8], more: usize) {
    let length = u32::try_from(bytes.len() - 4 + more).expect("frames are bounded");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a value in postcard's encoding.
///
/// # Panics
/// Never: writing to memory does not fail for these types.
pub fn put<T: Serialize>(into: &mut Vec<u8>, value: &T) {
    let bytes = postcard::to_stdvec(value).expect("plain data");
    into.extend_from_slice(&bytes);
}

/// Reads a value that takes all of `bytes`.
#[must_use]
pub fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// One partition that a follower fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaFetchPart {
    /// Which partition.
    pub log: LogId,
    /// The leader's epoch as the follower knows it.
    pub leader_epoch: i32,
    /// Where its log ends.
    pub log_end: Offset,
    /// Where what is flushed of it ends.
    pub durable_end: Offset,
    /// The epoch of its last record, or -1.
    pub last_epoch: i32,
}

/// What a follower asks its leader for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaFetch {
    /// The follower's registration.
    pub broker_epoch: i64,
    /// How long it may wait for anything new.
    pub wait_ms: u32,
    /// Bytes of all partitions.
    pub max_bytes: u32,
    /// Bytes of one.
    pub partition_max_bytes: u32,
    /// The partitions.
    pub parts: Vec<ReplicaFetchPart>,
}

/// What became of one partition of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplicaStatus {
    /// Records follow, or none are new.
    Fine = 0,
    /// The follower's epoch is not the leader's, or this broker does not lead.
    OtherEpoch = 1,
    /// The follower's end is below the log's start or beyond its end.
    OutOfRange = 2,
    /// The leader cannot read.
    Unreadable = 3,
}

/// One partition of an answer; its records follow behind all partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaAnswerPart {
    /// Which partition.
    pub log: LogId,
    /// What became of it.
    pub status: ReplicaStatus,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Its watermark.
    pub high_watermark: Offset,
    /// Where its log starts.
    pub log_start: Offset,
    /// And ends.
    pub log_end: Offset,
    /// Where the logs part: the epoch and its end at the leader.
    pub diverging: Option<(i32, Offset)>,
    /// Bytes of records.
    pub length: u32,
}

/// What a follower has flushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The follower's registration.
    pub broker_epoch: i64,
    /// The partitions; the epochs of the last records are not told.
    pub parts: Vec<ReplicaFetchPart>,
}

fn put_log(into: &mut Vec<u8>, log: LogId) {
    into.extend_from_slice(&log.topic);
    into.extend_from_slice(&log.partition.to_le_bytes());
}

fn take_log(fields: &mut Fields<'_>) -> Result<LogId, Malformed> {
    Ok(LogId {
        topic: fields.array()?,
        partition: fields.u32()?,
    })
}

fn take_offset(fields: &mut Fields<'_>) -> Result<Offset, Malformed> {
    let at = fields.position();
    match fields.i64()? {
        offset if offset >= 0 => Ok(Offset(offset)),
        _ => Err(Malformed(at)),
    }
}

impl ReplicaFetch {
    /// Appends the body.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.broker_epoch.to_le_bytes());
        for number in [self.wait_ms, self.max_bytes, self.partition_max_bytes] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        put_count(into, self.parts.len());
        for part in &self.parts {
            put_log(into, part.log);
            into.extend_from_slice(&part.leader_epoch.to_le_bytes());
            into.extend_from_slice(&part.log_end.0.to_le_bytes());
            into.extend_from_slice(&part.durable_end.0.to_le_bytes());
            into.extend_from_slice(&part.last_epoch.to_le_bytes());
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Where it stops making sense.
    pub fn decode(body: &[u8]) -> Result<ReplicaFetch, Malformed> {
        let mut fields = Fields::new(body);
        let mut fetch = ReplicaFetch {
            broker_epoch: fields.i64()?,
            wait_ms: fields.u32()?,
            max_bytes: fields.u32()?,
            partition_max_bytes: fields.u32()?,
            parts: Vec::new(),
        };
        for _ in 0..fields.count(FETCHED_BYTES)? {
            fetch.parts.push(ReplicaFetchPart {
                log: take_log(&mut fields)?,
                leader_epoch: fields.i32()?,
                log_end: take_offset(&mut fields)?,
                durable_end: take_offset(&mut fields)?,
                last_epoch: fields.i32()?,
            });
        }
        match fields.remaining() {
            0 => Ok(fetch),
            rest => Err(Malformed(body.len() - rest)),
        }
    }
}

impl ReplicaReport {
    /// Appends the body.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.broker_epoch.to_le_bytes());
        put_count(into, self.parts.len());
        for part in &self.parts {
            put_log(into, part.log);
            into.extend_from_slice(&part.leader_epoch.to_le_bytes());
            into.extend_from_slice(&part.log_end.0.to_le_bytes());
            into.extend_from_slice(&part.durable_end.0.to_le_bytes());
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Where it stops making sense.
    pub fn decode(body: &[u8]) -> Result<ReplicaReport, Malformed> {
        let mut fields = Fields::new(body);
        let mut report = ReplicaReport {
            broker_epoch: fields.i64()?,
            parts: Vec::new(),
        };
        for _ in 0..fields.count(REPORTED_BYTES)? {
            report.parts.push(ReplicaFetchPart {
                log: take_log(&mut fields)?,
                leader_epoch: fields.i32()?,
                log_end: take_offset(&mut fields)?,
                durable_end: take_offset(&mut fields)?,
                last_epoch: -1,
            });
        }
        match fields.remaining() {
            0 => Ok(report),
            rest => Err(Malformed(body.len() - rest)),
        }
    }
}

/// Appends the partitions of an answer.
pub fn put_answers(into: &mut Vec<u8>, parts: &[ReplicaAnswerPart]) {
    put_count(into, parts.len());
    for part in parts {
        put_log(into, part.log);
        into.push(part.status as u8);
        into.extend_from_slice(&part.leader_epoch.to_le_bytes());
        for offset in [part.high_watermark, part.log_start, part.log_end] {
            into.extend_from_slice(&offset.0.to_le_bytes());
        }
        let (epoch, end) = part.diverging.unwrap_or((-1, Offset(0)));
        into.extend_from_slice(&epoch.to_le_bytes());
        into.extend_from_slice(&end.0.to_le_bytes());
        into.extend_from_slice(&part.length.to_le_bytes());
    }
}

/// Reads the partitions of an answer with the records of each.
///
/// # Errors
/// Where it stops making sense.
pub fn take_answers(body: &[u8]) -> Result<Vec<(ReplicaAnswerPart, &[u8])>, Malformed> {
    let mut fields = Fields::new(body);
    let mut parts = Vec::new();
    for _ in 0..fields.count(ANSWERED_BYTES)? {
        parts.push(take_answer(&mut fields)?);
    }
    let mut answers = Vec::with_capacity(parts.len());
    for part in parts {
        let records = fields.take(part.length as usize)?;
        answers.push((part, records));
    }
    match fields.remaining() {
        0 => Ok(answers),
        rest => Err(Malformed(body.len() - rest)),
    }
}

fn take_answer(fields: &mut Fields<'_>) -> Result<ReplicaAnswerPart, Malformed> {
    use ReplicaStatus::{Fine, OtherEpoch, OutOfRange, Unreadable};
    let log = take_log(fields)?;
    let at = fields.position();
    let byte = fields.u8()?;
    let status = [Fine, OtherEpoch, OutOfRange, Unreadable]
        .into_iter()
        .find(|status| *status as u8 == byte)
        .ok_or(Malformed(at))?;
    let leader_epoch = fields.i32()?;
    let high_watermark = take_offset(fields)?;
    let log_start = take_offset(fields)?;
    let log_end = take_offset(fields)?;
    let (epoch, end) = (fields.i32()?, take_offset(fields)?);
    Ok(ReplicaAnswerPart {
        log,
        status,
        leader_epoch,
        high_watermark,
        log_start,
        log_end,
        diverging: (epoch >= 0).then_some((epoch, end)),
        length: fields.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: LogId = LogId {
        topic: [3; 16],
        partition: 7,
    };

    fn part() -> ReplicaFetchPart {
        ReplicaFetchPart {
            log: LOG,
            leader_epoch: 4,
            log_end: Offset(1 << 40),
            durable_end: Offset(5),
            last_epoch: -1,
        }
    }

    #[test]
    fn fetches_answers_and_reports_read_back() {
        let fetch = ReplicaFetch {
            broker_epoch: 9,
            wait_ms: 500,
            max_bytes: 1000,
            partition_max_bytes: 10,
            parts: vec![part(), part()],
        };
        let bytes = request(PeerKind::Fetch, 17, |into| fetch.encode(into));
        let frame = PeerFrame::decode(&bytes[4..]).expect("ours");
        assert_eq!((frame.kind, frame.correlation), (PeerKind::Fetch, 17));
        assert_eq!(ReplicaFetch::decode(frame.body), Ok(fetch.clone()));
        assert_eq!(
            bytes.len() - 4,
            u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize
        );
        let report = ReplicaReport {
            broker_epoch: 9,
            parts: fetch.parts,
        };
        let mut bytes = Vec::new();
        report.encode(&mut bytes);
        assert_eq!(ReplicaReport::decode(&bytes), Ok(report));
        let told = |diverging, length| ReplicaAnswerPart {
            log: LOG,
            status: ReplicaStatus::OutOfRange,
            leader_epoch: 3,
            high_watermark: Offset(4),
            log_start: Offset(1),
            log_end: Offset(6),
            diverging,
            length,
        };
        let parts = [told(None, 3), told(Some((2, Offset(9))), 2)];
        let mut bytes = Vec::new();
        put_answers(&mut bytes, &parts);
        bytes.extend_from_slice(b"abcde");
        let read = take_answers(&bytes).expect("ours");
        assert_eq!(read, [(parts[0], &b"abc"[..]), (parts[1], &b"de"[..])]);
        for length in 0..bytes.len() {
            assert!(take_answers(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn calls_read_back_and_other_protocols_are_refused() {
        let hello = PeerRequest::Hello(Hello {
            cluster_id: "c".to_string(),
            node_id: 1,
            to: 2,
            directory_id: Uuid([4; 16]),
        });
        let bytes = request(PeerKind::Call, 1, |into| put(into, &hello));
        let frame = PeerFrame::decode(&bytes[4..]).expect("ours");
        assert_eq!(take(frame.body), Some(hello));
        let mut other = bytes[4..].to_vec();
        other[0] = 2;
        assert!(PeerFrame::decode(&other).is_none());
        assert!(PeerFrame::decode(&bytes[4..8]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(fetch) = ReplicaFetch::decode(&bytes) {
                let mut again = Vec::new();
                fetch.encode(&mut again);
                prop_assert_eq!(again, bytes.clone());
            }
            let _ = take_answers(&bytes);
            let _ = ReplicaReport::decode(&bytes);
            let _ = take::<PeerRequest>(&bytes);
            let _ = take::<PeerAnswer>(&bytes);
        }
    }
}
