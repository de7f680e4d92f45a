//! Kafka's error codes.
//!
//! The codes are facts of the protocol; which of them answers a request is chosen in `api` and in
//! the coordinators only.

use std::fmt;

/// What a client does when it gets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// It gives up.
    Final,
    /// It tries again.
    Retry,
    /// It fetches metadata and tries again.
    Refresh,
}

macro_rules! error_codes {
    ($($code:literal $variant:ident $name:literal $reaction:ident $message:literal;)*) => {
        /// An error code of the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(into = "i16", try_from = "i16")]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant = $code,)*
        }

        /// What cannot be said by the enum itself, in the order of the codes, which have no
        /// gap from -1 on.
        static ERRORS: &[(ErrorCode, &str, Reaction, &str)] = &[
            $((ErrorCode::$variant, $name, Reaction::$reaction, $message),)*
        ];
    };
}

error_codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" Final "The server met an error that it did not expect.";
    0 None "NONE" Final "No error.";
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" Final "The offset is outside of what the partition holds.";
    2 CorruptMessage "CORRUPT_MESSAGE" Retry "The bytes are damaged: a checksum, a size or a format is wrong.";
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" Refresh "There is no such topic or partition on this broker.";
    4 InvalidFetchSize "INVALID_FETCH_SIZE" Final "The fetch size is not valid.";
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" Refresh "The partition has no leader at the moment, an election is under way.";
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" Refresh "This broker is not the leader of the partition, or not a replica of it.";
    7 RequestTimedOut "REQUEST_TIMED_OUT" Retry "The request was not completed in time.";
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" Final "The broker is not available.";
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" Refresh "The replica is not available on this broker.";
    10 MessageTooLarge "MESSAGE_TOO_LARGE" Final "The message is larger than the server accepts.";
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" Final "The controller has moved to another broker.";
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" Final "The metadata of the offset commit is too large.";
    13 NetworkException "NETWORK_EXCEPTION" Refresh "The connection broke before a response arrived.";
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" Retry "The coordinator is still loading its state.";
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" Retry "The coordinator is not available.";
    16 NotCoordinator "NOT_COORDINATOR" Retry "This broker is not the coordinator.";
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" Final "The name of the topic is not valid.";
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" Final "The batch is larger than a segment of the log.";
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" Retry "Fewer replicas are in sync than min.insync.replicas asks for; nothing was written.";
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" Retry "The messages were written, but fewer replicas are in sync than min.insync.replicas asks for.";
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" Final "The value of acks is not valid.";
    22 IllegalGeneration "ILLEGAL_GENERATION" Final "The generation of the group is not the current one.";
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" Final "No assignor or protocol type is common to all members of the group.";
    24 InvalidGroupId "INVALID_GROUP_ID" Final "The group id is not valid.";
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" Final "The group has no such member.";
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" Final "The session timeout is outside of what the broker allows.";
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" Final "The group is rebalancing, the member has to join again.";
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" Final "The size of the committed offset data is not valid.";
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" Final "Access to the topic is denied.";
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" Final "Access to the group is denied.";
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" Final "Access to the cluster is denied.";
    32 InvalidTimestamp "INVALID_TIMESTAMP" Final "The timestamp of a record is outside of what the topic allows.";
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" Final "The SASL mechanism is not enabled on this listener.";
    34 IllegalSaslState "ILLEGAL_SASL_STATE" Final "The request is not valid in this state of the SASL exchange.";
    35 UnsupportedVersion "UNSUPPORTED_VERSION" Final "The broker does not serve this version of the API.";
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" Final "A topic of this name exists already.";
    37 InvalidPartitions "INVALID_PARTITIONS" Final "The number of partitions is not valid.";
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" Final "The replication factor is not valid, or more than there are brokers.";
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" Final "The replica assignment is not valid.";
    40 InvalidConfig "INVALID_CONFIG" Final "The configuration is not valid.";
    41 NotController "NOT_CONTROLLER" Retry "This node is not the active controller.";
    42 InvalidRequest "INVALID_REQUEST" Final "The request contradicts itself or a rule of the protocol.";
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" Final "The message format on the broker does not support the request.";
    44 PolicyViolation "POLICY_VIOLATION" Final "A policy of the cluster forbids the request.";
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" Final "The producer's sequence number is not the next one.";
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" Final "The producer's sequence number was used before.";
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" Final "The producer has an old epoch.";
    48 InvalidTxnState "INVALID_TXN_STATE" Final "The transaction is in a state that does not allow the operation.";
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" Final "The producer id does not belong to this transactional id.";
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" Final "The transaction timeout is larger than transaction.max.timeout.ms.";
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" Retry "Another operation on the same transaction is still under way.";
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" Final "A newer transaction coordinator has taken over.";
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" Final "Access to the transactional id is denied.";
    54 SecurityDisabled "SECURITY_DISABLED" Final "Security features are disabled on this broker.";
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" Final "The operation was not attempted, because another one of the request failed.";
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" Refresh "The disk failed when the log was accessed.";
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" Final "There is no such log directory.";
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" Final "Authentication failed.";
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" Final "The broker has no state for this producer id.";
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" Final "A reassignment of the partition is under way.";
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" Final "Delegation tokens are not enabled.";
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" Final "There is no such delegation token.";
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" Final "The delegation token belongs to someone else.";
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" Final "Delegation token requests are not allowed on this connection.";
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" Final "Access to the delegation token is denied.";
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" Final "The delegation token has expired.";
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" Final "The type of the principal is not supported.";
    68 NonEmptyGroup "NON_EMPTY_GROUP" Final "The group still has members.";
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" Final "There is no such group.";
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" Retry "There is no such fetch session.";
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" Retry "The epoch of the fetch session is not the next one.";
    72 ListenerNotFound "LISTENER_NOT_FOUND" Refresh "The leader has no endpoint on the listener that the request came through.";
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" Final "Deletion of topics is disabled.";
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" Refresh "The leader epoch of the request is older than the broker's.";
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" Retry "The leader epoch of the request is newer than the broker's.";
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" Final "The compression type does not exist in this version of the API.";
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" Final "The broker epoch is not the current one.";
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" Retry "The leader has not caught up with its new high watermark yet.";
    79 MemberIdRequired "MEMBER_ID_REQUIRED" Final "The member has to join with the member id that it was given.";
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" Refresh "The preferred leader is not available.";
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" Final "The group has reached its maximum size.";
    82 FencedInstanceId "FENCED_INSTANCE_ID" Final "Another consumer uses the same group instance id.";
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" Refresh "No replica is eligible to become the leader.";
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" Refresh "The partition needs no election.";
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" Final "No reassignment of the partition is under way.";
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" Final "The group is subscribed to the topic.";
    87 InvalidRecord "INVALID_RECORD" Final "A record is not valid.";
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" Retry "Offsets of an open transaction have not been decided yet.";
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" Retry "The quota of the operation is used up for the moment.";
    90 ProducerFenced "PRODUCER_FENCED" Final "A newer producer with the same transactional id has taken over.";
    91 ResourceNotFound "RESOURCE_NOT_FOUND" Final "There is no such resource.";
    92 DuplicateResource "DUPLICATE_RESOURCE" Final "The resource exists already.";
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" Final "The credential does not meet the requirements.";
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" Final "The sets of voters differ between sender and receiver.";
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" Final "The update's version is not valid.";
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" Final "The features could not be updated.";
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" Final "The principal of a forwarded request could not be read.";
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" Final "There is no such snapshot.";
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" Final "The position lies outside of the snapshot.";
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" Refresh "There is no topic with this id on this broker.";
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" Final "A broker with this id is registered already.";
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" Final "The broker id is not registered.";
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" Refresh "The topic id differs from the one in the log.";
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" Final "The cluster id differs from this cluster's.";
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" Final "There is no such transactional id.";
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" Retry "The fetch session was opened with another kind of topic identification.";
    107 IneligibleReplica "INELIGIBLE_REPLICA" Final "The replica is not eligible for the in-sync set.";
    108 NewLeaderElected "NEW_LEADER_ELECTED" Final "The change of the in-sync set made another replica the leader.";
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" Final "The offset has moved to tiered storage.";
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" Final "The member's epoch is older than the coordinator's.";
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" Final "Another member still uses the group instance id.";
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" Final "The assignor is not supported by all members or by the coordinator.";
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" Final "The member's epoch is not the current one.";
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" Final "The request was sent to an endpoint of the wrong type.";
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" Final "The type of endpoint is not supported yet.";
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" Final "There is no controller with this id.";
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" Final "The client's telemetry subscription is unknown.";
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" Final "The telemetry is larger than the broker accepts.";
    119 InvalidRegistration "INVALID_REGISTRATION" Final "The registration of the controller is not valid.";
    120 TransactionAbortable "TRANSACTION_ABORTABLE" Final "The transaction failed in a way that the client has to abort it.";
    121 InvalidRecordState "INVALID_RECORD_STATE" Final "The record is in a state that does not allow the acknowledgement.";
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" Retry "There is no such share session.";
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" Retry "The epoch of the share session is not the next one.";
    124 FencedStateEpoch "FENCED_STATE_EPOCH" Final "The state epoch of the share coordinator's request is old.";
    125 InvalidVoterKey "INVALID_VOTER_KEY" Final "The key of the voter does not match.";
    126 DuplicateVoter "DUPLICATE_VOTER" Final "The voter is already one of the set.";
    127 VoterNotFound "VOTER_NOT_FOUND" Final "The voter is not one of the set.";
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" Final "The regular expression is not valid.";
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" Final "The client's metadata is useless, it has to bootstrap again.";
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" Final "The topology of the streams group is not valid.";
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" Final "The epoch of the streams topology is not valid.";
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" Final "The epoch of the streams topology is older than the group's.";
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" Retry "The broker holds as many share sessions as it may.";
}

impl ErrorCode {
    /// All codes, ascending.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        ERRORS.iter().map(|error| error.0)
    }

    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The error of a number on the wire, if Kafka 4.3 has it.
    #[must_use]
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        let error = ERRORS.get(usize::try_from(i32::from(code) + 1).ok()?)?;
        Some(error.0)
    }

    fn properties(self) -> &'static (ErrorCode, &'static str, Reaction, &'static str) {
        &ERRORS[(self.code() + 1) as usize]
    }

    /// Kafka's name, like `UNKNOWN_TOPIC_OR_PARTITION`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.properties().1
    }

    /// What to tell a person who has nothing more specific.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.properties().3
    }

    /// Whether clients try again by themselves.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        self.properties().2 != Reaction::Final
    }

    /// Whether clients fetch metadata before they try again.
    #[must_use]
    pub fn refreshes_metadata(self) -> bool {
        self.properties().2 == Reaction::Refresh
    }

    /// Whether this is not [`ErrorCode::None`].
    #[must_use]
    pub fn is_error(self) -> bool {
        self != ErrorCode::None
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<i16> for ErrorCode {
    type Error = &'static str;

    fn try_from(code: i16) -> Result<ErrorCode, &'static str> {
        ErrorCode::from_code(code).ok_or("no error code of Kafka's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        let codes: Vec<i16> = ErrorCode::all().map(ErrorCode::code).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for error in ErrorCode::all() {
            assert_eq!(ErrorCode::from_code(error.code()), Some(error));
            assert!(
                error
                    .name()
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
            );
            assert!(error.message().ends_with('.'), "{error}");
        }
        assert_eq!(ErrorCode::from_code(-2), None);
        assert_eq!(ErrorCode::from_code(134), None);
    }

    #[test]
    fn reactions_are_those_of_kafka_clients() {
        assert!(ErrorCode::NotLeaderOrFollower.refreshes_metadata());
        assert!(ErrorCode::NotCoordinator.is_retriable());
        assert!(!ErrorCode::NotCoordinator.refreshes_metadata());
        assert!(!ErrorCode::MessageTooLarge.is_retriable());
        assert_eq!(
            ErrorCode::UnknownTopicOrPartition.to_string(),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
    }
}
