//! The follower's side of replication on one core: a loop per leader that fetches what this core's
//! replicas lack, and one that reports what of it is flushed.
//!
//! A fetch asks from the end of the log, before what was appended last is flushed, and its answer
//! may be long in coming; so what becomes durable meanwhile travels on a connection of its own.
//! Where the logs part, the leader says so by epoch, and only then is anything cut (KIP-101, 279).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::peer_link::{PeerFailure, PeerLink};
use super::peer_protocol::{
    PeerKind, ReplicaAnswerPart, ReplicaFetch, ReplicaFetchPart, ReplicaReport, ReplicaStatus,
    take_answers,
};
use super::peers::Peers;
use super::replica_manager::ReplicaManager;
use super::router::Router;
use crate::log::partition_log::LogError;
use crate::log::position::{LogId, Offset};
use crate::partition::replica::Replica;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn, yield_if_needed};
use crate::runtime::signal::Signal;
use crate::wire::record_batch::{Batches, HEADER_BYTES};

/// How long a loop rests when its leader does not answer, or answers nonsense.
const LEADER_BACKOFF: Duration = Duration::from_millis(100);

/// How long a partition is left out after its leader refused it.
const PARTITION_BACKOFF_US: u64 = 50_000;

/// How long an answer may take beyond what the leader may wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// One leader's followers on this core.
struct Fetcher {
    leader: i32,
    peers: Rc<Peers>,
    router: Weak<Router>,
    /// What this core follows of the leader.
    replicas: RefCell<BTreeMap<LogId, Rc<Replica>>>,
    /// Partitions that are left out until a moment.
    resting: RefCell<BTreeMap<LogId, u64>>,
    changed: Signal,
    /// What is to be reported when it is flushed.
    appended: RefCell<BTreeMap<LogId, Rc<Replica>>>,
    has_appended: Signal,
    is_stopped: Cell<bool>,
}

/// See the head of this file. One per core.
pub struct ReplicaFetchers {
    peers: Rc<Peers>,
    router: Weak<Router>,
    fetchers: RefCell<BTreeMap<i32, Rc<Fetcher>>>,
}

impl ReplicaFetchers {
    /// No followers yet.
    #[must_use]
    pub fn new(peers: Rc<Peers>, router: &Weak<Router>) -> ReplicaFetchers {
        ReplicaFetchers {
            peers,
            router: router.clone(),
            fetchers: RefCell::default(),
        }
    }

    /// Loops for the leaders of the replicas as they are now.
    pub fn follow(&self, replicas: &ReplicaManager) {
        let mut followed: BTreeMap<i32, BTreeMap<LogId, Rc<Replica>>> = BTreeMap::new();
        for replica in replicas.replicas() {
            if let Some(leader) = replica.followed_leader() {
                let of_leader = followed.entry(leader).or_default();
                of_leader.insert(replica.log().id(), replica);
            }
        }
        let mut fetchers = self.fetchers.borrow_mut();
        fetchers.retain(|leader, fetcher| {
            let goes_on = followed.contains_key(leader);
            if !goes_on {
                fetcher.stop();
            }
            goes_on
        });
        for (leader, replicas) in followed {
            let fetcher = fetchers.entry(leader).or_insert_with(|| {
                let fetcher = Rc::new(Fetcher::new(leader, &self.peers, &self.router));
                spawn(Queue::Network, fetcher.clone().fetch());
                spawn(Queue::Network, fetcher.clone().report());
                fetcher
            });
            fetcher.set_replicas(replicas);
        }
    }

    /// Ends all loops.
    pub fn stop(&self) {
        for (_, fetcher) in std::mem::take(&mut *self.fetchers.borrow_mut()) {
            fetcher.stop();
        }
    }
}

impl Fetcher {
    fn new(leader: i32, peers: &Rc<Peers>, router: &Weak<Router>) -> Fetcher {
        Fetcher {
            leader,
            peers: peers.clone(),
            router: router.clone(),
            replicas: RefCell::default(),
            resting: RefCell::default(),
            changed: Signal::default(),
            appended: RefCell::default(),
            has_appended: Signal::default(),
            is_stopped: Cell::new(false),
        }
    }

    fn stop(&self) {
        self.is_stopped.set(true);
        self.changed.raise();
        self.has_appended.raise();
    }

    fn set_replicas(&self, replicas: BTreeMap<LogId, Rc<Replica>>) {
        let same = {
            let before = self.replicas.borrow();
            let mut pairs = before.iter().zip(&replicas);
            before.len() == replicas.len()
                && pairs.all(|((_, one), (_, other))| Rc::ptr_eq(one, other))
        };
        *self.replicas.borrow_mut() = replicas;
        let had_rest = !std::mem::take(&mut *self.resting.borrow_mut()).is_empty();
        if !same || had_rest {
            self.changed.raise();
        }
    }

    /// Fetches until it is stopped.
    async fn fetch(self: Rc<Self>) {
        let mut link = self.peers.link();
        while !self.is_stopped.get() {
            let changed = self.changed.raised();
            let Some(asked) = self.next_fetch() else {
                futures_lite::future::or(changed, clock::sleep(LEADER_BACKOFF)).await;
                continue;
            };
            // Whoever has nothing new for the old question must not make a new one wait. Only the
            // waiting is given up: what was answered is done to its end.
            let interrupted = async {
                changed.await;
                Ok(None)
            };
            let answer = async { self.ask(&mut link, &asked).await.map(Some) };
            let answer = futures_lite::future::or(answer, interrupted).await;
            let done = match answer {
                Ok(Some(body)) => self.take_all(&asked, &body).await,
                Ok(None) => {
                    link.close();
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = done {
                link.close();
                tracing::debug!(leader = self.leader, %failure, "cannot fetch");
                clock::sleep(LEADER_BACKOFF).await;
            }
            yield_if_needed().await;
        }
    }

    fn broker_epoch(&self) -> Option<i64> {
        let image = self.router.upgrade()?.image();
        Some(image.brokers().get(&image.node_id())?.epoch)
    }

    /// What to ask for; None when there is nothing.
    fn next_fetch(&self) -> Option<ReplicaFetch> {
        let now_us = clock::monotonic_us();
        let mut resting = self.resting.borrow_mut();
        resting.retain(|_, until_us| *until_us > now_us);
        let replicas = self.replicas.borrow();
        let awake = replicas
            .iter()
            .filter(|(log, replica)| !resting.contains_key(log) && is_able(replica, self.leader));
        let parts: Vec<ReplicaFetchPart> = awake.map(|(_, replica)| part(replica)).collect();
        if parts.is_empty() {
            return None;
        }
        let config = self.router.upgrade()?.config();
        let cluster = &config.cluster;
        // Those that rest are to be asked for again soon.
        let wait_ms = match resting.is_empty() {
            true => cluster.replica_fetch_wait_ms,
            false => cluster
                .replica_fetch_wait_ms
                .min(PARTITION_BACKOFF_US / 1000),
        };
        Some(ReplicaFetch {
            broker_epoch: self.broker_epoch()?,
            wait_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX),
            max_bytes: cluster.replica_fetch_response_max_bytes as u32,
            partition_max_bytes: cluster.replica_fetch_max_bytes as u32,
            parts,
        })
    }

    async fn ask(&self, link: &mut PeerLink, asked: &ReplicaFetch) -> Result<Vec<u8>, PeerFailure> {
        self.peers.open(link, self.leader).await?;
        let patience = PATIENCE + Duration::from_millis(u64::from(asked.wait_ms));
        link.exchange(PeerKind::Fetch, |into| asked.encode(into), patience)
            .await
    }

    async fn take_all(&self, asked: &ReplicaFetch, body: &[u8]) -> Result<(), PeerFailure> {
        let broken = |what: &str| PeerFailure::Broken(what.to_string());
        let answers =
            take_answers(body).map_err(|_| broken("an answer to a fetch that makes no sense"))?;
        let is_asked = asked.parts.iter().zip(&answers);
        if answers.len() != asked.parts.len()
            || !is_asked
                .into_iter()
                .all(|(asked, (told, _))| asked.log == told.log)
        {
            return Err(broken("an answer about other partitions"));
        }
        for (asked, (told, records)) in asked.parts.iter().zip(answers) {
            let replica = self.replicas.borrow().get(&told.log).cloned();
            if let Some(replica) = replica
                && part(&replica) == *asked
                && is_able(&replica, self.leader)
            {
                self.take(&replica, &told, records).await;
            }
            yield_if_needed().await;
        }
        Ok(())
    }

    /// Does what the leader says of one partition.
    async fn take(&self, replica: &Rc<Replica>, told: &ReplicaAnswerPart, records: &[u8]) {
        let followed = (self.leader, replica.leader_epoch());
        let done = match (told.status, told.diverging) {
            (ReplicaStatus::Fine, Some((epoch, end))) => cut(replica, followed, epoch, end).await,
            (ReplicaStatus::Fine, None) => self.append(replica, followed, told, records).await,
            (ReplicaStatus::OutOfRange, _) => meet(replica, followed, told).await,
            (ReplicaStatus::OtherEpoch | ReplicaStatus::Unreadable, _) => {
                return self.rest(told.log);
            }
        };
        if let Err(why) = done {
            tracing::warn!(log = %replica.log().directory_name(), leader = self.leader, why,
                "cannot follow");
            self.rest(told.log);
        }
    }

    fn rest(&self, log: LogId) {
        let until_us = clock::monotonic_us() + PARTITION_BACKOFF_US;
        self.resting.borrow_mut().insert(log, until_us);
    }

    /// Appends what the leader sent.
    async fn append(
        &self,
        replica: &Rc<Replica>,
        followed: (i32, i32),
        told: &ReplicaAnswerPart,
        records: &[u8],
    ) -> Result<(), String> {
        let (_, epoch) = followed;
        for batch in Batches::new(records) {
            // The last one may be cut off; it comes whole with the next answer.
            let Ok(batch) = batch else { break };
            let header = *batch.header();
            let end = replica.log().end_offset();
            if header.base_offset < end.0 || header.partition_leader_epoch > epoch {
                let (base, of) = (header.base_offset, header.partition_leader_epoch);
                return Err(format!(
                    "the leader sent a batch at {base} of epoch {of} for {end}"
                ));
            }
            batch.verify_checksum().map_err(|error| error.to_string())?;
            let payload = &batch.bytes()[HEADER_BYTES..];
            let appended = replica.append_replicated(followed, &header, payload).await;
            if !appended.map_err(|error| error.to_string())? {
                return Ok(());
            }
        }
        if !records.is_empty() {
            let log = replica.log().id();
            self.appended.borrow_mut().insert(log, replica.clone());
            self.has_appended.raise();
        }
        replica.note_leaders_watermark(told.high_watermark);
        let start = told.log_start.min(replica.high_watermark());
        if start > replica.log().start_offset() {
            let moved = replica.log().advance_start(start).await;
            moved.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Reports what is flushed until it is stopped.
    async fn report(self: Rc<Self>) {
        let mut link = self.peers.link();
        while !self.is_stopped.get() {
            let more = self.has_appended.raised();
            let appended = std::mem::take(&mut *self.appended.borrow_mut());
            if appended.is_empty() {
                more.await;
                continue;
            }
            for replica in appended.values() {
                // One that fails reports how far it came.
                let _ = flushed(replica).await;
            }
            let Some(broker_epoch) = self.broker_epoch() else {
                continue;
            };
            let follows = |replica: &&Rc<Replica>| is_able(replica, self.leader);
            let report = ReplicaReport {
                broker_epoch,
                parts: appended.values().filter(follows).map(|r| part(r)).collect(),
            };
            let told = async {
                self.peers.open(&mut link, self.leader).await?;
                link.tell(PeerKind::Report, |into| report.encode(into), PATIENCE)
                    .await
            };
            if told.await.is_err() {
                // The next fetch says it too.
                link.close();
            }
        }
    }
}

/// Whether a replica follows this leader with a log that serves.
fn is_able(replica: &Replica, leader: i32) -> bool {
    replica.followed_leader() == Some(leader)
        && !replica.is_being_cut()
        && replica.log().healthy().is_ok()
}

fn part(replica: &Replica) -> ReplicaFetchPart {
    let log = replica.log();
    let latest = log.with_epochs(|epochs| epochs.latest());
    ReplicaFetchPart {
        log: log.id(),
        leader_epoch: replica.leader_epoch(),
        log_end: log.end_offset(),
        durable_end: log.flushed_offset(),
        last_epoch: latest.map_or(-1, |epoch| epoch.0),
    }
}

async fn flushed(replica: &Replica) -> Result<(), LogError> {
    let log = replica.log();
    let end = log.end_offset();
    loop {
        let moved = log.flush_moved().raised();
        // Cut meanwhile: there is less to wait for.
        if log.flushed_offset() >= end.min(log.end_offset()) {
            return Ok(());
        }
        log.healthy()?;
        moved.await;
    }
}

/// Cuts the log where it and the leader's part. Kafka:
/// `AbstractFetcherThread.getOffsetTruncationState`.
async fn cut(
    replica: &Replica,
    followed: (i32, i32),
    epoch: i32,
    leaders_end: Offset,
) -> Result<(), String> {
    let log = replica.log();
    let end = log.end_offset();
    let (ours, our_end) = replica.epoch_end(epoch);
    let to = match ours {
        -1 => leaders_end,
        _ if ours == epoch => leaders_end.min(Offset(our_end)),
        // The leader's epoch is unknown here: everything after our last one below it may differ.
        _ => Offset(our_end),
    };
    let to = to.min(end);
    if to == end {
        return Err(format!(
            "the leader parts at {to} of epoch {epoch}, where this log ends"
        ));
    }
    tracing::info!(log = %log.directory_name(), %end, %to, epoch, "cut to where the leader's log parts");
    let cut = replica.cut_replicated(followed, to).await;
    cut.map_err(|error| error.to_string())
}

/// The log's end is outside of the leader's log: cut, or skip what the leader does not have any more.
async fn meet(
    replica: &Replica,
    followed: (i32, i32),
    told: &ReplicaAnswerPart,
) -> Result<(), String> {
    let log = replica.log();
    let end = log.end_offset();
    let met = if end > told.log_end {
        tracing::info!(log = %log.directory_name(), %end, to = %told.log_end, "cut to the leader's end");
        replica.cut_replicated(followed, told.log_end).await
    } else if end < told.log_start {
        tracing::info!(log = %log.directory_name(), %end, to = %told.log_start, "begun anew at the leader's start");
        match log.skip_to(told.log_start).await {
            Ok(()) => log.advance_start(told.log_start).await,
            Err(error) => Err(error),
        }
    } else {
        Ok(())
    };
    met.map_err(|error| error.to_string())
}
