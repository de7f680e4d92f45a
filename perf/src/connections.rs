//! Idle connections: what each takes of the broker's memory, and what all of them take of its CPU.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::accounting::Accounting;
use crate::client::{Client, Failure};
use crate::options::ConnectionsOptions;

/// Files this tool has open besides its connections.
const OTHER_FILES: u64 = 64;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Idle {
    connections: u32,
    opened_after: Duration,
    idle: Duration,
    /// Connections that the broker had closed at the end.
    pub(crate) lost: u32,
    before_bytes: u64,
    after_bytes: u64,
    cpu_seconds: Option<f64>,
}

/// Raises the soft limit of open files to what `connections` need.
fn allow(connections: u32) -> Result<(), Failure> {
    let needed = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        return Err(format!(
            "{connections} connections need {needed} open files, the hard limit is {maximum}: \
             ulimit -Hn {needed}"
        ));
    }
    let raised = rustix::process::Rlimit {
        current: Some(needed),
        ..limit
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| format!("cannot raise the limit of open files to {needed}: {error}"))
}

/// Opens them all, holds them, and asks each once more at the end.
pub(crate) fn measure(options: &ConnectionsOptions) -> Result<(Idle, Accounting), Failure> {
    let idle = Duration::try_from_secs_f64(options.idle)
        .map_err(|error| format!("--idle {}: {error}", options.idle))?;
    allow(options.connections)?;
    let account = || Accounting::new(options.run.broker_pid, options.run.data_dir.as_ref());
    let (mut opening, mut holding) = (account()?, account()?);
    // What the first connection of all allocates for good is not theirs.
    drop(Client::open(&options.run.bootstrap)?);
    opening.start();
    let started = Instant::now();
    let mut clients = Vec::new();
    for number in 0..options.connections {
        let client = Client::open(&options.run.bootstrap);
        clients.push(client.map_err(|reason| format!("connection {number}: {reason}"))?);
    }
    let opened_after = started.elapsed();
    holding.start();
    std::thread::sleep(idle);
    holding.stop();
    let mut lost = 0;
    for client in &mut clients {
        lost += u32::from(client.agree_on_versions().is_err());
    }
    let measured = Idle {
        connections: options.connections,
        opened_after,
        idle,
        lost,
        before_bytes: opening.memory_at_start(),
        after_bytes: holding.broker_memory().map_or(0, |(end, _)| end),
        cpu_seconds: holding.broker_cpu().map(|(user, system)| user + system),
    };
    Ok((measured, holding))
}

impl Idle {
    /// Resident memory of the broker that came with each of them; none if its process is not known.
    fn kibibytes_each(&self) -> Option<f64> {
        self.cpu_seconds?;
        let grown = self.after_bytes as f64 - self.before_bytes as f64;
        Some(grown / 1_024.0 / f64::from(self.connections))
    }

    /// CPU time of the broker while all were idle, in parts of one core.
    fn core_percent(&self) -> Option<f64> {
        Some(100.0 * self.cpu_seconds? / self.idle.as_secs_f64())
    }

    /// For the terminal.
    pub(crate) fn to_lines(&self) -> String {
        let mut text = format!(
            "connections\n  {:<22} {} in {:.2} s, idle for {:.1} s\n",
            "opened",
            self.connections,
            self.opened_after.as_secs_f64(),
            self.idle.as_secs_f64()
        );
        if let (Some(kibibytes), Some(percent)) = (self.kibibytes_each(), self.core_percent()) {
            text += &format!("  {:<22} {kibibytes:.2} KiB each\n", "broker memory");
            text += &format!(
                "  {:<22} {percent:.2} % of a core\n",
                "broker CPU while idle"
            );
        }
        if self.lost > 0 {
            text += &format!(
                "  {:<22} {} connections\n",
                "CLOSED BY THE BROKER", self.lost
            );
        }
        text
    }

    /// For the report.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "count": self.connections,
            "opened_seconds": self.opened_after.as_secs_f64(),
            "idle_seconds": self.idle.as_secs_f64(),
            "lost": self.lost,
            "resident_kibibytes_each": self.kibibytes_each(),
            "idle_core_percent": self.core_percent(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(cpu_seconds: Option<f64>) -> Idle {
        Idle {
            connections: 1_000,
            opened_after: Duration::from_secs(1),
            idle: Duration::from_secs(5),
            lost: 0,
            before_bytes: 100 << 20,
            after_bytes: (100 << 20) + 6_144_000,
            cpu_seconds,
        }
    }

    #[test]
    fn memory_is_what_came_with_them_divided_by_their_number() {
        let report = idle(Some(0.1)).to_json();
        assert_eq!(report["resident_kibibytes_each"], 6.0);
        assert_eq!(report["idle_core_percent"], 2.0);
        assert!(idle(Some(0.1)).to_lines().contains("6.00 KiB each"));
    }

    #[test]
    fn a_process_that_is_not_known_has_no_memory() {
        let report = idle(None).to_json();
        assert!(report["resident_kibibytes_each"].is_null(), "{report}");
        assert!(!idle(None).to_lines().contains("KiB"));
    }

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let before = getrlimit(Resource::Nofile);
        if before.current.is_none_or(|current| current > OTHER_FILES) {
            allow(1).expect("it is high enough");
            assert_eq!(getrlimit(Resource::Nofile).current, before.current);
        }
    }

    #[test]
    fn more_than_the_hard_limit_is_refused_in_words() {
        if let Some(maximum) = getrlimit(Resource::Nofile).maximum
            && let Ok(connections) = u32::try_from(maximum)
        {
            let refusal = allow(connections).expect_err("too many");
            assert!(refusal.contains("the hard limit is"), "{refusal}");
        }
    }
}
