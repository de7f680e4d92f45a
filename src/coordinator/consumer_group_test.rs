//! Consumer groups, one exchange after the other. What is written is what Kafka 4.3.1 writes.

use super::consumer_group::ConsumerGroupState;
use super::consumer_group_queries::Committer;
use super::consumer_group_world::{World, beat, join, owns, told};
use super::consumer_records::{Change, MemberState};
use crate::config::group::ConsumerTimeouts;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest as Request;

fn code(world: &mut World, request: &Request<'_>) -> ErrorCode {
    world.try_heartbeat(request).expect_err("refused").code
}

fn types(world: &World, from: usize) -> Vec<u8> {
    world.log[from..]
        .iter()
        .map(|record| record.key[1])
        .collect()
}

#[test]
fn two_members_share_a_topic_and_no_partition_has_two_owners() {
    let mut world = World::new(&[("foo", 3)]);
    let foo = world.topics.set("foo", 3);
    let first = Request {
        instance_id: Some("inst1".into()),
        ..join("6EIj9NOBQM6zuBLi6x9y5Q", &["foo"])
    };
    let answer = world.heartbeat(&first);
    assert_eq!(
        (answer.member_epoch, answer.heartbeat_interval_ms),
        (2, 5_000)
    );
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1, 2])]));
    assert_eq!(types(&world, 0), [5, 3, 7, 6, 8]);
    let (a, b) = ("6EIj9NOBQM6zuBLi6x9y5Q", "WxzWr9X-TLikltQ3n8xyRA");
    assert_eq!(world.group.state(), ConsumerGroupState::Stable);

    let answer = world.heartbeat(&join(b, &["foo"]));
    assert_eq!((answer.member_epoch, told(&answer)), (3, Some(vec![])));
    assert_eq!(types(&world, 5), [5, 3, 7, 7, 6, 8]);
    assert_eq!(world.group.state(), ConsumerGroupState::Reconciling);
    let answer = world.heartbeat(&beat(b, 3));
    assert_eq!((answer.member_epoch, told(&answer)), (3, None));

    let answer = world.heartbeat(&beat(a, 2));
    assert_eq!(answer.member_epoch, 2);
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1])]));
    assert_eq!(told(&world.heartbeat(&beat(a, 2))), None);
    assert_eq!(told(&world.heartbeat(&beat(b, 3))), None);
    let answer = world.heartbeat(&owns(a, 2, &[(foo, &[0, 1])]));
    assert_eq!((answer.member_epoch, told(&answer)), (3, None));
    let answer = world.heartbeat(&beat(b, 3));
    assert_eq!(told(&answer), Some(vec![(foo, vec![2])]));
    assert_eq!(world.group.state(), ConsumerGroupState::Stable);
    assert_eq!(world.rebuilt(), world.group);
}

#[test]
fn records_have_the_sizes_of_kafkas() {
    let mut world = World::new(&[("foo", 3)]);
    world.heartbeat(&Request {
        instance_id: Some("inst1".into()),
        rebalance_timeout_ms: 300_000,
        ..join("6EIj9NOBQM6zuBLi6x9y5Q", &["foo"])
    });
    let sizes: Vec<(usize, Option<usize>)> = (world.log.iter())
        .map(|record| (record.key.len(), record.value.as_ref().map(Vec::len)))
        .collect();
    // Measured with the client id "console-consumer", which is ten bytes longer.
    let kafkas = [(30, 52 - 10), (6, 17), (30, 34), (6, 17), (30, 59)];
    assert_eq!(sizes, kafkas.map(|(key, value)| (key, Some(value))));
}

#[test]
fn epochs_that_are_not_the_members_are_fenced_but_for_a_lost_answer() {
    let mut world = World::new(&[("foo", 2)]);
    let foo = world.topics.set("foo", 2);
    assert_eq!(code(&mut world, &beat("a", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(&join("a", &["foo"])).member_epoch, 2);
    assert_eq!(
        code(&mut world, &beat("a", 3)),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        code(&mut world, &beat("a", 1)),
        ErrorCode::FencedMemberEpoch
    );
    world.topics.set("foo", 3);
    assert_eq!(world.heartbeat(&beat("a", 2)).member_epoch, 3);
    // The answer got lost: the member still speaks in its old epoch.
    assert_eq!(
        code(&mut world, &beat("a", 2)),
        ErrorCode::FencedMemberEpoch
    );
    let foreign = owns("a", 2, &[(foo, &[0, 7])]);
    assert_eq!(code(&mut world, &foreign), ErrorCode::FencedMemberEpoch);
    let known = owns("a", 2, &[(foo, &[0, 1])]);
    assert_eq!(world.heartbeat(&known).member_epoch, 3);
    let answer = world.heartbeat(&join("a", &["foo"]));
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1, 2])]));
}

#[test]
fn requests_are_checked_field_by_field() {
    let mut world = World::new(&[("foo", 1)]);
    let whole = || join("a", &["foo"]);
    let invalid = [
        Request {
            member_id: "".into(),
            ..whole()
        },
        Request {
            group_id: "".into(),
            ..whole()
        },
        Request {
            instance_id: Some("".into()),
            ..whole()
        },
        Request {
            rack_id: Some("".into()),
            ..whole()
        },
        Request {
            rebalance_timeout_ms: -1,
            ..whole()
        },
        Request {
            topic_partitions: None,
            ..whole()
        },
        Request {
            subscribed_topic_names: None,
            ..whole()
        },
        Request {
            member_epoch: -2,
            ..whole()
        },
        Request {
            member_epoch: -3,
            ..whole()
        },
        Request {
            topic_partitions: owns("a", 0, &[(Default::default(), &[1])]).topic_partitions,
            ..whole()
        },
    ];
    for request in &invalid {
        assert_eq!(
            code(&mut world, request),
            ErrorCode::InvalidRequest,
            "{request:?}"
        );
    }
}

#[test]
fn assignors_and_expressions_are_checked_before_anything_is_kept() {
    let mut world = World::new(&[("foo", 1)]);
    let whole = || join("a", &["foo"]);
    let assignor = Request {
        server_assignor: Some("best".into()),
        ..whole()
    };
    let refusal = world.try_heartbeat(&assignor).expect_err("refused");
    assert_eq!(refusal.code, ErrorCode::UnsupportedAssignor);
    assert_eq!(
        refusal.message,
        "ServerAssignor best is not supported. Supported assignors: uniform, range."
    );
    let regex = Request {
        subscribed_topic_regex: Some("(".into()),
        ..whole()
    };
    assert_eq!(
        code(&mut world, &regex),
        ErrorCode::InvalidRegularExpression
    );
    assert!(world.group.is_empty() && world.log.is_empty());
    world.version = 0;
    let answer = world.heartbeat(&Request {
        member_id: "".into(),
        ..whole()
    });
    assert_eq!(answer.member_id.as_deref(), Some("AQEBAQEBAQEBAQEBAQEBAQ"));
}

#[test]
fn a_group_has_room_for_so_many_members_and_subscriptions() {
    let mut world = World::new(&[("foo", 2)]);
    world.config.groups.consumer_max_size = 1;
    world.heartbeat(&join("a", &["foo"]));
    assert_eq!(
        code(&mut world, &join("b", &["foo"])),
        ErrorCode::GroupMaxSizeReached
    );
    world.heartbeat(&join("a", &["foo"]));
    world.config.groups.consumer_max_size = 2;
    world.config.groups.members_max_bytes = 5;
    assert_eq!(
        code(&mut world, &join("b", &["foo"])),
        ErrorCode::GroupMaxSizeReached
    );
    world.heartbeat(&join("b", &["fo"]));
    world.heartbeat(&join("a", &["foo"]));
}

#[test]
fn a_group_with_timeouts_of_its_own_has_them_from_the_next_heartbeat_on() {
    let mut world = World::new(&[("foo", 1)]);
    let answer = world.heartbeat(&join("a", &["foo"]));
    assert_eq!(answer.heartbeat_interval_ms, 5_000);
    world.timeouts = Some(ConsumerTimeouts {
        session_timeout_ms: 60_000,
        heartbeat_interval_ms: 15_000,
    });
    let answer = world.heartbeat(&beat("a", 2));
    assert_eq!(answer.heartbeat_interval_ms, 15_000);
    world.pass(59_999);
    assert_eq!(world.group.state(), ConsumerGroupState::Stable);
    world.heartbeat(&beat("a", 2));
    // A shorter one does not cut the session that has begun.
    world.timeouts = None;
    world.pass(59_999);
    let answer = world.heartbeat(&beat("a", 2));
    assert_eq!(answer.heartbeat_interval_ms, 5_000);
    world.pass(45_000);
    assert_eq!(world.group.state(), ConsumerGroupState::Empty);
}

#[test]
fn a_member_that_leaves_or_is_silent_frees_what_it_had() {
    let mut world = World::new(&[("foo", 2)]);
    let foo = world.topics.set("foo", 2);
    world.heartbeat(&join("a", &["foo"]));
    world.heartbeat(&join("b", &["foo"]));
    let left = world.log.len();
    let answer = world.heartbeat(&beat("a", -1));
    assert_eq!((answer.member_epoch, answer.heartbeat_interval_ms), (-1, 0));
    assert_eq!(types(&world, left), [8, 7, 5, 3]);
    assert_eq!(code(&mut world, &beat("a", -1)), ErrorCode::UnknownMemberId);
    let answer = world.heartbeat(&beat("b", 3));
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1])]));
    world.heartbeat(&join("c", &["foo"]));
    world.pass(44_000);
    world.heartbeat(&beat("c", 5));
    assert_eq!(world.group.next_due_ms(), Some(46_000));
    world.pass(1_000);
    assert_eq!(code(&mut world, &beat("b", 4)), ErrorCode::UnknownMemberId);
    let answer = world.heartbeat(&beat("c", 5));
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1])]));
    world.pass(45_000);
    assert_eq!(world.group.state(), ConsumerGroupState::Empty);
    assert_eq!(world.group.next_due_ms(), None);
    assert_eq!(world.rebuilt(), world.group);
}

#[test]
fn who_does_not_give_up_in_time_is_removed() {
    let mut world = World::new(&[("foo", 2)]);
    let foo = world.topics.set("foo", 2);
    world.heartbeat(&join("a", &["foo"]));
    world.heartbeat(&join("b", &["foo"]));
    world.heartbeat(&beat("a", 2));
    for _ in 0..2 {
        world.pass(30_000);
        if world.now_ms < 61_000 {
            world.heartbeat(&beat("a", 2));
        }
        world.heartbeat(&beat("b", 3));
    }
    assert_eq!(code(&mut world, &beat("a", 2)), ErrorCode::UnknownMemberId);
    let answer = world.heartbeat(&owns("b", 4, &[]));
    assert_eq!(answer.member_epoch, 4);
    let member = &world.group.members["b"];
    assert_eq!(member.current.assigned[&foo].len(), 2);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut world = World::new(&[("foo", 4)]);
    let foo = world.topics.set("foo", 4);
    let with_instance = |request: Request<'static>| Request {
        instance_id: Some("i".into()),
        ..request
    };
    let as_static = |id| with_instance(join(id, &["foo"]));
    world.heartbeat(&as_static("a"));
    world.heartbeat(&join("b", &["foo"]));
    world.heartbeat(&beat("a", 2));
    world.heartbeat(&owns("a", 2, &[(foo, &[0, 1])]));
    world.heartbeat(&beat("b", 3));
    assert_eq!(
        code(&mut world, &as_static("c")),
        ErrorCode::UnreleasedInstanceId
    );
    let stranger = with_instance(beat("c", 3));
    assert_eq!(code(&mut world, &stranger), ErrorCode::FencedInstanceId);
    let foreign = Request {
        instance_id: Some("j".into()),
        ..beat("a", 3)
    };
    assert_eq!(code(&mut world, &foreign), ErrorCode::UnknownMemberId);
    let epoch = world.group.epoch;
    let answer = world.heartbeat(&with_instance(beat("a", -2)));
    assert_eq!(answer.member_epoch, -2);
    assert_eq!(
        world.group.members["a"].current.assigned[&foo],
        [(0, 0), (1, 0)].into()
    );
    let before = world.log.len();
    let answer = world.heartbeat(&as_static("c"));
    assert_eq!(told(&answer), Some(vec![(foo, vec![0, 1])]));
    assert_eq!((answer.member_epoch, world.group.epoch), (3, epoch));
    assert_eq!(types(&world, before), [8, 7, 5, 5, 7, 8, 8]);
    assert_eq!(
        code(&mut world, &with_instance(beat("a", 3))),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(world.rebuilt(), world.group);
    world.heartbeat(&with_instance(beat("c", -2)));
    world.pass(45_000);
    assert!(world.group.static_members.is_empty());
}

#[test]
fn targets_follow_the_topics() {
    let mut world = World::new(&[("foo", 1)]);
    let foo = world.topics.set("foo", 1);
    world.heartbeat(&join("a", &["foo", "bar"]));
    let silent = world.log.len();
    world.topics.set("other", 5);
    world.heartbeat(&beat("a", 2));
    assert_eq!(world.log.len(), silent);
    let bar = world.topics.set("bar", 2);
    let answer = world.heartbeat(&beat("a", 2));
    assert_eq!(told(&answer), Some(vec![(bar, vec![0, 1]), (foo, vec![0])]));
    world
        .topics
        .racks
        .insert(("foo".to_owned(), 0), vec!["r1".to_owned()]);
    world.topics.changed();
    assert_eq!(world.heartbeat(&beat("a", 3)).member_epoch, 4);
    world.topics.delete("bar");
    let answer = world.heartbeat(&beat("a", 4));
    assert_eq!(told(&answer), Some(vec![(foo, vec![0])]));
    let answer = world.heartbeat(&owns("a", 4, &[(foo, &[0])]));
    assert_eq!((answer.member_epoch, told(&answer)), (5, None));
}

#[test]
fn expressions_follow_the_topics() {
    let mut world = World::new(&[("logs-1", 1), ("old-logs", 1)]);
    let one = world.topics.set("logs-1", 1);
    let regex = |request: Request<'static>| Request {
        subscribed_topic_regex: Some("logs-.*".into()),
        ..request
    };
    let answer = world.heartbeat(&regex(join("a", &[])));
    assert_eq!(told(&answer), Some(vec![(one, vec![0])]));
    assert_eq!(types(&world, 0), [5, 16, 3, 7, 6, 8]);
    assert!(world.group.is_subscribed("logs-1") && !world.group.is_subscribed("old-logs"));
    let two = world.topics.set("logs-2", 1);
    assert_eq!(told(&world.heartbeat(&beat("a", 2))), None);
    world.pass(10_001);
    let answer = world.heartbeat(&beat("a", 2));
    assert_eq!(told(&answer), Some(vec![(one, vec![0]), (two, vec![0])]));
    let other = Request {
        subscribed_topic_regex: Some("old-.*".into()),
        ..beat("a", 3)
    };
    let answer = world.heartbeat(&other);
    assert_eq!((answer.member_epoch, told(&answer)), (3, Some(vec![])));
    assert!(!world.group.regexes.contains_key("logs-.*"));
    assert_eq!(world.rebuilt(), world.group);
    world.heartbeat(&beat("a", -1));
    assert!(world.group.regexes.is_empty());
}

#[test]
fn what_kafka_wrote_before_is_understood_and_taken_back() {
    let mut world = World::new(&[("foo", 1)]);
    let old = Change::decode(&[0, 4, 0, 2, b'g', b'1'], Some(&[0, 0, 1, 0]));
    let (_, change) = old.expect("read").expect("a consumer group's");
    assert_eq!(change, Change::PartitionMetadata(true));
    world.group.replay(change);
    world.heartbeat(&join("a", &["foo"]));
    assert_eq!(types(&world, 0), [5, 3, 4, 7, 6, 8]);
    assert_eq!(world.log[2].value, None);
    let odd = Change::decode(&world.log[1].key.clone(), Some(&[0, 9, 1]));
    assert_eq!(
        odd.expect_err("newer").to_string(),
        "ConsumerGroupMetadataValue has no version 9"
    );
    assert_eq!(Change::decode(&[0, 2, 0, 0], None), Ok(None));
    assert!(Change::decode(&[0], None).is_err());
    let mut member = world.group.members["a"].current.clone();
    member.state = MemberState::Unknown;
    world
        .group
        .replay(Change::Current("a".to_owned(), Some(member)));
    assert_eq!(
        code(&mut world, &beat("a", 2)),
        ErrorCode::FencedMemberEpoch
    );
}

#[test]
fn commits_are_of_members_in_their_epoch_or_of_what_they_have_had_since() {
    let mut world = World::new(&[("foo", 2)]);
    let foo = world.topics.set("foo", 2);
    let commit = |world: &World, member_id, epoch, version: Option<i16>, partition| {
        let committer = Committer {
            member_id,
            instance_id: None,
            epoch,
            version,
        };
        let partitions = [(foo, partition)];
        let result = world.group.validate_offset_commit(&committer, &partitions);
        result.err().map(|refusal| refusal.code)
    };
    assert_eq!(commit(&world, "", -1, Some(9), 0), None);
    world.heartbeat(&join("a", &["foo"]));
    assert_eq!(
        commit(&world, "", -1, Some(9), 0),
        Some(ErrorCode::UnknownMemberId)
    );
    assert_eq!(commit(&world, "", -1, None, 0), None);
    assert_eq!(commit(&world, "a", 2, Some(9), 0), None);
    assert_eq!(
        commit(&world, "a", 2, Some(8), 0),
        Some(ErrorCode::UnsupportedVersion)
    );
    assert_eq!(
        commit(&world, "a", 3, Some(9), 0),
        Some(ErrorCode::StaleMemberEpoch)
    );
    world.topics.set("foo", 3);
    world.heartbeat(&beat("a", 2));
    assert_eq!(commit(&world, "a", 2, Some(9), 1), None);
    assert_eq!(
        commit(&world, "a", 2, Some(9), 2),
        Some(ErrorCode::StaleMemberEpoch)
    );
    let fetch = |member_id, epoch| world.group.validate_offset_fetch(member_id, epoch);
    assert!(fetch(None, -1).is_ok() && fetch(Some("a"), 3).is_ok());
    assert_eq!(
        fetch(Some("a"), 2).expect_err("old").code,
        ErrorCode::StaleMemberEpoch
    );
    assert_eq!(
        fetch(Some("b"), 2).expect_err("who").code,
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_group_is_described_with_what_members_have_and_are_to_have() {
    let mut world = World::new(&[("foo", 2)]);
    let range = Request {
        server_assignor: Some("range".into()),
        ..join("a", &["foo"])
    };
    world.heartbeat(&range);
    world.heartbeat(&join("b", &["foo"]));
    let (group, _) = world.on_group(|group, context, _| group.describe(context));
    assert_eq!(
        (group.group_state.as_ref(), group.assignor_name.as_ref()),
        ("Reconciling", "range")
    );
    assert_eq!((group.group_epoch, group.assignment_epoch), (3, 3));
    let member = &group.members[0];
    assert_eq!(member.assignment.topic_partitions[0].partitions, [0, 1]);
    assert_eq!(member.target_assignment.topic_partitions[0].partitions, [0]);
    assert_eq!(
        member.target_assignment.topic_partitions[0].topic_name,
        "foo"
    );
    assert_eq!(
        (member.client_host.as_ref(), member.member_type),
        ("/127.0.0.1", 1)
    );
}

#[test]
fn a_group_that_is_deleted_leaves_nothing() {
    let mut world = World::new(&[("foo", 2)]);
    let regex = Request {
        subscribed_topic_regex: Some("f.*".into()),
        ..join("a", &[])
    };
    world.heartbeat(&regex);
    let tombstones = world.group.tombstones();
    assert!(tombstones.iter().all(|record| record.value.is_none()));
    let types: Vec<u8> = tombstones.iter().map(|record| record.key[1]).collect();
    assert_eq!(types, [8, 7, 6, 5, 16, 4, 3]);
    world.log.extend(tombstones);
    let rebuilt = world.rebuilt();
    assert!(rebuilt.is_empty() && rebuilt.targets.is_empty() && rebuilt.regexes.is_empty());
    assert_eq!(rebuilt.epoch, 0);
}

#[test]
fn a_loaded_group_gives_everybody_a_whole_session() {
    let mut world = World::new(&[("foo", 2)]);
    world.heartbeat(&join("a", &["foo"]));
    world.heartbeat(&join("b", &["foo"]));
    world.heartbeat(&beat("a", 2));
    world.group = world.rebuilt();
    assert_eq!(world.group.next_due_ms(), None);
    world.now_ms = 100_000;
    world.on_group(|group, context, _| group.loaded(context));
    world.pass(44_999);
    assert_eq!(world.group.members.len(), 2);
    world.heartbeat(&beat("a", 2));
    world.heartbeat(&beat("b", 3));
    world.pass(15_001);
    assert!(
        !world.group.members.contains_key("a"),
        "its time to revoke is over"
    );
    assert!(world.group.members.contains_key("b"));
}
