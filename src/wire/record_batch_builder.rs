//! Building record batches of magic 2.

use super::compression::{Codec, Compression};
use super::record::{Header, put_varint, put_varlong, varint_size_bytes};
use super::record_batch::{
    Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
};

/// Everything about a batch but its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the first record; 0 in a Produce request.
    pub base_offset: i64,
    /// Epoch of the leader that places the batch; -1 in a Produce request.
    pub partition_leader_epoch: i32,
    /// Codec and level.
    pub compression: Compression,
    /// Append time, which stands for every record's timestamp; their own are kept inside.
    pub log_append_time_ms: Option<i64>,
    /// Time after which compaction may drop the tombstones inside; it takes the place of the base
    /// timestamp.
    pub delete_horizon_ms: Option<i64>,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds control records.
    pub is_control: bool,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            base_offset: 0,
            partition_leader_epoch: -1,
            compression: Compression::default(),
            log_append_time_ms: None,
            delete_horizon_ms: None,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            is_transactional: false,
            is_control: false,
        }
    }
}

/// Collects records, with ascending offsets from the base offset on, into one batch. How many is
/// for the caller to bound, by [`BatchBuilder::plain_bytes`].
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    records: Vec<u8>,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    offset_delta_of_max_timestamp: i32,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(options: BatchOptions) -> BatchBuilder {
        BatchBuilder {
            options,
            records: Vec::new(),
            count: 0,
            last_offset_delta: -1,
            base_timestamp: options.delete_horizon_ms.unwrap_or(NO_TIMESTAMP),
            max_timestamp: options.log_append_time_ms.unwrap_or(NO_TIMESTAMP),
            offset_delta_of_max_timestamp: if options.log_append_time_ms.is_some() {
                0
            } else {
                -1
            },
        }
    }

    /// Appends a record behind the last one.
    ///
    /// # Panics
    /// When a part or the record would exceed 2 GiB: callers bound records long before.
    pub fn append<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
    ) {
        let offset_delta = self.last_offset_delta + 1;
        self.append_at(offset_delta, timestamp_ms, key, value, headers);
    }

    /// Appends a record at an offset behind the last one's: between them compaction left a gap.
    ///
    /// # Panics
    /// As [`BatchBuilder::append`], and when the offset does not ascend.
    pub fn append_at<'h>(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
    ) {
        assert!(
            offset_delta > self.last_offset_delta,
            "offset delta {offset_delta} after {}",
            self.last_offset_delta
        );
        if self.count == 0 && self.options.delete_horizon_ms.is_none() {
            self.base_timestamp = timestamp_ms;
        }
        if self.options.log_append_time_ms.is_none() && timestamp_ms > self.max_timestamp {
            self.max_timestamp = timestamp_ms;
            self.offset_delta_of_max_timestamp = offset_delta;
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let length = 1
            + varint_size_bytes(timestamp_delta)
            + varint_size_bytes(i64::from(offset_delta))
            + nullable_size_bytes(key)
            + nullable_size_bytes(value)
            + varint_size_bytes(headers.len() as i64)
            + headers
                .clone()
                .map(|header| {
                    nullable_size_bytes(Some(header.key)) + nullable_size_bytes(header.value)
                })
                .sum::<usize>();
        let records = &mut self.records;
        put_varint(records, as_length(length));
        let body_start = records.len();
        // Record attributes: none are in use.
        records.push(0);
        put_varlong(records, timestamp_delta);
        put_varint(records, offset_delta);
        put_nullable(records, key);
        put_nullable(records, value);
        put_varint(records, as_length(headers.len()));
        for header in headers {
            put_nullable(records, Some(header.key));
            put_nullable(records, header.value);
        }
        assert_eq!(
            records.len() - body_start,
            length,
            "the announced length is the written one"
        );
        self.count += 1;
        self.last_offset_delta = offset_delta;
    }

    /// Lets the batch end behind its last record, where it ended before compaction.
    ///
    /// # Panics
    /// When a record stands behind that end.
    pub fn set_last_offset_delta(&mut self, last_offset_delta: i32) {
        assert!(
            last_offset_delta >= self.last_offset_delta,
            "a batch that ends at {last_offset_delta} with a record at {}",
            self.last_offset_delta
        );
        self.last_offset_delta = last_offset_delta;
    }

    /// Records so far.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Bytes the batch would take without compression.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Offset delta of the first record with the largest timestamp, -1 when none has any.
    #[must_use]
    pub fn offset_delta_of_max_timestamp(&self) -> i32 {
        self.offset_delta_of_max_timestamp
    }

    /// The finished header, and the records compressed.
    ///
    /// # Panics
    /// When nothing was appended: there is no batch without records.
    #[must_use]
    pub fn finish_parts(self) -> (BatchHeader, Vec<u8>) {
        assert!(self.count > 0, "a batch has at least one record");
        let options = self.options;
        let timestamp_type = match options.log_append_time_ms {
            None => TimestampType::CreateTime,
            Some(_) => TimestampType::LogAppendTime,
        };
        let payload = match options.compression.codec {
            Codec::None => self.records,
            _ => options.compression.compress(&self.records),
        };
        let mut header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: as_length(HEADER_BYTES - LENGTH_PREFIX_BYTES + payload.len()),
            partition_leader_epoch: options.partition_leader_epoch,
            crc: 0,
            attributes: Attributes::default()
                .with_codec(options.compression.codec)
                .with_timestamp_type(timestamp_type)
                .with_transactional(options.is_transactional)
                .with_control(options.is_control)
                .with_delete_horizon(options.delete_horizon_ms.is_some()),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.count,
        };
        header.crc = header.checksum(&payload);
        (header, payload)
    }

    /// The batch's bytes.
    ///
    /// # Panics
    /// As [`BatchBuilder::finish_parts`].
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let (header, payload) = self.finish_parts();
        let mut bytes = Vec::with_capacity(header.size_bytes());
        bytes.extend(header.encode());
        bytes.extend(payload);
        bytes
    }
}

fn as_length(length: usize) -> i32 {
    i32::try_from(length).expect("callers bound batches far below 2 GiB")
}

fn nullable_size_bytes(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint_size_bytes(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(records: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(records, -1),
        Some(bytes) => {
            put_varint(records, as_length(bytes.len()));
            records.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::Codec;
    use super::super::record::Records;
    use super::super::record_batch::{BatchError, BatchView, Batches, MAGIC};
    use super::*;
    use kafka_protocol::records::{
        Compression as ForeignCompression, RecordBatchDecoder, RecordBatchEncoder,
        RecordEncodeOptions,
    };
    use proptest::prelude::*;

    /// The same three records, as Kafka 4.3.1's Java client writes them in each codec.
    const JAVA_NONE: &str = concat!(
        "00000000000000000000008dffffffff0206c42f060000000000020000018bcfe568000000018bcfe568",
        "07000000000000002a000300000007000000039001000000066b65795e76616c75652076616c75652076",
        "616c75652076616c75652076616c75652076616c75652076616c75652076616c7565040a747261636506",
        "616263086e6f6e650114000e0208676f6e6501000c001304010000",
    );
    const JAVA_GZIP: &str = concat!(
        "000000000000000000000077ffffffff0292bc0c070001000000020000018bcfe568000000018bcfe568",
        "07000000000000002a000300000007000000031f8b08000000000000ff9bc0c8c0c0c0969d5a19579698",
        "539aaa4034c9c2555294989cca969894cc91979f97ca28c2c0c7c4910e6231f03008b300cd0500d0feee",
        "575c000000",
    );
    const JAVA_SNAPPY: &str = concat!(
        "00000000000000000000007effffffff0217b193260002000000020000018bcfe568000000018bcfe568",
        "07000000000000002a0003000000070000000382534e41505059000000000100000001000000395c3c90",
        "01000000066b65795e76616c756520a2060088040a747261636506616263086e6f6e650114000e020867",
        "6f6e6501000c001304010000",
    );
    const JAVA_LZ4: &str = concat!(
        "000000000000000000000079ffffffff02a6a42a0e0003000000020000018bcfe568000000018bcfe568",
        "07000000000000002a0003000000070000000304224d1860408239000000ff019001000000066b65795e",
        "76616c756520060016f008040a747261636506616263086e6f6e650114000e0208670a0080000c001304",
        "01000000000000",
    );
    const JAVA_ZSTD: &str = concat!(
        "000000000000000000000077ffffffff024c0f9bca0004000000020000018bcfe568000000018bcfe568",
        "07000000000000002a0003000000070000000328b52ffd0058d4010034039001000000066b65795e7661",
        "6c756520040a747261636506616263086e6f6e650114000e0208676f6e6501000c001304010000010004",
        "2a4b010000",
    );

    fn unhex(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .map(|digit| digit.to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    const VALUE: &[u8] = b"value value value value value value value value";

    fn java_records(compression: Compression) -> BatchBuilder {
        let mut builder = BatchBuilder::new(BatchOptions {
            compression,
            producer_id: 42,
            producer_epoch: 3,
            base_sequence: 7,
            ..BatchOptions::default()
        });
        let headers = [
            Header {
                key: b"trace",
                value: Some(b"abc"),
            },
            Header {
                key: b"none",
                value: None,
            },
        ];
        let start_ms = 1_700_000_000_000;
        builder.append(start_ms, Some(b"key"), Some(VALUE), headers.iter().copied());
        builder.append(start_ms + 7, Some(b"gone"), None, [].into_iter());
        builder.append(start_ms - 10, None, Some(b""), [].into_iter());
        builder
    }

    #[test]
    fn a_plain_batch_is_byte_for_byte_what_the_java_client_writes() {
        let ours = java_records(Compression::default());
        assert_eq!(ours.plain_bytes(), unhex(JAVA_NONE).len());
        assert_eq!(ours.offset_delta_of_max_timestamp(), 1);
        assert_eq!(ours.finish(), unhex(JAVA_NONE));
    }

    #[test]
    fn batches_of_the_java_client_are_read_in_every_codec() {
        let plain = unhex(JAVA_NONE);
        for (codec, hex) in [
            (Codec::None, JAVA_NONE),
            (Codec::Gzip, JAVA_GZIP),
            (Codec::Snappy, JAVA_SNAPPY),
            (Codec::Lz4, JAVA_LZ4),
            (Codec::Zstd, JAVA_ZSTD),
        ] {
            let bytes = unhex(hex);
            let batch = BatchView::parse(&bytes).unwrap();
            assert_eq!(batch.verify_checksum(), Ok(()));
            assert_eq!(batch.header().attributes.codec(), Ok(codec));
            assert_eq!(batch.plain_payload(200).unwrap(), &plain[HEADER_BYTES..]);
            assert_eq!(batch.header().encode(), bytes[..HEADER_BYTES]);
            assert_eq!(batch.records().is_ok(), codec == Codec::None);
        }
    }

    #[test]
    fn compressed_batches_keep_records_and_checksum() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bytes = java_records(Compression::of(codec)).finish();
            let batch = BatchView::parse(&bytes).unwrap();
            batch.verify_checksum().unwrap();
            assert_eq!(
                batch.plain_payload(200).unwrap(),
                &unhex(JAVA_NONE)[HEADER_BYTES..]
            );
        }
    }

    #[test]
    fn a_placed_header_moves_the_batch_and_leaves_its_checksum_valid() {
        let mut bytes = unhex(JAVA_GZIP);
        let header = BatchView::parse(&bytes)
            .unwrap()
            .placed_header(1_000_000, 9);
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        let batch = BatchView::parse(&bytes).unwrap();
        batch.verify_checksum().unwrap();
        assert_eq!(batch.header().base_offset, 1_000_000);
        assert_eq!(batch.header().last_offset(), 1_000_002);
        assert_eq!(batch.header().partition_leader_epoch, 9);
        assert_eq!(batch.header().last_sequence(), 9);
    }

    #[test]
    fn sequences_wrap_behind_the_largest() {
        let mut header = *BatchView::parse(&unhex(JAVA_NONE)).unwrap().header();
        header.base_sequence = i32::MAX - 1;
        assert_eq!(header.last_sequence(), 0);
        header.base_sequence = NO_SEQUENCE;
        assert_eq!(header.last_sequence(), NO_SEQUENCE);
    }

    #[test]
    fn a_record_set_is_walked_to_its_end_or_to_the_first_error() {
        let mut set = [unhex(JAVA_NONE), unhex(JAVA_LZ4)].concat();
        let whole = set.len();
        assert_eq!(Batches::new(&set).filter(Result::is_ok).count(), 2);
        set.truncate(whole - 1);
        let errors: Vec<_> = Batches::new(&set).filter_map(Result::err).collect();
        assert!(
            matches!(errors[..], [BatchError::Truncated { .. }]),
            "{errors:?}"
        );
        set.truncate(unhex(JAVA_NONE).len() + 20);
        assert_eq!(
            Batches::new(&set).nth(1).unwrap().unwrap_err(),
            BatchError::TooShort { available: 20 }
        );
        assert!(Batches::new(&[]).next().is_none());
    }

    #[test]
    fn headers_that_lie_are_named() {
        let good = unhex(JAVA_NONE);
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let checked = BatchView::parse(&bad).and_then(|batch| batch.verify_checksum());
            checked.unwrap_err()
        };
        assert_eq!(with(16, &[1]), BatchError::BadMagic(1));
        assert_eq!(with(16, &[MAGIC as u8 + 1]).reason(), "bad_magic");
        assert_eq!(with(8, &48i32.to_be_bytes()), BatchError::BadLength(48));
        assert_eq!(with(8, &(-1i32).to_be_bytes()), BatchError::BadLength(-1));
        assert_eq!(with(8, &i32::MAX.to_be_bytes()).reason(), "truncated");
        assert_eq!(with(57, &[0xff]).reason(), "bad_checksum");
        assert_eq!(with(good.len() - 1, &[0x55]).reason(), "bad_checksum");
    }

    fn parts() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_survive_ours_to_foreign_and_foreign_to_ours(
            records in proptest::collection::vec(
                (0i64..1 << 45, parts(), parts(), proptest::option::of("[a-z]{1,9}")),
                1..20,
            ),
        ) {
            let mut builder = BatchBuilder::new(BatchOptions {
                base_offset: 5,
                partition_leader_epoch: 2,
                ..BatchOptions::default()
            });
            for (timestamp_ms, key, value, header) in &records {
                let headers = header.iter().map(|key| Header { key: key.as_bytes(), value: None });
                let headers: Vec<_> = headers.collect();
                builder.append(*timestamp_ms, key.as_deref(), value.as_deref(), headers.into_iter());
            }
            let ours = builder.finish();
            let foreign = RecordBatchDecoder::decode(&mut bytes::Bytes::from(ours.clone())).unwrap();
            prop_assert_eq!(foreign.records.len(), records.len());
            for (index, (read, (timestamp_ms, key, value, header))) in
                foreign.records.iter().zip(&records).enumerate()
            {
                prop_assert_eq!(read.offset, 5 + index as i64);
                prop_assert_eq!(read.timestamp, *timestamp_ms);
                prop_assert_eq!(read.key.as_deref(), key.as_deref());
                prop_assert_eq!(read.value.as_deref(), value.as_deref());
                prop_assert_eq!(read.headers.len(), usize::from(header.is_some()));
            }
            let mut back = bytes::BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression: ForeignCompression::None };
            RecordBatchEncoder::encode(&mut back, foreign.records.iter(), &options).unwrap();
            let batch = BatchView::parse(&back).unwrap();
            prop_assert_eq!(batch.verify_checksum(), Ok(()));
            let read: Result<Vec<_>, _> = batch.records().unwrap().collect();
            for (read, (timestamp_ms, key, value, header)) in read.unwrap().iter().zip(&records) {
                let timestamp = batch.header().base_timestamp + read.timestamp_delta;
                prop_assert_eq!(timestamp, *timestamp_ms);
                prop_assert_eq!(read.key, key.as_deref());
                prop_assert_eq!(read.value, value.as_deref());
                let names: Vec<_> = read.headers().map(|header| header.key.to_vec()).collect();
                let expected: Vec<_> = header.iter().map(|key| key.clone().into_bytes()).collect();
                prop_assert_eq!(names, expected);
            }
        }

        #[test]
        fn damaged_payloads_never_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            count in any::<i32>(),
        ) {
            let mut payload = unhex(JAVA_NONE).split_off(HEADER_BYTES);
            for (at, byte) in damage {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            for count in [3, count] {
                for record in Records::new(&payload, count).flatten() {
                    prop_assert!(record.headers().count() <= payload.len());
                }
            }
        }
    }
}
