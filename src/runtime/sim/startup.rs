//! Blocking file access of the simulated machine; see the real `startup.rs`.

use std::io;
use std::path::Path;

use super::buffer::Slice;
use super::sim::disk_model::{DiskModel, InodeId, Node};
use super::sim::world;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length of a file in bytes, 0 for a directory.
    pub size_bytes: u64,
}

fn with_disk<T>(access: impl FnOnce(&mut DiskModel) -> io::Result<T>) -> io::Result<T> {
    world::current().with_disk(|disk, _| access(disk))
}

/// Maps all items, one after the other: the order of disk events must not depend on threads.
pub fn map_parallel<T, R>(items: Vec<T>, map: impl Fn(T) -> R) -> Vec<R> {
    items.into_iter().map(map).collect()
}

/// Makes everything durable that was written to the file system of `path`.
pub fn sync_file_system(_path: &Path) -> io::Result<()> {
    with_disk(|disk| {
        disk.event()?;
        disk.flush_all();
        Ok(())
    })
}

/// The names in a directory, sorted.
pub fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    with_disk(|disk| {
        let entry = |(name, node): (String, Node)| match node {
            Node::Directory => DirEntry {
                name,
                is_dir: true,
                size_bytes: 0,
            },
            Node::File(inode) => DirEntry {
                name,
                is_dir: false,
                size_bytes: disk.size(inode),
            },
        };
        Ok(disk.children(path)?.into_iter().map(entry).collect())
    })
}

/// Creates a directory and those above it.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    with_disk(|disk| disk.create_dir_all(path))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    with_disk(|disk| disk.sync_dir(path))
}

/// The whole content of a file of at most `limit_bytes`.
pub fn read_file(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size_bytes = file.len()?;
    if size_bytes > limit_bytes {
        return Err(io::Error::other(format!(
            "{size_bytes} bytes, at most {limit_bytes} expected"
        )));
    }
    let mut content = vec![0; size_bytes as usize];
    file.read_at(0, &mut content)?;
    Ok(content)
}

/// Replaces a file so that a crash leaves the old or the new content, durably.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    if exists(&temporary)? {
        remove_file(&temporary)?;
    }
    let file = File::create(&temporary)?;
    file.write_at(0, content)?;
    file.sync()?;
    rename(&temporary, path)?;
    sync_dir(path.parent().expect("files have a directory"))
}

/// Renames a file or directory.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    with_disk(|disk| disk.rename(from, to))
}

/// Removes a file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    with_disk(|disk| disk.remove(path))
}

/// Removes a directory with everything in it.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    for entry in list_dir(path)? {
        let child = path.join(&entry.name);
        if entry.is_dir {
            remove_dir_all(&child)?;
        } else {
            remove_file(&child)?;
        }
    }
    remove_file(path)
}

/// Whether a file or directory of that name exists.
pub fn exists(path: &Path) -> io::Result<bool> {
    with_disk(|disk| Ok(disk.lookup(path).is_some()))
}

/// The length of a file; none when there is no such name.
pub fn file_len(path: &Path) -> io::Result<Option<u64>> {
    with_disk(|disk| {
        Ok(match disk.lookup(path) {
            Some(Node::File(inode)) => Some(disk.size(inode)),
            _ => None,
        })
    })
}

/// Holds a directory for this process until it is dropped.
#[derive(Debug)]
pub struct DirLock(());

/// Locks a directory; the simulation has one process.
pub fn lock_dir(_path: &Path) -> io::Result<DirLock> {
    Ok(DirLock(()))
}

/// An open file.
#[derive(Debug)]
pub struct File {
    inode: InodeId,
}

impl File {
    /// Opens an existing file for reading and writing.
    pub fn open(path: &Path) -> io::Result<File> {
        Ok(File {
            inode: with_disk(|disk| disk.open(path))?,
        })
    }

    /// Creates a file; it must not exist.
    pub fn create(path: &Path) -> io::Result<File> {
        Ok(File {
            inode: with_disk(|disk| disk.create(path, 0))?,
        })
    }

    /// Reads as far as the file goes; the number of bytes read.
    pub fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        with_disk(|disk| {
            let bytes = disk.read(self.inode, position, into.len());
            into[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    /// Writes all of `bytes`.
    pub fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        with_disk(|disk| {
            let flight = disk.begin_write(self.inode, position, Slice::copied(bytes), false);
            disk.event()?;
            disk.finish_write(flight);
            Ok(())
        })
    }

    /// Makes content and size durable.
    pub fn sync(&self) -> io::Result<()> {
        with_disk(|disk| {
            disk.event()?;
            let dirty = disk.dirty_blocks(self.inode);
            disk.flush(self.inode, &dirty);
            Ok(())
        })
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        with_disk(|disk| disk.set_size(self.inode, size_bytes))
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> io::Result<u64> {
        with_disk(|disk| Ok(disk.size(self.inode)))
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
