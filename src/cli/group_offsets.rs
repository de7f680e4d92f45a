//! Committed offsets of a group: read, written, forgotten.

use std::collections::BTreeMap;

use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};

use super::client::{Client, Patience};
use super::connection::Reply;
use super::coordinator::Coordinated;
use super::failure::Failure;

/// Highest versions of OffsetCommit and OffsetFetch that name topics instead of giving their ids.
pub(crate) const VERSION_BY_NAME_MAX: i16 = 9;

/// What was committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The offset to go on from.
    pub(crate) offset: i64,
    /// What the committer wrote beside it.
    pub(crate) metadata: String,
}

/// Offsets by topic and partition.
pub(crate) type Offsets<T> = BTreeMap<String, BTreeMap<i32, T>>;

/// All committed offsets of a group.
pub(crate) fn all(client: &mut Client, group: &str) -> Result<Offsets<Committed>, Failure> {
    fetch(client, group, None)
}

/// What is committed of these partitions; those without are left out. Waits for transactions that
/// still decide about an offset.
pub(crate) fn of_partitions(
    client: &mut Client,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut patience = Patience::new(client.timeout());
    let mut fetched = loop {
        match fetch(client, group, Some((topic, partitions))) {
            Ok(fetched) => break fetched,
            Err(failure) => patience.wait_after(failure)?,
        }
    };
    let of_topic = fetched.remove(topic).unwrap_or_default();
    let offsets = of_topic.into_iter();
    Ok(offsets
        .map(|(index, found)| (index, found.offset))
        .collect())
}

/// Of the partitions asked for, or of all.
fn fetch(
    client: &mut Client,
    group: &str,
    asked: Option<(&str, &[i32])>,
) -> Result<Offsets<Committed>, Failure> {
    let request = OffsetFetchRequest {
        group_id: group.into(),
        topics: asked.map(|(topic, partitions)| {
            vec![OffsetFetchRequestTopic {
                name: topic.into(),
                partition_indexes: partitions.to_vec(),
            }]
        }),
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: asked.map(|(topic, partitions)| {
                vec![OffsetFetchRequestTopics {
                    name: topic.into(),
                    partition_indexes: partitions.to_vec(),
                    ..Default::default()
                }]
            }),
            ..Default::default()
        }],
        // Whoever goes on from an offset wants none of a transaction that may still be aborted.
        require_stable: asked.is_some(),
    };
    let coordinated = Coordinated::Group(group);
    let outcome = |reply: &Reply| fetched(reply, group).map(drop);
    let reply = coordinated.ask(client, &request, VERSION_BY_NAME_MAX, outcome)?;
    fetched(&reply, group)
}

/// One partition of either form of the response: topic, index, offset, metadata and error.
type Row<'a> = (&'a str, i32, i64, Option<&'a str>, i16);

fn fetched(reply: &Reply, group: &str) -> Result<Offsets<Committed>, Failure> {
    let response = reply.decode::<OffsetFetchRequest<'_>>()?;
    let subject = || format!("group {group}");
    Failure::check(subject(), response.error_code, None)?;
    let mut rows: Vec<Row<'_>> = Vec::new();
    for topic in &response.topics {
        rows.extend(topic.partitions.iter().map(|found| {
            let metadata = found.metadata.as_deref();
            let (index, offset) = (found.partition_index, found.committed_offset);
            (&*topic.name, index, offset, metadata, found.error_code)
        }));
    }
    for answer in &response.groups {
        Failure::check(subject(), answer.error_code, None)?;
        for topic in &answer.topics {
            rows.extend(topic.partitions.iter().map(|found| {
                let metadata = found.metadata.as_deref();
                let (index, offset) = (found.partition_index, found.committed_offset);
                (&*topic.name, index, offset, metadata, found.error_code)
            }));
        }
    }
    let mut offsets: Offsets<Committed> = BTreeMap::new();
    for (topic, index, offset, metadata, code) in rows {
        let subject = format!("group {group}, topic {topic} partition {index}");
        Failure::check(subject, code, None)?;
        // Nothing is committed.
        if offset < 0 {
            continue;
        }
        let committed = Committed {
            offset,
            metadata: metadata.unwrap_or_default().to_owned(),
        };
        let of_topic = offsets.entry(topic.to_owned()).or_default();
        of_topic.insert(index, committed);
    }
    Ok(offsets)
}

/// Who commits: a member of a generation, or an administrator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committer<'a> {
    /// Empty for an administrator.
    pub(crate) member_id: &'a str,
    /// -1 for an administrator.
    pub(crate) generation: i32,
}

impl Committer<'_> {
    /// Not a member.
    pub(crate) const ADMINISTRATOR: Committer<'static> = Committer {
        member_id: "",
        generation: -1,
    };
}

/// Commits.
pub(crate) fn commit(
    client: &mut Client,
    group: &str,
    committer: Committer<'_>,
    offsets: &Offsets<i64>,
) -> Result<(), Failure> {
    let topics = offsets.iter().map(|(topic, offsets)| {
        let partitions = offsets
            .iter()
            .map(|(index, offset)| OffsetCommitRequestPartition {
                partition_index: *index,
                committed_offset: *offset,
                committed_metadata: Some("".into()),
                ..Default::default()
            });
        OffsetCommitRequestTopic {
            name: topic.as_str().into(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: committer.generation,
        member_id: committer.member_id.into(),
        topics: topics.collect(),
        ..Default::default()
    };
    let outcome = |reply: &Reply| {
        let response = reply.decode::<OffsetCommitRequest<'_>>()?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                let (name, index) = (&topic.name, partition.partition_index);
                let subject = format!("group {group}, topic {name} partition {index}");
                Failure::check(subject, partition.error_code, None)?;
            }
        }
        Ok(())
    };
    let coordinated = Coordinated::Group(group);
    coordinated.ask(client, &request, VERSION_BY_NAME_MAX, outcome)?;
    Ok(())
}

/// Forgets what was committed for these partitions.
pub(crate) fn delete(
    client: &mut Client,
    group: &str,
    partitions: &BTreeMap<String, Vec<i32>>,
) -> Result<(), Failure> {
    let topics = partitions.iter().map(|(topic, indexes)| {
        let indexes = indexes.iter();
        let partitions = indexes.map(|index| OffsetDeleteRequestPartition {
            partition_index: *index,
        });
        OffsetDeleteRequestTopic {
            name: topic.as_str().into(),
            partitions: partitions.collect(),
        }
    });
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics.collect(),
    };
    let outcome = |reply: &Reply| {
        let response = reply.decode::<OffsetDeleteRequest<'_>>()?;
        Failure::check(format!("group {group}"), response.error_code, None)?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                let (name, index) = (&topic.name, partition.partition_index);
                let subject = format!("group {group}, topic {name} partition {index}");
                Failure::check(subject, partition.error_code, None)?;
            }
        }
        Ok(())
    };
    Coordinated::Group(group).ask(client, &request, i16::MAX, outcome)?;
    Ok(())
}
