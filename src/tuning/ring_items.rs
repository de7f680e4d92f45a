//! Items about the kernel and its rings.

use super::finding::{Finding, Severity};
use super::host::Host;
use crate::runtime::host::{self, KERNEL_NEEDED};
use crate::runtime::host_tree::Reading;

/// The capability that io_uring asks for where it is switched off for others.
const SYS_ADMIN_BIT: u64 = 1 << 21;

pub(super) fn kernel(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "kernel";
    let should_be = format!("{}.{} or newer", KERNEL_NEEDED.0, KERNEL_NEEDED.1);
    let release = match host.tree.read("proc/sys/kernel/osrelease") {
        Reading::Text(text) => text,
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Missing => {
            let why = "The kernel does not say what it is.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    let reason = "Older ones lack operations of io_uring that every core uses.";
    vec![match host::parse_kernel(&release) {
        None => Finding::odd(ITEM, &release, should_be),
        Some(version) if version >= KERNEL_NEEDED => {
            Finding::new(ITEM, Severity::Good, release, should_be, reason)
        }
        Some(_) => Finding::new(ITEM, Severity::Error, release, should_be, reason)
            .remedied("install a newer kernel"),
    }]
}

pub(super) fn switch(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "io-uring-switch";
    let should_be = "0, or 1 with the broker's group in kernel.io_uring_group";
    let reason = "The broker cannot run without io_uring. This is a decision about the security of \
                  the host, so it is left to you.";
    let text = match host.tree.read("proc/sys/kernel/io_uring_disabled") {
        Reading::Text(text) => text,
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Missing => {
            let why = "This kernel has no such switch (it came with 6.6).";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    let error = |found: String| {
        Finding::new(ITEM, Severity::Error, found, should_be, reason).remedied(
            "sysctl -w kernel.io_uring_disabled=0, or =1 with kernel.io_uring_group=<gid of the \
             broker>",
        )
    };
    vec![match text.as_str() {
        "0" => Finding::new(ITEM, Severity::Good, "0, for everybody", should_be, reason),
        "1" => match may_use_restricted(host) {
            Ok(true) => Finding::new(ITEM, Severity::Good, "1, but not for us", should_be, reason),
            Ok(false) => error("1, and this user is not in kernel.io_uring_group".to_owned()),
            Err(what) => Finding::odd(ITEM, &what, should_be),
        },
        "2" => error("2, for nobody".to_owned()),
        _ => Finding::odd(ITEM, &text, should_be),
    }]
}

/// Whether this user is in the group that may, or has the capability.
fn may_use_restricted(host: &Host) -> Result<bool, String> {
    let group = host.tree.read("proc/sys/kernel/io_uring_group");
    let status = host.tree.read("proc/self/status");
    let text = status.text().ok_or("no status of this process")?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let capabilities = field("CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    if capabilities.is_some_and(|bits| bits & SYS_ADMIN_BIT != 0) {
        return Ok(true);
    }
    let group = group.text().unwrap_or("-1");
    let group: i64 = group.parse().map_err(|_| group.to_owned())?;
    let own = [field("Gid:"), field("Groups:")];
    let mut groups = own.into_iter().flatten().flat_map(str::split_whitespace);
    Ok(group >= 0 && groups.any(|own| own.parse() == Ok(group)))
}

pub(super) fn operations(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "io-uring-operations";
    if !host.tree.is_running_host() {
        let why = "Only the host that this runs on can be asked.";
        return vec![Finding::not_applicable(ITEM, why)];
    }
    let reason = "A ring was opened as every core does it, and asked for the operations in use. \
                  Containers often forbid it by a seccomp profile.";
    vec![match host::check_ring() {
        None => Finding::new(ITEM, Severity::Good, "all there", "all there", reason),
        Some(missing) => Finding::new(ITEM, Severity::Error, missing.found, missing.needed, reason)
            .remedied(missing.remedies.join("; ")),
    }]
}

pub(super) fn idle_iowait(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "idle-iowait";
    let should_be = "no alarm on iowait or I/O pressure alone";
    let text = match host.tree.read("proc/stat") {
        Reading::Text(text) => text,
        Reading::Odd(why) => return vec![Finding::odd(ITEM, &why, should_be)],
        Reading::Missing => {
            let why = "The kernel does not account for iowait.";
            return vec![Finding::not_applicable(ITEM, why)];
        }
    };
    let blocked = text
        .lines()
        .find_map(|line| line.strip_prefix("procs_blocked "));
    let Some(blocked) = blocked.and_then(|number| number.trim().parse::<u64>().ok()) else {
        return vec![Finding::odd(ITEM, "no procs_blocked", should_be)];
    };
    let reason = "A core of the broker that waits for anything at all waits in its ring. Kernels before \
                  6.15 count that as waiting for a disk, and an idle broker shows as iowait, which is \
                  neither load nor a slow disk; later ones are told not to. After a broker was \
                  killed some of them keep showing it.";
    let found = format!("procs_blocked {blocked} at this moment");
    let remedy = "watch the broker's CPU time and its flush latency instead";
    vec![Finding::new(ITEM, Severity::Hint, found, should_be, reason).remedied(remedy)]
}
