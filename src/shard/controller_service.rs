//! The controller at work: decides, proposes, applies, spreads, answers. Every node has one, on the
//! controller's core; the one whose node leads the quorum decides.
//!
//! A decision is made on an image that has everything applied, becomes one entry of the quorum's
//! log, and is answered when that entry is committed, applied, and spread to all cores. One decision
//! follows the other. What carries this out (disk, messages, time) is in `controller_quorum.rs`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::metadata_entry;
use super::quorum_log::QuorumLog;
use super::request::ControlFailure;
use super::router::Router;
use crate::cluster::controller::{Command, CommandReply, decide};
use crate::cluster::image::MetadataImage;
use crate::cluster::quorum::member::{Members, MembershipChange, Voter};
use crate::cluster::quorum::node::QuorumNode;
use crate::cluster::quorum::node_membership::{ChangeRefused, QuorumDescription};
use crate::cluster::record::MetadataRecord;
use crate::log::bytes::Malformed;
use crate::partition::replica::Replica;
use crate::partition::turns::Turns;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::random::random_bytes;
use crate::runtime::signal::{Promise, Promised, Signal, promise};
use crate::wire::codec::Uuid;

/// Commands that may wait.
const MOST_WAITING: usize = 1024;

/// Carries a message to a node, or loses it.
pub type Transport = Rc<dyn Fn(i32, Vec<u8>)>;

/// A proposal whose end somebody waits for, with its term.
pub(super) type Proposed = (u64, Promise<Result<(), ControlFailure>>);

/// See the head of this file.
pub struct ControllerService {
    pub(super) router: Weak<Router>,
    pub(super) log: QuorumLog,
    pub(super) node: RefCell<QuorumNode>,
    /// Of no entry at all.
    pub(super) empty: MetadataImage,
    pub(super) image: RefCell<Arc<MetadataImage>>,
    /// What the image contains.
    pub(super) image_index: Cell<u64>,
    /// What all cores have.
    pub(super) published_index: Cell<Option<u64>>,
    pub(super) is_publishing: Cell<bool>,
    pub(super) is_stopped: Cell<bool>,
    pub(super) has_ended: Cell<bool>,
    pub(super) ended: Signal,
    turns: Rc<Turns>,
    waiting: Cell<usize>,
    /// By index.
    pub(super) proposals: RefCell<BTreeMap<u64, Proposed>>,
    pub(super) transport: RefCell<Option<Transport>>,
    /// The quorum may have work.
    pub(super) woken: Signal,
    /// The image has moved.
    pub(super) applied: Signal,
    /// All cores have a newer image.
    pub(super) published: Signal,
    /// Leader, or whether this node decides, is another.
    pub(super) changed: Signal,
    pub(super) told: Cell<(Option<i32>, bool)>,
}

impl ControllerService {
    /// Loads the metadata and takes part in the quorum from now on. `voters` found a new cluster; they
    /// are ignored when this node knows more. A node that is alone leads on return.
    ///
    /// No image is spread before [`ControllerService::begin_publishing`].
    pub async fn load(
        router: &Rc<Router>,
        replica: Rc<Replica>,
        directory: &Path,
        empty: MetadataImage,
        voters: Vec<Voter>,
    ) -> Result<Rc<ControllerService>, String> {
        let (log, loaded) = QuorumLog::load(replica.log().clone(), directory).await?;
        let mut image = empty.clone();
        let snapshot = loaded.snapshot.as_ref();
        let records = snapshot.map_or(&[][..], |snapshot| &snapshot.records);
        records.iter().for_each(|record| image.apply(record));
        let node = super::controller_quorum::node(empty.node_id(), voters, loaded)?;
        let service = Rc::new(ControllerService {
            router: Rc::downgrade(router),
            log,
            image_index: Cell::new(node.applied_index()),
            node: RefCell::new(node),
            empty,
            image: RefCell::new(Arc::new(image)),
            published_index: Cell::new(None),
            is_publishing: Cell::new(false),
            is_stopped: Cell::new(false),
            has_ended: Cell::new(false),
            ended: Signal::default(),
            turns: Rc::default(),
            waiting: Cell::new(0),
            proposals: RefCell::default(),
            transport: RefCell::default(),
            woken: Signal::default(),
            applied: Signal::default(),
            published: Signal::default(),
            changed: Signal::default(),
            told: Cell::new((None, false)),
        });
        service.settle().await?;
        service.node.borrow_mut().lead_alone();
        service.settle().await?;
        service.start();
        Ok(service)
    }

    /// Ends: nothing is stored, sent or spread any more on return.
    pub async fn stop(&self) {
        self.tell_to_stop();
        loop {
            let ended = self.ended.raised();
            if self.has_ended.get() {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn tell_to_stop(&self) {
        self.is_stopped.set(true);
        self.log.stop();
        self.fail_proposals(ControlFailure::TimedOut);
        self.published.raise();
        self.woken.raise();
        self.applied.raise();
    }

    /// Lets all cores have the image, from now on and with everything that is in it. Until then the
    /// image is only here, and what is submitted is answered when it is here.
    pub fn begin_publishing(&self) {
        self.is_publishing.set(true);
        self.applied.raise();
    }

    /// The newest image.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// Decides about a command and makes it so; with the reply comes the index of its last entry, or
    /// what was applied if nothing had to change. It goes on when whoever asks does not wait for it
    /// any more (its connection was closed).
    pub async fn submit(
        self: &Rc<Self>,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        let service = self.clone();
        self.in_turn(async move { service.decide_and_propose(command).await })
            .await
    }

    /// Makes records so that need no decision; the index of the last entry.
    pub async fn propose(
        self: &Rc<Self>,
        records: Vec<MetadataRecord>,
    ) -> Result<u64, ControlFailure> {
        let service = self.clone();
        self.in_turn(async move { service.make_so(&records).await.map(|index| ((), index)) })
            .await
            .map(|((), index)| index)
    }

    /// Runs `make_so` when its turn comes, then waits until all cores have what it led to.
    async fn in_turn<T: 'static>(
        self: &Rc<Self>,
        make_so: impl Future<Output = Result<(T, u64), ControlFailure>> + 'static,
    ) -> Result<(T, u64), ControlFailure> {
        if self.waiting.get() >= MOST_WAITING {
            return Err(ControlFailure::Overloaded);
        }
        let turn = self.turns.take();
        self.waiting.set(self.waiting.get() + 1);
        let (done, result) = promise();
        let service = self.clone();
        spawn(Queue::Control, async move {
            turn.come().await;
            service.waiting.set(service.waiting.get() - 1);
            let made = make_so.await;
            drop(turn);
            if let Ok((_, index)) = &made
                && service.is_publishing.get()
            {
                service.applied_to(*index).await;
            }
            done.keep(made);
        });
        result.await.unwrap_or(Err(ControlFailure::Overloaded))
    }

    async fn decide_and_propose(
        &self,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        self.check_active()?;
        let Some(router) = self.router.upgrade() else {
            return Err(ControlFailure::Overloaded);
        };
        let (image, config) = (self.image(), router.config());
        let decision = decide(&image, &config, command, &mut || Uuid(random_bytes()));
        let index = self.make_so(&decision.records).await?;
        Ok((decision.reply, index))
    }

    fn check_active(&self) -> Result<(), ControlFailure> {
        if self.is_stopped.get() {
            return Err(ControlFailure::Overloaded);
        }
        match self.is_active() {
            true if self.log.is_full() => Err(ControlFailure::Storage),
            true => Ok(()),
            false => Err(self.not_controller()),
        }
    }

    fn not_controller(&self) -> ControlFailure {
        let leader = self
            .leader()
            .filter(|leader| *leader != self.empty.node_id());
        ControlFailure::NotController(leader)
    }

    /// Proposes records and waits until they are in the image; the index of the last entry.
    async fn make_so(&self, records: &[MetadataRecord]) -> Result<u64, ControlFailure> {
        self.check_active()?;
        if records.is_empty() {
            return Ok(self.image_index.get());
        }
        let entries = metadata_entry::split(records, self.log.most_entry_bytes());
        let entries = entries.ok_or(ControlFailure::TooLarge)?;
        let mut last = (0, None);
        for (at, entry) in entries.into_iter().enumerate() {
            match self.propose_entry(entry) {
                Ok((index, committed)) => last = (index, Some(committed)),
                Err(failure) if at == 0 => return Err(failure),
                Err(_) => return Err(ControlFailure::TimedOut),
            }
        }
        let (index, committed) = last;
        let committed = committed.expect("there are records");
        committed.await.unwrap_or(Err(ControlFailure::TimedOut))?;
        Ok(index)
    }

    fn propose_entry(
        &self,
        entry: Vec<u8>,
    ) -> Result<(u64, Promised<Result<(), ControlFailure>>), ControlFailure> {
        let proposed = self.node.borrow_mut().propose(entry);
        let proposal = proposed.map_err(|_| self.not_controller())?;
        let (done, committed) = promise();
        let waiting = (proposal.term, done);
        self.proposals.borrow_mut().insert(proposal.index, waiting);
        self.woken.raise();
        Ok((proposal.index, committed))
    }

    /// Takes a message of another node. What cannot be read changes nothing; its sender is not to be
    /// trusted.
    pub fn receive(&self, from: i32, bytes: &[u8]) -> Result<(), Malformed> {
        if self.is_stopped.get() {
            return Ok(());
        }
        let received = self.node.borrow_mut().receive(from, bytes);
        self.woken.raise();
        received
    }

    /// How messages to other nodes are sent: they may be lost, doubled, and come in any order.
    pub fn set_transport(&self, transport: Transport) {
        *self.transport.borrow_mut() = Some(transport);
    }

    /// The node that leads, as far as this one knows.
    #[must_use]
    pub fn leader(&self) -> Option<i32> {
        self.node.borrow().leader()
    }

    /// Whether this node decides: it leads, and its image has everything that was committed before it
    /// did.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let node = self.node.borrow();
        node.is_leading_with_all_applied() && node.applied_index() == self.image_index.get()
    }

    /// Raised when the leader is another, or this node begins or ceases to decide.
    #[must_use]
    pub fn leadership_changed(&self) -> &Signal {
        &self.changed
    }

    /// The entry up to which all cores have the image.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.published_index.get().unwrap_or(0)
    }

    /// Waits until all cores have the image up to an entry, or this service ends.
    pub async fn applied_to(&self, index: u64) {
        loop {
            let published = self.published.raised();
            if self.applied_index() >= index || self.is_stopped.get() {
                return;
            }
            published.await;
        }
    }

    /// The quorum as this node sees it.
    #[must_use]
    pub fn describe(&self) -> QuorumDescription {
        self.node.borrow().describe()
    }

    /// The members as of what was applied here.
    #[must_use]
    pub fn members(&self) -> Members {
        self.node.borrow().members().clone()
    }

    /// Proposes a change of the members; it is in force when the returned index is applied.
    pub fn change_members(&self, change: &MembershipChange) -> Result<u64, ChangeRefused> {
        let proposed = self.node.borrow_mut().change_members(change);
        self.woken.raise();
        proposed.map(|proposal| proposal.index)
    }

    /// Hands leadership to another voter.
    pub fn transfer_leadership(&self, to: i32) -> Result<(), ChangeRefused> {
        let transferred = self.node.borrow_mut().transfer_leadership(to);
        self.woken.raise();
        transferred
    }
}
