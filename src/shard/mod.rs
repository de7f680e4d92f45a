//! Joins connections, partitions, logs and metadata on one core, and the cores with each other.
//!
//! * **Owns** the [`router`] (which core owns what, and the hop there), the replica manager (the
//!   partitions of this core), the hosts of its coordinators ([`coordinators`]), the keeping of its
//!   logs, and what a node does in its cluster: the road to the controller ([`control`]) and its work
//!   on the quorum ([`controller_service`]), this node's registration and its word for others
//!   ([`membership`]), links to other nodes ([`peers`]) and what is said there ([`peer_protocol`]),
//!   what leaders ([`replication`]) and followers ([`replica_fetcher`]) of partitions do.
//! * **How many**: one of each per core, but one controller service and one membership per node.
//! * **Which core**: all of them; the two of the node on the controller's core.
//! * **May import**: `runtime`, `wire`, `net`, `log`, `partition`, `coordinator`, `cluster`,
//!   `observe`, `config`.
//!
//! *Architecture Invariant*: nothing else crosses cores but what they know of the disks
//! ([`directory_health`]). Requests between cores may be refused when a mailbox is full; answers
//! never are.

mod cluster_metrics;
pub mod control;
mod controller_quorum;
pub mod controller_service;
#[cfg(all(test, not(feature = "loom")))]
mod controller_service_test;
pub mod coordinator_host;
mod coordinator_log;
pub mod coordinators;
pub mod core_metrics;
pub mod directory_health;
pub mod directory_watch;
pub mod housekeeping;
mod image_delta;
mod image_groups;
mod image_topics;
pub mod membership;
mod metadata_entry;
pub mod metadata_snapshot;
pub mod partition_transactions;
pub mod peer_link;
pub mod peer_protocol;
pub mod peers;
pub mod placement;
mod quorum_log;
pub mod quorum_requests;
pub mod replica_fetcher;
pub mod replica_manager;
pub mod replication;
pub mod request;
pub mod router;
