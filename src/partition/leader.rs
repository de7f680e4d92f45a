//! What a leader decides, without waiting: who is in sync, how far everybody has come, and what that
//! makes of the high watermark. Kafka: `Partition`, `ReplicaManager`.
//!
//! The watermark counts *durable* ends only: that of this replica and those that followers report.
//! It counts every member of the in-sync set, also those whose admission the controller has not
//! confirmed yet, and never moves back within a reign. While fewer than `min.insync.replicas` are in
//! sync it stands still (KIP-966): what lies below it is on that many disks.

use std::collections::BTreeMap;

use crate::log::position::Offset;

/// How a client's idea of the leader epoch compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochJudgement {
    /// The same, or the client has none.
    Current,
    /// The client knows an older leader: it must refresh its metadata.
    Fenced,
    /// The client knows a newer leader than we do.
    Unknown,
}

/// Judges the `current_leader_epoch` of a request; -1 means the client has none. KIP-320.
#[must_use]
pub fn judge_epoch(ours: i32, clients: i32) -> EpochJudgement {
    match clients {
        -1 => EpochJudgement::Current,
        older if older < ours => EpochJudgement::Fenced,
        newer if newer > ours => EpochJudgement::Unknown,
        _ => EpochJudgement::Current,
    }
}

/// Who holds a partition and leads it, as the metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reign {
    /// The leader, or -1.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Grows with every change of the partition.
    pub partition_epoch: i32,
    /// Every broker that holds it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// How many must be in sync for the watermark to move.
    pub min_isr: usize,
}

impl Reign {
    /// A partition that only this broker holds.
    #[must_use]
    pub fn alone(node_id: i32, leader_epoch: i32) -> Reign {
        Reign {
            leader: node_id,
            leader_epoch,
            partition_epoch: 0,
            replicas: vec![node_id],
            isr: vec![node_id],
            min_isr: 1,
        }
    }
}

/// What a follower says when it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// Who.
    pub node_id: i32,
    /// The epoch of its registration.
    pub broker_epoch: i64,
    /// The end of its log: what it fetches next.
    pub log_end: Offset,
    /// The end of what is flushed there.
    pub durable_end: Offset,
}

/// How far a follower has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    broker_epoch: i64,
    log_end: Offset,
    durable_end: Offset,
    /// The last moment at which it had everything.
    caught_up_us: u64,
    /// Its last fetch, and where this log ended then.
    fetched_us: u64,
    leader_end: Offset,
}

/// A change of the in-sync set that the controller is to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// The partition's epoch that it is made on.
    pub partition_epoch: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The new set, with the epochs of the brokers' registrations; -1 for this broker's own.
    pub isr: Vec<(i32, i64)>,
}

/// See the head of this file. One per partition that this broker leads with others.
#[derive(Clone, Debug)]
pub struct Leadership {
    node_id: i32,
    reign: Reign,
    /// The end of the log when the reign began.
    epoch_start: Offset,
    followers: BTreeMap<i32, Progress>,
    /// The set that the controller was asked for.
    proposed: Option<Vec<i32>>,
    /// Its answer, or the metadata, are waited for.
    is_asked: bool,
}

/// What became of a proposal, where it was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalEnd {
    /// The controller refused it; another one may be made.
    Refused,
    /// It was made on an old partition epoch, perhaps because an earlier one of ours was accepted
    /// and nobody said so: the metadata will tell.
    Outdated,
    /// Nobody knows. It is made again as it was: until the controller has refused it, those it
    /// names may be in sync in its eyes, and are counted.
    Unknown,
}

impl Leadership {
    /// A reign that begins at `now_us` with a log that ends at `log_end`.
    #[must_use]
    pub fn begin(node_id: i32, reign: Reign, log_end: Offset, now_us: u64) -> Leadership {
        let mut leadership = Leadership {
            node_id,
            reign,
            epoch_start: log_end,
            followers: BTreeMap::new(),
            proposed: None,
            is_asked: false,
        };
        leadership.forget_others(now_us);
        leadership
    }

    /// The metadata say something new of the same reign: members came or went.
    pub fn follow_metadata(&mut self, reign: Reign, now_us: u64) {
        if reign.partition_epoch != self.reign.partition_epoch {
            self.proposed = None;
            self.is_asked = false;
        }
        self.reign = reign;
        self.forget_others(now_us);
    }

    /// Followers are those that hold a replica; new ones have nothing yet.
    fn forget_others(&mut self, now_us: u64) {
        let replicas = &self.reign.replicas;
        self.followers.retain(|node, _| replicas.contains(node));
        for node in replicas.iter().filter(|node| **node != self.node_id) {
            self.followers.entry(*node).or_insert(Progress {
                broker_epoch: -1,
                log_end: Offset(-1),
                durable_end: Offset(-1),
                caught_up_us: now_us,
                fetched_us: now_us,
                leader_end: Offset(0),
            });
        }
    }

    /// What the metadata say.
    #[must_use]
    pub fn reign(&self) -> &Reign {
        &self.reign
    }

    /// Where the reign began; consumers are told ends only once the watermark has come there.
    #[must_use]
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// Whether so many are in sync that the watermark moves.
    #[must_use]
    pub fn has_enough(&self) -> bool {
        self.reign.isr.len() >= self.effective_min_isr()
    }

    fn effective_min_isr(&self) -> usize {
        self.reign.min_isr.min(self.reign.replicas.len())
    }

    /// Notes a fetch; false when the broker holds no replica.
    pub fn note_fetch(&mut self, report: FollowerReport, log_end: Offset, now_us: u64) -> bool {
        let Some(progress) = self.followers.get_mut(&report.node_id) else {
            return false;
        };
        if report.log_end >= log_end {
            progress.caught_up_us = now_us;
        } else if report.log_end >= progress.leader_end {
            // It has what was there when it asked last.
            progress.caught_up_us = progress.caught_up_us.max(progress.fetched_us);
        }
        progress.fetched_us = now_us;
        progress.leader_end = log_end;
        progress.broker_epoch = report.broker_epoch;
        progress.log_end = report.log_end;
        // A follower that was cut or came back empty says so itself.
        progress.durable_end = report.durable_end.min(report.log_end);
        true
    }

    /// How far the watermark may be, `own_durable` of this replica's log being flushed; never below
    /// `before`.
    #[must_use]
    pub fn high_watermark(&self, own_durable: Offset, before: Offset) -> Offset {
        if !self.has_enough() {
            return before;
        }
        let is_counted = |node: &i32| {
            self.reign.isr.contains(node)
                || self
                    .proposed
                    .as_ref()
                    .is_some_and(|proposed| proposed.contains(node))
        };
        let followers = self.followers.iter().filter(|(node, _)| is_counted(node));
        let durable = followers.map(|(_, progress)| progress.durable_end);
        durable.fold(own_durable, Offset::min).max(before)
    }

    /// The in-sync set as it should be, if the controller is to be asked for another one: without
    /// those that have not had everything for `lag_us`, with those that have come to the watermark
    /// and have records of this reign. One question at a time.
    pub fn propose(
        &mut self,
        high_watermark: Offset,
        log_end: Offset,
        now_us: u64,
        lag_us: u64,
    ) -> Option<IsrProposal> {
        if self.is_asked {
            return None;
        }
        if let Some(proposed) = self.proposed.clone() {
            return Some(self.ask(&proposed));
        }
        let stays = |node: &i32| {
            let progress = self.followers.get(node);
            progress.is_none_or(|progress| {
                progress.log_end >= log_end
                    || now_us.saturating_sub(progress.caught_up_us) <= lag_us
            })
        };
        let isr = &self.reign.isr;
        let mut wanted: Vec<i32> = isr.iter().copied().filter(stays).collect();
        let comes = |(node, progress): (&i32, &Progress)| {
            let has_come = progress.log_end >= high_watermark.max(self.epoch_start)
                && progress.broker_epoch >= 0
                && now_us.saturating_sub(progress.fetched_us) <= lag_us;
            (!isr.contains(node) && has_come).then_some(*node)
        };
        wanted.extend(self.followers.iter().filter_map(comes));
        if wanted == *isr {
            return None;
        }
        self.proposed = Some(wanted.clone());
        Some(self.ask(&wanted))
    }

    fn ask(&mut self, wanted: &[i32]) -> IsrProposal {
        self.is_asked = true;
        let epoch = |node: &i32| {
            let progress = self.followers.get(node);
            (*node, progress.map_or(-1, |progress| progress.broker_epoch))
        };
        IsrProposal {
            partition_epoch: self.reign.partition_epoch,
            leader_epoch: self.reign.leader_epoch,
            isr: wanted.iter().map(epoch).collect(),
        }
    }

    /// The proposal made on `partition_epoch` was not accepted.
    pub fn end_proposal(&mut self, partition_epoch: i32, end: ProposalEnd) {
        if partition_epoch != self.reign.partition_epoch {
            return;
        }
        match end {
            ProposalEnd::Refused => {
                self.proposed = None;
                self.is_asked = false;
            }
            ProposalEnd::Outdated => {}
            ProposalEnd::Unknown => self.is_asked = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reign(isr: &[i32], min_isr: usize) -> Reign {
        Reign {
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 9,
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            min_isr,
        }
    }

    fn report(node_id: i32, log_end: i64, durable_end: i64) -> FollowerReport {
        FollowerReport {
            node_id,
            broker_epoch: 7,
            log_end: Offset(log_end),
            durable_end: Offset(durable_end),
        }
    }

    fn begin(isr: &[i32], min_isr: usize) -> Leadership {
        Leadership::begin(1, reign(isr, min_isr), Offset(10), 0)
    }

    #[test]
    fn epochs_are_judged_as_kafka_does() {
        assert_eq!(judge_epoch(3, -1), EpochJudgement::Current);
        assert_eq!(judge_epoch(3, 2), EpochJudgement::Fenced);
        assert_eq!(judge_epoch(3, 3), EpochJudgement::Current);
        assert_eq!(judge_epoch(3, 4), EpochJudgement::Unknown);
    }

    #[test]
    fn the_watermark_is_the_least_durable_end_of_those_in_sync() {
        let mut leader = begin(&[1, 2], 1);
        assert_eq!(leader.high_watermark(Offset(20), Offset(5)), Offset(5));
        leader.note_fetch(report(2, 18, 15), Offset(20), 1);
        assert_eq!(leader.high_watermark(Offset(20), Offset(5)), Offset(15));
        assert_eq!(leader.high_watermark(Offset(12), Offset(5)), Offset(12));
        // Not in sync: does not count. A stranger is refused.
        leader.note_fetch(report(3, 11, 11), Offset(20), 1);
        assert_eq!(leader.high_watermark(Offset(20), Offset(5)), Offset(15));
        assert!(!leader.note_fetch(report(9, 11, 11), Offset(20), 1));
        // A follower that lost its tail does not move it back.
        leader.note_fetch(report(2, 3, 3), Offset(20), 2);
        assert_eq!(leader.high_watermark(Offset(20), Offset(15)), Offset(15));
    }

    #[test]
    fn the_watermark_stands_still_below_min_isr() {
        let mut leader = begin(&[1, 2], 3);
        leader.note_fetch(report(2, 18, 18), Offset(20), 1);
        assert_eq!(leader.high_watermark(Offset(20), Offset(5)), Offset(5));
        leader.follow_metadata(reign(&[1, 2, 3], 3), 2);
        leader.note_fetch(report(3, 17, 17), Offset(20), 3);
        assert_eq!(leader.high_watermark(Offset(20), Offset(5)), Offset(17));
        // No more can be asked for than there are replicas.
        let alone = Leadership::begin(
            1,
            Reign {
                min_isr: 2,
                ..Reign::alone(1, 0)
            },
            Offset(0),
            0,
        );
        assert_eq!(alone.high_watermark(Offset(3), Offset(0)), Offset(3));
    }

    #[test]
    fn who_has_come_to_the_watermark_and_the_reign_is_proposed_and_counts_at_once() {
        let mut leader = begin(&[1, 2], 1);
        leader.note_fetch(report(2, 20, 20), Offset(20), 1);
        leader.note_fetch(report(3, 9, 9), Offset(20), 1);
        let propose = |leader: &mut Leadership| leader.propose(Offset(8), Offset(20), 2, 100);
        assert_eq!(
            propose(&mut leader),
            None,
            "below the beginning of the reign"
        );
        leader.note_fetch(report(3, 12, 11), Offset(20), 2);
        let proposal = propose(&mut leader).expect("it has come");
        assert_eq!(proposal.isr, [(1, -1), (2, 7), (3, 7)]);
        assert_eq!((proposal.leader_epoch, proposal.partition_epoch), (4, 9));
        assert_eq!(leader.high_watermark(Offset(20), Offset(8)), Offset(11));
        assert_eq!(propose(&mut leader), None, "one at a time");
        // Nobody knows, and then it was too late: it may be in sync in the controller's eyes.
        for end in [ProposalEnd::Unknown, ProposalEnd::Outdated] {
            leader.end_proposal(9, end);
            assert_eq!(leader.high_watermark(Offset(20), Offset(8)), Offset(11));
            let again = propose(&mut leader);
            assert_eq!(again.is_some(), end == ProposalEnd::Unknown);
        }
        leader.end_proposal(8, ProposalEnd::Refused);
        assert_eq!(leader.high_watermark(Offset(20), Offset(8)), Offset(11));
        leader.end_proposal(9, ProposalEnd::Refused);
        assert_eq!(leader.high_watermark(Offset(20), Offset(11)), Offset(20));
        assert!(propose(&mut leader).is_some());
    }

    #[test]
    fn who_has_not_had_everything_for_long_leaves_but_counts_until_that_is_confirmed() {
        let mut leader = begin(&[1, 2, 3], 1);
        leader.note_fetch(report(2, 20, 20), Offset(20), 150);
        leader.note_fetch(report(3, 11, 11), Offset(20), 150);
        let proposal = leader.propose(Offset(11), Offset(20), 160, 100);
        assert_eq!(proposal.expect("one lags").isr, [(1, -1), (2, 7)]);
        assert_eq!(leader.high_watermark(Offset(20), Offset(11)), Offset(11));
        let mut confirmed = reign(&[1, 2], 1);
        confirmed.partition_epoch = 10;
        leader.follow_metadata(confirmed, 161);
        assert_eq!(leader.high_watermark(Offset(20), Offset(11)), Offset(20));
        // It comes back when it has come to the watermark.
        leader.note_fetch(report(3, 20, 20), Offset(20), 170);
        assert!(leader.propose(Offset(20), Offset(20), 171, 100).is_some());
    }

    #[test]
    fn a_follower_that_always_has_what_was_there_when_it_asked_stays() {
        let mut leader = begin(&[1, 2], 1);
        for round in 1..50_i64 {
            let now_us = round as u64 * 60;
            leader.note_fetch(
                report(2, round * 10, round * 10),
                Offset(round * 10 + 10),
                now_us,
            );
            let end = Offset(round * 10 + 10);
            assert_eq!(leader.propose(Offset(0), end, now_us, 100), None);
        }
    }
}
