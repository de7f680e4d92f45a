//! From a directory to its mount, and from there to the disks below.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::host::DataDirectory;
use crate::runtime::host_tree::{HostTree, Reading, is_plain_name};

/// Layers of mapped and joined devices that are followed down.
const LAYERS_MAX: usize = 8;
/// Disks below one directory that are looked at.
const DISKS_MAX: usize = 256;

/// One line of the table of mounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    pub(super) device: (u32, u32),
    pub(super) point: PathBuf,
    pub(super) options: String,
    pub(super) file_system: String,
    pub(super) source: String,
    pub(super) super_options: String,
}

impl Mount {
    /// Whether an option is set, for this mount or for the file system.
    pub(super) fn has(&self, option: &str) -> bool {
        let both = [&self.options, &self.super_options];
        both.iter()
            .any(|list| list.split(',').any(|set| set == option))
    }
}

/// The mount that a directory lies on.
///
/// # Errors
/// None when there is no table, otherwise what is odd about it.
pub(super) fn mount_of(tree: &HostTree, directory: &Path) -> Result<Mount, Option<String>> {
    let text = match tree.read("proc/self/mountinfo") {
        Reading::Text(text) => text,
        Reading::Missing => return Err(None),
        Reading::Odd(why) => return Err(Some(why)),
    };
    let mounts = text.lines().filter_map(parse);
    // Of several at one point the last hides the others.
    let above = mounts.filter(|mount| directory.starts_with(&mount.point));
    let deepest = above.max_by_key(|mount| mount.point.components().count());
    deepest.ok_or_else(|| Some("no mount holds the directory".to_owned()))
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let ([_, _, device, _, point, options, ..], [file_system, source, super_options]) =
        (&left[..], &right[..])
    else {
        return None;
    };
    let (major, minor) = device.split_once(':')?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: PathBuf::from(unescaped(point)),
        options: (*options).to_owned(),
        file_system: (*file_system).to_owned(),
        source: (*source).to_owned(),
        super_options: (*super_options).to_owned(),
    })
}

/// White space and backslashes stand there as three octal digits.
fn unescaped(text: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

/// The disks that hold a directory: physical ones, below partitions, mapped and joined devices.
pub(super) fn disks_of(tree: &HostTree, directory: &DataDirectory) -> Vec<String> {
    let mount = mount_of(tree, &directory.path).ok();
    let numbers = [
        Some(directory.facts.device),
        mount.as_ref().map(|mount| mount.device),
    ];
    let by_number = numbers
        .into_iter()
        .flatten()
        .find_map(|number| numbered(tree, number));
    // File systems that join disks themselves have a number of their own and name one of them.
    let named = mount
        .as_ref()
        .and_then(|mount| mount.source.strip_prefix("/dev/"))
        .filter(|name| is_plain_name(name));
    let Some(top) = by_number.or_else(|| named.and_then(|name| whole(tree, name))) else {
        return Vec::new();
    };
    let mut found = BTreeSet::new();
    let mut layer = vec![top];
    for _ in 0..LAYERS_MAX {
        let mut below = Vec::new();
        for device in layer {
            let parts = tree.names(&format!("sys/block/{device}/slaves"));
            if parts.is_empty() {
                found.insert(device);
            }
            below.extend(parts.iter().filter_map(|part| whole(tree, part)));
        }
        if below.is_empty() || found.len() > DISKS_MAX {
            break;
        }
        layer = below;
    }
    found.into_iter().take(DISKS_MAX).collect()
}

/// The whole device with this number, or the one whose partition has it.
fn numbered(tree: &HostTree, (major, minor): (u32, u32)) -> Option<String> {
    let number = format!("{major}:{minor}");
    let has = |path: String| tree.read(&path).text() == Some(&number);
    tree.names("sys/block").into_iter().find(|device| {
        has(format!("sys/block/{device}/dev"))
            || tree
                .names(&format!("sys/block/{device}"))
                .iter()
                .any(|part| {
                    part.starts_with(device) && has(format!("sys/block/{device}/{part}/dev"))
                })
    })
}

/// The whole device with this name, or the one whose partition has it.
fn whole(tree: &HostTree, name: &str) -> Option<String> {
    let mut devices = tree.names("sys/block").into_iter();
    devices.find(|device| device == name || tree.exists(&format!("sys/block/{device}/{name}/dev")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let line = "27 1 254:0 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/vda rw,nobarrier";
        let mount = parse(line).expect("a mount");
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert_eq!(mount.device, (254, 0));
        assert!(mount.has("nobarrier") && mount.has("relatime") && !mount.has("relat"));
        for bad in [
            "",
            "a - b",
            "27 1 254 / / rw - ext4 /dev/vda rw",
            "27 1 x:0 / / rw - a b c",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(unescaped("\\9\\04\\134"), OsString::from("\\9\\04\\"));
    }
}
