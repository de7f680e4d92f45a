//! Every knob once: name, unit, default, bounds, dynamic or not, and one line of what it does.
//!
//! * **Owns** the tables of the settings of brokers, topics and groups, their parsing from every source, and the
//!   limits derived from them.
//! * **How many**: one [`broker::BrokerConfig`] per process, shared unchanged by all cores; one
//!   [`topic::TopicConfig`] per topic, made anew when an override or a dynamic default changes.
//! * **Which core**: any; values are immutable once built.
//! * **May import**: nothing of ours. It parses text given to it and never opens a file: no value
//!   that a client can set names a file to be read, an address to be called or code to be loaded.
//!
//! *Architecture Invariant*: a setting is declared in exactly one table row, and a name that is in
//! no table is refused by name.

pub mod broker;
pub mod cluster;
pub mod coordinators;
pub mod derived;
pub mod describe;
pub mod disk_profile;
pub mod group;
mod kafka_refusals;
pub mod kind;
pub mod knob;
pub mod problem;
pub mod sources;
pub mod topic;
