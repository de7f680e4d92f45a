//! Kafka's `range` assignor, for when this process leads its group.

use std::collections::{BTreeMap, BTreeSet};

use super::member_protocol::Share;

/// A member, as it said when it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) topics: BTreeSet<String>,
}

impl Subscriber {
    /// Static members come first, by their instance id; the others follow by their member id.
    fn order(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance_id) => (false, instance_id),
            None => (true, &self.member_id),
        }
    }
}

/// Partitions of every member, by member id. `counts` has how many partitions topics have; topics
/// that are not in it do not exist.
pub(crate) fn assign(
    subscribers: &[Subscriber],
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, Share> {
    let mut ordered: Vec<&Subscriber> = subscribers.iter().collect();
    ordered.sort_by(|a, b| a.order().cmp(&b.order()));
    let ids = ordered
        .iter()
        .map(|it| (it.member_id.clone(), Share::new()));
    let mut shares: BTreeMap<String, Share> = ids.collect();
    for (topic, count) in counts {
        let readers: Vec<_> = ordered
            .iter()
            .filter(|subscriber| subscriber.topics.contains(topic))
            .collect();
        if readers.is_empty() {
            continue;
        }
        let (share, larger) = (count / readers.len(), count % readers.len());
        let mut next = 0;
        for (turn, reader) in readers.iter().enumerate() {
            let end = next + share + usize::from(turn < larger);
            let partitions: Vec<i32> = (next as i32..end as i32).collect();
            next = end;
            if !partitions.is_empty() {
                let share = shares.entry(reader.member_id.clone()).or_default();
                share.insert(topic.clone(), partitions);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(member_id: &str, instance_id: Option<&str>, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        }
    }

    #[test]
    fn the_first_members_get_the_first_partitions_and_what_does_not_divide() {
        let counts = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 1)]);
        let members = [
            subscriber("y", None, &["a", "b"]),
            subscriber("x", None, &["a", "gone"]),
        ];
        let shares = assign(&members, &counts);
        assert_eq!(shares["x"], Share::from([("a".to_owned(), vec![0, 1, 2])]));
        assert_eq!(
            shares["y"],
            Share::from([("a".to_owned(), vec![3, 4]), ("b".to_owned(), vec![0])])
        );
    }

    #[test]
    fn static_members_come_first_and_members_without_partitions_are_named() {
        let counts = BTreeMap::from([("a".to_owned(), 2)]);
        let members = [
            subscriber("a", None, &["a"]),
            subscriber("z", Some("1"), &["a"]),
            subscriber("b", None, &["a"]),
        ];
        let shares = assign(&members, &counts);
        assert_eq!(shares["z"]["a"], [0]);
        assert_eq!(shares["a"]["a"], [1]);
        assert_eq!(shares["b"], Share::new());
    }
}
