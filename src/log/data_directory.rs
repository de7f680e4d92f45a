//! A data directory as a whole: whose it is, and that only one process uses it.
//!
//! `percolog.format` is a text file of `key=value` lines, each ended by a line feed:
//! `format.version` (a decimal number), `cluster.id`, `node.id` (a decimal number), `directory.id`;
//! ids are 22 symbols of url-safe base64 without padding, as Kafka prints them. A directory without it must be empty to be taken; one of a newer format, another
//! cluster or another node is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::directory_register::{DirectoryRegister, Layout, REGISTER_FILE};
use crate::runtime::random::random_bytes;
use crate::runtime::startup::{self, DirLock};
use crate::wire::codec::Uuid;

/// The newest layout this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "percolog.format";
const MOST_FORMAT_BYTES: u64 = 4096;
/// Names that may lie in a fresh directory: what file systems put there, our own lock, and what the
/// probe of the disk leaves there.
const HARMLESS: [&str; 6] = [
    "lost+found",
    ".lock",
    "percolog.tmp",
    "percolog.disk",
    "percolog.disk.tmp",
    "percolog.probe",
];

/// Why a data directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be accessed.
    #[error(
        "cannot use data directory {path}: {error}; create it for this user or choose another with --data-dir"
    )]
    Access {
        /// Which one.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// Another process has it.
    #[error("data directory {0} is locked: another broker is using it")]
    Locked(PathBuf),
    /// It holds something else.
    #[error(
        "data directory {path} is not empty and has no {FORMAT_FILE}: it holds {found:?}; choose an empty directory"
    )]
    Foreign {
        /// Which one.
        path: PathBuf,
        /// One name found.
        found: String,
    },
    /// It belongs to somebody else, or to a later version.
    #[error("data directory {path}: {what}")]
    Mismatch {
        /// Which one.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

/// One configured directory.
#[derive(Debug)]
pub struct DataDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// Its own identity, if it is known.
    pub directory_id: Option<Uuid>,
    /// Why it is not used, if so; the others are.
    pub offline: Option<String>,
    _lock: Option<DirLock>,
}

impl DataDirectory {
    fn offline(path: &Path, directory_id: Option<Uuid>, why: String) -> DataDirectory {
        DataDirectory {
            path: path.to_path_buf(),
            directory_id,
            offline: Some(why),
            _lock: None,
        }
    }
}

/// The directories that this process holds.
#[derive(Debug)]
pub struct DataDirectories {
    /// The cluster they belong to.
    pub cluster_id: Uuid,
    /// In the configured order, which is what placement counts by.
    pub list: Vec<DataDirectory>,
    /// Every directory and layout so far.
    pub register: DirectoryRegister,
}

impl DataDirectories {
    /// Directories that may hold logs and are not used.
    #[must_use]
    pub fn missing(&self) -> Vec<Uuid> {
        let is_used = |id: &Uuid| {
            let mut used = self
                .list
                .iter()
                .filter(|directory| directory.offline.is_none());
            used.any(|directory| directory.directory_id == Some(*id))
        };
        let known = self.register.known.keys().copied();
        known.filter(|id| !is_used(id)).collect()
    }

    /// Takes a directory out of use.
    pub fn set_offline(&mut self, index: usize, why: String) {
        self.list[index].offline.get_or_insert(why);
    }

    /// Remembers the directories and how logs are placed over them from now on.
    pub fn register_layout(&mut self, cores: usize) -> Result<(), DirectoryError> {
        let before = self.register.clone();
        for directory in &self.list {
            if let (Some(id), None) = (directory.directory_id, &directory.offline) {
                self.register.note(id, &directory.path);
            }
        }
        // One that was never used can hold nothing, but has its turn: it stands for itself.
        let turn = |directory: &DataDirectory| directory.directory_id.unwrap_or(Uuid::ZERO);
        self.register.note_layout(Layout {
            cores,
            directories: self.list.iter().map(turn).collect(),
        });
        if self.register == before {
            return Ok(());
        }
        let first = &self.list[0].path;
        let written = self.register.write(first);
        written.map_err(|error| access(first, error))
    }
}

fn access(path: &Path, error: io::Error) -> DirectoryError {
    DirectoryError::Access {
        path: path.to_path_buf(),
        error,
    }
}

/// What a directory turned out to be.
enum Found {
    Formatted(Uuid, Uuid, DirLock),
    Fresh(DirLock),
    Inaccessible(io::Error),
}

/// Locks the directories, formats empty ones, and checks that they belong together. A fresh set
/// founds a new cluster. The first one holds the metadata and must be usable; each of the others is
/// offline when its disk fails or is not there.
pub fn open_all(
    paths: &[PathBuf],
    node_id: i32,
    wanted: Option<Uuid>,
) -> Result<DataDirectories, DirectoryError> {
    let mut found = Vec::new();
    let mut cluster = wanted;
    for path in paths {
        found.push(match find(path, node_id, cluster) {
            Err(DirectoryError::Access { error, .. }) if *path != paths[0] => {
                Found::Inaccessible(error)
            }
            other => other?,
        });
        if let Some(Found::Formatted(id, ..)) = found.last() {
            cluster = Some(*id);
        }
    }
    check_first(paths, &found)?;
    let register = DirectoryRegister::read(&paths[0]).map_err(|error| access(&paths[0], error))?;
    let here: Vec<Uuid> = found
        .iter()
        .filter_map(|found| match found {
            Found::Formatted(_, id, _) => Some(*id),
            _ => None,
        })
        .collect();
    let cluster_id = cluster.unwrap_or_else(|| Uuid(random_bytes()));
    let mut list = Vec::new();
    for (path, found) in paths.iter().zip(found) {
        let was = register.at_path(path).filter(|id| !here.contains(id));
        list.push(match open_one(path, found, was, (cluster_id, node_id)) {
            Err(DirectoryError::Access { error, .. }) if *path != paths[0] => {
                DataDirectory::offline(path, None, error.to_string())
            }
            other => other?,
        });
    }
    Ok(DataDirectories {
        cluster_id,
        list,
        register,
    })
}

fn find(path: &Path, node_id: i32, cluster: Option<Uuid>) -> Result<Found, DirectoryError> {
    startup::create_dir_all(path).map_err(|error| access(path, error))?;
    let lock = startup::lock_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Locked(path.to_path_buf()),
        _ => access(path, error),
    })?;
    Ok(match read_format(path)? {
        Some(format) => {
            let (cluster_id, directory_id) = check_format(path, &format, node_id, cluster)?;
            Found::Formatted(cluster_id, directory_id, lock)
        }
        None => Found::Fresh(lock),
    })
}

/// Without the metadata every log would look like one of a deleted topic.
fn check_first(paths: &[PathBuf], found: &[Found]) -> Result<(), DirectoryError> {
    let is_fresh = matches!(found[0], Found::Fresh(_));
    let mismatch = |what: String| {
        Err(DirectoryError::Mismatch {
            path: paths[0].clone(),
            what,
        })
    };
    for (path, found) in paths.iter().zip(found).skip(1) {
        if is_fresh && matches!(found, Found::Formatted(..)) {
            return mismatch(format!(
                "it is empty, but {} is in use, and the metadata is in the directory that is listed \
                 first: list that one first, or mount its disk",
                path.display()
            ));
        }
        if matches!(found, Found::Formatted(..))
            && startup::exists(&path.join(REGISTER_FILE)).map_err(|error| access(path, error))?
        {
            return mismatch(format!(
                "it is listed first, but the metadata is in {}: list that one first",
                path.display()
            ));
        }
    }
    Ok(())
}

fn open_one(
    path: &Path,
    found: Found,
    was: Option<Uuid>,
    (cluster_id, node_id): (Uuid, i32),
) -> Result<DataDirectory, DirectoryError> {
    let (directory_id, lock) = match found {
        Found::Formatted(_, directory_id, lock) => (directory_id, lock),
        Found::Inaccessible(error) => {
            return Ok(DataDirectory::offline(path, was, error.to_string()));
        }
        Found::Fresh(lock) => {
            if let Some(was) = was {
                let why = format!(
                    "it is empty, but directory {was} of this node was there: mount its disk; if its \
                     records are lost for good, remove its line from {REGISTER_FILE} in the first \
                     data directory"
                );
                return Ok(DataDirectory::offline(path, Some(was), why));
            }
            let directory_id = Uuid(random_bytes());
            write_format(path, cluster_id, node_id, directory_id)
                .map_err(|error| access(path, error))?;
            (directory_id, lock)
        }
    };
    Ok(DataDirectory {
        path: path.to_path_buf(),
        directory_id: Some(directory_id),
        offline: None,
        _lock: Some(lock),
    })
}

/// Locks a directory for work on its disk: one that a broker formatted, or one that it would take.
pub fn hold_or_claim(path: &Path) -> Result<DirLock, DirectoryError> {
    let access = |error| access(path, error);
    startup::create_dir_all(path).map_err(access)?;
    read_format(path)?;
    startup::lock_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Locked(path.into()),
        _ => access(error),
    })
}

/// Locks a directory for offline work on it; it must have been formatted by a broker.
pub fn hold(path: &Path) -> Result<DirLock, DirectoryError> {
    let access = |error| DirectoryError::Access {
        path: path.into(),
        error,
    };
    if !startup::exists(&path.join(FORMAT_FILE)).map_err(access)? {
        return Err(DirectoryError::Mismatch {
            path: path.into(),
            what: format!("it has no {FORMAT_FILE}: it is no data directory"),
        });
    }
    startup::lock_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Locked(path.into()),
        _ => access(error),
    })
}

fn read_format(path: &Path) -> Result<Option<BTreeMap<String, String>>, DirectoryError> {
    let access = |error| access(path, error);
    let file = path.join(FORMAT_FILE);
    if !startup::exists(&file).map_err(access)? {
        let entries = startup::list_dir(path).map_err(access)?;
        let foreign = entries
            .into_iter()
            .find(|entry| !HARMLESS.contains(&entry.name.as_str()));
        return match foreign {
            Some(entry) => Err(DirectoryError::Foreign {
                path: path.into(),
                found: entry.name,
            }),
            None => Ok(None),
        };
    }
    let bytes = startup::read_file(&file, MOST_FORMAT_BYTES).map_err(access)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let pair = |line: &str| {
        line.split_once('=')
            .map(|(key, value)| (key.into(), value.into()))
    };
    Ok(Some(text.lines().filter_map(pair).collect()))
}

fn check_format(
    path: &Path,
    format: &BTreeMap<String, String>,
    node_id: i32,
    cluster: Option<Uuid>,
) -> Result<(Uuid, Uuid), DirectoryError> {
    let mismatch = |what: String| DirectoryError::Mismatch {
        path: path.into(),
        what,
    };
    let value = |key: &str| {
        format
            .get(key)
            .ok_or_else(|| mismatch(format!("{FORMAT_FILE} has no {key}: it is damaged")))
    };
    let version = value("format.version")?;
    match version.parse::<u32>() {
        Ok(FORMAT_VERSION) => {}
        Ok(newer) if newer > FORMAT_VERSION => {
            return Err(mismatch(format!(
                "it has format {newer}, this build knows up to {FORMAT_VERSION}: use a newer Percolog"
            )));
        }
        _ => return Err(mismatch(format!("unknown format version {version:?}"))),
    }
    let owner = value("node.id")?;
    if *owner != node_id.to_string() {
        return Err(mismatch(format!(
            "it belongs to node {owner}, this is node {node_id}"
        )));
    }
    let id = |key: &str| -> Result<Uuid, DirectoryError> {
        value(key)?
            .parse()
            .map_err(|_| mismatch(format!("{FORMAT_FILE}: {key} is no id")))
    };
    let found = id("cluster.id")?;
    if cluster.is_some_and(|cluster| cluster != found) {
        return Err(mismatch(format!(
            "it belongs to cluster {found}, the others do not"
        )));
    }
    Ok((found, id("directory.id")?))
}

/// The content of `percolog.format`.
#[must_use]
pub fn format_text(cluster: Uuid, node_id: i32, directory: Uuid) -> String {
    format!(
        "format.version={FORMAT_VERSION}\ncluster.id={cluster}\nnode.id={node_id}\ndirectory.id={directory}\n"
    )
}

fn write_format(path: &Path, cluster: Uuid, node_id: i32, directory: Uuid) -> io::Result<()> {
    let text = format_text(cluster, node_id, directory);
    startup::replace_file(&path.join(FORMAT_FILE), text.as_bytes())
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::*;

    fn open(paths: &[PathBuf]) -> Result<DataDirectories, DirectoryError> {
        let mut opened = open_all(paths, 1, None)?;
        opened.register_layout(2)?;
        Ok(opened)
    }

    #[test]
    fn a_directory_is_formatted_once_and_belongs_to_its_node_and_cluster() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let paths = [root.path().join("a"), root.path().join("b")];
        let first = open(&paths).expect("fresh");
        assert!(
            first
                .list
                .iter()
                .all(|directory| directory.offline.is_none())
        );
        assert!(matches!(
            open_all(&paths, 1, None),
            Err(DirectoryError::Locked(_))
        ));
        let cluster = first.cluster_id;
        drop(first);
        let again = open(&paths).expect("the same node");
        assert_eq!(again.cluster_id, cluster);
        assert_eq!(again.register.known.len(), 2);
        drop(again);
        assert!(matches!(
            open_all(&paths, 2, None),
            Err(DirectoryError::Mismatch { .. })
        ));
        let other = [root.path().join("c")];
        drop(open(&other).expect("another cluster"));
        let mixed = [paths[0].clone(), other[0].clone()];
        assert!(matches!(open(&mixed), Err(DirectoryError::Mismatch { .. })));
        let swapped = [paths[1].clone(), paths[0].clone()];
        let error = open(&swapped).expect_err("the metadata is in the other one");
        assert!(error.to_string().contains("list that one first"), "{error}");
    }

    #[test]
    fn a_directory_that_is_away_is_offline_and_not_begun_anew() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let paths = [root.path().join("a"), root.path().join("b")];
        let id = open(&paths).expect("fresh").list[1].directory_id;
        // Not mounted: an empty directory is in its place.
        let away = root.path().join("away");
        startup::rename(&paths[1], &away).expect("renamed");
        for _ in 0..2 {
            let opened = open(&paths).expect("the first is there");
            let why = opened.list[1].offline.as_deref().expect("offline");
            assert!(why.contains("mount its disk"), "{why}");
            assert_eq!(opened.missing(), [id.expect("known")]);
        }
        // Somewhere else it is still the same.
        let moved = [paths[0].clone(), away.clone()];
        assert!(open(&moved).expect("moved").missing().is_empty());
        startup::remove_dir_all(&paths[1]).expect("removed");
        startup::rename(&away, &paths[1]).expect("renamed");
        assert!(open(&paths).expect("back").missing().is_empty());
        // No longer configured: its logs are missing all the same.
        assert_eq!(open(&paths[..1]).expect("one").missing().len(), 1);
        // A path where nothing can be.
        let file = root.path().join("file");
        startup::replace_file(&file, b"").expect("written");
        let opened = open(&[paths[0].clone(), paths[1].clone(), file.join("x")]).expect("two");
        assert!(opened.list[2].offline.is_some() && opened.missing().is_empty());
        assert!(
            open(&[file.join("x"), paths[1].clone()]).is_err(),
            "the first"
        );
    }

    #[test]
    fn an_empty_first_directory_beside_used_ones_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let paths = [root.path().join("a"), root.path().join("b")];
        drop(open(&paths).expect("fresh"));
        startup::remove_dir_all(&paths[0]).expect("removed");
        let error = open(&paths).expect_err("the metadata is gone");
        assert!(error.to_string().contains("it is empty, but"), "{error}");
    }

    #[test]
    fn foreign_and_newer_directories_are_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let foreign = root.path().join("foreign");
        startup::create_dir_all(&foreign).expect("created");
        startup::replace_file(&foreign.join("meta.properties"), b"x").expect("written");
        let error = open_all(std::slice::from_ref(&foreign), 1, None).expect_err("foreign");
        assert!(error.to_string().contains("meta.properties"), "{error}");
        let newer = root.path().join("newer");
        drop(open_all(std::slice::from_ref(&newer), 1, None).expect("fresh"));
        startup::replace_file(&newer.join(FORMAT_FILE), b"format.version=9\n").expect("written");
        let error = open_all(std::slice::from_ref(&newer), 1, None).expect_err("newer");
        assert!(error.to_string().contains("newer Percolog"), "{error}");
    }
}
