//! Partitions move to other brokers: Kafka's rules (`ReplicationControlManager`,
//! `PartitionReassignmentReplicas`).
//!
//! While it moves, a partition's replicas are those it shall have, then those it will lose. It is
//! done when those it gains are in sync and one that it keeps or gains is.

use super::controller::{CommandReply, Decision, Reassignment};
use super::controller_error::ControllerError;
use super::image::{MetadataImage, PartitionImage};
use super::overlay::Overlay;
use super::partition_change::Change;
use super::placement::check_assignment;
use crate::config::broker::BrokerConfig;

/// Starts, changes and cancels reassignments.
pub(super) fn alter(
    image: &MetadataImage,
    config: &BrokerConfig,
    allows_factor_change: bool,
    reassignments: &[Reassignment],
) -> Decision {
    let mut overlay = Overlay::new(image, config);
    let results = reassignments
        .iter()
        .map(|asked| alter_one(&mut overlay, allows_factor_change, asked))
        .collect();
    Decision {
        records: overlay.into_records(),
        reply: CommandReply::ReassignmentsAltered(results),
    }
}

fn alter_one(
    overlay: &mut Overlay<'_>,
    allows_factor_change: bool,
    asked: &Reassignment,
) -> Result<(), ControllerError> {
    let Reassignment {
        topic: name,
        partition: number,
        replicas: target,
    } = asked;
    let topic = overlay.topic(name, || format!("Unable to find a topic named {name}."))?;
    let Some(old) = overlay.partition(topic, *number) else {
        let problem = format!("Unable to find partition {name}:{number}.");
        return Err(ControllerError::UnknownTopic(problem));
    };
    let change = match target {
        None => cancelled(old, name, *number)?,
        Some(target) => {
            check_assignment(overlay.image, target, None)?;
            check_factor(old, target, allows_factor_change)?;
            moved(old, target)
        }
    };
    if let Some(new) = overlay.plan(topic, old, change) {
        overlay.put(topic, *number, new);
    }
    Ok(())
}

fn check_factor(
    old: &PartitionImage,
    target: &[i32],
    allows_factor_change: bool,
) -> Result<(), ControllerError> {
    let before = old.replicas.len() - old.adding_replicas.len();
    if allows_factor_change || before == target.len() {
        return Ok(());
    }
    Err(ControllerError::InvalidReplicationFactor(format!(
        "The replication factor is changed from {before} to {}",
        target.len()
    )))
}

fn without(nodes: &[i32], others: &[i32]) -> Vec<i32> {
    let mut rest = nodes.to_vec();
    rest.retain(|node| !others.contains(node));
    rest
}

fn moved(old: &PartitionImage, target: &[i32]) -> Change {
    // What is being added and may not lead yet is added still, or goes at once.
    let may_lead = [&old.isr[..], &old.elr].concat();
    let behind = without(&old.adding_replicas, &may_lead);
    let held = without(&old.replicas, &behind);
    let adding = without(target, &held);
    let removing = without(&held, target);
    let replicas = [target, &removing].concat();
    Change {
        replicas: Some([replicas, adding, removing]),
        ..Change::default()
    }
}

fn cancelled(old: &PartitionImage, name: &str, number: i32) -> Result<Change, ControllerError> {
    if old.adding_replicas.is_empty() && old.removing_replicas.is_empty() {
        return Err(ControllerError::NoReassignmentInProgress(
            "No partition reassignment is in progress.".to_string(),
        ));
    }
    if without(&old.isr, &old.adding_replicas).is_empty() {
        return Err(ControllerError::InvalidReplicaAssignment(format!(
            "Unable to revert partition assignment for {name}:{number} because it would require \
             an unclean leader election."
        )));
    }
    let replicas = without(&old.replicas, &old.adding_replicas);
    Ok(Change {
        replicas: Some([replicas, Vec::new(), Vec::new()]),
        ..Change::default()
    })
}
