//! The way to the controller: on this node's controlling core or on another node, and what comes
//! back from there. Also what other nodes ask of that core.

use std::rc::Rc;
use std::time::Duration;

use super::controller_service::ControllerService;
use super::coordinator_host::{Outcome, Unavailable};
use super::coordinators::{CoordinatorAnswer, CoordinatorCall};
use super::membership::Membership;
use super::peer_link::PeerFailure;
use super::peer_protocol::{HeartbeatRefusal, PeerAnswer, PeerRequest};
use super::placement;
use super::quorum_requests::QuorumRequest;
use super::replica_manager::PartResult;
use super::request::{AppendedPart, ControlFailure, PartitionError};
use super::router::{Answer, Question, Router};
use crate::cluster::controller::{Command, CommandReply};
use crate::coordinator::transaction_request::{TransactionAnswer, TransactionRequest};
use crate::log::position::LogId;
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::wire::codec::Uuid;
use crate::wire::transaction_marker::TransactionMarker;

/// How long a controller is looked for.
const SEARCH_US: u64 = 5_000_000;

/// How long the search rests while there is none.
const SEARCH_REST: Duration = Duration::from_millis(20);

/// How long another node may take to decide, and this one to know what it decided.
const DECISION_PATIENCE: Duration = Duration::from_secs(15);

/// How long another broker may take for markers, and a coordinator for an answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// What other cores ask the controller's.
pub(super) enum ControlQuestion {
    /// Have this decided, here or on another node.
    Control(Command),
    /// Decide this.
    Decide(Command),
    /// A broker is alive.
    Heartbeat(i32, i64),
    /// A message of the quorum.
    Quorum(i32, Vec<u8>),
    /// Have the quorum answer this, here or on another node.
    FindQuorum(QuorumRequest),
    /// Answer this about the quorum.
    AskQuorum(QuorumRequest),
}

impl Router {
    pub(super) async fn answer_control(self: &Rc<Self>, question: ControlQuestion) -> Answer {
        match question {
            ControlQuestion::Control(command) => {
                Answer::Controlled(self.control_here(command).await)
            }
            ControlQuestion::Decide(command) => Answer::Decided(self.decide_here(command).await),
            ControlQuestion::Heartbeat(node_id, epoch) => {
                Answer::Heard(self.heard_here(node_id, epoch))
            }
            ControlQuestion::Quorum(from, bytes) => {
                self.quorum_message_here(from, &bytes);
                Answer::Applied
            }
            ControlQuestion::FindQuorum(request) => Answer::Quorum(self.find_quorum(request).await),
            ControlQuestion::AskQuorum(request) => {
                Answer::Quorum(self.ask_quorum_here(request).await)
            }
        }
    }

    /// Makes this core the controller's.
    pub fn set_controller(&self, controller: Rc<ControllerService>) {
        *self.controller.borrow_mut() = Some(controller);
    }

    /// Gives this core the word for its node.
    pub fn set_membership(&self, membership: Rc<Membership>) {
        *self.membership.borrow_mut() = Some(membership);
    }

    fn membership(&self) -> Option<Rc<Membership>> {
        self.membership.borrow().clone()
    }

    /// Lets other brokers lead what this one leads.
    pub async fn leave_cluster(&self) {
        if let Some(membership) = self.membership() {
            membership.leave().await;
        }
    }

    /// Lets the controller end what it is at; nothing more is stored.
    pub async fn stop_controller(&self) {
        let controller = self.controller.borrow().clone();
        if let Some(controller) = controller {
            controller.stop().await;
        }
    }

    /// Has the controller decide, be it on this node or another; what it decided is applied on every
    /// core of this one when this returns.
    pub async fn control(
        self: &Rc<Self>,
        command: Command,
    ) -> Result<CommandReply, ControlFailure> {
        if self.controller.borrow().is_some() {
            return self.control_here(command).await;
        }
        let Some(answer) = self.ask(
            placement::CONTROLLER_CORE,
            Question::Control(ControlQuestion::Control(command)),
        ) else {
            return Err(ControlFailure::Overloaded);
        };
        match answer.await {
            Some(Answer::Controlled(result)) => result,
            _ => Err(ControlFailure::Overloaded),
        }
    }

    /// The same on the controller's core.
    pub(super) async fn control_here(
        self: &Rc<Self>,
        command: Command,
    ) -> Result<CommandReply, ControlFailure> {
        let (reply, index) = self.control_at_controller(command).await?;
        let controller = self.controller.borrow().clone();
        if let Some(controller) = controller {
            // Whoever asks next on this node shall see it; if that takes long, they wait for it.
            let late = clock::sleep(DECISION_PATIENCE);
            futures_lite::future::or(controller.applied_to(index), late).await;
        }
        Ok(reply)
    }

    /// The decision and its index, which may not be applied here yet. A question is asked again only
    /// as long as it was not decided for certain.
    pub(super) async fn control_at_controller(
        self: &Rc<Self>,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        let controller = self.controller.borrow().clone();
        let controller = controller.ok_or(ControlFailure::Overloaded)?;
        let deadline_us = clock::monotonic_us() + SEARCH_US;
        let mut last = ControlFailure::NotController(None);
        let mut strangers = self.voters_to_a_stranger(&controller).into_iter().cycle();
        let mut hint = None;
        while clock::monotonic_us() < deadline_us {
            let leader = match controller.submit(command.clone()).await {
                Err(ControlFailure::NotController(leader)) => leader,
                decided => return decided,
            };
            if let Some(leader) = leader.or(hint.take()).or_else(|| strangers.next()) {
                match self.ask_controller(leader, command.clone()).await {
                    Err(ControlFailure::NotController(other)) => {
                        last = ControlFailure::NotController(other);
                        hint = other.filter(|other| *other != controller.image().node_id());
                    }
                    decided => return decided,
                }
            }
            clock::sleep(SEARCH_REST).await;
        }
        Err(last)
    }

    /// Whom a node asks that no leader knows: the voters it was told of. A member hears of the leader
    /// by itself.
    fn voters_to_a_stranger(&self, controller: &ControllerService) -> Vec<i32> {
        let own = controller.image().node_id();
        if controller.members().get(own).is_some() {
            return Vec::new();
        }
        let voters = self.peers().identity().voters.keys();
        voters.copied().filter(|voter| *voter != own).collect()
    }

    async fn ask_controller(
        &self,
        leader: i32,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        let asked = PeerRequest::Control(command);
        let answer = self.peers().call(leader, &asked, DECISION_PATIENCE).await;
        match answer {
            Ok(PeerAnswer::Control(decided)) => decided,
            Ok(_) => Err(ControlFailure::TimedOut),
            // It was never sent.
            Err(PeerFailure::Refused | PeerFailure::Unknown | PeerFailure::NotWelcome(_)) => {
                Err(ControlFailure::NotController(None))
            }
            Err(failure) => {
                tracing::debug!(leader, %failure, "nobody knows what the controller decided");
                Err(ControlFailure::TimedOut)
            }
        }
    }

    /// Another node asks this one to decide.
    pub async fn decide(
        self: &Rc<Self>,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        if self.controller.borrow().is_some() {
            return self.decide_here(command).await;
        }
        let Some(answer) = self.ask(
            placement::CONTROLLER_CORE,
            Question::Control(ControlQuestion::Decide(command)),
        ) else {
            return Err(ControlFailure::Overloaded);
        };
        match answer.await {
            Some(Answer::Decided(result)) => result,
            _ => Err(ControlFailure::Overloaded),
        }
    }

    pub(super) async fn decide_here(
        &self,
        command: Command,
    ) -> Result<(CommandReply, u64), ControlFailure> {
        let controller = self.controller.borrow().clone();
        match controller {
            Some(controller) => controller.submit(command).await,
            None => Err(ControlFailure::NotController(None)),
        }
    }

    /// Another broker is alive.
    ///
    /// # Errors
    /// When that does not help it.
    pub async fn heartbeat(
        self: &Rc<Self>,
        node_id: i32,
        broker_epoch: i64,
    ) -> Result<(), HeartbeatRefusal> {
        if self.membership().is_some() {
            return self.heard_here(node_id, broker_epoch);
        }
        let question = Question::Control(ControlQuestion::Heartbeat(node_id, broker_epoch));
        let answer = match self.ask(placement::CONTROLLER_CORE, question) {
            Some(answer) => answer.await,
            None => None,
        };
        match answer {
            Some(Answer::Heard(outcome)) => outcome,
            _ => Err(HeartbeatRefusal::NotController(None)),
        }
    }

    pub(super) fn heard_here(
        &self,
        node_id: i32,
        broker_epoch: i64,
    ) -> Result<(), HeartbeatRefusal> {
        match self.membership() {
            Some(membership) => membership.heard(node_id, broker_epoch),
            None => Err(HeartbeatRefusal::NotController(None)),
        }
    }

    /// A message of the quorum; it may be lost.
    pub fn quorum_message(&self, from: i32, bytes: Vec<u8>) {
        if self.controller.borrow().is_some() {
            return self.quorum_message_here(from, &bytes);
        }
        let question = Question::Control(ControlQuestion::Quorum(from, bytes));
        drop(self.ask(placement::CONTROLLER_CORE, question));
    }

    pub(super) fn quorum_message_here(&self, from: i32, bytes: &[u8]) {
        let controller = self.controller.borrow().clone();
        if let Some(controller) = controller
            && controller.receive(from, bytes).is_err()
        {
            tracing::warn!(from, "a message of the quorum that makes no sense");
        }
    }

    /// The leader of a partition, if it has one.
    #[must_use]
    pub fn leader_of(&self, log: LogId) -> Option<i32> {
        let image = self.image();
        let topic = image.topic_by_id(Uuid(log.topic))?;
        let partition = topic.partitions.get(log.partition as usize)?;
        (partition.leader >= 0).then_some(partition.leader)
    }

    /// Appends a marker to each of the logs, whoever leads them; committed on return.
    pub async fn write_markers_anywhere(
        self: &Rc<Self>,
        logs: &[LogId],
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Vec<PartResult<AppendedPart>> {
        let own = self.image().node_id();
        let mut results = vec![Err(PartitionError::NotLeader); logs.len()];
        let mut by_leader: Vec<(i32, Vec<usize>)> = Vec::new();
        for (index, log) in logs.iter().enumerate() {
            // A partition that is gone is told so here.
            let leader = self.leader_of(*log).unwrap_or(own);
            match by_leader.iter_mut().find(|(known, _)| *known == leader) {
                Some((_, indexes)) => indexes.push(index),
                None => by_leader.push((leader, vec![index])),
            }
        }
        let ask = |(leader, indexes): (i32, Vec<usize>)| async move {
            let logs: Vec<LogId> = indexes.iter().map(|index| logs[*index]).collect();
            let written = if leader == own {
                self.write_markers_that(logs, marker, bumps_epoch).await
            } else {
                self.write_markers_at(leader, logs, marker, bumps_epoch)
                    .await
            };
            (indexes, written)
        };
        let answers = futures_util::future::join_all(by_leader.into_iter().map(ask)).await;
        for (indexes, written) in answers {
            for (index, result) in indexes.into_iter().zip(written) {
                results[index] = result;
            }
        }
        results
    }

    async fn write_markers_at(
        &self,
        leader: i32,
        logs: Vec<LogId>,
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Vec<PartResult<AppendedPart>> {
        let count = logs.len();
        let asked = PeerRequest::WriteMarkers {
            logs,
            marker,
            bumps_epoch,
        };
        match self.peers().call(leader, &asked, BROKER_PATIENCE).await {
            Ok(PeerAnswer::MarkersWritten(written)) => written,
            _ => vec![Err(PartitionError::TimedOut); count],
        }
    }

    /// Asks a coordinator of transactions on another broker; None when it is this one's.
    pub(super) async fn coordinate_elsewhere(
        &self,
        call: &CoordinatorCall,
    ) -> Option<Outcome<CoordinatorAnswer>> {
        let CoordinatorCall::Transaction(log, request) = call else {
            return None;
        };
        let leader = self.leader_of(*log)?;
        if leader == self.image().node_id() {
            return None;
        }
        let asked = PeerRequest::Transaction(*log, request.clone());
        let answer = self.peers().call(leader, &asked, BROKER_PATIENCE).await;
        Some(match answer {
            Ok(PeerAnswer::Transaction(answer)) => answer.map(CoordinatorAnswer::Transaction),
            _ => Err(Unavailable::Overloaded),
        })
    }

    /// Another broker asks a coordinator of transactions of this one.
    pub async fn ask_transactions_here(
        self: &Rc<Self>,
        log: LogId,
        request: TransactionRequest,
    ) -> Outcome<TransactionAnswer> {
        if self.leader_of(log) != Some(self.image().node_id()) {
            return Err(Unavailable::NotHere);
        }
        let call = CoordinatorCall::Transaction(log, request);
        match self.coordinate(call).await? {
            CoordinatorAnswer::Transaction(answer) => Ok(answer),
            CoordinatorAnswer::Group(_) => Err(Unavailable::Malformed),
        }
    }

    /// Begins what a core does for the cluster beside requests.
    pub(super) fn take_part(self: &Rc<Self>) {
        if !self.peers().identity().is_alone() || self.config().listeners.inter_broker.is_some() {
            spawn(Queue::Network, self.clone().keep_in_sync());
        }
    }
}
