//! ElectLeaders, versions 0 to 2 (KIP-183, KIP-460 unclean elections from 1).
//!
//! No partitions are all of them; then only those that needed an election are in the answer. Version
//! 0 knows preferred leaders only, and has no error for the whole.

use std::borrow::Cow;
use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply, ElectionKind, ElectionResult};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Code and words; no words for success.
type Told = (i16, Option<String>);

/// Answers an ElectLeaders.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: ElectLeadersRequest<'_> = call.request()?;
    let named = named(&request);
    let count = named.as_ref().map_or(0, Vec::len);
    check_count(count, api.router.config().limits.request_partitions_max)?;
    let kind = match request.election_type {
        PREFERRED => ElectionKind::Preferred,
        UNCLEAN => ElectionKind::Unclean,
        other => {
            let told = (
                ErrorCode::InvalidRequest.code(),
                Some(format!("Unknown election type {other}")),
            );
            return Ok(call.reply(&refused(named, told)));
        }
    };
    let command = Command::ElectLeaders {
        kind,
        partitions: named.clone(),
    };
    Ok(call.reply(&match api.router.control(command).await {
        Ok(CommandReply::LeadersElected(results)) => ElectLeadersResponse {
            replica_election_results: grouped(results.into_iter().map(told).collect()),
            ..ElectLeadersResponse::default()
        },
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => {
            let message = control_message(failure).to_string();
            refused(named, (control_code(failure).code(), Some(message)))
        }
    }))
}

fn named(request: &ElectLeadersRequest<'_>) -> Option<Vec<(String, i32)>> {
    let topics = request.topic_partitions.as_ref()?;
    let partitions = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|number| (topic.topic.to_string(), *number))
    });
    Some(partitions.collect())
}

/// The whole is refused: so is every partition, for versions that have no other place to say it.
fn refused(
    named: Option<Vec<(String, i32)>>,
    (error_code, message): Told,
) -> ElectLeadersResponse<'static> {
    let partitions = named.unwrap_or_default().into_iter();
    let results = partitions.map(|partition| (partition, (error_code, message.clone())));
    ElectLeadersResponse {
        error_code,
        replica_election_results: grouped(results.collect()),
        ..ElectLeadersResponse::default()
    }
}

fn told((partition, result): ElectionResult) -> ((String, i32), Told) {
    let told = match result {
        Ok(()) => (0, None),
        Err(error) => (controller_code(&error).code(), Some(error.to_string())),
    };
    (partition, told)
}

/// Results that follow each other and are of one topic, together.
fn grouped(results: Vec<((String, i32), Told)>) -> Vec<ReplicaElectionResult<'static>> {
    let mut topics = Vec::<ReplicaElectionResult<'static>>::new();
    for ((topic, partition_id), (error_code, message)) in results {
        if topics.last().is_none_or(|last| last.topic != topic) {
            topics.push(ReplicaElectionResult {
                topic: Cow::Owned(topic),
                ..ReplicaElectionResult::default()
            });
        }
        let last = topics.last_mut().expect("just pushed");
        last.partition_result.push(PartitionResult {
            partition_id,
            error_code,
            error_message: message.map(Cow::Owned),
        });
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_grouped_by_topic_and_keep_their_order() {
        let result = |topic: &str, number, code| ((topic.to_string(), number), (code, None));
        let topics = grouped(vec![
            result("a", 1, 0),
            result("a", 0, 84),
            result("b", 0, 3),
        ]);
        let shown: Vec<(&str, Vec<(i32, i16)>)> = topics
            .iter()
            .map(|topic| {
                let results = topic.partition_result.iter();
                let results = results.map(|result| (result.partition_id, result.error_code));
                (topic.topic.as_ref(), results.collect())
            })
            .collect();
        assert_eq!(shown, [("a", vec![(1, 0), (0, 84)]), ("b", vec![(0, 3)])]);
    }
}
