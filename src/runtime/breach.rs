//! Planted breaches of the crash rules: the test of the tests.
//!
//! Every rule that recovery relies on has one named breach. The simulated world can plant one; the
//! power-cut tests must then find a lost or invented record. In the real runtime [`is_planted`] is
//! the constant `false`, so the branches vanish.

/// One way to break a crash rule of `log/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Acknowledge a group before its write has completed.
    AcknowledgeEarly,
    /// Acknowledge a group although an earlier group in flight is not complete.
    AcknowledgeOutOfOrder,
    /// Write a journal group without asking for durability.
    DropGroupDurability,
    /// Write the extents beside a group without asking for durability.
    DropExtentDurability,
    /// Overwrite a partly filled block although no complete group holds its beginning.
    RewriteBlockUnderImage,
    /// At recovery, let older bytes of the journal overwrite what was written directly later.
    ReplayOverDirect,
    /// At recovery, take extents for granted.
    SkipExtentCheck,
    /// Recycle a segment's file that a reader holds open.
    RecycleWhileRead,
    /// Remove or overwrite bytes before recovery knows that the entry's group was complete.
    EffectsBeforeTold,
    /// Write the checkpoint before the data it names is flushed.
    CheckpointBeforeData,
    /// Continue a partial block after a checkpoint without journalling its beginning again.
    SkipBlockRebase,
    /// Let an entry name a segment file whose directory was not synced.
    NameBeforeDirectorySync,
    /// At recovery, take a bad group in the middle for the end of the journal.
    BadMiddleIsEnd,
    /// At recovery, take groups of an older epoch as successors.
    StaleSuccessor,
    /// Reuse a journal file before the checkpoint that covers it is durable.
    ReuseBeforeCheckpoint,
    /// Apply the effects of a truncation before its entry is complete.
    TruncateBeforeEntry,
    /// At recovery, write what the journal holds of a segment that was swapped out into the file
    /// that has its name now.
    ReplayIntoSwapped,
    /// Give a compacted segment its name before the entry of its swap is durable.
    SwapBeforeEntry,
}

/// Whether the simulated world has planted `breach`.
#[cfg(feature = "sim")]
#[must_use]
pub fn is_planted(breach: Breach) -> bool {
    super::sim::world::current().planted() == Some(breach)
}

/// Never, outside the simulation.
#[cfg(not(feature = "sim"))]
#[must_use]
pub const fn is_planted(_breach: Breach) -> bool {
    false
}
