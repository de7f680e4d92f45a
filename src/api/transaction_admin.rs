//! What operators ask about transactions: DescribeTransactions, ListTransactions (KIP-664).

use std::borrow::Cow;
use std::rc::Rc;

use regex::Regex;

use super::call::{Call, Handled, check_count};
use super::coordination::{NoAnswer, ask_transaction};
use super::dispatch::Api;
use crate::coordinator::transaction::TransactionState;
use crate::coordinator::transaction_request::{
    TransactionAnswer, TransactionDescription, TransactionFilter, TransactionRequest,
};
use crate::shard::coordinators::CoordinatorAnswer;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::describe_transactions::{
    self, DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData,
};
use crate::wire::messages::list_transactions::{
    self, ListTransactionsRequest, ListTransactionsResponse,
};

/// Bytes that a pattern may compile to.
const PATTERN_BYTES: usize = 256 << 10;

/// Answers a DescribeTransactions, version 0.
pub(super) async fn describe(api: Rc<Api>, call: Call) -> Handled {
    let request: DescribeTransactionsRequest<'_> = call.request()?;
    let ids = &request.transactional_ids;
    check_count(ids.len(), api.router.config().limits.request_partitions_max)?;
    let mut transaction_states = Vec::with_capacity(ids.len());
    for id in ids {
        let ask = TransactionRequest::Describe(id.to_string());
        let described = match ask_transaction(&api, id, ask).await {
            // Nobody has ever had a transactional id while there is no topic for them.
            Err(ErrorCode::CoordinatorNotAvailable) => Err(ErrorCode::TransactionalIdNotFound),
            Err(code) => Err(code),
            Ok(TransactionAnswer::Describe(None)) => Err(ErrorCode::TransactionalIdNotFound),
            Ok(TransactionAnswer::Describe(Some(description))) => Ok(description),
            Ok(other) => unreachable!("the answer to another request: {other:?}"),
        };
        transaction_states.push(described_as(id, described));
    }
    Ok(call.reply(&DescribeTransactionsResponse {
        transaction_states,
        ..DescribeTransactionsResponse::default()
    }))
}

fn described_as(
    id: &str,
    described: Result<TransactionDescription, ErrorCode>,
) -> describe_transactions::TransactionState<'static> {
    let transactional_id = Cow::Owned(id.to_string());
    let description = match described {
        Ok(description) => description,
        Err(code) => {
            return describe_transactions::TransactionState {
                error_code: code.code(),
                transactional_id,
                ..describe_transactions::TransactionState::default()
            };
        }
    };
    let topics = description.partitions.into_iter();
    let topics = topics.map(|(topic, partitions)| TopicData {
        topic: Cow::Owned(topic),
        partitions: partitions.into_iter().collect(),
    });
    describe_transactions::TransactionState {
        error_code: ErrorCode::None.code(),
        transactional_id,
        transaction_state: Cow::Borrowed(description.state.name()),
        transaction_timeout_ms: description.timeout_ms,
        transaction_start_time_ms: description.start_ms,
        producer_id: description.producer.id,
        producer_epoch: description.producer.epoch,
        topics: topics.collect(),
    }
}

/// Answers a ListTransactions, versions 0 to 2. States that are unknown are told back and filter
/// nothing in.
pub(super) async fn list(api: Rc<Api>, call: Call) -> Handled {
    let request: ListTransactionsRequest<'_> = call.request()?;
    let refused = |code: ErrorCode| ListTransactionsResponse {
        error_code: code.code(),
        ..ListTransactionsResponse::default()
    };
    let pattern = request.transactional_id_pattern.as_deref();
    let pattern = match pattern.filter(|pattern| !pattern.is_empty()).map(compiled) {
        None => None,
        Some(Ok(pattern)) => Some(pattern),
        Some(Err(_)) => return Ok(call.reply(&refused(ErrorCode::InvalidRegularExpression))),
    };
    let filters = request.state_filters.iter();
    let (known, unknown): (Vec<_>, Vec<_>) =
        filters.partition(|name| TransactionState::from_name(name).is_some());
    let names = known.iter().map(|name| name.as_ref());
    let states: Vec<TransactionState> = names.filter_map(TransactionState::from_name).collect();
    let unknown_state_filters = unknown.into_iter().cloned().collect();
    if states.is_empty() && !request.state_filters.is_empty() {
        return Ok(call.reply(&ListTransactionsResponse {
            unknown_state_filters,
            ..ListTransactionsResponse::default()
        }));
    }
    let ask = TransactionRequest::List(TransactionFilter {
        states,
        producer_ids: request.producer_id_filters.clone(),
        open_longer_than_ms: (request.duration_filter >= 0).then_some(request.duration_filter),
    });
    let answers = match api.router.list_transactions(&ask).await {
        Ok(answers) => answers,
        Err(why) => return Ok(call.reply(&refused(NoAnswer::from(why).code()?))),
    };
    Ok(call.reply(&ListTransactionsResponse {
        unknown_state_filters,
        transaction_states: listed(answers, pattern.as_ref()),
        ..ListTransactionsResponse::default()
    }))
}

/// The whole id must match, as in Kafka.
fn compiled(pattern: &str) -> Result<Regex, regex::Error> {
    let whole = format!("^(?:{pattern})$");
    let mut builder = regex::RegexBuilder::new(&whole);
    builder.size_limit(PATTERN_BYTES).build()
}

fn listed(
    answers: Vec<CoordinatorAnswer>,
    pattern: Option<&Regex>,
) -> Vec<list_transactions::TransactionState<'static>> {
    let mut states = Vec::new();
    for answer in answers {
        let CoordinatorAnswer::Transaction(TransactionAnswer::List(listed)) = answer else {
            unreachable!("the answer to another request: {answer:?}");
        };
        let matches = |id: &str| pattern.is_none_or(|pattern| pattern.is_match(id));
        let listed = listed
            .into_iter()
            .filter(|it| matches(&it.transactional_id));
        states.extend(listed.map(|it| list_transactions::TransactionState {
            transactional_id: Cow::Owned(it.transactional_id),
            producer_id: it.producer_id,
            transaction_state: Cow::Borrowed(it.state.name()),
        }));
    }
    states
}
