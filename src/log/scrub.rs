//! A slow check of sealed segments in the background: damage below what was acknowledged is found
//! while other copies of the records may still exist, and not when somebody needs them.
//!
//! One scrubber per core reads one segment after the other, past the chunk cache and at its pace,
//! and verifies every batch. What does not verify is read once more; then its partition goes offline
//! with file, byte position and offset in the reason, which the next checkpoint carries, so that it
//! survives restarts. After a full round comes a pause.
//!
//! The leader epoch of a batch is not under its checksum and cannot be verified; base offsets are
//! not either, but must ascend within the bounds of their segment.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::log_directory::LogDirectory;
use super::pace::Pace;
use super::partition_log::PartitionLog;
use super::position::{BytePosition, Offset, SegmentId};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::clock;
use crate::runtime::disk::{self, File};
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};

/// What is read at a time.
const WINDOW_BYTES: usize = 128 << 10;

/// What has waited to be sealed since the start gets this long before a round.
const SEALING_PAUSE: Duration = Duration::from_secs(1);

/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(3600);

/// A batch that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBatch {
    /// Where in the segment it begins.
    pub position: BytePosition,
    /// The offset that is due there.
    pub offset: Offset,
    /// What is wrong.
    pub what: String,
}

/// Verifies the batches of a segment while its bytes come in pieces of any size.
#[derive(Clone, Debug)]
pub struct BatchVerifier {
    /// Where the batch begins whose bytes are awaited.
    position: BytePosition,
    size: BytePosition,
    /// No batch begins below.
    next_offset: Offset,
    /// No record is at or above.
    end_offset: Offset,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    /// Bytes of records still to come, and the checksum up to here, once the header is known.
    records: Option<(BatchHeader, u64, u32)>,
    batches: u64,
}

impl BatchVerifier {
    /// For the batches of a segment of `size` bytes from `position` on, with offsets from
    /// `next_offset` and below `end_offset`.
    #[must_use]
    pub fn new(
        position: BytePosition,
        size: BytePosition,
        next_offset: Offset,
        end_offset: Offset,
    ) -> BatchVerifier {
        BatchVerifier {
            position,
            size,
            next_offset,
            end_offset,
            header: [0; HEADER_BYTES],
            header_filled: 0,
            records: None,
            batches: 0,
        }
    }

    /// Batches verified.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    fn bad(&self, what: String) -> BadBatch {
        BadBatch {
            position: self.position,
            offset: self.next_offset,
            what,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), BadBatch> {
        loop {
            let Some((header, left, checksum)) = &mut self.records else {
                let here = bytes.len().min(HEADER_BYTES - self.header_filled);
                self.header[self.header_filled..][..here].copy_from_slice(&bytes[..here]);
                self.header_filled += here;
                bytes = &bytes[here..];
                if self.header_filled < HEADER_BYTES {
                    return Ok(());
                }
                self.begin_batch()?;
                continue;
            };
            let here = usize::try_from(*left).map_or(bytes.len(), |left| bytes.len().min(left));
            *checksum = crc32c::crc32c_append(*checksum, &bytes[..here]);
            *left -= here as u64;
            bytes = &bytes[here..];
            if *left > 0 {
                return Ok(());
            }
            if *checksum != header.crc {
                let (stored, computed) = (header.crc, *checksum);
                let what = format!("its checksum is {stored:08x}, its bytes have {computed:08x}");
                return Err(self.bad(what));
            }
            self.next_offset = Offset(header.last_offset() + 1);
            self.position += header.size_bytes() as u64;
            self.header_filled = 0;
            self.records = None;
            self.batches += 1;
        }
    }

    fn begin_batch(&mut self) -> Result<(), BadBatch> {
        let header = BatchHeader::parse(&self.header);
        let header = header.map_err(|error| self.bad(error.to_string()))?;
        let size_bytes = header.size_bytes() as u64;
        let left = self.size.saturating_sub(self.position);
        if size_bytes > left {
            return Err(self.bad(format!(
                "it has {size_bytes} bytes, the segment {left} more"
            )));
        }
        let (first, last) = (header.base_offset, header.last_offset());
        if first < self.next_offset.0 || last < first || last >= self.end_offset.0 {
            return Err(self.bad(format!("it claims offsets {first} to {last}")));
        }
        let records = size_bytes - HEADER_BYTES as u64;
        self.records = Some((header, records, header.checksum(&[])));
        Ok(())
    }

    /// Fails when the last batch is not whole.
    pub fn finish(&self) -> Result<(), BadBatch> {
        if self.header_filled == 0 && self.position == self.size {
            Ok(())
        } else {
            Err(self.bad(format!("the file ends before byte {}", self.size)))
        }
    }
}

/// A sealed segment as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SealedSegment {
    id: SegmentId,
    path: PathBuf,
    size: BytePosition,
    base_offset: Offset,
    end_offset: Offset,
}

impl PartitionLog {
    fn sealed_segments(&self) -> Vec<SegmentId> {
        let state = self.state.borrow();
        let sealed = state.segments.iter().filter(|segment| segment.sealed);
        sealed.map(|segment| segment.id).collect()
    }

    /// None when it is gone or open again.
    fn sealed_segment(&self, id: SegmentId) -> Option<SealedSegment> {
        self.healthy().ok()?;
        if self.is_swapping() {
            return None; // Its name may still lead to the segment it replaces.
        }
        let state = self.state.borrow();
        let index = state.segments.iter().position(|segment| segment.id == id)?;
        let segment = &state.segments[index];
        let next = state.segments.get(index + 1);
        segment.sealed.then(|| SealedSegment {
            id,
            path: segment.path(&self.directory()),
            size: segment.size,
            base_offset: segment.base_offset,
            end_offset: next.map_or(state.end, |next| next.base_offset),
        })
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCounts {
    /// Full rounds over all segments.
    pub rounds: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Batches that did not verify.
    pub bad_batches: u64,
}

/// See the head of this file.
pub struct Scrubber {
    directories: Vec<Rc<LogDirectory>>,
    pace: Pace,
    counts: Cell<ScrubCounts>,
}

/// Why a segment was not verified to its end.
enum Obstacle {
    Bad(BadBatch),
    Disk(io::Error),
    /// It is not what it was: dropped, cut or replaced meanwhile.
    Changed,
}

impl Scrubber {
    /// For the directories of a core; `bytes_per_second` is this core's share.
    #[must_use]
    pub fn new(directories: Vec<Rc<LogDirectory>>, bytes_per_second: u64) -> Rc<Scrubber> {
        Rc::new(Scrubber {
            directories,
            pace: Pace::new(bytes_per_second),
            counts: Cell::default(),
        })
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counts(&self) -> ScrubCounts {
        self.counts.get()
    }

    /// Rounds and pauses, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.round().await;
            clock::sleep(ROUND_PAUSE).await;
        }
    }

    /// Checks everything that is sealed now.
    pub async fn round(&self) {
        for directory in &self.directories {
            // A stop may come between the sealing of a segment and the checkpoint that says so.
            if directory
                .logs()
                .iter()
                .any(|log| log.has_complete_segment())
            {
                directory.journal().note_roll();
            }
        }
        clock::sleep(SEALING_PAUSE).await;
        for directory in &self.directories {
            for log in directory.logs() {
                for segment in log.sealed_segments() {
                    self.scrub(directory, &log, segment).await;
                }
            }
        }
        self.count(|counts| counts.rounds += 1);
    }

    fn count(&self, note: impl FnOnce(&mut ScrubCounts)) {
        let mut counts = self.counts.get();
        note(&mut counts);
        self.counts.set(counts);
    }

    async fn scrub(&self, directory: &LogDirectory, log: &PartitionLog, id: SegmentId) {
        let Some(segment) = log.sealed_segment(id) else {
            return;
        };
        let from = (0, segment.base_offset);
        let first = self.verify(log, &segment, from, u64::MAX).await;
        let bad = match first {
            Ok(()) | Err(Obstacle::Changed) => return,
            Err(Obstacle::Disk(error)) => {
                log.disk_failed("reading a segment", &error);
                return;
            }
            Err(Obstacle::Bad(bad)) => bad,
        };
        // Not every wrong bit is on the disk.
        let again = self
            .verify(log, &segment, (bad.position, bad.offset), 1)
            .await;
        let Err(Obstacle::Bad(bad)) = again else {
            tracing::warn!(segment = %segment.path.display(), position = bad.position,
                what = bad.what, "a batch did not verify and does when it is read again");
            return;
        };
        let reason = format!(
            "{} is damaged: the batch at byte {}, offset {}: {}",
            segment.path.display(),
            bad.position,
            bad.offset,
            bad.what
        );
        tracing::error!(log = %log.directory_name(), reason, "partition goes offline");
        self.count(|counts| counts.bad_batches += 1);
        log.set_damage(reason);
        directory.ask_for_checkpoint();
    }

    /// Verifies up to `most` batches from a position on, whose offset is due there.
    async fn verify(
        &self,
        log: &PartitionLog,
        segment: &SealedSegment,
        (from, offset): (BytePosition, Offset),
        most: u64,
    ) -> Result<(), Obstacle> {
        let outcome = self.read(segment, (from, offset), most).await;
        if outcome.is_err() && log.sealed_segment(segment.id).as_ref() != Some(segment) {
            return Err(Obstacle::Changed);
        }
        outcome
    }

    async fn read(
        &self,
        segment: &SealedSegment,
        (from, offset): (BytePosition, Offset),
        most: u64,
    ) -> Result<(), Obstacle> {
        // A descriptor and buffers of its own, so that neither cache nor open files know of this.
        let file: File = disk::open(&segment.path).await.map_err(Obstacle::Disk)?;
        let mut verifier = BatchVerifier::new(from, segment.size, offset, segment.end_offset);
        let mut at = from - from % BLOCK_BYTES as u64;
        let mut skipped = (from - at) as usize;
        while at < segment.size && verifier.batches() < most {
            let bytes = file.read(at, WINDOW_BYTES).await.map_err(Obstacle::Disk)?;
            let valid = bytes.len().min((segment.size - at) as usize);
            if valid < skipped || bytes.is_empty() {
                break;
            }
            verifier
                .feed(&bytes[skipped..valid])
                .map_err(Obstacle::Bad)?;
            skipped = 0;
            at += bytes.len() as u64;
            self.count(|counts| counts.bytes += bytes.len() as u64);
            self.pace.spend(bytes.len() as u64).await;
        }
        if verifier.batches() >= most {
            return Ok(());
        }
        verifier.finish().map_err(Obstacle::Bad)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    /// Batches of one record, each 80 to 180 bytes.
    fn segment(batches: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for batch in 0..batches {
            let mut builder = BatchBuilder::new(BatchOptions {
                base_offset: 100 + batch,
                ..Default::default()
            });
            let value = vec![batch as u8; 10 + (batch * 37 % 100) as usize];
            builder.append(1, None, Some(&value), [].into_iter());
            bytes.extend(builder.finish());
        }
        bytes
    }

    fn verify(bytes: &[u8], size: usize, pieces: usize, end: i64) -> Result<(), BadBatch> {
        let mut verifier = BatchVerifier::new(0, size as u64, Offset(100), Offset(end));
        for piece in bytes.chunks(pieces) {
            verifier.feed(piece)?;
        }
        verifier.finish()
    }

    proptest! {
        #[test]
        fn whole_segments_verify_in_any_pieces(pieces in 1..400_usize) {
            let bytes = segment(30);
            prop_assert_eq!(verify(&bytes, bytes.len(), pieces, 130), Ok(()));
        }

        #[test]
        fn every_flipped_bit_is_found_at_its_batch_or_the_next(
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
            pieces in 1..400_usize,
        ) {
            let mut bytes = segment(30);
            let at = at.index(bytes.len());
            let mut begin = 0;
            loop {
                let size = BatchHeader::parse(&bytes[begin..]).expect("whole").size_bytes();
                if at < begin + size {
                    break;
                }
                begin += size;
            }
            bytes[at] ^= 1 << bit;
            let outcome = verify(&bytes, bytes.len(), pieces, 130);
            // The leader epoch is not under the checksum.
            if (12..16).contains(&(at - begin)) {
                prop_assert_eq!(outcome, Ok(()));
            } else {
                let found = outcome.expect_err("a flipped bit").position as usize;
                let is_offset = at - begin < 8;
                prop_assert!(found == begin || (is_offset && found > begin), "{found} {begin}");
            }
        }

        #[test]
        fn a_cut_segment_is_found(cut in any::<prop::sample::Index>()) {
            let bytes = segment(30);
            let cut = cut.index(bytes.len());
            prop_assert!(verify(&bytes[..cut], bytes.len(), 64, 130).is_err());
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod simulation {
    use std::path::Path;

    use super::*;
    use crate::log::chunk_cache::ChunkCache;
    use crate::log::partition_log::LogError;
    use crate::log::position::{LeaderEpoch, LogId};
    use crate::log::power_cut_history::{CACHE, HOUSEKEEPING, JOURNAL, SETTINGS};
    use crate::log::recovery::recover;
    use crate::runtime::sim::disk_model::DiskModel;
    use crate::runtime::sim::world::World;
    use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

    const DATA: &str = "/data";
    const LOGS: u32 = 3;

    fn log_id(partition: u32) -> LogId {
        LogId {
            topic: [5; 16],
            partition,
        }
    }

    /// Recovers and opens the only core.
    fn open(world: &Rc<World>) -> impl Future<Output = Rc<LogDirectory>> + 'static {
        let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
        let recovered = recovered.expect("recovers").0.remove(0);
        async move {
            let cache = Rc::new(ChunkCache::new(CACHE));
            let path = Path::new(DATA);
            let started =
                LogDirectory::start(path, 0, recovered, &cache, JOURNAL, HOUSEKEEPING, |_| {
                    SETTINGS
                });
            started.await.expect("the simulated disk gives no errors")
        }
    }

    /// A stopped machine with some sealed segments in every log.
    fn disk(seed: u64) -> DiskModel {
        let world = World::new(seed, DiskModel::new());
        let opened = open(&world);
        let written = world.run(async move {
            let directory = opened.await;
            for partition in 0..LOGS {
                let log =
                    directory.create_log(log_id(partition), &format!("t-{partition}"), SETTINGS);
                for batch in 0..20_u8 {
                    let mut builder = BatchBuilder::new(BatchOptions::default());
                    builder.append(1, None, Some(&[batch; 4000]), [].into_iter());
                    let bytes = builder.finish();
                    let header = BatchHeader::parse(&bytes).expect("just built");
                    log.ready(bytes.len(), 1, 1).await.expect("healthy");
                    log.append(&header, &bytes[HEADER_BYTES..], LeaderEpoch(1));
                }
            }
            directory.shut_down().await;
        });
        written.expect("no cut is due");
        world.disk_after_exit()
    }

    fn faults(directory: &LogDirectory) -> Vec<Option<String>> {
        let fault = |partition| match directory.log(log_id(partition))?.healthy() {
            Err(LogError::Offline(why)) => Some(why.to_string()),
            _ => None,
        };
        (0..LOGS).map(fault).collect()
    }

    #[test]
    fn a_flipped_bit_takes_its_partition_offline_for_good_and_no_other() {
        let seed = std::env::var("PERCOLOG_SEED").map_or_else(
            |_| fastrand::u64(..),
            |seed| seed.parse().expect("a number"),
        );
        println!("PERCOLOG_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..40 {
            let mut disk = disk(random.u64(..));
            let victim = random.u32(0..LOGS);
            let below = Path::new(DATA).join(format!("t-{victim}"));
            let mut segments: Vec<PathBuf> = disk
                .files()
                .into_iter()
                .map(|(path, _)| path)
                .filter(|path| path.starts_with(&below))
                .filter(|path| path.extension().is_some_and(|e| e == "log"))
                .collect();
            segments.sort();
            assert!(segments.len() > 3);
            // All but the last one are complete.
            let file = &segments[random.usize(0..segments.len() - 1)];
            let length = disk.content(file).len();
            let at = random.usize(0..length);
            let batch = BatchHeader::parse(&disk.content(file))
                .expect("whole")
                .size_bytes();
            let is_checked = !(12..16).contains(&(at % batch));
            disk.flip_bit(file, at, random.u8(0..8));
            let name = file.display().to_string();

            let world = World::new(random.u64(..), disk);
            let opened = open(&world);
            let (before, counts, faults_found) = world
                .run(async move {
                    let directory = opened.await;
                    let scrubber = Scrubber::new(vec![directory.clone()], 1 << 20);
                    let before = faults(&directory);
                    scrubber.round().await;
                    let found = faults(&directory);
                    // The checkpoint that was asked for.
                    clock::sleep(Duration::from_secs(5)).await;
                    (before, scrubber.counts(), found)
                })
                .expect("no cut is due");
            assert_eq!(before, vec![None; LOGS as usize]);
            assert_eq!(
                (counts.rounds, counts.bad_batches),
                (1, u64::from(is_checked))
            );
            for (partition, fault) in (0..LOGS).zip(&faults_found) {
                if partition == victim && is_checked {
                    let fault = fault.as_deref().expect("found");
                    assert!(
                        fault.contains(&name) && fault.contains("the batch at byte"),
                        "{fault}"
                    );
                } else {
                    assert_eq!(*fault, None);
                }
            }
            let world = World::new(random.u64(..), world.disk_after_power_cut());
            let opened = open(&world);
            let after = world.run(async move { faults(&*opened.await) });
            assert_eq!(after.expect("no cut is due"), faults_found, "it survives");
        }
    }
}
