//! Nodes of a quorum in memory, with a network that delays, drops, doubles, reorders and cuts, and
//! disks that forget what was on its way. Everything follows from one seed.

use std::collections::{BTreeMap, VecDeque};

use super::entry::Entry;
use super::member::{MembershipChange, Voter};
use super::node::{Outgoing, QuorumConfig, QuorumNode, Recovered, SnapshotPoint, Work};
use super::state::DurableState;

/// A rule that the world breaks on behalf of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// Votes leave before they are durable.
    VoteBeforeFlush,
    /// Entries are acknowledged before they are durable.
    AppendBeforeFlush,
}

/// What the world may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) drops_percent: u32,
    pub(super) doubles_percent: u32,
    pub(super) most_delay_ticks: u64,
    pub(super) most_flush_ticks: u64,
    pub(super) crashes_permille: u32,
    pub(super) cuts_permille: u32,
    pub(super) changes_members: bool,
}

/// Nothing goes wrong.
pub(super) const CALM: Weather = Weather {
    drops_percent: 0,
    doubles_percent: 0,
    most_delay_ticks: 1,
    most_flush_ticks: 1,
    crashes_permille: 0,
    cuts_permille: 0,
    changes_members: false,
};

/// Everything goes wrong, often.
pub(super) const STORM: Weather = Weather {
    drops_percent: 5,
    doubles_percent: 5,
    most_delay_ticks: 6,
    most_flush_ticks: 6,
    crashes_permille: 8,
    cuts_permille: 10,
    changes_members: false,
};

#[derive(Default)]
struct Disk {
    state: Option<DurableState>,
    snapshot: Option<SnapshotPoint>,
    snapshot_digest: u64,
    entries: Vec<Entry>,
}

struct Write {
    due: u64,
    work: Work,
    answered: bool,
}

pub(super) struct Peer {
    pub(super) node: Option<QuorumNode>,
    disk: Disk,
    writes: VecDeque<Write>,
    /// Of everything applied, in order.
    digest: u64,
    pub(super) applied: u64,
    starts_at: u64,
}

pub(super) struct World {
    random: fastrand::Rng,
    seed: u64,
    founders: usize,
    pub(super) now: u64,
    pub(super) weather: Weather,
    breach: Option<Breach>,
    pub(super) peers: Vec<Peer>,
    network: BTreeMap<(u64, u64), (usize, Outgoing)>,
    sent: u64,
    /// Nodes on the other side of a cut.
    cut_off: Vec<bool>,
    leaders: BTreeMap<u64, i32>,
    /// Term, content digest and digest of all up to there, by index.
    committed: BTreeMap<u64, (u64, u64)>,
    pub(super) violation: Option<String>,
    /// Of everything sent.
    pub(super) trace: u64,
    proposed: u64,
}

pub(super) fn voter(node_id: i32) -> Voter {
    Voter {
        node_id,
        directory_id: None,
        host: format!("node-{node_id}"),
        port: 9093,
    }
}

pub(super) fn config(node_id: i32, founders: usize, seed: u64) -> QuorumConfig {
    QuorumConfig {
        node_id,
        seed,
        election_ticks: 10,
        heartbeat_ticks: 2,
        message_bytes: 200,
        founders: (0..founders as i32).map(voter).collect(),
    }
}

fn mix(digest: u64, bytes: &[u8]) -> u64 {
    let start = digest ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Disk {
    /// Carries work out up to one of its steps: a crash may come between any two.
    fn write(&mut self, work: &Work, steps: usize) {
        if steps == 0 {
            return;
        }
        if let Some(state) = &work.state {
            self.state = Some(state.clone());
        }
        if steps == 1 {
            return;
        }
        if let Some(installed) = &work.install {
            self.snapshot = Some(installed.point.clone());
            self.snapshot_digest = read_digest(&installed.data);
            self.entries.clear();
        }
        if let Some(from) = work.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        let entries = work.append.iter().take(steps - 2);
        self.entries.extend(entries.cloned());
    }
}

fn read_digest(data: &[u8]) -> u64 {
    u64::from_le_bytes(data.try_into().expect("a digest"))
}

impl World {
    pub(super) fn new(nodes: usize, founders: usize, seed: u64, breach: Option<Breach>) -> World {
        let peer = |_| Peer {
            node: None,
            disk: Disk::default(),
            writes: VecDeque::new(),
            digest: 0,
            applied: 0,
            starts_at: 0,
        };
        let mut world = World {
            random: fastrand::Rng::with_seed(seed),
            seed,
            founders,
            now: 0,
            weather: CALM,
            breach,
            peers: (0..nodes).map(peer).collect(),
            network: BTreeMap::new(),
            sent: 0,
            cut_off: vec![false; nodes],
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            violation: None,
            trace: 0,
            proposed: 0,
        };
        (0..nodes).for_each(|at| world.start(at));
        world
    }

    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn start(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let recovered = Recovered {
            state: peer.disk.state.clone(),
            snapshot: peer.disk.snapshot.clone(),
            entries: peer.disk.entries.clone(),
        };
        let config = config(at as i32, self.founders, self.seed);
        match QuorumNode::new(config, recovered) {
            Ok(node) => {
                peer.digest = peer.disk.snapshot_digest;
                peer.applied = node.applied_index();
                peer.node = Some(node);
            }
            Err(error) => self.violated(format!("node {at} does not start: {error}")),
        }
    }

    /// Loses what was on its way to the disk, from a random step on.
    pub(super) fn crash(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.node = None;
        let mut writes = std::mem::take(&mut peer.writes);
        let whole = self.random.usize(0..=writes.len());
        for write in writes.drain(..whole) {
            peer.disk.write(&write.work, usize::MAX);
        }
        if let Some(write) = writes.front() {
            let steps = self.random.usize(0..write.work.append.len() + 3);
            peer.disk.write(&write.work, steps);
        }
        peer.starts_at = self.now + self.random.u64(1..30);
    }

    fn send(&mut self, from: usize, messages: Vec<Outgoing>) {
        for message in messages {
            self.trace = mix(self.trace, &message.bytes);
            let copies = match self.chance(self.weather.doubles_percent, 100) {
                true => 2,
                false => 1,
            };
            for _ in 0..copies {
                if self.chance(self.weather.drops_percent, 100) {
                    continue;
                }
                let due = self.now + self.random.u64(1..=self.weather.most_delay_ticks);
                self.sent += 1;
                self.network
                    .insert((due, self.sent), (from, message.clone()));
            }
        }
    }

    fn chance(&mut self, part: u32, of: u32) -> bool {
        self.random.u32(0..of) < part
    }

    /// One tick of everybody, with what the weather brings.
    pub(super) fn tick(&mut self) {
        self.now += 1;
        let later = self.network.split_off(&(self.now + 1, 0));
        for (_, (from, message)) in std::mem::replace(&mut self.network, later) {
            let to = message.to as usize;
            if self.cut_off[from] != self.cut_off[to] {
                continue;
            }
            if let Some(node) = &mut self.peers[to].node {
                let received = node.receive(from as i32, &message.bytes);
                received.expect("nodes send what nodes understand");
            }
        }
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            match &mut peer.node {
                Some(node) => node.tick(),
                None if peer.starts_at <= self.now => self.start(at),
                None => {}
            }
            self.finish_writes(at);
            self.drive(at);
        }
        self.disturb();
    }

    fn disturb(&mut self) {
        let nodes = self.peers.len();
        if self.chance(self.weather.crashes_permille, 1000) {
            let at = self.random.usize(0..nodes);
            if self.peers[at].node.is_some() {
                self.crash(at);
            }
        }
        if self.chance(self.weather.cuts_permille, 1000) {
            for at in 0..nodes {
                self.cut_off[at] = self.random.bool();
            }
        } else if self.chance(self.weather.cuts_permille, 500) {
            self.cut_off.fill(false);
        }
        let at = self.random.usize(0..nodes);
        if self.chance(20, 100) {
            self.propose(at);
        }
        if self.chance(2, 100) {
            self.store_snapshot(at);
        }
        if self.weather.changes_members && self.chance(5, 100) {
            self.change_members(at);
        }
    }

    /// Proposes something at a node, if it leads.
    pub(super) fn propose(&mut self, at: usize) -> bool {
        self.proposed += 1;
        let data = self.proposed.to_le_bytes().repeat(3);
        let node = self.peers[at].node.as_mut();
        let is_proposed = node.is_some_and(|node| node.propose(data).is_ok());
        self.drive(at);
        is_proposed
    }

    fn change_members(&mut self, at: usize) {
        let other = self.random.usize(0..self.peers.len()) as i32;
        let Some(node) = &mut self.peers[at].node else {
            return;
        };
        let members = node.members();
        let change = if members.learners.contains_key(&other) {
            MembershipChange::Promote(other)
        } else if !members.voters.contains_key(&other) {
            MembershipChange::AddLearner(voter(other))
        } else if members.voters.len() > 2 {
            MembershipChange::Remove(other)
        } else {
            return;
        };
        // It may be refused, which is as good.
        let _ = node.change_members(&change);
        self.drive(at);
    }

    /// A snapshot of what a node has applied, made durable at once; the entries before it go.
    fn store_snapshot(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let Some(node) = &mut peer.node else {
            return;
        };
        let point = node.snapshot_point();
        let stored = peer.disk.entries.last().map(|entry| entry.index);
        if !peer.writes.is_empty() || stored.is_none_or(|last| last < point.index) {
            return;
        }
        peer.disk.entries.retain(|entry| entry.index > point.index);
        peer.disk.snapshot = Some(point.clone());
        peer.disk.snapshot_digest = peer.digest;
        node.compact(point.index);
    }

    fn finish_writes(&mut self, at: usize) {
        let now = self.now;
        while let Some(write) = self.peers[at].writes.pop_front_if(|write| write.due <= now) {
            let peer = &mut self.peers[at];
            peer.disk.write(&write.work, usize::MAX);
            if let (false, Some(node)) = (write.answered, &mut peer.node) {
                let messages = node.work_is_durable();
                self.send(at, messages);
            }
        }
    }

    fn breaks_rule(&self, work: &Work) -> bool {
        match self.breach {
            Some(Breach::VoteBeforeFlush) => work.state.is_some() && work.append.is_empty(),
            Some(Breach::AppendBeforeFlush) => work.state.is_none() && work.install.is_none(),
            None => false,
        }
    }

    /// Carries out what a node wants, as far as its disk lets it.
    pub(super) fn drive(&mut self, at: usize) {
        loop {
            self.apply(at);
            let Some(node) = &mut self.peers[at].node else {
                return;
            };
            let Some(mut work) = node.take_work() else {
                break;
            };
            let now = std::mem::take(&mut work.send_now);
            self.send(at, now);
            let answered = !work.needs_disk() || self.breaks_rule(&work);
            if answered && let Some(node) = &mut self.peers[at].node {
                let messages = node.work_is_durable();
                self.send(at, messages);
            }
            if work.needs_disk() {
                let due = self.now + self.random.u64(0..=self.weather.most_flush_ticks);
                let after = self.peers[at].writes.back().map_or(0, |write| write.due);
                self.peers[at].writes.push_back(Write {
                    due: due.max(after),
                    work,
                    answered,
                });
                self.finish_writes(at);
            }
        }
        self.check_leader(at);
    }

    fn check_leader(&mut self, at: usize) {
        let Some(node) = &self.peers[at].node else {
            return;
        };
        if let Some(failure) = node.failure() {
            let failure = format!("node {at} broke: {failure}");
            return self.violated(failure);
        }
        if node.is_leader() {
            let (term, id) = (node.term(), at as i32);
            let known = *self.leaders.entry(term).or_insert(id);
            if known != id {
                self.violated(format!("nodes {known} and {id} lead in term {term}"));
            }
        }
    }

    fn apply(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let Some(node) = &mut peer.node else {
            return;
        };
        let entries = node.take_committed();
        let index = node.applied_index();
        let mut found = Vec::new();
        for entry in &entries {
            peer.digest = mix(mix(peer.digest, &entry.term.to_le_bytes()), &entry.data);
            found.push((entry.index, entry.term, peer.digest));
        }
        if entries.is_empty() && index > peer.applied {
            peer.digest = peer.disk.snapshot_digest;
            found.push((index, node.snapshot_point().term, peer.digest));
        }
        peer.applied = index;
        if node.take_snapshot_wanted() {
            node.provide_snapshot(&peer.digest.to_le_bytes());
        }
        for (index, term, digest) in found {
            let known = *self.committed.entry(index).or_insert((term, digest));
            if known != (term, digest) {
                self.violated(format!("node {at} has another entry {index} than others"));
            }
        }
    }

    /// The node that leads in the newest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let node = self.peers[*at].node.as_ref();
            node.is_some_and(QuorumNode::is_leading_with_all_applied)
        };
        let leaders = (0..self.peers.len()).filter(leads);
        leaders.max_by_key(|at| self.peers[*at].node.as_ref().map(QuorumNode::term))
    }

    /// Ticks until something is so.
    ///
    /// # Panics
    /// When it takes too long, or a rule was broken meanwhile.
    pub(super) fn run_until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        for _ in 0..3000 {
            if is_so(self) {
                return;
            }
            self.tick();
            assert_eq!(self.violation, None, "seed {}", self.seed);
        }
        panic!("seed {}: not so after 3000 ticks: {what}", self.seed);
    }

    /// Everything works again; what is proposed from now on reaches all members.
    pub(super) fn heal(&mut self) {
        self.weather = CALM;
        self.cut_off.fill(false);
        self.run_until("everybody runs", |world| {
            world.peers.iter().all(|peer| peer.node.is_some())
        });
        for _ in 0..3 {
            self.run_until("somebody leads", |world| world.leader().is_some());
            let leader = self.leader().expect("just found");
            if !self.propose(leader) {
                continue;
            }
            let index = self.peers[leader].node.as_ref().expect("runs").describe();
            let last = index.replicas.iter().filter_map(|replica| replica.log_end);
            let last = last.max().expect("a leader is a member");
            self.run_until("all members have applied it", |world| {
                let Some(leader) = world.leader() else {
                    return false;
                };
                let node = world.peers[leader].node.as_ref().expect("leads");
                let replicas = node.describe().replicas;
                let mut members = replicas.iter().map(|replica| replica.node_id as usize);
                members.all(|at| world.peers[at].applied >= last)
            });
        }
    }
}
