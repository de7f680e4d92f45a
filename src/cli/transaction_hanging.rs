//! `percolog transaction find-hanging`: transactions that are open in a partition and that no
//! coordinator knows, so that nobody will ever end them.

use std::time::Duration;

use serde_json::json;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::list_transactions::ListTransactionsRequest;

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::metadata::Topic;
use super::output::{self, OutputFormat, Table};
use super::transaction_producers::{self, Producer};
use super::{duration, timestamp, transaction};

/// Finds transactions that are open in a partition and that no coordinator knows
///
/// Records behind them are not visible to readers of committed records until
/// `transaction abort` ends them.
#[derive(Debug, clap::Args)]
pub(crate) struct HangingArguments {
    /// Topic to search, again for more of them; all without it
    #[arg(long)]
    topic: Vec<String>,
    /// Longest time a transaction may be open in this cluster (transaction.max.timeout.ms); a
    /// producer that wrote within this time is left alone
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration::parse)]
    max_transaction_timeout: Duration,
    #[command(flatten)]
    client: ClientOptions,
}

/// A transaction that may hang, and where.
struct Open {
    topic: String,
    partition: i32,
    start_offset: i64,
    producer: Producer,
}

/// Runs the command.
pub(crate) fn run(arguments: &HangingArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let topics = match arguments.topic.is_empty() {
        true => client.metadata(Topics::All)?.topics,
        false => {
            let names = arguments.topic.iter();
            let topics = names.map(|name| client.topic(Topics::One(name)));
            topics.collect::<Result<_, _>>()?
        }
    };
    let limit_ms = i64::try_from(arguments.max_transaction_timeout.as_millis());
    let before_ms = timestamp::now_ms().saturating_sub(limit_ms.unwrap_or(i64::MAX));
    let mut hanging = Vec::new();
    for mut topic in topics {
        for open in open_before(&mut client, &mut topic, before_ms)? {
            if is_hanging(&mut client, &open)? {
                hanging.push(open);
            }
        }
    }
    show(&hanging, &arguments.client)
}

/// Transactions of a topic that are open and were last written to before this time.
fn open_before(
    client: &mut Client,
    topic: &mut Topic,
    before_ms: i64,
) -> Result<Vec<Open>, Failure> {
    let partitions = transaction_producers::partitions(topic, &[])?;
    let found = transaction_producers::producers(client, topic, &partitions)?;
    let mut open = Vec::new();
    for (partition, producers) in found {
        let old = producers
            .into_iter()
            .filter(|producer| producer.last_timestamp_ms <= before_ms);
        open.extend(old.filter_map(|producer| {
            Some(Open {
                topic: topic.name.clone(),
                partition,
                start_offset: producer.open_from?,
                producer,
            })
        }));
    }
    Ok(open)
}

/// Whether no coordinator has this partition in an open transaction of this producer.
fn is_hanging(client: &mut Client, open: &Open) -> Result<bool, Failure> {
    let request = ListTransactionsRequest {
        producer_id_filters: vec![open.producer.id],
        ..Default::default()
    };
    for listed in transaction::listed(client, &request)? {
        if listed.producer_id != open.producer.id {
            continue;
        }
        let described = match transaction::described(client, &listed.id) {
            Ok(described) => described,
            // It went away since it was listed.
            Err(failure) if failure.error_code() == Some(ErrorCode::TransactionalIdNotFound) => {
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let partitions = described.partitions.get(&open.topic);
        if partitions.is_some_and(|partitions| partitions.contains(&open.partition)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn show(hanging: &[Open], options: &ClientOptions) -> Result<(), Failure> {
    if options.output == OutputFormat::Json {
        let hanging = hanging.iter().map(|it| {
            json!({
                "topic": it.topic, "partition": it.partition, "start_offset": it.start_offset,
                "producer_id": it.producer.id, "producer_epoch": it.producer.epoch,
                "last_timestamp_ms": it.producer.last_timestamp_ms,
            })
        });
        return output::json(&hanging.collect());
    }
    let header = [
        "topic",
        "partition",
        "producer id",
        "epoch",
        "start offset",
        "last timestamp",
    ];
    let mut table = Table::new(&header);
    for it in hanging {
        table.row([
            it.topic.clone(),
            it.partition.to_string(),
            it.producer.id.to_string(),
            it.producer.epoch.to_string(),
            it.start_offset.to_string(),
            timestamp::format(it.producer.last_timestamp_ms),
        ]);
    }
    table.print()
}
