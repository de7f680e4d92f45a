//! Leaders on request, balanced leaders, and elections that a setting allows: Kafka's rules
//! (`ReplicationControlManager`).

use std::collections::BTreeMap;

use super::controller::{CommandReply, Decision, ElectionKind, ElectionResult};
use super::controller_error::ControllerError;
use super::image::{MetadataImage, PartitionImage, TopicImage};
use super::overlay::Overlay;
use super::partition_change::{Change, Election};
use super::record::MetadataRecord;
use crate::config::broker::BrokerConfig;

/// Elections of one balancing: the next one takes more.
const BALANCED_MAX: usize = 1000;

/// Settings that elections depend on.
const ELECTION_SETTINGS: [&str; 2] = ["min.insync.replicas", "unclean.leader.election.enable"];

/// Elects leaders of the named partitions, or of all that need one.
pub(super) fn elect(
    image: &MetadataImage,
    config: &BrokerConfig,
    kind: ElectionKind,
    partitions: Option<&[(String, i32)]>,
) -> Decision {
    let mut overlay = Overlay::new(image, config);
    let results: Vec<ElectionResult> = match partitions {
        Some(named) => {
            let named = named.iter().map(|(topic, number)| {
                let result = elect_named(&mut overlay, kind, topic, *number);
                ((topic.clone(), *number), result)
            });
            named.collect()
        }
        None => {
            let is_needed = |result: &ElectionResult| {
                !matches!(result.1, Err(ControllerError::ElectionNotNeeded(_)))
            };
            let all = all_partitions(image).into_iter().map(|(topic, number)| {
                let result = elect_named(&mut overlay, kind, &topic, number);
                ((topic, number), result)
            });
            all.filter(is_needed).collect()
        }
    };
    Decision {
        records: overlay.into_records(),
        reply: CommandReply::LeadersElected(results),
    }
}

fn all_partitions(image: &MetadataImage) -> Vec<(String, i32)> {
    let of_topic = |topic: &TopicImage| {
        let name = topic.name.to_string();
        (0..topic.partitions.len()).map(move |number| (name.clone(), number as i32))
    };
    image.topics().flat_map(|topic| of_topic(topic)).collect()
}

fn elect_named(
    overlay: &mut Overlay<'_>,
    kind: ElectionKind,
    name: &str,
    number: i32,
) -> Result<(), ControllerError> {
    let topic = overlay.topic(name, || format!("No such topic as {name}"))?;
    let Some(old) = overlay.partition(topic, number) else {
        return Err(ControllerError::UnknownTopic(format!(
            "No such partition as {name}-{number}"
        )));
    };
    let is_done = match kind {
        ElectionKind::Preferred => old.leader == old.replicas[0],
        ElectionKind::Unclean => old.leader >= 0,
    };
    if is_done {
        return Err(ControllerError::ElectionNotNeeded(
            "Leader election not needed for topic partition.".to_string(),
        ));
    }
    let election = match kind {
        ElectionKind::Preferred => Election::Preferred,
        ElectionKind::Unclean => Election::Unclean,
    };
    let change = Change {
        election,
        ..Change::default()
    };
    let is_elected = |new: &PartitionImage| match kind {
        ElectionKind::Preferred => new.leader == new.replicas[0],
        ElectionKind::Unclean => new.leader >= 0,
    };
    if let Some(new) = overlay.plan(topic, old, change).filter(is_elected) {
        overlay.put(topic, number, new);
        return Ok(());
    }
    Err(match kind {
        ElectionKind::Preferred => ControllerError::PreferredLeaderNotAvailable(
            "The preferred leader was not available.".to_string(),
        ),
        ElectionKind::Unclean => ControllerError::EligibleLeadersNotAvailable(
            "Eligible topic partition leaders are not available.".to_string(),
        ),
    })
}

/// Gives partitions back to their preferred leaders, of those brokers for which more than
/// `imbalance_percent_max` of the partitions they should lead are led by others.
#[must_use]
pub fn rebalance(
    image: &MetadataImage,
    config: &BrokerConfig,
    imbalance_percent_max: u32,
) -> Vec<MetadataRecord> {
    // Of each broker: partitions that prefer it, and those of them that another leads.
    let mut preferred = BTreeMap::<i32, (usize, usize)>::new();
    let partitions = || image.topics().flat_map(|topic| &topic.partitions);
    for partition in partitions() {
        let (all, led_by_others) = preferred.entry(partition.replicas[0]).or_default();
        *all += 1;
        *led_by_others += usize::from(partition.leader != partition.replicas[0]);
    }
    let is_imbalanced = |node: i32| {
        let (all, led_by_others) = preferred[&node];
        led_by_others * 100 > all * imbalance_percent_max as usize
    };
    let mut overlay = Overlay::new(image, config);
    let mut elected = 0;
    for (name, number) in all_partitions(image) {
        let topic = image.topic(&name).expect("listed from this image");
        let partition = &topic.partitions[number as usize];
        let node = partition.replicas[0];
        if elected == BALANCED_MAX {
            break;
        }
        if partition.leader != node && image.is_active(node) && is_imbalanced(node) {
            let result = elect_named(&mut overlay, ElectionKind::Preferred, &name, number);
            elected += usize::from(result.is_ok());
        }
    }
    overlay.into_records()
}

/// What follows from settings that `decision` changes: a leader where an unclean election is allowed
/// from now on; nobody eligible any more where the ISR alone is enough from now on.
pub(super) fn with_elections(
    image: &MetadataImage,
    config: &BrokerConfig,
    mut decision: Decision,
) -> Decision {
    let matters = |record: &MetadataRecord| match record {
        MetadataRecord::ConfigChanged { name, .. } => ELECTION_SETTINGS.contains(&name.as_str()),
        _ => false,
    };
    if !decision.records.iter().any(matters) {
        return decision;
    }
    let mut after = image.clone();
    decision
        .records
        .iter()
        .for_each(|record| after.apply(record));
    let none = BTreeMap::new();
    let own = after.broker_configs(after.node_id()).unwrap_or(&none);
    let config = config
        .with_dynamic(after.default_configs(), own)
        .unwrap_or_else(|_| config.clone());
    let mut overlay = Overlay::new(&after, &config);
    overlay.change(
        |partition| partition.leader < 0 || !partition.elr.is_empty(),
        |_| Change::default(),
    );
    decision.records.extend(overlay.into_records());
    decision
}
