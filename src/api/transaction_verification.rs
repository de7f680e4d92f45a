//! The coordinator's word on whether partitions belong to a transaction (KIP-890).

use std::sync::Arc;

use super::dispatch::Api;
use crate::wire::error_code::ErrorCode;

impl Api {
    /// Whether each of the partitions, by topic and number, belongs to the transaction that the
    /// transactional id has open with this producer. There is no coordinator: none does.
    pub(super) async fn verify_transaction(
        &self,
        _transactional_id: &str,
        _producer: (i64, i16),
        partitions: Vec<(Arc<str>, i32)>,
        _api_version: i16,
    ) -> Vec<Result<(), ErrorCode>> {
        vec![Err(ErrorCode::InvalidTxnState); partitions.len()]
    }
}
