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

/// Pins the calling thread to one CPU.
///
/// # Errors
/// When there is no such CPU, or this process may not use it.
#[cfg(not(feature = "glommio"))]
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
