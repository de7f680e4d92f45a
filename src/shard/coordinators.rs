//! The way to a coordinator: which partition and core a group or a transactional id belongs to, and
//! the hop there and back.
//!
//! A request that waits for other members must not hold one of the mesh's places for answers: the
//! core that is asked says that it is parked, and tells the answer later in a question of its own.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::coordinator_host::{Asked, CoordinatorHost, Outcome, Unavailable};
use super::coordinator_log::transactional_header;
use super::replica_manager::{PartResult, ReplicaManager};
use super::request::{PartitionError, log_of};
use super::router::Router;
use crate::cluster::image::MetadataImage;
use crate::coordinator::context::Client;
use crate::coordinator::effects::ProducerIdAndEpoch;
use crate::coordinator::group_request::{GroupAnswer, GroupRequest};
use crate::coordinator::group_shard::GroupShard;
use crate::coordinator::transaction_request::{
    ClientProtocol, MarkerJob, TransactionAnswer, TransactionRequest,
};
use crate::coordinator::transaction_shard::TransactionShard;
use crate::log::position::LogId;
use crate::net::frame::Frame;
use crate::partition::verification::{Verification, VerificationGuard};
use crate::runtime::clock;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::{Promise as SlotPromise, Promised, promise};
use crate::wire::api_table::ApiKey;
use crate::wire::frame::decode_request;
use crate::wire::message::Message;
use crate::wire::messages::offset_fetch::OffsetFetchRequestGroup;
use crate::wire::transaction_marker::TransactionMarker;

/// The topic of groups and committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// How long markers wait that a partition did not take, at first and at most.
const MARKER_RETRY_FIRST: Duration = Duration::from_millis(20);
const MARKER_RETRY_MOST: Duration = Duration::from_secs(1);

/// What a shard of groups is asked, as it crosses cores.
#[derive(Clone, Debug)]
pub enum GroupAsk {
    /// The request in the frame, which names one group.
    Frame,
    /// The TxnOffsetCommit in the frame, with what the group's partition asks for it.
    InTransaction(Option<VerificationGuard>),
    /// One group of an OffsetFetch.
    OffsetFetch {
        /// What is asked of it.
        group: OffsetFetchRequestGroup<'static>,
        /// Whether offsets of open transactions are refused.
        require_stable: bool,
    },
    /// One group of a DescribeGroups.
    Describe(String),
    /// One group of a ConsumerGroupDescribe.
    ConsumerDescribe(String),
    /// One group of a DeleteGroups.
    Delete(String),
}

/// A request to a shard of groups.
#[derive(Clone, Debug)]
pub struct GroupCall {
    /// The partition of the group.
    pub log: LogId,
    /// The client's request.
    pub frame: Frame,
    /// Its address, as Kafka prints it.
    pub client_host: String,
    /// What is asked.
    pub ask: GroupAsk,
}

/// A request to a coordinator.
#[derive(Clone, Debug)]
pub enum CoordinatorCall {
    /// To a shard of groups.
    Group(Box<GroupCall>),
    /// To a shard of transactions: its partition, and what is asked.
    Transaction(LogId, TransactionRequest),
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum CoordinatorAnswer {
    /// Of a shard of groups.
    Group(GroupAnswer),
    /// Of a shard of transactions.
    Transaction(TransactionAnswer),
}

/// The first word that comes back from another core.
pub enum FirstWord {
    /// The answer.
    Answered(Box<Outcome<CoordinatorAnswer>>),
    /// It comes later.
    Parked,
}

/// A call of this core that another core has parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedCall(pub u64);

/// Where the answer to a call goes; given back also when the client has left.
struct Place {
    coordinators: Rc<Coordinators>,
    call: ParkedCall,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.coordinators.parked.borrow_mut().remove(&self.call);
    }
}

/// The coordinators of one core.
pub struct Coordinators {
    groups: Rc<CoordinatorHost<GroupShard>>,
    transactions: Rc<CoordinatorHost<TransactionShard>>,
    parked: RefCell<BTreeMap<ParkedCall, SlotPromise<Outcome<CoordinatorAnswer>>>>,
    next_parked: Cell<u64>,
}

/// Where a router keeps its core's coordinators.
pub type CoordinatorsCell = OnceCell<Rc<Coordinators>>;

/// The partition of `count` that a group or a transactional id belongs to (Java's `String.hashCode`
/// and `Utils.abs`).
#[must_use]
pub fn partition_of(key: &str, count: u32) -> u32 {
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // The absolute value of the smallest number is 0 there.
    hash.checked_abs().unwrap_or(0).unsigned_abs() % count.max(1)
}

/// The log of the partition of `topic` that `key` belongs to; None while there is no such topic.
#[must_use]
pub fn coordinator_log(image: &MetadataImage, topic: &str, key: &str) -> Option<LogId> {
    let topic = image.topic(topic)?;
    let count = u32::try_from(topic.partitions.len()).expect("partitions are counted in 32 bits");
    Some(LogId {
        topic: topic.id.0,
        partition: partition_of(key, count),
    })
}

/// The logs of all partitions of `topic` that this broker leads.
fn topic_logs(image: &MetadataImage, topic: &str) -> Vec<LogId> {
    let Some(topic) = image.topic(topic) else {
        return Vec::new();
    };
    let led = (0_u32..).zip(&topic.partitions);
    let led = led.filter(|(_, partition)| partition.leader == image.node_id());
    let log = |(partition, _)| LogId {
        topic: topic.id.0,
        partition,
    };
    led.map(log).collect()
}

impl Coordinators {
    /// The coordinators of a router's core.
    #[must_use]
    pub fn start(router: &Rc<Router>, replicas: &Rc<ReplicaManager>) -> Rc<Coordinators> {
        let groups = CoordinatorHost::start(OFFSETS_TOPIC, router, replicas);
        let transactions = CoordinatorHost::start(TRANSACTIONS_TOPIC, router, replicas);
        write_markers_of(&transactions, router);
        let host: Rc<CoordinatorHost<GroupShard>> = Rc::clone(&groups);
        replicas.on_marker(Rc::new(move |log, marker: TransactionMarker| {
            host.marker_written(log, marker.producer_id, marker.commit);
        }));
        Rc::new(Coordinators {
            groups,
            transactions,
            parked: RefCell::default(),
            next_parked: Cell::new(0),
        })
    }

    /// The shards of groups.
    #[must_use]
    pub fn groups(&self) -> &Rc<CoordinatorHost<GroupShard>> {
        &self.groups
    }

    /// The shards of transactions.
    #[must_use]
    pub fn transactions(&self) -> &Rc<CoordinatorHost<TransactionShard>> {
        &self.transactions
    }

    /// The broker stops: clients look for another coordinator instead of waiting here.
    pub fn stop(&self) {
        self.groups.stop();
        self.transactions.stop();
    }

    /// The metadata has changed.
    pub fn image_changed(&self, before: &MetadataImage, after: &MetadataImage) {
        self.groups.image_changed(before, after);
        self.transactions.image_changed(before, after);
    }

    /// Asks a shard of this core. True where the answer may take long.
    pub(super) fn ask_here(
        &self,
        call: CoordinatorCall,
    ) -> Result<(bool, PendingAnswer), Unavailable> {
        match call {
            CoordinatorCall::Group(call) => pending(self.ask_group(&call), PendingAnswer::Group),
            CoordinatorCall::Transaction(log, request) => {
                let asked = self.transactions.ask(log, Client::default(), request, None);
                pending(asked, PendingAnswer::Transaction)
            }
        }
    }

    fn ask_group(&self, call: &GroupCall) -> Asked<GroupAnswer> {
        let Ok(decoded) = decode_request(&call.frame) else {
            return Asked::Not(Unavailable::Malformed);
        };
        let client = Client {
            id: decoded.header.client_id.unwrap_or_default(),
            host: &call.client_host,
            version: decoded.header.api_version,
        };
        let request = match &call.ask {
            GroupAsk::Frame | GroupAsk::InTransaction(_) => {
                group_request(decoded.api, client.version, decoded.body.clone())
            }
            GroupAsk::OffsetFetch {
                group,
                require_stable,
            } => Some(GroupRequest::OffsetFetch {
                group: group.clone(),
                require_stable: *require_stable,
            }),
            GroupAsk::Describe(group) => Some(GroupRequest::Describe(group)),
            GroupAsk::ConsumerDescribe(group) => Some(GroupRequest::ConsumerDescribe(group)),
            GroupAsk::Delete(group) => Some(GroupRequest::DeleteGroup(group)),
        };
        let guard = match call.ask {
            GroupAsk::InTransaction(guard) => guard,
            _ => None,
        };
        match request {
            Some(request) => self.groups.ask(call.log, client, request, guard),
            None => Asked::Not(Unavailable::Malformed),
        }
    }

    /// A place for an answer that may come later from another core.
    fn park(self: Rc<Self>) -> (Place, Promised<Outcome<CoordinatorAnswer>>) {
        let call = ParkedCall(self.next_parked.get());
        self.next_parked.set(call.0 + 1);
        let (done, answer) = promise();
        self.parked.borrow_mut().insert(call, done);
        let place = Place {
            coordinators: self,
            call,
        };
        (place, answer)
    }

    /// An answer that was parked has come.
    pub(super) fn deliver(&self, call: ParkedCall, answer: Outcome<CoordinatorAnswer>) {
        let parked = self.parked.borrow_mut().remove(&call);
        if let Some(parked) = parked {
            parked.keep(answer);
        }
    }
}

/// Has the markers written that the transactions of this core end with.
fn write_markers_of(transactions: &Rc<CoordinatorHost<TransactionShard>>, router: &Rc<Router>) {
    let (host, router) = (Rc::downgrade(transactions), Rc::downgrade(router));
    transactions.set_marker_writer(Rc::new(move |partition, epoch, job| {
        if let (Some(host), Some(router)) = (host.upgrade(), router.upgrade()) {
            spawn(
                Queue::Network,
                write_markers(router, host, partition, epoch, job),
            );
        }
    }));
}

/// Writes the markers of one transaction until every partition that still exists has its own.
async fn write_markers(
    router: Rc<Router>,
    host: Rc<CoordinatorHost<TransactionShard>>,
    partition: u32,
    coordinator_epoch: i32,
    job: MarkerJob,
) {
    let marker = TransactionMarker {
        producer_id: job.producer.id,
        producer_epoch: job.producer.epoch,
        coordinator_epoch,
        commit: job.commit,
    };
    let bumps_epoch = job.protocol == ClientProtocol::V2;
    let mut left = logs_of(&router.image(), &job);
    let mut wait = MARKER_RETRY_FIRST;
    while !left.is_empty() {
        let written = router.write_markers_anywhere(&left, marker, bumps_epoch);
        let written = written.await;
        let results = left.iter().zip(written);
        let again = results.filter(|(_, result)| is_worth_a_try(result));
        left = again.map(|(log, _)| *log).collect();
        if !left.is_empty() {
            clock::sleep(wait).await;
            wait = (wait * 2).min(MARKER_RETRY_MOST);
        }
    }
    host.with_partition(partition, |shard, _, effects| {
        shard.markers_written(&job, effects);
    });
    host.with_partition(partition, |shard, context, effects| {
        shard.complete(context, &job, effects);
    });
}

fn logs_of(image: &MetadataImage, job: &MarkerJob) -> Vec<LogId> {
    let mut logs = Vec::new();
    for (name, partitions) in &job.partitions {
        if let Some(topic) = image.topic(name) {
            let of_topic = partitions.iter();
            logs.extend(of_topic.filter_map(|partition| log_of(topic, *partition)));
        }
    }
    logs
}

/// A partition that is gone needs no marker, and one that knows a newer producer has got it.
fn is_worth_a_try<T>(result: &Result<T, PartitionError>) -> bool {
    match result {
        Ok(_)
        | Err(
            PartitionError::Unknown
            | PartitionError::InvalidProducerEpoch
            | PartitionError::CoordinatorFenced,
        ) => false,
        Err(_) => true,
    }
}

/// An answer of this core's shards on its way.
pub(super) enum PendingAnswer {
    Group(Promised<Outcome<GroupAnswer>>),
    Transaction(Promised<Outcome<TransactionAnswer>>),
}

impl PendingAnswer {
    pub(super) async fn take(self) -> Outcome<CoordinatorAnswer> {
        match self {
            PendingAnswer::Group(answer) => {
                let answer = answer.await.unwrap_or(Err(Unavailable::NotHere));
                answer.map(CoordinatorAnswer::Group)
            }
            PendingAnswer::Transaction(answer) => {
                let answer = answer.await.unwrap_or(Err(Unavailable::NotHere));
                answer.map(CoordinatorAnswer::Transaction)
            }
        }
    }
}

fn pending<A>(
    asked: Asked<A>,
    wrap: impl FnOnce(Promised<Outcome<A>>) -> PendingAnswer,
) -> Result<(bool, PendingAnswer), Unavailable> {
    match asked {
        Asked::Soon(answer) => Ok((false, wrap(answer))),
        Asked::Parked(answer) => Ok((true, wrap(answer))),
        Asked::Not(why) => Err(why),
    }
}

/// The request of a frame that names one group.
fn group_request<'a>(
    api: ApiKey,
    version: i16,
    mut body: crate::wire::codec::Reader<'a>,
) -> Option<GroupRequest<'a>> {
    let body = &mut body;
    Some(match api {
        ApiKey::JoinGroup => GroupRequest::Join(Message::decode(body, version).ok()?),
        ApiKey::SyncGroup => GroupRequest::Sync(Message::decode(body, version).ok()?),
        ApiKey::Heartbeat => GroupRequest::Heartbeat(Message::decode(body, version).ok()?),
        ApiKey::LeaveGroup => GroupRequest::Leave(Message::decode(body, version).ok()?),
        ApiKey::OffsetCommit => GroupRequest::OffsetCommit(Message::decode(body, version).ok()?),
        ApiKey::TxnOffsetCommit => {
            GroupRequest::TxnOffsetCommit(Message::decode(body, version).ok()?)
        }
        ApiKey::ListGroups => GroupRequest::List(Message::decode(body, version).ok()?),
        ApiKey::OffsetDelete => GroupRequest::OffsetDelete(Message::decode(body, version).ok()?),
        ApiKey::ConsumerGroupHeartbeat => {
            GroupRequest::ConsumerHeartbeat(Message::decode(body, version).ok()?)
        }
        _ => return None,
    })
}

impl Router {
    /// What the partition of a group asks for before a producer commits offsets there.
    pub async fn offsets_verification(
        self: &Rc<Self>,
        group: &str,
        producer: ProducerIdAndEpoch,
    ) -> PartResult<Verification> {
        let log = coordinator_log(&self.image(), OFFSETS_TOPIC, group);
        let log = log.ok_or(PartitionError::Unknown)?;
        let header = transactional_header(producer);
        let verified = self.verifications(vec![(log, header)]).await;
        verified.into_iter().next().expect("one result per part")
    }

    /// What every shard of transactions lists, on whatever core; an error where one does not serve.
    pub async fn list_transactions(
        self: &Rc<Self>,
        request: &TransactionRequest,
    ) -> Outcome<Vec<CoordinatorAnswer>> {
        let mut answers = Vec::new();
        for log in topic_logs(&self.image(), TRANSACTIONS_TOPIC) {
            let call = CoordinatorCall::Transaction(log, request.clone());
            answers.push(self.coordinate(call).await?);
        }
        Ok(answers)
    }

    /// Asks the coordinator whose partition the call names, on whatever core.
    pub async fn coordinate(self: &Rc<Self>, call: CoordinatorCall) -> Outcome<CoordinatorAnswer> {
        let log = match &call {
            CoordinatorCall::Group(call) => call.log,
            CoordinatorCall::Transaction(log, _) => *log,
        };
        if let Some(answer) = self.coordinate_elsewhere(&call).await {
            return answer;
        }
        let owner = self.owner(log);
        if owner == self.core() {
            let (_, answer) = self.coordinators().ask_here(call)?;
            return answer.take().await;
        }
        let (place, later) = self.coordinators().clone().park();
        let first = match self.ask_coordinator(owner, call, place.call) {
            Some(first) => first.await,
            None => None,
        };
        match first {
            Some(FirstWord::Parked) => later.await.unwrap_or(Err(Unavailable::NotHere)),
            Some(FirstWord::Answered(answer)) => *answer,
            None => Err(Unavailable::Overloaded),
        }
    }

    /// Serves a call of another core; what is parked is told when it comes.
    pub(super) async fn serve_coordination(
        self: &Rc<Self>,
        from: CoreId,
        call: CoordinatorCall,
        parked: ParkedCall,
    ) -> FirstWord {
        match self.coordinators().ask_here(call) {
            Err(why) => FirstWord::Answered(Box::new(Err(why))),
            Ok((false, answer)) => FirstWord::Answered(Box::new(answer.take().await)),
            Ok((true, answer)) => {
                let router = self.clone();
                spawn(Queue::Network, async move {
                    let answer = answer.take().await;
                    // It must arrive: wait for room instead of refusing.
                    while !router.tell_parked(from, parked, answer.clone()) {
                        clock::sleep(Duration::from_millis(1)).await;
                    }
                });
                FirstWord::Parked
            }
        }
    }

    /// What every shard of groups lists, on whatever core; an error where one does not serve.
    pub async fn list_groups(self: &Rc<Self>, frame: &Frame) -> Outcome<Vec<CoordinatorAnswer>> {
        let mut answers = Vec::new();
        for log in topic_logs(&self.image(), OFFSETS_TOPIC) {
            let call = GroupCall {
                log,
                frame: frame.clone(),
                client_host: String::new(),
                ask: GroupAsk::Frame,
            };
            let call = CoordinatorCall::Group(Box::new(call));
            answers.push(self.coordinate(call).await?);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_the_partitions_that_java_gives_them() {
        assert_eq!(partition_of("", 50), 0);
        // "polygenelubricants".hashCode() is the smallest number, which has no absolute value.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        // "hello".hashCode() = 99162322.
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
    }
}
