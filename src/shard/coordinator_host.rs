//! The coordinators of one core and one topic: a shard per partition that this core owns.
//!
//! A shard is loaded from its partition's log before it serves. From then on what it decides is
//! appended in the order of its decisions, and every answer waits until what was appended before it
//! is durable. While appends are on their way the next decisions' records collect, so that they share
//! a batch. When an append fails, memory and log may differ: the shard is thrown away, those who wait
//! are told to find their coordinator again, and it is loaded anew.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::coordinator_log::{batch, load};
use super::image_groups::ImageGroups;
use super::image_topics::ImageTopics;
use super::replica_manager::{PartResult, ReplicaManager};
use super::request::{AppendPart, AppendedPart, PartitionError, Payload, Promise};
use super::router::Router;
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::coordinator::context::{Client, Context};
use crate::coordinator::effects::{Effects, ProducerIdAndEpoch, Ticket};
use crate::coordinator::shard::Shard;
use crate::coordinator::transaction_request::MarkerJob;
use crate::log::position::LogId;
use crate::partition::replica::Replica;
use crate::partition::verification::VerificationGuard;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_bytes;
use crate::runtime::signal::{Promise as SlotPromise, Promised, Signal, promise};
use crate::wire::codec::Uuid;

/// Appends of one shard on their way; what is decided meanwhile shares the next one.
const MOST_IN_FLIGHT: usize = 2;

/// Bytes of records that share a batch, unless one decision has more.
const BATCH_BYTES: usize = 256 << 10;

/// How long a shard that failed waits before it is loaded again.
const RELOAD_WAIT: Duration = Duration::from_millis(500);

/// How long a record may take to be on every in-sync replica before the shard is given up: its log
/// may hold the record or not.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// Timers fire at most so often.
const LEAST_TICK: Duration = Duration::from_millis(5);

/// Why a coordinator does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unavailable {
    /// Its partition is not led here.
    NotHere,
    /// Its log is being read.
    Loading,
    /// It cannot write.
    Broken,
    /// The transaction that it belongs to has ended meanwhile.
    Ended,
    /// Its core has too much to do.
    Overloaded,
    /// The request cannot be decoded.
    Malformed,
}

/// What became of a request.
pub type Outcome<A> = Result<A, Unavailable>;

/// What a request came to, for now.
pub enum Asked<A> {
    /// The answer comes when what was decided is durable.
    Soon(Promised<Outcome<A>>),
    /// The answer comes when others have come, or after a time.
    Parked(Promised<Outcome<A>>),
    /// There is no answer.
    Not(Unavailable),
}

/// One append on its way, and what follows it.
struct Outgoing<A> {
    transaction: Option<ProducerIdAndEpoch>,
    appended: Option<Promised<Vec<PartResult<AppendedPart>>>>,
    answers: Vec<(Ticket, A)>,
    markers: Vec<MarkerJob>,
}

/// One partition's shard.
struct Hosted<S: Shard> {
    partition: u32,
    log: LogId,
    replica: Rc<Replica>,
    /// None while it is loaded, and when it has failed.
    shard: RefCell<Option<S>>,
    waiting: RefCell<BTreeMap<Ticket, SlotPromise<Outcome<S::Answer>>>>,
    outbox: RefCell<VecDeque<Outgoing<S::Answer>>>,
    /// Decided, and not appended yet: plain records only.
    collected: RefCell<Effects<S::Answer>>,
    is_delivering: Cell<bool>,
    /// Markers that came while the shard was loaded: producers, and whether they committed.
    early_markers: RefCell<Vec<(i64, bool)>>,
}

/// What is done with markers when they may be written: the number of the shard's partition, and the
/// epoch of its leader, come with them.
pub type MarkerWriter = Rc<dyn Fn(u32, i32, MarkerJob)>;

/// See the head of this file.
pub struct CoordinatorHost<S: Shard> {
    topic: &'static str,
    router: Weak<Router>,
    replicas: Rc<ReplicaManager>,
    hosted: RefCell<BTreeMap<u32, Rc<Hosted<S>>>>,
    next_ticket: Cell<u64>,
    /// When the ticker wakes next.
    wakes_ms: Cell<u64>,
    sooner: Signal,
    marker_writer: RefCell<Option<MarkerWriter>>,
}

impl<S: Shard> CoordinatorHost<S> {
    /// The coordinators of `topic` on one core.
    #[must_use]
    pub fn start(
        topic: &'static str,
        router: &Rc<Router>,
        replicas: &Rc<ReplicaManager>,
    ) -> Rc<CoordinatorHost<S>> {
        let host = Rc::new(CoordinatorHost {
            topic,
            router: Rc::downgrade(router),
            replicas: replicas.clone(),
            hosted: RefCell::default(),
            next_ticket: Cell::new(0),
            wakes_ms: Cell::new(u64::MAX),
            sooner: Signal::default(),
            marker_writer: RefCell::default(),
        });
        spawn(Queue::Background, host.clone().keep_time());
        host
    }

    /// Who writes the markers of ended transactions.
    pub fn set_marker_writer(&self, writer: MarkerWriter) {
        *self.marker_writer.borrow_mut() = Some(writer);
    }

    /// Shards that serve.
    #[must_use]
    pub fn serving(&self) -> usize {
        let hosted = self.hosted.borrow();
        let serves = |hosted: &&Rc<Hosted<S>>| hosted.shard.borrow().is_some();
        hosted.values().filter(serves).count()
    }

    /// The broker stops: nobody waits for the members of a group any more.
    pub fn stop(&self) {
        for hosted in self.hosted.borrow().values() {
            hosted.stop();
        }
    }

    /// Looks at every shard that serves.
    pub fn each_shard(&self, mut look: impl FnMut(&S)) {
        for hosted in self.hosted.borrow().values() {
            if let Some(shard) = &*hosted.shard.borrow() {
                look(shard);
            }
        }
    }

    /// The partitions of this host, and whether each serves.
    #[must_use]
    pub fn partitions(&self) -> Vec<(LogId, bool)> {
        let hosted = self.hosted.borrow();
        let of = |hosted: &Rc<Hosted<S>>| (hosted.log, hosted.shard.borrow().is_some());
        hosted.values().map(of).collect()
    }

    /// Asks the shard of a partition.
    pub fn ask(
        self: &Rc<Self>,
        log: LogId,
        client: Client<'_>,
        request: S::Request<'_>,
        guard: Option<VerificationGuard>,
    ) -> Asked<S::Answer> {
        let Some(hosted) = self.hosted_of(log) else {
            return Asked::Not(Unavailable::NotHere);
        };
        let ticket = Ticket(self.next_ticket.get());
        self.next_ticket.set(ticket.0 + 1);
        let (done, answer) = promise();
        hosted.waiting.borrow_mut().insert(ticket, done);
        let handled = self.with_guard(&hosted, client, guard, |shard, context, effects| {
            shard.handle(context, ticket, request, effects);
            effects.answers.iter().any(|(whose, _)| *whose == ticket)
        });
        match handled {
            Some(true) => Asked::Soon(answer),
            Some(false) => Asked::Parked(answer),
            None => {
                hosted.waiting.borrow_mut().remove(&ticket);
                Asked::Not(Unavailable::Loading)
            }
        }
    }

    fn hosted_of(&self, log: LogId) -> Option<Rc<Hosted<S>>> {
        let hosted = self.hosted.borrow().get(&log.partition).cloned()?;
        (hosted.log == log).then_some(hosted)
    }

    /// Lets a shard decide, and does what it decided; None while it does not serve.
    fn with_shard<T>(
        self: &Rc<Self>,
        hosted: &Rc<Hosted<S>>,
        client: Client<'_>,
        decide: impl FnOnce(&mut S, &mut Context<'_>, &mut Effects<S::Answer>) -> T,
    ) -> Option<T> {
        self.with_guard(hosted, client, None, decide)
    }

    /// The same, where what is decided may belong to a transaction that was verified.
    fn with_guard<T>(
        self: &Rc<Self>,
        hosted: &Rc<Hosted<S>>,
        client: Client<'_>,
        guard: Option<VerificationGuard>,
        decide: impl FnOnce(&mut S, &mut Context<'_>, &mut Effects<S::Answer>) -> T,
    ) -> Option<T> {
        let router = self.router.upgrade()?;
        let (image, config) = (router.image(), router.config());
        let mut context = Context {
            now_ms: clock::monotonic_us() / 1000,
            wall_ms: clock::wall_ms(),
            client,
            topics: &ImageTopics(&image),
            groups: &config.groups,
            single_groups: &ImageGroups(&image, &config.groups),
            transactions: &config.transactions,
            batch_max_bytes: hosted.replica.batch_max_bytes(),
            new_id: &mut || Uuid(random_bytes()),
        };
        let mut effects = Effects::default();
        let result = {
            let mut shard = hosted.shard.borrow_mut();
            let shard = shard.as_mut()?;
            let result = decide(shard, &mut context, &mut effects);
            if let Some(due_ms) = shard.next_due_ms()
                && due_ms < self.wakes_ms.get()
            {
                self.wakes_ms.set(due_ms);
                self.sooner.raise();
            }
            result
        };
        self.settle(hosted, effects, guard);
        Some(result)
    }

    /// Appends what was decided, and queues what follows.
    fn settle(
        self: &Rc<Self>,
        hosted: &Rc<Hosted<S>>,
        mut effects: Effects<S::Answer>,
        guard: Option<VerificationGuard>,
    ) {
        let is_idle = hosted.outbox.borrow().is_empty() && hosted.collected.borrow().is_empty();
        if effects.records.is_empty() && is_idle {
            return self.follow(hosted, effects.answers, effects.markers);
        }
        let in_flight = hosted.outbox.borrow().len();
        if effects.transaction.is_none() {
            let together = hosted.collected.borrow().size_bytes() + effects.size_bytes();
            if together > BATCH_BYTES.min(hosted.replica.batch_max_bytes() / 2) {
                self.append_collected(hosted);
            }
            let mut collected = hosted.collected.borrow_mut();
            collected.records.append(&mut effects.records);
            collected.answers.append(&mut effects.answers);
            collected.markers.append(&mut effects.markers);
            let is_large = collected.size_bytes() >= BATCH_BYTES;
            drop(collected);
            if in_flight < MOST_IN_FLIGHT || is_large {
                self.append_collected(hosted);
            }
        } else {
            self.append_collected(hosted);
            self.append(hosted, effects, guard);
        }
        if !hosted.is_delivering.replace(true) {
            spawn(Queue::Ack, self.clone().deliver(hosted.clone()));
        }
    }

    fn append_collected(self: &Rc<Self>, hosted: &Rc<Hosted<S>>) {
        let effects = hosted.collected.take();
        if !effects.is_empty() {
            self.append(hosted, effects, None);
        }
    }

    fn append(
        self: &Rc<Self>,
        hosted: &Rc<Hosted<S>>,
        effects: Effects<S::Answer>,
        guard: Option<VerificationGuard>,
    ) {
        let appended = batch(&effects.records, effects.transaction).map(|(header, payload)| {
            let part = AppendPart {
                log: hosted.log,
                header,
                payload: Payload::Owned(payload),
                guard,
                bumps_epochs: false,
            };
            self.replicas
                .start_append(vec![part], Promise::Committed, COMMIT_PATIENCE)
        });
        hosted.outbox.borrow_mut().push_back(Outgoing {
            transaction: effects.transaction,
            appended,
            answers: effects.answers,
            markers: effects.markers,
        });
    }

    /// Lets answers leave in order, as long as there are any on their way.
    async fn deliver(self: Rc<Self>, hosted: Rc<Hosted<S>>) {
        loop {
            let appended = match hosted.outbox.borrow_mut().front_mut() {
                Some(first) => first.appended.take(),
                None => {
                    hosted.is_delivering.set(false);
                    return;
                }
            };
            if let Some(appended) = appended {
                let results = appended.await.unwrap_or_default();
                let result = results.into_iter().next();
                if let Err(error) = result.unwrap_or(Err(PartitionError::TimedOut))
                    && !hosted.take_back(&error)
                {
                    self.fail(&hosted, &error);
                    return;
                }
            }
            let first = hosted.outbox.borrow_mut().pop_front();
            let first = first.expect("nobody else takes from the outbox");
            self.follow(&hosted, first.answers, first.markers);
            if hosted.outbox.borrow().len() < MOST_IN_FLIGHT {
                self.append_collected(&hosted);
            }
        }
    }

    /// What was decided is durable.
    fn follow(
        &self,
        hosted: &Hosted<S>,
        answers: Vec<(Ticket, S::Answer)>,
        markers: Vec<MarkerJob>,
    ) {
        for (ticket, answer) in answers {
            let waiting = hosted.waiting.borrow_mut().remove(&ticket);
            if let Some(waiting) = waiting {
                waiting.keep(Ok(answer));
            }
        }
        let writer = self.marker_writer.borrow().clone();
        if let Some(writer) = writer {
            for job in markers {
                writer(hosted.partition, hosted.replica.leader_epoch(), job);
            }
        }
    }

    /// What memory says may not be in the log: away with it.
    fn fail(self: &Rc<Self>, hosted: &Rc<Hosted<S>>, error: &PartitionError) {
        tracing::error!(
            topic = self.topic,
            partition = hosted.partition,
            ?error,
            "a coordinator cannot write and is loaded again"
        );
        hosted.end(Unavailable::Broken);
        let is_current = {
            let mut all = self.hosted.borrow_mut();
            let current = all.get(&hosted.partition);
            let is_current = current.is_some_and(|current| Rc::ptr_eq(current, hosted));
            if is_current {
                all.remove(&hosted.partition);
            }
            is_current
        };
        if is_current {
            let (host, log) = (self.clone(), hosted.log);
            spawn(Queue::Background, async move {
                clock::sleep(RELOAD_WAIT).await;
                if let Some(router) = host.router.upgrade() {
                    let image = router.image();
                    let is_there = |topic: &TopicImage| topic.id.0 == log.topic;
                    let is_there = image.topic(host.topic).is_some_and(|topic| is_there(topic))
                        && router.leader_of(log) == Some(image.node_id());
                    if is_there && host.hosted_of(log).is_none() {
                        host.host(log);
                    }
                }
            });
        }
    }

    /// A marker was appended to a partition of this topic and is durable.
    pub fn marker_written(&self, log: LogId, producer_id: i64, committed: bool) {
        let Some(hosted) = self.hosted_of(log) else {
            return;
        };
        match &mut *hosted.shard.borrow_mut() {
            Some(shard) => shard.end_transaction(producer_id, committed),
            None => {
                let mut early = hosted.early_markers.borrow_mut();
                early.push((producer_id, committed));
            }
        }
    }

    /// The markers of a job are durable.
    pub fn with_partition(
        self: &Rc<Self>,
        partition: u32,
        decide: impl FnOnce(&mut S, &mut Context<'_>, &mut Effects<S::Answer>),
    ) {
        let hosted = self.hosted.borrow().get(&partition).cloned();
        if let Some(hosted) = hosted {
            self.with_shard(&hosted, Client::default(), decide);
        }
    }

    /// The metadata has changed.
    pub fn image_changed(self: &Rc<Self>, before: &MetadataImage, after: &MetadataImage) {
        let now: BTreeSet<LogId> = after.topic(self.topic).map_or_else(BTreeSet::new, |topic| {
            let led = (0_u32..).zip(&topic.partitions);
            let led = led.filter(|(_, partition)| partition.leader == after.node_id());
            let log = |(partition, _)| LogId {
                topic: topic.id.0,
                partition,
            };
            led.map(log).collect()
        });
        let gone: Vec<Rc<Hosted<S>>> = {
            let mut hosted = self.hosted.borrow_mut();
            let gone = hosted.values().filter(|hosted| !now.contains(&hosted.log));
            let gone: Vec<_> = gone.cloned().collect();
            hosted.retain(|_, hosted| now.contains(&hosted.log));
            gone
        };
        for hosted in gone {
            hosted.end(Unavailable::NotHere);
        }
        for log in now {
            if self.hosted_of(log).is_none() && self.replicas.replica(log).is_some() {
                self.host(log);
            }
        }
        let is_gone = |topic: &&std::sync::Arc<TopicImage>| after.topic(&topic.name).is_none();
        let gone = before.topics().filter(is_gone);
        let gone: Vec<String> = gone.map(|topic| topic.name.to_string()).collect();
        if !gone.is_empty() {
            let all: Vec<_> = self.hosted.borrow().values().cloned().collect();
            for hosted in all {
                self.with_shard(&hosted, Client::default(), |shard, context, effects| {
                    shard.topics_deleted(context, &gone, effects);
                });
            }
        }
    }

    /// Begins to load a shard.
    fn host(self: &Rc<Self>, log: LogId) {
        let Some(replica) = self.replicas.replica(log) else {
            return;
        };
        let hosted = Rc::new(Hosted {
            partition: log.partition,
            log,
            replica,
            shard: RefCell::default(),
            waiting: RefCell::default(),
            outbox: RefCell::default(),
            collected: RefCell::default(),
            is_delivering: Cell::new(false),
            early_markers: RefCell::default(),
        });
        let before = self
            .hosted
            .borrow_mut()
            .insert(log.partition, hosted.clone());
        assert!(before.is_none(), "one shard per partition");
        spawn(Queue::Background, self.clone().load_hosted(hosted));
    }

    async fn load_hosted(self: Rc<Self>, hosted: Rc<Hosted<S>>) {
        match load::<S>(&hosted.replica).await {
            Ok(mut shard) => {
                // Those that the load has read as well end nothing a second time: until now nobody
                // could write within a transaction.
                for (producer_id, committed) in hosted.early_markers.take() {
                    shard.end_transaction(producer_id, committed);
                }
                *hosted.shard.borrow_mut() = Some(shard);
                self.with_shard(&hosted, Client::default(), |shard, context, effects| {
                    shard.loaded(context, effects);
                });
            }
            Err(why) => {
                tracing::error!(
                    topic = self.topic,
                    partition = hosted.partition,
                    why,
                    "a coordinator cannot be loaded"
                );
            }
        }
    }

    /// Fires timers.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let sooner = self.sooner.raised();
            let now_ms = clock::monotonic_us() / 1000;
            let all: Vec<_> = self.hosted.borrow().values().cloned().collect();
            let mut next_ms = u64::MAX;
            for hosted in all {
                let due_ms = |hosted: &Hosted<S>| {
                    let shard = hosted.shard.borrow();
                    shard.as_ref().and_then(Shard::next_due_ms)
                };
                if due_ms(&hosted).is_some_and(|due_ms| due_ms <= now_ms) {
                    self.with_shard(&hosted, Client::default(), |shard, context, effects| {
                        shard.tick(context, effects);
                    });
                }
                next_ms = next_ms.min(due_ms(&hosted).unwrap_or(u64::MAX));
            }
            self.wakes_ms.set(next_ms);
            let wait = Duration::from_millis(next_ms.saturating_sub(now_ms).min(60_000));
            futures_lite::future::or(sooner, clock::sleep(wait.max(LEAST_TICK))).await;
        }
    }
}

impl<S: Shard> Hosted<S> {
    /// The first append on its way was refused. Where that is because its transaction has ended
    /// meanwhile, what it would have done within it is undone, and true comes back.
    fn take_back(&self, error: &PartitionError) -> bool {
        let ends = matches!(
            error,
            PartitionError::InvalidTransactionState | PartitionError::InvalidProducerEpoch
        );
        let mut outbox = self.outbox.borrow_mut();
        let Some(first) = outbox.front_mut().filter(|_| ends) else {
            return false;
        };
        let Some(producer) = first.transaction else {
            return false;
        };
        if let Some(shard) = &mut *self.shard.borrow_mut() {
            shard.end_transaction(producer.id, false);
        }
        let mut waiting = self.waiting.borrow_mut();
        for (ticket, _) in first.answers.drain(..) {
            if let Some(waiting) = waiting.remove(&ticket) {
                waiting.keep(Err(Unavailable::Ended));
            }
        }
        true
    }

    /// Decides nothing any more; what was decided goes its way, and who waits for others is told.
    fn stop(&self) {
        self.shard.borrow_mut().take();
        let mut decided: BTreeSet<Ticket> = BTreeSet::new();
        for outgoing in self.outbox.borrow().iter() {
            decided.extend(outgoing.answers.iter().map(|(ticket, _)| *ticket));
        }
        let collected = self.collected.borrow();
        decided.extend(collected.answers.iter().map(|(ticket, _)| *ticket));
        let mut waiting = self.waiting.borrow_mut();
        for (ticket, promise) in std::mem::take(&mut *waiting) {
            if decided.contains(&ticket) {
                waiting.insert(ticket, promise);
            } else {
                promise.keep(Err(Unavailable::NotHere));
            }
        }
    }

    /// It serves nobody any more.
    fn end(&self, why: Unavailable) {
        self.shard.borrow_mut().take();
        self.outbox.borrow_mut().clear();
        self.collected.take();
        for (_, waiting) in std::mem::take(&mut *self.waiting.borrow_mut()) {
            waiting.keep(Err(why));
        }
    }
}
