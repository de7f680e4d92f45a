//! Groups, committed offsets and transactions: decisions only.
//!
//! * **Owns** the state machines behind the partitions of `__consumer_offsets` and
//!   `__transaction_state`, whose keys and values are Kafka's own formats.
//! * **How many**: one shard per partition of these two topics that this broker leads.
//! * **Which core**: the one that owns the partition; `shard/` hosts it there.
//! * **May import**: `wire`, `config`.
//!
//! A shard is a value without I/O, clock, randomness or tasks. Each of its functions takes a request
//! and a [`context::Context`] and leaves its [`effects::Effects`]: records for the shard's log, and
//! answers. The host appends the records as one batch, in the order of the calls, and lets answers
//! leave when everything that was appended before them is durable: so what an answer tells is never
//! lost, and a read tells only what is durable. When a batch is refused the host throws the shard
//! away and loads it again from its log; clients are told to find their coordinator again.
//!
//! What the log holds and what a shard holds change together: a function that decides does to its
//! state what `replay` will do with the records it emits. The rest of a state (members that wait,
//! sessions, timers) is not in the log and begins anew after a load.
//!
//! *Architecture Invariant*: a shard rebuilt by replaying its log equals the one that wrote it, but
//! for what is not in the log.

mod assignor;
mod assignor_range;
mod assignor_uniform;
mod classic_group;
mod classic_joining;
mod classic_member;
mod classic_membership;
mod classic_rebalance;
mod consumer_group;
mod consumer_group_census;
mod consumer_group_classic;
mod consumer_group_deadlines;
mod consumer_group_heartbeat;
mod consumer_group_migration;
mod consumer_group_queries;
mod consumer_group_reconciliation;
mod consumer_group_regex;
mod consumer_group_shard;
mod consumer_group_target;
mod consumer_protocol;
mod consumer_records;
pub mod context;
pub mod effects;
mod group_admin;
mod group_chores;
#[cfg(test)]
mod group_property_test;
mod group_records;
pub mod group_request;
pub mod group_shard;
mod group_turn;
#[cfg(test)]
mod group_world;
mod offset_fetching;
mod offset_requests;
mod offset_table;
#[cfg(test)]
mod scenario_answers;
#[cfg(test)]
mod scenario_consumers;
#[cfg(test)]
mod scenario_requests;
#[cfg(test)]
mod scenario_test;
pub mod shard;
pub mod timers;
pub mod transaction;
pub mod transaction_record;
pub mod transaction_request;
pub mod transaction_shard;

#[cfg(test)]
mod consumer_group_property_test;
#[cfg(test)]
mod consumer_group_shard_test;
#[cfg(test)]
mod consumer_group_test;
#[cfg(test)]
mod consumer_group_world;
#[cfg(test)]
mod transaction_test;
