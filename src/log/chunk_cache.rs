//! The memory between sockets and disk: one budget per core for all chunks of all logs.
//!
//! A chunk is an aligned window of a segment. The newest chunk of a segment is where appends are
//! copied to; chunks whose bytes are not yet stored in the segment's file are pinned; all others
//! stay as cache until the budget needs their memory. Eviction is second chance: a chunk that was
//! read since the hand last passed is spared once, so one scan does not flush what others use.
//!
//! *Architecture Invariant*: bytes that are in no segment file are never evicted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Weak;

use super::partition_log::PartitionLog;
use super::position::{BytePosition, SegmentId};
use crate::runtime::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use crate::runtime::signal::Signal;

/// Sizes of the cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Memory of all chunks of the core.
    pub total_bytes: usize,
    /// Appended bytes that are in no segment file yet; beyond it appends wait.
    pub unstored_bytes: usize,
    /// The smallest chunk an append opens.
    pub least_chunk_bytes: usize,
    /// The largest chunk.
    pub most_chunk_bytes: usize,
}

enum ChunkBytes {
    Open(AppendBuf),
    Full(Slice),
}

/// One window of a segment.
pub(super) struct Chunk {
    bytes: ChunkBytes,
    memory_bytes: usize,
    used: Cell<bool>,
}

impl Chunk {
    pub(super) fn open(buffer: AppendBuf) -> Chunk {
        let memory_bytes = buffer.capacity();
        Chunk {
            bytes: ChunkBytes::Open(buffer),
            memory_bytes,
            used: Cell::new(true),
        }
    }

    fn full(bytes: Slice) -> Chunk {
        let memory_bytes = bytes.len().next_multiple_of(BLOCK_BYTES);
        Chunk {
            bytes: ChunkBytes::Full(bytes),
            memory_bytes,
            used: Cell::new(false),
        }
    }

    fn len(&self) -> usize {
        match &self.bytes {
            ChunkBytes::Open(buffer) => buffer.len(),
            ChunkBytes::Full(slice) => slice.len(),
        }
    }
}

/// The chunks of one segment by their first position. They do not overlap.
#[derive(Default)]
pub(super) struct Chunks {
    by_position: BTreeMap<BytePosition, Chunk>,
}

impl Chunks {
    /// The chunk that holds the byte at `position`, as far as it goes from there.
    pub(super) fn from(&self, position: BytePosition) -> Option<Slice> {
        let (start, chunk) = self.by_position.range(..=position).next_back()?;
        let within = (position - start) as usize;
        if within >= chunk.len() {
            return None;
        }
        chunk.used.set(true);
        Some(match &chunk.bytes {
            ChunkBytes::Open(buffer) => buffer.slice(within..buffer.len()),
            ChunkBytes::Full(slice) => slice.part(within..slice.len()),
        })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_position.is_empty()
    }

    /// Where the first chunk after `position` begins.
    pub(super) fn next_start(&self, position: BytePosition) -> Option<BytePosition> {
        self.by_position
            .range(position + 1..)
            .next()
            .map(|(start, _)| *start)
    }

    /// The chunk that takes the byte at `end`, if one is open there.
    pub(super) fn tail(&mut self, end: BytePosition) -> Option<&mut AppendBuf> {
        let (start, chunk) = self.by_position.iter_mut().next_back()?;
        match &mut chunk.bytes {
            ChunkBytes::Open(buffer)
                if start + buffer.len() as u64 == end && buffer.remaining() > 0 =>
            {
                Some(buffer)
            }
            _ => None,
        }
    }

    /// Whether an open chunk ends at `end`, full or not.
    pub(super) fn is_open_at(&self, end: BytePosition) -> bool {
        self.by_position
            .iter()
            .next_back()
            .is_some_and(|(start, chunk)| {
                matches!(chunk.bytes, ChunkBytes::Open(_)) && start + chunk.len() as u64 == end
            })
    }

    /// Memory of the newest chunk.
    pub(super) fn newest_memory_bytes(&self) -> usize {
        self.by_position
            .values()
            .next_back()
            .map_or(0, |chunk| chunk.memory_bytes)
    }

    /// Opens a chunk for appends; the memory it takes.
    pub(super) fn open(&mut self, position: BytePosition, buffer: AppendBuf) -> usize {
        debug_assert!(position.is_multiple_of(BLOCK_BYTES as u64));
        let chunk = Chunk::open(buffer);
        let memory_bytes = chunk.memory_bytes;
        let before = self.by_position.insert(position, chunk);
        assert!(before.is_none(), "two chunks at {position}");
        memory_bytes
    }

    /// Keeps what was read from the file unless it overlaps another chunk; the memory it takes.
    pub(super) fn keep(&mut self, position: BytePosition, bytes: Slice) -> Option<usize> {
        let end = position + bytes.len() as u64;
        let (start, chunk) = match self.by_position.range(..end).next_back() {
            Some((start, chunk)) => (*start, Some(chunk)),
            None => (0, None),
        };
        if chunk.is_some_and(|chunk| start + chunk.len() as u64 > position) || bytes.is_empty() {
            return None;
        }
        let chunk = Chunk::full(bytes);
        let memory_bytes = chunk.memory_bytes;
        self.by_position.insert(position, chunk);
        Some(memory_bytes)
    }

    /// Evicts the chunk at `position` if all of it is below `stored`.
    pub(super) fn evict(&mut self, position: BytePosition, stored: BytePosition) -> Eviction {
        let Some(chunk) = self.by_position.get(&position) else {
            return Eviction::Gone;
        };
        if position + chunk.len() as u64 > stored {
            return Eviction::Pinned;
        }
        if chunk.used.replace(false) {
            return Eviction::Spared;
        }
        let chunk = self.by_position.remove(&position).expect("looked up");
        Eviction::Evicted(chunk.memory_bytes)
    }

    /// Forgets everything from `position` on, which is at a block's boundary.
    pub(super) fn cut(&mut self, position: BytePosition) {
        self.by_position.split_off(&position);
        let Some((start, last)) = self.by_position.iter_mut().next_back() else {
            return;
        };
        let keep = (position - start) as usize;
        let bytes = match &last.bytes {
            ChunkBytes::Open(buffer) => buffer.slice(0..keep.min(buffer.len())),
            ChunkBytes::Full(slice) => slice.part(0..keep.min(slice.len())),
        };
        last.bytes = ChunkBytes::Full(bytes);
    }

    /// Memory of all chunks.
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_position
            .values()
            .map(|chunk| chunk.memory_bytes)
            .sum()
    }
}

/// What became of a chunk the hand pointed to.
pub(super) enum Eviction {
    Evicted(usize),
    Spared,
    Pinned,
    Gone,
}

struct Slot {
    log: Weak<PartitionLog>,
    segment: SegmentId,
    position: BytePosition,
}

/// See the head of this file.
pub struct ChunkCache {
    limits: CacheLimits,
    resident_bytes: Cell<usize>,
    unstored_bytes: Cell<usize>,
    hand: RefCell<VecDeque<Slot>>,
    /// Below this it is not worth looking for something to evict again.
    trim_above_bytes: Cell<usize>,
    /// Appends wait for room, and those that come now too, until there is some for many of them.
    full: Cell<bool>,
    stored: Signal,
    crowded: Signal,
}

impl ChunkCache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: CacheLimits) -> ChunkCache {
        assert!(limits.unstored_bytes <= limits.total_bytes, "{limits:?}");
        ChunkCache {
            limits,
            resident_bytes: Cell::new(0),
            unstored_bytes: Cell::new(0),
            hand: RefCell::default(),
            trim_above_bytes: Cell::new(limits.total_bytes),
            full: Cell::new(false),
            stored: Signal::default(),
            crowded: Signal::default(),
        }
    }

    /// The sizes it was made with.
    #[must_use]
    pub fn limits(&self) -> &CacheLimits {
        &self.limits
    }

    /// Memory of all chunks.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes.get()
    }

    /// Appended bytes that are in no segment file yet.
    #[must_use]
    pub fn unstored_bytes(&self) -> usize {
        self.unstored_bytes.get()
    }

    /// Raised when enough bytes wait to be stored that writing them is worth it.
    #[must_use]
    pub fn crowded(&self) -> &Signal {
        &self.crowded
    }

    /// Memory for a chunk that is opened for `bytes` behind one of `newest_bytes`: twice as much, as
    /// long as half of the budget is free. A thousand logs that grow at once share what there is.
    #[must_use]
    pub(super) fn next_chunk_bytes(&self, newest_bytes: usize, bytes: usize) -> usize {
        let wanted = if self.resident_bytes.get() < self.limits.total_bytes / 2 {
            (2 * newest_bytes).max(bytes)
        } else {
            bytes
        };
        wanted.clamp(self.limits.least_chunk_bytes, self.limits.most_chunk_bytes)
    }

    /// Whether writing to segments is due.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.unstored_bytes.get() > self.limits.unstored_bytes / 4
    }

    /// Whether appends are about to wait for writing to segments.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.unstored_bytes.get() > self.limits.unstored_bytes / 4 * 3
    }

    /// Waits until appends may pin more memory (or `give_up` says that it never comes). Who waits is
    /// woken when a sixteenth of the limit is free: thousands that were woken for every block stored
    /// would do nothing else than look.
    pub async fn room(&self, give_up: impl Fn() -> bool) {
        loop {
            let wait = self.stored.raised();
            if self.unstored_bytes.get() >= self.limits.unstored_bytes {
                self.full.set(true);
            }
            if !self.full.get() || give_up() {
                return;
            }
            self.crowded.raise();
            wait.await;
        }
    }

    /// Wakes those who wait for room to look again.
    pub fn wake(&self) {
        self.stored.raise();
    }

    pub(super) fn note_appended(&self, bytes: usize) {
        self.unstored_bytes.set(self.unstored_bytes.get() + bytes);
        if self.is_crowded() {
            self.crowded.raise();
        }
    }

    pub(super) fn note_stored(&self, bytes: usize) {
        self.unstored_bytes.set(self.unstored_bytes.get() - bytes);
        // As much less is pinned now.
        let above = self.trim_above_bytes.get().saturating_sub(bytes);
        self.trim_above_bytes
            .set(above.max(self.limits.total_bytes));
        let limit = self.limits.unstored_bytes;
        if self.full.get() && self.unstored_bytes.get() <= limit - limit / 16 {
            self.full.set(false);
            self.stored.raise();
        }
    }

    /// Charges a new chunk.
    pub(super) fn admit(
        &self,
        log: Weak<PartitionLog>,
        segment: SegmentId,
        position: BytePosition,
        memory_bytes: usize,
    ) {
        self.resident_bytes
            .set(self.resident_bytes.get() + memory_bytes);
        self.hand.borrow_mut().push_back(Slot {
            log,
            segment,
            position,
        });
    }

    /// Takes back the charge of chunks that left with their segment.
    pub(super) fn forget(&self, memory_bytes: usize) {
        self.resident_bytes
            .set(self.resident_bytes.get() - memory_bytes);
    }

    /// Evicts until the budget is kept or nothing can go. The caller holds no borrow of any log.
    pub fn trim(&self) {
        if self.resident_bytes.get() <= self.trim_above_bytes.get() {
            return;
        }
        self.trim_above_bytes.set(self.limits.total_bytes);
        let mut patience = 2 * self.hand.borrow().len();
        while self.resident_bytes.get() > self.limits.total_bytes && patience > 0 {
            patience -= 1;
            let Some(slot) = self.hand.borrow_mut().pop_front() else {
                return;
            };
            let Some(log) = slot.log.upgrade() else {
                continue;
            };
            match log.evict(slot.segment, slot.position) {
                Eviction::Evicted(bytes) => self.forget(bytes),
                Eviction::Gone => {}
                Eviction::Spared | Eviction::Pinned => self.hand.borrow_mut().push_back(slot),
            }
        }
        if self.resident_bytes.get() > self.limits.total_bytes {
            // All that is left is pinned: the next look costs as much and comes after some growth.
            let some = self.limits.total_bytes / 64;
            self.trim_above_bytes.set(self.resident_bytes.get() + some);
        }
    }
}
