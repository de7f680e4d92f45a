//! The other nodes of the cluster as one core sees them: where they listen, and a link to each for
//! questions, asked one after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::peer_link::{PeerAddress, PeerFailure, PeerLink};
use super::peer_protocol::{Hello, PeerAnswer, PeerRequest};
use super::router::Router;
use crate::partition::turns::Turns;
use crate::wire::codec::Uuid;

/// Who this node is to others, and where those listen that vote at the beginning.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// This node.
    pub node_id: i32,
    /// The identity of its first data directory.
    pub directory_id: Uuid,
    /// The configured voters, this node among them or not.
    pub voters: BTreeMap<i32, PeerAddress>,
    /// Bytes of an answer.
    pub frame_max_bytes: usize,
}

impl PeerIdentity {
    /// Whether there is or may be anybody else.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.voters.keys().all(|node| *node == self.node_id)
    }
}

/// A link that whoever asks takes in turn.
#[derive(Default)]
struct SharedLink {
    link: RefCell<Option<PeerLink>>,
    turns: Rc<Turns>,
}

/// See the head of this file.
pub struct Peers {
    identity: Rc<PeerIdentity>,
    router: Weak<Router>,
    shared: RefCell<BTreeMap<i32, Rc<SharedLink>>>,
}

impl Peers {
    /// The peers of a router's core.
    #[must_use]
    pub fn new(identity: PeerIdentity, router: &Weak<Router>) -> Rc<Peers> {
        Rc::new(Peers {
            identity: Rc::new(identity),
            router: router.clone(),
            shared: RefCell::default(),
        })
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// Where a node listens for others: as it registered, or as it is configured.
    #[must_use]
    pub fn address(&self, node_id: i32) -> Option<PeerAddress> {
        let image = self.router.upgrade().map(|router| router.image());
        let registered =
            image.and_then(|image| image.brokers().get(&node_id)?.inter_broker.clone());
        registered.or_else(|| self.identity.voters.get(&node_id).cloned())
    }

    /// A link of the caller's own.
    #[must_use]
    pub fn link(&self) -> PeerLink {
        PeerLink::new(self.identity.frame_max_bytes)
    }

    /// Opens a link to a node, unless it is open.
    ///
    /// # Errors
    /// Why not.
    pub async fn open(&self, link: &mut PeerLink, node_id: i32) -> Result<(), PeerFailure> {
        let identity = self.identity.clone();
        let hello = || Hello {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            to: node_id,
            directory_id: identity.directory_id,
        };
        link.open(self.address(node_id).as_ref(), hello).await
    }

    /// Asks a node, after whoever asked before.
    ///
    /// # Errors
    /// Why there is no answer; nobody knows then whether it was done.
    pub async fn call(
        &self,
        node_id: i32,
        asked: &PeerRequest,
        patience: Duration,
    ) -> Result<PeerAnswer, PeerFailure> {
        let shared = self.shared.borrow_mut().entry(node_id).or_default().clone();
        let turn = shared.turns.take();
        turn.come().await;
        let mut link = shared.link.take().unwrap_or_else(|| self.link());
        self.open(&mut link, node_id).await?;
        let answer = link.call(asked, patience).await;
        *shared.link.borrow_mut() = Some(link);
        answer
    }
}
