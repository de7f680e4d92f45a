//! The records that change an image, and their bytes.
//!
//! A record is framed and checksummed by whoever stores it. All numbers are little-endian. *text* is
//! a length of 2 bytes and so many bytes of UTF-8; a *list* is a count of 4 bytes and its elements.
//!
//! ```text
//! byte 0      type
//! byte 1      version of the type's layout, 0 for all so far
//! bytes 2..   by type:
//!   1 TopicCreated          id 16 bytes, name text, partitions list, settings list of (name text,
//!                           value text)
//!   2 PartitionsAdded       topic id 16 bytes, partitions list; they follow those that are there
//!   3 TopicDeleted          topic id 16 bytes
//!   4 ConfigChanged         target 1 byte: 0 topic, 1 all brokers, 2 a broker, 3 a group; then of a
//!                           topic its id, 16 bytes, of a broker its node id, 4 bytes, of a group
//!                           its name, text; name text; value option of text
//!   5 ProducerIdsAllocated  next id 8 bytes
//!   6 BrokerRegistered      node id 4 bytes, broker
//!   7 BrokerChanged         node id 4 bytes, flags 1 byte as of a broker
//!   8 BrokerUnregistered    node id 4 bytes, directory id 16 bytes
//!   9 PartitionsChanged     topic id 16 bytes, list of (number 4 bytes, partition)
//!  10 BrokerEpochsGiven     last epoch 8 bytes
//!  11 ClusterVersionChanged version 2 bytes
//! partition:   leader 4 bytes, leader epoch 4 bytes, partition epoch 4 bytes, replicas list of 4
//!              bytes, in-sync replicas list of 4 bytes, flags 1 byte: 1 recovering, 2 the four lists
//!              that follow; those are, each of 4 bytes: eligible, last known eligible, adding,
//!              removing replicas
//! broker:      host text, port 2 bytes, inter-broker option of (host text, port 2 bytes), rack
//!              option of text, epoch 8 bytes, incarnation 16 bytes, directory id 16 bytes, cores 2
//!              bytes, newest cluster version 2 bytes, flags 1 byte: 1 fenced, 2 in controlled
//!              shutdown
//! option:      1 byte, 0 for none or 1; the value if 1
//! ```

use std::collections::BTreeMap;

use super::image::{BrokerImage, CLUSTER_VERSION_MIN, MetadataImage, PartitionImage};
use super::record_fields::{
    broker, broker_flags, flags, numbered_partitions, partitions, put_broker,
    put_numbered_partitions, put_partitions,
};
use crate::log::bytes::{Fields, Malformed, put_count, put_text};
use crate::wire::codec::Uuid;

/// Longest text that a record holds.
pub const TEXT_BYTES_MAX: usize = i16::MAX as usize;

const LAYOUT_VERSION: u8 = 0;
/// Fewest bytes of a setting.
const CONFIG_BYTES_MIN: usize = 4;

/// What a dynamic setting belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigTarget {
    /// A topic.
    Topic(Uuid),
    /// All brokers.
    BrokerDefault,
    /// One broker.
    Broker(i32),
    /// A group, by name; it need not be there.
    Group(String),
}

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A topic with its partitions and settings.
    TopicCreated {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
        /// Its partitions.
        partitions: Vec<PartitionImage>,
        /// What it overrides.
        configs: BTreeMap<String, String>,
    },
    /// A topic grew.
    PartitionsAdded {
        /// Which topic.
        topic: Uuid,
        /// The new partitions, behind the old ones.
        partitions: Vec<PartitionImage>,
    },
    /// A topic is gone.
    TopicDeleted {
        /// Which topic.
        topic: Uuid,
    },
    /// A dynamic setting changed.
    ConfigChanged {
        /// Whose.
        target: ConfigTarget,
        /// Its name.
        name: String,
        /// Its value; `None` takes it away.
        value: Option<String>,
    },
    /// Producer ids below `next` were given out.
    ProducerIdsAllocated {
        /// The first that was not.
        next: i64,
    },
    /// A broker registered, or registered again.
    BrokerRegistered {
        /// Which broker.
        node_id: i32,
        /// What it said of itself; fenced, when it was just decided.
        broker: BrokerImage,
    },
    /// A broker was fenced, unfenced, or begins to stop.
    BrokerChanged {
        /// Which broker.
        node_id: i32,
        /// Whether it is fenced now.
        is_fenced: bool,
        /// Whether it is about to stop.
        in_controlled_shutdown: bool,
    },
    /// A broker is no part of the cluster any more.
    BrokerUnregistered {
        /// Which broker.
        node_id: i32,
        /// Its first data directory.
        directory_id: Uuid,
    },
    /// Partitions of a topic changed.
    PartitionsChanged {
        /// Which topic.
        topic: Uuid,
        /// Which partitions, by number, and what they are now.
        partitions: Vec<(i32, PartitionImage)>,
    },
    /// Broker epochs up to `last` were given out.
    BrokerEpochsGiven {
        /// The largest.
        last: i64,
    },
    /// The brokers agreed on another cluster version.
    ClusterVersionChanged {
        /// Which.
        version: u16,
    },
}

impl MetadataRecord {
    /// Appends the record's bytes.
    ///
    /// # Panics
    /// When a text exceeds [`TEXT_BYTES_MAX`], which the controller refuses.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&[self.type_byte(), LAYOUT_VERSION]);
        match self {
            MetadataRecord::TopicCreated {
                name,
                id,
                partitions,
                configs,
            } => {
                into.extend_from_slice(&id.0);
                put_text(into, name);
                put_partitions(into, partitions);
                put_count(into, configs.len());
                for (name, value) in configs {
                    put_text(into, name);
                    put_text(into, value);
                }
            }
            MetadataRecord::PartitionsAdded { topic, partitions } => {
                into.extend_from_slice(&topic.0);
                put_partitions(into, partitions);
            }
            MetadataRecord::TopicDeleted { topic } => into.extend_from_slice(&topic.0),
            MetadataRecord::ConfigChanged {
                target,
                name,
                value,
            } => {
                put_target(into, target);
                put_text(into, name);
                put_option(into, value.as_deref());
            }
            MetadataRecord::ProducerIdsAllocated { next } => {
                into.extend_from_slice(&next.to_le_bytes());
            }
            MetadataRecord::BrokerRegistered { node_id, broker } => {
                into.extend_from_slice(&node_id.to_le_bytes());
                put_broker(into, broker);
            }
            MetadataRecord::BrokerChanged {
                node_id,
                is_fenced,
                in_controlled_shutdown,
            } => {
                into.extend_from_slice(&node_id.to_le_bytes());
                into.push(broker_flags(*is_fenced, *in_controlled_shutdown));
            }
            MetadataRecord::BrokerUnregistered {
                node_id,
                directory_id,
            } => {
                into.extend_from_slice(&node_id.to_le_bytes());
                into.extend_from_slice(&directory_id.0);
            }
            MetadataRecord::PartitionsChanged { topic, partitions } => {
                into.extend_from_slice(&topic.0);
                put_numbered_partitions(into, partitions);
            }
            MetadataRecord::BrokerEpochsGiven { last } => {
                into.extend_from_slice(&last.to_le_bytes());
            }
            MetadataRecord::ClusterVersionChanged { version } => {
                into.extend_from_slice(&version.to_le_bytes());
            }
        }
    }

    fn type_byte(&self) -> u8 {
        match self {
            MetadataRecord::TopicCreated { .. } => 1,
            MetadataRecord::PartitionsAdded { .. } => 2,
            MetadataRecord::TopicDeleted { .. } => 3,
            MetadataRecord::ConfigChanged { .. } => 4,
            MetadataRecord::ProducerIdsAllocated { .. } => 5,
            MetadataRecord::BrokerRegistered { .. } => 6,
            MetadataRecord::BrokerChanged { .. } => 7,
            MetadataRecord::BrokerUnregistered { .. } => 8,
            MetadataRecord::PartitionsChanged { .. } => 9,
            MetadataRecord::BrokerEpochsGiven { .. } => 10,
            MetadataRecord::ClusterVersionChanged { .. } => 11,
        }
    }

    /// Reads a record from bytes that hold nothing else.
    ///
    /// # Errors
    /// Where the bytes stop making sense; a type or layout this broker does not know is one of
    /// these, at byte 0 or 1.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, Malformed> {
        let mut fields = Fields::new(bytes);
        let type_byte = fields.u8()?;
        if fields.u8()? != LAYOUT_VERSION {
            return Err(Malformed(1));
        }
        let record = match type_byte {
            1 => MetadataRecord::TopicCreated {
                id: Uuid(fields.array()?),
                name: fields.text()?.to_string(),
                partitions: partitions(&mut fields)?,
                configs: configs(&mut fields)?,
            },
            2 => MetadataRecord::PartitionsAdded {
                topic: Uuid(fields.array()?),
                partitions: partitions(&mut fields)?,
            },
            3 => MetadataRecord::TopicDeleted {
                topic: Uuid(fields.array()?),
            },
            4 => MetadataRecord::ConfigChanged {
                target: target(&mut fields)?,
                name: fields.text()?.to_string(),
                value: option(&mut fields)?,
            },
            5 => MetadataRecord::ProducerIdsAllocated {
                next: fields.i64()?,
            },
            6..=11 => cluster_record(type_byte, &mut fields)?,
            _ => return Err(Malformed(0)),
        };
        match fields.remaining() {
            0 => Ok(record),
            rest => Err(Malformed(bytes.len() - rest)),
        }
    }
}

/// Records about brokers, and about partitions of topics that are there.
fn cluster_record(type_byte: u8, fields: &mut Fields<'_>) -> Result<MetadataRecord, Malformed> {
    Ok(match type_byte {
        6 => MetadataRecord::BrokerRegistered {
            node_id: fields.i32()?,
            broker: broker(fields)?,
        },
        7 => {
            let node_id = fields.i32()?;
            let (is_fenced, in_controlled_shutdown) = flags(fields)?;
            MetadataRecord::BrokerChanged {
                node_id,
                is_fenced,
                in_controlled_shutdown,
            }
        }
        8 => MetadataRecord::BrokerUnregistered {
            node_id: fields.i32()?,
            directory_id: Uuid(fields.array()?),
        },
        9 => MetadataRecord::PartitionsChanged {
            topic: Uuid(fields.array()?),
            partitions: numbered_partitions(fields)?,
        },
        10 => MetadataRecord::BrokerEpochsGiven {
            last: fields.i64()?,
        },
        _ => MetadataRecord::ClusterVersionChanged {
            version: u16::from_le_bytes(fields.array()?),
        },
    })
}

fn put_target(into: &mut Vec<u8>, target: &ConfigTarget) {
    match target {
        ConfigTarget::Topic(id) => {
            into.push(0);
            into.extend_from_slice(&id.0);
        }
        ConfigTarget::BrokerDefault => into.push(1),
        ConfigTarget::Broker(node_id) => {
            into.push(2);
            into.extend_from_slice(&node_id.to_le_bytes());
        }
        ConfigTarget::Group(name) => {
            into.push(3);
            put_text(into, name);
        }
    }
}

pub(super) fn put_option(into: &mut Vec<u8>, text: Option<&str>) {
    into.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(into, text);
    }
}

fn configs(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>, Malformed> {
    let count = fields.count(CONFIG_BYTES_MIN)?;
    let entry = |fields: &mut Fields<'_>| {
        let name = fields.text()?.to_string();
        Ok((name, fields.text()?.to_string()))
    };
    (0..count).map(|_| entry(fields)).collect()
}

fn target(fields: &mut Fields<'_>) -> Result<ConfigTarget, Malformed> {
    match fields.u8()? {
        0 => Ok(ConfigTarget::Topic(Uuid(fields.array()?))),
        1 => Ok(ConfigTarget::BrokerDefault),
        2 => Ok(ConfigTarget::Broker(fields.i32()?)),
        3 => Ok(ConfigTarget::Group(fields.text()?.to_string())),
        _ => Err(Malformed(2)),
    }
}

pub(super) fn option(fields: &mut Fields<'_>) -> Result<Option<String>, Malformed> {
    match fields.u8()? {
        0 => Ok(None),
        1 => Ok(Some(fields.text()?.to_string())),
        _ => Err(Malformed(fields.remaining())),
    }
}

/// The fewest records that make an empty image equal to this one, but for its version.
#[must_use]
pub fn snapshot(image: &MetadataImage) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for (node_id, broker) in image.brokers() {
        records.push(MetadataRecord::BrokerRegistered {
            node_id: *node_id,
            broker: broker.clone(),
        });
    }
    for (node_id, directory_id) in image.departed() {
        records.push(MetadataRecord::BrokerUnregistered {
            node_id: *node_id,
            directory_id: *directory_id,
        });
    }
    if image.last_broker_epoch() != 0 {
        let last = image.last_broker_epoch();
        records.push(MetadataRecord::BrokerEpochsGiven { last });
    }
    if image.cluster_version() != CLUSTER_VERSION_MIN {
        let version = image.cluster_version();
        records.push(MetadataRecord::ClusterVersionChanged { version });
    }
    let mut changed = |target: ConfigTarget, configs: &BTreeMap<String, String>| {
        for (name, value) in configs {
            records.push(MetadataRecord::ConfigChanged {
                target: target.clone(),
                name: name.clone(),
                value: Some(value.clone()),
            });
        }
    };
    changed(ConfigTarget::BrokerDefault, image.default_configs());
    for (node_id, configs) in image.all_broker_configs() {
        changed(ConfigTarget::Broker(node_id), configs);
    }
    for (group, configs) in image.all_group_configs() {
        changed(ConfigTarget::Group(group.to_string()), configs);
    }
    for topic in image.topics() {
        records.push(MetadataRecord::TopicCreated {
            name: topic.name.to_string(),
            id: topic.id,
            partitions: topic.partitions.clone(),
            configs: topic.configs.clone(),
        });
    }
    if image.next_producer_id() != 0 {
        records.push(MetadataRecord::ProducerIdsAllocated {
            next: image.next_producer_id(),
        });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition() -> PartitionImage {
        PartitionImage {
            leader: 1,
            leader_epoch: 2,
            partition_epoch: 5,
            replicas: vec![1, 3],
            isr: vec![1],
            ..PartitionImage::default()
        }
    }

    fn moving_partition() -> PartitionImage {
        PartitionImage {
            elr: vec![3],
            last_known_elr: vec![4],
            adding_replicas: vec![5],
            removing_replicas: vec![6],
            recovering: true,
            ..partition()
        }
    }

    fn broker() -> BrokerImage {
        BrokerImage {
            host: "h".to_string(),
            port: 9092,
            inter_broker: Some(("i".to_string(), 9093)),
            rack: Some("r".to_string()),
            epoch: 4,
            incarnation: Uuid([8; 16]),
            directory_id: Uuid([9; 16]),
            cores: 2,
            cluster_version_max: 3,
            is_fenced: true,
            in_controlled_shutdown: false,
        }
    }

    fn samples() -> Vec<MetadataRecord> {
        let id = Uuid([7; 16]);
        let configs = BTreeMap::from([("k".to_string(), "v".to_string())]);
        let changed = |target, value: Option<&str>| MetadataRecord::ConfigChanged {
            target,
            name: "n".to_string(),
            value: value.map(str::to_string),
        };
        vec![
            MetadataRecord::TopicCreated {
                name: "ab".to_string(),
                id,
                partitions: vec![partition()],
                configs,
            },
            MetadataRecord::PartitionsAdded {
                topic: id,
                partitions: vec![partition(), partition()],
            },
            changed(ConfigTarget::Topic(id), Some("v")),
            changed(ConfigTarget::BrokerDefault, None),
            changed(ConfigTarget::Broker(-5), Some("")),
            changed(ConfigTarget::Group("g".to_string()), Some("v")),
            MetadataRecord::ProducerIdsAllocated { next: 0x1122 },
            MetadataRecord::BrokerRegistered {
                node_id: 1,
                broker: broker(),
            },
            MetadataRecord::BrokerChanged {
                node_id: 1,
                is_fenced: false,
                in_controlled_shutdown: true,
            },
            MetadataRecord::BrokerUnregistered {
                node_id: 2,
                directory_id: Uuid([5; 16]),
            },
            MetadataRecord::PartitionsChanged {
                topic: id,
                partitions: vec![(1, moving_partition())],
            },
            MetadataRecord::BrokerEpochsGiven { last: 0x33 },
            MetadataRecord::ClusterVersionChanged { version: 2 },
            MetadataRecord::TopicDeleted { topic: id },
        ]
    }

    fn bytes(record: &MetadataRecord) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let fixed = "0100000002000000050000000200000001000000030000000100000001000000";
        let partition = format!("{fixed}00");
        let moving = format!(
            "{fixed}03 0100000003000000 0100000004000000 0100000005000000 0100000006000000"
        );
        let (eight, nine, five) = ("08".repeat(16), "09".repeat(16), "05".repeat(16));
        let id = "07".repeat(16);
        let expected = [
            format!("0100{id}02006162 01000000{partition} 0100000001006b010076"),
            format!("0200{id} 02000000{partition}{partition}"),
            format!("040000{id} 01006e 01 010076"),
            "0400 01 01006e 00".to_string(),
            "0400 02fbffffff 01006e 01 0000".to_string(),
            "0400 03010067 01006e 01 010076".to_string(),
            "0500 2211000000000000".to_string(),
            format!(
                "0600 01000000 010068 8423 01 010069 8523 01 010072 0400000000000000 {eight}{nine} \
                 0200 0300 01"
            ),
            "0700 01000000 02".to_string(),
            format!("0800 02000000 {five}"),
            format!("0900{id} 01000000 01000000 {moving}"),
            "0a00 3300000000000000".to_string(),
            "0b00 0200".to_string(),
            format!("0300{id}"),
        ];
        for (record, expected) in samples().iter().zip(expected) {
            let hex: String = bytes(record)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(hex, expected.replace(' ', ""), "{record:?}");
        }
    }

    #[test]
    fn records_read_back_and_no_part_of_one_is_a_record() {
        for record in samples() {
            let bytes = bytes(&record);
            assert_eq!(MetadataRecord::decode(&bytes), Ok(record));
            for length in 0..bytes.len() {
                assert!(MetadataRecord::decode(&bytes[..length]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(MetadataRecord::decode(&longer), Err(Malformed(bytes.len())));
        }
        for unknown in [[0, 0], [12, 0], [3, 1]] {
            assert!(MetadataRecord::decode(&unknown).is_err());
        }
    }

    #[test]
    fn a_snapshot_gives_the_same_image() {
        let mut image = MetadataImage::empty("c", 1);
        let mut records = samples();
        records.truncate(records.len() - 1);
        records.push(MetadataRecord::TopicCreated {
            name: "x".to_string(),
            id: Uuid([9; 16]),
            partitions: vec![partition(); 3],
            configs: BTreeMap::new(),
        });
        for record in &records {
            image.apply(record);
        }
        let mut copy = MetadataImage::empty("c", 1);
        for record in snapshot(&image) {
            copy.apply(&MetadataRecord::decode(&bytes(&record)).unwrap());
        }
        assert_ne!(copy.version(), image.version());
        assert_eq!(snapshot(&copy), snapshot(&image));
        assert_eq!(copy.topic("x"), image.topic("x"));
        assert_eq!(copy.topic("ab").unwrap().partitions[1], moving_partition());
        assert_eq!(copy.last_broker_epoch(), 0x33);
        assert_eq!((copy.departed().len(), copy.cluster_version()), (1, 2));
        assert_eq!(copy.partition_count(), image.partition_count());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0_u8..12) {
            let bytes = [&[kind, 0], &bytes[..]].concat();
            if let Ok(record) = MetadataRecord::decode(&bytes) {
                prop_assert_eq!(MetadataRecord::decode(&self::bytes(&record)), Ok(record));
            }
        }
    }
}
