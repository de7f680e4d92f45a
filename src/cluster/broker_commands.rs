//! Brokers come, are alive, fall silent, stop and go: Kafka's rules (`ClusterControlManager`,
//! `ReplicationControlManager`).
//!
//! Time is not known here: the caller fences a broker whose heartbeats did not come.

use super::controller::{BrokerRegistration, BrokerState, CommandReply, Decision};
use super::controller_error::ControllerError;
use super::image::{BrokerImage, MetadataImage, PartitionImage};
use super::overlay::Overlay;
use super::partition_change::{Change, Loss};
use super::record::{MetadataRecord, TEXT_BYTES_MAX};
use crate::config::broker::BrokerConfig;

/// Registers a broker, or the next run of one.
pub(super) fn register(
    image: &MetadataImage,
    config: &BrokerConfig,
    registration: &BrokerRegistration,
) -> Decision {
    let (records, result) = match registered(image, config, registration) {
        Ok((records, epoch)) => (records, Ok(epoch)),
        Err(error) => (Vec::new(), Err(error)),
    };
    let reply = CommandReply::BrokerRegistered(result);
    Decision { records, reply }
}

fn registered(
    image: &MetadataImage,
    config: &BrokerConfig,
    registration: &BrokerRegistration,
) -> Result<(Vec<MetadataRecord>, i64), ControllerError> {
    check(image, registration)?;
    let node_id = registration.node_id;
    let before = image.brokers().get(&node_id);
    // The same run again, with other addresses perhaps: nothing that it holds is in doubt.
    if let Some(same) = before.filter(|broker| broker.incarnation == registration.incarnation) {
        let broker = BrokerImage {
            is_fenced: same.is_fenced,
            in_controlled_shutdown: same.in_controlled_shutdown,
            ..new_broker(registration, same.epoch)
        };
        let epoch = same.epoch;
        let is_known = broker == *same;
        let record = MetadataRecord::BrokerRegistered { node_id, broker };
        return Ok((if is_known { vec![] } else { vec![record] }, epoch));
    }
    let epoch = image.last_broker_epoch() + 1;
    let directory = before.map(|broker| broker.directory_id);
    let directory = directory.or_else(|| image.departed().get(&node_id).copied());
    let is_same_disk = directory == Some(registration.directory_id);
    let is_clean = before.is_some_and(|broker| broker.epoch == registration.previous_epoch);
    let broker = new_broker(registration, epoch);
    let record = MetadataRecord::BrokerRegistered { node_id, broker };
    let after = applied(image, &record);
    let mut overlay = Overlay::new(&after, config);
    overlay.change(
        |partition| holds(partition, node_id),
        |terms| Change {
            loss: match (is_same_disk, is_clean || terms.is_flushed_first) {
                (false, _) => Loss::Log(node_id),
                (true, false) => Loss::Tail(node_id),
                (true, true) => Loss::None,
            },
            ..Change::default()
        },
    );
    Ok((behind(record, overlay), epoch))
}

fn applied(image: &MetadataImage, record: &MetadataRecord) -> MetadataImage {
    let mut after = image.clone();
    after.apply(record);
    after
}

/// A record about a broker, and what follows from it for partitions.
fn behind(record: MetadataRecord, overlay: Overlay<'_>) -> Vec<MetadataRecord> {
    let mut records = vec![record];
    records.extend(overlay.into_records());
    records
}

fn new_broker(registration: &BrokerRegistration, epoch: i64) -> BrokerImage {
    BrokerImage {
        host: registration.host.clone(),
        port: registration.port,
        inter_broker: registration.inter_broker.clone(),
        rack: registration.rack.clone(),
        epoch,
        incarnation: registration.incarnation,
        directory_id: registration.directory_id,
        cores: registration.cores,
        cluster_version_max: registration.cluster_version_max,
        is_fenced: true,
        in_controlled_shutdown: false,
    }
}

fn check(image: &MetadataImage, registration: &BrokerRegistration) -> Result<(), ControllerError> {
    let texts = [
        Some(&registration.host),
        registration.inter_broker.as_ref().map(|(host, _)| host),
        registration.rack.as_ref(),
    ];
    let is_long = |text: &&String| text.len() > TEXT_BYTES_MAX;
    if registration.node_id < 0 || texts.iter().flatten().any(is_long) {
        return Err(ControllerError::InvalidRequest(format!(
            "A registration needs a node id of at least 0, and texts of at most {TEXT_BYTES_MAX} bytes"
        )));
    }
    if registration.cluster_version_max < image.cluster_version() {
        return Err(ControllerError::UnsupportedVersion(format!(
            "The cluster is at version {}, broker {} supports {} at most",
            image.cluster_version(),
            registration.node_id,
            registration.cluster_version_max
        )));
    }
    // Who stopped in order knows the epoch of its last run, so that run has ended.
    let is_other = |broker: &&BrokerImage| {
        broker.incarnation != registration.incarnation
            && broker.epoch != registration.previous_epoch
            && broker.is_active()
    };
    match image.brokers().get(&registration.node_id).filter(is_other) {
        Some(_) => Err(ControllerError::DuplicateBroker(
            "Another broker is registered with that broker id. If the broker was recently \
             restarted this should self-resolve once the heartbeat manager expires the broker's \
             session."
                .to_string(),
        )),
        None => Ok(()),
    }
}

fn holds(partition: &PartitionImage, node_id: i32) -> bool {
    partition.leader == node_id
        || partition.isr.contains(&node_id)
        || partition.elr.contains(&node_id)
}

/// What a broker is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Not fenced any more.
    Alive,
    /// Fenced.
    Fenced,
    /// About to stop.
    Stopping,
}

/// Changes the state of a broker, and of what it holds.
pub(super) fn change(
    image: &MetadataImage,
    config: &BrokerConfig,
    (node_id, epoch): (i32, i64),
    transition: Transition,
) -> Decision {
    let found = match find_broker(image, node_id, epoch) {
        Ok(broker) => broker,
        Err(error) => {
            return Decision {
                records: Vec::new(),
                reply: CommandReply::BrokerChanged(Err(error)),
            };
        }
    };
    let (is_fenced, in_controlled_shutdown) = match transition {
        // A broker that stops does not come to life again: it registers anew.
        Transition::Alive => (false, found.in_controlled_shutdown),
        Transition::Fenced => (true, found.in_controlled_shutdown),
        Transition::Stopping => (found.is_fenced, true),
    };
    let mut state = BrokerState {
        is_fenced,
        in_controlled_shutdown,
        leads_any: leads_any(image, node_id),
    };
    let mut records = Vec::new();
    if (found.is_fenced, found.in_controlled_shutdown) != (is_fenced, in_controlled_shutdown) {
        let record = MetadataRecord::BrokerChanged {
            node_id,
            is_fenced,
            in_controlled_shutdown,
        };
        let after = applied(image, &record);
        let mut overlay = Overlay::new(&after, config);
        overlay.change(
            |partition| match transition {
                Transition::Alive => partition.leader < 0 && partition.replicas.contains(&node_id),
                _ => holds(partition, node_id),
            },
            |_| Change::default(),
        );
        records = behind(record, overlay);
        let mut after = image.clone();
        records.iter().for_each(|record| after.apply(record));
        state.leads_any = leads_any(&after, node_id);
    }
    Decision {
        records,
        reply: CommandReply::BrokerChanged(Ok(state)),
    }
}

/// Takes a broker out of the cluster. Its replicas stay assigned, in case it registers again.
pub(super) fn unregister(image: &MetadataImage, config: &BrokerConfig, node_id: i32) -> Decision {
    let Some(broker) = image.brokers().get(&node_id) else {
        return Decision {
            records: Vec::new(),
            reply: CommandReply::BrokerUnregistered(Err(unregistered(node_id))),
        };
    };
    let record = MetadataRecord::BrokerUnregistered {
        node_id,
        directory_id: broker.directory_id,
    };
    let after = applied(image, &record);
    let mut overlay = Overlay::new(&after, config);
    overlay.change(|partition| holds(partition, node_id), |_| Change::default());
    Decision {
        records: behind(record, overlay),
        reply: CommandReply::BrokerUnregistered(Ok(())),
    }
}

fn leads_any(image: &MetadataImage, node_id: i32) -> bool {
    let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| partition.leader == node_id)
}

/// A broker by its registration.
pub(super) fn find_broker(
    image: &MetadataImage,
    node_id: i32,
    epoch: i64,
) -> Result<&BrokerImage, ControllerError> {
    let Some(broker) = image.brokers().get(&node_id) else {
        return Err(unregistered(node_id));
    };
    if broker.epoch != epoch {
        return Err(ControllerError::StaleBrokerEpoch(format!(
            "Expected broker epoch {epoch}, but found broker epoch {}",
            broker.epoch
        )));
    }
    Ok(broker)
}

fn unregistered(node_id: i32) -> ControllerError {
    ControllerError::BrokerIdNotRegistered(format!(
        "Broker ID {node_id} is not currently registered"
    ))
}
