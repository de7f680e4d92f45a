//! `percolog transaction abort`: ends a transaction that hangs in one partition.

use serde_json::json;

use crate::wire::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::metadata::Topic;
use super::output::{self, OutputFormat};
use super::transaction_producers::{self, Producer};

/// Ends a transaction that hangs in a partition: writes a marker there that aborts it
///
/// For transactions that their coordinator has forgotten (`transaction find-hanging`). One that it
/// still knows is aborted by it when its time is up, or when its producer starts again; a marker
/// behind its back loses what the producer still sends.
#[derive(Debug, clap::Args)]
pub(crate) struct AbortArguments {
    /// Topic of the partition
    #[arg(long)]
    topic: String,
    /// Partition in which the transaction is open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// First offset of the transaction, as `transaction producers` shows it
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    start_offset: i64,
    #[command(flatten)]
    client: ClientOptions,
}

/// Runs the command.
pub(crate) fn run(arguments: &AbortArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.client)?;
    let mut topic = client.topic(Topics::One(&arguments.topic))?;
    let partition = arguments.partition;
    let found = transaction_producers::producers(&mut client, &mut topic, &[partition])?;
    let mut producers = found.into_values().flatten();
    let start = Some(arguments.start_offset);
    let producer = producers.find(|producer| producer.open_from == start);
    let producer = producer.ok_or_else(|| {
        let (topic, offset) = (&arguments.topic, arguments.start_offset);
        Failure::Local(format!(
            "topic {topic} partition {partition}: no open transaction begins at offset {offset}"
        ))
    })?;
    abort(&mut client, &topic, partition, &producer)?;
    match arguments.client.output {
        OutputFormat::Json => output::json(&json!({
            "topic": arguments.topic, "partition": partition,
            "start_offset": arguments.start_offset, "producer_id": producer.id,
            "producer_epoch": producer.epoch, "aborted": true,
        })),
        OutputFormat::Table => output::line(&format!(
            "aborted the transaction of producer {} (epoch {}) in {} partition {partition}",
            producer.id, producer.epoch, arguments.topic
        )),
    }
}

fn abort(
    client: &mut Client,
    topic: &Topic,
    partition: i32,
    producer: &Producer,
) -> Result<(), Failure> {
    let subject = format!("topic {} partition {partition}", topic.name);
    let producer_epoch = i16::try_from(producer.epoch).map_err(|_| Failure::Protocol {
        address: format!("leader of {subject}"),
        reason: format!("{} is no producer epoch", producer.epoch),
    })?;
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: producer.id,
            producer_epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: topic.name.as_str().into(),
                partition_indexes: vec![partition],
            }],
            // No coordinator has written a marker for this producer yet.
            coordinator_epoch: producer.coordinator_epoch.max(0),
            ..Default::default()
        }],
    };
    let reply = client.ask_node(topic.leader(partition)?, &request, i16::MAX)?;
    let response = reply.decode::<WriteTxnMarkersRequest<'_>>()?;
    let topics = response.markers.iter().flat_map(|marker| &marker.topics);
    let mut results = topics.flat_map(|topic| &topic.partitions);
    let result = results.next().ok_or_else(|| Failure::Protocol {
        address: format!("leader of {subject}"),
        reason: "a WriteTxnMarkers response about no partition".to_owned(),
    })?;
    Failure::check(subject, result.error_code, None)
}
