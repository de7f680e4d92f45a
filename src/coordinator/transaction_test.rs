//! Transactions, from the first InitProducerId to the last marker: what comes back and what is
//! written.

use std::collections::BTreeSet;

use super::context::{Client, Context, TopicView, Topics};
use super::effects::{Effects, ProducerIdAndEpoch, Ticket};
use super::transaction::TransactionState;
use super::transaction_request::{
    ClientProtocol, MarkerJob, Partitions, TransactionAnswer, TransactionFilter, TransactionRequest,
};
use super::transaction_shard::TransactionShard;
use crate::config::broker::BrokerConfig;
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;

const ID: &str = "orders";

struct NoTopics;

impl Topics for NoTopics {
    fn by_name(&self, _name: &str) -> Option<TopicView> {
        None
    }

    fn by_id(&self, _id: Uuid) -> Option<TopicView> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        0
    }

    fn racks(&self, _topic: &TopicView, _partition: i32) -> Vec<String> {
        Vec::new()
    }
}

/// A shard with a clock, a log, and markers that nobody has written yet.
struct World {
    shard: TransactionShard,
    config: BrokerConfig,
    now_ms: u64,
    tickets: u64,
    fresh_id: i64,
    records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    markers: Vec<MarkerJob>,
    answers: Vec<(Ticket, TransactionAnswer)>,
}

impl World {
    fn new() -> World {
        World {
            shard: TransactionShard::new(),
            config: BrokerConfig::tiny_for_tests(),
            now_ms: 1_000_000,
            tickets: 0,
            fresh_id: 1000,
            records: Vec::new(),
            markers: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn with(
        &mut self,
        decide: impl FnOnce(&mut TransactionShard, &mut Context<'_>, &mut Effects<TransactionAnswer>),
    ) {
        let mut effects = Effects::default();
        let mut context = Context {
            now_ms: self.now_ms,
            wall_ms: self.now_ms as i64,
            client: Client::default(),
            topics: &NoTopics,
            groups: &self.config.groups,
            single_groups: &self.config.groups,
            transactions: &self.config.transactions,
            batch_max_bytes: usize::MAX,
            new_id: &mut || Uuid([1; 16]),
        };
        decide(&mut self.shard, &mut context, &mut effects);
        let records = effects.records.into_iter();
        self.records
            .extend(records.map(|record| (record.key, record.value)));
        self.markers.append(&mut effects.markers);
        self.answers.append(&mut effects.answers);
    }

    fn send(&mut self, request: TransactionRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.with(|shard, context, effects| shard.handle(context, ticket, request, effects));
        ticket
    }

    fn answer(&mut self, ticket: Ticket) -> Option<TransactionAnswer> {
        let at = self
            .answers
            .iter()
            .position(|(whose, _)| *whose == ticket)?;
        Some(self.answers.remove(at).1)
    }

    fn ask(&mut self, request: TransactionRequest) -> TransactionAnswer {
        let ticket = self.send(request);
        self.answer(ticket).expect("answered at once")
    }

    fn init(
        &mut self,
        expected: Option<ProducerIdAndEpoch>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        self.fresh_id += 1;
        let request = TransactionRequest::Init {
            transactional_id: ID.to_string(),
            timeout_ms: 60_000,
            expected,
            fresh_producer_id: self.fresh_id,
        };
        match self.ask(request) {
            TransactionAnswer::Init(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, producer: ProducerIdAndEpoch, topic: &str) -> Result<(), ErrorCode> {
        self.add_as(producer, topic, ClientProtocol::V1)
    }

    fn add_as(
        &mut self,
        producer: ProducerIdAndEpoch,
        topic: &str,
        protocol: ClientProtocol,
    ) -> Result<(), ErrorCode> {
        let request = TransactionRequest::AddPartitions {
            transactional_id: ID.to_string(),
            producer,
            partitions: partitions(topic),
            protocol,
        };
        match self.ask(request) {
            TransactionAnswer::AddPartitions(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn send_end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        protocol: ClientProtocol,
    ) -> Ticket {
        self.fresh_id += 1;
        self.send(TransactionRequest::End {
            transactional_id: ID.to_string(),
            producer,
            commit,
            protocol,
            fresh_producer_id: self.fresh_id,
        })
    }

    /// The end of a transaction with its markers written.
    fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        protocol: ClientProtocol,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let ticket = self.send_end(producer, commit, protocol);
        self.write_markers();
        match self.answer(ticket) {
            Some(TransactionAnswer::End(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    fn write_markers(&mut self) {
        for job in std::mem::take(&mut self.markers) {
            self.with(|shard, context, effects| {
                shard.markers_written(&job, effects);
                shard.complete(context, &job, effects);
            });
        }
    }

    fn state(&mut self) -> TransactionState {
        match self.ask(TransactionRequest::Describe(ID.to_string())) {
            TransactionAnswer::Describe(Some(description)) => description.state,
            other => panic!("{other:?}"),
        }
    }

    /// Another coordinator that has read the log.
    fn reload(&mut self) {
        let mut shard = TransactionShard::new();
        for (key, value) in &self.records {
            shard.replay(key, value.as_deref()).expect("our own record");
        }
        self.shard = shard;
        self.markers.clear();
        self.with(|shard, context, effects| shard.loaded(context, effects));
    }
}

fn partitions(topic: &str) -> Partitions {
    Partitions::from([(topic.to_string(), BTreeSet::from([0, 1]))])
}

fn epoch(producer: ProducerIdAndEpoch, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { epoch, ..producer }
}

#[test]
fn a_transaction_commits_and_the_answer_waits_for_its_markers() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    assert_eq!((producer.id, producer.epoch), (1001, 0));
    world.add(producer, "a").unwrap();
    world.add(producer, "b").unwrap();
    let written = world.records.len();
    world.add(producer, "a").unwrap();
    assert_eq!(world.records.len(), written, "it has that partition");
    let ticket = world.send_end(producer, true, ClientProtocol::V1);
    assert_eq!(world.state(), TransactionState::PrepareCommit);
    assert_eq!(world.answer(ticket), None);
    let job = world.markers[0].clone();
    assert!(job.commit && job.producer == producer && job.partitions.len() == 2);
    world.write_markers();
    let answer = TransactionAnswer::End(Ok(producer));
    assert_eq!(world.answer(ticket), Some(answer));
    assert_eq!(world.state(), TransactionState::CompleteCommit);
    let again = world.ask(TransactionRequest::End {
        transactional_id: ID.to_string(),
        producer,
        commit: true,
        protocol: ClientProtocol::V1,
        fresh_producer_id: -1,
    });
    assert_eq!(again, TransactionAnswer::End(Ok(producer)), "a retry");
}

#[test]
fn markers_that_take_long_do_not_keep_the_client_waiting() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    world.add(producer, "a").unwrap();
    let ticket = world.send_end(producer, true, ClientProtocol::V1);
    world.now_ms += 999;
    world.with(|shard, context, effects| shard.tick(context, effects));
    assert_eq!(world.answer(ticket), None);
    world.now_ms += 1;
    world.with(|shard, context, effects| shard.tick(context, effects));
    assert_eq!(
        world.answer(ticket),
        Some(TransactionAnswer::End(Ok(producer)))
    );
    let busy = Err(ErrorCode::ConcurrentTransactions);
    assert_eq!(world.add(producer, "a"), busy);
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions));
    world.write_markers();
    assert_eq!(world.add(producer, "a"), Ok(()));
}

#[test]
fn a_second_producer_aborts_the_transaction_of_the_first_and_fences_it() {
    let mut world = World::new();
    let first = world.init(None).unwrap();
    world.add(first, "a").unwrap();
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions));
    let job = world.markers[0].clone();
    assert!(!job.commit && job.producer == epoch(first, 1));
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions));
    world.write_markers();
    let second = world.init(None).unwrap();
    assert_eq!(second, epoch(first, 2));
    assert_eq!(world.add(first, "a"), Err(ErrorCode::ProducerFenced));
    let end = world.end(first, true, ClientProtocol::V1);
    assert_eq!(end, Err(ErrorCode::ProducerFenced));
    assert_eq!(world.add(second, "a"), Ok(()));
}

#[test]
fn a_producer_bumps_its_own_epoch_and_may_retry_that() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    let next = world.init(Some(producer)).unwrap();
    assert_eq!(next, epoch(producer, 1));
    assert_eq!(world.init(Some(producer)), Ok(next), "the answer was lost");
    let last = world.init(Some(next)).unwrap();
    assert_eq!(last, epoch(producer, 2));
    assert_eq!(world.init(Some(producer)), Err(ErrorCode::ProducerFenced));
    let stranger = ProducerIdAndEpoch { id: 5, epoch: 0 };
    assert_eq!(world.init(Some(stranger)), Err(ErrorCode::ProducerFenced));
}

#[test]
fn epochs_that_are_used_up_bring_a_new_producer_id() {
    let mut world = World::new();
    let first = world.init(None).unwrap();
    let mut producer = first;
    while producer.id == first.id {
        let next = world.init(Some(producer)).unwrap();
        if next.id != first.id {
            assert_eq!(producer.epoch, i16::MAX - 1);
            assert_eq!(next.epoch, 0);
            assert_eq!(world.init(Some(producer)), Ok(next), "the answer was lost");
        }
        producer = next;
    }
    assert_eq!(
        world.add(first, "a"),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
    assert_eq!(world.add(producer, "a"), Ok(()));
}

#[test]
fn an_end_that_comes_late_does_not_end_the_next_transaction() {
    let mut world = World::new();
    let first = world.init(None).unwrap();
    world.add_as(first, "a", ClientProtocol::V2).unwrap();
    let second = world.end(first, true, ClientProtocol::V2).unwrap();
    assert_eq!(second, epoch(first, 1));
    // The client did not hear and asks again: the same producer, nothing written.
    let written = world.records.len();
    assert_eq!(world.end(first, true, ClientProtocol::V2), Ok(second));
    assert_eq!(world.records.len(), written);
    let other = world.end(first, false, ClientProtocol::V2);
    assert_eq!(other, Err(ErrorCode::InvalidTxnState));
    world.add_as(second, "b", ClientProtocol::V2).unwrap();
    let late = world.end(first, true, ClientProtocol::V2);
    assert_eq!(late, Err(ErrorCode::ProducerFenced));
    let late = world.add_as(first, "a", ClientProtocol::V2);
    assert_eq!(late, Err(ErrorCode::ProducerFenced));
    assert_eq!(world.state(), TransactionState::Ongoing);
}

#[test]
fn an_abort_of_nothing_moves_the_epoch_and_a_commit_of_nothing_is_refused() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    let commit = world.end(producer, true, ClientProtocol::V2);
    assert_eq!(commit, Err(ErrorCode::InvalidTxnState));
    let aborted = world.end(producer, false, ClientProtocol::V2).unwrap();
    assert_eq!(aborted, epoch(producer, 1));
    let again = world.end(producer, false, ClientProtocol::V2);
    assert_eq!(again, Ok(aborted), "a retry");
    let old = world.end(aborted, false, ClientProtocol::V1);
    assert_eq!(old, Ok(aborted), "the old protocol aborts once");
    let old = world.end(aborted, true, ClientProtocol::V1);
    assert_eq!(old, Err(ErrorCode::InvalidTxnState));
}

#[test]
fn the_new_protocol_changes_the_producer_id_at_the_last_epoch() {
    let mut world = World::new();
    let mut producer = world.init(None).unwrap();
    let first = producer.id;
    while producer.epoch < i16::MAX - 1 {
        producer = world.end(producer, false, ClientProtocol::V2).unwrap();
    }
    world.add_as(producer, "a", ClientProtocol::V2).unwrap();
    let next = world.end(producer, true, ClientProtocol::V2).unwrap();
    assert!(next.id != first && next.epoch == 0, "{next:?}");
    let again = world.end(producer, true, ClientProtocol::V2);
    assert_eq!(again, Ok(next), "a retry");
    world.add_as(next, "a", ClientProtocol::V2).unwrap();
    let late = world.end(producer, true, ClientProtocol::V2);
    assert_eq!(late, Err(ErrorCode::ProducerFenced));
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    world.reload();
    world.add(producer, "a").unwrap();
    world.now_ms += 60_000;
    world.with(|shard, context, effects| shard.tick(context, effects));
    assert_eq!(world.state(), TransactionState::Ongoing);
    world.now_ms += 10_000;
    world.with(|shard, context, effects| shard.tick(context, effects));
    assert_eq!(world.state(), TransactionState::PrepareAbort);
    assert_eq!(world.markers[0].producer, epoch(producer, 1));
    world.write_markers();
    let end = world.end(producer, true, ClientProtocol::V1);
    assert_eq!(end, Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init(Some(producer)), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init(None), Ok(epoch(producer, 2)));
}

#[test]
fn a_new_coordinator_writes_the_markers_again_and_forgets_nothing() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    world.add(producer, "a").unwrap();
    world.reload();
    assert_eq!(world.state(), TransactionState::Ongoing);
    assert!(world.markers.is_empty());
    world.send_end(producer, true, ClientProtocol::V1);
    world.reload();
    assert_eq!(world.state(), TransactionState::PrepareCommit);
    assert_eq!(world.markers.len(), 1);
    world.write_markers();
    assert_eq!(world.state(), TransactionState::CompleteCommit);
    // Markers of the coordinator before it change nothing any more.
    let written = world.records.len();
    world.with(|shard, context, effects| {
        let job = MarkerJob {
            transactional_id: ID.to_string(),
            producer,
            commit: true,
            partitions: partitions("a"),
            protocol: ClientProtocol::V1,
        };
        shard.markers_written(&job, effects);
        shard.complete(context, &job, effects);
    });
    assert_eq!(world.records.len(), written);
    world.reload();
    assert_eq!(world.state(), TransactionState::CompleteCommit);
    assert_eq!(world.end(producer, true, ClientProtocol::V1), Ok(producer));
}

#[test]
fn what_is_not_known_and_what_is_out_of_range_is_refused() {
    let mut world = World::new();
    let nobody = ProducerIdAndEpoch { id: 7, epoch: 0 };
    let unknown = Err(ErrorCode::InvalidProducerIdMapping);
    assert_eq!(world.add(nobody, "a"), unknown);
    let end = world.end(nobody, true, ClientProtocol::V2);
    assert_eq!(end, Err(ErrorCode::InvalidProducerIdMapping));
    for timeout_ms in [0, -1, 900_001] {
        let answer = world.ask(TransactionRequest::Init {
            transactional_id: ID.to_string(),
            timeout_ms,
            expected: None,
            fresh_producer_id: 1,
        });
        let refused = Err(ErrorCode::InvalidTransactionTimeout);
        assert_eq!(answer, TransactionAnswer::Init(refused));
    }
    let producer = world.init(None).unwrap();
    let stranger = ProducerIdAndEpoch {
        id: producer.id + 1,
        ..producer
    };
    assert_eq!(world.add(stranger, "a"), unknown);
    assert_eq!(
        world.add(epoch(producer, 1), "a"),
        Err(ErrorCode::ProducerFenced)
    );
}

#[test]
fn partitions_that_were_not_added_are_told() {
    let mut world = World::new();
    let producer = world.init(None).unwrap();
    let verify = |world: &mut World, topic: &str| {
        let answer = world.ask(TransactionRequest::Verify {
            transactional_id: ID.to_string(),
            producer,
            partitions: partitions(topic),
        });
        match answer {
            TransactionAnswer::Verify(Ok(missing)) => missing,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(verify(&mut world, "a"), partitions("a"));
    world.add(producer, "a").unwrap();
    assert!(verify(&mut world, "a").is_empty());
    assert_eq!(verify(&mut world, "b"), partitions("b"));
    world.end(producer, false, ClientProtocol::V1).unwrap();
    assert_eq!(verify(&mut world, "a"), partitions("a"), "it is over");
}

#[test]
fn lists_filter_and_ids_that_nobody_uses_are_forgotten() {
    let mut world = World::new();
    world.reload();
    let producer = world.init(None).unwrap();
    world.add(producer, "a").unwrap();
    let list = |world: &mut World, filter: TransactionFilter| match world
        .ask(TransactionRequest::List(filter))
    {
        TransactionAnswer::List(listed) => listed.len(),
        other => panic!("{other:?}"),
    };
    let of_state = |state| TransactionFilter {
        states: vec![state],
        ..TransactionFilter::default()
    };
    assert_eq!(list(&mut world, TransactionFilter::default()), 1);
    assert_eq!(list(&mut world, of_state(TransactionState::Ongoing)), 1);
    assert_eq!(list(&mut world, of_state(TransactionState::Empty)), 0);
    let older = |ms| TransactionFilter {
        open_longer_than_ms: Some(ms),
        ..TransactionFilter::default()
    };
    world.now_ms += 100;
    assert_eq!(list(&mut world, older(99)), 1);
    assert_eq!(list(&mut world, older(100)), 0);
    world.end(producer, true, ClientProtocol::V1).unwrap();
    world.now_ms += 604_800_000 + 3_600_000;
    world.with(|shard, context, effects| shard.tick(context, effects));
    assert_eq!(list(&mut world, TransactionFilter::default()), 0);
    world.reload();
    assert!(world.shard.is_empty(), "the log says so too");
}
