//! All items, in the order in which they are shown.

use super::finding::{Finding, Severity};
use super::host::Host;
use super::{block_items, cpu_items, directory_items, interrupt_items};
use super::{limit_items, memory_items, network_items, ring_items};

type Look = fn(&Host) -> Vec<Finding>;

const ITEMS: &[(&str, Look)] = &[
    ("kernel", ring_items::kernel),
    ("io-uring-switch", ring_items::switch),
    ("io-uring-operations", ring_items::operations),
    ("idle-iowait", ring_items::idle_iowait),
    ("open-files", limit_items::open_files),
    ("locked-memory", limit_items::locked_memory),
    ("aio-max-nr", limit_items::asynchronous_io),
    ("memory", memory_items::memory),
    ("swap", memory_items::swap),
    ("swappiness", memory_items::swappiness),
    ("transparent-huge-pages", memory_items::huge_pages),
    ("cpu-governor", cpu_items::governor),
    ("cpu-quota", cpu_items::quota),
    ("clock-source", cpu_items::clock_source),
    ("hyperthreads", cpu_items::hyperthreads),
    ("numa-nodes", cpu_items::memory_nodes),
    ("interrupts", interrupt_items::interrupts),
    ("irqbalance", interrupt_items::balancer),
    ("file-system", directory_items::file_system),
    ("mount-options", directory_items::mount_options),
    ("direct-io", directory_items::alignment),
    ("flush-latency", directory_items::flush_latency),
    ("write-cache", block_items::write_cache),
    ("disk-scheduler", block_items::scheduler),
    ("disk-merging", block_items::merging),
    ("listen-backlog", network_items::listen_backlog),
    ("syn-backlog", network_items::syn_backlog),
    ("receive-steering", network_items::receive_steering),
    ("flow-steering", network_items::flow_steering),
    ("transmit-queues", network_items::transmit_queues),
];

/// The names of all items.
pub fn item_names() -> impl Iterator<Item = &'static str> {
    ITEMS.iter().map(|(name, _)| *name)
}

/// Looks at the items named, or at all when none is.
#[must_use]
pub fn check(host: &Host, only: &[String]) -> Vec<Finding> {
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let wanted = ITEMS.iter().filter(|(name, _)| is_wanted(name));
    wanted.flat_map(|(_, look)| look(host)).collect()
}

/// Whether something is worse than a hint.
#[must_use]
pub fn needs_attention(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity > Severity::Hint)
}
