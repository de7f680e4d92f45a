//! Limits that follow from others, computed once when the number of cores is known.

use super::broker::BrokerConfig;

/// Chunks that the cache of a core holds at least.
pub const CHUNKS_MIN: usize = 8;
/// Largest frame before a connection is authenticated.
pub const UNAUTHENTICATED_FRAME_MAX_BYTES: usize = 64 * 1024;
/// Elements of any array in a request, as Kafka 4.4 limits them.
pub const ARRAY_ELEMENTS_MAX: usize = 1_000_000;
/// Tagged fields of any structure in a request, as Kafka 4.4 limits them.
pub const TAGGED_FIELDS_MAX: usize = 10_000;
/// Bytes of a topic's name.
pub const TOPIC_NAME_MAX_BYTES: usize = 249;
/// A segment that has grown to this belongs to a partition with a large flow.
pub const BUSY_SEGMENT_BYTES: u64 = 1 << 20;
/// The smallest file of a deleted segment that is kept for another one.
pub const POOLED_FILE_MIN_BYTES: u64 = 1 << 20;
/// Part of the request memory that only small requests may take, as a divisor.
const SMALL_REQUEST_RESERVE_DIVISOR: usize = 16;
/// Part of the request memory that one connection may take, as a divisor; at least one request.
const CONNECTION_SHARE_DIVISOR: usize = 4;
/// Part of the request memory that one address may take, as a divisor; at least one request.
const ADDRESS_SHARE_DIVISOR: usize = 2;

const _: () = assert!(CONNECTION_SHARE_DIVISOR >= ADDRESS_SHARE_DIVISOR);
const _: () = assert!(SMALL_REQUEST_RESERVE_DIVISOR > CONNECTION_SHARE_DIVISOR);

/// Limits of a core, a connection, an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivedLimits {
    /// Cores that serve.
    pub cores: usize,
    /// Request memory of one core; never less than the largest request and the reserve.
    pub request_memory_per_core_bytes: usize,
    /// What of it is kept for small requests, which is also the size up to which one is small.
    pub small_request_reserve_bytes: usize,
    /// What of it one connection may take.
    pub request_memory_per_connection_bytes: usize,
    /// What of it the connections of one address may take.
    pub request_memory_per_address_bytes: usize,
    /// Chunk memory of one core.
    pub cache_per_core_bytes: usize,
    /// Memory for the keys of a run of compaction of one core.
    pub compaction_memory_per_core_bytes: usize,
    /// What compaction of one core reads and writes at most.
    pub compaction_bytes_per_core_per_second: u64,
    /// Connections that one core holds; more than its share, since the kernel spreads them badly.
    pub connections_per_core_max: usize,
    /// Fetch sessions that one core keeps.
    pub fetch_sessions_per_core_max: usize,
    /// Disk space of all journals of one data directory.
    pub journals_per_directory_bytes: u64,
}

impl DerivedLimits {
    /// The limits that follow from `config` on `cores` cores.
    #[must_use]
    pub fn new(config: &BrokerConfig, cores: usize) -> DerivedLimits {
        assert!(cores > 0, "a broker serves on one core at least");
        let (limits, storage) = (&config.limits, &config.storage);
        let request_max_bytes = limits.request_max_bytes;
        let least_bytes = request_max_bytes + request_max_bytes / 8;
        let request_memory_per_core_bytes = (limits.request_memory_bytes / cores).max(least_bytes);
        let share =
            |divisor: usize| (request_memory_per_core_bytes / divisor).max(request_max_bytes);
        let derived = DerivedLimits {
            cores,
            request_memory_per_core_bytes,
            small_request_reserve_bytes: request_memory_per_core_bytes
                / SMALL_REQUEST_RESERVE_DIVISOR,
            request_memory_per_connection_bytes: share(CONNECTION_SHARE_DIVISOR),
            request_memory_per_address_bytes: share(ADDRESS_SHARE_DIVISOR),
            cache_per_core_bytes: (storage.cache_bytes / cores)
                .max(CHUNKS_MIN * storage.chunk_bytes),
            compaction_memory_per_core_bytes: storage.compaction_memory_bytes / cores,
            compaction_bytes_per_core_per_second: (storage.compaction_bytes_per_second
                / cores as f64)
                .max(1.0) as u64,
            connections_per_core_max: (2 * limits.connections_max)
                .div_ceil(cores)
                .min(limits.connections_max),
            fetch_sessions_per_core_max: limits.fetch_sessions_max.div_ceil(cores),
            journals_per_directory_bytes: storage.journal_bytes as u64 * cores as u64,
        };
        derived.check(request_max_bytes);
        derived
    }

    fn check(&self, request_max_bytes: usize) {
        assert!(self.request_memory_per_connection_bytes <= self.request_memory_per_address_bytes);
        assert!(self.request_memory_per_address_bytes <= self.request_memory_per_core_bytes);
        assert!(
            request_max_bytes + self.small_request_reserve_bytes
                <= self.request_memory_per_core_bytes,
            "the largest request fits beside the reserve: {self:?}"
        );
        assert!(self.connections_per_core_max > 0 && self.cache_per_core_bytes > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_hold_for_every_number_of_cores_and_both_presets() {
        for config in [BrokerConfig::defaults(), BrokerConfig::tiny_for_tests()] {
            for cores in 1..=256 {
                let derived = DerivedLimits::new(&config, cores);
                assert!(derived.cache_per_core_bytes >= CHUNKS_MIN * config.storage.chunk_bytes);
                assert!(derived.connections_per_core_max * cores >= config.limits.connections_max);
            }
        }
    }
}
