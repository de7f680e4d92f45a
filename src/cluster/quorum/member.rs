//! Who takes part in the quorum, and how that changes.
//!
//! # Format (little-endian)
//! ```text
//! member:  node id 4 | has a directory id 1 (0, 1) | [directory id 16] | host 2 + bytes | port 2
//! members: voters 4 | members | learners 4 | members
//! change:  kind 1 | 0 add learner: member / 1 promote: node id 4 / 2 remove: node id 4
//! ```

use std::collections::BTreeMap;

use crate::log::bytes::{Fields, Malformed, put_count, put_text};
use crate::wire::codec::Uuid;

/// Longest name of a host that DNS knows.
const HOST_MOST_BYTES: usize = 255;

/// Fewest bytes of a member.
const MEMBER_LEAST_BYTES: usize = 9;

/// A node of the quorum: a voter, or a learner that is to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its id, not negative.
    pub node_id: i32,
    /// The data directory that keeps its promises, if it was named.
    pub directory_id: Option<Uuid>,
    /// Where its peers reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl Voter {
    /// Whether it may take part: other members' bytes are held to the same bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.node_id >= 0 && self.host.len() <= HOST_MOST_BYTES
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.node_id.to_le_bytes());
        into.push(u8::from(self.directory_id.is_some()));
        if let Some(id) = self.directory_id {
            into.extend_from_slice(&id.0);
        }
        put_text(into, &self.host);
        into.extend_from_slice(&self.port.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Voter, Malformed> {
        let at = fields.position();
        let node_id = fields.i32()?;
        let directory_id = match fields.u8()? {
            0 => None,
            1 => Some(Uuid(fields.array()?)),
            _ => return Err(Malformed(at)),
        };
        let voter = Voter {
            node_id,
            directory_id,
            host: fields.text()?.to_string(),
            port: u16::from_le_bytes(fields.array()?),
        };
        match voter.is_valid() {
            true => Ok(voter),
            false => Err(Malformed(at)),
        }
    }
}

/// All who take part at one index of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose votes and acknowledgements count, by node id.
    pub voters: BTreeMap<i32, Voter>,
    /// Those who only follow, by node id.
    pub learners: BTreeMap<i32, Voter>,
}

impl Members {
    /// A quorum that begins with these voters.
    #[must_use]
    pub fn founded_by(voters: Vec<Voter>) -> Members {
        let voters = voters.into_iter().map(|voter| (voter.node_id, voter));
        Members {
            voters: voters.collect(),
            learners: BTreeMap::new(),
        }
    }

    /// A member by its id.
    #[must_use]
    pub fn get(&self, node_id: i32) -> Option<&Voter> {
        let learner = || self.learners.get(&node_id);
        self.voters.get(&node_id).or_else(learner)
    }

    /// Changes what a committed change says.
    pub(super) fn apply(&mut self, change: &MembershipChange) {
        match change {
            MembershipChange::AddLearner(member) => {
                self.learners.insert(member.node_id, member.clone());
            }
            MembershipChange::Promote(node_id) => {
                if let Some(member) = self.learners.remove(node_id) {
                    self.voters.insert(*node_id, member);
                }
            }
            MembershipChange::Remove(node_id) => {
                self.voters.remove(node_id);
                self.learners.remove(node_id);
            }
        }
    }

    /// Appends everything; the format is at the head of this file.
    pub fn encode(&self, into: &mut Vec<u8>) {
        for members in [&self.voters, &self.learners] {
            put_count(into, members.len());
            members.values().for_each(|member| member.encode(into));
        }
    }

    /// Reads what [`Members::encode`] wrote; nobody is in it twice.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Members, Malformed> {
        let mut members = Members::default();
        for is_voter in [true, false] {
            for _ in 0..fields.count(MEMBER_LEAST_BYTES)? {
                let at = fields.position();
                let member = Voter::decode(fields)?;
                if members.get(member.node_id).is_some() {
                    return Err(Malformed(at));
                }
                let list = match is_voter {
                    true => &mut members.voters,
                    false => &mut members.learners,
                };
                list.insert(member.node_id, member);
            }
        }
        Ok(members)
    }
}

/// One step from some members to others. Quorums before and after one step always share a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// A node that is no member begins to follow.
    AddLearner(Voter),
    /// A learner becomes a voter.
    Promote(i32),
    /// A voter or a learner leaves.
    Remove(i32),
}

impl MembershipChange {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            MembershipChange::AddLearner(member) => {
                bytes.push(0);
                member.encode(&mut bytes);
            }
            MembershipChange::Promote(node_id) => {
                bytes.push(1);
                bytes.extend_from_slice(&node_id.to_le_bytes());
            }
            MembershipChange::Remove(node_id) => {
                bytes.push(2);
                bytes.extend_from_slice(&node_id.to_le_bytes());
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<MembershipChange, Malformed> {
        let mut fields = Fields::new(bytes);
        let change = match fields.u8()? {
            0 => MembershipChange::AddLearner(Voter::decode(&mut fields)?),
            1 => MembershipChange::Promote(node_id(&mut fields)?),
            2 => MembershipChange::Remove(node_id(&mut fields)?),
            _ => return Err(Malformed(0)),
        };
        match fields.remaining() {
            0 => Ok(change),
            _ => Err(Malformed(fields.position())),
        }
    }
}

fn node_id(fields: &mut Fields<'_>) -> Result<i32, Malformed> {
    let at = fields.position();
    let node_id = fields.i32()?;
    match node_id >= 0 {
        true => Ok(node_id),
        false => Err(Malformed(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: i32) -> Voter {
        Voter {
            node_id,
            directory_id: (node_id % 2 == 0).then_some(Uuid([node_id as u8; 16])),
            host: format!("host-{node_id}"),
            port: 9093,
        }
    }

    #[test]
    fn members_change_step_by_step_and_are_read_back() {
        let mut members = Members::founded_by(vec![member(1), member(2)]);
        let changes = [
            MembershipChange::AddLearner(member(3)),
            MembershipChange::AddLearner(member(4)),
            MembershipChange::Promote(3),
            MembershipChange::Remove(1),
            MembershipChange::Promote(9),
        ];
        for change in &changes {
            assert_eq!(
                MembershipChange::decode(&change.encode()).as_ref(),
                Ok(change)
            );
            members.apply(change);
        }
        assert_eq!(members.voters.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(members.get(4), Some(&member(4)));
        assert_eq!(members.get(1), None);
        let mut bytes = Vec::new();
        members.encode(&mut bytes);
        assert_eq!(Members::decode(&mut Fields::new(&bytes)), Ok(members));
    }

    #[test]
    fn nobody_is_a_member_twice_or_without_an_id() {
        let mut twice = Members::founded_by(vec![member(1)]);
        twice.learners.insert(1, member(1));
        let mut negative = Members::founded_by(vec![member(1)]);
        negative.voters.get_mut(&1).unwrap().node_id = -1;
        for members in [twice, negative] {
            let mut bytes = Vec::new();
            members.encode(&mut bytes);
            assert!(Members::decode(&mut Fields::new(&bytes)).is_err());
        }
        assert!(MembershipChange::decode(&[1, 255, 255, 255, 255]).is_err());
        assert!(MembershipChange::decode(&[1, 0, 0, 0, 0, 0]).is_err());
    }
}
