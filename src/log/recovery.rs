//! Recovery of one data directory: from checkpoints and journals to the logs as they were promised.
//!
//! It runs before any core starts, whatever the number of cores was. It reads first; then it writes
//! to the segments only bytes whose last owner is the journal, flushes them, writes a new
//! generation of checkpoints under new epochs and switches to it. A crash anywhere in between
//! changes nothing: the old generation and its groups are still what counts. Only then are files
//! removed that the journal says are gone.

use std::io;
use std::path::{Path, PathBuf};

use super::bytes::Fields;
use super::checkpoint::{Checkpoint, Current, JournalPlace, checkpoint_file_name};
use super::entry::Entry;
use super::group::{Epoch, GROUP_HEADER_BYTES};
use super::journal_scan::{self, FoundGroup, GroupsBySequence, JournalFile, journal_files};
use super::partition_log::LogImage;
use super::position::LogId;
use super::repair::{Repair, repair};
use super::replay::Replay;
use super::restore::{NamedFiles, Restored};
use super::segment_pool::POOL_DIRECTORY;
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
    /// Files that wait to become segments, with their sizes.
    pub pool_files: Vec<(PathBuf, u64)>,
    /// Directories of deleted logs that an earlier start has not removed.
    pub deleted: Vec<PathBuf>,
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
    recover_and(directory, cores, owner, &mut |_| Ok(()))
}

/// Recovers `directory` and cuts its damaged logs, those with one of these names or, without names,
/// all; what was cut. With `tries` nothing is changed that recovery alone would not change.
pub fn repair_directory(
    directory: &Path,
    names: &[String],
    tries: bool,
) -> Result<Vec<Repair>, RecoveryError> {
    let mut repairs = Vec::new();
    let mut mend = |image: &mut LogImage| {
        if !names.is_empty() && !names.contains(&image.directory) {
            return Ok(());
        }
        let mut mended = image.clone();
        repairs.extend(repair(&mut mended, directory)?);
        if !tries {
            *image = mended;
        }
        Ok(())
    };
    recover_and(directory, 1, |_| 0, &mut mend)?;
    Ok(repairs)
}

fn recover_and(
    directory: &Path,
    cores: u16,
    owner: impl Fn(LogId) -> u16,
    mend: &mut dyn FnMut(&mut LogImage) -> io::Result<()>,
) -> Result<(Vec<RecoveredCore>, RecoverySummary), RecoveryError> {
    let journal_directory = directory.join(JOURNAL_DIRECTORY);
    let checkpoint_directory = directory.join(CHECKPOINT_DIRECTORY);
    let pool_directory = directory.join(POOL_DIRECTORY);
    for path in [&journal_directory, &checkpoint_directory, &pool_directory] {
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
    let files = journal_files(&journal_directory).map_err(at(&journal_directory))?;
    let found = journal_scan::scan(&files, &checkpoints).map_err(at(&journal_directory))?;
    let clean = checkpoints.iter().all(|checkpoint| checkpoint.closed);
    // Each log belongs to one core, so the cores' journals are replayed independently.
    let replays = checkpoints.into_iter().zip(found).collect();
    let replayed = startup::map_parallel(replays, |(checkpoint, groups)| {
        let (replay, groups) = replay_core(directory, &files, checkpoint, &groups)?;
        let restored = replay.restore(directory).map_err(at(directory))?;
        Ok((restored, groups))
    });
    let replayed: Vec<(Restored, u64)> = replayed.into_iter().collect::<Result<_, _>>()?;
    let mut summary = RecoverySummary::default();
    let mut logs = Vec::new();
    for (restored, groups) in &replayed {
        summary.groups += groups;
        summary.restored_bytes += restored.written_bytes;
        logs.extend(restored.images.iter().cloned());
    }
    for log in &mut logs {
        mend(log).map_err(at(directory))?;
    }
    summary.logs = logs.len();
    summary.damaged = logs.iter().filter(|log| log.damage.is_some()).count();
    let mut recovered = distribute(generation + 1, cores, logs, &files, owner);
    let pool = startup::list_dir(&pool_directory).map_err(at(&pool_directory))?;
    for (index, file) in pool.into_iter().enumerate() {
        let path = pool_directory.join(&file.name);
        let core = index % usize::from(cores);
        recovered[core].pool_files.push((path, file.size_bytes));
    }
    switch_generation(&checkpoint_directory, &recovered)?;
    // Until now a repeated recovery would have needed what goes here.
    let images = replayed.iter().flat_map(|(restored, _)| &restored.images);
    let named = NamedFiles::of(directory, images);
    for (restored, _) in &replayed {
        restored
            .remove_files(directory, &named)
            .map_err(at(directory))?;
    }
    if !clean {
        // They may be many files, so they go in the background.
        recovered[0].deleted = named.remove_others(directory).map_err(at(directory))?;
    }
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

/// Applies the groups of one core in order: all that were complete before the cut, and those after
/// them as long as they and their extents verify. Their number is returned with the logs.
fn replay_core(
    directory: &Path,
    files: &[JournalFile],
    checkpoint: Checkpoint,
    groups: &GroupsBySequence,
) -> Result<(Replay, u64), RecoveryError> {
    let told = groups.values().map(|group| group.header.completed).max();
    let completed = told.unwrap_or(0);
    let mut replay = Replay::begin(checkpoint.logs);
    let mut taken = 0;
    let mut predecessor = (checkpoint.covered == 0).then_some(0);
    for sequence in checkpoint.covered + 1.. {
        let group = groups.get(&sequence).filter(|group| {
            let follows = predecessor.is_none_or(|before| group.header.predecessor == before);
            group.whole && (follows || is_planted(Breach::StaleSuccessor))
        });
        let acknowledged = sequence <= completed;
        let Some(group) = group else {
            if !acknowledged || is_planted(Breach::BadMiddleIsEnd) {
                break;
            }
            lose_group(
                &mut replay,
                directory,
                files,
                (sequence, groups.get(&sequence)),
            )?;
            predecessor = None;
            continue;
        };
        let body = read_body(files, group)?;
        let Some(entries) = decode_entries(&body, group.header.entry_count) else {
            return Err(RecoveryError::Damaged {
                path: files[group.file].path.clone(),
                what: format!("group {sequence} verifies but holds an unknown entry"),
            });
        };
        if !acknowledged
            && !replay
                .extents_verify(directory, &entries)
                .map_err(at(directory))?
        {
            break;
        }
        entries.iter().for_each(|entry| replay.apply(entry));
        predecessor = Some(group.checksum);
        taken += 1;
    }
    replay.finish();
    Ok((replay, taken))
}

fn lose_group(
    replay: &mut Replay,
    directory: &Path,
    files: &[JournalFile],
    (sequence, group): (u64, Option<&FoundGroup>),
) -> Result<(), RecoveryError> {
    let body = match group {
        Some(group) => read_body(files, group)?,
        None => Vec::new(),
    };
    let entries = group.and_then(|group| decode_entries(&body, group.header.entry_count));
    tracing::error!(
        sequence,
        "a journal group that was acknowledged cannot be read"
    );
    replay
        .lose_group(directory, sequence, entries.as_deref())
        .map_err(at(directory))
}

fn read_body(files: &[JournalFile], group: &FoundGroup) -> Result<Vec<u8>, RecoveryError> {
    let path = &files[group.file].path;
    let disk = startup::File::open(path).map_err(at(path))?;
    let mut body = vec![0; group.header.body_length as usize];
    let read = disk
        .read_at(group.position + GROUP_HEADER_BYTES as u64, &mut body)
        .map_err(at(path))?;
    body.truncate(read);
    Ok(body)
}

/// All entries of a body, if they fill it exactly.
fn decode_entries(body: &[u8], count: u32) -> Option<Vec<Entry<'_>>> {
    let mut fields = Fields::new(body);
    let entries = (0..count).map(|_| Entry::decode(&mut fields).ok());
    let entries: Option<Vec<_>> = entries.collect();
    entries.filter(|_| fields.remaining() == 0)
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
            pool_files: Vec::new(),
            deleted: Vec::new(),
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
            cut: JournalPlace::default(),
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
