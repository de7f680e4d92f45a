//! Items about what a process may have: descriptors, locked memory.

use super::finding::{Finding, Severity};
use super::host::Host;
use crate::runtime::host::{DESCRIPTORS_NEEDED, MEMLOCK_FLOOR_BYTES, MEMLOCK_PER_CORE_BYTES};
use crate::runtime::host_tree::Reading;

/// Room for the default number of connections and as many segments.
const DESCRIPTORS_COMFORTABLE: u64 = 65_536;

/// Soft and hard limit of this process, which a broker started from the same shell inherits.
fn limits(host: &Host, name: &str) -> Result<(u64, u64), Option<String>> {
    let text = match host.tree.read("proc/self/limits") {
        Reading::Text(text) => text,
        Reading::Missing => return Err(None),
        Reading::Odd(why) => return Err(Some(why)),
    };
    let row = text.lines().find_map(|line| line.strip_prefix(name));
    let row = row.ok_or_else(|| Some(format!("no line {name}")))?;
    let mut numbers = row.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(soft), Some(hard)) => Ok((soft, hard)),
        _ => Err(Some(row.trim().to_owned())),
    }
}

fn shown(limit: u64) -> String {
    match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    }
}

fn unknown(item: &'static str, why: Option<String>, should_be: &str) -> Vec<Finding> {
    vec![match why {
        Some(what) => Finding::odd(item, &what, should_be),
        None => Finding::not_applicable(item, "The kernel does not tell of limits."),
    }]
}

pub(super) fn open_files(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "open-files";
    let should_be = format!("{DESCRIPTORS_COMFORTABLE} or more");
    // The broker raises its own soft limit.
    let hard = match limits(host, "Max open files") {
        Ok((_, hard)) => hard,
        Err(why) => return unknown(ITEM, why, &should_be),
    };
    let reason = "A descriptor for every connection and every segment in use. This is the limit of \
                  this shell; a service has its own.";
    let severity = match hard {
        ..DESCRIPTORS_NEEDED => Severity::Error,
        hard if hard < DESCRIPTORS_COMFORTABLE => Severity::Warning,
        _ => Severity::Good,
    };
    let finding = Finding::new(ITEM, severity, shown(hard), should_be, reason);
    vec![match severity {
        Severity::Good => finding,
        _ => finding.remedied(
            "shell: ulimit -n 1048576; systemd: LimitNOFILE=1048576; container: --ulimit \
             nofile=1048576:1048576",
        ),
    }]
}

pub(super) fn locked_memory(host: &Host) -> Vec<Finding> {
    const ITEM: &str = "locked-memory";
    let cores = host.data_cpus.len() as u64;
    let needed = MEMLOCK_FLOOR_BYTES.max(MEMLOCK_PER_CORE_BYTES.saturating_mul(cores));
    let should_be = format!("{needed} bytes or more");
    let soft = match limits(host, "Max locked memory") {
        Ok((soft, _)) => soft,
        Err(why) => return unknown(ITEM, why, &should_be),
    };
    let reason = "A broker built with the feature glommio locks memory for the rings of each core and \
                  does not start without enough of it; others lock none. This is the limit of this \
                  shell; a service has its own.";
    let severity = match soft {
        soft if soft < needed && !cfg!(feature = "glommio") => Severity::Hint,
        ..MEMLOCK_FLOOR_BYTES => Severity::Error,
        soft if soft < needed => Severity::Warning,
        _ => Severity::Good,
    };
    let finding = Finding::new(ITEM, severity, shown(soft), should_be, reason);
    vec![match severity {
        Severity::Good => finding,
        _ => finding.remedied(
            "shell: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; container: --ulimit \
             memlock=-1:-1",
        ),
    }]
}

pub(super) fn asynchronous_io(_: &Host) -> Vec<Finding> {
    let why = "fs.aio-max-nr bounds an older interface: the broker uses io_uring alone.";
    vec![Finding::not_applicable("aio-max-nr", why)]
}
