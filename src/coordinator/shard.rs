//! What the host needs of a shard, whatever it coordinates.

use super::context::Context;
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};
use super::group_request::{GroupAnswer, GroupRequest};
use super::group_shard::GroupShard;
use super::transaction_request::{TransactionAnswer, TransactionRequest};
use super::transaction_shard::TransactionShard;

/// The state machine behind one partition; see the charter of this folder.
pub trait Shard: 'static {
    /// What it is asked.
    type Request<'a>;
    /// What it answers.
    type Answer: 'static;

    /// The shard of an empty log.
    fn empty() -> Self;

    /// Decides about a request; the answer may come with the effects of a later call.
    fn handle(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: Self::Request<'_>,
        effects: &mut Effects<Self::Answer>,
    );

    /// Takes over a record of the log, which may belong to a producer's transaction.
    ///
    /// # Errors
    /// What is wrong with it.
    fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        transaction: Option<ProducerIdAndEpoch>,
    ) -> Result<(), String>;

    /// A marker in the log ended a producer's transaction.
    fn end_transaction(&mut self, producer_id: i64, committed: bool);

    /// The whole log was replayed.
    fn loaded(&mut self, context: &mut Context<'_>, effects: &mut Effects<Self::Answer>);

    /// When `tick` has something to do.
    fn next_due_ms(&self) -> Option<u64>;

    /// Does what is due, or a part of it.
    fn tick(&mut self, context: &mut Context<'_>, effects: &mut Effects<Self::Answer>);

    /// Topics are gone.
    fn topics_deleted(
        &mut self,
        context: &mut Context<'_>,
        names: &[String],
        effects: &mut Effects<Self::Answer>,
    );
}

impl Shard for TransactionShard {
    type Request<'a> = TransactionRequest;
    type Answer = TransactionAnswer;

    fn empty() -> Self {
        TransactionShard::new()
    }

    fn handle(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: TransactionRequest,
        effects: &mut Effects<TransactionAnswer>,
    ) {
        TransactionShard::handle(self, context, ticket, request, effects);
    }

    fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        _transaction: Option<ProducerIdAndEpoch>,
    ) -> Result<(), String> {
        TransactionShard::replay(self, key, value).map_err(|malformed| malformed.0)
    }

    fn end_transaction(&mut self, _producer_id: i64, _committed: bool) {
        // Nobody writes to this topic within a transaction.
    }

    fn loaded(&mut self, context: &mut Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        TransactionShard::loaded(self, context, effects);
    }

    fn next_due_ms(&self) -> Option<u64> {
        TransactionShard::next_due_ms(self)
    }

    fn tick(&mut self, context: &mut Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        TransactionShard::tick(self, context, effects);
    }

    fn topics_deleted(
        &mut self,
        _context: &mut Context<'_>,
        _names: &[String],
        _effects: &mut Effects<TransactionAnswer>,
    ) {
        // Markers of partitions that are gone are left out when they are written.
    }
}

impl Shard for GroupShard {
    type Request<'a> = GroupRequest<'a>;
    type Answer = GroupAnswer;

    fn empty() -> Self {
        GroupShard::new()
    }

    fn handle(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: GroupRequest<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        GroupShard::handle(self, context, ticket, request, effects);
    }

    fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        transaction: Option<ProducerIdAndEpoch>,
    ) -> Result<(), String> {
        GroupShard::replay(self, key, value, transaction).map_err(|error| error.to_string())
    }

    fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        GroupShard::end_transaction(self, producer_id, committed);
    }

    fn loaded(&mut self, context: &mut Context<'_>, effects: &mut Effects<GroupAnswer>) {
        GroupShard::loaded(self, context, effects);
    }

    fn next_due_ms(&self) -> Option<u64> {
        GroupShard::next_due_ms(self)
    }

    fn tick(&mut self, context: &mut Context<'_>, effects: &mut Effects<GroupAnswer>) {
        GroupShard::tick(self, context, effects);
    }

    fn topics_deleted(
        &mut self,
        context: &mut Context<'_>,
        names: &[String],
        effects: &mut Effects<GroupAnswer>,
    ) {
        GroupShard::topics_deleted(self, context, names, effects);
    }
}
