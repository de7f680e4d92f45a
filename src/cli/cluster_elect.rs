//! `percolog cluster elect`: the preferred leaders back, or somebody who lacks records rather than
//! nobody.

use std::collections::BTreeMap;

use serde_json::json;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, TopicPartitions,
};

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use super::topic_selection::TopicSelection;

/// Whom an election may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The first replica, if it is in sync
    Preferred,
    /// Any replica, where nobody else is there: records may be lost
    Unclean,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ElectArguments {
    /// Whom to elect
    #[arg(value_enum)]
    kind: Kind,
    /// Topics, or partitions of them
    #[arg(
        value_name = "TOPIC[:P,P]",
        required_unless_present = "all",
        value_parser = TopicSelection::parse
    )]
    selections: Vec<TopicSelection>,
    /// All partitions that need it
    #[arg(long, conflicts_with = "selections")]
    all: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// A partition and what became of it.
struct Outcome {
    topic: String,
    partition: i32,
    code: i16,
    message: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &ElectArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let named = match arguments.all {
        true => None,
        false => Some(partitions(&mut client, &arguments.selections)?),
    };
    let topics = named.as_ref().map(|named| {
        let topics = named.iter().map(|(topic, partitions)| TopicPartitions {
            topic: topic.as_str().into(),
            partitions: partitions.clone(),
        });
        topics.collect()
    });
    let request = ElectLeadersRequest {
        election_type: arguments.kind as i8,
        topic_partitions: topics,
        timeout_ms: arguments.client.timeout_ms(),
    };
    let reply = client.change(&request, |reply| {
        let response = reply.decode::<ElectLeadersRequest<'_>>()?;
        Failure::check("election", response.error_code, None)
    })?;
    let outcomes = outcomes(&reply.decode::<ElectLeadersRequest<'_>>()?);
    print(&outcomes, arguments.client.output)?;
    let failed = outcomes.iter().filter(|outcome| !is_fine(outcome.code));
    output::all_said(failed.map(refusal).collect())
}

/// Partitions by topic; all of a topic that is named alone.
pub(super) fn partitions(
    client: &mut Client,
    selections: &[TopicSelection],
) -> Result<BTreeMap<String, Vec<i32>>, Failure> {
    let mut partitions = BTreeMap::<String, Vec<i32>>::new();
    for selection in selections {
        let numbers: Vec<i32> = match &selection.partitions {
            Some(numbers) => numbers.iter().copied().collect(),
            None => {
                let topic = client.topic(Topics::One(&selection.topic))?;
                topic.partitions.iter().map(|found| found.index).collect()
            }
        };
        let of_topic = partitions.entry(selection.topic.clone()).or_default();
        of_topic.extend(numbers);
        of_topic.sort_unstable();
        of_topic.dedup();
    }
    Ok(partitions)
}

fn outcomes(response: &ElectLeadersResponse<'_>) -> Vec<Outcome> {
    let outcomes = response.replica_election_results.iter().flat_map(|topic| {
        topic.partition_result.iter().map(|result| Outcome {
            topic: topic.topic.to_string(),
            partition: result.partition_id,
            code: result.error_code,
            message: result.error_message.as_ref().map(ToString::to_string),
        })
    });
    outcomes.collect()
}

/// Whether the partition has the leader that was asked for.
fn is_fine(code: i16) -> bool {
    code == 0 || code == ErrorCode::ElectionNotNeeded.code()
}

fn refusal(outcome: &Outcome) -> Failure {
    let subject = format!("topic {} partition {}", outcome.topic, outcome.partition);
    Failure::refused(subject, outcome.code, outcome.message.as_deref())
}

fn result(code: i16) -> &'static str {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => "elected",
        Some(ErrorCode::ElectionNotNeeded) => "not needed",
        _ => "refused",
    }
}

fn print(outcomes: &[Outcome], format: OutputFormat) -> Result<(), Failure> {
    if format == OutputFormat::Json {
        let rows = outcomes.iter().map(|outcome| {
            json!({
                "topic": outcome.topic,
                "partition": outcome.partition,
                "result": result(outcome.code),
            })
        });
        return output::json(&rows.collect());
    }
    if outcomes.is_empty() {
        return output::line("no partition needs an election");
    }
    let mut table = Table::new(&["topic", "partition", "result"]);
    for outcome in outcomes {
        table.row([
            outcome.topic.clone(),
            outcome.partition.to_string(),
            result(outcome.code).to_owned(),
        ]);
    }
    table.print()
}
