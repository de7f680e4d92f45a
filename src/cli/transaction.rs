//! `percolog transaction`: what coordinators say of transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::messages::describe_transactions::DescribeTransactionsRequest;
use crate::wire::messages::list_transactions::ListTransactionsRequest;

use super::client::{Client, ClientOptions};
use super::connection::Reply;
use super::coordinator::Coordinated;
use super::failure::Failure;
use super::output::{self, OutputFormat, Table};
use super::transaction_abort::{self, AbortArguments};
use super::transaction_hanging::{self, HangingArguments};
use super::transaction_producers::{self, ProducersArguments};
use super::{duration, timestamp};

/// States that transactions can be in.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];
/// First version of ListTransactions that knows how old a transaction is.
const AGE_FROM: i16 = 1;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TransactionCommand {
    /// Lists transactional ids of all brokers
    List {
        /// Only those in this state, like Ongoing; again for more of them
        #[arg(long, value_name = "STATE", value_parser = parse_state)]
        state: Vec<&'static str>,
        /// Only those whose transaction is open for longer, like 90s, 15m or 2h
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        older_than: Option<Duration>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Shows the transactions of transactional ids
    Describe {
        /// Transactional ids to show
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
    Producers(ProducersArguments),
    Abort(AbortArguments),
    FindHanging(HangingArguments),
}

fn parse_state(text: &str) -> Result<&'static str, String> {
    let state = STATES.iter().find(|state| state.eq_ignore_ascii_case(text));
    let wrong = || format!("takes one of {}", STATES.join(", "));
    state.copied().ok_or_else(wrong)
}

/// Runs the command.
pub(crate) fn run(command: &TransactionCommand) -> Result<(), Failure> {
    match command {
        TransactionCommand::List {
            state,
            older_than,
            client,
        } => list(state, *older_than, client),
        TransactionCommand::Describe { ids, client } => describe(ids, client),
        TransactionCommand::Producers(arguments) => transaction_producers::run(arguments),
        TransactionCommand::Abort(arguments) => transaction_abort::run(arguments),
        TransactionCommand::FindHanging(arguments) => transaction_hanging::run(arguments),
    }
}

/// A transactional id in a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) id: String,
    coordinator: i32,
    pub(crate) producer_id: i64,
    state: String,
}

/// The transactional ids of all brokers that match.
pub(crate) fn listed(
    client: &mut Client,
    request: &ListTransactionsRequest<'_>,
) -> Result<Vec<Listed>, Failure> {
    let mut found = Vec::new();
    for node in client.node_ids()? {
        let version = client.node(node)?.version(ApiKey::ListTransactions);
        if request.duration_filter >= 0 && version.is_some_and(|version| version < AGE_FROM) {
            return Err(Failure::Protocol {
                address: format!("broker {node}"),
                reason: "it does not say how old transactions are (Kafka 3.8 and later do)"
                    .to_owned(),
            });
        }
        let reply = client.ask_node(node, request, i16::MAX)?;
        let response = reply.decode::<ListTransactionsRequest<'_>>()?;
        let subject = format!("transactions of broker {node}");
        Failure::check(subject, response.error_code, None)?;
        if let Some(state) = response.unknown_state_filters.first() {
            return Err(Failure::Protocol {
                address: format!("broker {node}"),
                reason: format!("it does not know the state {state}"),
            });
        }
        found.extend(response.transaction_states.iter().map(|it| Listed {
            id: it.transactional_id.to_string(),
            coordinator: node,
            producer_id: it.producer_id,
            state: it.transaction_state.to_string(),
        }));
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn list(
    states: &[&str],
    older_than: Option<Duration>,
    options: &ClientOptions,
) -> Result<(), Failure> {
    let age_ms = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let request = ListTransactionsRequest {
        state_filters: states.iter().map(|state| (*state).into()).collect(),
        duration_filter: older_than.map_or(-1, age_ms),
        ..Default::default()
    };
    let mut client = Client::connect(options)?;
    let found = listed(&mut client, &request)?;
    if options.output == OutputFormat::Json {
        let found = found.iter().map(|it| {
            json!({
                "id": it.id, "coordinator": it.coordinator,
                "producer_id": it.producer_id, "state": it.state,
            })
        });
        return output::json(&found.collect());
    }
    let mut table = Table::new(&["transactional id", "coordinator", "producer id", "state"]);
    for it in found {
        table.row([
            it.id,
            it.coordinator.to_string(),
            it.producer_id.to_string(),
            it.state,
        ]);
    }
    table.print()
}

/// What its coordinator says of a transactional id.
#[derive(Debug)]
pub(crate) struct Described {
    coordinator: i32,
    state: String,
    producer_id: i64,
    producer_epoch: i16,
    timeout_ms: i32,
    /// Negative when no transaction is open.
    start_ms: i64,
    pub(crate) partitions: BTreeMap<String, Vec<i32>>,
}

/// Asks the coordinator of a transactional id.
pub(crate) fn described(client: &mut Client, id: &str) -> Result<Described, Failure> {
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![id.into()],
    };
    let coordinated = Coordinated::Transaction(id);
    let outcome = |reply: &Reply| {
        let response = reply.decode::<DescribeTransactionsRequest<'_>>()?;
        for state in &response.transaction_states {
            Failure::check(coordinated.subject(), state.error_code, None)?;
        }
        Ok(())
    };
    let coordinator = coordinated.find(client)?;
    let reply = coordinated.ask(client, &request, i16::MAX, outcome)?;
    let response = reply.decode::<DescribeTransactionsRequest<'_>>()?;
    let state = response.transaction_states.into_iter().next();
    let state = state.ok_or_else(|| Failure::Protocol {
        address: format!("coordinator of {}", coordinated.subject()),
        reason: "a description of nothing".to_owned(),
    })?;
    let topics = state.topics.into_iter().map(|topic| {
        let mut partitions = topic.partitions;
        partitions.sort_unstable();
        (topic.topic.into_owned(), partitions)
    });
    Ok(Described {
        coordinator,
        state: state.transaction_state.to_string(),
        producer_id: state.producer_id,
        producer_epoch: state.producer_epoch,
        timeout_ms: state.transaction_timeout_ms,
        start_ms: state.transaction_start_time_ms,
        partitions: topics.collect(),
    })
}

fn describe(ids: &[String], options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for id in ids {
        match described(&mut client, id) {
            Ok(described) => found.push((id, described)),
            Err(failure) => failures.push(failure),
        }
    }
    match options.output {
        OutputFormat::Json => describe_json(&found)?,
        OutputFormat::Table if found.is_empty() => {}
        OutputFormat::Table => describe_table(&found)?,
    }
    output::all_said(failures)
}

fn describe_json(found: &[(&String, Described)]) -> Result<(), Failure> {
    let found = found.iter().map(|(id, it)| {
        json!({
            "id": id,
            "coordinator": it.coordinator,
            "state": it.state,
            "producer_id": it.producer_id,
            "producer_epoch": it.producer_epoch,
            "timeout_ms": it.timeout_ms,
            "start_ms": (it.start_ms >= 0).then_some(it.start_ms),
            "partitions": it.partitions,
        })
    });
    output::json(&found.collect())
}

fn describe_table(found: &[(&String, Described)]) -> Result<(), Failure> {
    let header = [
        "transactional id",
        "state",
        "producer id",
        "epoch",
        "timeout",
        "start",
        "coordinator",
        "partitions",
    ];
    let mut table = Table::new(&header);
    for (id, it) in found {
        let partitions = it.partitions.iter();
        let partitions =
            partitions.map(|(topic, partitions)| format!("{topic}:{}", output::ids(partitions)));
        let partitions: Vec<String> = partitions.collect();
        table.row([
            (*id).clone(),
            it.state.clone(),
            it.producer_id.to_string(),
            it.producer_epoch.to_string(),
            format!("{} ms", it.timeout_ms),
            timestamp::format(it.start_ms),
            it.coordinator.to_string(),
            output::or_dash(partitions.join(" ")),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_kafka_in_any_case() {
        assert_eq!(parse_state("ongoing"), Ok("Ongoing"));
        assert_eq!(parse_state("PrepareAbort"), Ok("PrepareAbort"));
        assert!(parse_state("busy").expect_err("no state").contains("Empty"));
    }
}
