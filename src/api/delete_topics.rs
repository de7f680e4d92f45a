//! DeleteTopics, versions 1 to 6 (KIP-4, KIP-599, KIP-516 ids in 6).
//!
//! Version 6 names each topic by name or by id, not by both. A topic named twice is refused with
//! INVALID_REQUEST. When `delete.topic.enable` is false, versions before 3 hear INVALID_REQUEST and
//! later ones TOPIC_DELETION_DISABLED.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply, TopicSelector};
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};

/// First version with TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_FROM: i16 = 3;
/// First version that may name topics by id.
const TOPIC_ID_FROM: i16 = 6;

/// A topic as the request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: Option<String>,
    id: Uuid,
}

/// Answers a DeleteTopics.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DeleteTopicsRequest<'_> = call.request()?;
    let named = named(&request, call.version);
    let selectors = named.iter().map(selector);
    let selectors: Vec<Result<TopicSelector, &str>> = selectors.collect();
    let topics = selectors.iter().flatten().cloned().collect();
    let reply = api.router.control(Command::DeleteTopics { topics }).await;
    let mut results = match reply {
        Ok(CommandReply::TopicsDeleted(results)) => Ok(results.into_iter()),
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => Err(failure),
    };
    let mut told = BTreeSet::new();
    let mut responses = Vec::with_capacity(named.len());
    for (named, selector) in named.into_iter().zip(selectors) {
        let response = match (selector, &mut results) {
            (Err(why), _) => refused(&named, ErrorCode::InvalidRequest, why),
            (Ok(_), Err(failure)) => {
                refused(&named, control_code(*failure), control_message(*failure))
            }
            (Ok(_), Ok(results)) => match results.next().expect("one result per topic") {
                Err(error) => refused(&named, controller_code(&error), &error.to_string()),
                Ok(deleted) => DeletableTopicResult {
                    name: Some(Cow::Owned(deleted.name)),
                    topic_id: deleted.id,
                    ..DeletableTopicResult::default()
                },
            },
        };
        // Whoever is named twice in the same way is answered once.
        let is_nameless = named
            == Named {
                name: None,
                id: Uuid::ZERO,
            };
        if is_nameless || told.insert(named) {
            responses.push(adapted(response, call.version));
        }
    }
    Ok(call.reply(&DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }))
}

fn named(request: &DeleteTopicsRequest<'_>, version: i16) -> Vec<Named> {
    if version >= TOPIC_ID_FROM {
        let topics = request.topics.iter().map(|topic| Named {
            name: topic.name.as_deref().map(str::to_string),
            id: topic.topic_id,
        });
        return topics.collect();
    }
    let names = request.topic_names.iter().map(|name| Named {
        name: Some(name.to_string()),
        id: Uuid::ZERO,
    });
    names.collect()
}

fn selector(named: &Named) -> Result<TopicSelector, &'static str> {
    match (&named.name, named.id.is_zero()) {
        (Some(name), true) => Ok(TopicSelector::Name(name.clone())),
        (None, false) => Ok(TopicSelector::Id(named.id)),
        (Some(_), false) => Err("You may not specify both topic name and topic id."),
        (None, true) => Err("Neither topic name nor id were specified."),
    }
}

fn refused(named: &Named, code: ErrorCode, message: &str) -> DeletableTopicResult<'static> {
    DeletableTopicResult {
        name: named.name.clone().map(Cow::Owned),
        topic_id: named.id,
        error_code: code.code(),
        error_message: Some(Cow::Owned(message.to_string())),
    }
}

fn adapted(
    mut response: DeletableTopicResult<'static>,
    version: i16,
) -> DeletableTopicResult<'static> {
    let disabled = ErrorCode::TopicDeletionDisabled.code();
    if response.error_code == disabled && version < DELETION_DISABLED_FROM {
        response.error_code = ErrorCode::InvalidRequest.code();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_by_name_or_id() {
        let named = |name: Option<&str>, id: u8| Named {
            name: name.map(str::to_string),
            id: Uuid([id; 16]),
        };
        let by_name = selector(&named(Some("t"), 0));
        assert_eq!(by_name, Ok(TopicSelector::Name("t".to_string())));
        let by_id = selector(&named(None, 1));
        assert_eq!(by_id, Ok(TopicSelector::Id(Uuid([1; 16]))));
        assert!(selector(&named(Some("t"), 1)).is_err());
        assert!(selector(&named(None, 0)).is_err());
    }

    #[test]
    fn old_clients_do_not_know_that_deletion_can_be_disabled() {
        let response = || DeletableTopicResult {
            error_code: ErrorCode::TopicDeletionDisabled.code(),
            ..DeletableTopicResult::default()
        };
        assert_eq!(adapted(response(), 2).error_code, 42);
        assert_eq!(adapted(response(), 3).error_code, 73);
    }
}
