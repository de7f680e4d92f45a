//! What the whole cluster agrees on: topics, partitions, leaders, dynamic settings, producer ids.
//!
//! * **Owns** the metadata [`image`], the [`record`]s that change it, and the [`controller`], which
//!   decides what records a command leads to. Storing records, spreading images and waiting belong
//!   to `shard`.
//! * **How many**: one image per process, shared unchanged by all cores and replaced whole; one
//!   controller, which is a function, asked on the node that leads the quorum ([`quorum`]).
//! * **Which core**: the controller's decides and applies; all others look.
//! * **May import**: `runtime`, `wire`, `net`, `log`, `security`, `observe`, `config`.
//!
//! *Architecture Invariant*: an image changes only through [`image::MetadataImage::apply`], and two
//! images that applied the same records are equal. There is no I/O, no clock and no randomness here:
//! new ids are given to the controller.

mod broker_commands;
#[cfg(test)]
mod cluster_property_test;
#[cfg(test)]
mod cluster_test;
mod cluster_version;
#[cfg(test)]
mod cluster_world;
mod config_commands;
pub mod controller;
pub mod controller_error;
pub mod election_commands;
pub mod image;
mod overlay;
mod partition_change;
mod partition_commands;
mod placement;
pub mod quorum;
mod reassignment_commands;
pub mod record;
mod record_fields;
mod topic_commands;
#[cfg(test)]
mod topic_commands_test;
pub mod topic_name;
