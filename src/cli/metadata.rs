//! What a broker says about the cluster, owned and in a fixed order.

use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::metadata::{
    MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};

use super::failure::Failure;

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// Its node id.
    pub(crate) id: i32,
    /// Where clients reach it.
    pub(crate) host: String,
    /// And at which port.
    pub(crate) port: i32,
    /// Its rack, if it has one.
    pub(crate) rack: Option<String>,
}

impl Broker {
    /// HOST:PORT, with brackets around an IPv6 address.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number.
    pub(crate) index: i32,
    /// Error code of the partition.
    pub(crate) error: i16,
    /// Node id of the leader, -1 for none.
    pub(crate) leader: i32,
    /// The leader's epoch, -1 when the broker does not say.
    pub(crate) leader_epoch: i32,
    /// Node ids of all replicas, the preferred leader first.
    pub(crate) replicas: Vec<i32>,
    /// Those in sync.
    pub(crate) isr: Vec<i32>,
    /// Those offline.
    pub(crate) offline: Vec<i32>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: String,
    /// Its id, zero from brokers that have none.
    pub(crate) id: Uuid,
    /// Whether it belongs to the cluster itself.
    pub(crate) is_internal: bool,
    /// Error code of the topic.
    pub(crate) error: i16,
    /// By number.
    pub(crate) partitions: Vec<Partition>,
}

impl Topic {
    /// Fails when the broker reports an error for the topic as a whole.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        Failure::check(format!("topic {}", self.name), self.error, None)
    }

    /// The leader of a partition.
    pub(crate) fn leader(&self, partition: i32) -> Result<i32, Failure> {
        let subject = || format!("topic {} partition {partition}", self.name);
        let found = self
            .partitions
            .iter()
            .find(|found| found.index == partition);
        let Some(found) = found else {
            let code = ErrorCode::UnknownTopicOrPartition.code();
            return Err(Failure::refused(subject(), code, None));
        };
        if found.leader < 0 {
            let code = ErrorCode::LeaderNotAvailable.code();
            return Err(Failure::refused(subject(), code, None));
        }
        Ok(found.leader)
    }

    /// Whether there is a partition of this number.
    pub(crate) fn has(&self, partition: i32) -> bool {
        self.partitions.iter().any(|found| found.index == partition)
    }
}

/// The cluster, or what was asked of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Its id, if the broker says.
    pub(crate) cluster_id: Option<String>,
    /// Node id of whoever changes metadata, -1 for unknown.
    pub(crate) controller_id: i32,
    /// By id.
    pub(crate) brokers: Vec<Broker>,
    /// By name.
    pub(crate) topics: Vec<Topic>,
}

impl Metadata {
    /// Owned and sorted.
    pub(crate) fn of(response: &MetadataResponse<'_>) -> Metadata {
        let mut brokers: Vec<Broker> = response
            .brokers
            .iter()
            .map(|broker| Broker {
                id: broker.node_id,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        let mut topics: Vec<Topic> = response.topics.iter().map(topic).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Metadata {
            cluster_id: response.cluster_id.as_ref().map(ToString::to_string),
            controller_id: response.controller_id,
            brokers,
            topics,
        }
    }
}

fn topic(topic: &MetadataResponseTopic<'_>) -> Topic {
    let mut partitions: Vec<Partition> = topic.partitions.iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.index);
    Topic {
        name: topic.name.as_deref().unwrap_or_default().to_owned(),
        id: topic.topic_id,
        is_internal: topic.is_internal,
        error: topic.error_code,
        partitions,
    }
}

fn partition(partition: &MetadataResponsePartition) -> Partition {
    Partition {
        index: partition.partition_index,
        error: partition.error_code,
        leader: partition.leader_id,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replica_nodes.clone(),
        isr: partition.isr_nodes.clone(),
        offline: partition.offline_replicas.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::metadata::MetadataResponseBroker;

    #[test]
    fn everything_is_in_a_fixed_order() {
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: "h".into(),
            ..Default::default()
        };
        let partition = |partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: partition_index - 1,
            ..Default::default()
        };
        let topic = |name: &'static str| MetadataResponseTopic {
            name: Some(name.into()),
            partitions: vec![partition(1), partition(0)],
            ..Default::default()
        };
        let metadata = Metadata::of(&MetadataResponse {
            brokers: vec![broker(2), broker(1)],
            topics: vec![topic("b"), topic("a")],
            ..Default::default()
        });
        let ids: Vec<i32> = metadata.brokers.iter().map(|broker| broker.id).collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(metadata.topics[0].name, "a");
        let topic = &metadata.topics[0];
        assert_eq!(topic.partitions[1].index, 1);
        assert_eq!(topic.leader(1).expect("a leader"), 0);
        let code = |partition| topic.leader(partition).expect_err("none").error_code();
        assert_eq!(code(0), Some(ErrorCode::LeaderNotAvailable));
        assert_eq!(code(2), Some(ErrorCode::UnknownTopicOrPartition));
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        let broker = |host: &str| Broker {
            id: 1,
            host: host.to_owned(),
            port: 9092,
            rack: None,
        };
        assert_eq!(broker("::1").address(), "[::1]:9092");
        assert_eq!(broker("kafka.local").address(), "kafka.local:9092");
    }
}
