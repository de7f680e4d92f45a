//! How one partition gets from what it is to what it becomes: who leads, who is in sync, who may
//! lead later. Kafka's rules (`PartitionChangeBuilder`, KIP-966) with one difference.
//!
//! In Kafka a broker that was killed may have lost records that it acknowledged, because they were
//! in its page cache only; it loses its place among the replicas that may lead. Here nothing is
//! acknowledged, and no follower reports an offset, before it is flushed. So a broker that was
//! killed and comes back with the same disk still has all that was acknowledged while it was in the
//! ISR or the ELR, and may lead again. It has not when its directory is another one, or when
//! `flush.messages` let records be acknowledged before their flush: [`Loss`].
//!
//! The last member of an ISR stays in it when it is fenced: it is the one that must come back.
//! Whoever leaves the ISR while that is smaller than `min.insync.replicas` goes into the ELR: from
//! then on nothing is acknowledged to `acks=all` and the high watermark stands still, so it does not
//! fall behind what was promised.

use super::image::{MetadataImage, PartitionImage};
use crate::config::broker::BrokerConfig;
use crate::config::topic::TopicConfig;

/// What elections depend on besides the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElectionTerms {
    /// `min.insync.replicas`.
    pub(super) min_insync: usize,
    /// Whether anybody may lead when nobody has everything.
    pub(super) is_unclean_allowed: bool,
    /// Whether everything is flushed before it is acknowledged.
    pub(super) is_flushed_first: bool,
}

impl ElectionTerms {
    /// Those of a topic. Settings that do not resolve were accepted by another version of the
    /// broker; then the broker's own count.
    pub(super) fn of(
        configs: &std::collections::BTreeMap<String, String>,
        config: &BrokerConfig,
    ) -> ElectionTerms {
        let none = std::collections::BTreeMap::new();
        let topic = TopicConfig::resolve(configs, config)
            .or_else(|_| TopicConfig::resolve(&none, config))
            .expect("the broker's own defaults were checked at start");
        ElectionTerms {
            min_insync: topic.min_insync_replicas.unsigned_abs() as usize,
            is_unclean_allowed: topic.unclean_leader_election_enable,
            is_flushed_first: topic.flush_messages == 1,
        }
    }
}

/// What a replica does not have any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing that it acknowledged.
    #[default]
    None,
    /// What this node acknowledged before it was flushed.
    Tail(i32),
    /// All that this node had.
    Log(i32),
}

/// Who is to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Election {
    /// Whoever leads, or else anybody who has everything.
    #[default]
    Keep,
    /// The first replica, if it is in sync; else as `Keep`.
    Preferred,
    /// As `Keep`, but rather somebody who lacks records than nobody.
    Unclean,
}

/// What is asked of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// What a replica lost.
    pub(super) loss: Loss,
    /// Who is in sync, in the leader's words.
    pub(super) isr: Option<Vec<i32>>,
    /// The replicas, those that are being added, and those that are being removed.
    pub(super) replicas: Option<[Vec<i32>; 3]>,
    /// Who is to lead.
    pub(super) election: Election,
}

/// The partition after the change, or `None` when it stays as it is.
pub(super) fn changed(
    old: &PartitionImage,
    terms: ElectionTerms,
    image: &MetadataImage,
    change: Change,
) -> Option<PartitionImage> {
    let election = change.election;
    let mut new = old.clone();
    let removed = lay_out(&mut new, change);
    let is_clean = elect(&mut new, terms, image, election);
    if new.leader >= 0 {
        new.isr.retain(|node| image.is_active(*node));
    }
    settle_eligible(old, &mut new, terms, &removed, is_clean);
    if new == *old {
        return None;
    }
    let leaves = |node: &i32| !new.replicas.contains(node);
    if new.leader != old.leader || old.replicas.iter().any(leaves) {
        new.leader_epoch += 1;
    }
    new.partition_epoch += 1;
    Some(new)
}

/// Replicas and ISR as they are asked for; whoever may not be eligible for what it lost.
fn lay_out(new: &mut PartitionImage, change: Change) -> Vec<i32> {
    let mut removed = Vec::new();
    if let Some([replicas, adding, removing]) = change.replicas {
        new.replicas = replicas;
        new.adding_replicas = adding;
        new.removing_replicas = removing;
    }
    if let Some(isr) = change.isr {
        new.isr = isr;
        new.recovering = false;
    }
    let replicas = &new.replicas;
    new.isr.retain(|node| replicas.contains(node));
    complete_reassignment(new);
    match change.loss {
        Loss::None => {}
        Loss::Log(node) => {
            if new.isr.contains(&node) || new.elr.contains(&node) {
                removed.push(node);
            }
            new.isr.retain(|member| *member != node);
            new.elr.retain(|member| *member != node);
        }
        Loss::Tail(node) => {
            removed.push(node);
            new.elr.retain(|member| *member != node);
            if new.isr.len() > 1 {
                new.isr.retain(|member| *member != node);
            }
        }
    }
    removed
}

/// Ends a reassignment when all that are added are in sync.
fn complete_reassignment(new: &mut PartitionImage) {
    let is_removed = |node: &i32| new.removing_replicas.contains(node);
    let stays: Vec<i32> = new
        .isr
        .iter()
        .copied()
        .filter(|node| !is_removed(node))
        .collect();
    let is_ready = new.adding_replicas.iter().all(|node| stays.contains(node));
    let is_over = new.adding_replicas.is_empty() && new.removing_replicas.is_empty();
    if is_over || !is_ready || stays.is_empty() {
        return;
    }
    let replicas = new.replicas.iter().copied();
    new.replicas = replicas.filter(|node| !is_removed(node)).collect();
    new.isr = stays;
    new.adding_replicas.clear();
    new.removing_replicas.clear();
}

/// Chooses the leader; whether it has everything that was acknowledged.
fn elect(
    new: &mut PartitionImage,
    terms: ElectionTerms,
    image: &MetadataImage,
    election: Election,
) -> bool {
    let may = |node: &i32, among: &[i32]| among.contains(node) && image.is_active(*node);
    let preferred = new.replicas.first().filter(|node| may(node, &new.isr));
    if let (Election::Preferred, Some(preferred)) = (election, preferred) {
        new.leader = *preferred;
        return true;
    }
    if may(&new.leader, &new.isr) {
        return true;
    }
    let first = |among: &[i32]| new.replicas.iter().copied().find(|node| may(node, among));
    if let Some(leader) = first(&new.isr) {
        new.leader = leader;
        return true;
    }
    if let Some(leader) = first(&new.elr) {
        new.leader = leader;
        new.isr = vec![leader];
        return true;
    }
    new.leader = -1;
    if election != Election::Unclean && !terms.is_unclean_allowed {
        return true;
    }
    // Whoever was last in sync and lost its disk has least of all.
    let others = |node: &&i32| image.is_active(**node);
    let mut candidates: Vec<i32> = new.replicas.iter().filter(others).copied().collect();
    candidates.sort_by_key(|node| new.last_known_elr.contains(node));
    let Some(leader) = candidates.first() else {
        return true;
    };
    new.leader = *leader;
    new.isr = vec![*leader];
    new.recovering = true;
    false
}

/// Who may lead besides the ISR.
fn settle_eligible(
    old: &PartitionImage,
    new: &mut PartitionImage,
    terms: ElectionTerms,
    removed: &[i32],
    is_clean: bool,
) {
    let min_insync = terms.min_insync.min(new.replicas.len());
    let mut elr = Vec::new();
    if is_clean && new.isr.len() < min_insync {
        for node in old.elr.iter().chain(&old.isr) {
            let is_eligible = new.replicas.contains(node)
                && !new.isr.contains(node)
                && !removed.contains(node)
                && !elr.contains(node);
            if is_eligible {
                elr.push(*node);
            }
        }
    }
    new.elr = elr;
    if !new.isr.is_empty() || !new.elr.is_empty() {
        new.last_known_elr.clear();
        return;
    }
    for node in removed {
        if !new.last_known_elr.contains(node) {
            new.last_known_elr.push(*node);
        }
    }
}
