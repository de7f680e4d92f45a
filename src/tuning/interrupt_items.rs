//! Items about interrupts: which CPUs take them, and who moves them about.

use super::cpu_set::{format_list, parse_list};
use super::finding::{Change, Finding, Severity};
use super::host::{Host, counted};
use super::target::Target;
use crate::runtime::host_tree::Reading;

/// From so many CPUs on it pays to keep one free of the broker.
const CPUS_TO_SPARE: usize = 8;
/// What lies in an interrupt's directory beside those who use it.
const OWN_FILES: [&str; 7] = [
    "affinity_hint",
    "effective_affinity",
    "effective_affinity_list",
    "node",
    "smp_affinity",
    "smp_affinity_list",
    "spurious",
];

/// Queues of disks that the kernel gives a CPU each: they complete where they were submitted, which
/// is what is wanted, and cannot be moved.
fn is_managed(user: &str) -> bool {
    user.starts_with("nvme") || user.contains("-req.") || user == "timer" || user == "cascade"
}

fn no_cpu_to_spare(item: &'static str, host: &Host) -> Finding {
    let cpus = host.online().len();
    if cpus < CPUS_TO_SPARE {
        let why = format!(
            "All {} serve; on so few it does not pay to keep one free of the broker.",
            counted(cpus, "CPU")
        );
        return Finding::not_applicable(item, why);
    }
    let reason = "Interrupts of the network and kernel threads run on the same CPUs as the broker's \
                  cores and interrupt them.";
    let found = format!("all {cpus} CPUs serve");
    Finding::new(
        item,
        Severity::Hint,
        found,
        "one core or more left free",
        reason,
    )
    .remedied("set cores.reserved=1, restart the broker, and look again with --config")
}

pub(super) fn interrupts(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "interrupts";
    let others = host.other_cpus();
    if others.is_empty() {
        return vec![no_cpu_to_spare(ITEM, host)];
    }
    let should_be = format!("on CPUs {}", format_list(&others));
    let (mut changes, mut users, mut known, mut odd) = (Vec::new(), Vec::new(), 0, None);
    for name in host.tree.names("proc/irq") {
        let Ok(number) = name.parse::<u32>() else {
            continue;
        };
        let entries = host.tree.names(&format!("proc/irq/{name}"));
        let user = entries
            .iter()
            .find(|entry| !OWN_FILES.contains(&entry.as_str()));
        let Some(user) = user.filter(|user| !is_managed(user)) else {
            continue;
        };
        let target = Target::Interrupt(number);
        let cpus = match host.tree.read(&target.path()) {
            Reading::Missing => continue,
            Reading::Odd(why) => {
                odd = Some(why);
                continue;
            }
            Reading::Text(text) => match parse_list(&text) {
                Some(cpus) if !cpus.is_empty() => cpus,
                _ => {
                    odd = Some(text);
                    continue;
                }
            },
        };
        known += 1;
        if !cpus.is_disjoint(&host.data_cpus) {
            users.push(user.clone());
            let value = format_list(&others);
            changes.push(Change { target, value });
        }
    }
    if let Some(what) = odd {
        return vec![Finding::odd(ITEM, &what, should_be)];
    }
    if known == 0 {
        let why = "No interrupt of a device can be moved on this host.";
        return vec![Finding::not_applicable(ITEM, why)];
    }
    let reason = "An interrupt on a CPU that serves takes its time away from requests; the CPUs \
                  that do not serve are there for this.";
    if changes.is_empty() {
        let found = counted(known, "interrupt");
        return vec![Finding::new(ITEM, Severity::Good, found, should_be, reason)];
    }
    let shown: Vec<&str> = users.iter().map(String::as_str).take(3).collect();
    let found = format!(
        "{} of {known} on CPUs that serve: {}{}",
        changes.len(),
        shown.join(", "),
        if users.len() > shown.len() {
            ", ..."
        } else {
            ""
        }
    );
    vec![Finding::new(ITEM, Severity::Warning, found, should_be, reason).changing(changes)]
}

pub(super) fn balancer(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "irqbalance";
    if host.other_cpus().is_empty() {
        let why = "All CPUs serve, so it does not matter who places interrupts.";
        return vec![Finding::not_applicable(ITEM, why)];
    }
    let is_process = |name: &String| name.bytes().all(|letter| letter.is_ascii_digit());
    let mut processes = host.tree.names("proc").into_iter().filter(is_process);
    let runs = processes.any(|process| {
        let name = host.tree.read(&format!("proc/{process}/comm"));
        name.text() == Some("irqbalance")
    });
    let banned = format_list(&host.data_cpus);
    let reason = "It moves interrupts every ten seconds, and back to the CPUs that serve.";
    let should_be = format!("not running, or kept off CPUs {banned}");
    if !runs {
        return vec![Finding::new(
            ITEM,
            Severity::Good,
            "not running",
            should_be,
            reason,
        )];
    }
    let path = ["etc/default/irqbalance", "etc/sysconfig/irqbalance"];
    let is_banned = path.iter().any(|path| {
        let text = host.tree.read(path);
        let mut lines = text.text().unwrap_or("").lines();
        lines.any(|line| {
            let value = line.trim().strip_prefix("IRQBALANCE_BANNED_CPULIST=");
            let cpus = value.and_then(|value| parse_list(value.trim_matches(['"', '\''])));
            cpus.is_some_and(|cpus| cpus.is_superset(&host.data_cpus))
        })
    });
    if is_banned {
        let found = "running, kept off";
        return vec![Finding::new(ITEM, Severity::Good, found, should_be, reason)];
    }
    let remedy = format!(
        "systemctl disable --now irqbalance, or IRQBALANCE_BANNED_CPULIST={banned} in \
         /etc/default/irqbalance (or /etc/sysconfig/irqbalance) and restart it"
    );
    vec![Finding::new(ITEM, Severity::Warning, "running", should_be, reason).remedied(remedy)]
}
