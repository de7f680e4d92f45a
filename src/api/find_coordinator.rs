//! FindCoordinator, versions 0 to 6 (KIP-699: many keys from 4).
//!
//! The first search creates the topic that the coordinators keep. Whoever leads the partition that a
//! group or a transactional id belongs to is its coordinator.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::create_topic;
use super::dispatch::Api;
use super::endpoint::{Endpoint, endpoints};
use crate::cluster::image::MetadataImage;
use crate::shard::coordinators::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, coordinator_log};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

/// First version with many keys.
const MANY_KEYS_FROM: i16 = 4;

/// Answers a FindCoordinator.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: FindCoordinatorRequest<'_> = call.request()?;
    let most = api.router.config().limits.request_partitions_max;
    check_count(request.coordinator_keys.len(), most)?;
    let topic = match request.key_type {
        0 => ready(&api, OFFSETS_TOPIC).await,
        1 => ready(&api, TRANSACTIONS_TOPIC).await,
        // Share groups are not served, and other types are unknown to Kafka too.
        _ => Err(ErrorCode::InvalidRequest),
    };
    let image = api.router.image();
    let endpoints = endpoints(&image, &api.router.config(), &call.peer);
    let one = |asked: &str, key: Cow<'static, str>| {
        let found = match topic {
            Ok(topic) => leader(&image, topic, asked, &endpoints),
            Err(code) => Err(code),
        };
        match found {
            Ok(endpoint) => Coordinator {
                key,
                node_id: endpoint.node_id,
                host: Cow::Owned(endpoint.host.clone()),
                port: endpoint.port,
                ..Coordinator::default()
            },
            Err(code) => Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code: code.code(),
                error_message: Some(Cow::Owned(code.message().to_string())),
                ..Coordinator::default()
            },
        }
    };
    if call.version >= MANY_KEYS_FROM {
        let keys = request.coordinator_keys.iter();
        return Ok(call.reply(&FindCoordinatorResponse {
            coordinators: keys
                .map(|key| one(key, Cow::Owned(key.to_string())))
                .collect(),
            ..FindCoordinatorResponse::default()
        }));
    }
    let found = one(&request.key, Cow::Borrowed(""));
    Ok(call.reply(&FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }))
}

/// Sees to it that the topic is there.
async fn ready(api: &Api, topic: &'static str) -> Result<&'static str, ErrorCode> {
    if api.router.image().topic(topic).is_none() {
        create_topic(api, topic).await?;
    }
    Ok(topic)
}

/// The broker that leads the partition of a key.
fn leader<'a>(
    image: &MetadataImage,
    topic: &str,
    key: &str,
    endpoints: &'a [Endpoint],
) -> Result<&'a Endpoint, ErrorCode> {
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    let log = coordinator_log(image, topic, key).ok_or(unavailable)?;
    let topic = image.topic(topic).ok_or(unavailable)?;
    let leader = topic.partitions[log.partition as usize].leader;
    let endpoint = endpoints.iter().find(|endpoint| endpoint.node_id == leader);
    endpoint.ok_or(unavailable)
}
