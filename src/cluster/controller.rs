//! What the controller is asked, and the one function that decides it.
//!
//! A decision is made on an image and is good for that image only: its records are applied before
//! the next command is decided. A refusal of one topic or resource does not touch the others.

use std::collections::BTreeMap;

use super::broker_commands::{self, Transition};
use super::cluster_version;
use super::config_commands;
use super::controller_error::ControllerError;
use super::election_commands;
use super::image::{MetadataImage, PartitionImage};
use super::partition_commands;
use super::reassignment_commands;
use super::record::MetadataRecord;
use super::topic_commands;
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;

/// Producer ids given out at a time (Kafka: `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions, -1 for the default.
    pub partitions: i32,
    /// How many replicas each, -1 for the default.
    pub replication_factor: i16,
    /// Instead of both: partitions with the brokers that hold them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// What it overrides; of a name that comes twice the last value counts.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TopicSelector {
    /// By name.
    Name(String),
    /// By id.
    Id(Uuid),
}

/// A topic to grow.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it shall have altogether.
    pub count: i32,
    /// The brokers that hold the new ones.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// What settings are changed of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// A broker by the text of its node id; empty for all brokers.
    Broker(String),
    /// A group, by name.
    Group(String),
}

/// What is done to a setting, by its number in IncrementalAlterConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(i8)]
pub enum ConfigOperation {
    /// Sets it.
    Set = 0,
    /// Takes it back to what it is without being set here.
    Delete = 1,
    /// Adds to a list what it does not have.
    Append = 2,
    /// Takes from a list what it has.
    Subtract = 3,
}

impl ConfigOperation {
    /// The operation of a number on the wire.
    #[must_use]
    pub fn from_code(code: i8) -> Option<ConfigOperation> {
        use ConfigOperation::{Append, Delete, Set, Subtract};
        [Set, Delete, Append, Subtract]
            .into_iter()
            .find(|operation| *operation as i8 == code)
    }

    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            ConfigOperation::Set => "SET",
            ConfigOperation::Delete => "DELETE",
            ConfigOperation::Append => "APPEND",
            ConfigOperation::Subtract => "SUBTRACT",
        }
    }
}

/// Changes of one resource's settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigAlteration {
    /// Whose settings.
    pub resource: ConfigResource,
    /// Name, operation, value.
    pub changes: Vec<(String, ConfigOperation, Option<String>)>,
}

/// All settings of one resource, replacing what it had.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigReplacement {
    /// Whose settings.
    pub resource: ConfigResource,
    /// Name and value.
    pub configs: Vec<(String, Option<String>)>,
}

/// What a broker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BrokerRegistration {
    /// Its node id.
    pub node_id: i32,
    /// Where clients reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Where other brokers reach it, if it listens for them.
    pub inter_broker: Option<(String, u16)>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// Drawn anew at every start of the process.
    pub incarnation: Uuid,
    /// The identity of its first data directory.
    pub directory_id: Uuid,
    /// How many cores it serves with.
    pub cores: u16,
    /// The newest cluster version it supports.
    pub cluster_version_max: u16,
    /// The epoch of its run before, if that stopped in order; -1 if not.
    pub previous_epoch: i64,
}

/// How the controller sees a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BrokerState {
    /// Whether it may lead nothing.
    pub is_fenced: bool,
    /// Whether it is about to stop.
    pub in_controlled_shutdown: bool,
    /// Whether it leads a partition.
    pub leads_any: bool,
}

/// Who is in sync, as the leader of a partition has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IsrChange {
    /// The topic.
    pub topic: Uuid,
    /// The partition.
    pub partition: i32,
    /// Under which the broker leads it.
    pub leader_epoch: i32,
    /// Of the partition as the leader knows it.
    pub partition_epoch: i32,
    /// Node ids with the epochs of the registrations that are in sync.
    pub isr: Vec<(i32, i64)>,
}

/// Whom an election may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ElectionKind {
    /// The first replica.
    Preferred,
    /// Somebody who lacks records rather than nobody.
    Unclean,
}

/// A partition by topic and number, and whether it has the leader that was asked for.
pub type ElectionResult = ((String, i32), Result<(), ControllerError>);

/// Where a partition is to be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reassignment {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The brokers that shall hold it; none to cancel what is under way.
    pub replicas: Option<Vec<i32>>,
}

/// What the controller is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Command {
    /// Creates topics.
    CreateTopics {
        /// Which.
        topics: Vec<NewTopic>,
        /// Only says whether it could be done.
        validate_only: bool,
    },
    /// Deletes topics.
    DeleteTopics {
        /// Which.
        topics: Vec<TopicSelector>,
    },
    /// Adds partitions to topics.
    CreatePartitions {
        /// Which.
        topics: Vec<MorePartitions>,
        /// Only says whether it could be done.
        validate_only: bool,
    },
    /// Changes settings one by one.
    AlterConfigs {
        /// Whose and which.
        alterations: Vec<ConfigAlteration>,
        /// Only says whether it could be done.
        validate_only: bool,
    },
    /// Replaces all settings of resources.
    ReplaceConfigs {
        /// Whose and which.
        replacements: Vec<ConfigReplacement>,
        /// Only says whether it could be done.
        validate_only: bool,
    },
    /// Gives out a block of producer ids.
    AllocateProducerIds,
    /// Registers a broker; it is fenced until it is alive.
    RegisterBroker(BrokerRegistration),
    /// A broker has applied the metadata and serves.
    BrokerAlive {
        /// Which broker.
        node_id: i32,
        /// Its registration.
        epoch: i64,
    },
    /// The heartbeats of a broker did not come.
    FenceBroker {
        /// Which broker.
        node_id: i32,
        /// Its registration.
        epoch: i64,
    },
    /// A broker is about to stop.
    BeginShutdown {
        /// Which broker.
        node_id: i32,
        /// Its registration.
        epoch: i64,
    },
    /// A broker is to be no part of the cluster any more.
    UnregisterBroker {
        /// Which broker.
        node_id: i32,
    },
    /// A leader reports who is in sync.
    AlterPartitions {
        /// The leader.
        node_id: i32,
        /// Its registration.
        broker_epoch: i64,
        /// Of which partitions.
        changes: Vec<IsrChange>,
    },
    /// Elects leaders.
    ElectLeaders {
        /// Whom.
        kind: ElectionKind,
        /// Of which partitions; `None` for all that need one.
        partitions: Option<Vec<(String, i32)>>,
    },
    /// Gives partitions back to their preferred leaders.
    BalanceLeaders {
        /// How many of a hundred partitions that prefer a broker others may lead.
        imbalance_percent_max: u32,
    },
    /// Starts, changes and cancels reassignments.
    AlterReassignments {
        /// Whether a partition may have more or fewer replicas than before.
        allows_factor_change: bool,
        /// Of which partitions.
        reassignments: Vec<Reassignment>,
    },
    /// Raises the cluster version.
    RaiseClusterVersion {
        /// To what.
        version: u16,
        /// Only says whether it could be done.
        validate_only: bool,
    },
}

/// A topic as it was created.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CreatedTopic {
    /// Its id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many replicas each has.
    pub replication_factor: usize,
    /// What it overrides.
    pub configs: BTreeMap<String, String>,
}

/// A topic as it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeletedTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

/// What the controller answers, one result per name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CommandReply {
    /// By name; a name that came twice is there once, refused.
    TopicsCreated(Vec<(String, Result<CreatedTopic, ControllerError>)>),
    /// In the order of the command.
    TopicsDeleted(Vec<Result<DeletedTopic, ControllerError>>),
    /// By name; a name that came twice is there once, refused.
    PartitionsCreated(Vec<(String, Result<(), ControllerError>)>),
    /// In the order of the command.
    ConfigsAltered(Vec<Result<(), ControllerError>>),
    /// The first id of a block of [`PRODUCER_ID_BLOCK`].
    ProducerIds(Result<i64, ControllerError>),
    /// The epoch of the registration.
    BrokerRegistered(Result<i64, ControllerError>),
    /// The broker as it is now.
    BrokerChanged(Result<BrokerState, ControllerError>),
    /// Whether it is out.
    BrokerUnregistered(Result<(), ControllerError>),
    /// In the order of the command, the partitions as they are now.
    PartitionsAltered(Result<Vec<Result<PartitionImage, ControllerError>>, ControllerError>),
    /// In the order of the command; of all partitions, those that needed an election.
    LeadersElected(Vec<ElectionResult>),
    /// Whether any partition changed its leader.
    LeadersBalanced(bool),
    /// In the order of the command.
    ReassignmentsAltered(Vec<Result<(), ControllerError>>),
    /// Whether the cluster is at that version.
    ClusterVersionRaised(Result<(), ControllerError>),
}

/// What happens, and what the client is told when it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To store and apply, in this order.
    pub records: Vec<MetadataRecord>,
    /// To answer with.
    pub reply: CommandReply,
}

impl Decision {
    pub(super) fn unless(
        is_dry: bool,
        records: Vec<MetadataRecord>,
        reply: CommandReply,
    ) -> Decision {
        let records = if is_dry { Vec::new() } else { records };
        Decision { records, reply }
    }
}

/// Decides a command. `config` is the configuration in force, dynamic settings included; `ids` makes
/// an id that was never used.
pub fn decide(
    image: &MetadataImage,
    config: &BrokerConfig,
    command: Command,
    ids: &mut impl FnMut() -> Uuid,
) -> Decision {
    match command {
        Command::CreateTopics {
            topics,
            validate_only,
        } => topic_commands::create(image, config, topics, validate_only, ids),
        Command::DeleteTopics { topics } => topic_commands::delete(image, config, &topics),
        Command::CreatePartitions {
            topics,
            validate_only,
        } => topic_commands::grow(image, config, &topics, validate_only),
        Command::AlterConfigs {
            alterations,
            validate_only,
        } => {
            let decision = config_commands::alter(image, config, &alterations, validate_only);
            election_commands::with_elections(image, config, decision)
        }
        Command::ReplaceConfigs {
            replacements,
            validate_only,
        } => {
            let decision = config_commands::replace(image, config, &replacements, validate_only);
            election_commands::with_elections(image, config, decision)
        }
        Command::AllocateProducerIds => allocate(image),
        command => decide_for_cluster(image, config, command),
    }
}

/// Decides a command about brokers and about where partitions are.
fn decide_for_cluster(image: &MetadataImage, config: &BrokerConfig, command: Command) -> Decision {
    match command {
        Command::RegisterBroker(registration) => {
            broker_commands::register(image, config, &registration)
        }
        Command::BrokerAlive { node_id, epoch } => {
            broker_commands::change(image, config, (node_id, epoch), Transition::Alive)
        }
        Command::FenceBroker { node_id, epoch } => {
            broker_commands::change(image, config, (node_id, epoch), Transition::Fenced)
        }
        Command::BeginShutdown { node_id, epoch } => {
            broker_commands::change(image, config, (node_id, epoch), Transition::Stopping)
        }
        Command::UnregisterBroker { node_id } => {
            broker_commands::unregister(image, config, node_id)
        }
        Command::AlterPartitions {
            node_id,
            broker_epoch,
            changes,
        } => partition_commands::alter(image, config, (node_id, broker_epoch), &changes),
        Command::ElectLeaders { kind, partitions } => {
            election_commands::elect(image, config, kind, partitions.as_deref())
        }
        Command::BalanceLeaders {
            imbalance_percent_max,
        } => {
            let records = election_commands::rebalance(image, config, imbalance_percent_max);
            let reply = CommandReply::LeadersBalanced(!records.is_empty());
            Decision { records, reply }
        }
        Command::AlterReassignments {
            allows_factor_change,
            reassignments,
        } => reassignment_commands::alter(image, config, allows_factor_change, &reassignments),
        Command::RaiseClusterVersion {
            version,
            validate_only,
        } => cluster_version::raise(image, version, validate_only),
        _ => unreachable!("decided before"),
    }
}

fn allocate(image: &MetadataImage) -> Decision {
    let first = image.next_producer_id();
    match first.checked_add(PRODUCER_ID_BLOCK) {
        Some(next) => Decision {
            records: vec![MetadataRecord::ProducerIdsAllocated { next }],
            reply: CommandReply::ProducerIds(Ok(first)),
        },
        None => {
            let error = "All producer ids were given out".to_string();
            let error = ControllerError::ProducerIdsExhausted(error);
            Decision {
                records: Vec::new(),
                reply: CommandReply::ProducerIds(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocated(image: &mut MetadataImage) -> Result<i64, ControllerError> {
        let config = BrokerConfig::defaults();
        let decision = decide(image, &config, Command::AllocateProducerIds, &mut || {
            unreachable!("no id is needed")
        });
        for record in &decision.records {
            image.apply(record);
        }
        let CommandReply::ProducerIds(first) = decision.reply else {
            panic!("another reply");
        };
        first
    }

    #[test]
    fn producer_ids_come_in_blocks_and_end_at_the_last() {
        let mut image = MetadataImage::empty("c", 1);
        assert_eq!(allocated(&mut image), Ok(0));
        assert_eq!(allocated(&mut image), Ok(1000));
        let next = i64::MAX - 500;
        image.apply(&MetadataRecord::ProducerIdsAllocated { next });
        assert!(allocated(&mut image).is_err());
        assert_eq!(image.next_producer_id(), next);
    }

    #[test]
    fn operations_have_kafkas_numbers() {
        let codes = (-1..5).map(ConfigOperation::from_code).collect::<Vec<_>>();
        let names = codes.iter().flatten().map(|operation| operation.name());
        assert!(names.eq(["SET", "DELETE", "APPEND", "SUBTRACT"]));
        assert_eq!((codes[0], codes[5]), (None, None));
    }
}
