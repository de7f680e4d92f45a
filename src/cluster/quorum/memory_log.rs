//! The entries since the last snapshot, in memory, where the library reads them.
//!
//! What is here may be on its way to the disk still: the library keeps the difference in mind.

use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::member::Members;

/// The library's id of a node: it knows no 0.
pub(super) fn raft_id(node_id: i32) -> u64 {
    u64::try_from(node_id).expect("node ids are not negative") + 1
}

/// The node that has an id of the library, if it stands for one.
pub(super) fn node_id(raft_id: u64) -> Option<i32> {
    i32::try_from(raft_id.checked_sub(1)?).ok()
}

/// The members as the library has them.
pub(super) fn conf_state(members: &Members) -> ConfState {
    let ids = |ids: Vec<i32>| ids.into_iter().map(raft_id).collect::<Vec<u64>>();
    ConfState {
        voters: ids(members.voters.keys().copied().collect()),
        learners: ids(members.learners.keys().copied().collect()),
        ..ConfState::default()
    }
}

/// See the head of this file.
pub(super) struct MemoryLog {
    initial: RaftState,
    /// The entry before the first one here, of which only the term is known.
    base: (u64, u64),
    entries: Vec<Entry>,
    /// What a follower gets that needs entries from before the base, while it is kept.
    snapshot: Option<Snapshot>,
    snapshot_wanted: Cell<bool>,
}

impl MemoryLog {
    pub(super) fn new(
        hard_state: HardState,
        members: &Members,
        base: (u64, u64),
        entries: Vec<Entry>,
    ) -> MemoryLog {
        MemoryLog {
            initial: RaftState::new(hard_state, conf_state(members)),
            base,
            entries,
            snapshot: None,
            snapshot_wanted: Cell::new(false),
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Takes over entries in place of those that stood there; the first index that was replaced.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Option<u64> {
        let first = entries.first()?.index;
        assert!(
            first > self.base.0 && first <= self.last() + 1,
            "entry {first} does not follow {} or replace what is behind {}",
            self.last(),
            self.base.0
        );
        let is_conflict = first <= self.last();
        self.entries.truncate((first - self.base.0 - 1) as usize);
        self.entries.extend_from_slice(entries);
        is_conflict.then_some(first)
    }

    /// Begins anew behind a snapshot.
    pub(super) fn restart(&mut self, base: (u64, u64)) {
        self.base = base;
        self.entries.clear();
        self.snapshot = None;
    }

    /// Forgets the entries up to `index`.
    pub(super) fn compact(&mut self, index: u64) {
        if index <= self.base.0 {
            return;
        }
        let term = self.term(index).expect("what is compacted is here");
        self.entries.drain(..(index - self.base.0) as usize);
        self.base = (index, term);
    }

    /// Whether a follower waits for a snapshot; asked once.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    pub(super) fn set_snapshot(&mut self, snapshot: Option<Snapshot>) {
        self.snapshot = snapshot;
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let most_bytes = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        let first = (low - self.base.0 - 1) as usize;
        let end = (high - self.base.0 - 1) as usize;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add((entry.data.len() + entry.context.len()) as u64 + 64);
            is_first || bytes <= most_bytes
        };
        let entries = self.entries[first..end].iter().take_while(fits);
        Ok(entries.cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let Some(at) = index.checked_sub(self.base.0 + 1) else {
            return Err(raft::Error::Store(StorageError::Compacted));
        };
        let entry = self.entries.get(at as usize);
        let term = entry.map(|entry| entry.term);
        term.ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index.max(self.base.0) => {
                Ok(snapshot.clone())
            }
            _ => {
                self.snapshot_wanted.set(true);
                let error = StorageError::SnapshotTemporarilyUnavailable;
                Err(raft::Error::Store(error))
            }
        }
    }
}
