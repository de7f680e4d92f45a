//! Who takes part, and what is known of them: changes of the members, transfers, descriptions.

use raft::eraftpb::{ConfChange, ConfChangeType};
use raft::{ProgressState, eraftpb};

use super::entry::{Entry, EntryKind};
use super::member::{Members, MembershipChange};
use super::memory_log::{node_id, raft_id};
use super::node::{NotLeader, Proposal, QuorumNode};
use crate::wire::codec::Uuid;

/// Why the members stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Only a leader changes them.
    NotLeader(NotLeader),
    /// Another change is not over, or this leader has not applied everything before its term.
    ChangeOpen,
    /// The node is a member already.
    AlreadyThere,
    /// The node is no member, or not the kind of member that was meant.
    NoSuchMember,
    /// The learner is too far behind to be counted on.
    NotCaughtUp,
    /// A leader does not remove itself: it hands its leadership over first.
    IsLeader,
    /// Its id or its address cannot be a member's.
    Invalid,
}

/// The quorum as one node sees it. Kafka: `DescribeQuorum`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuorumDescription {
    /// Who leads, as far as this node knows.
    pub leader: Option<i32>,
    /// The newest term this node knows.
    pub leader_epoch: u64,
    /// Entries up to this index are committed.
    pub high_watermark: u64,
    /// All members, by node id.
    pub replicas: Vec<ReplicaDescription>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplicaDescription {
    /// Which node.
    pub node_id: i32,
    /// Its data directory, if it was named.
    pub directory_id: Option<Uuid>,
    /// Voter or learner.
    pub is_voter: bool,
    /// The last entry that it has; only a leader knows that of others.
    pub log_end: Option<u64>,
}

impl QuorumNode {
    /// The members as of the applied index.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Proposes a change of the members; it is in force when its entry was taken.
    pub fn change_members(&mut self, change: &MembershipChange) -> Result<Proposal, ChangeRefused> {
        self.check_change(change)?;
        let entry = Entry {
            index: 0,
            term: 0,
            kind: EntryKind::Membership,
            data: change.encode(),
        };
        let proposed = self.guarded(|node| {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(eraftpb::MessageType::MsgPropose);
            message.from = node.raw.raft.id;
            message.set_entries(vec![entry.into_raft()].into());
            node.raw.step(message).is_ok()
        });
        match proposed {
            Some(true) => Ok(self.last_proposal()),
            _ => Err(ChangeRefused::NotLeader(NotLeader { leader: None })),
        }
    }

    fn check_change(&self, change: &MembershipChange) -> Result<(), ChangeRefused> {
        if !self.is_leader() {
            return Err(ChangeRefused::NotLeader(self.not_leader()));
        }
        if self.raw.raft.has_pending_conf() || !self.is_leading_with_all_applied() {
            return Err(ChangeRefused::ChangeOpen);
        }
        match change {
            MembershipChange::AddLearner(member) if !member.is_valid() => {
                Err(ChangeRefused::Invalid)
            }
            MembershipChange::AddLearner(member) if self.members.get(member.node_id).is_some() => {
                Err(ChangeRefused::AlreadyThere)
            }
            MembershipChange::AddLearner(_) => Ok(()),
            MembershipChange::Promote(node_id) if !self.members.learners.contains_key(node_id) => {
                Err(ChangeRefused::NoSuchMember)
            }
            MembershipChange::Promote(node_id) if !self.is_close(*node_id) => {
                Err(ChangeRefused::NotCaughtUp)
            }
            MembershipChange::Promote(_) => Ok(()),
            MembershipChange::Remove(node_id) if self.members.get(*node_id).is_none() => {
                Err(ChangeRefused::NoSuchMember)
            }
            MembershipChange::Remove(node_id) if *node_id == self.node_id() => {
                Err(ChangeRefused::IsLeader)
            }
            MembershipChange::Remove(_) => Ok(()),
        }
    }

    /// Whether a member answers, and has everything or gets new entries as they come.
    fn is_close(&self, node_id: i32) -> bool {
        let progress = self.raw.raft.prs().get(raft_id(node_id));
        progress.is_some_and(|progress| {
            let has_all = progress.matched >= self.raw.raft.raft_log.committed;
            progress.recent_active && (has_all || progress.state == ProgressState::Replicate)
        })
    }

    pub(super) fn apply_change(&mut self, change: &MembershipChange) {
        let (kind, node_id) = match change {
            MembershipChange::AddLearner(member) => {
                (ConfChangeType::AddLearnerNode, member.node_id)
            }
            MembershipChange::Promote(node_id) => (ConfChangeType::AddNode, *node_id),
            MembershipChange::Remove(node_id) => (ConfChangeType::RemoveNode, *node_id),
        };
        let mut conf_change = ConfChange {
            node_id: raft_id(node_id),
            ..ConfChange::default()
        };
        conf_change.set_change_type(kind);
        let applied = self.raw.apply_conf_change(&conf_change);
        applied.unwrap_or_else(|error| panic!("{change:?} cannot be applied: {error}"));
        self.members.apply(change);
        let is_voter = self.members.voters.contains_key(&self.node_id());
        if self.is_leader() && !is_voter {
            // The library would count on a leader that is no member.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Hands leadership to a voter when that has everything; proposals are refused meanwhile. When it
    /// does not come to it within an election timeout this node goes on leading.
    pub fn transfer_leadership(&mut self, to: i32) -> Result<(), ChangeRefused> {
        if !self.is_leader() {
            return Err(ChangeRefused::NotLeader(self.not_leader()));
        }
        if !self.members.voters.contains_key(&to) {
            return Err(ChangeRefused::NoSuchMember);
        }
        self.guarded(|node| node.raw.transfer_leader(raft_id(to)));
        Ok(())
    }

    /// The quorum as this node sees it.
    #[must_use]
    pub fn describe(&self) -> QuorumDescription {
        let log_end = |node_id: i32| {
            if node_id == self.node_id() {
                return Some(self.raw.raft.raft_log.persisted);
            }
            let progress = self.raw.raft.prs().get(raft_id(node_id));
            let progress = progress.filter(|_| self.is_leader());
            progress.map(|progress| progress.matched)
        };
        let mut replicas: Vec<ReplicaDescription> = Vec::new();
        let (voters, learners) = (&self.members.voters, &self.members.learners);
        for member in voters.values().chain(learners.values()) {
            replicas.push(ReplicaDescription {
                node_id: member.node_id,
                directory_id: member.directory_id,
                is_voter: voters.contains_key(&member.node_id),
                log_end: log_end(member.node_id),
            });
        }
        replicas.sort_by_key(|replica| replica.node_id);
        QuorumDescription {
            leader: node_id(self.raw.raft.leader_id),
            leader_epoch: self.raw.raft.term,
            high_watermark: self.raw.raft.raft_log.committed,
            replicas,
        }
    }
}
