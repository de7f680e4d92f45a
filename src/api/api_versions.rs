//! ApiVersions, versions 0 to 4 (KIP-35, KIP-511, KIP-584).
//!
//! A request of a later version is not parsed: the answer is of version 0, with UNSUPPORTED_VERSION
//! and the versions of this one API. Produce is told from version 0 on although 3 is the first that
//! works: librdkafka switches compression and idempotence off otherwise (KAFKA-18659). A client whose
//! name for itself breaks the rules gets INVALID_REQUEST and nothing else.
//!
//! The features told are those that clients look for and that work (KIP-584): `group.version` 1 for
//! consumer groups of KIP-848, `transaction.version` 2 for KIP-890. `cluster.version` is what the
//! brokers of this cluster agree on; Kafka's other features are for its own brokers.

use std::borrow::Cow;

use super::call::Call;
use super::dispatch;
use crate::cluster::image::{CLUSTER_VERSION_MAX, CLUSTER_VERSION_MIN};
use crate::net::close_reason::CloseReason;
use crate::net::service::Reply;
use crate::runtime::gather::Gather;
use crate::wire::api_table::{ApiKey, ServedApi};
use crate::wire::codec::Writer;
use crate::wire::error_code::ErrorCode;
use crate::wire::frame;
use crate::wire::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

/// What works, and at which level.
pub(super) const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("transaction.version", 2)];

/// What the brokers agree on.
pub(super) const CLUSTER_VERSION: &str = "cluster.version";

/// First version in which clients name themselves.
const SOFTWARE_NAME_FROM: i16 = 3;

/// Answers with what is served.
pub(super) fn handle(call: &Call, cluster_version: u16) -> Reply {
    let Ok(request) = call.request::<ApiVersionsRequest<'_>>() else {
        return Reply::Close(CloseReason::InvalidRequest);
    };
    if call.version >= SOFTWARE_NAME_FROM {
        let (name, version) = (
            &request.client_software_name,
            &request.client_software_version,
        );
        if !is_software_name(name) || !is_software_name(version) {
            return call.reply(&ApiVersionsResponse {
                error_code: ErrorCode::InvalidRequest.code(),
                ..ApiVersionsResponse::default()
            });
        }
        call.peer.update_session(|session| {
            session.software_name = Some(name.as_ref().into());
            session.software_version = Some(version.as_ref().into());
        });
    }
    call.reply(&ApiVersionsResponse {
        api_keys: dispatch::served().map(advertised).collect(),
        supported_features: supported_features(),
        // Grows when a finalized level changes; the others never do.
        finalized_features_epoch: i64::from(cluster_version - CLUSTER_VERSION_MIN),
        finalized_features: finalized_features(cluster_version),
        ..ApiVersionsResponse::default()
    })
}

fn supported_features() -> Vec<SupportedFeatureKey<'static>> {
    let supported = |name, (min_version, max_version)| SupportedFeatureKey {
        name: Cow::Borrowed(name),
        min_version,
        max_version,
    };
    let features = FEATURES
        .iter()
        .map(|(name, most)| supported(*name, (0, *most)));
    let versions = (CLUSTER_VERSION_MIN as i16, CLUSTER_VERSION_MAX as i16);
    features
        .chain([supported(CLUSTER_VERSION, versions)])
        .collect()
}

fn finalized_features(cluster_version: u16) -> Vec<FinalizedFeatureKey<'static>> {
    let finalized = |(name, level)| FinalizedFeatureKey {
        name: Cow::Borrowed(name),
        max_version_level: level,
        min_version_level: level,
    };
    let features = FEATURES.iter().copied();
    let features = features.chain([(CLUSTER_VERSION, cluster_version as i16)]);
    features.map(finalized).collect()
}

/// Answers a request of a version that is not served.
pub(super) fn unsupported(correlation_id: i32) -> Reply {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![advertised(ServedApi::stable(ApiKey::ApiVersions))],
        ..ApiVersionsResponse::default()
    };
    let mut writer = Writer::new();
    frame::encode_response(&mut writer, 0, correlation_id, &response);
    Reply::Send(Gather::owned(writer.into_parts().0))
}

fn advertised(served: ServedApi) -> ApiVersion {
    let min_version = match served.key {
        ApiKey::Produce => 0,
        _ => served.min,
    };
    ApiVersion {
        api_key: served.key.code(),
        min_version,
        max_version: served.max,
    }
}

/// Letters and digits, with dots and hyphens between them (KIP-511).
fn is_software_name(text: &str) -> bool {
    let is_outer = |letter: u8| letter.is_ascii_alphanumeric();
    let is_inner = |letter: &u8| letter.is_ascii_alphanumeric() || b"-.".contains(letter);
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            is_outer(*first) && is_outer(*last) && bytes.iter().all(is_inner)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_kafka_431() {
        let versions: Vec<(i16, i16, i16)> = dispatch::served()
            .map(advertised)
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        assert_eq!(
            versions,
            [
                (0, 0, 13),
                (1, 4, 18),
                (2, 1, 11),
                (3, 0, 13),
                (8, 2, 10),
                (9, 1, 10),
                (10, 0, 6),
                (11, 0, 9),
                (12, 0, 4),
                (13, 0, 5),
                (14, 0, 5),
                (15, 0, 6),
                (16, 0, 5),
                (18, 0, 4),
                (19, 2, 7),
                (20, 1, 6),
                (21, 0, 2),
                (22, 0, 5),
                (23, 2, 4),
                (24, 0, 5),
                (25, 0, 4),
                (26, 0, 5),
                (27, 1, 2),
                (28, 0, 5),
                (32, 1, 4),
                (33, 0, 2),
                (35, 1, 5),
                (37, 0, 3),
                (42, 0, 2),
                (43, 0, 2),
                (44, 0, 1),
                (45, 0, 1),
                (46, 0, 0),
                (47, 0, 0),
                (55, 0, 2),
                (57, 0, 2),
                (60, 0, 2),
                (61, 0, 0),
                (64, 0, 0),
                (65, 0, 0),
                (66, 0, 2),
                (68, 0, 1),
                (69, 0, 1),
                (74, 0, 1),
                (75, 0, 0),
                (80, 0, 1),
                (81, 0, 0),
            ]
        );
    }

    #[test]
    fn a_version_from_the_future_is_answered_as_kafka_answers_it() {
        let Reply::Send(gather) = unsupported(7) else {
            panic!("another reply");
        };
        let expected = [
            0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4,
        ];
        assert_eq!(gather.to_vec(), expected);
    }

    #[test]
    fn clients_name_themselves_by_kafkas_rule() {
        for good in ["a", "apache-kafka-java", "4.3.1", "a.b-c"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", ".", "a_b", "\u{e9}"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
