//! `percolog config`: configs of topics, brokers and groups, under Kafka's names.

use serde_json::json;

use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use crate::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::client::{Client, ClientOptions, Topics};
use super::failure::Failure;
use super::output::{self, OutputFormat, Table};

/// Resource types on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
/// Operations of an incremental change.
const SET: i8 = 0;
const DELETE: i8 = 1;
/// [`DescribeConfigsResourceResult::config_source`] of what nobody set.
const SOURCE_DEFAULT: i8 = 5;
/// Of what was set for the topic itself.
const SOURCE_TOPIC: i8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ResourceKind {
    /// A topic, by name
    Topic,
    /// A broker, by node id; "default" for all brokers
    Broker,
    /// A consumer group, by name; it need not be there yet
    Group,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows what differs from the defaults, or the keys that are asked for
    Describe {
        #[command(flatten)]
        resource: ResourceArguments,
        /// Keys to show; all that differ from the defaults without one
        keys: Vec<String>,
        /// Show defaults as well
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Sets keys, and leaves the others
    Set {
        #[command(flatten)]
        resource: ResourceArguments,
        /// Keys and values
        #[arg(required = true, value_name = "K=V", value_parser = parse_assignment)]
        assignments: Vec<(String, String)>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Takes keys back to their defaults
    Unset {
        #[command(flatten)]
        resource: ResourceArguments,
        /// Keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResourceArguments {
    /// What it is about
    #[arg(value_enum)]
    kind: ResourceKind,
    /// Name of a topic or group, or node id of a broker ("default" for all)
    name: String,
}

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    kind: ResourceKind,
    /// As on the wire: empty for all brokers.
    name: String,
    /// The broker that has to be asked.
    node: Option<i32>,
}

impl Resource {
    /// A topic.
    pub(crate) fn topic(name: &str) -> Resource {
        Resource {
            kind: ResourceKind::Topic,
            name: name.to_owned(),
            node: None,
        }
    }

    fn of(arguments: &ResourceArguments) -> Result<Resource, Failure> {
        let name = arguments.name.as_str();
        match (arguments.kind, name) {
            (ResourceKind::Topic, name) => Ok(Resource::topic(name)),
            (ResourceKind::Group, name) => Ok(Resource {
                kind: ResourceKind::Group,
                name: name.to_owned(),
                node: None,
            }),
            (kind, "default") => Ok(Resource {
                kind,
                name: String::new(),
                node: None,
            }),
            (kind, name) => match name.parse::<i32>() {
                Ok(id) if id >= 0 => Ok(Resource {
                    kind,
                    name: id.to_string(),
                    node: Some(id),
                }),
                _ => Err(Failure::Usage(format!(
                    "a broker is named by its node id, or \"default\" for all, not {name:?}"
                ))),
            },
        }
    }

    fn type_code(&self) -> i8 {
        match self.kind {
            ResourceKind::Topic => TOPIC,
            ResourceKind::Broker => BROKER,
            ResourceKind::Group => GROUP,
        }
    }

    fn subject(&self) -> String {
        match (self.kind, self.name.as_str()) {
            (ResourceKind::Topic, name) => format!("topic {name}"),
            (ResourceKind::Group, name) => format!("group {name}"),
            (ResourceKind::Broker, "") => "all brokers".to_owned(),
            (ResourceKind::Broker, id) => format!("broker {id}"),
        }
    }
}

/// One key to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    key: String,
    /// Back to the default without one.
    value: Option<String>,
}

impl Change {
    /// Sets a key.
    pub(crate) fn set((key, value): (String, String)) -> Change {
        Change {
            key,
            value: Some(value),
        }
    }

    /// Takes a key back to its default.
    pub(crate) fn unset(key: String) -> Change {
        Change { key, value: None }
    }
}

/// Key and value of `K=V`; the value may be empty and may hold further equals signs.
pub(crate) fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("takes KEY=VALUE".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Describe {
            resource,
            keys,
            all,
            client,
        } => describe(&Resource::of(resource)?, keys, *all, client),
        ConfigCommand::Set {
            resource,
            assignments,
            client,
        } => {
            let changes = assignments.iter().cloned().map(Change::set).collect();
            change(&Resource::of(resource)?, changes, client)
        }
        ConfigCommand::Unset {
            resource,
            keys,
            client,
        } => {
            let changes = keys.iter().cloned().map(Change::unset).collect();
            change(&Resource::of(resource)?, changes, client)
        }
    }
}

fn change(
    resource: &Resource,
    changes: Vec<Change>,
    options: &ClientOptions,
) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    alter(&mut client, resource, &changes)?;
    match options.output {
        OutputFormat::Table => output::line(&format!("altered {}", resource.subject())),
        OutputFormat::Json => output::json(&json!({
            "resource": resource.subject(),
            "altered": changes.iter().map(|change| &change.key).collect::<Vec<_>>(),
        })),
    }
}

/// Changes some keys and leaves the others.
pub(crate) fn alter(
    client: &mut Client,
    resource: &Resource,
    changes: &[Change],
) -> Result<(), Failure> {
    let configs = changes.iter().map(|change| AlterableConfig {
        name: change.key.as_str().into(),
        config_operation: if change.value.is_some() { SET } else { DELETE },
        value: change.value.as_deref().map(Into::into),
    });
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.type_code(),
            resource_name: resource.name.as_str().into(),
            configs: configs.collect(),
        }],
        validate_only: false,
    };
    client.change(&request, |reply| {
        let response = reply.decode::<IncrementalAlterConfigsRequest<'_>>()?;
        for result in &response.responses {
            let message = result.error_message.as_deref();
            Failure::check(resource.subject(), result.error_code, message)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// One config as a broker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Config {
    key: String,
    /// None when it is secret, or null.
    value: Option<String>,
    source: i8,
    is_default: bool,
    is_read_only: bool,
    is_sensitive: bool,
}

impl Config {
    fn of(config: &DescribeConfigsResourceResult<'_>) -> Config {
        Config {
            key: config.name.to_string(),
            value: config.value.as_ref().map(ToString::to_string),
            source: config.config_source,
            is_default: config.config_source == SOURCE_DEFAULT,
            is_read_only: config.read_only,
            is_sensitive: config.is_sensitive,
        }
    }

    fn shown(&self) -> String {
        match &self.value {
            _ if self.is_sensitive => "(secret)".to_owned(),
            Some(value) => value.clone(),
            None => "(null)".to_owned(),
        }
    }
}

/// By key.
fn configs(
    client: &mut Client,
    resource: &Resource,
    keys: Option<&[String]>,
) -> Result<Vec<Config>, Failure> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: resource.type_code(),
            resource_name: resource.name.as_str().into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| key.into()).collect()),
        }],
        ..Default::default()
    };
    let reply = match resource.node {
        Some(id) => {
            client.metadata(Topics::None)?;
            client.node(id)?.ask(&request)?
        }
        None => client.any()?.ask(&request)?,
    };
    let response = reply.decode::<DescribeConfigsRequest<'_>>()?;
    let mut configs = Vec::new();
    for result in &response.results {
        let message = result.error_message.as_deref();
        Failure::check(resource.subject(), result.error_code, message)?;
        configs.extend(result.configs.iter().map(Config::of));
    }
    configs.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(configs)
}

/// Keys that were set for the resource itself, with their values.
pub(crate) fn overrides(
    client: &mut Client,
    resource: &Resource,
) -> Result<Vec<(String, String)>, Failure> {
    let configs = configs(client, resource, None)?;
    let own = configs
        .iter()
        .filter(|config| config.source == SOURCE_TOPIC);
    Ok(own
        .map(|config| (config.key.clone(), config.shown()))
        .collect())
}

fn describe(
    resource: &Resource,
    keys: &[String],
    all: bool,
    options: &ClientOptions,
) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let asked = (!keys.is_empty()).then_some(keys);
    let mut configs = configs(&mut client, resource, asked)?;
    let missing = keys
        .iter()
        .find(|key| !configs.iter().any(|config| config.key == **key));
    if let Some(key) = missing {
        return Err(Failure::Local(format!(
            "{} has no config {key}",
            resource.subject()
        )));
    }
    configs.retain(|config| all || asked.is_some() || !config.is_default);
    if options.output == OutputFormat::Json {
        let configs = configs.iter().map(|config| {
            json!({
                "key": config.key,
                "value": config.value,
                "source": source_name(config.source),
                "default": config.is_default,
                "read_only": config.is_read_only,
                "sensitive": config.is_sensitive,
            })
        });
        return output::json(&configs.collect());
    }
    let mut table = Table::new(&["key", "value", "source", "read-only"]);
    for config in &configs {
        table.row([
            config.key.clone(),
            config.shown(),
            source_name(config.source).to_owned(),
            if config.is_read_only { "yes" } else { "" }.to_owned(),
        ]);
    }
    table.print()
}

/// Kafka's name of where a value comes from.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_end_at_the_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse_assignment("a=b"), pair("a", "b"));
        assert_eq!(parse_assignment("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse_assignment("a="), pair("a", ""));
        assert_eq!(parse_assignment(" a = b"), pair("a", " b"));
        assert!(parse_assignment("a").is_err());
        assert!(parse_assignment("=b").is_err());
    }

    #[test]
    fn brokers_are_named_by_id() {
        let resource = |kind, name: &str| {
            Resource::of(&ResourceArguments {
                kind,
                name: name.to_owned(),
            })
        };
        let broker = resource(ResourceKind::Broker, "7").expect("an id");
        assert_eq!((broker.name.as_str(), broker.node), ("7", Some(7)));
        let all = resource(ResourceKind::Broker, "default").expect("all");
        assert_eq!((all.name.as_str(), all.node), ("", None));
        for wrong in ["", "-1", "one"] {
            let failure = resource(ResourceKind::Broker, wrong).expect_err(wrong);
            assert_eq!(failure.exit_code(), 2);
        }
        let topic = resource(ResourceKind::Topic, "default").expect("a topic");
        assert_eq!(topic, Resource::topic("default"));
        let group = resource(ResourceKind::Group, "default").expect("a group");
        assert_eq!((group.name.as_str(), group.node), ("default", None));
    }
}
