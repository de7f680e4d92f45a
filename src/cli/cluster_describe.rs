//! `percolog cluster describe`: the quorum that decides, the brokers, and what they lead and hold.

use serde_json::{Value, json};

use super::client::{Client, ClientOptions, Topics};
use super::cluster::{Cluster, cluster};
use super::cluster_quorum::{Member, Quorum, quorum};
use super::failure::Failure;
use super::metadata::{Metadata, Partition};
use super::output::{self, OutputFormat, Table};

/// Partitions that lack something and are shown to people one by one.
const LACKING_SHOWN_MAX: usize = 20;

/// A partition that lacks a replica in sync.
#[derive(Debug, PartialEq, Eq)]
struct Lacking {
    topic: String,
    partition: i32,
    leader: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
}

/// Everything that is shown.
struct Description {
    cluster: Cluster,
    /// Brokers before Kafka 3.3 have none that they would tell of.
    quorum: Option<Quorum>,
    metadata: Metadata,
}

/// Runs the command.
pub(crate) fn run(options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let described = Description {
        cluster: cluster(&mut client)?,
        quorum: quorum(&mut client)?,
        metadata: client.metadata(Topics::All)?,
    };
    match options.output {
        OutputFormat::Json => print_json(&described),
        OutputFormat::Table => print_table(&described),
    }
}

impl Description {
    fn partitions(&self) -> impl Iterator<Item = &Partition> {
        let topics = self.metadata.topics.iter();
        topics.flat_map(|topic| &topic.partitions)
    }

    fn leads(&self, broker: i32) -> usize {
        self.partitions().filter(|p| p.leader == broker).count()
    }

    fn holds(&self, broker: i32) -> usize {
        let holds = |partition: &&Partition| partition.replicas.contains(&broker);
        self.partitions().filter(holds).count()
    }

    fn controller(&self) -> i32 {
        let leader = self.quorum.as_ref().map(|quorum| quorum.leader);
        leader.unwrap_or(self.cluster.controller_id)
    }
}

/// Partitions with fewer replicas in sync than they have replicas.
fn lacking(metadata: &Metadata) -> Vec<Lacking> {
    let mut lacking = Vec::new();
    for topic in &metadata.topics {
        for partition in &topic.partitions {
            if partition.isr.len() < partition.replicas.len() || partition.leader < 0 {
                lacking.push(Lacking {
                    topic: topic.name.clone(),
                    partition: partition.index,
                    leader: partition.leader,
                    replicas: partition.replicas.clone(),
                    isr: partition.isr.clone(),
                });
            }
        }
    }
    lacking
}

fn state(is_fenced: bool) -> &'static str {
    if is_fenced { "fenced" } else { "active" }
}

fn print_json(described: &Description) -> Result<(), Failure> {
    let brokers = described.cluster.brokers.iter().map(|(broker, is_fenced)| {
        json!({
            "id": broker.id,
            "host": broker.host,
            "port": broker.port,
            "rack": broker.rack,
            "fenced": is_fenced,
            "leads": described.leads(broker.id),
            "holds": described.holds(broker.id),
        })
    });
    let lacking = lacking(&described.metadata).into_iter().map(|lacking| {
        json!({
            "topic": lacking.topic,
            "partition": lacking.partition,
            "leader": lacking.leader,
            "replicas": lacking.replicas,
            "isr": lacking.isr,
        })
    });
    output::json(&json!({
        "cluster_id": described.cluster.id,
        "controller_id": described.controller(),
        "quorum": described.quorum.as_ref().map(quorum_json),
        "brokers": brokers.collect::<Vec<_>>(),
        "under_replicated": lacking.collect::<Vec<_>>(),
    }))
}

fn quorum_json(quorum: &Quorum) -> Value {
    let members = quorum.members.iter().map(|member| {
        json!({
            "id": member.node_id,
            "role": member.role,
            "address": member.address,
            "directory_id": member.directory_id.to_string(),
            "log_end": member.log_end,
            "lag": quorum.lag(member),
        })
    });
    json!({
        "leader": quorum.leader,
        "epoch": quorum.epoch,
        "high_watermark": quorum.high_watermark,
        "members": members.collect::<Vec<_>>(),
    })
}

fn print_table(described: &Description) -> Result<(), Failure> {
    let id = described.cluster.id.as_deref().unwrap_or("-");
    let controller = described.controller();
    match &described.quorum {
        None => output::line(&format!("cluster {id}  controller {controller}"))?,
        Some(quorum) => {
            let (epoch, end) = (quorum.epoch, quorum.high_watermark);
            output::line(&format!(
                "cluster {id}  controller {controller}  epoch {epoch}  metadata up to {end}\n"
            ))?;
            print_quorum(quorum)?;
            output::line("")?;
        }
    }
    print_brokers(described)?;
    let lacking = lacking(&described.metadata);
    output::line(&format!("\nunder-replicated partitions: {}", lacking.len()))?;
    match lacking.is_empty() {
        true => Ok(()),
        false => print_lacking(lacking),
    }
}

fn print_quorum(quorum: &Quorum) -> Result<(), Failure> {
    let mut table = Table::new(&["quorum", "role", "address", "lag"]);
    for member in &quorum.members {
        let lag = |member: &Member| quorum.lag(member).map(|lag| lag.to_string());
        table.row([
            member.node_id.to_string(),
            member.role.to_owned(),
            output::or_dash(member.address.clone().unwrap_or_default()),
            output::or_dash(lag(member).unwrap_or_default()),
        ]);
    }
    table.print()
}

fn print_brokers(described: &Description) -> Result<(), Failure> {
    let mut table = Table::new(&["broker", "address", "rack", "state", "leads", "holds"]);
    for (broker, is_fenced) in &described.cluster.brokers {
        table.row([
            broker.id.to_string(),
            broker.address(),
            output::or_dash(broker.rack.clone().unwrap_or_default()),
            state(*is_fenced).to_owned(),
            described.leads(broker.id).to_string(),
            described.holds(broker.id).to_string(),
        ]);
    }
    table.print()
}

fn print_lacking(lacking: Vec<Lacking>) -> Result<(), Failure> {
    let mut table = Table::new(&["topic", "partition", "leader", "replicas", "in sync"]);
    let more = lacking.len().saturating_sub(LACKING_SHOWN_MAX);
    for lacking in lacking.into_iter().take(LACKING_SHOWN_MAX) {
        table.row([
            lacking.topic,
            lacking.partition.to_string(),
            match lacking.leader {
                -1 => "-".to_owned(),
                leader => leader.to_string(),
            },
            output::ids(&lacking.replicas),
            output::ids(&lacking.isr),
        ]);
    }
    table.print()?;
    match more {
        0 => Ok(()),
        more => output::line(&format!("and {more} more; --output json has all of them")),
    }
}
