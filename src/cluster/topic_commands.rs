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

#[cfg(test)]
mod tests {
    use super::super::controller::{Command, decide};
    use super::super::image::BrokerImage;
    use super::*;
    use ControllerError as E;

    struct World {
        image: MetadataImage,
        config: BrokerConfig,
        next_id: u8,
    }

    impl World {
        fn new() -> World {
            World {
                image: MetadataImage::empty("c", 1),
                config: BrokerConfig::defaults(),
                next_id: 0,
            }
        }

        fn with_brokers(brokers: &[i32]) -> World {
            let mut world = World::new();
            for broker in brokers {
                world.image.apply(&MetadataRecord::BrokerRegistered {
                    node_id: *broker,
                    broker: BrokerImage::default(),
                });
            }
            world
        }

        fn run(&mut self, command: Command) -> CommandReply {
            let next_id = &mut self.next_id;
            let mut ids = || {
                *next_id += 1;
                Uuid([*next_id; 16])
            };
            let decision = decide(&self.image, &self.config, command, &mut ids);
            for record in &decision.records {
                self.image.apply(record);
            }
            decision.reply
        }

        fn create_all(&mut self, topics: Vec<NewTopic>) -> Vec<(String, Result<CreatedTopic, E>)> {
            let command = Command::CreateTopics {
                topics,
                validate_only: false,
            };
            let CommandReply::TopicsCreated(replies) = self.run(command) else {
                panic!("another reply");
            };
            replies
        }

        fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, E> {
            self.create_all(vec![topic]).remove(0).1
        }

        fn grow(
            &mut self,
            name: &str,
            count: i32,
            assignments: Option<Vec<Vec<i32>>>,
        ) -> Result<(), E> {
            let wanted = MorePartitions {
                name: name.to_string(),
                count,
                assignments,
            };
            let command = Command::CreatePartitions {
                topics: vec![wanted],
                validate_only: false,
            };
            let CommandReply::PartitionsCreated(mut replies) = self.run(command) else {
                panic!("another reply");
            };
            replies.remove(0).1
        }

        fn delete(&mut self, topics: Vec<TopicSelector>) -> Vec<Result<DeletedTopic, E>> {
            let CommandReply::TopicsDeleted(replies) = self.run(Command::DeleteTopics { topics })
            else {
                panic!("another reply");
            };
            replies
        }
    }

    fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
        NewTopic {
            name: name.to_string(),
            partitions,
            replication_factor,
            ..NewTopic::default()
        }
    }

    fn name(name: &str) -> TopicSelector {
        TopicSelector::Name(name.to_string())
    }

    #[test]
    fn defaults_fill_in_what_is_left_open() {
        let mut world = World::new();
        world.config.defaults.partitions = 3;
        let created = world.create(topic("a", -1, -1)).unwrap();
        assert_eq!((created.partitions, created.replication_factor), (3, 1));
        let image = world.image.topic("a").unwrap();
        assert_eq!((image.id, image.partitions[2].leader), (created.id, 1));
        assert_eq!(image.partitions[0].leader_epoch, 0);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let mut world = World::new();
        for count in [0, -2, i32::MIN] {
            let result = world.create(topic("a", count, 1));
            assert!(matches!(result, Err(E::InvalidPartitions(_))), "{count}");
        }
        for factor in [0, -2, 2, i16::MAX, i16::MIN] {
            let result = world.create(topic("a", 1, factor));
            assert!(
                matches!(result, Err(E::InvalidReplicationFactor(_))),
                "{factor}"
            );
        }
    }

    #[test]
    fn names_are_legal_new_and_do_not_collide() {
        let mut world = World::new();
        assert!(matches!(
            world.create(topic("a b", 1, 1)),
            Err(E::InvalidTopicName(_))
        ));
        assert!(matches!(
            world.create(topic(topic_name::CLUSTER_METADATA, 1, 1)),
            Err(E::InvalidRequest(_))
        ));
        world.create(topic("a.b", 1, 1)).unwrap();
        assert!(matches!(
            world.create(topic("a.b", 1, 1)),
            Err(E::TopicExists(_))
        ));
        assert!(matches!(
            world.create(topic("a_b", 1, 1)),
            Err(E::InvalidTopicName(_))
        ));
        let replies = world.create_all(vec![topic("x.y", 1, 1), topic("x_y", 1, 1)]);
        assert!(replies[0].1.is_ok());
        assert!(matches!(replies[1].1, Err(E::InvalidTopicName(_))));
    }

    #[test]
    fn a_name_given_twice_is_answered_once_and_others_are_created() {
        let mut world = World::new();
        let replies = world.create_all(vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1)]);
        assert_eq!(replies.len(), 2);
        assert!(matches!(&replies[0], (name, Err(E::InvalidRequest(_))) if name == "a"));
        assert!(replies[1].1.is_ok());
        assert!(world.image.topic("a").is_none());
    }

    #[test]
    fn validation_alone_changes_nothing() {
        let mut world = World::new();
        let command = Command::CreateTopics {
            topics: vec![topic("a", 2, 1)],
            validate_only: true,
        };
        let CommandReply::TopicsCreated(replies) = world.run(command) else {
            panic!("another reply");
        };
        assert_eq!(replies[0].1.as_ref().unwrap().partitions, 2);
        assert_eq!((world.image.topic_count(), world.image.version()), (0, 0));
    }

    #[test]
    fn manual_assignments_are_checked_against_themselves_and_the_cluster() {
        let mut world = World::with_brokers(&[1, 2, 3]);
        let manual = |assignments: &[(i32, &[i32])]| NewTopic {
            assignments: assignments
                .iter()
                .map(|(number, brokers)| (*number, brokers.to_vec()))
                .collect(),
            ..topic("a", -1, -1)
        };
        for bad in [
            manual(&[(0, &[])]),
            manual(&[(0, &[4])]),
            manual(&[(0, &[-1])]),
            manual(&[(0, &[1, 1])]),
            manual(&[(0, &[1, 2]), (1, &[1])]),
            manual(&[(0, &[1]), (0, &[2])]),
            manual(&[(0, &[1]), (2, &[2])]),
            manual(&[(1, &[1])]),
        ] {
            let result = world.create(bad.clone());
            assert!(
                matches!(result, Err(E::InvalidReplicaAssignment(_))),
                "{bad:?}"
            );
        }
        for (partitions, factor) in [(1, -1), (-1, 1)] {
            let both = NewTopic {
                partitions,
                replication_factor: factor,
                ..manual(&[(0, &[1])])
            };
            assert!(matches!(world.create(both), Err(E::InvalidRequest(_))));
        }
        world.create(manual(&[(1, &[3, 2]), (0, &[2, 1])])).unwrap();
        let partitions = &world.image.topic("a").unwrap().partitions;
        assert_eq!(
            (partitions[0].leader, &partitions[1].isr[..]),
            (2, &[3, 2][..])
        );
    }

    #[test]
    fn settings_are_checked_and_kept() {
        let mut world = World::new();
        let with = |configs: &[(&str, Option<&str>)]| NewTopic {
            configs: configs
                .iter()
                .map(|(name, value)| (name.to_string(), value.map(str::to_string)))
                .collect(),
            ..topic("a", 1, 1)
        };
        let long = "1".repeat(40_000);
        for bad in [
            ("no.such", Some("1")),
            ("retention.ms", None),
            ("retention.ms", Some("x")),
            ("retention.ms", Some(long.as_str())),
        ] {
            assert!(matches!(
                world.create(with(&[bad])),
                Err(E::InvalidConfig(_))
            ));
        }
        let good = with(&[("retention.ms", Some("1")), ("retention.ms", Some("2"))]);
        let created = world.create(good).unwrap();
        assert_eq!(created.configs["retention.ms"], "2");
        assert_eq!(world.image.topic("a").unwrap().configs, created.configs);
    }

    #[test]
    fn limits_hold_for_topics_and_partitions() {
        let mut world = World::new();
        world.config.limits.topics_per_request_max = 2;
        world.config.limits.partitions_per_request_max = 4;
        world.config.limits.partitions_max = 6;
        let many = (0..3).map(|n| topic(&format!("t{n}"), 1, 1)).collect();
        for (_, result) in world.create_all(many) {
            assert!(matches!(result, Err(E::PolicyViolation(_))));
        }
        let replies = world.create_all(vec![topic("a", 3, 1), topic("b", 2, 1)]);
        assert!(replies[0].1.is_ok());
        assert!(matches!(replies[1].1, Err(E::PolicyViolation(_))));
        assert!(matches!(
            world.create(topic("b", i32::MAX, 1)),
            Err(E::PolicyViolation(_))
        ));
        assert!(matches!(
            world.grow("a", 7, None),
            Err(E::PolicyViolation(_))
        ));
        world.grow("a", 6, None).unwrap();
        assert!(matches!(
            world.create(topic("b", 1, 1)),
            Err(E::PolicyViolation(_))
        ));
    }

    #[test]
    fn topics_grow_and_never_shrink() {
        let mut world = World::with_brokers(&[1, 2]);
        assert!(matches!(world.grow("a", 2, None), Err(E::UnknownTopic(_))));
        world.create(topic("a", 2, 1)).unwrap();
        for count in [2, 1, 0, -1] {
            assert!(matches!(
                world.grow("a", count, None),
                Err(E::InvalidPartitions(_))
            ));
        }
        for bad in [
            vec![],
            vec![vec![1], vec![2]],
            vec![vec![]],
            vec![vec![1, 2]],
            vec![vec![9]],
        ] {
            let result = world.grow("a", 3, Some(bad));
            assert!(matches!(result, Err(E::InvalidReplicaAssignment(_))));
        }
        world.grow("a", 3, Some(vec![vec![2]])).unwrap();
        world.grow("a", 5, None).unwrap();
        let leaders: Vec<i32> = world
            .image
            .topic("a")
            .unwrap()
            .partitions
            .iter()
            .map(|p| p.leader)
            .collect();
        assert_eq!(leaders, [1, 2, 2, 2, 1]);
    }

    #[test]
    fn topics_are_deleted_by_name_or_id_but_not_twice() {
        let mut world = World::new();
        let ids: Vec<Uuid> = ["a", "b", "c"]
            .map(|name| world.create(topic(name, 1, 1)).unwrap().id)
            .to_vec();
        let replies = world.delete(vec![
            name("a"),
            TopicSelector::Id(ids[1]),
            name("b"),
            name("nope"),
            TopicSelector::Id(Uuid([99; 16])),
        ]);
        assert_eq!(replies[0].as_ref().unwrap().id, ids[0]);
        assert!(matches!(replies[1], Err(E::InvalidRequest(_))));
        assert!(matches!(replies[2], Err(E::InvalidRequest(_))));
        assert!(matches!(replies[3], Err(E::UnknownTopic(_))));
        assert!(matches!(replies[4], Err(E::UnknownTopicId(_))));
        assert!(world.image.topic("a").is_none() && world.image.topic("b").is_some());
        world.config.defaults.delete_topics = false;
        assert!(matches!(
            world.delete(vec![name("b")])[0],
            Err(E::TopicDeletionDisabled(_))
        ));
    }
}
