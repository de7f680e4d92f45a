//! The metadata as it stands after some records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{ConfigTarget, MetadataRecord};
use super::topic_name;
use crate::wire::codec::Uuid;

/// The cluster version of a new cluster, and the oldest there is.
pub const CLUSTER_VERSION_MIN: u16 = 1;
/// The newest cluster version that this build speaks.
pub const CLUSTER_VERSION_MAX: u16 = 1;

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartitionImage {
    /// The broker that leads it, or -1.
    pub leader: i32,
    /// How often the leader changed; grows with every change, also to none.
    pub leader_epoch: i32,
    /// How often anything here changed.
    pub partition_epoch: i32,
    /// The brokers that hold it; the first is the preferred leader.
    pub replicas: Vec<i32>,
    /// Those in sync. Empty only when the disk of the last one is gone.
    pub isr: Vec<i32>,
    /// Those that left the ISR when it was below `min.insync.replicas`: they have all that was
    /// acknowledged, and may lead (KIP-966).
    pub elr: Vec<i32>,
    /// Those that were in the ISR or ELR last, when both are empty because their disks are gone.
    pub last_known_elr: Vec<i32>,
    /// Replicas that a reassignment adds; they are in `replicas` already.
    pub adding_replicas: Vec<i32>,
    /// Replicas that a reassignment will remove; they are in `replicas` still.
    pub removing_replicas: Vec<i32>,
    /// Whether its leader was elected though it may lack records, and did not report back yet.
    pub recovering: bool,
}

impl PartitionImage {
    /// A new partition: led by the first of its replicas, all of them in sync.
    ///
    /// # Panics
    /// Without replicas.
    #[must_use]
    pub fn new(replicas: Vec<i32>) -> PartitionImage {
        PartitionImage {
            leader: replicas[0],
            isr: replicas.clone(),
            replicas,
            ..PartitionImage::default()
        }
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never used again after its deletion.
    pub id: Uuid,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionImage>,
    /// What it overrides of the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

impl TopicImage {
    /// A partition by its number on the wire.
    #[must_use]
    pub fn partition(&self, number: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(number).ok()?)
    }
}

/// A broker that registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerImage {
    /// Where clients reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Where other brokers reach it, if it listens for them.
    pub inter_broker: Option<(String, u16)>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// The number of its registration, larger than those of all registrations before.
    pub epoch: i64,
    /// The run of the process that registered.
    pub incarnation: Uuid,
    /// The identity of its first data directory: another one is an empty disk.
    pub directory_id: Uuid,
    /// How many cores it serves with.
    pub cores: u16,
    /// The newest cluster version it supports.
    pub cluster_version_max: u16,
    /// Whether it may lead nothing: its heartbeats did not come, or not yet.
    pub is_fenced: bool,
    /// Whether it is about to stop, and gives away what it leads.
    pub in_controlled_shutdown: bool,
}

impl BrokerImage {
    /// Whether it may lead partitions and be in sync.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_fenced && !self.in_controlled_shutdown
    }
}

/// All metadata at one version. Shared in an `Arc`; a copy shares its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataImage {
    version: u64,
    cluster_id: Arc<str>,
    node_id: i32,
    topics_by_name: BTreeMap<Arc<str>, Arc<TopicImage>>,
    topics_by_id: BTreeMap<Uuid, Arc<TopicImage>>,
    /// Names with a character that collides, by their form without it.
    names_by_unified: BTreeMap<String, Arc<str>>,
    partition_count: usize,
    brokers: BTreeMap<i32, BrokerImage>,
    /// The directories of brokers that were unregistered: who comes back with another has lost what
    /// it held.
    departed: BTreeMap<i32, Uuid>,
    last_broker_epoch: i64,
    cluster_version: u16,
    default_configs: BTreeMap<String, String>,
    broker_configs: BTreeMap<i32, BTreeMap<String, String>>,
    group_configs: BTreeMap<Arc<str>, Arc<BTreeMap<String, String>>>,
    next_producer_id: i64,
}

impl MetadataImage {
    /// A cluster without topics, as node `node_id` sees it. The cluster's id is a
    /// [`Uuid`] in Kafka's text form.
    #[must_use]
    pub fn empty(cluster_id: &str, node_id: i32) -> MetadataImage {
        MetadataImage {
            version: 0,
            cluster_id: cluster_id.into(),
            node_id,
            topics_by_name: BTreeMap::new(),
            topics_by_id: BTreeMap::new(),
            names_by_unified: BTreeMap::new(),
            partition_count: 0,
            brokers: BTreeMap::new(),
            departed: BTreeMap::new(),
            last_broker_epoch: 0,
            cluster_version: CLUSTER_VERSION_MIN,
            default_configs: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            group_configs: BTreeMap::new(),
            next_producer_id: 0,
        }
    }

    /// Records applied since the image was empty; a larger number is a newer image of the same
    /// process. Not stored: a snapshot needs fewer records for the same metadata.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Identifies the cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The node whose image this is.
    #[must_use]
    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics_by_name.get(name)
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics_by_id.get(&id)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics_by_name.values()
    }

    /// All topics whose name is not before `name`, in order.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        let from = (
            std::ops::Bound::Included(name),
            std::ops::Bound::<&str>::Unbounded,
        );
        self.topics_by_name
            .range::<str, _>(from)
            .map(|(_, topic)| topic)
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics_by_name.len()
    }

    /// How many partitions all topics have together.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// The topic whose name a metric could not tell from `name`, if it is another one.
    #[must_use]
    pub fn colliding_name(&self, name: &str) -> Option<&str> {
        if !topic_name::has_collision_character(name) {
            return None;
        }
        let other = self.names_by_unified.get(&topic_name::unified(name))?;
        (**other != *name).then_some(other)
    }

    /// The registered brokers by id.
    #[must_use]
    pub fn brokers(&self) -> &BTreeMap<i32, BrokerImage> {
        &self.brokers
    }

    /// Whether this broker is registered, not fenced and not about to stop.
    #[must_use]
    pub fn is_active(&self, node_id: i32) -> bool {
        self.brokers
            .get(&node_id)
            .is_some_and(BrokerImage::is_active)
    }

    /// Replicas of a partition on brokers that are fenced or not registered.
    #[must_use]
    pub fn offline_replicas(&self, partition: &PartitionImage) -> Vec<i32> {
        let is_offline = |node: &i32| {
            let broker = self.brokers.get(node);
            broker.is_none_or(|broker| broker.is_fenced)
        };
        let replicas = partition.replicas.iter().copied();
        replicas.filter(is_offline).collect()
    }

    /// Brokers that were unregistered, with the first data directory of each.
    #[must_use]
    pub fn departed(&self) -> &BTreeMap<i32, Uuid> {
        &self.departed
    }

    /// The largest epoch that a registration got.
    #[must_use]
    pub fn last_broker_epoch(&self) -> i64 {
        self.last_broker_epoch
    }

    /// What all brokers have agreed to speak and store.
    #[must_use]
    pub fn cluster_version(&self) -> u16 {
        self.cluster_version
    }

    /// Dynamic settings for all brokers.
    #[must_use]
    pub fn default_configs(&self) -> &BTreeMap<String, String> {
        &self.default_configs
    }

    /// Dynamic settings of one broker, if it has any.
    #[must_use]
    pub fn broker_configs(&self, node_id: i32) -> Option<&BTreeMap<String, String>> {
        self.broker_configs.get(&node_id)
    }

    /// Brokers with dynamic settings of their own, with them.
    pub fn all_broker_configs(&self) -> impl Iterator<Item = (i32, &BTreeMap<String, String>)> {
        self.broker_configs
            .iter()
            .map(|(id, configs)| (*id, configs))
    }

    /// Settings of one group, if it has any of its own.
    #[must_use]
    pub fn group_configs(&self, group: &str) -> Option<&BTreeMap<String, String>> {
        self.group_configs.get(group).map(|configs| &**configs)
    }

    /// Groups with settings of their own, with them, in the order of their names.
    pub fn all_group_configs(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, &BTreeMap<String, String>)> {
        self.group_configs
            .iter()
            .map(|(group, configs)| (&**group, &**configs))
    }

    /// The first producer id that was not given out.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Changes what the record says.
    ///
    /// # Panics
    /// When the record is about a topic that is not there, or makes one twice: records are decided
    /// on the image they are applied to.
    pub fn apply(&mut self, record: &MetadataRecord) {
        self.version += 1;
        match record {
            MetadataRecord::TopicCreated {
                name,
                id,
                partitions,
                configs,
            } => {
                assert!(
                    self.topic(name).is_none() && self.topic_by_id(*id).is_none(),
                    "topic {name} is created twice"
                );
                self.partition_count += partitions.len();
                self.put(TopicImage {
                    name: name.as_str().into(),
                    id: *id,
                    partitions: partitions.clone(),
                    configs: configs.clone(),
                });
            }
            MetadataRecord::PartitionsAdded { topic, partitions } => {
                self.partition_count += partitions.len();
                self.change(*topic, |topic| {
                    topic.partitions.extend_from_slice(partitions);
                });
            }
            MetadataRecord::TopicDeleted { topic } => self.remove(*topic),
            MetadataRecord::ConfigChanged {
                target,
                name,
                value,
            } => self.set_config(target, name, value.as_deref()),
            MetadataRecord::ProducerIdsAllocated { next } => self.next_producer_id = *next,
            MetadataRecord::BrokerRegistered { node_id, broker } => {
                self.last_broker_epoch = self.last_broker_epoch.max(broker.epoch);
                self.departed.remove(node_id);
                self.brokers.insert(*node_id, broker.clone());
            }
            MetadataRecord::BrokerChanged {
                node_id,
                is_fenced,
                in_controlled_shutdown,
            } => {
                let broker = self.brokers.get_mut(node_id);
                let broker = broker.expect("a record is about a broker that is there");
                broker.is_fenced = *is_fenced;
                broker.in_controlled_shutdown = *in_controlled_shutdown;
            }
            MetadataRecord::BrokerUnregistered {
                node_id,
                directory_id,
            } => {
                self.brokers.remove(node_id);
                self.departed.insert(*node_id, *directory_id);
            }
            MetadataRecord::PartitionsChanged { topic, partitions } => {
                self.change(*topic, |topic| {
                    for (number, partition) in partitions {
                        let at = usize::try_from(*number).expect("a partition that is there");
                        topic.partitions[at] = partition.clone();
                    }
                });
            }
            MetadataRecord::BrokerEpochsGiven { last } => self.last_broker_epoch = *last,
            MetadataRecord::ClusterVersionChanged { version } => self.cluster_version = *version,
        }
    }

    fn put(&mut self, topic: TopicImage) {
        let topic = Arc::new(topic);
        if topic_name::has_collision_character(&topic.name) {
            self.names_by_unified
                .insert(topic_name::unified(&topic.name), topic.name.clone());
        }
        self.topics_by_id.insert(topic.id, topic.clone());
        self.topics_by_name.insert(topic.name.clone(), topic);
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut TopicImage)) {
        let topic = self.topics_by_id.get(&id);
        let mut topic = TopicImage::clone(topic.expect("a record is about a topic that is there"));
        change(&mut topic);
        self.put(topic);
    }

    fn remove(&mut self, id: Uuid) {
        let topic = self.topics_by_id.remove(&id);
        let topic = topic.expect("a record is about a topic that is there");
        self.topics_by_name.remove(&topic.name);
        self.partition_count -= topic.partitions.len();
        if topic_name::has_collision_character(&topic.name) {
            self.names_by_unified
                .remove(&topic_name::unified(&topic.name));
        }
    }

    fn set_config(&mut self, target: &ConfigTarget, name: &str, value: Option<&str>) {
        let set = |configs: &mut BTreeMap<String, String>| match value {
            Some(value) => {
                configs.insert(name.to_string(), value.to_string());
            }
            None => {
                configs.remove(name);
            }
        };
        match target {
            ConfigTarget::Topic(id) => self.change(*id, |topic| set(&mut topic.configs)),
            ConfigTarget::BrokerDefault => set(&mut self.default_configs),
            ConfigTarget::Broker(node_id) => {
                let configs = self.broker_configs.entry(*node_id).or_default();
                set(configs);
                if configs.is_empty() {
                    self.broker_configs.remove(node_id);
                }
            }
            ConfigTarget::Group(group) => {
                let configs = self.group_configs.entry(group.as_str().into()).or_default();
                set(Arc::make_mut(configs));
                if configs.is_empty() {
                    self.group_configs.remove(group.as_str());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(leader: i32) -> PartitionImage {
        PartitionImage::new(vec![leader])
    }

    fn created(name: &str, id: u8, leaders: &[i32]) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            name: name.to_string(),
            id: Uuid([id; 16]),
            partitions: leaders.iter().map(|leader| partition(*leader)).collect(),
            configs: BTreeMap::new(),
        }
    }

    #[test]
    fn topics_come_change_and_go_under_name_and_id() {
        let mut image = MetadataImage::empty("c", 1);
        image.apply(&created("a.b", 1, &[1]));
        image.apply(&MetadataRecord::PartitionsAdded {
            topic: Uuid([1; 16]),
            partitions: vec![partition(1), partition(2)],
        });
        let topic = image.topic("a.b").unwrap().clone();
        assert!(Arc::ptr_eq(&topic, image.topic_by_id(topic.id).unwrap()));
        assert_eq!((topic.partitions.len(), image.partition_count()), (3, 3));
        assert_eq!(topic.partition(2).unwrap().leader, 2);
        assert!(topic.partition(3).is_none() && topic.partition(-1).is_none());
        assert_eq!(image.colliding_name("a_b"), Some("a.b"));
        assert_eq!(image.colliding_name("a.b"), None);
        image.apply(&MetadataRecord::TopicDeleted { topic: topic.id });
        assert!(image.topic("a.b").is_none() && image.topic_by_id(topic.id).is_none());
        assert_eq!(
            (image.colliding_name("a_b"), image.partition_count()),
            (None, 0)
        );
        assert_eq!(image.version(), 3);
    }

    #[test]
    fn partitions_change_whole_and_others_are_shared() {
        let mut image = MetadataImage::empty("c", 1);
        image.apply(&created("a", 1, &[1, 2, 1]));
        image.apply(&created("b", 2, &[2]));
        let before = image.topic("b").unwrap().clone();
        let moved = PartitionImage {
            leader_epoch: 1,
            ..partition(3)
        };
        image.apply(&MetadataRecord::PartitionsChanged {
            topic: Uuid([1; 16]),
            partitions: vec![(2, moved.clone())],
        });
        let topic = image.topic("a").unwrap();
        assert_eq!(topic.partitions, [partition(1), partition(2), moved]);
        assert!(Arc::ptr_eq(&before, image.topic("b").unwrap()));
    }

    #[test]
    fn brokers_register_change_and_leave_their_directory_behind() {
        let mut image = MetadataImage::empty("c", 1);
        let broker = BrokerImage {
            epoch: 7,
            directory_id: Uuid([3; 16]),
            is_fenced: true,
            ..BrokerImage::default()
        };
        image.apply(&MetadataRecord::BrokerRegistered { node_id: 4, broker });
        assert!(!image.is_active(4));
        image.apply(&MetadataRecord::BrokerChanged {
            node_id: 4,
            is_fenced: false,
            in_controlled_shutdown: false,
        });
        assert!(image.is_active(4) && !image.is_active(5));
        image.apply(&MetadataRecord::BrokerUnregistered {
            node_id: 4,
            directory_id: Uuid([3; 16]),
        });
        assert!(image.brokers().is_empty());
        assert_eq!(image.departed()[&4], Uuid([3; 16]));
        assert_eq!(image.last_broker_epoch(), 7);
    }

    #[test]
    fn settings_are_set_and_removed_per_target() {
        let mut image = MetadataImage::empty("c", 1);
        image.apply(&created("a", 1, &[1]));
        let mut set = |target, value: Option<&str>| {
            image.apply(&MetadataRecord::ConfigChanged {
                target,
                name: "n".to_string(),
                value: value.map(str::to_string),
            });
        };
        let topic = ConfigTarget::Topic(Uuid([1; 16]));
        set(topic, Some("1"));
        set(ConfigTarget::BrokerDefault, Some("2"));
        set(ConfigTarget::Broker(4), Some("3"));
        set(ConfigTarget::Broker(5), Some("4"));
        set(ConfigTarget::Broker(5), None);
        set(ConfigTarget::Group("g".to_string()), Some("6"));
        set(ConfigTarget::Group("h".to_string()), Some("7"));
        set(ConfigTarget::Group("h".to_string()), None);
        assert_eq!(image.topic("a").unwrap().configs["n"], "1");
        assert_eq!(image.default_configs()["n"], "2");
        assert_eq!(image.broker_configs(4).unwrap()["n"], "3");
        assert!(image.broker_configs(5).is_none());
        assert_eq!(image.group_configs("g").unwrap()["n"], "6");
        let groups: Vec<&str> = image.all_group_configs().map(|(name, _)| name).collect();
        assert_eq!(groups, ["g"]);
    }

    #[test]
    fn topics_are_listed_in_order_from_a_name() {
        let mut image = MetadataImage::empty("c", 1);
        for (id, name) in [(1, "c"), (2, "a"), (3, "b")] {
            image.apply(&created(name, id, &[1]));
        }
        let names: Vec<&str> = image.topics_from("aa").map(|topic| &*topic.name).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(image.topics().count(), image.topic_count());
    }
}
