//! The deterministic runtime: one thread, a seeded scheduler, a virtual clock, a disk that forgets.
//!
//! * **Owns** the [`world::World`] (tasks, time, randomness) and the [`disk_model::DiskModel`].
//! * **How many**: one world per test run, current on its thread while it runs.
//! * **May import**: what `runtime` may.
//!
//! The files beside these two carry the names of the real runtime and are thin.
//!
//! *Architecture Invariant*: equal seeds give equal runs; nothing here reads a real clock, a real
//! file or an address.

pub mod disk_model;
pub mod world;
