//! What the members of a consumer group are to have.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Assignor, Question, Subject};
use super::consumer_group::{ConsumerGroup, Member};
use super::consumer_records::{Change, Partitions};
use super::context::{Context, TopicView};
use super::effects::CoordinatorRecord;
use crate::config::coordinators::GroupsConfig;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of nothing: no topic that anybody subscribes to exists.
const EMPTY_HASH: i64 = 0;

impl ConsumerGroup {
    /// Makes a target assignment for the epoch of the group.
    pub(super) fn update_targets(
        &mut self,
        context: &Context<'_>,
        records: &mut Vec<CoordinatorRecord>,
    ) {
        let assignor = Assignor::by_name(&self.preferred_assignor(context.groups))
            .expect("settings name assignors that there are");
        let (topics, members, question) = self.question(context);
        let answer = assignor.assign(&question);
        let changes: Vec<Change> = (members.into_iter().zip(answer))
            .filter_map(|(member_id, partitions)| {
                let mut target = Partitions::new();
                for (topic, partition) in partitions {
                    target
                        .entry(topics[topic].id)
                        .or_default()
                        .insert(partition);
                }
                let is_new = self.targets.get(&member_id) != Some(&target);
                is_new.then_some(Change::Target(member_id, Some(target)))
            })
            .collect();
        for change in changes {
            self.commit(change, records);
        }
        let made = (self.epoch, context.wall_ms);
        self.commit(Change::TargetEpoch(Some(made)), records);
    }

    /// The assignor that most members want; the default where nobody wants one.
    pub(super) fn preferred_assignor(&self, config: &GroupsConfig) -> String {
        let votes = |name: &String| self.census.assignor_votes(name);
        // Of equals, `max_by_key` takes the last.
        let preferred = config
            .consumer_assignors
            .iter()
            .rev()
            .max_by_key(|n| votes(n));
        preferred.cloned().unwrap_or_else(|| "uniform".to_owned())
    }

    fn question(&self, context: &Context<'_>) -> (Vec<TopicView>, Vec<String>, Question) {
        let topics: Vec<TopicView> = (self.topic_names().into_iter())
            .filter_map(|name| context.topics.by_name(name))
            .collect();
        let by_name: BTreeMap<&str, usize> = (topics.iter().enumerate())
            .map(|(number, topic)| (topic.name.as_str(), number))
            .collect();
        let by_id: BTreeMap<_, usize> = (topics.iter().enumerate())
            .map(|(number, topic)| (topic.id, number))
            .collect();
        let mut subscriptions: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut kinds: BTreeMap<(&BTreeSet<String>, &str), usize> = BTreeMap::new();
        let members = self.members_in_order();
        let mut question = Question {
            topics: topics.iter().map(|topic| topic.partitions).collect(),
            ..Question::default()
        };
        for (member_id, member) in &members {
            let said = (&member.metadata.topics, member.metadata.regex.as_str());
            let subscription = *kinds.entry(said).or_insert_with(|| {
                let resolved = self.regexes.get(said.1);
                let matched = resolved.iter().flat_map(|resolved| &resolved.topics);
                let numbers: BTreeSet<usize> = (said.0.iter().chain(matched))
                    .filter_map(|name| by_name.get(name.as_str()).copied())
                    .collect();
                let next = subscriptions.len();
                *subscriptions
                    .entry(numbers.into_iter().collect())
                    .or_insert(next)
            });
            let mut held = Vec::new();
            for (topic, partitions) in self.targets.get(*member_id).into_iter().flatten() {
                if let Some(number) = by_id.get(topic) {
                    held.extend(partitions.iter().map(|partition| (*number, *partition)));
                }
            }
            held.sort_unstable();
            question.members.push(Subject { subscription, held });
        }
        let mut in_order: Vec<(usize, Vec<usize>)> = subscriptions
            .into_iter()
            .map(|(topics, n)| (n, topics))
            .collect();
        in_order.sort_unstable();
        question.subscriptions = in_order.into_iter().map(|(_, topics)| topics).collect();
        let members = members.into_iter().map(|(id, _)| id.clone()).collect();
        (topics, members, question)
    }

    /// Static members by their instance ids, which stay; then the others.
    fn members_in_order(&self) -> Vec<(&String, &Member)> {
        let mut members: Vec<(&String, &Member)> = self.members.iter().collect();
        members.sort_by_key(|(member_id, member)| {
            let instance_id = member.metadata.instance_id.as_ref();
            (instance_id.is_none(), instance_id, *member_id)
        });
        members
    }

    /// Topics that members subscribe to, ascending.
    fn topic_names(&self) -> BTreeSet<&str> {
        let matched = self.regexes.values().flat_map(|resolved| &resolved.topics);
        (self.census.topics().chain(matched))
            .map(String::as_str)
            .collect()
    }

    /// A number that changes when something about the subscribed topics does that targets depend on:
    /// ids, partitions, and the racks of their replicas.
    pub(super) fn hash_metadata(&self, context: &Context<'_>) -> i64 {
        let mut hash = FNV_BASIS;
        let mut any = false;
        let mut add = |bytes: &[u8]| {
            for byte in (bytes.len() as u32).to_le_bytes().iter().chain(bytes) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
            }
        };
        for name in self.topic_names() {
            let Some(topic) = context.topics.by_name(name) else {
                continue;
            };
            any = true;
            add(name.as_bytes());
            add(&topic.id.0);
            add(&topic.partitions.to_le_bytes());
            for partition in 0..topic.partitions {
                for rack in context.topics.racks(&topic, partition) {
                    add(rack.as_bytes());
                }
                add(&[]);
            }
        }
        if any { hash.cast_signed() } else { EMPTY_HASH }
    }
}
