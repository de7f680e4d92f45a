//! What a run costs: CPU time, memory and writes of the broker, of the machine and of this tool,
//! read from /proc.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// USER_HZ, which is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const SECTOR_BYTES: u64 = 512;

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_ascii_whitespace();
    words.map(|word| word.parse().unwrap_or(0)).collect()
}

/// User and system CPU seconds of a process, all of its threads, from /proc/PID/stat.
fn process_cpu(stat: &str) -> Option<(f64, f64)> {
    // The name may hold blanks and brackets; what follows begins with field 3.
    let fields = numbers(stat.rsplit_once(')')?.1);
    let seconds = |index: usize| Some(*fields.get(index)? as f64 / TICKS_PER_SECOND);
    Some((seconds(11)?, seconds(12)?))
}

/// The value of `NAME: value` in a file of such lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_start_matches(':')
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Sectors written and flushes of a device, from /proc/diskstats.
fn device_counts(diskstats: &str, major: u64, minor: u64) -> Option<(u64, u64)> {
    let counts = diskstats.lines().map(numbers);
    let counts = counts
        .into_iter()
        .find(|line| line.starts_with(&[major, minor]))?;
    // major minor name, then fields 1 to 17: 7 is sectors written, 16 flushes.
    Some((*counts.get(9)?, counts.get(18).copied().unwrap_or(0)))
}

/// Everything that only grows, at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    broker_user: f64,
    broker_system: f64,
    broker_written: u64,
    device_sectors: u64,
    device_flushes: u64,
    machine_busy: f64,
    machine_iowait: f64,
    machine_steal: f64,
    own: f64,
}

/// The accounts of one run.
#[derive(Debug)]
pub(crate) struct Accounting {
    pid: Option<u32>,
    device: Option<(u64, u64)>,
    start: Option<Snapshot>,
    end: Option<Snapshot>,
    memory_start: u64,
    memory_max: u64,
    memory_end: u64,
}

impl Accounting {
    /// Of a process and of the device below a directory, where they are given.
    pub(crate) fn new(pid: Option<u32>, data_dir: Option<&PathBuf>) -> Result<Accounting, String> {
        if let Some(pid) = pid
            && read(format!("/proc/{pid}/stat")).is_none()
        {
            return Err(format!("--broker-pid: there is no process {pid}"));
        }
        let device = match data_dir {
            None => None,
            Some(directory) => {
                let metadata = std::fs::metadata(directory)
                    .map_err(|error| format!("--data-dir {}: {error}", directory.display()))?;
                Some((major(metadata.dev()), minor(metadata.dev())))
            }
        };
        Ok(Accounting {
            pid,
            device,
            start: None,
            end: None,
            memory_start: 0,
            memory_max: 0,
            memory_end: 0,
        })
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if let Some(pid) = self.pid {
            let stat = read(format!("/proc/{pid}/stat"));
            let cpu = stat.and_then(|stat| process_cpu(&stat));
            (snapshot.broker_user, snapshot.broker_system) = cpu.unwrap_or_default();
            let io = read(format!("/proc/{pid}/io"));
            snapshot.broker_written = io.and_then(|io| field(&io, "write_bytes")).unwrap_or(0);
        }
        if let Some((major, minor)) = self.device {
            let counts = read("/proc/diskstats");
            let counts = counts.and_then(|text| device_counts(&text, major, minor));
            (snapshot.device_sectors, snapshot.device_flushes) = counts.unwrap_or_default();
        }
        let stat = read("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        // cpu user nice system idle iowait irq softirq steal
        if let [_, user, nice, system, _, iowait, irq, softirq, steal, ..] = numbers(line)[..] {
            snapshot.machine_busy = (user + nice + system + irq + softirq) as f64;
            snapshot.machine_iowait = iowait as f64;
            snapshot.machine_steal = steal as f64;
        }
        let own = clock_gettime(ClockId::ProcessCPUTime);
        snapshot.own = own.tv_sec as f64 + own.tv_nsec as f64 / 1e9;
        snapshot
    }

    /// Resident memory of the broker, in bytes.
    fn memory(&self) -> u64 {
        let status = self.pid.and_then(|pid| read(format!("/proc/{pid}/status")));
        let kibibytes = status.and_then(|status| field(&status, "VmRSS"));
        kibibytes.unwrap_or(0) * 1024
    }

    /// The measured time begins.
    pub(crate) fn start(&mut self) {
        self.start = Some(self.snapshot());
        self.memory_start = self.memory();
        self.memory_max = self.memory_start;
    }

    /// Looks at the memory.
    pub(crate) fn sample(&mut self) {
        self.memory_max = self.memory_max.max(self.memory());
    }

    /// The measured time ends.
    pub(crate) fn stop(&mut self) {
        self.end = Some(self.snapshot());
        self.memory_end = self.memory();
        self.memory_max = self.memory_max.max(self.memory_end);
    }

    /// User and system CPU seconds of the broker in the measured time.
    pub(crate) fn broker_cpu(&self) -> Option<(f64, f64)> {
        let (start, end) = (self.start?, self.end?);
        self.pid?;
        let user = end.broker_user - start.broker_user;
        Some((user, end.broker_system - start.broker_system))
    }

    /// CPU seconds of this tool in the measured time.
    pub(crate) fn own_cpu(&self) -> f64 {
        match (self.start, self.end) {
            (Some(start), Some(end)) => end.own - start.own,
            _ => 0.0,
        }
    }

    /// Resident memory of the broker when the measured time began.
    pub(crate) fn memory_at_start(&self) -> u64 {
        self.memory_start
    }

    /// Resident memory of the broker at the end, and the most that was seen.
    pub(crate) fn broker_memory(&self) -> Option<(u64, u64)> {
        self.pid.map(|_| (self.memory_end, self.memory_max))
    }

    /// Everything, also per GB (10^9) and per million records.
    pub(crate) fn to_json(&self, bytes: u64, records: u64) -> Value {
        let (Some(start), Some(end)) = (self.start, self.end) else {
            return Value::Null;
        };
        let (gigabytes, millions) = (bytes as f64 / 1e9, records as f64 / 1e6);
        let per = |seconds: f64, amount: f64| (amount > 0.0).then(|| seconds / amount);
        let cost = |seconds: f64| {
            json!({
                "seconds": seconds,
                "per_gigabyte": per(seconds, gigabytes),
                "per_million_records": per(seconds, millions),
            })
        };
        let mut accounts = json!({ "tool_cpu": cost(end.own - start.own) });
        if let Some((user, system)) = self.broker_cpu() {
            let mut cpu = cost(user + system);
            cpu["user"] = json!(user);
            cpu["system"] = json!(system);
            accounts["broker_cpu"] = cpu;
            accounts["broker_memory_bytes"] = json!({
                "start": self.memory_start,
                "max": self.memory_max,
                "end": self.memory_end,
            });
            accounts["broker_written_bytes"] = json!(end.broker_written - start.broker_written);
        }
        if self.device.is_some() {
            let sectors = end.device_sectors - start.device_sectors;
            accounts["device_written_bytes"] = json!(sectors * SECTOR_BYTES);
            accounts["device_flushes"] = json!(end.device_flushes - start.device_flushes);
        }
        let ticks = |start: f64, end: f64| (end - start) / TICKS_PER_SECOND;
        accounts["machine_cpu_seconds"] = json!({
            "busy": ticks(start.machine_busy, end.machine_busy),
            "iowait": ticks(start.machine_iowait, end.machine_iowait),
            "steal": ticks(start.machine_steal, end.machine_steal),
        });
        accounts
    }
}

fn major(device: u64) -> u64 {
    u64::from(rustix::fs::major(device))
}

fn minor(device: u64) -> u64 {
    u64::from(rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20 0 9 0 7 8 9";
        assert_eq!(process_cpu(stat), Some((2.5, 1.25)));
        assert_eq!(process_cpu("42 (a"), None);
    }

    #[test]
    fn fields_and_devices_are_found() {
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t 12 kB\n", "VmRSS"), Some(12));
        assert_eq!(
            field("rchar: 1\nwrite_bytes: 77\n", "write_bytes"),
            Some(77)
        );
        let stats = " 253 0 zram0 1 0 8 0 9 9 9 9 9 9 9\n \
                     254 0 vda 1 2 3 4 5 6 777 8 9 10 11 12 13 14 15 88 17\n";
        assert_eq!(device_counts(stats, 254, 0), Some((777, 88)));
        assert_eq!(device_counts(stats, 8, 0), None);
    }

    #[test]
    fn this_process_can_be_accounted() {
        let mut accounting = Accounting::new(Some(std::process::id()), None).expect("a process");
        accounting.start();
        accounting.stop();
        let (user, system) = accounting.broker_cpu().expect("its CPU time");
        assert!(user >= 0.0 && system >= 0.0);
        assert!(accounting.broker_memory().expect("its memory").1 > 0);
        let accounts = accounting.to_json(1_000_000_000, 1);
        assert!(
            accounts["broker_cpu"]["per_gigabyte"].is_number(),
            "{accounts}"
        );
    }
}
