//! Recovery of one data directory: from checkpoints and journals to the logs as they were promised.
//!
//! It runs before any core starts, whatever the number of cores was. It reads first; then it writes
//! to the segments only bytes whose last owner is the journal, flushes them, writes a new
//! generation of checkpoints under new epochs and switches to it. A crash anywhere in between
//! changes nothing: the old generation and its groups are still what counts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::bytes::Fields;
use super::checkpoint::{Checkpoint, Current, checkpoint_file_name};
use super::entry::Entry;
use super::group::{Epoch, GROUP_HEADER_BYTES, GroupHeader};
use super::partition_log::LogImage;
use super::position::LogId;
use super::replay::Replay;
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::random::random_bytes;
use crate::runtime::startup;

/// Where the journal's files are, below the data directory.
pub const JOURNAL_DIRECTORY: &str = "journal";
/// Where the checkpoints are, below the data directory.
pub const CHECKPOINT_DIRECTORY: &str = "checkpoint";
const CURRENT_FILE: &str = "current";

/// The largest checkpoint that is read; a million partitions stay far below.
const MOST_CHECKPOINT_BYTES: u64 = 4 << 30;

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk refused.
    #[error("{path}: {error}")]
    Disk {
        /// What was accessed.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// What was promised to be durable is damaged.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What one core gets of a recovered directory.
#[derive(Debug)]
pub struct RecoveredCore {
    /// The start of the broker.
    pub generation: u64,
    /// The epoch for the core's journal, named by its checkpoint.
    pub epoch: Epoch,
    /// The logs the core owns.
    pub logs: Vec<LogImage>,
    /// Whole journal files to be reused, with their sizes.
    pub journal_files: Vec<(PathBuf, u64)>,
    /// New journal files are numbered from here, by steps of the number of cores.
    pub next_file: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoverySummary {
    /// Logs known.
    pub logs: usize,
    /// Logs that cannot be served.
    pub damaged: usize,
    /// Journal groups applied.
    pub groups: u64,
    /// Bytes written back to segments.
    pub restored_bytes: u64,
}

fn at(path: &Path) -> impl Fn(io::Error) -> RecoveryError {
    let path = path.to_path_buf();
    move |error| RecoveryError::Disk {
        path: path.clone(),
        error,
    }
}

/// Numbers of journal files are unique per directory; each core takes its own block of them.
const FILE_NUMBERS_PER_CORE: u64 = 1 << 20;

/// Recovers `directory` and prepares it for `cores` cores; `owner` says which core gets a log.
pub fn recover(
    directory: &Path,
    cores: u16,
    owner: impl Fn(LogId) -> u16,
) -> Result<(Vec<RecoveredCore>, RecoverySummary), RecoveryError> {
    let journal_directory = directory.join(JOURNAL_DIRECTORY);
    let checkpoint_directory = directory.join(CHECKPOINT_DIRECTORY);
    for path in [&journal_directory, &checkpoint_directory] {
        startup::create_dir_all(path).map_err(at(path))?;
    }
    // Names are durable from the top down, or everything below would go with a lost directory. The
    // journal's own names too: a process that was killed may have left files that are visible but
    // not durable, and this start will write promises into them.
    let above = directory
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .take(2);
    for path in above.chain([journal_directory.as_path()]) {
        startup::sync_dir(path).map_err(at(path))?;
    }
    let (generation, checkpoints) = read_checkpoints(&checkpoint_directory)?;
    let files = journal_files(&journal_directory)?;
    let mut summary = RecoverySummary::default();
    let mut replay = Replay::default();
    let found = scan_journals(&files, &checkpoints)?;
    for (checkpoint, groups) in checkpoints.into_iter().zip(found) {
        let taken = groups_to_take(&journal_directory, &checkpoint, &groups)?;
        replay.begin(checkpoint.logs);
        for group in taken {
            summary.groups += 1;
            apply_group(&mut replay, &files, group)?;
        }
    }
    let (logs, restored_bytes) = replay.restore(directory).map_err(at(directory))?;
    summary.logs = logs.len();
    summary.damaged = logs.iter().filter(|log| log.damage.is_some()).count();
    summary.restored_bytes = restored_bytes;
    let recovered = distribute(generation + 1, cores, logs, &files, owner);
    switch_generation(&checkpoint_directory, &recovered)?;
    Ok((recovered, summary))
}

fn read_checkpoints(directory: &Path) -> Result<(u64, Vec<Checkpoint>), RecoveryError> {
    let path = directory.join(CURRENT_FILE);
    if !startup::exists(&path).map_err(at(&path))? {
        return Ok((0, Vec::new()));
    }
    let damaged = |path: &Path, what: String| RecoveryError::Damaged {
        path: path.into(),
        what,
    };
    let bytes = startup::read_file(&path, BLOCK_BYTES as u64).map_err(at(&path))?;
    let current =
        Current::decode(&bytes).map_err(|malformed| damaged(&path, malformed.to_string()))?;
    let mut checkpoints = Vec::new();
    for core in 0..current.cores {
        let path = directory.join(checkpoint_file_name(current.generation, core));
        let bytes = startup::read_file(&path, MOST_CHECKPOINT_BYTES).map_err(at(&path))?;
        let checkpoint = Checkpoint::decode(&bytes)
            .map_err(|malformed| damaged(&path, malformed.to_string()))?;
        if (checkpoint.generation, checkpoint.core) != (current.generation, core) {
            return Err(damaged(&path, "it belongs to another start or core".into()));
        }
        checkpoints.push(checkpoint);
    }
    Ok((current.generation, checkpoints))
}

struct JournalFile {
    path: PathBuf,
    number: u64,
    size_bytes: u64,
}

fn journal_files(directory: &Path) -> Result<Vec<JournalFile>, RecoveryError> {
    let mut files = Vec::new();
    for entry in startup::list_dir(directory).map_err(at(directory))? {
        let number = entry
            .name
            .strip_suffix(".journal")
            .and_then(|number| number.parse().ok());
        match number {
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

/// A group found in a journal file.
struct FoundGroup {
    file: usize,
    position: u64,
    header: GroupHeader,
    checksum: u32,
    whole: bool,
}

type GroupsBySequence = BTreeMap<u64, FoundGroup>;

/// Looks at every block of every file for groups that a checkpoint does not cover.
fn scan_journals(
    files: &[JournalFile],
    checkpoints: &[Checkpoint],
) -> Result<Vec<GroupsBySequence>, RecoveryError> {
    let mut found: Vec<GroupsBySequence> = checkpoints
        .iter()
        .map(|_| GroupsBySequence::new())
        .collect();
    // After a clean stop (or at the very first start) the journal is empty by the checkpoints' word.
    if checkpoints.iter().all(|checkpoint| checkpoint.closed) {
        return Ok(found);
    }
    for (number, file) in files.iter().enumerate() {
        let content = startup::read_file(&file.path, file.size_bytes).map_err(at(&file.path))?;
        for position in (0..content.len()).step_by(BLOCK_BYTES) {
            let Some((header, checksum)) = GroupHeader::decode(&content[position..]) else {
                continue;
            };
            let mine = |checkpoint: &Checkpoint| {
                !checkpoint.closed
                    && (checkpoint.epoch == header.epoch || is_planted(Breach::StaleSuccessor))
                    && header.sequence > checkpoint.covered
            };
            let Some(checkpoint) = checkpoints.iter().position(mine) else {
                continue;
            };
            let begin = position + GROUP_HEADER_BYTES;
            let end = begin + header.body_length as usize;
            let whole = content
                .get(begin..end)
                .is_some_and(|body| header.matches(body));
            let position = position as u64;
            let group = FoundGroup {
                file: number,
                position,
                header,
                checksum,
                whole,
            };
            found[checkpoint].insert(header.sequence, group);
        }
    }
    Ok(found)
}

/// The groups to apply, in order: all that were complete before the cut, and those after them as
/// long as they verify.
fn groups_to_take<'a>(
    directory: &Path,
    checkpoint: &Checkpoint,
    groups: &'a GroupsBySequence,
) -> Result<Vec<&'a FoundGroup>, RecoveryError> {
    let completed = groups
        .values()
        .map(|group| group.header.completed)
        .max()
        .unwrap_or(0);
    let mut taken: Vec<&FoundGroup> = Vec::new();
    for sequence in checkpoint.covered + 1.. {
        let group = groups.get(&sequence).filter(|group| group.whole);
        let follows = |group: &&FoundGroup| match taken.last() {
            Some(last) => group.header.predecessor == last.checksum,
            None => checkpoint.covered > 0 || group.header.predecessor == 0,
        };
        match group.filter(|group| follows(group) || is_planted(Breach::StaleSuccessor)) {
            Some(group) => taken.push(group),
            None if sequence <= completed && !is_planted(Breach::BadMiddleIsEnd) => {
                return Err(RecoveryError::Damaged {
                    path: directory.into(),
                    what: format!(
                        "group {sequence} of core {} was acknowledged (later groups up to {completed} say so) \
                         but is missing or does not verify",
                        checkpoint.core
                    ),
                });
            }
            None => break,
        }
    }
    Ok(taken)
}

fn apply_group(
    replay: &mut Replay,
    files: &[JournalFile],
    group: &FoundGroup,
) -> Result<(), RecoveryError> {
    let file = &files[group.file];
    let disk = startup::File::open(&file.path).map_err(at(&file.path))?;
    let mut body = vec![0; group.header.body_length as usize];
    let read = disk
        .read_at(group.position + GROUP_HEADER_BYTES as u64, &mut body)
        .map_err(at(&file.path))?;
    let damaged = |what: String| RecoveryError::Damaged {
        path: file.path.clone(),
        what,
    };
    if read != body.len() || !group.header.matches(&body) {
        return Err(damaged(format!(
            "group {} changed while it was read",
            group.header.sequence
        )));
    }
    let mut fields = Fields::new(&body);
    for _ in 0..group.header.entry_count {
        let entry = Entry::decode(&mut fields)
            .map_err(|error| damaged(format!("group {}: {error}", group.header.sequence)))?;
        replay.apply(&entry);
    }
    Ok(())
}

fn distribute(
    generation: u64,
    cores: u16,
    logs: Vec<LogImage>,
    files: &[JournalFile],
    owner: impl Fn(LogId) -> u16,
) -> Vec<RecoveredCore> {
    let newest = files.iter().map(|file| file.number).max().unwrap_or(0);
    let mut recovered: Vec<RecoveredCore> = (0..cores)
        .map(|core| RecoveredCore {
            generation,
            epoch: Epoch(random_bytes()),
            logs: Vec::new(),
            journal_files: Vec::new(),
            next_file: newest + 1 + u64::from(core) * FILE_NUMBERS_PER_CORE,
        })
        .collect();
    for log in logs {
        let core = owner(log.id);
        assert!(
            core < cores,
            "{:?} is placed on core {core} of {cores}",
            log.id
        );
        recovered[usize::from(core)].logs.push(log);
    }
    for (index, file) in files.iter().enumerate() {
        recovered[index % usize::from(cores)]
            .journal_files
            .push((file.path.clone(), file.size_bytes));
    }
    recovered
}

/// Makes the new generation durable and valid, then removes the old one.
fn switch_generation(directory: &Path, recovered: &[RecoveredCore]) -> Result<(), RecoveryError> {
    let mut generation = 0;
    for (core, recovered) in recovered.iter().enumerate() {
        generation = recovered.generation;
        let checkpoint = Checkpoint {
            generation,
            core: core as u16,
            epoch: recovered.epoch,
            covered: 0,
            closed: false,
            logs: recovered.logs.clone(),
        };
        let path = directory.join(checkpoint_file_name(generation, core as u16));
        startup::replace_file(&path, &checkpoint.encode()).map_err(at(&path))?;
    }
    let path = directory.join(CURRENT_FILE);
    let current = Current {
        generation,
        cores: recovered.len() as u16,
    };
    startup::replace_file(&path, &current.encode()).map_err(at(&path))?;
    for entry in startup::list_dir(directory).map_err(at(directory))? {
        let number = entry
            .name
            .split('-')
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        if number.is_some_and(|number| number != generation) {
            let path = directory.join(&entry.name);
            startup::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}
