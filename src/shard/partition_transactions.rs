//! What transactions ask of the partitions of one core: whether the coordinator has to vouch for a
//! batch, markers, and who writes.

use std::rc::Rc;

use futures_util::future::join_all;

use super::replica_manager::{PartResult, ReplicaManager, refused, uncommitted, unreadable};
use super::request::{AppendedPart, ProducerDescription};
use crate::log::position::LogId;
use crate::log::producer_state::ProducerOutline;
use crate::partition::verification::Verification;
use crate::wire::record_batch::BatchHeader;
use crate::wire::transaction_marker::TransactionMarker;

/// Called when a marker became durable.
pub type MarkerHook = dyn Fn(LogId, TransactionMarker);

impl ReplicaManager {
    /// Calls `hook` for every marker of this core once it is durable, before whoever wrote it is
    /// answered.
    pub fn on_marker(&self, hook: Rc<MarkerHook>) {
        self.marker_hooks.borrow_mut().push(hook);
    }

    /// Whether the coordinator has to be asked before a batch is appended.
    pub fn verification(&self, (log, header): &(LogId, BatchHeader)) -> PartResult<Verification> {
        let replica = self.led(*log)?;
        replica.log().healthy().map_err(unreadable)?;
        Ok(replica.verification(header))
    }

    /// Appends a marker to each of the logs; durable on return. The reserve of the disk is there for
    /// markers too: without them readers of what is committed are stuck.
    pub async fn write_markers(
        &self,
        logs: &[LogId],
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> Vec<PartResult<AppendedPart>> {
        let write = |log: &LogId| self.write_marker(*log, marker, bumps_epoch);
        join_all(logs.iter().map(write)).await
    }

    async fn write_marker(
        &self,
        log: LogId,
        marker: TransactionMarker,
        bumps_epoch: bool,
    ) -> PartResult<AppendedPart> {
        let replica = self.led(log)?;
        let placed = replica.append_marker_that(marker, bumps_epoch).await;
        let placed = placed.map_err(refused)?;
        let committed = replica.placed_is_committed(&placed).await;
        replica.grew();
        committed.map_err(uncommitted)?;
        let hooks = self.marker_hooks.borrow().clone();
        for hook in hooks {
            hook(log, marker);
        }
        Ok(AppendedPart {
            base_offset: placed.base_offset.0,
            log_start_offset: replica.log().start_offset().0,
            duplicate: false,
        })
    }

    /// Who writes to a partition.
    pub fn describe_producers(&self, log: LogId) -> PartResult<Vec<ProducerDescription>> {
        let replica = self.led(log)?;
        replica.log().healthy().map_err(unreadable)?;
        let describe = |producer: ProducerOutline| ProducerDescription {
            producer_id: producer.producer_id,
            epoch: producer.epoch,
            last_sequence: producer.last_sequence,
            last_timestamp_ms: producer.last_timestamp_ms,
            coordinator_epoch: producer.coordinator_epoch,
            open_transaction: producer.open_transaction.map_or(-1, |first| first.0),
        };
        Ok(replica.producers().into_iter().map(describe).collect())
    }
}
