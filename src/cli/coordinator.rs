//! The broker that keeps a group or a transactional id: finding it and asking it.

use crate::wire::error_code::ErrorCode;
use crate::wire::message::Request;
use crate::wire::messages::find_coordinator::FindCoordinatorRequest;

use super::client::{Client, Patience, Topics};
use super::connection::Reply;
use super::failure::Failure;

/// What somebody coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coordinated<'a> {
    /// A group, by its id.
    Group(&'a str),
    /// A transactional id.
    Transaction(&'a str),
}

impl Coordinated<'_> {
    fn key(&self) -> &str {
        match self {
            Coordinated::Group(key) | Coordinated::Transaction(key) => key,
        }
    }

    /// How messages call it.
    pub(crate) fn subject(&self) -> String {
        match self {
            Coordinated::Group(key) => format!("group {key}"),
            Coordinated::Transaction(key) => format!("transactional id {key}"),
        }
    }

    /// The node id of the coordinator.
    pub(crate) fn find(&self, client: &mut Client) -> Result<i32, Failure> {
        let mut patience = Patience::new(client.timeout());
        loop {
            match self.find_once(client) {
                Ok(node) => return Ok(node),
                Err(failure) => patience.wait_after(failure)?,
            }
        }
    }

    fn find_once(&self, client: &mut Client) -> Result<i32, Failure> {
        // Where the nodes are.
        client.metadata(Topics::None)?;
        let request = FindCoordinatorRequest {
            key: self.key().into(),
            key_type: match self {
                Coordinated::Group(_) => 0,
                Coordinated::Transaction(_) => 1,
            },
            coordinator_keys: vec![self.key().into()],
        };
        let reply = client.any()?.ask(&request)?;
        let response = reply.decode::<FindCoordinatorRequest<'_>>()?;
        let (code, message, node) = match response.coordinators.first() {
            Some(one) => (one.error_code, one.error_message.as_deref(), one.node_id),
            None => {
                let message = response.error_message.as_deref();
                (response.error_code, message, response.node_id)
            }
        };
        Failure::check(self.subject(), code, message)?;
        Ok(node)
    }

    /// Asks the coordinator, and another one when it has moved. `outcome` finds errors in the reply.
    pub(crate) fn ask<'q, Q: Request<'q>>(
        &self,
        client: &mut Client,
        request: &Q,
        version_max: i16,
        outcome: impl Fn(&Reply) -> Result<(), Failure>,
    ) -> Result<Reply, Failure> {
        let mut patience = Patience::new(client.timeout());
        loop {
            let node = self.find(client)?;
            let reply = client.ask_node(node, request, version_max)?;
            match outcome(&reply) {
                Ok(()) => return Ok(reply),
                Err(failure) if is_elsewhere(&failure) => patience.wait_after(failure)?,
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Whether the broker said that it does not coordinate this, now or at all.
pub(crate) fn is_elsewhere(failure: &Failure) -> bool {
    matches!(
        failure.error_code(),
        Some(
            ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_coordinator_is_asked_elsewhere() {
        for code in [14, 15, 16] {
            assert!(is_elsewhere(&Failure::refused("", code, None)), "{code}");
        }
        for code in [3, 22, 25, 27, 69] {
            assert!(!is_elsewhere(&Failure::refused("", code, None)), "{code}");
        }
    }
}
