//! Topics and their leaders: created if missing, waited for, looked up once before the load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use percolog::wire::codec::Uuid;
use percolog::wire::error_code::ErrorCode;
use percolog::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use percolog::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use percolog::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};

use crate::client::{Client, Failure, Versions, check};

const CREATION_TIMEOUT_MS: i32 = 60_000;
/// How long leaders may take to appear.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);
/// What Kafka accepts as one batch unless the topic says otherwise.
pub(crate) const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

/// Topics a run needs.
#[derive(Clone, Debug)]
pub(crate) struct TopicPlan {
    /// Their names.
    pub(crate) names: Vec<String>,
    /// Partitions of each; `None` takes what is there, or creates one.
    pub(crate) partitions: Option<i32>,
    /// Whether missing ones are created.
    pub(crate) is_created: bool,
    /// Configuration of those that are created.
    pub(crate) configs: Vec<(String, String)>,
}

/// A topic of the run.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: String,
    /// Its id, zero from brokers that have none.
    pub(crate) id: Uuid,
}

/// A partition of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Index of its topic.
    pub(crate) topic: usize,
    /// Its number.
    pub(crate) partition: i32,
    /// Node id of its leader.
    pub(crate) leader: i32,
}

/// What was found before the load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    /// Its id, if the broker says.
    pub(crate) id: Option<String>,
    /// Addresses of brokers by node id.
    pub(crate) brokers: BTreeMap<i32, String>,
    /// Topics of the run.
    pub(crate) topics: Vec<Topic>,
    /// Their partitions: by partition first, so that neighbours belong to different topics.
    pub(crate) targets: Vec<Target>,
    /// Versions that both sides can.
    pub(crate) versions: Versions,
    /// When the creation was asked for.
    pub(crate) asked: Option<Instant>,
    /// From then to the answer, if a topic was created.
    pub(crate) created_after: Option<Duration>,
    /// From then until Metadata showed a leader for every partition.
    pub(crate) leaders_after: Option<Duration>,
}

impl Cluster {
    /// Creates what is missing, waits until every partition has a leader.
    pub(crate) fn prepare(client: &mut Client, plan: &TopicPlan) -> Result<Cluster, Failure> {
        let asked = Instant::now();
        let mut created_after = None;
        if plan.is_created && create(client, plan)? {
            created_after = Some(asked.elapsed());
        }
        loop {
            match read_metadata(client, plan)? {
                Ok(mut cluster) => {
                    cluster.versions = client.versions().clone();
                    cluster.asked = Some(asked);
                    cluster.created_after = created_after;
                    cluster.leaders_after = Some(asked.elapsed());
                    return Ok(cluster);
                }
                Err(reason) if asked.elapsed() > LEADERS_TIMEOUT => return Err(reason),
                // A topic that nobody is about to create does not appear.
                Err(reason) if !plan.is_created => return Err(reason),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Name and id of the topic of a target.
    pub(crate) fn topic_of(&self, target: usize) -> &Topic {
        &self.topics[self.targets[target].topic]
    }
}

/// Creates the topics; whether any was missing.
fn create(client: &mut Client, plan: &TopicPlan) -> Result<bool, Failure> {
    let topic = |name: &String| CreatableTopic {
        name: name.clone().into(),
        num_partitions: plan.partitions.unwrap_or(1),
        replication_factor: -1,
        configs: plan
            .configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.clone().into(),
                value: Some(value.clone().into()),
            })
            .collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: plan.names.iter().map(topic).collect(),
        timeout_ms: CREATION_TIMEOUT_MS,
        ..Default::default()
    };
    client.ask(&request, |response| {
        let mut is_any_new = false;
        for topic in &response.topics {
            if topic.error_code == ErrorCode::TopicAlreadyExists.code() {
                continue;
            }
            let message = topic.error_message.as_deref().unwrap_or_default();
            check(
                &format!("topic {} ({message})", topic.name),
                topic.error_code,
            )?;
            is_any_new = true;
        }
        Ok(is_any_new)
    })?
}

/// The cluster, or why it is not ready yet.
fn read_metadata(
    client: &mut Client,
    plan: &TopicPlan,
) -> Result<Result<Cluster, Failure>, Failure> {
    let topic = |name: &String| MetadataRequestTopic {
        name: Some(name.clone().into()),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(plan.names.iter().map(topic).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    client.ask(&request, |response| cluster_of(&response, plan))
}

fn cluster_of(response: &MetadataResponse<'_>, plan: &TopicPlan) -> Result<Cluster, Failure> {
    check("Metadata", response.error_code)?;
    let mut cluster = Cluster {
        id: response.cluster_id.as_ref().map(ToString::to_string),
        ..Cluster::default()
    };
    for broker in &response.brokers {
        let address = match broker.host.contains(':') {
            true => format!("[{}]:{}", broker.host, broker.port),
            false => format!("{}:{}", broker.host, broker.port),
        };
        cluster.brokers.insert(broker.node_id, address);
    }
    for (index, name) in plan.names.iter().enumerate() {
        let topics = &response.topics;
        let found = topics
            .iter()
            .find(|topic| topic.name.as_deref() == Some(name.as_str()));
        let found = found.ok_or_else(|| format!("topic {name} is not in the metadata"))?;
        cluster
            .targets
            .extend(targets_of(found, index, name, plan, &cluster.brokers)?);
        cluster.topics.push(Topic {
            name: name.clone(),
            id: found.topic_id,
        });
    }
    cluster
        .targets
        .sort_by_key(|target| (target.partition, target.topic));
    Ok(cluster)
}

fn targets_of(
    topic: &MetadataResponseTopic<'_>,
    index: usize,
    name: &str,
    plan: &TopicPlan,
    brokers: &BTreeMap<i32, String>,
) -> Result<Vec<Target>, Failure> {
    check(&format!("topic {name}"), topic.error_code)?;
    let wanted = plan.partitions.unwrap_or(topic.partitions.len() as i32);
    let mut targets = Vec::new();
    for partition in &topic.partitions {
        let number = partition.partition_index;
        if number >= wanted {
            continue;
        }
        if partition.leader_id < 0 || !brokers.contains_key(&partition.leader_id) {
            return Err(format!("topic {name} partition {number} has no leader"));
        }
        targets.push(Target {
            topic: index,
            partition: number,
            leader: partition.leader_id,
        });
    }
    match targets.len() as i32 == wanted {
        true => Ok(targets),
        false => Err(format!(
            "topic {name} has {} partitions, {wanted} were asked for: use another --topic",
            targets.len()
        )),
    }
}

/// Asks the leaders for the offset of `timestamp` (-2 earliest, -1 end) of every target.
pub(crate) fn list_offsets(cluster: &Cluster, timestamp: i64) -> Result<Vec<i64>, Failure> {
    let mut offsets = vec![-1; cluster.targets.len()];
    let places: BTreeMap<(&str, i32), usize> = (0..cluster.targets.len())
        .map(|index| {
            let name = cluster.topic_of(index).name.as_str();
            ((name, cluster.targets[index].partition), index)
        })
        .collect();
    for (node, address) in &cluster.brokers {
        let of_node = |target: &Target| target.leader == *node;
        if !cluster.targets.iter().any(of_node) {
            continue;
        }
        let mut topics = Vec::new();
        for (index, topic) in cluster.topics.iter().enumerate() {
            let targets = cluster
                .targets
                .iter()
                .filter(|target| target.topic == index);
            let partition = |target: &Target| ListOffsetsPartition {
                partition_index: target.partition,
                timestamp,
                ..Default::default()
            };
            topics.push(ListOffsetsTopic {
                name: topic.name.clone().into(),
                partitions: targets.filter(|t| of_node(t)).map(partition).collect(),
            });
        }
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        Client::open(address)?.ask(&request, |response| {
            for topic in &response.topics {
                for found in &topic.partitions {
                    let what = format!("offsets of {} {}", topic.name, found.partition_index);
                    check(&what, found.error_code)?;
                    let place = places.get(&(&*topic.name, found.partition_index));
                    offsets[*place.ok_or(what)?] = found.offset;
                }
            }
            Ok::<(), Failure>(())
        })??;
    }
    Ok(offsets)
}
