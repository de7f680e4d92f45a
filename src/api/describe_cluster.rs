//! DescribeCluster, versions 0 to 2 (KIP-700, KIP-919 endpoint types from 1, KIP-1073 fenced brokers
//! in 2).
//!
//! Clients' listeners are endpoints of brokers (type 1): a question for controllers (2) is
//! MISMATCHED_ENDPOINT_TYPE, any other UNSUPPORTED_ENDPOINT_TYPE. Fenced brokers are told to those who
//! ask for them.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled};
use super::dispatch::Api;
use super::endpoint::{all_endpoints, endpoints};
use super::metadata::CLUSTER_OPERATIONS;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers a DescribeCluster.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeClusterRequest = call.request()?;
    if let Some((code, message)) = refusal(request.endpoint_type) {
        return Ok(call.reply(&DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(Cow::Owned(message)),
            ..DescribeClusterResponse::default()
        }));
    }
    let image = api.router.image();
    let config = api.router.config();
    let endpoints = match request.include_fenced_brokers {
        true => all_endpoints(&image, &config, &call.peer),
        false => endpoints(&image, &config, &call.peer),
    };
    let brokers = endpoints.iter().map(|endpoint| DescribeClusterBroker {
        broker_id: endpoint.node_id,
        host: Cow::Borrowed(&endpoint.host),
        port: endpoint.port,
        rack: endpoint.rack.as_deref().map(Cow::Borrowed),
        is_fenced: endpoint.is_fenced,
    });
    let mut response = DescribeClusterResponse {
        cluster_id: Cow::Borrowed(image.cluster_id()),
        controller_id: image.node_id(),
        brokers: brokers.collect(),
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(call.reply(&response))
}

fn refusal(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
             CONTROLLER"
                .to_string(),
        )),
        other => Some((
            ErrorCode::UnsupportedEndpointType,
            format!("Unsupported endpoint type {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brokers_are_here() {
        assert_eq!(refusal(1), None);
        assert_eq!(refusal(2).map(|(code, _)| code.code()), Some(114));
        assert_eq!(refusal(3).map(|(code, _)| code.code()), Some(115));
    }
}
