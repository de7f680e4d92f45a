//! The bytes of partitions and brokers inside records. `record` has the table.

use super::image::{BrokerImage, PartitionImage};
use super::record::{option, put_option};
use crate::log::bytes::{Fields, Malformed, put_count, put_text};
use crate::wire::codec::Uuid;

/// Fewest bytes of a partition.
const PARTITION_BYTES_MIN: usize = 21;

/// The two flags of a byte, the lower one first.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

pub(super) fn put_partitions(into: &mut Vec<u8>, partitions: &[PartitionImage]) {
    put_count(into, partitions.len());
    for partition in partitions {
        put_partition(into, partition);
    }
}

pub(super) fn put_numbered_partitions(into: &mut Vec<u8>, partitions: &[(i32, PartitionImage)]) {
    put_count(into, partitions.len());
    for (number, partition) in partitions {
        into.extend_from_slice(&number.to_le_bytes());
        put_partition(into, partition);
    }
}

fn put_partition(into: &mut Vec<u8>, partition: &PartitionImage) {
    for number in [
        partition.leader,
        partition.leader_epoch,
        partition.partition_epoch,
    ] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    put_nodes(into, &partition.replicas);
    put_nodes(into, &partition.isr);
    let rare = rare_lists(partition);
    let has_rare = rare.iter().any(|nodes| !nodes.is_empty());
    into.push(flag_byte(partition.recovering, has_rare));
    if has_rare {
        rare.iter().for_each(|nodes| put_nodes(into, nodes));
    }
}

/// The lists that are empty while a partition is well.
fn rare_lists(partition: &PartitionImage) -> [&Vec<i32>; 4] {
    [
        &partition.elr,
        &partition.last_known_elr,
        &partition.adding_replicas,
        &partition.removing_replicas,
    ]
}

fn put_nodes(into: &mut Vec<u8>, nodes: &[i32]) {
    put_count(into, nodes.len());
    for node in nodes {
        into.extend_from_slice(&node.to_le_bytes());
    }
}

fn flag_byte(first: bool, second: bool) -> u8 {
    (FIRST * u8::from(first)) | (SECOND * u8::from(second))
}

/// What a broker's state is stored as.
pub(super) fn broker_flags(is_fenced: bool, in_controlled_shutdown: bool) -> u8 {
    flag_byte(is_fenced, in_controlled_shutdown)
}

pub(super) fn put_broker(into: &mut Vec<u8>, broker: &BrokerImage) {
    put_text(into, &broker.host);
    into.extend_from_slice(&broker.port.to_le_bytes());
    into.push(u8::from(broker.inter_broker.is_some()));
    if let Some((host, port)) = &broker.inter_broker {
        put_text(into, host);
        into.extend_from_slice(&port.to_le_bytes());
    }
    put_option(into, broker.rack.as_deref());
    into.extend_from_slice(&broker.epoch.to_le_bytes());
    into.extend_from_slice(&broker.incarnation.0);
    into.extend_from_slice(&broker.directory_id.0);
    into.extend_from_slice(&broker.cores.to_le_bytes());
    into.extend_from_slice(&broker.cluster_version_max.to_le_bytes());
    into.push(broker_flags(
        broker.is_fenced,
        broker.in_controlled_shutdown,
    ));
}

pub(super) fn partitions(fields: &mut Fields<'_>) -> Result<Vec<PartitionImage>, Malformed> {
    let count = fields.count(PARTITION_BYTES_MIN)?;
    (0..count).map(|_| partition(fields)).collect()
}

pub(super) fn numbered_partitions(
    fields: &mut Fields<'_>,
) -> Result<Vec<(i32, PartitionImage)>, Malformed> {
    let count = fields.count(PARTITION_BYTES_MIN + 4)?;
    (0..count)
        .map(|_| Ok((fields.i32()?, partition(fields)?)))
        .collect()
}

fn partition(fields: &mut Fields<'_>) -> Result<PartitionImage, Malformed> {
    let mut partition = PartitionImage {
        leader: fields.i32()?,
        leader_epoch: fields.i32()?,
        partition_epoch: fields.i32()?,
        replicas: nodes(fields)?,
        isr: nodes(fields)?,
        ..PartitionImage::default()
    };
    let (recovering, has_rare) = flags(fields)?;
    partition.recovering = recovering;
    if has_rare {
        let at = fields.position();
        partition.elr = nodes(fields)?;
        partition.last_known_elr = nodes(fields)?;
        partition.adding_replicas = nodes(fields)?;
        partition.removing_replicas = nodes(fields)?;
        if rare_lists(&partition).iter().all(|nodes| nodes.is_empty()) {
            return Err(Malformed(at));
        }
    }
    Ok(partition)
}

fn nodes(fields: &mut Fields<'_>) -> Result<Vec<i32>, Malformed> {
    let count = fields.count(4)?;
    (0..count).map(|_| fields.i32()).collect()
}

pub(super) fn flags(fields: &mut Fields<'_>) -> Result<(bool, bool), Malformed> {
    let at = fields.position();
    match fields.u8()? {
        byte if byte <= FIRST | SECOND => Ok((byte & FIRST != 0, byte & SECOND != 0)),
        _ => Err(Malformed(at)),
    }
}

pub(super) fn broker(fields: &mut Fields<'_>) -> Result<BrokerImage, Malformed> {
    let host = fields.text()?.to_string();
    let port = u16::from_le_bytes(fields.array()?);
    let at = fields.position();
    let inter_broker = match fields.u8()? {
        0 => None,
        1 => {
            let host = fields.text()?.to_string();
            Some((host, u16::from_le_bytes(fields.array()?)))
        }
        _ => return Err(Malformed(at)),
    };
    let mut broker = BrokerImage {
        host,
        port,
        inter_broker,
        rack: option(fields)?,
        epoch: fields.i64()?,
        incarnation: Uuid(fields.array()?),
        directory_id: Uuid(fields.array()?),
        cores: u16::from_le_bytes(fields.array()?),
        cluster_version_max: u16::from_le_bytes(fields.array()?),
        ..BrokerImage::default()
    };
    (broker.is_fenced, broker.in_controlled_shutdown) = flags(fields)?;
    Ok(broker)
}
