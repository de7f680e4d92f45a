//! A disk that forgets: files, names and sizes with a volatile and a durable side.
//!
//! What a power cut may do, and so what recovery must survive:
//! * a block written but not flushed is found old or new, each block by its own chance;
//! * a block under write is found old, new, torn between sectors, or as garbage;
//! * a size that was not flushed is found old or new;
//! * names follow their directory: of the operations since its last sync a prefix survives;
//! * a durable write (DSYNC) makes its own bytes durable and nothing else.
//!
//! Two writes in flight on one block are a bug of the caller and panic here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::runtime::buffer::{BLOCK_BYTES, Slice};

const SECTOR_BYTES: usize = 512;

/// Names a file while it exists.
pub(crate) type InodeId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(InodeId),
    Directory,
}

#[derive(Default)]
struct Inode {
    /// What reads see.
    content: Vec<u8>,
    /// What a power cut cannot take.
    durable: Vec<u8>,
    /// Blocks where the two differ.
    dirty: BTreeSet<usize>,
}

struct Flight {
    inode: InodeId,
    position: usize,
    bytes: Slice,
    durable: bool,
}

enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

/// The disk of one simulated machine.
#[derive(Default)]
pub struct DiskModel {
    inodes: BTreeMap<InodeId, Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    unsynced_names: BTreeMap<PathBuf, Vec<NameChange>>,
    flights: BTreeMap<u64, Flight>,
    next_inode: InodeId,
    next_flight: u64,
    events: u64,
    cut_at_event: Option<u64>,
    /// So many durable writes outside of journals until one is interrupted.
    extents_to_cut: Option<u64>,
    /// So many removals of segments until the power goes out.
    removals_to_cut: Option<u64>,
    cut: bool,
    durable_writes: u64,
    written_bytes: u64,
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn blocks(range: Range<usize>) -> Range<usize> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

fn copy_block(from: &[u8], to: &mut [u8], block: usize) {
    let start = block * BLOCK_BYTES;
    let end = (start + BLOCK_BYTES)
        .min(to.len())
        .min(from.len().max(start));
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

impl DiskModel {
    /// An empty disk.
    #[must_use]
    pub fn new() -> DiskModel {
        DiskModel::default()
    }

    /// Cuts the power when that many more disk events have happened.
    pub fn cut_after(&mut self, events: u64) {
        self.cut_at_event = Some(self.events + events);
    }

    /// Cuts the power soon after that many more durable writes outside of journals were begun: few
    /// of all events are within one, and much depends on these.
    pub fn cut_in_extent(&mut self, extents: u64) {
        self.extents_to_cut = Some(extents);
    }

    /// Cuts the power soon after that many more segments were removed: what nobody says yet is
    /// gone must not be missed then.
    pub fn cut_after_removal(&mut self, removals: u64) {
        self.removals_to_cut = Some(removals);
    }

    /// Never mind the cut.
    pub fn keep_power(&mut self) {
        self.removals_to_cut = None;
        self.extents_to_cut = None;
        self.cut_at_event = None;
    }

    /// Whether the power is out.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Disk events so far: submissions, completions, name changes.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes that asked for durability and completed.
    #[must_use]
    pub fn durable_writes(&self) -> u64 {
        self.durable_writes
    }

    /// Bytes of all completed writes.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Every file with its visible size.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), self.inodes[inode].content.len() as u64)),
            Node::Directory => None,
        };
        self.names.iter().filter_map(file).collect()
    }

    /// What reads see of a whole file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Vec<u8> {
        match self.names.get(path) {
            Some(Node::File(inode)) => self.inodes[inode].content.clone(),
            _ => panic!("{} is no file", path.display()),
        }
    }

    /// Flips one bit of a file below everybody's feet, durably.
    pub fn flip_bit(&mut self, path: &Path, byte: usize, bit: u8) {
        let Some(Node::File(inode)) = self.names.get(path) else {
            panic!("{} is no file", path.display())
        };
        let inode = self.inodes.get_mut(inode).expect("names point to inodes");
        inode.content[byte] ^= 1 << bit;
        inode.durable[byte] ^= 1 << bit;
    }

    /// Counts an event; an error when the power is out from now on.
    pub(crate) fn event(&mut self) -> io::Result<()> {
        self.events += 1;
        if self.cut_at_event.is_some_and(|at| self.events >= at) {
            self.cut = true;
        }
        if self.cut {
            return Err(io::Error::other("the power is out"));
        }
        Ok(())
    }

    pub(crate) fn lookup(&self, path: &Path) -> Option<Node> {
        if path.as_os_str().is_empty() || path == Path::new("/") {
            return Some(Node::Directory);
        }
        self.names.get(path).copied()
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<InodeId> {
        match self.lookup(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Directory) => Err(io::Error::other("is a directory")),
            None => Err(missing(path)),
        }
    }

    fn change(&mut self, directory: PathBuf, change: NameChange) {
        self.unsynced_names
            .entry(directory)
            .or_default()
            .push(change);
    }

    fn demand_parent(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = parent_of(path);
        match self.lookup(&parent) {
            Some(Node::Directory) => Ok(parent),
            _ => Err(missing(&parent)),
        }
    }

    pub(crate) fn create(&mut self, path: &Path, size_bytes: u64) -> io::Result<InodeId> {
        self.event()?;
        let parent = self.demand_parent(path)?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_inode;
        self.next_inode += 1;
        let inode = Inode {
            content: vec![0; size_bytes as usize],
            ..Inode::default()
        };
        self.inodes.insert(id, inode);
        self.names.insert(path.into(), Node::File(id));
        self.change(parent, NameChange::Add(path.into(), Node::File(id)));
        Ok(id)
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.event()?;
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = path.to_path_buf();
        while self.lookup(&at).is_none() {
            missing.push(at.clone());
            at = parent_of(&at);
        }
        for directory in missing.into_iter().rev() {
            self.names.insert(directory.clone(), Node::Directory);
            let parent = parent_of(&directory);
            self.change(parent, NameChange::Add(directory, Node::Directory));
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.event()?;
        let node = self.names.get(from).copied().ok_or_else(|| missing(from))?;
        let new_parent = self.demand_parent(to)?;
        let old_parent = parent_of(from);
        self.names.remove(from);
        self.names.insert(to.into(), node);
        if node == Node::Directory {
            let below: Vec<_> = self
                .names
                .keys()
                .filter(|path| path.starts_with(from))
                .cloned()
                .collect();
            for path in below {
                let moved = to.join(path.strip_prefix(from).expect("filtered"));
                let node = self.names.remove(&path).expect("listed");
                self.names.insert(moved, node);
            }
        }
        if old_parent == new_parent {
            self.change(new_parent, NameChange::Rename(from.into(), to.into(), node));
        } else {
            self.change(new_parent, NameChange::Add(to.into(), node));
            self.change(old_parent, NameChange::Remove(from.into()));
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.event()?;
        if self.names.remove(path).is_none() {
            return Err(missing(path));
        }
        self.change(parent_of(path), NameChange::Remove(path.into()));
        if path.extension().is_some_and(|kind| kind == "log") {
            match self.removals_to_cut.take() {
                Some(0) => self.cut_at_event = Some(self.events + 1),
                left => self.removals_to_cut = left.map(|left| left - 1),
            }
        }
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.event()?;
        if self.lookup(path) != Some(Node::Directory) {
            return Err(missing(path));
        }
        self.sync_namesake(path);
        for change in self.unsynced_names.remove(path).unwrap_or_default() {
            apply(&mut self.durable_names, change);
        }
        Ok(())
    }

    /// Durable names are kept by path, so a directory that has taken the name of a renamed one would
    /// be moved with it: that rename becomes durable before anything below the new directory does, as
    /// in a file system that commits changes of names in their order.
    fn sync_namesake(&mut self, directory: &Path) {
        let Some(changes) = self.unsynced_names.get_mut(&parent_of(directory)) else {
            return;
        };
        let moved_away = |change: &NameChange| matches!(change, NameChange::Rename(from, _, Node::Directory) if from == directory);
        let count = changes
            .iter()
            .rposition(moved_away)
            .map_or(0, |last| last + 1);
        for change in changes.drain(..count).collect::<Vec<_>>() {
            apply(&mut self.durable_names, change);
        }
    }

    pub(crate) fn children(&self, path: &Path) -> io::Result<Vec<(String, Node)>> {
        if self.lookup(path) != Some(Node::Directory) {
            return Err(missing(path));
        }
        let child = |(name, node): (&PathBuf, &Node)| {
            let parent = name.parent()?;
            (parent == path).then(|| {
                (
                    name.file_name()
                        .expect("has a parent")
                        .to_string_lossy()
                        .into_owned(),
                    *node,
                )
            })
        };
        Ok(self.names.iter().filter_map(child).collect())
    }

    pub(crate) fn size(&self, inode: InodeId) -> u64 {
        self.inodes[&inode].content.len() as u64
    }

    pub(crate) fn set_size(&mut self, inode: InodeId, size_bytes: u64) -> io::Result<()> {
        self.event()?;
        let inode = self.inodes.get_mut(&inode).expect("open files exist");
        inode.content.resize(size_bytes as usize, 0);
        Ok(())
    }

    pub(crate) fn read(&self, inode: InodeId, position: u64, length: usize) -> &[u8] {
        let content = &self.inodes[&inode].content;
        let start = (position as usize).min(content.len());
        &content[start..(start + length).min(content.len())]
    }

    pub(crate) fn begin_write(
        &mut self,
        inode: InodeId,
        position: u64,
        bytes: Slice,
        durable: bool,
    ) -> u64 {
        let position = position as usize;
        let mine = blocks(position..position + bytes.len());
        for other in self.flights.values().filter(|other| other.inode == inode) {
            let theirs = blocks(other.position..other.position + other.bytes.len());
            assert!(
                mine.end <= theirs.start || theirs.end <= mine.start,
                "two writes in flight on blocks {mine:?} and {theirs:?} of one file"
            );
        }
        if durable && self.extents_to_cut.is_some() && !self.is_journal(inode) {
            let left = self.extents_to_cut.take().unwrap_or(0);
            if left == 0 {
                self.cut_at_event = Some(self.events + 2);
            } else {
                self.extents_to_cut = Some(left - 1);
            }
        }
        let id = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(
            id,
            Flight {
                inode,
                position,
                bytes,
                durable,
            },
        );
        id
    }

    fn is_journal(&self, inode: InodeId) -> bool {
        let mut names = self.names.iter();
        names.any(|(path, node)| {
            *node == Node::File(inode) && path.extension().is_some_and(|kind| kind == "journal")
        })
    }

    pub(crate) fn finish_write(&mut self, flight: u64) {
        let Flight {
            inode,
            position,
            bytes,
            durable,
        } = self.flights.remove(&flight).expect("finished once");
        self.written_bytes += bytes.len() as u64;
        self.durable_writes += u64::from(durable);
        let Some(inode) = self.inodes.get_mut(&inode) else {
            return;
        };
        inode.put(position, &bytes);
        if durable {
            inode.flush(&blocks(position..position + bytes.len()).collect());
        }
    }

    /// The blocks that a flush submitted now will make durable.
    pub(crate) fn dirty_blocks(&self, inode: InodeId) -> BTreeSet<usize> {
        self.inodes
            .get(&inode)
            .map(|inode| inode.dirty.clone())
            .unwrap_or_default()
    }

    pub(crate) fn flush(&mut self, inode: InodeId, dirty: &BTreeSet<usize>) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.durable.resize(inode.content.len(), 0);
            inode.flush(dirty);
        }
    }

    /// syncfs: content, sizes and names of everything.
    pub(crate) fn flush_all(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.durable.resize(inode.content.len(), 0);
            let dirty = inode.dirty.clone();
            inode.flush(&dirty);
        }
        for change in std::mem::take(&mut self.unsynced_names)
            .into_values()
            .flatten()
        {
            apply(&mut self.durable_names, change);
        }
    }

    pub(crate) fn power_cut(&mut self, random: &mut fastrand::Rng) {
        let mut flights: Vec<Flight> = std::mem::take(&mut self.flights).into_values().collect();
        random.shuffle(&mut flights);
        for (id, inode) in &mut self.inodes {
            inode.power_cut(random);
            for flight in flights.iter().filter(|flight| flight.inode == *id) {
                inode.interrupt(flight, random);
            }
        }
        for (_, mut changes) in std::mem::take(&mut self.unsynced_names) {
            changes.truncate(random.usize(..=changes.len()));
            for change in changes {
                apply(&mut self.durable_names, change);
            }
        }
        let durable = self.durable_names.clone();
        let reachable = |path: &PathBuf| {
            path.ancestors().skip(1).all(|above| {
                above.as_os_str().is_empty()
                    || above == Path::new("/")
                    || durable.get(above) == Some(&Node::Directory)
            })
        };
        self.durable_names.retain(|path, _| reachable(path));
        self.names = self.durable_names.clone();
        self.forget_unnamed();
        self.restart();
    }

    pub(crate) fn process_exit(&mut self) {
        for flight in self.flights.keys().copied().collect::<Vec<_>>() {
            self.finish_write(flight);
        }
        self.forget_unnamed();
        self.restart();
    }

    fn restart(&mut self) {
        self.cut = false;
        self.extents_to_cut = None;
        self.removals_to_cut = None;
        self.cut_at_event = None;
        self.events = 0;
    }

    fn forget_unnamed(&mut self) {
        let named = |names: &BTreeMap<PathBuf, Node>, id: InodeId| {
            names.values().any(|node| *node == Node::File(id))
        };
        let (names, durable) = (&self.names, &self.durable_names);
        // A cut may leave only the first of several changes of a name.
        let changes = || self.unsynced_names.values().flatten();
        let may_return = |id: InodeId| {
            changes().any(|change| match change {
                NameChange::Add(_, node) | NameChange::Rename(_, _, node) => {
                    *node == Node::File(id)
                }
                NameChange::Remove(_) => false,
            })
        };
        self.inodes
            .retain(|id, _| named(names, *id) || named(durable, *id) || may_return(*id));
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: NameChange) {
    match change {
        NameChange::Add(path, node) => {
            names.insert(path, node);
        }
        NameChange::Remove(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to, node) => {
            names.remove(&from);
            let below: Vec<_> = names
                .keys()
                .filter(|path| path.starts_with(&from))
                .cloned()
                .collect();
            for path in below {
                let moved = to.join(path.strip_prefix(&from).expect("filtered"));
                let node = names.remove(&path).expect("listed");
                names.insert(moved, node);
            }
            names.insert(to, node);
        }
    }
}

impl Inode {
    fn put(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[position..end].copy_from_slice(bytes);
        self.dirty.extend(blocks(position..end));
    }

    fn flush(&mut self, dirty: &BTreeSet<usize>) {
        for block in dirty {
            let end = ((block + 1) * BLOCK_BYTES).min(self.content.len());
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            copy_block(&self.content, &mut self.durable, *block);
            self.dirty.remove(block);
        }
    }

    fn power_cut(&mut self, random: &mut fastrand::Rng) {
        let mut found = self.durable.clone();
        if random.bool() {
            found.resize(self.content.len(), 0);
        }
        for block in std::mem::take(&mut self.dirty) {
            if random.bool() {
                copy_block(&self.content, &mut found, block);
            }
        }
        self.content.clone_from(&found);
        self.durable = found;
    }

    fn interrupt(&mut self, flight: &Flight, random: &mut fastrand::Rng) {
        for (index, chunk) in flight.bytes.chunks(BLOCK_BYTES).enumerate() {
            let start = flight.position + index * BLOCK_BYTES;
            let end = (start + chunk.len()).min(self.content.len());
            if start >= end {
                continue;
            }
            let target = &mut self.content[start..end];
            match random.u8(..4) {
                0 => {}
                1 => target.copy_from_slice(&chunk[..end - start]),
                2 => target.iter_mut().for_each(|byte| *byte = random.u8(..)),
                _ => {
                    for (old, new) in target
                        .chunks_mut(SECTOR_BYTES)
                        .zip(chunk.chunks(SECTOR_BYTES))
                    {
                        if random.bool() {
                            old.copy_from_slice(&new[..old.len()]);
                        }
                    }
                }
            }
        }
        self.durable.clone_from(&self.content);
    }
}
