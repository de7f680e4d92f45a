//! Where and with what a report was made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Failure;
use crate::run::wall_ms;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Processor, cores, memory, kernel.
pub(crate) fn describe() -> Value {
    let cpu = read("/proc/cpuinfo");
    let memory = read("/proc/meminfo");
    let memory = value_of(&memory, "MemTotal").unwrap_or_default().to_owned();
    let kibibytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    json!({
        "name": read("/proc/sys/kernel/hostname").trim(),
        "cpu": value_of(&cpu, "model name"),
        "is_virtual": value_of(&cpu, "flags").is_some_and(|flags| flags.contains("hypervisor")),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": kibibytes * 1024,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": read("/proc/loadavg").split(' ').next(),
    })
}

/// What kind of disk is below a directory, like "nvme, solid state".
pub(crate) fn disk_kind(directory: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let device = std::fs::metadata(directory).map_err(failed)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(place) = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return Ok("no block device".to_owned());
    };
    // A partition has its queue one level up.
    let queues = [place.join("queue"), place.join("../queue")];
    let rotational = queues
        .iter()
        .find_map(|queue| std::fs::read_to_string(queue.join("rotational")).ok());
    Ok(disk_words(&place.to_string_lossy(), rotational.as_deref()))
}

/// From where a device stands in /sys, and what its queue says of itself.
fn disk_words(place: &str, rotational: Option<&str>) -> String {
    let buses = [
        "nvme",
        "virtio",
        "ata",
        "usb",
        "mmc",
        "virtual/block/dm-",
        "virtual/block/md",
    ];
    let bus = buses.iter().find(|bus| place.contains(&format!("/{bus}")));
    let bus = bus.map_or("other", |bus| bus.trim_start_matches("virtual/block/"));
    let motion = match rotational.map(str::trim) {
        Some("0") => "solid state",
        Some("1") => "rotational",
        _ => "unknown",
    };
    format!("{}, {motion}", bus.trim_end_matches('-'))
}

/// This tool and how it was called.
pub(crate) fn tool() -> Value {
    json!({
        "name": "percolog-perf",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("PERCOLOG_PERF_COMMIT"),
        "is_optimized": !cfg!(debug_assertions),
        "command": std::env::args().collect::<Vec<_>>(),
    })
}

/// Now, as text of ISO 8601 in UTC.
pub(crate) fn time() -> String {
    let seconds = wall_ms().div_euclid(1_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(19_722), (2023, 12, 31));
        assert_eq!(civil(-1), (1969, 12, 31));
    }

    #[test]
    fn disks_have_a_kind() {
        let kind = |place, rotational| disk_words(place, Some(rotational));
        assert_eq!(
            kind("/sys/devices/pci0/virtio2/block/vda/vda1", "1\n"),
            "virtio, rotational"
        );
        assert_eq!(
            kind("/sys/devices/pci0/nvme/nvme0/nvme0n1", "0\n"),
            "nvme, solid state"
        );
        assert_eq!(
            kind("/sys/devices/virtual/block/dm-0", "0"),
            "dm, solid state"
        );
        assert_eq!(disk_words("/sys/devices/x", None), "other, unknown");
        assert!(disk_kind(Path::new("/nowhere/at/all")).is_err());
        assert!(disk_kind(Path::new("/")).is_ok());
    }

    #[test]
    fn a_host_has_cores_and_a_kernel() {
        let host = describe();
        assert!(host["cores"].as_u64() > Some(0), "{host}");
        assert_ne!(host["kernel"], "", "{host}");
    }
}
