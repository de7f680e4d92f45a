//! Whatever is asked: a shard rebuilt from its log equals the one that wrote it, what is counted is
//! what is there, and every request is answered once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::classic_group::{ClassicGroup, State};
use super::context::Client;
use super::effects::{CoordinatorRecord, Effects, Ticket};
use super::group_records::{GroupRecord, decode};
use super::group_request::GroupAnswer;
use super::group_shard::{Group, GroupShard};
use super::group_world::{Entry, World};
use super::scenario_answers::short;
use super::scenario_requests::{Arguments, default_version, with_request};

/// Compares a shard with what its log makes of it, and with itself.
pub(super) fn audit(world: &World, name: &str) {
    let rebuilt = world.rebuilt(false);
    assert_eq!(world.shard.offsets, rebuilt.offsets, "{name}");
    let groups = |shard: &GroupShard| -> Vec<Arc<str>> { shard.groups.keys().cloned().collect() };
    assert_eq!(groups(&world.shard), groups(&rebuilt), "{name}");
    let mut timers = 1;
    for (id, group) in &world.shard.groups {
        if let (Group::Consumer(live), Group::Consumer(stored)) = (group, &rebuilt.groups[id]) {
            assert_eq!(live, stored, "{name}: {id}");
            timers += 1;
            continue;
        }
        let (Some(live), Some(stored)) = (group.classic(), rebuilt.groups[id].classic()) else {
            panic!("{name}: {id} is of another kind");
        };
        // A rebalance is not in the log until it ends.
        if matches!(live.state, State::Stable | State::Empty) {
            assert_eq!(live.record(), stored.record(), "{name}: {id}");
        }
        audit_group(live, name);
        timers += 2 + live.members.len() + live.pending.len();
    }
    assert!(
        world.shard.timers.len() <= timers,
        "{name}: timers are left over"
    );
    audit_compaction(world, &rebuilt, name);
}

fn audit_group(group: &ClassicGroup, name: &str) {
    let joining = group.members.values().filter(|m| m.joining.is_some());
    assert_eq!(group.joining, joining.count(), "{name}");
    let size_bytes = group.members.iter().map(|(id, m)| m.size_bytes(id));
    assert_eq!(group.size_bytes, size_bytes.sum::<usize>(), "{name}");
    let with_instance = group.members.iter().filter_map(|(id, member)| {
        let instance = member.instance_id.as_ref()?;
        Some((Arc::clone(instance), Arc::clone(id)))
    });
    let with_instance: BTreeMap<Arc<str>, Arc<str>> = with_instance.collect();
    assert_eq!(group.static_members, with_instance, "{name}");
    let leads = group
        .leader
        .as_ref()
        .is_some_and(|id| group.members.contains_key(id));
    assert_eq!(
        leads,
        !group.members.is_empty(),
        "{name}: leader {:?}",
        group.leader
    );
    let is_member = |id: &Arc<str>| group.members.contains_key(id);
    assert!(group.pending_sync.iter().all(is_member), "{name}");
    assert!(!group.pending.keys().any(is_member), "{name}");
    assert_eq!(
        group.join_timer.is_some(),
        group.state.is_preparing(),
        "{name}"
    );
    if group.state == State::Empty {
        assert!(group.members.is_empty(), "{name}");
    }
}

/// Compaction may lose groups that only had offsets, once these are gone, and nothing else.
fn audit_compaction(world: &World, whole: &GroupShard, name: &str) {
    let compacted = world.rebuilt(true);
    let dump = |shard: &GroupShard| {
        let groups = shard.offsets.groups_after(None);
        let places = groups.flat_map(|group| {
            shard
                .offsets
                .topics(group)
                .flat_map(move |(topic, partitions)| {
                    partitions.iter().map(move |(partition, o)| {
                        let place = format!("{group} {topic}/{partition}");
                        let times = (o.commit_ms, o.expire_ms());
                        (
                            place,
                            o.offset,
                            o.leader_epoch,
                            o.topic_id,
                            o.metadata().to_owned(),
                            times,
                        )
                    })
                })
        });
        places.collect::<Vec<_>>()
    };
    assert_eq!(dump(whole), dump(&compacted), "{name}");
    for (id, group) in &whole.groups {
        if let Group::Consumer(expected) = group {
            let stored = compacted.consumer(id);
            assert_eq!(stored, Some(&**expected), "{name}: {id}");
            continue;
        }
        let stored = compacted.groups.get(id).and_then(Group::classic);
        let expected = group.classic().expect("classic");
        match stored {
            Some(stored) => assert_eq!(stored.record(), expected.record(), "{name}: {id}"),
            None => assert!(expected.protocol_type.is_none(), "{name}: {id} is lost"),
        }
    }
}

struct Life {
    random: fastrand::Rng,
    world: World,
    /// Who asked, of which group, as which member.
    open: BTreeMap<Ticket, (usize, usize, String)>,
    /// What members were given, as the log has it, by group and member.
    given: BTreeMap<(String, String), Vec<u8>>,
    answered: BTreeSet<Ticket>,
    /// The member id and the generation that each client knows, by group.
    known: BTreeMap<(usize, usize), (String, i32)>,
    next_ticket: u64,
    seed: u64,
}

const CLIENTS: [&str; 5] = ["A", "B", "C", "D", "E"];
const GROUPS: [&str; 2] = ["g", "h"];

impl Life {
    fn new(seed: u64) -> Life {
        let mut world = World::new();
        world.groups.max_size = 4;
        world.groups.members_max_bytes = 700;
        // Of the two bounds sometimes the one holds, and sometimes the other.
        world.batch_max_bytes = 900;
        world.groups.offsets_retention_ms = 1_000_000;
        Life {
            random: fastrand::Rng::with_seed(seed),
            world,
            open: BTreeMap::new(),
            given: BTreeMap::new(),
            answered: BTreeSet::new(),
            known: BTreeMap::new(),
            next_ticket: 0,
            seed,
        }
    }

    fn take(&mut self, effects: Effects<GroupAnswer>) {
        for record in &effects.records {
            self.note_assignments(record);
        }
        for (ticket, answer) in effects.answers {
            let asked = self.open.remove(&ticket);
            assert!(
                self.answered.insert(ticket),
                "seed {}: answered twice",
                self.seed
            );
            let (client, group, member) = asked.expect("a ticket that was given out");
            match answer {
                GroupAnswer::Join(answer) if !answer.member_id.is_empty() => {
                    let known = (short(&answer.member_id), answer.generation_id);
                    self.known.insert((client, group), known);
                }
                GroupAnswer::Sync(answer) if answer.error_code == 0 => {
                    let given = self.given.get(&(GROUPS[group].to_owned(), member));
                    let given = given.map(Vec::as_slice);
                    assert_eq!(given, Some(&*answer.assignment), "seed {}", self.seed);
                }
                _ => {}
            }
        }
    }

    /// A member has what the log says, and nobody else has anything.
    fn note_assignments(&mut self, record: &CoordinatorRecord) {
        let decoded = decode(&record.key, record.value.as_deref()).expect("its own record");
        let GroupRecord::Group(id, value) = decoded else {
            return;
        };
        self.given.retain(|(group, _), _| **group != *id);
        for member in value.into_iter().flat_map(|value| value.members) {
            let place = (id.to_string(), short(&member.member_id));
            self.given.insert(place, member.assignment.into_owned());
        }
    }

    fn choose<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.random.usize(..texts.len())]
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..70 => self.ask(),
            70..85 => {
                let longest_ms = [100, 4_000, 400_000][self.random.usize(..3)];
                let time_ms = self.random.u64(..longest_ms);
                for effects in self.world.wait(time_ms) {
                    self.take(effects);
                }
            }
            85..92 => {
                let producer_id = self.random.i64(7..9);
                let committed = self.random.bool();
                self.world.end_transaction(producer_id, committed);
            }
            92..95 => {
                let life = self.random.u8(1..4);
                self.world.topics.0.insert("t".to_owned(), (3, life));
                self.world.topics.0.insert("u".to_owned(), (2, 1));
            }
            95..98 => {
                self.world.topics.0.remove("t");
                let names = ["t".to_owned()];
                let effects = self
                    .world
                    .call(Client::default(), |shard, context, effects| {
                        shard.topics_deleted(context, &names, effects);
                    });
                self.take(effects);
            }
            _ => {
                let compacted = self.random.bool();
                // The connections are gone with the shard.
                self.open.clear();
                let effects = self.world.reload(compacted);
                self.take(effects);
            }
        }
    }

    fn ask(&mut self) {
        let (client, group) = (self.random.usize(..CLIENTS.len()), self.random.usize(..2));
        let verb = self.choose(&[
            "join",
            "join",
            "join",
            "join",
            "sync",
            "sync",
            "sync",
            "heartbeat",
            "leave",
            "commit",
            "commit",
            "txn-commit",
            "fetch",
            "offset-delete",
            "delete",
            "describe",
        ]);
        let mut words = vec![GROUPS[group].to_owned()];
        let known = self.known.get(&(client, group)).cloned();
        let (member, generation) = known.unwrap_or_default();
        let forgets = self.random.u32(..10) == 0;
        if !forgets {
            words.push(format!("member={member}"));
        }
        if !forgets && verb != "join" {
            words.push(format!("gen={generation}"));
        }
        if verb == "join" {
            words.push(format!(
                "protocols={}",
                self.choose(&["range", "range,rr", "rr"])
            ));
            words.push(format!("topics={}", self.choose(&["t", "t,u"])));
            words.push(format!("v={}", self.random.u32(..10)));
            words.push(format!(
                "rebalance={}",
                self.choose(&["0", "5000", "60000"])
            ));
        }
        if client == 0 && verb != "commit" {
            words.push("instance=i".to_owned());
        }
        if verb == "sync" {
            let given = self.known.iter().filter(|(key, _)| key.1 == group);
            let given = given.map(|(key, known)| format!("{}:work-{}", known.0, key.0));
            words.push(format!("assign={}", given.collect::<Vec<_>>().join(",")));
        }
        if verb == "leave" {
            words.push(format!("members={member}"));
        }
        if verb == "txn-commit" {
            words.push(format!("producer={}", self.random.u32(7..9)));
        }
        let offset = self.random.u32(..100);
        words.push(format!(
            "offsets=t/{}={offset}:m,u/0={offset}",
            self.random.u32(..4)
        ));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.send(verb, &words, client, group);
    }

    fn send(&mut self, verb: &str, words: &[&str], client: usize, group: usize) {
        let arguments = Arguments::parse(words);
        let asker = Client {
            id: CLIENTS[client],
            host: "/127.0.0.1",
            version: arguments.number("v", default_version(verb)),
        };
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let member = arguments.text("member", "").into_owned();
        self.open.insert(ticket, (client, group, member));
        let world = &mut self.world;
        let effects = with_request(verb, &arguments, |request| {
            world.ask(asker, ticket, request)
        });
        self.take(effects);
    }
}

#[test]
fn a_shard_rebuilt_from_its_log_equals_the_one_that_wrote_it() {
    for seed in 0..60 {
        let mut life = Life::new(seed);
        life.world.topics.0.insert("t".to_owned(), (3, 1));
        for step in 0..400 {
            life.step();
            if step % 8 == 0 {
                audit(&life.world, &format!("seed {seed}, step {step}"));
            }
        }
        for effects in life.world.wait(2 * 60 * 60 * 1000) {
            life.take(effects);
        }
        audit(&life.world, &format!("seed {seed}, at the end"));
        assert!(
            life.open.is_empty(),
            "seed {seed}: never answered {:?}",
            life.open
        );
        for producer_id in [7, 8] {
            life.world.end_transaction(producer_id, false);
        }
        life.world.wait(2 * 60 * 60 * 1000);
        let counts = life.world.shard.counts();
        assert_eq!(counts, Default::default(), "seed {seed}: all expires");
    }
}

#[test]
fn a_damaged_log_never_panics() {
    for seed in 0..20 {
        let mut life = Life::new(seed);
        life.world.topics.0.insert("t".to_owned(), (3, 1));
        (0..150).for_each(|_| life.step());
        let mut damaged = GroupShard::new();
        for entry in &life.world.log {
            let Entry::Record(record, transaction) = entry else {
                continue;
            };
            let mut record = record.clone();
            for bytes in [Some(&mut record.key), record.value.as_mut()] {
                let Some(bytes) = bytes else { continue };
                for _ in 0..life.random.usize(..3) {
                    let index = life.random.usize(..bytes.len());
                    bytes[index] = life.random.u8(..);
                }
                let length = bytes.len() - life.random.usize(..2);
                bytes.truncate(length);
            }
            // What cannot be read is told; what can be is taken as it is.
            let _ = damaged.replay(&record.key, record.value.as_deref(), *transaction);
        }
        life.world.shard = damaged;
        life.world.call(Client::default(), GroupShard::loaded);
        life.open.clear();
        (0..150).for_each(|_| life.step());
        life.world.wait(2 * 60 * 60 * 1000);
    }
}
