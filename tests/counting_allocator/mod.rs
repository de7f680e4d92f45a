//! The system's allocator, counting what the calling thread holds.
#![allow(unsafe_code)] // Every call goes to the system's allocator as it came.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Constant initialisers: counting must not allocate.
    static HELD_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// SAFETY: `System` keeps the contract; counting touches no memory of the caller. `realloc` is the
// default one, so that the old and the new block count at once.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD_BYTES.get().wrapping_add(layout.size());
        HELD_BYTES.set(held);
        PEAK_BYTES.set(PEAK_BYTES.get().max(held));
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.set(HELD_BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's block and layout, as they came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most bytes that `work` held at once beyond what was held before.
pub(crate) fn peak_bytes_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // Blocks that other threads allocated may be freed here: start from a count of its own.
    let before = HELD_BYTES.replace(1 << 40);
    PEAK_BYTES.set(1 << 40);
    let result = work();
    let peak = PEAK_BYTES.get() - (1 << 40);
    HELD_BYTES.set(before);
    (result, peak)
}
