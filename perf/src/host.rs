//! Where and with what a report was made.

use serde_json::{Value, json};

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
    fn a_host_has_cores_and_a_kernel() {
        let host = describe();
        assert!(host["cores"].as_u64() > Some(0), "{host}");
        assert_ne!(host["kernel"], "", "{host}");
    }
}
