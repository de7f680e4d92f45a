//! One entry of the quorum's log.

use raft::eraftpb;

use super::member::MembershipChange;
use crate::log::bytes::{Fields, Malformed};

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A decision of the controller; without bytes the beginning of a leader's term.
    Decision,
    /// A change of the members.
    Membership,
}

/// One entry. Its place is its index, and one index with one term has one content for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// What it says.
    pub data: Vec<u8>,
}

impl Entry {
    /// What a log keeps of it besides index and term.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.data.len());
        bytes.push(self.kind.code());
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// An entry that a log kept.
    pub fn from_content(index: u64, term: u64, content: &[u8]) -> Result<Entry, Malformed> {
        let mut fields = Fields::new(content);
        let kind = EntryKind::from_code(fields.u8()?)?;
        let data = fields.take(fields.remaining())?.to_vec();
        if kind == EntryKind::Membership {
            MembershipChange::decode(&data)?;
        }
        Ok(Entry {
            index,
            term,
            kind,
            data,
        })
    }

    /// As the library has it. It reads what it finds in the data of a membership entry, so ours
    /// stands in the context, which it leaves alone.
    pub(super) fn into_raft(self) -> eraftpb::Entry {
        let mut entry = eraftpb::Entry {
            index: self.index,
            term: self.term,
            ..eraftpb::Entry::default()
        };
        match self.kind {
            EntryKind::Decision => entry.data = self.data.into(),
            EntryKind::Membership => {
                entry.set_entry_type(eraftpb::EntryType::EntryConfChange);
                entry.context = self.data.into();
            }
        }
        entry
    }

    pub(super) fn from_raft(entry: &eraftpb::Entry) -> Entry {
        let (kind, data) = match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal => (EntryKind::Decision, &entry.data),
            eraftpb::EntryType::EntryConfChange => (EntryKind::Membership, &entry.context),
            eraftpb::EntryType::EntryConfChangeV2 => panic!("joint changes are never proposed"),
        };
        Entry {
            index: entry.index,
            term: entry.term,
            kind,
            data: data.to_vec(),
        }
    }
}

impl EntryKind {
    pub(super) fn code(self) -> u8 {
        match self {
            EntryKind::Decision => 0,
            EntryKind::Membership => 1,
        }
    }

    pub(super) fn from_code(code: u8) -> Result<EntryKind, Malformed> {
        match code {
            0 => Ok(EntryKind::Decision),
            1 => Ok(EntryKind::Membership),
            _ => Err(Malformed(0)),
        }
    }
}
