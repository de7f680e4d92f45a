//! Finding the groups that a journal holds beyond the checkpoints.
//!
//! Groups of a file follow each other from its start, so most of it is read by walking from header
//! to header. Where no header verifies, every block is looked at: groups behind a damaged one tell
//! it from the end of the journal. A file whose first group the checkpoint covers holds nothing
//! newer, unless the checkpoint's cut lies in it, and is not read any further; one that does not
//! begin with a group is looked at as far as its first group may reach. So the time is that of the
//! groups since the checkpoint, not of the whole ring.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::startup;

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// How far the first group of a file may reach, which is the most that a group takes.
const MOST_GROUP_BYTES: u64 = 2 << 20;

/// One file of the journal directory.
pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) size_bytes: u64,
}

/// A group found in a journal file.
pub(super) struct FoundGroup {
    pub(super) file: usize,
    pub(super) position: u64,
    pub(super) header: GroupHeader,
    pub(super) checksum: u32,
    /// The body verifies.
    pub(super) whole: bool,
}

/// The groups beyond one checkpoint.
pub(super) type GroupsBySequence = BTreeMap<u64, FoundGroup>;

/// The files of a journal directory.
pub(super) fn journal_files(directory: &Path) -> io::Result<Vec<JournalFile>> {
    let mut files = Vec::new();
    for entry in startup::list_dir(directory)? {
        let number = entry.name.strip_suffix(".journal");
        match number.and_then(|number| number.parse().ok()) {
            Some(number) if !entry.is_dir => files.push(JournalFile {
                path: directory.join(&entry.name),
                number,
                size_bytes: entry.size_bytes,
            }),
            _ => tracing::warn!(name = entry.name, "foreign file in the journal directory"),
        }
    }
    Ok(files)
}

/// The groups that the checkpoints do not cover, for each of them.
pub(super) fn scan(
    files: &[JournalFile],
    checkpoints: &[Checkpoint],
) -> io::Result<Vec<GroupsBySequence>> {
    let mut found: Vec<GroupsBySequence> = checkpoints
        .iter()
        .map(|_| GroupsBySequence::new())
        .collect();
    // After a clean stop (or at the very first start) the journal is empty by the checkpoints' word.
    if checkpoints.iter().all(|checkpoint| checkpoint.closed) {
        return Ok(found);
    }
    let scans = startup::map_parallel((0..files.len()).collect(), |file| {
        FileScan::new(file, &files[file], checkpoints)?.run()
    });
    for groups in scans {
        for (checkpoint, group) in groups? {
            found[checkpoint].insert(group.header.sequence, group);
        }
    }
    Ok(found)
}

struct FileScan<'a> {
    number: usize,
    file: startup::File,
    size_bytes: u64,
    /// Where the cut of a checkpoint lies in it.
    cut: Option<u64>,
    checkpoints: &'a [Checkpoint],
    window: Vec<u8>,
    window_at: u64,
    groups: Vec<(usize, FoundGroup)>,
}

/// What stands at a block.
enum Found {
    /// A group to be taken, of that checkpoint.
    Live(usize, GroupHeader, u32),
    /// One that a checkpoint covers, or of an earlier start.
    Stale,
    Nothing,
}

impl<'a> FileScan<'a> {
    fn new(
        number: usize,
        file: &JournalFile,
        checkpoints: &'a [Checkpoint],
    ) -> io::Result<FileScan<'a>> {
        let cut = checkpoints
            .iter()
            .find(|checkpoint| !checkpoint.closed && checkpoint.cut.file == file.number);
        Ok(FileScan {
            number,
            size_bytes: file.size_bytes,
            file: startup::File::open(&file.path)?,
            cut: cut.map(|checkpoint| checkpoint.cut.position),
            checkpoints,
            window: Vec::new(),
            window_at: 0,
            groups: Vec::new(),
        })
    }

    fn run(mut self) -> io::Result<Vec<(usize, FoundGroup)>> {
        let mut position = 0;
        // How far blocks are looked at although nothing live was found.
        let mut patience = MOST_GROUP_BYTES;
        loop {
            if position >= self.size_bytes.min(patience) {
                let Some(cut) = self.cut.take() else { break };
                position = position.max(cut);
                patience = self.size_bytes;
                continue;
            }
            match self.look(position)? {
                Found::Live(checkpoint, header, checksum) => {
                    if position == 0 {
                        self.cut = None; // The file was covered, and is in use again.
                    }
                    let whole = self.body_verifies(position, &header)?;
                    let group = FoundGroup {
                        file: self.number,
                        position,
                        header,
                        checksum,
                        whole,
                    };
                    self.groups.push((checkpoint, group));
                    patience = self.size_bytes;
                    // A torn body may hide the beginning of the group written after it.
                    position += if whole {
                        header.size_bytes() as u64
                    } else {
                        BLOCK_BYTES as u64
                    };
                }
                Found::Stale if position == 0 => patience = 0,
                Found::Stale | Found::Nothing => position += BLOCK_BYTES as u64,
            }
        }
        Ok(self.groups)
    }

    fn look(&mut self, position: u64) -> io::Result<Found> {
        let bytes = self.bytes(position, GROUP_HEADER_BYTES)?;
        let Some((header, checksum)) = GroupHeader::decode(bytes) else {
            return Ok(Found::Nothing);
        };
        let mine = self.checkpoints.iter().position(|checkpoint| {
            !checkpoint.closed
                && (checkpoint.epoch == header.epoch || is_planted(Breach::StaleSuccessor))
                && header.sequence > checkpoint.covered
        });
        Ok(match mine {
            Some(checkpoint) => Found::Live(checkpoint, header, checksum),
            None => Found::Stale,
        })
    }

    fn body_verifies(&mut self, position: u64, header: &GroupHeader) -> io::Result<bool> {
        let length = header.body_length as usize;
        if position + header.size_bytes() as u64 > self.size_bytes {
            return Ok(false);
        }
        let body = self.bytes(position + GROUP_HEADER_BYTES as u64, length)?;
        Ok(header.matches(body))
    }

    /// `length` bytes at `position`, fewer at the end of the file.
    fn bytes(&mut self, position: u64, length: usize) -> io::Result<&[u8]> {
        let end = position + length as u64;
        if position < self.window_at || end > self.window_at + self.window.len() as u64 {
            let window = WINDOW_BYTES.min((self.size_bytes - position) as usize);
            self.window.resize(length.max(window), 0);
            let read = self.file.read_at(position, &mut self.window)?;
            self.window.truncate(read);
            self.window_at = position;
        }
        let from = ((position - self.window_at) as usize).min(self.window.len());
        let to = (from + length).min(self.window.len());
        Ok(&self.window[from..to])
    }
}
