//! Creating, growing and deleting topics: Kafka's rules (`ReplicationControlManager`,
//! `ControllerApis`), plus the limits of this broker.

use std::collections::{BTreeMap, BTreeSet};

use super::controller::{
    CommandReply, CreatedTopic, Decision, DeletedTopic, MorePartitions, NewTopic, TopicSelector,
};
use super::controller_error::{ControllerError, listed};
use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::placement::{check_assignment, new_partition, place};
use super::record::{MetadataRecord, TEXT_BYTES_MAX};
use super::topic_name;
use crate::config::broker::BrokerConfig;
use crate::config::topic::{OVERRIDES_MAX, TopicConfig};
use crate::wire::codec::Uuid;

/// How often a new id may be one that is taken before something must be wrong with them.
const ID_ATTEMPTS_MAX: usize = 8;

/// Partitions that this command may still create.
struct Allowance {
    of_request: usize,
    of_broker: usize,
}

impl Allowance {
    fn new(image: &MetadataImage, config: &BrokerConfig) -> Allowance {
        let limits = &config.limits;
        Allowance {
            of_request: limits.partitions_per_request_max,
            of_broker: limits
                .partitions_max
                .saturating_sub(image.partition_count()),
        }
    }

    /// Whether so many more fit. Asked before they are laid out: the number came from a client.
    fn check(&self, count: usize) -> Result<(), ControllerError> {
        if count > self.of_request {
            return Err(ControllerError::PolicyViolation(
                "Excessively large number of partitions per request \
                 (limits.partitions_per_request_max)"
                    .to_string(),
            ));
        }
        if count > self.of_broker {
            return Err(ControllerError::PolicyViolation(format!(
                "{count} more partitions would exceed limits.partitions_max of this broker; it has room for {}",
                self.of_broker
            )));
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.of_request -= count;
        self.of_broker -= count;
    }
}

fn too_many_topics(count: usize, config: &BrokerConfig) -> Option<ControllerError> {
    let most = config.limits.topics_per_request_max;
    (count > most).then(|| {
        ControllerError::PolicyViolation(format!(
            "The request names {count} topics; limits.topics_per_request_max is {most}"
        ))
    })
}

/// The distinct names in order, and which of them come more than once.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let (mut order, mut seen, mut twice) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for name in names {
        if seen.insert(name) {
            order.push(name);
        } else {
            twice.insert(name);
        }
    }
    (order, twice)
}

fn duplicate_name() -> ControllerError {
    ControllerError::InvalidRequest("Duplicate topic name.".to_string())
}

/// Creates topics.
pub(super) fn create(
    image: &MetadataImage,
    config: &BrokerConfig,
    topics: Vec<NewTopic>,
    validate_only: bool,
    ids: &mut impl FnMut() -> Uuid,
) -> Decision {
    let (names, twice) = distinct(topics.iter().map(|topic| topic.name.as_str()));
    let too_many = too_many_topics(names.len(), config);
    let mut records = Vec::new();
    let mut replies = Vec::with_capacity(names.len());
    let mut allowance = Allowance::new(image, config);
    let mut taken = BTreeSet::new();
    let mut done = BTreeSet::new();
    for topic in &topics {
        if !done.insert(topic.name.as_str()) {
            continue;
        }
        let result = if let Some(error) = &too_many {
            Err(error.clone())
        } else if twice.contains(topic.name.as_str()) {
            Err(duplicate_name())
        } else {
            let id = unused_id(image, ids);
            check_new_name(image, &topic.name, &taken)
                .and_then(|()| plan(image, config, (topic, id), &allowance))
                .map(|(partitions, configs)| {
                    allowance.take(partitions.len());
                    taken.insert(topic_name::unified(&topic.name));
                    let created = CreatedTopic {
                        id,
                        partitions: partitions.len(),
                        replication_factor: partitions[0].replicas.len(),
                        configs: configs.clone(),
                    };
                    records.push(MetadataRecord::TopicCreated {
                        name: topic.name.clone(),
                        id,
                        partitions,
                        configs,
                    });
                    created
                })
        };
        replies.push((topic.name.clone(), result));
    }
    Decision::unless(validate_only, records, CommandReply::TopicsCreated(replies))
}

fn unused_id(image: &MetadataImage, ids: &mut impl FnMut() -> Uuid) -> Uuid {
    for _ in 0..ID_ATTEMPTS_MAX {
        let id = ids();
        if !id.is_zero() && image.topic_by_id(id).is_none() {
            return id;
        }
    }
    panic!("{ID_ATTEMPTS_MAX} random ids in a row are taken: the system's randomness is broken");
}

fn check_new_name(
    image: &MetadataImage,
    name: &str,
    taken: &BTreeSet<String>,
) -> Result<(), ControllerError> {
    if name == topic_name::CLUSTER_METADATA {
        return Err(ControllerError::InvalidRequest(format!(
            "Creation of internal topic {name} is prohibited."
        )));
    }
    topic_name::check(name).map_err(ControllerError::InvalidTopicName)?;
    if image.topic(name).is_some() {
        return Err(ControllerError::TopicExists(format!(
            "Topic '{name}' already exists."
        )));
    }
    if let Some(other) = image.colliding_name(name) {
        return Err(ControllerError::InvalidTopicName(format!(
            "Topic '{name}' collides with existing topic: {other}"
        )));
    }
    if taken.contains(&topic_name::unified(name)) {
        return Err(ControllerError::InvalidTopicName(format!(
            "Topic '{name}' collides with another topic of the request"
        )));
    }
    Ok(())
}

type Plan = (Vec<PartitionImage>, BTreeMap<String, String>);

fn plan(
    image: &MetadataImage,
    config: &BrokerConfig,
    (topic, id): (&NewTopic, Uuid),
    allowance: &Allowance,
) -> Result<Plan, ControllerError> {
    let configs = check_configs(&topic.configs, config)?;
    let partitions = if topic.assignments.is_empty() {
        automatic(image, config, (topic, id), allowance)?
    } else {
        manual(image, topic, allowance)?
    };
    Ok((partitions, configs))
}

fn check_configs(
    configs: &[(String, Option<String>)],
    config: &BrokerConfig,
) -> Result<BTreeMap<String, String>, ControllerError> {
    let nulls = configs.iter().filter(|(_, value)| value.is_none());
    let nulls = listed(nulls.map(|(name, _)| name.as_str()));
    if !nulls.is_empty() {
        return Err(ControllerError::InvalidConfig(format!(
            "Null value not supported for topic configs: {nulls}"
        )));
    }
    let value = |(name, value): &(String, Option<String>)| {
        (name.clone(), value.clone().unwrap_or_default())
    };
    let overrides: BTreeMap<String, String> = configs.iter().map(value).collect();
    check_overrides(&overrides, config)?;
    Ok(overrides)
}

/// Refuses overrides that no topic can have.
pub(super) fn check_overrides(
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
) -> Result<(), ControllerError> {
    let invalid = ControllerError::InvalidConfig;
    if overrides.len() > OVERRIDES_MAX {
        let problem = format!("A topic overrides at most {OVERRIDES_MAX} settings");
        return Err(invalid(problem));
    }
    if let Some((name, _)) = overrides
        .iter()
        .find(|(_, value)| value.len() > TEXT_BYTES_MAX)
    {
        return Err(invalid(format!(
            "The value of {name} has more than {TEXT_BYTES_MAX} bytes"
        )));
    }
    let resolved = TopicConfig::resolve(overrides, config);
    resolved
        .map(|_| ())
        .map_err(|problems| invalid(problems.to_string()))
}

fn automatic(
    image: &MetadataImage,
    config: &BrokerConfig,
    (topic, id): (&NewTopic, Uuid),
    allowance: &Allowance,
) -> Result<Vec<PartitionImage>, ControllerError> {
    let factor = match topic.replication_factor {
        -1 => config.defaults.replication_factor,
        factor if factor > 0 => factor,
        _ => {
            return Err(ControllerError::InvalidReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_string(),
            ));
        }
    };
    let count = match topic.partitions {
        -1 => config.defaults.partitions,
        count if count > 0 => count,
        _ => {
            return Err(ControllerError::InvalidPartitions(
                "Number of partitions was set to an invalid non-positive value.".to_string(),
            ));
        }
    };
    let (factor, count) = (factor.unsigned_abs(), count.unsigned_abs());
    allowance.check(count as usize)?;
    place(image, id, 0..count as usize, usize::from(factor))
}

fn manual(
    image: &MetadataImage,
    topic: &NewTopic,
    allowance: &Allowance,
) -> Result<Vec<PartitionImage>, ControllerError> {
    let contradiction = |what: &str| {
        ControllerError::InvalidRequest(format!(
            "A manual partition assignment was specified, but {what} was not set to -1."
        ))
    };
    if topic.replication_factor != -1 {
        return Err(contradiction("replication factor"));
    }
    if topic.partitions != -1 {
        return Err(contradiction("numPartitions"));
    }
    allowance.check(topic.assignments.len())?;
    let mut partitions = BTreeMap::new();
    let mut factor = None;
    for (number, replicas) in &topic.assignments {
        check_assignment(image, replicas, factor)?;
        factor = Some(replicas.len());
        if partitions
            .insert(*number, new_partition(image, replicas.clone())?)
            .is_some()
        {
            return Err(ControllerError::InvalidReplicaAssignment(format!(
                "Found multiple manual partition assignments for partition {number}"
            )));
        }
    }
    if !partitions.keys().copied().eq((0..).take(partitions.len())) {
        return Err(ControllerError::InvalidReplicaAssignment(
            "partitions should be a consecutive 0-based integer sequence".to_string(),
        ));
    }
    Ok(partitions.into_values().collect())
}

/// Adds partitions to topics.
pub(super) fn grow(
    image: &MetadataImage,
    config: &BrokerConfig,
    topics: &[MorePartitions],
    validate_only: bool,
) -> Decision {
    let (names, twice) = distinct(topics.iter().map(|topic| topic.name.as_str()));
    let too_many = too_many_topics(names.len(), config);
    let mut allowance = Allowance::new(image, config);
    let mut records = Vec::new();
    let mut replies = Vec::with_capacity(names.len());
    let mut done = BTreeSet::new();
    for wanted in topics {
        if !done.insert(wanted.name.as_str()) {
            continue;
        }
        let result = if let Some(error) = &too_many {
            Err(error.clone())
        } else if twice.contains(wanted.name.as_str()) {
            Err(duplicate_name())
        } else {
            more_partitions(image, wanted, &allowance).map(|(topic, partitions)| {
                allowance.take(partitions.len());
                records.push(MetadataRecord::PartitionsAdded { topic, partitions });
            })
        };
        replies.push((wanted.name.clone(), result));
    }
    Decision::unless(
        validate_only,
        records,
        CommandReply::PartitionsCreated(replies),
    )
}

fn unknown_topic() -> ControllerError {
    ControllerError::UnknownTopic("This server does not host this topic-partition.".to_string())
}

fn more_partitions(
    image: &MetadataImage,
    wanted: &MorePartitions,
    allowance: &Allowance,
) -> Result<(Uuid, Vec<PartitionImage>), ControllerError> {
    let name = &wanted.name;
    let topic: &TopicImage = image.topic(name).ok_or_else(unknown_topic)?;
    let present = topic.partitions.len();
    let count = usize::try_from(wanted.count).unwrap_or(0);
    if count == present {
        return Err(ControllerError::InvalidPartitions(format!(
            "Topic already has {present} partition(s)."
        )));
    }
    if count < present {
        return Err(ControllerError::InvalidPartitions(format!(
            "The topic {name} currently has {present} partition(s); {} would not be an increase.",
            wanted.count
        )));
    }
    let more = count - present;
    allowance.check(more)?;
    let factor = topic.partitions[0].replicas.len();
    let Some(assignments) = &wanted.assignments else {
        return Ok((topic.id, place(image, topic.id, present..count, factor)?));
    };
    if assignments.len() != more {
        return Err(ControllerError::InvalidReplicaAssignment(format!(
            "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        )));
    }
    for replicas in assignments {
        check_assignment(image, replicas, Some(factor))?;
    }
    let partitions = assignments
        .iter()
        .cloned()
        .map(PartitionImage::new)
        .collect();
    Ok((topic.id, partitions))
}

/// Deletes topics.
pub(super) fn delete(
    image: &MetadataImage,
    config: &BrokerConfig,
    topics: &[TopicSelector],
) -> Decision {
    let common = if config.defaults.delete_topics {
        too_many_topics(topics.len(), config)
    } else {
        Some(ControllerError::TopicDeletionDisabled(
            "Topic deletion is disabled.".to_string(),
        ))
    };
    let found: Vec<_> = topics.iter().map(|topic| find(image, topic)).collect();
    // Whoever names a topic more than once, in whatever way, cannot mean it.
    let mut named = BTreeMap::<Uuid, usize>::new();
    for topic in found.iter().flatten() {
        *named.entry(topic.id).or_default() += 1;
    }
    let mut records = Vec::new();
    let mut replies = Vec::with_capacity(topics.len());
    for (selector, topic) in topics.iter().zip(found) {
        replies.push(match (&common, topic) {
            (Some(error), _) => Err(error.clone()),
            (None, Err(error)) => Err(error),
            (None, Ok(topic)) if named[&topic.id] > 1 => {
                let what = match selector {
                    TopicSelector::Name(_) => "Duplicate topic name.",
                    TopicSelector::Id(_) => "Duplicate topic id.",
                };
                Err(ControllerError::InvalidRequest(what.to_string()))
            }
            (None, Ok(topic)) => {
                records.push(MetadataRecord::TopicDeleted { topic: topic.id });
                Ok(DeletedTopic {
                    name: topic.name.to_string(),
                    id: topic.id,
                })
            }
        });
    }
    Decision {
        records,
        reply: CommandReply::TopicsDeleted(replies),
    }
}

fn find<'a>(
    image: &'a MetadataImage,
    selector: &TopicSelector,
) -> Result<&'a TopicImage, ControllerError> {
    match selector {
        TopicSelector::Name(name) => image
            .topic(name)
            .map(|topic| &**topic)
            .ok_or_else(unknown_topic),
        TopicSelector::Id(id) => image.topic_by_id(*id).map(|topic| &**topic).ok_or_else(|| {
            ControllerError::UnknownTopicId("This server does not host this topic ID.".to_string())
        }),
    }
}
