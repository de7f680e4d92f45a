//! DescribeConfigs, versions 1 to 4 (KIP-133, KIP-226 sources and synonyms, KIP-569 types and
//! documentation from 3).
//!
//! A topic (2) has all its settings, a broker (4) by its node id too; the empty broker name has the
//! dynamic defaults alone. A group (32) has settings whether it exists or not. Names that are not
//! settings are left out; no names, or an empty list, are all. Loggers (8) and client metrics (16) have
//! no settings here; other types are INVALID_REQUEST.

use std::borrow::Cow;
use std::rc::Rc;

use super::alter_configs::{BROKER, GROUP, TOPIC};
use super::call::{Call, Handled};
use super::dispatch::Api;
use crate::cluster::image::MetadataImage;
use crate::cluster::topic_name;
use crate::config::broker::BrokerConfig;
use crate::config::describe::{
    ConfigEntry, ConfigSource, describe_broker, describe_group, describe_topic,
};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

/// Resource types that exist and have no settings here.
pub(super) const BROKER_LOGGER: i8 = 8;
/// See [`BROKER_LOGGER`].
pub(super) const CLIENT_METRICS: i8 = 16;

/// Answers a DescribeConfigs.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeConfigsRequest<'_> = call.request()?;
    let (image, config) = (api.router.image(), api.router.config());
    let most = config.limits.topics_per_request_max;
    let described = request
        .resources
        .iter()
        .enumerate()
        .map(|(index, resource)| {
            let entries = if index < most {
                entries(&image, &config, resource)
            } else {
                Err(too_many(most))
            };
            result(&request, resource, entries)
        });
    Ok(call.reply(&DescribeConfigsResponse {
        results: described.collect(),
        ..DescribeConfigsResponse::default()
    }))
}

pub(super) type Refusal = (ErrorCode, String);

/// Why resources beyond the limit are not looked at.
pub(super) fn too_many(most: usize) -> Refusal {
    let message =
        format!("One request names at most {most} resources (limits.topics_per_request_max)");
    (ErrorCode::PolicyViolation, message)
}

fn entries(
    image: &MetadataImage,
    config: &BrokerConfig,
    resource: &DescribeConfigsResource<'_>,
) -> Result<Vec<ConfigEntry>, Refusal> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    let name = resource.resource_name.as_ref();
    let all = match resource.resource_type {
        TOPIC => topic(image, config, name)?,
        BROKER if name.is_empty() => {
            let entries = describe_broker(config).into_iter().filter_map(as_default);
            entries.collect()
        }
        BROKER => match name.parse::<i32>() {
            Err(_) => return invalid(format!("Broker id must be an integer, but it is: {name}")),
            Ok(id) if id != image.node_id() => {
                return invalid(format!(
                    "Unexpected broker id, expected {} or empty string, but received {name}",
                    image.node_id()
                ));
            }
            Ok(_) => describe_broker(config),
        },
        GROUP if name.is_empty() => return invalid("Group name must not be empty".to_string()),
        GROUP => {
            let own = image.group_configs(name).cloned().unwrap_or_default();
            describe_group(&own, config)
        }
        BROKER_LOGGER | CLIENT_METRICS => Vec::new(),
        other => return invalid(format!("Unsupported resource type {other}")),
    };
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    let is_asked =
        |entry: &ConfigEntry| keys.is_empty() || keys.iter().any(|key| key.as_ref() == entry.name);
    Ok(all.into_iter().filter(is_asked).collect())
}

fn topic(
    image: &MetadataImage,
    config: &BrokerConfig,
    name: &str,
) -> Result<Vec<ConfigEntry>, Refusal> {
    topic_name::check(name).map_err(|problem| (ErrorCode::InvalidTopicException, problem))?;
    let Some(topic) = image.topic(name) else {
        let message = format!("The topic '{name}' does not exist.");
        return Err((ErrorCode::UnknownTopicOrPartition, message));
    };
    Ok(describe_topic(&topic.configs, config))
}

/// A setting as all brokers have it dynamically, if they do.
fn as_default(entry: ConfigEntry) -> Option<ConfigEntry> {
    let default = entry.synonyms.iter();
    let default = default.filter(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
    let synonyms: Vec<_> = default.cloned().collect();
    let value = synonyms.first()?.value.clone();
    Some(ConfigEntry {
        value,
        source: ConfigSource::DynamicDefaultBroker,
        synonyms,
        ..entry
    })
}

fn result<'a>(
    request: &DescribeConfigsRequest<'_>,
    resource: &'a DescribeConfigsResource<'_>,
    entries: Result<Vec<ConfigEntry>, Refusal>,
) -> DescribeConfigsResult<'a> {
    let (code, message, entries) = match entries {
        Ok(entries) => (ErrorCode::None, String::new(), entries),
        Err((code, message)) => (code, message, Vec::new()),
    };
    let configs = entries.into_iter().map(|entry| config(request, entry));
    DescribeConfigsResult {
        error_code: code.code(),
        error_message: Some(Cow::Owned(message)),
        resource_type: resource.resource_type,
        resource_name: Cow::Borrowed(&resource.resource_name),
        configs: configs.collect(),
    }
}

fn config(
    request: &DescribeConfigsRequest<'_>,
    entry: ConfigEntry,
) -> DescribeConfigsResourceResult<'static> {
    let synonyms = if request.include_synonyms {
        entry.synonyms
    } else {
        Vec::new()
    };
    let synonyms = synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: Cow::Owned(synonym.name),
        value: synonym.value.map(Cow::Owned),
        source: synonym.source as i8,
    });
    let documentation = request.include_documentation.then_some(entry.documentation);
    DescribeConfigsResourceResult {
        name: Cow::Owned(entry.name),
        value: entry.value.filter(|_| !entry.is_sensitive).map(Cow::Owned),
        read_only: entry.is_read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive,
        synonyms: synonyms.collect(),
        config_type: entry.kafka_type as i8,
        documentation: documentation.map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::codec::Uuid;
    use std::collections::BTreeMap;

    fn described(
        resource_type: i8,
        name: &str,
        keys: Option<&[&'static str]>,
    ) -> Result<Vec<ConfigEntry>, i16> {
        let mut image = MetadataImage::empty("c", 1);
        image.apply(&MetadataRecord::TopicCreated {
            name: "t".to_string(),
            id: Uuid([1; 16]),
            partitions: Vec::new(),
            configs: BTreeMap::from([("retention.ms".to_string(), "5".to_string())]),
        });
        let defaults = BTreeMap::from([("message.max.bytes".to_string(), "77".to_string())]);
        let config = BrokerConfig::defaults();
        let config = config.with_dynamic(&defaults, &BTreeMap::new()).unwrap();
        let resource = DescribeConfigsResource {
            resource_type,
            resource_name: name.to_string().into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
        };
        entries(&image, &config, &resource).map_err(|(code, _)| code.code())
    }

    #[test]
    fn topics_have_their_settings_and_unknown_names_are_left_out() {
        let some = described(2, "t", Some(&["retention.ms", "no.such"])).unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(
            (some[0].value.as_deref(), some[0].source as i8),
            (Some("5"), 1)
        );
        let all = described(2, "t", None).unwrap();
        assert_eq!(all.len(), described(2, "t", Some(&[])).unwrap().len());
        assert!(all.len() > 30);
        assert_eq!(described(2, "nope", None), Err(3));
        assert_eq!(described(2, "a b", None), Err(17));
        assert_eq!(described(2, "", None), Err(17));
    }

    #[test]
    fn brokers_have_all_and_the_default_only_what_is_dynamic() {
        let own = described(4, "1", Some(&["message.max.bytes"])).unwrap();
        assert_eq!(
            (own[0].value.as_deref(), own[0].synonyms.len()),
            (Some("77"), 2)
        );
        let default = described(4, "", None).unwrap();
        assert_eq!(default.len(), 1);
        assert_eq!((default[0].source as i8, default[0].synonyms.len()), (3, 1));
        assert_eq!(described(4, "2", None), Err(42));
        assert_eq!(described(4, "x", None), Err(42));
    }

    #[test]
    fn other_types_are_empty_or_invalid() {
        for empty in [BROKER_LOGGER, CLIENT_METRICS] {
            assert_eq!(described(empty, "1", None), Ok(Vec::new()));
        }
        for invalid in [0, 1, 3, 77] {
            assert_eq!(described(invalid, "1", None), Err(42));
        }
    }

    #[test]
    fn synonyms_and_documentation_come_when_asked_for() {
        let entry = || {
            described(2, "t", Some(&["retention.ms"]))
                .unwrap()
                .remove(0)
        };
        let mut request = DescribeConfigsRequest::default();
        let plain = config(&request, entry());
        assert!(plain.synonyms.is_empty() && plain.documentation.is_none());
        request.include_synonyms = true;
        request.include_documentation = true;
        let full = config(&request, entry());
        assert!(full.synonyms.len() > 1 && full.documentation.is_some());
        assert_eq!(full.config_type, 5);
    }
}
