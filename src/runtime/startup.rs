//! Blocking, buffered files for what runs before the cores do: recovery, and the offline tools.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FlockOperation;

/// Threads that recovery uses at most: enough for the disk, whatever the number of cores.
const MOST_THREADS: usize = 4;

/// Maps all items on a few threads; results in the order of the items.
pub fn map_parallel<T: Send, R: Send>(items: Vec<T>, map: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = items.len().min(MOST_THREADS);
    if threads < 2 {
        return items.into_iter().map(map).collect();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let work = || {
        let mut mapped = Vec::new();
        loop {
            let next = queue.lock().expect("taking does not panic").next();
            let Some((index, item)) = next else {
                return mapped;
            };
            mapped.push((index, map(item)));
        }
    };
    let mut mapped: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .flat_map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    mapped.sort_by_key(|(index, _)| *index);
    mapped.into_iter().map(|(_, result)| result).collect()
}

/// Makes everything durable that was written to the file system of `path`.
///
/// # Errors
/// As syncfs(2).
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name alone.
    pub name: String,
    /// Whether it is a directory; a symbolic link is not.
    pub is_dir: bool,
    /// Length of a file; of no meaning for a directory.
    pub size_bytes: u64,
}

/// What is in a directory, sorted by name.
///
/// # Errors
/// As readdir(3) and stat(2); a name that is not UTF-8 is none of ours and is refused.
pub fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = entry.file_name().into_string().map_err(|name| {
            let text = format!("{}: the name {name:?} is not UTF-8", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        entries.push(DirEntry {
            name,
            is_dir: metadata.is_dir(),
            size_bytes: metadata.len(),
        });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

/// Creates a directory and its parents; fine when it exists.
///
/// # Errors
/// As mkdir(2).
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// As open(2) and fsync(2).
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// All of a file that must not be longer than `limit_bytes`.
///
/// # Errors
/// As read(2), and for a longer file.
pub fn read_file(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        let text = format!("{}: longer than {limit_bytes} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Replaces a file's contents in one step that survives a power cut at any point: a temporary file
/// beside it, its fsync, the rename, the directory's fsync.
///
/// # Errors
/// As the calls behind it; the old contents are then still there, or the new ones.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Never through a link that somebody else has left there.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(directory_of(path))
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path without a file name",
        ));
    };
    let mut name = name.to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Renames; the directories still need [`sync_dir`].
///
/// # Errors
/// As rename(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Removes a file.
///
/// # Errors
/// As unlink(2).
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Removes a directory and everything below it.
///
/// # Errors
/// As unlink(2) and rmdir(2).
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

/// Whether a name exists; an unreadable directory is an error, not an absence.
///
/// # Errors
/// As stat(2), except for a missing name.
pub fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// The length of a file; none when there is no such name.
///
/// # Errors
/// As stat(2), except for a missing name.
pub fn file_len(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An open file for blocking, buffered access.
#[derive(Debug)]
pub struct File {
    file: fs::File,
}

impl File {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(File { file })
    }

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// As open(2).
    pub fn create(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(File { file })
    }

    /// Fills `bytes` from `position` as far as the file goes; returns how far that was.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    /// Makes contents and metadata durable.
    ///
    /// # Errors
    /// As fsync(2); never retried.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)
    }

    /// Length of the file.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Keeps other processes out of a directory until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: fs::File,
}

/// Locks a directory for this process through the file `.lock` in it.
///
/// # Errors
/// `WouldBlock` when another process holds it.
pub fn lock_dir(path: &Path) -> io::Result<DirLock> {
    let lock = path.join(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let text = format!("{}: in use by another process", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, text))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn replaces_files_and_reads_as_far_as_they_go() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state");
        replace_file(&path, b"old").expect("first");
        replace_file(&path, b"newer").expect("second");
        assert_eq!(read_file(&path, 5).expect("within limit"), b"newer");
        assert_eq!(
            read_file(&path, 4).expect_err("over limit").kind(),
            io::ErrorKind::FileTooLarge
        );
        let file = File::open(&path).expect("open");
        let mut bytes = [0_u8; 16];
        assert_eq!(file.read_at(2, &mut bytes).expect("read"), 3);
        assert_eq!(&bytes[..3], b"wer");
        file.write_at(1, b"E").expect("write");
        file.set_len(2).expect("cut");
        file.sync().expect("sync");
        assert_eq!(
            (file.len().expect("len"), file.is_empty().expect("len")),
            (2, false)
        );
        assert_eq!(read_file(&path, 9).expect("read"), b"nE");
        assert!(File::create(&path).is_err());
    }

    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state");
        let other = directory.path().join("other");
        fs::write(&other, "precious").expect("written");
        std::os::unix::fs::symlink(&other, directory.path().join("state.tmp")).expect("linked");
        replace_file(&path, b"new").expect("replaced");
        assert_eq!(fs::read(&other).expect("read"), b"precious");
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }

    #[test]
    fn parallel_results_keep_their_order() {
        let squares = map_parallel((0..100_u64).collect(), |number| number * number);
        assert!(
            squares
                .iter()
                .enumerate()
                .all(|(n, square)| *square == (n * n) as u64)
        );
        assert!(map_parallel(Vec::<u8>::new(), |item| item).is_empty());
    }

    #[test]
    fn lists_sorted_and_keeps_others_out() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path();
        create_dir_all(&path.join("b/c")).expect("directories");
        File::create(&path.join("a"))
            .expect("create")
            .write_at(0, b"xy")
            .expect("write");
        rename(&path.join("a"), &path.join("d")).expect("rename");
        sync_dir(path).expect("sync");
        let lock = lock_dir(path).expect("lock");
        assert_eq!(
            lock_dir(path).expect_err("locked").kind(),
            io::ErrorKind::WouldBlock
        );
        drop(lock);
        lock_dir(path).expect("free again");
        let names: Vec<_> = list_dir(path)
            .expect("list")
            .into_iter()
            .map(|entry| {
                (
                    entry.name,
                    entry.is_dir,
                    entry.size_bytes * u64::from(!entry.is_dir),
                )
            })
            .collect();
        let expected = [(".lock", false, 0), ("b", true, 0), ("d", false, 2)]
            .map(|(name, is_dir, size)| (name.to_owned(), is_dir, size));
        assert_eq!(names, expected);
        remove_file(&path.join("d")).expect("remove");
        remove_dir_all(&path.join("b")).expect("remove");
        assert!(!exists(&path.join("d")).expect("exists"));
    }
}
