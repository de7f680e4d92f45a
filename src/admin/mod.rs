//! HTTP for operators: metrics and health; the console comes later.
//!
//! * **Owns** the admin listener.
//! * **How many**: one server, on a thread of its own.
//! * **Which core**: none; it reads what cores publish and never asks them to wait.
//! * **May import**: everything below it.
//!
//! *Architecture Invariant*: a slow or hostile HTTP client costs the admin thread, never a core.

pub mod server;
