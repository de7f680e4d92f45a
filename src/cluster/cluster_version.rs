//! What all brokers agree to speak and store. It only rises, and never above what every registered
//! broker supports: Kafka's `metadata.version` (`FeatureControlManager`).

use super::controller::{CommandReply, Decision};
use super::controller_error::ControllerError;
use super::image::{CLUSTER_VERSION_MAX, MetadataImage};
use super::record::MetadataRecord;

/// Raises the cluster version.
pub(super) fn raise(image: &MetadataImage, version: u16, validate_only: bool) -> Decision {
    let result = check(image, version);
    let records = match result {
        Ok(()) if version != image.cluster_version() => {
            vec![MetadataRecord::ClusterVersionChanged { version }]
        }
        _ => Vec::new(),
    };
    let reply = CommandReply::ClusterVersionRaised(result);
    Decision::unless(validate_only, records, reply)
}

fn check(image: &MetadataImage, version: u16) -> Result<(), ControllerError> {
    let refuse = |why: String| {
        Err(ControllerError::InvalidUpdateVersion(format!(
            "Invalid update version {version} for feature metadata.version. {why}"
        )))
    };
    if version < image.cluster_version() {
        return refuse(format!(
            "The cluster is at {} and cannot go back.",
            image.cluster_version()
        ));
    }
    if version > CLUSTER_VERSION_MAX {
        return refuse(format!(
            "Local controller {} only supports versions up to {CLUSTER_VERSION_MAX}",
            image.node_id()
        ));
    }
    let behind = |broker: &&i32| image.brokers()[*broker].cluster_version_max < version;
    match image.brokers().keys().find(behind) {
        Some(node_id) => refuse(format!(
            "Broker {node_id} only supports versions up to {}",
            image.brokers()[node_id].cluster_version_max
        )),
        None => Ok(()),
    }
}
