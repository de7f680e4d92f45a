//! Files of the simulated machine; see the real `disk.rs` for what the names mean.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::buffer::{AppendBuf, BLOCK_BYTES, Slice};
use super::signal::promise;
use super::sim::disk_model::{DiskModel, InodeId};
use super::sim::world::{self, World};
use super::startup::{self, DirEntry};

/// Whether a write is acknowledged from the device's cache or from the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of the process.
    Volatile,
    /// Survives a power cut: these bytes, and nothing but these.
    Durable,
}

/// An open file.
#[derive(Clone)]
pub struct File {
    inode: InodeId,
    holders: Rc<()>,
}

/// A submission or completion: waits for ever when the power goes out with it.
async fn event() {
    let out = world::current().with_disk(|disk, _| disk.event().is_err());
    if out {
        pending::<()>().await;
    }
}

/// Runs `effect` after a random device latency, in a task of its own: dropping the caller's future
/// does not call back what was submitted.
async fn device<T: 'static>(effect: impl FnOnce(&World) -> T + 'static) -> T {
    let world = world::current();
    let latency_us = world.with_disk(|_, random| random.u64(20..400));
    let (done, completion) = promise();
    let machine = world.clone();
    let due_us = world.now_us() + latency_us;
    world.spawn(world.core(), async move {
        machine.until(due_us).await;
        event().await;
        done.keep(effect(&machine));
    });
    match completion.await {
        Some(value) => value,
        None => pending().await,
    }
}

async fn pool<T: 'static>(
    work: impl FnOnce(&Rc<World>) -> io::Result<T> + 'static,
) -> io::Result<T> {
    let world = world::current();
    let latency_us = world.with_disk(|_, random| random.u64(20..400));
    world.until(world.now_us() + latency_us).await;
    let result = work(&world);
    if world.with_disk(|disk, _| disk.is_cut()) {
        pending::<()>().await;
    }
    result
}

/// Opens an existing file.
pub async fn open(path: &Path) -> io::Result<File> {
    let path = path.to_path_buf();
    pool(move |world| {
        let inode = world.with_disk(|disk, _| disk.open(&path))?;
        Ok(File::new(inode))
    })
    .await
}

/// Creates a file of `size_bytes`; it must not exist.
pub async fn create(path: &Path, size_bytes: u64) -> io::Result<File> {
    let path = path.to_path_buf();
    pool(move |world| {
        let inode = world.with_disk(|disk, _| disk.create(&path, size_bytes))?;
        Ok(File::new(inode))
    })
    .await
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

/// Makes all of these files; their names are durable on return, unless `durably` is false.
pub async fn place(placements: Vec<Placement>, durably: bool) -> io::Result<Vec<io::Result<File>>> {
    pool(move |world| {
        let made: Vec<io::Result<File>> = placements
            .iter()
            .map(|placement| world.with_disk(|disk, _| place_one(disk, placement)))
            .collect();
        if durably {
            world.with_disk(|disk, _| sync_names(disk, &placements, &made))?;
        }
        Ok(made)
    })
    .await
}

fn directory_of(path: &Path) -> &Path {
    path.parent().expect("files have a directory")
}

fn place_one(disk: &mut DiskModel, placement: &Placement) -> io::Result<File> {
    let path = &placement.path;
    if placement.makes_directory {
        if disk.lookup(directory_of(path)).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.create_dir_all(directory_of(path))?;
    }
    if let Some(from) = &placement.from {
        disk.rename(from, path)?;
        return Ok(File::new(disk.open(path)?));
    }
    if disk.lookup(path).is_some() {
        disk.remove(path)?;
    }
    Ok(File::new(disk.create(path, 0)?))
}

fn sync_names(
    disk: &mut DiskModel,
    placements: &[Placement],
    made: &[io::Result<File>],
) -> io::Result<()> {
    for (placement, made) in placements.iter().zip(made) {
        let Ok(file) = made else { continue };
        disk.event()?;
        let dirty = disk.dirty_blocks(file.inode);
        disk.flush(file.inode, &dirty);
        let directory = directory_of(&placement.path);
        disk.sync_dir(directory)?;
        if placement.makes_directory {
            disk.sync_dir(directory_of(directory))?;
        }
        if let Some(from) = &placement.from {
            disk.sync_dir(directory_of(from))?;
        }
    }
    Ok(())
}

impl File {
    fn new(inode: InodeId) -> File {
        File {
            inode,
            holders: Rc::default(),
        }
    }

    /// Whether somebody else holds this file open too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.holders) > 1
    }

    /// Reads whole blocks; fewer at the end of the file.
    pub async fn read(&self, position: u64, length: usize) -> io::Result<Slice> {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64) && length.is_multiple_of(BLOCK_BYTES));
        event().await;
        let inode = self.inode;
        Ok(device(move |world| {
            world.with_disk(|disk, _| {
                let bytes = disk.read(inode, position, length);
                let mut buffer = AppendBuf::allocate(length);
                buffer.append(bytes);
                buffer.whole()
            })
        })
        .await)
    }

    /// Writes whole blocks.
    pub async fn write(
        &self,
        position: u64,
        bytes: Slice,
        durability: Durability,
    ) -> io::Result<()> {
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64),
            "position {position}"
        );
        assert!(bytes.is_block_aligned(), "{bytes:?} at {position}");
        let (inode, durable) = (self.inode, durability == Durability::Durable);
        let flight =
            world::current().with_disk(|disk, _| disk.begin_write(inode, position, bytes, durable));
        event().await;
        device(move |world| world.with_disk(|disk, _| disk.finish_write(flight))).await;
        Ok(())
    }

    /// Makes the content and what is needed to read it durable (fdatasync).
    pub async fn sync(&self) -> io::Result<()> {
        event().await;
        let inode = self.inode;
        let dirty = world::current().with_disk(|disk, _| disk.dirty_blocks(inode));
        device(move |world| world.with_disk(|disk, _| disk.flush(inode, &dirty))).await;
        Ok(())
    }

    /// Makes the content and all metadata of the file durable (fsync).
    pub async fn full_sync(&self) -> io::Result<()> {
        self.sync().await
    }

    /// Cuts or extends the file.
    pub async fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        let inode = self.inode;
        pool(move |world| world.with_disk(|disk, _| disk.set_size(inode, size_bytes))).await
    }

    /// Allocates the file's blocks up to `size_bytes` and makes it as long, if it is shorter.
    pub async fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        let inode = self.inode;
        pool(move |world| {
            world.with_disk(|disk, _| {
                let size_bytes = disk.size(inode).max(size_bytes);
                disk.set_size(inode, size_bytes)
            })
        })
        .await
    }

    /// The length of the file in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        Ok(world::current().with_disk(|disk, _| disk.size(self.inode)))
    }
}

/// Renames a file or directory.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_path_buf(), to.to_path_buf());
    pool(move |world| world.with_disk(|disk, _| disk.rename(&from, &to))).await
}

/// Removes a file.
pub async fn remove_file(path: &Path) -> io::Result<()> {
    let path = path.to_path_buf();
    pool(move |world| world.with_disk(|disk, _| disk.remove(&path))).await
}

/// Removes an empty directory.
pub async fn remove_dir(path: &Path) -> io::Result<()> {
    let path = path.to_path_buf();
    pool(move |world| {
        if !world.with_disk(|disk, _| disk.children(&path))?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.with_disk(|disk, _| disk.remove(&path))
    })
    .await
}

/// Creates a directory and those above it.
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    let path = path.to_path_buf();
    pool(move |world| world.with_disk(|disk, _| disk.create_dir_all(&path))).await
}

/// Makes the names in a directory durable.
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    let path = path.to_path_buf();
    pool(move |world| world.with_disk(|disk, _| disk.sync_dir(&path))).await
}

/// Whether a file or directory of that name exists.
pub async fn exists(path: &Path) -> io::Result<bool> {
    let path = path.to_path_buf();
    pool(move |world| Ok(world.with_disk(|disk, _| disk.lookup(&path).is_some()))).await
}

/// The names in a directory, sorted.
pub async fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let path = path.to_path_buf();
    pool(move |_| startup::list_dir(&path)).await
}

/// Which directory of which file system a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity;

/// What `path` leads to; nothing is mounted in the simulation.
pub async fn identity(path: &Path) -> io::Result<Identity> {
    if exists(path).await? {
        Ok(Identity)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Sizes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What an unprivileged writer may still use.
    pub free_bytes: u64,
}

/// The file system of `path`; the simulated one is never full.
pub async fn space(_path: &Path) -> io::Result<Space> {
    Ok(Space {
        total_bytes: 1 << 40,
        free_bytes: 1 << 40,
    })
}
