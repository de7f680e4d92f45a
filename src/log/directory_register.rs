//! Which data directories this node has had, so that an empty one is not taken for a new one when a
//! disk is not mounted, and a log that cannot be found is not begun anew while its disk is away.
//!
//! # Format, `percolog.directories` in the first data directory
//! A text file, each line ended by a line feed:
//! ```text
//! directory=<directory id> <path>      it was there at some start, last at this path
//! layout=<cores> <id>,<id>,...         logs were placed on these directories by that many cores
//! layout=any                           and by others, too many to be remembered
//! ```
//! To tell Percolog that a directory is lost for good, remove its `directory` line: its partitions
//! then start empty.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::startup;
use crate::wire::codec::Uuid;

/// The name of the file.
pub const REGISTER_FILE: &str = "percolog.directories";

const MOST_BYTES: u64 = 1 << 20;
/// Layouts remembered; a layout is new when directories or the number of cores change.
const MOST_LAYOUTS: usize = 64;

/// Over which directories logs were placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// By how many cores.
    pub cores: usize,
    /// In the order of the configuration.
    pub directories: Vec<Uuid>,
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRegister {
    /// Where every directory was last.
    pub known: BTreeMap<Uuid, String>,
    /// Every layout so far.
    pub layouts: Vec<Layout>,
    /// There were more than are remembered.
    pub forgotten: bool,
}

impl DirectoryRegister {
    /// What the first data directory says; empty when it says nothing.
    pub fn read(first: &Path) -> io::Result<DirectoryRegister> {
        let path = first.join(REGISTER_FILE);
        if !startup::exists(&path)? {
            return Ok(DirectoryRegister::default());
        }
        let bytes = startup::read_file(&path, MOST_BYTES)?;
        DirectoryRegister::parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| {
            let text = format!("{}: it is damaged", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Makes it durable.
    pub fn write(&self, first: &Path) -> io::Result<()> {
        startup::replace_file(&first.join(REGISTER_FILE), self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (id, path) in &self.known {
            text.push_str(&format!("directory={id} {path}\n"));
        }
        for layout in &self.layouts {
            let ids: Vec<String> = layout.directories.iter().map(Uuid::to_string).collect();
            text.push_str(&format!("layout={} {}\n", layout.cores, ids.join(",")));
        }
        if self.forgotten {
            text.push_str("layout=any\n");
        }
        text
    }

    fn parse(text: &str) -> Option<DirectoryRegister> {
        let mut register = DirectoryRegister::default();
        for line in text.lines() {
            match line.split_once('=')? {
                ("directory", value) => {
                    let (id, path) = value.split_once(' ')?;
                    register.known.insert(id.parse().ok()?, path.to_string());
                }
                ("layout", "any") => register.forgotten = true,
                ("layout", value) => {
                    let (cores, ids) = value.split_once(' ')?;
                    let ids: Result<Vec<Uuid>, _> = ids.split(',').map(str::parse).collect();
                    register.layouts.push(Layout {
                        cores: cores.parse().ok().filter(|cores| *cores > 0)?,
                        directories: ids.ok()?,
                    });
                }
                _ => return None,
            }
        }
        Some(register)
    }

    /// The directory that was last at `path`.
    #[must_use]
    pub fn at_path(&self, path: &Path) -> Option<Uuid> {
        let text = path_text(path);
        self.known
            .iter()
            .find(|(_, known)| **known == text)
            .map(|(id, _)| *id)
    }

    /// Notes a directory and where it is.
    pub fn note(&mut self, id: Uuid, path: &Path) {
        self.known.insert(id, path_text(path));
    }

    /// Notes how logs are placed from now on.
    pub fn note_layout(&mut self, layout: Layout) {
        if self.layouts.contains(&layout) {
            return;
        }
        if self.layouts.len() == MOST_LAYOUTS {
            self.layouts.remove(0);
            self.forgotten = true;
        }
        self.layouts.push(layout);
    }
}

/// Absolute, on one line.
fn path_text(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    absolute.display().to_string().replace('\n', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_everything_and_nothing_else_is_taken() {
        let mut register = DirectoryRegister::default();
        let ids = [Uuid([1; 16]), Uuid([2; 16])];
        register.note(ids[0], Path::new("/a b"));
        register.note(ids[1], Path::new("/c"));
        let layout = |cores| Layout {
            cores,
            directories: ids.to_vec(),
        };
        register.note_layout(layout(2));
        register.note_layout(layout(2));
        assert_eq!(register.layouts.len(), 1);
        let parse = |register: &DirectoryRegister| DirectoryRegister::parse(&register.text());
        assert_eq!(parse(&register), Some(register.clone()));
        assert_eq!(register.at_path(Path::new("/c")), Some(ids[1]));
        assert_eq!(register.at_path(Path::new("/d")), None);
        for cores in 3..3 + MOST_LAYOUTS {
            register.note_layout(layout(cores));
        }
        assert!(register.forgotten && register.layouts.len() == MOST_LAYOUTS);
        assert_eq!(parse(&register), Some(register));
        for damaged in ["x", "directory=1 /a", "layout=0 ", "layout=1 x", "else=1"] {
            assert_eq!(DirectoryRegister::parse(damaged), None, "{damaged}");
        }
    }
}
