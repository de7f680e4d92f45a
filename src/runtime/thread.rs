//! Threads that are no cores: unpinned, for what must not share one.

use std::io;
use std::thread;

/// Starts a detached thread.
///
/// # Errors
/// When the system refuses one more thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}
