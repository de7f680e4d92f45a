//! CreatePartitions, versions 0 to 3 (KIP-195, KIP-599).
//!
//! Topics grow and never shrink. A name that comes twice is answered once, with INVALID_REQUEST.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply, MorePartitions};
use crate::wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};

/// Answers a CreatePartitions.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: CreatePartitionsRequest<'_> = call.request()?;
    let command = Command::CreatePartitions {
        topics: request.topics.iter().map(more).collect(),
        validate_only: request.validate_only,
    };
    let answer = |name: String, refusal: Option<(i16, String)>| {
        let (error_code, message) = refusal.unzip();
        CreatePartitionsTopicResult {
            name: Cow::Owned(name),
            error_code: error_code.unwrap_or(0),
            error_message: message.map(Cow::Owned),
        }
    };
    let results = match api.router.control(command).await {
        Ok(CommandReply::PartitionsCreated(results)) => {
            let results = results.into_iter().map(|(name, result)| {
                let refusal = result.err();
                let refusal =
                    refusal.map(|error| (controller_code(&error).code(), error.to_string()));
                answer(name, refusal)
            });
            results.collect()
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            let refusal = (
                control_code(failure).code(),
                control_message(failure).to_string(),
            );
            let names = request.topics.iter().map(|topic| topic.name.to_string());
            names
                .map(|name| answer(name, Some(refusal.clone())))
                .collect()
        }
    };
    Ok(call.reply(&CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }))
}

fn more(topic: &CreatePartitionsTopic<'_>) -> MorePartitions {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let brokers = assignments
            .iter()
            .map(|assignment| assignment.broker_ids.clone());
        brokers.collect()
    });
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments,
    }
}
