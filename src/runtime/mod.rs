//! The machine: threads, rings, files, sockets, clocks and buffers.
//!
//! * **Owns** everything that touches the kernel. The only folder that names glommio, io-uring,
//!   rustix and libc, and the only one with thread-locals.
//! * **How many**: one executor, one ring and one pair of blocking pools per core; buffers per use.
//! * **Which core**: free functions act on the core of the calling thread.
//! * **May import**: `config`, `observe`.
//!
//! Three implementations carry the same names and types. Nothing above this folder is generic over
//! them; `buffer`, `signal`, `core_id`, `core_plan` and `breach` are common to all.
//!
//! * An executor of our own that waits for sockets, disk, time and other cores in one ring.
//! * With the feature `glommio`: glommio's executor, with our ring beside its three (`on_glommio/`).
//!   It takes 1.35 to 1.4 times the CPU under load and more than twice the CPU for one record at a
//!   time (docs/performance.md); it stays as what the other one is measured against.
//! * With the feature `sim`: the deterministic world in `sim/`.
//!
//! *Architecture Invariant*: buffers are handed to the kernel by value and come back by value; a
//! byte below the length of an [`buffer::AppendBuf`] never changes.

pub mod breach;
pub mod buffer;
#[cfg(not(feature = "sim"))]
mod core_gate;
pub mod core_id;
pub mod core_plan;
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
mod bell;
#[cfg(not(feature = "sim"))]
mod blocking;
#[cfg(not(feature = "sim"))]
pub mod clock;
#[cfg(not(feature = "sim"))]
pub mod control_group;
#[cfg(not(feature = "sim"))]
pub mod disk;
#[cfg(not(feature = "sim"))]
pub mod disk_probe;
#[cfg(all(not(feature = "sim"), feature = "glommio"))]
#[path = "on_glommio/executor.rs"]
pub mod executor;
#[cfg(not(any(feature = "sim", feature = "glommio")))]
pub mod executor;
#[cfg(all(test, not(any(feature = "sim", feature = "loom"))))]
pub(crate) mod executor_test;
#[cfg(not(feature = "sim"))]
pub mod host;
#[cfg(not(feature = "sim"))]
pub mod host_tree;
#[cfg(not(feature = "sim"))]
pub mod mesh;
#[cfg(not(feature = "sim"))]
pub mod random;
#[cfg(not(feature = "sim"))]
pub mod ring;
#[cfg(all(not(feature = "sim"), feature = "glommio"))]
#[path = "on_glommio/ring_turn.rs"]
mod ring_turn;
#[cfg(not(any(feature = "sim", feature = "glommio")))]
mod ring_turn;
#[cfg(not(feature = "sim"))]
pub mod socket;
#[cfg(not(feature = "sim"))]
pub mod startup;
#[cfg(not(feature = "sim"))]
pub mod thread;
#[cfg(not(any(feature = "sim", feature = "glommio")))]
mod timers;
#[cfg(all(not(feature = "sim"), feature = "glommio"))]
#[path = "on_glommio/wake.rs"]
mod wake;
#[cfg(not(any(feature = "sim", feature = "glommio")))]
mod wake;
