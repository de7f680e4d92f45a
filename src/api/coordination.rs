//! The way from a handler to the coordinator of a group or a transactional id.

use super::call::{Call, Refused};
use super::dispatch::Api;
use super::error_mapping::{control_code, controller_code};
use crate::cluster::controller::{Command, CommandReply, NewTopic};
use crate::cluster::controller_error::ControllerError;
use crate::config::broker::BrokerConfig;
use crate::coordinator::group_request::GroupAnswer;
use crate::coordinator::transaction_request::{TransactionAnswer, TransactionRequest};
use crate::net::close_reason::CloseReason;
use crate::shard::coordinator_host::Unavailable;
use crate::shard::coordinators::{
    CoordinatorAnswer, CoordinatorCall, GroupAsk, GroupCall, OFFSETS_TOPIC, TRANSACTIONS_TOPIC,
    coordinator_log,
};
use crate::wire::error_code::ErrorCode;

/// Why there is no answer of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The client gets this code.
    Code(ErrorCode),
    /// The request makes no sense.
    Close,
}

impl NoAnswer {
    /// The code, or the end of the connection.
    pub(super) fn code(self) -> Result<ErrorCode, Refused> {
        match self {
            NoAnswer::Code(code) => Ok(code),
            NoAnswer::Close => Err(Refused(CloseReason::InvalidRequest)),
        }
    }
}

impl From<Unavailable> for NoAnswer {
    fn from(why: Unavailable) -> NoAnswer {
        NoAnswer::Code(match why {
            Unavailable::NotHere | Unavailable::Broken => ErrorCode::NotCoordinator,
            Unavailable::Loading => ErrorCode::CoordinatorLoadInProgress,
            Unavailable::Overloaded => ErrorCode::CoordinatorNotAvailable,
            Unavailable::Ended => ErrorCode::InvalidTxnState,
            Unavailable::Malformed => return NoAnswer::Close,
        })
    }
}

const NO_TOPIC: NoAnswer = NoAnswer::Code(ErrorCode::CoordinatorNotAvailable);

/// Asks the coordinator of a group.
pub(super) async fn ask_group(
    api: &Api,
    call: &Call,
    group: &str,
    ask: GroupAsk,
) -> Result<GroupAnswer, NoAnswer> {
    let call = CoordinatorCall::Group(Box::new(GroupCall {
        log: coordinator_log(&api.router.image(), OFFSETS_TOPIC, group).ok_or(NO_TOPIC)?,
        frame: call.frame.clone(),
        client_host: format!("/{}", call.peer.address().ip()),
        ask,
    }));
    match api.router.coordinate(call).await? {
        CoordinatorAnswer::Group(answer) => Ok(answer),
        CoordinatorAnswer::Transaction(other) => unreachable!("a group answers: {other:?}"),
    }
}

/// Asks the coordinator of a transactional id.
pub(super) async fn ask_transaction(
    api: &Api,
    transactional_id: &str,
    request: TransactionRequest,
) -> Result<TransactionAnswer, ErrorCode> {
    let code = |why: NoAnswer| match why {
        NoAnswer::Code(code) => code,
        NoAnswer::Close => ErrorCode::InvalidRequest,
    };
    let log = coordinator_log(&api.router.image(), TRANSACTIONS_TOPIC, transactional_id);
    let log = log.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let call = CoordinatorCall::Transaction(log, request);
    match api.router.coordinate(call).await {
        Ok(CoordinatorAnswer::Transaction(answer)) => Ok(answer),
        Ok(CoordinatorAnswer::Group(other)) => unreachable!("a transaction answers: {other:?}"),
        Err(why) => Err(code(why.into())),
    }
}

/// Creates a coordinator's topic when the first client looks for one.
pub(super) async fn create_topic(api: &Api, topic: &'static str) -> Result<(), ErrorCode> {
    let brokers = api.router.image().brokers().len();
    let command = Command::CreateTopics {
        topics: vec![new_topic(topic, &api.router.config(), brokers)],
        validate_only: false,
    };
    match api.router.control(command).await {
        Ok(CommandReply::TopicsCreated(results)) => {
            let results = results.into_iter();
            for (_, result) in results {
                match result {
                    // Another client looked at the same time.
                    Ok(_) | Err(ControllerError::TopicExists(_)) => {}
                    Err(error) => return Err(controller_code(&error)),
                }
            }
            Ok(())
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => Err(control_code(failure)),
    }
}

/// Kafka: `AutoTopicCreationManager`, which waits until there are as many brokers as the settings ask
/// for replicas; here a smaller cluster has fewer.
fn new_topic(topic: &'static str, config: &BrokerConfig, brokers: usize) -> NewTopic {
    let (groups, transactions) = (&config.groups, &config.transactions);
    let (partitions, segment_bytes, factor) = if topic == OFFSETS_TOPIC {
        (
            groups.topic_partitions,
            groups.topic_segment_bytes,
            groups.topic_replication_factor,
        )
    } else {
        (
            transactions.topic_partitions,
            transactions.topic_segment_bytes,
            transactions.topic_replication_factor,
        )
    };
    let most = i16::try_from(brokers.max(1)).unwrap_or(i16::MAX);
    let setting = |name: &str, value: String| (name.to_string(), Some(value));
    NewTopic {
        name: topic.to_string(),
        partitions,
        replication_factor: factor.min(most),
        assignments: Vec::new(),
        configs: vec![
            setting("cleanup.policy", "compact".to_string()),
            setting("compression.type", "producer".to_string()),
            setting("segment.bytes", segment_bytes.to_string()),
        ],
    }
}
