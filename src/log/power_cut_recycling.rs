//! Files of deleted segments: they become segments of other logs, but not under a reader.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::log_directory::LogDirectory;
use super::partition_log::{LogSettings, PartitionLog};
use super::position::SegmentId;
use super::power_cut_history::{DATA, SETTINGS, start};
use super::power_cut_model::Verdict;
use super::power_cut_workload::{append_batch, await_flushed, log_id, random_batch, random_below};
use super::recovery::recover;
use crate::runtime::breach::Breach;
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::clock;
use crate::runtime::disk::File;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;

/// When a reader opens the segment that is deleted later.
#[derive(Clone, Copy, Debug)]
enum Opened {
    Never,
    /// While it is the active one, so that it is sealed meanwhile.
    Active,
    Sealed,
    /// Before its log lets go of all descriptors that nobody has used for long.
    BeforeCooling,
}

/// Another log writes to the disk after a segment was deleted; how many files it got from the pool.
fn delete_under_reader(seed: u64, opened: Opened, breach: Option<Breach>) -> Result<u64, String> {
    let world = World::new(seed, DiskModel::new());
    if let Some(breach) = breach {
        world.plant(breach);
    }
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    let recovered = recovered.expect("fresh").0;
    let outcome = world.run(async move {
        let directory = start(recovered).await.remove(0);
        let log = directory.create_log(log_id(0), "log-0", with_delay());
        append_one(&log).await;
        let first = oldest(&log);
        let mut held = match opened {
            Opened::Active => Some(open(&log, first).await),
            _ => None,
        };
        while !is_sealed(&log, first) {
            append_one(&log).await;
        }
        if matches!(opened, Opened::Sealed | Opened::BeforeCooling) {
            held = Some(open(&log, first).await);
        }
        if matches!(opened, Opened::BeforeCooling) {
            cool(&directory).await;
        }
        let before = content(held.as_ref()).await;
        delete_oldest(&log).await;
        // Past the delay; a simulated clock waits at no cost.
        clock::sleep(Duration::from_secs(1)).await;
        let other = directory.create_log(log_id(1), "log-1", SETTINGS);
        while other.state.borrow().segments.len() < 3 {
            append_one(&other).await;
        }
        if content(held.as_ref()).await != before {
            return Err(format!(
                "a reader of log-0 sees bytes of log-1 ({opened:?})"
            ));
        }
        Ok(directory.recycled_segments())
    });
    outcome.expect("no cut is due")
}

fn with_delay() -> LogSettings {
    LogSettings {
        file_delete_delay_ms: random_below(100),
        ..SETTINGS
    }
}

async fn append_one(log: &Rc<PartitionLog>) {
    let (header, payload) = random_batch();
    let end = append_batch(log, &header, &payload).await;
    assert!(await_flushed(log, end.expect("healthy").end).await);
}

fn oldest(log: &PartitionLog) -> SegmentId {
    log.state.borrow().segments[0].id
}

fn is_sealed(log: &PartitionLog, segment: SegmentId) -> bool {
    log.state.borrow().segment(segment).expect("kept").sealed
}

async fn open(log: &PartitionLog, segment: SegmentId) -> File {
    log.segment_file(segment).await.expect("it is there")
}

async fn content(file: Option<&File>) -> Option<Vec<u8>> {
    let file = file?;
    let length = file.len().await.expect("it is open") as usize;
    let read = file.read(0, length.next_multiple_of(BLOCK_BYTES)).await;
    Some(read.expect("the simulated disk gives no errors").to_vec())
}

/// Twice, since a log that was used since the last time is left alone.
async fn cool(directory: &LogDirectory) {
    for _ in 0..2 {
        directory.ask_for_cooling();
        clock::sleep(Duration::from_millis(50)).await;
    }
}

async fn delete_oldest(log: &PartitionLog) {
    let next = log.state.borrow().segments[1].base_offset;
    log.advance_start(next).await.expect("healthy");
}

/// A history for [`Breach::RecycleWhileRead`]: its readers must see what they saw.
pub(super) fn readers_keep_their_segments(seed: u64, breach: Option<Breach>) -> Verdict {
    let all = [Opened::Active, Opened::Sealed, Opened::BeforeCooling];
    let opened = all[(seed % 3) as usize];
    match delete_under_reader(seed, opened, breach)? {
        0 => Ok(()),
        _ => Err(format!("the file of a reader is recycled ({opened:?})")),
    }
}

#[test]
fn a_deleted_segment_becomes_another_unless_somebody_reads_it() {
    for seed in 0..30 {
        assert_eq!(delete_under_reader(seed, Opened::Never, None), Ok(1));
        assert_eq!(readers_keep_their_segments(seed, None), Ok(()));
    }
}
