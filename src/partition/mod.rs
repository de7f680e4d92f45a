//! One replica of one partition: what may be appended, what may be read, and when to answer.
//!
//! * **Owns** the replica: its log, its leader epoch, the turns of those who append, the guards of
//!   those who may open a transaction.
//! * **How many**: one per partition on this broker.
//! * **Which core**: the one that owns the partition.
//! * **May import**: `runtime`, `wire`, `log`, `observe`, `config`.
//!
//! A replica that nobody else holds is the leader, and its high watermark is the flushed offset. With
//! others, [`leader`] decides who is in sync and how far the watermark is. A follower's log takes its
//! leader's batches as they are, is cut only where the leader's log parts from it by epoch, and
//! knows the watermark from the leader's answers; `shard` carries them.
//!
//! *Architecture Invariant*: `log start <= last stable offset <= high watermark <= log end`.

pub mod leader;
pub mod offset_lookup;
pub mod replica;
pub mod turns;
pub mod verification;

#[cfg(all(test, feature = "sim"))]
mod following_test;
#[cfg(all(test, feature = "sim"))]
mod transactions_test;
