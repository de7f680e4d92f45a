//! Items about CPUs: frequency, clock, hyperthreads, memory nodes, quota.

use std::collections::BTreeMap;

use super::cpu_set::format_list;
use super::finding::{Change, Finding, Severity};
use super::host::{Host, counted};
use super::target::Target;
use super::topology::Topology;
use crate::runtime::control_group;
use crate::runtime::host::FAST_CLOCK_SOURCES;
use crate::runtime::host_tree::Reading;

const GOVERNOR: &str = "performance";

pub(super) fn governor(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "cpu-governor";
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let (mut changes, mut odd) = (Vec::new(), None);
    for name in host.tree.names("sys/devices/system/cpu") {
        let Some(cpu) = name.strip_prefix("cpu").and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let target = Target::Governor(cpu);
        match host.tree.read(&target.path()) {
            Reading::Missing => {}
            Reading::Odd(why) => odd = Some(why),
            Reading::Text(text) => match target.value(&text) {
                None => odd = Some(text),
                Some(value) => {
                    *found.entry(value.clone()).or_default() += 1;
                    if value != GOVERNOR && has_governor(host, cpu) {
                        let value = GOVERNOR.to_owned();
                        changes.push(Change { target, value });
                    }
                }
            },
        }
    }
    if let Some(what) = odd {
        return vec![Finding::odd(ITEM, &what, GOVERNOR)];
    }
    if found.is_empty() {
        let why = "The kernel does not govern the frequency of this host's CPUs, as is usual on a \
                   virtual machine.";
        return vec![Finding::not_applicable(ITEM, why)];
    }
    let is_good = found.keys().all(|name| name == GOVERNOR);
    let list: Vec<String> = found
        .iter()
        .map(|(name, cpus)| format!("{name} on {}", counted(*cpus, "CPU")))
        .collect();
    let severity = if is_good {
        Severity::Good
    } else {
        Severity::Warning
    };
    let reason = "A core of the broker is idle between requests, so other governors slow it down \
                  just when the next request comes.";
    let mut finding = Finding::new(ITEM, severity, list.join(", "), GOVERNOR, reason);
    if !is_good && changes.is_empty() {
        finding =
            finding.remedied("the driver offers no such governor: look in the firmware's setup");
    }
    vec![finding.changing(changes)]
}

/// A driver that does not list its governors is asked by trying.
fn has_governor(host: &Host, cpu: u32) -> bool {
    let path = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_available_governors");
    match host.tree.read(&path) {
        Reading::Text(text) => text.split_whitespace().any(|name| name == GOVERNOR),
        _ => true,
    }
}

pub(super) fn clock_source(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "clock-source";
    let should_be = FAST_CLOCK_SOURCES.join(" or ");
    let target = Target::ClockSource;
    let current = match host.tree.read(&target.path()) {
        Reading::Missing => {
            let why = "The kernel does not say which clock it reads.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Text(text) => match target.value(&text) {
            None => return vec![Finding::odd(ITEM, &text, should_be)],
            Some(value) => value,
        },
    };
    let reason = "The broker looks at the clock at every turn. These are read without a system \
                  call, others cost one each time.";
    if FAST_CLOCK_SOURCES.contains(&current.as_str()) {
        return vec![Finding::new(
            ITEM,
            Severity::Good,
            current,
            should_be,
            reason,
        )];
    }
    let path = "sys/devices/system/clocksource/clocksource0/available_clocksource";
    let available = host.tree.read(path);
    let words: Vec<&str> = available.text().unwrap_or("").split_whitespace().collect();
    let best = FAST_CLOCK_SOURCES.iter().find(|name| words.contains(name));
    let finding = Finding::new(ITEM, Severity::Warning, current, should_be, reason);
    vec![match best {
        Some(name) => finding.changing([Change {
            target,
            value: (*name).to_owned(),
        }]),
        None => finding.remedied(
            "the kernel offers no fast clock: boot with tsc=reliable if the hardware's is sound, \
             or ask the provider of the virtual machine",
        ),
    }]
}

pub(super) fn hyperthreads(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "hyperthreads";
    let cpus: Vec<usize> = host.data_cpus.iter().copied().collect();
    let topology = Topology::read(&host.tree, &cpus);
    if !topology.knows_cores() {
        let why = "The kernel does not say which CPUs are hyperthreads of one core.";
        return vec![Finding::not_applicable(ITEM, why)];
    }
    let sharing = topology.sharing(&host.data_cpus);
    let reason = "Two cores of the broker on one physical core share its caches and its units: \
                  more throughput together, longer tails each.";
    if sharing.is_empty() {
        let found = format!("{} on cores of their own", counted(cpus.len(), "CPU"));
        return vec![Finding::new(
            ITEM,
            Severity::Good,
            found,
            "either way",
            reason,
        )];
    }
    let found = format!("CPUs {} share cores", format_list(&sharing));
    vec![
        Finding::new(
            ITEM,
            Severity::Hint,
            found,
            "one of each, for flat tails",
            reason,
        )
        .remedied("set cores.hyperthreads=false for latency, leave it for throughput"),
    ]
}

pub(super) fn memory_nodes(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "numa-nodes";
    let cpus: Vec<usize> = host.data_cpus.iter().copied().collect();
    let nodes = Topology::read(&host.tree, &cpus).nodes_of(&host.data_cpus);
    let reason = "A request that crosses between nodes pays for memory that is further away. Two \
                  brokers, one on each node, avoid it.";
    match nodes.len() {
        0 => {
            let why = "The kernel tells of no memory nodes.";
            vec![Finding::not_applicable(ITEM, why)]
        }
        1 => vec![Finding::new(
            ITEM,
            Severity::Good,
            "1 node",
            "1 node",
            reason,
        )],
        count => {
            let found = format!("cores on nodes {}", format_list(&nodes));
            let remedy = "run one broker per node: cores.list with the CPUs of one node, as \
                          /sys/devices/system/node/node0/cpulist shows them";
            let should_be = format!("1 node, not {count}");
            vec![Finding::new(ITEM, Severity::Hint, found, should_be, reason).remedied(remedy)]
        }
    }
}

pub(super) fn quota(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "cpu-quota";
    let cores = host.data_cpus.len();
    let should_be = format!("none, or {cores} and more");
    let reason = "A control group that has used up its quota stands still until the next period, \
                  up to 100 ms, with every connection on it.";
    let Some(quota) = control_group::cpu_quota(&host.tree) else {
        return vec![Finding::new(
            ITEM,
            Severity::Good,
            "none",
            should_be,
            reason,
        )];
    };
    let found = format!("{quota:.2} CPUs for {}", counted(cores, "core"));
    if quota >= cores as f64 {
        return vec![Finding::new(ITEM, Severity::Good, found, should_be, reason)];
    }
    let remedy = format!(
        "give the group whole CPUs instead (cpuset, Kubernetes: static CPU manager), raise the \
         quota, or set cores.list={}",
        (quota.floor() as usize).max(1)
    );
    vec![Finding::new(ITEM, Severity::Warning, found, should_be, reason).remedied(remedy)]
}
