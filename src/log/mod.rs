//! One append-only log on one disk; knows no replication.
//!
//! * **Owns** segments, journals, checkpoints, the chunk cache and recovery.
//! * **How many**: one [`log_directory::LogDirectory`] with one journal per core and data
//!   directory, one [`partition_log::PartitionLog`] per partition, one cache per core.
//! * **Which core**: the one that owns the partition; recovery runs before any core starts.
//! * **May import**: `runtime`, `wire`, `observe`, `config`.
//!
//! # The crash argument
//! 1. A record is acknowledged when the journal group that carries it, and every group before it,
//!    were written durably. So at a cut every acknowledged byte is in a group that recovery can
//!    read, or in a segment that a checkpoint covers.
//! 2. Recovery takes groups in order of their sequence, from the first the checkpoint does not
//!    cover. Header and body carry checksums seeded with a secret epoch that is durable before the
//!    first group of it, so neither stale content nor bytes of a client pass. A group that does not
//!    verify ends the journal, unless a later group says it was complete: that is damage, and
//!    refused rather than cut.
//! 3. A block of a segment is written only when complete groups hold all of it: background writes
//!    stay below the flushed end, and after a checkpoint (which lets go of the groups) and after
//!    opening, the next entry begins at the block's boundary. So a block torn by the cut is written
//!    again by recovery. One task writes segments, so one write is in flight per block.
//! 4. A checkpoint is valid only when all it names is durable: the groups up to its cut, then the
//!    bytes of the segments, then the file itself, by rename. Only then are journal files reused.
//! 5. A segment's file and both its directories are synced before an entry names it; files are
//!    removed after the entry that drops them is durable. Segment ids are random: an entry never
//!    speaks of another file with the same name.
//! 6. A start writes a new generation of checkpoints with new epochs and switches by one rename;
//!    until then nothing recovery wrote differs from what it would write again. A clean stop ends
//!    with a checkpoint that closes its epoch: the journal takes nothing after its cut, so the next
//!    start need not look into it.
//!
//! Departures from the plan so far: every append goes through the journal (the direct path for
//! large ones follows), and the index of a segment thins itself out instead of growing with it, so
//! that checkpoints carry whole indexes of active segments.
//!
//! *Architecture Invariant*: `stored <= flushed <= size` for every segment, asserted at each move.

pub mod bytes;
pub mod checkpoint;
pub mod chunk_cache;
pub mod data_directory;
pub mod directory_register;
pub mod entry;
pub mod group;
pub mod index;
pub mod journal;
pub mod leader_epochs;
pub mod log_directory;
pub mod partition_log;
pub mod position;
pub mod producer_state;
pub mod reader;
pub mod recovery;
mod replay;
pub mod scrub;
pub mod segment;
pub mod small_file;
mod storing;

#[cfg(all(test, feature = "sim"))]
mod power_cut_test;
