//! `percolog group`: list, describe, reset, delete, delete-offsets.

use std::collections::BTreeMap;

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::messages::delete_groups::DeleteGroupsRequest;
use crate::wire::messages::list_groups::ListGroupsRequest;

use super::client::{Client, ClientOptions};
use super::connection::Reply;
use super::coordinator::Coordinated;
use super::failure::Failure;
use super::group_reset::{self, ResetArguments};
use super::output::{self, OutputFormat, Table};
use super::topic_selection::TopicSelection;
use super::{group_describe, group_offsets};

/// States that groups can be in, of both protocols.
const STATES: [&str; 7] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
    "Dead",
];
/// First version of ListGroups that knows states.
const STATES_FROM: i16 = 4;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum GroupCommand {
    /// Lists the groups of all brokers
    List {
        /// Only groups in this state, like Stable or Empty; again for more of them
        #[arg(long, value_name = "STATE", value_parser = parse_state)]
        state: Vec<&'static str>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Shows members of groups, what they are assigned, and committed offsets with their lag
    Describe {
        /// Groups to show
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
    Reset(ResetArguments),
    /// Deletes groups that have no members, with their committed offsets
    Delete {
        /// Groups to delete
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Forgets committed offsets of topics that no member reads
    DeleteOffsets {
        /// Group
        group: String,
        /// Topic, or some partitions of it; again for more of them
        #[arg(
            long,
            required = true,
            value_name = "TOPIC[:PARTITION,...]",
            value_parser = TopicSelection::parse
        )]
        topic: Vec<TopicSelection>,
        #[command(flatten)]
        client: ClientOptions,
    },
}

fn parse_state(text: &str) -> Result<&'static str, String> {
    let state = STATES.iter().find(|state| state.eq_ignore_ascii_case(text));
    let wrong = || format!("takes one of {}", STATES.join(", "));
    state.copied().ok_or_else(wrong)
}

/// Runs the command.
pub(crate) fn run(command: &GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List { state, client } => list(state, client),
        GroupCommand::Describe { groups, client } => group_describe::run(groups, client),
        GroupCommand::Reset(arguments) => group_reset::run(arguments),
        GroupCommand::Delete { groups, client } => delete(groups, client),
        GroupCommand::DeleteOffsets {
            group,
            topic,
            client,
        } => delete_offsets(group, topic, client),
    }
}

/// A group in a list. Brokers before Kafka 2.6 do not say the state, those before 3.8 not the type.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    id: String,
    protocol_type: String,
    kind: String,
    state: String,
}

fn list(states: &[&str], options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let mut groups = Vec::new();
    for node in client.node_ids()? {
        groups.extend(list_of(&mut client, node, states)?);
    }
    groups.sort();
    groups.dedup();
    if options.output == OutputFormat::Json {
        let groups = groups.iter().map(|group| {
            json!({
                "id": group.id, "protocol_type": group.protocol_type,
                "type": group.kind, "state": group.state,
            })
        });
        return output::json(&groups.collect());
    }
    let mut table = Table::new(&["group", "protocol type", "type", "state"]);
    for group in groups {
        let cells = [group.id, group.protocol_type, group.kind, group.state];
        table.row(cells.map(output::or_dash));
    }
    table.print()
}

fn list_of(client: &mut Client, node: i32, states: &[&str]) -> Result<Vec<Listed>, Failure> {
    let version = client.node(node)?.version(ApiKey::ListGroups);
    if !states.is_empty() && version.is_some_and(|version| version < STATES_FROM) {
        return Err(Failure::Protocol {
            address: format!("broker {node}"),
            reason: "it cannot list groups by their state (Kafka 2.6 and later can)".to_owned(),
        });
    }
    let request = ListGroupsRequest {
        states_filter: states.iter().map(|state| (*state).into()).collect(),
        ..Default::default()
    };
    let reply = client.ask_node(node, &request, i16::MAX)?;
    let response = reply.decode::<ListGroupsRequest<'_>>()?;
    Failure::check(
        format!("groups of broker {node}"),
        response.error_code,
        None,
    )?;
    let groups = response.groups.iter().map(|group| Listed {
        id: group.group_id.to_string(),
        protocol_type: group.protocol_type.to_string(),
        kind: group.group_type.to_string(),
        state: group.group_state.to_string(),
    });
    Ok(groups.collect())
}

fn delete(groups: &[String], options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for group in groups {
        match delete_one(&mut client, group) {
            Ok(()) => deleted.push(group),
            Err(failure) => failures.push(failure),
        }
    }
    match options.output {
        OutputFormat::Json => output::json(&json!({ "deleted": deleted }))?,
        OutputFormat::Table => {
            for group in deleted {
                output::line(&format!("deleted {group}"))?;
            }
        }
    }
    output::all_said(failures)
}

fn delete_one(client: &mut Client, group: &str) -> Result<(), Failure> {
    let request = DeleteGroupsRequest {
        groups_names: vec![group.into()],
    };
    let outcome = |reply: &Reply| {
        let response = reply.decode::<DeleteGroupsRequest<'_>>()?;
        for result in &response.results {
            Failure::check(format!("group {group}"), result.error_code, None)?;
        }
        Ok(())
    };
    Coordinated::Group(group).ask(client, &request, i16::MAX, outcome)?;
    Ok(())
}

fn delete_offsets(
    group: &str,
    selections: &[TopicSelection],
    options: &ClientOptions,
) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let committed = group_offsets::all(&mut client, group)?;
    let mut partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for selection in selections {
        let of_topic = partitions.entry(selection.topic.clone()).or_default();
        match &selection.partitions {
            Some(named) => of_topic.extend(named),
            None => of_topic.extend(
                committed
                    .get(&selection.topic)
                    .into_iter()
                    .flat_map(|c| c.keys()),
            ),
        }
        of_topic.sort_unstable();
        of_topic.dedup();
    }
    // Also without partitions: whether the group is there is the broker's answer.
    group_offsets::delete(&mut client, group, &partitions)?;
    if options.output == OutputFormat::Json {
        return output::json(&json!({ "group": group, "deleted": partitions }));
    }
    for (topic, indexes) in &partitions {
        let text = match indexes.is_empty() {
            true => format!("{topic}: nothing is committed"),
            false => format!("{topic}: forgot {}", output::ids(indexes)),
        };
        output::line(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_kafka_in_any_case() {
        assert_eq!(parse_state("stable"), Ok("Stable"));
        assert_eq!(parse_state("PreparingRebalance"), Ok("PreparingRebalance"));
        assert!(parse_state("busy").expect_err("no state").contains("Dead"));
    }
}
