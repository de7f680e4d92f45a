//! `percolog cluster`: who is in the cluster, who leads and who holds what.

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::messages::describe_cluster::DescribeClusterRequest;
use crate::wire::messages::unregister_broker::UnregisterBrokerRequest;

use super::client::{Client, ClientOptions, Topics};
use super::cluster_drain::{self, DrainArguments};
use super::cluster_elect::{self, ElectArguments};
use super::cluster_reassign::{self, ReassignArguments};
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
    /// Elects leaders of partitions
    Elect(ElectArguments),
    /// Moves partitions to other brokers, or shows what moves
    Reassign(ReassignArguments),
    /// Moves everything away from a broker
    Drain(DrainArguments),
    /// Takes a broker that stopped for good out of the cluster
    Remove {
        /// Node id of the broker
        #[arg(value_name = "ID")]
        broker: i32,
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
    match command {
        ClusterCommand::Describe { client } => describe(client),
        ClusterCommand::Elect(arguments) => cluster_elect::run(arguments),
        ClusterCommand::Reassign(arguments) => cluster_reassign::run(arguments),
        ClusterCommand::Drain(arguments) => cluster_drain::run(arguments),
        ClusterCommand::Remove { broker, client } => remove(*broker, client),
    }
}

/// The controller would do as it is told: a broker that runs only registers again when it restarts.
fn remove(broker: i32, options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let brokers = cluster(&mut client)?.brokers;
    if brokers
        .iter()
        .any(|(known, is_fenced)| known.id == broker && !is_fenced)
    {
        return Err(Failure::Local(format!(
            "broker {broker} is active: stop it first"
        )));
    }
    let request = UnregisterBrokerRequest { broker_id: broker };
    client.change(&request, |reply| {
        let response = reply.decode::<UnregisterBrokerRequest>()?;
        let message = response.error_message.as_deref();
        Failure::check(format!("broker {broker}"), response.error_code, message)
    })?;
    match options.output {
        OutputFormat::Table => output::line(&format!("removed broker {broker}")),
        OutputFormat::Json => output::json(&json!({ "removed": broker })),
    }
}

fn cluster(client: &mut Client) -> Result<Cluster, Failure> {
    match client.any()?.version(ApiKey::DescribeCluster) {
        Some(_) => described(client),
        None => from_metadata(client),
    }
}

fn describe(options: &ClientOptions) -> Result<(), Failure> {
    let cluster = cluster(&mut Client::connect(options)?)?;
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
