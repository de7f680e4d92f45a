//! What the host was before the tuner changed it.
//!
//! # Format, `/var/lib/percolog-tune/tune.undo`
//! A text file, each line ended by a line feed:
//! ```text
//! percolog tune undo 1
//! boot <the kernel's boot id>          values set before a restart of the host are gone with it
//! <target> = <before> -> <after>       one line for each value, see `target::Target`
//! crc32c <8 hexadecimal digits>        of everything above
//! ```
//! The directory is root's alone and not the broker's, whose user must not choose what root writes.
//! The file is made durable before the first value is written, so that whatever interrupts the tuner can
//! be undone.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::target::{Target, is_value};
use crate::runtime::host_tree::{HostTree, Reading};
use crate::runtime::startup::{self, DirLock};

const DIRECTORY: &str = "var/lib/percolog-tune";
const FILE: &str = "var/lib/percolog-tune/tune.undo";
const HEADER: &str = "percolog tune undo 1";
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// Values that one file holds: interrupts and queues of a large host.
const ENTRIES_MAX: usize = 65_536;

/// One changed value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UndoEntry {
    /// Where.
    pub target: Target,
    /// What was there first.
    pub before: String,
    /// What the tuner wrote.
    pub after: String,
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UndoFile {
    /// The boot during which the values were written.
    pub boot: String,
    /// In the order of writing.
    pub entries: Vec<UndoEntry>,
}

/// Whoever holds it may write the file; its directory is there.
#[derive(Debug)]
pub struct UndoLock(#[expect(dead_code, reason = "held, not looked at")] DirLock);

/// Where it lies.
#[must_use]
pub fn path(tree: &HostTree) -> PathBuf {
    tree.path(FILE)
}

/// The current boot.
#[must_use]
pub fn current_boot(tree: &HostTree) -> String {
    let id = tree.read(BOOT_ID);
    let id = id.text().filter(|id| is_value(id)).unwrap_or("unknown");
    id.to_owned()
}

/// Keeps other tuners out.
///
/// # Errors
/// A sentence that says what to do.
pub fn lock(tree: &HostTree) -> Result<UndoLock, String> {
    let directory = tree.path(DIRECTORY);
    let locked = startup::create_dir_all(&directory)
        .and_then(|()| startup::sync_dir(directory.parent().unwrap_or(Path::new("/"))))
        .and_then(|()| startup::lock_dir(&directory));
    locked.map(UndoLock).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            "another percolog tune is at work: wait until it has ended".to_owned()
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{}: {error}; run this as root", directory.display())
        }
        _ => format!("{}: {error}", directory.display()),
    })
}

/// Reads the file, if there is one.
///
/// # Errors
/// A sentence that names the file and says what to do.
pub fn read(tree: &HostTree) -> Result<Option<UndoFile>, String> {
    let refused = |why: &str| {
        Err(format!(
            "{}: {why}; look at the values in it, set them by hand, and remove it",
            path(tree).display()
        ))
    };
    match tree.read(FILE) {
        Reading::Missing => Ok(None),
        Reading::Odd(why) => refused(&why),
        Reading::Text(text) => match UndoFile::parse(&text) {
            Ok(file) => Ok(Some(file)),
            Err(why) => refused(&why),
        },
    }
}

/// Replaces the file, durably.
///
/// # Errors
/// As the calls behind it.
pub fn write(tree: &HostTree, _: &UndoLock, file: &UndoFile) -> Result<(), String> {
    let path = path(tree);
    startup::replace_file(&path, file.render().as_bytes())
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes the file, durably.
///
/// # Errors
/// As the calls behind it.
pub fn remove(tree: &HostTree, _: &UndoLock) -> Result<(), String> {
    let path = path(tree);
    startup::remove_file(&path)
        .and_then(|()| startup::sync_dir(&tree.path(DIRECTORY)))
        .map_err(|error| format!("{}: {error}", path.display()))
}

impl UndoFile {
    fn render(&self) -> String {
        let mut text = format!("{HEADER}\nboot {}\n", self.boot);
        for entry in &self.entries {
            let UndoEntry {
                target,
                before,
                after,
            } = entry;
            let _ = writeln!(text, "{target} = {before} -> {after}");
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c {sum:08x}");
        text
    }

    fn parse(text: &str) -> Result<UndoFile, String> {
        let text = format!("{}\n", text.trim_end());
        let end = text
            .rfind("crc32c ")
            .ok_or("has no checksum: it is cut off")?;
        let (body, sum) = text.split_at(end);
        let sum = u32::from_str_radix(sum["crc32c ".len()..].trim_end(), 16).ok();
        if sum != Some(crc32c::crc32c(body.as_bytes())) {
            return Err("is damaged: its checksum does not fit".to_owned());
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEADER) {
            return Err(format!("does not begin with '{HEADER}'"));
        }
        let boot = lines.next().and_then(|line| line.strip_prefix("boot "));
        let boot = boot
            .filter(|id| is_value(id))
            .ok_or("has no boot id")?
            .to_owned();
        let mut entries = Vec::new();
        for line in lines {
            if entries.len() == ENTRIES_MAX {
                return Err(format!("has more than {ENTRIES_MAX} values"));
            }
            let entry = parse_entry(line).ok_or_else(|| format!("has a strange line: {line}"))?;
            entries.push(entry);
        }
        Ok(UndoFile { boot, entries })
    }
}

fn parse_entry(line: &str) -> Option<UndoEntry> {
    let (target, values) = line.split_once(" = ")?;
    let (before, after) = values.split_once(" -> ")?;
    (is_value(before) && is_value(after)).then_some(())?;
    Some(UndoEntry {
        target: Target::parse(target)?,
        before: before.to_owned(),
        after: after.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> UndoFile {
        UndoFile {
            boot: "0f-1".to_owned(),
            entries: vec![
                UndoEntry {
                    target: Target::Swappiness,
                    before: "60".to_owned(),
                    after: "1".to_owned(),
                },
                UndoEntry {
                    target: Target::Interrupt(7),
                    before: "0-3,8".to_owned(),
                    after: "0".to_owned(),
                },
            ],
        }
    }

    fn summed(body: &str) -> String {
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    #[test]
    fn survives_being_written_down() {
        assert_eq!(UndoFile::parse(&file().render()), Ok(file()));
        let text = file().render();
        for cut in 0..text.len() - 1 {
            assert!(UndoFile::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_even_with_a_right_checksum() {
        let head = format!("{HEADER}\nboot x\n");
        assert!(UndoFile::parse(&summed(&head)).is_ok());
        for body in [
            "percolog tune undo 2\nboot x\n".to_owned(),
            format!("{HEADER}\nswappiness = 1 -> 2\n"),
            format!("{head}/etc/passwd = a -> b\n"),
            format!("{head}scheduler ../../x = a -> b\n"),
            format!("{head}swappiness = $(x) -> 1\n"),
            format!("{head}swappiness = 1\n"),
            format!("{head}\n"),
        ] {
            assert!(UndoFile::parse(&summed(&body)).is_err(), "{body}");
        }
        let flipped = file().render().replace("60", "61");
        let error = UndoFile::parse(&flipped).expect_err("flipped");
        assert!(error.contains("damaged"), "{error}");
    }
}
