//! What operators ask of the metadata quorum: who takes part, how far they are, and that somebody
//! becomes a voter or ceases to be one. The node that leads the quorum answers; any core of any node
//! finds the way there.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::ControlQuestion;
use super::controller_service::ControllerService;
use super::peer_protocol::{PeerAnswer, PeerRequest};
use super::placement;
use super::request::ControlFailure;
use super::router::{Answer, Question, Router};
use crate::cluster::quorum::member::{Members, MembershipChange, Voter};
use crate::cluster::quorum::node_membership::{ChangeRefused, QuorumDescription};
use crate::runtime::clock;
use crate::wire::codec::Uuid;

/// How long the leader is looked for.
const SEARCH_US: u64 = 5_000_000;

/// How long the search rests while there is none, and a change that has to wait for another one.
const REST: Duration = Duration::from_millis(20);

/// How long a change of the members may take, beside what whoever asks grants.
const CHANGE_US: u64 = 5_000_000;

/// How long a learner may take to catch up, whatever is asked for.
const CATCH_UP_MOST_MS: u64 = 600_000;

/// How long another node may take for more than it was granted.
const ANSWER_GRACE: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuorumRequest {
    /// Who takes part.
    Describe,
    /// A learner becomes a voter.
    AddVoter {
        /// Which.
        node_id: i32,
        /// Its first data directory, or zero for whichever it has.
        directory_id: Uuid,
        /// Where it listens for other brokers; any of these, none to leave it open.
        addresses: Vec<(String, u16)>,
        /// How long it may take to catch up.
        patience_ms: u64,
    },
    /// A voter becomes a learner.
    RemoveVoter {
        /// Which.
        node_id: i32,
        /// Its first data directory, or zero for whichever it has.
        directory_id: Uuid,
    },
}

impl QuorumRequest {
    fn patience(&self) -> Duration {
        let granted_ms = match self {
            QuorumRequest::AddVoter { patience_ms, .. } => *patience_ms,
            QuorumRequest::Describe | QuorumRequest::RemoveVoter { .. } => 0,
        };
        ANSWER_GRACE + Duration::from_millis(granted_ms.min(CATCH_UP_MOST_MS))
    }
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuorumAnswer {
    /// The quorum as its leader sees it.
    Described(QuorumDescription),
    /// The change is in force.
    Changed,
}

/// Why nothing comes back, or nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum QuorumFailure {
    /// Nobody leads, or the leader did not answer.
    #[error("the quorum's leader did not answer")]
    Unavailable(ControlFailure),
    /// No broker has this id.
    #[error("Node {0} is not registered: start it first, with the quorum's voters in node.quorum")]
    NotRegistered(i32),
    /// It votes already.
    #[error("Node {0} is a voter already")]
    AlreadyThere(i32),
    /// It does not vote.
    #[error("Node {0} is no voter")]
    NoSuchVoter(i32),
    /// The node has another data directory.
    #[error("Node {0} has the directory id {1}")]
    OtherDirectory(i32, Uuid),
    /// The node listens elsewhere.
    #[error("Node {0} listens for other brokers on {1}")]
    OtherAddress(i32, String),
    /// It is too far behind, or does not answer.
    #[error("Node {0} has not caught up in time; it stays an observer")]
    NotCaughtUp(i32),
    /// There would be none left.
    #[error("Node {0} is the last voter")]
    LastVoter(i32),
}

type Outcome = Result<QuorumAnswer, QuorumFailure>;

fn unavailable(why: ControlFailure) -> Outcome {
    Err(QuorumFailure::Unavailable(why))
}

impl Router {
    /// Asks the leader of the quorum, wherever it is.
    ///
    /// # Errors
    /// Why it does not answer, or refuses.
    pub async fn ask_quorum(self: &Rc<Self>, request: QuorumRequest) -> Outcome {
        if self.controller.borrow().is_some() {
            return self.find_quorum(request).await;
        }
        let question = Question::Control(ControlQuestion::FindQuorum(request));
        self.quorum_elsewhere(question).await
    }

    /// Another node asks this one.
    ///
    /// # Errors
    /// Why it does not answer, or refuses.
    pub async fn ask_quorum_here(self: &Rc<Self>, request: QuorumRequest) -> Outcome {
        let controller = self.controller.borrow().clone();
        match controller {
            Some(controller) => controller.answer_quorum(request).await,
            None => {
                self.quorum_elsewhere(Question::Control(ControlQuestion::AskQuorum(request)))
                    .await
            }
        }
    }

    async fn quorum_elsewhere(&self, question: Question) -> Outcome {
        let overloaded = || unavailable(ControlFailure::Overloaded);
        match self.ask(placement::CONTROLLER_CORE, question) {
            Some(answer) => match answer.await {
                Some(Answer::Quorum(outcome)) => outcome,
                _ => overloaded(),
            },
            None => overloaded(),
        }
    }

    /// On the controller's core: this node, or the one that leads.
    pub(super) async fn find_quorum(self: &Rc<Self>, request: QuorumRequest) -> Outcome {
        let deadline_us = clock::monotonic_us() + SEARCH_US;
        loop {
            let leader = match self.ask_quorum_here(request.clone()).await {
                Err(QuorumFailure::Unavailable(ControlFailure::NotController(leader))) => leader,
                outcome => return outcome,
            };
            let outcome = match leader {
                Some(leader) => self.ask_quorum_at(leader, request.clone()).await,
                None => unavailable(ControlFailure::NotController(None)),
            };
            match outcome {
                Err(QuorumFailure::Unavailable(ControlFailure::NotController(_)))
                    if clock::monotonic_us() < deadline_us => {}
                outcome => return outcome,
            }
            clock::sleep(REST).await;
        }
    }

    /// On a link of its own: a learner may take its time, and commands must not wait for that.
    async fn ask_quorum_at(&self, leader: i32, request: QuorumRequest) -> Outcome {
        let patience = request.patience();
        let asked = PeerRequest::Quorum(request);
        let mut link = self.peers().link();
        if let Err(failure) = self.peers().open(&mut link, leader).await {
            tracing::debug!(leader, %failure, "the quorum's leader is not reached");
            return unavailable(ControlFailure::NotController(None));
        }
        match link.call(&asked, patience).await {
            Ok(PeerAnswer::Quorum(outcome)) => outcome,
            _ => unavailable(ControlFailure::TimedOut),
        }
    }
}

impl ControllerService {
    async fn answer_quorum(&self, request: QuorumRequest) -> Outcome {
        if !self.is_active() {
            return Err(self.does_not_lead());
        }
        match request {
            QuorumRequest::Describe => Ok(QuorumAnswer::Described(self.describe_brokers())),
            QuorumRequest::AddVoter {
                node_id,
                directory_id,
                addresses,
                patience_ms,
            } => {
                self.check_broker(node_id, directory_id, &addresses)?;
                self.add_voter(node_id, patience_ms).await
            }
            QuorumRequest::RemoveVoter {
                node_id,
                directory_id,
            } => self.remove_voter(node_id, directory_id).await,
        }
    }

    fn does_not_lead(&self) -> QuorumFailure {
        let leader = self.leader().filter(|leader| *leader != self.node_id());
        QuorumFailure::Unavailable(ControlFailure::NotController(leader))
    }

    fn node_id(&self) -> i32 {
        self.empty.node_id()
    }

    /// Founders are no more than an address; where they have registered, their directory is known.
    fn describe_brokers(&self) -> QuorumDescription {
        let image = self.image();
        let mut description = self.describe();
        for replica in &mut description.replicas {
            let broker = image.brokers().get(&replica.node_id);
            let registered = broker.map(|broker| broker.directory_id);
            replica.directory_id = replica.directory_id.or(registered);
        }
        description
    }

    fn check_broker(
        &self,
        node_id: i32,
        directory_id: Uuid,
        addresses: &[(String, u16)],
    ) -> Result<(), QuorumFailure> {
        let image = self.image();
        let broker = image.brokers().get(&node_id);
        let broker = broker.ok_or(QuorumFailure::NotRegistered(node_id))?;
        if directory_id != Uuid::ZERO && directory_id != broker.directory_id {
            return Err(QuorumFailure::OtherDirectory(node_id, broker.directory_id));
        }
        let Some((host, port)) = &broker.inter_broker else {
            return Err(QuorumFailure::NotRegistered(node_id));
        };
        let is_named = |(named, at): &(String, u16)| named == host && at == port;
        if !addresses.is_empty() && !addresses.iter().any(is_named) {
            let address = format!("{host}:{port}");
            return Err(QuorumFailure::OtherAddress(node_id, address));
        }
        Ok(())
    }

    async fn add_voter(&self, node_id: i32, patience_ms: u64) -> Outcome {
        let patience_us = patience_ms.min(CATCH_UP_MOST_MS) * 1000;
        let deadline_us = clock::monotonic_us() + patience_us;
        loop {
            if self.members().voters.contains_key(&node_id) {
                return Err(QuorumFailure::AlreadyThere(node_id));
            }
            match self.change_members(&MembershipChange::Promote(node_id)) {
                Ok(_) => break,
                Err(ChangeRefused::NotLeader(_)) => return Err(self.does_not_lead()),
                // It is a learner a moment after it registered.
                Err(_) if clock::monotonic_us() < deadline_us => clock::sleep(REST).await,
                Err(_) => return Err(QuorumFailure::NotCaughtUp(node_id)),
            }
        }
        self.changed_so(|members| members.voters.contains_key(&node_id))
            .await
    }

    async fn remove_voter(&self, node_id: i32, directory_id: Uuid) -> Outcome {
        let deadline_us = clock::monotonic_us() + CHANGE_US;
        loop {
            let members = self.members();
            if !members.voters.contains_key(&node_id) {
                return Err(QuorumFailure::NoSuchVoter(node_id));
            }
            let described = self.describe_brokers().replicas.into_iter();
            let mut described = described.filter(|replica| replica.node_id == node_id);
            let own = described.next().and_then(|replica| replica.directory_id);
            if let Some(own) = own.filter(|own| directory_id != Uuid::ZERO && *own != directory_id)
            {
                return Err(QuorumFailure::OtherDirectory(node_id, own));
            }
            let mut others = members.voters.keys().filter(|other| **other != node_id);
            let Some(next) = others.next() else {
                return Err(QuorumFailure::LastVoter(node_id));
            };
            match self.change_members(&MembershipChange::Remove(node_id)) {
                Ok(_) => break,
                Err(ChangeRefused::NotLeader(_)) => return Err(self.does_not_lead()),
                // The next leader removes it; whoever asks looks for that one.
                Err(ChangeRefused::IsLeader) => self.hand_over(*next).await?,
                Err(_) if clock::monotonic_us() < deadline_us => clock::sleep(REST).await,
                Err(_) => return unavailable(ControlFailure::TimedOut),
            }
        }
        self.changed_so(|members| !members.voters.contains_key(&node_id))
            .await
    }

    /// Another voter leads on return, so this one is not the one to be asked.
    async fn hand_over(&self, next: i32) -> Result<(), QuorumFailure> {
        let _ = self.transfer_leadership(next);
        self.until(|| !self.is_active()).await;
        match self.is_active() {
            true => Err(QuorumFailure::Unavailable(ControlFailure::TimedOut)),
            false => Err(self.does_not_lead()),
        }
    }

    /// Waits until a change that was proposed is in force.
    async fn changed_so(&self, is_so: impl Fn(&Members) -> bool) -> Outcome {
        self.until(|| is_so(&self.members())).await;
        match is_so(&self.members()) {
            true => Ok(QuorumAnswer::Changed),
            false => unavailable(ControlFailure::TimedOut),
        }
    }

    fn until(&self, is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
        let wait = async move {
            while !is_so() {
                clock::sleep(REST).await;
            }
        };
        let late = clock::sleep(Duration::from_micros(CHANGE_US));
        futures_lite::future::or(wait, late)
    }

    /// Lets every broker that registered follow the quorum, and forgets those that left. One at a
    /// time: the next one when that is in force.
    pub(super) fn admit_brokers(&self) {
        let (image, members) = (self.image(), self.members());
        let mut gone = members.learners.keys();
        let gone = gone.find(|learner| !image.brokers().contains_key(learner));
        let mut newcomers = image.brokers().iter();
        let newcomer = newcomers.find_map(|(node_id, broker)| {
            let (host, port) = broker.inter_broker.clone()?;
            members.get(*node_id).is_none().then_some(Voter {
                node_id: *node_id,
                directory_id: Some(broker.directory_id),
                host,
                port,
            })
        });
        let change = match (gone, newcomer) {
            (Some(learner), _) => MembershipChange::Remove(*learner),
            (None, Some(learner)) => MembershipChange::AddLearner(learner),
            (None, None) => return,
        };
        match self.change_members(&change) {
            Ok(_) => tracing::info!(?change, "metadata quorum"),
            // It is tried again soon.
            Err(refused) => tracing::debug!(?change, ?refused, "metadata quorum"),
        }
    }
}
