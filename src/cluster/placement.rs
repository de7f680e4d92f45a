//! Which brokers hold a partition: Kafka's rules (`StripedReplicaPlacer`).
//!
//! Leaders go to the racks in turn, and within a rack to its brokers in turn; the other replicas go
//! to the racks that follow, so that a partition has two replicas in one rack only when there are
//! more replicas than racks. Brokers that are fenced or stop never lead, and hold replicas only when
//! the others are too few. Kafka begins at random; here the id of the topic says where, so that the
//! same question has the same answer, and a topic that grows goes on where it ended.

use std::collections::BTreeMap;
use std::ops::Range;

use super::controller_error::ControllerError;
use super::image::{MetadataImage, PartitionImage};
use crate::wire::codec::Uuid;

/// Brokers of a rack that take turns, as leaders and as followers; each is given once to a partition.
#[derive(Default)]
struct Turns {
    brokers: Vec<i32>,
    next_leader: usize,
    next_follower: usize,
    given: Vec<i32>,
}

impl Turns {
    fn leader(&mut self) -> Option<i32> {
        let count = self.brokers.len();
        if count == 0 {
            return None;
        }
        let broker = self.brokers[self.next_leader % count];
        self.next_leader += 1;
        self.given.push(broker);
        Some(broker)
    }

    fn follower(&mut self) -> Option<i32> {
        let count = self.brokers.len();
        let mut turns = self.next_follower..self.next_follower + count;
        let turn = turns.find(|turn| !self.given.contains(&self.brokers[turn % count]))?;
        let broker = self.brokers[turn % count];
        self.next_follower = turn + 1;
        self.given.push(broker);
        Some(broker)
    }
}

#[derive(Default)]
struct Rack {
    active: Turns,
    others: Turns,
}

/// The brokers of the cluster by rack; those without one share one.
struct Racks {
    racks: Vec<Rack>,
    first: usize,
}

impl Racks {
    fn new(image: &MetadataImage, start: usize) -> Racks {
        let mut racks = BTreeMap::<Option<&str>, Rack>::new();
        if image.brokers().is_empty() {
            let rack = racks.entry(None).or_default();
            rack.active.brokers.push(image.node_id());
        }
        for (node_id, broker) in image.brokers() {
            let rack = racks.entry(broker.rack.as_deref()).or_default();
            let turns = match broker.is_active() {
                true => &mut rack.active,
                false => &mut rack.others,
            };
            turns.brokers.push(*node_id);
        }
        let mut racks: Vec<Rack> = racks.into_values().collect();
        let first = start % racks.len();
        for rack in &mut racks {
            for turns in [&mut rack.active, &mut rack.others] {
                turns.next_leader = start % turns.brokers.len().max(1);
                turns.next_follower = turns.next_leader;
            }
        }
        Racks { racks, first }
    }

    /// The replicas of the next partition, the leader first.
    fn next(&mut self, factor: usize) -> Vec<i32> {
        let count = self.racks.len();
        self.first = (self.first + 1) % count;
        for rack in &mut self.racks {
            rack.active.given.clear();
            rack.others.given.clear();
        }
        let mut at = self.first;
        let mut replicas = Vec::with_capacity(factor);
        while replicas.is_empty() {
            replicas.extend(self.racks[at].active.leader());
            at = (at + 1) % count;
        }
        // Racks in a row that had no active broker left.
        let mut exhausted = 0;
        while replicas.len() < factor {
            let rack = &mut self.racks[at];
            let next = match exhausted < count {
                true => rack.active.follower(),
                false => rack.others.follower(),
            };
            match next {
                Some(broker) => replicas.push(broker),
                None => exhausted += 1,
            }
            if next.is_some() && exhausted < count {
                exhausted = 0;
            }
            at = (at + 1) % count;
        }
        replicas
    }
}

/// Lays out the partitions of these numbers.
pub(super) fn place(
    image: &MetadataImage,
    topic: Uuid,
    numbers: Range<usize>,
    factor: usize,
) -> Result<Vec<PartitionImage>, ControllerError> {
    let registered = image.brokers().len().max(1);
    let refuse = |why: String| {
        Err(ControllerError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {factor} time(s): {why}"
        )))
    };
    if factor > registered {
        return refuse(format!(
            "The target replication factor of {factor} cannot be reached because only \
             {registered} broker(s) are registered."
        ));
    }
    let mut brokers = image.brokers().values();
    if !image.brokers().is_empty() && !brokers.any(|broker| broker.is_active()) {
        return refuse("All brokers are currently fenced or in controlled shutdown.".to_string());
    }
    let start = crc32c::crc32c(&topic.0) as usize;
    let mut racks = Racks::new(image, start);
    let partitions = (0..numbers.end).map(|number| (number, racks.next(factor)));
    partitions
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, replicas)| new_partition(image, replicas))
        .collect()
}

/// A new partition, without those brokers in sync that are not active now.
pub(super) fn new_partition(
    image: &MetadataImage,
    replicas: Vec<i32>,
) -> Result<PartitionImage, ControllerError> {
    let mut partition = PartitionImage::new(replicas);
    if image.brokers().is_empty() {
        return Ok(partition);
    }
    partition.isr.retain(|node| image.is_active(*node));
    match partition.isr.first() {
        Some(leader) => {
            partition.leader = *leader;
            Ok(partition)
        }
        None => Err(ControllerError::InvalidReplicaAssignment(
            "All brokers specified in the manual partition assignment are fenced or in controlled \
             shutdown."
                .to_string(),
        )),
    }
}

/// Refuses replicas that contradict themselves, the cluster, or the `factor` of others.
pub(super) fn check_assignment(
    image: &MetadataImage,
    replicas: &[i32],
    factor: Option<usize>,
) -> Result<(), ControllerError> {
    let refuse = |why: String| {
        Err(ControllerError::InvalidReplicaAssignment(format!(
            "The manual partition assignment includes {why}"
        )))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".to_string());
    }
    let is_known = |broker: &i32| match image.brokers().is_empty() {
        true => *broker == image.node_id(),
        false => image.brokers().contains_key(broker),
    };
    for (index, broker) in replicas.iter().enumerate() {
        if !is_known(broker) {
            return refuse(format!(
                "broker {broker}, but no such broker is registered."
            ));
        }
        if replicas[..index].contains(broker) {
            return refuse(format!("the broker {broker} more than once."));
        }
    }
    match factor {
        Some(factor) if factor != replicas.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, \
             which have {factor} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}
