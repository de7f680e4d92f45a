//! Records of classic groups and of committed offsets, as Kafka 4.3 writes them.

use crate::wire::codec::{DecodeError, Reader, Str};
use crate::wire::message::Message;
use crate::wire::messages::records_group_metadata::{GroupMetadataKey, GroupMetadataValue};
use crate::wire::messages::records_legacy_offset_commit::LegacyOffsetCommitKey;
use crate::wire::messages::records_offset_commit::{OffsetCommitKey, OffsetCommitValue};

use super::effects::CoordinatorRecord;

const LEGACY_OFFSET: i16 = 0;
const OFFSET: i16 = 1;
const GROUP: i16 = 2;

const KEY_VERSION: i16 = 0;
const OFFSET_VALUE_VERSION: i16 = 4;
/// The only version that says when an offset expires.
const OFFSET_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_VALUE_VERSION: i16 = 3;

/// A record of the shard's log.
#[derive(Debug, PartialEq)]
pub(super) enum GroupRecord<'a> {
    /// A committed offset; None takes it away.
    Offset(OffsetCommitKey<'a>, Option<OffsetCommitValue<'a>>),
    /// A classic group; None takes it away.
    Group(Str<'a>, Option<GroupMetadataValue<'a>>),
    /// Some other type.
    Unknown,
}

/// Reads a record.
pub(super) fn decode<'a>(
    key: &'a [u8],
    value: Option<&'a [u8]>,
) -> Result<GroupRecord<'a>, DecodeError> {
    let mut reader = Reader::new(key);
    match reader.int16()? {
        LEGACY_OFFSET => {
            let key = LegacyOffsetCommitKey::decode(&mut reader, KEY_VERSION)?;
            let key = OffsetCommitKey {
                group: key.group,
                topic: key.topic,
                partition: key.partition,
            };
            // Version 0 of the value is the legacy one.
            Ok(GroupRecord::Offset(key, decode_value(value)?))
        }
        OFFSET => {
            let key = OffsetCommitKey::decode(&mut reader, KEY_VERSION)?;
            Ok(GroupRecord::Offset(key, decode_value(value)?))
        }
        GROUP => {
            let key = GroupMetadataKey::decode(&mut reader, KEY_VERSION)?;
            Ok(GroupRecord::Group(key.group, decode_value(value)?))
        }
        _ => Ok(GroupRecord::Unknown),
    }
}

fn decode_value<'a, M: Message<'a>>(value: Option<&'a [u8]>) -> Result<Option<M>, DecodeError> {
    let Some(bytes) = value else {
        return Ok(None);
    };
    let mut reader = Reader::new(bytes);
    let version = reader.int16()?;
    M::decode(&mut reader, version).map(Some)
}

/// A committed offset.
pub(super) fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    value: &OffsetCommitValue<'_>,
) -> CoordinatorRecord {
    let version = if value.expire_timestamp == -1 {
        OFFSET_VALUE_VERSION
    } else {
        OFFSET_VALUE_VERSION_WITH_EXPIRY
    };
    CoordinatorRecord {
        key: offset_key(group, topic, partition),
        value: Some(tagged(version, value, version)),
    }
}

/// An offset that is gone.
pub(super) fn offset_tombstone(group: &str, topic: &str, partition: i32) -> CoordinatorRecord {
    CoordinatorRecord {
        key: offset_key(group, topic, partition),
        value: None,
    }
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let key = OffsetCommitKey {
        group: group.into(),
        topic: topic.into(),
        partition,
    };
    tagged(OFFSET, &key, KEY_VERSION)
}

/// A classic group.
pub(super) fn group_record(group: &str, value: &GroupMetadataValue<'_>) -> CoordinatorRecord {
    CoordinatorRecord {
        key: group_key(group),
        value: Some(tagged(GROUP_VALUE_VERSION, value, GROUP_VALUE_VERSION)),
    }
}

/// A classic group that is gone.
pub(super) fn group_tombstone(group: &str) -> CoordinatorRecord {
    CoordinatorRecord {
        key: group_key(group),
        value: None,
    }
}

fn group_key(group: &str) -> Vec<u8> {
    let key = GroupMetadataKey {
        group: group.into(),
    };
    tagged(GROUP, &key, KEY_VERSION)
}

/// Type or version in front, as in every key and value.
fn tagged<'a, M: Message<'a>>(number: i16, message: &M, version: i16) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend_from_slice(&message.to_bytes(version));
    bytes
}

/// What a record takes in a batch, roughly.
pub(super) fn record_bytes(record: &CoordinatorRecord) -> usize {
    const OVERHEAD_BYTES: usize = 16;
    record.key.len() + record.value.as_ref().map_or(0, Vec::len) + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::Uuid;

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let value = OffsetCommitValue {
            offset: 5,
            leader_epoch: 2,
            metadata: "m".into(),
            commit_timestamp: 9,
            topic_id: Uuid([7; 16]),
            ..Default::default()
        };
        let record = offset_record("g", "t", 3, &value);
        assert_eq!(record.key, b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        let expected = [
            &b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x02\x02m\0\0\0\0\0\0\0\x09"[..],
            b"\x01\0\x10\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
        ];
        assert_eq!(record.value, Some(expected.concat()));
        let decoded = decode(&record.key, record.value.as_deref()).expect("own record");
        let GroupRecord::Offset(key, Some(decoded)) = decoded else {
            panic!("another record: {decoded:?}");
        };
        assert_eq!((&*key.group, &*key.topic, key.partition), ("g", "t", 3));
        assert_eq!(decoded, value);
    }

    #[test]
    fn an_offset_that_says_when_it_expires_is_version_1() {
        let value = OffsetCommitValue {
            offset: 5,
            commit_timestamp: 9,
            expire_timestamp: 10,
            ..Default::default()
        };
        let record = offset_record("g", "t", 3, &value);
        assert_eq!(
            &record.value.as_deref().expect("no tombstone")[..2],
            b"\0\x01"
        );
        let decoded = decode(&record.key, record.value.as_deref()).expect("own record");
        assert!(matches!(decoded, GroupRecord::Offset(_, Some(ref v)) if *v == value));
    }

    #[test]
    fn groups_tombstones_legacy_offsets_and_strangers_are_told_apart() {
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 7,
            ..Default::default()
        };
        let record = group_record("g", &value);
        assert_eq!(record.key, b"\0\x02\0\x01g");
        let decoded = decode(&record.key, record.value.as_deref()).expect("own record");
        assert_eq!(decoded, GroupRecord::Group("g".into(), Some(value)));

        let gone = group_tombstone("g");
        let decoded = decode(&gone.key, None).expect("own record");
        assert_eq!(decoded, GroupRecord::Group("g".into(), None));

        let legacy = b"\0\0\0\x01g\0\x01t\0\0\0\x01";
        let old = b"\0\0\0\0\0\0\0\0\0\x07\0\x01m\0\0\0\0\0\0\0\x02";
        let decoded = decode(legacy, Some(old)).expect("a legacy record");
        assert!(matches!(decoded, GroupRecord::Offset(_, Some(ref v)) if v.offset == 7));

        assert_eq!(decode(b"\0\x63abc", None), Ok(GroupRecord::Unknown));
        assert!(decode(b"\0", None).is_err());
        assert!(decode(b"\0\x02\0\x01g", Some(b"\0\x09")).is_err());
    }
}
