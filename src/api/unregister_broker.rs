//! UnregisterBroker, version 0 (KIP-631): a broker that will not come back is no part of the cluster
//! any more. Its replicas stay assigned until they are reassigned.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply};
use crate::wire::messages::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};

/// Answers an UnregisterBroker.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: UnregisterBrokerRequest = call.request()?;
    let command = Command::UnregisterBroker {
        node_id: request.broker_id,
    };
    let (error_code, message) = match api.router.control(command).await {
        Ok(CommandReply::BrokerUnregistered(Ok(()))) => (0, None),
        Ok(CommandReply::BrokerUnregistered(Err(error))) => {
            (controller_code(&error).code(), Some(error.to_string()))
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            let message = control_message(failure).to_string();
            (control_code(failure).code(), Some(message))
        }
    };
    Ok(call.reply(&UnregisterBrokerResponse {
        error_code,
        error_message: message.map(Cow::Owned),
        ..UnregisterBrokerResponse::default()
    }))
}
