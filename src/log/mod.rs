//! One append-only log on one disk; knows no replication.
//!
//! * **Owns** segments, journals, checkpoints, the chunk cache and recovery.
//! * **How many**: one [`log_directory::LogDirectory`] with one journal per core and data
//!   directory, one [`partition_log::PartitionLog`] per partition, one cache per core.
//! * **Which core**: the one that owns the partition; recovery runs before any core starts.
//! * **May import**: `runtime`, `wire`, `observe`, `config`.
//!
//! # The crash argument
//! 1. A record is acknowledged when the journal group that carries it, every group before it, and
//!    everything these groups wrote straight to segments (*extents*) were written durably. So at a
//!    cut every acknowledged byte is in a group that recovery can read, in an extent that a group
//!    names, or in a segment that a checkpoint covers.
//! 2. Recovery takes groups in order of their sequence, from the first the checkpoint does not
//!    cover. Header and body carry checksums seeded with a secret epoch that is durable before the
//!    first group of it, so neither stale content nor bytes of a client pass. A group that a later
//!    one says was complete is taken with its extents unseen. Behind the last of these, a group
//!    counts only if it verifies and each extent it names is in its file: the headers it names are
//!    there, the checksums of their batches hold, and the bytes before it in its first block are
//!    those the journal has. The first that does not ends the journal, for all logs.
//! 3. A block of a segment is overwritten only when complete groups hold all of it that was
//!    acknowledged. Background writes stay below the flushed end. After a checkpoint (which lets go
//!    of the groups) and after opening, the next entry begins at the block's boundary, and until its
//!    group is complete no extent begins within that block. So a block torn by the cut is written
//!    again by recovery, from the journal. One write is in flight per block: background writes
//!    leave the blocks of extents alone, and extents the block a background write is on.
//! 4. Recovery never writes a block that holds a byte of an extent: only the file has that.
//! 5. Effects of an entry on files (removal, recycling, appends below an old end) begin when the
//!    entry is *told*: a later durable group says that its group was complete. Otherwise recovery
//!    could look for an extent of that group where other bytes are by now, and end the journal
//!    there. Recovery itself removes files only after its new checkpoints are valid.
//! 6. A checkpoint is valid only when all it names is durable: the groups up to its cut, then the
//!    bytes of the segments, then the file itself, by rename. Only then are journal files reused.
//! 7. A segment's file and both its directories are synced before an entry names it. Segment ids
//!    are random: an entry never speaks of another file with the same name. A file is recycled only
//!    when nobody holds it open who would serve what is read: a segment knows its open file as long
//!    as it is in use, also when it is sealed or goes cold. (The scrubber opens files of its own, and
//!    believes what it read only if the segment is still there.)
//! 8. A start writes a new generation of checkpoints with new epochs and switches by one rename;
//!    until then nothing recovery wrote differs from what it would write again. A clean stop ends
//!    with a checkpoint that closes its epoch: the journal takes nothing after its cut, so the next
//!    start need not look into it.
//! 9. A compacted segment is whole and flushed under a name of its own before the entry of its
//!    *swap*; from the turn in which that is recorded memory knows only the new segment, by its open
//!    file. Its name comes when the entry is durable, and no checkpoint taken meanwhile is written
//!    before. It need not be told: all extents in the old segments were complete when their sealing
//!    was, and the group of the swap says so itself.
//! 10. A group that was acknowledged and does not verify is damage, not the end. If its entries can
//!     be told apart, the logs they name are offline, but for what proves itself: batches by their
//!     checksums and the leader's epoch, a swap by its whole file. Otherwise it is every log of that
//!     core for which no later entry shows that nothing is missing. No later entry shows that no swap
//!     is: so recovery writes nothing into a file that may have been swapped in, and the log is
//!     offline. The entry that makes a log known is carried again by the next group, so that none is
//!     forgotten with one group. The others are served; `repair.rs` cuts on an operator's word.
//! 11. What a log remembers of its producers follows from its entries alone. So the entries right
//!     before a truncation's carry what was found below the cut of producers whose remembered batches
//!     lie behind it; they are recorded in the same turn, and count only with the truncation.
//! 12. What a log remembers of its transactions follows from its batches, and of markers from what they
//!     hold. So markers always travel in the journal, never in extents, and a swap that drops the marker
//!     of an aborted transaction names it: a reader who was told of the transaction and never met its
//!     end would leave out what the producer committed later.
//!
//! # Departures from the plan, and why
//! * An extent may begin in a partly filled block and then overwrites it whole (rule 3 says when).
//!   So a stream of large batches leaves nothing for background writes, and no byte twice.
//! * Into blocks that were never written only far larger appends go straight: ext4 commits its own
//!   journal with each durable write there, which took 2 to 3 times as long as one into written
//!   blocks and did not get faster with more at a time (docs/performance.md).
//! * Extents name batches by their headers, not by position and offset alone: recovery then needs
//!   no look into the extents of complete groups, and its time is bounded by the journal's bytes.
//! * Effects wait until they are told (rule 5): think of an extent and the deletion of its log in the
//!   last two groups.
//! * Blocks are allocated ahead in the active segment's own file, in growing steps, instead of in a
//!   pool of prepared files; the pool holds recycled files only. A log without large flow takes no
//!   space it does not use.
//! * A compacted file is named by its segment's id too until it is swapped in: with the plan's name a
//!   second compaction's unfinished file would be taken for that of the first.
//! * The index of a segment thins itself out instead of growing with it, so that checkpoints carry
//!   whole indexes of active segments.
//!
//! *Architecture Invariant*: `stored <= flushed <= size` for every segment, asserted at each move.

mod appending;
pub mod bytes;
pub mod checkpoint;
pub mod chunk_cache;
pub mod cleaned_batch;
pub mod cleaned_transactions;
pub mod cleaner;
pub mod compacting;
pub mod compaction;
pub mod data_directory;
pub mod directory_register;
pub mod entry;
pub mod flush_mark;
pub mod group;
pub mod group_queue;
pub mod index;
pub mod journal;
mod journal_files;
mod journal_scan;
mod keeping;
pub mod leader_epochs;
pub mod log_directory;
mod naming;
pub mod offset_map;
mod pace;
pub mod partition_log;
pub mod position;
mod producer_search;
pub mod producer_state;
pub mod reader;
pub mod recovery;
mod redo;
pub mod repair;
mod replay;
mod restore;
pub mod scrub;
pub mod segment;
pub mod segment_pool;
mod segment_scan;
pub mod small_file;
mod storing;
pub mod swap;
pub mod transactions;

#[cfg(all(test, feature = "sim"))]
mod compaction_test;
#[cfg(all(test, feature = "sim"))]
pub(crate) mod one_log;
#[cfg(all(test, feature = "sim"))]
mod power_cut_compaction;
#[cfg(all(test, feature = "sim"))]
mod power_cut_damage;
#[cfg(all(test, feature = "sim"))]
mod power_cut_history;
#[cfg(all(test, feature = "sim"))]
mod power_cut_model;
#[cfg(all(test, feature = "sim"))]
mod power_cut_recycling;
#[cfg(all(test, feature = "sim"))]
mod power_cut_repair;
#[cfg(all(test, feature = "sim"))]
mod power_cut_test;
#[cfg(all(test, feature = "sim"))]
mod power_cut_workload;
#[cfg(all(test, feature = "sim"))]
mod truncation_test;
