//! The host: what on it slows a broker down or endangers its data, what may be changed and how to go
//! back, which CPUs serve, and what the figures of a disk mean for the settings.
//!
//! * **Owns** the items of `percolog tune`, the list of files it may write, its undo file, and the
//!   decisions drawn from topology and disk probe.
//! * **How many**: nothing lives here; functions over the files of one host.
//! * **Which core**: none. Commands use it without a broker; the broker before its cores start.
//! * **May import**: `runtime`, `config`.
//!
//! A folder of its own so that `runtime` has facts without opinions and `cli` neither.
//!
//! *Architecture Invariant*: nothing on the host is written but the files that [`target::Target`]
//! names, and no path is ever taken from what a file says.

pub mod apply;
mod block_items;
pub mod check;
pub mod core_selection;
mod cpu_items;
pub mod cpu_set;
mod directory_items;
pub mod disk_decision;
pub mod disk_measure;
pub mod finding;
pub mod host;
mod interrupt_items;
mod limit_items;
mod memory_items;
mod mounts;
mod network_items;
mod ring_items;
pub mod script;
pub mod target;
pub mod topology;
pub mod undo_file;

#[cfg(test)]
mod apply_test;
#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod item_test;
