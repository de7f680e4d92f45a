//! One shard of groups: what is asked of a partition of `__consumer_offsets`.

use crate::wire::codec::DecodeError;

use super::context::Context;
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};
use super::group_request::{GroupAnswer, GroupRequest};

/// How many of what a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Classic groups without members.
    pub classic_empty: usize,
    /// Classic groups whose members are joining.
    pub classic_preparing_rebalance: usize,
    /// Classic groups whose members wait for their assignments.
    pub classic_completing_rebalance: usize,
    /// Classic groups whose members have their assignments.
    pub classic_stable: usize,
    /// Members of all groups.
    pub members: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Records of types that are not known, seen by `replay`.
    pub unknown_records: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct GroupShard {}

impl GroupShard {
    /// A shard whose log is empty.
    #[must_use]
    pub fn new() -> GroupShard {
        GroupShard::default()
    }

    /// Decides a request. Its answer is in the effects of this call or of a later one.
    pub fn handle(
        &mut self,
        _context: &mut Context<'_>,
        _ticket: Ticket,
        _request: GroupRequest<'_>,
        _effects: &mut Effects<GroupAnswer>,
    ) {
    }

    /// Applies a record of the log. Types that are not known are counted and skipped.
    pub fn replay(
        &mut self,
        _record_key: &[u8],
        _value: Option<&[u8]>,
        _transaction: Option<ProducerIdAndEpoch>,
    ) -> Result<(), DecodeError> {
        Ok(())
    }

    /// A marker of this producer's transaction stands in the log.
    pub fn end_transaction(&mut self, _producer_id: i64, _committed: bool) {}

    /// The whole log was replayed: sessions and timers begin.
    pub fn loaded(&mut self, _context: &mut Context<'_>, _effects: &mut Effects<GroupAnswer>) {}

    /// When [`GroupShard::tick`] has something to do.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        None
    }

    /// Does what is due, a bounded part of it; the host asks `next_due_ms` again.
    pub fn tick(&mut self, _context: &mut Context<'_>, _effects: &mut Effects<GroupAnswer>) {}

    /// These topics are gone: so are their offsets.
    pub fn topics_deleted(
        &mut self,
        _context: &mut Context<'_>,
        _names: &[String],
        _effects: &mut Effects<GroupAnswer>,
    ) {
    }

    /// How many of what it holds.
    #[must_use]
    pub fn counts(&self) -> GroupCounts {
        GroupCounts::default()
    }
}
