//! This node in its cluster, on the controller's core: it registers and says that it is alive; when
//! it decides, it watches that the others are; and it carries the quorum's messages.
//!
//! A broker that is silent for a few heartbeats is looked for: where nobody listens any more its
//! process is gone, and others lead what it led at once. One that accepts connections may be slow or
//! cut off, and has until `cluster.session_timeout_ms`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::controller_service::ControllerService;
use super::peer_link::{PeerFailure, PeerLink};
use super::peer_protocol::{HeartbeatRefusal, PeerAnswer, PeerKind, PeerRequest};
use super::peers::Peers;
use super::request::ControlFailure;
use super::router::Router;
use crate::cluster::controller::{BrokerRegistration, Command, CommandReply};
use crate::cluster::image::MetadataImage;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::Signal;

/// How long a registration that failed waits before it is tried again.
const REGISTER_BACKOFF: Duration = Duration::from_millis(50);

/// How often the broker that decides looks at the others' sessions.
const SESSION_LOOK: Duration = Duration::from_millis(50);

/// Heartbeats that a broker may miss before it is looked for.
const MISSED_HEARTBEATS: u64 = 2;

/// How long a heartbeat may take.
const HEARTBEAT_PATIENCE: Duration = Duration::from_millis(1000);

/// Messages of the quorum to one node that wait; the oldest go first, since they may be lost.
const MOST_MESSAGES: usize = 256;

/// How long sending such a message may take.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a link that failed is left alone.
const LINK_BACKOFF: Duration = Duration::from_millis(50);

/// Messages of the quorum on their way to one node.
#[derive(Default)]
struct Mailbag {
    messages: RefCell<VecDeque<Vec<u8>>>,
    more: Signal,
}

/// See the head of this file. One per node.
pub struct Membership {
    router: Rc<Router>,
    controller: Rc<ControllerService>,
    peers: Rc<Peers>,
    registration: BrokerRegistration,
    /// When brokers were heard of last, as the one that decides knows it.
    heard_us: RefCell<BTreeMap<i32, u64>>,
    mailbags: RefCell<BTreeMap<i32, Rc<Mailbag>>>,
    is_stopping: Cell<bool>,
}

impl Membership {
    /// Begins to carry the quorum's messages and to watch.
    #[must_use]
    pub fn start(
        router: &Rc<Router>,
        controller: &Rc<ControllerService>,
        peers: &Rc<Peers>,
        registration: BrokerRegistration,
    ) -> Rc<Membership> {
        let membership = Rc::new(Membership {
            router: router.clone(),
            controller: controller.clone(),
            peers: peers.clone(),
            registration,
            heard_us: RefCell::default(),
            mailbags: RefCell::default(),
            is_stopping: Cell::new(false),
        });
        let carrier = Rc::downgrade(&membership);
        controller.set_transport(Rc::new(move |to, bytes| {
            if let Some(membership) = carrier.upgrade() {
                membership.send(to, bytes);
            }
        }));
        spawn(Queue::Control, membership.clone().watch_sessions());
        spawn(Queue::Control, membership.clone().balance_leaders());
        membership
    }

    fn node_id(&self) -> i32 {
        self.registration.node_id
    }

    /// Registers, lets all cores have the metadata, and waits until this broker may lead.
    ///
    /// # Errors
    /// When the cluster refuses this broker for good.
    pub async fn join(self: &Rc<Self>) -> Result<(), String> {
        let epoch = self.register().await?;
        // What was decided before the registration is applied with it, so no log is taken for that of
        // a deleted topic because the metadata are old.
        while !self.is_registered(&self.controller.image()) {
            clock::sleep(REGISTER_BACKOFF.min(SESSION_LOOK)).await;
        }
        self.controller.begin_publishing();
        self.router.ready().await;
        let node_id = self.node_id();
        while self.router.image().brokers()[&node_id].is_fenced {
            let alive = Command::BrokerAlive { node_id, epoch };
            match self.router.control(alive).await {
                Ok(_) => {}
                Err(ControlFailure::Storage) => {
                    return Err("the metadata log does not take records".into());
                }
                Err(_) => clock::sleep(REGISTER_BACKOFF).await,
            }
        }
        spawn(Queue::Control, self.clone().send_heartbeats());
        Ok(())
    }

    fn is_registered(&self, image: &MetadataImage) -> bool {
        let own = image.brokers().get(&self.node_id());
        own.is_some_and(|own| own.incarnation == self.registration.incarnation)
    }

    async fn register(&self) -> Result<i64, String> {
        let mut told = false;
        loop {
            self.fence_earlier_run().await;
            let command = Command::RegisterBroker(self.registration.clone());
            match self.router.control_at_controller(command).await {
                Ok((CommandReply::BrokerRegistered(Ok(epoch)), _)) => return Ok(epoch),
                Ok((CommandReply::BrokerRegistered(Err(refused)), _)) => {
                    tracing::warn!(%refused, "the controller does not register this broker yet");
                    clock::sleep(REGISTER_BACKOFF * 4).await;
                }
                Ok((other, _)) => unreachable!("another command's reply: {other:?}"),
                Err(ControlFailure::Storage) => {
                    return Err("the metadata log does not take records".to_string());
                }
                Err(failure) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(?failure, "waiting for the controller");
                    }
                    clock::sleep(REGISTER_BACKOFF).await;
                }
            }
        }
    }

    /// An earlier run with the same data directory has ended: its lock is this run's.
    async fn fence_earlier_run(&self) {
        let (node_id, image) = (self.node_id(), self.controller.image());
        let earlier = image.brokers().get(&node_id).filter(|earlier| {
            earlier.directory_id == self.registration.directory_id
                && earlier.incarnation != self.registration.incarnation
                && !earlier.is_fenced
        });
        if let Some(earlier) = earlier {
            let epoch = earlier.epoch;
            let fence = Command::FenceBroker { node_id, epoch };
            // Refused or not done: the registration will say why.
            let _ = self.router.control_at_controller(fence).await;
        }
    }

    /// Gives away what this broker leads, as far as others are there to take it.
    pub async fn leave(&self) {
        self.is_stopping.set(true);
        let image = self.router.image();
        let node_id = self.node_id();
        let others = image.brokers().iter();
        let mut others = others.filter(|(id, broker)| **id != node_id && broker.is_active());
        let Some(own) = image.brokers().get(&node_id) else {
            return;
        };
        if others.next().is_none() {
            return;
        }
        let epoch = own.epoch;
        let patience = self.router.config().cluster.shutdown_patience_ms;
        let leave = async {
            let command = Command::BeginShutdown { node_id, epoch };
            // It is looked for as long as a controller ever is; where there is none, all leave.
            if let Err(failure) = self.router.control(command).await {
                tracing::info!(?failure, "the controller does not take this broker's leave");
            }
            if self.controller.is_active() {
                let voters = self.controller.members().voters;
                if let Some(next) = voters.keys().find(|voter| **voter != node_id) {
                    let _ = self.controller.transfer_leadership(*next);
                }
            }
        };
        let late = clock::sleep(Duration::from_millis(patience));
        futures_lite::future::or(leave, late).await;
    }

    /// A broker is alive, says its heartbeat.
    ///
    /// # Errors
    /// When that does not help it.
    pub fn heard(self: &Rc<Self>, node_id: i32, epoch: i64) -> Result<(), HeartbeatRefusal> {
        if !self.controller.is_active() {
            let leader = self.controller.leader();
            return Err(HeartbeatRefusal::NotController(leader));
        }
        let image = self.controller.image();
        let known = image.brokers().get(&node_id);
        let Some(broker) = known.filter(|broker| broker.epoch == epoch) else {
            return Err(HeartbeatRefusal::StaleEpoch);
        };
        let now_us = clock::monotonic_us();
        self.heard_us.borrow_mut().insert(node_id, now_us);
        if broker.is_fenced && !broker.in_controlled_shutdown {
            let controller = self.controller.clone();
            spawn(Queue::Control, async move {
                let alive = Command::BrokerAlive { node_id, epoch };
                let _ = controller.submit(alive).await;
            });
        }
        Ok(())
    }

    async fn send_heartbeats(self: Rc<Self>) {
        let mut link = (self.peers.link(), -1);
        let node_id = self.node_id();
        while !self.is_stopping.get() {
            let interval_ms = self.router.config().cluster.heartbeat_interval_ms;
            let image = self.router.image();
            let epoch = image.brokers().get(&node_id).map_or(-1, |own| own.epoch);
            let outcome = match self.controller.leader() {
                Some(leader) if leader == node_id => self.heard(node_id, epoch),
                Some(leader) => self.beat(&mut link, leader, epoch).await,
                None => Ok(()),
            };
            if outcome == Err(HeartbeatRefusal::StaleEpoch) && !self.is_registered(&image) {
                tracing::error!("another process has taken this broker's place");
            }
            clock::sleep(Duration::from_millis(interval_ms)).await;
        }
    }

    async fn beat(
        &self,
        (link, to): &mut (PeerLink, i32),
        leader: i32,
        broker_epoch: i64,
    ) -> Result<(), HeartbeatRefusal> {
        if *to != leader {
            link.close();
            *to = leader;
        }
        let node_id = self.node_id();
        let beat = async {
            self.peers.open(link, leader).await?;
            let asked = PeerRequest::Heartbeat {
                node_id,
                broker_epoch,
            };
            link.call(&asked, HEARTBEAT_PATIENCE).await
        };
        match beat.await {
            Ok(PeerAnswer::Heartbeat(outcome)) => outcome,
            Ok(_) => Ok(()),
            Err(failure) => {
                tracing::debug!(leader, %failure, "a heartbeat did not arrive");
                Ok(())
            }
        }
    }

    /// Fences brokers that are gone, as long as this node decides.
    async fn watch_sessions(self: Rc<Self>) {
        let mut was_active = false;
        loop {
            clock::sleep(SESSION_LOOK).await;
            let is_active = self.controller.is_active();
            if !is_active {
                was_active = false;
                continue;
            }
            let now_us = clock::monotonic_us();
            if !std::mem::replace(&mut was_active, true) {
                self.heard_us.borrow_mut().clear();
            }
            self.controller.admit_brokers();
            for (node_id, epoch, silent_us) in self.silent(now_us) {
                if self.is_gone(node_id, silent_us).await {
                    tracing::warn!(node_id, silent_ms = silent_us / 1000, "a broker is gone");
                    let fence = Command::FenceBroker { node_id, epoch };
                    let _ = self.controller.submit(fence).await;
                }
            }
        }
    }

    /// Brokers that missed heartbeats: node id, epoch, and for how long.
    fn silent(&self, now_us: u64) -> Vec<(i32, i64, u64)> {
        let interval_us = self.router.config().cluster.heartbeat_interval_ms * 1000;
        let mut heard_us = self.heard_us.borrow_mut();
        let image = self.controller.image();
        let others = image
            .brokers()
            .iter()
            .filter(|(node_id, broker)| **node_id != self.node_id() && !broker.is_fenced);
        let silent = others.filter_map(|(node_id, broker)| {
            let heard_us = *heard_us.entry(*node_id).or_insert(now_us);
            let silent_us = now_us.saturating_sub(heard_us);
            (silent_us > MISSED_HEARTBEATS * interval_us).then_some((
                *node_id,
                broker.epoch,
                silent_us,
            ))
        });
        silent.collect()
    }

    async fn is_gone(&self, node_id: i32, silent_us: u64) -> bool {
        let most_us = self.router.config().cluster.session_timeout_ms * 1000;
        if silent_us > most_us {
            return true;
        }
        let mut link = self.peers.link();
        matches!(
            self.peers.open(&mut link, node_id).await,
            Err(PeerFailure::Refused)
        )
    }

    /// Gives preferred leaders their partitions back from time to time.
    async fn balance_leaders(self: Rc<Self>) {
        loop {
            let config = self.router.config();
            let interval = Duration::from_millis(config.cluster.leader_rebalance_interval_ms);
            clock::sleep(interval).await;
            if config.cluster.leader_rebalance_enable && self.controller.is_active() {
                let balance = Command::BalanceLeaders {
                    imbalance_percent_max: IMBALANCE_PERCENT_MAX,
                };
                let _ = self.controller.submit(balance).await;
            }
        }
    }

    fn send(self: &Rc<Self>, to: i32, bytes: Vec<u8>) {
        let mut mailbags = self.mailbags.borrow_mut();
        let mailbag = mailbags.entry(to).or_insert_with(|| {
            let mailbag = Rc::<Mailbag>::default();
            spawn(
                Queue::Control,
                carry(self.peers.clone(), to, mailbag.clone()),
            );
            mailbag
        });
        let mut messages = mailbag.messages.borrow_mut();
        if messages.len() >= MOST_MESSAGES {
            messages.pop_front();
        }
        messages.push_back(bytes);
        drop(messages);
        mailbag.more.raise();
    }
}

/// Share of a broker's partitions that others may lead before it gets them back. Kafka:
/// `leader.imbalance.per.broker.percentage`.
const IMBALANCE_PERCENT_MAX: u32 = 10;

/// Sends the quorum's messages to one node, as long as this one runs.
async fn carry(peers: Rc<Peers>, to: i32, mailbag: Rc<Mailbag>) {
    let mut link = peers.link();
    loop {
        let more = mailbag.more.raised();
        let next = mailbag.messages.borrow_mut().pop_front();
        let Some(message) = next else {
            more.await;
            continue;
        };
        let sent = async {
            peers.open(&mut link, to).await?;
            let put = |into: &mut Vec<u8>| into.extend_from_slice(&message);
            link.tell(PeerKind::Quorum, put, MESSAGE_PATIENCE).await
        };
        if let Err(failure) = sent.await {
            link.close();
            tracing::debug!(to, %failure, "a message of the quorum was lost");
            mailbag.messages.borrow_mut().clear();
            clock::sleep(LINK_BACKOFF).await;
        }
    }
}
