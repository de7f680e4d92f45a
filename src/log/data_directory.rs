//! A data directory as a whole: whose it is, and that only one process uses it.
//!
//! `percolog.format` is a text file of `key=value` lines: `format.version`, `cluster.id`, `node.id`,
//! `directory.id`. A directory without it must be empty to be taken; one of a newer format, another
//! cluster or another node is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::random::random_bytes;
use crate::runtime::startup::{self, DirLock};
use crate::wire::codec::Uuid;

/// The newest layout this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "percolog.format";
const MOST_FORMAT_BYTES: u64 = 4096;
/// Names that may lie in a fresh directory: what file systems put there, and our own lock.
const HARMLESS: [&str; 3] = ["lost+found", ".lock", "percolog.tmp"];

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

/// A directory that this process holds.
#[derive(Debug)]
pub struct DataDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Its own identity.
    pub directory_id: Uuid,
    _lock: DirLock,
}

/// Locks the directories, formats empty ones, and checks that they belong together. A fresh set
/// founds a new cluster.
pub fn open_all(paths: &[PathBuf], node_id: i32) -> Result<Vec<DataDirectory>, DirectoryError> {
    let mut opened = Vec::new();
    let mut cluster: Option<Uuid> = None;
    let mut fresh = Vec::new();
    for path in paths {
        let access = |error| DirectoryError::Access {
            path: path.clone(),
            error,
        };
        startup::create_dir_all(path).map_err(access)?;
        let lock = startup::lock_dir(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DirectoryError::Locked(path.clone()),
            _ => access(error),
        })?;
        match read_format(path)? {
            Some(format) => {
                let (found, directory_id) = check_format(path, &format, node_id, cluster)?;
                cluster = Some(found);
                opened.push(DataDirectory {
                    path: path.clone(),
                    cluster_id: found,
                    directory_id,
                    _lock: lock,
                });
            }
            None => fresh.push((path.clone(), lock)),
        }
    }
    let cluster_id = cluster.unwrap_or_else(|| Uuid(random_bytes()));
    for (path, lock) in fresh {
        let directory_id = Uuid(random_bytes());
        write_format(&path, cluster_id, node_id, directory_id).map_err(|error| {
            DirectoryError::Access {
                path: path.clone(),
                error,
            }
        })?;
        opened.push(DataDirectory {
            path,
            cluster_id,
            directory_id,
            _lock: lock,
        });
    }
    // The configured order is what placement counts by.
    opened.sort_by_key(|directory| paths.iter().position(|path| *path == directory.path));
    Ok(opened)
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
    let access = |error| DirectoryError::Access {
        path: path.into(),
        error,
    };
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

fn write_format(path: &Path, cluster: Uuid, node_id: i32, directory: Uuid) -> io::Result<()> {
    let text = format!(
        "format.version={FORMAT_VERSION}\ncluster.id={cluster}\nnode.id={node_id}\ndirectory.id={directory}\n"
    );
    startup::replace_file(&path.join(FORMAT_FILE), text.as_bytes())
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_formatted_once_and_belongs_to_its_node_and_cluster() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let paths = [root.path().join("a"), root.path().join("b")];
        let first = open_all(&paths, 1).expect("fresh");
        let cluster = first[0].cluster_id;
        assert_eq!(cluster, first[1].cluster_id);
        assert!(matches!(
            open_all(&paths, 1),
            Err(DirectoryError::Locked(_))
        ));
        drop(first);
        let again = open_all(&paths, 1).expect("the same node");
        assert_eq!(again[0].cluster_id, cluster);
        drop(again);
        assert!(matches!(
            open_all(&paths, 2),
            Err(DirectoryError::Mismatch { .. })
        ));
        let other = [root.path().join("c")];
        drop(open_all(&other, 1).expect("another cluster"));
        let mixed = [paths[0].clone(), other[0].clone()];
        assert!(matches!(
            open_all(&mixed, 1),
            Err(DirectoryError::Mismatch { .. })
        ));
    }

    #[test]
    fn foreign_and_newer_directories_are_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let foreign = root.path().join("foreign");
        startup::create_dir_all(&foreign).expect("created");
        startup::replace_file(&foreign.join("meta.properties"), b"x").expect("written");
        let error = open_all(std::slice::from_ref(&foreign), 1).expect_err("foreign");
        assert!(error.to_string().contains("meta.properties"), "{error}");
        let newer = root.path().join("newer");
        drop(open_all(std::slice::from_ref(&newer), 1).expect("fresh"));
        startup::replace_file(&newer.join(FORMAT_FILE), b"format.version=9\n").expect("written");
        let error = open_all(std::slice::from_ref(&newer), 1).expect_err("newer");
        assert!(error.to_string().contains("newer Percolog"), "{error}");
    }
}
