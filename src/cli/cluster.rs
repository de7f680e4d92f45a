//! `percolog cluster`: who is in the cluster, who leads and who holds what.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::wire::api_table::ApiKey;
use crate::wire::messages::describe_cluster::DescribeClusterRequest;
use crate::wire::messages::unregister_broker::UnregisterBrokerRequest;

use super::client::{Client, ClientOptions, Topics};
use super::cluster_describe;
use super::cluster_drain::{self, DrainArguments};
use super::cluster_elect::{self, ElectArguments};
use super::cluster_quorum::{self, NewVoter};
use super::cluster_reassign::{self, ReassignArguments};
use super::failure::Failure;
use super::metadata::Broker;
use super::output::{self, OutputFormat};

/// Kind of endpoints in a DescribeCluster: those of brokers.
const BROKER_ENDPOINTS: i8 = 1;

/// How long a broker that just stopped may count as active: until the controller misses it.
const FENCING_PATIENCE: Duration = Duration::from_secs(5);
const FENCING_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClusterCommand {
    /// Shows who decides, who is there and who leads and holds what
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
    /// Lets a node that runs as an observer vote in the metadata quorum
    Add {
        /// Its id, and where it listens for other brokers
        #[arg(value_name = "NODE_ID@HOST:PORT")]
        voter: NewVoter,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Takes a broker that stopped for good out of the cluster, with its vote
    Remove {
        /// Node id of the broker
        #[arg(value_name = "ID")]
        broker: i32,
        /// Takes only its vote: it stays, or comes back, as an observer
        #[arg(long)]
        vote_only: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// What both APIs that describe a cluster say.
pub(crate) struct Cluster {
    /// Its id, from brokers that have one.
    pub(crate) id: Option<String>,
    /// The controller, or whoever passes for it with clients.
    pub(crate) controller_id: i32,
    /// With whether it is fenced.
    pub(crate) brokers: Vec<(Broker, bool)>,
}

/// Runs the command.
pub(crate) fn run(command: &ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Describe { client } => cluster_describe::run(client),
        ClusterCommand::Elect(arguments) => cluster_elect::run(arguments),
        ClusterCommand::Reassign(arguments) => cluster_reassign::run(arguments),
        ClusterCommand::Drain(arguments) => cluster_drain::run(arguments),
        ClusterCommand::Add { voter, client } => cluster_quorum::add(voter, client),
        ClusterCommand::Remove {
            broker,
            vote_only: true,
            client,
        } => remove_vote(*broker, client),
        ClusterCommand::Remove { broker, client, .. } => remove(*broker, client),
    }
}

/// The controller would do as it is told: a broker that runs only registers again when it restarts.
fn remove(broker: i32, options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let start = Instant::now();
    while is_active(&mut client, broker)? {
        if start.elapsed() > FENCING_PATIENCE {
            return Err(Failure::Local(format!(
                "broker {broker} is active: stop it first"
            )));
        }
        std::thread::sleep(FENCING_PAUSE);
    }
    cluster_quorum::remove_voter(&mut client, broker)?;
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

fn is_active(client: &mut Client, broker: i32) -> Result<bool, Failure> {
    let brokers = cluster(client)?.brokers;
    let mut brokers = brokers.iter();
    Ok(brokers.any(|(known, is_fenced)| known.id == broker && !is_fenced))
}

fn remove_vote(broker: i32, options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    if !cluster_quorum::remove_voter(&mut client, broker)? {
        return Err(Failure::Local(format!("node {broker} has no vote")));
    }
    match options.output {
        OutputFormat::Table => output::line(&format!("node {broker} does not vote any more")),
        OutputFormat::Json => output::json(&json!({ "vote_removed": broker })),
    }
}

/// What the broker says of its cluster, by the better of two APIs.
pub(crate) fn cluster(client: &mut Client) -> Result<Cluster, Failure> {
    match client.any()?.version(ApiKey::DescribeCluster) {
        Some(_) => described(client),
        None => from_metadata(client),
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
