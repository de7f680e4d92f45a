//! What the host needs of a shard, whatever it coordinates.

use super::context::Context;
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};

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
