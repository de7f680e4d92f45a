//! One core's numbers about the cluster: of the partitions that it leads, and of the whole cluster
//! where the active controller is.

use super::core_metrics::gauge;
use super::router::Router;
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::config::broker::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::log::position::LogId;
use crate::observe::metrics::Sample;

/// Partitions that are not as they should be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lacks {
    /// Fewer replicas in sync than there are.
    replicas: u64,
    /// Fewer than `min.insync.replicas`, so that acks=all is refused.
    min_isr: u64,
}

pub(super) fn samples(router: &Router, samples: &mut Vec<Sample>) {
    let (image, config) = (router.image(), router.config());
    let lacks = lacks(&image, &config, |log| router.owner(log) == router.core());
    let controller = router.controller.borrow().clone();
    let decides = controller.is_some_and(|controller| controller.is_active());
    let leaderless = match decides {
        true => leaderless(&image),
        false => 0,
    };
    samples.extend([
        gauge(
            "percolog_under_replicated_partitions",
            "Partitions that the core leads with fewer replicas in sync than they have.",
            lacks.replicas,
        ),
        gauge(
            "percolog_under_min_isr_partitions",
            "Of these, the ones with fewer than min.insync.replicas, which refuse acks=all.",
            lacks.min_isr,
        ),
        gauge(
            "percolog_is_controller",
            "1 where the cluster's active controller is.",
            u64::from(decides),
        ),
        gauge(
            "percolog_leaderless_partitions",
            "Partitions of the cluster that nobody leads, as the active controller knows; 0 elsewhere.",
            leaderless,
        ),
    ]);
}

fn lacks(image: &MetadataImage, config: &BrokerConfig, is_here: impl Fn(LogId) -> bool) -> Lacks {
    let own = image.node_id();
    let mut lacks = Lacks::default();
    for topic in image.topics() {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let log = LogId {
                topic: topic.id.0,
                partition: number,
            };
            let lacks_any = partition.isr.len() < partition.replicas.len();
            if lacks_any && partition.leader == own && is_here(log) {
                lacks.replicas += 1;
                lacks.min_isr += u64::from(partition.isr.len() < min_isr(topic, config));
            }
        }
    }
    lacks
}

fn min_isr(topic: &TopicImage, config: &BrokerConfig) -> usize {
    let resolved = TopicConfig::resolve(&topic.configs, config);
    resolved.map_or(1, |resolved| resolved.min_insync_replicas.max(1) as usize)
}

fn leaderless(image: &MetadataImage) -> u64 {
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    partitions.filter(|partition| partition.leader < 0).count() as u64
}
