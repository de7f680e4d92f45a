//! The record batch of magic 2: header, placement, checksum, and iteration over a record set.
//!
//! Everything borrows; a length found in the bytes is compared with what is there and never
//! allocates. The CRC covers the attributes to the end, so base offset, length, leader epoch and
//! magic can be set without touching it.

use std::borrow::Cow;

use super::checksum::Crc32c;
use super::compression::{Codec, DecompressionError};
use super::record::Records;

/// Bytes of the header of a batch, everything before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which the length field does not count.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The batch format this broker stores and accepts.
pub const MAGIC: i8 = 2;
/// Timestamp of a record or batch that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// Producer id of a batch of a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch that goes with [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence that goes with [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;

/// Bytes up to and including the magic, enough to tell the format and the length.
const MAGIC_END: usize = 17;
/// The checksum covers everything from here on.
const CHECKSUM_START: usize = 21;

/// Why bytes are not a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header.
    #[error("{available} bytes are fewer than the {HEADER_BYTES} of a batch header")]
    TooShort {
        /// Bytes there are.
        available: usize,
    },
    /// The magic is not 2.
    #[error("batch of magic {0}, only {MAGIC} is supported")]
    BadMagic(i8),
    /// The length field is below that of a batch without records.
    #[error("batch length {0} is below the minimum")]
    BadLength(i32),
    /// The length field promises more bytes than there are.
    #[error("batch of {announced} bytes, of which {available} are there")]
    Truncated {
        /// Bytes that the length field announces, prefix included.
        announced: u64,
        /// Bytes there are.
        available: usize,
    },
    /// The stored checksum differs from the one computed.
    #[error("stored crc {stored:#010x}, computed crc {computed:#010x}")]
    BadChecksum {
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The record count is negative, or does not match what is there.
    #[error("record count {0} does not match the batch")]
    BadCount(i32),
    /// A record does not parse.
    #[error("malformed record: {0}")]
    BadRecord(&'static str),
    /// The compression codec is none that Kafka knows.
    #[error("unknown compression codec {0}")]
    UnknownCodec(u8),
    /// The payload does not decompress.
    #[error("records do not decompress: {0}")]
    Decompression(#[from] DecompressionError),
}

impl BatchError {
    /// A short name that suits a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            BatchError::TooShort { .. } => "too_short",
            BatchError::BadMagic(_) => "bad_magic",
            BatchError::BadLength(_) => "bad_length",
            BatchError::Truncated { .. } => "truncated",
            BatchError::BadChecksum { .. } => "bad_checksum",
            BatchError::BadCount(_) => "bad_count",
            BatchError::BadRecord(_) => "bad_record",
            BatchError::UnknownCodec(_) => "unknown_codec",
            BatchError::Decompression(DecompressionError::TooLarge { .. }) => "decompressed_size",
            BatchError::Decompression(DecompressionError::Corrupt(_)) => "decompression",
        }
    }
}

/// Whose clock the timestamps of a batch come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's; every record has its own.
    #[default]
    CreateTime,
    /// The broker's; the batch's maximum holds for every record.
    LogAppendTime,
}

/// The attributes of a batch, as an accessor over the 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC_MASK: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;
    const KNOWN: i16 = 0x7f;

    /// Compression of the records.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the ids 5 to 7.
    pub fn codec(self) -> Result<Codec, BatchError> {
        let id = (self.0 & Attributes::CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(BatchError::UnknownCodec(id))
    }

    /// Whose clock the timestamps come from.
    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Attributes::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records (transaction markers), which clients never write.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }

    /// Whether the base timestamp holds the time after which compaction may drop tombstones.
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }

    /// Whether bits are set that have no meaning yet.
    #[must_use]
    pub fn has_unknown_bits(self) -> bool {
        self.0 & !Attributes::KNOWN != 0
    }

    /// The same attributes with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Attributes {
        Attributes((self.0 & !Attributes::CODEC_MASK) | i16::from(codec.id()))
    }

    /// The same attributes with another timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        self.with(
            Attributes::LOG_APPEND_TIME,
            timestamp_type == TimestampType::LogAppendTime,
        )
    }

    /// The same attributes with the transactional bit as given.
    #[must_use]
    pub fn with_transactional(self, is_transactional: bool) -> Attributes {
        self.with(Attributes::TRANSACTIONAL, is_transactional)
    }

    /// The same attributes with the control bit as given.
    #[must_use]
    pub fn with_control(self, is_control: bool) -> Attributes {
        self.with(Attributes::CONTROL, is_control)
    }

    /// The same attributes with the delete-horizon bit as given.
    #[must_use]
    pub fn with_delete_horizon(self, has_delete_horizon: bool) -> Attributes {
        self.with(Attributes::DELETE_HORIZON, has_delete_horizon)
    }

    fn with(self, bit: i16, is_set: bool) -> Attributes {
        Attributes(if is_set { self.0 | bit } else { self.0 & !bit })
    }
}

/// Every field of the header of a batch of magic 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (as produced: before compaction removed any).
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub batch_length: i32,
    /// Epoch of the leader that placed the batch; -1 from producers.
    pub partition_leader_epoch: i32,
    /// CRC-32C of the attributes to the end.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: Attributes,
    /// Offset of the last record less the base offset; survives compaction.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to, or the delete horizon.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, or the append time.
    pub max_timestamp: i64,
    /// Idempotent or transactional producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("callers check that a header is there")
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`. Checks magic and the length's lower bound;
    /// whether the records are there is for [`BatchView::parse`] to say, and what the fields under
    /// the checksum are worth shows when that was verified.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() >= MAGIC_END && bytes[MAGIC_END - 1] as i8 != MAGIC {
            return Err(BatchError::BadMagic(bytes[MAGIC_END - 1] as i8));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::TooShort {
                available: bytes.len(),
            });
        }
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, 21))),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        };
        if header.batch_length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(BatchError::BadLength(header.batch_length));
        }
        Ok(header)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.batch_length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&MAGIC.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.0.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        assert_eq!(at, HEADER_BYTES);
        bytes
    }

    /// Size of the whole batch, header included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.batch_length as usize
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Whether an idempotent producer wrote it.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record, or -1: sequences wrap to 0 behind the largest `i32`.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The checksum that this header needs in front of `records`.
    #[must_use]
    pub fn checksum(&self, records: &[u8]) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(&self.encode()[CHECKSUM_START..]);
        crc.update(records);
        crc.value()
    }

    /// The header as it goes into a log: with its base offset and the leader's epoch. Neither is
    /// under the checksum.
    #[must_use]
    pub fn placed(&self, base_offset: i64, leader_epoch: i32) -> [u8; HEADER_BYTES] {
        BatchHeader {
            base_offset,
            partition_leader_epoch: leader_epoch,
            ..*self
        }
        .encode()
    }
}

/// The sequence `count` records behind `sequence`, which wraps to 0 behind the largest `i32`.
#[must_use]
pub fn advance_sequence(sequence: i32, count: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

/// Exactly one batch: its header and its bytes, whose length was checked.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`; more may follow it.
    ///
    /// # Errors
    /// What is wrong with the header, or that the batch is not all there.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        match bytes.get(..header.size_bytes()) {
            Some(bytes) => Ok(BatchView { header, bytes }),
            None => Err(BatchError::Truncated {
                announced: header.size_bytes() as u64,
                available: bytes.len(),
            }),
        }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All of its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: the records, compressed or not.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Compares the checksum with the bytes.
    ///
    /// # Errors
    /// [`BatchError::BadChecksum`].
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        let computed = super::checksum::crc32c(&self.bytes[CHECKSUM_START..]);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::BadChecksum {
                stored: self.header.crc,
                computed,
            })
        }
    }

    /// The header as it goes into a log; the payload stays as it is.
    #[must_use]
    pub fn placed_header(&self, base_offset: i64, leader_epoch: i32) -> [u8; HEADER_BYTES] {
        self.header.placed(base_offset, leader_epoch)
    }

    /// The payload as plain records, borrowed when it is not compressed. Never more than
    /// `limit_bytes` come out of the decompressor.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] or [`BatchError::Decompression`].
    pub fn plain_payload(&self, limit_bytes: usize) -> Result<Cow<'a, [u8]>, BatchError> {
        match self.header.attributes.codec()? {
            Codec::None => Ok(Cow::Borrowed(self.payload())),
            codec => Ok(Cow::Owned(codec.decompress(self.payload(), limit_bytes)?)),
        }
    }

    /// The records of a batch that is not compressed.
    ///
    /// # Errors
    /// When the count is negative, or the batch is compressed: such a batch goes through
    /// [`BatchView::plain_payload`].
    pub fn records(&self) -> Result<Records<'a>, BatchError> {
        if self.header.record_count < 0 {
            return Err(BatchError::BadCount(self.header.record_count));
        }
        match self.header.attributes.codec()? {
            Codec::None => Ok(Records::new(self.payload(), self.header.record_count)),
            _ => Err(BatchError::BadRecord("the batch is compressed")),
        }
    }
}

/// Walks the consecutive batches of a record set. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Over all batches in `record_set`.
    #[must_use]
    pub fn new(record_set: &'a [u8]) -> Batches<'a> {
        Batches { rest: record_set }
    }

    /// The bytes that no batch was taken from yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(self.rest);
        self.rest = match &batch {
            Ok(batch) => &self.rest[batch.bytes().len()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}
