//! `percolog topic`: create, list, describe, alter, delete.

use serde_json::json;

use crate::wire::error_code::ErrorCode;
use crate::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use crate::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};

use super::client::{Client, ClientOptions, Topics};
use super::config::{self, Change, Resource};
use super::failure::Failure;
use super::metadata::{Metadata, Partition, Topic};
use super::output::{self, OutputFormat, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TopicCommand {
    /// Creates a topic
    Create(CreateArguments),
    /// Lists all topics
    List {
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Shows partitions, leaders and replicas of one topic, or of all
    Describe {
        /// Topic; all without it
        name: Option<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Adds partitions, or changes configs
    Alter(AlterArguments),
    /// Deletes a topic with all its records
    Delete {
        /// Topic to delete
        name: String,
        #[command(flatten)]
        client: ClientOptions,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArguments {
    /// Name of the topic
    name: String,
    /// Number of partitions; the broker's default without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition; the broker's default without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Topic config under Kafka's name, again for more of them
    #[arg(long, value_name = "K=V", value_parser = config::parse_assignment)]
    config: Vec<(String, String)>,
    /// Succeed when the topic exists already, whatever it looks like
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AlterArguments {
    /// Topic to change
    name: String,
    /// New number of partitions, more than now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Config to set, again for more of them
    #[arg(long, value_name = "K=V", value_parser = config::parse_assignment)]
    config: Vec<(String, String)>,
    /// Config to take back to its default, again for more of them
    #[arg(long, value_name = "K")]
    unset: Vec<String>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Runs the command.
pub(crate) fn run(command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(arguments) => create(arguments),
        TopicCommand::List { client } => list(client),
        TopicCommand::Describe { name, client } => describe(name.as_deref(), client),
        TopicCommand::Alter(arguments) => alter(arguments),
        TopicCommand::Delete { name, client } => delete(name, client),
    }
}

/// One line, or one small document, about what was done.
fn done(options: &ClientOptions, text: &str, document: &serde_json::Value) -> Result<(), Failure> {
    match options.output {
        OutputFormat::Table => output::line(text),
        OutputFormat::Json => output::json(document),
    }
}

fn create(arguments: &CreateArguments) -> Result<(), Failure> {
    let name = arguments.name.as_str();
    let configs = arguments
        .config
        .iter()
        .map(|(key, value)| CreatableTopicConfig {
            name: key.as_str().into(),
            value: Some(value.as_str().into()),
        });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: arguments.partitions.unwrap_or(-1),
            replication_factor: arguments.replication_factor.unwrap_or(-1),
            configs: configs.collect(),
            ..Default::default()
        }],
        timeout_ms: arguments.client.timeout_ms(),
        ..Default::default()
    };
    let mut client = Client::connect(&arguments.client)?;
    let result = client.change(&request, |reply| {
        let response = reply.decode::<CreateTopicsRequest<'_>>()?;
        for topic in &response.topics {
            let message = topic.error_message.as_deref();
            Failure::check(format!("topic {name}"), topic.error_code, message)?;
        }
        Ok(())
    });
    let reply = match result {
        Err(failure)
            if arguments.if_not_exists
                && failure.error_code() == Some(ErrorCode::TopicAlreadyExists) =>
        {
            let document = json!({"name": name, "created": false});
            return done(
                &arguments.client,
                &format!("{name} exists already"),
                &document,
            );
        }
        result => result?,
    };
    let response = reply.decode::<CreateTopicsRequest<'_>>()?;
    let created = response.topics.first();
    // Brokers before version 5 of the API do not say what they chose.
    let number = |number: Option<i32>| number.filter(|number| *number > 0);
    let partitions = number(created.map(|topic| topic.num_partitions));
    let replicas = number(created.map(|topic| topic.replication_factor.into()));
    let shape = match (partitions, replicas) {
        (Some(partitions), Some(replicas)) => {
            let plural = if partitions == 1 { "" } else { "s" };
            format!(": {partitions} partition{plural}, replication factor {replicas}")
        }
        _ => String::new(),
    };
    let document = json!({
        "name": name, "created": true, "partitions": partitions, "replication_factor": replicas,
    });
    done(
        &arguments.client,
        &format!("created {name}{shape}"),
        &document,
    )
}

fn list(options: &ClientOptions) -> Result<(), Failure> {
    let metadata = Client::connect(options)?.metadata(Topics::All)?;
    if options.output == OutputFormat::Json {
        let topics = metadata.topics.iter().map(|topic| {
            json!({
                "name": topic.name,
                "id": topic.id.to_string(),
                "partitions": topic.partitions.len(),
                "replication_factor": replication_factor(topic),
                "internal": topic.is_internal,
            })
        });
        return output::json(&topics.collect());
    }
    let mut table = Table::new(&["name", "partitions", "replication factor", "internal"]);
    for topic in &metadata.topics {
        table.row([
            topic.name.clone(),
            topic.partitions.len().to_string(),
            replication_factor(topic).to_string(),
            if topic.is_internal { "yes" } else { "" }.to_owned(),
        ]);
    }
    table.print()
}

fn replication_factor(topic: &Topic) -> usize {
    let replicas = topic
        .partitions
        .iter()
        .map(|partition| partition.replicas.len());
    replicas.max().unwrap_or(0)
}

fn describe(name: Option<&str>, options: &ClientOptions) -> Result<(), Failure> {
    let mut client = Client::connect(options)?;
    let metadata = client.metadata(name.map_or(Topics::All, Topics::One))?;
    for topic in &metadata.topics {
        // One topic was asked for: its error is the answer. Among many it stands in its place.
        if name.is_some() {
            topic.check()?;
        }
    }
    let mut configs = Vec::new();
    for topic in &metadata.topics {
        let resource = Resource::topic(&topic.name);
        configs.push(config::overrides(&mut client, &resource)?);
    }
    match options.output {
        OutputFormat::Json => describe_json(&metadata, &configs),
        OutputFormat::Table => describe_tables(&metadata, &configs),
    }
}

fn describe_json(metadata: &Metadata, configs: &[Vec<(String, String)>]) -> Result<(), Failure> {
    let topics = metadata.topics.iter().zip(configs).map(|(topic, configs)| {
        let configs: serde_json::Map<_, _> = configs
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let partitions: Vec<_> = topic.partitions.iter().map(partition_json).collect();
        json!({
            "name": topic.name,
            "id": topic.id.to_string(),
            "internal": topic.is_internal,
            "error": error_name(topic.error),
            "configs": configs,
            "partitions": partitions,
        })
    });
    output::json(&topics.collect())
}

fn partition_json(partition: &Partition) -> serde_json::Value {
    json!({
        "partition": partition.index,
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "replicas": partition.replicas,
        "isr": partition.isr,
        "offline": partition.offline,
        "error": error_name(partition.error),
    })
}

fn error_name(code: i16) -> Option<String> {
    (code != ErrorCode::None.code()).then(|| {
        ErrorCode::from_code(code).map_or_else(|| code.to_string(), |error| error.name().to_owned())
    })
}

fn describe_tables(metadata: &Metadata, configs: &[Vec<(String, String)>]) -> Result<(), Failure> {
    for (topic, configs) in metadata.topics.iter().zip(configs) {
        output::line(&format!("{}  id {}", topic.name, topic.id))?;
        if let Some(error) = error_name(topic.error) {
            output::line(&format!("  {error}"))?;
        }
        for (key, value) in configs {
            output::line(&format!("  {key}={value}"))?;
        }
        let header = [
            "partition",
            "leader",
            "epoch",
            "replicas",
            "isr",
            "offline",
            "error",
        ];
        let mut table = Table::new(&header);
        for partition in &topic.partitions {
            table.row([
                partition.index.to_string(),
                partition.leader.to_string(),
                partition.leader_epoch.to_string(),
                output::ids(&partition.replicas),
                output::ids(&partition.isr),
                output::ids(&partition.offline),
                error_name(partition.error).unwrap_or_default(),
            ]);
        }
        table.print()?;
    }
    Ok(())
}

fn alter(arguments: &AlterArguments) -> Result<(), Failure> {
    let name = arguments.name.as_str();
    let mut changes: Vec<Change> = Vec::new();
    changes.extend(arguments.config.iter().cloned().map(Change::set));
    changes.extend(arguments.unset.iter().cloned().map(Change::unset));
    if changes.is_empty() && arguments.partitions.is_none() {
        return Err(Failure::Usage(
            "topic alter needs --partitions, --config or --unset".to_owned(),
        ));
    }
    let mut client = Client::connect(&arguments.client)?;
    if let Some(count) = arguments.partitions {
        add_partitions(&mut client, name, count, arguments.client.timeout_ms())?;
    }
    if !changes.is_empty() {
        config::alter(&mut client, &Resource::topic(name), &changes)?;
    }
    let document = json!({"name": name, "altered": true});
    done(&arguments.client, &format!("altered {name}"), &document)
}

fn add_partitions(
    client: &mut Client,
    name: &str,
    count: i32,
    timeout_ms: i32,
) -> Result<(), Failure> {
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: name.into(),
            count,
            assignments: None,
        }],
        timeout_ms,
        validate_only: false,
    };
    client.change(&request, |reply| {
        let response = reply.decode::<CreatePartitionsRequest<'_>>()?;
        for result in &response.results {
            let message = result.error_message.as_deref();
            Failure::check(format!("topic {name}"), result.error_code, message)?;
        }
        Ok(())
    })?;
    Ok(())
}

fn delete(name: &str, options: &ClientOptions) -> Result<(), Failure> {
    // Both ways to name a topic: the version decides which of them is sent.
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(name.into()),
            ..Default::default()
        }],
        topic_names: vec![name.into()],
        timeout_ms: options.timeout_ms(),
    };
    Client::connect(options)?.change(&request, |reply| {
        let response = reply.decode::<DeleteTopicsRequest<'_>>()?;
        for topic in &response.responses {
            let message = topic.error_message.as_deref();
            Failure::check(format!("topic {name}"), topic.error_code, message)?;
        }
        Ok(())
    })?;
    let document = json!({"name": name, "deleted": true});
    done(options, &format!("deleted {name}"), &document)
}
