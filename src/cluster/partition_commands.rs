//! Leaders report who is in sync: Kafka's AlterPartition (`ReplicationControlManager`).

use super::broker_commands::find_broker;
use super::controller::{CommandReply, Decision, IsrChange};
use super::controller_error::ControllerError;
use super::image::{MetadataImage, PartitionImage};
use super::overlay::Overlay;
use super::partition_change::Change;
use crate::config::broker::BrokerConfig;

/// Decides changes of ISRs that the broker `node_id` reports as leader.
pub(super) fn alter(
    image: &MetadataImage,
    config: &BrokerConfig,
    (node_id, broker_epoch): (i32, i64),
    changes: &[IsrChange],
) -> Decision {
    if let Err(error) = find_broker(image, node_id, broker_epoch) {
        return Decision {
            records: Vec::new(),
            reply: CommandReply::PartitionsAltered(Err(error)),
        };
    }
    let mut overlay = Overlay::new(image, config);
    let results = changes
        .iter()
        .map(|change| alter_one(&mut overlay, node_id, change))
        .collect();
    Decision {
        records: overlay.into_records(),
        reply: CommandReply::PartitionsAltered(Ok(results)),
    }
}

fn alter_one(
    overlay: &mut Overlay<'_>,
    node_id: i32,
    change: &IsrChange,
) -> Result<PartitionImage, ControllerError> {
    let topic = overlay.image.topic_by_id(change.topic).ok_or_else(|| {
        ControllerError::UnknownTopicId("This server does not host this topic ID.".to_string())
    })?;
    let old = overlay.partition(topic, change.partition);
    let old = old.ok_or_else(|| {
        ControllerError::UnknownTopic("This server does not host this topic-partition.".to_string())
    })?;
    check(overlay.image, node_id, change, old)?;
    let isr: Vec<i32> = change.isr.iter().map(|(node, _)| *node).collect();
    let asked = Change {
        isr: Some(isr),
        ..Change::default()
    };
    let Some(new) = overlay.plan(topic, old, asked) else {
        return Ok(old.clone());
    };
    let leader = new.leader;
    overlay.put(topic, change.partition, new.clone());
    if leader == node_id {
        return Ok(new);
    }
    Err(ControllerError::NewLeaderElected(format!(
        "The reassignment is complete; broker {leader} leads now."
    )))
}

fn check(
    image: &MetadataImage,
    node_id: i32,
    change: &IsrChange,
    old: &PartitionImage,
) -> Result<(), ControllerError> {
    let invalid = |what: String| Err(ControllerError::InvalidRequest(what));
    let epochs = (change.leader_epoch, change.partition_epoch);
    if epochs.0 > old.leader_epoch || epochs.1 > old.partition_epoch {
        return Err(ControllerError::StaleController(format!(
            "The controller knows leader epoch {} and partition epoch {}, which are older than {} and {}.",
            old.leader_epoch, old.partition_epoch, epochs.0, epochs.1
        )));
    }
    if epochs.0 < old.leader_epoch {
        return Err(ControllerError::FencedLeaderEpoch(format!(
            "The leader epoch is {}, not {}.",
            old.leader_epoch, epochs.0
        )));
    }
    if old.leader != node_id {
        return invalid(format!("Broker {node_id} is not the leader."));
    }
    if epochs.1 < old.partition_epoch {
        return Err(ControllerError::InvalidUpdateVersion(format!(
            "The partition epoch is {}, not {}.",
            old.partition_epoch, epochs.1
        )));
    }
    for (index, (member, _)) in change.isr.iter().enumerate() {
        let is_twice = change.isr[..index].iter().any(|(other, _)| other == member);
        if is_twice || !old.replicas.contains(member) {
            return invalid(format!(
                "The ISR names broker {member}, which is named twice or holds no replica."
            ));
        }
    }
    if !change.isr.iter().any(|(member, _)| *member == node_id) {
        return invalid("The ISR is without its leader.".to_string());
    }
    let is_ineligible = |(member, epoch): &&(i32, i64)| {
        let broker = image.brokers().get(member);
        !broker.is_some_and(|broker| broker.is_active() && broker.epoch == *epoch)
    };
    match change.isr.iter().find(is_ineligible) {
        Some((member, epoch)) => Err(ControllerError::IneligibleReplica(format!(
            "Broker {member} with epoch {epoch} is fenced, stopping, or has another registration."
        ))),
        None => Ok(()),
    }
}
