//! Records of the metadata as they travel and are stored together: one decision, or a snapshot.
//!
//! # Format (little-endian)
//! ```text
//! record count 4 | per record: length 4, bytes (cluster/record.rs)
//! ```

use crate::cluster::record::MetadataRecord;
use crate::log::bytes::{Fields, Malformed, put_count};

/// Bytes of a list before its records, and of a record before its own.
const COUNT_BYTES: usize = 4;

/// The bytes of records.
pub(super) fn encode(records: &[MetadataRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, records);
    bytes
}

/// Appends records.
pub(super) fn put(into: &mut Vec<u8>, records: &[MetadataRecord]) {
    put_count(into, records.len());
    let mut encoded = Vec::new();
    for record in records {
        encoded.clear();
        record.encode(&mut encoded);
        put_count(into, encoded.len());
        into.extend_from_slice(&encoded);
    }
}

/// Reads what [`put`] wrote.
pub(super) fn take(fields: &mut Fields<'_>) -> Result<Vec<MetadataRecord>, Malformed> {
    let mut records = Vec::new();
    for _ in 0..fields.count(COUNT_BYTES)? {
        let length = fields.count(1)?;
        records.push(MetadataRecord::decode(fields.take(length)?)?);
    }
    Ok(records)
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<MetadataRecord>, Malformed> {
    let mut fields = Fields::new(bytes);
    let records = take(&mut fields)?;
    match fields.remaining() {
        0 => Ok(records),
        _ => Err(Malformed(fields.position())),
    }
}

/// Records as entries of at most `most_bytes`: one, if they fit. What one client asked for together
/// can be too much; then every entry is as full as it can be, and each record is good by itself.
/// None when a single record is too large.
pub(super) fn split(records: &[MetadataRecord], most_bytes: usize) -> Option<Vec<Vec<u8>>> {
    let whole = encode(records);
    if whole.len() <= most_bytes {
        return Some(vec![whole]);
    }
    let mut entries = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = COUNT_BYTES;
        let fits = |record: &&MetadataRecord| {
            bytes += encode(std::slice::from_ref(record)).len() - COUNT_BYTES;
            bytes <= most_bytes
        };
        let count = rest.iter().take_while(fits).count();
        if count == 0 {
            return None;
        }
        entries.push(encode(&rest[..count]));
        rest = &rest[count..];
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_one_entry_is_split_between_records() {
        let record = |next| MetadataRecord::ProducerIdsAllocated { next };
        let records: Vec<MetadataRecord> = (0..10).map(record).collect();
        let whole = encode(&records);
        assert_eq!(split(&records, whole.len()), Some(vec![whole.clone()]));
        let entries = split(&records, whole.len() - 1).unwrap();
        assert_eq!(entries.len(), 2);
        let again: Vec<MetadataRecord> = entries.iter().flat_map(|e| decode(e).unwrap()).collect();
        assert_eq!(again, records);
        let single = encode(&records[..1]).len();
        assert_eq!(split(&records, single).unwrap().len(), 10);
        assert_eq!(split(&records, single - 1), None);
        assert!(decode(&whole[..whole.len() - 1]).is_err());
    }
}
