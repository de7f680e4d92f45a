//! The metadata quorum: which node decides, and in which order its decisions are stored everywhere.
//!
//! * **Owns** the consensus state of this node ([`node`]), what of it must be durable ([`state`]),
//!   who takes part ([`member`]), the [`entry`] of its log and the bytes of its messages. Writing to
//!   disk, sending and the time belong to `shard`, which calls in and carries out what it is told.
//! * **How many**: one per process.
//! * **Which core**: the controller's.
//! * **May import**: what `cluster` may; it needs `wire` for ids and `log` for reading bytes.
//!
//! Consensus is the crate `raft` 0.7, the library of TiKV: it has no I/O, no threads and no clock of
//! its own, knows pre-vote, check-quorum, learners and transfers, and was run in production for
//! years. It is sealed:
//! * its types never leave this folder (`tests/tidy.rs` holds its name to `cluster`);
//! * bytes of peers are never read as protocol buffers but by a codec of ours, with bounds, which
//!   lets through only the messages this use of it needs;
//! * it ends the process' trust in itself by panicking: every call runs in `catch_unwind`, and a
//!   node that was left broken does nothing more and says why ([`node::QuorumNode::failure`]), so
//!   that the broker stops. (Where panics abort, as in release builds, the broker stops at once.)
//! * the random election timeouts it draws are replaced by ones that follow from a seed.
//!
//! A cluster begins at index 1, which stands for the founding members and is nobody's entry. So a
//! node that joins later, with an empty log, can never be served from entries alone: it gets a
//! snapshot, and with it the members.
//!
//! *Architecture Invariant*: no I/O, no clock, no randomness; the same calls lead to the same bytes.
//! Nothing that promises a vote or an entry is handed out before the caller said that what was
//! promised is durable.

pub mod entry;
pub mod member;
mod memory_log;
mod message;
pub mod node;
pub mod node_membership;
#[cfg(test)]
mod scenario_test;
#[cfg(test)]
mod simulation_test;
#[cfg(test)]
mod simulation_world;
pub mod state;
