//! InitProducerId, versions 0 to 5 (KIP-98, KIP-360, KIP-890).
//!
//! Without a transactional id every request gets a new producer id with epoch 0, from a block of
//! this core. With one its coordinator decides, which is given a new id in case it needs one. A
//! transactional id that is empty, or an epoch without an id, is INVALID_REQUEST as in Kafka.

use std::rc::Rc;

use super::call::{Call, Handled};
use super::coordination::ask_transaction;
use super::dispatch::Api;
use super::error_mapping::{control_code, controller_code};
use super::transaction_client::known_to;
use crate::cluster::controller::{Command, CommandReply, PRODUCER_ID_BLOCK};
use crate::coordinator::effects::ProducerIdAndEpoch;
use crate::coordinator::transaction_request::{TransactionAnswer, TransactionRequest};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

/// First version whose clients know PRODUCER_FENCED (KIP-588).
const FENCED_FROM: i16 = 4;

/// What is left of this core's block.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    next: i64,
    left: i64,
}

impl ProducerIds {
    fn take(&mut self) -> Option<i64> {
        if self.left == 0 {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.left -= 1;
        Some(id)
    }

    /// Takes the first id of a new block. Of two blocks that came at the same time the rest of the
    /// larger is kept; ids are plenty.
    fn refill(&mut self, first: i64) -> i64 {
        if self.left < PRODUCER_ID_BLOCK - 1 {
            self.next = first + 1;
            self.left = PRODUCER_ID_BLOCK - 1;
        }
        first
    }
}

/// Answers an InitProducerId.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: InitProducerIdRequest<'_> = call.request()?;
    let result = match refusal(&request) {
        Some(code) => Err(code),
        None => producer(&api, &request).await,
    };
    Ok(call.reply(&match result {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..InitProducerIdResponse::default()
        },
        Err(code) => InitProducerIdResponse {
            error_code: known_to(code, call.version >= FENCED_FROM).code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }))
}

fn refusal(request: &InitProducerIdRequest<'_>) -> Option<ErrorCode> {
    let has_half = (request.producer_id == -1) != (request.producer_epoch == -1);
    let transactional_id = request.transactional_id.as_deref();
    (has_half || transactional_id == Some("")).then_some(ErrorCode::InvalidRequest)
}

async fn producer(
    api: &Api,
    request: &InitProducerIdRequest<'_>,
) -> Result<ProducerIdAndEpoch, ErrorCode> {
    let fresh_producer_id = new_id(api).await?;
    let Some(id) = request.transactional_id.as_deref() else {
        return Ok(ProducerIdAndEpoch {
            id: fresh_producer_id,
            epoch: 0,
        });
    };
    let expected = (request.producer_id != -1).then_some(ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    });
    let init = TransactionRequest::Init {
        transactional_id: id.to_string(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
        fresh_producer_id,
    };
    match ask_transaction(api, id, init).await? {
        TransactionAnswer::Init(result) => result,
        other => unreachable!("the answer to another request: {other:?}"),
    }
}

/// A producer id that nobody has.
pub(super) async fn new_id(api: &Api) -> Result<i64, ErrorCode> {
    let cached = api.producer_ids.borrow_mut().take();
    if let Some(id) = cached {
        return Ok(id);
    }
    let reply = api.router.control(Command::AllocateProducerIds).await;
    match reply.map_err(control_code)? {
        CommandReply::ProducerIds(Ok(first)) => Ok(api.producer_ids.borrow_mut().refill(first)),
        CommandReply::ProducerIds(Err(error)) => Err(controller_code(&error)),
        other => unreachable!("another command's reply: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_block_come_once_each() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        assert_eq!(ids.refill(5000), 5000);
        let taken: Vec<i64> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(taken, (5001..6000).collect::<Vec<i64>>());
        // Two requests found the block empty.
        assert_eq!((ids.refill(7000), ids.refill(8000)), (7000, 8000));
        assert_eq!(ids.take(), Some(7001));
    }

    #[test]
    fn halves_are_invalid() {
        let request =
            |id: Option<&'static str>, producer_id, producer_epoch| InitProducerIdRequest {
                transactional_id: id.map(Into::into),
                producer_id,
                producer_epoch,
                ..InitProducerIdRequest::default()
            };
        assert_eq!(refusal(&request(None, -1, -1)), None);
        assert_eq!(refusal(&request(None, 5, 0)), None);
        assert_eq!(
            refusal(&request(None, 5, -1)),
            Some(ErrorCode::InvalidRequest)
        );
        assert_eq!(
            refusal(&request(Some(""), -1, -1)),
            Some(ErrorCode::InvalidRequest)
        );
        assert_eq!(refusal(&request(Some("x"), -1, -1)), None);
    }
}
