//! Applying journal entries to the logs of one core's checkpoint, in memory.
//!
//! Every entry is applied as it comes, and whole batches are taken over as soon as all their bytes
//! are known; what `restore.rs` then writes to the files is what only the journal holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::entry::{Entry, named_batches};
use super::index::{MOST_ENTRIES, SparseIndex};
use super::partition_log::{CutPlace, LogImage};
use super::position::{BytePosition, LeaderEpoch, LogId, Offset, SegmentId};
use super::producer_state::ProducerState;
use super::redo::Redo;
use super::repair::good_batches;
use super::segment::{NO_TIMESTAMP_MS, SegmentImage, segment_file_name};
use super::swap::{Swap, cleaned_file_name};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::startup;
use crate::wire::record_batch::{BatchHeader, BatchView, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// Interval of an index begun at recovery; it thins out by itself.
const INDEX_INTERVAL_BYTES: u64 = 4096;

/// A log while the journal is applied to it.
pub(super) struct ReplayedLog {
    pub(super) image: LogImage,
    pub(super) redo: BTreeMap<SegmentId, Redo>,
    /// Segments whose files go.
    pub(super) dropped: Vec<SegmentImage>,
    /// Segments that were swapped in: their files may not have their names yet.
    pub(super) swapped: Vec<(Offset, SegmentId)>,
    /// A journal group that cannot be read may have held entries of this log.
    doubt: Option<u64>,
    /// What was found of producers below a cut whose own entry is still to come.
    found_producers: ProducerState,
    /// There was such a group, whatever later entries have shown: they do not tell whether a swap
    /// was in it.
    pub(super) may_lack_swap: bool,
}

/// The logs of one core of a directory.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) logs: BTreeMap<LogId, ReplayedLog>,
    /// Directories of logs that are deleted.
    pub(super) deleted: Vec<String>,
    /// The first group whose entries cannot be told apart.
    unreadable: Option<u64>,
}

impl Replay {
    /// Begins with what the core's checkpoint knows.
    pub(super) fn begin(logs: Vec<LogImage>) -> Replay {
        let logs = logs.into_iter();
        Replay {
            logs: logs
                .map(|image| (image.id, ReplayedLog::new(image)))
                .collect(),
            deleted: Vec::new(),
            unreadable: None,
        }
    }

    /// Applies one entry.
    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        let id = entry.log();
        match entry {
            Entry::Create { directory, .. } => {
                let unreadable = self.unreadable;
                self.logs.entry(id).or_insert_with(|| {
                    // The entry may be the one that is carried again because that group was lost.
                    let mut log = ReplayedLog::new(LogImage::empty(id, directory));
                    log.doubt = unreadable;
                    log.may_lack_swap = unreadable.is_some();
                    log
                });
            }
            Entry::Delete { .. } => {
                if let Some(log) = self.logs.remove(&id) {
                    self.deleted.push(log.image.directory);
                }
            }
            // Entries recorded while a deletion was on its way may follow it.
            _ => {
                if let Some(log) = self.logs.get_mut(&id) {
                    log.apply(entry);
                }
            }
        }
    }

    /// Whether every extent that these entries (of one group) name is in its file. A group that
    /// nobody says was complete counts only then.
    pub(super) fn extents_verify(
        &self,
        directory: &Path,
        entries: &[Entry<'_>],
    ) -> io::Result<bool> {
        if is_planted(Breach::SkipExtentCheck) {
            return Ok(true);
        }
        for (index, entry) in entries.iter().enumerate() {
            let Entry::Extent { log, segment, .. } = entry else {
                continue;
            };
            let Some(path) = self.segment_path(directory, entries, *log, *segment) else {
                continue; // Of a log or segment that is gone.
            };
            let (before, after) = (&entries[..index], entries.get(index + 1));
            let shared = self.shared_block(before, entry);
            if !extent_verifies(&path, &shared, before.last(), entry, after)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes before an extent in its first block, as the journal has them.
    fn shared_block(&self, before: &[Entry<'_>], extent: &Entry<'_>) -> Vec<u8> {
        let Entry::Extent {
            log,
            segment,
            position,
            ..
        } = extent
        else {
            unreachable!("called for extents");
        };
        let start = position - position % BLOCK_BYTES as u64;
        let mut bytes = vec![0; (position - start) as usize];
        let mut known = 0;
        let replayed = self.logs.get(log);
        if let Some(redo) = replayed.and_then(|log| log.redo.get(segment)) {
            known = redo.copy_to(start, &mut bytes);
        }
        for entry in before {
            if let Entry::Append {
                log: appended,
                segment: to,
                position: at,
                bytes: with,
            } = entry
                && (appended, to) == (log, segment)
            {
                let from = (start + known as u64).checked_sub(*at);
                let more = from.and_then(|from| with.get(from as usize..));
                let more = more.unwrap_or_default();
                let count = more.len().min(bytes.len() - known);
                bytes[known..known + count].copy_from_slice(&more[..count]);
                known += count;
            }
        }
        bytes.truncate(known);
        bytes
    }

    /// Where a segment lies that the checkpoint, earlier groups or this one know.
    fn segment_path(
        &self,
        directory: &Path,
        entries: &[Entry<'_>],
        log: LogId,
        segment: SegmentId,
    ) -> Option<PathBuf> {
        let of_log = || entries.iter().filter(|entry| entry.log() == log);
        let known = self.logs.get(&log);
        let name = match known {
            Some(known) => known.image.directory.clone(),
            None => of_log().find_map(|entry| match entry {
                Entry::Create { directory, .. } => Some((*directory).to_string()),
                _ => None,
            })?,
        };
        let segments = known.map_or(&[][..], |log| &log.image.segments);
        let base_offset = match segments.iter().find(|known| known.id == segment) {
            Some(known) => known.base_offset,
            None => of_log().find_map(|entry| match entry {
                Entry::Roll {
                    segment: rolled,
                    base_offset,
                    ..
                } if *rolled == segment => Some(*base_offset),
                _ => None,
            })?,
        };
        Some(directory.join(name).join(segment_file_name(base_offset)))
    }

    /// Goes on without group `sequence`, which was acknowledged and is damaged. If its entries can
    /// be told apart, only the logs they name have lost something; otherwise every log has, unless
    /// a later entry shows that nothing is missing.
    pub(super) fn lose_group(
        &mut self,
        directory: &Path,
        sequence: u64,
        entries: Option<&[Entry<'_>]>,
    ) -> io::Result<()> {
        let known = entries.filter(|entries| {
            entries
                .iter()
                .all(|entry| self.logs.contains_key(&entry.log()))
        });
        match known {
            Some(entries) => {
                for entry in entries {
                    if let Some(log) = self.logs.get_mut(&entry.log()) {
                        log.apply_doubtful(directory, entry, sequence)?;
                    }
                }
            }
            None => {
                self.unreadable.get_or_insert(sequence);
                for log in self.logs.values_mut() {
                    log.doubt.get_or_insert(sequence);
                    log.may_lack_swap = true;
                }
            }
        }
        Ok(())
    }

    /// Settles what is still in doubt when the journal has ended.
    pub(super) fn finish(&mut self) {
        for log in self.logs.values_mut() {
            if let Some(sequence) = log.doubt {
                log.lose(sequence);
            }
            log.image.epochs.forget_before(log.image.start);
        }
    }
}

/// Checks the batches of one extent, with the parts of them that the entries beside it carry, and
/// the bytes that share its first block.
fn extent_verifies(
    path: &Path,
    shared: &[u8],
    before: Option<&Entry<'_>>,
    extent: &Entry<'_>,
    after: Option<&Entry<'_>>,
) -> io::Result<bool> {
    let Entry::Extent {
        log,
        segment,
        position,
        length,
        batches,
    } = extent
    else {
        unreachable!("called for extents");
    };
    let beside = |entry: Option<&Entry<'_>>| match entry {
        Some(Entry::Append {
            log: appended,
            segment: to,
            position,
            bytes,
        }) if appended == log && to == segment => Some((*position, bytes.to_vec())),
        _ => None,
    };
    let (begin, mut bytes) = beside(before)
        .filter(|(begin, bytes)| begin + bytes.len() as u64 == *position)
        .unwrap_or((*position, Vec::new()));
    if !startup::exists(path)? {
        return Ok(false);
    }
    let file = startup::File::open(path)?;
    let start = position - position % BLOCK_BYTES as u64;
    let mut found = vec![0; (position - start) as usize];
    if file.read_at(start, &mut found)? < found.len() || found != shared {
        return Ok(false);
    }
    let from = bytes.len();
    bytes.resize(from + *length as usize, 0);
    if file.read_at(*position, &mut bytes[from..])? < *length as usize {
        return Ok(false);
    }
    let end = begin + bytes.len() as u64;
    if let Some((_, rest)) = beside(after).filter(|(at, _)| *at == end) {
        bytes.extend_from_slice(&rest);
    }
    Ok(named_batches(batches).all(|(at, header)| {
        let batch = usize::try_from(at.wrapping_sub(begin))
            .ok()
            .and_then(|at| bytes.get(at..));
        batch.is_some_and(|batch| batch.starts_with(header) && batch_verifies(batch))
    }))
}

/// Whether the bytes begin with a whole batch that its checksum confirms.
fn batch_verifies(bytes: &[u8]) -> bool {
    BatchView::parse(bytes).is_ok_and(|batch| batch.verify_checksum().is_ok())
}

impl ReplayedLog {
    fn new(image: LogImage) -> ReplayedLog {
        ReplayedLog {
            image,
            redo: BTreeMap::new(),
            dropped: Vec::new(),
            swapped: Vec::new(),
            doubt: None,
            found_producers: ProducerState::default(),
            may_lack_swap: false,
        }
    }

    pub(super) fn damage(&mut self, what: String) {
        self.image.damage.get_or_insert(what);
    }

    fn lose(&mut self, sequence: u64) {
        let end = self.image.end;
        self.may_lack_swap = true;
        self.damage(format!(
            "journal group {sequence} was acknowledged but cannot be read: records from offset {end} on may be lost"
        ));
    }

    fn apply(&mut self, entry: &Entry<'_>) {
        let adds = !matches!(entry, Entry::Start { .. } | Entry::Swap { .. });
        if self.image.damage.is_some() && adds {
            return; // Nothing can be added behind a loss.
        }
        match entry {
            Entry::Roll {
                segment,
                base_offset,
                ..
            } => self.roll(*segment, *base_offset),
            Entry::Append {
                segment,
                position,
                bytes,
                ..
            } => {
                let appended = self
                    .redo_of(*segment)
                    .map(|redo| redo.append(*position, bytes));
                self.appended(
                    *segment,
                    appended.map(|known| known.map_err(|e| e.to_string())),
                );
            }
            Entry::Extent {
                segment,
                position,
                length,
                batches,
                ..
            } => {
                let taken = self
                    .redo_of(*segment)
                    .map(|redo| redo.extent(*position, u64::from(*length), batches));
                self.appended(
                    *segment,
                    taken.map(|known| known.map_err(|e| e.to_string())),
                );
            }
            Entry::Start { offset, .. } => {
                self.image.start = self.image.start.max(*offset);
                self.image.transactions.forget_before(self.image.start);
            }
            Entry::Drop { segment, .. } => self.drop_segment(*segment),
            Entry::Epoch { epoch, start, .. } => {
                self.image.epochs.begin(*epoch, *start);
            }
            Entry::Skip { to, .. } => self.image.end = self.image.end.max(*to),
            Entry::Truncate {
                segment,
                position,
                offset,
                ..
            } => self.truncate(*segment, *position, *offset),
            Entry::Producers { producers, .. } => self.found_producers.restore(producers.clone()),
            Entry::Swap { swap, .. } => self.swap(swap),
            Entry::Create { .. } | Entry::Delete { .. } => unreachable!("not of one log"),
        }
    }

    /// Applies an entry of a damaged group as far as it proves itself.
    fn apply_doubtful(
        &mut self,
        directory: &Path,
        entry: &Entry<'_>,
        sequence: u64,
    ) -> io::Result<()> {
        let proven = match entry {
            Entry::Append {
                segment,
                position,
                bytes,
                ..
            } => {
                let size = self.segment(*segment).map(|segment| segment.size_bytes);
                size == Some(*position) && are_batches(bytes, self.image.epochs.latest())
            }
            Entry::Swap { swap, .. } => {
                let proven = self.proven_swap(directory, swap)?;
                proven.inspect(|swap| self.swap(swap)).is_some()
            }
            _ => false,
        };
        match entry {
            Entry::Append { .. } if proven => self.apply(entry),
            _ if proven => {}
            _ => self.lose(sequence),
        }
        Ok(())
    }

    /// A swap out of a damaged group, if the new segment's file is whole: with what the file and the
    /// old segments say, and compaction as far as it was before.
    fn proven_swap(&self, directory: &Path, swap: &Swap) -> io::Result<Option<Swap>> {
        let is_old = |segment: &&SegmentImage| swap.old.contains(&segment.id);
        let old: Vec<&SegmentImage> = self.image.segments.iter().filter(is_old).collect();
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Ok(None);
        };
        let mut segments = self.image.segments.iter();
        segments.find(|segment| segment.id == last.id);
        let end = segments
            .next()
            .map_or(self.image.end, |next| next.base_offset);
        let own = directory.join(&self.image.directory);
        let cleaned = own.join(cleaned_file_name(swap.base_offset, swap.segment));
        let path = if startup::exists(&cleaned)? {
            cleaned
        } else {
            own.join(segment_file_name(swap.base_offset))
        };
        let mut swap = Swap {
            largest_timestamp_ms: largest_timestamp_ms(&old),
            first_timestamp_ms: first.first_timestamp_ms,
            progress: self.image.compaction,
            markers: Vec::new(),
            ..swap.clone()
        };
        let mut kept = BTreeSet::new();
        let mut look = |batch: &BatchView<'_>| {
            if batch.header().attributes.is_control() {
                kept.insert(Offset(batch.header().base_offset));
            }
        };
        let is_whole = old.iter().map(|old| old.id).eq(swap.old.iter().copied())
            && first.base_offset == swap.base_offset
            && startup::file_len(&path)? == Some(swap.size_bytes)
            && {
                let (position, next) =
                    good_batches(&path, &swap.image(), swap.base_offset, &mut look)?;
                position == swap.size_bytes && next <= end
            };
        let aborted = self.image.transactions.aborted().iter();
        let markers = aborted.map(|aborted| aborted.last_offset);
        let replaced = markers.filter(|marker| (swap.base_offset..end).contains(marker));
        swap.markers = replaced.filter(|marker| !kept.contains(marker)).collect();
        Ok(is_whole.then_some(swap))
    }

    fn segment(&self, id: SegmentId) -> Option<&SegmentImage> {
        self.image
            .segments
            .iter()
            .rev()
            .find(|segment| segment.id == id)
    }

    fn redo_of(&mut self, id: SegmentId) -> Option<&mut Redo> {
        let size_bytes = self.segment(id)?.size_bytes;
        Some(self.redo.entry(id).or_insert_with(|| Redo::new(size_bytes)))
    }

    fn appended(&mut self, segment: SegmentId, outcome: Option<Result<(), String>>) {
        match outcome {
            None => self.damage(format!(
                "the journal appends to segment {segment:?}, which is unknown"
            )),
            Some(Err(what)) => self.damage(format!("the journal of {segment:?}: {what}")),
            Some(Ok(())) => {
                // It follows what is known, so nothing in between is missing.
                self.doubt = None;
                self.take_batches(segment);
            }
        }
    }

    fn roll(&mut self, segment: SegmentId, base_offset: Offset) {
        if base_offset != self.image.end {
            let end = self.image.end;
            return self.damage(format!(
                "the journal continues at offset {base_offset}, not {end}"
            ));
        }
        self.doubt = None;
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

    /// Takes over every batch that is whole by now. A last one that never becomes whole was not
    /// acknowledged.
    fn take_batches(&mut self, segment: SegmentId) {
        let Some(index) = self
            .image
            .segments
            .iter()
            .rposition(|known| known.id == segment)
        else {
            return;
        };
        loop {
            let size = self.image.segments[index].size_bytes;
            let redo = self.redo.get_mut(&segment).expect("it was appended to");
            let Some(bytes) = redo.header_at(size) else {
                return;
            };
            let header = match BatchHeader::parse(bytes) {
                Ok(header) => header,
                Err(error) => {
                    return self.damage(format!(
                        "the journal holds no batch where one begins: {error}"
                    ));
                }
            };
            if size + header.size_bytes() as u64 > redo.end() {
                return;
            }
            let marker = if header.attributes.is_control() {
                let mut bytes = vec![0; header.size_bytes()];
                let known = redo.copy_to(size, &mut bytes);
                Some(bytes).filter(|bytes| known == bytes.len())
            } else {
                Some(Vec::new())
            };
            redo.forget_header(size);
            if header.base_offset != self.image.end.0 {
                let (found, wanted) = (header.base_offset, self.image.end);
                return self.damage(format!(
                    "the journal continues at offset {found}, not {wanted}"
                ));
            }
            let payload = marker.as_ref().map(|batch| batch.get(HEADER_BYTES..));
            let marker = payload
                .map(|payload| TransactionMarker::parse(&header, payload.unwrap_or_default()));
            let Some(Ok(marker)) = marker else {
                let at = self.image.end;
                return self.damage(format!("the journal does not hold the marker at {at}"));
            };
            self.take_batch(index, &header, marker.as_ref());
        }
    }

    fn take_batch(
        &mut self,
        index: usize,
        header: &BatchHeader,
        marker: Option<&TransactionMarker>,
    ) {
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
        let LogImage {
            producers,
            transactions,
            ..
        } = &mut self.image;
        transactions.note(producers, header, base_offset, marker);
        self.image.end = Offset(header.last_offset() + 1);
    }

    /// Puts a compacted segment in the place of those it was made from.
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
            let segment = swap.segment;
            return self.damage(format!(
                "the journal swaps segments that are unknown for {segment:?}"
            ));
        };
        if is_planted(Breach::ReplayIntoSwapped) {
            // By name instead of by identity: the new file has the name of the first old one.
            let redo = self.redo.remove(&swap.old[0]);
            self.redo.extend(redo.map(|redo| (swap.segment, redo)));
        }
        for id in &swap.old {
            self.redo.remove(id);
        }
        let replaced = self.image.segments.splice(old, [swap.image()]);
        self.dropped.extend(replaced);
        self.swapped.push((swap.base_offset, swap.segment));
        self.image.compaction = swap.progress;
        self.image.transactions.forget_markers(&swap.markers);
    }

    fn drop_segment(&mut self, segment: SegmentId) {
        self.redo.remove(&segment);
        let segments = std::mem::take(&mut self.image.segments).into_iter();
        let (dropped, kept): (Vec<_>, Vec<_>) = segments.partition(|known| known.id == segment);
        self.dropped.extend(dropped);
        self.image.segments = kept;
    }

    fn truncate(&mut self, segment: SegmentId, position: BytePosition, offset: Offset) {
        let place = CutPlace {
            segment,
            position,
            offset,
        };
        let Some(later) = self.image.cut(place) else {
            return self.damage(format!(
                "the journal cuts the log where it has nothing: {place:?}"
            ));
        };
        let found = std::mem::take(&mut self.found_producers);
        self.image.restore_producers(found);
        self.doubt = None;
        for later in &later {
            self.redo.remove(&later.id);
        }
        self.dropped.extend(later);
        if let Some(redo) = self.redo.get_mut(&segment) {
            redo.cut(position);
        }
    }
}

fn largest_timestamp_ms(segments: &[&SegmentImage]) -> i64 {
    let timestamps = segments.iter().map(|segment| segment.largest_timestamp_ms);
    timestamps.max().unwrap_or(NO_TIMESTAMP_MS)
}

/// Whether these bytes are whole batches that their checksums confirm, one behind the other, of the
/// leader that wrote last: its epoch is not under the checksum.
fn are_batches(bytes: &[u8], epoch: Option<LeaderEpoch>) -> bool {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        if !batch_verifies(rest) {
            return false;
        }
        let batch = BatchView::parse(rest).expect("just verified");
        if Some(LeaderEpoch(batch.header().partition_leader_epoch)) != epoch {
            return false;
        }
        rest = &rest[batch.bytes().len()..];
    }
    rest.is_empty()
}
