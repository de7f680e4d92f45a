//! Append-only buffers: one writer that only moves forward, any number of readers below it.
//!
//! The bytes of a chunk are read by consumers (from any core) and by the disk while the writer
//! still appends behind them. What makes that sound, and is the whole proof for the `unsafe` below:
//!
//! 1. [`AppendBuf`] is the only writer: it is neither `Clone` nor shared, and its methods that
//!    write take `&mut self`.
//! 2. It writes only at and beyond `length`, and publishes with a `Release` store afterwards.
//! 3. A [`Slice`] is made only for a range below a `length` that was loaded with `Acquire` (or by
//!    the writer itself), so the bytes it shows were written before and are never written again.
//! 4. The memory is freed by the last `Arc`, so neither reader nor kernel can outlive it as long as
//!    whoever submits to the kernel keeps the `Slice` until the completion arrives.
#![allow(unsafe_code)] // The proof is above.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

#[cfg(feature = "loom")]
use loom::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

/// Alignment of every buffer, file position and length that direct I/O sees.
pub const BLOCK_BYTES: usize = 4096;

/// Freed memory is overwritten with this in debug builds: DMA into or out of a freed buffer is
/// invisible to sanitizers, but it damages or shows this pattern.
pub const POISON: u8 = 0xDB;

struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    length: AtomicUsize,
}

// SAFETY: `start` is plain memory owned by this value; access follows the rules at the file head.
unsafe impl Send for Memory {}
// SAFETY: as above; shared access is limited to bytes below `length`, which never change.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("capacities are bounded by config")
    }

    /// Overwrites everything, in debug builds.
    ///
    /// # Safety
    /// Nobody may look at the bytes again.
    unsafe fn poison(&self) {
        if cfg!(debug_assertions) {
            // SAFETY: the region is allocated with this capacity, and the caller is the last one.
            unsafe { self.start.as_ptr().write_bytes(POISON, self.capacity) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the last owner; the region was allocated with the same layout.
        unsafe {
            self.poison();
            dealloc(self.start.as_ptr(), Memory::layout(self.capacity));
        }
    }
}

/// The one writer of a block-aligned, fixed-capacity buffer.
pub struct AppendBuf {
    memory: Arc<Memory>,
}

impl AppendBuf {
    /// Allocates `capacity` bytes, rounded up to whole blocks. Contents start undefined and
    /// unreachable.
    #[must_use]
    pub fn allocate(capacity: usize) -> AppendBuf {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Memory::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let length = AtomicUsize::new(0);
        AppendBuf {
            memory: Arc::new(Memory {
                start,
                capacity,
                length,
            }),
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        // Relaxed: only this writer stores it.
        self.memory.length.load(Ordering::Relaxed)
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the buffer in bytes, a multiple of [`BLOCK_BYTES`].
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Appends all of `bytes`.
    ///
    /// # Panics
    /// When they do not fit: callers split by [`AppendBuf::remaining`] first.
    pub fn append(&mut self, bytes: &[u8]) {
        let at = self.len();
        assert!(
            bytes.len() <= self.capacity() - at,
            "append of {} bytes at {at} of {}",
            bytes.len(),
            self.capacity()
        );
        // SAFETY: the target lies at or beyond `length` and below `capacity`, nobody else reads or
        // writes there (rules 1 to 3), and `bytes` cannot overlap it for the same reason.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.memory.start.as_ptr().add(at),
                bytes.len(),
            );
        }
        self.memory
            .length
            .store(at + bytes.len(), Ordering::Release);
    }

    /// Appends zeroes up to the next block boundary.
    pub fn pad_to_block(&mut self) {
        const ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let rest = self.len().next_multiple_of(BLOCK_BYTES) - self.len();
        self.append(&ZEROES[..rest]);
    }

    /// Appends `count` bytes produced by `fill`, which gets exactly the bytes to overwrite (they
    /// are zeroed first) and returns how many of them it filled from the front.
    pub fn append_with(&mut self, count: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let at = self.len();
        assert!(
            count <= self.capacity() - at,
            "{count} bytes at {at} of {}",
            self.capacity()
        );
        // SAFETY: as in `append`; the range is initialised before a reference to it is made.
        let target = unsafe {
            let start = self.memory.start.as_ptr().add(at);
            start.write_bytes(0, count);
            std::slice::from_raw_parts_mut(start, count)
        };
        let filled = fill(target);
        assert!(filled <= count, "{filled} of {count} bytes filled");
        self.memory.length.store(at + filled, Ordering::Release);
        filled
    }

    /// Where the kernel may write next, and how many bytes fit. The memory stays valid as long as
    /// this writer lives.
    pub fn unwritten(&mut self) -> (*mut u8, usize) {
        let at = self.len();
        // SAFETY: `at <= capacity`, so the pointer stays within or one past the allocation.
        (
            unsafe { self.memory.start.as_ptr().add(at) },
            self.capacity() - at,
        )
    }

    /// Publishes `count` bytes that the kernel wrote at [`AppendBuf::unwritten`].
    ///
    /// # Safety
    /// The kernel must have completed a write of at least `count` bytes there.
    pub unsafe fn publish(&mut self, count: usize) {
        let at = self.len();
        assert!(
            count <= self.capacity() - at,
            "{count} bytes at {at} of {}",
            self.capacity()
        );
        self.memory.length.store(at + count, Ordering::Release);
    }

    /// A readable, immutable view of `range`.
    ///
    /// # Panics
    /// When the range is not below [`AppendBuf::len`].
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of {} bytes",
            self.len()
        );
        Slice {
            memory: Some(self.memory.clone()),
            start: range.start,
            end: range.end,
        }
    }

    /// A view of everything written so far.
    #[must_use]
    pub fn whole(&self) -> Slice {
        self.slice(0..self.len())
    }
}

impl fmt::Debug for AppendBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendBuf({} of {})", self.len(), self.capacity())
    }
}

/// An immutable view of bytes of an [`AppendBuf`]; cheap to clone, may cross cores.
#[derive(Clone, Default)]
pub struct Slice {
    memory: Option<Arc<Memory>>,
    start: usize,
    end: usize,
}

impl Slice {
    /// Copies `bytes` into a buffer of their own.
    #[must_use]
    pub fn copied(bytes: &[u8]) -> Slice {
        if bytes.is_empty() {
            return Slice::default();
        }
        let mut buffer = AppendBuf::allocate(bytes.len());
        buffer.append(bytes);
        buffer.whole()
    }

    /// The part of this view at `range`, relative to its own start.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Slice {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "part {range:?} of {} bytes",
            self.len()
        );
        Slice {
            memory: self.memory.clone(),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Grows this view by `next` when that lies in the same buffer and begins within or right behind
    /// it; false, and nothing changed, otherwise.
    #[must_use]
    pub fn join(&mut self, next: &Slice) -> bool {
        let (Some(mine), Some(theirs)) = (&self.memory, &next.memory) else {
            return false;
        };
        if !Arc::ptr_eq(mine, theirs) || next.start < self.start || next.start > self.end {
            return false;
        }
        // Both views were checked against the published length when they were made.
        self.end = self.end.max(next.end);
        true
    }

    /// Whether address and length suit direct I/O.
    #[must_use]
    pub fn is_block_aligned(&self) -> bool {
        self.start.is_multiple_of(BLOCK_BYTES) && self.len().is_multiple_of(BLOCK_BYTES)
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            None => &[],
            // SAFETY: rule 3: `end` was at or below a published length, those bytes are
            // initialised and never change, and the `Arc` keeps them alive.
            Some(memory) => unsafe {
                std::slice::from_raw_parts(
                    memory.start.as_ptr().add(self.start),
                    self.end - self.start,
                )
            },
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.end - self.start)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    #[test]
    fn a_slice_outlives_its_writer_and_still_reads_right() {
        let mut buffer = AppendBuf::allocate(1);
        assert_eq!((buffer.capacity(), buffer.is_empty()), (BLOCK_BYTES, true));
        buffer.append(b"written once");
        let slice = buffer.slice(8..12);
        buffer.append(b", never changed");
        let whole = buffer.whole();
        drop(buffer);
        // Reuses the memory if it was freed.
        let mut other = AppendBuf::allocate(1);
        other.append(&[POISON; 64]);
        assert_eq!(&slice[..], b"once");
        assert_eq!(&whole[..], b"written once, never changed");
        assert_eq!(&whole.part(14..19)[..], b"never");
    }

    #[test]
    fn freed_memory_is_poisoned_in_debug_builds() {
        let mut buffer = AppendBuf::allocate(BLOCK_BYTES);
        buffer.append(&[1; BLOCK_BYTES]);
        // Looks between the two steps of the drop: poisoned, not yet freed.
        let memory = ManuallyDrop::new(Arc::try_unwrap(buffer.memory).ok().expect("one owner"));
        // SAFETY: the only owner is `memory`, whose bytes are looked at as raw memory only, and
        // which is freed exactly once below.
        let bytes = unsafe {
            memory.poison();
            std::slice::from_raw_parts(memory.start.as_ptr(), memory.capacity).to_vec()
        };
        let expected = if cfg!(debug_assertions) { POISON } else { 1 };
        assert!(bytes.iter().all(|byte| *byte == expected));
        drop(ManuallyDrop::into_inner(memory));
    }

    #[test]
    fn padding_filling_and_publishing_move_the_length() {
        let mut buffer = AppendBuf::allocate(2 * BLOCK_BYTES);
        buffer.append(b"x");
        buffer.pad_to_block();
        assert_eq!(
            (buffer.len(), buffer.remaining()),
            (BLOCK_BYTES, BLOCK_BYTES)
        );
        let filled = buffer.append_with(8, |target| {
            assert_eq!(target, [0; 8]);
            target[..3].copy_from_slice(b"abc");
            3
        });
        assert_eq!((filled, buffer.len()), (3, BLOCK_BYTES + 3));
        let (start, room) = buffer.unwritten();
        assert_eq!(room, BLOCK_BYTES - 3);
        // SAFETY: `start` has room for two bytes, which are written before they are published.
        unsafe {
            start.copy_from_nonoverlapping(b"de".as_ptr(), 2);
            buffer.publish(2);
        }
        assert_eq!(&buffer.slice(BLOCK_BYTES..BLOCK_BYTES + 5)[..], b"abcde");
        assert!(buffer.slice(0..BLOCK_BYTES).is_block_aligned());
        assert!(!buffer.slice(1..BLOCK_BYTES).is_block_aligned());
        assert!(!buffer.whole().is_block_aligned());
    }

    #[test]
    fn nothing_beyond_the_length_can_be_seen_or_overfilled() {
        let refused = |act: fn(&mut AppendBuf)| {
            let mut buffer = AppendBuf::allocate(BLOCK_BYTES);
            buffer.append(b"four");
            let act = std::panic::AssertUnwindSafe(|| act(&mut buffer));
            assert!(std::panic::catch_unwind(act).is_err());
        };
        refused(|buffer| drop(buffer.slice(0..5)));
        refused(|buffer| buffer.append(&[0; BLOCK_BYTES]));
        refused(|buffer| assert_eq!(buffer.append_with(BLOCK_BYTES, |_| 0), 0));
        refused(|buffer| drop(buffer.whole().part(2..5)));
        refused(|buffer| assert_eq!(buffer.append_with(1, |_| 2), 2));
    }

    #[test]
    fn views_of_one_buffer_join_and_others_do_not() {
        let mut buffer = AppendBuf::allocate(64);
        buffer.append(b"abcdefgh");
        let mut view = buffer.slice(1..3);
        assert!(view.join(&buffer.slice(2..5)), "overlapping");
        assert!(view.join(&buffer.slice(5..6)), "adjacent");
        assert_eq!(&view[..], b"bcdef");
        assert!(!view.join(&buffer.slice(7..8)), "a gap");
        assert!(!view.join(&buffer.slice(0..8)), "begins before");
        assert!(!view.join(&Slice::copied(b"g")) && !view.join(&Slice::default()));
        assert_eq!(&view[..], b"bcdef");
    }

    #[test]
    fn empty_slices_need_no_memory() {
        assert!(Slice::default().is_empty() && Slice::copied(b"").memory.is_none());
        assert_eq!(&Slice::copied(b"abc")[..], b"abc");
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    /// One thread appends while another reads what was handed to it, and either drops last.
    #[test]
    fn readers_see_what_was_published_while_the_writer_goes_on() {
        loom::model(|| {
            let handed = Arc::new((Mutex::new(None::<Slice>), Condvar::new()));
            let reader = {
                let handed = handed.clone();
                thread::spawn(move || {
                    let mut slot = handed.0.lock().expect("lock");
                    while slot.is_none() {
                        slot = handed.1.wait(slot).expect("lock");
                    }
                    let slice = slot.take().expect("some");
                    drop(slot);
                    assert_eq!(&slice[..], b"ab");
                    let part = slice.part(1..2);
                    drop(slice);
                    assert_eq!(&part[..], b"b");
                })
            };
            let mut buffer = AppendBuf::allocate(8);
            buffer.append(b"ab");
            *handed.0.lock().expect("lock") = Some(buffer.slice(0..2));
            handed.1.notify_one();
            buffer.append(b"cd");
            assert_eq!(&buffer.whole()[..], b"abcd");
            drop(buffer);
            reader.join().expect("reader");
        });
    }

    /// A borrowed writer may be sliced from another thread: the length it sees covers only bytes
    /// that happened before.
    #[test]
    fn slices_made_on_another_thread_cover_only_what_was_written() {
        loom::model(|| {
            let mut buffer = AppendBuf::allocate(8);
            buffer.append(b"ab");
            let shared = Arc::new(buffer);
            let other = shared.clone();
            let slicer = thread::spawn(move || {
                let whole = other.whole();
                drop(other);
                whole
            });
            let here = shared.whole();
            drop(shared);
            let there = slicer.join().expect("slicer");
            assert_eq!(&here[..], &there[..]);
        });
    }
}
