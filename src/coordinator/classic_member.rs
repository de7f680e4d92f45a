//! A member of a classic group.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};

use super::effects::Ticket;
use super::group_turn::Session;

/// What a member can do: the name of an assignor, and what the leader needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Its name.
    pub(super) name: Box<str>,
    /// The subscription, or whatever the protocol type has.
    pub(super) metadata: Box<[u8]>,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    /// `group.instance.id` of a static member.
    pub(super) instance_id: Option<Arc<str>>,
    /// `client.id`.
    pub(super) client_id: Box<str>,
    /// Where it connected from.
    pub(super) client_host: Box<str>,
    /// How long a rebalance waits for it.
    pub(super) rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub(super) session_timeout_ms: i32,
    /// What it can do, best first.
    pub(super) protocols: Vec<Protocol>,
    /// What the leader gave it.
    pub(super) assignment: Box<[u8]>,
    /// Its JoinGroup that waits.
    pub(super) joining: Option<Ticket>,
    /// Its SyncGroup that waits.
    pub(super) syncing: Option<Ticket>,
    /// It has not seen the end of a rebalance yet.
    pub(super) is_new: bool,
    /// Its session.
    pub(super) session: Session,
}

impl Member {
    /// Takes over what a JoinGroup says.
    pub(super) fn update(&mut self, request: &JoinGroupRequest<'_>) {
        self.protocols = protocols_of(&request.protocols);
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.session_timeout_ms = request.session_timeout_ms;
    }

    /// Whether it says what it said before.
    pub(super) fn matches(&self, asked: &[JoinGroupRequestProtocol<'_>]) -> bool {
        self.protocols == protocols_of(asked)
    }

    /// What the leader needs to know of it under a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> &[u8] {
        let found = self.protocols.iter().find(|p| &*p.name == protocol);
        found.map_or(&[], |found| &found.metadata)
    }

    /// The first of the candidates it can do.
    pub(super) fn vote(&self, candidates: &BTreeSet<&str>) -> Option<&str> {
        let names = self.protocols.iter().map(|protocol| &*protocol.name);
        names.into_iter().find(|name| candidates.contains(name))
    }

    /// The session timeout.
    pub(super) fn session_ms(&self) -> u64 {
        u64::try_from(self.session_timeout_ms).unwrap_or(0)
    }

    /// What clients made the shard keep for it.
    pub(super) fn size_bytes(&self, id: &str) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, |id| id.len());
        let names = id.len() + instance + self.client_id.len() + self.client_host.len();
        names + self.protocols_bytes() + self.assignment.len()
    }

    /// What is kept of what it can do.
    pub(super) fn protocols_bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        protocols.map(|p| p.name.len() + p.metadata.len()).sum()
    }
}

/// Copies what a member can do; a name that comes twice counts once.
fn protocols_of(asked: &[JoinGroupRequestProtocol<'_>]) -> Vec<Protocol> {
    let mut seen = BTreeSet::new();
    let once = asked.iter().filter(|protocol| seen.insert(&*protocol.name));
    once.map(|protocol| Protocol {
        name: protocol.name.as_ref().into(),
        metadata: protocol.metadata.as_ref().into(),
    })
    .collect()
}
