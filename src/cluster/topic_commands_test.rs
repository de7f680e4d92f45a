//! Creating, growing and deleting topics on a single broker, and where the checks of names, numbers
//! and settings are.

use super::controller::{
    Command, CommandReply, CreatedTopic, DeletedTopic, MorePartitions, NewTopic, TopicSelector,
    decide,
};
use super::controller_error::ControllerError as E;
use super::image::{BrokerImage, MetadataImage};
use super::record::MetadataRecord;
use super::topic_name;
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;

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
