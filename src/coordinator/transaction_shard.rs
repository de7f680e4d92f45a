//! The transactional ids of one partition of `__transaction_state`.
//!
//! A transaction ends in three steps: the decision is written, then the markers, then that they are
//! written. The client is answered after the second: whoever asks next finds the transaction complete.
//! When markers take long the client is answered after the first, as Kafka does at once.

use std::collections::BTreeMap;

use super::context::Context;
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};
use super::timers::Timers;
use super::transaction::{EndDecision, InitDecision, Transaction, TransactionState};
use super::transaction_record::{self, Malformed};
use super::transaction_request::{
    ListedTransaction, MarkerJob, TransactionAnswer, TransactionDescription, TransactionFilter,
    TransactionRequest,
};
use crate::wire::error_code::ErrorCode;

/// How long the end of a transaction is not answered because markers are being written.
const MARKERS_WAIT_MS: u64 = 1000;

/// Transactional ids that one call of `tick` looks at.
const MOST_PER_TICK: usize = 10_000;

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Look for transactions that took too long.
    Timeouts,
    /// Look for ids that nobody uses.
    Expiry,
    /// Markers of this id have taken long enough to answer.
    Answer(String),
}

/// The end of a transaction that waits for its markers.
#[derive(Clone, Debug)]
struct Ending {
    ticket: Ticket,
    producer: ProducerIdAndEpoch,
    due_ms: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct TransactionShard {
    transactions: BTreeMap<String, Transaction>,
    endings: BTreeMap<String, Ending>,
    timers: Timers<Due>,
}

impl TransactionShard {
    /// A shard of an empty log.
    #[must_use]
    pub fn new() -> TransactionShard {
        TransactionShard::default()
    }

    /// Transactional ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Transactions that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        let is_open = |transaction: &&Transaction| transaction.state == TransactionState::Ongoing;
        self.transactions.values().filter(is_open).count()
    }

    /// Takes over a record of the log.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        match transaction_record::decode(key, value)? {
            Some((id, Some(transaction))) => {
                self.transactions.insert(id, transaction);
            }
            Some((id, None)) => {
                self.transactions.remove(&id);
            }
            None => {}
        }
        Ok(())
    }

    /// After a load: timers begin, and markers that may not have been written are.
    pub fn loaded(&mut self, context: &mut Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        let settings = context.transactions;
        let now_ms = context.now_ms;
        let due_ms = now_ms.saturating_add(settings.abort_check_interval_ms);
        self.timers.set(due_ms, Due::Timeouts);
        let due_ms = now_ms.saturating_add(settings.id_expiration_check_interval_ms);
        self.timers.set(due_ms, Due::Expiry);
        for (id, transaction) in &self.transactions {
            if transaction.state.is_prepared() {
                effects.markers.push(job(id, transaction));
            }
        }
    }

    /// When the next timer fires.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.timers.next_due_ms()
    }

    /// Does what is due.
    pub fn tick(&mut self, context: &mut Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        while let Some(due) = self.timers.pop_due(context.now_ms) {
            let (due, interval_ms) = match due {
                Due::Answer(id) => {
                    self.answer_ending(&id, context.now_ms, effects);
                    continue;
                }
                Due::Timeouts => {
                    self.abort_timed_out(context, effects);
                    (due, context.transactions.abort_check_interval_ms)
                }
                Due::Expiry => {
                    self.expire(context, effects);
                    (due, context.transactions.id_expiration_check_interval_ms)
                }
            };
            let next_ms = context.now_ms.saturating_add(interval_ms.max(1));
            self.timers.set(next_ms, due);
        }
    }

    fn answer_ending(&mut self, id: &str, now_ms: u64, effects: &mut Effects<TransactionAnswer>) {
        let is_due = |ending: &Ending| ending.due_ms <= now_ms;
        if self.endings.get(id).is_some_and(is_due)
            && let Some(ending) = self.endings.remove(id)
        {
            effects.answer(ending.ticket, TransactionAnswer::End(Ok(ending.producer)));
        }
    }

    fn abort_timed_out(&mut self, context: &Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        let wall_ms = context.wall_ms;
        let is_late = |transaction: &Transaction| transaction.is_timed_out(wall_ms);
        let late = self.transactions.iter().filter(|(_, it)| is_late(it));
        let late: Vec<String> = late.map(|(id, _)| id.clone()).take(MOST_PER_TICK).collect();
        for id in late {
            let prepared = self.transactions[&id].fence_and_abort(wall_ms);
            self.prepare(&id, prepared, effects);
        }
    }

    fn expire(&mut self, context: &Context<'_>, effects: &mut Effects<TransactionAnswer>) {
        let horizon_ms = context.wall_ms - context.transactions.id_expiration_ms;
        let is_old = |transaction: &Transaction| {
            transaction.last_update_ms < horizon_ms
                && transaction.state != TransactionState::Ongoing
                && !transaction.state.is_prepared()
        };
        let old = self.transactions.iter().filter(|(_, it)| is_old(it));
        let old: Vec<String> = old.map(|(id, _)| id.clone()).take(MOST_PER_TICK).collect();
        for id in old {
            effects.records.push(transaction_record::encode(&id, None));
            self.transactions.remove(&id);
        }
    }

    /// Decides about a request.
    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        request: TransactionRequest,
        effects: &mut Effects<TransactionAnswer>,
    ) {
        let answer = match request {
            TransactionRequest::Init { .. } => {
                TransactionAnswer::Init(self.init(context, request, effects))
            }
            TransactionRequest::AddPartitions {
                transactional_id,
                producer,
                partitions,
                protocol,
            } => TransactionAnswer::AddPartitions(self.known(&transactional_id, producer).map(
                |transaction| {
                    let now_ms = context.wall_ms;
                    let next = transaction.with_partitions(&partitions, protocol, now_ms);
                    if let Some(next) = next {
                        self.note(&transactional_id, next, effects);
                    }
                },
            )),
            TransactionRequest::Verify {
                transactional_id,
                producer,
                partitions,
            } => TransactionAnswer::Verify(
                self.known(&transactional_id, producer)
                    .map(|transaction| transaction.missing(&partitions)),
            ),
            TransactionRequest::End { .. } => match self.end(context, ticket, request, effects) {
                Some(answer) => TransactionAnswer::End(answer),
                None => return,
            },
            TransactionRequest::Describe(id) => TransactionAnswer::Describe(self.describe(&id)),
            TransactionRequest::List(filter) => {
                TransactionAnswer::List(self.list(&filter, context.wall_ms))
            }
        };
        effects.answer(ticket, answer);
    }

    /// The transactional id of a producer that may work on its transaction.
    fn known(&self, id: &str, producer: ProducerIdAndEpoch) -> Result<Transaction, ErrorCode> {
        let transaction = self.transactions.get(id);
        let transaction = transaction.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        transaction.check_producer(producer)?;
        Ok(transaction.clone())
    }

    fn init(
        &mut self,
        context: &Context<'_>,
        request: TransactionRequest,
        effects: &mut Effects<TransactionAnswer>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let TransactionRequest::Init {
            transactional_id: id,
            timeout_ms,
            expected,
            fresh_producer_id,
        } = request
        else {
            unreachable!("the caller has an Init");
        };
        if timeout_ms <= 0 || timeout_ms > context.transactions.max_timeout_ms {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        let now_ms = context.wall_ms;
        let is_full = self.transactions.len() >= context.transactions.ids_max;
        let known = self.transactions.get(&id).cloned();
        let transaction = match known {
            Some(transaction) => transaction,
            None if is_full => return Err(ErrorCode::CoordinatorNotAvailable),
            None => Transaction::new(fresh_producer_id, timeout_ms, now_ms),
        };
        match transaction.init(expected, timeout_ms, fresh_producer_id, now_ms) {
            InitDecision::Become(next) => {
                let producer = next.producer;
                self.note(&id, next, effects);
                Ok(producer)
            }
            InitDecision::Keep => Ok(transaction.producer),
            InitDecision::AbortFirst(prepared) => {
                self.prepare(&id, prepared, effects);
                Err(ErrorCode::ConcurrentTransactions)
            }
            InitDecision::Refuse(code) => Err(code),
        }
    }

    /// None when the answer waits for the markers.
    fn end(
        &mut self,
        context: &Context<'_>,
        ticket: Ticket,
        request: TransactionRequest,
        effects: &mut Effects<TransactionAnswer>,
    ) -> Option<Result<ProducerIdAndEpoch, ErrorCode>> {
        let TransactionRequest::End {
            transactional_id: id,
            producer,
            commit,
            protocol,
            fresh_producer_id,
        } = request
        else {
            unreachable!("the caller has an End");
        };
        let Some(transaction) = self.transactions.get(&id) else {
            return Some(Err(ErrorCode::InvalidProducerIdMapping));
        };
        let now_ms = context.wall_ms;
        match transaction.end(producer, commit, protocol, fresh_producer_id, now_ms) {
            EndDecision::Prepare(prepared, becomes) => {
                self.prepare(&id, prepared, effects);
                let due_ms = context.now_ms.saturating_add(MARKERS_WAIT_MS);
                self.timers.set(due_ms, Due::Answer(id.clone()));
                let ending = Ending {
                    ticket,
                    producer: becomes,
                    due_ms,
                };
                let before = self.endings.insert(id, ending);
                assert!(before.is_none(), "a transaction ends once at a time");
                None
            }
            EndDecision::Done(producer) => Some(Ok(producer)),
            EndDecision::Refuse(code) => Some(Err(code)),
        }
    }

    fn note(&mut self, id: &str, next: Transaction, effects: &mut Effects<TransactionAnswer>) {
        let record = transaction_record::encode(id, Some(&next));
        effects.records.push(record);
        self.transactions.insert(id.to_string(), next);
    }

    fn prepare(
        &mut self,
        id: &str,
        prepared: Transaction,
        effects: &mut Effects<TransactionAnswer>,
    ) {
        effects.markers.push(job(id, &prepared));
        self.note(id, prepared, effects);
    }

    /// All markers of a job are durable: its client is answered. What follows need not be durable
    /// for that; after a crash the markers are written again.
    pub fn markers_written(&mut self, job: &MarkerJob, effects: &mut Effects<TransactionAnswer>) {
        if self.ended_by(job).is_some()
            && let Some(ending) = self.endings.remove(&job.transactional_id)
        {
            let due = Due::Answer(job.transactional_id.clone());
            self.timers.cancel(ending.due_ms, due);
            effects.answer(ending.ticket, TransactionAnswer::End(Ok(ending.producer)));
        }
    }

    /// Completes the transaction of a job whose markers are durable.
    pub fn complete(
        &mut self,
        context: &Context<'_>,
        job: &MarkerJob,
        effects: &mut Effects<TransactionAnswer>,
    ) {
        if let Some(transaction) = self.ended_by(job) {
            let completed = transaction.completed(context.wall_ms);
            self.note(&job.transactional_id, completed, effects);
        }
    }

    /// The transaction that a job ends, if it still does.
    fn ended_by(&self, job: &MarkerJob) -> Option<&Transaction> {
        let transaction = self.transactions.get(&job.transactional_id)?;
        let is_it = transaction.state.is_prepared() && transaction.producer == job.producer;
        is_it.then_some(transaction)
    }

    fn describe(&self, id: &str) -> Option<TransactionDescription> {
        let transaction = self.transactions.get(id)?;
        let is_open =
            transaction.state == TransactionState::Ongoing || transaction.state.is_prepared();
        Some(TransactionDescription {
            state: transaction.state,
            producer: transaction.producer,
            timeout_ms: transaction.timeout_ms,
            start_ms: if is_open { transaction.start_ms } else { -1 },
            partitions: transaction.partitions.clone(),
        })
    }

    fn list(&self, filter: &TransactionFilter, now_ms: i64) -> Vec<ListedTransaction> {
        let passes = |transaction: &Transaction| {
            let age_ms = now_ms - transaction.start_ms;
            (filter.states.is_empty() || filter.states.contains(&transaction.state))
                && (filter.producer_ids.is_empty()
                    || filter.producer_ids.contains(&transaction.producer.id))
                && filter
                    .open_longer_than_ms
                    .is_none_or(|least| transaction.start_ms >= 0 && age_ms > least)
        };
        let listed = self.transactions.iter().filter(|(_, it)| passes(it));
        listed
            .map(|(id, transaction)| ListedTransaction {
                transactional_id: id.clone(),
                producer_id: transaction.producer.id,
                state: transaction.state,
            })
            .collect()
    }
}

fn job(id: &str, transaction: &Transaction) -> MarkerJob {
    MarkerJob {
        transactional_id: id.to_string(),
        producer: transaction.producer,
        commit: transaction.state == TransactionState::PrepareCommit,
        partitions: transaction.partitions.clone(),
        protocol: transaction.protocol,
    }
}
