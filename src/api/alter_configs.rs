//! AlterConfigs, versions 0 to 2 (KIP-133), and IncrementalAlterConfigs, versions 0 and 1 (KIP-339).
//!
//! The first replaces all settings of a resource, the second changes them one by one. Topics (2),
//! brokers (4, an empty name for all of them) and groups (32, whether they exist or not) have settings;
//! other resources are INVALID_REQUEST, as is a resource or a name that comes twice.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::describe_configs::{Refusal, too_many};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{
    Command, CommandReply, ConfigAlteration, ConfigOperation, ConfigReplacement, ConfigResource,
};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::{alter_configs, incremental_alter_configs};

/// Resource types of the wire.
pub(super) const TOPIC: i8 = 2;
/// See [`TOPIC`].
pub(super) const BROKER: i8 = 4;
/// See [`TOPIC`].
pub(super) const GROUP: i8 = 32;

/// A resource of the answer: type, name, and what was wrong.
struct Answer {
    resource_type: i8,
    resource_name: String,
    refusal: Option<(ErrorCode, String)>,
}

impl Answer {
    fn code(&self) -> i16 {
        self.refusal.as_ref().map_or(0, |(code, _)| code.code())
    }

    fn message(&self) -> Option<Cow<'_, str>> {
        self.refusal
            .as_ref()
            .map(|(_, message)| Cow::Borrowed(message.as_str()))
    }
}

/// Answers an AlterConfigs.
pub(super) async fn handle_replacing(api: Rc<Api>, call: Call) -> Handled {
    let request: alter_configs::AlterConfigsRequest<'_> = call.request()?;
    let most = api.router.config().limits.topics_per_request_max;
    let planned = request
        .resources
        .iter()
        .enumerate()
        .map(|(index, resource)| {
            let configs = resource.configs.iter().map(|config| {
                let value = config.value.as_deref().map(str::to_string);
                (config.name.to_string(), value)
            });
            let replacement =
                resource_of(resource.resource_type, &resource.resource_name, index, most);
            let replacement = replacement.map(|resource| ConfigReplacement {
                resource,
                configs: configs.collect(),
            });
            (
                resource.resource_type,
                resource.resource_name.to_string(),
                replacement,
            )
        });
    let answers = decided(&api, planned.collect(), |replacements| {
        Command::ReplaceConfigs {
            replacements,
            validate_only: request.validate_only,
        }
    })
    .await;
    let responses = answers
        .iter()
        .map(|answer| alter_configs::AlterConfigsResourceResponse {
            error_code: answer.code(),
            error_message: answer.message(),
            resource_type: answer.resource_type,
            resource_name: Cow::Borrowed(&answer.resource_name),
        });
    Ok(call.reply(&alter_configs::AlterConfigsResponse {
        responses: responses.collect(),
        ..Default::default()
    }))
}

/// Answers an IncrementalAlterConfigs.
pub(super) async fn handle_incremental(api: Rc<Api>, call: Call) -> Handled {
    let request: incremental_alter_configs::IncrementalAlterConfigsRequest<'_> = call.request()?;
    let most = api.router.config().limits.topics_per_request_max;
    let planned = request
        .resources
        .iter()
        .enumerate()
        .map(|(index, resource)| {
            let changes = resource.configs.iter().map(|config| {
                let operation = ConfigOperation::from_code(config.config_operation);
                let operation = operation.ok_or_else(|| {
                    let code = config.config_operation;
                    (
                        ErrorCode::InvalidRequest,
                        format!("Unknown config operation {code}"),
                    )
                })?;
                let value = config.value.as_deref().map(str::to_string);
                Ok((config.name.to_string(), operation, value))
            });
            let target = resource_of(resource.resource_type, &resource.resource_name, index, most);
            let alteration = target.and_then(|resource| {
                let changes = changes.collect::<Result<Vec<_>, _>>()?;
                Ok(ConfigAlteration { resource, changes })
            });
            (
                resource.resource_type,
                resource.resource_name.to_string(),
                alteration,
            )
        });
    let answers = decided(&api, planned.collect(), |alterations| {
        Command::AlterConfigs {
            alterations,
            validate_only: request.validate_only,
        }
    })
    .await;
    let responses =
        answers.iter().map(
            |answer| incremental_alter_configs::AlterConfigsResourceResponse {
                error_code: answer.code(),
                error_message: answer.message(),
                resource_type: answer.resource_type,
                resource_name: Cow::Borrowed(&answer.resource_name),
            },
        );
    Ok(call.reply(
        &incremental_alter_configs::IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..Default::default()
        },
    ))
}

fn resource_of(
    resource_type: i8,
    name: &str,
    index: usize,
    most: usize,
) -> Result<ConfigResource, Refusal> {
    match resource_type {
        _ if index >= most => Err(too_many(most)),
        TOPIC => Ok(ConfigResource::Topic(name.to_string())),
        BROKER => Ok(ConfigResource::Broker(name.to_string())),
        GROUP => Ok(ConfigResource::Group(name.to_string())),
        _ => {
            let message = format!("Unknown resource type {resource_type}");
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}

type Planned<T> = Vec<(i8, String, Result<T, (ErrorCode, String)>)>;

/// Has the resources that make sense decided, and joins the results with the others.
async fn decided<T>(
    api: &Api,
    planned: Planned<T>,
    command: impl FnOnce(Vec<T>) -> Command,
) -> Vec<Answer> {
    let mut good = Vec::new();
    let mut answers = Vec::with_capacity(planned.len());
    let mut asked = Vec::new();
    for (resource_type, resource_name, plan) in planned {
        let refusal = match plan {
            Ok(plan) => {
                good.push(plan);
                asked.push(answers.len());
                None
            }
            Err(refusal) => Some(refusal),
        };
        answers.push(Answer {
            resource_type,
            resource_name,
            refusal,
        });
    }
    if good.is_empty() {
        return answers;
    }
    match api.router.control(command(good)).await {
        Ok(CommandReply::ConfigsAltered(results)) => {
            assert_eq!(results.len(), asked.len(), "one result per resource");
            for (index, result) in asked.into_iter().zip(results) {
                let refusal = result.err();
                answers[index].refusal =
                    refusal.map(|error| (controller_code(&error), error.to_string()));
            }
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            for index in asked {
                let message = control_message(failure).to_string();
                answers[index].refusal = Some((control_code(failure), message));
            }
        }
    }
    answers
}
