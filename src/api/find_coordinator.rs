//! FindCoordinator, versions 0 to 6 (KIP-699: many keys from 4).
//!
//! The first search creates the topic that the coordinators keep. While this broker is the only one,
//! it is every group's and every transactional id's coordinator.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::create_topic;
use super::dispatch::Api;
use crate::shard::coordinators::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
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
    let found = match request.key_type {
        0 => find(&api, OFFSETS_TOPIC).await,
        1 => find(&api, TRANSACTIONS_TOPIC).await,
        // Share groups are not served, and other types are unknown to Kafka too.
        _ => Err(ErrorCode::InvalidRequest),
    };
    let one = |key: Cow<'static, str>| match &found {
        Ok((node_id, host, port)) => Coordinator {
            key,
            node_id: *node_id,
            host: Cow::Owned(host.clone()),
            port: *port,
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
    };
    if call.version >= MANY_KEYS_FROM {
        let keys = request.coordinator_keys.iter();
        return Ok(call.reply(&FindCoordinatorResponse {
            coordinators: keys.map(|key| one(Cow::Owned(key.to_string()))).collect(),
            ..FindCoordinatorResponse::default()
        }));
    }
    let found = one(Cow::Borrowed(""));
    Ok(call.reply(&FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }))
}

async fn find(api: &Api, topic: &'static str) -> Result<(i32, String, i32), ErrorCode> {
    if api.router.image().topic(topic).is_none() {
        create_topic(api, topic).await?;
    }
    let image = api.router.image();
    let broker = image.brokers().get(&image.node_id());
    let broker = broker.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let port = i32::from(broker.port);
    Ok((image.node_id(), broker.host.clone(), port))
}
