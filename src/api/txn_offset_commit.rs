//! TxnOffsetCommit, versions 0 to 5 (KIP-447 members from 3, KIP-890: from 5 the broker adds the
//! group's partition to the transaction).
//!
//! The partition that keeps the group's offsets has to be part of the transaction: before the first
//! commit of a transaction its coordinator is asked, as it is before the first record.

use std::rc::Rc;

use super::call::{Call, Handled, check_count};
use super::coordination::ask_group;
use super::dispatch::Api;
use super::transaction_client::{add_to_transaction, missing_in_transaction, offsets_partition};
use crate::coordinator::effects::ProducerIdAndEpoch;
use crate::coordinator::group_request::GroupAnswer;
use crate::coordinator::transaction_request::{ClientProtocol, Partitions};
use crate::shard::coordinators::GroupAsk;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};

/// First version whose client leaves it to the broker to add the group's partition.
const BROKER_ADDS_FROM: i16 = 5;

/// Answers a TxnOffsetCommit.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: TxnOffsetCommitRequest<'_> = call.request()?;
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    let most = api.router.config().limits.request_partitions_max;
    check_count(count.sum(), most)?;
    let code = match ask(&api, &call, &request).await {
        Ok(ask) => match ask_group(&api, &call, &request.group_id, ask).await {
            Ok(GroupAnswer::TxnOffsetCommit(answer)) => return Ok(call.reply(&answer)),
            Ok(other) => unreachable!("the answer to another request: {other:?}"),
            Err(why) => why.code()?,
        },
        Err(code) => code,
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions: partitions
                .map(|partition| TxnOffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code.code(),
                })
                .collect(),
        }
    });
    Ok(call.reply(&TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    }))
}

/// What the group's coordinator is asked, when the transaction's has agreed.
async fn ask(
    api: &Api,
    call: &Call,
    request: &TxnOffsetCommitRequest<'_>,
) -> Result<GroupAsk, ErrorCode> {
    let id = &request.transactional_id;
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let producer = ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let partitions = Partitions::from([offsets_partition(api, &request.group_id).await?]);
    let verified = api.router.offsets_verification(&request.group_id, producer);
    let guard = match verified.await {
        Ok(verification) => verification.guard(),
        Err(_) => return Err(ErrorCode::CoordinatorNotAvailable),
    };
    if guard.is_some() {
        if call.version >= BROKER_ADDS_FROM {
            add_to_transaction(api, id, producer, partitions, ClientProtocol::V2).await?;
        } else if api.router.config().transactions.partition_verification {
            let missing = missing_in_transaction(api, id, producer, partitions).await?;
            if !missing.is_empty() {
                return Err(ErrorCode::InvalidTxnState);
            }
        }
    }
    Ok(GroupAsk::InTransaction(guard))
}
