//! The command line: what `main.rs` calls.
//!
//! * **Owns** the commands, their arguments and their output, and a small blocking Kafka client.
//! * **How many**: one command per process.
//! * **Which core**: none. Client commands run on the main thread, with plain sockets, files and
//!   sleeps; `serve` hands its arguments over and owns nothing of the broker.
//! * **May import**: everything below; nobody imports it.
//!
//! Client commands talk to any broker that speaks Kafka's protocol, and use nothing that only this
//! broker has.
//!
//! *Architecture Invariant*: stdout carries what was asked for and nothing else; whatever a command
//! says about itself goes to stderr, and a reader that stops reading ends the command quietly.

mod client;
mod cluster;
mod cluster_describe;
mod cluster_drain;
mod cluster_elect;
mod cluster_quorum;
mod cluster_reassign;
pub mod command;
mod config;
mod connection;
mod consume;
mod coordinator;
mod duration;
mod failure;
mod fetcher;
mod format;
mod group;
mod group_consumer;
mod group_describe;
mod group_member;
mod group_offsets;
mod group_reset;
mod inspect;
mod inspect_checkpoint;
mod inspect_index;
mod inspect_journal;
mod inspect_segment;
mod isolation;
mod lines;
mod log_offsets;
mod member_protocol;
mod metadata;
mod output;
mod partitioner;
mod pipeline;
mod produce;
mod range_assignor;
mod repair;
pub mod serve;
mod termination;
mod timestamp;
mod topic;
mod topic_selection;
mod transaction;
mod transaction_abort;
mod transaction_hanging;
mod transaction_producers;
mod tune;
mod tune_disk;
