//! Applying journal entries to the logs of a checkpoint, in memory, and writing the result back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::index::{MOST_ENTRIES, SparseIndex};
use super::partition_log::LogImage;
use super::position::{BytePosition, LogId, Offset, SegmentId};
use super::segment::{NO_TIMESTAMP_MS, SegmentImage, index_file_name, segment_file_name};
use super::swap::{ReplayedSwaps, Swap};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::startup;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};

/// Interval of an index begun at recovery; it thins out by itself.
const INDEX_INTERVAL_BYTES: u64 = 4096;

/// Bytes of one segment that the journal holds.
struct Redo {
    position: BytePosition,
    bytes: Vec<u8>,
}

struct ReplayedLog {
    image: LogImage,
    /// Ends of the segments as the checkpoint knew them.
    known_sizes: BTreeMap<SegmentId, BytePosition>,
    redo: BTreeMap<SegmentId, Redo>,
    dropping: BTreeSet<SegmentId>,
    dropped: Vec<SegmentImage>,
    swaps: ReplayedSwaps,
}

/// The logs of a directory while the journal is applied to them.
#[derive(Default)]
pub(super) struct Replay {
    logs: BTreeMap<LogId, ReplayedLog>,
    deleted: Vec<String>,
}

impl ReplayedLog {
    fn new(image: LogImage) -> ReplayedLog {
        let known_sizes = image
            .segments
            .iter()
            .map(|segment| (segment.id, segment.size_bytes))
            .collect();
        ReplayedLog {
            image,
            known_sizes,
            redo: BTreeMap::new(),
            dropping: BTreeSet::new(),
            dropped: Vec::new(),
            swaps: ReplayedSwaps::default(),
        }
    }

    fn damage(&mut self, what: String) {
        self.image.damage.get_or_insert(what);
    }
}

impl Replay {
    /// Adds the logs of one core's checkpoint.
    pub(super) fn begin(&mut self, logs: Vec<LogImage>) {
        self.logs.extend(
            logs.into_iter()
                .map(|image| (image.id, ReplayedLog::new(image))),
        );
    }

    /// Applies one entry.
    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        let id = entry.log();
        match entry {
            Entry::Create { directory, .. } => {
                let image = LogImage::empty(id, directory);
                self.logs
                    .entry(id)
                    .or_insert_with(|| ReplayedLog::new(image));
                return;
            }
            Entry::Delete { .. } => {
                if let Some(log) = self.logs.remove(&id) {
                    self.deleted.push(log.image.directory);
                }
                return;
            }
            _ => {}
        }
        // Entries recorded while a deletion was on its way may follow it.
        let Some(log) = self.logs.get_mut(&id) else {
            return;
        };
        match entry {
            Entry::Roll {
                segment,
                base_offset,
                ..
            } => log.roll(*segment, *base_offset),
            Entry::Append {
                segment,
                position,
                bytes,
                ..
            } => {
                log.append(*segment, *position, bytes);
            }
            Entry::Start { offset, .. } => log.image.start = log.image.start.max(*offset),
            Entry::Drop { segment, .. } => log.drop_segment(*segment),
            Entry::Epoch { epoch, start, .. } => {
                log.image.epochs.begin(*epoch, *start);
            }
            Entry::Swap { swap, .. } => log.swap(swap),
            Entry::Create { .. } | Entry::Delete { .. } => {}
        }
    }

    /// Writes what only the journal holds to the segments, flushed, and returns the logs as they
    /// are now with the number of bytes written.
    pub(super) fn restore(self, directory: &Path) -> io::Result<(Vec<LogImage>, u64)> {
        let mut written = 0;
        let mut images = Vec::new();
        for mut log in self.logs.into_values() {
            log.find_batches(log.image.segments.len());
            log.settle_drops();
            let own = directory.join(&log.image.directory);
            log.swaps.finish(&own, &log.image.segments)?;
            written += log.write_segments(directory)?;
            log.check_files(directory)?;
            log.image.epochs.forget_before(log.image.start);
            for segment in &log.dropped {
                log.remove_segment_files(directory, segment)?;
            }
            images.push(log.image);
        }
        for name in self.deleted {
            let path = directory.join(&name);
            let reused = images.iter().any(|image| image.directory == name);
            if !reused && startup::exists(&path)? {
                startup::remove_dir_all(&path)?;
            }
        }
        Ok((images, written))
    }
}

impl ReplayedLog {
    fn roll(&mut self, segment: SegmentId, base_offset: Offset) {
        self.known_sizes.insert(segment, 0);
        self.image.segments.push(SegmentImage {
            id: segment,
            base_offset,
            size_bytes: 0,
            sealed: false,
            largest_timestamp_ms: NO_TIMESTAMP_MS,
            first_timestamp_ms: NO_TIMESTAMP_MS,
            index: Some(SparseIndex::new(
                base_offset,
                INDEX_INTERVAL_BYTES,
                MOST_ENTRIES,
            )),
        });
    }

    fn append(&mut self, segment: SegmentId, position: BytePosition, bytes: &[u8]) {
        let Some(&known) = self.known_sizes.get(&segment) else {
            self.damage(format!(
                "the journal appends to segment {segment:?}, which is unknown"
            ));
            return;
        };
        let redo = self.redo.entry(segment).or_insert(Redo {
            position,
            bytes: Vec::new(),
        });
        let end = redo.position + redo.bytes.len() as u64;
        let most = if redo.bytes.is_empty() { known } else { end };
        if position < redo.position || position > most {
            self.damage(format!(
                "the journal has a gap before byte {position} of {segment:?}"
            ));
            return;
        }
        // A block's beginning is repeated after a checkpoint, perhaps only in part: the group with
        // the rest of the entry may be lost while what it repeats was acknowledged before.
        let from = (position - redo.position) as usize;
        let repeated = bytes.len().min(redo.bytes.len() - from);
        let differs = redo.bytes[from..from + repeated] != bytes[..repeated];
        redo.bytes.extend_from_slice(&bytes[repeated..]);
        if differs {
            self.damage(format!(
                "the journal repeats byte {position} of {segment:?} differently"
            ));
        }
    }

    fn drop_segment(&mut self, segment: SegmentId) {
        self.known_sizes.remove(&segment);
        self.dropping.insert(segment);
    }

    /// Lets go of dropped segments, after their batches were counted: offsets and producers go on
    /// from them.
    fn settle_drops(&mut self) {
        let dropping = std::mem::take(&mut self.dropping);
        for segment in std::mem::take(&mut self.image.segments) {
            if dropping.contains(&segment.id) {
                self.redo.remove(&segment.id);
                self.dropped.push(segment);
            } else {
                self.image.segments.push(segment);
            }
        }
    }

    /// Puts a compacted segment in the place of those it was made from. Their batches count first:
    /// offsets and producers go on from them. They are sealed, so all of them are here.
    fn swap(&mut self, swap: &Swap) {
        let segments = &self.image.segments;
        let first = segments
            .iter()
            .position(|old| Some(&old.id) == swap.old.first());
        let old = first.map(|first| first..first + swap.old.len());
        let are_old = |range: &Range<usize>| {
            let old = segments.get(range.clone()).unwrap_or(&[]);
            old.iter().map(|old| old.id).eq(swap.old.iter().copied())
        };
        let Some(old) = old.filter(are_old) else {
            self.damage(format!(
                "the journal swaps segments that are unknown for {:?}",
                swap.segment
            ));
            return;
        };
        self.find_batches(old.end);
        if is_planted(Breach::ReplayIntoSwapped) {
            // By name instead of by identity: the new file has the name of the first old one.
            if let Some(redo) = self.redo.remove(&swap.old[0]) {
                self.redo.insert(swap.segment, redo);
            }
        }
        for id in &swap.old {
            self.redo.remove(id);
            self.known_sizes.remove(id);
        }
        let replaced: Vec<SegmentImage> = self.image.segments.splice(old, [swap.image()]).collect();
        self.swaps
            .note(swap, replaced.iter().map(|segment| segment.base_offset));
        self.known_sizes.insert(swap.segment, swap.size_bytes);
        self.image.compaction = swap.progress;
    }

    /// Takes over every whole batch that the journal brings for the first `below` segments; a last
    /// one cut off was never acknowledged.
    fn find_batches(&mut self, below: usize) {
        for index in 0..below {
            let id = self.image.segments[index].id;
            let Some(redo) = self.redo.remove(&id) else {
                continue;
            };
            let known = self.image.segments[index].size_bytes;
            let mut at = (known - redo.position) as usize;
            while let Some(rest) = redo
                .bytes
                .get(at..)
                .filter(|rest| rest.len() >= HEADER_BYTES)
            {
                let header = match BatchHeader::parse(rest) {
                    Ok(header) => header,
                    Err(error) => {
                        self.damage(format!(
                            "the journal holds no batch where one begins: {error}"
                        ));
                        return;
                    }
                };
                if header.size_bytes() > rest.len() {
                    break;
                }
                if header.base_offset != self.image.end.0 {
                    let (found, wanted) = (header.base_offset, self.image.end);
                    self.damage(format!(
                        "the journal continues at offset {found}, not {wanted}"
                    ));
                    return;
                }
                self.take_batch(index, &header);
                at += header.size_bytes();
            }
            let size = self.image.segments[index].size_bytes;
            let keep = (size - redo.position) as usize;
            let bytes = redo.bytes[..keep.min(redo.bytes.len())].to_vec();
            self.redo.insert(
                id,
                Redo {
                    position: redo.position,
                    bytes,
                },
            );
        }
    }

    fn take_batch(&mut self, index: usize, header: &BatchHeader) {
        let base_offset = Offset(header.base_offset);
        let segment = &mut self.image.segments[index];
        if let Some(sparse) = &mut segment.index {
            sparse.note(
                base_offset,
                segment.size_bytes,
                segment.largest_timestamp_ms,
            );
        }
        if segment.size_bytes == 0 {
            segment.first_timestamp_ms = header.max_timestamp;
        }
        segment.largest_timestamp_ms = segment.largest_timestamp_ms.max(header.max_timestamp);
        segment.size_bytes += header.size_bytes() as u64;
        self.image.producers.remember(header, base_offset);
        self.image.end = Offset(header.last_offset() + 1);
    }

    fn segment_path(&self, directory: &Path, base_offset: Offset) -> PathBuf {
        directory
            .join(&self.image.directory)
            .join(segment_file_name(base_offset))
    }

    fn write_segments(&mut self, directory: &Path) -> io::Result<u64> {
        let mut written = 0;
        for (id, redo) in std::mem::take(&mut self.redo) {
            let segment = self.image.segments.iter().find(|segment| segment.id == id);
            let Some(segment) = segment.filter(|_| !redo.bytes.is_empty()) else {
                continue;
            };
            let path = self.segment_path(directory, segment.base_offset);
            if !startup::exists(&path)? {
                self.damage(format!("{} is missing", path.display()));
                continue;
            }
            let file = startup::File::open(&path)?;
            file.write_at(redo.position, &redo.bytes)?;
            file.sync()?;
            written += redo.bytes.len() as u64;
        }
        Ok(written)
    }

    /// A segment shorter than what was promised is damage of this log alone.
    fn check_files(&mut self, directory: &Path) -> io::Result<()> {
        for index in 0..self.image.segments.len() {
            let segment = &self.image.segments[index];
            let path = self.segment_path(directory, segment.base_offset);
            let promised = segment.size_bytes;
            let found = if startup::exists(&path)? {
                startup::File::open(&path)?.len()?
            } else {
                0
            };
            if found < promised {
                self.damage(format!(
                    "{} has {found} bytes of {promised}",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    fn remove_segment_files(&self, directory: &Path, segment: &SegmentImage) -> io::Result<()> {
        let below = directory.join(&self.image.directory);
        for name in [
            segment_file_name(segment.base_offset),
            index_file_name(segment.base_offset),
        ] {
            let path = below.join(name);
            if startup::exists(&path)? {
                startup::remove_file(&path)?;
            }
        }
        Ok(())
    }
}
