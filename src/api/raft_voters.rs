//! AddRaftVoter, versions 0 and 1, and RemoveRaftVoter, version 0 (KIP-853): an observer of the
//! metadata quorum becomes a voter, and the other way round.
//!
//! Every broker observes, so whoever is added has registered before. The answer comes when the change
//! is committed, also to those who would not wait for it (KIP-1186).

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count, duration_ms};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message};
use crate::shard::quorum_requests::{QuorumFailure, QuorumRequest};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse};
use crate::wire::messages::remove_raft_voter::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

/// Listeners that a request may name.
const LISTENERS_MAX: usize = 64;

type Refusal = (ErrorCode, String);

/// Answers an AddRaftVoter.
pub(super) async fn add(api: Rc<Api>, call: Call) -> Handled {
    let request: AddRaftVoterRequest<'_> = call.request()?;
    check_count(request.listeners.len(), LISTENERS_MAX)?;
    let listeners = request.listeners.iter();
    let asked = QuorumRequest::AddVoter {
        node_id: request.voter_id,
        directory_id: request.voter_directory_id,
        addresses: listeners
            .map(|listener| (listener.host.to_string(), listener.port))
            .collect(),
        patience_ms: duration_ms(request.timeout_ms),
    };
    let (code, message) = change(&api, request.cluster_id.as_deref(), asked).await;
    Ok(call.reply(&AddRaftVoterResponse {
        error_code: code,
        error_message: message.map(Cow::Owned),
        ..AddRaftVoterResponse::default()
    }))
}

/// Answers a RemoveRaftVoter.
pub(super) async fn remove(api: Rc<Api>, call: Call) -> Handled {
    let request: RemoveRaftVoterRequest<'_> = call.request()?;
    let asked = QuorumRequest::RemoveVoter {
        node_id: request.voter_id,
        directory_id: request.voter_directory_id,
    };
    let (code, message) = change(&api, request.cluster_id.as_deref(), asked).await;
    Ok(call.reply(&RemoveRaftVoterResponse {
        error_code: code,
        error_message: message.map(Cow::Owned),
        ..RemoveRaftVoterResponse::default()
    }))
}

async fn change(
    api: &Api,
    cluster_id: Option<&str>,
    asked: QuorumRequest,
) -> (i16, Option<String>) {
    let own = api.router.image().cluster_id().to_string();
    let refusal = match cluster_id {
        Some(named) if named != own => Some(other_cluster(&own)),
        _ => {
            let answer = api.router.ask_quorum(asked).await;
            answer.err().map(|failure| refusal_of(&failure))
        }
    };
    match refusal {
        Some((code, message)) => (code.code(), Some(message)),
        None => (0, None),
    }
}

fn other_cluster(own: &str) -> Refusal {
    let message = format!("This is cluster {own}");
    (ErrorCode::InconsistentClusterId, message)
}

/// Kafka's code of what the quorum's leader refuses, and the words beside it.
pub(super) fn refusal_of(failure: &QuorumFailure) -> Refusal {
    let code = match failure {
        QuorumFailure::Unavailable(failure) => {
            return (
                control_code(*failure),
                control_message(*failure).to_string(),
            );
        }
        QuorumFailure::NotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        QuorumFailure::AlreadyThere(_) => ErrorCode::DuplicateVoter,
        QuorumFailure::NoSuchVoter(_) => ErrorCode::VoterNotFound,
        QuorumFailure::OtherDirectory(..) => ErrorCode::InvalidVoterKey,
        QuorumFailure::NotCaughtUp(_) => ErrorCode::RequestTimedOut,
        QuorumFailure::OtherAddress(..) | QuorumFailure::LastVoter(_) => ErrorCode::InvalidRequest,
    };
    (code, failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::request::ControlFailure;

    #[test]
    fn refusals_have_kafkas_codes() {
        let code = |failure| refusal_of(&failure).0;
        let unavailable = QuorumFailure::Unavailable(ControlFailure::NotController(None));
        assert_eq!(code(unavailable), ErrorCode::NotController);
        assert_eq!(
            code(QuorumFailure::AlreadyThere(1)),
            ErrorCode::DuplicateVoter
        );
        assert_eq!(
            code(QuorumFailure::NoSuchVoter(1)),
            ErrorCode::VoterNotFound
        );
        assert_eq!(code(QuorumFailure::LastVoter(1)), ErrorCode::InvalidRequest);
    }
}
