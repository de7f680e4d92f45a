//! Whether a client's record set may be appended to a topic, and as what: Kafka's rules for
//! Produce from version 3 on, as one decision without state.
//!
//! The client's bytes are kept wherever possible. Only the codec a topic demands, or offsets
//! inside a batch that are not consecutive (some old clients), make it be built anew; timestamps
//! and flags that change are changed in the header alone.

use std::borrow::Cow;

use super::compression::{Codec, Compression, DecompressionError, Decompressor};
use super::record::{RecordOutline, RecordOutlines, Records};
use super::record_batch::{
    BatchError, BatchHeader, BatchView, HEADER_BYTES, NO_PRODUCER_ID, NO_TIMESTAMP, TimestampType,
};
use super::record_batch_builder::{BatchBuilder, BatchOptions};

/// Errors listed per record; a batch with more is refused all the same.
pub const RECORD_ERRORS_MAX: usize = 100;

/// The Kafka error code of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionCode(pub i16);

impl RejectionCode {
    /// The bytes were damaged on their way; worth another try.
    pub const CORRUPT_MESSAGE: RejectionCode = RejectionCode(2);
    /// The batch exceeds `max.message.bytes`.
    pub const MESSAGE_TOO_LARGE: RejectionCode = RejectionCode(10);
    /// The batch exceeds `segment.bytes`.
    pub const RECORD_LIST_TOO_LARGE: RejectionCode = RejectionCode(18);
    /// A timestamp is out of range, or of a type that clients do not set.
    pub const INVALID_TIMESTAMP: RejectionCode = RejectionCode(32);
    /// The codec is unknown, or not allowed in this request version.
    pub const UNSUPPORTED_COMPRESSION_TYPE: RejectionCode = RejectionCode(76);
    /// The batch breaks a rule of the format or of the topic.
    pub const INVALID_RECORD: RejectionCode = RejectionCode(87);
}

/// One record that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its index in the batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: String,
}

/// Why a record set was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What the client is told.
    pub code: RejectionCode,
    /// A short name that suits a metric label.
    pub reason: &'static str,
    /// The same in words.
    pub message: String,
    /// The records at fault, at most [`RECORD_ERRORS_MAX`], when records are.
    pub record_errors: Vec<RecordError>,
}

impl Rejection {
    fn new(code: RejectionCode, reason: &'static str, message: impl Into<String>) -> Rejection {
        Rejection {
            code,
            reason,
            message: message.into(),
            record_errors: Vec::new(),
        }
    }

    fn invalid(reason: &'static str, message: impl Into<String>) -> Rejection {
        Rejection::new(RejectionCode::INVALID_RECORD, reason, message)
    }
}

impl From<BatchError> for Rejection {
    fn from(error: BatchError) -> Rejection {
        let code = match error {
            // What ends early holds no batch at all, for Kafka; a record set is never resumed.
            BatchError::TooShort { .. }
            | BatchError::Truncated { .. }
            | BatchError::BadMagic(0 | 1)
            | BatchError::BadCount(_)
            | BatchError::BadRecord(_)
            | BatchError::Decompression(DecompressionError::Corrupt(_)) => {
                RejectionCode::INVALID_RECORD
            }
            BatchError::BadMagic(_) | BatchError::BadLength(_) | BatchError::BadChecksum { .. } => {
                RejectionCode::CORRUPT_MESSAGE
            }
            BatchError::UnknownCodec(_) => RejectionCode::UNSUPPORTED_COMPRESSION_TYPE,
            BatchError::Decompression(DecompressionError::TooLarge { .. }) => {
                RejectionCode::MESSAGE_TOO_LARGE
            }
        };
        Rejection::new(code, error.reason(), error.to_string())
    }
}

/// What a topic stores its batches as: its `compression.type` and level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TopicCompression {
    /// As the producer compressed them.
    #[default]
    Producer,
    /// In this codec only.
    Fixed(Compression),
}

/// The rules of a topic, and of the request's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRules {
    /// `max.message.bytes`: size of a batch as it is stored.
    pub message_max_bytes: usize,
    /// `segment.bytes`: no batch is larger than a segment.
    pub segment_bytes: usize,
    /// What a batch may decompress to.
    pub decompressed_max_bytes: usize,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// Whether `cleanup.policy` has `compact`: then every record needs a key.
    pub is_compacted: bool,
    /// Produce from version 7 on may carry zstd.
    pub allows_zstd: bool,
}

/// A batch that may be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidBatch<'a> {
    /// The header as it will be stored, but for base offset and leader epoch.
    pub header: BatchHeader,
    /// What follows the header: the client's bytes, or rebuilt ones.
    pub payload: Cow<'a, [u8]>,
    /// Offset delta of the first record with the batch's largest timestamp, -1 when none has any.
    pub offset_delta_of_max_timestamp: i32,
}

impl ValidBatch<'_> {
    /// Size in a log.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Number of records, which is also the number of offsets it takes.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Largest timestamp of its records, or the append time; -1 when none has any.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// Whether the payload is not the client's any more.
    #[must_use]
    pub fn is_rebuilt(&self) -> bool {
        matches!(self.payload, Cow::Owned(_))
    }

    /// The header as it goes into a log, in front of the payload.
    #[must_use]
    pub fn placed_header(&self, base_offset: i64, leader_epoch: i32) -> [u8; HEADER_BYTES] {
        self.header.placed(base_offset, leader_epoch)
    }
}

/// Decides whether `record_set` (empty when it was null) may be appended under `rules`.
///
/// # Errors
/// The rejection to answer with.
pub fn validate<'a>(
    record_set: &'a [u8],
    rules: &BatchRules,
    now_ms: i64,
) -> Result<ValidBatch<'a>, Rejection> {
    let batch = only_batch(record_set, rules)?;
    let codec = check_header(batch.header())?;
    let walk = walk(&batch, codec, rules, now_ms)?;
    let target = match rules.compression {
        TopicCompression::Producer => Compression::of(codec),
        TopicCompression::Fixed(compression) => compression,
    };
    let valid = if target.codec == codec && walk.is_consecutive {
        keep(&batch, &walk, rules, now_ms)
    } else {
        rebuild(&batch, target, rules, now_ms)?
    };
    check_size(valid.size_bytes(), rules.message_max_bytes)?;
    if valid.size_bytes() > rules.segment_bytes {
        return Err(Rejection::new(
            RejectionCode::RECORD_LIST_TOO_LARGE,
            "segment_bytes",
            format!(
                "The batch of {} bytes exceeds segment.bytes, which is {}",
                valid.size_bytes(),
                rules.segment_bytes
            ),
        ));
    }
    Ok(valid)
}

/// The one batch of the set, undamaged.
fn only_batch<'a>(record_set: &'a [u8], rules: &BatchRules) -> Result<BatchView<'a>, Rejection> {
    if record_set.is_empty() {
        return Err(Rejection::invalid(
            "no_batch",
            "A partition of a Produce request must have a record batch",
        ));
    }
    let batch = BatchView::parse(record_set)?;
    if !rules.allows_zstd && batch.header().attributes.codec() == Ok(Codec::Zstd) {
        return Err(Rejection::new(
            RejectionCode::UNSUPPORTED_COMPRESSION_TYPE,
            "zstd_version",
            "Produce requests below version 7 must not use zstd",
        ));
    }
    if batch.bytes().len() < record_set.len() {
        return Err(Rejection::invalid(
            "several_batches",
            "A partition of a Produce request must have exactly one record batch",
        ));
    }
    let base_offset = batch.header().base_offset;
    if base_offset != 0 {
        return Err(Rejection::invalid(
            "base_offset",
            format!("The base offset of a produced batch should be 0, but it is {base_offset}"),
        ));
    }
    check_size(record_set.len(), rules.message_max_bytes)?;
    batch.verify_checksum()?;
    Ok(batch)
}

fn check_size(size_bytes: usize, maximum_bytes: usize) -> Result<(), Rejection> {
    if size_bytes <= maximum_bytes {
        return Ok(());
    }
    Err(Rejection::new(
        RejectionCode::MESSAGE_TOO_LARGE,
        "message_max_bytes",
        format!(
            "The batch of {size_bytes} bytes exceeds max.message.bytes, which is {maximum_bytes}"
        ),
    ))
}

/// The rules about the fields under the checksum.
fn check_header(header: &BatchHeader) -> Result<Codec, Rejection> {
    let attributes = header.attributes;
    let codec = attributes.codec()?;
    let count = header.record_count;
    if count <= 0 || header.last_offset_delta != count - 1 {
        let last = header.last_offset_delta;
        return Err(Rejection::invalid(
            "count",
            format!("Inconsistent offset range [0, {last}] and count of records {count}"),
        ));
    }
    if attributes.is_control() {
        return Err(Rejection::invalid(
            "control_batch",
            "Clients are not allowed to write control records",
        ));
    }
    if attributes.has_unknown_bits() || attributes.has_delete_horizon() {
        return Err(Rejection::invalid(
            "attributes",
            format!(
                "Producers do not set batch attributes {:#06x}",
                attributes.0
            ),
        ));
    }
    check_producer(header)?;
    Ok(codec)
}

fn check_producer(header: &BatchHeader) -> Result<(), Rejection> {
    let (id, epoch, sequence) = (
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    );
    if header.has_producer_id() && sequence < 0 {
        return Err(Rejection::invalid(
            "sequence",
            format!("Invalid sequence number {sequence} in record batch with producer id {id}"),
        ));
    }
    if header.has_producer_id() && epoch < 0 {
        return Err(Rejection::invalid(
            "producer_epoch",
            format!("Invalid producer epoch {epoch} in record batch with producer id {id}"),
        ));
    }
    if id < NO_PRODUCER_ID || (!header.has_producer_id() && header.attributes.is_transactional()) {
        return Err(Rejection::invalid(
            "producer_id",
            format!("Invalid producer id {id} in record batch"),
        ));
    }
    Ok(())
}

/// What a pass over the records found.
struct Walk {
    is_consecutive: bool,
    max_timestamp: i64,
    offset_delta_of_max_timestamp: i32,
}

fn walk(
    batch: &BatchView<'_>,
    codec: Codec,
    rules: &BatchRules,
    now_ms: i64,
) -> Result<Walk, Rejection> {
    let header = batch.header();
    let mut pass = Pass::new(header, rules, now_ms);
    if codec == Codec::None {
        for record in batch.records()? {
            pass.take(RecordOutline::from(&record?));
        }
    } else {
        let input = Decompressor::new(codec, batch.payload(), rules.decompressed_max_bytes)
            .map_err(BatchError::from)?;
        for outline in RecordOutlines::new(input, header.record_count) {
            pass.take(outline?);
        }
    }
    pass.finish()
}

struct Pass<'a> {
    rules: &'a BatchRules,
    header: &'a BatchHeader,
    now_ms: i64,
    index: i32,
    found: Walk,
    errors: Vec<RecordError>,
    has_bad_timestamp: bool,
    error_count: usize,
}

impl<'a> Pass<'a> {
    fn new(header: &'a BatchHeader, rules: &'a BatchRules, now_ms: i64) -> Pass<'a> {
        let found = Walk {
            is_consecutive: true,
            max_timestamp: NO_TIMESTAMP,
            offset_delta_of_max_timestamp: -1,
        };
        Pass {
            rules,
            header,
            now_ms,
            index: 0,
            found,
            errors: Vec::new(),
            has_bad_timestamp: false,
            error_count: 0,
        }
    }

    fn take(&mut self, record: RecordOutline) {
        let index = self.index;
        self.index += 1;
        if record.offset_delta != index {
            self.found.is_consecutive = false;
        }
        if self.rules.is_compacted && !record.has_key {
            self.refuse(
                index,
                "Compacted topic cannot accept message without key".to_string(),
            );
            return;
        }
        let base_timestamp = self.header.base_timestamp;
        let timestamp = base_timestamp.checked_add(record.timestamp_delta);
        if let Err(message) = self.check_timestamp(timestamp) {
            self.has_bad_timestamp = true;
            self.refuse(index, message);
            return;
        }
        if let Some(timestamp) = timestamp
            && timestamp > self.found.max_timestamp
        {
            self.found.max_timestamp = timestamp;
            self.found.offset_delta_of_max_timestamp = index;
        }
    }

    fn check_timestamp(&self, timestamp: Option<i64>) -> Result<(), String> {
        let Some(timestamp) = timestamp else {
            return Err("Timestamp is out of range of the format".to_string());
        };
        if self.rules.timestamp_type == TimestampType::LogAppendTime || timestamp == NO_TIMESTAMP {
            // On a CreateTime topic Kafka takes the mark off instead, given a timestamp to check.
            return match self.header.attributes.timestamp_type() {
                TimestampType::CreateTime => Ok(()),
                TimestampType::LogAppendTime => {
                    Err("Producer should not set timestamp type to LogAppendTime".to_string())
                }
            };
        }
        let earliest = self
            .now_ms
            .saturating_sub(self.rules.timestamp_before_max_ms);
        let latest = self
            .now_ms
            .saturating_add(self.rules.timestamp_after_max_ms);
        if (earliest..=latest).contains(&timestamp) {
            return Ok(());
        }
        Err(format!(
            "Timestamp {timestamp} is out of range. The timestamp should be within [{earliest}, {latest}]"
        ))
    }

    fn refuse(&mut self, batch_index: i32, message: String) {
        self.error_count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError {
                batch_index,
                message,
            });
        }
    }

    fn finish(self) -> Result<Walk, Rejection> {
        if self.error_count == 0 {
            return Ok(self.found);
        }
        let (code, reason, message) = if self.has_bad_timestamp {
            let message = "One or more records have been rejected due to invalid timestamp";
            (
                RejectionCode::INVALID_TIMESTAMP,
                "timestamp",
                message.to_string(),
            )
        } else {
            let message = format!(
                "One or more records have been rejected due to {} record errors in total",
                self.error_count
            );
            (RejectionCode::INVALID_RECORD, "missing_key", message)
        };
        Err(Rejection {
            code,
            reason,
            message,
            record_errors: self.errors,
        })
    }
}

/// The client's payload under a header whose timestamp fields are right.
fn keep<'a>(batch: &BatchView<'a>, walk: &Walk, rules: &BatchRules, now_ms: i64) -> ValidBatch<'a> {
    let mut header = *batch.header();
    let (max_timestamp, offset_delta_of_max_timestamp) = match rules.timestamp_type {
        TimestampType::CreateTime => (walk.max_timestamp, walk.offset_delta_of_max_timestamp),
        TimestampType::LogAppendTime => (now_ms, 0),
    };
    let attributes = header.attributes.with_timestamp_type(rules.timestamp_type);
    if attributes != header.attributes || max_timestamp != header.max_timestamp {
        header.attributes = attributes;
        header.max_timestamp = max_timestamp;
        header.crc = header.checksum(batch.payload());
    }
    ValidBatch {
        header,
        payload: Cow::Borrowed(batch.payload()),
        offset_delta_of_max_timestamp,
    }
}

/// The same records with consecutive offsets, in the target codec.
fn rebuild<'a>(
    batch: &BatchView<'a>,
    target: Compression,
    rules: &BatchRules,
    now_ms: i64,
) -> Result<ValidBatch<'a>, Rejection> {
    let header = batch.header();
    let log_append_time_ms =
        (rules.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
    let mut builder = BatchBuilder::new(BatchOptions {
        compression: target,
        log_append_time_ms,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_transactional: header.attributes.is_transactional(),
        ..BatchOptions::default()
    });
    let plain = batch.plain_payload(rules.decompressed_max_bytes)?;
    for record in Records::new(&plain, header.record_count) {
        let record = record?;
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        builder.append(timestamp, record.key, record.value, record.headers());
    }
    let offset_delta_of_max_timestamp = builder.offset_delta_of_max_timestamp();
    let (header, payload) = builder.finish_parts();
    Ok(ValidBatch {
        header,
        payload: Cow::Owned(payload),
        offset_delta_of_max_timestamp,
    })
}

#[cfg(test)]
mod tests;
