//! Items about a data directory: file system, mount options, alignment, latency of a flush.

use super::finding::{Finding, Severity};
use super::host::{DataDirectory, Host};
use super::mounts::{Mount, disks_of, mount_of};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::runtime::disk_probe::Samples;

/// A flush that takes longer makes every acknowledgement slow.
const FLUSH_HINT_US: u64 = 3_000;
const FLUSH_WARNING_US: u64 = 15_000;

fn with_mount(
    host: &Host,
    item: &'static str,
    should_be: &str,
    look: impl Fn(&Mount) -> Finding,
) -> Vec<Finding> {
    host.each_directory(item, |directory| {
        match mount_of(&host.tree, &directory.path) {
            Ok(mount) => look(&mount),
            Err(Some(odd)) => Finding::odd(item, &odd, should_be),
            Err(None) => Finding::not_applicable(item, "The kernel does not tell of its mounts."),
        }
    })
}

const OWN_FILE_SYSTEM: &str =
    "put the data directory on a file system of its own: mkfs.xfs, or mkfs.ext4";

pub(super) fn file_system(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "file-system";
    let should_be = "ext4 or xfs";
    with_mount(host, ITEM, should_be, |mount| {
        let (severity, reason) = judged(&mount.file_system);
        let found = format!("{} at {}", mount.file_system, mount.point.display());
        let finding = Finding::new(ITEM, severity, found, should_be, reason);
        match mount.file_system.as_str() {
            _ if severity == Severity::Good => finding,
            "overlay" | "aufs" => finding.remedied("mount a volume at the data directory"),
            _ => finding.remedied(OWN_FILE_SYSTEM),
        }
    })
}

/// How good a file system is for a broker, and why.
fn judged(file_system: &str) -> (Severity, &'static str) {
    match file_system {
        "ext4" | "xfs" => (
            Severity::Good,
            "These overwrite blocks in place and take direct writes.",
        ),
        "tmpfs" | "ramfs" => (
            Severity::Error,
            "This is memory: nothing in it survives a power cut, whatever was acknowledged.",
        ),
        "overlay" | "aufs" => (
            Severity::Warning,
            "This is the layer of a container: it vanishes with it.",
        ),
        "btrfs" | "zfs" | "bcachefs" | "f2fs" | "nilfs2" => (
            Severity::Warning,
            "A file system that never writes in place allocates for every overwrite, so each \
             acknowledgement waits for its metadata too.",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" => (
            Severity::Warning,
            "What a flush promises depends on a server elsewhere, and an acknowledgement waits for \
             the network to it.",
        ),
        name if name.starts_with("fuse") => (
            Severity::Warning,
            "What a flush promises depends on a program in user space.",
        ),
        _ => (
            Severity::Hint,
            "The broker is not tested on this file system.",
        ),
    }
}

pub(super) fn mount_options(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "mount-options";
    const RULES: [(&str, Severity, &str, &str); 8] = [
        ("nobarrier", Severity::Error, "barriers on", NO_BARRIER),
        ("barrier=0", Severity::Error, "barriers on", NO_BARRIER),
        ("ro", Severity::Error, "rw", "Nothing can be written there."),
        (
            "data=journal",
            Severity::Warning,
            "data=ordered",
            "ext4 then writes all data twice and refuses direct I/O.",
        ),
        (
            "sync",
            Severity::Warning,
            "async",
            "Every write then waits for the disk, also those that nobody waits for.",
        ),
        (
            "dirsync",
            Severity::Hint,
            "without it",
            "The broker syncs directories itself where it has to.",
        ),
        (
            "strictatime",
            Severity::Hint,
            "relatime or noatime",
            "Each read then changes the file's metadata.",
        ),
        (
            "discard",
            Severity::Hint,
            "nodiscard, and fstrim once a week",
            "Deleting a segment then makes the device discard it at once, beside the writes that \
             acknowledgements wait for.",
        ),
    ];
    with_mount(host, ITEM, "as mkfs and mount choose them", |mount| {
        let worst = RULES
            .iter()
            .filter(|(option, ..)| mount.has(option))
            .max_by_key(|(_, severity, ..)| *severity);
        let Some((option, severity, should_be, reason)) = worst else {
            let reason = "None of the options that harm durability or latency is set.";
            let found = mount.options.as_str();
            return Finding::new(ITEM, Severity::Good, found, "none that harms", reason);
        };
        let remedy = format!(
            "change the options of {} in /etc/fstab, and mount it again",
            mount.point.display()
        );
        Finding::new(ITEM, *severity, *option, *should_be, *reason).remedied(remedy)
    })
}

const NO_BARRIER: &str = "The kernel then sends no flushes to the device: what was acknowledged is \
                          lost in a power cut.";

pub(super) fn alignment(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "direct-io";
    let should_be = format!("direct I/O, aligned to {BLOCK_BYTES} bytes or less");
    let reason = "The broker moves data between its own memory and the disk in blocks of 4096 \
                  bytes, past the page cache.";
    let finding =
        |severity, found: String| Finding::new(ITEM, severity, found, should_be.clone(), reason);
    let block = BLOCK_BYTES as u32;
    host.each_directory(ITEM, |directory| {
        match directory.facts.direct_alignment_bytes {
            Some((0, _) | (_, 0)) => finding(Severity::Error, "no direct I/O".to_owned())
                .remedied("use a directory on ext4 or xfs"),
            Some((memory, file)) => {
                let found = format!("memory to {memory} bytes, file to {file} bytes");
                match memory <= block && file <= block {
                    true => finding(Severity::Good, found),
                    false => finding(Severity::Error, found)
                        .remedied("use a device with blocks of 4096 bytes or less"),
                }
            }
            None => by_block_size(host, directory, finding),
        }
    })
}

/// Where the kernel does not say, it is the size of the device's blocks.
fn by_block_size(
    host: &Host,
    directory: &DataDirectory,
    finding: impl Fn(Severity, String) -> Finding,
) -> Finding {
    const ITEM: &str = "direct-io";
    let path = |disk: &String| format!("sys/block/{disk}/queue/logical_block_size");
    let disks = disks_of(&host.tree, directory);
    let sizes: Vec<String> = disks
        .iter()
        .filter_map(|disk| host.tree.read(&path(disk)).text().map(str::to_owned))
        .collect();
    if sizes.is_empty() {
        let why = "Neither the file system nor a block device says what it wants; the broker tries \
                   it at its start.";
        return Finding::not_applicable(ITEM, why);
    }
    let parsed: Option<Vec<usize>> = sizes.iter().map(|size| size.parse().ok()).collect();
    match parsed.and_then(|sizes| sizes.into_iter().max()) {
        None => Finding::odd(ITEM, &sizes.join(", "), format!("{BLOCK_BYTES} or less")),
        Some(size) if size <= BLOCK_BYTES => {
            finding(Severity::Good, format!("blocks of {size} bytes"))
        }
        Some(size) => finding(Severity::Error, format!("blocks of {size} bytes"))
            .remedied("use a device with blocks of 4096 bytes or less"),
    }
}

pub(super) fn flush_latency(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "flush-latency";
    host.each_directory(ITEM, |directory| match &directory.flushes {
        Ok(samples) => judged_flushes(ITEM, samples),
        Err(why) => Finding::not_applicable(ITEM, why),
    })
}

fn judged_flushes(item: &'static str, samples: &Samples) -> Finding {
    let should_be = format!("{} ms or less, half of them", FLUSH_HINT_US / 1000);
    let (half_us, most_us) = (samples.quantile_us(0.5), samples.quantile_us(0.99));
    let found = format!("{half_us} us, 99 % within {most_us} us");
    let reason = "An acknowledgement waits for one durable write. Measured with 4 KiB at a time, in \
                  the data directory.";
    let severity = match half_us {
        FLUSH_WARNING_US.. => Severity::Warning,
        FLUSH_HINT_US.. => Severity::Hint,
        _ => Severity::Good,
    };
    let finding = Finding::new(item, severity, found, should_be, reason);
    match severity {
        Severity::Good => finding,
        _ => finding.remedied("run percolog tune disk for the whole picture; use a faster disk"),
    }
}
