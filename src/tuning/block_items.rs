//! Items about the disks below a data directory: scheduler, merging, write cache.

use std::collections::BTreeSet;

use super::finding::{Change, Finding, Severity};
use super::host::Host;
use super::mounts::disks_of;
use super::target::{Target, chosen};
use crate::runtime::host_tree::Reading;

/// Looks at each disk; one finding says why when there is none.
fn each_disk(host: &Host, item: &'static str, look: impl Fn(&str) -> Finding) -> Vec<Finding> {
    let known = host.directories.iter().flatten();
    let disks: BTreeSet<String> = known
        .flat_map(|directory| disks_of(&host.tree, directory))
        .collect();
    if disks.is_empty() {
        let why = host
            .directories
            .iter()
            .find_map(|known| known.as_ref().err());
        let why = why.map_or(
            "No block device is known below the data directory.",
            String::as_str,
        );
        return vec![Finding::not_applicable(item, why)];
    }
    disks.iter().map(|disk| look(disk).of(disk)).collect()
}

fn queue_file(host: &Host, disk: &str, name: &str) -> Reading {
    host.tree.read(&format!("sys/block/{disk}/queue/{name}"))
}

/// Virtual disks call themselves rotating whatever they are.
fn is_rotating(host: &Host, disk: &str) -> bool {
    disk.starts_with("sd") && queue_file(host, disk, "rotational").text() == Some("1")
}

pub(super) fn scheduler(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "disk-scheduler";
    let reason = "The broker orders its own writes and keeps few of them on their way, so a \
                  scheduler only adds CPU time and waiting.";
    each_disk(host, ITEM, |disk| {
        let text = match queue_file(host, disk, "scheduler") {
            Reading::Text(text) => text,
            Reading::Odd(why) => return Finding::odd(ITEM, &why, "none"),
            Reading::Missing => {
                return Finding::not_applicable(ITEM, "The device has no queue to schedule.");
            }
        };
        let Some(current) = chosen(&text).map(str::to_owned) else {
            return Finding::odd(ITEM, &text, "none");
        };
        if current == "none" {
            return Finding::new(ITEM, Severity::Good, current, "none", reason);
        }
        if is_rotating(host, disk) {
            let reason = "A rotating disk gains from sorted requests, so this is left as it is.";
            return Finding::new(ITEM, Severity::Good, current, "any", reason);
        }
        let finding = Finding::new(ITEM, Severity::Warning, current, "none", reason);
        if text.split_whitespace().any(|name| name == "none") {
            let (target, value) = (Target::Scheduler(disk.to_owned()), "none".to_owned());
            finding.changing([Change { target, value }])
        } else {
            finding.remedied("the device offers no such scheduler")
        }
    })
}

pub(super) fn merging(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "disk-merging";
    let reason = "The broker's writes are whole groups already: looking for neighbours to merge \
                  them with finds none and takes CPU time for each.";
    each_disk(host, ITEM, |disk| {
        match queue_file(host, disk, "nomerges") {
            Reading::Missing => {
                Finding::not_applicable(ITEM, "The device has no queue to merge in.")
            }
            Reading::Odd(why) => Finding::odd(ITEM, &why, "2"),
            Reading::Text(text) => match text.as_str() {
                "2" => Finding::new(ITEM, Severity::Good, "2", "2", reason),
                "0" | "1" if is_rotating(host, disk) => {
                    let reason = "A rotating disk gains from merging, so this is left as it is.";
                    Finding::new(ITEM, Severity::Good, text, "any", reason)
                }
                "0" | "1" => {
                    let (target, value) = (Target::NoMerges(disk.to_owned()), "2".to_owned());
                    Finding::new(ITEM, Severity::Hint, text, "2", reason)
                        .changing([Change { target, value }])
                }
                _ => Finding::odd(ITEM, &text, "2"),
            },
        }
    })
}

pub(super) fn write_cache(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "write-cache";
    let should_be = "write through, or write back with FUA";
    each_disk(host, ITEM, |disk| {
        let cache = match queue_file(host, disk, "write_cache") {
            Reading::Text(text) => text,
            Reading::Odd(why) => return Finding::odd(ITEM, &why, should_be),
            Reading::Missing => {
                return Finding::not_applicable(ITEM, "The device does not tell of its cache.");
            }
        };
        let fua = queue_file(host, disk, "fua");
        match (cache.as_str(), fua.text()) {
            ("write through", _) => {
                let reason = "The kernel takes a write for durable once the device has answered. If \
                              the device has a cache that forgets, somebody set this wrongly.";
                Finding::new(ITEM, Severity::Good, "write through", should_be, reason)
            }
            ("write back", Some("1")) => {
                let reason = "The device makes single writes durable by itself.";
                Finding::new(ITEM, Severity::Good, "write back, FUA", should_be, reason)
            }
            ("write back", Some("0")) => {
                let reason = "Each durable write is followed by a flush of the device's whole cache. \
                              That is safe, and slower than a device with FUA or with a protected \
                              cache.";
                Finding::new(
                    ITEM,
                    Severity::Hint,
                    "write back, no FUA",
                    should_be,
                    reason,
                )
                .remedied("nothing on this host: choose another disk if flushes are slow")
            }
            _ => Finding::odd(ITEM, &format!("{cache}, fua {fua:?}"), should_be),
        }
    })
}
