//! How the allocator of the process treats memory that was given back.
#![allow(unsafe_code)] // One call of the C library, see below.

/// Blocks up to this size come from the heap. The largest value glibc takes.
const HEAP_UP_TO_BYTES: libc::c_int = 32 << 20;
/// The heap keeps so much free memory at its end.
const KEEP_FREE_BYTES: libc::c_int = 1 << 30;

/// Keeps freed memory for the next request. Every large buffer lives for one request or one turn of a
/// cache, and what all of them take together has its budgets; without this glibc gives them back to
/// the kernel each time, and each page is cleared and mapped again: a seventh of the CPU time of large
/// requests. Called before there are threads that allocate.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, HEAP_UP_TO_BYTES),
        (libc::M_TRIM_THRESHOLD, KEEP_FREE_BYTES),
    ] {
        // SAFETY: mallopt takes two numbers and no memory; it locks its own state.
        let taken = unsafe { libc::mallopt(option, value) };
        assert_eq!(taken, 1, "glibc refuses {option} = {value}");
    }
}
