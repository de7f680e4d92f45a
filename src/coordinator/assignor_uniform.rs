//! Equal shares: members that subscribe to the same get equally many partitions, one more or less,
//! and keep what they have as far as the shares allow.
//!
//! Where subscriptions differ, no partition could go from a member to another that subscribes to
//! its topic and has at least two fewer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::assignor::{Question, TopicPartition};

/// Rounds over all topics that balance loads. Each one that moves anything lessens the sum of the
/// squares of the loads; more than a few are not seen.
const ROUNDS_MAX: usize = 64;

/// Per member, its partitions.
#[must_use]
pub(super) fn assign(question: &Question) -> Vec<Vec<TopicPartition>> {
    if question.members.is_empty() {
        return Vec::new();
    }
    let mut answer = if question.is_homogeneous() {
        assign_same_topics(question)
    } else {
        assign_different_topics(question)
    };
    for partitions in &mut answer {
        partitions.sort_unstable();
    }
    answer
}

/// Whose each partition is, by topic and number.
type Owners = Vec<Vec<Option<usize>>>;

/// What members hold that exists, that they subscribe to, and that is not another one's already.
fn held(question: &Question) -> Owners {
    let mut owners: Owners = (question.topics.iter())
        .map(|partitions| vec![None; usize::try_from(*partitions).unwrap_or(0)])
        .collect();
    for (number, member) in question.members.iter().enumerate() {
        let topics = question.topics_of(number);
        for &(topic, partition) in &member.held {
            if topics.binary_search(&topic).is_err() {
                continue;
            }
            let partition = usize::try_from(partition).unwrap_or(usize::MAX);
            if let Some(owner) = owners[topic].get_mut(partition) {
                owner.get_or_insert(number);
            }
        }
    }
    owners
}

fn assign_same_topics(question: &Question) -> Vec<Vec<TopicPartition>> {
    let members = question.members.len();
    let owners = held(question);
    let topics = question.topics_of(0);
    let mut answer = vec![Vec::new(); members];
    let mut free = Vec::new();
    for &topic in topics {
        for (partition, owner) in owners[topic].iter().enumerate() {
            match owner {
                Some(owner) => answer[*owner].push((topic, partition as i32)),
                None => free.push((topic, partition as i32)),
            }
        }
    }
    let total = free.len() + answer.iter().map(Vec::len).sum::<usize>();
    let (share, mut larger) = (total / members, total % members);
    let mut unfilled = VecDeque::new();
    // Who has more than the share is first to get one of the larger shares: so the least moves.
    for kept in &mut answer {
        if kept.len() > share {
            let limit = share + usize::from(larger > 0);
            larger = larger.saturating_sub(1);
            free.extend(kept.drain(limit..));
        }
    }
    for (member, kept) in answer.iter().enumerate() {
        if kept.len() > share {
            continue;
        }
        let mut missing = share - kept.len();
        // A larger share that nobody had is for those who come first.
        if larger > 0 {
            larger -= 1;
            missing += 1;
        }
        if missing > 0 {
            unfilled.push_back((member, missing));
        }
    }
    free.sort_unstable();
    for partition in free {
        let (member, missing) = unfilled.pop_front().expect("shares add up to the total");
        answer[member].push(partition);
        if missing > 1 {
            unfilled.push_back((member, missing - 1));
        }
    }
    answer
}

fn assign_different_topics(question: &Question) -> Vec<Vec<TopicPartition>> {
    let before = held(question);
    let mut balance = Balance {
        owners: before.clone(),
        before,
        loads: vec![0; question.members.len()],
        subscribers: question.subscribers(),
    };
    for owner in balance.owners.iter().flatten().flatten() {
        balance.loads[*owner] += 1;
    }
    // Topics that few can take come first, while the others can still make up for them.
    let mut order: Vec<usize> = (0..question.topics.len()).collect();
    order.sort_by_key(|topic| balance.subscribers[*topic].len());
    for topic in &order {
        balance.give_free(*topic);
    }
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for topic in &order {
            moved |= balance.level(*topic);
        }
        if !moved {
            break;
        }
    }
    balance.into_answer()
}

struct Balance {
    owners: Owners,
    before: Owners,
    loads: Vec<usize>,
    subscribers: Vec<Vec<usize>>,
}

impl Balance {
    /// Gives each free partition of a topic to who has least.
    fn give_free(&mut self, topic: usize) {
        let loads = &mut self.loads;
        let mut least: BinaryHeap<Reverse<(usize, usize)>> = (self.subscribers[topic].iter())
            .map(|member| Reverse((loads[*member], *member)))
            .collect();
        for owner in self.owners[topic].iter_mut().filter(|o| o.is_none()) {
            let Some(mut top) = least.peek_mut() else {
                return;
            };
            let Reverse((load, member)) = *top;
            *top = Reverse((load + 1, member));
            *owner = Some(member);
            loads[member] += 1;
        }
    }

    /// Moves partitions of a topic from who has most to who has least, until one more would not
    /// level the two; those that are new where they are go first.
    fn level(&mut self, topic: usize) -> bool {
        let subscribers = &self.subscribers[topic];
        let owners = &self.owners[topic];
        let highest = owners.iter().flatten().map(|member| self.loads[*member]);
        let lowest = subscribers.iter().map(|member| self.loads[*member]);
        match (highest.max(), lowest.min()) {
            (Some(highest), Some(lowest)) if highest > lowest + 1 => {}
            _ => return false,
        }
        let mut partitions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for is_new in [false, true] {
            for (partition, owner) in owners.iter().enumerate() {
                if let Some(owner) = owner
                    && (self.before[topic][partition] != Some(*owner)) == is_new
                {
                    partitions.entry(*owner).or_default().push(partition);
                }
            }
        }
        let mut givers: BTreeSet<(usize, usize)> = (partitions.keys())
            .map(|member| (self.loads[*member], *member))
            .collect();
        let mut takers: BTreeSet<(usize, usize)> = (subscribers.iter())
            .map(|member| (self.loads[*member], *member))
            .collect();
        while let (Some(giver), Some(taker)) = (givers.pop_last(), takers.pop_first()) {
            if giver.0 <= taker.0 + 1 {
                break;
            }
            let mine = partitions.get_mut(&giver.1).expect("givers have some");
            let partition = mine.pop().expect("givers have some");
            self.owners[topic][partition] = Some(taker.1);
            self.loads[giver.1] -= 1;
            self.loads[taker.1] += 1;
            if !mine.is_empty() {
                givers.insert((giver.0 - 1, giver.1));
            }
            givers.remove(&taker);
            let theirs = partitions.entry(taker.1).or_default();
            theirs.push(partition);
            givers.insert((taker.0 + 1, taker.1));
            takers.remove(&giver);
            takers.insert((giver.0 - 1, giver.1));
            takers.insert((taker.0 + 1, taker.1));
        }
        true
    }

    fn into_answer(self) -> Vec<Vec<TopicPartition>> {
        let mut answer = vec![Vec::new(); self.loads.len()];
        for (topic, owners) in self.owners.iter().enumerate() {
            for (partition, owner) in owners.iter().enumerate() {
                if let Some(owner) = owner {
                    answer[*owner].push((topic, partition as i32));
                }
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::assignor::Subject;
    use super::super::assignor::tests::{asked_again, check_complete, random_question};
    use super::*;
    use fastrand::Rng;

    fn kept(question: &Question, answer: &[Vec<TopicPartition>]) -> usize {
        (question.members.iter().zip(answer))
            .map(|(member, partitions)| {
                let held = |partition: &&TopicPartition| member.held.contains(partition);
                partitions.iter().filter(held).count()
            })
            .sum()
    }

    #[test]
    fn equal_subscriptions_are_shared_equally_and_as_little_as_possible_moves() {
        for seed in 0..2_000 {
            let mut random = Rng::with_seed(seed);
            let question = random_question(&mut random, true);
            let answer = assign(&question);
            check_complete(&question, &answer);
            let total: usize = answer.iter().map(Vec::len).sum();
            let (share, larger) = (total / answer.len(), total % answer.len());
            for partitions in &answer {
                assert!((share..=share + 1).contains(&partitions.len()), "{seed}");
            }
            let valid: Vec<usize> = (0..answer.len())
                .map(|member| {
                    let exists = |&&(topic, partition): &&TopicPartition| {
                        question.topics_of(member).contains(&topic)
                            && partition < question.topics[topic]
                    };
                    question.members[member].held.iter().filter(exists).count()
                })
                .collect();
            let could_stay: usize = valid.iter().map(|held| (*held).min(share)).sum();
            let over = valid.iter().filter(|held| **held > share).count();
            assert_eq!(
                kept(&question, &answer),
                could_stay + over.min(larger),
                "{seed}"
            );
            let again = asked_again(&question, &answer);
            assert_eq!(assign(&again), answer, "{seed}");
        }
    }

    #[test]
    fn different_subscriptions_are_balanced_and_stay_so() {
        for seed in 0..4_000 {
            let mut random = Rng::with_seed(seed);
            let question = random_question(&mut random, false);
            let answer = assign(&question);
            check_complete(&question, &answer);
            let subscribers = question.subscribers();
            for partitions in &answer {
                for (topic, _) in partitions {
                    let least = subscribers[*topic].iter().map(|m| answer[*m].len()).min();
                    let least = least.expect("the owner subscribes");
                    assert!(partitions.len() <= least + 1, "seed {seed}: {answer:?}");
                }
            }
            let again = asked_again(&question, &answer);
            assert_eq!(assign(&again), answer, "seed {seed}");
        }
    }

    #[test]
    fn a_member_that_leaves_or_comes_moves_nothing_between_the_others() {
        let members = |count| vec![Subject::default(); count];
        let mut question = Question {
            topics: vec![12],
            subscriptions: vec![vec![0]],
            members: members(4),
        };
        let answer = assign(&question);
        assert!(answer.iter().all(|partitions| partitions.len() == 3));
        question = asked_again(&question, &answer);
        question.members.remove(1);
        let answer = assign(&question);
        assert_eq!(kept(&question, &answer), 9);
        question = asked_again(&question, &answer);
        question.members.push(Subject::default());
        let answer = assign(&question);
        assert_eq!(kept(&question, &answer), 9);
        assert!(answer.iter().all(|partitions| partitions.len() == 3));
    }

    #[test]
    fn a_thousand_members_of_two_kinds_share_many_topics() {
        let question = Question {
            topics: vec![10; 100],
            subscriptions: vec![(0..100).collect(), (0..50).collect()],
            members: (0..1_000)
                .map(|member| Subject {
                    subscription: member % 2,
                    held: Vec::new(),
                })
                .collect(),
        };
        let answer = assign(&question);
        check_complete(&question, &answer);
        assert!(answer.iter().all(|partitions| partitions.len() == 1));
    }
}
