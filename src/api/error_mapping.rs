//! Kafka's error code for everything that can go wrong below.
//!
//! Which code a client retries on, and which one ends it, differs from API to API: the Java
//! consumer throws for a code it does not expect in a Fetch. UNKNOWN_SERVER_ERROR is in none.

use crate::cluster::controller_error::ControllerError;
use crate::shard::request::ControlFailure;
use crate::shard::request::PartitionError;
use crate::wire::error_code::ErrorCode;

/// First Fetch whose client knows KAFKA_STORAGE_ERROR.
const FETCH_STORAGE_ERROR_FROM: i16 = 6;

/// The code in everything but reads.
#[must_use]
pub fn partition_code(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::Unknown => ErrorCode::UnknownTopicOrPartition,
        PartitionError::NotLeader => ErrorCode::NotLeaderOrFollower,
        PartitionError::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        PartitionError::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        PartitionError::Storage(_) | PartitionError::DiskFull => ErrorCode::KafkaStorageError,
        PartitionError::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        PartitionError::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        PartitionError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        PartitionError::BatchTooLarge => ErrorCode::RecordListTooLarge,
        PartitionError::InvalidTransactionState => ErrorCode::InvalidTxnState,
        PartitionError::CoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
        // Final for the batch, and the client may still abort.
        PartitionError::PolicyViolation | PartitionError::TooManyTransactions => {
            ErrorCode::PolicyViolation
        }
        PartitionError::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
        PartitionError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        // Both are worth another try; of the second nobody knows whether it happened.
        PartitionError::Overloaded | PartitionError::TimedOut => ErrorCode::RequestTimedOut,
    }
}

/// The code in ListOffsets and OffsetForLeaderEpoch, which consumers retry on.
#[must_use]
pub fn read_code(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::Overloaded | PartitionError::TimedOut => ErrorCode::OffsetNotAvailable,
        error => partition_code(error),
    }
}

/// The code in Fetch of a version.
#[must_use]
pub fn fetch_code(error: &PartitionError, version: i16) -> ErrorCode {
    match read_code(error) {
        ErrorCode::KafkaStorageError if version < FETCH_STORAGE_ERROR_FROM => {
            ErrorCode::NotLeaderOrFollower
        }
        code => code,
    }
}

/// What a person is told beside the code, where there is more to say.
#[must_use]
pub fn partition_message(error: &PartitionError) -> Option<String> {
    match error {
        PartitionError::Storage(problem) => Some(format!("The data directory failed: {problem}")),
        PartitionError::DiskFull => Some("The disk is full; nothing is appended".to_string()),
        PartitionError::TooManyTransactions => {
            Some("The partition has too many open and aborted transactions".to_string())
        }
        PartitionError::Overloaded => {
            Some("The broker has too much to do; nothing was appended".to_string())
        }
        PartitionError::TimedOut => {
            Some("Not known to be stored in time; it may still be".to_string())
        }
        _ => None,
    }
}

/// The code of a refusal of the controller.
#[must_use]
pub fn controller_code(error: &ControllerError) -> ErrorCode {
    match error {
        ControllerError::InvalidTopicName(_) => ErrorCode::InvalidTopicException,
        ControllerError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        ControllerError::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        ControllerError::UnknownTopicId(_) => ErrorCode::UnknownTopicId,
        ControllerError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        ControllerError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        ControllerError::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        ControllerError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        ControllerError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ControllerError::PolicyViolation(_) => ErrorCode::PolicyViolation,
        ControllerError::TopicDeletionDisabled(_) => ErrorCode::TopicDeletionDisabled,
        ControllerError::DuplicateBroker(_) => ErrorCode::DuplicateBrokerRegistration,
        ControllerError::BrokerIdNotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        ControllerError::StaleBrokerEpoch(_) => ErrorCode::StaleBrokerEpoch,
        ControllerError::UnsupportedVersion(_) => ErrorCode::UnsupportedVersion,
        ControllerError::StaleController(_) => ErrorCode::NotController,
        ControllerError::FencedLeaderEpoch(_) => ErrorCode::FencedLeaderEpoch,
        ControllerError::InvalidUpdateVersion(_) => ErrorCode::InvalidUpdateVersion,
        ControllerError::IneligibleReplica(_) => ErrorCode::IneligibleReplica,
        ControllerError::NewLeaderElected(_) => ErrorCode::NewLeaderElected,
        ControllerError::ElectionNotNeeded(_) => ErrorCode::ElectionNotNeeded,
        ControllerError::PreferredLeaderNotAvailable(_) => ErrorCode::PreferredLeaderNotAvailable,
        ControllerError::EligibleLeadersNotAvailable(_) => ErrorCode::EligibleLeadersNotAvailable,
        ControllerError::NoReassignmentInProgress(_) => ErrorCode::NoReassignmentInProgress,
        ControllerError::ProducerIdsExhausted(_) => ErrorCode::InvalidProducerIdMapping,
    }
}

/// The code when the controller could not decide, or did not say in time.
#[must_use]
pub fn control_code(failure: ControlFailure) -> ErrorCode {
    match failure {
        ControlFailure::Overloaded | ControlFailure::TimedOut => ErrorCode::RequestTimedOut,
        ControlFailure::Storage => ErrorCode::KafkaStorageError,
        ControlFailure::NotController(_) => ErrorCode::NotController,
        ControlFailure::TooLarge => ErrorCode::InvalidRequest,
    }
}

/// The words beside [`control_code`].
#[must_use]
pub fn control_message(failure: ControlFailure) -> &'static str {
    match failure {
        ControlFailure::Overloaded => "The controller has too much to do; nothing was changed",
        ControlFailure::TimedOut => "The controller did not answer in time; it may still happen",
        ControlFailure::Storage => "The metadata cannot be stored",
        ControlFailure::NotController(_) => "This node is not the active controller",
        ControlFailure::TooLarge => "What was asked for is larger than the metadata log takes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [PartitionError; 18] {
        [
            PartitionError::Unknown,
            PartitionError::NotLeader,
            PartitionError::UnknownLeaderEpoch,
            PartitionError::FencedLeaderEpoch,
            PartitionError::Storage("why".to_string()),
            PartitionError::DiskFull,
            PartitionError::OffsetOutOfRange,
            PartitionError::OutOfOrderSequence,
            PartitionError::InvalidProducerEpoch,
            PartitionError::BatchTooLarge,
            PartitionError::PolicyViolation,
            PartitionError::InvalidTransactionState,
            PartitionError::CoordinatorFenced,
            PartitionError::TooManyTransactions,
            PartitionError::NotEnoughReplicas,
            PartitionError::OffsetNotAvailable,
            PartitionError::Overloaded,
            PartitionError::TimedOut,
        ]
    }

    #[test]
    fn nothing_is_unexpected() {
        for error in all() {
            for code in [
                partition_code(&error),
                read_code(&error),
                fetch_code(&error, 4),
            ] {
                assert!(
                    code.is_error() && code != ErrorCode::UnknownServerError,
                    "{error:?}"
                );
            }
        }
    }

    #[test]
    fn what_passes_is_retried_by_producers_and_consumers() {
        for error in [
            PartitionError::NotLeader,
            PartitionError::Storage(String::new()),
            PartitionError::DiskFull,
            PartitionError::Overloaded,
            PartitionError::TimedOut,
        ] {
            assert!(partition_code(&error).is_retriable(), "{error:?}");
            assert!(fetch_code(&error, 12).is_retriable(), "{error:?}");
        }
    }

    #[test]
    fn a_fetch_gets_only_codes_that_the_java_consumer_expects() {
        let expected = [1, 3, 6, 56, 74, 75, 78];
        let reads = all().into_iter().take(7).chain(all().into_iter().skip(15));
        for error in reads {
            assert!(
                expected.contains(&fetch_code(&error, 12).code()),
                "{error:?}"
            );
        }
        let storage = PartitionError::DiskFull;
        assert_eq!(fetch_code(&storage, 5), ErrorCode::NotLeaderOrFollower);
        assert_eq!(fetch_code(&storage, 6), ErrorCode::KafkaStorageError);
    }

    #[test]
    fn the_controllers_refusals_are_final_but_for_unknown_topics() {
        let text = String::new;
        for error in [
            ControllerError::InvalidTopicName(text()),
            ControllerError::TopicExists(text()),
            ControllerError::InvalidConfig(text()),
            ControllerError::PolicyViolation(text()),
            ControllerError::ProducerIdsExhausted(text()),
        ] {
            assert!(!controller_code(&error).is_retriable(), "{error:?}");
        }
        assert!(control_code(ControlFailure::Overloaded).is_retriable());
        assert!(control_code(ControlFailure::Storage).is_retriable());
        assert!(control_code(ControlFailure::NotController(None)).is_retriable());
        assert!(!control_code(ControlFailure::TooLarge).is_retriable());
    }
}
