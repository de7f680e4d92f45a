//! One node of the quorum: is told of time, messages and proposals, tells what to store and send.
//!
//! The turn of whoever drives it: [`QuorumNode::take_work`], send what may go at once, make the rest
//! durable (the state first, then a snapshot, then the cut, then the entries), and call
//! [`QuorumNode::work_is_durable`] for the messages that had to wait; then
//! [`QuorumNode::take_committed`]; and again until there is no more work.
//!
//! One piece of work is under way at a time, so a leader whose disk stands still for longer than an
//! election timeout loses its leadership, as it should.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::{self, HardState, Message, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole};

use super::entry::{Entry, EntryKind};
use super::member::{Members, MembershipChange, Voter};
use super::memory_log::{MemoryLog, conf_state, node_id, raft_id};
use super::message;
use super::state::DurableState;
use crate::log::bytes::{Fields, Malformed};

/// Index and term that stand for the founders; nobody's entry.
const FOUNDATION: (u64, u64) = (1, 1);

/// Messages with entries that a follower may be sent ahead of its answers.
const MESSAGES_IN_FLIGHT: usize = 64;

/// What a node is given once.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// Its id.
    pub node_id: i32,
    /// Where its election timeouts follow from; any number.
    pub seed: u64,
    /// A follower that hears nothing for this to twice this many ticks asks for votes.
    pub election_ticks: usize,
    /// A leader is heard at least once in so many ticks.
    pub heartbeat_ticks: usize,
    /// Entries of one message, at most, unless the first alone is larger.
    pub message_bytes: u64,
    /// The voters a new cluster begins with. Used when nothing was recovered and this node is one of
    /// them; another one begins as nobody's member and waits to be added.
    pub founders: Vec<Voter>,
}

/// Where a snapshot stands, and who the members were there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// The last entry it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The members.
    pub members: Members,
}

/// What was durable.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// None at the first start.
    pub state: Option<DurableState>,
    /// Where the entries begin, if not at the foundation.
    pub snapshot: Option<SnapshotPoint>,
    /// All entries behind it.
    pub entries: Vec<Entry>,
}

/// A message for another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To which node.
    pub to: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A snapshot that came from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledSnapshot {
    /// Where it stands.
    pub point: SnapshotPoint,
    /// What [`QuorumNode::provide_snapshot`] was given there.
    pub data: Vec<u8>,
}

/// What is to be done next, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Messages that promise nothing that is not durable.
    pub send_now: Vec<Outgoing>,
    /// Replaces what was stored.
    pub state: Option<DurableState>,
    /// Takes the place of all entries.
    pub install: Option<InstalledSnapshot>,
    /// Entries from this index on are gone.
    pub truncate_from: Option<u64>,
    /// Entries that follow those that are left.
    pub append: Vec<Entry>,
}

impl Work {
    /// Whether anything has to become durable.
    #[must_use]
    pub fn needs_disk(&self) -> bool {
        self.state.is_some() || self.install.is_some() || !self.append.is_empty()
    }
}

/// Where a proposal stands; it is this proposal that is committed there only if the term is the same
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its place.
    pub index: u64,
    /// The term of its leader.
    pub term: u64,
}

/// Only a leader takes proposals, and not while it hands its leadership over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Who leads, as far as this node knows.
    pub leader: Option<i32>,
}

/// An entry that will never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place.
    pub index: u64,
    /// Its leader's term.
    pub term: u64,
    /// What was proposed; empty for what the quorum says to itself.
    pub data: Vec<u8>,
}

/// Work that was handed out and is not durable yet.
struct Outstanding {
    number: u64,
    held: Vec<Message>,
    installed: Option<SnapshotPoint>,
    /// With changes of the members among them.
    committed: Vec<eraftpb::Entry>,
}

/// See the head of this file.
pub struct QuorumNode {
    pub(super) raw: RawNode<MemoryLog>,
    config: QuorumConfig,
    founders: Members,
    /// As of the applied index.
    pub(super) members: Members,
    outstanding: Option<Outstanding>,
    committed: VecDeque<eraftpb::Entry>,
    applied: (u64, u64),
    /// Term and vote as they were handed out last; none before the first time.
    state_told: Option<(u64, u64)>,
    /// Followers that were sent a snapshot, with the ticks until one is taken for lost.
    snapshots_sent: BTreeMap<u64, usize>,
    /// Ticks until a snapshot that nobody asked for again is forgotten.
    snapshot_kept_ticks: usize,
    /// Where the newest stored snapshot stands.
    snapshot_index: u64,
    failure: Option<String>,
}

impl QuorumNode {
    /// A node as it was when it stopped, or a new one.
    pub fn new(config: QuorumConfig, recovered: Recovered) -> Result<QuorumNode, String> {
        let is_new = recovered.state.is_none();
        let state = initial_state(&config, &recovered)?;
        let (base, members) = initial_base(&state, &recovered);
        check_entries(&state, base, &recovered.entries)?;
        let last = base.0 + recovered.entries.len() as u64;
        let hard_state = HardState {
            term: state.term,
            vote: state.vote.map_or(0, raft_id),
            commit: state.commit.clamp(base.0, last),
            ..HardState::default()
        };
        let state_told = (!is_new).then_some((hard_state.term, hard_state.vote));
        let entries = recovered.entries.into_iter().map(Entry::into_raft);
        let log = MemoryLog::new(hard_state, &members, base, entries.collect());
        let raft_config = raft::Config {
            id: raft_id(config.node_id),
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: base.0,
            max_size_per_msg: config.message_bytes,
            max_inflight_msgs: MESSAGES_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        // What it would log is in the metrics and the messages of whoever drives it.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let created = catch_unwind(AssertUnwindSafe(|| {
            RawNode::new(&raft_config, log, &logger)
        }));
        let raw = created
            .map_err(|panic| panic_text(&*panic))?
            .map_err(|error| error.to_string())?;
        Ok(QuorumNode {
            raw,
            config,
            founders: state.founders,
            members,
            outstanding: None,
            committed: VecDeque::new(),
            applied: base,
            state_told,
            snapshots_sent: BTreeMap::new(),
            snapshot_kept_ticks: 0,
            snapshot_index: base.0,
            failure: None,
        })
    }

    /// Why this node does nothing any more, if it broke.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Runs what calls the library, which panics when a rule of it is broken.
    pub(super) fn guarded<T>(&mut self, run: impl FnOnce(&mut QuorumNode) -> T) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.failure = Some(panic_text(&*panic));
                None
            }
        }
    }

    /// Some time has passed. A follower that waits for its disk cannot ask for votes, so its time
    /// stands still meanwhile.
    pub fn tick(&mut self) {
        self.guarded(|node| {
            if node.outstanding.is_some() && !node.is_leader() {
                return;
            }
            let timeout_ticks = node.election_timeout_ticks();
            node.raw.raft.set_randomized_election_timeout(timeout_ticks);
            node.raw.tick();
            node.age_snapshots();
        });
    }

    /// Follows from the seed, the node and the term, so that the same run has the same elections and
    /// a vote that was split is not split again.
    fn election_timeout_ticks(&self) -> usize {
        let mut mixed = self.config.seed
            ^ raft_id(self.config.node_id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self.raw.raft.term.wrapping_mul(0xd1b5_4a32_d192_ed03);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        self.config.election_ticks + (mixed % self.config.election_ticks as u64) as usize
    }

    /// Nobody reports whether a snapshot arrived: after a while the follower is asked where it is.
    fn age_snapshots(&mut self) {
        let mut over = Vec::new();
        self.snapshots_sent.retain(|to, ticks| {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                over.push(*to);
            }
            *ticks > 0
        });
        for to in over {
            self.raw.report_snapshot(to, SnapshotStatus::Finish);
        }
        if self.raw.store().has_snapshot() {
            self.snapshot_kept_ticks = self.snapshot_kept_ticks.saturating_sub(1);
            if self.snapshot_kept_ticks == 0 {
                self.raw.mut_store().set_snapshot(None);
            }
        }
    }

    /// A message came from a node. What cannot be read changes nothing.
    pub fn receive(&mut self, from: i32, bytes: &[u8]) -> Result<(), Malformed> {
        if from < 0 || from == self.config.node_id {
            return Err(Malformed(0));
        }
        let message = message::decode(raft_id(from), self.raw.raft.id, bytes)?;
        let last = self.raw.raft.raft_log.last_index();
        let kind = message.get_msg_type();
        if kind == MessageType::MsgAppendResponse && !message.reject && message.index > last {
            // Nobody can have more of this node's term than it made.
            return match self.is_leader() && message.term == self.term() {
                true => Err(Malformed(0)),
                false => Ok(()),
            };
        }
        let is_current = message.term >= self.raw.raft.term;
        if kind == MessageType::MsgHeartbeat && is_current && message.commit > last {
            self.failure.get_or_insert(format!(
                "node {from} knows that this node stored entries up to {}, but there are only {last}: \
                 its metadata was lost or replaced by an older copy",
                message.commit
            ));
            return Ok(());
        }
        // It refuses answers of nodes that are no members any more; nothing is to be done then.
        self.guarded(|node| drop(node.raw.step(message)));
        Ok(())
    }

    /// Proposes what every node is to apply. Not empty.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposal, NotLeader> {
        assert!(!data.is_empty(), "empty entries are the quorum's own");
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let proposed = self.guarded(|node| node.raw.propose(Vec::new(), data).is_ok());
        match proposed {
            Some(true) => Ok(self.last_proposal()),
            _ => Err(NotLeader { leader: None }),
        }
    }

    pub(super) fn last_proposal(&self) -> Proposal {
        Proposal {
            index: self.raw.raft.raft_log.last_index(),
            term: self.raw.raft.term,
        }
    }

    pub(super) fn not_leader(&self) -> NotLeader {
        NotLeader {
            leader: self.leader().filter(|leader| *leader != self.node_id()),
        }
    }

    /// What is to be done next; nothing while the last work is not durable.
    pub fn take_work(&mut self) -> Option<Work> {
        if self.outstanding.is_some() {
            return None;
        }
        self.guarded(QuorumNode::next_work)?
    }

    fn next_work(&mut self) -> Option<Work> {
        if !self.raw.has_ready() && self.state_told.is_some() {
            return None;
        }
        let mut ready = self.raw.ready();
        let mut work = Work {
            state: self.changed_state(),
            ..Work::default()
        };
        let mut send_now = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        if work.state.is_some() {
            // Also a sole voter's that leads at once: its learners must not hear of a term that it
            // could forget.
            held.splice(0..0, send_now.drain(..));
        }
        let mut installed = None;
        if !ready.snapshot().is_empty() {
            let snapshot = read_snapshot(ready.snapshot());
            let point = snapshot.point.clone();
            self.committed.clear();
            self.raw.mut_store().restart((point.index, point.term));
            installed = Some(point);
            work.install = Some(snapshot);
        }
        work.append = ready.entries().iter().map(Entry::from_raft).collect();
        work.truncate_from = self.raw.mut_store().append(ready.entries());
        let mut committed = ready.take_committed_entries();
        if committed.iter().any(is_change) {
            // Nobody counts votes of new members and, after a crash, of the old ones again: that
            // the change is committed is durable before it is in force.
            work.state.get_or_insert(self.state());
        } else {
            self.committed.extend(committed.drain(..));
        }
        let number = ready.number();
        self.raw.advance_append_async(ready);
        work.send_now = self.encode(send_now);
        self.outstanding = Some(Outstanding {
            number,
            held,
            installed,
            committed,
        });
        Some(work)
    }

    /// The state when term or vote are not those that were told last.
    fn changed_state(&mut self) -> Option<DurableState> {
        let told = Some((self.raw.raft.term, self.raw.raft.vote));
        if self.state_told == told {
            return None;
        }
        self.state_told = told;
        Some(self.state())
    }

    fn state(&self) -> DurableState {
        let hard_state = self.raw.raft.hard_state();
        DurableState {
            term: hard_state.term,
            vote: node_id(hard_state.vote),
            commit: hard_state.commit,
            founders: self.founders.clone(),
        }
    }

    /// The work that was taken last is durable; the messages that had to wait for it.
    pub fn work_is_durable(&mut self) -> Vec<Outgoing> {
        let Some(outstanding) = self.outstanding.take() else {
            return Vec::new();
        };
        let outgoing = self.guarded(|node| {
            node.raw.on_persist_ready(outstanding.number);
            if let Some(point) = outstanding.installed {
                node.raw.advance_apply_to(point.index);
                node.applied = (point.index, point.term);
                node.snapshot_index = point.index;
                node.members = point.members;
            }
            node.committed.extend(outstanding.committed);
            node.encode(outstanding.held)
        });
        outgoing.unwrap_or_default()
    }

    fn encode(&mut self, messages: Vec<Message>) -> Vec<Outgoing> {
        let mut outgoing = Vec::with_capacity(messages.len());
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let ticks = 2 * self.config.election_ticks;
                self.snapshots_sent.insert(message.to, ticks);
            }
            if let Some(to) = node_id(message.to) {
                let bytes = message::encode(&message);
                outgoing.push(Outgoing { to, bytes });
            }
        }
        outgoing
    }

    /// What was committed since the last call, in order; with this it counts as applied here.
    pub fn take_committed(&mut self) -> Vec<Committed> {
        let taken = self.guarded(|node| {
            // A snapshot that came replaces what was not taken before it.
            if node.raw.snap().is_some() || node.committed.is_empty() {
                return Vec::new();
            }
            let entries = std::mem::take(&mut node.committed);
            entries.iter().map(|entry| node.take_entry(entry)).collect()
        });
        taken.unwrap_or_default()
    }

    fn take_entry(&mut self, entry: &eraftpb::Entry) -> Committed {
        let entry = Entry::from_raft(entry);
        self.applied = (entry.index, entry.term);
        let data = match entry.kind {
            EntryKind::Decision => entry.data,
            EntryKind::Membership => {
                let change = MembershipChange::decode(&entry.data);
                self.apply_change(&change.expect("checked before it became an entry"));
                Vec::new()
            }
        };
        self.raw.advance_apply_to(entry.index);
        Committed {
            index: entry.index,
            term: entry.term,
            data,
        }
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<i32> {
        node_id(self.raw.raft.leader_id)
    }

    /// The newest term this node knows.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// Whether this node leads. It may have been replaced already without knowing it.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this node leads and what was taken so far contains an entry of its own term, and so
    /// everything that earlier leaders committed.
    #[must_use]
    pub fn is_leading_with_all_applied(&self) -> bool {
        self.is_leader() && self.applied.1 == self.term() && self.committed.is_empty()
    }

    /// The index of the last entry that was taken, or of the snapshot that was installed.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied.0
    }

    /// Where a snapshot of what was taken so far stands.
    #[must_use]
    pub fn snapshot_point(&self) -> SnapshotPoint {
        SnapshotPoint {
            index: self.applied.0,
            term: self.applied.1,
            members: self.members.clone(),
        }
    }

    /// Whether a follower needs a snapshot, to be answered with [`QuorumNode::provide_snapshot`].
    #[must_use]
    pub fn take_snapshot_wanted(&mut self) -> bool {
        self.raw.store().take_snapshot_wanted()
    }

    /// What a follower needs that has nothing of what was taken so far. Kept for a while.
    pub fn provide_snapshot(&mut self, data: &[u8]) {
        let point = self.snapshot_point();
        let mut bytes = Vec::new();
        point.members.encode(&mut bytes);
        bytes.extend_from_slice(data);
        let mut snapshot = Snapshot {
            data: bytes.into(),
            ..Snapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        metadata.index = point.index;
        metadata.term = point.term;
        metadata.set_conf_state(conf_state(&point.members));
        self.snapshot_kept_ticks = 4 * self.config.election_ticks;
        self.raw.mut_store().set_snapshot(Some(snapshot));
    }

    /// A snapshot at `index`, which was taken before, is durable. Entries that a follower still needs
    /// stay until the next one.
    pub fn compact(&mut self, index: u64) {
        let index = index.min(self.applied.0);
        self.guarded(|node| {
            let keep_from = node
                .slowest_index()
                .clamp(node.snapshot_index, index.max(node.snapshot_index));
            node.raw.mut_store().compact(keep_from);
            node.snapshot_index = node.snapshot_index.max(index);
        });
    }

    fn slowest_index(&self) -> u64 {
        if !self.is_leader() {
            return u64::MAX;
        }
        let progress = self.raw.raft.prs().iter();
        let matched = progress.map(|(_, progress)| progress.matched);
        matched.min().unwrap_or(u64::MAX)
    }

    /// A sole voter need not wait until it misses a leader: it asks itself for its vote now.
    pub fn lead_alone(&mut self) {
        let is_alone = self.members.voters.len() == 1;
        if is_alone && self.members.voters.contains_key(&self.node_id()) && !self.is_leader() {
            self.guarded(|node| drop(node.raw.campaign()));
        }
    }
}

fn initial_state(config: &QuorumConfig, recovered: &Recovered) -> Result<DurableState, String> {
    if let Some(state) = &recovered.state {
        return Ok(state.clone());
    }
    if recovered.snapshot.is_some() || !recovered.entries.is_empty() {
        return Err(
            "there is metadata, but not the file that says for whom this node voted".to_string(),
        );
    }
    if let Some(voter) = config.founders.iter().find(|voter| !voter.is_valid()) {
        return Err(format!(
            "node {} at {:?} cannot be a voter",
            voter.node_id, voter.host
        ));
    }
    let founders = Members::founded_by(config.founders.clone());
    if founders.voters.len() != config.founders.len() {
        return Err("two founders have the same id".to_string());
    }
    if !founders.voters.contains_key(&config.node_id) {
        return Ok(DurableState::default());
    }
    Ok(DurableState {
        term: FOUNDATION.1,
        vote: None,
        commit: FOUNDATION.0,
        founders,
    })
}

/// What stands before the first entry: index and term, and the members there.
fn initial_base(state: &DurableState, recovered: &Recovered) -> ((u64, u64), Members) {
    match &recovered.snapshot {
        Some(point) => ((point.index, point.term), point.members.clone()),
        None if state.founders.voters.is_empty() => ((0, 0), Members::default()),
        None => (FOUNDATION, state.founders.clone()),
    }
}

fn check_entries(state: &DurableState, base: (u64, u64), entries: &[Entry]) -> Result<(), String> {
    let (mut index, mut term) = base;
    for entry in entries {
        if entry.index != index + 1 || entry.term < term {
            return Err(format!(
                "entry {} of term {} does not follow entry {index} of term {term}",
                entry.index, entry.term
            ));
        }
        (index, term) = (entry.index, entry.term);
    }
    if term > state.term {
        return Err(format!(
            "entry {index} is of term {term}, but the stored term is {}: an older copy of it was put \
             in its place",
            state.term
        ));
    }
    Ok(())
}

fn is_change(entry: &eraftpb::Entry) -> bool {
    entry.get_entry_type() != eraftpb::EntryType::EntryNormal
}

fn read_snapshot(snapshot: &Snapshot) -> InstalledSnapshot {
    let mut fields = Fields::new(&snapshot.data);
    let members = Members::decode(&mut fields).expect("checked when it came");
    let metadata = snapshot.get_metadata();
    InstalledSnapshot {
        point: SnapshotPoint {
            index: metadata.index,
            term: metadata.term,
            members,
        },
        data: snapshot.data[fields.position()..].to_vec(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a rule of the quorum was broken")
        .to_string()
}
