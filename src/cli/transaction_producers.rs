//! `percolog transaction producers`: who writes to partitions, as their leaders know.

use std::collections::BTreeMap;

use serde_json::json;

use crate::wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};

use super::client::{Client, ClientOptions, Patience, Topics};
use super::failure::Failure;
use super::metadata::Topic;
use super::output::{self, OutputFormat, Table};
use super::timestamp;

/// Shows producers of a topic that its partitions remember, and which of them have a transaction
/// open there
#[derive(Debug, clap::Args)]
pub(crate) struct ProducersArguments {
    /// Topic to look at
    topic: String,
    /// Partition to look at, again for more of them; all without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    #[command(flatten)]
    client: ClientOptions,
}

/// A producer as one partition knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i32,
    last_sequence: i32,
    pub(crate) last_timestamp_ms: i64,
    /// Negative when no coordinator has written a marker for it yet.
    pub(crate) coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub(crate) open_from: Option<i64>,
}

/// Producers by partition. Metadata that turns out to be old is fetched again.
pub(crate) fn producers(
    client: &mut Client,
    topic: &mut Topic,
    partitions: &[i32],
) -> Result<BTreeMap<i32, Vec<Producer>>, Failure> {
    let mut patience = Patience::new(client.timeout());
    let mut found = BTreeMap::new();
    while let Some(missing) = partitions.iter().find(|it| !found.contains_key(*it)) {
        let asked = topic.leader(*missing).and_then(|node| {
            let of_node = partitions.iter().copied();
            let of_node = of_node.filter(|it| topic.leader(*it).ok() == Some(node));
            producers_on(client, node, &topic.name, of_node.collect())
        });
        match asked {
            Ok(producers) if producers.contains_key(missing) => found.extend(producers),
            Ok(_) => {
                return Err(Failure::Protocol {
                    address: format!("leader of topic {} partition {missing}", topic.name),
                    reason: "a DescribeProducers response without all partitions".to_owned(),
                });
            }
            Err(failure) => {
                patience.wait_after(failure)?;
                let name = topic.name.clone();
                *topic = client.topic(Topics::One(&name))?;
            }
        }
    }
    Ok(found)
}

fn producers_on(
    client: &mut Client,
    node: i32,
    topic: &str,
    partition_indexes: Vec<i32>,
) -> Result<BTreeMap<i32, Vec<Producer>>, Failure> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: topic.into(),
            partition_indexes,
        }],
    };
    let reply = client.ask_node(node, &request, i16::MAX)?;
    let response = reply.decode::<DescribeProducersRequest<'_>>()?;
    let mut found = BTreeMap::new();
    for answer in response.topics.iter().flat_map(|topic| &topic.partitions) {
        let subject = format!("topic {topic} partition {}", answer.partition_index);
        let message = answer.error_message.as_deref();
        Failure::check(subject, answer.error_code, message)?;
        let producers = answer.active_producers.iter().map(|producer| Producer {
            id: producer.producer_id,
            epoch: producer.producer_epoch,
            last_sequence: producer.last_sequence,
            last_timestamp_ms: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            open_from: Some(producer.current_txn_start_offset).filter(|offset| *offset >= 0),
        });
        let mut producers: Vec<Producer> = producers.collect();
        producers.sort_by_key(|producer| producer.id);
        found.insert(answer.partition_index, producers);
    }
    Ok(found)
}

/// The partitions that are named, or all of the topic.
pub(crate) fn partitions(topic: &Topic, named: &[i32]) -> Result<Vec<i32>, Failure> {
    if named.is_empty() {
        return Ok(topic.partitions.iter().map(|found| found.index).collect());
    }
    for partition in named {
        if !topic.has(*partition) {
            topic.leader(*partition)?;
        }
    }
    let mut partitions = named.to_vec();
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

/// Runs the command.
pub(crate) fn run(arguments: &ProducersArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let mut topic = client.topic(Topics::One(&arguments.topic))?;
    let partitions = partitions(&topic, &arguments.partition)?;
    let found = producers(&mut client, &mut topic, &partitions)?;
    let rows = found
        .iter()
        .flat_map(|(partition, producers)| producers.iter().map(|producer| (*partition, producer)));
    if arguments.client.output == OutputFormat::Json {
        let rows = rows.map(|(partition, it)| {
            json!({
                "partition": partition,
                "producer_id": it.id,
                "producer_epoch": it.epoch,
                "last_sequence": it.last_sequence,
                "last_timestamp_ms": it.last_timestamp_ms,
                "coordinator_epoch": (it.coordinator_epoch >= 0).then_some(it.coordinator_epoch),
                "open_transaction_start_offset": it.open_from,
            })
        });
        return output::json(&rows.collect());
    }
    let header = [
        "partition",
        "producer id",
        "epoch",
        "last sequence",
        "last timestamp",
        "coordinator epoch",
        "open from offset",
    ];
    let mut table = Table::new(&header);
    for (partition, it) in rows {
        let epoch = (it.coordinator_epoch >= 0).then(|| it.coordinator_epoch.to_string());
        table.row([
            partition.to_string(),
            it.id.to_string(),
            it.epoch.to_string(),
            it.last_sequence.to_string(),
            timestamp::format(it.last_timestamp_ms),
            output::or_dash(epoch.unwrap_or_default()),
            output::or_dash(it.open_from.map(|it| it.to_string()).unwrap_or_default()),
        ]);
    }
    table.print()
}
