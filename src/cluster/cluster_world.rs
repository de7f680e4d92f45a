//! A cluster for tests: commands are decided and applied, registrations remembered.

use std::collections::BTreeMap;

use super::controller::{
    BrokerRegistration, BrokerState, Command, CommandReply, ConfigAlteration, ConfigOperation,
    ConfigResource, IsrChange, NewTopic, Reassignment, decide,
};
use super::controller_error::ControllerError;
use super::image::{CLUSTER_VERSION_MIN, MetadataImage, PartitionImage};
use super::record::MetadataRecord;
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;

pub(super) type Outcome<T> = Result<T, ControllerError>;

/// See the head of this file.
pub(super) struct World {
    pub(super) image: MetadataImage,
    pub(super) config: BrokerConfig,
    pub(super) records: Vec<MetadataRecord>,
    next_id: u8,
    runs: BTreeMap<i32, u8>,
}

impl World {
    pub(super) fn new() -> World {
        World {
            image: MetadataImage::empty("c", 0),
            config: BrokerConfig::defaults(),
            records: Vec::new(),
            next_id: 0,
            runs: BTreeMap::new(),
        }
    }

    /// Brokers 1 to `count`, alive, each with a disk of its own, in three racks.
    pub(super) fn with_brokers(count: i32) -> World {
        let mut world = World::new();
        for node_id in 1..=count {
            world.start(node_id, node_id as u8).unwrap();
        }
        world
    }

    pub(super) fn run(&mut self, command: Command) -> CommandReply {
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            Uuid([*next_id; 16])
        };
        let decision = decide(&self.image, &self.config, command, &mut ids);
        for record in &decision.records {
            self.image.apply(record);
        }
        self.records = decision.records;
        decision.reply
    }

    /// The next run of a broker registers.
    pub(super) fn register(&mut self, node_id: i32, disk: u8, previous_epoch: i64) -> Outcome<i64> {
        let run = self.runs.entry(node_id).or_default();
        *run = run.wrapping_add(1);
        let registration = BrokerRegistration {
            node_id,
            host: format!("h{node_id}"),
            port: 9092,
            rack: Some(format!("r{}", node_id % 3)),
            incarnation: Uuid([*run; 16]),
            directory_id: Uuid([disk; 16]),
            cores: 2,
            cluster_version_max: CLUSTER_VERSION_MIN,
            previous_epoch,
            inter_broker: None,
        };
        match self.run(Command::RegisterBroker(registration)) {
            CommandReply::BrokerRegistered(result) => result,
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn start(&mut self, node_id: i32, disk: u8) -> Outcome<i64> {
        let epoch = self.register(node_id, disk, -1)?;
        self.alive(node_id)?;
        Ok(epoch)
    }

    fn epoch(&self, node_id: i32) -> i64 {
        let broker = self.image.brokers().get(&node_id);
        broker.map_or(-1, |broker| broker.epoch)
    }

    pub(super) fn alive(&mut self, node_id: i32) -> Outcome<BrokerState> {
        let epoch = self.epoch(node_id);
        changed(self.run(Command::BrokerAlive { node_id, epoch }))
    }

    pub(super) fn fence(&mut self, node_id: i32) -> Outcome<BrokerState> {
        let epoch = self.epoch(node_id);
        changed(self.run(Command::FenceBroker { node_id, epoch }))
    }

    pub(super) fn stop(&mut self, node_id: i32) -> Outcome<BrokerState> {
        let epoch = self.epoch(node_id);
        changed(self.run(Command::BeginShutdown { node_id, epoch }))
    }

    pub(super) fn unregister(&mut self, node_id: i32) -> Outcome<()> {
        match self.run(Command::UnregisterBroker { node_id }) {
            CommandReply::BrokerUnregistered(result) => result,
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn create(&mut self, name: &str, assignments: &[&[i32]]) -> Outcome<()> {
        let topic = NewTopic {
            name: name.to_string(),
            partitions: -1,
            replication_factor: -1,
            assignments: (0..)
                .zip(assignments.iter().map(|nodes| nodes.to_vec()))
                .collect(),
            configs: Vec::new(),
        };
        self.create_topic(topic)
    }

    pub(super) fn create_topic(&mut self, topic: NewTopic) -> Outcome<()> {
        let command = Command::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        match self.run(command) {
            CommandReply::TopicsCreated(mut replies) => replies.remove(0).1.map(|_| ()),
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn set(&mut self, resource: ConfigResource, name: &str, value: &str) -> Outcome<()> {
        let set = (
            name.to_string(),
            ConfigOperation::Set,
            Some(value.to_string()),
        );
        let command = Command::AlterConfigs {
            alterations: vec![ConfigAlteration {
                resource,
                changes: vec![set],
            }],
            validate_only: false,
        };
        match self.run(command) {
            CommandReply::ConfigsAltered(mut results) => results.remove(0),
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn set_topic(&mut self, topic: &str, name: &str, value: &str) {
        let resource = ConfigResource::Topic(topic.to_string());
        self.set(resource, name, value).unwrap();
    }

    pub(super) fn partition(&self, topic: &str, number: i32) -> &PartitionImage {
        let topic = self.image.topic(topic).expect("there");
        topic.partition(number).expect("there")
    }

    /// The leader reports who is in sync, as it is.
    pub(super) fn isr_change(&self, topic: &str, number: i32, isr: &[i32]) -> IsrChange {
        let partition = self.partition(topic, number);
        IsrChange {
            topic: self.image.topic(topic).expect("there").id,
            partition: number,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|node| (*node, self.epoch(*node))).collect(),
        }
    }

    pub(super) fn report(&mut self, node_id: i32, change: IsrChange) -> Outcome<PartitionImage> {
        let command = Command::AlterPartitions {
            node_id,
            broker_epoch: self.epoch(node_id),
            changes: vec![change],
        };
        match self.run(command) {
            CommandReply::PartitionsAltered(result) => result?.remove(0),
            other => panic!("another reply: {other:?}"),
        }
    }

    pub(super) fn set_isr(&mut self, topic: &str, isr: &[i32]) -> Outcome<PartitionImage> {
        let leader = self.partition(topic, 0).leader;
        let change = self.isr_change(topic, 0, isr);
        self.report(leader, change)
    }

    pub(super) fn reassign(&mut self, topic: &str, replicas: Option<&[i32]>) -> Outcome<()> {
        let command = Command::AlterReassignments {
            allows_factor_change: true,
            reassignments: vec![Reassignment {
                topic: topic.to_string(),
                partition: 0,
                replicas: replicas.map(<[i32]>::to_vec),
            }],
        };
        match self.run(command) {
            CommandReply::ReassignmentsAltered(mut results) => results.remove(0),
            other => panic!("another reply: {other:?}"),
        }
    }
}

fn changed(reply: CommandReply) -> Outcome<BrokerState> {
    match reply {
        CommandReply::BrokerChanged(result) => result,
        other => panic!("another reply: {other:?}"),
    }
}
