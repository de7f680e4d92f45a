//! CreateTopics, versions 2 to 7 (KIP-4, KIP-464 defaults, KIP-525 settings in the answer from 5,
//! KIP-516 ids from 7).
//!
//! Answered when every core knows the topic, so that whoever produces next finds it. A name that
//! comes twice is answered once, with INVALID_REQUEST. With `validate_only` nothing is created but
//! the answer is the same.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply, CreatedTopic, NewTopic};
use crate::cluster::controller_error::ControllerError;
use crate::config::broker::BrokerConfig;
use crate::config::describe::describe_topic;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};

/// Answers a CreateTopics.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: CreateTopicsRequest<'_> = call.request()?;
    let command = Command::CreateTopics {
        topics: request.topics.iter().map(new_topic).collect(),
        validate_only: request.validate_only,
    };
    let reply = api.router.control(command).await;
    let config = api.router.config();
    let topics = match reply {
        Ok(CommandReply::TopicsCreated(results)) => {
            let results = results.into_iter();
            results
                .map(|(name, result)| answer(name, result, &config))
                .collect()
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            let names = request.topics.iter().map(|topic| topic.name.to_string());
            let message = control_message(failure).to_string();
            names
                .map(|name| refused(name, control_code(failure), message.clone()))
                .collect()
        }
    };
    Ok(call.reply(&CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }))
}

fn new_topic(topic: &CreatableTopic<'_>) -> NewTopic {
    let assignments = topic.assignments.iter();
    let configs = topic.configs.iter();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments
            .map(|assignment| (assignment.partition_index, assignment.broker_ids.clone()))
            .collect(),
        configs: configs
            .map(|config| {
                (
                    config.name.to_string(),
                    config.value.as_deref().map(str::to_string),
                )
            })
            .collect(),
    }
}

fn refused(name: String, code: ErrorCode, message: String) -> CreatableTopicResult<'static> {
    CreatableTopicResult {
        name: Cow::Owned(name),
        error_code: code.code(),
        error_message: Some(Cow::Owned(message)),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

fn answer(
    name: String,
    result: Result<CreatedTopic, ControllerError>,
    config: &BrokerConfig,
) -> CreatableTopicResult<'static> {
    let created = match result {
        Ok(created) => created,
        Err(error) => return refused(name, controller_code(&error), error.to_string()),
    };
    let mut entries = describe_topic(&created.configs, config);
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let configs = entries.into_iter().map(|entry| CreatableTopicConfigs {
        name: Cow::Owned(entry.name),
        value: entry.value.map(Cow::Owned),
        read_only: entry.is_read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive,
    });
    CreatableTopicResult {
        name: Cow::Owned(name),
        topic_id: created.id,
        error_code: ErrorCode::None.code(),
        error_message: None,
        num_partitions: i32::try_from(created.partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(created.replication_factor).unwrap_or(i16::MAX),
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::Uuid;
    use std::collections::BTreeMap;

    #[test]
    fn a_created_topic_is_told_with_its_settings_in_order() {
        let created = CreatedTopic {
            id: Uuid([3; 16]),
            partitions: 4,
            replication_factor: 1,
            configs: BTreeMap::from([("retention.ms".to_string(), "9".to_string())]),
        };
        let result = answer("t".to_string(), Ok(created), &BrokerConfig::defaults());
        assert_eq!((result.num_partitions, result.replication_factor), (4, 1));
        let configs = result.configs.unwrap();
        assert!(configs.is_sorted_by(|one, other| one.name < other.name));
        let retention = configs.iter().find(|config| config.name == "retention.ms");
        assert_eq!(retention.map(|config| config.config_source), Some(1));
    }

    #[test]
    fn a_refusal_has_code_words_and_no_numbers() {
        let error = ControllerError::TopicExists("Topic 't' already exists.".to_string());
        let result = answer("t".to_string(), Err(error), &BrokerConfig::defaults());
        assert_eq!((result.error_code, result.num_partitions), (36, -1));
        assert_eq!(
            result.error_message.as_deref(),
            Some("Topic 't' already exists.")
        );
        assert_eq!(result.configs, Some(Vec::new()));
    }
}
