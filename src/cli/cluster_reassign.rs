//! `percolog cluster reassign`: which brokers hold partitions.

use serde_json::json;

use crate::wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use crate::wire::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;

use super::client::{Client, ClientOptions};
use super::cluster_elect::partitions;
use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use super::topic_selection::TopicSelection;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["to", "cancel", "list"]))]
pub(crate) struct ReassignArguments {
    /// Topics, or partitions of them
    #[arg(
        value_name = "TOPIC[:P,P]",
        required_unless_present = "list",
        value_parser = TopicSelection::parse
    )]
    selections: Vec<TopicSelection>,
    /// Brokers that shall hold them, the preferred leader first
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    to: Option<Vec<i32>>,
    /// Goes back to the brokers that held them before
    #[arg(long)]
    cancel: bool,
    /// Shows what is under way
    #[arg(long, conflicts_with = "selections")]
    list: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// A partition, and the brokers that shall hold it; none to cancel.
pub(super) struct Target {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) replicas: Option<Vec<i32>>,
}

/// A partition on its way.
pub(super) struct Ongoing {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) adding: Vec<i32>,
    pub(super) removing: Vec<i32>,
}

/// Runs the command.
pub(crate) fn run(arguments: &ReassignArguments) -> Result<(), Failure> {
    let options = &arguments.client;
    let mut client = Client::connect(options)?;
    if arguments.list {
        return print(&ongoing(&mut client, options)?, options.output);
    }
    let named = partitions(&mut client, &arguments.selections)?;
    let targets = named.into_iter().flat_map(|(topic, numbers)| {
        let replicas = arguments.to.clone();
        numbers.into_iter().map(move |partition| Target {
            topic: topic.clone(),
            partition,
            replicas: replicas.clone(),
        })
    });
    let targets: Vec<Target> = targets.collect();
    reassign(&mut client, options, &targets)?;
    let count = targets.len();
    let plural = if count == 1 { "" } else { "s" };
    let what = if arguments.cancel {
        "cancelled"
    } else {
        "started"
    };
    match options.output {
        OutputFormat::Table => output::line(&format!("{what}: {count} partition{plural}")),
        OutputFormat::Json => output::json(&json!({ what: count })),
    }
}

/// Starts or cancels; fails with everything that was refused.
pub(super) fn reassign(
    client: &mut Client,
    options: &ClientOptions,
    targets: &[Target],
) -> Result<(), Failure> {
    let mut topics = Vec::<ReassignableTopic<'_>>::new();
    for target in targets {
        if topics.last().is_none_or(|last| last.name != target.topic) {
            topics.push(ReassignableTopic {
                name: target.topic.as_str().into(),
                partitions: Vec::new(),
            });
        }
        let last = topics.last_mut().expect("just pushed");
        last.partitions.push(ReassignablePartition {
            partition_index: target.partition,
            replicas: target.replicas.clone(),
        });
    }
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: options.timeout_ms(),
        topics,
        ..Default::default()
    };
    let reply = client.change(&request, |reply| {
        let response = reply.decode::<AlterPartitionReassignmentsRequest<'_>>()?;
        let message = response.error_message.as_deref();
        Failure::check("reassignment", response.error_code, message)
    })?;
    let response = reply.decode::<AlterPartitionReassignmentsRequest<'_>>()?;
    let results = response.responses.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| {
            let subject = format!(
                "topic {} partition {}",
                topic.name, partition.partition_index
            );
            let message = partition.error_message.as_deref();
            Failure::check(subject, partition.error_code, message)
        })
    });
    output::all_said(results.filter_map(Result::err).collect())
}

/// What is under way.
pub(super) fn ongoing(
    client: &mut Client,
    options: &ClientOptions,
) -> Result<Vec<Ongoing>, Failure> {
    let request = ListPartitionReassignmentsRequest {
        timeout_ms: options.timeout_ms(),
        ..Default::default()
    };
    let reply = client.change(&request, |reply| {
        let response = reply.decode::<ListPartitionReassignmentsRequest<'_>>()?;
        let message = response.error_message.as_deref();
        Failure::check("reassignments", response.error_code, message)
    })?;
    let response = reply.decode::<ListPartitionReassignmentsRequest<'_>>()?;
    let partitions = response.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| Ongoing {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            replicas: partition.replicas.clone(),
            adding: partition.adding_replicas.clone(),
            removing: partition.removing_replicas.clone(),
        })
    });
    Ok(partitions.collect())
}

fn print(ongoing: &[Ongoing], format: OutputFormat) -> Result<(), Failure> {
    if format == OutputFormat::Json {
        let rows = ongoing.iter().map(|partition| {
            json!({
                "topic": partition.topic,
                "partition": partition.partition,
                "replicas": partition.replicas,
                "adding": partition.adding,
                "removing": partition.removing,
            })
        });
        return output::json(&rows.collect());
    }
    if ongoing.is_empty() {
        return output::line("no partition is being reassigned");
    }
    let mut table = Table::new(&["topic", "partition", "replicas", "adding", "removing"]);
    for partition in ongoing {
        table.row([
            partition.topic.clone(),
            partition.partition.to_string(),
            output::ids(&partition.replicas),
            output::ids(&partition.adding),
            output::ids(&partition.removing),
        ]);
    }
    table.print()
}
