//! What a shard leaves, as text.

use crate::wire::codec::Reader;
use crate::wire::error_code::ErrorCode;
use crate::wire::message::Message;
use crate::wire::messages::join_group::JoinGroupResponse;
use crate::wire::messages::offset_fetch::OffsetFetchResponseGroup;
use crate::wire::messages::records_consumer_protocol_subscription::ConsumerProtocolSubscription;
use crate::wire::messages::records_group_metadata::GroupMetadataValue;

use super::effects::CoordinatorRecord;
use super::group_records::{GroupRecord, decode};
use super::group_request::GroupAnswer;
use super::group_world::WALL_MS;
use super::scenario_consumers::{change_text, described_text, heartbeat_text};
use super::scenario_requests::ID_MIDDLE;

/// A member id as scenarios have it.
pub(super) fn short(id: &str) -> String {
    match id.split_once(ID_MIDDLE) {
        Some((client, number)) => {
            let number = u64::from_str_radix(number, 16).expect("the number of an id");
            format!("{client}#{number}")
        }
        None => id.to_owned(),
    }
}

pub(super) fn error(code: i16) -> &'static str {
    ErrorCode::from_code(code).map_or("?", ErrorCode::name)
}

/// A subscription as its topics, anything else as text.
fn metadata(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let parsed = reader
        .int16()
        .and_then(|_| ConsumerProtocolSubscription::decode(&mut reader, 0));
    match parsed {
        Ok(subscription) => format!("[{}]", subscription.topics.join("+")),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

pub(super) fn with_instance(id: &str, instance: Option<&str>) -> String {
    instance.map_or_else(|| short(id), |instance| format!("{}/{instance}", short(id)))
}

pub(super) fn record_text(record: &CoordinatorRecord) -> String {
    match decode(&record.key, record.value.as_deref()).expect("its own record") {
        GroupRecord::Offset(key, None) => {
            format!("forget {} {}/{}", key.group, key.topic, key.partition)
        }
        GroupRecord::Offset(key, Some(value)) => {
            let mut text = format!("write {} {}/{}", key.group, key.topic, key.partition);
            text += &format!("={}:{}", value.offset, value.metadata);
            text += &format!(" at {}", value.commit_timestamp - WALL_MS);
            if value.expire_timestamp != -1 {
                text += &format!(" until {}", value.expire_timestamp - WALL_MS);
            }
            text
        }
        GroupRecord::Group(group, None) => format!("forget {group}"),
        GroupRecord::Group(group, Some(value)) => format!("write {group} {}", group_text(&value)),
        GroupRecord::Unknown => change_text(record).expect("its own record"),
    }
}

fn group_text(value: &GroupMetadataValue<'_>) -> String {
    let members = value.members.iter().map(|member| {
        let id = with_instance(&member.member_id, member.group_instance_id.as_deref());
        let assignment = String::from_utf8_lossy(&member.assignment);
        let assignment = assignment.escape_debug();
        format!(" {id}:{}:{assignment}", metadata(&member.subscription))
    });
    format!(
        "generation {} of {:?} by {:?}, leader {:?}, since {}{}",
        value.generation,
        value.protocol_type,
        value.protocol.as_deref().unwrap_or("-"),
        short(value.leader.as_deref().unwrap_or("-")),
        value.current_state_timestamp - WALL_MS,
        members.collect::<String>(),
    )
}

fn join_text(answer: &JoinGroupResponse<'_>) -> String {
    let member = short(&answer.member_id);
    if answer.error_code != 0 {
        return format!("{} member={member}", error(answer.error_code));
    }
    let members = answer.members.iter().map(|member| {
        let id = with_instance(&member.member_id, member.group_instance_id.as_deref());
        format!(" {id}:{}", metadata(&member.metadata))
    });
    format!(
        "joined {} as {member} by {}, leader {}{}{}",
        answer.generation_id,
        answer.protocol_name.as_deref().unwrap_or("-"),
        short(&answer.leader),
        if answer.skip_assignment { ", skip" } else { "" },
        members.collect::<String>(),
    )
}

fn fetch_text(answer: &OffsetFetchResponseGroup<'_>) -> String {
    let mut text = String::from("fetched");
    for topic in &answer.topics {
        for found in &topic.partitions {
            let place = format!(" {}/{}", topic.name, found.partition_index);
            text += &match found.error_code {
                0 => {
                    let metadata = found.metadata.as_deref().unwrap_or("-");
                    format!("{place}={}:{metadata}", found.committed_offset)
                }
                code => format!("{place}={}", error(code)),
            };
        }
    }
    text
}

fn committed(topic: &str, partition: i32, code: i16) -> String {
    format!(" {topic}/{partition}={}", error(code))
}

pub(super) fn answer_text(answer: &GroupAnswer) -> String {
    match answer {
        GroupAnswer::Join(answer) => join_text(answer),
        GroupAnswer::Sync(answer) if answer.error_code == 0 => {
            let protocol = answer.protocol_name.as_deref().unwrap_or("-");
            let assignment = String::from_utf8_lossy(&answer.assignment);
            let assignment = assignment.escape_debug();
            format!("synced by {protocol}: {assignment}")
        }
        GroupAnswer::Sync(answer) => error(answer.error_code).to_owned(),
        GroupAnswer::Heartbeat(answer) => error(answer.error_code).to_owned(),
        GroupAnswer::Leave(answer) => {
            let members = answer.members.iter().map(|member| {
                let id = with_instance(&member.member_id, member.group_instance_id.as_deref());
                format!(" {id}={}", error(member.error_code))
            });
            error(answer.error_code).to_owned() + &members.collect::<String>()
        }
        GroupAnswer::OffsetCommit(answer) => {
            let topics = answer.topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| committed(&topic.name, p.partition_index, p.error_code))
            });
            format!("committed{}", topics.collect::<String>())
        }
        GroupAnswer::TxnOffsetCommit(answer) => {
            let topics = answer.topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| committed(&topic.name, p.partition_index, p.error_code))
            });
            format!("committed{}", topics.collect::<String>())
        }
        GroupAnswer::OffsetFetch(answer) => fetch_text(answer),
        GroupAnswer::OffsetDelete(answer) => {
            let topics = answer.topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|p| committed(&topic.name, p.partition_index, p.error_code))
            });
            error(answer.error_code).to_owned() + &topics.collect::<String>()
        }
        GroupAnswer::DeleteGroup(code) => error(*code).to_owned(),
        GroupAnswer::Describe(answer) => {
            let members = answer.members.iter().map(|member| {
                let id = with_instance(&member.member_id, member.group_instance_id.as_deref());
                let assignment = String::from_utf8_lossy(&member.member_assignment);
                let assignment = assignment.escape_debug();
                format!(" {id}:{}:{assignment}", metadata(&member.member_metadata))
            });
            let state = format!("{} {}", error(answer.error_code), answer.group_state);
            let protocol = format!("{:?} by {:?}", answer.protocol_type, answer.protocol_data);
            format!("{state} {protocol}{}", members.collect::<String>())
        }
        GroupAnswer::List(groups) => {
            let groups = groups.iter().map(|group| {
                let protocol_type = &group.protocol_type;
                format!(" {}:{}:{protocol_type}", group.group_id, group.group_state)
            });
            format!("listed{}", groups.collect::<String>())
        }
        GroupAnswer::ConsumerHeartbeat(answer) => heartbeat_text(answer),
        GroupAnswer::ConsumerDescribe(answer) if answer.error_code == 0 => described_text(answer),
        GroupAnswer::ConsumerDescribe(answer) => {
            let message = answer.error_message.as_deref().unwrap_or("");
            format!("{} {message}", error(answer.error_code))
        }
    }
}
