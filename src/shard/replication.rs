//! The leader's side of replication: what followers fetch and report, and whom the controller is
//! asked to count as in sync.

use std::rc::Rc;
use std::time::Duration;

use super::peer_protocol::{
    ReplicaAnswerPart, ReplicaFetch, ReplicaFetchPart, ReplicaReport, ReplicaStatus,
};
use super::replica_manager::ReplicaManager;
use super::router::{Answer, Question, Router};
use crate::cluster::controller::{Command, CommandReply, IsrChange};
use crate::cluster::controller_error::ControllerError;
use crate::log::position::{LogId, Offset};
use crate::log::reader::Slices;
use crate::partition::leader::{FollowerReport, IsrProposal, ProposalEnd};
use crate::partition::replica::Replica;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::Signal;
use crate::wire::codec::Uuid;

/// How often leaders look whether the in-sync set should be another.
const IN_SYNC_LOOK: Duration = Duration::from_millis(100);

/// Changes in one question to the controller.
const MOST_CHANGES: usize = 1000;

/// Who fetches: its node id and the epoch of its registration.
pub type Follower = (i32, i64);

/// What one partition gave a follower.
#[derive(Clone, Debug)]
pub struct ReplicaFetched {
    /// What is told of it.
    pub told: ReplicaAnswerPart,
    /// The records.
    pub slices: Slices,
}

/// How much a follower takes.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaFetchTerms {
    /// Bytes of all partitions.
    pub max_bytes: usize,
    /// Bytes of one.
    pub partition_max_bytes: usize,
}

/// What the core that was connected to asks the one that owns the partitions.
pub(super) enum ReplicationQuestion {
    Read(Vec<ReplicaFetchPart>, Follower, ReplicaFetchTerms),
    AwaitEnds(Vec<(LogId, Offset)>, Duration),
    Report(Vec<ReplicaFetchPart>, Follower),
}

impl ReplicaManager {
    pub(super) async fn answer_replication(&self, question: ReplicationQuestion) -> Answer {
        match question {
            ReplicationQuestion::Read(parts, follower, terms) => {
                let read = self.read_for_follower(&parts, follower, terms);
                Answer::ReplicaRead(read.await)
            }
            ReplicationQuestion::AwaitEnds(seen, at_most) => {
                let moved = self.ends_beyond(&seen);
                futures_lite::future::or(moved, clock::sleep(at_most)).await;
                Answer::Grown
            }
            ReplicationQuestion::Report(parts, follower) => {
                self.note_report(&parts, follower);
                Answer::Applied
            }
        }
    }

    /// Notes what a follower says of itself and reads what it lacks.
    pub async fn read_for_follower(
        &self,
        parts: &[ReplicaFetchPart],
        follower: Follower,
        terms: ReplicaFetchTerms,
    ) -> Vec<ReplicaFetched> {
        let mut left = terms.max_bytes;
        let mut nothing_yet = true;
        let mut fetched = Vec::with_capacity(parts.len());
        for part in parts {
            let most = left.min(terms.partition_max_bytes);
            let answer = self
                .read_part_for(part, follower, (most, nothing_yet))
                .await;
            left = left.saturating_sub(answer.told.length as usize);
            nothing_yet &= answer.told.length == 0;
            fetched.push(answer);
        }
        fetched
    }

    async fn read_part_for(
        &self,
        part: &ReplicaFetchPart,
        follower: Follower,
        (most, whole_first): (usize, bool),
    ) -> ReplicaFetched {
        let refused = |status| ReplicaFetched {
            told: told(part.log, status, None),
            slices: Slices::new(),
        };
        let led = self.led(part.log).ok();
        let led = led.filter(|replica| replica.leader_epoch() == part.leader_epoch);
        let Some(replica) = led else {
            return refused(ReplicaStatus::OtherEpoch);
        };
        if replica.log().healthy().is_err() {
            return refused(ReplicaStatus::Unreadable);
        }
        let mut answer = ReplicaFetched {
            told: told(part.log, ReplicaStatus::Fine, Some(&replica)),
            slices: Slices::new(),
        };
        answer.told.diverging = diverging(&replica, part);
        if answer.told.diverging.is_some() {
            return answer;
        }
        if part.log_end < answer.told.log_start || part.log_end > answer.told.log_end {
            answer.told.status = ReplicaStatus::OutOfRange;
            return answer;
        }
        if !replica.note_fetch(report(part, follower)) {
            answer.told.status = ReplicaStatus::OtherEpoch;
            return answer;
        }
        answer.told.high_watermark = replica.high_watermark();
        match replica
            .read_for_follower(part.log_end, most, whole_first)
            .await
        {
            Ok(run) => {
                answer.told.length = u32::try_from(run.size_bytes).expect("bounded by the terms");
                answer.slices = run.slices;
            }
            Err(_) => answer.told.status = ReplicaStatus::Unreadable,
        }
        answer
    }

    /// Notes what a follower has flushed.
    pub fn note_report(&self, parts: &[ReplicaFetchPart], follower: Follower) {
        for part in parts {
            let replica = self.replica(part.log);
            let led = replica.filter(|replica| replica.leader_epoch() == part.leader_epoch);
            if let Some(replica) = led {
                replica.note_fetch(report(part, follower));
            }
        }
    }

    /// Waits until one of the logs ends beyond the offset named with it, or is led by others.
    pub async fn ends_beyond(&self, seen: &[(LogId, Offset)]) {
        let moved = Rc::new(Signal::default());
        loop {
            let wait = moved.raised();
            for (log, seen) in seen {
                let Ok(replica) = self.led(*log) else {
                    return;
                };
                if replica.log().end_offset() > *seen || replica.log().healthy().is_err() {
                    return;
                }
                replica.watch_end(&moved);
            }
            wait.await;
        }
    }

    /// What the controller is to be asked of this core's partitions.
    fn proposals(&self, lag_us: u64) -> Vec<(Rc<Replica>, IsrProposal)> {
        let replicas = self.replicas();
        let proposals = replicas.into_iter().filter_map(|replica| {
            let proposal = replica.propose_in_sync(lag_us)?;
            Some((replica, proposal))
        });
        proposals.take(MOST_CHANGES).collect()
    }
}

fn report(part: &ReplicaFetchPart, (node_id, broker_epoch): Follower) -> FollowerReport {
    FollowerReport {
        node_id,
        broker_epoch,
        log_end: part.log_end,
        durable_end: part.durable_end,
    }
}

fn told(log: LogId, status: ReplicaStatus, replica: Option<&Replica>) -> ReplicaAnswerPart {
    let of = |offset: fn(&Replica) -> Offset| replica.map_or(Offset(0), offset);
    ReplicaAnswerPart {
        log,
        status,
        leader_epoch: replica.map_or(-1, Replica::leader_epoch),
        high_watermark: of(Replica::high_watermark),
        log_start: of(|replica| replica.log().start_offset()),
        log_end: of(|replica| replica.log().end_offset()),
        diverging: None,
        length: 0,
    }
}

/// Where the follower's log and this one part, if its last epoch ended earlier here.
fn diverging(replica: &Replica, part: &ReplicaFetchPart) -> Option<(i32, Offset)> {
    if part.last_epoch < 0 {
        return None;
    }
    let (epoch, end) = replica.epoch_end(part.last_epoch);
    let apart = epoch < part.last_epoch || end < part.log_end.0;
    (apart && epoch >= 0).then_some((epoch, Offset(end)))
}

impl Router {
    /// What a follower asks for; waits for anything new as it says.
    pub async fn replica_fetch(
        self: &Rc<Self>,
        node_id: i32,
        fetch: &ReplicaFetch,
    ) -> Vec<ReplicaFetched> {
        let follower = (node_id, fetch.broker_epoch);
        let terms = ReplicaFetchTerms {
            max_bytes: fetch.max_bytes as usize,
            partition_max_bytes: fetch.partition_max_bytes as usize,
        };
        let wait_us = u64::from(fetch.wait_ms) * 1000;
        let deadline_us = clock::monotonic_us() + wait_us;
        loop {
            let fetched = self.replica_read(&fetch.parts, follower, terms).await;
            let is_news = |part: &ReplicaFetched| {
                part.told.length > 0
                    || part.told.status != ReplicaStatus::Fine
                    || part.told.diverging.is_some()
            };
            let left_us = deadline_us.saturating_sub(clock::monotonic_us());
            if left_us == 0 || fetched.iter().any(is_news) {
                return fetched;
            }
            let seen = fetch.parts.iter().map(|part| (part.log, part.log_end));
            self.await_ends(seen.collect(), Duration::from_micros(left_us))
                .await;
        }
    }

    async fn replica_read(
        self: &Rc<Self>,
        parts: &[ReplicaFetchPart],
        follower: Follower,
        terms: ReplicaFetchTerms,
    ) -> Vec<ReplicaFetched> {
        if parts.iter().all(|part| self.owner(part.log) == self.core()) {
            return self
                .replicas()
                .read_for_follower(parts, follower, terms)
                .await;
        }
        let unread = |part: &ReplicaFetchPart| ReplicaFetched {
            told: told(part.log, ReplicaStatus::Unreadable, None),
            slices: Slices::new(),
        };
        let mut results: Vec<ReplicaFetched> = parts.iter().map(unread).collect();
        let mut asked = Vec::new();
        for (owner, indexes, parts) in self.by_owner(parts.to_vec(), |part| part.log) {
            let question = ReplicationQuestion::Read(parts, follower, terms);
            asked.push((
                indexes,
                self.ask_owner(owner, Question::Replication(question)),
            ));
        }
        let mut left = terms.max_bytes;
        for (indexes, answer) in asked {
            let Some(answer) = answer else { continue };
            if let Some(Answer::ReplicaRead(fetched)) = answer.await {
                for (index, mut part) in indexes.into_iter().zip(fetched) {
                    let length = part.told.length as usize;
                    if length > left && left < terms.max_bytes {
                        part.slices = Slices::new();
                        part.told.length = 0;
                    }
                    left = left.saturating_sub(part.told.length as usize);
                    results[index] = part;
                }
            }
        }
        results
    }

    async fn await_ends(self: &Rc<Self>, seen: Vec<(LogId, Offset)>, at_most: Duration) {
        let moved = Rc::new(Signal::default());
        let raised = moved.raised();
        for (owner, _, seen) in self.by_owner(seen, |(log, _)| *log) {
            let question = Question::Replication(ReplicationQuestion::AwaitEnds(seen, at_most));
            let Some(answer) = self.ask_owner(owner, question) else {
                clock::sleep(Duration::from_millis(5).min(at_most)).await;
                return;
            };
            let moved = moved.clone();
            spawn(Queue::Network, async move {
                answer.await;
                moved.raise();
            });
        }
        futures_lite::future::or(raised, clock::sleep(at_most)).await;
    }

    /// Notes what a follower has flushed.
    pub fn replica_report(self: &Rc<Self>, node_id: i32, report: ReplicaReport) {
        let follower = (node_id, report.broker_epoch);
        for (owner, _, parts) in self.by_owner(report.parts, |part| part.log) {
            if owner == self.core() {
                self.replicas().note_report(&parts, follower);
            } else {
                // A full mailbox: the next fetch says it too.
                let question = ReplicationQuestion::Report(parts, follower);
                drop(self.ask_owner(owner, Question::Replication(question)));
            }
        }
    }

    /// Asks the controller for other in-sync sets where the followers of this core's partitions give
    /// reason to.
    pub(super) async fn keep_in_sync(self: Rc<Self>) {
        loop {
            clock::sleep(IN_SYNC_LOOK).await;
            let lag_us = self
                .config()
                .cluster
                .replica_lag_max_ms
                .saturating_mul(1000);
            let proposals = self.replicas().proposals(lag_us);
            if !proposals.is_empty() {
                self.ask_for(proposals).await;
            }
        }
    }

    async fn ask_for(self: &Rc<Self>, proposals: Vec<(Rc<Replica>, IsrProposal)>) {
        let image = self.image();
        let node_id = image.node_id();
        let broker_epoch = image.brokers().get(&node_id).map_or(-1, |own| own.epoch);
        let change = |(replica, proposal): &(Rc<Replica>, IsrProposal)| {
            let log = replica.log().id();
            let epoch = |(node, epoch): &(i32, i64)| match *node == node_id {
                true => (*node, broker_epoch),
                false => (*node, *epoch),
            };
            IsrChange {
                topic: Uuid(log.topic),
                partition: log.partition.cast_signed(),
                leader_epoch: proposal.leader_epoch,
                partition_epoch: proposal.partition_epoch,
                isr: proposal.isr.iter().map(epoch).collect(),
            }
        };
        let command = Command::AlterPartitions {
            node_id,
            broker_epoch,
            changes: proposals.iter().map(change).collect(),
        };
        let results = match self.control(command).await {
            Ok(CommandReply::PartitionsAltered(Ok(results))) => results,
            _ => Vec::new(),
        };
        let mut results = results.into_iter();
        for (replica, proposal) in proposals {
            let end = match results.next() {
                Some(Ok(_)) => continue,
                Some(Err(ControllerError::InvalidUpdateVersion(_))) => ProposalEnd::Outdated,
                Some(Err(_)) => ProposalEnd::Refused,
                None => ProposalEnd::Unknown,
            };
            replica.end_proposal(proposal.partition_epoch, end);
        }
    }
}
