//! What requests mean: one family of Kafka's API per file.
//!
//! * **Owns** the [`dispatch`] with its one table of served APIs, the handlers, the fetch sessions
//!   and, with the coordinators, the choice of Kafka's error codes ([`error_mapping`]).
//! * **How many**: one [`dispatch::Api`] per core, with the sessions and the producer ids of that
//!   core.
//! * **Which core**: the one where the connection lives; partitions are reached through the router.
//! * **May import**: `runtime`, `wire`, `net`, `security`, `coordinator` (requests and answers),
//!   `cluster`, `shard`, `observe`, `config`.
//!
//! A handler decodes, looks things up in the image, asks the router, and encodes; where more is
//! decided than that, it is decided by a function without I/O. Bytes behind a request are ignored,
//! as Kafka does. A request that cannot be decoded, names more than the limits allow, or is of an
//! API that is not served closes the connection.
//!
//! What other brokers say comes through a listener of its own and is served by [`peer_requests`] alone.
//!
//! *Architecture Invariant*: an API is served to clients exactly when it is in the table, in the
//! versions that ApiVersions tells.

mod alter_configs;
mod alter_partition_reassignments;
pub mod api_versions;
mod call;
mod coordination;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
pub mod dispatch;
mod elect_leaders;
mod endpoint;
pub mod error_mapping;
pub mod fetch;
pub mod fetch_session;
mod find_coordinator;
mod group_admin;
mod group_member;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod offset_fetch;
mod offset_for_leader_epoch;
pub mod peer_requests;
mod produce;
mod produce_transactions;
mod raft_voters;
mod topic_rules;
mod transaction_admin;
mod transaction_client;
mod transaction_verification;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod write_txn_markers;
