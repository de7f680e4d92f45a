//! Percolog: a durable log broker for Linux that speaks Kafka's wire protocol.
//!
//! # The map
//! One process, one pinned thread per core, one io_uring ring per core; every partition belongs
//! to exactly one core. A file imports only from modules that stand above its own in the list
//! below (`tests/tidy.rs` holds the exact table and enforces it).
//!
//! # The two roads
//! * **Produce**: socket -> `net` connection -> `api` dispatch -> `api` produce (validation) ->
//!   `shard` router -> \[mesh\] -> `shard` replica manager -> `partition` leader (*enqueued*) ->
//!   `log` partition log (copied once into the tail chunk) -> journal group commit -> the durable
//!   end moves -> the high watermark moves (*committed*) -> \[mesh\] -> reply.
//! * **Fetch**: the same to the replica; the log returns slices of chunks; too few bytes wait
//!   until a watched replica grows; slices travel back and leave as one gather write.

pub mod config;
pub mod observe;
pub mod wire;

pub mod runtime;

#[cfg(not(feature = "sim"))]
pub mod tuning;

pub mod log;

pub mod coordinator;

pub mod cluster;

pub mod partition;

// There is no simulated network yet: the simulation ends at the replica and the quorum's state.
#[cfg(not(feature = "sim"))]
pub mod net;
#[cfg(not(feature = "sim"))]
pub mod shard;

#[cfg(not(feature = "sim"))]
pub mod api;

#[cfg(not(feature = "sim"))]
pub mod admin;
#[cfg(not(feature = "sim"))]
pub mod broker;
#[cfg(not(feature = "sim"))]
pub mod cli;
