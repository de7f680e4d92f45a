//! Connections: accepting them, cutting frames, admitting memory, answering in order.
//!
//! * **Owns** listeners, sockets of clients, the memory of requests from the first byte to the
//!   answer on the wire, and the reasons why connections end. Knows no API: what a frame means is
//!   the [`service::Service`]'s.
//! * **How many**: one [`acceptor::NetCore`] per core with its connection table, memory budget and
//!   metrics; one [`connection_limits::ConnectionLimits`] per process; one task per connection.
//! * **Which core**: a connection lives on the core that accepted it or that it was handed to right
//!   after; frames may travel, their charge is given back from wherever they are dropped.
//! * **May import**: `runtime`, `wire`, `observe`, `config`.
//!
//! *Architecture Invariant*: a length from the wire never allocates. Buffers grow with what has
//! arrived (or with what the same connection has proven to send), and are charged before they do.

pub mod acceptor;
pub mod admission;
pub mod close_reason;
pub mod connection;
pub mod connection_limits;
pub mod connection_table;
pub mod frame;
pub mod frame_reader;
pub mod net_limits;
pub mod net_metrics;
pub mod peer;
pub mod service;

#[cfg(all(test, not(feature = "sim"), not(feature = "loom")))]
mod hostile_tests;
#[cfg(all(test, not(feature = "sim"), not(feature = "loom")))]
mod service_tests;
#[cfg(all(test, not(feature = "sim"), not(feature = "loom")))]
mod toy_service;
