//! The record with a timestamp, within its batch. Kafka: `LogSegment.findOffsetByTimestamp`,
//! `RecordBatch.offsetOfMaxTimestamp`.

use crate::wire::record_batch::{BatchView, TimestampType};

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTime {
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Its offset.
    pub offset: i64,
}

/// The first record of `batch` at or after `timestamp_ms`. A batch that cannot be decompressed
/// within `limit_bytes` or does not parse answers with its first offset: readers start there.
#[must_use]
pub fn first_at(batch: &[u8], timestamp_ms: i64, limit_bytes: usize) -> Option<RecordTime> {
    find(batch, limit_bytes, |record_ms| record_ms >= timestamp_ms)
}

/// The first record of `batch` with the batch's largest timestamp.
#[must_use]
pub fn largest(batch: &[u8], limit_bytes: usize) -> Option<RecordTime> {
    let largest_ms = BatchView::parse(batch).ok()?.header().max_timestamp;
    find(batch, limit_bytes, |record_ms| record_ms == largest_ms)
}

fn find(batch: &[u8], limit_bytes: usize, wanted: impl Fn(i64) -> bool) -> Option<RecordTime> {
    let view = BatchView::parse(batch).ok()?;
    let header = *view.header();
    let whole = RecordTime {
        timestamp_ms: header.max_timestamp,
        offset: header.base_offset,
    };
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return wanted(header.max_timestamp).then_some(whole);
    }
    let Ok(payload) = view.plain_payload(limit_bytes) else {
        return Some(whole);
    };
    for record in crate::wire::record::Records::new(&payload, header.record_count) {
        let Ok(record) = record else {
            return Some(whole);
        };
        let timestamp_ms = header.base_timestamp.saturating_add(record.timestamp_delta);
        if wanted(timestamp_ms) {
            let offset = header.base_offset + i64::from(record.offset_delta);
            return Some(RecordTime {
                timestamp_ms,
                offset,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::compression::{Codec, Compression};
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    fn batch(codec: Codec) -> Vec<u8> {
        let compression = Compression {
            codec,
            ..Compression::default()
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: 100,
            compression,
            ..Default::default()
        });
        for timestamp_ms in [5, 9, 7, 9] {
            builder.append(timestamp_ms, None, Some(b"value"), [].into_iter());
        }
        builder.finish()
    }

    #[test]
    fn the_first_record_late_enough_and_the_latest() {
        for codec in [Codec::None, Codec::Lz4] {
            let batch = batch(codec);
            let at = |timestamp_ms| first_at(&batch, timestamp_ms, 1 << 20);
            assert_eq!(
                at(0),
                Some(RecordTime {
                    timestamp_ms: 5,
                    offset: 100
                })
            );
            assert_eq!(
                at(6),
                Some(RecordTime {
                    timestamp_ms: 9,
                    offset: 101
                })
            );
            assert_eq!(at(10), None);
            let latest = largest(&batch, 1 << 20);
            assert_eq!(
                latest,
                Some(RecordTime {
                    timestamp_ms: 9,
                    offset: 101
                })
            );
        }
    }
}
