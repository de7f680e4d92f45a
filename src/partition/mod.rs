//! One replica of one partition: what may be appended, what may be read, and when to answer.
//!
//! * **Owns** the replica: its log, its leader epoch, the turns of those who append, the guards of
//!   those who may open a transaction.
//! * **How many**: one per partition on this broker.
//! * **Which core**: the one that owns the partition.
//! * **May import**: `runtime`, `wire`, `log`, `observe`, `config`.
//!
//! Until replication comes, a replica is the leader and its in-sync set is itself, so the high
//! watermark is the flushed offset.
//!
//! *Architecture Invariant*: `log start <= last stable offset <= high watermark <= log end`.

pub mod leader;
pub mod offset_lookup;
pub mod replica;
pub mod turns;
pub mod verification;

#[cfg(all(test, feature = "sim"))]
mod transactions_test;
