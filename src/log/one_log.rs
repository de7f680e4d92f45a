//! One log alone on the simulated disk, for tests that look at one thing it does.

use std::path::Path;
use std::rc::Rc;

use super::chunk_cache::ChunkCache;
use super::log_directory::LogDirectory;
use super::partition_log::{LogImage, LogSettings, PartitionLog};
use super::position::LogId;
use super::power_cut_history::{CACHE, DATA, HOUSEKEEPING, JOURNAL, SETTINGS};
use super::recovery::{RecoveredCore, recover};
use crate::runtime::sim::world::World;

/// Small segments, and nothing is ever removed.
pub(crate) const KEEPING: LogSettings = SETTINGS;

const ID: LogId = LogId {
    topic: [7; 16],
    partition: 0,
};

pub(crate) fn recovered(world: &Rc<World>) -> RecoveredCore {
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    recovered.expect("recovers").0.remove(0)
}

/// Opens the log that recovery found, or creates it.
pub(crate) async fn open_one(
    recovered: RecoveredCore,
    settings: LogSettings,
) -> (Rc<LogDirectory>, Rc<PartitionLog>) {
    let cache = Rc::new(ChunkCache::new(CACHE));
    let resolve = |_: &LogImage| settings;
    let path = Path::new(DATA);
    let directory = LogDirectory::start(path, 0, recovered, &cache, JOURNAL, HOUSEKEEPING, resolve)
        .await
        .expect("the simulated disk gives no errors");
    let log = match directory.log(ID) {
        Some(log) => log,
        None => directory.create_log(ID, "log-0", settings),
    };
    (directory, log)
}
