//! Items about the network: queues of new connections, and which CPUs handle packets.

use std::collections::BTreeSet;

use super::cpu_set::{format_mask, parse_mask};
use super::finding::{Change, Finding, Severity};
use super::host::{Host, LeastNumber, counted};
use super::target::Target;
use crate::runtime::host_tree::Reading;

/// Connections that may wait to be accepted; what the broker asks for when it listens.
const BACKLOG: u64 = 4096;
/// A device with fewer receive queues than one for so many CPUs is a bottleneck.
const CPUS_PER_QUEUE: usize = 4;
/// Flows remembered, over all devices.
const FLOWS: u64 = 32_768;

pub(super) fn listen_backlog(host: &Host) -> Vec<Finding> {
    let number = LeastNumber {
        item: "listen-backlog",
        target: Target::ListenBacklog,
        least: BACKLOG,
        severity: Severity::Warning,
        reason: "When many clients come at once, after a restart for instance, those beyond this \
                 queue wait for seconds and try again.",
    };
    vec![number.look(&host.tree)]
}

pub(super) fn syn_backlog(host: &Host) -> Vec<Finding> {
    let number = LeastNumber {
        item: "syn-backlog",
        target: Target::SynBacklog,
        least: BACKLOG,
        severity: Severity::Hint,
        reason: "Connections that are only being opened and find this queue full are dropped, and \
                 their clients try again a second later.",
    };
    vec![number.look(&host.tree)]
}

/// A network device of this host's own, with its queues.
struct Device {
    name: String,
    receive: Vec<u32>,
    transmit: Vec<u32>,
}

/// Bridges, tunnels and the loopback have no device behind them.
fn devices(host: &Host) -> Vec<Device> {
    let numbered = |names: &[String], prefix: &str| -> Vec<u32> {
        let numbers = names
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok());
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    let names = host.tree.names("sys/class/net").into_iter();
    names
        .filter(|name| host.tree.exists(&format!("sys/class/net/{name}/device")))
        .map(|name| {
            let queues = host.tree.names(&format!("sys/class/net/{name}/queues"));
            Device {
                receive: numbered(&queues, "rx-"),
                transmit: numbered(&queues, "tx-"),
                name,
            }
        })
        .collect()
}

fn each_device(host: &Host, item: &'static str, look: impl Fn(&Device) -> Finding) -> Vec<Finding> {
    let devices = devices(host);
    if devices.is_empty() {
        let why = "There is no network device with hardware behind it.";
        return vec![Finding::not_applicable(item, why)];
    }
    devices
        .iter()
        .map(|device| look(device).of(&device.name))
        .collect()
}

fn needs_steering(host: &Host, device: &Device) -> bool {
    !device.receive.is_empty() && device.receive.len() * CPUS_PER_QUEUE < host.online().len()
}

fn enough_queues(item: &'static str, host: &Host, device: &Device) -> Finding {
    let found = format!(
        "{} for {}",
        counted(device.receive.len(), "receive queue"),
        counted(host.online().len(), "CPU")
    );
    let reason = "The device has queues enough to spread packets over the CPUs by itself.";
    Finding::new(item, Severity::Good, found, "steering not needed", reason)
}

/// The masks of a device's queues, by queue.
fn masks(
    host: &Host,
    targets: impl Iterator<Item = Target>,
) -> Result<Vec<(Target, BTreeSet<usize>)>, String> {
    let mut found = Vec::new();
    for target in targets {
        match host.tree.read(&target.path()) {
            Reading::Missing => {}
            Reading::Odd(why) => return Err(why),
            Reading::Text(text) => {
                let mask = parse_mask(&text).ok_or(text)?;
                found.push((target, mask));
            }
        }
    }
    Ok(found)
}

pub(super) fn receive_steering(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "receive-steering";
    let should_be = "RPS over the CPUs that serve";
    each_device(host, ITEM, |device| {
        if !needs_steering(host, device) {
            return enough_queues(ITEM, host, device);
        }
        let queue = |queue: &u32| Target::ReceiveSteering(device.name.clone(), *queue);
        let queues = match masks(host, device.receive.iter().map(queue)) {
            Err(what) => return Finding::odd(ITEM, &what, should_be),
            Ok(queues) if queues.is_empty() => {
                return Finding::not_applicable(ITEM, "The kernel is built without RPS.");
            }
            Ok(queues) => queues,
        };
        let off: Vec<Target> = queues
            .into_iter()
            .filter(|(_, mask)| mask.is_empty())
            .map(|(target, _)| target)
            .collect();
        let reason = "Few CPUs take the packets of all connections, and become the limit before \
                      the broker's cores do.";
        let found = format!(
            "{} for {}, RPS off on {}",
            counted(device.receive.len(), "receive queue"),
            counted(host.online().len(), "CPU"),
            off.len()
        );
        if off.is_empty() {
            return Finding::new(ITEM, Severity::Good, found, should_be, reason);
        }
        let value = format_mask(&host.data_cpus);
        let change = |target| Change {
            target,
            value: value.clone(),
        };
        Finding::new(ITEM, Severity::Hint, found, should_be, reason)
            .changing(off.into_iter().map(change))
    })
}

pub(super) fn flow_steering(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "flow-steering";
    let should_be = format!("RFS with {FLOWS} flows");
    each_device(host, ITEM, |device| {
        if !needs_steering(host, device) {
            return enough_queues(ITEM, host, device);
        }
        let share = (FLOWS / device.receive.len() as u64).max(1);
        let queue = |queue: &u32| (Target::FlowSteering(device.name.clone(), *queue), share);
        let wanted = device.receive.iter().map(queue);
        let mut changes = Vec::new();
        let mut known = 0;
        for (target, least) in wanted.chain([(Target::FlowEntries, FLOWS)]) {
            match host.tree.read(&target.path()) {
                Reading::Missing => {}
                Reading::Odd(why) => return Finding::odd(ITEM, &why, should_be.clone()),
                Reading::Text(text) => match text.parse::<u64>() {
                    Err(_) => return Finding::odd(ITEM, &text, should_be.clone()),
                    Ok(number) => {
                        known += 1;
                        let value = least.to_string();
                        changes.extend((number < least).then_some(Change { target, value }));
                    }
                },
            }
        }
        if known == 0 {
            return Finding::not_applicable(ITEM, "The kernel is built without RFS.");
        }
        let reason = "With RFS the packets of a connection are handled on the CPU whose core reads \
                      it, so that they are in its cache.";
        if changes.is_empty() {
            return Finding::new(ITEM, Severity::Good, "on", should_be.clone(), reason);
        }
        let found = format!("{} too small", counted(changes.len(), "table"));
        Finding::new(ITEM, Severity::Hint, found, should_be.clone(), reason).changing(changes)
    })
}

pub(super) fn transmit_queues(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "transmit-queues";
    let should_be = "each CPU sends through one queue of its own (XPS)";
    each_device(host, ITEM, |device| {
        if device.transmit.len() < 2 {
            return Finding::not_applicable(ITEM, "The device has one transmit queue.");
        }
        let queue = |queue: &u32| Target::TransmitQueue(device.name.clone(), *queue);
        let queues = match masks(host, device.transmit.iter().map(queue)) {
            Err(what) => return Finding::odd(ITEM, &what, should_be),
            Ok(queues) if queues.is_empty() => {
                return Finding::not_applicable(ITEM, "The kernel is built without XPS.");
            }
            Ok(queues) => queues,
        };
        let off = queues.iter().filter(|(_, mask)| mask.is_empty()).count();
        let found = format!("{}, XPS off on {off}", counted(queues.len(), "queue"));
        let reason = "CPUs that send through the same queue wait for its lock.";
        // What the driver or somebody else has spread is left as it is.
        if off < queues.len() {
            return Finding::new(ITEM, Severity::Good, found, should_be, reason);
        }
        let mut shares = vec![BTreeSet::new(); queues.len()];
        for (at, cpu) in host.online().into_iter().enumerate() {
            shares[at % queues.len()].insert(cpu);
        }
        let changes = queues
            .into_iter()
            .zip(shares)
            .filter(|(_, share)| !share.is_empty());
        let changes = changes.map(|((target, _), share)| Change {
            target,
            value: format_mask(&share),
        });
        Finding::new(ITEM, Severity::Hint, found, should_be, reason).changing(changes)
    })
}
