//! Cutting damaged logs on an operator's word.
//!
//! A damaged log stays offline over restarts. Repair keeps everything up to the first byte that
//! does not verify, cuts the rest, says what that was, and lets the log be served again.

use std::io;
use std::path::Path;

use super::index::IndexFile;
use super::partition_log::{CutPlace, LogImage};
use super::position::{BytePosition, Offset};
use super::producer_state::ProducerState;
use super::segment::{SegmentImage, index_file_name, segment_file_name};
use super::transactions::Transactions;
use crate::runtime::startup;
use crate::wire::record_batch::{BatchHeader, BatchView, HEADER_BYTES};
use crate::wire::transaction_marker::TransactionMarker;

/// The largest batch that is looked at; one that claims more does not verify.
const MOST_BATCH_BYTES: usize = 1 << 30;

/// What repair did, or would do, to one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The log's directory, which is its topic and partition.
    pub directory: String,
    /// Why it was offline.
    pub damage: String,
    /// First offset that may be read.
    pub start: Offset,
    /// Where the log ends after the repair.
    pub end: Offset,
    /// Where it ended as far as was known; records acknowledged behind it are lost too.
    pub known_end: Offset,
    /// Bytes cut off.
    pub cut_bytes: u64,
}

/// Repairs a log, unless it is not damaged.
pub(super) fn repair(image: &mut LogImage, data_directory: &Path) -> io::Result<Option<Repair>> {
    let Some(damage) = image.damage.take() else {
        return Ok(None);
    };
    let known_end = image.end;
    let size = |image: &LogImage| image.segments.iter().map(|s| s.size_bytes).sum::<u64>();
    let before = size(image);
    let mut expected = image.segments.first().map_or(image.end, |s| s.base_offset);
    let directory = data_directory.join(&image.directory);
    let mut index = 0;
    let mut told = Told::default();
    while let Some(segment) = image.segments.get(index).cloned() {
        let path = directory.join(segment_file_name(segment.base_offset));
        if let Some((size_bytes, end)) = other_whole_file(&path, &segment, expected)?
            && take_swapped_in(image, &directory, index, (size_bytes, end))?
        {
            let swapped = &image.segments[index];
            good_batches(&path, swapped, expected, &mut |batch| told.note(batch))?;
            expected = end;
            index += 1;
            continue;
        }
        let look = &mut |batch: &BatchView<'_>| told.note(batch);
        let (position, end) = good_batches(&path, &segment, expected, look)?;
        expected = end;
        if position < segment.size_bytes {
            let place = CutPlace {
                segment: segment.id,
                position,
                offset: end,
            };
            image.cut(place).expect("a place within the log");
            break;
        }
        index += 1;
    }
    told.settle(image);
    Ok(Some(Repair {
        directory: image.directory.clone(),
        damage,
        start: image.start,
        end: image.end,
        known_end,
        cut_bytes: before.saturating_sub(size(image)),
    }))
}

/// What the batches that are left say about producers and transactions: what the journal said may lack
/// a marker, or tell of one that is gone.
#[derive(Default)]
struct Told {
    producers: ProducerState,
    transactions: Transactions,
}

impl Told {
    fn note(&mut self, batch: &BatchView<'_>) {
        let header = batch.header();
        // Other control batches say nothing about a producer.
        let marker = TransactionMarker::parse(header, batch.payload()).unwrap_or_default();
        let base_offset = Offset(header.base_offset);
        self.transactions
            .note(&mut self.producers, header, base_offset, marker.as_ref());
    }

    fn settle(mut self, image: &mut LogImage) {
        self.transactions.forget_before(image.start);
        image.producers = self.producers;
        image.transactions = self.transactions;
    }
}

/// Size and next offset of a file that consists of whole batches and is not as long as its segment
/// should be.
pub(super) fn other_whole_file(
    path: &Path,
    segment: &SegmentImage,
    expected: Offset,
) -> io::Result<Option<(u64, Offset)>> {
    let found = startup::file_len(path)?;
    let Some(size_bytes) = found.filter(|found| *found != segment.size_bytes) else {
        return Ok(None);
    };
    let whole = SegmentImage {
        size_bytes,
        index: None,
        ..*segment
    };
    let (position, end) = good_part(path, &whole, expected)?;
    Ok((position == size_bytes).then_some((size_bytes, end)))
}

/// Takes a whole file with other batches than the segment's for one that was swapped in by an entry
/// that is lost, if the index beside it says so or it cannot be what is left of the segment: it is
/// longer, or reaches into later segments. Those it reaches into, and those behind it that are gone,
/// are the ones it replaced.
fn take_swapped_in(
    image: &mut LogImage,
    directory: &Path,
    index: usize,
    (size_bytes, end): (u64, Offset),
) -> io::Result<bool> {
    let segment = &image.segments[index];
    let Some(next) = image.segments.get(index + 1) else {
        return Ok(false);
    };
    let newest = image.segments.last().map_or(end, |last| last.base_offset);
    let named = index_beside(directory, segment.base_offset)?
        .filter(|file| file.size_bytes == size_bytes && file.segment != segment.id);
    let is_other = size_bytes > segment.size_bytes || next.base_offset < end || named.is_some();
    if newest < end || !is_other {
        return Ok(false);
    }
    let mut largest_ms = image.segments[index].largest_timestamp_ms;
    while index + 2 < image.segments.len() {
        let next = &image.segments[index + 1];
        let path = directory.join(segment_file_name(next.base_offset));
        if next.base_offset >= end && startup::exists(&path)? {
            break;
        }
        largest_ms = largest_ms.max(next.largest_timestamp_ms);
        image.segments.remove(index + 1);
    }
    let segment = &mut image.segments[index];
    segment.id = named.map_or(segment.id, |file| file.segment);
    segment.size_bytes = size_bytes;
    segment.sealed = true;
    segment.largest_timestamp_ms = largest_ms;
    segment.index = None;
    Ok(true)
}

fn index_beside(directory: &Path, base_offset: Offset) -> io::Result<Option<IndexFile>> {
    let path = directory.join(index_file_name(base_offset));
    if !startup::exists(&path)? {
        return Ok(None);
    }
    let bytes = startup::read_file(&path, IndexFile::MOST_BYTES as u64)?;
    Ok(IndexFile::decode(&bytes, base_offset).ok())
}

/// How far the batches of a segment verify: the position, and the offset that follows.
pub(super) fn good_part(
    path: &Path,
    segment: &SegmentImage,
    expected: Offset,
) -> io::Result<(BytePosition, Offset)> {
    good_batches(path, segment, expected, &mut |_| {})
}

/// As [`good_part`], with a look at every batch that verifies.
pub(super) fn good_batches(
    path: &Path,
    segment: &SegmentImage,
    expected: Offset,
    look: &mut dyn FnMut(&BatchView<'_>),
) -> io::Result<(BytePosition, Offset)> {
    let (mut position, mut next) = (0, expected.max(segment.base_offset));
    if startup::file_len(path)?.is_none() {
        return Ok((position, next));
    }
    let file = startup::File::open(path)?;
    while position < segment.size_bytes {
        let mut bytes = vec![0; HEADER_BYTES];
        if file.read_at(position, &mut bytes)? < HEADER_BYTES {
            break;
        }
        let Ok(header) = BatchHeader::parse(&bytes) else {
            break;
        };
        let end = position + header.size_bytes() as u64;
        let fits = header.size_bytes() <= MOST_BATCH_BYTES && end <= segment.size_bytes;
        if !fits || header.base_offset < next.0 {
            break;
        }
        bytes.resize(header.size_bytes(), 0);
        if file.read_at(position, &mut bytes)? < bytes.len() {
            break;
        }
        let batch = match BatchView::parse(&bytes) {
            Ok(batch) if batch.verify_checksum().is_ok() => batch,
            _ => break,
        };
        look(&batch);
        position = end;
        next = Offset(header.last_offset() + 1);
    }
    Ok((position, next))
}
