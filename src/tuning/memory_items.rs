//! Items about memory: huge pages, swap, limits.

use super::finding::{Change, Finding, Severity};
use super::host::Host;
use super::target::Target;
use crate::runtime::control_group;
use crate::runtime::host_tree::Reading;

/// Beyond this the kernel swaps out what it could have kept.
const SWAPPINESS_MAX: u64 = 10;
const MIB: u64 = 1 << 20;

pub(super) fn huge_pages(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "transparent-huge-pages";
    let should_be = "madvise or never";
    let target = Target::HugePages;
    let reason = "With 'always' a small allocation may take 2 MiB, and the kernel moves memory \
                  about to find room for it while a core waits.";
    vec![match host.tree.read(&target.path()) {
        Reading::Missing => Finding::not_applicable(ITEM, "The kernel is built without them."),
        Reading::Odd(why) => Finding::odd(ITEM, &why, should_be),
        Reading::Text(text) => match target.value(&text).as_deref() {
            Some(value @ ("madvise" | "never")) => {
                Finding::new(ITEM, Severity::Good, value, should_be, reason)
            }
            Some("always") => {
                let value = "madvise".to_owned();
                Finding::new(ITEM, Severity::Warning, "always", should_be, reason)
                    .changing([Change { target, value }])
            }
            _ => Finding::odd(ITEM, &text, should_be),
        },
    }]
}

/// Names of what memory may be swapped to; none when the kernel does not say.
fn swaps(host: &Host) -> Result<Vec<String>, Reading> {
    match host.tree.read("proc/swaps") {
        Reading::Text(text) => {
            let rows = text.lines().skip(1);
            let names = rows.filter_map(|row| row.split_whitespace().next());
            Ok(names.map(str::to_owned).collect())
        }
        other => Err(other),
    }
}

pub(super) fn swap(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "swap";
    let reason = "A page of the broker that has to come back from a disk stops its core, and every \
                  connection on it, for as long as that takes.";
    let names = match swaps(host) {
        Ok(names) => names,
        Err(Reading::Odd(why)) => return vec![Finding::odd(ITEM, &why, "none")],
        Err(_) => {
            let why = "The kernel is built without swap.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    if names.is_empty() {
        return vec![Finding::new(ITEM, Severity::Good, "none", "none", reason)];
    }
    let in_memory = names.iter().all(|name| name.starts_with("/dev/zram"));
    let severity = if in_memory {
        Severity::Hint
    } else {
        Severity::Warning
    };
    let finding = Finding::new(ITEM, severity, names.join(", "), "none", reason);
    // Not done by `apply`: what is swapped out may not fit into memory.
    vec![finding.remedied("swapoff -a, if memory holds everything; remove it from /etc/fstab")]
}

pub(super) fn swappiness(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "swappiness";
    let should_be = format!("{SWAPPINESS_MAX} or less");
    let target = Target::Swappiness;
    let text = match host.tree.read(&target.path()) {
        Reading::Text(text) => text,
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Missing => {
            let why = "The kernel is built without swap.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    let Ok(value) = text.parse::<u64>() else {
        return vec![Finding::odd(ITEM, &text, should_be)];
    };
    let reason = "The broker's memory is not a cache that the kernel should make room from; it \
                  holds its own cache within limits.";
    if value <= SWAPPINESS_MAX {
        return vec![Finding::new(ITEM, Severity::Good, text, should_be, reason)];
    }
    let has_swap = swaps(host).is_ok_and(|names| !names.is_empty());
    let severity = if has_swap {
        Severity::Warning
    } else {
        Severity::Hint
    };
    let value = "1".to_owned();
    vec![Finding::new(ITEM, severity, text, should_be, reason).changing([Change { target, value }])]
}

pub(super) fn memory(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "memory";
    let needed = host.memory_needed_bytes;
    let should_be = format!("{} MiB or more", needed.div_ceil(MIB));
    let limit = control_group::memory_limit_bytes(&host.tree);
    let total = match host.tree.read("proc/meminfo") {
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Missing => None,
        Reading::Text(text) => match total_bytes(&text) {
            None => return vec![Finding::odd(ITEM, "no MemTotal", should_be)],
            total => total,
        },
    };
    let (found_bytes, whose) = match (limit, total) {
        (Some(limit), Some(total)) if total < limit => (total, "of this host"),
        (Some(limit), _) => (limit, "granted to the control group"),
        (None, Some(total)) => (total, "of this host"),
        (None, None) => {
            let why = "The kernel does not say how much there is.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    let found = format!("{} MiB {whose}", found_bytes / MIB);
    let reason = "The cache, the memory of requests and that of compaction may all be in use at \
                  once by their settings; whoever is beyond the limit is killed.";
    if found_bytes >= needed {
        return vec![Finding::new(ITEM, Severity::Good, found, should_be, reason)];
    }
    let remedy = "raise the limit, or lower storage.cache_bytes, limits.request_memory_bytes and \
                  storage.compaction_memory_bytes";
    vec![Finding::new(ITEM, Severity::Warning, found, should_be, reason).remedied(remedy)]
}

fn total_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
