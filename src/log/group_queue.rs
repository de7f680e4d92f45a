//! What waits for a journal's next group, and the group it becomes.
//!
//! Appends of one log that follow each other become one entry. When a group is formed, an append
//! with enough full blocks is split: the blocks go straight to their place in the segment, named by
//! an [`Entry::Extent`], and only what is left of it travels in the group.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use smallvec::SmallVec;

use super::entry::{
    APPEND_HEADER_BYTES, EXTENT_HEADER_BYTES, NAMED_BATCH_BYTES, encode_append_header,
    encode_extent_header,
};
use super::flush_mark::{DirectRange, FlushMark};
use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::journal::Cut;
use super::position::{AppendedBytes, BytePosition, LogId, SegmentId};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use crate::runtime::disk::File;
use crate::runtime::signal::Promise;
use crate::wire::record_batch::HEADER_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The headers of the batches in an extent may take this part of it at most, as a divisor: many
/// tiny batches are better copied than named.
const NAMES_DIVISOR: u64 = 8;

/// Where an append may be written straight to.
pub(super) struct DirectTarget {
    pub(super) file: File,
    /// Blocks below this are allocated.
    pub(super) allocated: BytePosition,
    /// Blocks below this were written before.
    pub(super) written: BytePosition,
    /// The partly filled block that the append begins in may be overwritten once the log is flushed
    /// up to here: only then do complete groups hold all of it.
    pub(super) overwrite_after: AppendedBytes,
}

/// Bytes appended to a log.
pub(super) struct PendingAppend {
    pub(super) log: LogId,
    pub(super) segment: SegmentId,
    /// First byte of the entry; before `begin` when it repeats the beginning of a block.
    pub(super) position: BytePosition,
    /// First byte of the first batch, if it consists of whole batches.
    pub(super) begin: BytePosition,
    /// Bytes of the entry.
    pub(super) length: usize,
    /// They, from the boundary of the block that `position` is in.
    pub(super) bytes: SmallVec<[Slice; 2]>,
    pub(super) mark: Rc<FlushMark>,
    /// What the mark shows once this is flushed.
    pub(super) appended: AppendedBytes,
    pub(super) batches: u32,
    pub(super) direct: Option<DirectTarget>,
}

/// Which part of an append is written where.
struct DirectPlan {
    /// First byte that only the segment's file brings.
    from: BytePosition,
    /// The blocks to write.
    blocks: Range<BytePosition>,
}

impl PendingAppend {
    fn end(&self) -> BytePosition {
        self.position + self.length as u64
    }

    /// The slices of a range, which begins at or after the boundary of the first block.
    fn part(&self, range: Range<BytePosition>) -> SmallVec<[Slice; 2]> {
        let mut parts = SmallVec::new();
        let mut at = self.position - self.position % BLOCK;
        for slice in &self.bytes {
            let end = at + slice.len() as u64;
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to {
                parts.push(slice.part((from - at) as usize..(to - at) as usize));
            }
            at = end;
        }
        parts
    }

    /// Takes over the bytes that follow; false when they lie in another buffer, or when only one of
    /// the two may be written directly.
    fn join(&mut self, next: &PendingAppend) -> bool {
        let follows = self.segment == next.segment
            && self.end() == next.position
            && next.position == next.begin
            && self.direct.is_some() == next.direct.is_some();
        let (Some(first), Some(last)) = (next.bytes.first(), self.bytes.last_mut()) else {
            return false;
        };
        if !follows {
            return false;
        }
        let joined = last.join(first);
        if !joined && !next.position.is_multiple_of(BLOCK) {
            return false;
        }
        self.bytes
            .extend(next.bytes[usize::from(joined)..].iter().cloned());
        self.length += next.length;
        self.appended = next.appended;
        self.batches += next.batches;
        if let (Some(mine), Some(theirs)) = (&mut self.direct, &next.direct) {
            mine.allocated = theirs.allocated;
        }
        true
    }

    /// How to write this if it has enough full blocks to be worth it.
    fn direct_plan(&self, room: &GroupRoom) -> Option<DirectPlan> {
        let target = self.direct.as_ref()?;
        let floor = self.begin - self.begin % BLOCK;
        let image_complete = self.mark.flushed() >= target.overwrite_after
            || is_planted(Breach::RewriteBlockUnderImage);
        let overwrites = image_complete && !self.mark.is_partial_write_on(self.segment, floor);
        let start = if overwrites {
            floor
        } else {
            self.begin.next_multiple_of(BLOCK)
        };
        let stop = self.end() - self.end() % BLOCK;
        let from = self.begin.max(start);
        let least_bytes = room.least_bytes(stop <= target.written);
        let names = u64::from(self.batches) * NAMED_BATCH_BYTES as u64;
        let worth = stop >= from + least_bytes as u64 && names <= (stop - from) / NAMES_DIVISOR;
        (worth && stop <= target.allocated).then_some(DirectPlan {
            from,
            blocks: start..stop,
        })
    }

    /// Positions and headers of the batches that begin before `stop`.
    fn named_batches(&self, stop: BytePosition) -> Vec<u8> {
        let mut names = Vec::with_capacity(self.batches as usize * NAMED_BATCH_BYTES);
        let mut at = self.begin;
        while at < stop {
            names.extend_from_slice(&at.to_le_bytes());
            let header_at = names.len();
            for slice in self.part(at..at + HEADER_BYTES as u64) {
                names.extend_from_slice(&slice);
            }
            let header = &names[header_at..];
            assert!(header.len() == HEADER_BYTES, "appends are whole batches");
            let length = i32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
            at += 12 + u64::try_from(length).expect("validated before it was appended");
        }
        names
    }

    /// Splits after `length` bytes. Neither part may be written directly: they are no whole batches.
    fn split(mut self, length: usize) -> (PendingAppend, PendingAppend) {
        assert!(length < self.length);
        let middle = self.position + length as u64;
        let rest_length = self.length - length;
        let tail = PendingAppend {
            position: middle,
            begin: middle,
            bytes: self.part(middle - middle % BLOCK..self.end()),
            length: rest_length,
            mark: self.mark.clone(),
            batches: 0,
            direct: None,
            ..self
        };
        self.bytes = self.part(self.position - self.position % BLOCK..middle);
        self.length = length;
        self.appended = AppendedBytes(self.appended.0.saturating_sub(rest_length as u64));
        self.direct = None;
        (self, tail)
    }
}

/// Something that waits for a group.
/// An entry that makes a log known. The group behind the one that carries it carries it again, so
/// that no log is forgotten when one group cannot be read.
pub(super) struct Creation {
    pub(super) log: LogId,
    bytes: Vec<u8>,
}

struct Control {
    bytes: Vec<u8>,
    done: Promise<()>,
    /// The log it makes known, unless that is deleted already.
    creates: Option<LogId>,
}

enum Pending {
    Control(Control),
    Append(PendingAppend),
    Cut(Promise<Cut>),
}

/// What a group may take.
pub(super) struct GroupRoom {
    /// Bytes of its body.
    pub(super) body_bytes: usize,
    /// Bytes that go to segments directly.
    pub(super) direct_bytes: usize,
    /// Full blocks of an append that are worth a write of their own.
    pub(super) direct_least_bytes: usize,
    /// The same at least, where the file's blocks were never written.
    pub(super) direct_unwritten_bytes: usize,
}

impl GroupRoom {
    /// Full blocks that are worth a write of their own, to blocks that were written before or not.
    fn least_bytes(&self, were_written: bool) -> usize {
        match were_written {
            true => self.direct_least_bytes,
            false => self.direct_least_bytes.max(self.direct_unwritten_bytes),
        }
    }
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct GroupQueue {
    pending: VecDeque<Pending>,
    bytes: usize,
    /// Where the last entry of a log stands in `pending`, if an append may still join it; counted
    /// from the number of entries ever taken out.
    joinable: BTreeMap<LogId, u64>,
    taken: u64,
    cuts: usize,
    /// To be carried again by the next group.
    repeated: Vec<Creation>,
}

impl GroupQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes that groups would carry if all of it went to the journal.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has_cut(&self) -> bool {
        self.cuts > 0
    }

    pub(super) fn append(&mut self, append: PendingAppend) {
        self.bytes += append.length;
        if let Some(earlier) = self.joinable(append.log)
            && earlier.join(&append)
        {
            return;
        }
        self.bytes += APPEND_HEADER_BYTES;
        self.push(append.log, Pending::Append(append));
    }

    pub(super) fn control(&mut self, log: LogId, bytes: Vec<u8>, done: Promise<()>, creates: bool) {
        self.bytes += bytes.len();
        let creates = creates.then_some(log);
        self.push(
            log,
            Pending::Control(Control {
                bytes,
                done,
                creates,
            }),
        );
    }

    /// The group that carried these is complete. They ride on the next one and call for none.
    pub(super) fn repeat(&mut self, creations: Vec<Creation>) {
        self.repeated.extend(creations);
    }

    /// A log is deleted: nothing behind that makes it known again.
    pub(super) fn forget(&mut self, log: LogId) {
        self.repeated.retain(|creation| creation.log != log);
        for pending in &mut self.pending {
            if let Pending::Control(control) = pending {
                control.creates = control.creates.filter(|created| *created != log);
            }
        }
    }

    /// What was to be carried again is covered by the checkpoint that closes the journal.
    pub(super) fn close(&mut self) {
        self.repeated.clear();
    }

    /// Whatever is added later is in a later group.
    pub(super) fn cut(&mut self, done: Promise<Cut>) {
        self.joinable.clear();
        self.cuts += 1;
        self.pending.push_back(Pending::Cut(done));
    }

    fn push(&mut self, log: LogId, pending: Pending) {
        let number = self.taken + self.pending.len() as u64;
        self.joinable.insert(log, number);
        self.pending.push_back(pending);
    }

    /// The last pending entry of a log, if it is an append.
    fn joinable(&mut self, log: LogId) -> Option<&mut PendingAppend> {
        let index = self.joinable.get(&log)?.checked_sub(self.taken)?;
        match self.pending.get_mut(usize::try_from(index).ok()?)? {
            Pending::Append(append) => Some(append),
            _ => None,
        }
    }

    /// Forms a group of what is pending, until it is full or a cut ends it.
    pub(super) fn take_group(&mut self, room: &GroupRoom) -> GroupBody {
        let mut body = GroupBody::default();
        // Half of the group at most, so that there is room for every other entry.
        while let Some(creation) = self
            .repeated
            .pop_if(|creation| body.length + creation.bytes.len() <= room.body_bytes / 2)
        {
            body.control(creation.bytes);
        }
        while body.cut.is_none()
            && let Some(pending) = self.pending.pop_front()
        {
            self.taken += 1;
            if let Some(back) = self.take_into(&mut body, pending, room) {
                self.taken -= 1;
                self.pending.push_front(back);
                break;
            }
        }
        assert!(
            self.bytes == 0 || !self.pending.is_empty(),
            "{} bytes of nothing",
            self.bytes
        );
        self.joinable.clear();
        body
    }

    /// Puts one entry into the group; gives back what does not fit.
    fn take_into(
        &mut self,
        body: &mut GroupBody,
        pending: Pending,
        room: &GroupRoom,
    ) -> Option<Pending> {
        let left = room.body_bytes - body.length;
        match pending {
            Pending::Cut(cut) => {
                self.cuts -= 1;
                body.cut = Some(cut);
                None
            }
            Pending::Control(control) => {
                let length = control.bytes.len();
                assert!(length <= room.body_bytes, "control entries are small");
                if length > left {
                    return Some(Pending::Control(control));
                }
                self.bytes -= length;
                body.promises.push(control.done);
                if let Some(log) = control.creates {
                    let bytes = control.bytes.clone();
                    body.creations.push(Creation { log, bytes });
                }
                body.control(control.bytes);
                None
            }
            Pending::Append(append) => self.take_append(body, append, room),
        }
    }

    fn take_append(
        &mut self,
        body: &mut GroupBody,
        append: PendingAppend,
        room: &GroupRoom,
    ) -> Option<Pending> {
        let left = room.body_bytes - body.length;
        if let Some(plan) = append.direct_plan(room) {
            let needed = 2 * (APPEND_HEADER_BYTES + BLOCK_BYTES)
                + EXTENT_HEADER_BYTES
                + append.batches as usize * NAMED_BATCH_BYTES;
            let direct = (plan.blocks.end - plan.blocks.start) as usize;
            let crowded = body.direct_bytes > 0 && body.direct_bytes + direct > room.direct_bytes;
            if needed <= left && !crowded {
                self.bytes -= append.length + APPEND_HEADER_BYTES;
                body.direct(append, &plan);
                return None;
            }
            if body.entries > 0 && needed <= room.body_bytes {
                return Some(Pending::Append(append));
            }
        }
        let left = left.saturating_sub(APPEND_HEADER_BYTES);
        if left == 0 {
            return Some(Pending::Append(append));
        }
        if append.length <= left {
            self.bytes -= append.length + APPEND_HEADER_BYTES;
            body.append(append);
            return None;
        }
        let (first, rest) = append.split(left);
        self.bytes -= first.length;
        body.append(first);
        Some(Pending::Append(rest))
    }

    /// Gives everything up; the logs are told by their marks.
    pub(super) fn fail(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if let Pending::Append(append) = pending {
                append.mark.fail();
            }
        }
        self.joinable.clear();
        self.bytes = 0;
    }
}

/// Blocks of a segment that are written beside a group.
pub(super) struct DirectWrite {
    pub(super) file: File,
    pub(super) position: BytePosition,
    pub(super) bytes: Slice,
}

/// What one group carries, and what waits for it.
#[derive(Default)]
pub(super) struct GroupBody {
    pieces: Vec<Piece>,
    pub(super) length: usize,
    pub(super) entries: u32,
    pub(super) direct: Vec<DirectWrite>,
    pub(super) direct_bytes: usize,
    pub(super) marks: Vec<(Rc<FlushMark>, AppendedBytes)>,
    pub(super) promises: Vec<Promise<()>>,
    pub(super) creations: Vec<Creation>,
    pub(super) cut: Option<Promise<Cut>>,
}

/// An append to a log that waits in memory, for [`group_in_memory`].
pub struct MemoryAppend {
    /// The log.
    pub log: LogId,
    /// Where its first byte stands in the segment.
    pub position: BytePosition,
    /// Its bytes, from the boundary of the block that `position` is in.
    pub bytes: Slice,
    /// The log's own.
    pub mark: Rc<FlushMark>,
}

/// The group that a journal would write for these appends, on the road that journal and log take but
/// without either: for `make micro`, which counts what this costs. All of it travels in the group.
///
/// # Panics
/// When a group cannot hold the appends.
#[must_use]
pub fn group_in_memory(
    appends: impl Iterator<Item = MemoryAppend>,
    mut header: GroupHeader,
) -> Slice {
    let mut queue = GroupQueue::default();
    for append in appends {
        let length = append.bytes.len() - (append.position % BLOCK) as usize;
        queue.append(PendingAppend {
            log: append.log,
            segment: SegmentId(u64::from(append.log.partition)),
            position: append.position,
            begin: append.position,
            length,
            bytes: smallvec::smallvec![append.bytes],
            mark: append.mark,
            appended: AppendedBytes(append.position + length as u64),
            batches: 1,
            direct: None,
        });
    }
    let mut body = queue.take_group(&GroupRoom {
        body_bytes: u32::MAX as usize,
        direct_bytes: 0,
        direct_least_bytes: usize::MAX,
        direct_unwritten_bytes: 0,
    });
    assert!(queue.is_empty(), "the appends are one group");
    header.body_length = u32::try_from(body.length).expect("checked by the room");
    header.entry_count = body.entries;
    body.encode(header).0
}

enum Piece {
    Owned(Vec<u8>),
    Shared(Slice),
}

impl GroupBody {
    fn control(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len();
        self.entries += 1;
        self.pieces.push(Piece::Owned(bytes));
    }

    fn append(&mut self, append: PendingAppend) {
        self.entry(&append, append.position..append.end());
        self.marks.push((append.mark, append.appended));
    }

    /// Adds an entry for a part of an append, unless it is empty.
    fn entry(&mut self, append: &PendingAppend, range: Range<BytePosition>) {
        let length = (range.end - range.start) as usize;
        if length == 0 {
            return;
        }
        let mut head = Vec::with_capacity(APPEND_HEADER_BYTES);
        encode_append_header(&mut head, append.log, append.segment, range.start, length);
        self.control(head);
        self.length += length;
        let shared = append.part(range).into_iter().map(Piece::Shared);
        self.pieces.extend(shared);
    }

    /// Adds an append whose full blocks are written beside the group.
    fn direct(&mut self, append: PendingAppend, plan: &DirectPlan) {
        let stop = plan.blocks.end;
        self.entry(&append, append.position..plan.from);
        let names = append.named_batches(stop);
        let mut head = Vec::with_capacity(EXTENT_HEADER_BYTES + names.len());
        encode_extent_header(
            &mut head,
            append.log,
            append.segment,
            plan.from,
            (stop - plan.from) as usize,
            names.len() / NAMED_BATCH_BYTES,
        );
        head.extend_from_slice(&names);
        self.control(head);
        self.entry(&append, stop..append.end());
        append.mark.begin_direct(DirectRange {
            segment: append.segment,
            start: plan.blocks.start,
            end: stop,
            appended: append.appended,
        });
        let mut position = plan.blocks.start;
        let file = append.direct.as_ref().expect("planned on it").file.clone();
        for bytes in append.part(plan.blocks.clone()) {
            let length = bytes.len();
            self.direct_bytes += length;
            self.direct.push(DirectWrite {
                file: file.clone(),
                position,
                bytes,
            });
            position += length as u64;
        }
        self.marks.push((append.mark, append.appended));
    }

    /// Header, body and padding in one buffer, and the header's checksum.
    pub(super) fn encode(&mut self, mut header: GroupHeader) -> (Slice, u32) {
        let mut body_checksum = GroupHeader::body_checksum(header.epoch, &[]);
        for piece in &self.pieces {
            body_checksum = crc32c::crc32c_append(body_checksum, piece.bytes());
        }
        header.body_checksum = body_checksum;
        let (head, checksum) = header.encode();
        let mut buffer = AppendBuf::allocate(GROUP_HEADER_BYTES + self.length);
        buffer.append(&head);
        for piece in self.pieces.drain(..) {
            buffer.append(piece.bytes());
        }
        buffer.pad_to_block();
        (buffer.whole(), checksum)
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(slice) => slice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_were_never_written_need_larger_appends() {
        let mut room = GroupRoom {
            body_bytes: 1 << 20,
            direct_bytes: 1 << 20,
            direct_least_bytes: 16 << 10,
            direct_unwritten_bytes: 256 << 10,
        };
        assert_eq!(room.least_bytes(true), 16 << 10);
        assert_eq!(room.least_bytes(false), 256 << 10);
        room.direct_least_bytes = 512 << 10;
        assert_eq!(room.least_bytes(false), 512 << 10);
    }
}
