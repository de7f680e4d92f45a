//! Record batches, made cheaply.
//!
//! * A batch of the full record count without keys comes from the *sections*: record sets that were
//!   built (and compressed) before the run, together larger than the CPU's caches. Only the header
//!   is made for each batch, the records go from the section to the socket without a copy. Their
//!   checksum is known; it is joined with the header's by the linearity of CRC-32C.
//! * Every other batch is composed: values cut from the text pool at moving offsets, fresh keys or
//!   time stamps, checksum over all bytes.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use percolog::wire::checksum;
use percolog::wire::compression::{Codec, Compression};
use percolog::wire::record_batch::{
    Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE,
};

use crate::text::TextPool;

/// Where the checksummed part of a header begins: at the attributes.
const CHECKSUM_START: usize = 21;
/// Attributes, and the counts and lengths around key and value, at most.
const RECORD_OVERHEAD_BYTES_MAX: usize = 1 + 5 + 1 + 5 + 5 + 5 + 1;
/// Composed record sets that may be kept for their memory.
const COMPOSED_MAX: usize = 64;
/// Batches up to this size are copied between the frames' heads rather than gathered.
pub(crate) const COPY_BYTES_MAX: usize = 4 << 10;

/// Sizes and codec of all batches of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchShape {
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// Bytes of a batch, before compression, that are not exceeded unless one record does.
    pub(crate) batch_bytes: usize,
    /// Codec.
    pub(crate) codec: Codec,
    /// Distinct keys; 0 for records without a key.
    pub(crate) keys: u64,
}

/// Bytes of a key: 16 hexadecimal digits.
pub(crate) const KEY_BYTES: usize = 16;

impl BatchShape {
    /// Records of a full batch.
    pub(crate) fn records(&self) -> u32 {
        let record = self.record_bytes + self.key_bytes() + RECORD_OVERHEAD_BYTES_MAX;
        let room = self.batch_bytes.saturating_sub(HEADER_BYTES);
        u32::try_from((room / record).max(1)).expect("batches are bounded")
    }

    fn key_bytes(&self) -> usize {
        if self.keys > 0 { KEY_BYTES } else { 0 }
    }

    /// Bytes that count as payload: keys and values.
    pub(crate) fn payload_bytes(&self, records: u64) -> u64 {
        records * (self.record_bytes + self.key_bytes()) as u64
    }
}

/// Who wrote a batch, and where it stands in the sequence of its partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Producer id.
    pub(crate) producer_id: i64,
    /// Its epoch.
    pub(crate) producer_epoch: i16,
    /// Sequence of the first record.
    pub(crate) base_sequence: i32,
}

impl Origin {
    /// A producer that is not idempotent.
    pub(crate) const NONE: Origin = Origin {
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        base_sequence: NO_SEQUENCE,
    };
}

/// A finished batch: its header and its records.
#[derive(Clone, Debug)]
pub(crate) struct ReadyBatch {
    /// The header.
    pub(crate) header: [u8; HEADER_BYTES],
    /// The records, shared with the section they come from.
    pub(crate) records: Rc<Vec<u8>>,
}

impl ReadyBatch {
    /// Bytes on the wire.
    pub(crate) fn size_bytes(&self) -> usize {
        self.header.len() + self.records.len()
    }
}

/// What appending zero bytes does to a checksum, as a matrix over bits.
#[derive(Clone, Debug)]
struct Shift([u32; 32]);

impl Shift {
    fn by(size_bytes: usize) -> Shift {
        let mut columns = [0; 32];
        for (bit, column) in columns.iter_mut().enumerate() {
            *column = crc32c::crc32c_combine(1 << bit, 0, size_bytes);
        }
        Shift(columns)
    }

    fn apply(&self, crc: u32) -> u32 {
        let columns = self.0.iter().enumerate();
        columns.fold(0, |sum, (bit, column)| sum ^ (column * ((crc >> bit) & 1)))
    }
}

#[derive(Debug)]
struct Section {
    records: Rc<Vec<u8>>,
    crc: u32,
    shift: Rc<Shift>,
}

/// Makes batches.
#[derive(Debug)]
pub(crate) struct BatchMaker {
    shape: BatchShape,
    pool: TextPool,
    sections: Vec<Section>,
    next_section: usize,
    /// Per target: which of its keys is next.
    next_key: BTreeMap<usize, u64>,
    target_count: u64,
    scratch: Vec<u8>,
    /// Record sets that were composed; those that nobody holds any more are used again, since fresh
    /// memory costs more than what is written to it.
    composed: VecDeque<Rc<Vec<u8>>>,
}

impl BatchMaker {
    /// With a pool of `pool_bytes`, and as many bytes in sections if batches carry no stamps.
    pub(crate) fn new(
        shape: BatchShape,
        pool_bytes: usize,
        seed: u64,
        are_sections_wanted: bool,
    ) -> BatchMaker {
        let mut maker = BatchMaker {
            shape,
            pool: TextPool::new(pool_bytes, seed),
            sections: Vec::new(),
            next_section: 0,
            next_key: BTreeMap::new(),
            target_count: 1,
            scratch: Vec::new(),
            composed: VecDeque::new(),
        };
        if are_sections_wanted && shape.keys == 0 {
            maker.build_sections(pool_bytes);
        }
        maker
    }

    /// How many targets share the keys.
    pub(crate) fn set_target_count(&mut self, target_count: usize) {
        self.target_count = target_count as u64;
    }

    fn build_sections(&mut self, pool_bytes: usize) {
        let mut shifts: BTreeMap<usize, Rc<Shift>> = BTreeMap::new();
        let mut plain_bytes = 0;
        while plain_bytes < pool_bytes {
            let mut plain = Vec::new();
            for delta in 0..self.shape.records() {
                let value = self.pool.cut(self.shape.record_bytes);
                put_record(&mut plain, delta, None, &[], value);
            }
            plain_bytes += plain.len();
            let records = match self.shape.codec {
                Codec::None => plain,
                codec => Compression::of(codec).compress(&plain),
            };
            let shift = shifts.entry(records.len());
            let shift = Rc::clone(shift.or_insert_with(|| Rc::new(Shift::by(records.len()))));
            self.sections.push(Section {
                crc: checksum::crc32c(&records),
                shift,
                records: Rc::new(records),
            });
        }
    }

    /// A batch of `count` records for `target`.
    pub(crate) fn make(
        &mut self,
        target: usize,
        count: u32,
        timestamp_ms: i64,
        origin: Origin,
    ) -> ReadyBatch {
        if count != self.shape.records() || self.sections.is_empty() {
            return self.compose(target, count, timestamp_ms, origin, None);
        }
        let section = &self.sections[self.next_section];
        self.next_section = (self.next_section + 1) % self.sections.len();
        let records = Rc::clone(&section.records);
        let mut header = header(records.len(), self.shape.codec, count, timestamp_ms, origin);
        let head = checksum::crc32c(&header.encode()[CHECKSUM_START..]);
        header.crc = section.shift.apply(head) ^ section.crc;
        ReadyBatch {
            header: header.encode(),
            records,
        }
    }

    /// The same, each value beginning with what `stamps` gives if there are any.
    pub(crate) fn compose(
        &mut self,
        target: usize,
        count: u32,
        timestamp_ms: i64,
        origin: Origin,
        stamps: Option<&mut dyn FnMut() -> [u8; STAMP_BYTES]>,
    ) -> ReadyBatch {
        let mut stamps = stamps;
        let mut plain = std::mem::take(&mut self.scratch);
        plain.clear();
        for delta in 0..count {
            let stamp = stamps.as_mut().map(|next| next());
            let stamp: &[u8] = stamp.as_ref().map_or(&[], |stamp| stamp);
            let key = (self.shape.keys > 0).then(|| {
                let next = self.next_key.entry(target).or_insert(0);
                key_of(target, next, self.target_count, self.shape.keys)
            });
            let value = self.pool.cut(self.shape.record_bytes - stamp.len());
            put_record(&mut plain, delta, key.as_ref(), stamp, value);
        }
        let mut records = plain;
        if self.shape.codec != Codec::None {
            let compressed = Compression::of(self.shape.codec).compress(&records);
            self.scratch = std::mem::replace(&mut records, compressed);
        } else {
            self.scratch = self.unused();
        }
        let mut header = header(records.len(), self.shape.codec, count, timestamp_ms, origin);
        header.crc = header.checksum(&records);
        let records = Rc::new(records);
        if self.shape.codec == Codec::None {
            self.composed.push_back(Rc::clone(&records));
        }
        ReadyBatch {
            header: header.encode(),
            records,
        }
    }

    /// Memory of a record set that was sent, or none.
    fn unused(&mut self) -> Vec<u8> {
        while self.composed.len() > COMPOSED_MAX {
            self.composed.pop_front();
        }
        let oldest = self.composed.front();
        match oldest.is_some_and(|records| Rc::strong_count(records) == 1) {
            true => self
                .composed
                .pop_front()
                .and_then(Rc::into_inner)
                .unwrap_or_default(),
            false => Vec::new(),
        }
    }
}

/// Bytes that an end-to-end run puts at the start of a value.
pub(crate) const STAMP_BYTES: usize = 16;

/// A target has the keys that leave its number when divided by the number of targets, so that
/// equal keys share a partition. They are taken in turn.
fn key_of(target: usize, next: &mut u64, target_count: u64, keys: u64) -> [u8; KEY_BYTES] {
    let mut key = target as u64 % keys + *next * target_count;
    if key >= keys {
        *next = 0;
        key = target as u64 % keys;
    }
    *next += 1;
    let mut text = [0; KEY_BYTES];
    for (index, digit) in text.iter_mut().enumerate() {
        let nibble = key >> (4 * (KEY_BYTES - 1 - index)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    text
}

fn header(
    record_bytes: usize,
    codec: Codec,
    count: u32,
    timestamp_ms: i64,
    origin: Origin,
) -> BatchHeader {
    let count = i32::try_from(count).expect("batches are bounded");
    let length = HEADER_BYTES - LENGTH_PREFIX_BYTES + record_bytes;
    BatchHeader {
        base_offset: 0,
        batch_length: i32::try_from(length).expect("batches are bounded"),
        partition_leader_epoch: -1,
        crc: 0,
        attributes: Attributes::default().with_codec(codec),
        last_offset_delta: count - 1,
        base_timestamp: timestamp_ms,
        max_timestamp: timestamp_ms,
        producer_id: origin.producer_id,
        producer_epoch: origin.producer_epoch,
        base_sequence: origin.base_sequence,
        record_count: count,
    }
}

fn put_record(
    bytes: &mut Vec<u8>,
    offset_delta: u32,
    key: Option<&[u8; KEY_BYTES]>,
    stamp: &[u8],
    value: &[u8],
) {
    let value_bytes = stamp.len() + value.len();
    let key_bytes = key.map_or(0, |key| key.len());
    let length = 1 // attributes
        + 1 // timestamp delta
        + varint_bytes(u64::from(offset_delta))
        + if key.is_some() { varint_bytes(key_bytes as u64) + key_bytes } else { 1 }
        + varint_bytes(value_bytes as u64)
        + value_bytes
        + 1; // no headers
    put_varint(bytes, length as i64);
    bytes.extend_from_slice(&[0, 0]);
    put_varint(bytes, i64::from(offset_delta));
    match key {
        Some(key) => {
            put_varint(bytes, key.len() as i64);
            bytes.extend_from_slice(key);
        }
        None => put_varint(bytes, -1),
    }
    put_varint(bytes, value_bytes as i64);
    bytes.extend_from_slice(stamp);
    bytes.extend_from_slice(value);
    bytes.push(0);
}

fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

/// Bytes of a value that is not negative, as a zigzag varint.
fn varint_bytes(value: u64) -> usize {
    (64 - (value << 1 | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use percolog::wire::record_batch::BatchView;

    fn shape(record_bytes: usize, batch_bytes: usize, codec: Codec, keys: u64) -> BatchShape {
        BatchShape {
            record_bytes,
            batch_bytes,
            codec,
            keys,
        }
    }

    fn maker(shape: BatchShape) -> BatchMaker {
        let mut maker = BatchMaker::new(shape, 1 << 20, 3, true);
        maker.set_target_count(4);
        maker
    }

    /// Checks a batch as a broker does and gives its keys and values.
    fn records_of(batch: &ReadyBatch) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let bytes = [&batch.header[..], &batch.records].concat();
        let view = BatchView::parse(&bytes).expect("a batch");
        assert_eq!(view.bytes().len(), bytes.len());
        view.verify_checksum().expect("its checksum");
        let plain = view.plain_payload(8 << 20).expect("its codec");
        let records = percolog::wire::record::Records::new(&plain, view.header().record_count);
        let mut found = Vec::new();
        for (index, record) in records.enumerate() {
            let record = record.expect("a record");
            assert_eq!(record.offset_delta as usize, index);
            let value = record.value.expect("a value").to_vec();
            found.push((record.key.map(<[u8]>::to_vec), value));
        }
        found
    }

    #[test]
    fn batches_are_valid_in_every_size_and_codec() {
        for codec in [
            Codec::None,
            Codec::Lz4,
            Codec::Zstd,
            Codec::Snappy,
            Codec::Gzip,
        ] {
            for (record_bytes, batch_bytes) in
                [(1, 100), (1_024, 1), (1_024, 300_000), (200_000, 1)]
            {
                let shape = shape(record_bytes, batch_bytes, codec, 0);
                let mut maker = maker(shape);
                for count in [shape.records(), 1, shape.records()] {
                    let batch = maker.make(0, count, 1_700_000_000_000, Origin::NONE);
                    let records = records_of(&batch);
                    assert_eq!(records.len(), count as usize);
                    assert!(
                        records
                            .iter()
                            .all(|(key, value)| key.is_none() && value.len() == record_bytes)
                    );
                }
            }
        }
    }

    #[test]
    fn full_batches_keep_to_their_size() {
        for record_bytes in [1, 10, 1_000, 1_024, 16_384] {
            let shape = shape(record_bytes, 1 << 20, Codec::None, 0);
            let batch = maker(shape).make(0, shape.records(), 0, Origin::NONE);
            let size = batch.size_bytes();
            assert!(size <= 1 << 20, "{record_bytes}: {size}");
            assert!(shape.records() > 1);
        }
    }

    #[test]
    fn consecutive_batches_differ() {
        let shape = shape(1_024, 100_000, Codec::None, 0);
        let mut maker = maker(shape);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let batch = maker.make(0, shape.records(), 0, Origin::NONE);
            assert!(seen.insert(batch.records.to_vec()));
        }
    }

    #[test]
    fn keys_are_distinct_bounded_and_stay_with_their_target() {
        let mut maker = maker(shape(10, 10_000, Codec::None, 9));
        let mut target_of = BTreeMap::new();
        for _ in 0..3 {
            for target in 0..4 {
                for (key, _) in records_of(&maker.make(target, 5, 0, Origin::NONE)) {
                    let key = key.expect("a key");
                    assert_eq!(*target_of.entry(key).or_insert(target), target);
                }
            }
        }
        assert_eq!(target_of.len(), 9);
    }

    #[test]
    fn stamps_open_the_values_and_origins_are_in_the_header() {
        let mut maker = maker(shape(100, 10_000, Codec::Lz4, 0));
        let mut next = 0;
        let mut stamps = || {
            next += 1;
            [next; STAMP_BYTES]
        };
        let origin = Origin {
            producer_id: 9,
            producer_epoch: 2,
            base_sequence: 40,
        };
        let batch = maker.compose(0, 3, 5, origin, Some(&mut stamps));
        for (index, (_, value)) in records_of(&batch).into_iter().enumerate() {
            assert_eq!(value.len(), 100);
            assert_eq!(value[..STAMP_BYTES], [index as u8 + 1; STAMP_BYTES]);
        }
        let header = BatchHeader::parse(&batch.header).expect("a header");
        assert_eq!((header.producer_id, header.producer_epoch), (9, 2));
        assert_eq!((header.base_sequence, header.base_timestamp), (40, 5));
    }
}
