//! What becomes of partitions when brokers come, go, stop and lose their disks.

use super::cluster_world::World;
use super::controller::{Command, CommandReply, ConfigResource, ElectionKind, NewTopic};
use super::controller_error::ControllerError as E;

/// Leader, ISR and ELR of the first partition.
fn state(world: &World, topic: &str) -> (i32, Vec<i32>, Vec<i32>) {
    let partition = world.partition(topic, 0);
    let mut isr = partition.isr.clone();
    isr.sort_unstable();
    (partition.leader, isr, partition.elr.clone())
}

fn elect(world: &mut World, kind: ElectionKind, topic: &str) -> Result<(), E> {
    let partitions = Some(vec![(topic.to_string(), 0)]);
    match world.run(Command::ElectLeaders { kind, partitions }) {
        CommandReply::LeadersElected(mut results) => results.remove(0).1,
        other => panic!("another reply: {other:?}"),
    }
}

#[test]
fn a_registration_is_fenced_until_it_is_alive_and_its_epoch_grows() {
    let mut world = World::new();
    let first = world.register(1, 1, -1).unwrap();
    assert!(!world.image.is_active(1));
    assert!(matches!(
        world.create("t", &[&[1]]),
        Err(E::InvalidReplicaAssignment(_))
    ));
    world.alive(1).unwrap();
    assert!(world.image.is_active(1));
    assert!(matches!(
        world.register(1, 1, -1),
        Err(E::DuplicateBroker(_))
    ));
    // The run before stopped in order: nobody else can know its epoch.
    let second = world.register(1, 1, first).unwrap();
    assert!(second > first);
    world.fence(1).unwrap();
    assert!(world.register(1, 1, -1).unwrap() > second);
}

#[test]
fn whoever_speaks_with_an_old_epoch_or_none_is_refused() {
    let mut world = World::with_brokers(1);
    let stale = Command::BrokerAlive {
        node_id: 1,
        epoch: 99,
    };
    assert!(matches!(
        world.run(stale),
        CommandReply::BrokerChanged(Err(E::StaleBrokerEpoch(_)))
    ));
    assert!(matches!(world.fence(2), Err(E::BrokerIdNotRegistered(_))));
    assert!(matches!(
        world.unregister(2),
        Err(E::BrokerIdNotRegistered(_))
    ));
}

#[test]
fn a_fenced_leader_is_followed_by_one_of_the_isr_and_the_last_one_stays_in_it() {
    let mut world = World::with_brokers(3);
    world.create("t", &[&[1, 2, 3]]).unwrap();
    world.fence(1).unwrap();
    assert_eq!(state(&world, "t"), (2, vec![2, 3], vec![]));
    assert_eq!(world.partition("t", 0).leader_epoch, 1);
    world.fence(2).unwrap();
    world.fence(3).unwrap();
    assert_eq!(state(&world, "t"), (-1, vec![3], vec![]));
    // It alone knows everything that was acknowledged.
    world.alive(1).unwrap();
    assert_eq!(state(&world, "t"), (-1, vec![3], vec![]));
    world.alive(3).unwrap();
    assert_eq!(state(&world, "t"), (3, vec![3], vec![]));
}

#[test]
fn who_leaves_an_isr_below_the_minimum_may_lead_later() {
    let mut world = World::with_brokers(3);
    world.create("t", &[&[1, 2, 3]]).unwrap();
    world.set_topic("t", "min.insync.replicas", "2");
    world.fence(2).unwrap();
    world.fence(3).unwrap();
    assert_eq!(state(&world, "t"), (1, vec![1], vec![3]));
    world.fence(1).unwrap();
    world.alive(2).unwrap();
    assert_eq!(world.partition("t", 0).leader, -1);
    world.alive(3).unwrap();
    assert_eq!(state(&world, "t"), (3, vec![3], vec![1]));
    world.set_isr("t", &[3, 2]).unwrap();
    assert_eq!(state(&world, "t"), (3, vec![2, 3], vec![]));
}

#[test]
fn a_smaller_minimum_leaves_nobody_eligible_who_may_fall_behind() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2]]).unwrap();
    world.set_topic("t", "min.insync.replicas", "2");
    world.fence(2).unwrap();
    assert_eq!(state(&world, "t"), (1, vec![1], vec![2]));
    world.set_topic("t", "min.insync.replicas", "1");
    assert_eq!(state(&world, "t"), (1, vec![1], vec![]));
}

#[test]
fn a_killed_broker_with_its_disk_keeps_its_place_only_where_it_is_the_last() {
    let mut world = World::with_brokers(2);
    world.create("both", &[&[1, 2]]).unwrap();
    world.create("alone", &[&[1]]).unwrap();
    world.fence(1).unwrap();
    world.start(1, 1).unwrap();
    assert_eq!(state(&world, "both"), (2, vec![2], vec![]));
    assert_eq!(state(&world, "alone"), (1, vec![1], vec![]));
    assert!(world.partition("alone", 0).leader_epoch > 0);
}

#[test]
fn an_empty_disk_is_in_sync_with_nothing() {
    let mut world = World::with_brokers(2);
    world.create("alone", &[&[1]]).unwrap();
    world.create("both", &[&[1, 2]]).unwrap();
    world.fence(1).unwrap();
    world.start(1, 9).unwrap();
    assert_eq!(state(&world, "alone"), (-1, vec![], vec![]));
    assert_eq!(world.partition("alone", 0).last_known_elr, [1]);
    assert_eq!(state(&world, "both"), (2, vec![2], vec![]));
    elect(&mut world, ElectionKind::Unclean, "alone").unwrap();
    assert_eq!(state(&world, "alone"), (1, vec![1], vec![]));
    assert!(world.partition("alone", 0).recovering);
    world.set_isr("alone", &[1]).unwrap();
    assert!(!world.partition("alone", 0).recovering);
}

#[test]
fn an_unregistered_broker_is_known_by_its_disk_when_it_comes_back() {
    let mut world = World::with_brokers(2);
    world.create("a", &[&[1]]).unwrap();
    world.create("b", &[&[2]]).unwrap();
    for node_id in [1, 2] {
        world.unregister(node_id).unwrap();
    }
    assert_eq!(state(&world, "a"), (-1, vec![1], vec![]));
    world.start(1, 1).unwrap();
    world.start(2, 8).unwrap();
    assert_eq!(state(&world, "a"), (1, vec![1], vec![]));
    assert_eq!(state(&world, "b"), (-1, vec![], vec![]));
}

#[test]
fn records_acknowledged_before_their_flush_may_be_gone_after_a_kill() {
    for (flush_messages, eligible) in [("1", vec![2]), ("100", vec![])] {
        let mut world = World::with_brokers(2);
        world.create("t", &[&[1, 2]]).unwrap();
        world.set_topic("t", "min.insync.replicas", "2");
        world.set_topic("t", "flush.messages", flush_messages);
        world.fence(2).unwrap();
        world.start(2, 2).unwrap();
        assert_eq!(state(&world, "t"), (1, vec![1], eligible));
    }
}

#[test]
fn a_broker_that_stops_gives_its_leadership_away() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2]]).unwrap();
    let reply = world.stop(1).unwrap();
    assert!(reply.in_controlled_shutdown && !reply.leads_any && !reply.is_fenced);
    assert_eq!(state(&world, "t"), (2, vec![2], vec![]));
    assert!(matches!(
        world.set_isr("t", &[2, 1]),
        Err(E::IneligibleReplica(_))
    ));
    let again = world.alive(1).unwrap();
    assert!(again.in_controlled_shutdown);
    world.start(1, 1).unwrap();
    world.set_isr("t", &[2, 1]).unwrap();
}

#[test]
fn reports_of_leaders_are_checked_against_epochs_and_registrations() {
    let mut world = World::with_brokers(3);
    world.create("t", &[&[1, 2]]).unwrap();
    let good = world.isr_change("t", 0, &[1]);
    let changed = |change: &dyn Fn(&mut super::controller::IsrChange)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed
    };
    let cases = [
        changed(&|c| c.topic.0[0] ^= 1),
        changed(&|c| c.partition = 1),
        changed(&|c| c.leader_epoch = -1),
        changed(&|c| c.partition_epoch = -1),
        changed(&|c| c.partition_epoch = 7),
        changed(&|c| c.isr = vec![]),
        changed(&|c| c.isr.push((3, 3))),
        changed(&|c| c.isr.push((2, 99))),
    ];
    let codes = cases.map(|case| world.report(1, case).unwrap_err());
    assert!(
        matches!(
            &codes,
            [
                E::UnknownTopicId(_),
                E::UnknownTopic(_),
                E::FencedLeaderEpoch(_),
                E::InvalidUpdateVersion(_),
                E::StaleController(_),
                E::InvalidRequest(_),
                E::InvalidRequest(_),
                E::IneligibleReplica(_),
            ]
        ),
        "{codes:?}"
    );
    let not_leader = world.report(2, good.clone());
    assert!(matches!(not_leader, Err(E::InvalidRequest(_))));
    let new = world.report(1, good.clone()).unwrap();
    assert_eq!((new.partition_epoch, new.isr), (1, vec![1]));
    let late = world.report(1, good);
    assert!(matches!(late, Err(E::InvalidUpdateVersion(_))));
}

#[test]
fn a_report_from_before_a_disk_was_lost_is_refused() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2]]).unwrap();
    world.set_isr("t", &[1]).unwrap();
    let caught_up = world.isr_change("t", 0, &[1, 2]);
    world.fence(2).unwrap();
    world.start(2, 9).unwrap();
    let late = world.report(1, caught_up);
    assert!(matches!(late, Err(E::IneligibleReplica(_))));
    assert_eq!(state(&world, "t"), (1, vec![1], vec![]));
}

#[test]
fn a_partition_moves_when_all_that_it_gains_are_in_sync() {
    let mut world = World::with_brokers(4);
    world.create("t", &[&[1, 2]]).unwrap();
    world.reassign("t", Some(&[3, 4])).unwrap();
    let partition = world.partition("t", 0);
    assert_eq!(partition.replicas, [3, 4, 1, 2]);
    assert_eq!(partition.adding_replicas, [3, 4]);
    assert_eq!(partition.removing_replicas, [1, 2]);
    world.set_isr("t", &[1, 2, 3]).unwrap();
    assert_eq!(world.partition("t", 0).replicas.len(), 4);
    let moved = world.set_isr("t", &[1, 2, 3, 4]);
    assert!(matches!(moved, Err(E::NewLeaderElected(_))));
    let partition = world.partition("t", 0);
    assert_eq!(
        (partition.leader, &partition.replicas[..]),
        (3, &[3, 4][..])
    );
    assert!(partition.adding_replicas.is_empty() && partition.removing_replicas.is_empty());
}

#[test]
fn a_reassignment_is_cancelled_unless_only_new_replicas_have_everything() {
    let mut world = World::with_brokers(4);
    world.create("t", &[&[1, 2]]).unwrap();
    assert!(matches!(
        world.reassign("t", None),
        Err(E::NoReassignmentInProgress(_))
    ));
    world.reassign("t", Some(&[3, 4])).unwrap();
    world.reassign("t", None).unwrap();
    assert_eq!(world.partition("t", 0).replicas, [1, 2]);
    world.reassign("t", Some(&[3, 4])).unwrap();
    world.set_isr("t", &[1, 3]).unwrap();
    world.fence(1).unwrap();
    assert_eq!(state(&world, "t").0, 3);
    assert!(matches!(
        world.reassign("t", None),
        Err(E::InvalidReplicaAssignment(_))
    ));
    for bad in [&[][..], &[9], &[1, 1]] {
        assert!(matches!(
            world.reassign("t", Some(bad)),
            Err(E::InvalidReplicaAssignment(_))
        ));
    }
    assert!(matches!(
        world.reassign("no", None),
        Err(E::UnknownTopic(_))
    ));
}

#[test]
fn preferred_leaders_are_elected_when_they_are_in_sync() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2]]).unwrap();
    let preferred = ElectionKind::Preferred;
    assert!(matches!(
        elect(&mut world, preferred, "t"),
        Err(E::ElectionNotNeeded(_))
    ));
    world.fence(1).unwrap();
    assert!(matches!(
        elect(&mut world, preferred, "t"),
        Err(E::PreferredLeaderNotAvailable(_))
    ));
    world.alive(1).unwrap();
    world.set_isr("t", &[2, 1]).unwrap();
    elect(&mut world, preferred, "t").unwrap();
    assert_eq!(state(&world, "t").0, 1);
    assert!(matches!(
        elect(&mut world, ElectionKind::Unclean, "t"),
        Err(E::ElectionNotNeeded(_))
    ));
    assert!(matches!(
        elect(&mut world, preferred, "no"),
        Err(E::UnknownTopic(_))
    ));
}

#[test]
fn all_means_those_that_need_an_election() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2], &[2, 1]]).unwrap();
    world.fence(1).unwrap();
    world.alive(1).unwrap();
    world.set_isr("t", &[2, 1]).unwrap();
    let all = Command::ElectLeaders {
        kind: ElectionKind::Preferred,
        partitions: None,
    };
    let CommandReply::LeadersElected(results) = world.run(all) else {
        panic!("another reply");
    };
    assert_eq!(results, [(("t".to_string(), 0), Ok(()))]);
}

#[test]
fn leaders_are_balanced_when_too_many_are_elsewhere() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2][..]; 4]).unwrap();
    world.fence(1).unwrap();
    world.alive(1).unwrap();
    for number in 0..4 {
        let change = world.isr_change("t", number, &[2, 1]);
        world.report(2, change).unwrap();
    }
    let mut balance = |imbalance_percent_max| {
        let reply = world.run(Command::BalanceLeaders {
            imbalance_percent_max,
        });
        (reply, world.partition("t", 3).leader)
    };
    assert_eq!(balance(100), (CommandReply::LeadersBalanced(false), 2));
    assert_eq!(balance(10), (CommandReply::LeadersBalanced(true), 1));
    assert_eq!(balance(10), (CommandReply::LeadersBalanced(false), 1));
}

#[test]
fn unclean_elections_happen_where_they_are_allowed_also_afterwards() {
    let mut world = World::with_brokers(2);
    world.create("t", &[&[1, 2]]).unwrap();
    world.fence(2).unwrap();
    world.fence(1).unwrap();
    world.alive(2).unwrap();
    assert_eq!(state(&world, "t"), (-1, vec![1], vec![]));
    world.set_topic("t", "unclean.leader.election.enable", "true");
    assert_eq!(state(&world, "t"), (2, vec![2], vec![]));
    assert!(world.partition("t", 0).recovering);
}

#[test]
fn topics_spread_over_racks_and_brokers() {
    let mut world = World::with_brokers(6);
    let topic = NewTopic {
        name: "t".to_string(),
        partitions: 60,
        replication_factor: 3,
        ..NewTopic::default()
    };
    world.create_topic(topic).unwrap();
    let partitions = &world.image.topic("t").unwrap().partitions;
    for node_id in 1..=6 {
        let led = partitions.iter().filter(|p| p.leader == node_id);
        let held = partitions.iter().filter(|p| p.replicas.contains(&node_id));
        assert_eq!((led.count(), held.count()), (10, 30), "{node_id}");
    }
    for partition in partitions {
        let mut racks: Vec<i32> = partition.replicas.iter().map(|node| node % 3).collect();
        racks.sort_unstable();
        assert_eq!(racks, [0, 1, 2]);
    }
}

#[test]
fn a_fenced_broker_holds_replicas_only_when_others_are_too_few() {
    let mut world = World::with_brokers(3);
    world.fence(2).unwrap();
    for (name, factor) in [("two", 2), ("three", 3)] {
        let topic = NewTopic {
            name: name.to_string(),
            partitions: 6,
            replication_factor: factor,
            ..NewTopic::default()
        };
        world.create_topic(topic).unwrap();
        for partition in &world.image.topic(name).unwrap().partitions {
            assert_eq!(partition.replicas.contains(&2), factor == 3);
            assert!(partition.leader != 2 && !partition.isr.contains(&2));
        }
    }
    let too_many = NewTopic {
        name: "four".to_string(),
        partitions: 1,
        replication_factor: 4,
        ..NewTopic::default()
    };
    assert!(matches!(
        world.create_topic(too_many),
        Err(E::InvalidReplicationFactor(_))
    ));
}

#[test]
fn settings_are_those_of_any_registered_broker() {
    let mut world = World::with_brokers(2);
    let broker = |name: &str| ConfigResource::Broker(name.to_string());
    world.set(broker("2"), "log.retention.ms", "5000").unwrap();
    assert_eq!(
        world.image.broker_configs(2).unwrap()["log.retention.ms"],
        "5000"
    );
    let unknown = world.set(broker("7"), "log.retention.ms", "5000");
    assert!(matches!(unknown, Err(E::InvalidRequest(_))));
}

#[test]
fn the_cluster_version_only_rises_to_what_all_brokers_support() {
    let mut world = World::with_brokers(2);
    let mut raise = |version| {
        let reply = world.run(Command::RaiseClusterVersion {
            version,
            validate_only: false,
        });
        match reply {
            CommandReply::ClusterVersionRaised(result) => result,
            other => panic!("another reply: {other:?}"),
        }
    };
    assert_eq!(raise(1), Ok(()));
    for version in [0, 2] {
        assert!(matches!(raise(version), Err(E::InvalidUpdateVersion(_))));
    }
}
