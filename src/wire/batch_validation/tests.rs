//! The rules of a produced batch, one by one, with batches that Kafka's own classes wrote.

use super::super::record::Header;
use super::super::record_batch::Attributes;
use super::*;
use proptest::prelude::*;

const NOW_MS: i64 = 1_700_000_000_000;
const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

fn rules() -> BatchRules {
    BatchRules {
        message_max_bytes: 1_048_588,
        segment_bytes: 1 << 30,
        decompressed_max_bytes: 1 << 20,
        compression: TopicCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        is_compacted: false,
        allows_zstd: true,
    }
}

fn idempotent(codec: Codec) -> BatchOptions {
    BatchOptions {
        compression: Compression::of(codec),
        producer_id: 7,
        producer_epoch: 1,
        base_sequence: 40,
        ..BatchOptions::default()
    }
}

fn batch_of(options: BatchOptions, timestamps: &[i64]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    for (index, timestamp_ms) in timestamps.iter().enumerate() {
        let value = [index as u8; 100];
        let header = Header {
            key: b"h",
            value: Some(b"v"),
        };
        builder.append(
            *timestamp_ms,
            Some(b"key"),
            Some(&value),
            [header].into_iter(),
        );
    }
    builder.finish()
}

fn good(codec: Codec) -> Vec<u8> {
    batch_of(idempotent(codec), &[NOW_MS, NOW_MS + 2, NOW_MS + 1])
}

/// The batch with its header changed and its checksum made right again.
fn altered(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let view = BatchView::parse(batch).unwrap();
    let mut header = *view.header();
    change(&mut header);
    header.crc = header.checksum(view.payload());
    [&header.encode()[..], view.payload()].concat()
}

fn stored(valid: &ValidBatch<'_>) -> Vec<u8> {
    [&valid.placed_header(500, 3)[..], &valid.payload].concat()
}

fn code(record_set: &[u8], rules: &BatchRules) -> RejectionCode {
    validate(record_set, rules, NOW_MS).unwrap_err().code
}

fn refused(change: impl FnOnce(&mut BatchHeader)) -> Rejection {
    validate(&altered(&good(Codec::None), change), &rules(), NOW_MS).unwrap_err()
}

#[test]
fn a_good_batch_keeps_the_clients_bytes_in_every_codec() {
    for codec in CODECS {
        let bytes = good(codec);
        let valid = validate(&bytes, &rules(), NOW_MS).unwrap();
        assert!(!valid.is_rebuilt());
        assert_eq!((valid.record_count(), valid.size_bytes()), (3, bytes.len()));
        assert_eq!(valid.max_timestamp(), NOW_MS + 2);
        assert_eq!(valid.offset_delta_of_max_timestamp, 1);
        let stored = stored(&valid);
        assert_eq!(stored[HEADER_BYTES..], bytes[HEADER_BYTES..]);
        let view = BatchView::parse(&stored).unwrap();
        view.verify_checksum().unwrap();
        assert_eq!(
            (
                view.header().base_offset,
                view.header().partition_leader_epoch
            ),
            (500, 3)
        );
    }
}

#[test]
fn a_record_set_has_exactly_one_batch_of_magic_2() {
    let one = good(Codec::None);
    assert_eq!(code(&[], &rules()), RejectionCode::INVALID_RECORD);
    assert_eq!(code(&one[..40], &rules()), RejectionCode::INVALID_RECORD);
    assert_eq!(
        code(&one[..one.len() - 1], &rules()),
        RejectionCode::INVALID_RECORD
    );
    assert_eq!(
        code(&one.repeat(2), &rules()),
        RejectionCode::INVALID_RECORD
    );
    assert_eq!(
        code(&[&one[..], &[0]].concat(), &rules()),
        RejectionCode::INVALID_RECORD
    );
    for (magic, expected) in [
        (0, RejectionCode::INVALID_RECORD),
        (1, RejectionCode::INVALID_RECORD),
        (3, RejectionCode::CORRUPT_MESSAGE),
        (0xff, RejectionCode::CORRUPT_MESSAGE),
    ] {
        let mut bytes = one.clone();
        bytes[16] = magic;
        assert_eq!(code(&bytes, &rules()), expected, "magic {magic}");
    }
    assert_eq!(
        refused(|header| header.base_offset = 1).reason,
        "base_offset"
    );
}

#[test]
fn damage_is_corrupt_wherever_the_checksum_sees_it() {
    let bytes = good(Codec::Gzip);
    for at in (17..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        assert_eq!(
            code(&damaged, &rules()),
            RejectionCode::CORRUPT_MESSAGE,
            "byte {at}"
        );
    }
}

#[test]
fn size_limits_of_topic_and_segment() {
    let bytes = good(Codec::None);
    let at = BatchRules {
        message_max_bytes: bytes.len(),
        ..rules()
    };
    assert!(validate(&bytes, &at, NOW_MS).is_ok());
    let below = BatchRules {
        message_max_bytes: bytes.len() - 1,
        ..rules()
    };
    assert_eq!(code(&bytes, &below), RejectionCode::MESSAGE_TOO_LARGE);
    let small = BatchRules {
        segment_bytes: bytes.len() - 1,
        ..rules()
    };
    assert_eq!(code(&bytes, &small), RejectionCode::RECORD_LIST_TOO_LARGE);
    // What counts is the stored size: this one grows when it is decompressed.
    let packed = batch_of(idempotent(Codec::Zstd), &[NOW_MS; 50]);
    let plain = TopicCompression::Fixed(Compression::default());
    let grows = BatchRules {
        message_max_bytes: packed.len() + 10,
        compression: plain,
        ..rules()
    };
    assert_eq!(code(&packed, &grows), RejectionCode::MESSAGE_TOO_LARGE);
}

#[test]
fn counts_must_agree_with_each_other_and_with_the_records() {
    for (count, last) in [
        (0, -1),
        (-1, -2),
        (3, 1),
        (2, 2),
        (i32::MAX, 2),
        (i32::MIN, 2),
    ] {
        let rejection = refused(|header| {
            header.record_count = count;
            header.last_offset_delta = last;
        });
        assert_eq!(rejection.reason, "count", "{count} {last}");
        assert_eq!(rejection.code, RejectionCode::INVALID_RECORD);
    }
    for codec in CODECS {
        for count in [2, 4, i32::MAX] {
            let lying = altered(&good(codec), |header| {
                header.record_count = count;
                header.last_offset_delta = count - 1;
            });
            let rejection = validate(&lying, &rules(), NOW_MS).unwrap_err();
            assert_eq!(
                rejection.code,
                RejectionCode::INVALID_RECORD,
                "{codec:?} {count}"
            );
            assert_eq!(rejection.reason, "bad_record");
        }
    }
}

#[test]
fn what_only_brokers_write_is_refused_from_clients() {
    let attributes = |change: fn(Attributes) -> Attributes| {
        refused(|header| header.attributes = change(header.attributes)).reason
    };
    assert_eq!(attributes(|old| old.with_control(true)), "control_batch");
    assert_eq!(
        attributes(|old| old.with_delete_horizon(true)),
        "attributes"
    );
    assert_eq!(attributes(|old| Attributes(old.0 | 0x80)), "attributes");
    assert_eq!(attributes(|old| Attributes(old.0 | i16::MIN)), "attributes");
}

#[test]
fn producer_id_epoch_and_sequence_come_together() {
    assert_eq!(
        refused(|header| header.base_sequence = -1).reason,
        "sequence"
    );
    assert_eq!(
        refused(|header| header.producer_epoch = -1).reason,
        "producer_epoch"
    );
    assert_eq!(
        refused(|header| header.producer_id = -2).reason,
        "producer_id"
    );
    let anonymous = batch_of(BatchOptions::default(), &[NOW_MS]);
    assert!(validate(&anonymous, &rules(), NOW_MS).is_ok());
    let transactional = altered(&anonymous, |header| {
        header.attributes = header.attributes.with_transactional(true);
    });
    assert_eq!(
        code(&transactional, &rules()),
        RejectionCode::INVALID_RECORD
    );
}

#[test]
fn codecs_unknown_or_too_new_are_unsupported() {
    for id in 5..8 {
        let rejection = refused(|header| header.attributes.0 |= id);
        assert_eq!(rejection.code, RejectionCode::UNSUPPORTED_COMPRESSION_TYPE);
    }
    let old = BatchRules {
        allows_zstd: false,
        ..rules()
    };
    assert_eq!(
        code(&good(Codec::Zstd), &old),
        RejectionCode::UNSUPPORTED_COMPRESSION_TYPE
    );
    assert!(validate(&good(Codec::Lz4), &old, NOW_MS).is_ok());
}

#[test]
fn a_compacted_topic_names_every_record_without_a_key() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for key in [Some(&b"a"[..]), None, Some(b""), None] {
        builder.append(NOW_MS, key, Some(b"v"), [].into_iter());
    }
    let bytes = builder.finish();
    assert!(validate(&bytes, &rules(), NOW_MS).is_ok());
    let compacted = BatchRules {
        is_compacted: true,
        ..rules()
    };
    let rejection = validate(&bytes, &compacted, NOW_MS).unwrap_err();
    assert_eq!(
        (rejection.code, rejection.reason),
        (RejectionCode::INVALID_RECORD, "missing_key")
    );
    let indexes: Vec<_> = rejection
        .record_errors
        .iter()
        .map(|error| error.batch_index)
        .collect();
    assert_eq!(indexes, [1, 3]);
    let mut many = BatchBuilder::new(BatchOptions::default());
    for _ in 0..RECORD_ERRORS_MAX + 1 {
        many.append(NOW_MS, None, None, [].into_iter());
    }
    let rejection = validate(&many.finish(), &compacted, NOW_MS).unwrap_err();
    assert_eq!(rejection.record_errors.len(), RECORD_ERRORS_MAX);
    assert!(rejection.message.contains("101 record errors"));
}

#[test]
fn timestamps_are_bounded_on_both_sides_and_the_bounds_belong_to_the_range() {
    let narrow = BatchRules {
        timestamp_before_max_ms: 10,
        timestamp_after_max_ms: 20,
        ..rules()
    };
    for codec in CODECS {
        let fits = batch_of(idempotent(codec), &[NOW_MS - 10, NO_TIMESTAMP, NOW_MS + 20]);
        assert!(validate(&fits, &narrow, NOW_MS).is_ok());
        let out = batch_of(idempotent(codec), &[NOW_MS - 11, NOW_MS, NOW_MS + 21]);
        let rejection = validate(&out, &narrow, NOW_MS).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::INVALID_TIMESTAMP);
        let indexes: Vec<_> = rejection
            .record_errors
            .iter()
            .map(|error| error.batch_index)
            .collect();
        assert_eq!(indexes, [0, 2]);
        let append_time = BatchRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..narrow
        };
        assert!(validate(&out, &append_time, NOW_MS).is_ok());
    }
    for extreme in [i64::MAX, i64::MIN] {
        let bytes = altered(&good(Codec::None), |header| header.base_timestamp = extreme);
        let wide = BatchRules {
            timestamp_after_max_ms: 0,
            timestamp_before_max_ms: 0,
            ..rules()
        };
        assert_eq!(
            code(&bytes, &wide),
            RejectionCode::INVALID_TIMESTAMP,
            "{extreme}"
        );
    }
}

#[test]
fn a_batch_marked_log_append_time_is_refused_or_loses_the_mark_as_in_kafka() {
    let marked = altered(&good(Codec::None), |header| {
        header.attributes = header
            .attributes
            .with_timestamp_type(TimestampType::LogAppendTime);
    });
    let append_time = BatchRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    let rejection = validate(&marked, &append_time, NOW_MS).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::INVALID_TIMESTAMP);
    assert_eq!(rejection.record_errors.len(), 3);
    let valid = validate(&marked, &rules(), NOW_MS).unwrap();
    assert_eq!(
        valid.header.attributes.timestamp_type(),
        TimestampType::CreateTime
    );
    assert_eq!(
        BatchView::parse(&stored(&valid)).unwrap().verify_checksum(),
        Ok(())
    );
}

#[test]
fn log_append_time_changes_the_header_and_keeps_the_payload() {
    let append_time = BatchRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    for codec in CODECS {
        let bytes = good(codec);
        let valid = validate(&bytes, &append_time, NOW_MS + 77).unwrap();
        assert!(!valid.is_rebuilt());
        assert_eq!(valid.max_timestamp(), NOW_MS + 77);
        assert_eq!(valid.offset_delta_of_max_timestamp, 0);
        assert_eq!(
            valid.header.attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!(valid.header.base_timestamp, NOW_MS);
        assert_eq!(
            BatchView::parse(&stored(&valid)).unwrap().verify_checksum(),
            Ok(())
        );
    }
}

#[test]
fn a_wrong_max_timestamp_is_corrected() {
    for codec in CODECS {
        let wrong = altered(&good(codec), |header| header.max_timestamp = 5);
        let valid = validate(&wrong, &rules(), NOW_MS).unwrap();
        assert_eq!(
            stored(&valid),
            stored(&validate(&good(codec), &rules(), NOW_MS).unwrap())
        );
    }
    let none = batch_of(BatchOptions::default(), &[NO_TIMESTAMP]);
    let valid = validate(&none, &rules(), NOW_MS).unwrap();
    assert_eq!(
        (valid.max_timestamp(), valid.offset_delta_of_max_timestamp),
        (-1, -1)
    );
}

#[test]
fn the_topics_codec_is_enforced_by_rebuilding() {
    let timestamps = [NOW_MS, NOW_MS + 2, NOW_MS + 1];
    for source in CODECS {
        for target in CODECS {
            let compression = TopicCompression::Fixed(Compression::of(target));
            let bytes = good(source);
            let fixed = BatchRules {
                compression,
                ..rules()
            };
            let valid = validate(&bytes, &fixed, NOW_MS).unwrap();
            assert_eq!(
                valid.is_rebuilt(),
                source != target,
                "{source:?} to {target:?}"
            );
            let expected = batch_of(idempotent(target), &timestamps);
            assert_eq!(valid.header.placed(0, -1)[..], expected[..HEADER_BYTES]);
            assert_eq!(valid.payload[..], expected[HEADER_BYTES..]);
            assert_eq!(valid.offset_delta_of_max_timestamp, 1);
        }
    }
}

#[test]
fn offsets_that_are_not_consecutive_are_repaired() {
    let one = |offset_delta: u8| [16, 0, 0, offset_delta * 2, 2, b'k', 2, b'v', 0];
    for codec in CODECS {
        let plain = [one(0), one(2), one(1)].concat();
        let payload = match codec {
            Codec::None => plain,
            codec => Compression::of(codec).compress(&plain),
        };
        let mut header = *BatchView::parse(&good(codec)).unwrap().header();
        header.base_timestamp = NOW_MS;
        header.batch_length = (HEADER_BYTES - 12 + payload.len()) as i32;
        header.crc = header.checksum(&payload);
        let bytes = [&header.encode()[..], &payload].concat();
        let valid = validate(&bytes, &rules(), NOW_MS).unwrap();
        assert!(valid.is_rebuilt());
        assert_eq!(valid.header.attributes.codec(), Ok(codec));
        assert_eq!(valid.header.producer_id, 7);
        let stored = stored(&valid);
        let plain = BatchView::parse(&stored)
            .unwrap()
            .plain_payload(1000)
            .unwrap();
        let deltas: Vec<_> = Records::new(&plain, 3)
            .map(|record| record.unwrap().offset_delta)
            .collect();
        assert_eq!(deltas, [0, 1, 2]);
    }
}

#[test]
fn bombs_are_refused_at_the_limit() {
    let value = vec![0; 2 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(idempotent(codec));
        builder.append(NOW_MS, None, Some(&value), [].into_iter());
        let rejection = validate(&builder.finish(), &rules(), NOW_MS).unwrap_err();
        assert_eq!(
            rejection.code,
            RejectionCode::MESSAGE_TOO_LARGE,
            "{codec:?}"
        );
        assert_eq!(rejection.reason, "decompressed_size");
    }
}

#[test]
fn garbage_under_a_right_checksum_is_an_invalid_record() {
    for codec in CODECS {
        let mut bytes = good(codec);
        for byte in &mut bytes[HEADER_BYTES..] {
            *byte ^= 0xa5;
        }
        let bytes = altered(&bytes, |_| {});
        assert_eq!(
            code(&bytes, &rules()),
            RejectionCode::INVALID_RECORD,
            "{codec:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_damage_is_refused_or_gives_a_batch_that_reads_back(
        codec in 0usize..5,
        target in 0usize..6,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        fix_checksum: bool,
    ) {
        let mut bytes = good(CODECS[codec]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if fix_checksum {
            bytes[16] = 2;
            let length = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[..8].fill(0);
            bytes = altered(&bytes, |_| {});
        }
        let compression = match CODECS.get(target) {
            Some(codec) => TopicCompression::Fixed(Compression::of(*codec)),
            None => TopicCompression::Producer,
        };
        if let Ok(valid) = validate(&bytes, &BatchRules { compression, ..rules() }, NOW_MS) {
            let stored = stored(&valid);
            let view = BatchView::parse(&stored).unwrap();
            prop_assert_eq!(view.verify_checksum(), Ok(()));
            let plain = view.plain_payload(1 << 20).unwrap();
            let read: Result<Vec<_>, _> =
                Records::new(&plain, valid.record_count()).collect();
            let deltas: Vec<_> =
                read.unwrap().iter().map(|record| record.offset_delta).collect();
            prop_assert_eq!(deltas, (0..valid.record_count()).collect::<Vec<_>>());
        }
    }
}
