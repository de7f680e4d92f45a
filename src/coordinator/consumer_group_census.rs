//! Counts over the members of a group, kept with every change so that a heartbeat needs no walk over
//! all of them.

use std::collections::BTreeMap;

use super::consumer_records::{CurrentAssignment, HeldPartitions, MemberMetadata};
use crate::wire::codec::Uuid;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Members that subscribe to a topic by name.
    topics: BTreeMap<String, usize>,
    /// Members that subscribe to an expression.
    regexes: BTreeMap<String, usize>,
    /// Members that want an assignor.
    assignors: BTreeMap<String, usize>,
    /// Members that have a partition or are to give it up.
    holders: BTreeMap<(Uuid, i32), usize>,
    /// Members of the classic protocol.
    classic: usize,
    /// Members of the classic protocol that know an assignor.
    classic_protocols: BTreeMap<String, usize>,
    /// Bytes of what members said.
    metadata_bytes: usize,
}

impl Census {
    /// Counts what a member said.
    pub(super) fn add_metadata(&mut self, member: &MemberMetadata) {
        self.count_metadata(member, Step::Up);
    }

    /// Takes it back.
    pub(super) fn remove_metadata(&mut self, member: &MemberMetadata) {
        self.count_metadata(member, Step::Down);
    }

    /// Counts what a member has.
    pub(super) fn add_current(&mut self, current: &CurrentAssignment) {
        self.count_held(&current.assigned, Step::Up);
        self.count_held(&current.revoking, Step::Up);
    }

    /// Takes it back.
    pub(super) fn remove_current(&mut self, current: &CurrentAssignment) {
        self.count_held(&current.assigned, Step::Down);
        self.count_held(&current.revoking, Step::Down);
    }

    /// Topics that somebody subscribes to by name.
    pub(super) fn topics(&self) -> impl Iterator<Item = &String> {
        self.topics.keys()
    }

    /// Whether somebody subscribes to this topic by name.
    #[must_use]
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Expressions that somebody subscribes to.
    pub(super) fn regexes(&self) -> impl Iterator<Item = &String> {
        self.regexes.keys()
    }

    /// How many members subscribe to this expression.
    #[must_use]
    pub(super) fn regex_subscribers(&self, regex: &str) -> usize {
        self.regexes.get(regex).copied().unwrap_or(0)
    }

    /// How many members want this assignor.
    #[must_use]
    pub(super) fn assignor_votes(&self, name: &str) -> usize {
        self.assignors.get(name).copied().unwrap_or(0)
    }

    /// Whether a member has this partition or is to give it up.
    #[must_use]
    pub(super) fn is_held(&self, topic: Uuid, partition: i32) -> bool {
        self.holders.contains_key(&(topic, partition))
    }

    /// Members of the classic protocol.
    #[must_use]
    pub(super) fn classic_members(&self) -> usize {
        self.classic
    }

    /// How many members of the classic protocol know this assignor.
    #[must_use]
    pub(super) fn classic_supporters(&self, protocol: &str) -> usize {
        self.classic_protocols.get(protocol).copied().unwrap_or(0)
    }

    /// Bytes of what members said.
    #[must_use]
    pub(super) fn metadata_bytes(&self) -> usize {
        self.metadata_bytes
    }

    fn count_metadata(&mut self, member: &MemberMetadata, step: Step) {
        for topic in &member.topics {
            step.apply(&mut self.topics, topic);
        }
        if !member.regex.is_empty() {
            step.apply(&mut self.regexes, &member.regex);
        }
        if let Some(assignor) = &member.server_assignor {
            step.apply(&mut self.assignors, assignor);
        }
        if let Some(classic) = &member.classic {
            for (name, _) in &classic.protocols {
                step.apply(&mut self.classic_protocols, name);
            }
            match step {
                Step::Up => self.classic += 1,
                Step::Down => self.classic -= 1,
            }
        }
        match step {
            Step::Up => self.metadata_bytes += metadata_bytes(member),
            Step::Down => self.metadata_bytes -= metadata_bytes(member),
        }
    }

    fn count_held(&mut self, held: &HeldPartitions, step: Step) {
        for (topic, partitions) in held {
            for partition in partitions.keys() {
                let key = (*topic, *partition);
                let count = self.holders.entry(key).or_default();
                match step {
                    Step::Up => *count += 1,
                    Step::Down => *count = count.saturating_sub(1),
                }
                if *count == 0 {
                    self.holders.remove(&key);
                }
            }
        }
    }
}

/// The bytes that what a member says costs.
#[must_use]
pub(super) fn metadata_bytes(member: &MemberMetadata) -> usize {
    let classic = member.classic.iter().flat_map(|c| &c.protocols);
    member.topics.iter().map(String::len).sum::<usize>()
        + member.regex.len()
        + classic
            .map(|(name, bytes)| name.len() + bytes.len())
            .sum::<usize>()
}

#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
}

impl Step {
    fn apply(self, counts: &mut BTreeMap<String, usize>, key: &str) {
        match (self, counts.get_mut(key)) {
            (Step::Up, Some(count)) => *count += 1,
            (Step::Up, None) => {
                counts.insert(key.to_owned(), 1);
            }
            (Step::Down, Some(count)) if *count > 1 => *count -= 1,
            (Step::Down, _) => {
                counts.remove(key);
            }
        }
    }
}
