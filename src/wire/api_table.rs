//! The APIs of Kafka: keys, versions, listeners, from the same tables as the messages.
//!
//! What is listed here can be decoded; what a broker serves it decides by registration.

use std::fmt;
use std::ops::RangeInclusive;

include!(concat!(env!("OUT_DIR"), "/api_table.rs"));

/// Where an API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// On the listeners of brokers.
    pub broker: bool,
    /// On the listeners of controllers.
    pub controller: bool,
}

/// What the tables say about one API.
#[derive(Debug)]
struct ApiProperties {
    key: ApiKey,
    name: &'static str,
    versions: RangeInclusive<i16>,
    latest_unstable: bool,
    flexible_from: i16,
    listeners: Listeners,
}

impl ApiKey {
    /// All keys, ascending.
    pub fn all() -> impl Iterator<Item = ApiKey> {
        APIS.iter().flatten().map(|api| api.key)
    }

    /// The API of a key on the wire.
    #[must_use]
    pub fn from_code(code: i16) -> Option<ApiKey> {
        let api = APIS.get(usize::try_from(code).ok()?)?;
        api.as_ref().map(|api| api.key)
    }

    /// The key on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    fn properties(self) -> &'static ApiProperties {
        let api = APIS[self as usize].as_ref();
        api.expect("the enum is made from the same table")
    }

    /// Kafka's name, without `Request`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.properties().name
    }

    /// Versions that can be decoded and encoded.
    #[must_use]
    pub fn versions(self) -> RangeInclusive<i16> {
        self.properties().versions.clone()
    }

    /// [`ApiKey::versions`] without one that Kafka still changes: those may be advertised.
    #[must_use]
    pub fn stable_versions(self) -> RangeInclusive<i16> {
        let ApiProperties {
            versions,
            latest_unstable,
            ..
        } = self.properties();
        *versions.start()..=*versions.end() - i16::from(*latest_unstable)
    }

    /// First version with compact lengths and tagged fields.
    #[must_use]
    pub fn flexible_from(self) -> i16 {
        self.properties().flexible_from
    }

    /// Whether `version` has compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_from()
    }

    /// Where Kafka serves it.
    #[must_use]
    pub fn listeners(self) -> Listeners {
        self.properties().listeners
    }

    /// Version of the header before a request of `version`.
    #[must_use]
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header before a response of `version`. A client that asks for ApiVersions
    /// does not know yet what the broker can do, so that header never changes.
    #[must_use]
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != ApiKey::ApiVersions && self.is_flexible(version))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An API with the versions that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedApi {
    /// Which one.
    pub key: ApiKey,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
}

impl ServedApi {
    /// All stable versions of `key`.
    #[must_use]
    pub fn stable(key: ApiKey) -> ServedApi {
        let versions = key.stable_versions();
        ServedApi {
            key,
            min: *versions.start(),
            max: *versions.end(),
        }
    }

    /// Whether `version` is served.
    #[must_use]
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_survive_the_wire() {
        let codes: Vec<i16> = ApiKey::all().map(ApiKey::code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b));
        for key in ApiKey::all() {
            assert_eq!(ApiKey::from_code(key.code()), Some(key));
        }
        for removed in 4..=7 {
            assert_eq!(ApiKey::from_code(removed), None);
        }
        for unknown in [i16::MIN, -1, 93, i16::MAX] {
            assert_eq!(ApiKey::from_code(unknown), None);
        }
    }

    #[test]
    fn properties_are_those_of_the_tables() {
        assert_eq!(ApiKey::Produce.versions(), 3..=13);
        assert_eq!(ApiKey::Produce.flexible_from(), 9);
        assert_eq!(ApiKey::InitProducerId.versions(), 0..=6);
        assert_eq!(ApiKey::InitProducerId.stable_versions(), 0..=5);
        assert!(!ApiKey::SaslHandshake.is_flexible(1));
        assert_eq!(
            ApiKey::Vote.listeners(),
            Listeners {
                broker: false,
                controller: true
            }
        );
        assert_eq!(
            ApiKey::DescribeTopicPartitions.to_string(),
            "DescribeTopicPartitions"
        );
    }

    #[test]
    fn header_versions_follow_flexibility_except_for_api_versions() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
    }

    #[test]
    fn served_versions_are_the_stable_ones() {
        let served = ServedApi::stable(ApiKey::InitProducerId);
        assert!(served.serves(0) && served.serves(5) && !served.serves(6) && !served.serves(-1));
    }
}
