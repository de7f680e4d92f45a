//! A host for tests: a log, a clock that is moved by hand, topics, ids that count up.

use std::collections::BTreeMap;

use crate::config::broker::BrokerConfig;
use crate::config::coordinators::{GroupsConfig, TransactionsConfig};
use crate::wire::codec::Uuid;

use super::context::{Client, Context, TopicView, Topics};
use super::effects::{CoordinatorRecord, Effects, ProducerIdAndEpoch, Ticket};
use super::group_request::{GroupAnswer, GroupRequest};
use super::group_shard::GroupShard;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Record(CoordinatorRecord, Option<ProducerIdAndEpoch>),
    Marker { producer_id: i64, committed: bool },
}

/// Topics by name with their number of partitions; ids are made of the names.
#[derive(Debug, Default)]
pub(super) struct FewTopics(pub(super) BTreeMap<String, (i32, u8)>);

impl FewTopics {
    pub(super) fn id(name: &str, life: u8) -> Uuid {
        let mut bytes = [life; 16];
        for (slot, byte) in bytes.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        Uuid(bytes)
    }

    fn view(name: &str, topic: (i32, u8)) -> TopicView {
        TopicView {
            id: FewTopics::id(name, topic.1),
            name: name.to_owned(),
            partitions: topic.0,
        }
    }
}

impl Topics for FewTopics {
    fn by_name(&self, name: &str) -> Option<TopicView> {
        let topic = self.0.get(name)?;
        Some(FewTopics::view(name, *topic))
    }

    fn by_id(&self, id: Uuid) -> Option<TopicView> {
        let mut views = self
            .0
            .iter()
            .map(|(name, topic)| FewTopics::view(name, *topic));
        views.find(|view| view.id == id)
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn version(&self) -> u64 {
        0
    }

    fn racks(&self, _topic: &TopicView, _partition: i32) -> Vec<String> {
        Vec::new()
    }
}

/// See the head of this file.
pub(super) struct World {
    pub(super) shard: GroupShard,
    pub(super) log: Vec<Entry>,
    pub(super) topics: FewTopics,
    pub(super) groups: GroupsConfig,
    transactions: TransactionsConfig,
    pub(super) batch_max_bytes: usize,
    pub(super) now_ms: u64,
    next_id: u32,
}

/// The time of day when the clock stands at 0.
pub(super) const WALL_MS: i64 = 1_000_000;

impl World {
    pub(super) fn new() -> World {
        let config = BrokerConfig::defaults();
        let mut world = World {
            shard: GroupShard::new(),
            log: Vec::new(),
            topics: FewTopics::default(),
            groups: config.groups,
            transactions: config.transactions,
            batch_max_bytes: usize::MAX,
            now_ms: 0,
            next_id: 0,
        };
        world.call(Client::default(), GroupShard::loaded);
        world
    }

    pub(super) fn wall_ms(&self) -> i64 {
        WALL_MS + i64::try_from(self.now_ms).expect("a short test")
    }

    /// Calls the shard, and appends what it writes.
    pub(super) fn call(
        &mut self,
        client: Client<'_>,
        act: impl FnOnce(&mut GroupShard, &mut Context<'_>, &mut Effects<GroupAnswer>),
    ) -> Effects<GroupAnswer> {
        let wall_ms = self.wall_ms();
        let next_id = &mut self.next_id;
        let mut new_id = || {
            *next_id += 1;
            Uuid(u128::from(*next_id).to_be_bytes())
        };
        let mut context = Context {
            now_ms: self.now_ms,
            wall_ms,
            client,
            topics: &self.topics,
            groups: &self.groups,
            single_groups: &self.groups,
            transactions: &self.transactions,
            batch_max_bytes: self.batch_max_bytes,
            new_id: &mut new_id,
        };
        let mut effects = Effects::default();
        act(&mut self.shard, &mut context, &mut effects);
        for record in &effects.records {
            let record = std::slice::from_ref(record);
            assert!(context.fits_batch(record), "the log refuses {record:?}");
        }
        let records = effects.records.iter().cloned();
        let transaction = effects.transaction;
        self.log
            .extend(records.map(|record| Entry::Record(record, transaction)));
        effects
    }

    pub(super) fn ask(
        &mut self,
        client: Client<'_>,
        ticket: Ticket,
        request: GroupRequest<'_>,
    ) -> Effects<GroupAnswer> {
        self.call(client, |shard, context, effects| {
            shard.handle(context, ticket, request, effects);
        })
    }

    pub(super) fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        self.shard.end_transaction(producer_id, committed);
        self.log.push(Entry::Marker {
            producer_id,
            committed,
        });
    }

    /// Lets the time pass, tick by tick, and gives what each left.
    pub(super) fn wait(&mut self, time_ms: u64) -> Vec<Effects<GroupAnswer>> {
        let end_ms = self.now_ms + time_ms;
        let mut left = Vec::new();
        while let Some(due_ms) = self.shard.next_due_ms().filter(|due_ms| *due_ms <= end_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            left.push(self.call(Client::default(), GroupShard::tick));
        }
        self.now_ms = end_ms;
        left
    }

    /// A shard made of the log, or of what compaction leaves of it.
    pub(super) fn rebuilt(&self, compacted: bool) -> GroupShard {
        let log = if compacted {
            compact(&self.log)
        } else {
            self.log.clone()
        };
        let mut shard = GroupShard::new();
        for entry in &log {
            match entry {
                Entry::Record(record, transaction) => shard
                    .replay(&record.key, record.value.as_deref(), *transaction)
                    .expect("its own record"),
                Entry::Marker {
                    producer_id,
                    committed,
                } => shard.end_transaction(*producer_id, *committed),
            }
        }
        shard
    }

    /// Loads the shard again, as after a restart.
    pub(super) fn reload(&mut self, compacted: bool) -> Effects<GroupAnswer> {
        if compacted {
            self.log = compact(&self.log);
        }
        self.shard = self.rebuilt(false);
        self.call(Client::default(), GroupShard::loaded)
    }
}

/// What compaction leaves, tombstones gone: of transactions only what committed; open ones stay.
fn compact(log: &[Entry]) -> Vec<Entry> {
    let mut last: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for (index, entry) in log.iter().enumerate() {
        let Entry::Record(record, transaction) = entry else {
            continue;
        };
        let fate = transaction.map(|producer| fate_of(&log[index..], producer.id));
        if fate.is_none_or(|fate| fate == Some(true)) {
            last.insert(&record.key, index);
        }
    }
    for (index, entry) in log.iter().enumerate() {
        let keep = match entry {
            Entry::Marker { .. } => true,
            Entry::Record(record, transaction) => {
                let open = transaction.is_some_and(|p| fate_of(&log[index..], p.id).is_none());
                let newest = last.get(&*record.key).is_none_or(|last| *last <= index);
                newest && (record.value.is_some() || open)
            }
        };
        if keep {
            kept.push(entry.clone());
        }
    }
    kept
}

/// How a producer's transaction ended, if it did.
fn fate_of(rest: &[Entry], id: i64) -> Option<bool> {
    rest.iter().find_map(|entry| match entry {
        Entry::Marker {
            producer_id,
            committed,
        } if *producer_id == id => Some(*committed),
        _ => None,
    })
}
