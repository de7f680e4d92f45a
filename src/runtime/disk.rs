//! Files on a core: direct reads and writes through the ring, names through the blocking pools.
//!
//! Positions, lengths and addresses are multiples of [`BLOCK_BYTES`]. A short transfer and an
//! interrupted one are continued here; every other failure goes to the caller, who must treat a
//! failed write or flush as the end of that data directory.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::blocking::Pools;
use super::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use super::executor;
use super::startup::{self, DirEntry};

/// Interrupted attempts in a row before the disk is called broken.
const MAX_INTERRUPTIONS: u32 = 1000;
/// The most one entry of the ring transfers; more goes in several.
const MAX_TRANSFER_BYTES: usize = 1 << 30;

/// Whether a completed write must have reached stable storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Complete when the device has the bytes, perhaps in a volatile cache.
    Volatile,
    /// Complete when they survive a power cut (DSYNC on this one write).
    Durable,
}

/// An open file; clones share it. The last one closes it, off the core.
#[derive(Clone, Debug)]
pub struct File {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    /// Taken only by `drop`.
    descriptor: Option<Arc<OwnedFd>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The last close of a removed file frees its blocks, which may take long.
        if let (Some(descriptor), Some(core)) = (self.descriptor.take(), executor::try_core()) {
            // When the pool is full the close happens here.
            drop(
                core.pools()
                    .bulk
                    .try_hand_over(Box::new(move || drop(descriptor))),
            );
        }
    }
}

/// Opens an existing file for direct reading and writing.
///
/// # Errors
/// As open(2).
pub async fn open(path: &Path) -> io::Result<File> {
    let path = path.to_owned();
    pools()
        .urgent
        .run(move || direct().open(path))
        .await
        .map(File::new)
}

/// Creates a file that must not exist, allocated and as long as `size_bytes`.
///
/// # Errors
/// As open(2) and fallocate(2); nothing is left behind.
pub async fn create(path: &Path, size_bytes: u64) -> io::Result<File> {
    let path = path.to_owned();
    let create = move || {
        let file = direct().create_new(true).open(&path)?;
        if size_bytes > 0
            && let Err(error) = allocate(&file, size_bytes)
        {
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(file)
    };
    pools().urgent.run(create).await.map(File::new)
}

/// A file to be made or taken over by [`place`].
#[derive(Clone, Debug)]
pub struct Placement {
    /// Its name; an old file of that name goes.
    pub path: PathBuf,
    /// Its directory must be made, and must not exist.
    pub makes_directory: bool,
    /// The file that gets the name instead of a new, empty one.
    pub from: Option<PathBuf>,
}

/// Names with fewer directories than this are synced one by one, more by one syncfs(2).
const DIRECTORIES_SYNCED_ONE_BY_ONE: usize = 8;

/// Makes all of these files; their names are durable on return (unless `durably` is false, which
/// only planted breaches ask for). One call for many costs little more than for one.
///
/// # Errors
/// Of each placement as mkdir(2), open(2), rename(2); of all of them as fsync(2).
pub async fn place(placements: Vec<Placement>, durably: bool) -> io::Result<Vec<io::Result<File>>> {
    let place = move || {
        let made: Vec<_> = placements.iter().map(place_one).collect();
        if durably {
            // Whatever a failed flush says, it is no full disk that may be tried again.
            let flushed = sync_names(&placements, &made);
            flushed.map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(made)
    };
    let made = pools().urgent.run(place).await?;
    Ok(made.into_iter().map(|made| made.map(File::new)).collect())
}

fn place_one(placement: &Placement) -> io::Result<std::fs::File> {
    let path = &placement.path;
    if placement.makes_directory {
        std::fs::create_dir(directory_of(path))?;
    }
    let named = name_one(placement);
    if named.is_err() && placement.makes_directory {
        // Or the next attempt would take it for somebody else's.
        std::fs::remove_dir(directory_of(path))?;
    }
    named
}

fn name_one(placement: &Placement) -> io::Result<std::fs::File> {
    let path = &placement.path;
    match &placement.from {
        Some(from) => {
            startup::rename(from, path)?;
            direct().open(path)
        }
        None => {
            if path.try_exists()? {
                startup::remove_file(path)?;
            }
            direct().create_new(true).open(path)
        }
    }
}

fn sync_names(placements: &[Placement], made: &[io::Result<std::fs::File>]) -> io::Result<()> {
    let mut directories = std::collections::BTreeSet::new();
    for (placement, _) in placements.iter().zip(made).filter(|(_, made)| made.is_ok()) {
        let directory = directory_of(&placement.path);
        directories.insert(directory);
        if placement.makes_directory {
            directories.insert(directory_of(directory));
        }
        directories.extend(placement.from.as_deref().map(directory_of));
    }
    if directories.len() > DIRECTORIES_SYNCED_ONE_BY_ONE
        && let Some(any) = directories.first()
    {
        return startup::sync_file_system(any);
    }
    for file in made.iter().flatten() {
        file.sync_all()?;
    }
    directories.into_iter().try_for_each(startup::sync_dir)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().expect("files have a directory")
}

fn direct() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC);
    options
}

fn allocate(file: &std::fs::File, size_bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file.as_fd(), FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        // Some file systems cannot reserve; the length still has to be right.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size_bytes),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn pools() -> Rc<Pools> {
    executor::core().pools().clone()
}

impl File {
    fn new(file: std::fs::File) -> File {
        File {
            open: Arc::new(Open {
                descriptor: Some(Arc::new(file.into())),
            }),
        }
    }

    fn descriptor(&self) -> Arc<OwnedFd> {
        self.open.descriptor.clone().expect("taken only by drop")
    }

    /// Reads `length` bytes at `position` into a buffer of their own; fewer only at the end of the
    /// file.
    ///
    /// # Errors
    /// As pread(2).
    pub async fn read(&self, position: u64, length: usize) -> io::Result<Slice> {
        assert_blocks(position, length);
        let ring = executor::core().ring().clone();
        let mut buffer = AppendBuf::allocate(length);
        let mut interruptions = 0;
        while buffer.len() < length {
            let at = position + buffer.len() as u64;
            let most = (length - buffer.len()).min(MAX_TRANSFER_BYTES);
            let (result, back) = ring.read(self.descriptor(), at, buffer, most).await;
            buffer = back;
            match result {
                Ok(0) => break,
                // Only the end of the file lies within a block.
                Ok(_) if !buffer.len().is_multiple_of(BLOCK_BYTES) => break,
                Ok(_) => interruptions = 0,
                Err(error) => tolerate(error, &mut interruptions)?,
            }
        }
        Ok(buffer.whole())
    }

    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// As pwritev2(2), including a device that accepts nothing.
    pub async fn write(
        &self,
        position: u64,
        bytes: Slice,
        durability: Durability,
    ) -> io::Result<()> {
        assert_blocks(position, bytes.len());
        assert!(bytes.is_block_aligned(), "a write of unaligned memory");
        let ring = executor::core().ring().clone();
        let durable = durability == Durability::Durable;
        let mut written = 0;
        let mut interruptions = 0;
        while written < bytes.len() {
            let most = (bytes.len() - written).min(MAX_TRANSFER_BYTES);
            let rest = bytes.part(written..written + most);
            let at = position + written as u64;
            match ring.write(self.descriptor(), at, rest, durable).await {
                Ok(count) => {
                    // Continue at a block: the tail of a torn transfer is written again.
                    let whole = count - count % BLOCK_BYTES;
                    if whole == 0 {
                        tolerate(io::ErrorKind::Interrupted.into(), &mut interruptions)?;
                    } else {
                        interruptions = 0;
                        written += whole;
                    }
                }
                Err(error) => tolerate(error, &mut interruptions)?,
            }
        }
        Ok(())
    }

    /// Makes the contents durable (fdatasync).
    ///
    /// # Errors
    /// As fdatasync(2); never retried.
    pub async fn sync(&self) -> io::Result<()> {
        executor::core().ring().sync(self.descriptor(), false).await
    }

    /// Makes contents and metadata durable (fsync).
    ///
    /// # Errors
    /// As fsync(2); never retried.
    pub async fn full_sync(&self) -> io::Result<()> {
        executor::core().ring().sync(self.descriptor(), true).await
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub async fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        let descriptor = self.descriptor();
        let cut = move || Ok(rustix::fs::ftruncate(descriptor, size_bytes)?);
        pools().urgent.run(cut).await
    }

    /// Allocates the file's blocks up to `size_bytes` and makes it as long, if it is shorter.
    ///
    /// # Errors
    /// As fallocate(2).
    pub async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        let descriptor = self.descriptor();
        let extend = move || {
            match rustix::fs::fallocate(&descriptor, FallocateFlags::empty(), 0, size_bytes) {
                Ok(()) => Ok(()),
                // Some file systems cannot reserve; the length still has to be right.
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    let length = u64::try_from(rustix::fs::fstat(&descriptor)?.st_size);
                    if length.is_ok_and(|length| length < size_bytes) {
                        rustix::fs::ftruncate(&descriptor, size_bytes)?;
                    }
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        };
        pools().urgent.run(extend).await
    }

    /// Length of the file.
    ///
    /// # Errors
    /// As fstat(2).
    pub async fn len(&self) -> io::Result<u64> {
        // Answered from the open inode; does not block.
        let size = rustix::fs::fstat(self.descriptor().as_ref())?.st_size;
        Ok(u64::try_from(size).expect("sizes are not negative"))
    }

    /// Whether somebody else holds this file open too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }

    /// The descriptor's number, for traces.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.descriptor().as_raw_fd()
    }
}

fn assert_blocks(position: u64, length: usize) {
    assert!(
        position.is_multiple_of(BLOCK_BYTES as u64) && length.is_multiple_of(BLOCK_BYTES),
        "{length} bytes at {position} are not whole blocks"
    );
}

/// Lets a bounded number of interruptions pass.
fn tolerate(error: io::Error, interruptions: &mut u32) -> io::Result<()> {
    let transient = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
        || error.kind() == io::ErrorKind::Interrupted;
    if !transient || *interruptions == MAX_INTERRUPTIONS {
        return Err(error);
    }
    *interruptions += 1;
    Ok(())
}

/// Renames; both directories still need [`sync_dir`].
///
/// # Errors
/// As rename(2).
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    pools()
        .urgent
        .run(move || startup::rename(&from, &to))
        .await
}

/// Makes the names in a directory durable.
///
/// # Errors
/// As open(2) and fsync(2).
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    urgent(path, startup::sync_dir).await
}

/// Creates a directory and its parents; fine when it exists.
///
/// # Errors
/// As mkdir(2).
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    urgent(path, startup::create_dir_all).await
}

/// What is in a directory, sorted by name.
///
/// # Errors
/// As readdir(3) and stat(2).
pub async fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    urgent(path, startup::list_dir).await
}

/// Whether a file or directory of that name exists.
///
/// # Errors
/// As stat(2), but for a missing name.
pub async fn exists(path: &Path) -> io::Result<bool> {
    urgent(path, startup::exists).await
}

/// Which directory of which file system a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// What `path` leads to now; another answer later means that something was mounted, unmounted or
/// replaced.
///
/// # Errors
/// As stat(2).
pub async fn identity(path: &Path) -> io::Result<Identity> {
    let identity = |path: &Path| {
        let status = rustix::fs::stat(path)?;
        Ok(Identity {
            device: status.st_dev,
            inode: status.st_ino,
        })
    };
    urgent(path, identity).await
}

/// Sizes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What an unprivileged writer may still use.
    pub free_bytes: u64,
}

/// The file system of `path`.
///
/// # Errors
/// As statvfs(3).
pub async fn space(path: &Path) -> io::Result<Space> {
    let space = |path: &Path| {
        let space = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    };
    urgent(path, space).await
}

/// Removes a file, in the bulk pool.
///
/// # Errors
/// As unlink(2).
pub async fn remove_file(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    pools().bulk.run(move || startup::remove_file(&path)).await
}

/// Removes an empty directory, in the bulk pool.
///
/// # Errors
/// As rmdir(2).
pub async fn remove_dir(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    pools().bulk.run(move || std::fs::remove_dir(path)).await
}

async fn urgent<T: Send + 'static>(
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path: PathBuf = path.to_owned();
    pools().urgent.run(move || call(&path)).await
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll};

    use futures_lite::future::poll_fn;

    use super::*;
    use crate::runtime::executor_test::on_core;
    use crate::runtime::ring;

    fn pattern(seed: u8, blocks: usize) -> Slice {
        let mut buffer = AppendBuf::allocate(blocks * BLOCK_BYTES);
        let bytes: Vec<u8> = (0..blocks * BLOCK_BYTES)
            .map(|at| seed.wrapping_add((at % 251) as u8))
            .collect();
        buffer.append(&bytes);
        buffer.whole()
    }

    #[test]
    fn writes_reads_and_counts() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let path = directory.path().join("segment");
            let file = create(&path, 16 * BLOCK_BYTES as u64)
                .await
                .expect("create");
            assert_eq!(file.len().await.expect("len"), 65536);
            let before = ring::counters();
            file.write(0, pattern(1, 4), Durability::Volatile)
                .await
                .expect("write");
            file.write(16384, pattern(2, 4), Durability::Durable)
                .await
                .expect("write");
            file.sync().await.expect("sync");
            file.full_sync().await.expect("sync");
            let after = ring::counters();
            assert_eq!(after.writes - before.writes, 2);
            assert_eq!(after.durable_writes - before.durable_writes, 1);
            assert_eq!(after.syncs - before.syncs, 2);
            let read = file.read(0, 32768).await.expect("read");
            assert_eq!(read[..16384], pattern(1, 4)[..]);
            assert_eq!(read[16384..], pattern(2, 4)[..]);
            drop(file);
            let again = open(&path).await.expect("open");
            assert_eq!(again.read(32768, 4096).await.expect("read")[..], [0; 4096]);
        });
    }

    #[test]
    fn a_read_is_shorter_only_at_the_end_of_the_file() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let path = directory.path().join("segment");
            let file = create(&path, 0).await.expect("create");
            file.write(0, pattern(3, 3), Durability::Volatile)
                .await
                .expect("write");
            assert_eq!(
                file.read(0, 8 * BLOCK_BYTES).await.expect("read").len(),
                3 * BLOCK_BYTES
            );
            file.set_len(5000).await.expect("cut");
            let read = file.read(4096, BLOCK_BYTES).await.expect("read");
            assert_eq!(read[..], pattern(3, 3)[4096..5000]);
            assert!(
                file.read(1 << 20, BLOCK_BYTES)
                    .await
                    .expect("read")
                    .is_empty()
            );
        });
    }

    #[test]
    fn writes_of_one_turn_share_system_calls() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let file = create(&directory.path().join("f"), 1 << 20)
                .await
                .expect("create");
            let before = ring::counters();
            let writes = (0..64).map(|index| {
                let file = file.clone();
                async move {
                    let position = index * 2 * BLOCK_BYTES as u64;
                    file.write(position, pattern(index as u8, 1), Durability::Durable)
                        .await
                }
            });
            let results = futures_util::future::join_all(writes).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            let after = ring::counters();
            assert_eq!(after.writes - before.writes, 64);
            assert_eq!(after.submissions - before.submissions, 1);
        });
    }

    #[test]
    fn a_dropped_write_lands_and_its_buffer_survives_until_then() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let file = create(&directory.path().join("f"), 1 << 22)
                .await
                .expect("create");
            for round in 0..32_u8 {
                let position = u64::from(round) * 65536;
                {
                    let bytes = pattern(round, 16);
                    let mut write =
                        std::pin::pin!(file.write(position, bytes, Durability::Volatile));
                    let mut read = std::pin::pin!(file.read(position, 65536));
                    poll_fn(|context: &mut Context<'_>| {
                        assert!(write.as_mut().poll(context).is_pending());
                        assert!(read.as_mut().poll(context).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                }
                // Reuses the freed memory if the slot did not keep it.
                drop(pattern(0xEE, 16));
            }
            while crate::runtime::executor::core().ring().in_memory_flight() > 0 {
                crate::runtime::clock::sleep(std::time::Duration::from_millis(1)).await;
            }
            for round in 0..32_u8 {
                let read = file
                    .read(u64::from(round) * 65536, 65536)
                    .await
                    .expect("read");
                assert!(read[..] == pattern(round, 16)[..], "round {round}");
            }
        });
    }

    #[test]
    fn names_are_created_renamed_listed_and_removed() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let root = directory.path();
            create_dir_all(&root.join("topic-0")).await.expect("mkdir");
            let (old, new) = (root.join("topic-0/a"), root.join("topic-0/b"));
            drop(create(&old, 4096).await.expect("create"));
            assert_eq!(
                create(&old, 0).await.expect_err("exists").kind(),
                io::ErrorKind::AlreadyExists
            );
            rename(&old, &new).await.expect("rename");
            sync_dir(&root.join("topic-0")).await.expect("sync");
            let listed = list_dir(&root.join("topic-0")).await.expect("list");
            let expected = DirEntry {
                name: "b".to_owned(),
                is_dir: false,
                size_bytes: 4096,
            };
            assert_eq!(listed, [expected]);
            assert!(space(root).await.expect("space").free_bytes > 0);
            remove_file(&new).await.expect("remove");
            remove_dir(&root.join("topic-0")).await.expect("remove");
            assert!(list_dir(root).await.expect("list").is_empty());
            assert_eq!(
                open(&new).await.expect_err("gone").kind(),
                io::ErrorKind::NotFound
            );
        });
    }

    #[test]
    fn a_file_that_cannot_be_allocated_leaves_nothing() {
        on_core(|| async {
            let directory = tempfile::tempdir().expect("tempdir");
            let path = directory.path().join("huge");
            assert!(create(&path, 1 << 60).await.is_err());
            assert!(list_dir(directory.path()).await.expect("list").is_empty());
        });
    }
}
