//! Metrics, traces and histograms: what the broker tells about itself.
//!
//! * **Owns** the instruments; the numbers live with those who count them.
//! * **How many**: one registry per core, read by the admin endpoint.
//! * **May import**: nothing of ours.
//!
//! *Architecture Invariant*: observing never waits and never allocates on the hot path.

pub mod histogram;
pub mod metrics;
