//! One batch without the records that compaction drops.
//!
//! Kafka: `Cleaner.cleanInto`, `MemoryRecords.filterTo`. Offsets never change; a batch keeps its base
//! offset, its last offset delta and its producer's id, epoch and base sequence, whatever is left of
//! its records. The first compaction that meets a tombstone stamps the time after which it may go
//! into the batch: the *delete horizon* takes the place of the base timestamp (attribute bit 6), and
//! the records' deltas are relative to it.

use std::ops::Range;

use super::cleaned_transactions::Fate;
use super::offset_map::{MapFull, OffsetMap};
use super::position::Offset;
use super::transactions::AbortedRanges;
use crate::wire::compression::{Codec, Compression};
use crate::wire::record::{Record, Records};
use crate::wire::record_batch::{
    BatchError, BatchHeader, BatchView, HEADER_BYTES, LENGTH_PREFIX_BYTES, NO_TIMESTAMP,
    TimestampType,
};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

/// What decides over the records of a batch.
pub struct CleaningRules<'a> {
    /// The last offset of every key of the dirty range. Records from its end on are not judged.
    pub map: &'a OffsetMap,
    /// The log start: what is below it is gone.
    pub start: Offset,
    /// Where the cleanable part of the log ends. The batch that ends there stays even when it is
    /// empty: a reader behind it must find something that tells where the log goes on.
    pub round_end: Offset,
    /// Now.
    pub now_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// What one batch may decompress to.
    pub decompressed_max_bytes: usize,
    /// The last offset that a producer wrote, if the log remembers it: that batch stays even when
    /// it is empty, since it tells the producer's sequence.
    pub last_of_producer: &'a dyn Fn(i64) -> Option<Offset>,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanedBatch {
    /// It stays as it is.
    Same,
    /// These bytes take its place.
    Rebuilt(Vec<u8>),
    /// Nothing of it stays.
    Gone,
}

/// Notes the keys of the records in the dirty range. Kafka: `Cleaner.buildOffsetMapForSegment`.
///
/// # Errors
/// When the batch is damaged. A full map is the value of success: the dirty range ends there.
pub fn note_keys(
    batch: &BatchView<'_>,
    dirty: Range<Offset>,
    aborted: &AbortedRanges,
    decompressed_max_bytes: usize,
    map: &mut OffsetMap,
) -> Result<Result<(), MapFull>, BatchError> {
    let header = batch.header();
    if header.last_offset() < dirty.start.0 || header.base_offset >= dirty.end.0 {
        return Ok(Ok(()));
    }
    if !header.attributes.is_control() && !aborted.hold(header) {
        let payload = batch.plain_payload(decompressed_max_bytes)?;
        for record in Records::new(&payload, header.record_count) {
            let record = record?;
            let offset = Offset(header.base_offset + i64::from(record.offset_delta));
            if let Some(key) = record.key
                && dirty.contains(&offset)
                && map.put(key, offset).is_err()
            {
                return Ok(Err(MapFull));
            }
        }
    }
    map.advance(Offset(header.last_offset() + 1).min(dirty.end));
    Ok(Ok(()))
}

/// Drops what compaction drops.
///
/// # Errors
/// When the batch is damaged.
pub fn clean(
    batch: &BatchView<'_>,
    fate: Fate,
    rules: &CleaningRules<'_>,
) -> Result<CleanedBatch, BatchError> {
    let header = batch.header();
    if header.last_offset() < rules.start.0 {
        return Ok(CleanedBatch::Gone);
    }
    match fate {
        Fate::ByKeys => {}
        Fate::Aborted => return Ok(rules.without_records(header)),
        Fate::Needed => return Ok(CleanedBatch::Same),
        Fate::Obsolete => return rules.without_marker(batch),
    }
    let payload = batch.plain_payload(rules.decompressed_max_bytes)?;
    let mut kept = Kept::default();
    let mut deltas = 0..=header.last_offset_delta;
    for record in Records::new(&payload, header.record_count) {
        let record = record?;
        if !deltas.contains(&record.offset_delta) {
            return Err(BatchError::BadRecord(
                "offsets do not ascend within the batch",
            ));
        }
        deltas = record.offset_delta.saturating_add(1)..=header.last_offset_delta;
        if rules.keeps(header, &record) {
            kept.records += 1;
            kept.tombstones |= record.value.is_none();
        } else {
            kept.dropped += 1;
        }
    }
    if kept.records == 0 {
        return Ok(rules.without_records(header));
    }
    let stamped = header.attributes.has_delete_horizon();
    if kept.dropped == 0 && (stamped || !kept.tombstones) {
        return Ok(CleanedBatch::Same);
    }
    let delete_horizon_ms = match stamped {
        true => Some(header.base_timestamp),
        false if kept.tombstones => Some(rules.now_ms.saturating_add(rules.delete_retention_ms)),
        false => None,
    };
    rebuild(header, &payload, delete_horizon_ms, |record| {
        rules.keeps(header, record)
    })
    .map(CleanedBatch::Rebuilt)
}

#[derive(Default)]
struct Kept {
    records: usize,
    dropped: usize,
    tombstones: bool,
}

impl CleaningRules<'_> {
    /// Kafka: `Cleaner.shouldRetainRecord`.
    fn keeps(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = Offset(header.base_offset + i64::from(record.offset_delta));
        if offset >= self.map.end() {
            return true;
        }
        let Some(key) = record.key else {
            return false;
        };
        let is_latest = self.map.get(key).is_none_or(|latest| offset >= latest);
        let outlived =
            header.attributes.has_delete_horizon() && self.now_ms >= header.base_timestamp;
        is_latest && (record.value.is_some() || !outlived)
    }

    /// Whether a batch stays whatever becomes of its records.
    fn is_needed(&self, header: &BatchHeader) -> bool {
        let last = Offset(header.last_offset());
        let is_last_of_producer =
            header.has_producer_id() && (self.last_of_producer)(header.producer_id) == Some(last);
        is_last_of_producer || last.0 + 1 == self.round_end.0
    }

    /// A marker that nobody needs any more but for the time of the delete horizon, which is stamped
    /// into it first.
    fn without_marker(&self, batch: &BatchView<'_>) -> Result<CleanedBatch, BatchError> {
        let header = batch.header();
        let is_stamped = header.attributes.has_delete_horizon();
        if self.is_needed(header) || is_stamped && self.now_ms < header.base_timestamp {
            return Ok(CleanedBatch::Same);
        }
        if is_stamped {
            return Ok(CleanedBatch::Gone);
        }
        let payload = batch.plain_payload(self.decompressed_max_bytes)?;
        let horizon_ms = self.now_ms.saturating_add(self.delete_retention_ms);
        rebuild(header, &payload, Some(horizon_ms), |_| true).map(CleanedBatch::Rebuilt)
    }

    /// A batch none of whose records stay.
    fn without_records(&self, header: &BatchHeader) -> CleanedBatch {
        match self.is_needed(header) {
            true if header.record_count == 0 => CleanedBatch::Same,
            true => CleanedBatch::Rebuilt(empty(header)),
            false => CleanedBatch::Gone,
        }
    }
}

/// The batch with the records that `keeps` lets pass.
fn rebuild(
    header: &BatchHeader,
    payload: &[u8],
    delete_horizon_ms: Option<i64>,
    keeps: impl Fn(&Record<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let append_time_ms = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(header.max_timestamp),
    };
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: header.base_offset,
        partition_leader_epoch: header.partition_leader_epoch,
        compression: Compression::of(header.attributes.codec()?),
        log_append_time_ms: append_time_ms,
        delete_horizon_ms,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_transactional: header.attributes.is_transactional(),
        is_control: header.attributes.is_control(),
    });
    for record in Records::new(payload, header.record_count) {
        let record = record?;
        if !keeps(&record) {
            continue;
        }
        let own_ms = header.base_timestamp.wrapping_add(record.timestamp_delta);
        builder.append_at(
            record.offset_delta,
            append_time_ms.unwrap_or(own_ms),
            record.key,
            record.value,
            record.headers(),
        );
    }
    builder.set_last_offset_delta(header.last_offset_delta);
    Ok(builder.finish())
}

/// Kafka: `DefaultRecordBatch.writeEmptyHeader`.
fn empty(header: &BatchHeader) -> Vec<u8> {
    let mut empty = BatchHeader {
        batch_length: (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32,
        attributes: header
            .attributes
            .with_codec(Codec::None)
            .with_delete_horizon(false),
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        ..*header
    };
    empty.crc = empty.checksum(&[]);
    empty.encode().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::transactions::AbortedTransaction;
    use crate::wire::record::Header;
    use crate::wire::record_batch::Attributes;
    use crate::wire::transaction_marker::TransactionMarker;

    const LIMIT_BYTES: usize = 1 << 20;
    const NOW_MS: i64 = 10_000;
    const ALL: Range<Offset> = Offset(0)..Offset(1_000_000);

    /// Key and value of a record, null where they are none.
    type Pair = (Option<&'static str>, Option<&'static str>);

    fn options() -> BatchOptions {
        BatchOptions {
            base_offset: 100,
            partition_leader_epoch: 3,
            ..BatchOptions::default()
        }
    }

    fn batch(options: BatchOptions, records: &[Pair]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(options);
        for (index, (key, value)) in records.iter().enumerate() {
            let header = Header {
                key: b"h",
                value: Some(b"v"),
            };
            builder.append(
                500 + index as i64,
                key.map(str::as_bytes),
                value.map(str::as_bytes),
                [header].into_iter(),
            );
        }
        builder.finish()
    }

    fn map(latest: &[(&str, i64)], end: i64) -> OffsetMap {
        let mut map = OffsetMap::new(100, 1 << 16, [5, 6]);
        for (key, offset) in latest {
            map.put(key.as_bytes(), Offset(*offset)).expect("room");
        }
        map.advance(Offset(end));
        map
    }

    fn rules<'a>(
        map: &'a OffsetMap,
        last_of_producer: &'a dyn Fn(i64) -> Option<Offset>,
    ) -> CleaningRules<'a> {
        CleaningRules {
            map,
            start: Offset(0),
            round_end: Offset(1_000_000),
            now_ms: NOW_MS,
            delete_retention_ms: 1000,
            decompressed_max_bytes: LIMIT_BYTES,
            last_of_producer,
        }
    }

    fn cleaned_by(bytes: &[u8], rules: &CleaningRules<'_>) -> CleanedBatch {
        cleaned_as(Fate::ByKeys, bytes, rules)
    }

    fn cleaned_as(fate: Fate, bytes: &[u8], rules: &CleaningRules<'_>) -> CleanedBatch {
        let cleaned = clean(&BatchView::parse(bytes).unwrap(), fate, rules).unwrap();
        if let CleanedBatch::Rebuilt(bytes) = &cleaned {
            let view = BatchView::parse(bytes).unwrap();
            assert_eq!(view.bytes().len(), bytes.len());
            view.verify_checksum().unwrap();
        }
        cleaned
    }

    fn cleaned(bytes: &[u8], map: &OffsetMap) -> CleanedBatch {
        cleaned_by(bytes, &rules(map, &|_| None))
    }

    fn rebuilt(cleaned: CleanedBatch) -> Vec<u8> {
        match cleaned {
            CleanedBatch::Rebuilt(bytes) => bytes,
            other => panic!("not rebuilt: {other:?}"),
        }
    }

    /// Offset, timestamp, key and value of every record.
    fn records(bytes: &[u8]) -> Vec<(i64, i64, String, Option<String>)> {
        let view = BatchView::parse(bytes).unwrap();
        let header = *view.header();
        let payload = view.plain_payload(LIMIT_BYTES).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Records::new(&payload, header.record_count)
            .map(|record| {
                let record = record.unwrap();
                assert_eq!(record.header_count(), 1);
                (
                    header.base_offset + i64::from(record.offset_delta),
                    header.base_timestamp + record.timestamp_delta,
                    text(record.key.unwrap_or(b"(none)")),
                    record.value.map(text),
                )
            })
            .collect()
    }

    const THREE: [Pair; 3] = [
        (Some("a"), Some("1")),
        (Some("b"), Some("2")),
        (Some("c"), Some("3")),
    ];

    #[test]
    fn the_last_record_of_every_key_stays_and_offsets_do_not_change() {
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let options = BatchOptions {
                compression: Compression::of(codec),
                producer_id: 7,
                producer_epoch: 1,
                base_sequence: 40,
                ..options()
            };
            let bytes = batch(options, &THREE);
            let map = map(&[("a", 300), ("b", 101), ("c", 300)], 301);
            let after = rebuilt(cleaned(&bytes, &map));
            assert_eq!(records(&after), [(101, 501, "b".into(), Some("2".into()))]);
            let (before, after) = (
                BatchHeader::parse(&bytes).unwrap(),
                BatchHeader::parse(&after).unwrap(),
            );
            assert_eq!(after.base_offset, 100);
            assert_eq!(after.last_offset(), 102, "the end stays");
            assert_eq!(after.last_sequence(), before.last_sequence());
            assert_eq!(after.partition_leader_epoch, 3);
            assert_eq!(after.attributes, before.attributes);
            assert_eq!((after.base_timestamp, after.max_timestamp), (501, 501));
            assert_eq!(
                (after.producer_id, after.producer_epoch, after.base_sequence),
                (7, 1, 40)
            );
        }
    }

    #[test]
    fn a_batch_that_loses_nothing_stays_byte_for_byte() {
        let bytes = batch(options(), &THREE);
        let latest = map(&[("a", 100), ("b", 101)], 300);
        assert_eq!(cleaned(&bytes, &latest), CleanedBatch::Same);
        let obsolete = map(&[("a", 200), ("b", 201), ("c", 202)], 300);
        assert_eq!(cleaned(&bytes, &obsolete), CleanedBatch::Gone);
    }

    #[test]
    fn records_behind_the_end_of_the_map_are_not_judged() {
        let bytes = batch(options(), &[(Some("a"), Some("1")), (None, Some("2"))]);
        assert_eq!(cleaned(&bytes, &map(&[], 100)), CleanedBatch::Same);
        let after = rebuilt(cleaned(&bytes, &map(&[], 102)));
        assert_eq!(records(&after).len(), 1, "a record without key is dropped");
    }

    #[test]
    fn tombstones_get_a_horizon_first_and_go_when_it_has_passed() {
        let two = [(Some("a"), None), (Some("b"), Some("2"))];
        let bytes = batch(options(), &two);
        let map = map(&[("a", 100), ("b", 101)], 300);
        let stamped = rebuilt(cleaned(&bytes, &map));
        let header = BatchHeader::parse(&stamped).unwrap();
        assert!(header.attributes.has_delete_horizon());
        assert_eq!(header.base_timestamp, NOW_MS + 1000);
        assert_eq!(
            records(&stamped),
            [
                (100, 500, "a".into(), None),
                (101, 501, "b".into(), Some("2".into()))
            ],
            "timestamps do not change"
        );
        let at = |now_ms| {
            let rules = CleaningRules {
                now_ms,
                ..rules(&map, &|_| None)
            };
            cleaned_by(&stamped, &rules)
        };
        assert_eq!(
            at(NOW_MS + 999),
            CleanedBatch::Same,
            "it is not stamped again"
        );
        let after = rebuilt(at(NOW_MS + 1000));
        assert_eq!(records(&after), [(101, 501, "b".into(), Some("2".into()))]);
        let header = BatchHeader::parse(&after).unwrap();
        assert_eq!(header.base_timestamp, NOW_MS + 1000, "the horizon stays");
        assert_eq!(header.max_timestamp, 501);
    }

    #[test]
    fn an_obsolete_tombstone_goes_at_once_and_stamps_nothing() {
        let two = [(Some("a"), None), (Some("b"), Some("2"))];
        let bytes = batch(options(), &two);
        let after = rebuilt(cleaned(&bytes, &map(&[("a", 200), ("b", 101)], 300)));
        let header = BatchHeader::parse(&after).unwrap();
        assert!(!header.attributes.has_delete_horizon());
    }

    #[test]
    fn append_time_stands_for_the_time_of_every_record() {
        let options = BatchOptions {
            log_append_time_ms: Some(9000),
            ..options()
        };
        let bytes = batch(options, &THREE);
        let after = rebuilt(cleaned(&bytes, &map(&[("a", 200)], 300)));
        let header = BatchHeader::parse(&after).unwrap();
        assert_eq!(
            header.attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!((header.base_timestamp, header.max_timestamp), (9000, 9000));
        assert_eq!(records(&after)[0].1, 9000);
    }

    #[test]
    fn the_last_batch_of_a_producer_and_of_the_round_stay_empty() {
        let with_producer = BatchOptions {
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 40,
            compression: Compression::of(Codec::Zstd),
            ..options()
        };
        let bytes = batch(with_producer, &THREE);
        let map = map(&[("a", 200), ("b", 201), ("c", 202)], 300);
        let last = |last: i64| move |id: i64| (id == 7).then_some(Offset(last));
        let (is_last, is_older) = (last(102), last(150));
        let empty = rebuilt(cleaned_by(&bytes, &rules(&map, &is_last)));
        let header = BatchHeader::parse(&empty).unwrap();
        assert_eq!(empty.len(), HEADER_BYTES);
        assert_eq!(
            (
                header.record_count,
                header.last_offset(),
                header.last_sequence()
            ),
            (0, 102, 42)
        );
        assert_eq!(header.attributes, Attributes(0), "nothing is compressed");
        assert_eq!((header.base_timestamp, header.max_timestamp), (-1, 502));
        assert_eq!(
            cleaned_by(&empty, &rules(&map, &is_last)),
            CleanedBatch::Same
        );
        assert_eq!(
            cleaned_by(&bytes, &rules(&map, &is_older)),
            CleanedBatch::Gone
        );
        assert_eq!(
            cleaned_by(&empty, &rules(&map, &is_older)),
            CleanedBatch::Gone
        );
        let at_round_end = CleaningRules {
            round_end: Offset(103),
            ..rules(&map, &|_| None)
        };
        let last_of_all = batch(options(), &THREE);
        let empty = rebuilt(cleaned_by(&last_of_all, &at_round_end));
        assert_eq!(BatchHeader::parse(&empty).unwrap().last_offset(), 102);
    }

    #[test]
    fn batches_below_the_log_start_go_whatever_they_hold() {
        let bytes = batch(options(), &THREE);
        let map = map(&[], 300);
        let starting_at = |start| CleaningRules {
            start: Offset(start),
            ..rules(&map, &|_| Some(Offset(102)))
        };
        assert_eq!(cleaned_by(&bytes, &starting_at(102)), CleanedBatch::Same);
        assert_eq!(cleaned_by(&bytes, &starting_at(103)), CleanedBatch::Gone);
    }

    fn aborted_at_100() -> AbortedRanges {
        let aborted = AbortedTransaction {
            producer_id: 7,
            first_offset: Offset(90),
            last_offset: Offset(110),
            last_stable_offset: Offset(111),
        };
        AbortedRanges::new([aborted].iter())
    }

    fn transactional(producer_id: i64) -> BatchOptions {
        BatchOptions {
            is_transactional: true,
            producer_id,
            ..options()
        }
    }

    #[test]
    fn keys_of_aborted_records_and_of_markers_do_not_count() {
        let marker = BatchOptions {
            is_control: true,
            ..transactional(8)
        };
        for (options, counts) in [
            (transactional(7), false),
            (transactional(8), true),
            (marker, false),
        ] {
            let bytes = batch(options, &THREE);
            let view = BatchView::parse(&bytes).unwrap();
            let mut map = OffsetMap::new(100, 1 << 16, [5, 6]);
            let noted = note_keys(&view, ALL, &aborted_at_100(), LIMIT_BYTES, &mut map);
            assert_eq!(noted, Ok(Ok(())));
            assert_eq!(map.get(b"a").is_some(), counts);
            assert_eq!(map.end(), Offset(103));
        }
    }

    #[test]
    fn aborted_records_go_and_committed_ones_are_judged_by_their_keys() {
        let bytes = batch(transactional(7), &THREE);
        let latest = map(&[("a", 100), ("b", 101), ("c", 102)], 300);
        assert_eq!(cleaned(&bytes, &latest), CleanedBatch::Same);
        let rules_of = |last| rules(&latest, last);
        let gone = cleaned_as(Fate::Aborted, &bytes, &rules_of(&|_| None));
        assert_eq!(gone, CleanedBatch::Gone);
        let is_last = |id: i64| (id == 7).then_some(Offset(102));
        let empty = rebuilt(cleaned_as(Fate::Aborted, &bytes, &rules_of(&is_last)));
        let header = BatchHeader::parse(&empty).unwrap();
        assert_eq!((header.record_count, header.last_offset()), (0, 102));
        assert!(header.attributes.is_transactional());
    }

    #[test]
    fn a_marker_goes_when_its_horizon_has_passed_unless_it_is_needed() {
        let marker = TransactionMarker {
            producer_id: 7,
            producer_epoch: 2,
            coordinator_epoch: 5,
            commit: false,
        };
        let bytes = marker.batch(500);
        let empty_map = map(&[], 300);
        let at = |now_ms| CleaningRules {
            now_ms,
            ..rules(&empty_map, &|_| None)
        };
        let needed = cleaned_as(Fate::Needed, &bytes, &at(i64::MAX));
        assert_eq!(needed, CleanedBatch::Same);
        let stamped = rebuilt(cleaned_as(Fate::Obsolete, &bytes, &at(NOW_MS)));
        let view = BatchView::parse(&stamped).unwrap();
        assert!(view.header().attributes.has_delete_horizon());
        assert_eq!(view.header().max_timestamp, 500);
        let parsed = TransactionMarker::parse(view.header(), view.payload());
        assert_eq!(parsed, Ok(Some(marker)), "it says the same");
        let judged = |now_ms| cleaned_as(Fate::Obsolete, &stamped, &at(now_ms));
        assert_eq!(judged(NOW_MS + 999), CleanedBatch::Same);
        assert_eq!(judged(NOW_MS + 1000), CleanedBatch::Gone);
        let is_last = |id: i64| (id == 7).then_some(Offset(0));
        let last = CleaningRules {
            now_ms: i64::MAX,
            ..rules(&empty_map, &is_last)
        };
        assert_eq!(
            cleaned_as(Fate::Obsolete, &stamped, &last),
            CleanedBatch::Same,
            "it tells the producer's epoch"
        );
    }

    #[test]
    fn keys_are_noted_from_the_dirty_offset_on_until_the_map_is_full() {
        let bytes = batch(options(), &THREE);
        let view = BatchView::parse(&bytes).unwrap();
        let mut map = OffsetMap::new(100, 1 << 16, [5, 6]);
        assert_eq!(
            note_keys(
                &view,
                Offset(101)..Offset(200),
                &AbortedRanges::default(),
                LIMIT_BYTES,
                &mut map
            ),
            Ok(Ok(()))
        );
        assert_eq!((map.get(b"a"), map.get(b"c")), (None, Some(Offset(102))));
        let mut map = OffsetMap::new(100, 1 << 16, [5, 6]);
        let dirty = Offset(0)..Offset(102);
        assert_eq!(
            note_keys(
                &view,
                dirty,
                &AbortedRanges::default(),
                LIMIT_BYTES,
                &mut map
            ),
            Ok(Ok(()))
        );
        assert_eq!((map.get(b"b"), map.get(b"c")), (Some(Offset(101)), None));
        assert_eq!(map.end(), Offset(102), "the range ends within the batch");
        let many: Vec<String> = (0..60).map(|key| key.to_string()).collect();
        let mut full = OffsetMap::new(0, 0, [5, 6]);
        let mut builder = BatchBuilder::new(options());
        for key in &many {
            builder.append(1, Some(key.as_bytes()), None, [].into_iter());
        }
        let bytes = builder.finish();
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!(
            note_keys(
                &view,
                ALL,
                &AbortedRanges::default(),
                LIMIT_BYTES,
                &mut full
            ),
            Ok(Err(MapFull))
        );
        assert_eq!(full.end(), Offset(148), "64 slots take 48 keys");
    }

    #[test]
    fn damage_and_bombs_are_errors() {
        let options = BatchOptions {
            compression: Compression::of(Codec::Gzip),
            ..options()
        };
        let value: &'static str = Box::leak("x".repeat(5000).into_boxed_str());
        let bytes = batch(options, &[(Some("a"), Some(value))]);
        let map = map(&[("a", 200)], 300);
        let view = BatchView::parse(&bytes).unwrap();
        let tight = CleaningRules {
            decompressed_max_bytes: 1000,
            ..rules(&map, &|_| None)
        };
        assert!(matches!(
            clean(&view, Fate::ByKeys, &tight),
            Err(BatchError::Decompression(_))
        ));
        let mut wrong = batch(super::tests::options(), &THREE);
        wrong[57..61].copy_from_slice(&2i32.to_be_bytes());
        let view = BatchView::parse(&wrong).unwrap();
        assert!(clean(&view, Fate::ByKeys, &rules(&map, &|_| None)).is_err());
        let mut short = batch(super::tests::options(), &THREE);
        short[23..27].copy_from_slice(&1i32.to_be_bytes());
        let view = BatchView::parse(&short).unwrap();
        assert!(matches!(
            clean(&view, Fate::ByKeys, &rules(&map, &|_| None)),
            Err(BatchError::BadRecord(_))
        ));
    }
}
