//! Whatever happens to brokers: the image keeps its rules, and whoever leads a partition has all
//! that was acknowledged, unless a disk was lost or an unclean election was allowed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::cluster_world::World;
use super::controller::{Command, ElectionKind, IsrChange};
use super::image::{MetadataImage, PartitionImage};
use super::record::{MetadataRecord, snapshot};

const TOPIC: &str = "t";

/// What happens. Nodes are numbers that are brought into the cluster's range; masks choose some.
#[derive(Clone, Debug)]
enum Step {
    Restart(i32),
    StopAndRestart(i32),
    LoseDisk(i32),
    Alive(i32),
    Fence(i32),
    Shutdown(i32),
    Unregister(i32),
    Report(u8),
    /// As `Report`, but the controller hears of it later.
    Propose(u8),
    Deliver,
    Produce,
    Elect(ElectionKind),
    Balance,
    Reassign(Vec<i32>),
    Cancel,
    MinInsync(u8),
    AllowUnclean(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=6_i32;
    let replicas = || proptest::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 1..=3).prop_shuffle();
    prop_oneof![
        2 => node().prop_map(Step::Restart),
        1 => node().prop_map(Step::StopAndRestart),
        1 => node().prop_map(Step::LoseDisk),
        6 => node().prop_map(Step::Alive),
        3 => node().prop_map(Step::Fence),
        1 => node().prop_map(Step::Shutdown),
        1 => node().prop_map(Step::Unregister),
        5 => any::<u8>().prop_map(Step::Report),
        2 => any::<u8>().prop_map(Step::Propose),
        2 => Just(Step::Deliver),
        6 => Just(Step::Produce),
        1 => Just(Step::Elect(ElectionKind::Preferred)),
        1 => Just(Step::Elect(ElectionKind::Unclean)),
        1 => Just(Step::Balance),
        2 => replicas().prop_map(Step::Reassign),
        1 => Just(Step::Cancel),
        2 => (1..=3_u8).prop_map(Step::MinInsync),
        1 => any::<bool>().prop_map(Step::AllowUnclean),
    ]
}

/// The cluster, and what is on its disks.
struct Model {
    world: World,
    brokers: i32,
    /// A report that is on its way, and who sent it.
    proposed: Option<(i32, IsrChange)>,
    /// How many of the acknowledged records each node has.
    held: BTreeMap<i32, u64>,
    acknowledged: u64,
    disks: BTreeMap<i32, u8>,
    disks_lost: u8,
    min_insync: usize,
    is_unclean_allowed: bool,
}

impl Model {
    fn new(brokers: i32, replicas: &[i32]) -> Model {
        let mut world = World::with_brokers(brokers);
        let replicas = within(brokers, replicas);
        world.create(TOPIC, &[&replicas]).expect("a good topic");
        Model {
            world,
            brokers,
            proposed: None,
            held: BTreeMap::new(),
            acknowledged: 0,
            disks: (1..=6).map(|node| (node, node as u8)).collect(),
            disks_lost: 0,
            min_insync: 1,
            is_unclean_allowed: false,
        }
    }

    fn partition(&self) -> &PartitionImage {
        self.world.partition(TOPIC, 0)
    }

    fn held(&self, node: i32) -> u64 {
        self.held.get(&node).copied().unwrap_or(0)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Restart(node) => {
                let node = &self.node(*node);
                let _ = self.world.register(*node, self.disks[node], -1);
            }
            Step::StopAndRestart(node) => {
                let node = &self.node(*node);
                let epoch = self.world.image.brokers().get(node);
                let epoch = epoch.map_or(-1, |broker| broker.epoch);
                let _ = self.world.register(*node, self.disks[node], epoch);
            }
            Step::LoseDisk(node) => {
                let node = &self.node(*node);
                let disk = 100 + self.disks_lost;
                if self.world.register(*node, disk, -1).is_ok() {
                    self.disks_lost += 1;
                    self.disks.insert(*node, disk);
                    self.held.remove(node);
                }
            }
            Step::Alive(node) => drop(self.world.alive(self.node(*node))),
            Step::Fence(node) => drop(self.world.fence(self.node(*node))),
            Step::Shutdown(node) => drop(self.world.stop(self.node(*node))),
            Step::Unregister(node) => drop(self.world.unregister(self.node(*node))),
            Step::Report(mask) => {
                self.propose(*mask);
                self.deliver();
            }
            Step::Propose(mask) => self.propose(*mask),
            Step::Deliver => self.deliver(),
            Step::Produce => self.produce(),
            Step::Elect(kind) => {
                self.world.run(Command::ElectLeaders {
                    kind: *kind,
                    partitions: None,
                });
            }
            Step::Balance => {
                self.world.run(Command::BalanceLeaders {
                    imbalance_percent_max: 0,
                });
            }
            Step::Reassign(target) => {
                let target = within(self.brokers, target);
                drop(self.world.reassign(TOPIC, Some(&target)));
            }
            Step::Cancel => drop(self.world.reassign(TOPIC, None)),
            Step::MinInsync(count) => {
                self.min_insync = usize::from(*count);
                let value = count.to_string();
                self.world.set_topic(TOPIC, "min.insync.replicas", &value);
            }
            Step::AllowUnclean(is_allowed) => {
                self.is_unclean_allowed = *is_allowed;
                let name = "unclean.leader.election.enable";
                self.world.set_topic(TOPIC, name, &is_allowed.to_string());
            }
        }
    }

    fn node(&self, number: i32) -> i32 {
        within(self.brokers, &[number])[0]
    }

    /// The leader finds some of the active replicas in sync with itself.
    fn propose(&mut self, mask: u8) {
        let partition = self.partition().clone();
        if partition.leader < 0 {
            return;
        }
        let is_in = |node: &i32| {
            *node == partition.leader
                || (mask & (1 << node) != 0 && self.world.image.is_active(*node))
        };
        let isr: Vec<i32> = partition.replicas.iter().copied().filter(is_in).collect();
        let has = self.held(partition.leader);
        self.held.extend(isr.iter().map(|node| (*node, has)));
        let change = self.world.isr_change(TOPIC, 0, &isr);
        self.proposed = Some((partition.leader, change));
    }

    fn deliver(&mut self) {
        if let Some((leader, change)) = self.proposed.take() {
            let _ = self.world.report(leader, change);
        }
    }

    /// Acknowledged when the whole ISR has it, and those that are about to join it.
    fn produce(&mut self) {
        let partition = self.partition().clone();
        let least = self.min_insync.min(partition.replicas.len());
        if partition.leader < 0 || partition.isr.len() < least {
            return;
        }
        let mut holders = partition.isr;
        let proposed = self.proposed.iter();
        let proposed = proposed.filter(|(_, change)| change.leader_epoch == partition.leader_epoch);
        for (node, epoch) in proposed.flat_map(|(_, change)| &change.isr) {
            let broker = self.world.image.brokers().get(node);
            if broker.is_none_or(|broker| broker.epoch != *epoch) {
                return;
            }
            holders.push(*node);
        }
        self.acknowledged += 1;
        let holders = holders.into_iter();
        self.held
            .extend(holders.map(|node| (node, self.acknowledged)));
    }

    fn check(&mut self, step: &Step, before: &PartitionImage) {
        let after = self.partition().clone();
        check_rules(&after, &self.world.image, self.disks_lost > 0);
        if after.leader != before.leader {
            assert!(after.leader_epoch > before.leader_epoch);
        }
        assert!(after.leader_epoch >= before.leader_epoch);
        match after == *before {
            true => assert_eq!(after.partition_epoch, before.partition_epoch),
            false => assert_eq!(after.partition_epoch, before.partition_epoch + 1),
        }
        if after.leader >= 0 && self.held(after.leader) < self.acknowledged {
            let is_asked = matches!(step, Step::Elect(ElectionKind::Unclean));
            assert!(self.is_unclean_allowed || is_asked, "records are lost");
            assert!(after.recovering && after.leader != before.leader);
            self.acknowledged = self.held(after.leader);
        }
    }
}

/// Nodes of a cluster of so many brokers, each once.
fn within(brokers: i32, nodes: &[i32]) -> Vec<i32> {
    let mut within = Vec::new();
    for node in nodes {
        let node = (node - 1) % brokers + 1;
        if !within.contains(&node) {
            within.push(node);
        }
    }
    within
}

fn check_rules(partition: &PartitionImage, image: &MetadataImage, is_disk_lost: bool) {
    let PartitionImage {
        leader,
        replicas,
        isr,
        elr,
        adding_replicas,
        removing_replicas,
        ..
    } = partition;
    if *leader >= 0 {
        assert!(isr.contains(leader) && replicas.contains(leader));
        assert!(isr.iter().all(|node| image.is_active(*node)));
    }
    assert!(isr.iter().chain(elr).all(|node| replicas.contains(node)));
    assert!(!isr.iter().any(|node| elr.contains(node)));
    assert!(!isr.is_empty() || is_disk_lost);
    let moving = adding_replicas.iter().chain(removing_replicas);
    assert!(moving.into_iter().all(|node| replicas.contains(node)));
    assert!(
        !adding_replicas
            .iter()
            .any(|node| removing_replicas.contains(node))
    );
    for nodes in [replicas, isr, elr] {
        let mut distinct = nodes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), nodes.len());
    }
}

fn rebuilt(image: &MetadataImage) -> MetadataImage {
    let mut rebuilt = MetadataImage::empty(image.cluster_id(), image.node_id());
    for record in snapshot(image) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        rebuilt.apply(&MetadataRecord::decode(&bytes).expect("just encoded"));
    }
    rebuilt
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn whatever_happens_leaders_have_what_was_acknowledged(
        brokers in 1..=6_i32,
        replicas in proptest::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 1..=3).prop_shuffle(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(brokers, &replicas);
        for step in &steps {
            let before = model.partition().clone();
            model.take(step);
            model.check(step, &before);
        }
        let image = &model.world.image;
        let copy = rebuilt(image);
        prop_assert_eq!(snapshot(&copy), snapshot(image));
        prop_assert_eq!(copy.topic(TOPIC), image.topic(TOPIC));
        prop_assert_eq!(copy.brokers(), image.brokers());
        prop_assert_eq!(copy.departed(), image.departed());
    }
}
