//! The files through which a kernel tells about itself and is told: `/proc`, `/sys`, `/etc`, `/var`.
//!
//! All of them are reached through one root, so that everything that depends on the host can be
//! tested over a tree of plain files.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The longest file that is read; the table of mounts of a busy container host is the longest.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Names of one directory that are looked at: processes, interrupts, devices.
const NAMES_MAX: usize = 65_536;
/// The longest name of a device, an interrupt or a process that is taken for one.
const NAME_BYTES_MAX: usize = 64;

/// What a file of the host says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Text, without white space at its ends.
    Text(String),
    /// There is no such file.
    Missing,
    /// There is one, and it cannot be used: why.
    Odd(String),
}

impl Reading {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Reading::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The files of a host below a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostTree {
    root: PathBuf,
}

impl HostTree {
    /// Of the host whose files lie below `root`.
    #[must_use]
    pub fn new(root: &Path) -> HostTree {
        HostTree {
            root: root.to_path_buf(),
        }
    }

    /// Whether this is the host that the process runs on.
    #[must_use]
    pub fn is_running_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path`, which begins without a slash, lies.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Reads one file, of a bounded length.
    #[must_use]
    pub fn read(&self, path: &str) -> Reading {
        match read_bounded(&self.path(path)) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Reading::Text(text.trim().to_owned()),
                Err(_) => Reading::Odd("not UTF-8".to_owned()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Missing,
            Err(error) => Reading::Odd(error.to_string()),
        }
    }

    /// The names in a directory that could be those of a device, an interrupt or a process, sorted;
    /// none when it cannot be read.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .take(NAMES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_plain_name(name))
            .collect();
        names.sort();
        names
    }

    /// Whether there is such a name.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Writes a value to a file that is there, in one call, as the kernel wants it.
    ///
    /// # Errors
    /// As open(2) and write(2).
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(path))?;
        let line = format!("{value}\n");
        let written = file.write(line.as_bytes())?;
        if written == line.len() {
            return Ok(());
        }
        let text = format!("{written} of {} bytes were taken", line.len());
        Err(io::Error::new(io::ErrorKind::WriteZero, text))
    }
}

/// Whether a name found in a directory is one that can stand in a path: no separator, no climbing.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.!:@".contains(&letter);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(fits)
        && name.bytes().any(|letter| letter != b'.')
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_tells_what_is_none() {
        let folder = tempfile::tempdir().expect("tempdir");
        let tree = HostTree::new(folder.path());
        fs::write(folder.path().join("good"), " 1\n").expect("written");
        fs::write(folder.path().join("bytes"), [0xff, 0xfe]).expect("written");
        fs::write(
            folder.path().join("huge"),
            vec![b'1'; FILE_BYTES_MAX as usize + 1],
        )
        .expect("written");
        assert_eq!(tree.read("good"), Reading::Text("1".to_owned()));
        assert_eq!(tree.read("none"), Reading::Missing);
        assert_eq!(tree.read("bytes"), Reading::Odd("not UTF-8".to_owned()));
        assert!(matches!(tree.read("huge"), Reading::Odd(why) if why.contains("longer")));
        assert!(matches!(tree.read("."), Reading::Odd(_)));
        assert_eq!(tree.names("."), ["bytes", "good", "huge"]);
        assert!(tree.names("none").is_empty());
        assert!(!tree.is_running_host());
    }

    #[test]
    fn writes_only_what_is_there() {
        let folder = tempfile::tempdir().expect("tempdir");
        let tree = HostTree::new(folder.path());
        fs::write(folder.path().join("value"), "a longer old value\n").expect("written");
        tree.write("value", "new").expect("written");
        assert_eq!(tree.read("value").text(), Some("new"));
        let error = tree.write("other", "new").expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for good in ["cpu0", "nvme0n1", "cciss!c0d0", "rx-0", "eth0.5", "254:0"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "$(x)", "é"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
        assert!(!is_plain_name(&"x".repeat(65)));
    }
}
