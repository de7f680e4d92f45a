//! What a shard does besides answering: timers that fire, expired offsets, offsets of topics and
//! groups that are deleted. A call does a bounded part of it and leaves the rest to the next tick.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::wire::error_code::ErrorCode;

use super::classic_group::{ClassicGroup, State};
use super::context::Context;
use super::effects::{Effects, Ticket};
use super::group_records::{offset_tombstone, record_bytes};
use super::group_request::GroupAnswer;
use super::group_shard::{Group, GroupShard};
use super::group_turn::Due;
use super::offset_table::CommittedOffset;

/// Records of one call, about.
const CALL_BYTES_MAX: usize = 512 * 1024;
/// Timers of one call.
const TIMERS_MAX: usize = 64;
/// Groups that one call looks at.
const GROUPS_MAX: usize = 512;
/// Offsets that are taken from the table at a time.
const PLACES_MAX: usize = 1024;

/// What is done in steps.
#[derive(Debug)]
pub(super) enum Chore {
    /// A group with all its offsets; the ticket is answered at the end.
    DeleteGroup(Ticket, Arc<str>),
    /// Offsets of topics that are no more, those that were committed up to `sequence`.
    DeleteTopics {
        names: Vec<String>,
        sequence: u64,
        after: Option<Arc<str>>,
    },
    /// Offsets that nobody needs any more, and groups without any.
    Expire { after: Option<Arc<str>> },
}

/// What a call may still do.
struct Budget {
    bytes: usize,
    groups: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget {
            bytes: CALL_BYTES_MAX,
            groups: GROUPS_MAX,
        }
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || self.groups == 0
    }
}

impl GroupShard {
    /// When [`GroupShard::tick`] has something to do; 0 is at once.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.chores.is_empty() {
            self.timers.next_due_ms()
        } else {
            Some(0)
        }
    }

    /// Does what is due, a bounded part of it; the host asks `next_due_ms` again.
    pub fn tick(&mut self, context: &mut Context<'_>, effects: &mut Effects<GroupAnswer>) {
        for _ in 0..TIMERS_MAX {
            let Some(due) = self.timers.pop_due(context.now_ms) else {
                break;
            };
            self.fire(due, context, effects);
        }
        let mut budget = Budget::new();
        self.work(&mut budget, context, effects);
    }

    fn fire(&mut self, due: Due, context: &mut Context<'_>, effects: &mut Effects<GroupAnswer>) {
        match due {
            Due::Session(group, member) => {
                self.on_classic(&group, context, effects, |group, turn| {
                    group.session_timer_fired(&member, turn);
                });
            }
            Due::Join(group) => {
                self.on_classic(&group, context, effects, ClassicGroup::join_timer_fired);
            }
            Due::Sync(group) => {
                self.on_classic(&group, context, effects, ClassicGroup::sync_timer_fired);
            }
            Due::Consumer(group) => self.consumer_timer_fired(&group, context, effects),
            Due::Expiry => {
                let interval_ms = context.groups.offsets_retention_check_interval_ms;
                let due_ms = context.now_ms.saturating_add(interval_ms);
                self.timers.set(due_ms, Due::Expiry);
                let mut chores = self.chores.iter();
                if !chores.any(|chore| matches!(chore, Chore::Expire { .. })) {
                    self.chores.push_back(Chore::Expire { after: None });
                }
            }
        }
    }

    /// Does what there is to do in steps, as far as the budget goes.
    fn work(
        &mut self,
        budget: &mut Budget,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        while !budget.is_spent() {
            let Some(chore) = self.chores.pop_front() else {
                return;
            };
            let rest = match chore {
                Chore::DeleteGroup(ticket, group) => {
                    self.delete_group_step(ticket, group, budget, context, effects)
                }
                Chore::DeleteTopics {
                    names,
                    sequence,
                    after,
                } => self.delete_topics_step(names, sequence, after, budget, effects),
                Chore::Expire { after } => self.expire_step(after, budget, context, effects),
            };
            if let Some(rest) = rest {
                self.chores.push_front(rest);
            }
        }
    }

    /// These topics are gone: so are their offsets.
    pub fn topics_deleted(
        &mut self,
        context: &mut Context<'_>,
        names: &[String],
        effects: &mut Effects<GroupAnswer>,
    ) {
        self.chores.push_back(Chore::DeleteTopics {
            names: names.to_vec(),
            sequence: self.offsets.sequence(),
            after: None,
        });
        self.work(&mut Budget::new(), context, effects);
    }

    /// Decides a DeleteGroups for one group.
    pub(super) fn delete_group(
        &mut self,
        context: &mut Context<'_>,
        ticket: Ticket,
        group: &str,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let mut budget = Budget::new();
        let rest = self.delete_group_step(ticket, group.into(), &mut budget, context, effects);
        self.chores.extend(rest);
    }

    fn delete_group_step(
        &mut self,
        ticket: Ticket,
        id: Arc<str>,
        budget: &mut Budget,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> Option<Chore> {
        let error = match self.groups.get(&id) {
            None => ErrorCode::GroupIdNotFound,
            Some(group) if group.is_empty() => ErrorCode::None,
            Some(_) => ErrorCode::NonEmptyGroup,
        };
        if error == ErrorCode::None {
            loop {
                let places = self.offsets.places(&id, PLACES_MAX);
                if places.is_empty() {
                    break;
                }
                for (topic, partition) in places {
                    if budget.bytes == 0 {
                        return Some(Chore::DeleteGroup(ticket, id));
                    }
                    self.drop_offset(&id, &topic, partition, budget, effects);
                }
            }
            self.drop_group(&id, budget, context, effects);
        }
        effects.answer(ticket, GroupAnswer::DeleteGroup(error.code()));
        None
    }

    fn drop_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        budget: &mut Budget,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let tombstone = offset_tombstone(group, topic, partition);
        budget.bytes = budget.bytes.saturating_sub(record_bytes(&tombstone));
        effects.records.push(tombstone);
        self.offsets.remove(group, topic, partition);
    }

    fn drop_group(
        &mut self,
        id: &str,
        budget: &mut Budget,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        for tombstone in self.end_group(id, context, effects) {
            budget.bytes = budget.bytes.saturating_sub(record_bytes(&tombstone));
            effects.records.push(tombstone);
        }
    }

    fn delete_topics_step(
        &mut self,
        names: Vec<String>,
        sequence: u64,
        mut after: Option<Arc<str>>,
        budget: &mut Budget,
        effects: &mut Effects<GroupAnswer>,
    ) -> Option<Chore> {
        while !budget.is_spent() {
            let group = self.offsets.groups_after(after.as_ref()).next().cloned()?;
            budget.groups -= 1;
            for name in &names {
                let places = self.offsets.places_of_topic(&group, name, sequence);
                for partition in places {
                    if budget.bytes == 0 {
                        break;
                    }
                    self.drop_offset(&group, name, partition, budget, effects);
                }
            }
            if budget.bytes > 0 {
                after = Some(group);
            }
        }
        Some(Chore::DeleteTopics {
            names,
            sequence,
            after,
        })
    }

    fn expire_step(
        &mut self,
        mut after: Option<Arc<str>>,
        budget: &mut Budget,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) -> Option<Chore> {
        while !budget.is_spent() {
            let start = after.as_ref().map_or(Unbounded, Excluded);
            let mut groups = self.groups.range::<Arc<str>, _>((start, Unbounded));
            let id = groups.next().map(|(id, _)| Arc::clone(id))?;
            budget.groups -= 1;
            self.expire_group(&id, budget, context, effects);
            if budget.bytes > 0 {
                after = Some(id);
            }
        }
        Some(Chore::Expire { after })
    }

    /// Writes tombstones for the expired offsets of a group, and for the group if it has none left.
    fn expire_group(
        &mut self,
        id: &Arc<str>,
        budget: &mut Budget,
        context: &mut Context<'_>,
        effects: &mut Effects<GroupAnswer>,
    ) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        let rule = ExpiryRule::of(group);
        let empty = group.is_empty() && !group.has_pending();
        let retention_ms = context.groups.offsets_retention_ms;
        let mut expired: Vec<(Box<str>, i32)> = Vec::new();
        for (topic, partitions) in self.offsets.topics(id) {
            if group.is_subscribed(topic) {
                continue;
            }
            let old = partitions
                .iter()
                .filter(|entry| rule.has_expired(&entry.1, context.wall_ms, retention_ms))
                .filter(|entry| !self.offsets.is_pending(id, topic, entry.0));
            expired.extend(old.map(|entry| (topic.into(), entry.0)));
        }
        // From the end, where taking away is cheap.
        for (topic, partition) in expired.into_iter().rev() {
            if budget.bytes == 0 {
                return;
            }
            self.drop_offset(id, &topic, partition, budget, effects);
        }
        if empty && !self.offsets.has_committed(id) && !self.offsets.has_pending(id) {
            self.drop_group(id, budget, context, effects);
        }
    }
}

/// From when on a group's offsets age.
enum ExpiryRule {
    /// They do not.
    Never,
    /// From the time the group lost its last member.
    Since(i64),
    /// Each from its commit.
    Commit,
}

impl ExpiryRule {
    fn of(group: &Group) -> ExpiryRule {
        let Some(group) = group.classic() else {
            return ExpiryRule::Commit;
        };
        if group.protocol_type.is_none() {
            return ExpiryRule::Commit;
        }
        match group.state {
            State::Empty => group
                .state_since_ms
                .map_or(ExpiryRule::Commit, ExpiryRule::Since),
            State::Stable if group.uses_consumer_protocol() && group.knows_subscription() => {
                ExpiryRule::Commit
            }
            _ => ExpiryRule::Never,
        }
    }

    fn has_expired(&self, offset: &CommittedOffset, wall_ms: i64, retention_ms: i64) -> bool {
        let base_ms = match self {
            ExpiryRule::Never => return false,
            ExpiryRule::Since(since_ms) => *since_ms,
            ExpiryRule::Commit => offset.commit_ms,
        };
        match offset.expire_ms() {
            Some(expire_ms) => wall_ms >= expire_ms,
            None => wall_ms.saturating_sub(base_ms) >= retention_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::group_records::group_tombstone;
    use super::*;
    use crate::coordinator::context::Client;
    use crate::coordinator::group_request::GroupRequest;
    use crate::coordinator::group_world::{Entry, World};
    use crate::coordinator::scenario_requests::{Arguments, with_request};

    const PARTITIONS: i32 = 6_000;

    /// Commits offsets for all partitions of the topic, in several requests.
    fn commit_all(world: &mut World, group: &str, topic: &str) {
        for first in (0..PARTITIONS).step_by(1_000) {
            let offsets = (first..first + 1_000).map(|partition| format!("{topic}/{partition}=1"));
            let offsets = offsets.collect::<Vec<_>>().join(",");
            let arguments = Arguments::parse(&[group, &format!("offsets={offsets}")]);
            with_request("commit", &arguments, |request| {
                world.ask(client(), Ticket(0), request);
            });
        }
    }

    fn client() -> Client<'static> {
        Client {
            id: "A",
            host: "/127.0.0.1",
            version: 9,
        }
    }

    fn world() -> World {
        let mut world = World::new();
        let name = "t".repeat(200);
        world.topics.0.insert(name.clone(), (PARTITIONS, 1));
        commit_all(&mut world, "g", &name);
        world
    }

    /// Lets the shard work until it has nothing to do, and gives the answers.
    fn finish(world: &mut World, first: Effects<GroupAnswer>) -> Vec<(Ticket, GroupAnswer)> {
        let mut answers = Vec::new();
        let mut calls = 0;
        let mut effects = first;
        loop {
            let bytes: usize = effects.records.iter().map(record_bytes).sum();
            assert!(bytes <= CALL_BYTES_MAX + 1_000, "{bytes} bytes in one call");
            answers.extend(effects.answers);
            calls += 1;
            if world.shard.next_due_ms() != Some(0) {
                break;
            }
            effects = world.call(Client::default(), GroupShard::tick);
        }
        assert!(calls > 1, "all at once");
        answers
    }

    #[test]
    fn a_large_group_is_deleted_in_steps_and_answered_at_the_end() {
        let mut world = world();
        let effects = world.ask(client(), Ticket(1), GroupRequest::DeleteGroup("g"));
        assert!(effects.answers.is_empty());
        let answers = finish(&mut world, effects);
        assert_eq!(answers, [(Ticket(1), GroupAnswer::DeleteGroup(0))]);
        assert_eq!(world.shard.counts(), Default::default());
        let Some(Entry::Record(last, _)) = world.log.last() else {
            panic!("nothing was written");
        };
        assert_eq!(*last, group_tombstone("g"));
    }

    #[test]
    fn a_group_that_gets_members_while_it_is_deleted_stays() {
        let mut world = world();
        let first = world.ask(client(), Ticket(1), GroupRequest::DeleteGroup("g"));
        let arguments = Arguments::parse(&["g", "instance=i"]);
        with_request("join", &arguments, |request| {
            world.ask(client(), Ticket(2), request)
        });
        assert!(first.answers.is_empty());
        let left = world.call(Client::default(), GroupShard::tick);
        let refused = GroupAnswer::DeleteGroup(ErrorCode::NonEmptyGroup.code());
        assert_eq!(left.answers, [(Ticket(1), refused)]);
        assert_eq!(world.shard.counts().members, 1);
    }

    #[test]
    fn offsets_of_a_deleted_topic_go_in_steps_and_those_of_its_successor_stay() {
        let mut world = world();
        let name = "t".repeat(200);
        let names = [name.clone()];
        let first = world.call(Client::default(), |shard, context, effects| {
            shard.topics_deleted(context, &names, effects);
        });
        let arguments = Arguments::parse(&["g", &format!("offsets={name}/0=7")]);
        with_request("commit", &arguments, |request| {
            world.ask(client(), Ticket(2), request);
        });
        finish(&mut world, first);
        assert_eq!(world.shard.counts().offsets, 1);
        let kept = world.shard.offsets.get("g", &name, 0);
        assert_eq!(kept.map(|kept| kept.offset), Some(7));
    }

    #[test]
    fn many_expired_offsets_go_in_steps() {
        let mut world = world();
        world.groups.offsets_retention_ms = 1_000;
        world.now_ms = 600_000;
        let first = world.call(Client::default(), GroupShard::tick);
        finish(&mut world, first);
        assert_eq!(world.shard.counts(), Default::default());
    }

    #[test]
    fn a_commit_that_fits_no_batch_is_refused_as_a_whole() {
        let mut world = world();
        let name = "t".repeat(200);
        let offsets = (0..PARTITIONS).map(|partition| format!("{name}/{partition}=9"));
        let offsets = offsets.collect::<Vec<_>>().join(",");
        let arguments = Arguments::parse(&["g", &format!("offsets={offsets}")]);
        let effects = with_request("commit", &arguments, |request| {
            world.ask(client(), Ticket(1), request)
        });
        assert!(effects.records.is_empty());
        let [(_, GroupAnswer::OffsetCommit(answer))] = &effects.answers[..] else {
            panic!("{:?}", effects.answers.len());
        };
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let refused = ErrorCode::InvalidCommitOffsetSize.code();
        assert!(partitions.all(|partition| partition.error_code == refused));
        let kept = world.shard.offsets.get("g", &name, 0);
        assert_eq!(kept.map(|kept| kept.offset), Some(1));
    }
}
