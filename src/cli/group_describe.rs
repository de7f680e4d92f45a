//! `percolog group describe`: members, what they are assigned, and how far behind they are.

use std::collections::BTreeMap;

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_describe::{self, ConsumerGroupDescribeRequest};
use crate::wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroupMember};

use super::client::{Client, ClientOptions, Topics};
use super::connection::Reply;
use super::coordinator::Coordinated;
use super::failure::Failure;
use super::group_offsets::{self, Committed, Offsets};
use super::isolation::Isolation;
use super::log_offsets::{self, Place};
use super::member_protocol::{self, Share};
use super::metadata::Topic;
use super::output::{self, OutputFormat, Table};

/// A group of either protocol.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) state: String,
    kind: &'static str,
    protocol_type: String,
    /// The protocol that members agreed on, or the assignor of the broker.
    protocol: String,
    coordinator: i32,
    pub(crate) members: Vec<Member>,
}

/// One of its members.
#[derive(Debug)]
pub(crate) struct Member {
    id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    /// None when the members are not consumers, or hide what it is.
    assigned: Option<Share>,
}

/// A partition with a committed offset, or assigned to a member.
#[derive(Debug)]
struct Progress {
    topic: String,
    partition: i32,
    committed: Option<Committed>,
    /// None when the partition is gone or has no leader.
    log: Option<(i64, i64)>,
}

impl Progress {
    /// Records that are there and not yet read. Those that are gone count no more.
    fn lag(&self) -> Option<i64> {
        let (committed, (_, end)) = (self.committed.as_ref()?, self.log?);
        Some((end - committed.offset).max(0))
    }
}

/// Runs the command. Groups that cannot be shown do not keep others from it.
pub(crate) fn run(groups: &[String], options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let (mut documents, mut failures) = (Vec::new(), Vec::new());
    let mut shown = 0;
    for group in groups {
        let described = describe(&mut client, group).and_then(|described| {
            let progress = progress(&mut client, group, &described)?;
            Ok((described, progress))
        });
        match described {
            Err(failure) => failures.push(failure),
            Ok((described, progress)) => match options.output {
                OutputFormat::Json => documents.push(document(group, &described, &progress)),
                OutputFormat::Table => {
                    if shown > 0 {
                        output::line("")?;
                    }
                    print(&client, group, &described, &progress)?;
                    shown += 1;
                }
            },
        }
    }
    if options.output == OutputFormat::Json {
        output::json(&documents.into())?;
    }
    output::all_said(failures)
}

/// What the coordinator says of a group.
pub(crate) fn describe(client: &mut Client, group: &str) -> Result<Group, Failure> {
    let coordinator = Coordinated::Group(group).find(client)?;
    let version = client
        .node(coordinator)?
        .version(ApiKey::ConsumerGroupDescribe);
    if version.is_some() {
        match describe_consumer(client, group, coordinator) {
            Err(failure) if is_of_another_kind(&failure) => {}
            described => return described,
        }
    }
    describe_classic(client, group, coordinator)
}

fn is_of_another_kind(failure: &Failure) -> bool {
    matches!(
        failure.error_code(),
        Some(ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion)
    )
}

fn describe_consumer(client: &mut Client, group: &str, coordinator: i32) -> Result<Group, Failure> {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.into()],
        ..Default::default()
    };
    let outcome = |reply: &Reply| {
        let response = reply.decode::<ConsumerGroupDescribeRequest<'_>>()?;
        for described in &response.groups {
            let message = described.error_message.as_deref();
            Failure::check(format!("group {group}"), described.error_code, message)?;
        }
        Ok(())
    };
    let reply = Coordinated::Group(group).ask(client, &request, i16::MAX, outcome)?;
    let response = reply.decode::<ConsumerGroupDescribeRequest<'_>>()?;
    let described = response.groups.into_iter().next();
    let described = described.ok_or_else(|| nothing_said(group))?;
    Ok(Group {
        state: described.group_state.to_string(),
        kind: "consumer",
        protocol_type: "consumer".to_owned(),
        protocol: described.assignor_name.to_string(),
        coordinator,
        members: described.members.iter().map(consumer_member).collect(),
    })
}

fn consumer_member(member: &consumer_group_describe::Member<'_>) -> Member {
    let topics = member.assignment.topic_partitions.iter();
    let assigned = topics.map(|topic| {
        let mut partitions = topic.partitions.clone();
        partitions.sort_unstable();
        (topic.topic_name.to_string(), partitions)
    });
    Member {
        id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: Some(assigned.collect()),
    }
}

fn describe_classic(client: &mut Client, group: &str, coordinator: i32) -> Result<Group, Failure> {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..Default::default()
    };
    let outcome = |reply: &Reply| {
        let response = reply.decode::<DescribeGroupsRequest<'_>>()?;
        for described in &response.groups {
            let message = described.error_message.as_deref();
            Failure::check(format!("group {group}"), described.error_code, message)?;
        }
        Ok(())
    };
    let reply = Coordinated::Group(group).ask(client, &request, i16::MAX, outcome)?;
    let response = reply.decode::<DescribeGroupsRequest<'_>>()?;
    let described = response.groups.into_iter().next();
    let described = described.ok_or_else(|| nothing_said(group))?;
    // Before version 6 this is how the broker says that there is none.
    if described.group_state == "Dead" {
        let code = ErrorCode::GroupIdNotFound.code();
        return Err(Failure::refused(format!("group {group}"), code, None));
    }
    let are_consumers = described.protocol_type == "consumer";
    let members = described.members.iter();
    Ok(Group {
        state: described.group_state.to_string(),
        kind: "classic",
        protocol_type: described.protocol_type.to_string(),
        protocol: described.protocol_data.to_string(),
        coordinator,
        members: members
            .map(|member| classic_member(member, are_consumers))
            .collect(),
    })
}

fn nothing_said(group: &str) -> Failure {
    Failure::Protocol {
        address: format!("coordinator of group {group}"),
        reason: "a description of no group".to_owned(),
    }
}

fn classic_member(member: &DescribedGroupMember<'_>, is_consumer: bool) -> Member {
    let assigned = is_consumer.then(|| member_protocol::assigned(&member.member_assignment));
    Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: assigned.flatten(),
    }
}

fn progress(client: &mut Client, group: &str, described: &Group) -> Result<Vec<Progress>, Failure> {
    let mut wanted: Offsets<Option<Committed>> = BTreeMap::new();
    for (topic, offsets) in group_offsets::all(client, group)? {
        let offsets = offsets.into_iter();
        let offsets = offsets.map(|(partition, committed)| (partition, Some(committed)));
        wanted.insert(topic, offsets.collect());
    }
    let assigned = described
        .members
        .iter()
        .filter_map(|it| it.assigned.as_ref());
    for (topic, partitions) in assigned.flatten() {
        let of_topic = wanted.entry(topic.clone()).or_default();
        for partition in partitions {
            of_topic.entry(*partition).or_default();
        }
    }
    let topics = client.metadata(Topics::All)?.topics;
    let mut progress = Vec::new();
    for (name, partitions) in wanted {
        let topic = topics.iter().find(|topic| topic.name == name).cloned();
        let ranges = match topic {
            Some(topic) => log_ranges(client, topic, &partitions)?,
            None => BTreeMap::new(),
        };
        progress.extend(
            partitions
                .into_iter()
                .map(|(partition, committed)| Progress {
                    topic: name.clone(),
                    partition,
                    committed,
                    log: ranges.get(&partition).copied(),
                }),
        );
    }
    Ok(progress)
}

/// Where the logs begin and end of those partitions that have a leader.
fn log_ranges<T>(
    client: &mut Client,
    mut topic: Topic,
    partitions: &BTreeMap<i32, T>,
) -> Result<BTreeMap<i32, (i64, i64)>, Failure> {
    let led = partitions.keys().copied();
    let led: Vec<i32> = led.filter(|index| topic.leader(*index).is_ok()).collect();
    let mut find = |place| log_offsets::find(client, &mut topic, &led, place, Isolation::default());
    let (starts, ends) = (find(Place::Beginning)?, find(Place::End)?);
    let range = |index: &i32| Some((*index, (*starts.get(index)?, *ends.get(index)?)));
    Ok(led.iter().filter_map(range).collect())
}

fn document(id: &str, group: &Group, progress: &[Progress]) -> serde_json::Value {
    let members = group.members.iter().map(|member| {
        json!({
            "id": member.id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "assigned": member.assigned,
        })
    });
    let offsets = progress.iter().map(|it| {
        json!({
            "topic": it.topic,
            "partition": it.partition,
            "committed": it.committed.as_ref().map(|committed| committed.offset),
            "log_start": it.log.map(|(start, _)| start),
            "log_end": it.log.map(|(_, end)| end),
            "lag": it.lag(),
            "metadata": it.committed.as_ref().map(|committed| &committed.metadata),
        })
    });
    json!({
        "id": id,
        "state": group.state,
        "type": group.kind,
        "protocol_type": group.protocol_type,
        "protocol": group.protocol,
        "coordinator": group.coordinator,
        "members": members.collect::<Vec<_>>(),
        "offsets": offsets.collect::<Vec<_>>(),
    })
}

fn print(client: &Client, id: &str, group: &Group, progress: &[Progress]) -> Result<(), Failure> {
    let address = client.address(group.coordinator).unwrap_or("-");
    output::line(&format!(
        "{id}  state {}  type {}  protocol {}  coordinator {} ({address})",
        output::or_dash(group.state.clone()),
        group.kind,
        output::or_dash(group.protocol.clone()),
        group.coordinator,
    ))?;
    let mut table = Table::new(&["member", "instance", "client", "host", "assigned"]);
    for member in &group.members {
        let assigned = member.assigned.as_ref().map(assigned_text);
        table.row([
            member.id.clone(),
            output::or_dash(member.instance_id.clone().unwrap_or_default()),
            output::or_dash(member.client_id.clone()),
            output::or_dash(member.host.clone()),
            output::or_dash(assigned.unwrap_or_default()),
        ]);
    }
    if !group.members.is_empty() {
        table.print()?;
    }
    if progress.is_empty() {
        return Ok(());
    }
    output::line("")?;
    print_progress(progress)
}

fn print_progress(progress: &[Progress]) -> Result<(), Failure> {
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let header = [
        "topic",
        "partition",
        "committed",
        "start",
        "end",
        "lag",
        "metadata",
    ];
    let mut table = Table::new(&header);
    for it in progress {
        let committed = it.committed.as_ref();
        let metadata = committed.map(|committed| committed.metadata.clone());
        table.row([
            it.topic.clone(),
            it.partition.to_string(),
            number(committed.map(|committed| committed.offset)),
            number(it.log.map(|(start, _)| start)),
            number(it.log.map(|(_, end)| end)),
            number(it.lag()),
            output::or_dash(metadata.unwrap_or_default()),
        ]);
    }
    table.print()
}

/// `orders:0,1 invoices:3`
fn assigned_text(assigned: &Share) -> String {
    let topics = assigned
        .iter()
        .filter(|(_, partitions)| !partitions.is_empty());
    let topics = topics.map(|(topic, partitions)| format!("{topic}:{}", output::ids(partitions)));
    topics.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_never_negative_and_unknown_without_both_ends() {
        let of = |offset: Option<i64>, log| {
            let committed = offset.map(|offset| Committed {
                offset,
                metadata: String::new(),
            });
            let (topic, partition) = ("t".to_owned(), 0);
            Progress {
                topic,
                partition,
                committed,
                log,
            }
            .lag()
        };
        assert_eq!(of(Some(3), Some((0, 10))), Some(7));
        assert_eq!(of(Some(12), Some((0, 10))), Some(0));
        assert_eq!(of(None, Some((0, 10))), None);
        assert_eq!(of(Some(3), None), None);
    }
}
