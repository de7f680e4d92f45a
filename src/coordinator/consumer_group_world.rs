//! A cluster of topics and a clock, for tests of consumer groups.

use std::collections::BTreeMap;

use super::consumer_group::{ConsumerGroup, Refusal};
use super::consumer_group_heartbeat::validate;
use super::consumer_records::Change;
use super::context::{Client, Context, GroupSettings, TopicView, Topics};
use super::effects::CoordinatorRecord;
use crate::config::broker::BrokerConfig;
use crate::config::group::ConsumerTimeouts;
use crate::wire::codec::Uuid;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest as Request, ConsumerGroupHeartbeatResponse as Response,
    TopicPartitions,
};

/// Topics that a test makes.
#[derive(Default)]
pub(super) struct TestTopics {
    topics: BTreeMap<String, TopicView>,
    version: u64,
    pub(super) racks: BTreeMap<(String, i32), Vec<String>>,
}

impl TestTopics {
    pub(super) fn set(&mut self, name: &str, partitions: i32) -> Uuid {
        self.version += 1;
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        let topic = TopicView {
            id: Uuid(id),
            name: name.to_owned(),
            partitions,
        };
        self.topics.insert(name.to_owned(), topic);
        Uuid(id)
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    pub(super) fn changed(&mut self) {
        self.version += 1;
    }
}

impl Topics for TestTopics {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        self.topics.get(name).cloned()
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        self.topics.values().find(|topic| topic.id == id).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn racks(&self, topic: &TopicView, partition: i32) -> Vec<String> {
        let racks = self.racks.get(&(topic.name.clone(), partition));
        racks.cloned().unwrap_or_default()
    }
}

/// What the group has of its own.
struct OwnSettings(ConsumerTimeouts);

impl GroupSettings for OwnSettings {
    fn timeouts(&self, _group: &str) -> ConsumerTimeouts {
        self.0
    }
}

/// A group, the topics it reads, and its log.
pub(super) struct World {
    pub(super) config: BrokerConfig,
    /// What the group is configured with, if it is.
    pub(super) timeouts: Option<ConsumerTimeouts>,
    pub(super) topics: TestTopics,
    pub(super) group: ConsumerGroup,
    pub(super) log: Vec<CoordinatorRecord>,
    pub(super) now_ms: u64,
    pub(super) version: i16,
    ids: u8,
}

impl World {
    pub(super) fn new(topics: &[(&str, i32)]) -> World {
        let mut world = World {
            config: BrokerConfig::defaults(),
            timeouts: None,
            topics: TestTopics::default(),
            group: ConsumerGroup::new("g1"),
            log: Vec::new(),
            now_ms: 1_000,
            version: 1,
            ids: 0,
        };
        for (name, partitions) in topics {
            world.topics.set(name, *partitions);
        }
        world
    }

    /// Runs `act` on the group, and returns the records it left.
    pub(super) fn on_group<T>(
        &mut self,
        act: impl FnOnce(&mut ConsumerGroup, &mut Context<'_>, &mut Vec<CoordinatorRecord>) -> T,
    ) -> (T, Vec<CoordinatorRecord>) {
        let broker = ConsumerTimeouts::of_broker(&self.config.groups);
        let own = OwnSettings(self.timeouts.unwrap_or(broker));
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            Uuid([*ids; 16])
        };
        let mut context = Context {
            now_ms: self.now_ms,
            wall_ms: 1_700_000_000_000 + self.now_ms.cast_signed(),
            client: Client {
                id: "client",
                host: "/127.0.0.1",
                version: self.version,
            },
            topics: &self.topics,
            groups: &self.config.groups,
            single_groups: &own,
            transactions: &self.config.transactions,
            batch_max_bytes: usize::MAX,
            new_id: &mut new_id,
        };
        let mut records = Vec::new();
        let result = act(&mut self.group, &mut context, &mut records);
        self.log.extend(records.iter().cloned());
        (result, records)
    }

    pub(super) fn try_heartbeat(
        &mut self,
        request: &Request<'_>,
    ) -> Result<Response<'static>, Refusal> {
        let (answer, records) = self.on_group(|group, context, records| {
            validate(context, request)?;
            group.heartbeat(context, request, records)
        });
        assert!(
            answer.is_ok() || records.is_empty(),
            "a refusal wrote {records:?}"
        );
        answer
    }

    pub(super) fn heartbeat(&mut self, request: &Request<'_>) -> Response<'static> {
        self.try_heartbeat(request).expect("it is not refused")
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time_ms: u64) {
        self.now_ms += time_ms;
        self.on_group(|group, context, records| group.tick(context, records));
    }

    /// The group that its log makes.
    pub(super) fn rebuilt(&self) -> ConsumerGroup {
        let mut group = ConsumerGroup::new("g1");
        for record in &self.log {
            let (group_id, change) = Change::decode(&record.key, record.value.as_deref())
                .expect("own records")
                .expect("a consumer group's");
            assert_eq!(group_id, "g1");
            group.replay(change);
        }
        group
    }
}

/// A member that joins.
pub(super) fn join<'a>(member_id: &'a str, topics: &[&'a str]) -> Request<'a> {
    Request {
        group_id: "g1".into(),
        member_id: member_id.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(topics.iter().map(|name| (*name).into()).collect()),
        topic_partitions: Some(Vec::new()),
        ..Request::default()
    }
}

/// A member that has nothing new to say.
pub(super) fn beat(member_id: &str, member_epoch: i32) -> Request<'_> {
    Request {
        group_id: "g1".into(),
        member_id: member_id.into(),
        member_epoch,
        ..Request::default()
    }
}

/// A member that says what it owns.
pub(super) fn owns<'a>(
    member_id: &'a str,
    member_epoch: i32,
    owned: &[(Uuid, &[i32])],
) -> Request<'a> {
    let owned = owned.iter().map(|(topic_id, partitions)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.to_vec(),
    });
    Request {
        topic_partitions: Some(owned.collect()),
        ..beat(member_id, member_epoch)
    }
}

/// The assignment that an answer tells.
pub(super) fn told(answer: &Response<'_>) -> Option<Vec<(Uuid, Vec<i32>)>> {
    let assignment = answer.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(topics.map(|t| (t.topic_id, t.partitions.clone())).collect())
}
