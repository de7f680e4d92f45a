//! Committed offsets, and those of transactions that are not decided yet.
//!
//! A group's topics are stored once each; an offset takes 64 bytes, and more only where it has
//! metadata or says itself when it expires. A tombstone takes what is committed and what is
//! pending. When a transaction commits, its offset counts unless a later one was committed
//! meanwhile: `sequence` is the order of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::wire::codec::Uuid;
use crate::wire::messages::records_offset_commit::OffsetCommitValue;

/// An offset that a group committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// The next record to read.
    pub(super) offset: i64,
    /// When it was committed.
    pub(super) commit_ms: i64,
    /// The topic's id, or zero where the record has none.
    pub(super) topic_id: Uuid,
    /// The leader epoch of the last record read, or -1.
    pub(super) leader_epoch: i32,
    sequence: u64,
    rest: Option<Box<Rest>>,
}

/// What few offsets have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    metadata: Box<str>,
    expire_ms: Option<i64>,
}

impl CommittedOffset {
    fn new(value: &OffsetCommitValue<'_>, sequence: u64) -> CommittedOffset {
        let expire_ms = (value.expire_timestamp != -1).then_some(value.expire_timestamp);
        let rest = (!value.metadata.is_empty() || expire_ms.is_some()).then(|| {
            Box::new(Rest {
                metadata: value.metadata.as_ref().into(),
                expire_ms,
            })
        });
        CommittedOffset {
            offset: value.offset,
            commit_ms: value.commit_timestamp,
            topic_id: value.topic_id,
            leader_epoch: value.leader_epoch,
            sequence,
            rest,
        }
    }

    /// What the client wanted to have kept with it.
    pub(super) fn metadata(&self) -> &str {
        self.rest.as_ref().map_or("", |rest| &rest.metadata)
    }

    /// When it expires, if the client said so.
    pub(super) fn expire_ms(&self) -> Option<i64> {
        self.rest.as_ref().and_then(|rest| rest.expire_ms)
    }
}

/// A partition of a topic of a group.
pub(super) type Place = (Box<str>, i32);

/// Topics by name. Most groups have few: the nodes of a tree would be mostly room.
#[derive(Debug, Default, PartialEq)]
struct Topics(Vec<(Box<str>, Vec<(i32, CommittedOffset)>)>);

impl Topics {
    fn find(&self, topic: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| (*entry.0).cmp(topic))
    }

    fn get(&self, topic: &str) -> Option<&Vec<(i32, CommittedOffset)>> {
        self.find(topic).ok().map(|index| &self.0[index].1)
    }

    fn get_mut(&mut self, topic: &str) -> Option<&mut Vec<(i32, CommittedOffset)>> {
        let index = self.find(topic).ok()?;
        Some(&mut self.0[index].1)
    }

    fn get_or_insert(&mut self, topic: &str) -> &mut Vec<(i32, CommittedOffset)> {
        let index = match self.find(topic) {
            Ok(index) => index,
            Err(index) => {
                reserve_few(&mut self.0);
                self.0.insert(index, (topic.into(), Vec::new()));
                index
            }
        };
        &mut self.0[index].1
    }

    fn remove(&mut self, topic: &str) {
        if let Ok(index) = self.find(topic) {
            self.0.remove(index);
        }
    }
}

/// Room for what comes next, and for little more.
fn reserve_few<T>(vector: &mut Vec<T>) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact(1 + vector.len() / 4);
    }
}

#[derive(Debug, Default, PartialEq)]
struct GroupOffsets {
    /// Offsets of each topic by partition, ascending.
    committed: Topics,
    /// Producers with an open transaction.
    open: BTreeMap<Box<str>, BTreeMap<i32, BTreeSet<i64>>>,
}

type Pending = BTreeMap<Arc<str>, BTreeMap<Place, CommittedOffset>>;

/// See the head of this file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OffsetTable {
    groups: BTreeMap<Arc<str>, GroupOffsets>,
    pending: BTreeMap<i64, Pending>,
    sequence: u64,
    count: usize,
}

impl OffsetTable {
    /// Committed offsets of all groups.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The order of the log, up to now.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Commits an offset.
    pub(super) fn put(
        &mut self,
        group: &Arc<str>,
        topic: &str,
        partition: i32,
        value: &OffsetCommitValue<'_>,
    ) {
        self.sequence += 1;
        let offset = CommittedOffset::new(value, self.sequence);
        self.store(group, topic, partition, offset);
    }

    fn store(&mut self, group: &Arc<str>, topic: &str, partition: i32, offset: CommittedOffset) {
        let offsets = self.group_mut(group);
        let partitions = offsets.committed.get_or_insert(topic);
        match partitions.binary_search_by_key(&partition, |entry| entry.0) {
            Ok(index) => partitions[index].1 = offset,
            Err(index) => {
                reserve_few(partitions);
                partitions.insert(index, (partition, offset));
                self.count += 1;
            }
        }
    }

    fn group_mut(&mut self, group: &Arc<str>) -> &mut GroupOffsets {
        self.groups.entry(Arc::clone(group)).or_default()
    }

    /// Keeps an offset until its transaction ends.
    pub(super) fn put_pending(
        &mut self,
        producer_id: i64,
        group: &Arc<str>,
        topic: &str,
        partition: i32,
        value: &OffsetCommitValue<'_>,
    ) {
        self.sequence += 1;
        let offset = CommittedOffset::new(value, self.sequence);
        let pending = self.pending.entry(producer_id).or_default();
        let places = pending.entry(Arc::clone(group)).or_default();
        places.insert((topic.into(), partition), offset);
        let open = &mut self.group_mut(group).open;
        let partitions = open.entry(topic.into()).or_default();
        partitions.entry(partition).or_default().insert(producer_id);
    }

    /// Takes an offset away, and what transactions have pending for it.
    pub(super) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(offsets) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(partitions) = offsets.committed.get_mut(topic) {
            if let Ok(index) = partitions.binary_search_by_key(&partition, |entry| entry.0) {
                partitions.remove(index);
                self.count -= 1;
            }
            if partitions.is_empty() {
                offsets.committed.remove(topic);
            }
        }
        let producers = offsets
            .open
            .get_mut(topic)
            .and_then(|p| p.remove(&partition));
        if offsets.open.get(topic).is_some_and(BTreeMap::is_empty) {
            offsets.open.remove(topic);
        }
        for producer_id in producers.into_iter().flatten() {
            self.remove_pending(producer_id, group, topic, partition);
        }
        self.forget_if_empty(group);
    }

    fn remove_pending(&mut self, producer_id: i64, group: &str, topic: &str, partition: i32) {
        let Some(pending) = self.pending.get_mut(&producer_id) else {
            return;
        };
        if let Some(places) = pending.get_mut(group) {
            places.remove(&(Box::from(topic), partition));
            if places.is_empty() {
                pending.remove(group);
            }
        }
        if pending.is_empty() {
            self.pending.remove(&producer_id);
        }
    }

    fn forget_if_empty(&mut self, group: &str) {
        let empty =
            |offsets: &GroupOffsets| offsets.committed.0.is_empty() && offsets.open.is_empty();
        if self.groups.get(group).is_some_and(empty) {
            self.groups.remove(group);
        }
    }

    /// Ends a producer's transaction.
    pub(super) fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        for (group, places) in self.pending.remove(&producer_id).unwrap_or_default() {
            for ((topic, partition), offset) in places {
                self.close(producer_id, &group, &topic, partition);
                let earlier = self.get(&group, &topic, partition);
                if committed && earlier.is_none_or(|e| e.sequence < offset.sequence) {
                    self.store(&group, &topic, partition, offset);
                }
            }
            self.forget_if_empty(&group);
        }
    }

    fn close(&mut self, producer_id: i64, group: &str, topic: &str, partition: i32) {
        let Some(offsets) = self.groups.get_mut(group) else {
            return;
        };
        let Some(partitions) = offsets.open.get_mut(topic) else {
            return;
        };
        if let Some(producers) = partitions.get_mut(&partition) {
            producers.remove(&producer_id);
            if producers.is_empty() {
                partitions.remove(&partition);
            }
        }
        if partitions.is_empty() {
            offsets.open.remove(topic);
        }
    }

    /// The committed offset of a partition.
    pub(super) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        let partitions = self.groups.get(group)?.committed.get(topic)?;
        let index = partitions.binary_search_by_key(&partition, |entry| entry.0);
        Some(&partitions[index.ok()?].1)
    }

    /// Whether an open transaction has an offset for the partition.
    pub(super) fn is_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        let open = self.groups.get(group).and_then(|o| o.open.get(topic));
        open.is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// Whether the group has anything committed.
    pub(super) fn has_committed(&self, group: &str) -> bool {
        let offsets = self.groups.get(group);
        offsets.is_some_and(|offsets| !offsets.committed.0.is_empty())
    }

    /// Whether an open transaction has an offset for the group.
    pub(super) fn has_pending(&self, group: &str) -> bool {
        let offsets = self.groups.get(group);
        offsets.is_some_and(|offsets| !offsets.open.is_empty())
    }

    /// Committed offsets of a group by topic and partition.
    pub(super) fn topics(
        &self,
        group: &str,
    ) -> impl Iterator<Item = (&str, &[(i32, CommittedOffset)])> {
        let committed = self.groups.get(group).map(|offsets| &offsets.committed.0);
        let topics = committed.into_iter().flatten();
        topics.map(|(topic, partitions)| (&**topic, &**partitions))
    }

    /// Some partitions with a committed or a pending offset, at most `max`, the last first.
    pub(super) fn places(&self, group: &str, max: usize) -> Vec<Place> {
        let Some(offsets) = self.groups.get(group) else {
            return Vec::new();
        };
        let committed = offsets
            .committed
            .0
            .iter()
            .rev()
            .flat_map(|(topic, partitions)| {
                // From the end, where taking away is cheap.
                partitions
                    .iter()
                    .rev()
                    .map(|entry| (topic.clone(), entry.0))
            });
        let open = offsets.open.iter().flat_map(|(topic, partitions)| {
            partitions
                .keys()
                .map(|partition| (topic.clone(), *partition))
        });
        let only_open = open.filter(|(topic, partition)| {
            let known = offsets.committed.get(topic);
            known.is_none_or(|p| p.binary_search_by_key(partition, |e| e.0).is_err())
        });
        committed.chain(only_open).take(max).collect()
    }

    /// Partitions of a topic with a committed or a pending offset that is not younger than
    /// `sequence`, the last first.
    pub(super) fn places_of_topic(&self, group: &str, topic: &str, sequence: u64) -> Vec<i32> {
        let Some(offsets) = self.groups.get(group) else {
            return Vec::new();
        };
        let mut found = BTreeSet::new();
        for (partition, offset) in offsets.committed.get(topic).into_iter().flatten() {
            if offset.sequence <= sequence {
                found.insert(*partition);
            }
        }
        for (partition, producers) in offsets.open.get(topic).into_iter().flatten() {
            let key = (Box::from(topic), *partition);
            let mut pending = producers
                .iter()
                .filter_map(|id| self.pending.get(id)?.get(group)?.get(&key));
            if pending.any(|offset| offset.sequence <= sequence) {
                found.insert(*partition);
            }
        }
        found.into_iter().rev().collect()
    }

    /// Groups with offsets from `after` on, ascending.
    pub(super) fn groups_after(&self, after: Option<&Arc<str>>) -> impl Iterator<Item = &Arc<str>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        let range = self.groups.range::<Arc<str>, _>((start, Unbounded));
        range.map(|(group, _)| group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(offset: i64) -> OffsetCommitValue<'static> {
        OffsetCommitValue {
            offset,
            ..Default::default()
        }
    }

    fn offset_of(table: &OffsetTable, topic: &str, partition: i32) -> Option<i64> {
        table.get("g", topic, partition).map(|found| found.offset)
    }

    #[test]
    fn an_offset_without_metadata_is_small() {
        assert_eq!(size_of::<(i32, CommittedOffset)>(), 64);
        let mut table = OffsetTable::default();
        table.put(&"g".into(), "t", 0, &value(1));
        assert!(table.get("g", "t", 0).expect("put").rest.is_none());
    }

    #[test]
    fn a_transaction_counts_when_it_commits_unless_a_later_commit_stands() {
        let group: Arc<str> = "g".into();
        let mut table = OffsetTable::default();
        table.put(&group, "t", 0, &value(1));
        table.put_pending(7, &group, "t", 0, &value(2));
        table.put_pending(7, &group, "t", 1, &value(3));
        table.put(&group, "t", 1, &value(9));
        assert_eq!(offset_of(&table, "t", 0), Some(1));
        assert!(table.is_pending("g", "t", 0) && table.has_pending("g"));
        table.end_transaction(7, true);
        assert_eq!(offset_of(&table, "t", 0), Some(2));
        assert_eq!(offset_of(&table, "t", 1), Some(9));
        assert!(!table.has_pending("g") && table.len() == 2);
        table.end_transaction(7, true);

        table.put_pending(7, &group, "t", 0, &value(4));
        table.end_transaction(7, false);
        assert_eq!(offset_of(&table, "t", 0), Some(2));
    }

    #[test]
    fn a_tombstone_takes_what_is_pending_too() {
        let group: Arc<str> = "g".into();
        let mut table = OffsetTable::default();
        table.put_pending(7, &group, "t", 0, &value(2));
        table.put_pending(8, &group, "t", 0, &value(3));
        table.remove("g", "t", 0);
        table.end_transaction(7, true);
        table.end_transaction(8, true);
        assert_eq!((offset_of(&table, "t", 0), table.len()), (None, 0));
        assert!(table.groups.is_empty() && table.pending.is_empty());
    }

    #[test]
    fn places_are_named_once_and_up_to_a_sequence() {
        let group: Arc<str> = "g".into();
        let mut table = OffsetTable::default();
        table.put(&group, "t", 0, &value(1));
        table.put_pending(7, &group, "t", 0, &value(2));
        table.put_pending(7, &group, "t", 1, &value(2));
        let mark = table.sequence();
        table.put(&group, "t", 2, &value(1));
        let all = table.places("g", 10);
        assert_eq!(all, [("t".into(), 2), ("t".into(), 0), ("t".into(), 1)]);
        assert_eq!(table.places("g", 1).len(), 1);
        assert_eq!(table.places_of_topic("g", "t", mark), [1, 0]);
        assert_eq!(table.groups_after(None).count(), 1);
        assert_eq!(table.groups_after(Some(&group)).count(), 0);
    }
}
