//! The ring of files of one journal: which is written, which are free, which wait for a checkpoint.
//!
//! Decisions only; `journal.rs` opens, creates and removes.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::checkpoint::JournalPlace;
use crate::runtime::disk::File;

/// Free files kept in store while the journal may still grow.
const FREE_KEPT: usize = 3;

struct JournalFile {
    number: u64,
    path: PathBuf,
    file: File,
    size_bytes: u64,
    position: u64,
    last_sequence: u64,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct JournalFiles {
    current: Option<JournalFile>,
    free: VecDeque<JournalFile>,
    used: VecDeque<JournalFile>,
    allocated_bytes: u64,
}

impl JournalFiles {
    pub(super) fn add(&mut self, path: PathBuf, file: File, size_bytes: u64) {
        self.allocated_bytes += size_bytes;
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        self.free.push_back(JournalFile {
            number: number.expect("journal files are numbers"),
            path,
            file,
            size_bytes,
            position: 0,
            last_sequence: 0,
        });
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether another file of `file_bytes` should be made.
    pub(super) fn wants_more(&self, file_bytes: u64, total_bytes: u64) -> bool {
        self.free.len() < FREE_KEPT && self.allocated_bytes + file_bytes <= total_bytes
    }

    /// Bytes of groups that no checkpoint covers yet.
    pub(super) fn uncovered_bytes(&self) -> u64 {
        let used: u64 = self.used.iter().map(|file| file.position).sum();
        used + self.current.as_ref().map_or(0, |file| file.position)
    }

    /// Whether the current file takes `bytes` more.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|file| file.position + bytes <= file.size_bytes)
    }

    /// Goes on to the next free file, if there is one to spare: the last one is kept for the cut of
    /// the checkpoint that frees the others.
    pub(super) fn advance(&mut self, for_cut: bool) -> bool {
        let reserved = usize::from(!for_cut && !self.used.is_empty());
        if self.free.len() <= reserved {
            return false;
        }
        let next = self.free.pop_front();
        let full = std::mem::replace(&mut self.current, next);
        self.used.extend(full);
        true
    }

    /// Gives the next group its place: the file, where it begins, and where it ends.
    pub(super) fn place(&mut self, sequence: u64, bytes: u64) -> (File, u64, JournalPlace) {
        let file = self.current.as_mut().expect("room was made");
        let position = file.position;
        file.position += bytes;
        file.last_sequence = sequence;
        assert!(
            file.position <= file.size_bytes,
            "group at {position} of {}",
            file.size_bytes
        );
        let end = JournalPlace {
            file: file.number,
            position: file.position,
        };
        (file.file.clone(), position, end)
    }

    /// Frees files whose groups are all covered. Those smaller than `least_bytes` cannot hold a cut
    /// in reserve; they leave the journal and are returned.
    pub(super) fn release(&mut self, covered: u64, least_bytes: u64) -> Vec<PathBuf> {
        let mut removed = Vec::new();
        while self
            .used
            .front()
            .is_some_and(|file| file.last_sequence <= covered)
        {
            let mut file = self.used.pop_front().expect("checked");
            if file.size_bytes < least_bytes {
                self.allocated_bytes -= file.size_bytes;
                removed.push(file.path);
                continue;
            }
            file.position = 0;
            self.free.push_back(file);
        }
        removed
    }
}
