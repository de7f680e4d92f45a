//! `percolog cluster`: who is in the cluster.

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::messages::describe_cluster::DescribeClusterRequest;

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::metadata::Broker;
use super::output::{self, OutputFormat, Table};

/// Kind of endpoints in a DescribeCluster: those of brokers.
const BROKER_ENDPOINTS: i8 = 1;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClusterCommand {
    /// Shows the cluster's id, its controller and its brokers
    Describe {
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// What both APIs that describe a cluster say.
struct Cluster {
    id: Option<String>,
    controller_id: i32,
    /// With whether it is fenced.
    brokers: Vec<(Broker, bool)>,
}

/// Runs the command.
pub(crate) fn run(command: &ClusterCommand) -> Result<(), Failure> {
    let ClusterCommand::Describe { client: options } = command;
    let mut client = Client::connect(options)?;
    let cluster = match client.any()?.version(ApiKey::DescribeCluster) {
        Some(_) => described(&mut client)?,
        None => from_metadata(&mut client)?,
    };
    match options.output {
        OutputFormat::Json => print_json(&cluster),
        OutputFormat::Table => print_table(&cluster),
    }
}

fn described(client: &mut Client) -> Result<Cluster, Failure> {
    let request = DescribeClusterRequest {
        endpoint_type: BROKER_ENDPOINTS,
        include_fenced_brokers: true,
        ..Default::default()
    };
    let reply = client.any()?.ask(&request)?;
    let response = reply.decode::<DescribeClusterRequest>()?;
    let message = response.error_message.as_deref();
    Failure::check("cluster", response.error_code, message)?;
    let mut brokers: Vec<(Broker, bool)> = response
        .brokers
        .iter()
        .map(|broker| {
            let described = Broker {
                id: broker.broker_id,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            (described, broker.is_fenced)
        })
        .collect();
    brokers.sort_by_key(|(broker, _)| broker.id);
    Ok(Cluster {
        id: Some(response.cluster_id.to_string()),
        controller_id: response.controller_id,
        brokers,
    })
}

/// For brokers before Kafka 2.8.
fn from_metadata(client: &mut Client) -> Result<Cluster, Failure> {
    let metadata = client.metadata(Topics::None)?;
    let brokers = metadata.brokers.into_iter();
    Ok(Cluster {
        id: metadata.cluster_id,
        controller_id: metadata.controller_id,
        brokers: brokers.map(|broker| (broker, false)).collect(),
    })
}

fn print_json(cluster: &Cluster) -> Result<(), Failure> {
    let brokers = cluster.brokers.iter().map(|(broker, is_fenced)| {
        json!({
            "id": broker.id,
            "host": broker.host,
            "port": broker.port,
            "rack": broker.rack,
            "fenced": is_fenced,
        })
    });
    output::json(&json!({
        "cluster_id": cluster.id,
        "controller_id": cluster.controller_id,
        "brokers": brokers.collect::<Vec<_>>(),
    }))
}

fn print_table(cluster: &Cluster) -> Result<(), Failure> {
    output::line(&format!(
        "cluster {}  controller {}",
        cluster.id.as_deref().unwrap_or("-"),
        cluster.controller_id
    ))?;
    let mut table = Table::new(&["id", "address", "rack", "state"]);
    for (broker, is_fenced) in &cluster.brokers {
        table.row([
            broker.id.to_string(),
            broker.address(),
            broker.rack.clone().unwrap_or_else(|| "-".to_owned()),
            if *is_fenced { "fenced" } else { "active" }.to_owned(),
        ]);
    }
    table.print()
}
