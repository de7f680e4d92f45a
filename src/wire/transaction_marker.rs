//! Markers: the control batches that end a transaction in one log.
//!
//! Kafka: `EndTransactionMarker`, `ControlRecordType`. One record, which takes one offset. Its key is
//! version 2, type 2 (0 abort, 1 commit), its value version 2, coordinator epoch 4, all big-endian. The
//! batch has the producer's id and epoch and no sequence.

use super::record::{Header, Records};
use super::record_batch::{BatchError, BatchHeader};
use super::record_batch_builder::{BatchBuilder, BatchOptions};

const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// The newest version of key and value that is understood.
const VERSION: i16 = 0;

/// The end of a producer's transaction in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransactionMarker {
    /// Whose transaction.
    pub producer_id: i64,
    /// The producer's epoch from now on; newer than that of the transaction if it was bumped at its
    /// end (KIP-890).
    pub producer_epoch: i16,
    /// The reign of the coordinator that decided.
    pub coordinator_epoch: i32,
    /// Whether its records count.
    pub commit: bool,
}

impl TransactionMarker {
    /// The batch that goes into the log.
    #[must_use]
    pub fn batch(&self, now_ms: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            is_transactional: true,
            is_control: true,
            ..BatchOptions::default()
        });
        let kind = if self.commit { COMMIT } else { ABORT };
        let mut key = VERSION.to_be_bytes().to_vec();
        key.extend_from_slice(&kind.to_be_bytes());
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        let headers: [Header<'_>; 0] = [];
        builder.append(now_ms, Some(&key), Some(&value), headers.into_iter());
        builder.finish()
    }

    /// The marker that a batch holds; none if it holds other control records, or none at all.
    ///
    /// # Errors
    /// When the batch is damaged.
    pub fn parse(
        header: &BatchHeader,
        payload: &[u8],
    ) -> Result<Option<TransactionMarker>, BatchError> {
        if !header.attributes.is_control() || !header.has_producer_id() {
            return Ok(None);
        }
        let mut records = Records::new(payload, header.record_count);
        let Some(record) = records.next() else {
            return Ok(None);
        };
        let record = record?;
        let (key, value) = (record.key.unwrap_or(&[]), record.value.unwrap_or(&[]));
        let (Some(kind), Some(coordinator_epoch)) = (field(key, 2), field(value, 2)) else {
            return Err(BatchError::BadRecord("a marker is too short"));
        };
        let commit = match i16::from_be_bytes(kind) {
            ABORT => false,
            COMMIT => true,
            _ => return Ok(None),
        };
        Ok(Some(TransactionMarker {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: i32::from_be_bytes(coordinator_epoch),
            commit,
        }))
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record_batch::{BatchView, HEADER_BYTES};

    #[test]
    fn markers_round_trip_and_look_as_in_kafka() {
        for commit in [false, true] {
            let marker = TransactionMarker {
                producer_id: 9,
                producer_epoch: 3,
                coordinator_epoch: 0x0102_0304,
                commit,
            };
            let bytes = marker.batch(77);
            let view = BatchView::parse(&bytes).expect("just built");
            view.verify_checksum().expect("just built");
            let header = *view.header();
            assert!(header.attributes.is_control() && header.attributes.is_transactional());
            assert_eq!((header.base_sequence, header.record_count), (-1, 1));
            assert_eq!((header.last_offset_delta, header.max_timestamp), (0, 77));
            assert_eq!(
                TransactionMarker::parse(&header, view.payload()),
                Ok(Some(marker))
            );
            let record = Records::new(view.payload(), 1).next().expect("one");
            let record = record.expect("just built");
            let kind = u8::from(commit);
            assert_eq!(record.key, Some(&[0, 0, 0, kind][..]));
            assert_eq!(record.value, Some(&[0, 0, 1, 2, 3, 4][..]));
        }
    }

    #[test]
    fn what_is_no_marker_is_told_from_damage() {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: 9,
            is_control: true,
            ..BatchOptions::default()
        });
        builder.append(1, Some(&[0, 0, 0, 2]), Some(&[0; 6]), [].into_iter());
        let other = builder.finish();
        let header = BatchHeader::parse(&other).expect("just built");
        let parse =
            |header: &BatchHeader, payload: &[u8]| TransactionMarker::parse(header, payload);
        assert_eq!(parse(&header, &other[HEADER_BYTES..]), Ok(None));
        assert!(parse(&header, &[]).is_err(), "the record is missing");
        let emptied = BatchHeader {
            record_count: 0,
            ..header
        };
        assert_eq!(parse(&emptied, &[]), Ok(None));
    }
}
