//! Why the controller refuses a command. The client is at fault in all of them; `api` chooses
//! Kafka's code.

/// A refusal, with the words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum ControllerError {
    /// The name of a topic breaks a rule, or collides with another's.
    #[error("{0}")]
    InvalidTopicName(String),
    /// There is such a topic already.
    #[error("{0}")]
    TopicExists(String),
    /// There is no topic of that name.
    #[error("{0}")]
    UnknownTopic(String),
    /// There is no topic of that id.
    #[error("{0}")]
    UnknownTopicId(String),
    /// A number of partitions is wrong.
    #[error("{0}")]
    InvalidPartitions(String),
    /// A number of replicas is wrong, or more than there are brokers.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// An assignment of replicas contradicts itself or the cluster.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A setting is unknown, or its value wrong.
    #[error("{0}")]
    InvalidConfig(String),
    /// The command contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// A limit of this broker.
    #[error("{0}")]
    PolicyViolation(String),
    /// `delete.topic.enable` is false.
    #[error("{0}")]
    TopicDeletionDisabled(String),
    /// Another run of a broker has its node id.
    #[error("{0}")]
    DuplicateBroker(String),
    /// A broker of that id is not registered.
    #[error("{0}")]
    BrokerIdNotRegistered(String),
    /// A broker speaks of a registration that is not its newest.
    #[error("{0}")]
    StaleBrokerEpoch(String),
    /// A broker does not support what the cluster has agreed on.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// The controller knows less than the leader: it is not the controller any more.
    #[error("{0}")]
    StaleController(String),
    /// Whoever speaks as a leader is one no more.
    #[error("{0}")]
    FencedLeaderEpoch(String),
    /// What is to be changed was changed by somebody else, or cannot be.
    #[error("{0}")]
    InvalidUpdateVersion(String),
    /// A replica may not be in sync now.
    #[error("{0}")]
    IneligibleReplica(String),
    /// It is done, and another broker leads.
    #[error("{0}")]
    NewLeaderElected(String),
    /// The partition has the leader that was asked for.
    #[error("{0}")]
    ElectionNotNeeded(String),
    /// The preferred leader is not in sync, or not there.
    #[error("{0}")]
    PreferredLeaderNotAvailable(String),
    /// Nobody is there who could lead.
    #[error("{0}")]
    EligibleLeadersNotAvailable(String),
    /// There is no reassignment to cancel.
    #[error("{0}")]
    NoReassignmentInProgress(String),
    /// All producer ids were given out.
    #[error("{0}")]
    ProducerIdsExhausted(String),
}

/// Joins names the way Kafka lists them in messages.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(",")
}
