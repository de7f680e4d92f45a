//! The machine: threads, rings, files, sockets, clocks and buffers.
//!
//! * **Owns** everything that touches the kernel. The only folder that names glommio, io-uring,
//!   rustix and libc, and the only one with thread-locals.
//! * **How many**: one executor, one ring and one pair of blocking pools per core; buffers per use.
//! * **Which core**: free functions act on the core of the calling thread.
//! * **May import**: `config`, `observe`.
//!
//! Three implementations carry the same names and types: glommio with our own ring beside its three;
//! with the feature `single-ring` an executor of our own that waits in our ring alone (`single/`),
//! measured to take a quarter less CPU for small requests and a third less for large ones, and not yet
//! the default; with the feature `sim` the deterministic world in `sim/`. Nothing above this folder is
//! generic over them. `buffer`, `signal`, `core_id` and `breach` are common to all.
//!
//! *Architecture Invariant*: buffers are handed to the kernel by value and come back by value; a
//! byte below the length of an [`buffer::AppendBuf`] never changes.

pub mod breach;
pub mod buffer;
pub mod core_id;
pub mod gather;
#[cfg(not(feature = "sim"))]
pub(crate) mod queue;
pub mod signal;

#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "sim")]
#[path = "sim/clock.rs"]
pub mod clock;
#[cfg(feature = "sim")]
#[path = "sim/disk.rs"]
pub mod disk;
#[cfg(feature = "sim")]
#[path = "sim/executor.rs"]
pub mod executor;
#[cfg(feature = "sim")]
#[path = "sim/mesh.rs"]
pub mod mesh;
#[cfg(feature = "sim")]
#[path = "sim/random.rs"]
pub mod random;
#[cfg(feature = "sim")]
#[path = "sim/startup.rs"]
pub mod startup;

#[cfg(not(feature = "sim"))]
mod blocking;
#[cfg(not(any(feature = "sim", feature = "single-ring")))]
pub mod clock;
#[cfg(all(not(feature = "sim"), feature = "single-ring"))]
#[path = "single/clock.rs"]
pub mod clock;
#[cfg(not(feature = "sim"))]
pub mod control_group;
#[cfg(not(feature = "sim"))]
pub mod disk;
#[cfg(not(feature = "sim"))]
pub mod disk_probe;
#[cfg(not(any(feature = "sim", feature = "single-ring")))]
pub mod executor;
#[cfg(all(not(feature = "sim"), feature = "single-ring"))]
#[path = "single/executor.rs"]
pub mod executor;
#[cfg(not(feature = "sim"))]
pub mod host;
#[cfg(not(feature = "sim"))]
pub mod host_tree;
#[cfg(not(feature = "sim"))]
pub mod mesh;
#[cfg(not(feature = "sim"))]
pub mod random;
#[cfg(not(any(feature = "sim", feature = "single-ring")))]
pub mod ring;
#[cfg(all(not(feature = "sim"), feature = "single-ring"))]
#[path = "single/ring.rs"]
pub mod ring;
#[cfg(not(feature = "sim"))]
pub mod socket;
#[cfg(not(feature = "sim"))]
pub mod startup;
#[cfg(not(feature = "sim"))]
pub mod thread;
#[cfg(not(any(feature = "sim", feature = "single-ring")))]
mod wake;
#[cfg(all(not(feature = "sim"), feature = "single-ring"))]
#[path = "single/wake.rs"]
mod wake;
