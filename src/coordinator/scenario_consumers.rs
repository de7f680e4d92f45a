//! Consumer groups in scenarios: what members ask, what is written, and what they are told.

use std::collections::BTreeMap;

use crate::wire::codec::Uuid;
use crate::wire::messages::consumer_group_describe::{DescribedGroup, Member};
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use super::consumer_records::{Change, HeldPartitions, MemberMetadata};
use super::effects::CoordinatorRecord;
use super::group_request::GroupRequest;
use super::group_world::FewTopics;
use super::scenario_answers::{error, short, with_instance};
use super::scenario_requests::Arguments;

/// A heartbeat: of a member that joins if no epoch is given. What is not given is not said.
pub(super) fn heartbeat(arguments: &Arguments) -> GroupRequest<'static> {
    let epoch = arguments.number("epoch", 0);
    let given = |name| arguments.optional(name).is_some();
    let names = || arguments.list("topics").into_iter().map(Into::into);
    let owned = arguments.offsets().into_iter();
    let owned = owned.map(|(name, partitions)| TopicPartitions {
        topic_id: FewTopics::id(&name, 1),
        partitions: partitions.into_iter().map(|(index, ..)| index).collect(),
    });
    let owned: Vec<TopicPartitions> = owned.collect();
    GroupRequest::ConsumerHeartbeat(ConsumerGroupHeartbeatRequest {
        group_id: arguments.group(),
        member_id: arguments.member(),
        member_epoch: epoch,
        instance_id: arguments.optional("instance"),
        rebalance_timeout_ms: arguments.number("rebalance", if epoch == 0 { 60_000 } else { -1 }),
        subscribed_topic_names: given("topics").then(|| names().collect()),
        subscribed_topic_regex: arguments.optional("regex"),
        server_assignor: arguments.optional("assignor"),
        topic_partitions: (epoch == 0 || given("offsets")).then_some(owned),
        ..ConsumerGroupHeartbeatRequest::default()
    })
}

pub(super) fn heartbeat_text(answer: &ConsumerGroupHeartbeatResponse<'_>) -> String {
    if answer.error_code != 0 {
        let why = answer.error_message.as_deref().unwrap_or("");
        return format!("{} {why}", error(answer.error_code));
    }
    let member = short(answer.member_id.as_deref().unwrap_or(""));
    let told = answer.assignment.as_ref().map(|assignment| {
        let topics = assignment.topic_partitions.iter();
        let topics = topics.map(|topic| (topic.topic_id, topic.partitions.clone()));
        format!(" with [{}]", places(topics))
    });
    let told = told.unwrap_or_default();
    format!("{member} in epoch {}{told}", answer.member_epoch)
}

pub(super) fn described_text(group: &DescribedGroup<'_>) -> String {
    let members = group.members.iter().map(|member| {
        let Member {
            assignment,
            target_assignment,
            ..
        } = member;
        let id = with_instance(&member.member_id, member.instance_id.as_deref());
        let text = |assignment: &crate::wire::messages::consumer_group_describe::Assignment<'_>| {
            let topics = assignment.topic_partitions.iter();
            places(topics.map(|topic| (topic.topic_id, topic.partitions.clone())))
        };
        format!(" {id}:[{}]:[{}]", text(assignment), text(target_assignment))
    });
    format!(
        "{} {} by {:?}{}",
        error(group.error_code),
        group.group_state,
        group.assignor_name,
        members.collect::<String>()
    )
}

/// The topic of an id that [`FewTopics`] made.
fn topic(id: Uuid) -> String {
    let name = id.0.into_iter().take_while(u8::is_ascii_graphic);
    name.map(char::from).collect()
}

fn places(topics: impl Iterator<Item = (Uuid, Vec<i32>)>) -> String {
    let places = topics.flat_map(|(id, partitions)| {
        let place = move |partition| format!("{}/{partition}", topic(id));
        partitions.into_iter().map(place)
    });
    places.collect::<Vec<String>>().join("+")
}

/// A partition with the epoch in which its member got it.
fn held(held: &HeldPartitions) -> String {
    let places = held
        .iter()
        .flat_map(|(id, partitions): (&Uuid, &BTreeMap<i32, i32>)| {
            let place = move |(partition, epoch)| format!("{}/{partition}@{epoch}", topic(*id));
            partitions.iter().map(place)
        });
    places.collect::<Vec<String>>().join("+")
}

fn member_text(id: &str, member: &MemberMetadata) -> String {
    let id = with_instance(id, member.instance_id.as_deref());
    let topics: Vec<&str> = member.topics.iter().map(String::as_str).collect();
    let regex = match member.regex.as_str() {
        "" => String::new(),
        regex => format!(" like {regex}"),
    };
    let classic = if member.classic.is_some() {
        " classic"
    } else {
        ""
    };
    format!("member {id} of [{}]{regex}{classic}", topics.join("+"))
}

/// A record of a consumer group as text; None if it is another's.
pub(super) fn change_text(record: &CoordinatorRecord) -> Option<String> {
    let decoded = Change::decode(&record.key, record.value.as_deref());
    let (group, change) = decoded.expect("its own record")?;
    let verb = if change.is_tombstone() {
        "forget"
    } else {
        "write"
    };
    let what = match &change {
        Change::Group(None) => "epoch".to_owned(),
        Change::Group(Some((epoch, _))) => format!("epoch {epoch}"),
        Change::PartitionMetadata(_) => "metadata".to_owned(),
        Change::Member(id, None) => format!("member {}", short(id)),
        Change::Member(id, Some(member)) => member_text(id, member),
        Change::TargetEpoch(None) => "targets".to_owned(),
        Change::TargetEpoch(Some((epoch, _))) => format!("targets of epoch {epoch}"),
        Change::Target(id, None) => format!("target of {}", short(id)),
        Change::Target(id, Some(target)) => {
            let topics = target.iter();
            let topics = topics.map(|(id, target)| (*id, target.iter().copied().collect()));
            format!("target of {} [{}]", short(id), places(topics))
        }
        Change::Current(id, None) => format!("state of {}", short(id)),
        Change::Current(id, Some(current)) => format!(
            "state of {} {:?} in epoch {} after {} [{}] without [{}]",
            short(id),
            current.state,
            current.epoch,
            current.previous_epoch,
            held(&current.assigned),
            held(&current.revoking),
        ),
        Change::Regex(regex, None) => format!("matches of {regex}"),
        Change::Regex(regex, Some(resolved)) => {
            let topics: Vec<&str> = resolved.topics.iter().map(String::as_str).collect();
            format!("matches of {regex} [{}]", topics.join("+"))
        }
    };
    Some(format!("{verb} {group} {what}"))
}
