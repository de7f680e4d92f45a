//! What a decision may know besides its shard's state.

use super::effects::CoordinatorRecord;
use super::group_records::record_bytes;
use crate::config::coordinators::{GroupsConfig, TransactionsConfig};
use crate::config::group::ConsumerTimeouts;
use crate::wire::codec::Uuid;
use crate::wire::record_batch::HEADER_BYTES as BATCH_HEADER_BYTES;

/// A topic as the metadata has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// How many partitions it has; they are numbered from 0.
    pub partitions: i32,
}

/// The topics of the cluster.
pub trait Topics {
    /// The topic of this name.
    fn by_name(&self, name: &str) -> Option<TopicView>;
    /// The topic of this id.
    fn by_id(&self, id: Uuid) -> Option<TopicView>;
    /// Every topic's name, ascending.
    fn names(&self) -> Vec<String>;
    /// Grows with every change of the metadata.
    fn version(&self) -> u64;
    /// Racks of the brokers that hold a partition, sorted; empty where no broker has one.
    fn racks(&self, topic: &TopicView, partition: i32) -> Vec<String>;
}

/// What groups have of their own.
pub trait GroupSettings {
    /// How the members of this consumer group show that they live.
    fn timeouts(&self, group: &str) -> ConsumerTimeouts;
}

/// No group has anything of its own.
impl GroupSettings for GroupsConfig {
    fn timeouts(&self, _group: &str) -> ConsumerTimeouts {
        ConsumerTimeouts::of_broker(self)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// The `client.id` of the request's header.
    pub id: &'a str,
    /// Its address, as Kafka prints it: `/127.0.0.1`.
    pub host: &'a str,
    /// The version of the request.
    pub version: i16,
}

/// The world at the time of a decision.
pub struct Context<'a> {
    /// A clock that never goes back: for sessions and timers.
    pub now_ms: u64,
    /// The time of day: for records.
    pub wall_ms: i64,
    /// Who asks; the default where nobody does.
    pub client: Client<'a>,
    /// The cluster's topics.
    pub topics: &'a dyn Topics,
    /// Settings of all groups.
    pub groups: &'a GroupsConfig,
    /// Settings of single groups.
    pub single_groups: &'a dyn GroupSettings,
    /// Settings of transactions.
    pub transactions: &'a TransactionsConfig,
    /// Bytes of the largest batch that the shard's log takes; what is decided at once is one batch.
    pub batch_max_bytes: usize,
    /// Unpredictable ids, for members.
    pub new_id: &'a mut dyn FnMut() -> Uuid,
}

impl Context<'_> {
    /// Whether records fit into one batch of the log.
    #[must_use]
    pub fn fits_batch(&self, records: &[CoordinatorRecord]) -> bool {
        let bytes: usize = records.iter().map(record_bytes).sum();
        bytes.saturating_add(BATCH_HEADER_BYTES) <= self.batch_max_bytes
    }

    /// Bytes that the subscriptions of one member of a consumer group take at most: what else is
    /// written with them takes the other half of a batch.
    #[must_use]
    pub fn member_max_bytes(&self) -> usize {
        self.groups.members_max_bytes.min(self.batch_max_bytes / 2)
    }
}
