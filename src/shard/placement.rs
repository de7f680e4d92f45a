//! Which core owns a partition. The same on every core, with every number of cores, and without a
//! table: the partitions of a topic follow each other over the cores.

use crate::log::directory_register::{DirectoryRegister, Layout};
use crate::log::position::LogId;
use crate::runtime::core_id::CoreId;
use crate::wire::codec::Uuid;

/// The id of the log that holds the cluster's metadata; Kafka reserves the same.
pub const METADATA_LOG: LogId = LogId {
    topic: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    partition: 0,
};

/// The directory of that log.
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";

/// The core that decides about metadata and owns its log.
pub const CONTROLLER_CORE: CoreId = CoreId(0);

/// The core that owns `log` when there are `cores`.
#[must_use]
pub fn owner(log: LogId, cores: usize) -> CoreId {
    if log == METADATA_LOG {
        return CONTROLLER_CORE;
    }
    let core = (u64::from(topic_number(log)) + u64::from(log.partition)) % cores as u64;
    CoreId(core as u16)
}

/// The data directory for a new log when there are `directories`; independent of its core.
#[must_use]
pub fn directory(log: LogId, cores: usize, directories: usize) -> usize {
    let turn = (u64::from(topic_number(log)) + u64::from(log.partition)) / cores as u64;
    (turn % directories as u64) as usize
}

/// Whether a log that is not found may lie in one of the `missing` directories. What had its turn
/// on a directory that was offline went to the first one.
#[must_use]
pub fn may_be_in(log: LogId, register: &DirectoryRegister, missing: &[Uuid]) -> bool {
    if missing.is_empty() {
        return false;
    }
    let is_missing = |layout: &Layout| {
        let turn = directory(log, layout.cores, layout.directories.len());
        missing.contains(&layout.directories[turn])
    };
    register.forgotten || register.layouts.iter().any(is_missing)
}

/// Topic ids are random; their checksum is as good as any number of them.
fn topic_number(log: LogId) -> u32 {
    crc32c::crc32c(&log.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_spread_evenly() {
        for cores in 1..9 {
            let mut counts = vec![0; cores];
            for partition in 0..(cores as u32 * 5) {
                counts[owner(
                    LogId {
                        topic: [7; 16],
                        partition,
                    },
                    cores,
                )
                .index()] += 1;
            }
            assert!(counts.iter().all(|count| *count == 5), "{counts:?}");
        }
        assert_eq!(owner(METADATA_LOG, 4), CONTROLLER_CORE);
    }

    #[test]
    fn a_log_may_be_where_any_layout_placed_it() {
        let ids = [1, 2, 3].map(|id| Uuid([id; 16]));
        let mut register = DirectoryRegister::default();
        for (cores, directories) in [(1, 2), (2, 3)] {
            register.note_layout(Layout {
                cores,
                directories: ids[..directories].to_vec(),
            });
        }
        for partition in 0..24 {
            let log = LogId {
                topic: [7; 16],
                partition,
            };
            let turns = [directory(log, 1, 2), directory(log, 2, 3)];
            for (index, id) in ids.iter().enumerate() {
                assert_eq!(may_be_in(log, &register, &[*id]), turns.contains(&index));
            }
            assert!(!may_be_in(log, &register, &[]));
            assert!(!may_be_in(log, &register, &[Uuid([9; 16])]));
        }
        register.forgotten = true;
        assert!(may_be_in(METADATA_LOG, &register, &[Uuid([9; 16])]));
    }
}
