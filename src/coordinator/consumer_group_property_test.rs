//! Random members of one consumer group: what must hold after every heartbeat, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::consumer_group::ConsumerGroupState;
use super::consumer_group_world::{World, beat, join};
use crate::wire::codec::Uuid;
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest as Request, TopicPartitions,
};

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// A client as Kafka's: it uses what it was told last, and says so when that changed.
#[derive(Default)]
struct Client {
    id: String,
    instance_id: Option<String>,
    assignor: Option<&'static str>,
    epoch: i32,
    owned: BTreeSet<(Uuid, i32)>,
    topics: Vec<&'static str>,
    regex: Option<&'static str>,
    /// It has something to say besides being there.
    must_tell: bool,
}

impl Client {
    fn request(&self) -> Request<'static> {
        let mut request = match self.epoch {
            0 => join(&self.id, &self.topics),
            epoch => beat(&self.id, epoch),
        };
        request.subscribed_topic_regex = self.regex.map(Into::into);
        if self.must_tell {
            request.subscribed_topic_names =
                Some(self.topics.iter().map(|t| (*t).into()).collect());
            request.rebalance_timeout_ms = 60_000;
            request.topic_partitions = Some(self.said_owned());
        }
        let mut request = owned_request(request);
        request.instance_id = self.instance_id.clone().map(Into::into);
        request.server_assignor = self.assignor.map(Into::into);
        request
    }

    fn said_owned(&self) -> Vec<TopicPartitions> {
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.owned {
            topics.entry(*topic).or_default().push(*partition);
        }
        let said = |(topic_id, partitions)| TopicPartitions {
            topic_id,
            partitions,
        };
        topics.into_iter().map(said).collect()
    }

    fn restart(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.must_tell = true;
    }
}

fn owned_request(request: Request<'_>) -> Request<'static> {
    let own = |text: std::borrow::Cow<'_, str>| std::borrow::Cow::Owned(text.into_owned());
    Request {
        group_id: own(request.group_id),
        member_id: own(request.member_id),
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(own),
        rack_id: request.rack_id.map(own),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topic_names: (request.subscribed_topic_names)
            .map(|names| names.into_iter().map(own).collect()),
        subscribed_topic_regex: request.subscribed_topic_regex.map(own),
        server_assignor: request.server_assignor.map(own),
        topic_partitions: request.topic_partitions,
    }
}

struct Storm {
    world: World,
    random: Rng,
    clients: Vec<Client>,
    made: usize,
    seed: u64,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let mut random = Rng::with_seed(seed);
        let mut world = World::new(&[]);
        for topic in TOPICS {
            world.topics.set(topic, random.i32(1..7));
        }
        Storm {
            world,
            random,
            clients: Vec::new(),
            made: 0,
            seed,
        }
    }

    fn add_client(&mut self) {
        self.made += 1;
        let random = &mut self.random;
        let instance = random.usize(0..6);
        let is_free = |clients: &[Client], id: &str| {
            !clients.iter().any(|c| c.instance_id.as_deref() == Some(id))
        };
        let instance_id = format!("i{instance}");
        let is_static = instance < 3 && is_free(&self.clients, &instance_id);
        let mut client = Client {
            id: format!("m{}", self.made),
            instance_id: is_static.then_some(instance_id),
            assignor: *random
                .choice([None, Some("range"), Some("uniform")].iter())
                .expect("some"),
            must_tell: true,
            ..Client::default()
        };
        subscribe(&mut client, random);
        self.clients.push(client);
    }

    fn step(&mut self) {
        let count = self.clients.len();
        match self.random.u32(0..100) {
            0..8 if count < 8 => self.add_client(),
            8..12 if count > 0 => {
                let client = self.clients.swap_remove(self.random.usize(0..count));
                let returns = client.instance_id.is_some() && self.random.bool();
                let mut request = client.request();
                request.member_epoch = if returns { -2 } else { -1 };
                let _ = self.world.try_heartbeat(&request);
            }
            // It dies, and its session ends.
            12..14 if count > 0 => {
                self.clients.swap_remove(self.random.usize(0..count));
            }
            14..18 if count > 0 => {
                let client = self.random.usize(0..count);
                subscribe(&mut self.clients[client], &mut self.random);
                self.clients[client].must_tell = true;
            }
            18..21 => {
                let topic = TOPICS[self.random.usize(0..TOPICS.len())];
                match self.random.bool() {
                    true => drop(self.world.topics.set(topic, self.random.i32(1..9))),
                    false => self.world.topics.delete(topic),
                }
            }
            21..25 => self.world.pass(self.random.u64(0..20_000)),
            25..28 => self.reload(),
            _ if count > 0 => {
                let client = self.random.usize(0..count);
                let is_lost = self.random.u32(0..10) == 0;
                self.heartbeat(client, is_lost);
            }
            _ => {}
        }
        self.check();
    }

    /// The shard is loaded again from its log.
    fn reload(&mut self) {
        self.world.group = self.world.rebuilt();
        self.world
            .on_group(|group, context, _| group.loaded(context));
    }

    fn heartbeat(&mut self, index: usize, is_lost: bool) {
        let request = self.clients[index].request();
        let answer = self.world.try_heartbeat(&request);
        if is_lost {
            self.clients[index].must_tell = true;
            return;
        }
        let client = &mut self.clients[index];
        match answer {
            Ok(answer) => {
                client.must_tell = false;
                client.epoch = answer.member_epoch;
                if let Some(assignment) = answer.assignment {
                    let told = assignment.topic_partitions.iter();
                    let told: BTreeSet<(Uuid, i32)> = told
                        .flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p)))
                        .collect();
                    client.must_tell = told != client.owned;
                    client.owned = told;
                }
            }
            Err(refusal) => match refusal.code {
                ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId => client.restart(),
                // Its instance id is still held by one that died, or by its lost join.
                ErrorCode::UnreleasedInstanceId | ErrorCode::FencedInstanceId => {
                    self.clients.swap_remove(index);
                }
                code => panic!("seed {}: {code:?} {}", self.seed, refusal.message),
            },
        }
    }

    fn check(&self) {
        let seed = self.seed;
        let mut owners: BTreeMap<(Uuid, i32), &str> = BTreeMap::new();
        for (id, member) in &self.world.group.members {
            for held in [&member.current.assigned, &member.current.revoking] {
                for (topic, partitions) in held {
                    for partition in partitions.keys() {
                        let other = owners.insert((*topic, *partition), id);
                        assert_eq!(other, None, "seed {seed}: two owners, {id} is one");
                    }
                }
            }
        }
        for client in &self.clients {
            let is_member = self.world.group.members.get(&client.id);
            let is_current = is_member.is_some_and(|member| {
                client.epoch > 0
                    && [member.current.epoch, member.current.previous_epoch].contains(&client.epoch)
            });
            for place in client.owned.iter().filter(|_| is_current) {
                let owner = owners.get(place);
                assert!(
                    owner.is_none_or(|owner| *owner == client.id),
                    "seed {seed}: {} uses what {owner:?} owns",
                    client.id
                );
            }
        }
    }

    fn check_log(&self) {
        let seed = self.seed;
        assert_eq!(self.world.rebuilt(), self.world.group, "seed {seed}");
    }

    /// Nothing happens any more but heartbeats.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.world.pass(11_000);
            for index in (0..self.clients.len()).rev() {
                self.heartbeat(index, false);
                self.check();
            }
        }
        self.check_log();
        let (group, seed) = (&self.world.group, self.seed);
        let expected = match self.clients.is_empty() {
            true => ConsumerGroupState::Empty,
            false => ConsumerGroupState::Stable,
        };
        assert_eq!(group.state(), expected, "seed {seed}");
        for client in &self.clients {
            let target: BTreeSet<(Uuid, i32)> = (group.targets[&client.id].iter())
                .flat_map(|(topic, target)| target.iter().map(move |p| (*topic, *p)))
                .collect();
            assert_eq!(client.owned, target, "seed {seed}");
            assert_eq!(client.epoch, group.epoch, "seed {seed}");
        }
    }
}

fn subscribe(client: &mut Client, random: &mut Rng) {
    client.topics = TOPICS.into_iter().filter(|_| random.bool()).collect();
    client.regex = match random.u32(0..4) {
        0 => Some("[ab]"),
        1 => Some("."),
        2 => Some(""),
        _ => client.regex,
    };
}

#[test]
fn no_partition_has_two_owners_and_all_get_what_they_are_to_have() {
    for seed in 0..60 {
        let mut storm = Storm::new(seed);
        for round in 0..150 {
            storm.step();
            if round % 15 == 0 {
                storm.check_log();
            }
        }
        storm.settle();
    }
}

#[test]
fn a_thousand_members_share_a_thousand_partitions() {
    let mut world = World::new(&[("t", 1_000)]);
    let ids: Vec<String> = (0..1_000).map(|number| format!("m{number}")).collect();
    // The members that a load finds; joining one by one would make a thousand targets.
    for id in &ids {
        let request = join(id, &["t"]);
        world.on_group(|group, context, records| {
            let names = request.subscribed_topic_names.iter().flatten();
            let metadata = super::consumer_records::MemberMetadata {
                topics: names.map(|name| name.to_string()).collect(),
                rebalance_timeout_ms: 60_000,
                ..Default::default()
            };
            group.follow(context, id, &Default::default(), metadata, records);
        });
    }
    world.heartbeat(&join("last", &["t"]));
    let sizes: Vec<usize> = (world.group.targets.values())
        .map(|target| target.values().map(BTreeSet::len).sum())
        .collect();
    assert_eq!(sizes.len(), 1_001);
    assert_eq!(sizes.iter().sum::<usize>(), 1_000);
    assert!(sizes.iter().all(|size| *size <= 1));
}
