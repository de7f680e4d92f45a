//! Writing back what recovery found: first bytes that only the journal holds, then, when the new
//! checkpoints are valid, the removal of files that nothing names any more.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::partition_log::LogImage;
use super::position::Offset;
use super::repair::other_whole_file;
use super::replay::{Replay, ReplayedLog};
use super::segment::{SegmentImage, index_file_name, segment_file_name};
use super::segment_pool::is_deleted_name;
use super::swap::name_swapped;
use crate::runtime::startup;

/// With more files than this it is cheaper to flush the whole file system at once.
const FILES_SYNCED_ONE_BY_ONE: u64 = 16;

/// What is left to do for the logs of one core once the new checkpoints are valid.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) images: Vec<LogImage>,
    pub(super) written_bytes: u64,
    files: Vec<PathBuf>,
    directories: Vec<String>,
}

impl Replay {
    /// Writes to the segments what only the journal holds, durably. Nothing that an earlier or a
    /// repeated recovery could need is overwritten or removed: of segments that were swapped out
    /// only the name goes, and their swap's group says that all extents in them were complete.
    pub(super) fn restore(self, directory: &Path) -> io::Result<Restored> {
        let mut restored = Restored {
            directories: self.deleted,
            ..Restored::default()
        };
        let mut written = Vec::new();
        for mut log in self.logs.into_values() {
            let own = directory.join(&log.image.directory);
            name_swapped(&own, &log.swapped)?;
            restored.written_bytes += log.write_segments(directory, &mut written)?;
            log.check_files(directory)?;
            for segment in &log.dropped {
                let names = [segment_file_name, index_file_name];
                let path = |name: fn(Offset) -> String| {
                    directory
                        .join(&log.image.directory)
                        .join(name(segment.base_offset))
                };
                restored.files.extend(names.map(path));
            }
            restored.images.push(log.image);
        }
        if written.len() as u64 > FILES_SYNCED_ONE_BY_ONE {
            startup::sync_file_system(directory)?;
        } else {
            for file in written {
                file.sync()?;
            }
        }
        Ok(restored)
    }
}

/// The files and directories that logs are in.
pub(super) struct NamedFiles {
    segments: BTreeSet<PathBuf>,
    directories: BTreeSet<String>,
}

impl NamedFiles {
    /// Everything that the logs of all cores name.
    pub(super) fn of<'a>(
        directory: &Path,
        images: impl Iterator<Item = &'a LogImage> + Clone,
    ) -> NamedFiles {
        let segments = images.clone().flat_map(|image| {
            let below = directory.join(&image.directory);
            let segments = image.segments.iter();
            segments.map(move |segment| below.join(segment_file_name(segment.base_offset)))
        });
        NamedFiles {
            segments: segments.collect(),
            directories: images.map(|image| image.directory.clone()).collect(),
        }
    }
}

impl NamedFiles {
    /// Removes what interrupted work has left: files of segments that no log has, and directories
    /// of logs that are gone. What is not ours by name stays. The directories of deleted logs are
    /// returned.
    pub(super) fn remove_others(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut deleted = Vec::new();
        for entry in startup::list_dir(directory)? {
            let path = directory.join(&entry.name);
            if entry.is_dir && is_deleted_name(&entry.name) {
                deleted.push(path);
                continue;
            }
            if !entry.is_dir || !is_log_directory(&entry.name) {
                continue;
            }
            let files = startup::list_dir(&path)?;
            let ours = |name: &str| SEGMENT_FILES.iter().any(|suffix| name.ends_with(suffix));
            if self.directories.contains(&entry.name) {
                let others = files.iter().filter(|file| !self.names(&path, &file.name));
                for file in others.filter(|file| ours(&file.name)) {
                    startup::remove_file(&path.join(&file.name))?;
                }
            } else if files.iter().all(|file| !file.is_dir && ours(&file.name)) {
                startup::remove_dir_all(&path)?;
            }
        }
        Ok(deleted)
    }

    fn names(&self, directory: &Path, file: &str) -> bool {
        let segment = match file.strip_suffix(".index") {
            Some(base) => directory.join(format!("{base}.log")),
            None => directory.join(file),
        };
        self.segments.contains(&segment)
    }
}

/// How the files of segments end, finished or not.
const SEGMENT_FILES: [&str; 5] = [".log", ".index", ".cleaned", ".deleted", ".tmp"];

/// Whether a name is `<topic>-<partition>`, perhaps with the mark of a recreated topic.
fn is_log_directory(name: &str) -> bool {
    let plain = match name.rsplit_once('.') {
        Some((plain, mark)) if mark.len() == 8 && mark.chars().all(|c| c.is_ascii_hexdigit()) => {
            plain
        }
        _ => name,
    };
    let partition = plain.rsplit_once('-').map(|(_, partition)| partition);
    partition.is_some_and(|number| {
        !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
    })
}

impl Restored {
    /// Removes what the journal says is gone, unless another log has taken the name over.
    pub(super) fn remove_files(&self, directory: &Path, named: &NamedFiles) -> io::Result<()> {
        for path in &self.files {
            if !named.segments.contains(path) && startup::exists(path)? {
                startup::remove_file(path)?;
            }
        }
        for name in &self.directories {
            let path = directory.join(name);
            if !named.directories.contains(name) && startup::exists(&path)? {
                startup::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

fn not_its_own(path: &Path) -> String {
    format!(
        "{} is not what the journal knows: the entry that replaced it is lost",
        path.display()
    )
}

impl ReplayedLog {
    fn segment_path(&self, directory: &Path, segment: &SegmentImage) -> PathBuf {
        directory
            .join(&self.image.directory)
            .join(segment_file_name(segment.base_offset))
    }

    fn write_segments(
        &mut self,
        directory: &Path,
        written: &mut Vec<startup::File>,
    ) -> io::Result<u64> {
        let mut bytes = 0;
        for (id, redo) in std::mem::take(&mut self.redo) {
            let Some(segment) = self.image.segments.iter().find(|known| known.id == id) else {
                continue;
            };
            let path = self.segment_path(directory, segment);
            let pieces = redo.into_pieces(segment.size_bytes);
            if pieces.is_empty() {
                continue;
            }
            if !startup::exists(&path)? {
                self.damage(format!("{} is missing", path.display()));
                continue;
            }
            if self.is_swapped_in(&path, segment)? {
                self.damage(not_its_own(&path));
                continue;
            }
            let found = startup::file_len(&path)?.unwrap_or(0);
            if found < pieces[0].position {
                // With the pieces in it, it would look whole.
                self.damage(format!("{} has only {found} bytes", path.display()));
                continue;
            }
            let file = startup::File::open(&path)?;
            for piece in pieces {
                file.write_at(piece.position, &piece.bytes)?;
                bytes += piece.bytes.len() as u64;
            }
            written.push(file);
        }
        Ok(bytes)
    }

    /// A segment shorter than what was promised is damage of this log alone.
    fn check_files(&mut self, directory: &Path) -> io::Result<()> {
        for index in 0..self.image.segments.len() {
            let segment = &self.image.segments[index];
            let path = self.segment_path(directory, segment);
            let promised = segment.size_bytes;
            let found = startup::file_len(&path)?.unwrap_or(0);
            if found < promised {
                self.damage(format!(
                    "{} has {found} bytes of {promised}",
                    path.display()
                ));
            } else if self.is_swapped_in(&path, segment)? {
                self.damage(not_its_own(&path));
            }
        }
        Ok(())
    }

    /// Whether a file was swapped in by an entry that is lost. Only sealed segments are swapped, and
    /// their files end where they do; of another one the file's end is no batch's, or that of the
    /// segment.
    fn is_swapped_in(&self, path: &Path, segment: &SegmentImage) -> io::Result<bool> {
        let is_last = self.image.segments.last() == Some(segment);
        if !self.may_lack_swap || is_last {
            return Ok(false);
        }
        let other = other_whole_file(path, segment, segment.base_offset)?;
        // Of an empty file nothing can be lost.
        Ok(other.is_some_and(|(size_bytes, _)| size_bytes > 0))
    }
}
