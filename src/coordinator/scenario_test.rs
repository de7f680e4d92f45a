//! Scenarios: who asks what, what is written and what comes back.
//!
//! A file of `scenarios/` has a step in each line that begins with `>`, and below it, in lines that
//! begin with `<`, everything the step leaves, in order. The first word of a step is the client that asks, unless it is a word like `wait`;
//! `A#1` is the member id that the first id made for A. After every step the shard is rebuilt from
//! its log and must equal the one that runs.

use std::collections::BTreeMap;

use super::context::Client;
use super::effects::{Effects, Ticket};
use super::group_property_test::audit;
use super::group_request::GroupAnswer;
use super::group_world::World;
use super::scenario_answers::{answer_text, record_text};
use super::scenario_requests::{Arguments, default_version, with_request};

struct Run {
    world: World,
    tickets: BTreeMap<Ticket, String>,
    next_ticket: u64,
}

impl Run {
    fn render(&mut self, effects: &Effects<GroupAnswer>, lines: &mut Vec<String>) {
        let transaction = effects
            .transaction
            .map(|p| format!("in transaction of {} ", p.id));
        let transaction = transaction.unwrap_or_default();
        for record in &effects.records {
            lines.push(format!("< {transaction}{}", record_text(record)));
        }
        for (ticket, answer) in &effects.answers {
            let who = self
                .tickets
                .remove(ticket)
                .expect("a ticket is answered once");
            lines.push(
                format!("< {who} {}", answer_text(answer))
                    .trim_end()
                    .to_owned(),
            );
        }
    }

    fn step(&mut self, line: &str) -> Vec<String> {
        let mut words = line.split_whitespace();
        let first = words.next().expect("a step says something");
        let rest: Vec<&str> = words.collect();
        let mut lines = Vec::new();
        match first {
            "topic" => {
                let life = rest.get(2).map_or(1, |life| life.parse().expect("a life"));
                let partitions = rest[1].parse().expect("a number of partitions");
                let topics = &mut self.world.topics.0;
                topics.insert(rest[0].to_owned(), (partitions, life));
            }
            "set" => self.set(rest[0], rest[1]),
            "wait" => {
                let time_ms = rest[0].parse().expect("milliseconds");
                for effects in self.world.wait(time_ms) {
                    self.render(&effects, &mut lines);
                }
            }
            "marker" => {
                let producer_id = rest[0].parse().expect("a producer id");
                self.world.end_transaction(producer_id, rest[1] == "commit");
            }
            "delete-topics" => {
                let names: Vec<String> = rest.iter().map(|name| (*name).to_owned()).collect();
                for name in &names {
                    self.world.topics.0.remove(name);
                }
                let effects = self
                    .world
                    .call(Client::default(), |shard, context, effects| {
                        shard.topics_deleted(context, &names, effects);
                    });
                self.render(&effects, &mut lines);
            }
            "reload" => {
                let effects = self.world.reload(rest == ["compacted"]);
                self.tickets.clear();
                self.render(&effects, &mut lines);
            }
            "counts" => lines.push(format!("< {:?}", self.world.shard.counts())),
            who => self.ask(who, &rest, &mut lines),
        }
        lines
    }

    fn set(&mut self, name: &str, value: &str) {
        let groups = &mut self.world.groups;
        let number: i64 = value.parse().expect("a number");
        let size = usize::try_from(number).expect("not negative");
        match name {
            "max_size" => groups.max_size = size,
            "groups_max" => groups.groups_max = size,
            "members_max_bytes" => groups.members_max_bytes = size,
            "batch_max_bytes" => self.world.batch_max_bytes = size,
            "offset_metadata_max_bytes" => groups.offset_metadata_max_bytes = size,
            "offsets_retention_ms" => groups.offsets_retention_ms = number,
            "initial_rebalance_delay_ms" => {
                groups.initial_rebalance_delay_ms = i32::try_from(number).expect("small");
            }
            other => panic!("no setting {other}"),
        }
    }

    fn ask(&mut self, who: &str, words: &[&str], lines: &mut Vec<String>) {
        let verb = words[0];
        let arguments = Arguments::parse(&words[1..]);
        let client = Client {
            id: who,
            host: "/127.0.0.1",
            version: arguments.number("v", default_version(verb)),
        };
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, who.to_owned());
        let world = &mut self.world;
        let effects = with_request(verb, &arguments, |request| {
            world.ask(client, ticket, request)
        });
        self.render(&effects, lines);
    }
}

fn play(name: &str, text: &str) {
    let mut run = Run {
        world: World::new(),
        tickets: BTreeMap::new(),
        next_ticket: 0,
    };
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('<')) {
        seen.push(line.to_owned());
        if let Some(step) = line.strip_prefix('>') {
            seen.extend(run.step(step));
            audit(&run.world, name);
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{name}: {line:?}");
        }
    }
    let differs = text
        .lines()
        .zip(&seen)
        .position(|(expected, seen)| expected != seen);
    let same = differs.is_none() && text.lines().count() == seen.len();
    assert!(
        same,
        "{name}, line {differs:?} from 0; what was seen:\n{}\n",
        seen.join("\n")
    );
}

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            play(name, include_str!(concat!("scenarios/", stringify!($name), ".txt")));
        }
    )*};
}

scenarios! {
    joining
    limits
    static_members
    assignments
    sessions
    leaving
    fencing
    plain_commits
    transactional_commits
    fetching
    deleting
    expiry
    administration
    restart
    storms
    consumer_groups
    migration
}
