//! Ranges: of every topic, the first members in order get the first partitions.
//!
//! Members that subscribe to topics with equally many partitions get the same numbers of each, so
//! that what has the same key in both is read by one member. For this nothing is kept of what the
//! members had, as in Kafka; the order of the members, static ones first, keeps the ranges where
//! they are while static members come and go.

use super::assignor::{Question, TopicPartition};

/// Per member, its partitions.
#[must_use]
pub(super) fn assign(question: &Question) -> Vec<Vec<TopicPartition>> {
    let mut answer = vec![Vec::new(); question.members.len()];
    for (topic, subscribers) in question.subscribers().iter().enumerate() {
        if subscribers.is_empty() {
            continue;
        }
        let partitions = usize::try_from(question.topics[topic]).unwrap_or(0);
        let (share, larger) = (
            partitions / subscribers.len(),
            partitions % subscribers.len(),
        );
        let mut next = 0_i32;
        for (turn, &member) in subscribers.iter().enumerate() {
            let end = next + (share + usize::from(turn < larger)) as i32;
            answer[member].extend((next..end).map(|partition| (topic, partition)));
            next = end;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::super::assignor::Subject;
    use super::super::assignor::tests::{asked_again, check_complete, random_question};
    use super::*;
    use fastrand::Rng;

    #[test]
    fn ranges_of_equally_large_topics_are_the_same() {
        let question = Question {
            topics: vec![7, 7, 2],
            subscriptions: vec![vec![0, 1, 2]],
            members: vec![Subject::default(); 3],
        };
        let answer = assign(&question);
        let of = |member: usize, topic| -> Vec<i32> {
            let mine = answer[member].iter().filter(|(t, _)| *t == topic);
            mine.map(|(_, partition)| *partition).collect()
        };
        assert_eq!((of(0, 0), of(0, 1)), (vec![0, 1, 2], vec![0, 1, 2]));
        assert_eq!((of(1, 0), of(1, 1)), (vec![3, 4], vec![3, 4]));
        assert_eq!((of(2, 0), of(2, 1)), (vec![5, 6], vec![5, 6]));
        assert_eq!((of(0, 2), of(1, 2), of(2, 2)), (vec![0], vec![1], vec![]));
    }

    #[test]
    fn any_group_gets_ranges_whose_sizes_differ_by_one_at_most() {
        for seed in 0..2_000 {
            let mut random = Rng::with_seed(seed);
            let homogeneous = random.bool();
            let question = random_question(&mut random, homogeneous);
            let answer = assign(&question);
            check_complete(&question, &answer);
            for (topic, subscribers) in question.subscribers().iter().enumerate() {
                let ranges: Vec<Vec<i32>> = (subscribers.iter())
                    .map(|member| answer[*member].iter().filter(|(t, _)| *t == topic))
                    .map(|mine| mine.map(|(_, partition)| *partition).collect())
                    .collect();
                for range in &ranges {
                    assert!(
                        range.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                        "seed {seed}"
                    );
                }
                let sizes: Vec<usize> = ranges.iter().map(Vec::len).collect();
                let spread = sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0);
                assert!(spread <= 1, "seed {seed}");
            }
            assert_eq!(
                assign(&asked_again(&question, &answer)),
                answer,
                "seed {seed}"
            );
        }
    }
}
