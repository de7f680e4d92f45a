//! What a log and its journal tell each other: how far the log is durable, and which blocks of its
//! segments are being written by whom.
//!
//! Shared by the two on one core. The journal moves it forward when groups complete; the log looks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::position::{AppendedBytes, BytePosition, SegmentId};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::signal::Signal;

/// Blocks of a segment that a group writes straight to their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectRange {
    pub(super) segment: SegmentId,
    /// First byte, at a block's boundary.
    pub(super) start: BytePosition,
    /// End, at a block's boundary.
    pub(super) end: BytePosition,
    /// They are in the file once the log is flushed up to here.
    pub(super) appended: AppendedBytes,
}

/// See the head of this file.
#[derive(Default)]
pub struct FlushMark {
    flushed: Cell<AppendedBytes>,
    failed: Cell<bool>,
    moved: Signal,
    /// Ranges that are on their way or durable but not yet counted as stored, in order.
    direct: RefCell<VecDeque<DirectRange>>,
    /// The partly filled block that a background write is on: nobody else may write it.
    partial_write: Cell<Option<(SegmentId, BytePosition)>>,
}

impl FlushMark {
    /// Bytes ever appended to the log that are durable.
    #[must_use]
    pub fn flushed(&self) -> AppendedBytes {
        self.flushed.get()
    }

    /// Whether the journal has failed: nothing more will be flushed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Raised when the mark moves or fails.
    #[must_use]
    pub fn moved(&self) -> &Signal {
        &self.moved
    }

    pub(super) fn advance(&self, to: AppendedBytes) {
        assert!(
            to >= self.flushed.get(),
            "{to:?} after {:?}",
            self.flushed.get()
        );
        self.flushed.set(to);
        self.moved.raise();
    }

    pub(super) fn fail(&self) {
        self.failed.set(true);
        self.moved.raise();
    }

    /// Notes blocks that a group now being written covers.
    pub(super) fn begin_direct(&self, range: DirectRange) {
        let mut direct = self.direct.borrow_mut();
        assert!(range.start < range.end, "{range:?}");
        // A range that a cut has shortened may end within the block that this one begins with.
        let last = direct.back();
        assert!(
            last.is_none_or(|last| {
                let end = last.end - last.end % BLOCK_BYTES as u64;
                last.segment != range.segment || end <= range.start
            }),
            "{range:?} after {last:?}",
        );
        direct.push_back(range);
    }

    /// The oldest range not taken yet, if its group is durable.
    pub(super) fn durable_direct(&self) -> Option<DirectRange> {
        let first = self.direct.borrow().front().copied()?;
        (first.appended <= self.flushed.get()).then_some(first)
    }

    /// Forgets the oldest range.
    pub(super) fn take_direct(&self) {
        self.direct.borrow_mut().pop_front();
    }

    /// Forgets all ranges: the directory has failed.
    pub(super) fn forget_direct(&self) {
        self.direct.borrow_mut().clear();
    }

    /// Where the first range of `segment` begins: from there on somebody else writes.
    pub(super) fn first_direct(&self, segment: SegmentId) -> Option<BytePosition> {
        let direct = self.direct.borrow();
        let mut of_segment = direct.iter().filter(|range| range.segment == segment);
        of_segment.next().map(|range| range.start)
    }

    /// The log was cut there: ranges behind it are forgotten, one that reaches beyond it ends there.
    /// Everything is flushed, so none is on its way.
    pub(super) fn cut_direct(&self, segment: SegmentId, position: BytePosition) {
        let mut direct = self.direct.borrow_mut();
        let Some(first) = direct
            .iter()
            .position(|range| range.segment == segment && range.end > position)
        else {
            return;
        };
        let reaches = direct[first].start < position;
        direct[first].end = position;
        direct.truncate(first + usize::from(reaches));
    }

    /// Notes the partly filled block that a background write begins or, with none, has ended on.
    pub(super) fn set_partial_write(&self, block: Option<(SegmentId, BytePosition)>) {
        self.partial_write.set(block);
    }

    /// Whether a background write is on that block.
    pub(super) fn is_partial_write_on(&self, segment: SegmentId, block: BytePosition) -> bool {
        self.partial_write.get() == Some((segment, block))
    }
}
