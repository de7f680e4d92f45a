//! Which core owns a partition, and the way there and back.
//!
//! Handlers ask the router and do not know which core answers. What is owned here is done here; the
//! rest travels in one message per core and comes back in one. A mailbox that is full refuses the
//! request; answers have queues of their own, as deep as requests may be outstanding, so they always
//! fit.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::control::ControlQuestion;
use super::controller_service::ControllerService;
use super::coordinator_host::Outcome;
use super::coordinators::{
    CoordinatorAnswer, CoordinatorCall, Coordinators, CoordinatorsCell, FirstWord, ParkedCall,
};
use super::image_delta;
use super::membership::Membership;
use super::peer_protocol::HeartbeatRefusal;
use super::peers::{PeerIdentity, Peers};
use super::placement;
use super::quorum_requests::{QuorumAnswer, QuorumFailure};
use super::replica_fetcher::ReplicaFetchers;
use super::replica_manager::{PartResult, ReplicaManager};
use super::replication::{ReplicaFetched, ReplicationQuestion};
use super::request::{
    AppendPart, AppendedPart, ControlFailure, DeleteRecordsPart, DirectoryState, EpochEndPart,
    FetchPart, FetchTerms, FetchedPart, FoundOffset, ListOffsetsPart, LogUsage, PartitionError,
    ProducerDescription, Promise,
};
use crate::cluster::controller::CommandReply;
use crate::cluster::image::MetadataImage;
use crate::config::broker::BrokerConfig;
use crate::log::position::LogId;
use crate::partition::verification::Verification;
use crate::runtime::clock;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::mesh::MeshPort;
use crate::runtime::signal::{Promise as SlotPromise, Promised, Signal, promise};
use crate::wire::codec::Uuid;
use crate::wire::record_batch::BatchHeader;
use crate::wire::transaction_marker::TransactionMarker;

/// Messages taken from the mailboxes in one turn.
const MOST_PER_TURN: usize = 64;

/// What one core asks another.
pub(super) enum Question {
    Append(Vec<AppendPart>, Promise, Duration),
    Read(Vec<FetchPart>, usize, bool),
    AwaitGrowth(Vec<(LogId, i64)>, bool, Duration),
    ListOffsets(Vec<ListOffsetsPart>),
    EpochEnds(Vec<EpochEndPart>),
    DeleteRecords(Vec<DeleteRecordsPart>),
    Verify(Vec<(LogId, BatchHeader)>),
    WriteMarkers(Vec<LogId>, TransactionMarker, bool),
    DescribeProducers(Vec<LogId>),
    Usage,
    Apply(Arc<MetadataImage>),
    Offline(Arc<BTreeSet<LogId>>),
    Control(ControlQuestion),
    Coordinate(CoordinatorCall, ParkedCall),
    Parked(ParkedCall, Box<Outcome<CoordinatorAnswer>>),
    Replication(ReplicationQuestion),
}

/// What comes back.
pub(super) enum Answer {
    Appended(Vec<PartResult<AppendedPart>>),
    Fetched(Vec<FetchedPart>),
    Grown,
    Offsets(Vec<PartResult<FoundOffset>>),
    EpochEnds(Vec<PartResult<(i32, i64)>>),
    LogStarts(Vec<PartResult<i64>>),
    Verified(Vec<PartResult<Verification>>),
    MarkersWritten(Vec<PartResult<AppendedPart>>),
    Producers(Vec<PartResult<Vec<ProducerDescription>>>),
    Usage(Vec<LogUsage>),
    Applied,
    Controlled(Result<CommandReply, ControlFailure>),
    Decided(Result<(CommandReply, u64), ControlFailure>),
    Heard(Result<(), HeartbeatRefusal>),
    Quorum(Result<QuorumAnswer, QuorumFailure>),
    Coordinated(FirstWord),
    ReplicaRead(Vec<ReplicaFetched>),
}

/// A question with the number its answer carries.
pub struct Asked(usize, Question);

/// An answer with the number of its question.
pub struct Answered(usize, Answer);

/// The ends of the two meshes that a router holds.
pub struct RouterPorts {
    /// Questions.
    pub questions: MeshPort<Asked>,
    /// Answers; as deep as questions may be outstanding.
    pub answers: MeshPort<Answered>,
    /// How many questions to one core may be outstanding.
    pub most_outstanding: usize,
}

/// See the head of this file. One per core.
pub struct Router {
    core: CoreId,
    cores: usize,
    ports: RouterPorts,
    replicas: Rc<ReplicaManager>,
    static_config: Rc<BrokerConfig>,
    config: RefCell<Rc<BrokerConfig>>,
    image: RefCell<Arc<MetadataImage>>,
    has_image: Cell<bool>,
    image_applied: Signal,
    calls: RefCell<Slab<(CoreId, SlotPromise<Answer>)>>,
    outstanding: RefCell<Vec<usize>>,
    pub(super) controller: RefCell<Option<Rc<ControllerService>>>,
    /// On the controller's core.
    pub(super) membership: RefCell<Option<Rc<Membership>>>,
    peers: Rc<Peers>,
    fetchers: ReplicaFetchers,
    /// Partitions that do not serve, of every core.
    offline: RefCell<Vec<Arc<BTreeSet<LogId>>>>,
    coordinators: CoordinatorsCell,
    refused: Cell<u64>,
}

impl Router {
    /// The router of one core; it serves the other cores from now on.
    #[must_use]
    pub fn start(
        ports: RouterPorts,
        cores: usize,
        replicas: Rc<ReplicaManager>,
        config: Rc<BrokerConfig>,
        image: MetadataImage,
        identity: PeerIdentity,
    ) -> Rc<Router> {
        let router = Rc::new_cyclic(|weak| {
            let peers = Peers::new(identity, weak);
            Router {
                core: ports.questions.core(),
                cores,
                ports,
                replicas,
                static_config: config.clone(),
                config: RefCell::new(config),
                image: RefCell::new(Arc::new(image)),
                has_image: Cell::new(false),
                image_applied: Signal::default(),
                calls: RefCell::default(),
                outstanding: RefCell::new(vec![0; cores]),
                controller: RefCell::default(),
                membership: RefCell::default(),
                fetchers: ReplicaFetchers::new(peers.clone(), weak),
                peers,
                offline: RefCell::new(vec![Arc::default(); cores]),
                coordinators: CoordinatorsCell::new(),
                refused: Cell::new(0),
            }
        });
        let coordinators = Coordinators::start(&router, &router.replicas);
        let first = router.coordinators.set(coordinators).is_ok();
        assert!(first, "a router starts once");
        spawn(Queue::Network, router.clone().serve_questions());
        spawn(Queue::Network, router.clone().take_answers());
        spawn(Queue::Background, router.clone().spread_offline());
        router.take_part();
        router
    }

    /// The other nodes.
    #[must_use]
    pub fn peers(&self) -> &Rc<Peers> {
        &self.peers
    }

    /// Copies nothing from leaders any more.
    pub fn stop_following(&self) {
        self.fetchers.stop();
    }

    /// The metadata as this core knows it.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// The configuration with dynamic values applied.
    #[must_use]
    pub fn config(&self) -> Rc<BrokerConfig> {
        self.config.borrow().clone()
    }

    /// The partitions of this core.
    #[must_use]
    pub fn replicas(&self) -> &Rc<ReplicaManager> {
        &self.replicas
    }

    /// The number of cores.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Questions refused because a mailbox was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// The core that owns `log`.
    #[must_use]
    pub fn owner(&self, log: LogId) -> CoreId {
        placement::owner(log, self.cores)
    }

    /// The core of this router.
    #[must_use]
    pub(super) fn core(&self) -> CoreId {
        self.core
    }

    /// The coordinators of this core.
    #[must_use]
    pub fn coordinators(&self) -> &Rc<Coordinators> {
        self.coordinators.get().expect("set when the router starts")
    }

    /// Asks the coordinator on another core; None when it is refused.
    pub(super) fn ask_coordinator(
        &self,
        to: CoreId,
        call: CoordinatorCall,
        parked: ParkedCall,
    ) -> Option<impl Future<Output = Option<FirstWord>> + use<>> {
        let answer = self.ask(to, Question::Coordinate(call, parked))?;
        Some(async move {
            match answer.await {
                Some(Answer::Coordinated(first)) => Some(first),
                _ => None,
            }
        })
    }

    /// Tells another core the answer to a call that was parked; false when its mailbox is full.
    pub(super) fn tell_parked(
        self: &Rc<Self>,
        to: CoreId,
        parked: ParkedCall,
        answer: Outcome<CoordinatorAnswer>,
    ) -> bool {
        self.ask(to, Question::Parked(parked, Box::new(answer)))
            .is_some()
    }

    /// Waits for the first image.
    pub async fn ready(&self) {
        loop {
            let applied = self.image_applied.raised();
            if self.has_image.get() {
                return;
            }
            applied.await;
        }
    }

    /// Appends. The order is fixed before this returns; the future resolves to one result per part,
    /// in their order. Other replicas are waited for at most `timeout_ms`.
    pub fn append(
        self: &Rc<Self>,
        parts: Vec<AppendPart>,
        until: Promise,
        timeout_ms: u64,
    ) -> impl Future<Output = Vec<PartResult<AppendedPart>>> + 'static {
        let at_most = Duration::from_millis(timeout_ms);
        let total = parts.len();
        let mut waiting = Vec::new();
        for (owner, indexes, parts) in self.by_owner(parts, |part| part.log) {
            let answer = if owner == self.core {
                Waiting::Here(self.replicas.start_append(parts, until, at_most))
            } else {
                Waiting::There(self.ask(owner, Question::Append(parts, until, at_most)))
            };
            waiting.push((indexes, answer));
        }
        async move {
            let mut results = vec![Err(PartitionError::Overloaded); total];
            for (indexes, answer) in waiting {
                let Some(answers) = answer.take().await else {
                    continue;
                };
                for (index, result) in indexes.into_iter().zip(answers) {
                    results[index] = result;
                }
            }
            results
        }
    }

    /// Fetches, waiting for enough bytes as the terms say; answers in the order of the parts.
    pub async fn fetch(
        self: &Rc<Self>,
        parts: Vec<FetchPart>,
        terms: FetchTerms,
    ) -> Vec<FetchedPart> {
        let deadline_us = clock::monotonic_us() + terms.max_wait_ms.saturating_mul(1000);
        loop {
            let mut fetched = self.read(&parts, &terms).await;
            cut_excess(&mut fetched, terms.max_bytes);
            let bytes: usize = fetched.iter().map(|part| part.size_bytes).sum();
            let urgent = |part: &FetchedPart| part.error.is_some() || part.diverging.is_some();
            let left_us = deadline_us.saturating_sub(clock::monotonic_us());
            if bytes >= terms.min_bytes
                || left_us == 0
                || parts.is_empty()
                || fetched.iter().any(urgent)
            {
                return fetched;
            }
            let end = |part: &FetchedPart| match terms.read_committed {
                true => part.last_stable_offset,
                false => part.high_watermark,
            };
            let seen = fetched.iter().map(|part| (part.log, end(part))).collect();
            drop(fetched);
            let at_most = Duration::from_micros(left_us);
            self.await_growth(seen, terms.read_committed, at_most).await;
        }
    }

    /// Finds offsets.
    pub async fn list_offsets(
        self: &Rc<Self>,
        parts: Vec<ListOffsetsPart>,
    ) -> Vec<PartResult<FoundOffset>> {
        self.each_owner(
            parts,
            |part| part.log,
            Question::ListOffsets,
            |answer| match answer {
                Answer::Offsets(offsets) => Some(offsets),
                _ => None,
            },
        )
        .await
    }

    /// Finds where epochs end.
    pub async fn epoch_ends(
        self: &Rc<Self>,
        parts: Vec<EpochEndPart>,
    ) -> Vec<PartResult<(i32, i64)>> {
        self.each_owner(
            parts,
            |part| part.log,
            Question::EpochEnds,
            |answer| match answer {
                Answer::EpochEnds(ends) => Some(ends),
                _ => None,
            },
        )
        .await
    }

    /// Deletes records; the new log starts.
    pub async fn delete_records(
        self: &Rc<Self>,
        parts: Vec<DeleteRecordsPart>,
        _timeout_ms: u64,
    ) -> Vec<PartResult<i64>> {
        self.each_owner(
            parts,
            |part| part.log,
            Question::DeleteRecords,
            |answer| match answer {
                Answer::LogStarts(starts) => Some(starts),
                _ => None,
            },
        )
        .await
    }

    /// Whether the coordinator has to be asked before these batches are appended.
    pub async fn verifications(
        self: &Rc<Self>,
        parts: Vec<(LogId, BatchHeader)>,
    ) -> Vec<PartResult<Verification>> {
        self.each_owner(
            parts,
            |(log, _)| *log,
            Question::Verify,
            |answer| match answer {
                Answer::Verified(verified) => Some(verified),
                _ => None,
            },
        )
        .await
    }

    /// Appends a marker to each of the logs; durable on return.
    pub async fn write_markers(
        self: &Rc<Self>,
        logs: Vec<LogId>,
        marker: TransactionMarker,
    ) -> Vec<PartResult<AppendedPart>> {
        self.write_markers_that(logs, marker, false).await
    }

    /// Appends a marker that may have to bump the producer's epoch to each of the logs; see
    /// [`Replica::append_marker_that`](crate::partition::replica::Replica::append_marker_that).
    pub async fn write_markers_that(
        self: &Rc<Self>,
        logs: Vec<LogId>,
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Vec<PartResult<AppendedPart>> {
        self.each_owner(
            logs,
            |log| *log,
            |logs| Question::WriteMarkers(logs, marker, bumps_epoch),
            |answer| match answer {
                Answer::MarkersWritten(written) => Some(written),
                _ => None,
            },
        )
        .await
    }

    /// Who writes to these partitions.
    pub async fn describe_producers(
        self: &Rc<Self>,
        logs: Vec<LogId>,
    ) -> Vec<PartResult<Vec<ProducerDescription>>> {
        self.each_owner(
            logs,
            |log| *log,
            Question::DescribeProducers,
            |answer| match answer {
                Answer::Producers(producers) => Some(producers),
                _ => None,
            },
        )
        .await
    }

    /// What every log of the broker takes.
    pub async fn log_usage(self: &Rc<Self>) -> Vec<LogUsage> {
        let asked: Vec<_> = self
            .others()
            .map(|core| self.ask(core, Question::Usage))
            .collect();
        let mut usage = self.replicas.usage();
        for answer in asked.into_iter().flatten() {
            if let Some(Answer::Usage(theirs)) = answer.await {
                usage.extend(theirs);
            }
        }
        usage
    }

    /// The state of the data directories.
    pub async fn data_directories(self: &Rc<Self>) -> Vec<DirectoryState> {
        self.replicas.directory_states().await
    }

    /// Whether a partition does not serve because of its disk, as last heard from its core.
    #[must_use]
    pub fn is_offline(&self, topic: Uuid, partition: i32) -> bool {
        let log = LogId {
            topic: topic.0,
            partition: partition.unsigned_abs(),
        };
        self.offline.borrow()[self.owner(log).index()].contains(&log)
    }

    /// Whether any partition does not serve because of its disk.
    #[must_use]
    pub fn has_offline(&self) -> bool {
        self.offline.borrow().iter().any(|logs| !logs.is_empty())
    }

    /// Tells the other cores which partitions of this one do not serve, when that changes.
    async fn spread_offline(self: Rc<Self>) {
        let mut told: Arc<BTreeSet<LogId>> = Arc::default();
        loop {
            let looked = self.replicas.looked().raised();
            let offline = self.replicas.offline_logs();
            if offline != *told {
                let offline = Arc::new(offline);
                self.offline.borrow_mut()[self.core.index()] = offline.clone();
                let asked: Option<Vec<_>> = self
                    .others()
                    .map(|core| self.ask(core, Question::Offline(offline.clone())))
                    .collect();
                // A full mailbox: again when the directories are looked at next.
                if let Some(asked) = asked {
                    for answer in asked {
                        answer.await;
                    }
                    told = offline;
                }
            }
            looked.await;
        }
    }

    /// Gives every core a new image and waits until all have applied it.
    pub async fn publish(self: &Rc<Self>, image: Arc<MetadataImage>) {
        let mut asked = Vec::new();
        for core in self.others() {
            loop {
                if let Some(answer) = self.ask(core, Question::Apply(image.clone())) {
                    asked.push(answer);
                    break;
                }
                // Images must arrive: wait for room instead of refusing.
                clock::sleep(Duration::from_millis(1)).await;
            }
        }
        self.apply(image);
        for answer in asked {
            answer.await;
        }
    }

    fn others(&self) -> impl Iterator<Item = CoreId> + use<> {
        let mine = self.core;
        (0..self.cores as u16)
            .map(CoreId)
            .filter(move |core| *core != mine)
    }

    fn apply(&self, image: Arc<MetadataImage>) {
        let before = self.image.replace(image.clone());
        let first = !self.has_image.replace(true);
        let config = image_delta::effective_config(&self.static_config, &image);
        *self.config.borrow_mut() = config.clone();
        self.replicas.set_image(image.clone());
        let delta = image_delta::ImageDelta {
            before: (!first).then_some(&*before),
            after: &image,
        };
        delta.apply(&self.replicas, &config, self.core, self.cores);
        self.fetchers.follow(&self.replicas);
        self.coordinators().image_changed(&before, &image);
        self.image_applied.raise();
    }

    /// Groups parts by their owner, remembering their places.
    pub(super) fn by_owner<P>(
        &self,
        parts: Vec<P>,
        log: impl Fn(&P) -> LogId,
    ) -> Vec<(CoreId, Vec<usize>, Vec<P>)> {
        let mut groups: Vec<(CoreId, Vec<usize>, Vec<P>)> = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let owner = self.owner(log(&part));
            match groups.iter_mut().find(|(core, ..)| *core == owner) {
                Some((_, indexes, group)) => {
                    indexes.push(index);
                    group.push(part);
                }
                None => groups.push((owner, vec![index], vec![part])),
            }
        }
        groups
    }

    /// Asks every owner about its parts and puts the answers back in order.
    async fn each_owner<P: Copy, T: Clone>(
        self: &Rc<Self>,
        parts: Vec<P>,
        log: impl Fn(&P) -> LogId,
        question: impl Fn(Vec<P>) -> Question,
        unwrap: impl Fn(Answer) -> Option<Vec<PartResult<T>>>,
    ) -> Vec<PartResult<T>> {
        let mut results = vec![Err(PartitionError::Overloaded); parts.len()];
        let mut asked = Vec::new();
        for (owner, indexes, parts) in self.by_owner(parts, log) {
            let answer = if owner == self.core {
                Some(self.clone().answer_here(question(parts)))
            } else {
                self.ask(owner, question(parts))
            };
            asked.push((indexes, answer));
        }
        for (indexes, answer) in asked {
            let Some(answer) = answer else { continue };
            let answers = answer.await.and_then(&unwrap).unwrap_or_default();
            for (index, result) in indexes.into_iter().zip(answers) {
                results[index] = result;
            }
        }
        results
    }

    async fn read(self: &Rc<Self>, parts: &[FetchPart], terms: &FetchTerms) -> Vec<FetchedPart> {
        let (max_bytes, read_committed) = (terms.max_bytes, terms.read_committed);
        if parts.iter().all(|part| self.owner(part.log) == self.core) {
            return self.replicas.read(parts, max_bytes, read_committed).await;
        }
        let failed = |part: &FetchPart| FetchedPart::failed(part.log, PartitionError::Overloaded);
        let mut results: Vec<FetchedPart> = parts.iter().map(failed).collect();
        let mut asked = Vec::new();
        for (owner, indexes, parts) in self.by_owner(parts.to_vec(), |part| part.log) {
            let question = Question::Read(parts, max_bytes, read_committed);
            let answer = if owner == self.core {
                Some(self.clone().answer_here(question))
            } else {
                self.ask(owner, question)
            };
            asked.push((indexes, answer));
        }
        for (indexes, answer) in asked {
            let Some(answer) = answer else { continue };
            if let Some(Answer::Fetched(fetched)) = answer.await {
                for (index, part) in indexes.into_iter().zip(fetched) {
                    results[index] = part;
                }
            }
        }
        results
    }

    /// Waits until a partition can be read further, on whatever core, at most so long.
    async fn await_growth(
        self: &Rc<Self>,
        seen: Vec<(LogId, i64)>,
        read_committed: bool,
        at_most: Duration,
    ) {
        let grown = Rc::new(Signal::default());
        let raised = grown.raised();
        let mut here = Vec::new();
        for (owner, _, seen) in self.by_owner(seen, |(log, _)| *log) {
            if owner == self.core {
                here = seen;
                continue;
            }
            let question = Question::AwaitGrowth(seen, read_committed, at_most);
            let Some(answer) = self.ask(owner, question) else {
                // Its mailbox is full: look again soon instead of waiting for its word.
                clock::sleep(Duration::from_millis(5).min(at_most)).await;
                return;
            };
            let grown = grown.clone();
            spawn(Queue::Network, async move {
                answer.await;
                grown.raise();
            });
        }
        let local = async {
            if here.is_empty() {
                std::future::pending::<()>().await;
            }
            self.replicas.grown_beyond(&here, read_committed).await;
        };
        let either = futures_lite::future::or(local, raised);
        futures_lite::future::or(either, clock::sleep(at_most)).await;
    }

    /// Sends a question; None when it is refused.
    pub(super) fn ask(&self, to: CoreId, question: Question) -> Option<Promised<Answer>> {
        if self.outstanding.borrow()[to.index()] >= self.ports.most_outstanding {
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        let (done, answer) = promise();
        let call = self.calls.borrow_mut().insert((to, done));
        if self
            .ports
            .questions
            .try_send(to, Asked(call, question))
            .is_err()
        {
            self.calls.borrow_mut().remove(call);
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        self.outstanding.borrow_mut()[to.index()] += 1;
        Some(answer)
    }

    /// Asks the core that owns something, be it this one; None when it is refused.
    pub(super) fn ask_owner(
        self: &Rc<Self>,
        owner: CoreId,
        question: Question,
    ) -> Option<Promised<Answer>> {
        if owner == self.core {
            return Some(self.clone().answer_here(question));
        }
        self.ask(owner, question)
    }

    /// Does what another core would be asked for, in a task, so that all owners work at once.
    fn answer_here(self: Rc<Self>, question: Question) -> Promised<Answer> {
        let (done, answer) = promise();
        spawn(Queue::Network, async move {
            done.keep(self.answer(self.core, question).await)
        });
        answer
    }

    async fn serve_questions(self: Rc<Self>) {
        let mut received = Vec::with_capacity(MOST_PER_TURN);
        loop {
            self.ports
                .questions
                .receive(&mut received, MOST_PER_TURN)
                .await;
            for (from, Asked(call, question)) in received.drain(..) {
                let router = self.clone();
                // Appends take their turns here, in the order of arrival.
                if let Question::Append(parts, until, at_most) = question {
                    let answer = self.replicas.start_append(parts, until, at_most);
                    spawn(Queue::Network, async move {
                        if let Some(results) = answer.await {
                            router.send_answer(from, call, Answer::Appended(results));
                        }
                    });
                } else {
                    spawn(Queue::Network, async move {
                        let answer = router.answer(from, question).await;
                        router.send_answer(from, call, answer);
                    });
                }
            }
        }
    }

    fn send_answer(&self, to: CoreId, call: usize, answer: Answer) {
        let sent = self.ports.answers.try_send(to, Answered(call, answer));
        assert!(sent.is_ok(), "answers fit: as many as may be outstanding");
    }

    async fn answer(self: &Rc<Self>, from: CoreId, question: Question) -> Answer {
        match question {
            Question::Append(parts, until, at_most) => {
                let results = self.replicas.start_append(parts, until, at_most).await;
                Answer::Appended(results.unwrap_or_default())
            }
            Question::Read(parts, max_bytes, read_committed) => {
                let read = self.replicas.read(&parts, max_bytes, read_committed);
                Answer::Fetched(read.await)
            }
            Question::AwaitGrowth(seen, read_committed, at_most) => {
                let grown = self.replicas.grown_beyond(&seen, read_committed);
                futures_lite::future::or(grown, clock::sleep(at_most)).await;
                Answer::Grown
            }
            Question::ListOffsets(parts) => {
                let mut offsets = Vec::with_capacity(parts.len());
                for part in &parts {
                    offsets.push(self.replicas.list_offset(part).await);
                }
                Answer::Offsets(offsets)
            }
            Question::EpochEnds(parts) => Answer::EpochEnds(
                parts
                    .iter()
                    .map(|part| self.replicas.epoch_end(part))
                    .collect(),
            ),
            Question::DeleteRecords(parts) => {
                let mut starts = Vec::with_capacity(parts.len());
                for part in &parts {
                    starts.push(self.replicas.delete_records(part).await);
                }
                Answer::LogStarts(starts)
            }
            Question::Verify(parts) => {
                let verified = parts.iter().map(|part| self.replicas.verification(part));
                Answer::Verified(verified.collect())
            }
            Question::WriteMarkers(logs, marker, bumps_epoch) => {
                let written = self.replicas.write_markers(&logs, marker, bumps_epoch);
                Answer::MarkersWritten(written.await)
            }
            Question::DescribeProducers(logs) => {
                let logs = logs.into_iter();
                let producers = logs.map(|log| self.replicas.describe_producers(log));
                Answer::Producers(producers.collect())
            }
            Question::Usage => Answer::Usage(self.replicas.usage()),
            Question::Apply(image) => {
                self.apply(image);
                Answer::Applied
            }
            Question::Offline(offline) => {
                self.offline.borrow_mut()[from.index()] = offline;
                Answer::Applied
            }
            Question::Coordinate(call, parked) => {
                Answer::Coordinated(self.serve_coordination(from, call, parked).await)
            }
            Question::Parked(parked, answer) => {
                self.coordinators().deliver(parked, *answer);
                Answer::Applied
            }
            Question::Replication(question) => self.replicas.answer_replication(question).await,
            Question::Control(question) => self.answer_control(question).await,
        }
    }

    async fn take_answers(self: Rc<Self>) {
        let mut received = Vec::with_capacity(MOST_PER_TURN);
        loop {
            self.ports
                .answers
                .receive(&mut received, MOST_PER_TURN)
                .await;
            for (from, Answered(call, answer)) in received.drain(..) {
                let (to, done) = self.calls.borrow_mut().remove(call);
                assert!(to == from, "core {from} answers a question to core {to}");
                self.outstanding.borrow_mut()[from.index()] -= 1;
                done.keep(answer);
            }
        }
    }
}

/// An append on its way.
enum Waiting {
    Here(Promised<Vec<PartResult<AppendedPart>>>),
    There(Option<Promised<Answer>>),
}

impl Waiting {
    async fn take(self) -> Option<Vec<PartResult<AppendedPart>>> {
        match self {
            Waiting::Here(answer) => answer.await,
            Waiting::There(answer) => match answer?.await {
                Some(Answer::Appended(results)) => Some(results),
                _ => None,
            },
        }
    }
}

/// Several cores read at once, each as much as all may together: what is too much in the order of
/// the request goes again, but never the first records.
fn cut_excess(fetched: &mut [FetchedPart], max_bytes: usize) {
    let mut total = 0;
    for part in fetched {
        if total > 0 && total + part.size_bytes > max_bytes {
            part.slices.clear();
            part.aborted.clear();
            part.size_bytes = 0;
        }
        total += part.size_bytes;
    }
}
