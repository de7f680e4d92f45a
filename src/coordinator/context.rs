//! What a decision may know besides its shard's state.

use crate::config::coordinators::{GroupsConfig, TransactionsConfig};
use crate::config::group::ConsumerTimeouts;
use crate::wire::codec::Uuid;

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
    /// Unpredictable ids, for members.
    pub new_id: &'a mut dyn FnMut() -> Uuid,
}
