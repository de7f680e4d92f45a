//! OffsetFetch, versions 1 to 10 (KIP-709: many groups from 8; topic ids from 10).

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, Refused, check_count};
use super::coordination::ask_group;
use super::dispatch::Api;
use crate::coordinator::group_request::GroupAnswer;
use crate::net::service::Reply;
use crate::shard::coordinators::GroupAsk;
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

/// First version with many groups.
const MANY_GROUPS_FROM: i16 = 8;

/// First version with an error code besides those of the partitions.
const ERROR_CODE_FROM: i16 = 2;

/// Answers an OffsetFetch.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: OffsetFetchRequest<'_> = call.request()?;
    let most = api.router.config().limits.request_partitions_max;
    check_count(partitions(&request), most)?;
    if call.version >= MANY_GROUPS_FROM {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in &request.groups {
            groups.push(fetch(&api, &call, owned(group), request.require_stable).await?);
        }
        return Ok(call.reply(&OffsetFetchResponse {
            groups,
            ..OffsetFetchResponse::default()
        }));
    }
    let group = OffsetFetchRequestGroup {
        group_id: Cow::Owned(request.group_id.to_string()),
        topics: request.topics.as_ref().map(|topics| {
            let topics = topics.iter();
            topics.map(named).collect()
        }),
        ..OffsetFetchRequestGroup::default()
    };
    let fetched = fetch(&api, &call, group.clone(), request.require_stable).await?;
    Ok(single(&call, &group, fetched))
}

fn partitions(request: &OffsetFetchRequest<'_>) -> usize {
    let old = request.topics.iter().flatten();
    let old: usize = old.map(|topic| 1 + topic.partition_indexes.len()).sum();
    let topics = request.groups.iter().flat_map(|group| &group.topics);
    let new: usize = topics
        .flatten()
        .map(|topic| 1 + topic.partition_indexes.len())
        .sum();
    old + new + request.groups.len()
}

async fn fetch(
    api: &Api,
    call: &Call,
    group: OffsetFetchRequestGroup<'static>,
    require_stable: bool,
) -> Result<OffsetFetchResponseGroup<'static>, Refused> {
    let name = group.group_id.clone();
    let ask = GroupAsk::OffsetFetch {
        group,
        require_stable,
    };
    match ask_group(api, call, &name, ask).await {
        Ok(GroupAnswer::OffsetFetch(fetched)) => Ok(fetched),
        Ok(other) => unreachable!("the answer to another request: {other:?}"),
        Err(why) => Ok(OffsetFetchResponseGroup {
            error_code: why.code()?.code(),
            group_id: name,
            ..OffsetFetchResponseGroup::default()
        }),
    }
}

fn owned(group: &OffsetFetchRequestGroup<'_>) -> OffsetFetchRequestGroup<'static> {
    let topic = |topic: &OffsetFetchRequestTopics<'_>| OffsetFetchRequestTopics {
        name: Cow::Owned(topic.name.to_string()),
        topic_id: topic.topic_id,
        partition_indexes: topic.partition_indexes.clone(),
    };
    let text = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
    OffsetFetchRequestGroup {
        group_id: text(&group.group_id),
        member_id: group.member_id.as_ref().map(text),
        member_epoch: group.member_epoch,
        topics: group
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(topic).collect()),
    }
}

fn named(topic: &OffsetFetchRequestTopic<'_>) -> OffsetFetchRequestTopics<'static> {
    OffsetFetchRequestTopics {
        name: Cow::Owned(topic.name.to_string()),
        partition_indexes: topic.partition_indexes.clone(),
        ..OffsetFetchRequestTopics::default()
    }
}

/// The shape of the answer for one group; the first version tells an error in every partition.
fn single(
    call: &Call,
    asked: &OffsetFetchRequestGroup<'_>,
    fetched: OffsetFetchResponseGroup<'static>,
) -> Reply {
    let error_code = fetched.error_code;
    let topics = if error_code != 0 && call.version < ERROR_CODE_FROM {
        failed_topics(asked, error_code)
    } else {
        fetched.topics
    };
    let partition = |partition: OffsetFetchResponsePartitions<'static>| {
        let OffsetFetchResponsePartitions {
            partition_index,
            committed_offset,
            committed_leader_epoch,
            metadata,
            error_code,
        } = partition;
        OffsetFetchResponsePartition {
            partition_index,
            committed_offset,
            committed_leader_epoch,
            metadata,
            error_code,
        }
    };
    let topics = topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    });
    call.reply(&OffsetFetchResponse {
        topics: topics.collect(),
        error_code,
        ..OffsetFetchResponse::default()
    })
}

fn failed_topics(
    asked: &OffsetFetchRequestGroup<'_>,
    error_code: i16,
) -> Vec<OffsetFetchResponseTopics<'static>> {
    let partition = |index: &i32| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Cow::Borrowed("")),
        error_code,
    };
    let topics = asked.topics.iter().flatten();
    topics
        .map(|topic| OffsetFetchResponseTopics {
            name: Cow::Owned(topic.name.to_string()),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
            ..OffsetFetchResponseTopics::default()
        })
        .collect()
}
