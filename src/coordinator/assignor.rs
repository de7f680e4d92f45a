//! Which member of a consumer group is to have which partition.
//!
//! An assignor is a function of what is asked: the same question has the same answer on every
//! broker. Topics and members are numbers here; who asks knows their names.

use super::assignor_range;
use super::assignor_uniform;

/// An assignor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignor {
    /// All members get equally many partitions, and keep what they have.
    Uniform,
    /// Each member gets the same range of partitions of every topic.
    Range,
}

impl Assignor {
    /// The assignor of this name.
    #[must_use]
    pub(super) fn by_name(name: &str) -> Option<Assignor> {
        match name {
            "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// Answers a question.
    #[must_use]
    pub(super) fn assign(self, question: &Question) -> Vec<Vec<TopicPartition>> {
        match self {
            Assignor::Uniform => assignor_uniform::assign(question),
            Assignor::Range => assignor_range::assign(question),
        }
    }
}

/// A partition: the number of its topic, and its own.
pub(super) type TopicPartition = (usize, i32);

/// What an assignor is asked. The answer has, per member, its partitions in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// Per topic, how many partitions it has.
    pub(super) topics: Vec<i32>,
    /// The different subscriptions that there are: topics in ascending order.
    pub(super) subscriptions: Vec<Vec<usize>>,
    /// The members in the order in which they are served.
    pub(super) members: Vec<Subject>,
}

/// A member that is to get partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    /// Its subscription.
    pub(super) subscription: usize,
    /// What it was to have until now, in ascending order.
    pub(super) held: Vec<TopicPartition>,
}

impl Question {
    /// The topics that a member subscribes to.
    #[must_use]
    pub(super) fn topics_of(&self, member: usize) -> &[usize] {
        &self.subscriptions[self.members[member].subscription]
    }

    /// Per topic, who subscribes to it.
    #[must_use]
    pub(super) fn subscribers(&self) -> Vec<Vec<usize>> {
        let mut subscribers = vec![Vec::new(); self.topics.len()];
        for member in 0..self.members.len() {
            for &topic in self.topics_of(member) {
                subscribers[topic].push(member);
            }
        }
        subscribers
    }

    /// Whether all members subscribe to the same topics.
    #[must_use]
    pub(super) fn is_homogeneous(&self) -> bool {
        let mut members = self.members.iter();
        let first = members.next().map(|member| member.subscription);
        members.all(|member| Some(member.subscription) == first)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use fastrand::Rng;

    /// Any group, with leftovers of an older metadata among what members hold.
    pub(in crate::coordinator) fn random_question(random: &mut Rng, homogeneous: bool) -> Question {
        let topics: Vec<i32> = (0..random.usize(1..6)).map(|_| random.i32(0..9)).collect();
        let kinds = if homogeneous { 1 } else { random.usize(1..5) };
        let subscriptions: Vec<Vec<usize>> = (0..kinds)
            .map(|_| (0..topics.len()).filter(|_| random.u8(0..3) > 0).collect())
            .collect();
        let mut members: Vec<Subject> = (0..random.usize(1..9))
            .map(|_| Subject {
                subscription: random.usize(0..kinds),
                held: Vec::new(),
            })
            .collect();
        for (topic, partitions) in topics.iter().enumerate() {
            for partition in 0..partitions + 2 {
                let holder = random.usize(0..members.len() * 2);
                if let Some(member) = members.get_mut(holder) {
                    member.held.push((topic, partition));
                }
            }
        }
        Question {
            topics,
            subscriptions,
            members,
        }
    }

    /// Every partition that somebody subscribes to has one owner, who does.
    pub(in crate::coordinator) fn check_complete(
        question: &Question,
        answer: &[Vec<TopicPartition>],
    ) {
        let mut given = BTreeSet::new();
        for (member, partitions) in answer.iter().enumerate() {
            assert!(partitions.is_sorted(), "{partitions:?} is not in order");
            for &(topic, partition) in partitions {
                assert!(question.topics_of(member).contains(&topic));
                assert!(given.insert((topic, partition)), "given twice");
            }
        }
        let wanted: BTreeSet<TopicPartition> = (question.subscribers().iter().enumerate())
            .filter(|(_, members)| !members.is_empty())
            .flat_map(|(topic, _)| (0..question.topics[topic]).map(move |p| (topic, p)))
            .collect();
        assert_eq!(given, wanted);
    }

    /// The answer, asked again with itself as what the members hold.
    pub(in crate::coordinator) fn asked_again(
        question: &Question,
        answer: &[Vec<TopicPartition>],
    ) -> Question {
        let mut again = question.clone();
        for (member, partitions) in again.members.iter_mut().zip(answer) {
            member.held.clone_from(partitions);
        }
        again
    }

    #[test]
    fn assignors_have_kafkas_names() {
        assert_eq!(Assignor::by_name("uniform"), Some(Assignor::Uniform));
        assert_eq!(Assignor::by_name("range"), Some(Assignor::Range));
        assert_eq!(Assignor::by_name("sticky"), None);
    }
}
