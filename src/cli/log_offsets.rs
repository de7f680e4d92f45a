//! Where logs begin and end, and where a time is in them: ListOffsets.

use std::collections::BTreeMap;

use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};

use super::client::{Client, Patience, Topics};
use super::failure::Failure;
use super::isolation::Isolation;
use super::metadata::Topic;

/// Where in a log, in the terms of ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first record.
    Beginning,
    /// Behind the last record.
    End,
    /// The first record of this time or later.
    Time(i64),
}

impl Place {
    fn timestamp(self) -> i64 {
        match self {
            Place::Beginning => -2,
            Place::End => -1,
            Place::Time(timestamp_ms) => timestamp_ms,
        }
    }
}

/// Where `place` is in each of `partitions` of `topic`; -1 where no record is that late. Metadata
/// that turns out to be old is fetched again.
pub(crate) fn find(
    client: &mut Client,
    topic: &mut Topic,
    partitions: &[i32],
    place: Place,
    isolation: Isolation,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut patience = Patience::new(client.timeout());
    let mut offsets = BTreeMap::new();
    while let Some(missing) = partitions
        .iter()
        .find(|partition| !offsets.contains_key(*partition))
    {
        let found = topic.leader(*missing).and_then(|node| {
            let of_node: Vec<i32> = partitions
                .iter()
                .copied()
                .filter(|partition| topic.leader(*partition).ok() == Some(node))
                .collect();
            find_on(client, node, topic, &of_node, place, isolation)
        });
        match found {
            Ok(found) => offsets.extend(found),
            Err(failure) => {
                patience.wait_after(failure)?;
                let name = topic.name.clone();
                *topic = client.topic(Topics::One(&name))?;
            }
        }
    }
    Ok(offsets)
}

fn find_on(
    client: &mut Client,
    node: i32,
    topic: &Topic,
    partitions: &[i32],
    place: Place,
    isolation: Isolation,
) -> Result<Vec<(i32, i64)>, Failure> {
    let asked = partitions.iter().map(|partition| ListOffsetsPartition {
        partition_index: *partition,
        timestamp: place.timestamp(),
        ..Default::default()
    });
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation.level(),
        topics: vec![ListOffsetsTopic {
            name: topic.name.as_str().into(),
            partitions: asked.collect(),
        }],
        timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
    };
    let reply = client.ask_node(node, &request, i16::MAX)?;
    let response = reply.decode::<ListOffsetsRequest<'_>>()?;
    let mut found = Vec::new();
    for answer in response.topics.iter().flat_map(|topic| &topic.partitions) {
        let partition = answer.partition_index;
        let subject = format!("topic {} partition {partition}", topic.name);
        Failure::check(subject, answer.error_code, None)?;
        found.push((partition, answer.offset));
    }
    if found.len() < partitions.len() {
        return Err(Failure::Protocol {
            address: format!("node {node}"),
            reason: "a ListOffsets response without all partitions".to_owned(),
        });
    }
    Ok(found)
}
